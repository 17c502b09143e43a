//! The state of a batch: all handles of its records look at it to learn their result.
//!
//! Handles are counted in bulk ([`handles`]). When the last one is dropped, the state goes back to the idle
//! ones ([`slab`]).

mod handles;
mod slab;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use super::unread::{Counted, Owed, Producers};
use super::{BatchAck, BatchResult, Run};
use crate::caught;
use crate::error::Error;

pub(crate) use handles::{Owner, StateRef};

use slab::Slab;

/// Nothing is known yet.
const PENDING: u8 = 0;
const ACKNOWLEDGED: u8 = 1;
const FAILED: u8 = 2;
/// Its records are in other batches now: they waited for their partitions.
const MOVED: u8 = 3;

/// No append time.
const NO_TIME: i64 = i64::MIN;

/// The state of one batch; used again for another one when its last handle is gone.
#[repr(align(128))]
pub(crate) struct BatchState {
    slab: &'static Slab,
    number: u32,
    /// The idle state behind this one: its number plus 1, or 0.
    next: AtomicU32,
    status: AtomicU8,
    partition: AtomicI32,
    base_offset: AtomicI64,
    append_time: AtomicI64,
    /// Milliseconds since 1970: the timestamp of records that have none of their own.
    opened_ms: AtomicI64,
    /// Once resolved: how many handles were given out and not dropped yet. Before that, see `UNRESOLVED` of
    /// `handles.rs`.
    refs: AtomicI64,
    /// The process whose engine will resolve it.
    process: AtomicU32,
    rest: Mutex<Rest>,
}

/// The part of a state that most handles never look at, behind a lock.
#[derive(Default)]
struct Rest {
    error: Option<Error>,
    /// Where each record of the batch is, by its index, once the batch has moved.
    places: Vec<RecordLocation>,
    /// By the index of the record whose handle waits; each handle has one waker.
    waiters: BTreeMap<u32, Waker>,
    /// Who wants to hear of the batch and not of one of its records.
    watchers: Vec<Waker>,
    runs: Vec<Run>,
    /// By index: timestamps that are too far from the batch's to fit into a [`RecordIndex`].
    far: BTreeMap<u32, i64>,
    /// Where failed records were counted as unread, in the order of the records: a handle that is read takes
    /// its record out there.
    owed: Vec<Owed>,
    /// A bit for each record whose failure was looked at.
    looked_at: Vec<u64>,
}

impl Rest {
    /// Notes that the failure of these records was looked at. Gives how many are to be taken out of which
    /// counts.
    fn look_at(&mut self, first: u32, records: u32) -> Vec<(Counted, usize)> {
        let mut looked: Vec<(Counted, usize)> = Vec::new();
        let mut last = None;
        for index in first..first + records {
            let (word, bit) = (index as usize / 64, 1 << (index % 64));
            if self.looked_at.len() <= word {
                self.looked_at.resize(word + 1, 0);
            }
            if self.looked_at[word] & bit != 0 {
                continue;
            }
            self.looked_at[word] |= bit;
            let at = self.owed.partition_point(|owed| owed.first <= index).checked_sub(1);
            let counted = at.and_then(|at| self.owed[at].counted.as_ref());
            match (counted, looked.last_mut()) {
                (None, _) => {}
                (Some(_), Some((_, n))) if last == at => *n += 1,
                (Some(counted), _) => looked.push((counted.clone(), 1)),
            }
            last = at;
        }
        looked
    }

    fn is_awaited(&self) -> bool {
        !self.waiters.is_empty() || !self.watchers.is_empty()
    }

    /// Whether the batch's result will wake this waker already. A task that waits for many records of a batch
    /// needs one place here, not one for each record.
    fn knows(&self, index: u32, waker: &Waker) -> bool {
        match self.waiters.get(&index) {
            Some(there) => there.will_wake(waker),
            None => self.waiters.last_key_value().is_some_and(|(_, last)| last.will_wake(waker)),
        }
    }
}

/// What is needed to count the failure of a batch: its topic, and which producer sent which of its records.
pub(in crate::producer) struct Sent<'a> {
    pub(in crate::producer) topic: &'a Arc<str>,
    pub(in crate::producer) producers: &'a Producers,
    pub(in crate::producer) records: u32,
}

/// A record's index in its batch, and how far its timestamp is from the batch's. One word, so that a handle is
/// two words and is returned in registers: through memory it would have to wait until the record's bytes
/// before it have left the store buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordIndex(u64);

