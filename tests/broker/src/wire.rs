//! Frames and headers: what surrounds every request and answer.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey as KafkaApi;
use kafka_protocol::protocol::{Encodable, HeaderVersion};

/// A frame longer than this closes its connection: Kafka's `socket.request.max.bytes` is 100 MiB.
pub(crate) const MAX_FRAME: usize = 128 << 20;

/// A request without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// Empty also where there is none.
    pub(crate) client_id: Bytes,
}

impl RequestHead {
    /// Of a token that comes without a request around it, after a SaslHandshake of version 0.
    pub(crate) fn of_token() -> Self {
        Self {
            api_key: KafkaApi::SaslAuthenticate as i16,
            version: 0,
            correlation_id: 0,
            client_id: Bytes::new(),
        }
    }
}

/// Reads the head and leaves `frame` at the body. Read by hand: an unknown version of ApiVersions
/// has to be answered, and a generated decoder knows only known versions.
pub(crate) fn read_head(frame: &mut Bytes) -> Result<RequestHead, String> {
    if frame.len() < 8 {
        return Err(format!("a request of {} bytes has no header", frame.len()));
    }
    let api_key = frame.get_i16();
    let version = frame.get_i16();
    let correlation_id = frame.get_i32();
    let mut head = RequestHead { api_key, version, correlation_id, client_id: Bytes::new() };
    let Ok(api) = KafkaApi::try_from(api_key) else { return Ok(head) };
    let known = api.valid_versions();
    if version < known.min || version > known.max {
        return Ok(head);
    }
    let client_id_len = frame.try_get_i16().map_err(|_| "no client id".to_owned())?;
    if let Ok(len) = usize::try_from(client_id_len) {
        if len > frame.len() {
            return Err("client id is longer than its request".to_owned());
        }
        head.client_id = frame.split_to(len);
    }
    if api.request_header_version(version) >= 2 {
        let tags = read_unsigned(frame)?;
        for _ in 0..tags {
            read_unsigned(frame)?;
            let len = read_unsigned(frame)? as usize;
            if len > frame.len() {
                return Err("a header tag is longer than its request".to_owned());
            }
            frame.advance(len);
        }
    }
    Ok(head)
}

fn read_unsigned(buf: &mut Bytes) -> Result<u32, String> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = buf.try_get_u8().map_err(|_| "truncated header tag".to_owned())?;
        value |= u32::from(byte & 0x7f).wrapping_shl(shift);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a header tag's number is too long".to_owned())
}

pub(crate) fn put_unsigned(buf: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        buf.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

/// An encoded answer with its length in front, in pieces: heads that were encoded, and slices of
/// the log that are sent from where they lie.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl Response {
    /// Encodes a response whose body is one message.
    pub(crate) fn encode<T: Encodable + HeaderVersion>(
        correlation_id: i32,
        version: i16,
        body: &T,
    ) -> Result<Self, String> {
        let mut buf = BytesMut::new();
        start(&mut buf, correlation_id, T::header_version(version) >= 1);
        body.encode(&mut buf, version).map_err(|error| error.to_string())?;
        let mut response = Self::default();
        response.push(buf.freeze());
        response.finish();
        Ok(response)
    }

    /// Appends a piece. The first one begins with [`start`].
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.remaining += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Writes the length of the whole in front, now that it is known.
    pub(crate) fn finish(&mut self) {
        let len = self.remaining as u32;
        self.pieces.push_front(Bytes::copy_from_slice(&len.to_be_bytes()));
        self.remaining += 4;
    }
}

/// Begins a response's first piece: correlation id, and an empty tag section in flexible versions.
pub(crate) fn start(buf: &mut BytesMut, correlation_id: i32, flexible: bool) {
    buf.put_i32(correlation_id);
    if flexible {
        buf.put_u8(0);
    }
}

impl Buf for Response {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, piece) in dst.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.remaining -= count;
        while count > 0 {
            let Some(front) = self.pieces.front_mut() else { return };
            if front.len() > count {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }
}
