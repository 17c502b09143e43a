//! One filled request of every api in every version that the broker answers.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, DescribeProducersRequest, FetchRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
    ProduceRequest, ProducerId, SaslAuthenticateRequest, SaslHandshakeRequest, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

#[path = "group_requests.rs"]
mod groups;

/// A request without its header.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) api: i16,
    pub(crate) version: i16,
    pub(crate) body: Bytes,
}

/// Name and id of the topic that requests are about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    /// What produce requests carry.
    pub(crate) records: Bytes,
}

impl Target {
    fn topic(&self) -> TopicName {
        TopicName(text(&self.name))
    }
}

/// Every api in every version.
pub(crate) fn samples(target: &Target) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut all = |api: i16, versions: std::ops::RangeInclusive<i16>, body: Body<'_>| {
        samples.extend(versions.map(|version| Sample { api, version, body: body(version) }));
    };
    all(0, 3..=13, &|version| encode(version, &produce(version, target)));
    all(1, 4..=18, &|version| encode(version, &fetch(version, target)));
    all(2, 1..=10, &|version| encode(version, &list_offsets(version, target)));
    all(3, 0..=13, &|version| encode(version, &metadata(version, target)));
    all(8, 2..=9, &|version| encode(version, &groups::offset_commit(version, target)));
    all(9, 1..=9, &|version| encode(version, &groups::offset_fetch(version, target)));
    all(10, 0..=6, &|version| encode(version, &find_coordinator(version)));
    all(11, 0..=9, &|version| encode(version, &groups::join_group(version)));
    all(12, 0..=4, &|version| encode(version, &groups::heartbeat(version)));
    all(13, 0..=5, &|version| encode(version, &groups::leave_group(version)));
    all(14, 0..=5, &|version| encode(version, &groups::sync_group(version)));
    all(15, 0..=6, &|version| encode(version, &groups::describe_groups(version)));
    all(16, 0..=5, &|version| encode(version, &groups::list_groups(version)));
    all(17, 0..=1, &|version| encode(version, &sasl_handshake()));
    all(18, 0..=4, &|version| encode(version, &api_versions(version)));
    all(19, 2..=7, &|version| encode(version, &create_topics(version)));
    all(20, 1..=6, &|version| encode(version, &delete_topics(version)));
    all(22, 0..=5, &|version| encode(version, &init_producer_id(version)));
    all(23, 2..=4, &|version| encode(version, &offset_for_leader_epoch(version, target)));
    all(36, 0..=2, &|version| encode(version, &sasl_authenticate()));
    all(37, 0..=3, &|version| encode(version, &create_partitions(version, target)));
    all(42, 0..=2, &|version| encode(version, &groups::delete_groups(version)));
    all(47, 0..=0, &|version| encode(version, &groups::offset_delete(target)));
    all(61, 0..=0, &|version| encode(version, &describe_producers(target)));
    all(68, 0..=1, &|version| encode(version, &groups::consumer_group_heartbeat(version, target)));
    all(69, 0..=1, &|version| encode(version, &groups::consumer_group_describe(version)));
    samples
}

type Body<'a> = &'a dyn Fn(i16) -> Bytes;

fn encode<T: Encodable>(version: i16, body: &T) -> Bytes {
    let mut buf = BytesMut::new();
    body.encode(&mut buf, version)
        .unwrap_or_else(|error| panic!("version {version} cannot be encoded: {error}"));
    buf.freeze()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn unknown_tag() -> Bytes {
    Bytes::from_static(b"from the future")
}

fn produce(version: i16, target: &Target) -> ProduceRequest {
    let partition = |index| {
        PartitionProduceData::default().with_index(index).with_records(Some(target.records.clone()))
    };
    let topic = TopicProduceData::default().with_partition_data(vec![partition(0), partition(1)]);
    let topic = if version >= 13 {
        topic.with_topic_id(target.id)
    } else {
        topic.with_name(target.topic())
    };
    ProduceRequest::default()
        .with_transactional_id(None::<TransactionalId>)
        .with_acks(1)
        .with_timeout_ms(1000)
        .with_topic_data(vec![topic])
}

fn fetch(version: i16, target: &Target) -> FetchRequest {
    let mut partition =
        FetchPartition::default().with_partition_max_bytes(1 << 20).with_current_leader_epoch(-1);
    if version >= 12 {
        partition = partition.with_unknown_tagged_field(77, unknown_tag());
    }
    if version >= 17 {
        partition = partition.with_replica_directory_id(Uuid::from_u128(7));
    }
    let topic =
        FetchTopic::default().with_partitions(vec![partition.clone(), partition.with_partition(1)]);
    let mut request = FetchRequest::default()
        .with_max_wait_ms(0)
        .with_max_bytes(1 << 20)
        .with_topics(vec![if version >= 13 {
            topic.with_topic_id(target.id)
        } else {
            topic.with_topic(target.topic())
        }]);
    if version >= 7 {
        let forgotten = ForgottenTopic::default().with_partitions(vec![1, 2, 3]);
        request =
            request.with_session_epoch(-1).with_forgotten_topics_data(vec![if version >= 13 {
                forgotten.with_topic_id(target.id)
            } else {
                forgotten.with_topic(target.topic())
            }]);
    }
    if version >= 11 {
        request = request.with_rack_id(text("rack"));
    }
    if version >= 12 {
        request = request.with_cluster_id(Some(text("cluster")));
    }
    if version >= 15 {
        let state = ReplicaState::default().with_replica_id(BrokerId(-1)).with_replica_epoch(3);
        request = request.with_replica_state(state);
    }
    request
}

fn list_offsets(version: i16, target: &Target) -> ListOffsetsRequest {
    let partitions = [-1, -2, 0].map(|timestamp| {
        ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp)
    });
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
        ListOffsetsTopic::default().with_name(target.topic()).with_partitions(partitions.to_vec()),
    ]);
    if version >= 10 { request.with_timeout_ms(1000) } else { request }
}

