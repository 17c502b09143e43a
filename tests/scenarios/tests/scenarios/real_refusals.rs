//! What a real broker refuses of a batch, and what becomes of the rest of it; and the weaker kinds of
//! acknowledgement.

use std::time::Duration;

use ottla::blocking::{Client, Producer};
use ottla::{Acked, Acks, Compression, ErrorKind, NewTopic, OffsetSpec, Record, Result};
use ottla_test_kafka::{Cluster, Options};

const WAIT: Option<Duration> = Some(Duration::from_secs(60));

fn written(client: &Client, topic: &str, partitions: i32) -> i64 {
    (0..partitions).map(|p| client.offset(topic, p, OffsetSpec::Latest).expect("its end")).sum()
}

/// Sends values in one go, those that `keyed` picks with a key; their results in order.
fn send(
    producer: &Producer,
    topic: &str,
    n: u32,
    size: usize,
    keyed: fn(u32) -> bool,
) -> Vec<Result<Acked>> {
    let handles: Vec<_> = (0..n)
        .map(|i| {
            let (key, value) = (i.to_be_bytes(), format!("{i:0size$}"));
            let record = Record::to(topic).value(&value);
            let record = if keyed(i) { record.key(&key) } else { record };
            producer.send(record).expect("there is space")
        })
        .collect();
    // A flush tells of failures that nobody has looked at yet: here they are looked at next.
    if let Err(e) = producer.flush(WAIT) {
        assert_eq!(e.kind(), ErrorKind::Undelivered, "{e}");
    }
    handles.into_iter().map(|mut handle| handle.wait(WAIT)).collect()
}

#[test]
fn real_s10_refusals_concern_their_records_alone() {
    let options = Options { brokers: 1, ..Options::default() };
    let cluster = Cluster::start(options).expect("Kafka starts");
    let client = Client::connect(cluster.bootstrap()).expect("connects");

    // Records without a key in a compacted topic: the broker names them (KIP-467).
    let compacted = NewTopic::new("compacted", 2, 1).config("cleanup.policy", "compact");
    client.create_topic(compacted).expect("creates a topic");
    for compression in [Compression::None, Compression::Lz4] {
        let producer = client
            .producer(|p| p.compression(compression).linger(Duration::from_millis(200)))
            .expect("settings are fine");
        let before = written(&client, "compacted", 2);
        let results = send(&producer, "compacted", 500, 20, |i| i % 100 != 7);
        for (i, result) in results.iter().enumerate() {
            match result {
                Ok(at) => assert!(i % 100 != 7 && at.offset >= 0, "{i}"),
                Err(e) => {
                    assert_eq!((i % 100, e.kind()), (7, ErrorKind::InvalidRecord), "{i}: {e}");
                    assert!(!e.maybe_written(), "{e}");
                }
            }
        }
        assert_eq!(written(&client, "compacted", 2) - before, 495);
    }

    // A timestamp that is two hours ahead: Kafka 4 takes one hour. The broker names the record.
    client.create_topic(NewTopic::new("times", 1, 1)).expect("creates a topic");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    let producer =
        client.producer(|p| p.linger(Duration::from_millis(200))).expect("settings are fine");
    for records in [100, 1] {
        let handles: Vec<_> = (0..records)
            .map(|i| {
                let ahead = if i == records / 2 { 7_200_000 } else { 0 };
                let record = Record::to("times").value("x").timestamp_ms(now + ahead);
                producer.send(record).expect("there is space")
            })
            .collect();
        for (i, mut handle) in handles.into_iter().enumerate() {
            match handle.wait(WAIT) {
                Ok(_) => assert!(i != records / 2, "{i}: taken"),
                Err(e) => {
                    assert_eq!((i, e.kind()), (records / 2, ErrorKind::InvalidRecord), "{e}");
                    assert!(e.broker_code() == Some(32) && !e.maybe_written(), "{e}");
                }
            }
        }
    }
    assert_eq!(written(&client, "times", 1), 99);

    // Batches that are larger than the topic takes; and a record that is.
    let small = NewTopic::new("small", 2, 1).config("max.message.bytes", "20000");
    client.create_topic(small).expect("creates a topic");
    let producer = client
        .producer(|p| p.compression(Compression::None).linger(Duration::from_millis(200)))
        .expect("settings are fine");
    let results = send(&producer, "small", 2_000, 500, |_| true);
    results.into_iter().collect::<Result<Vec<_>>>().expect("all are acknowledged");
    assert_eq!(written(&client, "small", 2), 2_000);
    let large = "x".repeat(30_000);
    let mut large = producer.send(Record::to("small").value(&large)).expect("there is space");
    let e = large.wait(WAIT).expect_err("is too large");
    assert!(e.kind() == ErrorKind::RecordTooLarge && !e.maybe_written(), "{e}");

    // The leader's word, and nobody's.
    client.create_topic(NewTopic::new("acks", 2, 1)).expect("creates a topic");
    let leader = client.producer(|p| p.acks(Acks::Leader)).expect("settings are fine");
    let nobody = client.producer(|p| p.acks(Acks::None)).expect("settings are fine");
    for result in send(&leader, "acks", 300, 20, |_| false) {
        assert!(result.expect("is acknowledged").offset >= 0);
    }
    for result in send(&nobody, "acks", 300, 20, |_| false) {
        assert_eq!(result.expect("is written").offset, -1);
    }
    // An acknowledged record behind them on the same connection: then they have been dealt with.
    drop(send(&leader, "acks", 2, 20, |_| false));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while written(&client, "acks", 2) < 602 {
        assert!(std::time::Instant::now() < deadline, "{}", written(&client, "acks", 2));
    }
    assert_eq!(written(&client, "acks", 2), 602);
}
