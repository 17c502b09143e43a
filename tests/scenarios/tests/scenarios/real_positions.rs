//! What a real broker says to a position that is not in its log: an epoch that another leader wrote
//! less of, one that nobody knows, a topic made anew. The consumer's rules rest on this.

use std::time::Duration;

use crate::raw::Raw;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use ottla::testing::error_code as code;
use ottla::{Client, Consumer, Error, ErrorKind, NewTopic, Record};
use ottla_scenarios::wait::within;
use ottla_test_kafka::{Cluster, Options};

const TOPIC: &str = "positions";
/// Names topics by name, and tells epochs.
const FETCH: i16 = 12;

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

/// What a broker says to a position: its error, and the epoch and end where its log parts from it.
fn ask(raw: &mut Raw, offset: i64, epoch: i32) -> (i16, i32, i64) {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_last_fetched_epoch(epoch)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(100)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let answer = raw.ask(FETCH, &request);
    let data = &answer.responses[0].partitions[0];
    (data.error_code, data.diverging_epoch.epoch, data.diverging_epoch.end_offset)
}

async fn write(client: &Client, count: usize) {
    let producer = client.producer().build().unwrap();
    for _ in 0..count {
        let sent = producer.send(Record::to(TOPIC).partition(0).value("x")).await.unwrap();
        within("an ack", sent).await.unwrap();
    }
}

/// Offsets of the next records.
async fn offsets(consumer: &mut Consumer, count: usize) -> Vec<i64> {
    let mut read = Vec::new();
    while read.len() < count {
        let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
        read.extend(batch.iter().map(|record| record.offset()));
    }
    read
}

/// The epoch of the record before an offset, once that is read.
async fn epoch_before(consumer: &mut Consumer, offset: i64) -> i32 {
    loop {
        match within("a batch", consumer.next()).await.unwrap() {
            Ok(batch) if batch.next_offset() == offset => return batch.leader_epoch(),
            Ok(_) => {}
            // A broker that takes its time to come back is told of, and reading goes on.
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
    }
}

async fn refusal(consumer: &mut Consumer) -> Error {
    match within("an error", consumer.next()).await.unwrap() {
        Ok(batch) => panic!("records from offset {} instead of an error", batch.base_offset()),
        Err(error) => error,
    }
}

/// Consumers are told where logs part, as followers are, though no other client asks.
fn epochs_are_compared_for_consumers(version: &str) {
    let options = Options { brokers: 1, version: version.into(), ..Options::default() };
    let cluster = Cluster::start(options).unwrap();
    let broker = cluster.ids()[0];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (first, latest) = runtime.block_on(async {
        let client = Client::connect(cluster.bootstrap()).await.unwrap();
        client.admin().create_topic(NewTopic::new(TOPIC, 1, 1)).await.unwrap();
        write(&client, 6).await;
        let mut consumer = client.consumer().topics([TOPIC]).build().unwrap();
        let first = epoch_before(&mut consumer, 6).await;
        // A leader that comes back leads under a new epoch.
        cluster.stop(broker).unwrap();
        cluster.restart(broker).unwrap();
        write(&client, 4).await;
        (first, epoch_before(&mut consumer, 10).await)
    });
    let mut raw = Raw::connect(&cluster, broker);
    assert!(latest > first, "{latest} after {first}");
    let well = (code::NONE, -1, -1);
    assert_eq!(ask(&mut raw, 6, first), well);
    assert_eq!(ask(&mut raw, 10, latest), well);
    assert_eq!(ask(&mut raw, 8, first), (code::NONE, first, 6), "this epoch never wrote 6 and 7");
    assert_eq!(ask(&mut raw, 99, latest), (code::NONE, latest, 10));
    assert_eq!(ask(&mut raw, 6, latest + 1), (code::OFFSET_OUT_OF_RANGE, -1, -1));
    assert_eq!(ask(&mut raw, 11, -1), (code::OFFSET_OUT_OF_RANGE, -1, -1));
}

#[test]
fn real_epochs_are_compared_for_consumers() {
    epochs_are_compared_for_consumers(&Options::default().version);
}

#[test]
fn real_epochs_are_compared_for_consumers_by_the_oldest_version() {
    epochs_are_compared_for_consumers("3.9.2");
}

/// A topic on two brokers, that may be led by one which lacks records.
fn create(raw: &mut Raw, replicas: &[u32]) {
    let brokers = replicas.iter().map(|id| BrokerId(*id as i32)).collect();
    let assignment = CreatableReplicaAssignment::default().with_broker_ids(brokers);
    let config = |name, value| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_static_str(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(topic())
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(vec![assignment])
        .with_configs(vec![
            config("unclean.leader.election.enable", "true"),
            config("min.insync.replicas", "1"),
        ]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    assert_eq!(raw.ask(5, &request).topics[0].error_code, code::NONE);
}

async fn until_led_by(cluster: &Cluster, leader: u32) {
    within("a leader", async {
        while cluster.partitions(TOPIC).is_ok_and(|p| p[0].leader != leader as i32) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[test]
fn real_a_log_that_was_cut_back_and_a_topic_made_anew() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let [old, new, third] = cluster.ids()[..] else { panic!("three brokers") };
    let mut raw = Raw::connect(&cluster, third);
    create(&mut raw, &[old, new]);
    cluster.wait_in_sync(&[TOPIC]).unwrap();
    runtime.block_on(async {
        let client = Client::connect(cluster.bootstrap()).await.unwrap();
        let mut consumer = client.consumer().topics([TOPIC]).build().unwrap();
        write(&client, 5).await;
        // The follower misses what comes now, and leads without it.
        cluster.stop(new).unwrap();
        write(&client, 5).await;
        let read = offsets(&mut consumer, 10).await;
        assert!(read.iter().copied().eq(0..10), "{read:?}");
        cluster.kill(old).unwrap();
        cluster.restart(new).unwrap();
        until_led_by(&cluster, new).await;
        write(&client, 20).await;
        let error = refusal(&mut consumer).await;
        assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
        assert!(error.message().contains("offset 10"), "{error}");
        assert_eq!(consumer.position(TOPIC, 0), Some(5), "{error}");
        let read = offsets(&mut consumer, 20).await;
        assert!(read.iter().copied().eq(5..25), "{read:?}");

        cluster.restart(old).unwrap();
        let request =
            DeleteTopicsRequest::default().with_topic_names(vec![topic()]).with_timeout_ms(30_000);
        assert_eq!(raw.ask(5, &request).responses[0].error_code, code::NONE);
        create(&mut raw, &[old, new]);
        cluster.wait_in_sync(&[TOPIC]).unwrap();
        let writer = Client::builder().client_id("writer").bootstrap(cluster.bootstrap());
        write(&writer.connect().await.unwrap(), 30).await;
        let mut told = Vec::new();
        let read = loop {
            match within("a batch", consumer.next()).await.unwrap() {
                Ok(batch) => break batch,
                Err(error) => told.push(error),
            }
        };
        // A moment without the topic may be told, too.
        told.retain(|error| error.kind() != ErrorKind::UnknownTopic);
        let kinds: Vec<_> = told.iter().map(Error::kind).collect();
        assert_eq!(kinds, [ErrorKind::Truncated], "{told:?}");
        assert_eq!(read.base_offset(), 0);
        let mut next = read.next_offset();
        while next < 30 {
            let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
            assert_eq!(batch.base_offset(), next);
            next = batch.next_offset();
        }
    });
}
