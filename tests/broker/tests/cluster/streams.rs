//! In-memory connections and virtual time.

use std::io::ErrorKind;
use std::time::Duration;

use kafka_protocol::messages::ApiVersionsRequest;
use ottla_test_broker::{ApiKey, Cluster, Fault, Leaders};
use tokio::time::Instant;

use crate::client::{Client, TOPIC, batch, start};

#[tokio::test(start_paused = true)]
async fn a_day_of_faults_takes_no_time() {
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1));
    cluster.faults().on(1, ApiKey::PRODUCE, Fault::Delay(Duration::from_secs(50)), 2000);
    let started = Instant::now();
    let mut client = Client::new(&cluster, 1);
    for offset in 0..2000 {
        assert_eq!(client.produce(0, 1, &batch(1)).await.expect("an answer").base_offset, offset);
    }
    assert!(started.elapsed() >= Duration::from_secs(100_000));
}

#[tokio::test(start_paused = true)]
async fn brokers_are_dialled_by_the_address_that_metadata_names() {
    let cluster = start(|builder| builder.brokers(2));
    assert_eq!(cluster.bootstrap(), "broker-1:9092,broker-2:9092");
    let dialer = cluster.dialer();
    let stream = dialer.dial("broker-2", 9092).expect("a connection");
    Client::over(stream).ask(0, &ApiVersionsRequest::default()).await.expect("an answer");
    assert_eq!(cluster.stats().brokers[1].requests_of(ApiKey::API_VERSIONS), 1);
    let unknown = dialer.dial("broker-3", 9092).expect_err("unknown");
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    drop(cluster);
    let gone = dialer.dial("broker-1", 9092).expect_err("gone");
    assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn memory_and_sockets_reach_the_same_broker() {
    let cluster = Cluster::builder().topic(TOPIC, 1, 1).start().expect("a cluster");
    let mut near = Client::new(&cluster, 1);
    let mut far = Client::tcp(&cluster, 1).await.expect("a connection");
    for offset in [0, 2, 4] {
        assert_eq!(near.produce(0, 1, &batch(1)).await.expect("an answer").base_offset, offset);
        assert_eq!(far.produce(0, 1, &batch(1)).await.expect("an answer").base_offset, offset + 1);
    }
    assert_eq!(cluster.stats().connections_open(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_fits_through_a_small_stream() {
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1).max_message_bytes(8 << 20));
    let large = batch(50_000);
    let mut client = Client::new(&cluster, 1);
    assert_eq!(client.produce(0, 1, &large).await.expect("an answer").error_code, 0);
    let data = client.fetch(0, 0).await.expect("an answer");
    assert_eq!(data.records.expect("records").len(), large.len());
}

#[tokio::test(start_paused = true)]
async fn a_network_of_the_callers_own_brings_connections_to_the_door() {
    let cluster = start(|builder| builder.brokers(2));
    let doors = cluster.doors();
    let (near, far) = tokio::io::duplex(4096);
    doors.admit(2, far).expect("an open door");
    Client::over(near).ask(0, &ApiVersionsRequest::default()).await.expect("an answer");
    assert_eq!(cluster.stats().brokers[1].requests_of(ApiKey::API_VERSIONS), 1);

    cluster.stop_broker(2, Leaders::Keep).expect("a broker");
    assert_eq!((doors.is_open(1), doors.is_open(2)), (true, false));
    let (_near, far) = tokio::io::duplex(4096);
    let refused = doors.admit(2, far).expect_err("closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(cluster.stats().brokers[1].connections_refused, 1);
}

#[tokio::test(start_paused = true)]
async fn the_most_connections_at_one_time_are_remembered() {
    let cluster = start(|builder| builder);
    let open = || cluster.connect_in_memory(1).expect("a connection");
    let first = [open(), open(), open()];
    drop(first);
    // Long enough for the broker to see the ends.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let _another = open();
    let stats = &cluster.stats().brokers[0];
    let counts = (stats.connections_accepted, stats.connections_open, stats.most_connections_open);
    assert_eq!(counts, (4, 1, 3));
}
