//! What a consumer makes of responses that bring no records: errors of every kind, partitions left out,
//! nothing at all; and whose turn it is when there is too much for one response. In virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::EpochEndOffset;
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest, MetadataRequest};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};
use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, Consumer, Error, ErrorKind, Record, Start};
use ottla_scenarios::hostile::{Damage, Hostile};
use ottla_scenarios::steps::{acked, cluster, connect, ms, secs, seen, small_batches};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::Instant;

/// So many records in a partition of "t", each a batch of its own, written by somebody else.
async fn write(cluster: &Cluster, partition: i32, count: usize) {
    let client = connect(virtual_cluster::client(cluster, 77)).await;
    let producer = small_batches(&client).build().unwrap();
    for _ in 0..count {
        acked(&producer, Record::to("t").partition(partition).value(&[7; 700])).await;
    }
}

/// Reads until there are so many records of each partition; what was told meanwhile.
async fn read_all(consumer: &mut Consumer, partitions: i32, count: i64) -> Vec<Error> {
    let mut next: BTreeMap<i32, i64> = (0..partitions).map(|p| (p, 0)).collect();
    let mut told = Vec::new();
    while next.values().any(|next| *next < count) {
        match within("a batch", consumer.next()).await.unwrap() {
            Ok(batch) => {
                let next = next.get_mut(&batch.partition()).unwrap();
                assert_eq!(batch.base_offset(), *next, "in {}", batch.partition());
                *next = batch.next_offset();
            }
            Err(error) => told.push(error),
        }
    }
    told
}

/// What is told within some time, while there is nothing to read.
async fn told_within(consumer: &mut Consumer, time: Duration) -> Vec<Error> {
    let mut told = Vec::new();
    let _ = tokio::time::timeout(time, async {
        while let Some(next) = consumer.next().await {
            told.push(next.map(|batch| batch.base_offset()).expect_err("nothing to read"));
        }
    })
    .await;
    told
}

/// What brokers answer in passing, and some answer once by mistake.
const PASSING: [i16; 16] = [-1, 2, 3, 5, 6, 7, 9, 13, 41, 56, 74, 75, 78, 84, 100, 103];

