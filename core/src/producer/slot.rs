//! Where a batch is open, and what a batch owes its records.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use super::accumulator::Accumulator;
use super::delivery::{BatchState, Outcome, Place};
use super::tries::Tries;
use crate::error::{Error, ErrorKind};
use crate::metrics::limited;
use crate::record::Compression;
use crate::record::builder::{BatchBuilder, SealedBatch};

/// A place where a batch is open, and the full ones behind it that the sender has not taken yet.
/// One lock orders both, so that batches of a partition leave in the order they were filled.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) partition: Option<i32>,
    inner: Mutex<SlotInner>,
}

/// The partition of the slot where keyed records wait until it is known how many there are. By the
/// time the sender looks for it among a topic's partitions, the slot is empty.
pub(super) const UNROUTED: i32 = -1;

#[derive(Debug, Default)]
pub(super) struct SlotInner {
    pub(super) full: VecDeque<Batch>,
    pub(super) open: Option<OpenBatch>,
    /// The sender has this slot on its list.
    pub(super) announced: bool,
}

impl SlotInner {
    /// Whether a batch is open that takes `size` bytes more.
    #[inline]
    pub(super) fn takes(&self, size: usize, batch_size: usize) -> bool {
        self.open.as_ref().is_some_and(|open| open.builder.len_bytes() + size <= batch_size)
    }
}

#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) builder: BatchBuilder,
    pub(super) opened: Instant,
    pub(super) opened_ms: i64,
    pub(super) compression: Compression,
    pub(super) rest: Unresolved,
}

/// A sealed batch on its way.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) sealed: SealedBatch,
    pub(crate) home: Arc<Accumulator>,
    pub(crate) partition: Option<i32>,
    pub(crate) deadline: Instant,
    /// What it has behind it.
    pub(crate) tries: Tries,
    rest: Unresolved,
}

/// What of a batch must be settled exactly once: its records' results, its memory, its place among
/// the unresolved. Dropped without a result (a panic, the end of the engine) it settles itself.
#[derive(Debug)]
pub(super) struct Unresolved {
    pub(super) home: Arc<Accumulator>,
    /// `None` once settled.
    pub(super) state: Option<Arc<BatchState>>,
    pub(super) number: u64,
    pub(super) charged: usize,
    pub(super) records: usize,
    /// Counted among the unrouted.
    pub(super) unrouted: bool,
}

impl Unresolved {
    fn settle(&mut self, outcome: Outcome) {
        let Some(state) = self.state.take() else { return };
        if let Err(e) = &outcome {
            self.home.metrics.records_failed(self.records);
            limited!(
                self.home.metrics.logs(), DEBUG, records = self.records, error = %e.message(),
                "records failed"
            );
        }
        self.home.budget.release(self.charged);
        state.resolve(outcome);
        self.ended();
    }

    /// The records are in other batches now, which resolve them.
    pub(super) fn moved(&mut self, places: Vec<Place>) {
        let Some(state) = self.state.take() else { return };
        self.home.budget.release(self.charged);
        state.moved(places);
        self.ended();
    }

    fn ended(&mut self) {
        if std::mem::take(&mut self.unrouted) {
            self.home.unrouted.fetch_sub(1, Ordering::AcqRel);
        }
        self.home.batch_resolved(self.number);
    }

    /// Its records have no partition yet.
    pub(super) fn waits_for_partition(&mut self) {
        self.unrouted = true;
        self.home.unrouted.fetch_add(1, Ordering::AcqRel);
    }

    /// So much of its memory is free.
    pub(super) fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.charged);
        self.charged -= bytes;
        self.home.budget.release(bytes);
    }
}

impl Drop for Unresolved {
    fn drop(&mut self) {
        if self.state.is_some() {
            self.settle(Err(Error::new(
                ErrorKind::Closed,
                "the engine ended before the record was acknowledged",
            )
            .with_maybe_written(true)));
        }
    }
}

impl Batch {
    /// Resolves all its records.
    pub(crate) fn resolve(mut self, outcome: Outcome) {
        self.rest.settle(outcome);
    }

    pub(crate) fn records(&self) -> usize {
        self.sealed.records()
    }
}

/// What the sender may take from a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    Empty,
    /// A full batch waits.
    Full,
    /// Only an open one; it may be taken early if a broker is idle, and must be once `at` passed.
    Open {
        at: Instant,
        urgent: bool,
    },
}

impl Slot {
    pub(super) fn new(partition: Option<i32>) -> Arc<Self> {
        Arc::new(Self { partition, inner: Mutex::default() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SlotInner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What could be taken. Empty: the slot is off the sender's list until it announces itself.
    pub(crate) fn peek(&self, home: &Accumulator) -> Peek {
        let mut inner = self.lock();
        if !inner.full.is_empty() {
            return Peek::Full;
        }
        match &inner.open {
            Some(open) => {
                let urgent = home.may_not_linger(open.rest.number);
                Peek::Open { at: open.opened + home.config.linger, urgent }
            }
            None => {
                inner.announced = false;
                Peek::Empty
            }
        }
    }

    /// When the oldest batch here was opened.
    pub(crate) fn oldest_deadline(&self, home: &Accumulator) -> Option<Instant> {
        let inner = self.lock();
        inner
            .full
            .front()
            .map(|b| b.deadline)
            .or_else(|| inner.open.as_ref().map(|open| open.opened + home.config.delivery_timeout))
    }

    /// The oldest batch; an open one is sealed.
    pub(crate) fn take(&self, home: &Arc<Accumulator>) -> Option<Batch> {
        let mut inner = self.lock();
        inner.full.pop_front().or_else(|| {
            let open = inner.open.take()?;
            open.seal(home, self.partition)
        })
    }
}

impl OpenBatch {
    pub(super) fn state(&self) -> &Arc<BatchState> {
        self.rest.state.as_ref().expect("an open batch is not settled")
    }

    pub(super) fn seal(mut self, home: &Arc<Accumulator>, partition: Option<i32>) -> Option<Batch> {
        let Some(sealed) = self.builder.seal(self.compression) else {
            // Nobody holds a handle to a batch without records.
            self.rest.state = None;
            home.budget.release(self.rest.charged);
            home.batch_resolved(self.rest.number);
            return None;
        };
        // Compressed bytes may take less memory than the open batch did.
        let holds = sealed.capacity_reserved();
        if holds < self.rest.charged {
            home.budget.release(self.rest.charged - holds);
        } else {
            home.budget.charge(holds - self.rest.charged);
        }
        self.rest.charged = holds;
        self.rest.records = sealed.records();
        Some(Batch {
            sealed,
            home: Arc::clone(home),
            partition,
            deadline: self.opened + home.config.delivery_timeout,
            tries: Tries::default(),
            rest: self.rest,
        })
    }
}
