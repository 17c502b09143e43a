//! What is not allowed, api by api, as Kafka's `KafkaApis` and `ControllerApis` refuse it.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeProducersRequest,
    FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, SaslAuthenticateRequest, SaslHandshakeRequest, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::{
    Acls, Allowed, ClientCertificates, Cluster, Sasl, Tls, error_code as code,
};
use uuid::Uuid;

use crate::client::{Client, TOPIC, batch, produce, start, topic};
use crate::tls;

/// A cluster where nobody says who it is, and may do this.
fn cluster(allowed: Allowed) -> Cluster {
    start(|builder| builder.topic(TOPIC, 1, 1).acls(Acls::new().allow("ANONYMOUS", allowed)))
}

fn name(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

fn metadata(names: &[&'static str]) -> MetadataRequest {
    let topics = names.iter().map(|one| MetadataRequestTopic::default().with_name(Some(name(one))));
    MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(false)
}

/// Error codes of: Produce, Fetch, Metadata, ListOffsets, OffsetsForLeaderEpoch, DescribeProducers,
/// InitProducerId, CreatePartitions, and CreateTopics of another topic.
async fn codes(cluster: &Cluster) -> [i16; 9] {
    let mut client = Client::new(cluster, 1);
    let offsets = ListOffsetsRequest::default().with_topics(vec![
        ListOffsetsTopic::default()
            .with_name(topic())
            .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1)]),
    ]);
    let epoch = OffsetForLeaderPartition::default().with_current_leader_epoch(-1);
    let epochs = OffsetForLeaderEpochRequest::default().with_topics(vec![
        OffsetForLeaderTopic::default().with_topic(topic()).with_partitions(vec![epoch]),
    ]);
    let producers = DescribeProducersRequest::default().with_topics(vec![
        TopicRequest::default().with_name(topic()).with_partition_indexes(vec![0]),
    ]);
    let id = InitProducerIdRequest::default().with_transactional_id(None::<TransactionalId>);
    let grown = CreatePartitionsRequest::default()
        .with_topics(vec![
            CreatePartitionsTopic::default()
                .with_name(topic())
                .with_count(2)
                .with_assignments(None),
        ])
        .with_validate_only(true);
    let created = CreateTopicsRequest::default()
        .with_topics(vec![
            CreatableTopic::default()
                .with_name(name("new"))
                .with_num_partitions(1)
                .with_replication_factor(1),
        ])
        .with_validate_only(true);
    [
        client.produce(0, 1, &batch(1)).await.expect("an answer").error_code,
        client.fetch(0, 0).await.expect("an answer").error_code,
        client.ask(9, &metadata(&[TOPIC])).await.expect("an answer").topics[0].error_code,
        client.ask(5, &offsets).await.expect("an answer").topics[0].partitions[0].error_code,
        client.ask(4, &epochs).await.expect("an answer").topics[0].partitions[0].error_code,
        client.ask(0, &producers).await.expect("an answer").topics[0].partitions[0].error_code,
        client.ask(4, &id).await.expect("an answer").error_code,
        client.ask(3, &grown).await.expect("an answer").results[0].error_code,
        client.ask(5, &created).await.expect("an answer").topics[0].error_code,
    ]
}

#[tokio::test(start_paused = true)]
async fn every_api_asks_for_its_right() {
    const NO: i16 = code::TOPIC_AUTHORIZATION_FAILED;
    const NO_ID: i16 = code::CLUSTER_AUTHORIZATION_FAILED;
    for (allowed, expected) in [
        (Allowed::new(), [NO, NO, NO, NO, NO, NO, NO_ID, NO, NO]),
        (Allowed::everything(), [0; 9]),
        (Allowed::new().write(TOPIC), [0, NO, 0, 0, 0, NO, 0, NO, NO]),
        (Allowed::new().read(TOPIC), [NO, 0, 0, 0, 0, 0, NO_ID, NO, NO]),
        (Allowed::new().describe("top*"), [NO, NO, 0, 0, 0, NO, NO_ID, NO, NO]),
        (Allowed::new().alter("*"), [NO, NO, 0, 0, 0, NO, NO_ID, 0, NO]),
        (Allowed::new().create("new"), [NO, NO, NO, NO, NO, NO, NO_ID, NO, 0]),
        (Allowed::new().create_topics(), [NO, NO, NO, NO, NO, NO, NO_ID, NO, 0]),
        (Allowed::new().idempotent_write(), [NO, NO, NO, NO, NO, NO, 0, NO, NO]),
        // To some topic, which need not be there.
        (Allowed::new().write("other"), [NO, NO, NO, NO, NO, NO, 0, NO, NO]),
    ] {
        assert_eq!(codes(&cluster(allowed.clone())).await, expected, "{allowed:?}");
    }
    let cluster = cluster(Allowed::new());
    cluster.set_acls(None);
    assert_eq!(codes(&cluster).await, [0; 9], "from now on everybody may do everything");
    assert_eq!(
        cluster.records(TOPIC, 0).expect("a partition").len(),
        1,
        "nothing was written before"
    );
}

