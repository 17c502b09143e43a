use super::author::message;
use super::schema::{SCHEMAS, Schema};
use super::{MAX_STRUCTS, MAX_UNKNOWN_TAGS, Refused, bounded, check};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_response as produce;
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, ConsumerGroupHeartbeatResponse, CreateTopicsResponse,
    DeleteTopicsRequest, DescribeGroupsResponse, DescribeProducersResponse, FetchResponse,
    FindCoordinatorResponse, HeartbeatResponse, InitProducerIdResponse, JoinGroupResponse,
    LeaveGroupResponse, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetCommitResponse, OffsetFetchResponse, OffsetForLeaderEpochResponse, ProduceResponse,
    SaslAuthenticateResponse, SaslHandshakeResponse, SyncGroupResponse,
    api_versions_response as api_versions, consumer_group_heartbeat_response as group_heartbeat,
    create_topics_response as create_topics, describe_groups_response as describe_groups,
    describe_producers_response as describe_producers, fetch_response as fetch,
    find_coordinator_response as find_coordinator, join_group_response as join_group,
    leave_group_response as leave_group, list_offsets_response as list_offsets,
    metadata_response as metadata, offset_commit_response as offset_commit,
    offset_fetch_response as offset_fetch, offset_for_leader_epoch_response as epochs,
};
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use uuid::Uuid;

/// Decodes as the message type of the request; what is left over, or the decoder's error.
fn decode(api_key: i16, version: i16, body: &[u8]) -> Result<usize, String> {
    fn one<M: Decodable>(version: i16, body: &[u8]) -> Result<usize, String> {
        let mut body = Bytes::copy_from_slice(body);
        M::decode(&mut body, version).map(|_| body.len()).map_err(|e| e.to_string())
    }
    match api_key {
        0 => one::<ProduceResponse>(version, body),
        1 => one::<FetchResponse>(version, body),
        2 => one::<ListOffsetsResponse>(version, body),
        3 => one::<MetadataResponse>(version, body),
        8 => one::<OffsetCommitResponse>(version, body),
        9 => one::<OffsetFetchResponse>(version, body),
        10 => one::<FindCoordinatorResponse>(version, body),
        11 => one::<JoinGroupResponse>(version, body),
        12 => one::<HeartbeatResponse>(version, body),
        13 => one::<LeaveGroupResponse>(version, body),
        14 => one::<SyncGroupResponse>(version, body),
        15 => one::<DescribeGroupsResponse>(version, body),
        17 => one::<SaslHandshakeResponse>(version, body),
        18 => one::<ApiVersionsResponse>(version, body),
        19 => one::<CreateTopicsResponse>(version, body),
        22 => one::<InitProducerIdResponse>(version, body),
        23 => one::<OffsetForLeaderEpochResponse>(version, body),
        36 => one::<SaslAuthenticateResponse>(version, body),
        61 => one::<DescribeProducersResponse>(version, body),
        68 => one::<ConsumerGroupHeartbeatResponse>(version, body),
        other => panic!("no decoder for request {other}: add it here with its table"),
    }
}

fn all() -> impl Iterator<Item = (&'static Schema, i16)> {
    SCHEMAS.iter().flat_map(|s| (s.versions.0..=s.versions.1).map(move |version| (s, version)))
}

