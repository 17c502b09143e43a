//! Scenario 15: partitions chosen by key, as Java's client chooses them, also for records that were
//! sent before anybody knew how many partitions there are. In virtual time.

use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Acked, Client, Delivery, ErrorKind, Partitioner, Producer, ProducerBuilder, Record};
use ottla_scenarios::steps::flushed;
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;

/// Keys and what Java's `Utils.murmur2` makes of them (`UtilsTest` in apache/kafka).
const KEYS: [(&str, i32); 6] = [
    ("21", -973_932_308),
    ("foobar", -790_332_482),
    ("a-little-bit-long-string", -985_981_536),
    ("a-little-bit-longer-string", -1_486_304_829),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ("abc", 479_470_107),
];

/// As Java's `BuiltInPartitioner.partitionForKey` has it.
fn expected(hash: i32, partitions: i32) -> i32 {
    (hash & i32::MAX) % partitions
}

fn cluster(partitions: i32) -> Cluster {
    Cluster::builder()
        .brokers(3)
        .tcp(false)
        .topic("t", partitions, 3)
        .start_on_current_runtime()
        .unwrap()
}

async fn connect(cluster: &Cluster) -> Client {
    within("connect", virtual_cluster::client(cluster, 1).connect()).await.unwrap()
}

fn by_key(client: &Client) -> ProducerBuilder {
    client.producer().partitioner(Partitioner::KeyHash)
}

/// Metadata responses come this much later.
fn slow_metadata(cluster: &Cluster, delay: Duration) {
    let slow = FaultRule::new(Fault::DelayResponse(delay));
    cluster.faults().inject(slow.api(ApiKey::METADATA).always());
}

async fn send(producer: &Producer, key: &str, number: usize) -> Delivery {
    let value = number.to_string();
    let headers = [("n", Some(value.as_bytes())), ("null", None)];
    let record = Record::to("t").key(key).value(&value).headers(&headers);
    let sending = producer.send(record.timestamp_ms(1_000 + number as i64));
    // Waits for nothing but space.
    within("space", sending).await.unwrap()
}

/// Every record is once where its key belongs, in the order sent, and where its handle says.
fn check(cluster: &Cluster, partitions: i32, acks: &[Acked]) {
    let mut found = 0;
    for partition in 0..partitions {
        let mut last = [None; KEYS.len()];
        for (offset, record) in cluster.records("t", partition).unwrap().iter().enumerate() {
            let number: usize =
                std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap();
            let (key, hash) = KEYS[number % KEYS.len()];
            assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
            assert_eq!(partition, expected(hash, partitions), "{key}");
            let timestamp_ms = 1_000 + number as i64;
            assert_eq!(acks[number], Acked { partition, offset: offset as i64, timestamp_ms });
            let names: Vec<_> = record.headers.iter().map(|(name, _)| name.as_ref()).collect();
            assert_eq!(names, [&b"n"[..], b"null"]);
            assert_eq!(record.headers[0].1.as_deref(), record.value.as_deref());
            assert!(
                last[number % KEYS.len()].replace(number) < Some(number),
                "{key}: out of order"
            );
            found += 1;
        }
    }
    assert_eq!(found, acks.len(), "a record is missing or doubled");
}

