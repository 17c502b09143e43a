//! What the consumer does when things move or go wrong, one scenario each, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultId, FaultRule, Leaders};
use ottla::{Client, Compression, Consumer, Error, ErrorKind, Record, Start};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

fn cluster(brokers: i32, partitions: i32) -> Cluster {
    Cluster::builder()
        .brokers(brokers)
        .tcp(false)
        .topic("t", partitions, brokers)
        .start_on_current_runtime()
        .unwrap()
}

async fn connect(cluster: &Cluster) -> Client {
    within("connect", virtual_cluster::client(cluster, 1).connect()).await.unwrap()
}

/// Numbered values of 100 bytes, ten in a batch, in each of the partitions.
async fn fill(client: &Client, partitions: i32, count: usize) {
    let producer =
        client.producer().batch_size(1 << 10).compression(Compression::None).build().unwrap();
    let mut deliveries = Vec::new();
    for number in 0..count {
        for partition in 0..partitions {
            let value = format!("{number:0100}");
            let record =
                Record::to("t").partition(partition).value(&value).timestamp_ms(number as i64);
            deliveries.push(producer.send(record).await.unwrap());
        }
    }
    for delivery in deliveries {
        within("ack", delivery).await.unwrap();
    }
}

/// The numbers read of each partition, until there are `count` of all together, and what was told
/// meanwhile.
async fn numbers_and_errors(
    consumer: &mut Consumer,
    count: usize,
) -> (BTreeMap<i32, Vec<usize>>, Vec<Error>) {
    let mut read: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    let (mut total, mut told) = (0, Vec::new());
    while total < count {
        let batch = match within("a batch", consumer.next()).await.unwrap() {
            Ok(batch) => batch,
            Err(error) => {
                told.push(error);
                continue;
            }
        };
        for record in &batch {
            let text = str::from_utf8(record.value().unwrap()).unwrap();
            read.entry(batch.partition()).or_default().push(text.parse().unwrap());
            total += 1;
        }
    }
    (read, told)
}

/// The same where nothing is told.
async fn numbers(consumer: &mut Consumer, count: usize) -> BTreeMap<i32, Vec<usize>> {
    let (read, told) = numbers_and_errors(consumer, count).await;
    assert!(told.is_empty(), "{told:?}");
    read
}

