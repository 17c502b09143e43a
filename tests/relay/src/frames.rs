//! Kafka's frames, as far as a relay has to know them: whose request it is and of what kind, and
//! how long a Produce response asks its client to be silent.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ProduceResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Kafka's `socket.request.max.bytes`, with room for a fetch response that holds one batch more.
const MAX_FRAME: usize = 128 << 20;

/// What stands at the head of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Kafka's number of the request; see [`Request::api`].
    pub key: i16,
    /// Version of the request and of its response.
    pub version: i16,
    /// What the response begins with.
    pub correlation: i32,
    /// The client's own name for itself; empty for null.
    pub client: String,
}

impl Request {
    /// Reads a request without its length.
    ///
    /// # Errors
    /// `InvalidData` for what is no Kafka request.
    pub fn read(frame: &[u8]) -> io::Result<Self> {
        let short = |_| not_kafka("a request that ends within its header");
        let mut rest = frame;
        let key = rest.try_get_i16().map_err(short)?;
        let version = rest.try_get_i16().map_err(short)?;
        let correlation = rest.try_get_i32().map_err(short)?;
        // Every header from version 1 has the client id here, length and bytes alike in all.
        let length = usize::try_from(rest.try_get_i16().map_err(short)?).unwrap_or(0);
        let client = rest.get(..length).ok_or_else(|| not_kafka("a client id that is cut"))?;
        let client = String::from_utf8_lossy(client).into_owned();
        Ok(Self { key, version, correlation, client })
    }

    /// The kind of request, where this build knows it.
    pub fn api(&self) -> Option<ApiKey> {
        ApiKey::try_from(self.key).ok()
    }
}

/// The next frame without its length, or `None` when the stream has ended between two.
///
/// # Errors
/// The stream's; `UnexpectedEof` within a frame; `InvalidData` for a length that no frame has.
pub(crate) async fn next(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Bytes>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=MAX_FRAME).contains(&length) {
        return Err(not_kafka("a length that no frame has"));
    }
    let mut frame = BytesMut::with_capacity(length);
    while frame.len() < length {
        // Limited: what follows belongs to the next frame.
        let missing = length - frame.len();
        let mut rest = (&mut frame).limit(missing);
        if stream.read_buf(&mut rest).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(frame.freeze()))
}

/// The correlation id that a response begins with.
pub(crate) fn correlation(answer: &[u8]) -> i32 {
    // A frame has at least these bytes: `next` takes none that is shorter.
    answer.get(..4).map_or(-1, |mut id| id.get_i32())
}

/// Whether a Produce response says of every batch that it was written.
///
/// # Errors
/// `InvalidData` where it is no such response.
pub(crate) fn all_written(answer: &Bytes, version: i16) -> io::Result<bool> {
    let (_, body) = produce_response(answer, version)?;
    Ok(body.responses.iter().flat_map(|t| &t.partition_responses).all(|p| p.error_code == 0))
}

/// A Produce response that asks its client to send nothing for so many milliseconds.
///
/// # Errors
/// `InvalidData` where it is no such response.
pub(crate) fn throttled(answer: &Bytes, version: i16, milliseconds: i32) -> io::Result<Bytes> {
    let (header, mut body) = produce_response(answer, version)?;
    body.throttle_time_ms = milliseconds;
    let mut out = BytesMut::with_capacity(answer.len());
    header
        .encode(&mut out, ApiKey::Produce.response_header_version(version))
        .and_then(|()| body.encode(&mut out, version))
        .map_err(|e| not_kafka(&format!("a Produce answer that cannot be written again: {e}")))?;
    Ok(out.freeze())
}

fn produce_response(answer: &Bytes, version: i16) -> io::Result<(ResponseHeader, ProduceResponse)> {
    let mut rest = answer.clone();
    let header =
        ResponseHeader::decode(&mut rest, ApiKey::Produce.response_header_version(version))
            .map_err(|e| not_kafka(&format!("no header of an answer: {e}")))?;
    let body = ProduceResponse::decode(&mut rest, version)
        .map_err(|e| not_kafka(&format!("no Produce answer: {e}")))?;
    if rest.has_remaining() {
        return Err(not_kafka("a Produce answer with bytes behind it"));
    }
    Ok((header, body))
}

