//! What the application says while a consumer reads: pause, resume, other partitions, up to where; and what it is
//! told when records are gone. In virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{FetchRequest, RequestHeader};
use kafka_protocol::protocol::{Decodable, HeaderVersion};
use ottla::testing::{ApiKey, Cluster, Fault};
use ottla::{Client, Consumer, ErrorKind, OffsetSpec, Record, Start, TopicPartition};
use ottla_scenarios::hostile::Hostile;
use ottla_scenarios::steps::{acked, cluster, connect, ms, secs, small_batches};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

/// So many records in a partition, each a batch of its own, written by somebody else.
async fn write(cluster: &Cluster, topic: &str, partition: i32, count: usize) {
    let client = connect(virtual_cluster::client(cluster, 77)).await;
    let producer = small_batches(&client).build().unwrap();
    for _ in 0..count {
        acked(&producer, Record::to(topic).partition(partition).value(&[7; 700])).await;
    }
}

async fn client(cluster: &Cluster) -> Client {
    connect(virtual_cluster::client(cluster, 1)).await
}

/// The next batch: its partition, and its first offset.
async fn next(consumer: &mut Consumer) -> (i32, i64) {
    let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
    (batch.partition(), batch.base_offset())
}

/// What comes within some time.
async fn all_within(consumer: &mut Consumer, time: Duration) -> Vec<(i32, i64)> {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(time, async {
        loop {
            all.push(next(consumer).await);
        }
    })
    .await;
    all
}

fn of(partition: i32, offsets: std::ops::Range<i64>) -> Vec<(i32, i64)> {
    offsets.map(|offset| (partition, offset)).collect()
}

fn named(partition: i32) -> TopicPartition {
    TopicPartition { topic: "t".into(), partition }
}

/// Partitions that each Fetch since the last call has named.
fn fetches(hostile: &Hostile) -> Vec<BTreeSet<i32>> {
    let read = |(version, bytes): (i16, Vec<u8>)| {
        let mut bytes = Bytes::from(bytes);
        RequestHeader::decode(&mut bytes, FetchRequest::header_version(version)).unwrap();
        let fetch = FetchRequest::decode(&mut bytes, version).unwrap();
        let parts = fetch.topics.iter().flat_map(|topic| &topic.partitions);
        parts.map(|p| p.partition).collect()
    };
    hostile.requests().into_iter().map(read).collect()
}

