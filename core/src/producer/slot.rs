//! The queue in which a batch is open, and what a batch owes its records: a result for each, once.

mod unsent;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::accumulator::Accumulator;
use super::budget::{Share, Shares};
use super::delivery::{BatchAck, Outcome, Run};
use super::lock::{Guard, Lock};
use super::resolution::{Fate, Resolution};
use super::states::{Owner, Place, Sent};
use super::tries::Tries;
use super::unread::{Senders, Unread};
use crate::caught;
use crate::config::InDoubt;
use crate::error::{Error, ErrorKind};
use crate::policy::linger::{self, Pace};
use crate::policy::pace::Waits;
use crate::record::Compression;
use crate::record::builder::{BatchBuilder, SealedBatch};

/// The open batch of a topic (or of a partition that records name), and the full batches before it that the
/// sender has not taken yet. One lock orders both, so that batches of a partition leave in the order in
/// which they were filled. It is held while a record is copied, never while a batch is compressed.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    pub(crate) partition: Option<i32>,
    /// The holder whose bytes its batches are charged to: the topic, or this partition if it is named.
    share: Arc<Share>,
    inner: Lock<SlotInner>,
}

/// A batch waits for its turn to make a request for this part of its delivery timeout at most.
const LATE: u32 = 4;

/// The partition of the queue where keyed records wait until the topic's number of partitions is known. Before
/// the sender looks for such a partition, the records have moved on and the queue is empty.
pub(super) const UNROUTED: i32 = -1;

#[derive(Debug, Default)]
pub(super) struct SlotInner {
    full: VecDeque<Full>,
    pub(super) open: Option<OpenBatch>,
    /// The sender has this slot on its list, or will be told when a batch is sealed.
    pub(super) announced: bool,
    /// If the slot is announced: the address of the producer that the last record of the open batch is from.
    /// The next record of the same producer goes straight into the batch. 0: the next record, whoever sends
    /// it, takes the long way.
    pub(super) quick: usize,
    /// How quickly its last batches have filled.
    pace: Pace,
    /// What the broker that leads its partition holds; `None` while nobody has told who that is.
    pub(super) broker: Option<Arc<Share>>,
}

/// A batch that takes no more records.
#[derive(Debug)]
enum Full {
    /// The batch with this number is being compressed by some thread. This is its place in the queue.
    Sealing(u64),
    /// The same, but it will not be sent: its records fail with this error as soon as that is done.
    Ended(u64, Error),
    Sealed(Box<Batch>),
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
    compression: Compression,
    /// The attempts that were made with it.
    pub(crate) tries: Tries,
    /// It was not full, and nobody let it gather.
    pub(super) hasty: bool,
    rest: Unresolved,
}

/// The part of a batch that must be settled exactly once: the results of its records, its memory, and its
/// number among the unresolved. If it is dropped without a result (a panic, the end of the engine), it
/// settles itself with an error.
#[derive(Debug)]
pub(super) struct Unresolved {
    pub(super) home: Arc<Accumulator>,
    pub(super) topic: Arc<str>,
    /// Timestamps of its first record and of the latest one, in milliseconds since 1970.
    pub(super) timestamps_ms: (i64, i64),
    /// The broker that acknowledged it; -1 as long as none has.
    pub(super) broker: i32,
    /// Gives out handles and resolves them. `None` once settled.
    pub(super) owner: Option<Owner>,
    /// Its number: what a flush waits for. Pieces of one batch share it.
    pub(super) number: u64,
    /// Bytes that are charged to the budget for it now.
    pub(super) charged: usize,
    /// The holders that those bytes are charged to.
    pub(super) shares: Shares,
    pub(super) records: usize,
    /// It is counted in [`Accumulator::unrouted`]: its records wait for the number of partitions.
    pub(super) unrouted: bool,
    /// The producers that sent the records.
    pub(super) senders: Senders,
    /// How many of its records are counted in [`Accumulator::on_way`].
    on_way: usize,
}

impl Unresolved {
    pub(super) fn new(
        home: &Arc<Accumulator>,
        topic: &Arc<str>,
        timestamps_ms: (i64, i64),
        number: u64,
        shares: Shares,
    ) -> Self {
        Self {
            home: Arc::clone(home),
            topic: Arc::clone(topic),
            timestamps_ms,
            broker: -1,
            owner: Some(Owner::new(timestamps_ms.0)),
            number,
            charged: 0,
            shares,
            records: 0,
            unrouted: false,
            senders: Senders::default(),
            on_way: 0,
        }
    }

