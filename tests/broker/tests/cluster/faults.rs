use std::time::Duration;

use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::{ApiKey, Cluster, Fault, FaultRule, error_code as code};
use tokio::time::Instant;

use crate::client::{
    Client, FETCH_VERSION, LONG, PRODUCE_VERSION, TOPIC, batch, fetch, produce, start,
};

fn cluster() -> Cluster {
    start(|builder| builder.brokers(2).topic(TOPIC, 2, 2))
}

fn on_produce(cluster: &Cluster, fault: Fault) {
    cluster.faults().on(1, ApiKey::PRODUCE, fault, 1);
}

fn end(cluster: &Cluster) -> i64 {
    cluster.partition(TOPIC, 0).expect("a known partition").log_end
}

/// Produces once more, on a new connection: the fault is spent.
async fn works_again(cluster: &Cluster, offset: i64) {
    let answer = Client::new(cluster, 1).produce(0, -1, &batch(1)).await.expect("an answer");
    assert_eq!((answer.error_code, answer.base_offset), (0, offset));
    assert_eq!(cluster.faults().fired(), 1);
}

#[tokio::test(start_paused = true)]
async fn cut_before_append() {
    let cluster = cluster();
    on_produce(&cluster, Fault::CutBeforeAppend);
    let mut client = Client::new(&cluster, 1);
    client.send(PRODUCE_VERSION, &produce(0, -1, &batch(3))).await.expect("sent");
    client.closed().await;
    assert_eq!(end(&cluster), 0);
    works_again(&cluster, 0).await;
}

#[tokio::test(start_paused = true)]
async fn cut_after_append() {
    let cluster = cluster();
    on_produce(&cluster, Fault::CutAfterAppend);
    let mut client = Client::new(&cluster, 1);
    let first = batch(3).with_producer(7, 0, 0);
    client.send(PRODUCE_VERSION, &produce(0, -1, &first)).await.expect("sent");
    client.closed().await;
    assert_eq!(end(&cluster), 3);
    // What the idempotent producer does next: it sends the batch again and learns where it is.
    let answer = Client::new(&cluster, 1).produce(0, -1, &first).await.expect("an answer");
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    assert_eq!(cluster.stats().brokers[0].produce_duplicates, 1);
    works_again(&cluster, 3).await;
}

#[tokio::test(start_paused = true)]
async fn black_hole() {
    let cluster = cluster();
    on_produce(&cluster, Fault::BlackHole);
    let mut client = Client::new(&cluster, 1);
    client.send(PRODUCE_VERSION, &produce(0, -1, &batch(3))).await.expect("sent");
    client.silent_for(Duration::from_secs(3600)).await;
    // The connection takes whatever else comes, and responses none of it.
    client.send(PRODUCE_VERSION, &produce(0, -1, &batch(5000))).await.expect("sent");
    client.silent_for(Duration::from_secs(3600)).await;
    assert_eq!(end(&cluster), 0);
    works_again(&cluster, 0).await;
}

