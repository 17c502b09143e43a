//! What handles look at: the state of a batch, which says what became of its records.
//!
//! Sending a record must not touch a counter that other processors touch, so handles are counted in
//! bulk: how many were given out is a plain number of the open batch, known to nobody else until
//! the batch is settled, and a thread that drops one handle after the other of a batch counts them
//! for itself and settles when it comes to another batch. A reference count would be two locked
//! instructions for a record, each waiting until the record's bytes have left the store buffer:
//! a third of what a send costs.
//!
//! The states live in a slab that the process has for good. One returns to the list of idle ones with its last
//! handle; memory is never returned, so there are as many as there were batches with handles at one
//! time, 256 bytes each.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};

use super::delivery::{BatchAck, Outcome, Run};
use crate::error::Error;

/// Nothing is known yet.
const PENDING: u8 = 0;
const ACKNOWLEDGED: u8 = 1;
const FAILED: u8 = 2;
/// Its records are in other batches now: they waited for their partitions.
const MOVED: u8 = 3;

/// No append time.
const NO_TIME: i64 = i64::MIN;

/// Shares of a batch that is not settled: more than there can be handles.
const UNSETTLED: i64 = 1 << 40;

/// See the module.
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
    /// Handles given out and not dropped, once settled.
    shares: AtomicI64,
    rest: Mutex<Rest>,
}

/// What most handles do not look at.
#[derive(Default)]
struct Rest {
    error: Option<Error>,
    /// By index, once moved.
    places: Vec<Place>,
    /// By the index of a record that only they wait for.
    waiters: BTreeMap<u32, Waker>,
    runs: Vec<Run>,
    /// Timestamps too far from the batch's for a [`Mark`], by index.
    far: BTreeMap<u32, i64>,
}

/// What a handle knows of its record besides the batch. One word, so that a handle is two of them and
/// is returned in registers: written to memory as three and read as two, it would have to wait until
/// the record's bytes before it have left the store buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

impl Mark {
    /// The timestamp is among those that are kept with the state.
    const FAR: i32 = i32::MIN;

    #[inline]
    fn new(index: u32, behind: i32) -> Self {
        Self(u64::from(index) | u64::from(behind.cast_unsigned()) << 32)
    }

    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }

    /// Milliseconds of the record's timestamp behind that of its batch, or [`Mark::FAR`].
    #[inline]
    fn behind(self) -> i32 {
        (self.0 >> 32) as i32
    }
}

/// Where a record is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) share: Share,
    pub(crate) mark: Mark,
}

/// What a handle finds.
pub(super) enum Found {
    Acknowledged(BatchAck),
    Failed(Error),
    Moved(Place),
}

impl BatchState {
    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Registers a run of a submission, told when the batch resolves.
    pub(super) fn add_run(&self, grow: impl FnOnce(&mut Vec<Run>)) {
        grow(&mut self.rest().runs);
    }

    /// The submissions whose records are in this batch, in the batch's order; they are told by
    /// whoever takes them.
    pub(super) fn take_runs(&self) -> Vec<Run> {
        std::mem::take(&mut self.rest().runs)
    }

    fn resolve(&self, outcome: &Outcome) {
        let status = match outcome {
            Ok(ack) => {
                self.partition.store(ack.partition, Ordering::Relaxed);
                self.base_offset.store(ack.base_offset, Ordering::Relaxed);
                let time = ack.append_time.unwrap_or(NO_TIME);
                self.append_time.store(time, Ordering::Relaxed);
                ACKNOWLEDGED
            }
            Err(e) => {
                self.rest().error = Some(e.clone());
                FAILED
            }
        };
        self.status.store(status, Ordering::Release);
        for run in self.take_runs() {
            run.tell(outcome);
        }
        self.wake();
    }

