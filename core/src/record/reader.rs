//! Reading the records of a Fetch response without copying them.
//!
//! [`split`] cuts the field into batches by their headers; [`RawBatch::open`] decompresses one if
//! need be and walks all its records once, so that a [`RecordBatch`] can be iterated any number of
//! times without an error to handle. The walk is not free: 8 ns for a 100-byte record where reading
//! it costs 9 and the checksum 2. An iterator that can fail in the middle would save it and move
//! the error into every user's loop; the walk is the price of not doing so, and of never handing
//! out half of a damaged batch.

use std::sync::Arc;
use std::{fmt, str};

use bytes::Bytes;

use super::compression::{self, DecompressError, codec_name};
use super::crc::crc32c;
use super::pool::ChunkPool;
use super::{CRC_START, HEADER_LEN, varint};

/// Bytes before the part that the batch length counts.
const LENGTH_END: usize = 12;
/// The least a record takes: length, attributes, two deltas, null key, null value, no headers.
const MIN_RECORD: usize = 7;
/// The least a header takes: an empty name and a null value.
const MIN_HEADER: usize = 2;

/// What is wrong with a fetched batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    /// A batch of format 0 or 1, or one not known. Kafka 4 no longer stores the old ones.
    Magic { base_offset: i64, magic: i8 },
    /// A header field contradicts itself or the bytes there are.
    Header { base_offset: i64, what: &'static str },
    /// The checksum does not match: damaged on the way or on disk.
    Checksum { base_offset: i64, expected: u32, actual: u32 },
    /// A codec this build cannot read.
    UnsupportedCompression { base_offset: i64, codec: &'static str },
    /// Decompressed, the batch is larger than allowed.
    OverLimit { base_offset: i64, limit: usize },
    /// The compressed bytes are not what the codec writes.
    Decompress { base_offset: i64 },
    /// A record is cut short, has an impossible length, or does not fill its own length.
    Record { base_offset: i64, index: i32 },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { base_offset, magic } => write!(
                f,
                "the batch at offset {base_offset} has record format {magic}; only format 2 (Kafka 0.11 and later) can be read"
            ),
            Self::Header { base_offset, what } => {
                write!(f, "the batch at offset {base_offset} has a damaged header: {what}")
            }
            Self::Checksum { base_offset, expected, actual } => write!(
                f,
                "the batch at offset {base_offset} is damaged: its checksum is {actual:#010x}, its header says {expected:#010x}"
            ),
            Self::UnsupportedCompression { base_offset, codec } => {
                write!(f, "the batch at offset {base_offset} uses unsupported compression {codec}")
            }
            Self::OverLimit { base_offset, limit } => write!(
                f,
                "the batch at offset {base_offset} decompresses to more than the limit of {limit} bytes"
            ),
            Self::Decompress { base_offset } => {
                write!(f, "the batch at offset {base_offset} cannot be decompressed: damaged data")
            }
            Self::Record { base_offset, index } => {
                write!(f, "record {index} of the batch at offset {base_offset} is damaged")
            }
        }
    }
}

impl std::error::Error for RecordError {}

/// Who set the timestamps of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimestampType {
    Create,
    LogAppend,
}

/// The batches of a Fetch response's records field, in order.
///
/// Ends without an error at a batch that is cut short: brokers fill the response to its byte
/// limit and cut where that falls. Ends after the first error, as nothing behind it can be found.
pub(crate) fn split(records: Bytes) -> Batches {
    Batches { rest: records }
}

/// Iterator of [`split`].
#[derive(Debug)]
pub(crate) struct Batches {
    rest: Bytes,
}

impl Iterator for Batches {
    type Item = Result<RawBatch, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.take();
        if !matches!(item, Some(Ok(_))) {
            self.rest = Bytes::new();
        }
        item
    }
}

