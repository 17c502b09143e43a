//! Reading and judging record batches (magic 2), independently of any client's writer.
//!
//! Everything a Kafka broker checks on append is checked here: length, magic, CRC, the record
//! count against the offset range, and each record's framing and offset delta. A batch is walked
//! where it lies; only compressed payloads are unpacked, once, into a buffer the caller reuses.

use bytes::Bytes;

use crate::compression::{self, Codec};
use crate::error_code as code;

/// Bytes of a batch before its first record.
pub(crate) const HEADER_LEN: usize = 61;
/// Bytes before the part that the length field counts: base offset and the length itself.
pub(crate) const LENGTH_PREFIX: usize = 12;
/// The CRC covers everything from the attributes to the end: the base offset and the leader epoch
/// are the broker's to set, and setting them must not cost a new CRC.
const CRC_FROM: usize = 21;
/// Base offset, length and leader epoch: what a broker rewrites before it serves a batch.
pub(crate) const REWRITTEN_LEN: usize = 16;

pub(crate) const ATTRIBUTE_CODEC: i16 = 0x07;
pub(crate) const ATTRIBUTE_TRANSACTIONAL: i16 = 0x10;
pub(crate) const ATTRIBUTE_CONTROL: i16 = 0x20;

/// The fixed part of a batch, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    pub(crate) length: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
}

impl BatchHeader {
    /// Part of a transaction, which takes a producer.
    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0 && self.producer_id >= 0
    }

    /// A broker's own: a marker, and no records.
    pub(crate) fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }
}

/// Whether records, of which nothing has been checked, claim to be a part of a transaction.
pub(crate) fn is_transactional(records: &[u8]) -> bool {
    const ATTRIBUTES: usize = 21;
    let attributes = records.get(ATTRIBUTES..).and_then(|rest| rest.first_chunk());
    attributes.is_some_and(|bytes| i16::from_be_bytes(*bytes) & ATTRIBUTE_TRANSACTIONAL != 0)
}

/// Why a batch is refused: the code Kafka answers with, and words for the error message field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i16,
    pub(crate) message: String,
    /// Records that are to blame, by index, and why (KIP-467).
    pub(crate) records: Vec<(i32, String)>,
}

impl Refusal {
    pub(crate) fn new(code: i16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), records: Vec::new() }
    }
}

fn corrupt(message: impl Into<String>) -> Refusal {
    Refusal::new(code::CORRUPT_MESSAGE, message)
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(code::INVALID_RECORD, message)
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Reads the header. The slice may be longer than the batch (more batches may follow).
pub(crate) fn read_header(bytes: &[u8]) -> Result<BatchHeader, Refusal> {
    if bytes.len() < HEADER_LEN {
        return Err(corrupt(format!(
            "{} bytes are too few for a record batch header of {HEADER_LEN}",
            bytes.len()
        )));
    }
    let magic = bytes[16] as i8;
    if magic != 2 {
        // Produce v3 and later carry magic 2 only; Kafka answers INVALID_RECORD, not CORRUPT.
        return Err(invalid(format!("record batch has magic {magic}, only 2 is accepted")));
    }
    Ok(BatchHeader {
        base_offset: i64::from_be_bytes(be(bytes, 0)),
        length: i32::from_be_bytes(be(bytes, 8)),
        leader_epoch: i32::from_be_bytes(be(bytes, 12)),
        crc: u32::from_be_bytes(be(bytes, 17)),
        attributes: i16::from_be_bytes(be(bytes, 21)),
        last_offset_delta: i32::from_be_bytes(be(bytes, 23)),
        base_timestamp: i64::from_be_bytes(be(bytes, 27)),
        max_timestamp: i64::from_be_bytes(be(bytes, 35)),
        producer_id: i64::from_be_bytes(be(bytes, 43)),
        producer_epoch: i16::from_be_bytes(be(bytes, 51)),
        base_sequence: i32::from_be_bytes(be(bytes, 53)),
        record_count: i32::from_be_bytes(be(bytes, 57)),
    })
}

/// What a topic asks of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// `max.message.bytes`.
    pub(crate) max_message_bytes: usize,
    /// `cleanup.policy` is compact: a record without a key could not be compacted.
    pub(crate) compacted: bool,
    /// Records with a later timestamp are refused (`message.timestamp.after.max.ms`).
    pub(crate) latest_timestamp: i64,
}

/// How deep [`check`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Header, length and CRC.
    Header,
    /// Also every record's framing and offset delta.
    Records,
}

