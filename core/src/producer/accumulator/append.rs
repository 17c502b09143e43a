//! The way of a record into its open batch, in the order of the calls:
//!
//! - the short way, for nearly every record: [`append_at_once`](Accumulator::append_at_once) asks this thread's
//!   cache for the queue (`thread_cache::with_known`), whether the record must be checked, and copies it
//!   (`BatchBuilder::append_small`), all under one lock;
//! - the long way: [`append`](Accumulator::append) finds or makes the queue (`thread_cache::with`), checks the
//!   record and the memory (`check`), and `append_in` copies it if a batch is open that takes it, or opens one
//!   first (`roll_batch`);
//! - a keyed record whose topic's partitions are not known yet goes to `append_unpartitioned`;
//! - records of a binding's submission come many at a time, see `submission.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::batch_queue::{BatchQueue, BatchQueueInner, UNPARTITIONED};
use super::event::Event;
use super::shard::Shard;
use super::topic::TopicBatches;
use super::validate::{RECORD_OVERHEAD, Space, size_of};
use super::{Accumulator, thread_cache};
use crate::config::Partitioner;
use crate::error::Error;
use crate::policy::key_hash;
use crate::producer::batch::OpenBatch;
use crate::producer::delivery::{BatchDelivery, Delivery, Unread};
use crate::producer::memory::SpacePermit;
use crate::producer::record::Record;

impl Accumulator {
    /// The short way, which nearly every send takes: the record goes into a batch that is open and has room.
    /// `None` if anything is different; then nothing has happened, and the caller takes the long way,
    /// [`append`](Self::append).
    #[inline]
    pub(crate) fn append_at_once(
        &self,
        shard: Shard,
        record: &Record<'_>,
        producer: &Arc<Unread>,
    ) -> Option<Delivery> {
        if !record.headers.is_empty() {
            return None;
        }
        let partition = |topic: &TopicBatches| match (record.partition, record.key) {
            (None, Some(key)) if !self.spreads(record) => {
                // None is remembered before it is known how many there are.
                let partitions = topic.partitions.load(Ordering::Acquire);
                Some(if partitions > 0 {
                    key_hash::partition(key, partitions)
                } else {
                    UNPARTITIONED
                })
            }
            (named, _) => named,
        };
        let size = size_of(record);
        thread_cache::with_known(self, shard, record.topic, partition, |topic, batch_queue| {
            if self.must_be_checked(topic, record, size) {
                return None;
            }
            let mut inner = batch_queue.lock();
            if inner.short_way_for != producer.address() || !inner.takes(size, topic.batch_size()) {
                return None;
            }
            let open = inner.open.as_mut()?;
            let index = open.builder.len_records() as u32;
            let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
            if !open.builder.append_small(record.key, record.value, timestamp_ms) {
                return None;
            }
            open.ledger.records += 1;
            let owner = open.owner();
            Some(Delivery::new(owner.state_ref(), owner.record(index, record.timestamp_ms)))
        })
    }

    /// Copies a record into its open batch. An error of kind `BufferFull` means that it would fit later; any other
    /// error is about this record alone.
    #[inline]
    pub(crate) fn append(
        self: &Arc<Self>,
        shard: Shard,
        record: &Record<'_>,
        producer: &Arc<Unread>,
    ) -> Result<Delivery, Error> {
        self.append_for(shard, record, Space::Spare, producer)
    }

    /// The same, for a caller that has waited in line and is first now.
    pub(crate) fn append_with_permit(
        self: &Arc<Self>,
        shard: Shard,
        record: &Record<'_>,
        producer: &Arc<Unread>,
        _permit: &SpacePermit<'_>,
    ) -> Result<Delivery, Error> {
        self.append_for(shard, record, Space::Any, producer)
    }

    #[inline]
    fn append_for(
        self: &Arc<Self>,
        shard: Shard,
        record: &Record<'_>,
        space: Space,
        producer: &Arc<Unread>,
    ) -> Result<Delivery, Error> {
        self.append_with(shard, record, space, Some(producer), |open, index| {
            let owner = open.owner();
            Delivery::new(owner.state_ref(), owner.record(index, record.timestamp_ms))
        })
    }

    #[inline]
    pub(super) fn append_with<T>(
        self: &Arc<Self>,
        shard: Shard,
        record: &Record<'_>,
        space: Space,
        producer: Option<&Arc<Unread>>,
        take: impl FnOnce(&mut OpenBatch, u32) -> T,
    ) -> Result<T, Error> {
        let size = size_of(record);
        if record.partition.is_none() && self.spreads(record) {
            return thread_cache::with(self, shard, record.topic, |topic, batch_queue| {
                self.check(topic, record, size, space)?;
                self.append_in(topic, batch_queue, record, size, space, producer, take)
            });
        }
        let topic = self.topic(record.topic)?;
        self.check(&topic, record, size, space)?;
        let partition = match (record.partition, record.key) {
            (None, Some(key)) => match topic.partitions.load(Ordering::Acquire) {
                0 => {
                    return self
                        .append_unpartitioned(&topic, record, key, size, space, producer, take);
                }
                partitions => key_hash::partition(key, partitions),
            },
            (named, _) => named.unwrap_or_default(),
        };
        let batch_queue = topic.batch_queue(partition);
        let taken = self.append_in(&topic, &batch_queue, record, size, space, producer, take);
        thread_cache::remember_pinned(self, &topic, &batch_queue);
        taken
    }

