//! The way of a binding's submission into open batches: many records under one lock, and one note of whom to tell for all of
//! them. A call from another language brings thousands of records at once; what one of them costs here is what it costs to
//! copy it.

use std::sync::Arc;

use super::batch_queue::{BatchQueue, BatchQueueInner};
use super::event::Event;
use super::shard::Shard;
use super::topic::TopicBatches;
use super::validate::{Space, size_of};
use super::{Accumulator, thread_cache};
use crate::error::Error;
use crate::producer::delivery::RunTag;
use crate::producer::record::Record;

/// Most records that are copied under one lock: for as long as that takes, other threads that use the same producer look
/// again and again.
const MOST_LOCKED: u32 = 32;

/// The records of a submission that are not taken yet.
struct Left<'a, I> {
    next: Option<Record<'a>>,
    behind: I,
    /// Of the next record.
    run: RunTag<'a>,
    taken: usize,
}

impl<'a, I: Iterator<Item = Record<'a>>> Left<'a, I> {
    fn took(&mut self) {
        self.next = self.behind.next();
        self.run.index += 1;
        self.taken += 1;
    }
}

impl Accumulator {
    /// Copies records in order, up to the first that is refused, and tells their results to the sink of `run`, which is the first
    /// one's. Gives how many were taken. All of them are of one topic.
    ///
    /// A binding does not wait in the line for memory (its host waits for a completion that says that there is space), so
    /// records may use any free memory, even if others wait.
    pub(crate) fn append_submission<'a>(
        self: &Arc<Self>,
        shard: Shard,
        run: RunTag<'a>,
        mut records: impl Iterator<Item = Record<'a>>,
    ) -> (usize, Result<(), Error>) {
        let next = records.next();
        let mut left = Left { next, behind: records, run, taken: 0 };
        while let Some(record) = left.next {
            let result = if record.partition.is_none() && self.spreads(&record) {
                thread_cache::with(self, shard, record.topic, |topic, batch_queue| {
                    self.append_spread(topic, batch_queue, &mut left)
                })
            } else {
                let run = left.run;
                let taken = self.append_with(shard, &record, Space::Any, None, |open, index| {
                    let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
                    open.owner().state().add_to_run(run, index, 1, timestamp_ms);
                });
                taken.map(|()| left.took())
            };
            if let Err(error) = result {
                return (left.taken, Err(error));
            }
        }
        (left.taken, Ok(()))
    }

    /// Those from here on that may go to any partition.
    fn append_spread<'a>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        left: &mut Left<'a, impl Iterator<Item = Record<'a>>>,
    ) -> Result<(), Error> {
        while let Some(record) = left.next
            && record.partition.is_none()
            && self.spreads(&record)
        {
            let size = size_of(&record);
            self.check(topic, &record, size, Space::Any)?;
            let mut inner = batch_queue.lock();
            // Not checked again: a batch that was opened must get its first record, or a flush would wait for an empty
            // batch that nobody sends.
            while !inner.takes(size, topic.batch_size()) {
                drop(inner);
                self.roll_batch(topic, batch_queue, size, Space::Any)?;
                inner = batch_queue.lock();
            }
            let result = self.append_locked(topic, batch_queue, &mut inner, &record, left);
            drop(inner);
            if result.is_err() {
                self.after_refusal(batch_queue, Space::Any);
            }
            result?;
        }
        Ok(())
    }

    /// Copies the next record, which is known to fit, and those behind it that are as simple, into the open batch.
    #[inline]
    fn append_locked<'a>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        inner: &mut BatchQueueInner,
        record: &Record<'a>,
        left: &mut Left<'a, impl Iterator<Item = Record<'a>>>,
    ) -> Result<(), Error> {
        let (run, batch_size) = (left.run, topic.batch_size());
        let (first, timestamp_ms) =
            self.append_open(topic, batch_queue, inner, record, None, |open, index| {
                (index, record.timestamp_ms.unwrap_or(open.opened_ms))
            })?;
        left.took();
        let open = inner.open.as_mut().expect("a batch that took a record is open");
        let mut more = 0;
        while let Some(record) = &left.next
            && more + 1 < MOST_LOCKED
            && record.partition.is_none()
            && self.spreads(record)
        {
            let size = size_of(record);
            if open.builder.len_bytes() + size > batch_size
                || self.must_be_checked(topic, record, size)
            {
                break;
            }
            let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
            let copied =
                open.builder.append(record.key, record.value, record.headers, timestamp_ms);
            if copied.is_err() {
                // What is wrong with it is said when it is looked at alone.
                break;
            }
            more += 1;
            left.took();
        }
        open.ledger.records += more as usize;
        let holds = open.builder.capacity_reserved();
        if holds > open.ledger.charged {
            open.ledger.holds(holds);
        }
        open.owner().state().add_to_run(run, first, 1 + more, timestamp_ms);
        if more > 0 && inner.cannot_wait(self) {
            let _ = self.events.send(Event::Pressure);
        }
        Ok(())
    }
}