#[tokio::test(start_paused = true)]
async fn a_code_that_comes_once_stops_nobody() {
    for api in [ApiKey::FETCH, ApiKey::LIST_OFFSETS] {
        for code in PASSING {
            let cluster = cluster(3, 3);
            for partition in 0..3 {
                write(&cluster, partition, 5).await;
            }
            let client = connect(virtual_cluster::client(&cluster, 1)).await;
            let rule = FaultRule::new(Fault::Error(code)).api(api).topic("t").partition(1);
            let rule = cluster.faults().inject(rule.times(2));
            let mut consumer = client.consumer().topics(["t"]).build().unwrap();
            let begun = Instant::now();
            let told = read_all(&mut consumer, 3, 5).await;
            assert!(!cluster.faults().is_pending(rule), "the fault did not happen");
            assert!(told.is_empty(), "{code} to {api:?}: {told:?}");
            assert!(begun.elapsed() < secs(3), "{code} to {api:?}: {:?}", begun.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_that_stays_is_told_once_a_spell_and_passes_by_itself() {
    for api in [ApiKey::FETCH, ApiKey::LIST_OFFSETS] {
        for code in [-1, 56, 74, 75, 78, 103] {
            let cluster = cluster(1, 2);
            let client = connect(virtual_cluster::client(&cluster, 1)).await;
            let mut consumer = client.consumer().topics(["t"]).build().unwrap();
            for spell in 1..3 {
                let rule = FaultRule::new(Fault::Error(code)).api(api).topic("t").partition(1);
                let rule = cluster.faults().inject(rule.always());
                if api == ApiKey::LIST_OFFSETS {
                    until("partitions", || consumer.assignment().len() == 2).await;
                    consumer.seek("t", 1, Start::Earliest).unwrap();
                }
                let before = seen(&cluster, 1, api);
                let told = told_within(&mut consumer, secs(60)).await;
                assert_eq!(told.len(), 1, "{code} to {api:?}: {told:?}");
                assert_eq!(told[0].broker_code(), Some(code));
                assert!(told[0].message().contains("partition 1"), "{}", told[0].message());
                let asked = seen(&cluster, 1, api) - before;
                assert!(asked < 300, "{code} to {api:?}: {asked} requests in a minute");
                cluster.faults().remove(rule);
                write(&cluster, 1, 1).await;
                let batch = within("a record", consumer.next()).await.unwrap().unwrap();
                let first = if api == ApiKey::LIST_OFFSETS { 0 } else { spell - 1 };
                assert_eq!((batch.partition(), batch.base_offset()), (1, first));
                while batch.high_watermark() > consumer.position("t", 1).unwrap() {
                    within("a record", consumer.next()).await.unwrap().unwrap();
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_right_that_comes_back_is_used_again_and_told_once_a_spell() {
    for api in [ApiKey::FETCH, ApiKey::LIST_OFFSETS] {
        let cluster = cluster(1, 3);
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        until("partitions", || consumer.assignment().len() == 3).await;
        for spell in 0..3 {
            let rule = FaultRule::new(Fault::Error(29)).api(api).topic("t").always();
            let rule = cluster.faults().inject(rule);
            if api == ApiKey::LIST_OFFSETS {
                (0..3).for_each(|p| consumer.seek("t", p, Start::Latest).unwrap());
            }
            let told = told_within(&mut consumer, secs(120)).await;
            let kinds: Vec<_> = told.iter().map(Error::kind).collect();
            assert_eq!(kinds, [ErrorKind::Authorization], "{api:?}: {told:?}");
            cluster.faults().remove(rule);
            // A spell ends with the first response that is good.
            tokio::time::sleep(secs(30)).await;
            write(&cluster, 2, 1).await;
            let batch = within("a record", consumer.next()).await.unwrap().unwrap();
            assert_eq!((batch.partition(), batch.base_offset()), (2, spell));
        }
    }
}

/// Changes every answer to a request, as a message.
fn change<R: Request>(hostile: &Hostile, change: impl Fn(&mut R::Response) + Send + Sync + 'static)
where
    R::Response: Decodable + Encodable + HeaderVersion,
{
    hostile.rewrite(ApiKey(R::KEY), move |version, body| {
        let mut body = Bytes::copy_from_slice(body);
        let mut out = BytesMut::new();
        out.put_i32(body.get_i32());
        if R::Response::header_version(version) >= 1 {
            assert_eq!(body.get_u8(), 0, "the broker writes no tagged fields in headers");
            out.put_u8(0);
        }
        let mut answer = R::Response::decode(&mut body, version).unwrap();
        change(&mut answer);
        answer.encode(&mut out, version).unwrap();
        out.to_vec()
    });
}

/// Whether a fault is due that happens so many times.
fn times(count: usize) -> impl Fn() -> bool + Send + Sync {
    let left = Arc::new(AtomicUsize::new(count));
    move || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}

async fn hostile(partitions: i32) -> (Cluster, Hostile, Client) {
    let cluster = cluster(1, partitions);
    for partition in 0..partitions {
        write(&cluster, partition, 5).await;
    }
    let hostile = Hostile::new(&cluster);
    let client = connect(hostile.client(&cluster)).await;
    (cluster, hostile, client)
}

#[tokio::test(start_paused = true)]
async fn a_partition_left_out_once_is_asked_for_again() {
    let (_cluster, hostile, client) = hostile(3).await;
    let due = times(2);
    change::<FetchRequest>(&hostile, move |answer| {
        if due() {
            answer.responses[0].partitions.remove(1);
        }
    });
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let begun = Instant::now();
    assert!(read_all(&mut consumer, 3, 5).await.is_empty());
    assert!(begun.elapsed() < secs(3), "{:?}", begun.elapsed());

    let (_cluster, hostile, client) = self::hostile(3).await;
    let due = times(2);
    change::<ListOffsetsRequest>(&hostile, move |answer| {
        if due() {
            answer.topics[0].partitions.remove(1);
        }
    });
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let begun = Instant::now();
    assert!(read_all(&mut consumer, 3, 5).await.is_empty());
    assert!(begun.elapsed() < secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_always_left_out_is_told_once_and_not_asked_for_all_the_time() {
    let (cluster, hostile, client) = hostile(2).await;
    change::<FetchRequest>(&hostile, |answer| {
        for topic in &mut answer.responses {
            topic.partitions.retain(|p| p.partition_index != 1);
        }
    });
    let mut consumer = client.consumer().assign([("t", 1, Start::Earliest)]).build().unwrap();
    let told = told_within(&mut consumer, secs(60)).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].message().contains("partition 1"), "{}", told[0].message());
    assert!(seen(&cluster, 1, ApiKey::FETCH) < 300, "{}", seen(&cluster, 1, ApiKey::FETCH));
    hostile.rewrite_nothing();
    let batch = within("a record", consumer.next()).await.unwrap().unwrap();
    assert_eq!(batch.base_offset(), 0);
}

/// An error of the response as a whole.
#[tokio::test(start_paused = true)]
async fn a_response_that_is_refused_as_a_whole_is_asked_for_again() {
    for code in PASSING {
        let (_cluster, hostile, client) = hostile(2).await;
        let due = times(2);
        change::<FetchRequest>(&hostile, move |answer| {
            if due() {
                answer.error_code = code;
                answer.responses.clear();
            }
        });
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        let begun = Instant::now();
        let told = read_all(&mut consumer, 2, 5).await;
        assert!(told.is_empty(), "{code}: {told:?}");
        assert!(begun.elapsed() < secs(3), "{code}: {:?}", begun.elapsed());
    }
}

/// A malformed answer says something of its connection only.
#[tokio::test(start_paused = true)]
async fn one_malformed_response_is_its_connections_trouble() {
    for damage in [Damage::Ones, Damage::Noise, Damage::Short, Damage::HugeCount] {
        for api in [ApiKey::FETCH, ApiKey::LIST_OFFSETS] {
            let (_cluster, hostile, client) = hostile(2).await;
            hostile.next(api, damage);
            let mut consumer = client.consumer().topics(["t"]).build().unwrap();
            let begun = Instant::now();
            let told = read_all(&mut consumer, 2, 5).await;
            assert!(told.is_empty(), "{damage:?} of {api:?}: {told:?}");
            assert!(begun.elapsed() < secs(3), "{damage:?} of {api:?}: {:?}", begun.elapsed());
            assert_eq!(hostile.done(), 1);
        }
    }
}

/// A leader that says of the very epoch it is told that its log parts there: what was read is there, and
/// so is what comes next. Asked without the epoch it has to answer; if it says the same to that, that is
/// told.
#[tokio::test(start_paused = true)]
async fn a_log_that_parts_from_itself_is_read_without_its_epoch() {
    let (cluster, hostile, client) = hostile(1).await;
    let parts = Arc::new(AtomicUsize::new(0));
    let (asks, always) = (Arc::clone(&parts), Arc::new(AtomicUsize::new(0)));
    let whatever = Arc::clone(&always);
    // The first fetch tells the epoch that came with the start; 0 is that of all there is.
    change::<FetchRequest>(&hostile, move |answer| {
        for partition in answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
            if asks.load(Ordering::Relaxed) < 1 || whatever.load(Ordering::Relaxed) > 0 {
                partition.diverging_epoch =
                    EpochEndOffset::default().with_epoch(0).with_end_offset(5);
                partition.records = None;
                asks.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    assert!(read_all(&mut consumer, 1, 5).await.is_empty());
    assert_eq!(parts.load(Ordering::Relaxed), 1);

    always.store(1, Ordering::Relaxed);
    write(&cluster, 0, 1).await;
    let told = told_within(&mut consumer, secs(60)).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].message().contains("partition 0"), "{}", told[0].message());
    let asked = parts.load(Ordering::Relaxed);
    assert!(asked < 300, "{asked} requests in a minute");
}

/// A batch larger than what a partition may bring comes only first in a response: everybody is first
/// in turn, also beside a partition that never runs dry. In a session the broker sees to that, and without one
/// the order of each request.
#[tokio::test(start_paused = true)]
async fn large_batches_have_their_turn_beside_small_ones() {
    for slots in [1_000, 0] {
        large_ones_beside_small_ones(slots).await;
    }
}

async fn large_ones_beside_small_ones(slots: usize) {
    const MANY: usize = 3_000;
    let cluster = Cluster::builder().brokers(1).tcp(false).topic("t", 4, 1);
    let cluster = cluster.fetch_session_slots(slots).start_on_current_runtime().unwrap();
    let client = connect(virtual_cluster::client(&cluster, 77)).await;
    let producer = client.producer().batch_size(4 << 10).max_record_size(4 << 20);
    let producer = producer.compression(ottla::Compression::None).build().unwrap();
    let large = vec![7; 600 << 10];
    for _ in 0..4 {
        for partition in 1..4 {
            acked(&producer, Record::to("t").partition(partition).value(&large)).await;
        }
    }
    let mut sent = Vec::new();
    for _ in 0..MANY {
        let record = Record::to("t").partition(0).value(&large[..3_500]);
        sent.push(producer.send(record).await.unwrap());
    }
    for delivery in sent {
        within("an ack", delivery).await.unwrap();
    }
    let reader = client.consumer().topics(["t"]).max_partition_bytes(256 << 10);
    let mut consumer = reader.max_bytes(512 << 10).build().unwrap();
    let (mut small, mut large) = (0, BTreeMap::<i32, usize>::new());
    while large.values().sum::<usize>() < 12 {
        let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
        if batch.partition() == 0 {
            small += batch.len();
            continue;
        }
        *large.entry(batch.partition()).or_default() += 1;
        let (least, most) = (
            (1..4).map(|p| large.get(&p).copied().unwrap_or(0)).min().unwrap(),
            large.values().max().unwrap(),
        );
        assert!(most - least <= 1, "{large:?}");
    }
    // 75 small ones fit into what a partition may bring; four answers make a round. What was fetched of them ahead of
    // the last large one is handed out before it: their turns have as many bytes.
    assert!((200..=6 * 75).contains(&small), "{small} small ones before the last large one");
}

async fn idle(set: impl Fn(ottla::ConsumerBuilder) -> ottla::ConsumerBuilder) -> u64 {
    let cluster = cluster(1, 1);
    // As far away as brokers are: else no time would pass at all.
    let far = FaultRule::new(Fault::DelayResponse(ms(1))).api(ApiKey::FETCH).always();
    cluster.faults().inject(far);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let mut consumer = set(client.consumer().topics(["t"])).build().unwrap();
    assert!(told_within(&mut consumer, secs(5)).await.is_empty());
    let before = seen(&cluster, 1, ApiKey::FETCH);
    assert!(told_within(&mut consumer, secs(60)).await.is_empty());
    let fetches = seen(&cluster, 1, ApiKey::FETCH) - before;
    // What is written then is read soon.
    write(&cluster, 0, 1).await;
    let begun = Instant::now();
    within("a record", consumer.next()).await.unwrap().unwrap();
    assert!(begun.elapsed() < ms(110), "{:?}", begun.elapsed());
    fetches
}

#[tokio::test(start_paused = true)]
async fn an_idle_topic_is_not_asked_for_all_the_time() {
    let fetches = idle(|c| c.max_wait(Duration::ZERO)).await;
    assert!((600..=1_200).contains(&fetches), "{fetches} fetches in a minute without max_wait");
    let fetches = idle(|c| c.min_bytes(0)).await;
    assert!((600..=1_200).contains(&fetches), "{fetches} fetches in a minute without min_bytes");
    // The broker waits: nobody else has to.
    let fetches = idle(|c| c).await;
    assert!((119..=121).contains(&fetches), "{fetches} fetches in a minute");
}

#[tokio::test(start_paused = true)]
async fn what_flows_is_not_paced() {
    let cluster = cluster(1, 1);
    write(&cluster, 0, 500).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let reader = client.consumer().topics(["t"]).max_wait(Duration::ZERO);
    let mut consumer = reader.max_partition_bytes(1 << 10).build().unwrap();
    let begun = Instant::now();
    assert!(read_all(&mut consumer, 1, 500).await.is_empty());
    assert!(seen(&cluster, 1, ApiKey::FETCH) >= 500);
    assert!(begun.elapsed() < ms(20), "{:?}", begun.elapsed());
}

/// The buffer has room for one request: while an idle broker holds its own back, the others wait for
/// their turn, which comes.
#[tokio::test(start_paused = true)]
async fn every_broker_has_its_turn_where_the_buffer_is_small() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let reader = client.consumer().topics(["t"]).buffer_memory(64 << 10);
    let mut consumer = reader.build().unwrap();
    until("a fetch", || cluster.stats().requests_of(ApiKey::FETCH) > 3).await;
    for partition in 0..3 {
        write(&cluster, partition, 1).await;
        let batch = within("a record", consumer.next()).await.unwrap().unwrap();
        assert_eq!(batch.partition(), partition);
    }
}

/// A broker that is behind still names the topic that was, once the one that is was read.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_does_not_come_back() {
    let (cluster, hostile, client) = hostile(1).await;
    let was = cluster.topics().into_iter().find(|(name, _)| name == "t").unwrap().1;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    assert!(read_all(&mut consumer, 1, 5).await.is_empty());
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    write(&cluster, 0, 20).await;
    let told = within("news", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Truncated, "{told}");
    assert!(read_all(&mut consumer, 1, 20).await.is_empty());
    let due = Arc::new(times(1));
    let behind = Arc::clone(&due);
    change::<MetadataRequest>(&hostile, move |answer| {
        for topic in &mut answer.topics {
            if topic.name.as_ref().is_some_and(|name| &*name.0 == "t") && behind() {
                topic.topic_id = was;
            }
        }
    });
    let told = told_within(&mut consumer, secs(3_600)).await;
    assert!(!due(), "nobody was behind");
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(consumer.position("t", 0), Some(20));
    write(&cluster, 0, 1).await;
    let batch = within("a record", consumer.next()).await.unwrap().unwrap();
    assert_eq!(batch.base_offset(), 20);
}

/// Connections that were being made for a consumer when it went are nobody's.
#[tokio::test(start_paused = true)]
async fn a_consumer_that_goes_while_it_dials_leaves_no_connection() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let open = || cluster.stats().connections_open();
    let slow = FaultRule::new(Fault::Delay(secs(1))).api(ApiKey::API_VERSIONS).always();
    cluster.faults().inject(slow);
    let before = open();
    for _ in 0..5 {
        let consumer = client.consumer().topics(["t"]).build().unwrap();
        until("a dial", || open() > before).await;
        drop(consumer);
        tokio::time::sleep(secs(5)).await;
        assert_eq!(open(), before);
    }
}

/// A broker holds a Fetch for partitions that have nothing. One that was left out of it, as its share of the
/// buffer was used, would wait for that, however soon the application makes room.
#[tokio::test(start_paused = true)]
async fn a_partition_with_much_beside_one_with_nothing_is_read_without_pauses() {
    const RECORDS: i64 = 2_000;
    let cluster = cluster(1, 2);
    write(&cluster, 0, RECORDS as usize).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    // A share is some forty batches.
    let consumer = client.consumer().topics(["t"]).buffer_memory(64 << 10);
    let mut consumer = consumer.max_partition_bytes(16 << 10).build().unwrap();
    let (begun, before) = (Instant::now(), seen(&cluster, 1, ApiKey::FETCH));
    let mut next = 0;
    while next < RECORDS {
        let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
        assert_eq!((batch.partition(), batch.base_offset()), (0, next));
        next = batch.next_offset();
        // What an application does with it.
        tokio::time::sleep(ms(1)).await;
    }
    let took = begun.elapsed();
    assert!(took < secs(4), "{took:?} for {RECORDS} ms of work");
    let requests = seen(&cluster, 1, ApiKey::FETCH) - before;
    assert!(requests < 300, "{requests} requests");
    // An application that stops costs the broker hardly more than one that waits for records.
    write(&cluster, 0, 400).await;
    tokio::time::sleep(secs(5)).await;
    let before = seen(&cluster, 1, ApiKey::FETCH);
    tokio::time::sleep(secs(10)).await;
    let requests = seen(&cluster, 1, ApiKey::FETCH) - before;
    assert!((10..=25).contains(&requests), "{requests} requests in ten seconds");
}