/// A partition whose records are deleted is read on where the policy says, and never without a word.
#[tokio::test(start_paused = true)]
async fn what_is_gone_is_told_before_reading_goes_on() {
    for (start, first) in [(Start::Earliest, 30), (Start::Timestamp(0), 30), (Start::Latest, 40)] {
        let cluster = cluster(1, 1);
        write(&cluster, "t", 0, 10).await;
        let client = client(&cluster).await;
        let reader = client.consumer().topics(["t"]).start(start).max_bytes(1 << 10);
        let mut consumer = reader.max_partition_bytes(1 << 10).build().unwrap();
        until("a start", || consumer.position("t", 0).is_some()).await;
        let begun = if start == Start::Latest { 10 } else { 0 };
        assert_eq!(consumer.position("t", 0), Some(begun), "{start:?}");
        // Nobody can fetch while records come and go.
        let hold = cluster.faults().on(1, ApiKey::FETCH, Fault::CutBeforeAppend, 1_000);
        tokio::time::sleep(secs(1)).await;
        write(&cluster, "t", 0, 30).await;
        cluster.delete_records("t", 0, 30).unwrap();
        cluster.faults().remove(hold);
        let read = loop {
            match within("news", consumer.next()).await.unwrap() {
                // What was fetched before is handed out before.
                Ok(batch) => assert!(batch.base_offset() < 30, "{start:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(read.kind(), ErrorKind::OffsetOutOfRange, "{start:?}: {read}");
        assert!(!read.is_fatal() && read.message().contains("partition 0"), "{read}");
        write(&cluster, "t", 0, 1).await;
        assert_eq!(next(&mut consumer).await, (0, first), "{start:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_waits_and_is_neither_lost_nor_fetched() {
    let cluster = cluster(1, 2);
    write(&cluster, "t", 0, 5).await;
    let hostile = Hostile::new(&cluster);
    hostile.watch(ApiKey::FETCH);
    let client = connect(hostile.client(&cluster)).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    assert_eq!(next(&mut consumer).await, (0, 0));
    consumer.pause([("t", 0)]).unwrap();
    assert_eq!(consumer.paused(), [named(0)]);
    assert_eq!(all_within(&mut consumer, secs(5)).await, []);
    fetches(&hostile);
    write(&cluster, "t", 0, 2).await;
    write(&cluster, "t", 1, 3).await;
    assert_eq!(all_within(&mut consumer, secs(5)).await, of(1, 0..3));
    let asked = fetches(&hostile);
    assert!(asked.len() > 5 && asked.iter().all(|named| !named.contains(&0)));
    assert_eq!((consumer.position("t", 0), consumer.position("t", 1)), (Some(1), Some(3)));
    consumer.resume([("t", 0)]).unwrap();
    assert_eq!(all_within(&mut consumer, secs(5)).await, of(0, 1..7));
    assert!(consumer.paused().is_empty());
}

/// From another thread, and while who reads waits.
#[tokio::test(start_paused = true)]
async fn partitions_are_assigned_and_left_while_a_consumer_reads() {
    let cluster = cluster(2, 3);
    for partition in 0..3 {
        write(&cluster, "t", partition, 4).await;
    }
    let client = client(&cluster).await;
    let mut consumer = client.consumer().assign([("t", 0, Start::Earliest)]).build().unwrap();
    assert_eq!(all_within(&mut consumer, secs(5)).await, of(0, 0..4));
    let control = consumer.control();
    let assign = std::thread::spawn(move || {
        control.assign([("t", 1, Start::Offset(2)), ("u", 0, Start::Earliest)]).unwrap();
        control
    });
    let control = assign.join().unwrap();
    assert_eq!(control.assignment().len(), 3);
    assert_eq!(control.position("t", 1), Some(2));
    let mut told = Vec::new();
    let mut read = Vec::new();
    let _ = tokio::time::timeout(secs(20), async {
        while let Some(next) = consumer.next().await {
            match next {
                Ok(batch) => read.push((batch.partition(), batch.base_offset())),
                Err(error) => told.push(error.kind()),
            }
        }
    })
    .await;
    assert_eq!((read, told), (of(1, 2..4), vec![ErrorKind::UnknownTopic]));
    // It is read when it is there.
    cluster.create_topic("u", 1, 1).unwrap();
    write(&cluster, "u", 0, 2).await;
    assert_eq!(all_within(&mut consumer, secs(20)).await, of(0, 0..2));
    // Of what is left nothing comes, and what comes again begins anew.
    control.unassign([("t", 0), ("u", 0)]).unwrap();
    assert_eq!(consumer.assignment(), [named(1)]);
    write(&cluster, "t", 0, 2).await;
    write(&cluster, "t", 1, 2).await;
    assert_eq!(all_within(&mut consumer, secs(5)).await, of(1, 4..6));
    control.assign([("t", 0, Start::Offset(3))]).unwrap();
    assert_eq!(all_within(&mut consumer, secs(5)).await, of(0, 3..6));
    let refused = control.unassign([("t", 2)]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnknownPartition);
}

/// Those of a whole topic that nobody wants stay out, whatever metadata says of it later.
#[tokio::test(start_paused = true)]
async fn a_partition_of_a_whole_topic_that_is_left_stays_out() {
    let cluster = cluster(1, 2);
    let client = client(&cluster).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    until("partitions", || consumer.assignment().len() == 2).await;
    consumer.unassign([("t", 0)]).unwrap();
    cluster.create_partitions("t", 3).unwrap();
    tokio::time::sleep(secs(1_000)).await;
    assert_eq!(consumer.assignment(), [named(1), named(2)]);
    for partition in 0..3 {
        write(&cluster, "t", partition, 2).await;
    }
    let read: BTreeSet<_> = all_within(&mut consumer, secs(5)).await.into_iter().collect();
    assert_eq!(read, of(1, 0..2).into_iter().chain(of(2, 0..2)).collect());
    consumer.assign([("t", 0, Start::Earliest)]).unwrap();
    assert_eq!(all_within(&mut consumer, secs(5)).await, of(0, 0..2));
}

/// A request names a partition once; who asks may do so as often as it likes.
#[tokio::test(start_paused = true)]
async fn offsets_come_in_the_order_in_which_they_were_asked_for() {
    let cluster = cluster(2, 3);
    write(&cluster, "t", 0, 2).await;
    write(&cluster, "t", 2, 5).await;
    let client = client(&cluster).await;
    let [begin, end] = [OffsetSpec::Earliest, OffsetSpec::Latest];
    let wanted = [(2, end), (1, end), (7, begin), (0, end), (2, begin), (0, begin), (2, end)];
    let asked = wanted.map(|(partition, spec)| ("t", partition, spec));
    let found = client.admin().list_offsets(asked).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|(of, at)| (of.partition, at.ok())).collect();
    let told = [Some(5), Some(0), None, Some(2), Some(0), Some(0), Some(5)];
    let wanted: Vec<_> = wanted.into_iter().map(|(partition, _)| partition).zip(told).collect();
    assert_eq!(found, wanted);
}

/// A loop that reads what is there, and ends; and how much is left, which nobody is asked.
#[tokio::test(start_paused = true)]
async fn reading_up_to_an_end_ends_there() {
    let cluster = cluster(1, 2);
    for partition in 0..2 {
        write(&cluster, "t", partition, 5).await;
    }
    let client = client(&cluster).await;
    let wanted = [("t", 0, OffsetSpec::Latest), ("t", 1, OffsetSpec::Latest)];
    let found = client.admin().list_offsets(wanted).await.unwrap();
    let ends: Vec<(TopicPartition, i64)> =
        found.into_iter().map(|(of, end)| (of, end.unwrap())).collect();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    assert_eq!(consumer.lag("t", 0), None);
    let mut read = BTreeMap::<i32, usize>::new();
    while let Some(batch) = within("the end", consumer.next_until(&ends)).await.transpose().unwrap()
    {
        *read.entry(batch.partition()).or_default() += batch.len();
    }
    assert_eq!(read, BTreeMap::from([(0, 5), (1, 5)]));
    assert_eq!((consumer.lag("t", 0), consumer.lag("t", 1)), (Some(0), Some(0)));
    assert!(within("the end", consumer.next_until(&ends)).await.is_none());
    let asked = cluster.stats().requests_of(ApiKey::LIST_OFFSETS);
    consumer.pause([("t", 0)]).unwrap();
    write(&cluster, "t", 1, 1).await;
    assert_eq!(next(&mut consumer).await, (1, 5));
    assert_eq!((consumer.lag("t", 1), consumer.lag("t", 7)), (Some(0), None));
    consumer.resume([("t", 0)]).unwrap();
    // Fetched and not taken counts as well.
    write(&cluster, "t", 0, 3).await;
    until("a fetch", || consumer.lag("t", 0) == Some(3)).await;
    assert_eq!(cluster.stats().requests_of(ApiKey::LIST_OFFSETS), asked);
    // A deadline of one's own ends a wait, and loses nothing.
    let far = [(named(1), 1_000)];
    for _ in 0..3 {
        let wait = tokio::time::timeout(ms(10), consumer.next_until(&far)).await;
        assert_eq!(wait.unwrap().unwrap().unwrap().partition(), 0);
    }
    assert!(tokio::time::timeout(ms(10), consumer.next_until(&far)).await.is_err());
}