    fn moved(&self, places: Vec<Place>) {
        self.rest().places = places;
        self.status.store(MOVED, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // Taken after the status is set: who was not in looks at the status again.
        for waker in std::mem::take(&mut self.rest().waiters).into_values() {
            waker.wake();
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.status.load(Ordering::Acquire) == PENDING
    }

    /// The acknowledgement, if that is what became of the batch.
    #[inline(always)]
    pub(super) fn acknowledged(&self) -> Option<BatchAck> {
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

    /// What there is for the record with this index; `None` while pending.
    pub(super) fn find(&self, index: u32) -> Option<Found> {
        if self.is_pending() {
            return None;
        }
        if let Some(ack) = self.acknowledged() {
            return Some(Found::Acknowledged(ack));
        }
        let rest = self.rest();
        Some(match &rest.error {
            Some(error) => Found::Failed(error.clone()),
            None => Found::Moved(rest.places[index as usize].clone()),
        })
    }

    /// Where so many records from the one with this index on are, if they have moved.
    pub(super) fn places(&self, first: u32, records: u32) -> Option<Vec<Place>> {
        if self.status.load(Ordering::Acquire) != MOVED {
            return None;
        }
        let range = first as usize..(first + records) as usize;
        Some(self.rest().places[range].to_vec())
    }

    /// The timestamp of a record, as it was sent.
    #[inline]
    pub(super) fn timestamp_ms(&self, mark: Mark) -> i64 {
        if mark.behind() == Mark::FAR {
            return self.rest().far.get(&mark.index()).copied().unwrap_or_default();
        }
        self.opened_ms.load(Ordering::Relaxed) + i64::from(mark.behind())
    }

    /// `index` is that of a record that no other handle waits for.
    pub(super) fn poll(&self, index: u32, cx: &mut Context<'_>) -> Poll<Found> {
        if let Some(found) = self.find(index) {
            return Poll::Ready(found);
        }
        let mut rest = self.rest();
        // Ended in between: whoever ended it took the waiters before this one was in.
        if !self.is_pending() {
            drop(rest);
            return self.find(index).map_or(Poll::Pending, Poll::Ready);
        }
        if let Some(waker) = rest.waiters.get_mut(&index) {
            if !waker.will_wake(cx.waker()) {
                // Another task has the handle now. The one before may count on this place for other
                // records of the batch: it is to look again.
                let before = std::mem::replace(waker, cx.waker().clone());
                drop(rest);
                before.wake();
            }
            return Poll::Pending;
        }
        // One task that waits for many records of a batch needs one place, not one for each.
        if !rest.waiters.last_key_value().is_some_and(|(_, w)| w.will_wake(cx.waker())) {
            rest.waiters.insert(index, cx.waker().clone());
        }
        Poll::Pending
    }

    fn release(&'static self, shares: i64) {
        if self.shares.fetch_sub(shares, Ordering::Release) == shares {
            // What other threads did with their handles is done before the state is used anew.
            fence(Ordering::Acquire);
            self.recycle();
        }
    }

    fn recycle(&'static self) {
        // Places hold shares of other states: dropped without the lock.
        let places = {
            let mut rest = self.rest();
            rest.error = None;
            rest.waiters.clear();
            rest.far.clear();
            std::mem::take(&mut rest.places)
        };
        drop(places);
        self.status.store(PENDING, Ordering::Relaxed);
        self.slab.put_idle(self);
    }
}

impl fmt::Debug for BatchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchState").field("pending", &self.is_pending()).finish_non_exhaustive()
    }
}

/// The batch's own end of its state: gives out shares, and settles once.
#[derive(Debug)]
pub(crate) struct Owner {
    state: &'static BatchState,
    given: i64,
}

impl Owner {
    /// For a batch whose records have this timestamp, milliseconds since 1970, unless they have
    /// one of their own.
    pub(super) fn new(opened_ms: i64) -> Self {
        Self::of(&SLAB, opened_ms)
    }

    fn of(slab: &'static Slab, opened_ms: i64) -> Self {
        let state = slab.take_idle();
        state.opened_ms.store(opened_ms, Ordering::Relaxed);
        state.shares.store(UNSETTLED, Ordering::Relaxed);
        Self { state, given: 0 }
    }

    pub(super) fn state(&self) -> &BatchState {
        self.state
    }

    /// A share for a handle.
    #[inline]
    pub(super) fn share(&mut self) -> Share {
        self.given += 1;
        Share(self.state)
    }

    /// What the handle of a record has to know.
    #[inline]
    pub(super) fn mark(&self, index: u32, timestamp_ms: Option<i64>) -> Mark {
        match timestamp_ms {
            None => Mark::new(index, 0),
            Some(timestamp_ms) => self.mark_own(index, timestamp_ms),
        }
    }

    fn mark_own(&self, index: u32, timestamp_ms: i64) -> Mark {
        let behind = timestamp_ms.saturating_sub(self.state.opened_ms.load(Ordering::Relaxed));
        match i32::try_from(behind) {
            Ok(behind) if behind != Mark::FAR => Mark::new(index, behind),
            _ => {
                self.state.rest().far.insert(index, timestamp_ms);
                Mark::new(index, Mark::FAR)
            }
        }
    }

    /// Whether the share is one of this state.
    #[inline]
    pub(super) fn gave(&self, share: &Share) -> bool {
        std::ptr::eq(self.state, share.0)
    }

    /// Every record has this outcome.
    pub(super) fn resolve(self, outcome: &Outcome) {
        self.state.resolve(outcome);
    }

