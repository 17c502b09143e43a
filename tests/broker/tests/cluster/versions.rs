use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey as KafkaApi, ApiVersionsRequest, MetadataRequest, ResponseHeader, ResponseKind,
};
use kafka_protocol::protocol::Decodable;
use ottla_test_broker::{ApiKey, Cluster, error_code as code};

use crate::client::{Client, TOPIC, batch, start};
use crate::requests::{Sample, Target, samples};

pub(crate) fn target(cluster: &Cluster) -> Target {
    let (name, id) = cluster.topics()[0].clone();
    Target { name, id, records: batch(2).bytes().clone() }
}

fn kafka(api: i16) -> KafkaApi {
    KafkaApi::try_from(api).unwrap_or_else(|()| panic!("api {api} is unknown"))
}

/// Sends a sample and returns what follows the header of its response.
pub(crate) async fn exchange(client: &mut Client, sample: &Sample) -> Bytes {
    let Sample { api, version, body } = sample;
    let api = kafka(*api);
    let id = client
        .send_raw(api as i16, *version, api.request_header_version(*version), body)
        .await
        .expect("sent");
    let mut frame = client
        .receive()
        .await
        .unwrap_or_else(|error| panic!("{api:?} v{version} is not answered: {error}"));
    let header = ResponseHeader::decode(&mut frame, api.response_header_version(*version))
        .expect("a header");
    assert_eq!(header.correlation_id, id, "{api:?} v{version}");
    frame
}

#[tokio::test(start_paused = true)]
async fn every_version_of_every_api_is_answered() {
    let cluster = start(|builder| builder.topic(TOPIC, 2, 1));
    let mut client = Client::new(&cluster, 1);
    let target = target(&cluster);
    for sample in samples(&target) {
        let mut frame = exchange(&mut client, &sample).await;
        let Sample { api, version, .. } = sample;
        let response = ResponseKind::decode(kafka(api), &mut frame, version)
            .unwrap_or_else(|error| panic!("api {api} v{version}: {error}"));
        assert!(frame.is_empty(), "api {api} v{version}: {} bytes left", frame.len());
        // Whatever has an error code for the request's own part says that all is well.
        let codes: Vec<i16> = match &response {
            ResponseKind::Produce(one) => one
                .responses
                .iter()
                .flat_map(|topic| &topic.partition_responses)
                .map(|part| part.error_code)
                .collect(),
            ResponseKind::Fetch(one) => one
                .responses
                .iter()
                .flat_map(|topic| &topic.partitions)
                .map(|part| part.error_code)
                .collect(),
            ResponseKind::ListOffsets(one) => one
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .map(|part| part.error_code)
                .collect(),
            ResponseKind::Metadata(one) => {
                assert_eq!(one.brokers.len(), 1);
                one.topics.iter().map(|topic| topic.error_code).collect()
            }
            ResponseKind::ApiVersions(one) => {
                assert_eq!(one.api_keys.len(), 26);
                vec![one.error_code]
            }
            ResponseKind::CreateTopics(one) => {
                one.topics.iter().map(|topic| topic.error_code).collect()
            }
            ResponseKind::DeleteTopics(one) => vec![one.responses[0].error_code],
            ResponseKind::InitProducerId(one) => vec![one.error_code],
            ResponseKind::CreatePartitions(one) => {
                one.results.iter().map(|topic| topic.error_code).collect()
            }
            ResponseKind::DescribeProducers(one) => one
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                // The other one that is asked for is not there.
                .map(|part| if part.partition_index == 9 { 0 } else { part.error_code })
                .collect(),
            ResponseKind::OffsetForLeaderEpoch(one) => {
                one.topics[0].partitions.iter().map(|part| part.error_code).collect()
            }
            ResponseKind::FindCoordinator(one) => match version {
                ..4 => {
                    assert_eq!(one.node_id.0, 1);
                    vec![one.error_code]
                }
                _ => one.coordinators.iter().map(|one| one.error_code).collect(),
            },
            ResponseKind::OffsetCommit(one) => {
                one.topics[0].partitions.iter().map(|part| part.error_code).collect()
            }
            ResponseKind::OffsetFetch(one) => match version {
                ..8 => {
                    let offsets: Vec<i64> =
                        one.topics[0].partitions.iter().map(|part| part.committed_offset).collect();
                    assert_eq!(offsets, [if version == 1 { -1 } else { 7 }, -1]);
                    vec![one.error_code]
                }
                _ => one.groups.iter().map(|group| group.error_code).collect(),
            },
            // A member without a name of its own is asked to come again.
            ResponseKind::JoinGroup(one) if version == 4 => {
                vec![one.error_code - code::MEMBER_ID_REQUIRED]
            }
            ResponseKind::JoinGroup(one) => {
                assert_eq!((one.generation_id, one.members.len()), (1, 1));
                vec![one.error_code]
            }
            // There is no such member.
            ResponseKind::Heartbeat(one) => vec![one.error_code - code::UNKNOWN_MEMBER_ID],
            ResponseKind::SyncGroup(one) => vec![one.error_code - code::UNKNOWN_MEMBER_ID],
            ResponseKind::LeaveGroup(one) => {
                let code = one.members.first().map_or(one.error_code, |one| one.error_code);
                vec![code - code::UNKNOWN_MEMBER_ID]
            }
            ResponseKind::DescribeGroups(one) => one
                .groups
                .iter()
                .inspect(|group| assert_ne!(group.group_state.as_str(), "Dead"))
                .map(|group| group.error_code)
                .collect(),
            ResponseKind::ListGroups(one) => {
                assert!(!one.groups.is_empty());
                vec![one.error_code]
            }
            ResponseKind::DeleteGroups(one) => {
                let codes: Vec<i16> = one.results.iter().map(|one| one.error_code).collect();
                assert_eq!(codes, [code::GROUP_ID_NOT_FOUND, code::NON_EMPTY_GROUP]);
                vec![]
            }
            ResponseKind::ConsumerGroupHeartbeat(one) => {
                let topics = one.assignment.clone().expect("an assignment").topic_partitions;
                assert_eq!((one.member_epoch, topics.len()), (1, 1));
                vec![one.error_code]
            }
            ResponseKind::ConsumerGroupDescribe(one) => {
                assert_eq!(one.groups[0].members[0].member_type, if version == 0 { -1 } else { 1 });
                vec![one.groups[0].error_code]
            }
            ResponseKind::OffsetDelete(one) => {
                vec![one.error_code, one.topics[0].partitions[0].error_code]
            }
            // Nobody logs in here.
            ResponseKind::SaslHandshake(one) => {
                vec![one.error_code - code::ILLEGAL_SASL_STATE]
            }
            ResponseKind::SaslAuthenticate(one) => {
                vec![one.error_code - code::ILLEGAL_SASL_STATE]
            }
            other => panic!("api {api} v{version} is answered with {other:?}"),
        };
        assert!(codes.iter().all(|code| *code == 0), "api {api} v{version}: {response:?}");
    }
    assert_eq!(cluster.records(TOPIC, 0).expect("a known partition").len(), 2 * 11);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_version_of_api_versions_is_answered_in_version_zero() {
    let cluster = start(|builder| builder);
    let mut client = Client::new(&cluster, 1);
    let id = client.send_raw(18, 99, 2, &[]).await.expect("sent");
    let response = client.answer::<ApiVersionsRequest>(id, 0).await.expect("an answer");
    assert_eq!(response.error_code, code::UNSUPPORTED_VERSION);
    assert_eq!((response.api_keys[0].api_key, response.api_keys[0].max_version), (18, 4));
    // The connection goes on.
    let response = client.ask(4, &api_versions("ottla", "0.1.0")).await.expect("an answer");
    assert_eq!(response.error_code, 0);
}

fn api_versions(name: &'static str, version: &'static str) -> ApiVersionsRequest {
    use kafka_protocol::protocol::StrBytes;
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str(name))
        .with_client_software_version(StrBytes::from_static_str(version))
}