fn assert_whole(read: &BTreeMap<i32, Vec<usize>>, partitions: i32, count: usize) {
    assert_eq!(read.len(), partitions as usize);
    for (partition, numbers) in read {
        assert!(numbers.iter().copied().eq(0..count), "partition {partition}: {numbers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_leader_moves_while_reading() {
    let cluster = cluster(3, 3);
    let client = connect(&cluster).await;
    fill(&client, 3, 300).await;
    let mut consumer =
        client.consumer().topics(["t"]).max_partition_bytes(1 << 10).build().unwrap();
    let mut all: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for round in 0..30 {
        for (partition, part) in numbers(&mut consumer, 1).await {
            all.entry(partition).or_default().extend(part);
        }
        cluster.move_leader("t", round % 3, (round / 3) % 3 + 1).unwrap();
    }
    let left = 900 - all.values().map(Vec::len).sum::<usize>();
    for (partition, part) in numbers(&mut consumer, left).await {
        all.entry(partition).or_default().extend(part);
    }
    assert_whole(&all, 3, 300);
}

/// A cluster with a hundred records in each of three partitions, of which a consumer begins to read.
async fn read_with(fault: FaultRule) -> (Cluster, Consumer, FaultId) {
    let cluster = cluster(3, 3);
    let client = connect(&cluster).await;
    fill(&client, 3, 100).await;
    let fault = cluster.faults().inject(fault.api(ApiKey::FETCH));
    let consumer = client.consumer().topics(["t"]).max_partition_bytes(1 << 10).build().unwrap();
    (cluster, consumer, fault)
}

async fn survives(fault: FaultRule) {
    let (cluster, mut consumer, fault) = read_with(fault).await;
    assert_whole(&numbers(&mut consumer, 300).await, 3, 100);
    assert!(!cluster.faults().is_pending(fault), "the fault did not happen");
}

#[tokio::test(start_paused = true)]
async fn fetches_are_cut() {
    survives(FaultRule::new(Fault::CutAfterAppend).after(2).times(5)).await;
}

#[tokio::test(start_paused = true)]
async fn fetches_are_refused() {
    // NOT_LEADER_OR_FOLLOWER, UNKNOWN_LEADER_EPOCH, KAFKA_STORAGE_ERROR.
    for code in [6, 75, 56] {
        survives(FaultRule::new(Fault::Error(code)).after(2).times(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_is_never_answered() {
    // By a broker that was asked for nothing before: that is told, and it is asked again.
    let (cluster, mut consumer, fault) = read_with(FaultRule::new(Fault::BlackHole).after(2)).await;
    let (read, told) = numbers_and_errors(&mut consumer, 300).await;
    assert_whole(&read, 3, 100);
    assert!(!cluster.faults().is_pending(fault), "the fault did not happen");
    let timed_out = told.iter().all(|e| e.kind() == ErrorKind::Timeout && e.is_retriable());
    assert!(told.len() <= 1 && timed_out, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn brokers_restart_one_by_one() {
    let cluster = cluster(3, 3);
    let client = connect(&cluster).await;
    fill(&client, 3, 100).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let mut all = numbers(&mut consumer, 300).await;
    for broker in cluster.broker_ids() {
        cluster.stop_broker(broker, Leaders::Move).unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.start_broker(broker).unwrap();
    }
    assert!(consumer.try_next().is_none(), "nothing is read twice");
    fill(&client, 3, 100).await;
    for (partition, part) in numbers(&mut consumer, 300).await {
        assert!(part.iter().copied().eq(0..100), "partition {partition}: {part:?}");
        all.entry(partition).or_default().extend(part);
    }
    assert!(all.values().all(|numbers| numbers.len() == 200));
}

#[tokio::test(start_paused = true)]
async fn seeks_drop_what_is_buffered() {
    let cluster = cluster(1, 1);
    let client = connect(&cluster).await;
    fill(&client, 1, 100).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    assert_eq!(numbers(&mut consumer, 10).await[&0][0], 0);
    for (to, first) in [
        (Start::Offset(55), 55),
        (Start::Offset(3), 3),
        (Start::Timestamp(71), 71),
        (Start::Earliest, 0),
        (Start::Offset(99), 99),
    ] {
        consumer.seek("t", 0, to).unwrap();
        let read = numbers(&mut consumer, 1).await;
        assert_eq!(read[&0][0], first, "{to:?}");
        let end = *read[&0].last().unwrap() as i64 + 1;
        assert_eq!(consumer.position("t", 0), Some(end));
    }
    consumer.seek("t", 0, Start::Latest).unwrap();
    // The position is that of now; wait until it is looked up.
    let asked = cluster.stats().requests_of(ApiKey::LIST_OFFSETS);
    until("a lookup", || cluster.stats().requests_of(ApiKey::LIST_OFFSETS) > asked).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    fill(&client, 1, 1).await;
    let batch = within("the new record", consumer.next()).await.unwrap().unwrap();
    assert_eq!((batch.base_offset(), batch.len()), (100, 1));
    let error = consumer.seek("t", 9, Start::Earliest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPartition);
}

#[tokio::test(start_paused = true)]
async fn a_seek_while_the_start_is_looked_up_wins() {
    let cluster = cluster(1, 1);
    let client = connect(&cluster).await;
    fill(&client, 1, 100).await;
    let slow = Fault::DelayResponse(Duration::from_secs(2));
    cluster.faults().on(1, ApiKey::LIST_OFFSETS, slow, 1);
    let asked = cluster.stats().requests_of(ApiKey::LIST_OFFSETS);
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    until("a lookup", || cluster.stats().requests_of(ApiKey::LIST_OFFSETS) > asked).await;
    consumer.seek("t", 0, Start::Timestamp(40)).unwrap();
    assert_eq!(numbers(&mut consumer, 1).await[&0][0], 40);
}

#[tokio::test(start_paused = true)]
async fn an_offset_that_is_gone() {
    let cluster = cluster(1, 1);
    let client = connect(&cluster).await;
    fill(&client, 1, 100).await;
    cluster.delete_records("t", 0, 50).unwrap();
    let mut consumer = client.consumer().assign([("t", 0, Start::Offset(10))]).build().unwrap();
    let error = within("the refusal", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}");
    // Where the log starts no broker says with this error.
    assert!(error.to_string().contains("offset 10"), "{error}");
    // Never skipped in silence; on where the application says.
    consumer.seek("t", 0, Start::Earliest).unwrap();
    assert_eq!(numbers(&mut consumer, 1).await[&0][0], 50);
}

/// However the consumer began: this offset was chosen.
#[tokio::test(start_paused = true)]
async fn a_seek_to_an_offset_that_is_gone() {
    let cluster = cluster(1, 1);
    let client = connect(&cluster).await;
    fill(&client, 1, 100).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    assert_eq!(numbers(&mut consumer, 1).await[&0][0], 0);
    cluster.delete_records("t", 0, 50).unwrap();
    consumer.seek("t", 0, Start::Offset(10)).unwrap();
    let error = within("the refusal", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}");
    consumer.seek("t", 0, Start::Offset(60)).unwrap();
    assert_eq!(numbers(&mut consumer, 1).await[&0][0], 60);
}

#[tokio::test(start_paused = true)]
async fn s28_prefetch_stays_under_its_budget() {
    let cluster = cluster(3, 6);
    let client = connect(&cluster).await;
    fill(&client, 6, 1_000).await;
    let budget = 128 << 10;
    let mut consumer = client
        .consumer()
        .topics(["t"])
        .buffer_memory(budget)
        .max_partition_bytes(8 << 10)
        .max_bytes(32 << 10)
        .build()
        .unwrap();
    // Virtual time passes only when nobody has anything to do: there is as much as there will be.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let fetches = client.stats().fetch_requests;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(client.stats().fetch_requests, fetches, "it goes on asking though nothing is taken");
    // The fetcher runs in this thread: while nothing is awaited, only what is buffered comes.
    let (mut held, mut read) = (0, BTreeMap::<i32, Vec<usize>>::new());
    while let Some(batch) = consumer.try_next() {
        let batch = batch.unwrap();
        for record in &batch {
            let value = record.value().unwrap();
            held += value.len();
            let number = str::from_utf8(value).unwrap().parse().unwrap();
            read.entry(batch.partition()).or_default().push(number);
        }
    }
    // Of each of three brokers one and a half responses, which are a quarter of its share, and at most one more that was
    // asked for before there were so many.
    assert!((budget / 4..budget * 3 / 4).contains(&held), "{held} bytes of {budget}");
    for (partition, part) in
        numbers(&mut consumer, 6_000 - read.values().map(Vec::len).sum::<usize>()).await
    {
        read.entry(partition).or_default().extend(part);
    }
    assert_whole(&read, 6, 1_000);
}

#[tokio::test(start_paused = true)]
async fn partitions_added_later_are_read() {
    let cluster = cluster(3, 1);
    let client = connect(&cluster).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    fill(&client, 1, 10).await;
    assert_whole(&numbers(&mut consumer, 10).await, 1, 10);
    cluster.create_partitions("t", 3).unwrap();
    // Noticed with the periodic refresh.
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert_eq!(consumer.assignment().len(), 3);
}