    /// In place of resolving: who waits is to look at its record's new place.
    pub(super) fn moved(self, places: Vec<Place>) {
        self.state.moved(places);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.state.release(UNSETTLED - self.given);
    }
}

/// A handle's part in a state.
pub(crate) struct Share(&'static BatchState);

impl Share {
    /// Whether both are of one state.
    pub(super) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }

    #[inline]
    pub(super) fn state(&self) -> &BatchState {
        self.0
    }
}

impl Clone for Share {
    fn clone(&self) -> Self {
        self.0.shares.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Drop for Share {
    #[inline]
    fn drop(&mut self) {
        if DROPPED.try_with(|dropped| dropped.count(self.0)).is_err() {
            // The thread is at its end.
            self.0.release(1);
        }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

thread_local! {
    static DROPPED: Dropped = const { Dropped(Cell::new((None, 0))) };
}

/// Shares that this thread has dropped and not released yet, all of one state.
struct Dropped(Cell<(Option<&'static BatchState>, i64)>);

impl Dropped {
    #[inline]
    fn count(&self, state: &'static BatchState) {
        match self.0.get() {
            (Some(last), n) if std::ptr::eq(last, state) => self.0.set((Some(last), n + 1)),
            _ => self.turn_to(Some(state)),
        }
    }

    #[cold]
    fn turn_to(&self, state: Option<&'static BatchState>) {
        // Set first: releasing may drop shares of other states.
        if let (Some(last), n) = self.0.replace((state, i64::from(state.is_some()))) {
            last.release(n);
        }
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        self.turn_to(None);
    }
}

/// States of the first block; each further one has twice as many.
const FIRST: usize = 64;
const BLOCKS: usize = 24;

static SLAB: Slab = Slab::new();

/// All states there are, in blocks that never go away.
struct Slab {
    blocks: [OnceLock<Box<[BatchState]>>; BLOCKS],
    grown: AtomicUsize,
    /// The list of idle states. Low half: the number of the first plus 1, or 0. High half: counts
    /// changes, so that a list that looks the same is the same. Not a lock, because a process may be
    /// forked at any moment, and a lock that another thread held then would be held for ever.
    idle: AtomicU64,
}

impl Slab {
    const fn new() -> Self {
        Self {
            blocks: [const { OnceLock::new() }; BLOCKS],
            grown: AtomicUsize::new(0),
            idle: AtomicU64::new(0),
        }
    }

    fn at(&'static self, number: u32) -> &'static BatchState {
        let n = number as usize + FIRST;
        let block = (n.ilog2() - FIRST.ilog2()) as usize;
        let states = self.blocks[block].get().expect("numbers are of blocks that exist");
        &states[n - (FIRST << block)]
    }

    fn take_idle(&'static self) -> &'static BatchState {
        let mut head = self.idle.load(Ordering::Acquire);
        while let Some(number) = (head as u32).checked_sub(1) {
            let state = self.at(number);
            let new = changed(head, state.next.load(Ordering::Relaxed));
            let swap =
                self.idle.compare_exchange_weak(head, new, Ordering::Acquire, Ordering::Acquire);
            match swap {
                Ok(_) => return state,
                Err(now) => head = now,
            }
        }
        self.grow()
    }

    fn put_idle(&self, state: &BatchState) {
        let mut head = self.idle.load(Ordering::Relaxed);
        loop {
            state.next.store(head as u32, Ordering::Relaxed);
            let new = changed(head, state.number + 1);
            let swap =
                self.idle.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed);
            match swap {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// A block more: one for the caller, the rest idle.
    #[cold]
    fn grow(&'static self) -> &'static BatchState {
        let block = self.grown.fetch_add(1, Ordering::Relaxed);
        assert!(block < BLOCKS, "a billion batches have handles");
        let first = (FIRST << block) - FIRST;
        let numbers = first..first + (FIRST << block);
        let states = self.blocks[block]
            .get_or_init(|| numbers.map(|number| BatchState::new(self, number as u32)).collect());
        for state in &states[1..] {
            self.put_idle(state);
        }
        &states[0]
    }
}

fn changed(head: u64, first: u32) -> u64 {
    (head >> 32).wrapping_add(1) << 32 | u64::from(first)
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
            shares: AtomicI64::new(0),
            rest: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn acked(base_offset: i64) -> Outcome {
        Ok(BatchAck { partition: 1, base_offset, append_time: None })
    }

    fn offset(share: &Share) -> Option<i64> {
        match share.state().find(0)? {
            Found::Acknowledged(ack) => Some(ack.base_offset),
            _ => panic!("neither failed nor moved"),
        }
    }

    /// States that no other test uses.
    fn slab() -> &'static Slab {
        Box::leak(Box::new(Slab::new()))
    }

    /// Until nothing is left: what is released may have held shares itself.
    fn release_dropped() {
        while DROPPED.with(|dropped| dropped.0.get().0.is_some()) {
            DROPPED.with(|dropped| dropped.turn_to(None));
        }
    }

    #[test]
    fn a_state_is_idle_once_all_handles_are_gone_and_not_before() {
        for settled_first in [true, false] {
            let slab = slab();
            let mut owner = Owner::of(slab, 0);
            let state = owner.state;
            let (kept, other) = (owner.share(), owner.share());
            if settled_first {
                owner.resolve(&acked(5));
                drop(other);
            } else {
                drop(other);
                release_dropped();
                owner.resolve(&acked(5));
            }
            release_dropped();
            assert_eq!((offset(&kept), state.shares.load(Ordering::Relaxed)), (Some(5), 1));
            drop(kept);
            release_dropped();
            assert_eq!(state.shares.load(Ordering::Relaxed), 0);
            assert!(state.is_pending() && std::ptr::eq(slab.take_idle(), state), "used again");
        }
    }

    #[test]
    fn a_state_that_moved_holds_its_places_until_it_is_gone() {
        let slab = slab();
        let (mut old, mut new) = (Owner::of(slab, 0), Owner::of(slab, 0));
        let target = new.state;
        let handle = old.share();
        old.moved(vec![Place { share: new.share(), mark: new.mark(7, None) }]);
        let Some(Found::Moved(place)) = handle.state().find(0) else { panic!("moved") };
        new.resolve(&Err(Error::closed("client")));
        drop(handle);
        release_dropped();
        assert_eq!((place.mark.index(), target.shares.load(Ordering::Relaxed)), (7, 1));
        let Some(Found::Failed(error)) = place.share.state().find(7) else { panic!("failed") };
        assert_eq!(error.kind(), ErrorKind::Closed);
        drop(place);
        release_dropped();
        assert_eq!(target.shares.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn timestamps_near_and_far() {
        let now = 1_700_000_000_000;
        let mut owner = Owner::new(now);
        let share = owner.share();
        let month = 31 * 86_400_000;
        for ms in [now, now + 1, now - 86_400_000, 0, now - month, now + month, i64::MAX] {
            let mark = owner.mark(3, Some(ms));
            assert_eq!(share.state().timestamp_ms(mark), ms);
        }
        assert_eq!(share.state().timestamp_ms(owner.mark(4, None)), now);
    }

    /// Many threads open, settle and drop handles that other threads gave out: every handle sees its
    /// own batch, whatever state is used again meanwhile.
    #[test]
    fn states_are_not_mixed_up() {
        let slab = slab();
        let (tx, rx) = std::sync::mpsc::sync_channel::<(Share, i64)>(512);
        let rx = std::sync::Arc::new(Mutex::new(rx));
        std::thread::scope(|scope| {
            let mut running = Vec::new();
            for thread in 0..3i64 {
                let tx = tx.clone();
                running.push(scope.spawn(move || {
                    for batch in 0..2_000 {
                        let mut owner = Owner::of(slab, 0);
                        let id = thread * 1_000_000 + batch;
                        let early: Vec<_> = (0..5).map(|_| owner.share()).collect();
                        assert!(early.iter().all(|share| offset(share).is_none()));
                        let late = owner.share();
                        owner.resolve(&acked(id));
                        for share in early {
                            tx.send((share, id)).unwrap();
                        }
                        assert_eq!(offset(&late), Some(id));
                    }
                }));
            }
            drop(tx);
            for _ in 0..3 {
                let rx = rx.clone();
                running.push(scope.spawn(move || {
                    loop {
                        let next = rx.lock().unwrap().recv();
                        let Ok((share, id)) = next else { break };
                        assert_eq!(offset(&share), Some(id));
                    }
                }));
            }
            // Joined by hand: a scope ends before what threads do at their very end.
            running.into_iter().for_each(|thread| thread.join().unwrap());
        });
        // Ended threads have released what they dropped: everything is idle again.
        let made: usize = (0..slab.grown.load(Ordering::Relaxed)).map(|block| FIRST << block).sum();
        assert!(made < 2_000, "{made} states made: none was used again");
        let idle: std::collections::HashSet<_> =
            (0..made).map(|_| std::ptr::from_ref(slab.take_idle())).collect();
        assert_eq!(idle.len(), made, "a state is lost, or twice in the list");
        assert_eq!(slab.idle.load(Ordering::Relaxed) as u32, 0);
    }
}
