//! Settings of topics and brokers, and records that are deleted: what clients' tools ask for.

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, DeleteRecordsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, TopicName, alter_configs_request,
};
use ottla_test_broker::{Acls, Allowed, error_code as code};

use crate::client::{Client, TOPIC, batch, start};
use crate::group_client::text;

async fn describe(client: &mut Client, kind: i8, name: &str) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    client.ask(4, &request.with_include_synonyms(true)).await.expect("an answer").results.remove(0)
}

/// Operations on one setting of the topic, and the error.
async fn alter(client: &mut Client, name: &str, operation: i8, value: Option<&str>) -> i16 {
    let config = AlterableConfig::default()
        .with_name(text(name))
        .with_config_operation(operation)
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(TOPIC))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    client.ask(1, &request).await.expect("an answer").responses[0].error_code
}

#[tokio::test(start_paused = true)]
async fn settings_are_described_altered_and_heeded() {
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1).max_message_bytes(10_000));
    let mut client = Client::new(&cluster, 1);
    let value = |told: &DescribeConfigsResult, name: &str| {
        let one = told.configs.iter().find(|one| one.name.as_str() == name).expect("a setting");
        (one.value.clone().expect("a value").to_string(), one.config_source, one.synonyms.len())
    };
    let told = describe(&mut client, 2, TOPIC).await;
    assert_eq!(value(&told, "max.message.bytes"), ("10000".to_owned(), 5, 1));
    assert_eq!(value(&told, "cleanup.policy"), ("delete".to_owned(), 5, 1));

    assert_eq!(alter(&mut client, "max.message.bytes", 0, Some("200")).await, 0);
    assert_eq!(alter(&mut client, "cleanup.policy", 2, Some("compact")).await, 0);
    let told = describe(&mut client, 2, TOPIC).await;
    assert_eq!(value(&told, "max.message.bytes"), ("200".to_owned(), 1, 2));
    assert_eq!(value(&told, "cleanup.policy"), ("delete,compact".to_owned(), 1, 2));
    let produced = client.produce(0, 1, &batch(9)).await.expect("an answer");
    assert_eq!(produced.error_code, code::MESSAGE_TOO_LARGE);
    assert_eq!(alter(&mut client, "max.message.bytes", 1, None).await, 0);
    let produced = client.produce(0, 1, &batch(9)).await.expect("an answer");
    assert_eq!(produced.error_code, code::INVALID_RECORD, "compacted: a key is needed");

    for (name, operation, value, error) in [
        ("no.such.setting", 0, Some("1"), code::INVALID_CONFIG),
        ("retention.ms", 0, Some("long"), code::INVALID_CONFIG),
        ("retention.ms", 2, Some("1"), code::INVALID_CONFIG),
        ("retention.ms", 0, None, code::INVALID_REQUEST),
        ("retention.ms", 9, Some("1"), code::INVALID_REQUEST),
    ] {
        assert_eq!(alter(&mut client, name, operation, value).await, error, "{name} {operation}");
    }
    // The older request says all of them.
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("5")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(TOPIC))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let only = request.clone().with_validate_only(true);
    assert_eq!(client.ask(2, &only).await.expect("an answer").responses[0].error_code, 0);
    let told = describe(&mut client, 2, TOPIC).await;
    assert_eq!(value(&told, "retention.ms").1, 5, "it was to be looked at only");
    assert_eq!(client.ask(2, &request).await.expect("an answer").responses[0].error_code, 0);
    let told = describe(&mut client, 2, TOPIC).await;
    assert_eq!(value(&told, "retention.ms"), ("5".to_owned(), 1, 2));
    assert_eq!(value(&told, "cleanup.policy").1, 5);
    assert_eq!(client.produce(0, 1, &batch(9)).await.expect("an answer").error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_or_not_allowed_is_not_described() {
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 1, 1));
    let mut client = Client::new(&cluster, 1);
    let allowed = |allowed: Allowed| Some(Acls::new().allow("ANONYMOUS", allowed));
    let unknown = code::UNKNOWN_TOPIC_OR_PARTITION;
    for (kind, name, error, forbidden) in [
        (2, TOPIC, 0, code::TOPIC_AUTHORIZATION_FAILED),
        (2, "nowhere", unknown, code::TOPIC_AUTHORIZATION_FAILED),
        (2, "not/legal", code::INVALID_TOPIC_EXCEPTION, code::TOPIC_AUTHORIZATION_FAILED),
        (4, "1", 0, code::CLUSTER_AUTHORIZATION_FAILED),
        (4, "", 0, code::CLUSTER_AUTHORIZATION_FAILED),
        (4, "2", code::INVALID_REQUEST, code::CLUSTER_AUTHORIZATION_FAILED),
        (8, "1", code::INVALID_REQUEST, code::INVALID_REQUEST),
    ] {
        cluster.set_acls(None);
        assert_eq!(describe(&mut client, kind, name).await.error_code, error, "{kind} {name}");
        cluster.set_acls(allowed(Allowed::new()));
        assert_eq!(describe(&mut client, kind, name).await.error_code, forbidden, "{kind} {name}");
    }
    cluster.set_acls(allowed(Allowed::new().describe_configs(TOPIC)));
    assert_eq!(describe(&mut client, 2, TOPIC).await.error_code, 0);
    let forbidden = code::TOPIC_AUTHORIZATION_FAILED;
    assert_eq!(alter(&mut client, "retention.ms", 0, Some("1")).await, forbidden);
    cluster.set_acls(allowed(Allowed::new().alter_configs(TOPIC)));
    assert_eq!(alter(&mut client, "retention.ms", 0, Some("1")).await, 0);
    assert_eq!(describe(&mut client, 2, TOPIC).await.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn records_are_deleted_up_to_an_offset() {
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 2, 1).topic("keyed", 1, 1));
    cluster.compact("keyed").expect("a topic");
    let mut client = Client::new(&cluster, 1);
    for _ in 0..3 {
        client.produce(0, 1, &batch(2)).await.expect("an answer");
    }
    let delete = |topic: &str, partition: i32, offset: i64| {
        let partition =
            DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        DeleteRecordsRequest::default().with_topics(vec![topic])
    };
    let unknown = code::UNKNOWN_TOPIC_OR_PARTITION;
    for (topic, partition, offset, error, start) in [
        (TOPIC, 0, 3, 0, 3),
        (TOPIC, 0, 1, 0, 3),
        (TOPIC, 0, 7, code::OFFSET_OUT_OF_RANGE, -1),
        (TOPIC, 0, -2, code::OFFSET_OUT_OF_RANGE, -1),
        (TOPIC, 0, -1, 0, 6),
        (TOPIC, 1, 0, code::NOT_LEADER_OR_FOLLOWER, -1),
        (TOPIC, 2, 0, unknown, -1),
        ("nowhere", 0, 0, unknown, -1),
        ("keyed", 0, 0, code::POLICY_VIOLATION, -1),
    ] {
        let told = client.ask(2, &delete(topic, partition, offset)).await.expect("an answer");
        let told = &told.topics[0].partitions[0];
        assert_eq!((told.error_code, told.low_watermark), (error, start), "{topic} {offset}");
    }
}
