//! One client against the embedded broker.

use std::time::Duration;

use ottla::testing::Cluster;
use ottla::{Client, Compression, ErrorKind, NewTopic, OffsetSpec, Record, Start, blocking};

const SOON: Duration = Duration::from_secs(30);

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing within {SOON:?}"),
    }
}

#[tokio::test]
async fn a_record_there_and_back() {
    let cluster = Cluster::builder().brokers(3).topic("t", 6, 3).start().unwrap();
    let client = within("connect", Client::connect(cluster.bootstrap())).await.unwrap();
    let producer = client.producer().build().unwrap();
    let headers = [("a", Some(&b"1"[..])), ("a", None)];
    let record = Record::to("t").key("k").value("v").headers(&headers).timestamp_ms(77);
    let at = within("ack", producer.send(record).await.unwrap()).await.unwrap();
    assert_eq!((at.offset, at.timestamp_ms), (0, 77));

    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let batch = within("fetch", consumer.next()).await.unwrap().unwrap();
    assert_eq!((batch.topic(), batch.partition(), batch.len()), ("t", at.partition, 1));
    let got = batch.get(0).unwrap();
    assert_eq!((got.offset(), got.timestamp_ms()), (0, 77));
    assert_eq!((got.key(), got.value()), (Some(&b"k"[..]), Some(&b"v"[..])));
    let names: Vec<_> = got.headers().collect();
    assert_eq!(names, [(&b"a"[..], Some(&b"1"[..])), (&b"a"[..], None)]);
    assert_eq!(consumer.position("t", at.partition), Some(1));
}

#[tokio::test]
async fn every_record_of_many_comes_back_once() {
    for compression in [Compression::None, Compression::Lz4] {
        let cluster = Cluster::builder().brokers(3).topic("t", 12, 3).start().unwrap();
        let client = within("connect", Client::connect(cluster.bootstrap())).await.unwrap();
        let producer = client.producer().compression(compression).build().unwrap();
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        let n = 50_000u32;
        let values: Vec<_> =
            (0..n).map(|i| format!("{{\"i\":{i:08}, \"pad\":\"{:060}\"}}", i)).collect();
        let sent = within("send", producer.send_batch("t", &values)).await.unwrap();
        assert_eq!(within("acks", sent).await.unwrap().records, n as usize);
        let mut seen = vec![0u8; n as usize];
        let mut left = n;
        while left > 0 {
            let batch = within("fetch", consumer.next()).await.unwrap().unwrap();
            for record in &batch {
                let text = std::str::from_utf8(record.value().unwrap()).unwrap();
                seen[text[5..13].parse::<usize>().unwrap()] += 1;
                left -= 1;
            }
        }
        assert!(seen.iter().all(|s| *s == 1));
        let stats = client.stats();
        assert_eq!(stats.records_acknowledged, u64::from(n));
        assert!(stats.connects <= 3 + 3 + 1, "{stats:?}");
    }
}

#[tokio::test]
async fn eight_producers_and_a_consumer_share_seven_connections() {
    let cluster = Cluster::builder().brokers(3).topic("t", 6, 3).start().unwrap();
    let client = within("connect", Client::connect(cluster.bootstrap())).await.unwrap();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let values: Vec<_> = (0..2_000).map(|i| format!("{i:0100}")).collect();
    let mut sends = Vec::new();
    for _ in 0..8 {
        // Each a client of its own, as eight libraries in one program would have.
        let client = within("connect", Client::connect(cluster.bootstrap())).await.unwrap();
        let (producer, values) = (client.producer().build().unwrap(), values.clone());
        sends.push(tokio::spawn(async move {
            producer.send_batch("t", &values).await.unwrap().await.unwrap().records
        }));
    }
    for send in sends {
        assert_eq!(within("acks", send).await.unwrap(), values.len());
    }
    let mut left = 8 * values.len();
    while left > 0 {
        left -= within("fetch", consumer.next()).await.unwrap().unwrap().len();
    }
    let stats = client.stats();
    assert!(stats.connects <= 7 && stats.connect_failures == 0, "{stats:?}");
}

#[tokio::test]
async fn topics_and_offsets() {
    let cluster = Cluster::builder().brokers(1).start().unwrap();
    let client = within("connect", Client::connect(cluster.bootstrap())).await.unwrap();
    let admin = client.admin();
    within("create", admin.create_topic(NewTopic::new("new", 2, 1))).await.unwrap();
    let again = within("create", admin.create_topic(NewTopic::new("new", 2, 1))).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::TopicExists);
    assert_eq!(within("partitions", admin.partitions("new")).await.unwrap(), 2);
    let producer = client.producer().build().unwrap();
    for i in 0..5i64 {
        let record = Record::to("new").partition(1).value("x").timestamp_ms(1_000 + i);
        within("ack", producer.send(record).await.unwrap()).await.unwrap();
    }
    let wanted = [
        ("new", 1, OffsetSpec::Earliest),
        ("new", 1, OffsetSpec::Latest),
        ("new", 1, OffsetSpec::Timestamp(1_002)),
        ("new", 1, OffsetSpec::Timestamp(9_000)),
    ];
    let mut found = Vec::new();
    for one in wanted {
        let got = within("offsets", admin.list_offsets([one])).await.unwrap();
        found.push(*got[0].1.as_ref().unwrap());
    }
    assert_eq!(found, [0, 5, 2, 5]);
    let mut consumer =
        client.consumer().assign([("new", 1, Start::Timestamp(1_003))]).build().unwrap();
    let batch = within("fetch", consumer.next()).await.unwrap().unwrap();
    assert_eq!(batch.base_offset(), 3);
    consumer.seek("new", 1, Start::Offset(1)).unwrap();
    let batch = within("fetch", consumer.next()).await.unwrap().unwrap();
    assert_eq!(batch.base_offset(), 1);
}

/// `None` is what did not come in time; the end is an error, and is there at once.
#[test]
fn a_blocking_wait_tells_nothing_yet_from_the_end() {
    let cluster = Cluster::builder().brokers(1).topic("t", 1, 1).start().unwrap();
    let client = blocking::Client::connect(cluster.bootstrap()).unwrap();
    let mut consumer = client.consumer(|settings| settings.topics(["t"])).unwrap();
    assert!(consumer.next_timeout(Duration::from_millis(1)).unwrap().is_none());

    let producer = client.producer(|settings| settings).unwrap();
    producer.send(Record::to("t").value("v")).unwrap().wait(None).unwrap();
    assert_eq!(consumer.next_timeout(SOON).unwrap().expect("one was written").len(), 1);
    assert!(consumer.next_timeout(Duration::ZERO).unwrap().is_none());

    consumer.close().unwrap();
    for timeout in [Duration::ZERO, Duration::MAX] {
        assert_eq!(consumer.next_timeout(timeout).unwrap_err().kind(), ErrorKind::Closed);
    }
    assert!(consumer.next().is_none());
}