    /// It takes no more records: those that it has are counted as on their way.
    fn is_full(&mut self) {
        let more = self.records - self.on_way;
        self.on_way += more;
        self.home.on_way.fetch_add(more, Ordering::Relaxed);
    }

    fn settle(&mut self, outcome: &Outcome) {
        let Some(owner) = self.owner.take() else { return };
        self.home.metrics.resolved(&Resolution {
            topic: &self.topic,
            records: self.records,
            timestamps_ms: self.timestamps_ms,
            fate: match outcome {
                Ok(ack) => Fate::Acknowledged {
                    broker: self.broker,
                    partition: ack.partition,
                    base_offset: ack.base_offset,
                },
                Err(e) => Fate::failed(e),
            },
        });
        self.holds(0);
        let (topic, senders) = (&self.topic, &self.senders);
        owner.resolve(outcome, &Sent { topic, senders, records: self.records as u32 });
        self.ended();
    }

    /// Its records were moved into other batches, which resolve them; `places` says where each is now.
    pub(super) fn moved(&mut self, places: Vec<Place>) {
        let Some(owner) = self.owner.take() else { return };
        self.holds(0);
        owner.moved(places);
        self.ended();
    }

    fn ended(&mut self) {
        if std::mem::take(&mut self.unrouted) {
            self.home.unrouted.fetch_sub(1, Ordering::AcqRel);
        }
        self.home.on_way.fetch_sub(std::mem::take(&mut self.on_way), Ordering::Relaxed);
        self.home.batch_resolved(self.number);
    }

    /// Its records have no partition yet.
    pub(super) fn waits_for_partition(&mut self) {
        if !std::mem::replace(&mut self.unrouted, true) {
            self.home.unrouted.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// It holds so many bytes now: the budget is charged, or relieved, of the difference.
    #[inline]
    pub(super) fn holds(&mut self, bytes: usize) {
        if bytes > self.charged {
            self.home.budget.charge(&self.shares, bytes - self.charged);
        } else {
            self.home.budget.release(&self.shares, self.charged - bytes);
        }
        self.charged = bytes;
    }

    /// It has given so many bytes back.
    pub(super) fn release(&mut self, bytes: usize) {
        self.holds(self.charged.saturating_sub(bytes));
    }
}

impl Drop for Unresolved {
    fn drop(&mut self) {
        if self.owner.is_some() {
            let (kind, words) = if std::thread::panicking() {
                (ErrorKind::Internal, "the engine panicked before the record was acknowledged")
            } else {
                (ErrorKind::Closed, "the engine ended before the record was acknowledged")
            };
            self.settle(&Err(Error::new(kind, words).with_maybe_written(true)));
        }
    }
}

impl Batch {
    /// Resolves all its records.
    pub(crate) fn resolve(mut self, outcome: Outcome) {
        let outcome = outcome.map_err(|e| self.doubting(e));
        self.rest.settle(&outcome);
    }

    /// The error with `maybe_written` set if an earlier attempt may have written the batch: doubt sticks,
    /// whatever is certain of the last attempt.
    pub(super) fn doubting(&self, error: Error) -> Error {
        let maybe = error.maybe_written() || self.tries.in_doubt();
        error.with_maybe_written(maybe)
    }

    /// Resolves all its records as acknowledged by `broker`.
    pub(crate) fn acknowledged(mut self, broker: i32, ack: BatchAck) {
        self.rest.broker = broker;
        self.rest.settle(&Ok(ack));
    }

    /// Whether it may go elsewhere although it may be written already.
    pub(crate) fn reroutes(&self) -> bool {
        self.partition.is_none() && self.home.config.in_doubt == InDoubt::Reroute
    }

    /// Takes the runs of submissions whose records it holds; the caller has to tell them from now on.
    pub(super) fn take_runs(&self) -> Vec<Run> {
        self.rest.owner.as_ref().map(|owner| owner.state().take_runs()).unwrap_or_default()
    }

    /// Its records are in other batches now, which resolve them.
    pub(super) fn moved(mut self, places: Vec<Place>) {
        self.rest.moved(places);
    }

    /// An empty batch for some of its records. It has the same number, so that a flush waits for both.
    pub(super) fn open_piece(&self) -> OpenBatch {
        let opened_ms = self.sealed.base_timestamp();
        self.home.batch_again(self.rest.number);
        OpenBatch {
            builder: BatchBuilder::new(self.home.buffers().clone()),
            opened: self.deadline - self.home.config.delivery_timeout,
            opened_ms,
            compression: self.compression,
            rest: Unresolved::new(
                &self.home,
                &self.rest.topic,
                (opened_ms, self.rest.timestamps_ms.1),
                self.rest.number,
                self.rest.shares.clone(),
            ),
        }
    }

    pub(super) fn topic(&self) -> &Arc<str> {
        &self.rest.topic
    }

    /// The producer that sent the record with this index; `None` if it is told in another way.
    pub(super) fn sender(&self, index: u32) -> Option<&Arc<Unread>> {
        self.rest.senders.of(index)
    }

    /// Seals a piece of [`open_piece`](Self::open_piece), for the same partition.
    pub(super) fn seal_piece(&self, piece: OpenBatch) -> Option<Self> {
        piece.seal(&self.home, self.partition, self.tries.of_piece())
    }

    pub(crate) fn records(&self) -> usize {
        self.sealed.records()
    }
}

/// What a slot has for the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    Empty,
    /// A full batch waits, which was opened at `opened`.
    Full {
        opened: Instant,
    },
    /// Only an open one: not to be taken before `early`, then if a broker is idle, and in any case
    /// once `at` has passed; a request for it is waited for as well.
    Open(Waits),
    /// Nothing, and it announces nothing.
    Kept,
}

impl Slot {
    pub(super) fn new(partition: Option<i32>, share: &Arc<Share>) -> Arc<Self> {
        let share = Arc::clone(share);
        Arc::new(Self { partition, share, inner: Lock::default() })
    }