impl Batches {
    fn take(&mut self) -> Option<Result<RawBatch, RecordError>> {
        let head: &[u8; LENGTH_END] = self.rest.first_chunk()?;
        let base_offset = i64::from_be_bytes(at(head, 0));
        let length = i32::from_be_bytes(at(head, 8));
        let damaged = |what| Some(Err(RecordError::Header { base_offset, what }));
        if base_offset < 0 {
            return damaged("negative base offset");
        }
        let Ok(length) = usize::try_from(length) else { return damaged("negative length") };
        // The magic sits at the same place in every format, and old formats have shorter headers.
        if length >= 5 {
            let &magic = self.rest.get(16)?;
            if magic != 2 {
                return Some(Err(RecordError::Magic { base_offset, magic: magic as i8 }));
            }
        }
        if length < HEADER_LEN - LENGTH_END {
            return damaged("length shorter than the header");
        }
        if self.rest.len() - LENGTH_END < length {
            return None;
        }
        let whole = self.rest.split_to(LENGTH_END + length);
        Some(RawBatch::parse(whole))
    }
}

fn at<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[start..start + N]);
    out
}

/// A batch as fetched: header read, records untouched.
#[derive(Clone, Debug)]
pub(crate) struct RawBatch {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) leader_epoch: i32,
    /// Codec bits, 0 to 7.
    pub(crate) codec: i16,
    pub(crate) timestamp_type: TimestampType,
    /// A marker of the transaction coordinator, never given to users.
    pub(crate) control: bool,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    /// Records the header promises. May be 0 in a compacted topic.
    pub(crate) count: i32,
    /// The records section, compressed or not.
    pub(crate) payload: Bytes,
    crc: u32,
    whole: Bytes,
}

impl RawBatch {
    fn parse(whole: Bytes) -> Result<Self, RecordError> {
        let base_offset = i64::from_be_bytes(at(&whole, 0));
        let damaged = |what| Err(RecordError::Header { base_offset, what });
        let attributes = i16::from_be_bytes(at(&whole, 21));
        let last_delta = i32::from_be_bytes(at(&whole, 23));
        let count = i32::from_be_bytes(at(&whole, 57));
        if last_delta < 0 {
            return damaged("negative last offset delta");
        }
        if count < 0 {
            return damaged("negative record count");
        }
        // There is an offset to go on from behind it, too.
        let last_offset = base_offset.checked_add(i64::from(last_delta));
        let Some(last_offset) = last_offset.filter(|last| *last < i64::MAX) else {
            return damaged("last offset beyond 2^63");
        };
        let batch = Self {
            base_offset,
            last_offset,
            leader_epoch: i32::from_be_bytes(at(&whole, 12)),
            codec: attributes & 7,
            timestamp_type: if attributes & 8 == 0 {
                TimestampType::Create
            } else {
                TimestampType::LogAppend
            },
            control: attributes & 32 != 0,
            base_timestamp: i64::from_be_bytes(at(&whole, 27)),
            max_timestamp: i64::from_be_bytes(at(&whole, 35)),
            count,
            payload: whole.slice(HEADER_LEN..),
            crc: u32::from_be_bytes(at(&whole, 17)),
            whole,
        };
        Ok(batch)
    }

    /// The same header over other records.
    #[cfg(test)]
    pub(crate) fn with_payload(&self, codec: i16, payload: Bytes) -> Self {
        Self { codec, payload, ..self.clone() }
    }

    /// Compares the batch with its checksum.
    pub(crate) fn verify_crc(&self) -> Result<(), RecordError> {
        let actual = crc32c(&self.whole[CRC_START..]);
        if actual == self.crc {
            return Ok(());
        }
        let base_offset = self.base_offset;
        Err(RecordError::Checksum { base_offset, expected: self.crc, actual })
    }

