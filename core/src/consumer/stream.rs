//! A consumer's records one by one, as a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::Consumer;
use super::batch::Batch;
use super::claim::Standing;
use crate::error::Result;
use crate::record::{OwnedRecord, RecordPosition, RecordRef};

/// One record of a [`Batch`], which it keeps.
#[derive(Clone, Debug)]
pub struct BatchRecord {
    batch: Batch,
    at: RecordPosition,
}

impl BatchRecord {
    /// The topic's name.
    pub fn topic(&self) -> &str {
        self.batch.topic()
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.batch.partition()
    }

    /// The batch that it is one of.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The record.
    pub fn record(&self) -> RecordRef<'_> {
        self.batch.iter_from(self.at).next().expect("it was found in this batch")
    }

    /// The record alone, without its batch: for who keeps it.
    pub fn detach(&self) -> OwnedRecord {
        self.record().detach()
    }

    /// It is finished, whatever comes before it: for [`Commit::Acked`](crate::Commit::Acked), as [`Batch::ack_range`].
    pub fn ack(&self) {
        let mut records = self.batch.iter_from(self.at);
        let Some(record) = records.next() else { return };
        // Up to the next one: of a log that was compacted the offsets between them hold nothing, and nobody else finishes them.
        let next = records.next().map_or(i64::MAX, |record| record.offset());
        self.batch.ack_range(record.offset(), next);
    }
}

/// The records of a [`Consumer`]: see [`Consumer::records`].
pub struct RecordStream<'a> {
    consumer: &'a mut Consumer,
    current: Option<Current>,
}

/// A batch of which records are handed out, and where the next one is.
struct Current {
    batch: Batch,
    next: RecordPosition,
    /// How many were handed out.
    count: usize,
}

impl Consumer {
    /// The records one by one: a `Stream` of the same as [`next`](Self::next), with the same errors. It costs some 30 ns a
    /// record more than a loop over batches.
    ///
    /// In a group a record counts as done once the one after it is asked for. Dropping the stream, or the future of one of its
    /// records, loses nothing: what was not handed out comes first with the next stream, or [`next`](Self::next). So does
    /// the rest of a batch whose partition is paused, once it is resumed. After a seek the rest is not wanted.
    pub fn records(&mut self) -> RecordStream<'_> {
        RecordStream { consumer: self, current: None }
    }

    /// What is left of a batch was not handed out, and is kept: to ask for something else does not say that it is done.
    fn keep_rest(&mut self, current: Current) {
        let Current { mut batch, count, .. } = current;
        batch.skip += count;
        if batch.is_empty() {
            return;
        }
        let first = batch.base_offset();
        match &mut self.member {
            Some(member) if member.marks => member.in_hand = None,
            // Those before are acknowledged one by one: who finishes the rest says nothing of them.
            _ => {
                if let Some(span) = &mut batch.span {
                    span.first = span.first.max(first);
                }
            }
        }
        // Those that were handed out may be worked on.
        self.keep(batch, first);
    }
}

impl RecordStream<'_> {
    /// The next record; `None` after a close.
    ///
    /// # Errors
    /// Those of [`Consumer::next`].
    pub async fn next(&mut self) -> Option<Result<BatchRecord>> {
        std::future::poll_fn(|cx| self.poll_record(cx)).await
    }

    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<BatchRecord>>> {
        loop {
            if let Some(mut current) = self.current.take() {
                match current.batch.standing() {
                    Standing::Current => {}
                    Standing::Paused => {
                        self.consumer.keep_rest(current);
                        continue;
                    }
                    Standing::Left => continue,
                }
                let at = current.next;
                let mut rest = current.batch.iter_from(at);
                if let Some(record) = rest.next() {
                    let offset = record.offset();
                    current.next = rest.position();
                    current.count += 1;
                    if self.consumer.marks_by_asking() {
                        current.batch.reached(offset);
                    } else {
                        current.batch.hands_on(offset);
                    }
                    let batch = current.batch.clone();
                    self.current = Some(current);
                    return Poll::Ready(Some(Ok(BatchRecord { batch, at })));
                }
            }
            match ready!(self.consumer.poll_next(cx)) {
                Some(Ok(batch)) => {
                    let next = batch.iter().position();
                    self.current = Some(Current { batch, next, count: 0 });
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl futures_core::Stream for RecordStream<'_> {
    type Item = Result<BatchRecord>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_record(cx)
    }
}

impl Drop for RecordStream<'_> {
    fn drop(&mut self) {
        if let Some(current) = self.current.take() {
            self.consumer.keep_rest(current);
        }
        self.consumer.waits_no_more();
    }
}
