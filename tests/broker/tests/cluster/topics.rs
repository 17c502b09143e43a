//! Topics, offsets and producer ids as the protocol manages them.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProducerId, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::{Cluster, error_code as code};

use crate::client::{Client, TOPIC, batch, start, topic};

fn named(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn creatable(name: &str, partitions: i32, replication: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(named(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication)
}

async fn create(client: &mut Client, topics: Vec<CreatableTopic>) -> Vec<i16> {
    let request = CreateTopicsRequest::default().with_topics(topics);
    let response = client.ask(7, &request).await.expect("an answer");
    response.topics.iter().map(|topic| topic.error_code).collect()
}

#[tokio::test(start_paused = true)]
async fn topics_are_created_or_refused_one_by_one() {
    let cluster = start(|builder| builder.brokers(3).default_partitions(5).topic(TOPIC, 1, 1));
    let mut client = Client::new(&cluster, 2);
    let codes = create(
        &mut client,
        vec![
            creatable("good", 12, 2),
            creatable("defaults", -1, -1),
            creatable(TOPIC, 1, 1),
            creatable("no partitions", 0, 1),
            creatable("none", 0, 1),
            creatable("wide", 1, 4),
            creatable("vast", 100_001, 1),
            creatable("twice", 1, 1),
            creatable("twice", 1, 1),
        ],
    )
    .await;
    assert_eq!(
        codes,
        [
            0,
            0,
            code::TOPIC_ALREADY_EXISTS,
            code::INVALID_TOPIC_EXCEPTION,
            code::INVALID_PARTITIONS,
            code::INVALID_REPLICATION_FACTOR,
            code::INVALID_PARTITIONS,
            code::INVALID_REQUEST,
            code::INVALID_REQUEST,
        ]
    );
    assert_eq!(cluster.partitions("good").expect("created"), 12);
    assert_eq!(cluster.partitions("defaults").expect("created"), 5);
    assert_eq!(cluster.partition("defaults", 4).expect("created").replicas.len(), 3);
    let leaders: Vec<_> =
        (0..4).map(|index| cluster.partition("good", index).expect("created").leader).collect();
    assert_eq!(leaders, [Some(1), Some(2), Some(3), Some(1)], "leaders take turns");
    assert_eq!(cluster.topics().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn validate_only_creates_nothing() {
    let cluster = start(|builder| builder);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![creatable("planned", 3, 1)])
        .with_validate_only(true);
    let response = Client::new(&cluster, 1).ask(7, &request).await.expect("an answer");
    assert_eq!((response.topics[0].error_code, response.topics[0].num_partitions), (0, 3));
    assert!(cluster.topics().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_topic_may_have_its_own_largest_batch() {
    let cluster = start(|builder| builder);
    let mut client = Client::new(&cluster, 1);
    let limit = batch(5).len();
    let setting = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("max.message.bytes"))
        .with_value(Some(StrBytes::from_string(limit.to_string())));
    let narrow = creatable(TOPIC, 1, 1).with_configs(vec![setting]);
    assert_eq!(create(&mut client, vec![narrow]).await, [0]);
    assert_eq!(client.produce(0, 1, &batch(5)).await.expect("an answer").error_code, 0);
    let refused = client.produce(0, 1, &batch(6)).await.expect("an answer");
    assert_eq!((refused.error_code, refused.base_offset), (code::MESSAGE_TOO_LARGE, -1));
    assert!(refused.error_message.is_some_and(|message| message.contains("max.message.bytes")));
}

#[tokio::test(start_paused = true)]
async fn refused_records_are_named_in_the_response() {
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1));
    let mut client = Client::new(&cluster, 1);
    cluster.compact(TOPIC).expect("a known topic");
    let refused = client.produce(0, 1, &batch(2)).await.expect("an answer");
    let blamed: Vec<_> = refused.record_errors.iter().map(|one| one.batch_index).collect();
    assert_eq!((refused.error_code, blamed), (code::INVALID_RECORD, vec![0, 1]));
    assert!(refused.record_errors[0].batch_index_error_message.is_some());
    cluster.refuse_timestamps_after(TOPIC, -1).expect("a known topic");
    let refused = client.produce(0, 1, &batch(1)).await.expect("an answer");
    assert_eq!(refused.error_code, code::INVALID_TIMESTAMP);
    let compact = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("cleanup.policy"))
        .with_value(Some(StrBytes::from_static_str("delete,compact")));
    let other = creatable("other", 1, 1).with_configs(vec![compact]);
    assert_eq!(create(&mut client, vec![other]).await, [0]);
    let mut request = crate::client::produce(0, 1, &batch(1));
    request.topic_data[0].name = named("other");
    let answer = client.ask(crate::client::PRODUCE_VERSION, &request).await.expect("an answer");
    assert_eq!(answer.responses[0].partition_responses[0].error_code, code::INVALID_RECORD);
}

#[tokio::test(start_paused = true)]
async fn a_topic_created_again_is_another_topic() {
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1));
    let mut client = Client::new(&cluster, 1);
    let first = cluster.topics()[0].1;
    let by_id = DeleteTopicsRequest::default()
        .with_topics(vec![DeleteTopicState::default().with_name(None).with_topic_id(first)]);
    let response = client.ask(6, &by_id).await.expect("an answer");
    assert_eq!(response.responses[0].error_code, 0);
    assert_eq!(response.responses[0].name, Some(topic()));
    assert_eq!(create(&mut client, vec![creatable(TOPIC, 1, 1)]).await, [0]);
    assert_ne!(cluster.topics()[0].1, first);
    let response = client.ask(6, &by_id).await.expect("an answer");
    assert_eq!(response.responses[0].error_code, code::UNKNOWN_TOPIC_ID);
}

