//! What a batch is, from its first record to its result: open while producers fill it, sealed while the
//! sender has it.
//!
//! - [`ledger`] resolves it exactly once: results, memory, its flush number;
//! - [`attempts`] knows how earlier attempts to send it have ended;
//! - [`split`] takes it apart when a broker refuses it as a whole.

mod attempts;
mod ledger;
mod split;

use std::sync::Arc;

use tokio::time::Instant;

use super::delivery::{BatchAck, BatchResult, Owner, RecordLocation, Run, Unread};
use crate::caught;
use crate::config::InDoubt;
use crate::error::Error;
use crate::record::Compression;
use crate::record::builder::{BatchBuilder, SealedBatch};
use crate::record::pool::ChunkPool;

pub(super) use attempts::{BatchAttempts, FailureCause};
pub(super) use ledger::{BatchLedger, Books};
pub(super) use split::{SplitPlan, failed, split};

/// A batch that takes records.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) builder: BatchBuilder,
    pub(super) opened: Instant,
    pub(super) opened_ms: i64,
    pub(super) compression: Compression,
    pub(super) ledger: BatchLedger,
}

/// A sealed batch on its way.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(super) sealed: SealedBatch,
    pub(super) partition: Option<i32>,
    pub(super) deadline: Instant,
    compression: Compression,
    /// The attempts that were made with it.
    pub(super) attempts: BatchAttempts,
    /// It was taken before it was full although neither its linger nor pacing held it back (linger 0, a flush,
    /// memory is wanted). Requests of such batches alone are counted as too many requests.
    pub(super) hasty: bool,
    ledger: BatchLedger,
}

impl Batch {
    /// Resolves all its records.
    pub(crate) fn resolve(mut self, outcome: BatchResult) {
        let outcome = outcome.map_err(|e| self.doubting(e));
        self.ledger.resolve(&outcome);
    }

    /// The error with `maybe_written` set if an earlier attempt may have written the batch: doubt sticks,
    /// whatever is certain of the last attempt.
    fn doubting(&self, error: Error) -> Error {
        let maybe = error.maybe_written() || self.attempts.in_doubt();
        error.with_maybe_written(maybe)
    }

    /// Resolves all its records as acknowledged by `broker`.
    pub(crate) fn acknowledged(mut self, broker: i32, ack: BatchAck) {
        self.ledger.broker = broker;
        self.ledger.resolve(&Ok(ack));
    }

    /// Whether it may go to another partition although it may be written already (`InDoubt::Reroute`).
    pub(crate) fn reroutes(&self) -> bool {
        self.partition.is_none() && self.ledger.books.config().in_doubt == InDoubt::Reroute
    }

    /// Takes the runs of submissions whose records it holds; from now on the caller has to tell them their
    /// result.
    pub(super) fn take_runs(&self) -> Vec<Run> {
        self.ledger.owner.as_ref().map(|owner| owner.state().take_runs()).unwrap_or_default()
    }

    /// Its records are in other batches now, which resolve them.
    pub(super) fn moved(mut self, places: Vec<RecordLocation>) {
        self.ledger.moved(places);
    }

    /// An empty batch for some of its records. It has the same number, so that a flush waits for both.
    fn open_piece(&self) -> OpenBatch {
        let opened_ms = self.sealed.base_timestamp();
        let books = &self.ledger.books;
        books.batch_again(self.ledger.number);
        OpenBatch {
            builder: BatchBuilder::new(books.buffers().clone()),
            opened: self.deadline - books.config().delivery_timeout,
            opened_ms,
            compression: self.compression,
            ledger: BatchLedger::new(
                Arc::clone(books),
                &self.ledger.topic,
                (opened_ms, self.ledger.timestamps_ms.1),
                self.ledger.number,
                self.ledger.quotas.clone(),
            ),
        }
    }

    pub(super) fn topic(&self) -> &Arc<str> {
        &self.ledger.topic
    }

    /// The producer that sent the record with this index; `None` if it is told in another way.
    pub(super) fn producer(&self, index: u32) -> Option<&Arc<Unread>> {
        self.ledger.producers.of(index)
    }

    /// Seals a piece of [`open_piece`](Self::open_piece), for the same partition.
    fn seal_piece(&self, piece: OpenBatch) -> Option<Self> {
        piece.seal(self.partition, self.attempts.of_piece())
    }

    pub(crate) fn records(&self) -> usize {
        self.sealed.records()
    }

    /// Which accumulator it was filled in.
    pub(super) fn accumulator_id(&self) -> u64 {
        self.ledger.books.id()
    }

    /// Bytes of records at which a batch like it is full.
    pub(super) fn batch_size(&self) -> usize {
        self.ledger.books.config().batch_size
    }

    /// The pool of buffers that batches are made of.
    fn buffers(&self) -> &ChunkPool {
        self.ledger.books.buffers()
    }
}

impl OpenBatch {
    /// Whether compressing it keeps a thread busy for so long that a worker should do it.
    pub(super) fn takes_long(&self) -> bool {
        self.compression.takes_long(self.builder.len_bytes())
    }

    #[inline]
    pub(super) fn owner(&mut self) -> &mut Owner {
        self.ledger.owner.as_mut().expect("an open batch is not resolved")
    }

    /// Closes the batch: compresses it if that makes it smaller, and computes the checksum of its records.
    /// `attempts`: those that were made with its records before. `None` if it has no records, or if compression
    /// failed, which resolves them.
    pub(super) fn seal(mut self, partition: Option<i32>, attempts: BatchAttempts) -> Option<Batch> {
        let (builder, compression) = (self.builder, self.compression);
        // A codec that panics fails this batch only: other batches need the thread it runs on.
        let sealed = caught::call(|| {
            self.ledger.books.env().mishap("compression");
            builder.seal(compression)
        });
        let sealed = match sealed {
            Ok(Some(sealed)) => sealed,
            Ok(None) => {
                // Nobody holds a handle to a batch without records.
                self.ledger.moved(Vec::new());
                return None;
            }
            Err(error) => {
                let maybe = error.maybe_written() || attempts.in_doubt();
                self.ledger.resolve(&Err(error.with_maybe_written(maybe)));
                return None;
            }
        };
        // Compressed bytes may take less memory than the open batch did.
        self.ledger.holds(sealed.capacity_reserved());
        self.ledger.records = sealed.records();
        self.ledger.is_full();
        self.ledger.timestamps_ms = sealed.timestamps_ms();
        Some(Batch {
            sealed,
            partition,
            deadline: self.opened + self.ledger.books.config().delivery_timeout,
            compression: self.compression,
            attempts,
            hasty: false,
            ledger: self.ledger,
        })
    }
}