/// Whether a topic exists is told only to those who may see it.
#[tokio::test(start_paused = true)]
async fn what_may_not_be_seen_is_not_told() {
    let cluster = start(|builder| {
        let allowed = Allowed::new().describe("seen*").create("seen-2");
        builder
            .topic("seen", 1, 1)
            .topic("secret", 1, 1)
            .auto_create_topics(1)
            .acls(Acls::new().allow("ANONYMOUS", allowed))
    });
    let mut client = Client::new(&cluster, 1);
    // All: without those that are not seen.
    let all = MetadataRequest::default().with_topics(None);
    let told = client.ask(9, &all).await.expect("an answer").topics;
    let names: Vec<_> = told.iter().map(|topic| topic.name.clone()).collect();
    assert_eq!(names, [Some(name("seen"))]);

    let asked = ["seen", "secret", "missing", "seen-1"];
    let told = client.ask(12, &metadata(&asked)).await.expect("an answer").topics;
    for (topic, (asked, error)) in told.iter().zip(asked.into_iter().zip([0, 29, 29, 3])) {
        assert_eq!((&topic.name, topic.error_code), (&Some(name(asked)), error), "{asked}");
        assert_eq!(topic.topic_id.is_nil(), error != 0);
        assert_eq!(topic.partitions.is_empty(), error != 0);
    }
    // To create a topic takes a right of its own.
    let creating = metadata(&["seen-1", "seen-2"]).with_allow_auto_topic_creation(true);
    let told = client.ask(12, &creating).await.expect("an answer").topics;
    let codes: Vec<i16> = told.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [29, 0]);

    // An id is no secret, and its name is.
    let id = cluster.topics().into_iter().find(|(name, _)| name == "secret").expect("a topic").1;
    let by_id = MetadataRequestTopic::default().with_topic_id(id).with_name(None);
    let request = MetadataRequest::default().with_topics(Some(vec![by_id]));
    let told = client.ask(12, &request).await.expect("an answer").topics;
    assert_eq!((told[0].error_code, &told[0].name, told[0].topic_id), (29, &None, id));
    let unknown = MetadataRequestTopic::default().with_topic_id(Uuid::from_u128(7)).with_name(None);
    let request = MetadataRequest::default().with_topics(Some(vec![unknown]));
    let told = client.ask(12, &request).await.expect("an answer").topics;
    assert_eq!(told[0].error_code, code::UNKNOWN_TOPIC_ID);

    let deleted = |state: DeleteTopicState| DeleteTopicsRequest::default().with_topics(vec![state]);
    let by_id = deleted(DeleteTopicState::default().with_topic_id(id).with_name(None));
    let told = client.ask(6, &by_id).await.expect("an answer").responses;
    assert_eq!((told[0].error_code, &told[0].name, told[0].topic_id), (29, &None, id));
    for one in ["secret", "missing", "seen"] {
        let by_name = deleted(DeleteTopicState::default().with_name(Some(name(one))));
        let told = client.ask(6, &by_name).await.expect("an answer").responses;
        assert_eq!((told[0].error_code, &told[0].name), (29, &Some(name(one))));
    }
}

