//! Size prefix and headers around a message.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use zeroize::Zeroize;

use super::bounds::{self, Refused};
use crate::error::{Error, ErrorKind, Result};

/// A request with a secret in it, whose bytes are overwritten when they are not needed any more.
pub(crate) struct Wiped(BytesMut);

impl std::ops::Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Wiped {
    fn wipe(&mut self) {
        self.0.zeroize();
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// A request as it goes to the socket.
pub(crate) fn encode_request<R: Request>(
    version: i16,
    correlation: i32,
    client_id: &str,
    request: &R,
) -> Result<Bytes> {
    let mut buf = BytesMut::with_capacity(ROOM);
    encode_into(&mut buf, version, correlation, client_id, request)?;
    Ok(buf.freeze())
}

/// The same of a request with a secret of so many bytes. In one piece: a buffer that grows leaves copies behind.
pub(crate) fn encode_secret<R: Request>(
    version: i16,
    correlation: i32,
    client_id: &str,
    request: &R,
    secret: usize,
) -> Result<Wiped> {
    let mut buf = Wiped(BytesMut::with_capacity(ROOM + client_id.len() + secret));
    encode_into(&mut buf.0, version, correlation, client_id, request)?;
    Ok(buf)
}

/// More than a small request takes, but for the client id.
const ROOM: usize = 256;

fn encode_into<R: Request>(
    buf: &mut BytesMut,
    version: i16,
    correlation: i32,
    client_id: &str,
    request: &R,
) -> Result<()> {
    let unencodable = |e: &dyn std::fmt::Display| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("request {} cannot be written in version {version}: {e}", R::KEY),
        )
    };
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
    buf.put_i32(0);
    header.encode(buf, R::header_version(version)).map_err(|e| unencodable(&e))?;
    request.encode(buf, version).map_err(|e| unencodable(&e))?;
    let size = u32::try_from(buf.len() - 4).map_err(|e| unencodable(&e))?;
    buf[..4].copy_from_slice(&size.to_be_bytes());
    Ok(())
}

/// Reads a response whose correlation id is cut off already. Nothing is decoded that [`bounds`] does
/// not vouch for; a response without a table there is a fault of this crate, and refused.
///
/// Gives the bytes behind it, too: there are brokers that answer with more than the version has
/// (librdkafka's mock cluster, one byte behind Metadata 13), and every other client takes what is
/// whole before them.
pub(crate) fn decode_response<R: Request>(
    version: i16,
    mut body: Bytes,
) -> Result<(R::Response, usize)> {
    let malformed = |words: &dyn std::fmt::Display| {
        Error::new(
            ErrorKind::NotKafka,
            format!("the answer to request {} version {version} is malformed: {words}", R::KEY),
        )
    };
    if <R::Response as HeaderVersion>::header_version(version) >= 1 {
        skip_tagged(&mut body).ok_or_else(|| malformed(&"its header ends early"))?;
    }
    match bounds::check(R::KEY, version, &body) {
        Ok(()) => {}
        Err(Refused::Malformed { field }) => {
            return Err(malformed(&format_args!("length or end of {field}")));
        }
        Err(Refused::NoSchema) => {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("nothing bounds the answer to request {} version {version}", R::KEY),
            ));
        }
    }
    let response = R::Response::decode(&mut body, version).map_err(|e| malformed(&e))?;
    Ok((response, body.len()))
}

/// Tagged fields of a response header; none is defined, so all are skipped.
fn skip_tagged(body: &mut Bytes) -> Option<()> {
    let count = varint(body)?;
    for _ in 0..count {
        varint(body)?;
        let len = varint(body)? as usize;
        if len > body.len() {
            return None;
        }
        let _ = body.split_to(len);
    }
    Some(())
}

fn varint(body: &mut Bytes) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = *body.first()?;
        let _ = body.split_to(1);
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{HeartbeatRequest, MetadataRequest};

    #[test]
    fn a_count_that_would_abort_the_process() {
        // Metadata 9: header tags, throttle time, and 4 billion brokers.
        let body = Bytes::from_static(&[0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        let error = decode_response::<MetadataRequest>(9, body).expect_err("there are no brokers");
        assert_eq!(error.kind(), ErrorKind::NotKafka);
        assert!(error.to_string().contains("brokers"), "{error}");
    }

    #[test]
    fn what_is_left_over_behind_a_response_is_counted() {
        use kafka_protocol::messages::ApiVersionsRequest;
        // ApiVersions 0: no error, no requests, and five bytes of something.
        let body = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]);
        let (response, left_over) = decode_response::<ApiVersionsRequest>(0, body).unwrap();
        assert_eq!((response.error_code, response.api_keys.len(), left_over), (0, 0, 5));
    }

    /// A copy that a buffer leaves behind when it grows is overwritten by nobody.
    #[test]
    fn a_request_with_a_secret_is_in_one_place_and_wiped() {
        use kafka_protocol::messages::SaslAuthenticateRequest;
        for (size, client_id) in [(1, "c".into()), (400, "c".into()), (5_000, "i".repeat(1_000))] {
            let request =
                SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(vec![b'x'; size]));
            for version in 0..=2 {
                let mut frame = encode_secret(version, 7, &client_id, &request, size).unwrap();
                assert_eq!(frame.0.capacity(), ROOM + client_id.len() + size, "it has grown");
                let plain = encode_request(version, 7, &client_id, &request).unwrap();
                assert_eq!(*frame, *plain);
                frame.wipe();
                assert!(frame.0.iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn a_response_without_a_table() {
        let body = Bytes::from_static(&[0; 64]);
        let error = decode_response::<HeartbeatRequest>(0, body).expect_err("no table");
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    /// Nobody defines a tagged field in a header; one has to fit all the same.
    #[test]
    fn tagged_fields_of_a_header_are_passed_over() {
        // Metadata 9: no throttling, brokers, cluster id, controller or topics.
        let body = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0x80, 0, 0, 0, 0];
        let with = |header: &[u8]| {
            decode_response::<MetadataRequest>(9, Bytes::from([header, &body].concat()))
        };
        for header in [&[0][..], &[1, 7, 0], &[1, 7, 3, 9, 9, 9], &[2, 7, 1, 9, 0x88, 1, 0]] {
            assert_eq!(with(header).unwrap().1, 0, "{header:?}");
        }
        for header in [&[1, 0, 100][..], &[1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f], &[9, 0, 0]] {
            assert_eq!(with(header).unwrap_err().kind(), ErrorKind::NotKafka, "{header:?}");
        }
    }
}