    /// Decompresses into a buffer of `pool` if need be, and checks every record's bounds.
    /// `limit_bytes` bounds what decompression may yield.
    pub(crate) fn open(
        &self,
        pool: &ChunkPool,
        limit_bytes: usize,
    ) -> Result<RecordBatch, RecordError> {
        let base_offset = self.base_offset;
        let payload = match self.codec {
            0 => self.payload.clone(),
            codec => {
                let limit = limit_bytes.min(i32::MAX as usize);
                compression::decompress(codec, pool, &self.payload, limit)
                    .map_err(|error| match error {
                        DecompressError::OverLimit => RecordError::OverLimit { base_offset, limit },
                        DecompressError::Damaged => RecordError::Decompress { base_offset },
                        DecompressError::Unsupported => RecordError::UnsupportedCompression {
                            base_offset,
                            codec: codec_name(codec),
                        },
                    })?
                    .freeze()
            }
        };
        if self.count as usize > payload.len() / MIN_RECORD {
            let what = "more records than bytes for them";
            return Err(RecordError::Header { base_offset, what });
        }
        let last_delta = self.last_offset - base_offset;
        let mut rest = &payload[..];
        for index in 0..self.count {
            let ok = take_record(&mut rest).is_some_and(|record| {
                (0..=last_delta).contains(&record.offset_delta) && record.headers_are_sound()
            });
            if !ok {
                return Err(RecordError::Record { base_offset, index });
            }
        }
        if !rest.is_empty() {
            return Err(RecordError::Header { base_offset, what: "bytes behind the last record" });
        }
        Ok(RecordBatch {
            payload,
            meta: Arc::new(Meta {
                base_offset,
                last_offset: self.last_offset,
                leader_epoch: self.leader_epoch,
                base_timestamp: self.base_timestamp,
                append_time: (self.timestamp_type == TimestampType::LogAppend)
                    .then_some(self.max_timestamp),
                count: self.count,
            }),
        })
    }
}

/// A record's fields as encoded.
struct Encoded<'a> {
    timestamp_delta: i64,
    offset_delta: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    header_count: usize,
    headers: &'a [u8],
}

impl Encoded<'_> {
    #[inline]
    fn headers_are_sound(&self) -> bool {
        if self.header_count == 0 {
            return self.headers.is_empty();
        }
        let mut rest = self.headers;
        for _ in 0..self.header_count {
            if take_header(&mut rest).is_none() {
                return false;
            }
        }
        rest.is_empty()
    }
}

#[inline]
fn take_record<'a>(rest: &mut &'a [u8]) -> Option<Encoded<'a>> {
    let len = usize::try_from(varint::take(rest)?).ok()?;
    let (mut body, after) = rest.split_at_checked(len)?;
    *rest = after;
    let (_attributes, fields) = body.split_first()?;
    body = fields;
    let timestamp_delta = varint::take(&mut body)?;
    let offset_delta = varint::take(&mut body)?;
    let key = take_bytes(&mut body)?;
    let value = take_bytes(&mut body)?;
    let header_count = usize::try_from(varint::take(&mut body)?).ok()?;
    if header_count > body.len() / MIN_HEADER {
        return None;
    }
    Some(Encoded { timestamp_delta, offset_delta, key, value, header_count, headers: body })
}

/// A length-prefixed field; the inner `None` is null.
#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = varint::take(rest)?;
    if len == -1 {
        return Some(None);
    }
    let (bytes, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = after;
    Some(Some(bytes))
}

#[inline]
fn take_header<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    // A name is never null.
    let name = take_bytes(rest)??;
    Some((name, take_bytes(rest)?))
}

/// Records of one partition with consecutive offsets, as one producer wrote them together.
///
/// Borrows the fetched bytes: cloning is two reference counts, and the bytes live as long as a
/// clone does.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    payload: Bytes,
    meta: Arc<Meta>,
}

#[derive(Debug)]
struct Meta {
    base_offset: i64,
    last_offset: i64,
    leader_epoch: i32,
    base_timestamp: i64,
    append_time: Option<i64>,
    count: i32,
}