#[tokio::test(start_paused = true)]
async fn s15_keys_go_where_java_puts_them() {
    for partitions in [1, 2, 7, 60] {
        let cluster = cluster(partitions);
        let client = connect(&cluster).await;
        // Small batches, so that what waits for the first response is more than one.
        let producer = by_key(&client).batch_size(1 << 10).build().unwrap();
        slow_metadata(&cluster, Duration::from_millis(500));
        let mut deliveries = Vec::new();
        for number in 0..300 {
            deliveries.push(send(&producer, KEYS[number % KEYS.len()].0, number).await);
        }
        assert!(deliveries.iter().all(|d| !d.is_done()), "metadata is on its way");
        // On the way while the response comes, and after it.
        for number in 300..600 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            deliveries.push(send(&producer, KEYS[number % KEYS.len()].0, number).await);
        }
        let mut acks = Vec::new();
        for mut delivery in deliveries {
            let ack = within("an ack", &mut delivery).await.unwrap();
            assert_eq!(delivery.try_get().unwrap().unwrap(), ack);
            acks.push(ack);
        }
        check(&cluster, partitions, &acks);
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_keys_hold_up_nobody_and_flush_waits_for_them() {
    let cluster = Cluster::builder()
        .brokers(3)
        .tcp(false)
        .topic("t", 5, 3)
        .topic("known", 3, 3)
        .start_on_current_runtime()
        .unwrap();
    let client = connect(&cluster).await;
    let producer = by_key(&client).build().unwrap();
    let known = Record::to("known").key("k").value("v");
    within("ack", producer.send(known).await.unwrap()).await.unwrap();
    slow_metadata(&cluster, Duration::from_millis(500));
    let begun = tokio::time::Instant::now();
    let waiting = send(&producer, KEYS[0].0, 0).await;
    within("ack", producer.send(known).await.unwrap()).await.unwrap();
    // Without a key nothing is hashed, but the topic is not known either.
    let free = producer.send(Record::to("t").value("x")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(400) && !waiting.is_done() && !free.is_done());
    within("flush", producer.flush()).await.unwrap();
    let acked = waiting.try_get().expect("flushed").unwrap();
    assert_eq!(acked.partition, expected(KEYS[0].1, 5));
    assert!(free.is_done());
}

#[tokio::test(start_paused = true)]
async fn a_second_producer_with_other_settings_learns_the_partitions_too() {
    let cluster = cluster(7);
    let client = connect(&cluster).await;
    for linger in 0..3 {
        let producer = by_key(&client).linger(Duration::from_millis(linger)).build().unwrap();
        for (key, hash) in KEYS {
            let delivery = send(&producer, key, 0).await;
            let acked = within("ack", delivery).await.unwrap();
            assert_eq!(acked.partition, expected(hash, 7), "{key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_never_get_a_partition_time_out() {
    let cluster = cluster(3);
    let client = connect(&cluster).await;
    cluster.faults().inject(FaultRule::new(Fault::BlackHole).api(ApiKey::METADATA).always());
    let timeout = Duration::from_secs(20);
    let producer = by_key(&client).delivery_timeout(timeout).build().unwrap();
    let begun = tokio::time::Instant::now();
    let mut deliveries = Vec::new();
    for number in 0..10 {
        deliveries.push(send(&producer, KEYS[number % KEYS.len()].0, number).await);
    }
    assert_eq!(flushed(&producer).await, 10);
    assert!((timeout..timeout * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    for delivery in deliveries {
        let error = delivery.try_get().expect("flushed").unwrap_err();
        assert!(error.kind() == ErrorKind::Timeout && !error.maybe_written(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_one_producer_leaves_the_waiting_keys_of_another() {
    let cluster = cluster(7);
    let client = connect(&cluster).await;
    slow_metadata(&cluster, Duration::from_millis(500));
    let closed = by_key(&client).linger(Duration::ZERO).build().unwrap();
    let open = by_key(&client).build().unwrap();
    let lost = send(&closed, KEYS[1].0, 1).await;
    let kept = send(&open, KEYS[1].0, 1).await;
    within("close", closed.close(Duration::from_millis(100))).await.unwrap_err();
    let error = lost.try_get().expect("close resolves everything").unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && !error.maybe_written(), "{error}");
    let acked = within("ack", kept).await.unwrap();
    assert_eq!(acked.partition, expected(KEYS[1].1, 7));
    let stored: usize = (0..7).map(|p| cluster.records("t", p).unwrap().len()).sum();
    assert_eq!(stored, 1);
}

/// To have a partition is not the end of a record: the flush waits for what waited for it as well.
#[tokio::test(start_paused = true)]
async fn a_flush_waits_until_waiting_keys_are_acknowledged() {
    let cluster = cluster(5);
    let client = connect(&cluster).await;
    let producer = by_key(&client).build().unwrap();
    slow_metadata(&cluster, Duration::from_millis(500));
    let slow = FaultRule::new(Fault::DelayResponse(Duration::from_millis(300)));
    cluster.faults().inject(slow.api(ApiKey::PRODUCE).always());
    let waiting = send(&producer, KEYS[0].0, 0).await;
    within("flush", producer.flush()).await.unwrap();
    assert_eq!(waiting.try_get().expect("flushed").unwrap().partition, expected(KEYS[0].1, 5));
}
