//! A batch of records, as the application gets it.

use std::sync::Arc;

use super::claim::{Claim, Standing};
use super::marks::Span;
use crate::record::{RecordBatch, RecordIter, RecordPosition, RecordRef};

/// Records of one partition with rising offsets. Borrows the fetched bytes: cloning it is a few
/// reference counts, and it may outlive its consumer.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) records: RecordBatch,
    /// How many records at its beginning are before the offset that was asked for: brokers send whole batches.
    pub(crate) skip: usize,
    pub(crate) high_watermark: i64,
    pub(crate) claim: Arc<Claim>,
    /// What it is of its partition, for a group that keeps what is done of it.
    pub(crate) span: Option<Span>,
}

/// Iterates over the records of a [`Batch`].
#[derive(Clone, Debug)]
pub struct Records<'a>(RecordIter<'a>);

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Records<'_> {}

impl<'a> Records<'a> {
    /// The bytes in which the records from the next one on lie, one behind the other.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.0.bytes()
    }

    /// Where the next record starts, for [`Batch::iter_from`].
    #[inline]
    pub fn position(&self) -> RecordPosition {
        self.0.position()
    }
}

impl Batch {
    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// How many records it holds; at least one.
    pub fn len(&self) -> usize {
        self.records.len() - self.skip
    }

    /// Never true for a batch from a consumer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> i64 {
        self.iter().next().map_or(self.records.base_offset(), |r| r.offset())
    }

    /// The offset to go on from after this batch.
    pub fn next_offset(&self) -> i64 {
        self.records.last_offset() + 1
    }

    /// Epoch of the leader that wrote the batch.
    pub fn leader_epoch(&self) -> i32 {
        self.records.leader_epoch()
    }

    /// The partition's high watermark as its leader had told it last when the batch was handed out: one past
    /// the last readable record.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// The same batch in memory of its own, which is not the consumer's: for who keeps batches. What is not detached
    /// keeps the whole response that it came in, and that is room which the consumer has not
    /// ([`buffer_memory`](crate::ConsumerBuilder::buffer_memory)). Of few records of many, each can be
    /// [detached](RecordRef::detach) by itself.
    pub fn detach(&self) -> Self {
        Self { records: self.records.detach(), ..self.clone() }
    }

    /// The same with one record, for who has a place of it. Its bounds are those of the whole batch: what is done of it is not
    /// to be said by this.
    pub(crate) fn detach_one(&self, position: RecordPosition) -> (Self, RecordPosition) {
        let (records, position) = self.records.detach_one(position);
        (Self { records, skip: 0, ..self.clone() }, position)
    }

    /// Whether its records are still wanted: not after a seek or the end of the assignment, and for now not while the
    /// partition is paused. For who hands records on one by one, and lets somebody else
    /// [steer](crate::ConsumerControl) meanwhile. A close changes nothing of it.
    #[inline]
    pub fn standing(&self) -> Standing {
        self.claim.standing()
    }

    /// It is finished: what a group's consumer commits of its partition may lie behind it, once all before it is
    /// finished too. For [`Commit::Acked`](crate::Commit::Acked); otherwise asking for the next batch does it. Does
    /// nothing without a group, and once the partition is somebody else's.
    pub fn ack(&self) {
        self.ack_before(self.next_offset());
    }

    /// The same for its records before an offset.
    pub fn ack_before(&self, offset: i64) {
        if let (Some(marks), Some(span)) = (self.claim.marks(), &self.span) {
            // Behind its last record there may be offsets that hold nothing.
            let next = if offset >= self.next_offset() { span.next } else { self.behind(offset) };
            marks.done(span, next);
        }
    }

    /// The same for its records between two offsets (the second is behind the last of them), in any order: of single records
    /// that are finished out of order. Offsets between them that hold nothing are finished with the record before.
    pub fn ack_range(&self, first: i64, next: i64) {
        if let (Some(marks), Some(span)) = (self.claim.marks(), &self.span) {
            let first = if first <= self.base_offset() { span.first } else { first };
            let next = if next >= self.next_offset() { span.next } else { self.behind(next) };
            marks.done_range(span, first, next);
        }
    }

    /// From an offset on up to its next record, if that lies further on: what lies between them holds nothing.
    fn behind(&self, offset: i64) -> i64 {
        let all = self.records.last_offset() - self.records.base_offset() + 1;
        if usize::try_from(all) == Ok(self.records.len()) {
            return offset;
        }
        let next = self.iter().map(|record| record.offset()).find(|at| *at >= offset);
        next.unwrap_or_else(|| self.span.as_ref().map_or(offset, |span| span.next))
    }

    /// The application has the record at this offset in hand: those before it are finished. For those who hand records on
    /// one by one; what a group's consumer commits is then as exact.
    #[inline]
    pub fn reached(&self, offset: i64) {
        if let Some(span) = &self.span {
            span.reached(offset);
        }
    }

    /// The record at this offset is handed on, which says nothing of those before it: to hand on a record now and then shows
    /// the group that the application is there. [`reached`](Self::reached) does as well.
    #[inline]
    pub fn hands_on(&self, offset: i64) {
        if let Some(marks) = self.claim.marks() {
            marks.hands_on(offset);
        }
    }

    /// Nobody has its records from this offset on in hand, or somebody has again: for those who hand records on one by one, and
    /// keep the rest while the partition is paused. When the group takes the partition away that rest is not waited for.
    pub fn put_aside(&self, first: i64, aside: bool) {
        if let (Some(marks), Some(span)) = (self.claim.marks(), &self.span) {
            marks.put_aside(span, first, aside);
        }
    }

    /// The same from its first record on that is not finished; `None` if there is none.
    pub(crate) fn unfinished(mut self) -> Option<Self> {
        let span = self.span.as_mut()?;
        let first = self.claim.marks()?.owed(span)?;
        span.first = first;
        let done = self.records.iter().skip(self.skip).take_while(|r| r.offset() < first).count();
        self.skip += done;
        if self.is_empty() {
            // Behind its last record there may be offsets that hold nothing.
            self.ack();
            return None;
        }
        Some(self)
    }

    /// The records in order.
    pub fn iter(&self) -> Records<'_> {
        let mut records = self.records.iter();
        for _ in 0..self.skip {
            records.next();
        }
        Records(records)
    }

    /// The records from one that an iterator over this batch was at: finds a record again without
    /// walking to it. A position of another batch gives nothing or nonsense, and never more than
    /// this batch's bytes.
    #[inline]
    pub fn iter_from(&self, position: RecordPosition) -> Records<'_> {
        Records(self.records.iter_from(position))
    }

    /// The record at an index, from 0; walks the batch.
    pub fn get(&self, index: usize) -> Option<RecordRef<'_>> {
        self.iter().nth(index)
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = RecordRef<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}