impl RecordBatch {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.meta.count as usize
    }

    /// Whether it holds no record, which happens in compacted topics.
    pub fn is_empty(&self) -> bool {
        self.meta.count == 0
    }

    /// Offset of the first record the batch was written with. Compaction may have removed it.
    pub fn base_offset(&self) -> i64 {
        self.meta.base_offset
    }

    /// Offset of the last record the batch was written with. Compaction may have removed it.
    pub fn last_offset(&self) -> i64 {
        self.meta.last_offset
    }

    /// Epoch of the leader that wrote the batch, or -1.
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.meta.leader_epoch
    }

    /// Bytes of memory the records take, decompressed.
    #[cfg(any(test, feature = "fuzz-internals"))]
    pub(crate) fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// The records in offset order.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { rest: &self.payload, meta: &self.meta, left: self.len() }
    }

    /// The records from one that an iterator over this batch was at: see
    /// `RecordIter::position`. A position of another batch gives nothing or nonsense, and never
    /// more than this batch's bytes.
    #[inline]
    pub fn iter_from(&self, position: RecordPosition) -> RecordIter<'_> {
        let start = self.payload.len().saturating_sub(position.rest as usize);
        RecordIter { rest: &self.payload[start..], meta: &self.meta, left: position.left as usize }
    }
}

impl<'a> IntoIterator for &'a RecordBatch {
    type Item = RecordRef<'a>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator over the records of a [`RecordBatch`].
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    meta: &'a Meta,
    left: usize,
}

/// A place between two records of a batch, kept without borrowing from it: what a handle to a
/// single record is made of where lifetimes cannot be expressed, as in other languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPosition {
    /// Bytes from here to the end of the batch.
    rest: u32,
    /// Records from here to the end of the batch.
    left: u32,
}

impl RecordIter<'_> {
    /// Where the next record starts, for [`RecordBatch::iter_from`].
    #[inline]
    pub fn position(&self) -> RecordPosition {
        // Both fit: a batch's length is an i32 on the wire, and so is its limit once decompressed.
        RecordPosition { rest: self.rest.len() as u32, left: self.left as u32 }
    }
}

/// Records as an open batch holds them, read back: from the first byte to the last, or to the first
/// that is none.
pub(crate) fn walk(bytes: &[u8], base_timestamp: i64) -> impl Iterator<Item = RecordRef<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let record = take_record(&mut rest)?;
        Some(RecordRef {
            offset: record.offset_delta,
            timestamp: base_timestamp.wrapping_add(record.timestamp_delta),
            key: record.key,
            value: record.value,
            headers: Headers { rest: record.headers, left: record.header_count },
        })
    })
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        if self.left == 0 {
            return None;
        }
        // Cannot end early: opening the batch walked the same bytes.
        let record = take_record(&mut self.rest)?;
        self.left -= 1;
        let timestamp = match self.meta.append_time {
            Some(time) => time,
            None => self.meta.base_timestamp.wrapping_add(record.timestamp_delta),
        };
        Some(RecordRef {
            offset: self.meta.base_offset + record.offset_delta,
            timestamp,
            key: record.key,
            value: record.value,
            headers: Headers { rest: record.headers, left: record.header_count },
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for RecordIter<'_> {}

/// A record that borrows from its [`RecordBatch`].
#[derive(Clone, Debug)]
pub struct RecordRef<'a> {
    offset: i64,
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> RecordRef<'a> {
    /// Position in the partition, from 0.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Milliseconds since 1970 (UTC); -1 if the producer gave none. The time the producer set or,
    /// if the topic says `message.timestamp.type=LogAppendTime`, that of the broker's append.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// The key, or `None` if it is null.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value, or `None` if it is null (a tombstone in a compacted topic).
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The headers in the order written; names may repeat.
    pub fn headers(&self) -> Headers<'a> {
        self.headers.clone()
    }
}

/// The headers of a record: name, and value or `None` for null.
///
/// Names are bytes, because nothing on the way makes other clients write UTF-8; see
/// [`Headers::named`] for looking one up by a string.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Headers<'a> {
    /// The values of all headers with this name, in order.
    pub fn named(self, name: &str) -> impl Iterator<Item = Option<&'a [u8]>> {
        self.filter(move |(n, _)| *n == name.as_bytes()).map(|(_, value)| value)
    }

    /// The headers with their names as strings, or as an error where a name is not UTF-8.
    pub fn strings(
        self,
    ) -> impl Iterator<Item = (Result<&'a str, str::Utf8Error>, Option<&'a [u8]>)> {
        self.map(|(name, value)| (str::from_utf8(name), value))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        take_header(&mut self.rest)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}
