//! Well-formed answers that say nothing of something that was asked about.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    FetchResponse, ListOffsetsResponse, MetadataResponse, ProduceResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use ottla::testing::ApiKey;

/// The body of a response (from its correlation id) without the last partition that it tells of; that to
/// Metadata without the last topic.
///
/// # Panics
/// If the response is to something else, or is none.
pub(crate) fn answer(api: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    match api {
        ApiKey::PRODUCE => changed(version, body, |answer: &mut ProduceResponse| {
            answer.responses.last_mut().and_then(|topic| topic.partition_responses.pop());
        }),
        ApiKey::FETCH => changed(version, body, |answer: &mut FetchResponse| {
            answer.responses.last_mut().and_then(|topic| topic.partitions.pop());
        }),
        ApiKey::LIST_OFFSETS => changed(version, body, |answer: &mut ListOffsetsResponse| {
            answer.topics.last_mut().and_then(|topic| topic.partitions.pop());
        }),
        ApiKey::METADATA => changed(version, body, |answer: &mut MetadataResponse| {
            answer.topics.pop();
        }),
        other => panic!("what an answer to {other:?} tells of is not known here"),
    }
}

/// The body of a response with something in it changed.
///
/// # Panics
/// If it is another one's.
pub(crate) fn changed<A: Decodable + Encodable + HeaderVersion>(
    version: i16,
    body: &[u8],
    change: impl FnOnce(&mut A),
) -> Vec<u8> {
    let (header, rest) = body.split_at(if A::header_version(version) == 0 { 4 } else { 5 });
    let mut rest = Bytes::copy_from_slice(rest);
    let mut answer = A::decode(&mut rest, version).expect("the embedded broker's answer");
    change(&mut answer);
    let mut out = BytesMut::from(header);
    answer.encode(&mut out, version).expect("what was decoded");
    out.to_vec()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};

    use super::*;

    #[test]
    fn the_last_partition_is_left_out_and_nothing_else() {
        let partitions = (0..3).map(|p| PartitionData::default().with_partition_index(p));
        let topic = FetchableTopicResponse::default().with_partitions(partitions.collect());
        let whole = FetchResponse::default().with_responses(vec![topic]);
        let mut body = BytesMut::from(&[0, 0, 0, 9, 0][..]);
        whole.encode(&mut body, 12).expect("an answer");
        let fewer = answer(ApiKey::FETCH, 12, &body);
        assert_eq!(fewer[..5], [0, 0, 0, 9, 0]);
        let fewer = FetchResponse::decode(&mut &fewer[5..], 12).expect("an answer");
        let left = fewer.responses[0].partitions.iter().map(|p| p.partition_index);
        assert_eq!(left.collect::<Vec<_>>(), [0, 1]);
    }
}
