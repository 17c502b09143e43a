use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{BrokerId, MetadataRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::{Cluster, error_code as code};

use crate::client::{Client, PRODUCE_VERSION, TOPIC, batch, fetch, produce, start, topic};

fn cluster() -> Cluster {
    start(|builder| builder.brokers(3).topic(TOPIC, 1, 3).racks(["a", "b"]))
}

#[tokio::test(start_paused = true)]
async fn a_former_leader_hints_at_the_new_one() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 1);
    assert_eq!(client.produce(0, -1, &batch(1)).await.expect("an answer").error_code, 0);
    cluster.move_leader(TOPIC, 0, 3).expect("a known partition");
    let response =
        client.ask(PRODUCE_VERSION, &produce(0, -1, &batch(1))).await.expect("an answer");
    let answer = &response.responses[0].partition_responses[0];
    assert_eq!((answer.error_code, answer.base_offset), (code::NOT_LEADER_OR_FOLLOWER, -1));
    assert_eq!(answer.current_leader.leader_id, BrokerId(3));
    assert_eq!(answer.current_leader.leader_epoch, 1);
    let (host, port) = cluster.address(3).expect("a known broker");
    let endpoints: Vec<_> = response
        .node_endpoints
        .iter()
        .map(|node| (node.node_id.0, node.host.to_string(), node.port, node.rack.as_deref()))
        .collect();
    assert_eq!(endpoints, [(3, host, i32::from(port), Some("a"))]);
    let moved = Client::new(&cluster, 3).produce(0, -1, &batch(1)).await.expect("an answer");
    assert_eq!((moved.error_code, moved.base_offset), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn versions_before_ten_have_no_hints() {
    let cluster = cluster();
    cluster.move_leader(TOPIC, 0, 2).expect("a known partition");
    let response =
        Client::new(&cluster, 1).ask(9, &produce(0, -1, &batch(1))).await.expect("an answer");
    let answer = &response.responses[0].partition_responses[0];
    assert_eq!(answer.error_code, code::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(answer.current_leader.leader_id, BrokerId(-1));
    assert!(response.node_endpoints.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_from_a_former_leader_hints_too() {
    let cluster = start(|builder| builder.brokers(4).topic(TOPIC, 1, 3));
    cluster.move_leader(TOPIC, 0, 2).expect("a known partition");
    let id = cluster.topics()[0].1;
    let mut request = fetch(0, 0);
    request.topics[0].topic = Default::default();
    request.topics[0].topic_id = id;
    // A follower may be read from, so that only who knows the epoch before the move learns of it. Who
    // has no replica has to hint in any case.
    let mut client = Client::new(&cluster, 1);
    let mut other = Client::new(&cluster, 4);
    for (client, epoch, expected) in [
        (&mut other, -1, code::NOT_LEADER_OR_FOLLOWER),
        (&mut client, 0, code::FENCED_LEADER_EPOCH),
    ] {
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = client.ask(16, &request).await.expect("an answer");
        let data = &response.responses[0].partitions[0];
        assert_eq!(data.error_code, expected);
        assert_eq!(data.current_leader.leader_id, BrokerId(2));
        assert_eq!(data.current_leader.leader_epoch, 1);
        assert_eq!(response.node_endpoints[0].node_id, BrokerId(2));
        // Before version 16 nobody hints.
        let response = client.ask(15, &request).await.expect("an answer");
        assert_eq!(response.responses[0].partitions[0].current_leader.leader_id, BrokerId(-1));
    }
    request.topics[0].partitions[0].current_leader_epoch = 2;
    let response = client.ask(16, &request).await.expect("an answer");
    assert_eq!(response.responses[0].partitions[0].error_code, code::UNKNOWN_LEADER_EPOCH);
}

#[tokio::test(start_paused = true)]
async fn a_move_answers_what_waits_with_the_offset_it_has() {
    let cluster = cluster();
    cluster.set_replica_delay(Duration::MAX);
    let mut client = Client::new(&cluster, 1);
    let id = client.send(PRODUCE_VERSION, &produce(0, -1, &batch(4))).await.expect("sent");
    client.silent_for(Duration::from_secs(1)).await;
    cluster.move_leader(TOPIC, 0, 2).expect("a known partition");
    let response = client.answer::<ProduceRequest>(id, PRODUCE_VERSION).await.expect("an answer");
    let answer = &response.responses[0].partition_responses[0];
    assert_eq!((answer.error_code, answer.base_offset), (code::NOT_LEADER_OR_FOLLOWER, 0));
    assert_eq!(answer.current_leader.leader_id, BrokerId(2));
}

#[tokio::test(start_paused = true)]
async fn metadata_follows_leaders() {
    let cluster = cluster();
    let mut client = Client::new(&cluster, 2);
    let request = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic()))]));
    cluster.move_leader(TOPIC, 0, 2).expect("a known partition");
    let response = client.ask(12, &request).await.expect("an answer");
    assert_eq!(response.brokers.len(), 3);
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.leader_id, partition.leader_epoch), (BrokerId(2), 1));
    cluster.remove_leader(TOPIC, 0).expect("a known partition");
    let response = client.ask(12, &request).await.expect("an answer");
    let partition = &response.topics[0].partitions[0];
    assert_eq!(
        (partition.error_code, partition.leader_id),
        (code::LEADER_NOT_AVAILABLE, BrokerId(-1))
    );
    assert_eq!(cluster.elect_preferred_leaders(), 1);
    let response = client.ask(12, &request).await.expect("an answer");
    assert_eq!(response.topics[0].partitions[0].leader_id, BrokerId(1));
}