/// What the walk lets through, the decoder finds complete: it may dislike a text or a null, but it
/// never runs out of bytes, and so it never reserved more than it was sent.
fn judge(api_key: i16, version: i16, body: &[u8]) {
    if check(api_key, version, body).is_ok()
        && let Err(words) = decode(api_key, version, body)
    {
        let known = ["utf-8", "is negative (-1)", "is not valid for version"];
        assert!(
            known.iter().any(|known| words.contains(known)),
            "request {api_key} version {version}: let through, but {words}: {body:02x?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The tables are the decoder's: it reads to the last byte what is written by them.
    #[test]
    fn tables_match_the_decoder(seed: u64) {
        let dice = &mut StdRng::seed_from_u64(seed);
        for (schema, version) in all() {
            let body = message(schema, version, dice);
            let key = schema.api_key;
            prop_assert_eq!(check(key, version, &body), Ok(()), "{} v{}", key, version);
            prop_assert_eq!(decode(key, version, &body), Ok(0), "{} v{}", key, version);
        }
    }

    #[test]
    fn mutations(seed: u64) {
        let dice = &mut StdRng::seed_from_u64(seed);
        for (schema, version) in all() {
            let valid = message(schema, version, dice);
            for _ in 0..20 {
                let mut body = valid.clone();
                for _ in 0..dice.random_range(1..4) {
                    if let Some(at) = (!body.is_empty()).then(|| dice.random_range(0..body.len())) {
                        body[at] = dice.random();
                    }
                }
                judge(schema.api_key, version, &body);
            }
        }
    }

    #[test]
    fn random_bytes(seed: u64) {
        let dice = &mut StdRng::seed_from_u64(seed);
        for (schema, version) in all() {
            let mut body = vec![0; dice.random_range(0..200)];
            dice.fill_bytes(&mut body);
            judge(schema.api_key, version, &body);
            // Mostly zeros get deeper into a message.
            for byte in &mut body {
                *byte = if *byte < 200 { 0 } else { *byte & 3 };
            }
            judge(schema.api_key, version, &body);
        }
    }
}

/// Messages of the generated encoder: as they are by default, and with something in every list.
fn encoded(version: i16, key: i16) -> Vec<Bytes> {
    fn both<M: Encodable + Default>(version: i16, full: M) -> Vec<Bytes> {
        [M::default(), full]
            .iter()
            .map(|message| {
                let mut out = BytesMut::new();
                message.encode(&mut out, version).expect("fields are those of the version");
                out.freeze()
            })
            .collect()
    }
    fn since<T: Default>(version: i16, first: i16, value: T) -> T {
        if version >= first { value } else { T::default() }
    }
    let text = || StrBytes::from_static_str("words");
    let name = |last| TopicName(if version <= last { text() } else { StrBytes::default() });
    let id = |first| since(version, first, Uuid::from_u128(7));
    let nodes = vec![BrokerId(1), BrokerId(2)];
    match key {
        0 => {
            let error = produce::BatchIndexAndErrorMessage::default()
                .with_batch_index_error_message(Some(text()));
            let leader = produce::LeaderIdAndEpoch::default().with_leader_epoch(4);
            let partition = produce::PartitionProduceResponse::default()
                .with_base_offset(1 << 40)
                .with_record_errors(since(version, 8, vec![error; 2]))
                .with_error_message(since(version, 8, Some(text())))
                .with_current_leader(since(version, 10, leader));
            let topic = produce::TopicProduceResponse::default()
                .with_name(name(12))
                .with_topic_id(id(13))
                .with_partition_responses(vec![partition; 3]);
            let node = produce::NodeEndpoint::default().with_host(text()).with_rack(Some(text()));
            let full = ProduceResponse::default()
                .with_responses(vec![topic; 2])
                .with_node_endpoints(since(version, 10, vec![node; 2]));
            both(version, full)
        }
        1 => {
            let epoch = fetch::EpochEndOffset::default().with_epoch(1);
            let leader = fetch::LeaderIdAndEpoch::default().with_leader_epoch(4);
            let partition = fetch::PartitionData::default()
                .with_aborted_transactions(Some(vec![Default::default(); 3]))
                .with_records(Some(Bytes::from_static(&[255; 200])))
                .with_diverging_epoch(since(version, 12, epoch))
                .with_current_leader(since(version, 12, leader));
            let topic = fetch::FetchableTopicResponse::default()
                .with_topic(name(12))
                .with_topic_id(id(13))
                .with_partitions(vec![partition; 3]);
            let node = fetch::NodeEndpoint::default().with_host(text()).with_rack(Some(text()));
            let full = FetchResponse::default()
                .with_responses(vec![topic; 2])
                .with_node_endpoints(since(version, 16, vec![node; 2]));
            both(version, full)
        }
        2 => {
            let partition = list_offsets::ListOffsetsPartitionResponse::default();
            let topic = list_offsets::ListOffsetsTopicResponse::default()
                .with_name(name(i16::MAX))
                .with_partitions(vec![partition; 3]);
            both(version, ListOffsetsResponse::default().with_topics(vec![topic; 2]))
        }
        23 => {
            let partition = epochs::EpochEndOffset::default();
            let topic = epochs::OffsetForLeaderTopicResult::default()
                .with_topic(name(i16::MAX))
                .with_partitions(vec![partition; 3]);
            both(version, OffsetForLeaderEpochResponse::default().with_topics(vec![topic; 2]))
        }
        3 => {
            let partition = metadata::MetadataResponsePartition::default()
                .with_replica_nodes(nodes.clone())
                .with_isr_nodes(nodes.clone())
                .with_offline_replicas(nodes);
            let topic = metadata::MetadataResponseTopic::default()
                .with_name(Some(name(i16::MAX)))
                .with_topic_id(id(10))
                .with_partitions(vec![partition; 3]);
            let broker = metadata::MetadataResponseBroker::default()
                .with_host(text())
                .with_rack(Some(text()));
            let full = MetadataResponse::default()
                .with_brokers(vec![broker; 3])
                .with_cluster_id(Some(text()))
                .with_topics(vec![topic; 2]);
            both(version, full)
        }
        8 => {
            let topic = offset_commit::OffsetCommitResponseTopic::default()
                .with_name(name(i16::MAX))
                .with_partitions(vec![Default::default(); 3]);
            both(version, OffsetCommitResponse::default().with_topics(vec![topic; 2]))
        }
        9 => {
            let partition = offset_fetch::OffsetFetchResponsePartitions::default()
                .with_committed_offset(1 << 40)
                .with_metadata(Some(text()));
            let topic = offset_fetch::OffsetFetchResponseTopics::default()
                .with_name(name(i16::MAX))
                .with_partitions(vec![partition; 3]);
            let group = offset_fetch::OffsetFetchResponseGroup::default()
                .with_group_id(GroupId(text()))
                .with_topics(vec![topic; 2]);
            both(version, OffsetFetchResponse::default().with_groups(vec![group; 2]))
        }
        10 => {
            let coordinator = find_coordinator::Coordinator::default()
                .with_key(text())
                .with_host(text())
                .with_error_message(Some(text()));
            let full = FindCoordinatorResponse::default().with_coordinators(vec![coordinator; 2]);
            both(version, full)
        }
        11 => {
            let member = join_group::JoinGroupResponseMember::default()
                .with_member_id(text())
                .with_group_instance_id(Some(text()))
                .with_metadata(Bytes::from_static(&[255; 200]));
            let full = JoinGroupResponse::default()
                .with_protocol_type(since(version, 7, Some(text())))
                .with_protocol_name(Some(text()))
                .with_leader(text())
                .with_skip_assignment(version >= 9)
                .with_member_id(text())
                .with_members(vec![member; 3]);
            both(version, full)
        }
        12 => both(version, HeartbeatResponse::default().with_error_code(27)),
        13 => {
            let member = leave_group::MemberResponse::default()
                .with_member_id(text())
                .with_group_instance_id(Some(text()));
            both(version, LeaveGroupResponse::default().with_members(vec![member; 2]))
        }
        14 => {
            let full = SyncGroupResponse::default()
                .with_protocol_type(since(version, 5, Some(text())))
                .with_protocol_name(since(version, 5, Some(text())))
                .with_assignment(Bytes::from_static(&[255; 200]));
            both(version, full)
        }
        15 => {
            let member = describe_groups::DescribedGroupMember::default()
                .with_member_id(text())
                .with_group_instance_id(Some(text()))
                .with_client_id(text())
                .with_client_host(text())
                .with_member_metadata(Bytes::from_static(&[255; 200]))
                .with_member_assignment(Bytes::from_static(&[255; 200]));
            let group = describe_groups::DescribedGroup::default()
                .with_error_message(since(version, 6, Some(text())))
                .with_group_id(GroupId(text()))
                .with_group_state(text())
                .with_protocol_type(text())
                .with_protocol_data(text())
                .with_members(vec![member; 3]);
            both(version, DescribeGroupsResponse::default().with_groups(vec![group; 2]))
        }
        17 => {
            let full = SaslHandshakeResponse::default().with_mechanisms(vec![
                text(),
                StrBytes::default(),
                text(),
            ]);
            both(version, full)
        }
        18 => {
            let supported = api_versions::SupportedFeatureKey::default().with_name(text());
            let finalized = api_versions::FinalizedFeatureKey::default().with_name(text());
            let full = ApiVersionsResponse::default()
                .with_api_keys(vec![Default::default(); 60])
                .with_supported_features(since(version, 3, vec![supported; 2]))
                .with_finalized_features(since(version, 3, vec![finalized; 2]))
                .with_zk_migration_ready(since(version, 3, true));
            both(version, full)
        }
        19 => {
            let config = create_topics::CreatableTopicConfigs::default()
                .with_name(text())
                .with_value(Some(text()));
            let topic = create_topics::CreatableTopicResult::default()
                .with_name(name(i16::MAX))
                .with_topic_id(id(7))
                .with_topic_config_error_code(since(version, 5, 29))
                .with_error_message(Some(text()));
            let topic =
                if version >= 5 { topic.with_configs(Some(vec![config; 2])) } else { topic };
            both(version, CreateTopicsResponse::default().with_topics(vec![topic; 2]))
        }
        22 => both(version, InitProducerIdResponse::default().with_producer_id(1.into())),
        36 => {
            let full = SaslAuthenticateResponse::default()
                .with_error_message(Some(text()))
                .with_auth_bytes(Bytes::from_static(&[255; 200]))
                .with_session_lifetime_ms(since(version, 1, 3_600_000));
            both(version, full)
        }
        61 => {
            let producer = describe_producers::ProducerState::default()
                .with_producer_id(1.into())
                .with_last_sequence(7);
            let partition = describe_producers::PartitionResponse::default()
                .with_error_message(Some(text()))
                .with_active_producers(vec![producer; 2]);
            let topic = describe_producers::TopicResponse::default()
                .with_name(name(i16::MAX))
                .with_partitions(vec![partition; 2]);
            both(version, DescribeProducersResponse::default().with_topics(vec![topic; 2]))
        }
        68 => {
            let topic = group_heartbeat::TopicPartitions::default()
                .with_topic_id(id(0))
                .with_partitions(vec![1, 2, 3]);
            let assignment =
                group_heartbeat::Assignment::default().with_topic_partitions(vec![topic; 2]);
            let full = ConsumerGroupHeartbeatResponse::default()
                .with_error_message(Some(text()))
                .with_member_id(Some(text()))
                .with_assignment(Some(assignment));
            both(version, full)
        }
        other => panic!("no message for request {other}: add it here with its table"),
    }
}

#[test]
fn messages_of_the_encoder() {
    for (schema, version) in all() {
        for body in encoded(version, schema.api_key) {
            assert_eq!(check(schema.api_key, version, &body), Ok(()), "{}", schema.api_key);
            for end in 0..body.len() {
                let cut = check(schema.api_key, version, &body[..end]);
                assert!(matches!(cut, Err(Refused::Malformed { .. })), "cut at {end}: {cut:?}");
            }
        }
    }
}

/// Every length there is, made as large as it can be, at every position.
#[test]
fn huge_counts_and_truncation() {
    let dice = &mut StdRng::seed_from_u64(1);
    let huge: [&[u8]; 5] = [
        &i32::MAX.to_be_bytes(),
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &i16::MAX.to_be_bytes(),
        &i32::MIN.to_be_bytes(),
    ];
    for (schema, version) in all() {
        let body = message(schema, version, dice);
        let key = schema.api_key;
        for end in 0..body.len() {
            let cut = check(key, version, &body[..end]);
            assert!(
                matches!(cut, Err(Refused::Malformed { .. })),
                "{key} v{version} cut at {end} of {}: {cut:?}",
                body.len()
            );
            for huge in huge {
                let replaced = [&body[..end], huge, body.get(end + huge.len()..).unwrap_or(&[])];
                judge(key, version, &replaced.concat());
                judge(key, version, &[&body[..end], huge, &body[end + 1..]].concat());
            }
        }
    }
}

#[test]
fn names_the_field() {
    let topics_huge = [0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff];
    assert_eq!(check(2, 2, &topics_huge), Err(Refused::Malformed { field: "topics" }));
    assert_eq!(check(2, 2, &[0, 0]), Err(Refused::Malformed { field: "throttle_time_ms" }));
    let open_tags = [0, 0, 0, 0, 1, 5];
    assert_eq!(check(2, 6, &open_tags), Err(Refused::Malformed { field: "tagged fields" }));
}

#[test]
fn without_a_table() {
    assert_eq!(check(12, 0, &[]), Err(Refused::NoSchema));
    assert_eq!(check(3, 8, &[]), Err(Refused::NoSchema));
    assert_eq!(check(0, 14, &[]), Err(Refused::NoSchema));
}

/// Versions that are sent are checked where they are named, when they are compiled. Here they run.
#[test]
fn versions_without_a_table() {
    assert_eq!(bounded::<MetadataRequest>(9, 13), (9, 13));
    for (first, last) in [(8, 13), (9, 14), (0, 0)] {
        let refused = std::panic::catch_unwind(|| bounded::<MetadataRequest>(first, last));
        assert!(refused.is_err(), "{first} to {last}");
    }
    assert!(std::panic::catch_unwind(|| bounded::<DeleteTopicsRequest>(0, 0)).is_err());
}

/// A table never claims a version whose response the decoder refuses to read at all.
#[test]
fn versions_the_decoder_knows() {
    for (schema, version) in all() {
        let words = decode(schema.api_key, version, &[]).expect_err("nothing to read");
        assert!(!words.contains("specified version"), "{} v{version}: {words}", schema.api_key);
    }
}

/// A known tagged field reads exactly its size: the decoder would go on into what follows.
#[test]
fn tagged_field_of_another_size() {
    // ApiVersions 3: no error, no keys, no throttling, tag 1 (8 bytes) in 7 and in 9.
    for (size, fits) in [(7, false), (8, true), (9, false)] {
        let body = [&[0, 0, 1, 0, 0, 0, 0, 1, 1, size][..], &[0; 9][..size.into()]].concat();
        let expected = Refused::Malformed { field: "finalized_features_epoch" };
        assert_eq!(check(18, 3, &body), if fits { Ok(()) } else { Err(expected) });
    }
}

/// Elements that are honest about their number, but far more than memory is meant for.
#[test]
fn bounded_memory() {
    // Partitions of a Fetch response are the largest; a tree node holds eleven tagged fields.
    let structs = MAX_STRUCTS as usize * size_of::<fetch::PartitionData>();
    let tags = MAX_UNKNOWN_TAGS as usize * (11 * size_of::<(i32, Bytes)>() + 16);
    assert!(structs + tags < 640 << 20, "{structs} and {tags} bytes");
    let varint = |mut value: u32| {
        let mut out = vec![];
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    };
    // ListOffsets 6: each topic an empty name, no partitions, no tagged fields.
    let topics = |count: u32| {
        [vec![0; 4], varint(count + 1), [1, 1, 0].repeat(count as usize), vec![0]].concat()
    };
    assert_eq!(check(2, 6, &topics(MAX_STRUCTS)), Ok(()));
    let over = check(2, 6, &topics(MAX_STRUCTS + 1));
    assert_eq!(over, Err(Refused::Malformed { field: "topics" }));

    // InitProducerId 2: nothing but tagged fields of no bytes behind 16.
    let tags = |count: u32| [vec![0; 16], varint(count), [9, 0].repeat(count as usize)].concat();
    assert_eq!(check(22, 2, &tags(MAX_UNKNOWN_TAGS)), Ok(()));
    let over = check(22, 2, &tags(MAX_UNKNOWN_TAGS + 1));
    assert_eq!(over, Err(Refused::Malformed { field: "tagged fields" }));
}

/// Null is -1 and no other number below zero; and a number has 32 bits, whatever its last byte says.
#[test]
fn lengths_that_are_none() {
    // ListOffsets 1: a list of topics, each with a name and no partitions.
    let topics =
        |count: i32, name: i16| [&count.to_be_bytes()[..], &name.to_be_bytes(), &[0; 4]].concat();
    let malformed = |field| Err(Refused::Malformed { field });
    assert_eq!(check(2, 1, &topics(1, 0)), Ok(()));
    assert_eq!(check(2, 1, &topics(1, -1)), Ok(()), "a name that is null");
    assert_eq!(check(2, 1, &topics(-1, 0)), Ok(()), "a list that is null");
    for below in [-2, -3, i16::MIN] {
        assert_eq!(check(2, 1, &topics(1, below)), malformed("name"), "{below}");
        assert_eq!(check(2, 1, &topics(below.into(), 0)), malformed("topics"), "{below}");
    }
    // ListOffsets 6: the count of topics in five bytes, of which the last has four bits.
    let count = |bytes: &[u8]| check(2, 6, &[&[0; 4], bytes, &[0]].concat());
    assert_eq!(count(&[1]), Ok(()));
    assert_eq!(
        count(&[0x81, 0x80, 0x80, 0x80, 0]),
        Ok(()),
        "one, in as many bytes as there may be"
    );
    for last in [0x10, 0x20, 0x70, 0x7f] {
        assert_eq!(count(&[0x81, 0x80, 0x80, 0x80, last]), malformed("topics"), "{last:#x}");
    }
    assert_eq!(count(&[0x81, 0x80, 0x80, 0x80, 0x80, 0]), malformed("topics"), "six bytes");
}

/// A tag means something from the version on that defines it: before, it is a stranger's.
#[test]
fn tags_of_later_versions_are_strangers() {
    // Fetch: no error, no topics, and tag 0 with bytes that are no list of endpoints.
    let body = [&[0; 10][..], &[1, 1, 0, 3, 0xff, 0xff, 0xff]].concat();
    assert_eq!(check(1, 12, &body), Ok(()));
    assert!(check(1, 16, &body).is_err());
}

#[test]
fn a_structure_is_there_or_null() {
    let full = encoded(1, 68).pop().expect("one with an assignment");
    let null = encoded(1, 68).swap_remove(0);
    // The byte that says so stands before the assignment's own two lists and the tags behind it.
    let at = null.len() - 2;
    assert_eq!(null[at], 0xff);
    assert_eq!(check(68, 1, &full), Ok(()));
    for byte in [0, 2, 0x7f, 0x80] {
        let mut odd = null.to_vec();
        odd[at] = byte;
        let refused = Err(Refused::Malformed { field: "assignment" });
        assert_eq!(check(68, 1, &odd), refused, "{byte}");
    }
}
