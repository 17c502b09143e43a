//! The oldest Kafka that is supported, beside the newest that every other test runs on.

use std::time::Duration;

use ottla::blocking::Client;
use ottla::{Compression, NewTopic, OffsetSpec, Record};
use ottla_test_kafka::{Cluster, Options};

#[test]
fn real_oldest_supported_version() {
    let options = Options { brokers: 1, version: "3.9.2".into(), ..Options::default() };
    let cluster = Cluster::start(options).expect("Kafka 3.9.2 starts");
    let client = Client::connect(cluster.bootstrap()).expect("connects");
    client.create_topic(NewTopic::new("old", 3, 1)).expect("creates a topic");
    let n = 2_000u32;
    for (first, compression) in [(0, Compression::None), (n, Compression::Lz4)] {
        let producer = client.producer(|p| p.compression(compression)).expect("settings are fine");
        let handles: Vec<_> = (first..first + n)
            .map(|i| {
                let value = format!("{i:08} and some more of the same, the same, the same");
                producer.send(Record::to("old").value(&value)).expect("there is space")
            })
            .collect();
        for mut handle in handles {
            handle.wait(Some(Duration::from_secs(60))).expect("is acknowledged");
        }
    }
    let ends: i64 = (0..3).map(|p| client.offset("old", p, OffsetSpec::Latest).expect("end")).sum();
    assert_eq!(ends, i64::from(2 * n));
    let mut consumer = client.consumer(|c| c.topics(["old"])).expect("settings are fine");
    let mut seen = vec![0u8; 2 * n as usize];
    while seen.contains(&0) {
        let next = consumer.next_timeout(Duration::from_secs(60)).expect("reads");
        let batch = next.expect("more records within a minute");
        for record in &batch {
            let text = std::str::from_utf8(record.value().expect("has a value")).expect("is text");
            seen[text[..8].parse::<usize>().expect("starts with its number")] += 1;
        }
    }
    assert!(seen.iter().all(|times| *times == 1), "every record exactly once");
}