    /// The holders that its next batch is charged to.
    pub(super) fn shares(&self, inner: &SlotInner) -> Shares {
        Shares { own: Arc::clone(&self.share), broker: inner.broker.clone() }
    }

    /// This broker leads its partition: the next batch is charged to it, too.
    pub(super) fn led_by(&self, broker: &Arc<Share>) {
        self.lock().broker = Some(Arc::clone(broker));
    }

    /// Whether it holds anything, or is on the sender's list.
    pub(super) fn is_used(&self) -> bool {
        let inner = self.lock();
        inner.announced || inner.open.is_some() || !inner.full.is_empty()
    }

    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, SlotInner> {
        self.inner.lock()
    }

    /// What could be taken now. After `Empty` the slot is off the sender's list until it announces itself.
    pub(crate) fn peek(&self, home: &Accumulator) -> Peek {
        self.look(home, false)
    }

    /// The same. `keeps`: one that is empty stays on the list, as somebody comes and looks.
    pub(super) fn look(&self, home: &Accumulator, keeps: bool) -> Peek {
        let mut inner = self.lock();
        match (inner.full.front(), &inner.open) {
            (Some(Full::Sealed(batch)), _) => {
                Peek::Full { opened: batch.deadline - home.config.delivery_timeout }
            }
            // Whoever seals it announces the slot then.
            (Some(Full::Sealing(_) | Full::Ended(..)), _) => Peek::Empty,
            (None, Some(open)) if open.builder.len_records() > 0 => {
                if open.builder.len_bytes() >= home.config.batch_size {
                    // One large record: nothing else comes into its batch.
                    return Peek::Full { opened: open.opened };
                }
                let opened = open.opened;
                let late = opened + home.config.delivery_timeout / LATE;
                if home.may_not_linger(open.rest.number) {
                    return Peek::Open(Waits { opened, early: opened, at: opened, late });
                }
                let at = opened + home.config.linger;
                let early = linger::early(opened, inner.pace).min(at);
                Peek::Open(Waits { opened, early, at, late })
            }
            (None, _) if keeps && inner.announced => Peek::Kept,
            (None, _) => {
                inner.announced = false;
                inner.quick = 0;
                Peek::Empty
            }
        }
    }

