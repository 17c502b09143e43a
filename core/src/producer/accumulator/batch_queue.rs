//! The queue of one topic and shard, or of one partition: the batch that is open, and the full batches before
//! it. Application threads fill it, the engine takes from it, workers seal in it: most of what a record goes
//! through happens under its lock.

mod expiry;

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::Accumulator;
use super::spin_lock::{Guard, Lock};
use crate::error::Error;
use crate::policy::linger::{self, FillRate};
use crate::policy::pace::Waits;
use crate::producer::batch::{Batch, BatchAttempts, OpenBatch};
use crate::producer::delivery::Unread;
use crate::producer::memory::{MemoryQuota, Quotas};
use crate::record::Compression;

/// The open batch of a topic (or of a partition that records name), and the full batches before it that the
/// sender has not taken yet. One lock orders both, so that batches of a partition leave in the order in which
/// they were filled. It is held while a record is copied, and never while a batch of this queue is compressed.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct BatchQueue {
    pub(in crate::producer) partition: Option<i32>,
    /// The holder whose bytes its batches are charged to: the topic, or this partition if it is named.
    quota: Arc<MemoryQuota>,
    inner: Lock<BatchQueueInner>,
}

/// Pacing may hold an open batch back until 1/LATE of its delivery timeout has passed, not longer.
pub(in crate::producer) const LATE: u32 = 4;

/// The partition of the queue where keyed records wait until the topic's number of partitions is known. Before
/// the sender looks for such a partition, the records have moved on and the queue is empty.
pub(super) const UNPARTITIONED: i32 = -1;

#[derive(Debug, Default)]
pub(super) struct BatchQueueInner {
    full: VecDeque<Full>,
    pub(in crate::producer) open: Option<OpenBatch>,
    /// The sender has this queue on its list, or will be told when a batch is sealed.
    pub(super) announced: bool,
    /// The sender found the queue empty but keeps it on its list, and looks again at a time that it has set. So
    /// a record that comes now need not wake it, unless its batch may not wait (full, flushed, memory is
    /// wanted, or no linger).
    kept: bool,
    /// If the queue is announced: the address of the producer ([`Unread::address`]) whose records may go into
    /// the open batch by the short way: the one that the last record is from. 0: the next record takes the long
    /// way, whoever sends it.
    pub(super) short_way_for: usize,
    /// How quickly the last batches of this queue have filled.
    fill_rate: FillRate,
    /// The quota of the broker that leads its partition; `None` while no leader is known.
    pub(in crate::producer) broker: Option<Arc<MemoryQuota>>,
}

/// A batch that takes no more records.
#[derive(Debug)]
enum Full {
    /// The batch with this number is being compressed by some thread. This is its place in the queue.
    Sealing(u64),
    /// The same, but the batch will not be sent: its records fail with this error once it is compressed.
    Ended(u64, Error),
    Sealed(Box<Batch>),
}

/// What a queue holds for the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    Empty,
    /// A full batch waits, which was opened at `opened`.
    Full {
        opened: Instant,
    },
    /// Only an open batch. Before `early` it is not taken; from then on if its broker has nothing in flight and
    /// a request may be made; after `at` in any case.
    Open(Waits),
    /// The queue is empty but stays on the sender's list: a record that comes now does not announce it (see
    /// `Doze` in `sender/send_queue.rs`).
    Kept,
}

impl BatchQueue {
    pub(in crate::producer) fn new(partition: Option<i32>, quota: &Arc<MemoryQuota>) -> Arc<Self> {
        let quota = Arc::clone(quota);
        Arc::new(Self { partition, quota, inner: Lock::default() })
    }

    /// The holders that its next batch is charged to.
    pub(super) fn quotas(&self, inner: &BatchQueueInner) -> Quotas {
        Quotas { own: Arc::clone(&self.quota), broker: inner.broker.clone() }
    }