#[tokio::test(start_paused = true)]
async fn black_hole_after_append() {
    let cluster = cluster();
    on_produce(&cluster, Fault::BlackHoleAfterAppend);
    let mut client = Client::new(&cluster, 1);
    client.send(PRODUCE_VERSION, &produce(0, -1, &batch(3))).await.expect("sent");
    client.silent_for(Duration::from_secs(3600)).await;
    assert_eq!(end(&cluster), 3);
    works_again(&cluster, 3).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_before_the_append_names_no_offset() {
    let cluster = cluster();
    on_produce(&cluster, Fault::Error(code::NOT_ENOUGH_REPLICAS));
    let answer = Client::new(&cluster, 1).produce(0, -1, &batch(3)).await.expect("an answer");
    assert_eq!((answer.error_code, answer.base_offset), (code::NOT_ENOUGH_REPLICAS, -1));
    assert_eq!(end(&cluster), 0);
    works_again(&cluster, 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_after_the_append_names_the_offset() {
    let cluster = cluster();
    Client::new(&cluster, 1).produce(0, -1, &batch(2)).await.expect("an answer");
    on_produce(&cluster, Fault::ErrorAfterAppend(code::NOT_ENOUGH_REPLICAS_AFTER_APPEND));
    let answer = Client::new(&cluster, 1).produce(0, -1, &batch(3)).await.expect("an answer");
    assert_eq!(
        (answer.error_code, answer.base_offset),
        (code::NOT_ENOUGH_REPLICAS_AFTER_APPEND, 2)
    );
    assert_eq!(end(&cluster), 5);
    works_again(&cluster, 5).await;
}

#[tokio::test(start_paused = true)]
async fn not_leader_before_and_after_the_append() {
    for (fault, offset, appended) in [
        (Fault::Error(code::NOT_LEADER_OR_FOLLOWER), -1, 0),
        (Fault::ErrorAfterAppend(code::NOT_LEADER_OR_FOLLOWER), 0, 3),
    ] {
        let cluster = cluster();
        on_produce(&cluster, fault);
        let answer = Client::new(&cluster, 1).produce(0, -1, &batch(3)).await.expect("an answer");
        assert_eq!((answer.error_code, answer.base_offset), (code::NOT_LEADER_OR_FOLLOWER, offset));
        assert_eq!(end(&cluster), appended);
        works_again(&cluster, appended).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_can_be_narrowed_to_one_partition() {
    let cluster = start(|builder| builder.topic(TOPIC, 2, 1));
    cluster.faults().inject(
        FaultRule::new(Fault::Error(code::REQUEST_TIMED_OUT))
            .api(ApiKey::PRODUCE)
            .topic(TOPIC)
            .partition(1)
            .always(),
    );
    let mut client = Client::new(&cluster, 1);
    for (partition, expected) in [(0, code::NONE), (1, code::REQUEST_TIMED_OUT)] {
        let answer = client.produce(partition, 1, &batch(1)).await.expect("an answer");
        assert_eq!(answer.error_code, expected, "partition {partition}");
    }
    cluster.faults().clear();
    assert_eq!(client.produce(1, 1, &batch(1)).await.expect("an answer").error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn throttle_is_announced_at_once_and_then_mutes_the_connection() {
    let cluster = cluster();
    on_produce(&cluster, Fault::Throttle(Duration::from_secs(5)));
    let mut client = Client::new(&cluster, 1);
    let started = Instant::now();
    let response =
        client.ask(PRODUCE_VERSION, &produce(0, -1, &batch(1))).await.expect("an answer");
    assert_eq!(response.throttle_time_ms, 5000);
    assert_eq!(started.elapsed(), Duration::ZERO);
    let next = client.ask(PRODUCE_VERSION, &produce(0, -1, &batch(1))).await.expect("an answer");
    assert_eq!(next.throttle_time_ms, 0);
    assert!(started.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn delay_comes_before_the_effect_and_delay_response_after() {
    let late = Duration::from_secs(7);
    for (fault, at_half_time) in [(Fault::Delay(late), 0), (Fault::DelayResponse(late), 3)] {
        let cluster = cluster();
        on_produce(&cluster, fault);
        let mut client = Client::new(&cluster, 1);
        let id = client.send(PRODUCE_VERSION, &produce(0, -1, &batch(3))).await.expect("sent");
        client.silent_for(late / 2).await;
        assert_eq!(end(&cluster), at_half_time, "{fault:?}");
        client
            .answer::<kafka_protocol::messages::ProduceRequest>(id, PRODUCE_VERSION)
            .await
            .expect("an answer");
        assert_eq!(end(&cluster), 3, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refuse_takes_connections_in_memory() {
    let cluster = cluster();
    cluster.faults().inject(FaultRule::new(Fault::Refuse).broker(1).times(2));
    for _ in 0..2 {
        let error = cluster.connect_in_memory(1).expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    cluster.connect_in_memory(2).expect("the other broker takes connections");
    cluster.connect_in_memory(1).expect("the rule is spent");
    assert_eq!(cluster.stats().brokers[0].connections_refused, 2);
}

#[tokio::test]
async fn refuse_closes_sockets_as_soon_as_they_are_accepted() {
    let cluster = Cluster::builder().start().expect("a cluster");
    cluster.faults().inject(FaultRule::new(Fault::Refuse));
    Client::tcp(&cluster, 1).await.expect("the kernel connects").closed().await;
    let mut client = Client::tcp(&cluster, 1).await.expect("a connection");
    client.ask(0, &ApiVersionsRequest::default()).await.expect("an answer");
    assert_eq!(cluster.stats().brokers[0].connections_refused, 1);
}

#[tokio::test(start_paused = true)]
async fn rules_count_skip_and_can_be_taken_back() {
    let cluster = cluster();
    let faults = cluster.faults();
    let rule = FaultRule::new(Fault::Error(code::UNKNOWN_SERVER_ERROR)).api(ApiKey::PRODUCE);
    faults.inject(rule.clone().after(1).times(2));
    let forever = faults.inject(rule.broker(2).always());
    let mut client = Client::new(&cluster, 1);
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(client.produce(0, -1, &batch(1)).await.expect("an answer").error_code);
    }
    assert_eq!(codes, [0, -1, -1, 0]);
    let mut other = Client::new(&cluster, 2);
    for _ in 0..3 {
        assert_eq!(other.produce(1, -1, &batch(1)).await.expect("an answer").error_code, -1);
    }
    assert!(faults.is_pending(forever));
    assert!(faults.remove(forever));
    assert!(!faults.is_pending(forever));
    assert_eq!(other.produce(1, -1, &batch(1)).await.expect("an answer").error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn faults_reach_requests_that_name_no_topic() {
    let cluster = cluster();
    cluster.faults().on(None, ApiKey::API_VERSIONS, Fault::Error(code::INVALID_REQUEST), 1);
    let mut client = Client::new(&cluster, 1);
    let answer = client.ask(0, &ApiVersionsRequest::default()).await.expect("an answer");
    assert_eq!(answer.error_code, code::INVALID_REQUEST);
    cluster.faults().on(None, ApiKey::METADATA, Fault::CutAfterAppend, 1);
    client.send(1, &MetadataRequest::default()).await.expect("sent");
    client.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_fetch_fault_leaves_other_connections_alone() {
    let cluster = cluster();
    cluster.faults().on(1, ApiKey::FETCH, Fault::BlackHole, 1);
    let mut lost = Client::new(&cluster, 1);
    lost.send(FETCH_VERSION, &fetch(0, 0)).await.expect("sent");
    lost.silent_for(LONG).await;
    let data = Client::new(&cluster, 1).fetch(0, 0).await.expect("an answer");
    assert_eq!(data.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn a_share_of_requests_is_drawn_and_repeats() {
    let mut runs = Vec::new();
    for (share, seed) in [(0.1, 1), (0.1, 1), (0.1, 2), (1.0, 1)] {
        let cluster = cluster();
        let rule = FaultRule::new(Fault::Error(code::NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
        cluster.faults().inject(rule.always().share(share, seed));
        let mut client = Client::new(&cluster, 1);
        let mut errors = Vec::new();
        for _ in 0..1000 {
            let answer = client.produce(0, -1, &batch(1)).await.expect("an answer");
            errors.push(answer.error_code != 0);
        }
        runs.push(errors);
    }
    let hits = |run: &Vec<bool>| run.iter().filter(|hit| **hit).count();
    assert!((70..130).contains(&hits(&runs[0])), "{}", hits(&runs[0]));
    assert_eq!(hits(&runs[3]), 1000);
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test(start_paused = true)]
async fn a_rule_for_one_topic_leaves_the_others_alone_and_goes_when_it_is_spent() {
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1).topic("other", 1, 1));
    let error = FaultRule::new(Fault::Error(code::REQUEST_TIMED_OUT)).api(ApiKey::PRODUCE);
    let rule = cluster.faults().inject(error.topic("other"));
    let mut client = Client::new(&cluster, 1);
    let mut send = async |topic: &'static str| {
        let mut request = produce(0, 1, &batch(1));
        request.topic_data[0].name = TopicName(StrBytes::from_static_str(topic));
        let answer = client.ask(PRODUCE_VERSION, &request).await.expect("an answer");
        answer.responses[0].partition_responses[0].error_code
    };
    assert_eq!(send(TOPIC).await, 0);
    assert!(cluster.faults().is_pending(rule));
    assert_eq!(send("other").await, code::REQUEST_TIMED_OUT);
    assert!(!cluster.faults().is_pending(rule) && !cluster.faults().remove(rule), "spent");
    assert_eq!((send("other").await, cluster.faults().fired()), (0, 1));
}