    /// Takes the oldest batch; an open one is sealed first. `None` if there is none, or if compressing it takes
    /// long: then the slot announces itself when that is done.
    pub(crate) fn take(self: &Arc<Self>, home: &Arc<Accumulator>) -> Option<Batch> {
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
                    inner.full.push_back(Full::Sealing(open.rest.number));
                    drop(inner);
                    home.seal_later(self, open);
                    return None;
                }
                // Nobody else takes from a slot, so nothing behind it can overtake it meanwhile.
                drop(inner);
                let topic = Arc::clone(&open.rest.topic);
                let sealed = open.seal(home, self.partition, Tries::default());
                if sealed.is_none() {
                    // It failed, and nobody has told of what has come behind it.
                    home.announce_sealed(&topic, self);
                }
                sealed
            }
        }
    }

    /// How many records the open batch has.
    pub(super) fn open_records(&self) -> usize {
        self.lock().open.as_ref().map_or(0, |open| open.rest.records)
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

    /// Compresses a full batch and puts it into its place in the queue. `false` if the slot was cleared
    /// meanwhile: then the batch is resolved instead.
    pub(super) fn seal(&self, home: &Arc<Accumulator>, mut open: OpenBatch) -> bool {
        let here =
            |full: &Full| matches!(full, Full::Ended(number, _) if *number == open.rest.number);
        if self.lock().full.iter().any(here) {
            // It may have waited for long, and is not worth the work.
            open.compression = Compression::None;
        }
        let mut place = InLine { slot: self, number: open.rest.number, sealed: None };
        place.sealed = open.seal(home, self.partition, Tries::default());
        place.settle()
    }
}

/// The place in the queue of a batch that is being sealed. It is given up if sealing panics.
struct InLine<'a> {
    slot: &'a Slot,
    number: u64,
    sealed: Option<Batch>,
}

impl InLine<'_> {
    fn settle(&mut self) -> bool {
        let mut inner = self.slot.lock();
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
            self.settle();
        }
    }
}

impl SlotInner {
    /// The open batch took records of `sender`, from the one with this index on.
    #[inline]
    pub(super) fn sent_by(&mut self, sender: Option<&Arc<Unread>>, index: u32) {
        if sender.is_some_and(|sender| sender.address() == self.quick) {
            // As the last one was, which is noted.
            return;
        }
        if let Some(open) = &mut self.open {
            open.rest.senders.add(index, sender);
        }
        self.quick = sender.filter(|_| self.announced).map_or(0, |sender| sender.address());
    }

    /// Whether a batch is open that takes `size` bytes more. An empty one takes anything.
    #[inline]
    pub(super) fn takes(&self, size: usize, batch_size: usize) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let bytes = open.builder.len_bytes();
            bytes + size <= batch_size || bytes == 0
        })
    }

    /// Takes the open batch, which takes no more records.
    fn close(&mut self) -> Option<OpenBatch> {
        self.quick = 0;
        let mut open = self.open.take()?;
        open.rest.is_full();
        self.pace.closed(open.opened, open.builder.len_bytes());
        Some(open)
    }

    /// Opens `next`. The batch that was open is given back to be sealed; it keeps its place in the queue.
    pub(super) fn turn(&mut self, next: OpenBatch) -> Option<OpenBatch> {
        let full = self.close();
        if let Some(full) = &full {
            self.full.push_back(Full::Sealing(full.rest.number));
        }
        self.pace.opened(next.opened);
        self.open = Some(next);
        full
    }
}

impl OpenBatch {
    /// Whether compressing it keeps a thread busy for so long that a worker should do it.
    pub(super) fn takes_long(&self) -> bool {
        self.compression.takes_long(self.builder.len_bytes())
    }

    #[inline]
    pub(super) fn owner(&mut self) -> &mut Owner {
        self.rest.owner.as_mut().expect("an open batch is not settled")
    }

    /// Compresses it. `tries`: the attempts that were made with its records before. `None` if it has no records,
    /// or if compression failed, which resolves them.
    fn seal(
        mut self,
        home: &Arc<Accumulator>,
        partition: Option<i32>,
        tries: Tries,
    ) -> Option<Batch> {
        let (builder, compression) = (self.builder, self.compression);
        // A codec that panics fails this batch, whose thread it is on may have others to care for.
        let sealed = caught::call(|| {
            home.env.mishap("compression");
            builder.seal(compression)
        });
        let sealed = match sealed {
            Ok(Some(sealed)) => sealed,
            Ok(None) => {
                // Nobody holds a handle to a batch without records.
                self.rest.moved(Vec::new());
                return None;
            }
            Err(error) => {
                let maybe = error.maybe_written() || tries.in_doubt();
                self.rest.settle(&Err(error.with_maybe_written(maybe)));
                return None;
            }
        };
        // Compressed bytes may take less memory than the open batch did.
        self.rest.holds(sealed.capacity_reserved());
        self.rest.records = sealed.records();
        self.rest.is_full();
        self.rest.timestamps_ms = sealed.timestamps_ms();
        Some(Batch {
            sealed,
            home: Arc::clone(home),
            partition,
            deadline: self.opened + home.config.delivery_timeout,
            compression: self.compression,
            tries,
            hasty: false,
            rest: self.rest,
        })
    }
}