    /// This broker leads its partition: the next batch is charged to it, too.
    pub(in crate::producer) fn led_by(&self, broker: &Arc<MemoryQuota>) {
        self.lock().broker = Some(Arc::clone(broker));
    }

    /// Whether it holds anything, or is on the sender's list.
    pub(in crate::producer) fn is_used(&self) -> bool {
        let inner = self.lock();
        inner.announced || inner.open.is_some() || !inner.full.is_empty()
    }

    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, BatchQueueInner> {
        self.inner.lock()
    }

    /// What could be taken now. After `Empty` the queue is off the sender's list until it announces itself.
    pub(crate) fn peek(&self, accumulator: &Accumulator) -> Peek {
        self.look(accumulator, false)
    }

    /// The same. `keeps`: if the queue is empty it stays on the sender's list, since the caller has set a time
    /// at which it looks again.
    pub(in crate::producer) fn look(&self, accumulator: &Accumulator, keeps: bool) -> Peek {
        let mut inner = self.lock();
        inner.kept = false;
        match (inner.full.front(), &inner.open) {
            (Some(Full::Sealed(batch)), _) => {
                Peek::Full { opened: batch.deadline - accumulator.config.delivery_timeout }
            }
            // The thread that seals it announces the queue then.
            (Some(Full::Sealing(_) | Full::Ended(..)), _) => Peek::Empty,
            (None, Some(open)) if open.builder.len_records() > 0 => {
                if open.builder.len_bytes() >= accumulator.config.batch_size {
                    // One large record: nothing else comes into its batch.
                    return Peek::Full { opened: open.opened };
                }
                let opened = open.opened;
                let late = opened + accumulator.config.delivery_timeout / LATE;
                if accumulator.may_not_linger(open.ledger.number) {
                    return Peek::Open(Waits { opened, early: opened, at: opened, late });
                }
                let at = opened + accumulator.config.linger;
                let early = linger::early(opened, inner.fill_rate).min(at);
                Peek::Open(Waits { opened, early, at, late })
            }
            (None, _) if keeps && inner.announced => {
                inner.kept = true;
                Peek::Kept
            }
            (None, _) => {
                inner.announced = false;
                inner.short_way_for = 0;
                Peek::Empty
            }
        }
    }

    /// Takes the oldest batch; an open one is sealed first. `None` if there is none, or if compressing it takes
    /// long: then the queue announces itself when that is done.
    pub(crate) fn take(self: &Arc<Self>, accumulator: &Arc<Accumulator>) -> Option<Batch> {
        let mut inner = self.lock();
        match inner.full.front() {
            Some(Full::Sealing(_) | Full::Ended(..)) => None,
            Some(Full::Sealed(_)) => match inner.full.pop_front() {
                Some(Full::Sealed(batch)) => Some(*batch),
                _ => unreachable!("looked at under the same lock"),
            },
            None => {
                let open = inner.close()?;
                if open.takes_long() {
                    inner.full.push_back(Full::Sealing(open.ledger.number));
                    drop(inner);
                    accumulator.seal_later(self, open);
                    return None;
                }
                // Only the sender takes from a queue, so no batch behind this one can overtake it meanwhile.
                drop(inner);
                let topic = Arc::clone(&open.ledger.topic);
                let sealed = open.seal(self.partition, BatchAttempts::default());
                if sealed.is_none() {
                    // Compression failed, and the sender was not told of batches that have come behind this
                    // one.
                    accumulator.announce_sealed(&topic, self);
                }
                sealed
            }
        }
    }

    /// How many records the open batch has.
    pub(super) fn open_records(&self) -> usize {
        self.lock().open.as_ref().map_or(0, |open| open.ledger.records)
    }

    #[cfg(test)]
    pub(super) fn is_locked(&self) -> bool {
        self.inner.is_locked()
    }

    /// Records here.
    #[cfg(test)]
    pub(crate) fn records(&self) -> usize {
        let inner = self.lock();
        let full: usize = inner
            .full
            .iter()
            .map(|full| match full {
                Full::Sealing(_) | Full::Ended(..) => 0,
                Full::Sealed(batch) => batch.records(),
            })
            .sum();
        full + inner.open.as_ref().map_or(0, |open| open.builder.len_records())
    }