fn metadata(version: i16, target: &Target) -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(target.topic()));
    let mut topics = vec![topic];
    if version >= 10 {
        // By id alone: from version 12 on.
        let by_id = MetadataRequestTopic::default().with_topic_id(target.id);
        topics.push(if version >= 12 {
            by_id.with_name(None)
        } else {
            by_id.with_name(Some(target.topic()))
        });
    }
    let request = MetadataRequest::default().with_topics(Some(topics));
    if version >= 4 { request.with_allow_auto_topic_creation(true) } else { request }
}

fn sasl_handshake() -> SaslHandshakeRequest {
    SaslHandshakeRequest::default().with_mechanism(text("PLAIN"))
}

fn sasl_authenticate() -> SaslAuthenticateRequest {
    SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0alice\0secret"))
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    match version {
        0..=3 => FindCoordinatorRequest::default().with_key(text("group")),
        _ => FindCoordinatorRequest::default()
            .with_coordinator_keys(vec![text("group"), text("another")]),
    }
}

fn api_versions(version: i16) -> ApiVersionsRequest {
    match version {
        0..=2 => ApiVersionsRequest::default(),
        _ => ApiVersionsRequest::default()
            .with_client_software_name(text("test-client"))
            .with_client_software_version(text("1.2.3")),
    }
}

fn create_topics(version: i16) -> CreateTopicsRequest {
    let assignment = |index| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(vec![BrokerId(1)])
    };
    let name = |part: &str| TopicName(text(&format!("created-{part}-{version}")));
    CreateTopicsRequest::default().with_timeout_ms(1000).with_topics(vec![
        CreatableTopic::default()
            .with_name(name("counted"))
            .with_num_partitions(3)
            .with_replication_factor(1)
            .with_configs(vec![
                CreatableTopicConfig::default()
                    .with_name(text("max.message.bytes"))
                    .with_value(Some(text("4096"))),
            ]),
        CreatableTopic::default()
            .with_name(name("assigned"))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![assignment(0), assignment(1)]),
    ])
}

fn delete_topics(version: i16) -> DeleteTopicsRequest {
    // CreateTopics begins one version later: each of its topics is deleted by one version.
    let name = |part: &str| TopicName(text(&format!("created-{part}-{}", version + 1)));
    let request = DeleteTopicsRequest::default().with_timeout_ms(1000);
    match version {
        1..=5 => request.with_topic_names(vec![name("counted"), name("unknown")]),
        _ => request.with_topics(vec![
            DeleteTopicState::default().with_name(Some(name("counted"))),
            DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_u128(1)),
        ]),
    }
}

fn init_producer_id(version: i16) -> InitProducerIdRequest {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None::<TransactionalId>)
        .with_transaction_timeout_ms(60_000);
    match version {
        0..=2 => request,
        _ => request.with_producer_id(ProducerId(-1)).with_producer_epoch(-1),
    }
}

fn create_partitions(version: i16, target: &Target) -> CreatePartitionsRequest {
    let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
    CreatePartitionsRequest::default().with_timeout_ms(1000).with_topics(vec![
        CreatePartitionsTopic::default()
            .with_name(target.topic())
            .with_count(i32::from(version) + 3)
            .with_assignments(Some(vec![assignment])),
    ])
}

fn offset_for_leader_epoch(version: i16, target: &Target) -> OffsetForLeaderEpochRequest {
    let partition = |index| {
        OffsetForLeaderPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(0)
            .with_leader_epoch(0)
    };
    let topic = OffsetForLeaderTopic::default()
        .with_topic(target.topic())
        .with_partitions(vec![partition(0), partition(1)]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    if version >= 3 { request.with_replica_id(BrokerId(-1)) } else { request }
}

fn describe_producers(target: &Target) -> DescribeProducersRequest {
    let topic =
        TopicRequest::default().with_name(target.topic()).with_partition_indexes(vec![0, 9]);
    DescribeProducersRequest::default().with_topics(vec![topic])
}