/// Judges the only batch of a produce request's partition, as Kafka's log validation does.
pub(crate) fn check(
    bytes: &[u8],
    rules: Rules,
    depth: Depth,
    scratch: &mut Vec<u8>,
) -> Result<BatchHeader, Refusal> {
    let max_message_bytes = rules.max_message_bytes;
    let header = read_header(bytes)?;
    let claimed = LENGTH_PREFIX as i64 + i64::from(header.length);
    if claimed < HEADER_LEN as i64 || claimed > bytes.len() as i64 {
        return Err(corrupt(format!(
            "record batch claims {claimed} bytes, {} were sent",
            bytes.len()
        )));
    }
    if (claimed as usize) < bytes.len() {
        return Err(invalid("a produce request carries exactly one record batch per partition"));
    }
    if bytes.len() > max_message_bytes {
        return Err(Refusal::new(
            code::MESSAGE_TOO_LARGE,
            format!(
                "record batch of {} bytes exceeds max.message.bytes {max_message_bytes}",
                bytes.len()
            ),
        ));
    }
    let crc = crc_fast::crc32_iscsi(&bytes[CRC_FROM..]);
    if crc != header.crc {
        return Err(corrupt(format!("record batch has CRC {:#x}, computed {crc:#x}", header.crc)));
    }
    if header.base_offset != 0 {
        return Err(invalid(format!(
            "the base offset of an appended batch is 0, found {}",
            header.base_offset
        )));
    }
    if header.is_control() {
        return Err(invalid("clients may not append control records"));
    }
    if header.record_count <= 0 || header.last_offset_delta != header.record_count - 1 {
        return Err(invalid(format!(
            "record count {} does not agree with last offset delta {}",
            header.record_count, header.last_offset_delta
        )));
    }
    if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(invalid(format!(
            "batch of producer {} has epoch {} and sequence {}",
            header.producer_id, header.producer_epoch, header.base_sequence
        )));
    }
    if depth == Depth::Records {
        let payload = &bytes[HEADER_LEN..];
        match codec_of(&header)? {
            Codec::None => walk(payload, &header, rules)?,
            codec => {
                compression::decompress(codec, payload, scratch)
                    .map_err(|error| corrupt(format!("{codec:?} payload: {error}")))?;
                walk(scratch, &header, rules)?;
            }
        }
    }
    Ok(header)
}

/// How a batch is compressed.
pub(crate) fn codec(batch: &[u8]) -> Result<Codec, Refusal> {
    codec_of(&read_header(batch)?)
}

fn codec_of(header: &BatchHeader) -> Result<Codec, Refusal> {
    let id = header.attributes & ATTRIBUTE_CODEC;
    Codec::from_id(id).ok_or_else(|| {
        Refusal::new(code::UNSUPPORTED_COMPRESSION_TYPE, format!("unknown compression codec {id}"))
    })
}

/// Walks the records, which fill `payload` exactly.
fn walk(payload: &[u8], header: &BatchHeader, rules: Rules) -> Result<(), Refusal> {
    let count = header.record_count;
    let mut cursor = Cursor { bytes: payload, at: 0 };
    let mut records = Vec::new();
    let mut blame = code::INVALID_RECORD;
    for expected in 0..count {
        let record = cursor.record(expected)?;
        if record.key.is_none() && rules.compacted {
            records.push((expected, "a compacted topic takes no record without a key".to_owned()));
        }
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        if timestamp > rules.latest_timestamp {
            // Whatever else is wrong with others, the batch is refused for this
            // (`LogValidator.processRecordErrors`).
            blame = code::INVALID_TIMESTAMP;
            records.push((expected, format!("the timestamp {timestamp} is out of range")));
        }
    }
    if !records.is_empty() {
        let message = format!("{} of {count} records are rejected", records.len());
        return Err(Refusal { records, ..Refusal::new(blame, message) });
    }
    if cursor.at != payload.len() {
        return Err(invalid(format!(
            "{} bytes follow the last of {count} records",
            payload.len() - cursor.at
        )));
    }
    Ok(())
}

/// What is wrong with a record. Small, because every field's reading returns one: a [`Refusal`]
/// with its text made checking a batch half as fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Malformed {
    Truncated,
    LongNumber,
    LargeNumber,
    NegativeLength(i32),
    OffsetDelta { found: i32, expected: i32 },
    HeaderCount(i32),
    HeaderWithoutKey,
    Length,
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Truncated => invalid("a record ends before its last field"),
            Malformed::LongNumber => invalid("a variable-length number is longer than ten bytes"),
            Malformed::LargeNumber => invalid("a variable-length number exceeds 32 bits"),
            Malformed::NegativeLength(len) => invalid(format!("a field has the length {len}")),
            Malformed::OffsetDelta { found, expected } => {
                invalid(format!("offset delta {found} where {expected} belongs"))
            }
            Malformed::HeaderCount(count) => invalid(format!("a record has {count} headers")),
            Malformed::HeaderWithoutKey => invalid("a header has no key"),
            Malformed::Length => invalid("a record's length does not agree with its fields"),
        }
    }
}

