use std::io::ErrorKind;

use kafka_protocol::messages::{ApiVersionsRequest, BrokerId, MetadataRequest};
use ottla_test_broker::{Cluster, Leaders, error_code as code};

use crate::client::{Client, TOPIC, batch, start};

#[tokio::test]
async fn a_stopped_broker_refuses_and_comes_back_on_its_port() {
    let cluster = Cluster::builder().brokers(2).topic(TOPIC, 1, 2).start().expect("a cluster");
    let mut old = Client::tcp(&cluster, 1).await.expect("a connection");
    assert_eq!(old.produce(0, -1, &batch(1)).await.expect("an answer").base_offset, 0);
    let bootstrap = cluster.bootstrap();

    cluster.stop_broker(1, Leaders::Move).expect("a known broker");
    old.closed().await;
    let refused = Client::tcp(&cluster, 1).await.map(drop).expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let mut other = Client::tcp(&cluster, 2).await.expect("a connection");
    assert_eq!(other.produce(0, -1, &batch(1)).await.expect("an answer").base_offset, 1);

    cluster.start_broker(1).expect("a known broker");
    assert_eq!(cluster.bootstrap(), bootstrap);
    let mut back = Client::tcp(&cluster, 1).await.expect("a connection");
    let answer = back.produce(0, -1, &batch(1)).await.expect("an answer");
    assert_eq!(answer.error_code, code::NOT_LEADER_OR_FOLLOWER, "leaders stay where they are");
    assert_eq!(cluster.elect_preferred_leaders(), 1);
    assert_eq!(back.produce(0, -1, &batch(1)).await.expect("an answer").base_offset, 2);
    assert_eq!(cluster.records(TOPIC, 0).expect("a known partition").len(), 3);
}

#[tokio::test]
async fn cut_connections_leave_the_broker_listening() {
    let cluster = Cluster::builder().topic(TOPIC, 1, 1).start().expect("a cluster");
    let mut client = Client::tcp(&cluster, 1).await.expect("a connection");
    client.ask(0, &ApiVersionsRequest::default()).await.expect("an answer");
    cluster.cut_connections(1).expect("a known broker");
    client.closed().await;
    let mut next = Client::tcp(&cluster, 1).await.expect("a connection");
    next.ask(0, &ApiVersionsRequest::default()).await.expect("an answer");
    assert_eq!(cluster.stats().connections_accepted(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_cluster_may_notice_a_stop_or_not() {
    for (leaders, expected, brokers) in [(Leaders::Move, 2, 1), (Leaders::Keep, 1, 2)] {
        let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 1, 2));
        cluster.stop_broker(1, leaders).expect("a known broker");
        let everything = MetadataRequest::default().with_topics(None);
        let response = Client::new(&cluster, 2).ask(9, &everything).await.expect("an answer");
        assert_eq!(response.brokers.len(), brokers, "{leaders:?}");
        let partition = &response.topics[0].partitions[0];
        assert_eq!(partition.leader_id, BrokerId(expected), "{leaders:?}");
        let refused = cluster.connect_in_memory(1).expect_err("stopped");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_replica_leads_again_when_it_is_back() {
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1));
    Client::new(&cluster, 1).produce(0, 1, &batch(2)).await.expect("an answer");
    cluster.stop_broker(1, Leaders::Move).expect("a known broker");
    let info = cluster.partition(TOPIC, 0).expect("a known partition");
    assert_eq!((info.leader, info.isr), (None, vec![1]), "nobody else has all the records");
    cluster.start_broker(1).expect("a known broker");
    let answer = Client::new(&cluster, 1).produce(0, 1, &batch(1)).await.expect("an answer");
    assert_eq!((answer.error_code, answer.base_offset), (0, 2));
}

#[test]
fn a_cluster_needs_no_runtime_and_ends_when_it_is_dropped() {
    use std::io::{Read, Write};
    let cluster = Cluster::builder().start().expect("a cluster");
    let address = cluster.bootstrap();
    let mut stream = std::net::TcpStream::connect(&address).expect("a connection");
    stream.set_read_timeout(Some(crate::client::LONG)).expect("a timeout");
    // ApiVersions v0 without a client id.
    let frame = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 5, 0xff, 0xff];
    stream.write_all(&frame).expect("sent");
    let mut head = [0; 10];
    stream.read_exact(&mut head).expect("an answer");
    assert_eq!(head[4..], [0, 0, 0, 5, 0, 0], "correlation id and no error");
    drop(cluster);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end of the connection");
    let refused = std::net::TcpStream::connect(&address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn what_cannot_be_built_says_why() {
    for builder in [
        Cluster::builder().brokers(0),
        Cluster::builder().brokers(1001),
        Cluster::builder().topic("a b", 1, 1),
        Cluster::builder().topic(TOPIC, 0, 1),
        Cluster::builder().topic(TOPIC, 1, 2),
        Cluster::builder().topic(TOPIC, 1, 1).topic(TOPIC, 1, 1),
    ] {
        let error = builder.tcp(false).start().expect_err("out of range");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let outside = Cluster::builder().start_on_current_runtime().expect_err("no runtime");
    assert_eq!(outside.kind(), ErrorKind::Other);
}