    /// Whether the record may go to any partition: it has no key, or keys do not choose.
    #[inline]
    pub(super) fn spreads(&self, record: &Record<'_>) -> bool {
        record.key.is_none() || self.config.partitioner == Partitioner::Spread
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "what is to be done, and where")]
    pub(super) fn append_in<T>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        record: &Record<'_>,
        size: usize,
        space: Space,
        producer: Option<&Arc<Unread>>,
        take: impl FnOnce(&mut OpenBatch, u32) -> T,
    ) -> Result<T, Error> {
        loop {
            let mut inner = batch_queue.lock();
            if inner.takes(size, topic.batch_size()) {
                let taken =
                    self.append_open(topic, batch_queue, &mut inner, record, producer, take);
                drop(inner);
                if taken.is_err() {
                    self.after_refusal(batch_queue, space);
                }
                return taken;
            }
            drop(inner);
            self.roll_batch(topic, batch_queue, size, space)?;
        }
    }

    /// Copies a record into the batch that is open in `inner`; there must be one.
    #[inline]
    pub(super) fn append_open<T>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        inner: &mut BatchQueueInner,
        record: &Record<'_>,
        producer: Option<&Arc<Unread>>,
        take: impl FnOnce(&mut OpenBatch, u32) -> T,
    ) -> Result<T, Error> {
        if !inner.announced {
            self.announce(topic, batch_queue, inner)?;
        }
        let open = inner.open.as_mut().expect("a batch that takes the record is open");
        let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
        let index = open.builder.len_records() as u32;
        open.builder
            .append(record.key, record.value, record.headers, timestamp_ms)
            .map_err(|_| Error::argument("the record is larger than the format can express"))?;
        let holds = open.builder.capacity_reserved();
        if holds > open.ledger.charged {
            open.ledger.holds(holds);
        }
        open.ledger.records += 1;
        let taken = take(open, index);
        inner.sent_by(producer, index);
        if inner.cannot_wait(self) {
            let _ = self.events.send(Event::Pressure);
        }
        Ok(taken)
    }

    /// Copies values into open batches, many under one lock. Gives how many were accepted, and why it stopped.
    pub(crate) fn append_values(
        self: &Arc<Self>,
        shard: Shard,
        name: &str,
        values: &[&[u8]],
        producer: &Arc<Unread>,
        permit: Option<&SpacePermit<'_>>,
        all: &mut BatchDelivery,
    ) -> (usize, Result<(), Error>) {
        let space = if permit.is_some() { Space::Any } else { Space::Spare };
        let mut taken = 0;
        let result = thread_cache::with(self, shard, name, |topic, batch_queue| {
            while taken < values.len() {
                let size = RECORD_OVERHEAD + values[taken].len();
                self.check(topic, &Record::to(name), size, space)?;
                let mut inner = batch_queue.lock();
                // Not checked again: a batch that was opened must get its first record, or a flush would wait for an
                // empty batch that nobody sends.
                while !inner.takes(size, topic.batch_size()) {
                    drop(inner);
                    self.roll_batch(topic, batch_queue, size, space)?;
                    inner = batch_queue.lock();
                }
                let before = taken;
                let first = inner.open.as_ref().map_or(0, |open| open.builder.len_records());
                let result = self.append_some(
                    topic,
                    batch_queue,
                    &mut inner,
                    values,
                    producer,
                    space,
                    &mut taken,
                );
                if let (true, Some(open)) = (taken > before, &mut inner.open) {
                    all.add(taken - before, first as u32, open.owner());
                }
                drop(inner);
                if result.is_err() {
                    self.after_refusal(batch_queue, space);
                }
                result?;
            }
            Ok(())
        });
        (taken, result)
    }

    /// Copies values as long as the open batch takes them. The first one is known to fit.
    #[expect(clippy::too_many_arguments, reason = "what is to be done, and where")]
    fn append_some(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        inner: &mut BatchQueueInner,
        values: &[&[u8]],
        producer: &Arc<Unread>,
        space: Space,
        taken: &mut usize,
    ) -> Result<(), Error> {
        let first = *taken;
        while let Some(value) = values.get(*taken) {
            let record = Record::to(&topic.name).value(*value);
            let size = RECORD_OVERHEAD + value.len();
            if *taken > first {
                if !inner.takes(size, topic.batch_size()) {
                    break;
                }
                self.check(topic, &record, size, space)?;
            }
            self.append_open(topic, batch_queue, inner, &record, Some(producer), |_, _| ())?;
            *taken += 1;
        }
        Ok(())
    }
}