fn not_kafka(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::produce_response::{
        LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{BrokerId, ProduceRequest, RequestHeader, TopicName};
    use kafka_protocol::protocol::{HeaderVersion, StrBytes};

    use super::*;

    const VERSIONS: std::ops::RangeInclusive<i16> = 3..=13;

    fn answer(version: i16, error: i16) -> Bytes {
        let mut partition = PartitionProduceResponse::default().with_index(7).with_base_offset(42);
        partition.error_code = error;
        let mut topic = TopicProduceResponse::default();
        if version < 13 {
            topic.name = TopicName(StrBytes::from_static_str("t"));
        }
        let mut body = ProduceResponse::default();
        // What a broker adds to a refusal by name of the leader: a tagged field behind the throttle
        // time (KIP-951).
        if version >= 10 {
            partition.current_leader =
                LeaderIdAndEpoch::default().with_leader_id(BrokerId(2)).with_leader_epoch(9);
            body.node_endpoints = vec![
                NodeEndpoint::default()
                    .with_node_id(BrokerId(2))
                    .with_host(StrBytes::from_static_str("h"))
                    .with_port(9),
            ];
        }
        topic.partition_responses = vec![partition];
        body.responses = vec![topic];
        let mut out = BytesMut::new();
        ResponseHeader::default()
            .with_correlation_id(5)
            .encode(&mut out, ApiKey::Produce.response_header_version(version))
            .unwrap();
        body.encode(&mut out, version).unwrap();
        out.freeze()
    }

    #[test]
    fn a_throttle_time_is_put_in_and_nothing_else_changes() {
        for version in VERSIONS {
            let before = answer(version, 6);
            let after = throttled(&before, version, 1234).unwrap();
            assert_eq!(correlation(&after), 5);
            let (_, body) = produce_response(&after, version).unwrap();
            assert_eq!(body.throttle_time_ms, 1234, "version {version}");
            assert_eq!(throttled(&after, version, 0).unwrap(), before, "version {version}");
        }
    }

    #[test]
    fn one_refused_batch_is_seen() {
        for version in VERSIONS {
            assert!(all_written(&answer(version, 0), version).unwrap());
            assert!(!all_written(&answer(version, 6), version).unwrap());
        }
        assert!(all_written(&Bytes::from_static(&[0, 0, 0, 1, 9]), 9).is_err());
    }

    #[test]
    fn requests_say_who_sends_them() {
        for version in VERSIONS {
            let mut out = BytesMut::new();
            RequestHeader::default()
                .with_request_api_key(0)
                .with_request_api_version(version)
                .with_correlation_id(77)
                .with_client_id(Some(StrBytes::from_static_str("me")))
                .encode(&mut out, ProduceRequest::header_version(version))
                .unwrap();
            let request = Request::read(&out).unwrap();
            assert_eq!(request, Request { key: 0, version, correlation: 77, client: "me".into() });
            assert_eq!(request.api(), Some(ApiKey::Produce));
        }
        // Null is a name of no length, and a header that is cut is none.
        let null = [0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
        assert_eq!(Request::read(&null).unwrap().client, "");
        for cut in 0..null.len() {
            assert!(Request::read(&null[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn frames_end_where_they_say() {
        let mut stream = &[0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 5, 1, 2, 3, 4, 5][..];
        assert_eq!(next(&mut stream).await.unwrap().unwrap(), [1, 2, 3, 4][..]);
        assert_eq!(next(&mut stream).await.unwrap().unwrap(), [1, 2, 3, 4, 5][..]);
        assert_eq!(next(&mut stream).await.unwrap(), None);
        for bad in [&[0, 0, 0, 3, 1, 2, 3][..], &[0, 0, 0, 5, 1, 2], &[0xff, 0, 0, 0, 1], &[0, 0]] {
            assert!(next(&mut &bad[..]).await.is_err(), "{bad:?}");
        }
    }
}
