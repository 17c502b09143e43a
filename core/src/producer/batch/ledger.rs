//! What must happen exactly once when a batch resolves: its records get their result, its memory is released,
//! it is counted, and its flush number ends.

use std::fmt;
use std::sync::Arc;

use crate::config::ProducerConfig;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::metrics::Metrics;
use crate::producer::delivery::{
    BatchResult, Outcome, Owner, Producers, RecordLocation, Resolution, Sent,
};
use crate::producer::memory::{Budget, Quotas};
use crate::record::pool::ChunkPool;

/// What a batch needs from its accumulator: settings, budget, metrics, and where it is counted. A trait, so
/// that `batch` does not depend on `accumulator`.
pub(in crate::producer) trait Books: fmt::Debug + Send + Sync {
    /// A number that no other accumulator of this process has, now or later.
    fn id(&self) -> u64;
    fn config(&self) -> &ProducerConfig;
    fn env(&self) -> &Environment;
    fn metrics(&self) -> &Metrics;
    /// The pool of buffers that batches are made of.
    fn buffers(&self) -> &ChunkPool;
    fn budget(&self) -> &Budget;
    /// One more batch has this flush number.
    fn batch_again(&self, number: u64);
    /// One of the batches with this flush number is resolved.
    fn batch_resolved(&self, number: u64);
    /// This many more records are in batches that take no more records and are not resolved.
    fn records_closed(&self, records: usize);
    /// This many of them are resolved.
    fn records_resolved(&self, records: usize);
    /// A batch holds records that wait for their partition, or does so no more.
    fn waits_for_partition(&self, waits: bool);
}

/// The part of a batch that must be done with exactly once: the results of its records, its memory, and its
/// number among the unresolved. If it is dropped without a result (a panic, the end of the engine), it resolves
/// itself with an error.
#[derive(Debug)]
pub(in crate::producer) struct BatchLedger {
    pub(super) books: Arc<dyn Books>,
    pub(in crate::producer) topic: Arc<str>,
    /// Timestamps of its first record and of the latest one, in milliseconds since 1970.
    pub(in crate::producer) timestamps_ms: (i64, i64),
    /// The broker that acknowledged it; -1 as long as none has.
    pub(in crate::producer) broker: i32,
    /// Gives out handles and resolves them. `None` once resolved.
    pub(in crate::producer) owner: Option<Owner>,
    /// Its number: what a flush waits for. Pieces of one batch share it.
    pub(in crate::producer) number: u64,
    /// Bytes that are charged to the budget for it now.
    pub(in crate::producer) charged: usize,
    /// The holders that those bytes are charged to.
    pub(in crate::producer) quotas: Quotas,
    pub(in crate::producer) records: usize,
    /// Its records wait for the topic's number of partitions, which is counted in
    /// [`Books::waits_for_partition`].
    pub(in crate::producer) unpartitioned: bool,
    /// The producers that sent the records.
    pub(in crate::producer) producers: Producers,
    /// How many of its records are counted in [`Books::records_closed`].
    on_way: usize,
}

impl BatchLedger {
    pub(in crate::producer) fn new(
        books: Arc<dyn Books>,
        topic: &Arc<str>,
        timestamps_ms: (i64, i64),
        number: u64,
        quotas: Quotas,
    ) -> Self {
        Self {
            books,
            topic: Arc::clone(topic),
            timestamps_ms,
            broker: -1,
            owner: Some(Owner::new(timestamps_ms.0)),
            number,
            charged: 0,
            quotas,
            records: 0,
            unpartitioned: false,
            producers: Producers::default(),
            on_way: 0,
        }
    }

    /// The batch takes no more records: those that it has are counted as on their way.
    pub(in crate::producer) fn is_full(&mut self) {
        let more = self.records - self.on_way;
        self.on_way += more;
        self.books.records_closed(more);
    }

    /// Ends the batch with this outcome: counts it, releases its memory (which may wake callers that wait for
    /// memory), resolves its handles, and ends its flush number. Does nothing if that has happened.
    pub(in crate::producer) fn resolve(&mut self, outcome: &BatchResult) {
        let Some(owner) = self.owner.take() else { return };
        self.books.metrics().resolved(&Resolution {
            topic: &self.topic,
            records: self.records,
            timestamps_ms: self.timestamps_ms,
            outcome: match outcome {
                Ok(ack) => Outcome::Acknowledged {
                    broker: self.broker,
                    partition: ack.partition,
                    base_offset: ack.base_offset,
                },
                Err(e) => Outcome::failed(e),
            },
        });
        self.holds(0);
        let (topic, producers) = (&self.topic, &self.producers);
        owner.resolve(outcome, &Sent { topic, producers, records: self.records as u32 });
        self.ended();
    }

    /// Its records were moved into other batches, which resolve them; `places` says where each is now.
    pub(in crate::producer) fn moved(&mut self, places: Vec<RecordLocation>) {
        let Some(owner) = self.owner.take() else { return };
        self.holds(0);
        owner.moved(places);
        self.ended();
    }

    fn ended(&mut self) {
        if std::mem::take(&mut self.unpartitioned) {
            self.books.waits_for_partition(false);
        }
        self.books.records_resolved(std::mem::take(&mut self.on_way));
        self.books.batch_resolved(self.number);
    }

    /// Its records have no partition yet.
    pub(in crate::producer) fn waits_for_partition(&mut self) {
        if !std::mem::replace(&mut self.unpartitioned, true) {
            self.books.waits_for_partition(true);
        }
    }

    /// The batch holds this many bytes now: the budget is charged, or relieved, of the difference.
    #[inline]
    pub(in crate::producer) fn holds(&mut self, bytes: usize) {
        if bytes > self.charged {
            self.books.budget().charge(&self.quotas, bytes - self.charged);
        } else {
            self.books.budget().release(&self.quotas, self.charged - bytes);
        }
        self.charged = bytes;
    }

    /// The batch has given this many bytes back.
    pub(in crate::producer) fn release(&mut self, bytes: usize) {
        self.holds(self.charged.saturating_sub(bytes));
    }
}

impl Drop for BatchLedger {
    fn drop(&mut self) {
        if self.owner.is_some() {
            let (kind, words) = if std::thread::panicking() {
                (ErrorKind::Internal, "the engine panicked before the record was acknowledged")
            } else {
                (ErrorKind::Closed, "the engine ended before the record was acknowledged")
            };
            self.resolve(&Err(Error::new(kind, words).with_maybe_written(true)));
        }
    }
}