#[tokio::test(start_paused = true)]
async fn topics_grow_and_never_shrink() {
    let cluster = start(|builder| builder.topic(TOPIC, 3, 1));
    let mut client = Client::new(&cluster, 1);
    for (name, count, expected) in [
        (TOPIC, 5, 0),
        (TOPIC, 5, code::INVALID_PARTITIONS),
        (TOPIC, 4, code::INVALID_PARTITIONS),
        ("unknown", 4, code::UNKNOWN_TOPIC_OR_PARTITION),
    ] {
        let request = CreatePartitionsRequest::default().with_topics(vec![
            CreatePartitionsTopic::default()
                .with_name(named(name))
                .with_count(count)
                .with_assignments(None),
        ]);
        let response = client.ask(3, &request).await.expect("an answer");
        assert_eq!(response.results[0].error_code, expected, "{name} to {count}");
    }
    assert_eq!(cluster.partitions(TOPIC).expect("a known topic"), 5);
}

async fn metadata(client: &mut Client, names: &[&str], create: bool) -> Vec<(i16, usize)> {
    let topics = names
        .iter()
        .map(|name| MetadataRequestTopic::default().with_name(Some(named(name))))
        .collect();
    let request =
        MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(create);
    let response = client.ask(12, &request).await.expect("an answer");
    response.topics.iter().map(|topic| (topic.error_code, topic.partitions.len())).collect()
}

#[tokio::test(start_paused = true)]
async fn unknown_topics_are_created_only_where_both_sides_want_it() {
    let missing = (code::UNKNOWN_TOPIC_OR_PARTITION, 0);
    let cluster = start(|builder| builder);
    assert_eq!(metadata(&mut Client::new(&cluster, 1), &["new"], true).await, [missing]);
    let cluster = start(|builder| builder.auto_create_topics(4));
    let mut client = Client::new(&cluster, 1);
    assert_eq!(metadata(&mut client, &["new"], false).await, [missing]);
    assert_eq!(metadata(&mut client, &["new"], true).await, [(0, 4)]);
    let illegal = (code::INVALID_TOPIC_EXCEPTION, 0);
    assert_eq!(metadata(&mut client, &["..", "new", "new"], true).await, [illegal, (0, 4)]);
}

async fn offset(client: &mut Client, timestamp: i64, epoch: i32) -> (i16, i64) {
    let partition =
        ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(epoch);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
        ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]),
    ]);
    let response = client.ask(9, &request).await.expect("an answer");
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.offset)
}