#[tokio::test(start_paused = true)]
async fn software_names_are_counted_and_judged() {
    let cluster = start(|builder| builder);
    let mut client = Client::new(&cluster, 1);
    for _ in 0..2 {
        client.ask(3, &api_versions("some-client", "1.2.3")).await.expect("an answer");
    }
    for (name, version) in [("", "1"), ("-client", "1"), ("client", "1 beta")] {
        let answer = client.ask(3, &api_versions(name, version)).await.expect("an answer");
        assert_eq!(answer.error_code, code::INVALID_REQUEST, "'{name}' '{version}'");
    }
    let known = &cluster.stats().brokers[0].software;
    assert_eq!(known.len(), 1);
    assert_eq!(known[&("some-client".to_owned(), "1.2.3".to_owned())], 2);
}

#[tokio::test(start_paused = true)]
async fn an_older_broker_offers_less_and_closes_on_more() {
    let cluster = start(|builder| {
        builder.max_version(ApiKey::METADATA, 9).max_version(ApiKey::INIT_PRODUCER_ID, -1)
    });
    let mut client = Client::new(&cluster, 1);
    let offered = client.ask(0, &ApiVersionsRequest::default()).await.expect("an answer").api_keys;
    assert_eq!(offered.len(), 25);
    let metadata = offered.iter().find(|one| one.api_key == 3).expect("Metadata is offered");
    assert_eq!((metadata.min_version, metadata.max_version), (0, 9));
    client.ask(9, &MetadataRequest::default()).await.expect("an answer");
    client.send(10, &MetadataRequest::default()).await.expect("sent");
    client.closed().await;
}