/// Where one record's parts lie in the payload.
struct RawRecord {
    timestamp_delta: i64,
    key: Option<(usize, usize)>,
    value: Option<(usize, usize)>,
    headers: i32,
    /// Where the headers begin.
    headers_at: usize,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn varlong(&mut self) -> Result<i64, Malformed> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let Some(&byte) = self.bytes.get(self.at) else { return Err(Malformed::Truncated) };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
            if shift > 63 {
                return Err(Malformed::LongNumber);
            }
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<i32, Malformed> {
        // One and two bytes are by far the most frequent lengths in a record.
        if let Some(&[low, high]) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<2>) {
            if low < 0x80 {
                self.at += 1;
                return Ok(i32::from(low >> 1) ^ -i32::from(low & 1));
            }
            if high < 0x80 {
                self.at += 2;
                let value = u32::from(low & 0x7f) | u32::from(high) << 7;
                return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
            }
        }
        i32::try_from(self.varlong()?).map_err(|_| Malformed::LargeNumber)
    }

    #[inline]
    fn nullable(&mut self, end: usize) -> Result<Option<(usize, usize)>, Malformed> {
        let len = self.varint()?;
        if len == -1 {
            return Ok(None);
        }
        let from = self.at;
        let to = usize::try_from(len)
            .ok()
            .and_then(|len| from.checked_add(len))
            .ok_or(Malformed::NegativeLength(len))?;
        if to > end {
            return Err(Malformed::Truncated);
        }
        self.at = to;
        Ok(Some((from, to)))
    }

    #[inline]
    fn record(&mut self, expected: i32) -> Result<RawRecord, Malformed> {
        let len = self.varint()?;
        let end = usize::try_from(len)
            .ok()
            .and_then(|len| self.at.checked_add(len))
            .filter(|end| *end <= self.bytes.len())
            .ok_or(Malformed::Truncated)?;
        self.at += 1; // attributes: no bit has a meaning yet
        let timestamp_delta = match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                i64::from(byte >> 1) ^ -i64::from(byte & 1)
            }
            _ => self.varlong()?,
        };
        let found = self.varint()?;
        if found != expected {
            return Err(Malformed::OffsetDelta { found, expected });
        }
        let key = self.nullable(end)?;
        let value = self.nullable(end)?;
        let headers = self.varint()?;
        if headers < 0 {
            return Err(Malformed::HeaderCount(headers));
        }
        let headers_at = self.at;
        for _ in 0..headers {
            self.header(end)?;
        }
        if self.at != end {
            return Err(Malformed::Length);
        }
        Ok(RawRecord { timestamp_delta, key, value, headers, headers_at })
    }

    #[inline]
    fn header(&mut self, end: usize) -> Result<RawHeader, Malformed> {
        let key = self.nullable(end)?.ok_or(Malformed::HeaderWithoutKey)?;
        Ok((key, self.nullable(end)?))
    }
}

/// Where a header's key and value lie.
type RawHeader = ((usize, usize), Option<(usize, usize)>);

/// One record as it lies in the log, decoded by the broker's own reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Offset in its partition.
    pub offset: i64,
    /// Milliseconds since 1970, as the producer set it.
    pub timestamp: i64,
    /// Key, if any.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in their order; names may repeat.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Producer id of its batch; -1 without idempotence.
    pub producer_id: i64,
    /// Producer epoch of its batch; -1 without idempotence.
    pub producer_epoch: i16,
    /// Sequence number; -1 without idempotence.
    pub sequence: i32,
    /// Leader epoch under which the batch was appended.
    pub leader_epoch: i32,
}

/// Decodes a batch that [`check`] accepted; `base_offset` and `leader_epoch` are the log's.
pub(crate) fn decode(
    batch: &Bytes,
    base_offset: i64,
    leader_epoch: i32,
) -> Result<Vec<Record>, Refusal> {
    let header = read_header(batch)?;
    let payload = match codec_of(&header)? {
        Codec::None => batch.slice(HEADER_LEN..),
        codec => {
            let mut unpacked = Vec::new();
            compression::decompress(codec, &batch[HEADER_LEN..], &mut unpacked)
                .map_err(|error| corrupt(format!("{codec:?} payload: {error}")))?;
            Bytes::from(unpacked)
        }
    };
    let mut cursor = Cursor { bytes: &payload, at: 0 };
    let mut records = Vec::new();
    for delta in 0..header.record_count {
        let raw = cursor.record(delta)?;
        let slice = |(from, to): (usize, usize)| payload.slice(from..to);
        let mut headers = Vec::new();
        let mut inner = Cursor { bytes: &payload, at: raw.headers_at };
        for _ in 0..raw.headers {
            let (key, value) = inner.header(payload.len())?;
            headers.push((slice(key), value.map(slice)));
        }
        records.push(Record {
            offset: base_offset + i64::from(delta),
            timestamp: header.base_timestamp.wrapping_add(raw.timestamp_delta),
            key: raw.key.map(slice),
            value: raw.value.map(slice),
            headers,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            sequence: if header.base_sequence < 0 {
                -1
            } else {
                increment_sequence(header.base_sequence, delta)
            },
            leader_epoch,
        });
    }
    Ok(records)
}

/// Sequence numbers run from 0 to `i32::MAX` and then start again at 0.
pub(crate) fn increment_sequence(base: i32, by: i32) -> i32 {
    ((i64::from(base) + i64::from(by)) & i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests;
