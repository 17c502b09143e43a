//! The walk and the generated decoder have to agree on every byte, above all on damaged ones.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest,
    CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest,
    DescribeGroupsRequest, DescribeProducersRequest, FetchRequest, FindCoordinatorRequest,
    HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::Decodable;
use proptest::prelude::*;
use uuid::Uuid;

use super::{MAX_ELEMENTS, check};
use crate::api::{ApiKey, SUPPORTED};

#[path = "../../tests/cluster/requests.rs"]
mod requests;

use requests::{Sample, Target, samples};

fn all() -> Vec<Sample> {
    samples(&Target {
        name: "topic".into(),
        id: Uuid::from_u128(42),
        records: Bytes::from_static(&[1; 200]),
    })
}

/// Bytes that the generated decoder leaves, if it can read the request.
fn decode(api: i16, version: i16, body: &Bytes) -> Option<usize> {
    fn left<T: Decodable>(version: i16, body: &Bytes) -> Option<usize> {
        let mut body = body.clone();
        T::decode(&mut body, version).ok().map(|_| body.len())
    }
    match ApiKey(api) {
        ApiKey::PRODUCE => left::<ProduceRequest>(version, body),
        ApiKey::FETCH => left::<FetchRequest>(version, body),
        ApiKey::LIST_OFFSETS => left::<ListOffsetsRequest>(version, body),
        ApiKey::METADATA => left::<MetadataRequest>(version, body),
        ApiKey::FIND_COORDINATOR => left::<FindCoordinatorRequest>(version, body),
        ApiKey::OFFSET_COMMIT => left::<OffsetCommitRequest>(version, body),
        ApiKey::OFFSET_FETCH => left::<OffsetFetchRequest>(version, body),
        ApiKey::JOIN_GROUP => left::<JoinGroupRequest>(version, body),
        ApiKey::HEARTBEAT => left::<HeartbeatRequest>(version, body),
        ApiKey::LEAVE_GROUP => left::<LeaveGroupRequest>(version, body),
        ApiKey::SYNC_GROUP => left::<SyncGroupRequest>(version, body),
        ApiKey::DESCRIBE_GROUPS => left::<DescribeGroupsRequest>(version, body),
        ApiKey::LIST_GROUPS => left::<ListGroupsRequest>(version, body),
        ApiKey::DELETE_GROUPS => left::<DeleteGroupsRequest>(version, body),
        ApiKey::OFFSET_DELETE => left::<OffsetDeleteRequest>(version, body),
        ApiKey::SASL_HANDSHAKE => left::<SaslHandshakeRequest>(version, body),
        ApiKey::SASL_AUTHENTICATE => left::<SaslAuthenticateRequest>(version, body),
        ApiKey::API_VERSIONS => left::<ApiVersionsRequest>(version, body),
        ApiKey::CREATE_TOPICS => left::<CreateTopicsRequest>(version, body),
        ApiKey::DELETE_TOPICS => left::<DeleteTopicsRequest>(version, body),
        ApiKey::INIT_PRODUCER_ID => left::<InitProducerIdRequest>(version, body),
        ApiKey::OFFSET_FOR_LEADER_EPOCH => left::<OffsetForLeaderEpochRequest>(version, body),
        ApiKey::CREATE_PARTITIONS => left::<CreatePartitionsRequest>(version, body),
        ApiKey::DESCRIBE_PRODUCERS => left::<DescribeProducersRequest>(version, body),
        ApiKey::CONSUMER_GROUP_HEARTBEAT => left::<ConsumerGroupHeartbeatRequest>(version, body),
        ApiKey::CONSUMER_GROUP_DESCRIBE => left::<ConsumerGroupDescribeRequest>(version, body),
        _ => panic!("api {api} has no decoder here"),
    }
}

#[test]
fn samples_cover_every_version_of_every_api() {
    let mut expected = Vec::new();
    for (api, min, max) in SUPPORTED {
        expected.extend((min..=max).map(|version| (api.0, version)));
    }
    let covered: Vec<_> = all().iter().map(|sample| (sample.api, sample.version)).collect();
    assert_eq!(covered, expected);
}

