//! A connection to a real broker, and requests written by hand on it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use ottla_test_kafka::Cluster;

/// Longer than anything takes on a busy machine.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

/// One connection, one request at a time.
pub(crate) struct Raw {
    stream: TcpStream,
    correlation: i32,
}

impl Raw {
    pub(crate) fn connect(cluster: &Cluster, broker: u32) -> Self {
        let stream = TcpStream::connect(cluster.address(broker).unwrap()).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        Self { stream, correlation: 0 }
    }

    pub(crate) fn send<R: Request>(&mut self, version: i16, body: &R) {
        self.correlation += 1;
        let mut bytes = BytesMut::new();
        bytes.put_i32(0);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("by-hand")));
        header.encode(&mut bytes, R::header_version(version)).unwrap();
        body.encode(&mut bytes, version).unwrap();
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&bytes).unwrap();
    }

    pub(crate) fn answer<R: Request>(&mut self, version: i16) -> R::Response {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        let mut frame = Bytes::from(frame);
        assert_eq!(frame.get_i32(), self.correlation);
        if R::Response::header_version(version) >= 1 {
            assert_eq!(frame.get_u8(), 0, "no tags in the header");
        }
        R::Response::decode(&mut frame, version).unwrap()
    }

    pub(crate) fn ask<R: Request>(&mut self, version: i16, body: &R) -> R::Response {
        self.send(version, body);
        self.answer::<R>(version)
    }
}