    /// Seals a full batch and puts it into its place in the queue. `false` if the queue was cleared meanwhile:
    /// then the batch is resolved instead.
    pub(super) fn seal(&self, mut open: OpenBatch) -> bool {
        let here =
            |full: &Full| matches!(full, Full::Ended(number, _) if *number == open.ledger.number);
        if self.lock().full.iter().any(here) {
            // The batch will fail, so compressing it is not worth the work.
            open.compression = Compression::None;
        }
        let mut place = InLine { batch_queue: self, number: open.ledger.number, sealed: None };
        place.sealed = open.seal(self.partition, BatchAttempts::default());
        place.put()
    }
}

/// The place in the queue of a batch that is being sealed. If sealing panics, the place is given up.
struct InLine<'a> {
    batch_queue: &'a BatchQueue,
    number: u64,
    sealed: Option<Batch>,
}

impl InLine<'_> {
    fn put(&mut self) -> bool {
        let mut inner = self.batch_queue.lock();
        let here = |full: &Full| match full {
            Full::Sealing(number) | Full::Ended(number, _) => *number == self.number,
            Full::Sealed(_) => false,
        };
        let Some(at) = inner.full.iter().position(here) else { return false };
        match (self.sealed.take(), &mut inner.full[at]) {
            (Some(batch), place @ Full::Sealing(_)) => *place = Full::Sealed(Box::new(batch)),
            (batch, _) => {
                let place = inner.full.remove(at);
                drop(inner);
                if let (Some(batch), Some(Full::Ended(_, error))) = (batch, place) {
                    batch.resolve(Err(error));
                }
            }
        }
        true
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.put();
        }
    }
}

impl BatchQueueInner {
    /// The open batch took records of `producer`, from the one with this index on.
    #[inline]
    pub(super) fn sent_by(&mut self, producer: Option<&Arc<Unread>>, index: u32) {
        if producer.is_some_and(|producer| producer.address() == self.short_way_for) {
            // The record before this one is from the same producer, which is noted already.
            return;
        }
        if let Some(open) = &mut self.open {
            open.ledger.producers.add(index, producer);
        }
        self.short_way_for =
            producer.filter(|_| self.announced).map_or(0, |producer| producer.address());
    }

    /// Whether the open batch of a queue that the sender keeps on its list must wake the sender: it is full, or
    /// may not linger. `true` only once for each look.
    pub(super) fn cannot_wait(&mut self, accumulator: &Accumulator) -> bool {
        let Some(open) = self.open.as_ref().filter(|_| self.kept) else { return false };
        let full = open.builder.len_bytes() >= accumulator.config.batch_size;
        let cannot = full || accumulator.may_not_linger(open.ledger.number);
        self.kept &= !cannot;
        cannot
    }

    /// Whether a batch is open that takes `size` bytes more. An empty one takes anything.
    #[inline]
    pub(in crate::producer) fn takes(&self, size: usize, batch_size: usize) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let bytes = open.builder.len_bytes();
            bytes + size <= batch_size || bytes == 0
        })
    }

    /// Takes the open batch, which takes no more records.
    fn close(&mut self) -> Option<OpenBatch> {
        self.short_way_for = 0;
        let mut open = self.open.take()?;
        open.ledger.is_full();
        self.fill_rate.closed(open.opened, open.builder.len_bytes());
        Some(open)
    }

    /// Opens `next`. The batch that was open is given back to be sealed; it keeps its place in the queue.
    pub(in crate::producer) fn roll(&mut self, next: OpenBatch) -> Option<OpenBatch> {
        let full = self.close();
        if let Some(full) = &full {
            self.full.push_back(Full::Sealing(full.ledger.number));
        }
        self.fill_rate.opened(next.opened);
        self.open = Some(next);
        full
    }
}