impl RecordIndex {
    /// Stands for a timestamp that is kept in [`Rest::far`].
    const FAR: i32 = i32::MIN;

    #[inline]
    fn new(index: u32, delta_ms: i32) -> Self {
        Self(u64::from(index) | u64::from(delta_ms.cast_unsigned()) << 32)
    }

    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }

    /// The record's timestamp less its batch's, in milliseconds, or [`RecordIndex::FAR`].
    #[inline]
    fn delta_ms(self) -> i32 {
        (self.0 >> 32) as i32
    }

    /// The index of the record that comes `records` after this one in the batch, with the same timestamp.
    pub(super) fn plus(self, records: u32) -> Self {
        Self::new(self.index() + records, self.delta_ms())
    }

    /// Whether this is the index of the record that comes `records` after `first`, with the same timestamp.
    pub(super) fn continues(self, first: Self, records: u32) -> bool {
        let near = self.delta_ms() != Self::FAR && self.delta_ms() == first.delta_ms();
        near && first.index() + records == self.index()
    }
}

/// Where a record is: the state of its batch, and its index there.
#[derive(Clone, Debug)]
pub(crate) struct RecordLocation {
    pub(in crate::producer) state_ref: StateRef,
    pub(in crate::producer) record: RecordIndex,
}

/// The result that a handle finds for its record.
pub(in crate::producer) enum Resolved {
    Acknowledged(BatchAck),
    Failed(Error),
    Moved(RecordLocation),
}

