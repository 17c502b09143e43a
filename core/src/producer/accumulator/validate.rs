//! Whether a record is accepted: what can be checked without asking a broker (its size, its partition, its
//! timestamp), and whether there is memory for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Accumulator;
use super::batch_queue::{BatchQueue, BatchQueueInner};
use super::event::Event;
use super::shard::Shard;
use super::topic::TopicBatches;
use crate::config::Partitioner;
use crate::error::{Error, ErrorKind, OR_NO_PARTITION};
use crate::policy::key_hash;
use crate::producer::memory::{MemoryQuota, Quotas};
use crate::producer::record::Record;
use crate::protocol::NO_LEADER;
use crate::record::builder::HeaderList;

/// Most headers of a record. Kafka itself has no limit, and consumers make an object of each.
const MAX_HEADERS: usize = 10_000;

/// Which memory a record may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::producer) enum Space {
    /// Free memory, if nobody waits in line for it.
    Spare,
    /// Free memory, even if others wait for it: the caller is the first in line (it has a `SpacePermit`), or is
    /// a binding, which does not wait in line.
    Any,
    /// The memory that the record has already: it was accepted before, and only moves to another batch.
    Held,
}

/// Bytes of a record besides its payload, generously: what the limits are checked with.
pub(super) const RECORD_OVERHEAD: usize = 40;

/// Most bytes that a record takes in a batch.
#[inline]
pub(in crate::producer) fn size_of(record: &Record<'_>) -> usize {
    let size =
        RECORD_OVERHEAD + record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
    if record.headers.is_empty() { size } else { size + size_of_headers(record.headers) }
}

/// A function of its own, because most records have no headers: to look through two kinds of empty lists
/// costs a twelfth of a send.
#[cold]
#[inline(never)]
fn size_of_headers(headers: HeaderList<'_>) -> usize {
    headers.iter().map(|(name, value)| 10 + name.len() + value.map_or(0, <[u8]>::len)).sum()
}

impl Accumulator {
    /// Checks what can be known without asking a broker, and whether there is memory.
    #[inline]
    pub(in crate::producer) fn check(
        &self,
        topic: &TopicBatches,
        record: &Record<'_>,
        size: usize,
        space: Space,
    ) -> Result<(), Error> {
        if record.partition.is_some() || self.must_be_checked(topic, record, size) {
            return self.check_closely(topic, record, size, space);
        }
        Ok(())
    }

    /// Whether anything about the record, besides its partition, may be wrong: then
    /// [`check`](Self::check) finds out what.
    #[inline]
    pub(super) fn must_be_checked(
        &self,
        topic: &TopicBatches,
        record: &Record<'_>,
        size: usize,
    ) -> bool {
        topic.failed.load(Ordering::Acquire)
            || size > self.config.max_record_size + RECORD_OVERHEAD
            || record.timestamp_ms.is_some_and(|ms| ms < 0)
            || record.headers.len() > MAX_HEADERS
            || !self.budget.has_room(size)
    }

    #[cold]
    fn check_closely(
        &self,
        topic: &TopicBatches,
        record: &Record<'_>,
        size: usize,
        space: Space,
    ) -> Result<(), Error> {
        if let Some(error) = topic.failure() {
            return Err(error);
        }
        let payload = size - RECORD_OVERHEAD;
        if payload > self.config.max_record_size {
            return Err(Error::new(
                ErrorKind::RecordTooLarge,
                format!(
                    "a record of {payload} bytes for topic '{}'; max_record_size is {}",
                    topic.name, self.config.max_record_size
                ),
            ));
        }
        if let Some(partition) = record.partition {
            let known = topic.partitions.load(Ordering::Acquire);
            if partition < 0 || (known > 0 && partition >= known) {
                return Err(Error::new(
                    ErrorKind::UnknownPartition,
                    format!("topic '{}' has no partition {partition}, it has {known}", topic.name),
                )
                .advise(OR_NO_PARTITION));
            }
        }
        if let Some(ms) = record.timestamp_ms.filter(|ms| *ms < 0) {
            return Err(Error::argument(format!("the timestamp {ms} is negative")));
        }
        if record.headers.len() > MAX_HEADERS {
            return Err(Error::argument(format!(
                "the record has {} headers; {MAX_HEADERS} at most",
                record.headers.len()
            )));
        }
        let room = match space {
            Space::Spare => self.budget.has_room(size),
            Space::Any => self.budget.fits(size),
            Space::Held => true,
        };
        if room {
            return Ok(());
        }
        self.press();
        Err(Error::new(
            ErrorKind::BufferFull,
            format!("buffer_memory ({} bytes) is full", self.config.buffer_memory),
        ))
    }

    /// Has the sender take open batches at once, since they hold the memory that is wanted.
    fn press(&self) {
        // Only once until something is released, however often a caller tries again.
        if self.budget.press() {
            let _ = self.events.send(Event::Pressure);
        }
    }

    /// The error if there is memory, but this topic (or partition) has used up its quota.
    #[cold]
    pub(super) fn quota_used_up(&self, topic: &TopicBatches) -> Error {
        self.press();
        let limit = self.config.buffer_memory;
        Error::new(
            ErrorKind::BufferFull,
            format!(
                "unacknowledged records of topic '{}' fill their quota of buffer_memory ({limit} bytes); \
                 the rest is for others",
                topic.name
            ),
        )
    }

    /// The holders that a record's bytes would be charged to.
    pub(in crate::producer) fn quotas(
        &self,
        shard: Shard,
        record: &Record<'_>,
    ) -> Result<Quotas, Error> {
        let topic = self.topic(record.topic)?;
        let partitions = topic.partitions.load(Ordering::Acquire);
        let batch_queue = match (record.partition, record.key) {
            (Some(partition), _) => topic.batch_queue(partition),
            (None, Some(key)) if self.config.partitioner == Partitioner::KeyHash => {
                match partitions {
                    0 => Arc::clone(&topic.unpartitioned),
                    n => topic.batch_queue(key_hash::partition(key, n)),
                }
            }
            (None, _) => Arc::clone(topic.shard(shard)),
        };
        let inner = batch_queue.lock();
        Ok(self.quotas_of(&batch_queue, &inner))
    }

    /// The holders of a queue's next batch. All partitions whose leader is not known yet share one entry.
    pub(super) fn quotas_of(&self, batch_queue: &BatchQueue, inner: &BatchQueueInner) -> Quotas {
        let mut quotas = batch_queue.quotas(inner);
        if batch_queue.partition.is_some() && quotas.broker.is_none() {
            quotas.broker = Some(self.quota_of(NO_LEADER));
        }
        quotas
    }

    /// What a broker holds; -1 stands for all partitions that have no leader.
    pub(in crate::producer) fn quota_of(&self, broker: i32) -> Arc<MemoryQuota> {
        let mut brokers = self.brokers.lock().unwrap_or_else(|e| e.into_inner());
        Arc::clone(brokers.entry(broker).or_default())
    }
}