fn with_records() -> Cluster {
    start(|builder| builder.brokers(2).topic(TOPIC, 1, 2))
}

#[tokio::test(start_paused = true)]
async fn offsets_are_found_by_time() {
    let cluster = with_records();
    let mut client = Client::new(&cluster, 1);
    assert_eq!(offset(&mut client, -3, -1).await, (0, -1), "an empty log has no largest time");
    for _ in 0..2 {
        client.produce(0, -1, &batch(5)).await.expect("an answer");
    }
    cluster.delete_records(TOPIC, 0, 3).expect("a known partition");
    assert_eq!(offset(&mut client, -1, -1).await, (0, 10), "latest");
    assert_eq!(offset(&mut client, -2, -1).await, (0, 3), "earliest");
    assert_eq!(offset(&mut client, -3, -1).await, (0, 3), "largest time");
    assert_eq!(offset(&mut client, 0, -1).await, (0, 3), "at or after 0");
    assert_eq!(offset(&mut client, 1, -1).await, (0, -1), "at or after 1: none");
    assert_eq!(offset(&mut client, -99, -1).await.0, code::UNSUPPORTED_VERSION);
}

#[tokio::test(start_paused = true)]
async fn latest_is_the_high_watermark() {
    let cluster = with_records();
    cluster.set_replica_delay(std::time::Duration::MAX);
    let mut client = Client::new(&cluster, 1);
    client.produce(0, 1, &batch(5)).await.expect("an answer");
    assert_eq!(offset(&mut client, -1, -1).await, (0, 0));
    cluster.set_replica_delay(std::time::Duration::ZERO);
    assert_eq!(offset(&mut client, -1, -1).await, (0, 5));
}

#[tokio::test(start_paused = true)]
async fn offsets_are_the_leaders_to_tell() {
    let cluster = with_records();
    let mut client = Client::new(&cluster, 2);
    assert_eq!(offset(&mut client, -1, -1).await.0, code::NOT_LEADER_OR_FOLLOWER);
    cluster.move_leader(TOPIC, 0, 2).expect("a known partition");
    assert_eq!(offset(&mut client, -1, 0).await.0, code::FENCED_LEADER_EPOCH);
    assert_eq!(offset(&mut client, -1, 1).await, (0, 0));
    assert_eq!(offset(&mut client, -1, 2).await.0, code::UNKNOWN_LEADER_EPOCH);
}

async fn init(
    client: &mut Client,
    transactional: Option<&'static str>,
    current: (i64, i16),
) -> (i16, i64, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(
            transactional.map(|id| TransactionalId(StrBytes::from_static_str(id))),
        )
        .with_producer_id(ProducerId(current.0))
        .with_producer_epoch(current.1);
    let response = client.ask(4, &request).await.expect("an answer");
    (response.error_code, response.producer_id.0, response.producer_epoch)
}

#[tokio::test(start_paused = true)]
async fn producer_ids_are_fresh_and_transactional_ones_are_fenced() {
    let cluster = start(|builder| builder.brokers(2));
    let mut client = Client::new(&cluster, 1);
    let (_, first, _) = init(&mut client, None, (-1, -1)).await;
    let (_, second, epoch) = init(&mut Client::new(&cluster, 2), None, (-1, -1)).await;
    assert!(first >= 0 && second != first && epoch == 0);
    // An idempotent producer bumps its epoch itself; what it names is not looked at.
    let (error, third, _) = init(&mut client, None, (first, 0)).await;
    assert!(error == 0 && third != first && third != second);

    let (_, id, epoch) = init(&mut client, Some("payments"), (-1, -1)).await;
    assert_eq!(epoch, 0);
    assert_eq!(init(&mut client, Some("payments"), (-1, -1)).await, (0, id, 1), "a restart");
    assert_eq!(init(&mut client, Some("payments"), (id, 1)).await, (0, id, 2), "a recovery");
    let fenced = init(&mut client, Some("payments"), (id, 1)).await;
    assert_eq!(fenced, (code::PRODUCER_FENCED, -1, -1));
}