#[tokio::test(start_paused = true)]
async fn sequences_survive_a_move() {
    let cluster = cluster();
    let first = batch(2).with_producer(9, 0, 0);
    let answer = Client::new(&cluster, 1).produce(0, -1, &first).await.expect("an answer");
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    cluster.move_leader(TOPIC, 0, 2).expect("a known partition");
    let mut client = Client::new(&cluster, 2);
    let again = client.produce(0, -1, &first).await.expect("an answer");
    assert_eq!((again.error_code, again.base_offset), (0, 0));
    let gap = batch(1).with_producer(9, 0, 3);
    let refused = client.produce(0, -1, &gap).await.expect("an answer");
    assert_eq!((refused.error_code, refused.base_offset), (code::OUT_OF_ORDER_SEQUENCE_NUMBER, -1));
    let records = cluster.records(TOPIC, 0).expect("a known partition");
    assert_eq!(records.len(), 2);
    assert_eq!((records[1].producer_id, records[1].sequence), (9, 1));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_broker_leads_nothing_and_does_not_know() {
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 1, 2));
    let mut client = Client::new(&cluster, 1);
    assert_eq!(client.produce(0, -1, &batch(1)).await.expect("an answer").error_code, 0);
    cluster.fence_broker(1).expect("a known broker");
    assert_eq!(cluster.partition(TOPIC, 0).expect("a known partition").leader, Some(2));
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    let named =
        |brokers: &[kafka_protocol::messages::metadata_response::MetadataResponseBroker]| {
            brokers.iter().map(|broker| broker.node_id.0).collect::<Vec<_>>()
        };
    let answer = client.ask(12, &request).await.expect("its connection is still open");
    assert_eq!(named(&answer.brokers), [2]);
    let refused = client.produce(0, -1, &batch(1)).await.expect("an answer");
    assert_eq!(refused.error_code, code::NOT_LEADER_OR_FOLLOWER);
    cluster.unfence_broker(1).expect("a known broker");
    let answer = client.ask(12, &request).await.expect("an answer");
    assert_eq!(named(&answer.brokers), [1, 2]);
    assert_eq!(cluster.partition(TOPIC, 0).expect("a known partition").leader, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_moved_is_named_and_found_at_its_new_address() {
    let cluster = cluster();
    let old = cluster.address(2).expect("a known broker");
    cluster.move_broker(2, "elsewhere", 7).expect("a known broker");
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    let response = Client::new(&cluster, 1).ask(9, &request).await.expect("an answer");
    let named = response.brokers.iter().find(|b| b.node_id == BrokerId(2)).expect("named");
    assert_eq!((named.host.as_str(), named.port), ("elsewhere", 7));
    cluster.dial_in_memory("elsewhere", 7).expect("it is there");
    let refused = cluster.dial_in_memory(&old.0, old.1).expect_err("nobody is there");
    assert_eq!(refused.kind(), std::io::ErrorKind::NotFound);
    assert!(cluster.move_broker(9, "elsewhere", 7).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_cut_off_tells_what_it_knew() {
    let cluster = cluster();
    cluster.cut_off_broker(1).expect("a known broker");
    cluster.move_leader(TOPIC, 0, 3).expect("a known partition");
    cluster.create_topic("later", 1, 1).expect("a topic");
    let named = |name| MetadataRequestTopic::default().with_name(Some(name));
    let later = TopicName(StrBytes::from_static_str("later"));
    let request = MetadataRequest::default().with_topics(Some(vec![named(topic()), named(later)]));
    let told = async |broker| {
        let response = Client::new(&cluster, broker).ask(9, &request).await.expect("an answer");
        let leaders = &response.topics[0].partitions[0];
        (leaders.leader_id.0, leaders.leader_epoch, response.topics[1].error_code)
    };
    assert_eq!(told(1).await, (1, 0, code::UNKNOWN_TOPIC_OR_PARTITION));
    assert_eq!(told(2).await, (3, 1, 0));
    cluster.reconnect_broker(1).expect("a known broker");
    assert_eq!(told(1).await, (3, 1, 0));
}
