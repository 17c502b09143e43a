//! Size prefix and headers around a message.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::bounds::{self, Refused};
use crate::error::{Error, ErrorKind, Result};

/// A request as it goes to the socket.
pub(crate) fn encode_request<R: Request>(
    version: i16,
    correlation: i32,
    client_id: &str,
    request: &R,
) -> Result<Bytes> {
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
    let mut buf = BytesMut::with_capacity(256);
    buf.put_i32(0);
    header.encode(&mut buf, R::header_version(version)).map_err(|e| unencodable(&e))?;
    request.encode(&mut buf, version).map_err(|e| unencodable(&e))?;
    let size = u32::try_from(buf.len() - 4).map_err(|e| unencodable(&e))?;
    buf[..4].copy_from_slice(&size.to_be_bytes());
    Ok(buf.freeze())
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