#[test]
fn every_version_is_walked_to_its_last_byte() {
    for Sample { api, version, body } in all() {
        assert_eq!(check(ApiKey(api), version, &body), Ok(body.len()), "api {api} v{version}");
        assert_eq!(decode(api, version, &body), Some(0), "api {api} v{version}");
    }
}

#[test]
fn no_request_may_end_early() {
    for Sample { api, version, body } in all() {
        for len in 0..body.len() {
            let walked = check(ApiKey(api), version, &body[..len]);
            assert!(walked.is_err(), "api {api} v{version} cut to {len} bytes");
        }
    }
}

#[test]
fn a_count_without_elements_is_refused() {
    // Metadata: i32::MAX topics, in plain and in compact length.
    assert!(check(ApiKey::METADATA, 8, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0]).is_err());
    assert!(check(ApiKey::METADATA, 12, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]).is_err());
    // DeleteTopics: values instead of structs.
    assert!(check(ApiKey::DELETE_TOPICS, 3, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]).is_err());
    // A null list is none.
    assert_eq!(check(ApiKey::METADATA, 8, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0]), Ok(7));
}

#[test]
fn elements_that_are_there_are_bounded_too() {
    // FindCoordinator v4: a key type, and so many empty keys, one byte each.
    let request = |keys: usize| {
        let mut body = vec![0];
        let mut count = keys + 1;
        while count >= 0x80 {
            body.push((count & 0x7f) as u8 | 0x80);
            count >>= 7;
        }
        body.push(count as u8);
        body.resize(body.len() + keys, 1);
        body.push(0);
        body
    };
    let most = request(MAX_ELEMENTS);
    assert_eq!(check(ApiKey::FIND_COORDINATOR, 4, &most), Ok(most.len()));
    assert!(check(ApiKey::FIND_COORDINATOR, 4, &request(MAX_ELEMENTS + 1)).is_err());
}

#[test]
fn a_tag_whose_size_lies_is_refused() {
    // Fetch v15 without topics, with tag 0 (the cluster id, "ab"), once of its true size.
    let request = |claimed: u8| {
        let mut body = vec![0; 12];
        body.push(0); // isolation level
        body.extend([0; 8]); // session
        body.extend([1, 1, 1]); // no topics, none forgotten, no rack
        body.extend([1, 0, claimed, 3, b'a', b'b']);
        body
    };
    assert_eq!(check(ApiKey::FETCH, 15, &request(3)), Ok(30));
    assert!(check(ApiKey::FETCH, 15, &request(2)).is_err());
    assert!(check(ApiKey::FETCH, 15, &request(4)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    /// What passes is read by the decoder without a surprise: it ends where the walk ended.
    #[test]
    fn damaged_requests_are_refused_or_read_alike(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..5_u8), 1..6),
    ) {
        let samples = all();
        let Sample { api, version, body } = which.get(&samples);
        let mut damaged = body.to_vec();
        for (at, byte, kind) in edits {
            let at = at.index(damaged.len().max(1));
            match kind {
                0 => damaged.iter_mut().skip(at).take(1).for_each(|old| *old = byte),
                1 => damaged.insert(at.min(damaged.len()), byte),
                2 if !damaged.is_empty() => { damaged.remove(at); }
                // The largest count, in plain and in compact length.
                3 => damaged.iter_mut().skip(at).zip([0x7f, 0xff, 0xff, 0xff]).for_each(|(old, new)| *old = new),
                _ => damaged.iter_mut().skip(at).zip([0xff, 0xff, 0xff, 0xff, 0x0f]).for_each(|(old, new)| *old = new),
            }
        }
        let damaged = Bytes::from(damaged);
        if let Ok(walked) = check(ApiKey(*api), *version, &damaged) {
            prop_assert!(walked <= damaged.len());
            if let Some(left) = decode(*api, *version, &damaged) {
                prop_assert_eq!(walked, damaged.len() - left);
            }
        }
    }

    /// Nor does noise get through.
    #[test]
    fn noise_is_refused_or_read_alike(
        which in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let samples = all();
        let Sample { api, version, .. } = which.get(&samples);
        let noise = Bytes::from(noise);
        if let Ok(walked) = check(ApiKey(*api), *version, &noise)
            && let Some(left) = decode(*api, *version, &noise)
        {
            prop_assert_eq!(walked, noise.len() - left);
        }
    }
}
