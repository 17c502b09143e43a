//! The records of a batch, read without copying them.
//!
//! A [`RecordBatch`] has been walked once, from its first record to its last, so that it can be
//! iterated any number of times without an error to handle. The walk is not free: 8 ns for a
//! 100-byte record where reading it costs 9 and the checksum 2. An iterator that can fail in the
//! middle would save it and move the error into every user's loop; the walk is the price of not
//! doing so, and of never handing out half of a damaged batch.

use std::str;
use std::sync::Arc;

use bytes::Bytes;

use super::varint;

/// The least a record takes: length, attributes, two deltas, null key, null value, no headers.
pub(super) const MIN_RECORD: usize = 7;
/// The least a header takes: an empty name and a null value.
const MIN_HEADER: usize = 2;

/// A record's fields as encoded.
pub(super) struct Encoded<'a> {
    timestamp_delta: i64,
    pub(super) offset_delta: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    header_count: usize,
    headers: &'a [u8],
}

impl Encoded<'_> {
    #[inline]
    pub(super) fn headers_are_sound(&self) -> bool {
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
pub(super) fn take_record<'a>(rest: &mut &'a [u8]) -> Option<Encoded<'a>> {
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

/// Records of one partition that one producer wrote together, with rising offsets: compaction may leave gaps.
///
/// Borrows the fetched bytes: cloning is two reference counts, and the bytes live as long as a
/// clone does.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    payload: Bytes,
    meta: Arc<Meta>,
}

/// What a batch's header says of its records.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) base_offset: i64,
    pub(super) last_offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) base_timestamp: i64,
    /// The time of every record, if the broker sets it.
    pub(super) append_time: Option<i64>,
    pub(super) count: i32,
}

impl RecordBatch {
    /// `payload` has been walked: it holds as many records as `meta` says, and nothing else.
    pub(super) fn new(payload: Bytes, meta: Meta) -> Self {
        Self { payload, meta: Arc::new(meta) }
    }

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

/// Reads back records as an open batch holds them, to the end or to the first bytes that are no record.
pub(crate) fn walk(bytes: &[u8], base_timestamp: i64) -> impl Iterator<Item = RecordRef<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let record = take_record(&mut rest)?;
        Some(RecordRef {
            offset: record.offset_delta,
            timestamp_ms: base_timestamp.wrapping_add(record.timestamp_delta),
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
        let timestamp_ms = match self.meta.append_time {
            Some(time) => time,
            None => self.meta.base_timestamp.wrapping_add(record.timestamp_delta),
        };
        Some(RecordRef {
            offset: self.meta.base_offset + record.offset_delta,
            timestamp_ms,
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

/// A record that borrows from its batch.
#[derive(Clone, Debug)]
pub struct RecordRef<'a> {
    offset: i64,
    timestamp_ms: i64,
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
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So a caller may allocate by the number of headers.
    #[test]
    fn there_are_no_more_headers_than_the_record_has_room_for() {
        // Attributes, deltas, no key, no value, then the count and the headers.
        for (count, headers, sound) in [(0, 0, true), (2, 4, true), (3, 4, false), (50, 4, false)] {
            let mut record = vec![(6 + headers) * 2, 0, 0, 0, 1, 1, count * 2];
            record.extend([0, 1].repeat(usize::from(headers) / 2));
            let mut rest = &record[..];
            assert_eq!(take_record(&mut rest).is_some(), sound, "{count} in {headers} bytes");
        }
    }
}