/// Nothing is told of a topic by refusing to write to it, either.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_there_is_forbidden_all_the_same() {
    let cluster = start(|builder| builder.acls(Acls::new()));
    let mut client = Client::new(&cluster, 1);
    assert_eq!(client.produce(0, 1, &batch(1)).await.expect("an answer").error_code, 29);
    assert_eq!(client.fetch(0, 0).await.expect("an answer").error_code, 29);
    // acks=0: a broken connection is all that can be told.
    client.send(12, &produce(0, 0, &batch(1))).await.expect("sent");
    client.closed().await;
}

#[tokio::test(start_paused = true)]
async fn groups_and_transactional_ids_have_codes_of_their_own() {
    let allowed = Allowed::new().group("g").transactional_id("t").write(TOPIC);
    let cluster = cluster(allowed);
    let mut client = Client::new(&cluster, 1);
    for (kind, key, error) in [
        (0, "g", 0),
        (0, "h", code::GROUP_AUTHORIZATION_FAILED),
        (0, "t", code::GROUP_AUTHORIZATION_FAILED),
        (1, "t", 0),
        (1, "g", code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
    ] {
        let key = StrBytes::from_static_str(key);
        let request = FindCoordinatorRequest::default().with_key_type(kind);
        let one = request.clone().with_key(key.clone());
        assert_eq!(client.ask(3, &one).await.expect("an answer").error_code, error, "{key:?}");
        let many = request.with_coordinator_keys(vec![key.clone()]);
        let told = client.ask(4, &many).await.expect("an answer");
        assert_eq!(told.coordinators[0].error_code, error, "{key:?}");
    }
    for (id, error) in [("t", 0), ("u", code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)] {
        let id = TransactionalId(StrBytes::from_static_str(id));
        let init = InitProducerIdRequest::default().with_transactional_id(Some(id.clone()));
        assert_eq!(client.ask(4, &init).await.expect("an answer").error_code, error);
        let batch = batch(1).with_producer(1000, 0, 0).transactional();
        let written = produce(0, 1, &batch).with_transactional_id(Some(id));
        let told = client.ask(12, &written).await.expect("an answer");
        assert_eq!(told.responses[0].partition_responses[0].error_code, error);
    }
}

#[tokio::test(start_paused = true)]
async fn principals_are_users_and_subjects_of_certificates() {
    let acls = || {
        Acls::new()
            .allow("alice", Allowed::new().write(TOPIC))
            .allow("CN=alice", Allowed::new().read(TOPIC))
    };
    let by_name = start(|builder| {
        let sasl = Sasl::new().plain().user("alice", "a").user("bob", "b");
        builder.topic(TOPIC, 1, 1).acls(acls()).sasl(sasl)
    });
    for (user, password, error) in [("alice", "a", 0), ("bob", "b", 29)] {
        let mut client = Client::new(&by_name, 1);
        let plain = StrBytes::from_static_str("PLAIN");
        let handshake = SaslHandshakeRequest::default().with_mechanism(plain);
        client.ask(1, &handshake).await.expect("an answer");
        let token = format!("\0{user}\0{password}").into_bytes();
        let login = SaslAuthenticateRequest::default().with_auth_bytes(token.into());
        assert_eq!(client.ask(1, &login).await.expect("an answer").error_code, 0);
        let told = client.produce(0, 1, &batch(1)).await.expect("an answer");
        assert_eq!(told.error_code, error, "{user}");
    }

    let by_certificate = start(|builder| {
        let tls = Tls::new().client_certificates(ClientCertificates::Requested);
        builder.topic(TOPIC, 1, 1).acls(acls()).tls(tls)
    });
    for (subject, error) in [(Some("alice"), 0), (Some("bob"), 29), (None, 29)] {
        let identity = subject.map(|name| by_certificate.client_identity(name).expect("TLS"));
        let config = tls::config(&by_certificate.ca_pem().expect("TLS"), identity.as_ref());
        let stream = by_certificate.connect_in_memory(1).expect("a connection");
        let stream = tls::connect(&config, "broker-1", stream).await.expect("a handshake");
        let told = Client::over(stream).fetch(0, 0).await.expect("an answer");
        assert_eq!(told.error_code, error, "{subject:?}");
    }
}
