//! The records of a batch, read without copying them.
//!
//! A [`RecordBatch`] has been walked once, from its first record to its last, so that it can be
//! iterated any number of times without an error to handle. An iterator that can fail in the
//! middle would save the walk and move the error into every user's loop; the walk is the price of not
//! doing so, and of never handing out half of a damaged batch.

use std::str;
use std::sync::Arc;

use bytes::Bytes;

use super::encoded::{Encoded, Walk, Walked, take_header, take_record};

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
    pub(super) max_timestamp: i64,
    /// The broker set the time of every record, which `max_timestamp` is.
    pub(super) log_append: bool,
    pub(super) count: i32,
    /// What its records look like, as the walk found them.
    pub(super) walked: Walked,
}

impl RecordBatch {
    /// `payload` has been walked: it holds as many records as `meta` says, and nothing else.
    pub(super) fn new(payload: Bytes, meta: Meta) -> Self {
        Self { payload, meta: Arc::new(meta) }
    }

    /// The same in memory of its own, without the response that it came in.
    pub(crate) fn detach(&self) -> Self {
        Self { payload: Bytes::copy_from_slice(&self.payload), meta: Arc::clone(&self.meta) }
    }

    /// The record at a position in memory of its own, and where it is there. What is told of the batch is that of the whole one.
    pub(crate) fn detach_one(&self, position: RecordPosition) -> (Self, RecordPosition) {
        let mut records = self.iter_from(position);
        let rest = records.bytes();
        let is_there = records.next().is_some();
        let one = &rest[..rest.len() - records.bytes().len()];
        let payload = Bytes::copy_from_slice(one);
        let position = RecordPosition { rest: one.len() as u32, left: u32::from(is_there) };
        (Self { payload, meta: Arc::clone(&self.meta) }, position)
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

    /// How many headers its records have together, and how many bytes those take as encoded.
    pub(crate) fn headers(&self) -> (usize, usize) {
        (self.meta.walked.headers, self.meta.walked.header_bytes)
    }

    /// Bytes of memory the records take, decompressed.
    #[cfg(any(test, feature = "fuzz-internals"))]
    pub(crate) fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// The records in offset order.
    pub fn iter(&self) -> RecordIter<'_> {
        let walk = Walk::new(&self.payload, self.meta.walked.layout);
        RecordIter { walk, meta: &self.meta, left: self.len() }
    }

    /// The records from one that an iterator over this batch was at: see
    /// `RecordIter::position`. A position of another batch gives nothing or nonsense, and never
    /// more than this batch's bytes.
    #[inline]
    pub fn iter_from(&self, position: RecordPosition) -> RecordIter<'_> {
        let start = self.payload.len().saturating_sub(position.rest as usize);
        let walk = Walk::new(&self.payload[start..], self.meta.walked.layout);
        RecordIter { walk, meta: &self.meta, left: position.left as usize }
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
    walk: Walk<'a>,
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

impl<'a> RecordIter<'a> {
    /// The bytes in which the records from the next one on lie, one behind the other.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.walk.rest()
    }

    /// Where the next record starts, for [`RecordBatch::iter_from`].
    #[inline]
    pub fn position(&self) -> RecordPosition {
        // Both fit: a batch's length is an i32 on the wire, and so is its limit once decompressed.
        RecordPosition { rest: self.walk.rest().len() as u32, left: self.left as u32 }
    }
}

/// Reads back records as an open batch holds them, to the end or to the first bytes that are no record.
pub(crate) fn walk(bytes: &[u8], base_timestamp: i64) -> impl Iterator<Item = RecordRef<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || Some(RecordRef::new(take_record(&mut rest)?, 0, base_timestamp)))
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = RecordRef<'a>;

    // What a loop does not look at need not be computed, and a record need not pass through memory.
    #[inline(always)]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        if self.left == 0 {
            return None;
        }
        // Cannot end early: opening the batch walked the same bytes.
        let mut record = self.walk.take()?;
        self.left -= 1;
        let mut base_timestamp = self.meta.base_timestamp;
        if self.meta.log_append {
            (base_timestamp, record.timestamp_delta) = (self.meta.max_timestamp, 0);
        }
        Some(RecordRef::new(record, self.meta.base_offset, base_timestamp))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for RecordIter<'_> {}

/// A record that borrows from its batch.
#[derive(Clone, Debug)]
pub struct RecordRef<'a> {
    pub(super) offset: i64,
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Headers<'a>,
}

impl<'a> RecordRef<'a> {
    #[inline]
    fn new(record: Encoded<'a>, base_offset: i64, base_timestamp: i64) -> Self {
        Self {
            offset: base_offset + record.offset_delta,
            timestamp_ms: base_timestamp.wrapping_add(record.timestamp_delta),
            key: record.key,
            value: record.value,
            headers: Headers { rest: record.headers, left: record.header_count },
        }
    }

    /// Position in the partition, from 0.
    #[inline]
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Milliseconds since 1970 (UTC); -1 if the producer gave none. The time the producer set or,
    /// if the topic says `message.timestamp.type=LogAppendTime`, that of the broker's append.
    #[inline]
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    /// The key, or `None` if it is null.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value, or `None` if it is null (a tombstone in a compacted topic).
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The headers in the order written; names may repeat.
    #[inline]
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
    pub(super) rest: &'a [u8],
    pub(super) left: usize,
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
