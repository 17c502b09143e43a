//! Responses to every request, in every version that has a table.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, ConsumerGroupHeartbeatRequest, CreateTopicsRequest, DescribeGroupsRequest,
    DescribeProducersRequest, FetchRequest, FindCoordinatorRequest, HeartbeatRequest,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListOffsetsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
    ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{HeaderVersion, Request};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Verdict;
use crate::error::ErrorKind;
use crate::protocol::bounds::author;
use crate::protocol::bounds::schema::{self, SCHEMAS};
use crate::protocol::decode_response;

/// Request and version of every response that can be read.
pub fn known_responses() -> impl Iterator<Item = (i16, i16)> {
    SCHEMAS.iter().flat_map(|s| (s.versions.0..=s.versions.1).map(|version| (s.api_key, version)))
}

/// An input for [`response`] that is a sound answer, random otherwise. `None` if it cannot be read.
pub fn written_response(api_key: i16, version: i16, seed: u64) -> Option<Vec<u8>> {
    let schema = schema::find(api_key, version)?;
    let mut input = vec![u8::try_from(api_key).ok()?, u8::try_from(version).ok()?];
    if header_version(api_key, version) >= 1 {
        input.push(0);
    }
    input.extend(author::message(schema, version, &mut StdRng::seed_from_u64(seed)));
    Some(input)
}

/// Reads a response: a byte for the request, one for the version, and what follows the correlation
/// id.
///
/// # Panics
/// If the decoder ran out of bytes, and so may have reserved memory for what was never sent; or if
/// the error is not the one that closes the connection.
pub fn response(input: &[u8]) -> Verdict {
    let Some((&[api_key, version], body)) = input.split_first_chunk() else {
        return Verdict::Unfit;
    };
    let (api_key, version) = (i16::from(api_key), i16::from(version));
    if schema::find(api_key, version).is_none() {
        return Verdict::Unfit;
    }
    match decode(api_key, version, Bytes::copy_from_slice(body)) {
        Ok(()) => Verdict::Taken,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::NotKafka, "request {api_key} version {version}: {e}");
            assert!(!e.message().contains("Not enough bytes"), "the decoder ran out: {e}");
            Verdict::Refused
        }
    }
}

fn decode(api_key: i16, version: i16, body: Bytes) -> crate::Result<()> {
    fn one<R: Request>(version: i16, body: Bytes) -> crate::Result<()> {
        decode_response::<R>(version, body).map(drop)
    }
    match api_key {
        0 => one::<ProduceRequest>(version, body),
        1 => one::<FetchRequest>(version, body),
        2 => one::<ListOffsetsRequest>(version, body),
        3 => one::<MetadataRequest>(version, body),
        8 => one::<OffsetCommitRequest>(version, body),
        9 => one::<OffsetFetchRequest>(version, body),
        10 => one::<FindCoordinatorRequest>(version, body),
        11 => one::<JoinGroupRequest>(version, body),
        12 => one::<HeartbeatRequest>(version, body),
        13 => one::<LeaveGroupRequest>(version, body),
        14 => one::<SyncGroupRequest>(version, body),
        15 => one::<DescribeGroupsRequest>(version, body),
        17 => one::<SaslHandshakeRequest>(version, body),
        18 => one::<ApiVersionsRequest>(version, body),
        19 => one::<CreateTopicsRequest>(version, body),
        22 => one::<InitProducerIdRequest>(version, body),
        23 => one::<OffsetForLeaderEpochRequest>(version, body),
        36 => one::<SaslAuthenticateRequest>(version, body),
        61 => one::<DescribeProducersRequest>(version, body),
        68 => one::<ConsumerGroupHeartbeatRequest>(version, body),
        other => panic!("no decoder for request {other}: add it here with its table"),
    }
}

fn header_version(api_key: i16, version: i16) -> i16 {
    fn one<R: Request>(version: i16) -> i16 {
        <R::Response as HeaderVersion>::header_version(version)
    }
    match api_key {
        0 => one::<ProduceRequest>(version),
        1 => one::<FetchRequest>(version),
        2 => one::<ListOffsetsRequest>(version),
        3 => one::<MetadataRequest>(version),
        8 => one::<OffsetCommitRequest>(version),
        9 => one::<OffsetFetchRequest>(version),
        10 => one::<FindCoordinatorRequest>(version),
        11 => one::<JoinGroupRequest>(version),
        12 => one::<HeartbeatRequest>(version),
        13 => one::<LeaveGroupRequest>(version),
        14 => one::<SyncGroupRequest>(version),
        15 => one::<DescribeGroupsRequest>(version),
        17 => one::<SaslHandshakeRequest>(version),
        18 => one::<ApiVersionsRequest>(version),
        19 => one::<CreateTopicsRequest>(version),
        22 => one::<InitProducerIdRequest>(version),
        23 => one::<OffsetForLeaderEpochRequest>(version),
        36 => one::<SaslAuthenticateRequest>(version),
        61 => one::<DescribeProducersRequest>(version),
        68 => one::<ConsumerGroupHeartbeatRequest>(version),
        other => panic!("no header for request {other}: add it here with its table"),
    }
}