impl BatchState {
    fn new(slab: &'static Slab, number: u32) -> Self {
        Self {
            slab,
            number,
            next: AtomicU32::new(0),
            status: AtomicU8::new(PENDING),
            partition: AtomicI32::new(0),
            base_offset: AtomicI64::new(0),
            append_time: AtomicI64::new(0),
            opened_ms: AtomicI64::new(0),
            refs: AtomicI64::new(0),
            process: AtomicU32::new(0),
            rest: Mutex::default(),
        }
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Registers a run of a submission, told when the batch resolves.
    pub(super) fn add_run(&self, grow: impl FnOnce(&mut Vec<Run>)) {
        grow(&mut self.rest().runs);
    }

    /// Takes the runs of submissions whose records are in this batch, in the batch's order; the caller has to
    /// tell them from now on.
    pub(in crate::producer) fn take_runs(&self) -> Vec<Run> {
        std::mem::take(&mut self.rest().runs)
    }

    fn resolve(&self, outcome: &BatchResult, of: &Sent<'_>) {
        let status = match outcome {
            Ok(ack) => {
                self.partition.store(ack.partition, Ordering::Relaxed);
                self.base_offset.store(ack.base_offset, Ordering::Relaxed);
                let time = ack.append_time.unwrap_or(NO_TIME);
                self.append_time.store(time, Ordering::Relaxed);
                ACKNOWLEDGED
            }
            Err(e) => {
                let awaited = self.rest().is_awaited();
                // Counted before anybody can look.
                let owed = of.producers.failed(of.topic, e, of.records, awaited);
                let mut rest = self.rest();
                rest.error = Some(e.clone());
                rest.owed = owed;
                FAILED
            }
        };
        self.status.store(status, Ordering::Release);
        for run in self.take_runs() {
            run.tell(outcome, of.topic);
        }
        self.wake();
    }

    fn moved(&self, places: Vec<RecordLocation>) {
        self.rest().places = places;
        self.status.store(MOVED, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // Taken after the status is set: a handle that was not among the waiters looks at the status again.
        // Woken without the lock: a waker is the application's own, and may look at its handle on the spot.
        let (waiters, watchers) = {
            let mut rest = self.rest();
            (std::mem::take(&mut rest.waiters), std::mem::take(&mut rest.watchers))
        };
        for waker in waiters.into_values().chain(watchers) {
            // A waker that panics must not keep the others from being woken.
            let _ = caught::call(|| waker.wake());
        }
    }

    pub(in crate::producer) fn is_pending(&self) -> bool {
        self.status.load(Ordering::Acquire) == PENDING
    }

    /// Whether this process will never learn the result: the batch was opened by a parent process, whose engine
    /// resolves it there. Costs a system call.
    pub(super) fn is_orphaned(&self) -> bool {
        self.is_pending() && self.process.load(Ordering::Relaxed) != std::process::id()
    }

    /// The acknowledgement, if that is what became of the batch.
    #[inline(always)]
    pub(in crate::producer) fn acknowledged(&self) -> Option<BatchAck> {
        if self.status.load(Ordering::Acquire) != ACKNOWLEDGED {
            return None;
        }
        let time = self.append_time.load(Ordering::Relaxed);
        Some(BatchAck {
            partition: self.partition.load(Ordering::Relaxed),
            base_offset: self.base_offset.load(Ordering::Relaxed),
            append_time: (time != NO_TIME).then_some(time),
        })
    }

    /// The result of the record with this index; `None` while pending.
    pub(in crate::producer) fn find(&self, index: u32) -> Option<Resolved> {
        if self.is_pending() {
            return None;
        }
        if let Some(ack) = self.acknowledged() {
            return Some(Resolved::Acknowledged(ack));
        }
        let rest = self.rest();
        Some(match &rest.error {
            Some(error) => Resolved::Failed(error.clone()),
            None => Resolved::Moved(rest.places[index as usize].clone()),
        })
    }

    /// The application has read the failure of these records: they are taken out of the unread counts.
    #[cold]
    pub(in crate::producer) fn look_at(&self, first: u32, records: u32) {
        let looked = self.rest().look_at(first, records);
        for (counted, records) in looked {
            counted.looked_at(records);
        }
    }

    /// If the records of this batch have moved: where those from index `first` on are now.
    pub(in crate::producer) fn places(
        &self,
        first: u32,
        records: u32,
    ) -> Option<Vec<RecordLocation>> {
        if self.status.load(Ordering::Acquire) != MOVED {
            return None;
        }
        let range = first as usize..(first + records) as usize;
        Some(self.rest().places[range].to_vec())
    }

    /// The timestamp of a record, as it was sent.
    #[inline]
    pub(in crate::producer) fn timestamp_ms(&self, record: RecordIndex) -> i64 {
        if record.delta_ms() == RecordIndex::FAR {
            return self.rest().far.get(&record.index()).copied().unwrap_or_default();
        }
        self.opened_ms.load(Ordering::Relaxed) + i64::from(record.delta_ms())
    }

    /// The result of the record with this index, or registers the task's waker. No other handle may wait for the
    /// same record.
    pub(in crate::producer) fn poll(&self, index: u32, cx: &mut Context<'_>) -> Poll<Resolved> {
        if let Some(found) = self.find(index) {
            return Poll::Ready(found);
        }
        if self.rest().knows(index, cx.waker()) && self.is_pending() {
            return Poll::Pending;
        }
        // Cloned, woken and dropped without the lock: all of that is the program's own code.
        let waker = cx.waker().clone();
        let mut rest = self.rest();
        // The batch resolved in between, and the waiters were taken before this one was among them.
        if !self.is_pending() {
            drop(rest);
            return self.find(index).map_or(Poll::Pending, Poll::Ready);
        }
        let before = rest.waiters.insert(index, waker);
        drop(rest);
        if let Some(before) = before
            && !before.will_wake(cx.waker())
        {
            // Another task has the handle now. The one before may count on this place for other
            // records of the batch: it is to look again.
            before.wake();
        }
        Poll::Pending
    }

    /// A number that no other batch has that is not resolved.
    pub(in crate::producer) fn number(&self) -> u32 {
        self.number
    }

    /// Wakes this waker once the batch is resolved or its records have moved; `false` if that is so already. Any number
    /// may watch, whoever else waits for its records.
    pub(in crate::producer) fn watch(&self, waker: Waker) -> bool {
        if self.is_orphaned() {
            return false;
        }
        let mut rest = self.rest();
        // Looked at behind the lock: whoever resolves it takes the watchers after it has said so.
        let pending = self.is_pending();
        if pending {
            rest.watchers.push(waker);
        }
        pending
    }

    fn release(&'static self, refs: i64) {
        if self.refs.fetch_sub(refs, Ordering::Release) == refs {
            // All that other threads did with their handles happens before the state is used again.
            fence(Ordering::Acquire);
            self.recycle();
        }
    }

    fn recycle(&'static self) {
        // Places hold shares of other states, wakers are the program's: dropped without the lock.
        let left = {
            let mut rest = self.rest();
            rest.error = None;
            rest.far.clear();
            rest.looked_at.clear();
            let owed = std::mem::take(&mut rest.owed);
            let waiters = (std::mem::take(&mut rest.waiters), std::mem::take(&mut rest.watchers));
            (std::mem::take(&mut rest.places), waiters, owed)
        };
        drop(left);
        self.status.store(PENDING, Ordering::Relaxed);
        self.slab.put_idle(self);
    }
}

impl fmt::Debug for BatchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchState").field("pending", &self.is_pending()).finish_non_exhaustive()
    }
}
