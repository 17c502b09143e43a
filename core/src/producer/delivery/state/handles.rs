//! Counts in bulk how many handles look at a state.
//!
//! Sending a record must not touch a counter that other processors touch. So the number of handles that were
//! given out is a plain number of the open batch, which nobody else sees until the batch is resolved; and a
//! thread that drops handles of a batch one after the other counts them by itself, and subtracts them together
//! when it comes to another batch. A reference count would be two locked instructions a record, each of which
//! waits until the record's bytes have left the store buffer: a third of the cost of a send.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::Ordering;

use super::slab::{SLAB, Slab};
use super::{BatchState, RecordIndex, RecordLocation, Sent};
use crate::producer::delivery::BatchResult;

/// What the count starts from before a batch is resolved: more than there can be handles, so that drops before
/// that cannot bring it to zero.
const UNRESOLVED: i64 = 1 << 40;

/// The batch's own end of its state: gives out references, and resolves once.
#[derive(Debug)]
pub(crate) struct Owner {
    state: &'static BatchState,
    given: i64,
}

impl Owner {
    /// For a batch whose records have this timestamp (milliseconds since 1970) unless they bring their own.
    pub(in crate::producer) fn new(opened_ms: i64) -> Self {
        Self::of(&SLAB, opened_ms)
    }

    pub(super) fn of(slab: &'static Slab, opened_ms: i64) -> Self {
        let state = slab.take_idle();
        state.opened_ms.store(opened_ms, Ordering::Relaxed);
        state.refs.store(UNRESOLVED, Ordering::Relaxed);
        state.process.store(std::process::id(), Ordering::Relaxed);
        Self { state, given: 0 }
    }

    pub(in crate::producer) fn state(&self) -> &BatchState {
        self.state
    }

    /// A reference for a handle.
    #[inline]
    pub(in crate::producer) fn state_ref(&mut self) -> StateRef {
        self.given += 1;
        StateRef(self.state)
    }

    /// The mark for the handle of a record; `timestamp_ms`: the record's own timestamp, if it brought one.
    #[inline]
    pub(in crate::producer) fn record(&self, index: u32, timestamp_ms: Option<i64>) -> RecordIndex {
        match timestamp_ms {
            None => RecordIndex::new(index, 0),
            Some(timestamp_ms) => self.record_own(index, timestamp_ms),
        }
    }

    fn record_own(&self, index: u32, timestamp_ms: i64) -> RecordIndex {
        let delta_ms = timestamp_ms.saturating_sub(self.state.opened_ms.load(Ordering::Relaxed));
        match i32::try_from(delta_ms) {
            Ok(delta_ms) if delta_ms != RecordIndex::FAR => RecordIndex::new(index, delta_ms),
            _ => {
                self.state.rest().far.insert(index, timestamp_ms);
                RecordIndex::new(index, RecordIndex::FAR)
            }
        }
    }

    /// Whether the reference is one of this state.
    #[inline]
    pub(in crate::producer) fn gave(&self, state_ref: &StateRef) -> bool {
        std::ptr::eq(self.state, state_ref.0)
    }

    /// Resolves every record of the batch with this outcome.
    pub(in crate::producer) fn resolve(self, outcome: &BatchResult, of: &Sent<'_>) {
        self.state.resolve(outcome, of);
    }

    /// The same, for tests in which it does not matter who sent the records.
    #[cfg(test)]
    pub(in crate::producer::delivery) fn resolve_nobodys(self, outcome: &BatchResult) {
        let (topic, producers) = ("t".into(), Default::default());
        self.resolve(outcome, &Sent { topic: &topic, producers: &producers, records: 1 });
    }

    /// The records have moved to other batches: handles that wait look at their new places.
    pub(in crate::producer) fn moved(self, places: Vec<RecordLocation>) {
        self.state.moved(places);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.state.release(UNRESOLVED - self.given);
    }
}

/// A handle's counted reference to a state.
pub(crate) struct StateRef(&'static BatchState);

impl StateRef {
    /// Whether both are of one state.
    pub(in crate::producer) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }

    #[inline]
    pub(in crate::producer) fn state(&self) -> &BatchState {
        self.0
    }
}

impl Clone for StateRef {
    fn clone(&self) -> Self {
        self.0.refs.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Drop for StateRef {
    #[inline]
    fn drop(&mut self) {
        if DROPPED.try_with(|dropped| dropped.count(self.0)).is_err() {
            // The thread is at its end.
            self.0.release(1);
        }
    }
}

impl fmt::Debug for StateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

thread_local! {
    static DROPPED: Dropped = const { Dropped(Cell::new((None, 0))) };
}

/// References that this thread has dropped and not released yet, all of one state.
struct Dropped(Cell<(Option<&'static BatchState>, i64)>);

impl Dropped {
    #[inline]
    fn count(&self, state: &'static BatchState) {
        match self.0.get() {
            (Some(last), n) if std::ptr::eq(last, state) => self.0.set((Some(last), n + 1)),
            _ => self.switch_to(Some(state)),
        }
    }

    #[cold]
    fn switch_to(&self, state: Option<&'static BatchState>) {
        // Set first: releasing may drop references of other states.
        if let (Some(last), n) = self.0.replace((state, i64::from(state.is_some()))) {
            last.release(n);
        }
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        self.switch_to(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::producer::delivery::BatchAck;
    use crate::producer::delivery::state::Resolved;

    fn acked(base_offset: i64) -> BatchResult {
        Ok(BatchAck { partition: 1, base_offset, append_time: None })
    }

    fn offset(state_ref: &StateRef) -> Option<i64> {
        match state_ref.state().find(0)? {
            Resolved::Acknowledged(ack) => Some(ack.base_offset),
            _ => panic!("neither failed nor moved"),
        }
    }

    /// States that no other test uses.
    fn slab() -> &'static Slab {
        Box::leak(Box::new(Slab::new()))
    }

    /// Until nothing is left: what is released may have held references itself.
    fn release_dropped() {
        while DROPPED.with(|dropped| dropped.0.get().0.is_some()) {
            DROPPED.with(|dropped| dropped.switch_to(None));
        }
    }

    #[test]
    fn a_state_is_idle_once_all_handles_are_gone_and_not_before() {
        for resolved_first in [true, false] {
            let slab = slab();
            let mut owner = Owner::of(slab, 0);
            let state = owner.state;
            let (kept, other) = (owner.state_ref(), owner.state_ref());
            if resolved_first {
                owner.resolve_nobodys(&acked(5));
                drop(other);
            } else {
                drop(other);
                release_dropped();
                owner.resolve_nobodys(&acked(5));
            }
            release_dropped();
            assert_eq!((offset(&kept), state.refs.load(Ordering::Relaxed)), (Some(5), 1));
            drop(kept);
            release_dropped();
            assert_eq!(state.refs.load(Ordering::Relaxed), 0);
            assert!(state.is_pending() && std::ptr::eq(slab.take_idle(), state), "used again");
        }
    }

    #[test]
    fn a_state_that_moved_holds_its_places_until_it_is_gone() {
        let slab = slab();
        let (mut old, mut new) = (Owner::of(slab, 0), Owner::of(slab, 0));
        let target = new.state;
        let handle = old.state_ref();
        old.moved(vec![RecordLocation { state_ref: new.state_ref(), record: new.record(7, None) }]);
        let Some(Resolved::Moved(place)) = handle.state().find(0) else { panic!("moved") };
        new.resolve_nobodys(&Err(Error::closed("client")));
        drop(handle);
        release_dropped();
        assert_eq!((place.record.index(), target.refs.load(Ordering::Relaxed)), (7, 1));
        let Some(Resolved::Failed(error)) = place.state_ref.state().find(7) else {
            panic!("failed")
        };
        assert_eq!(error.kind(), ErrorKind::Closed);
        drop(place);
        release_dropped();
        assert_eq!(target.refs.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn timestamps_near_and_far() {
        let now = 1_700_000_000_000;
        let mut owner = Owner::new(now);
        let state_ref = owner.state_ref();
        let month = 31 * 86_400_000;
        for ms in [now, now + 1, now - 86_400_000, 0, now - month, now + month, i64::MAX] {
            let record = owner.record(3, Some(ms));
            assert_eq!(state_ref.state().timestamp_ms(record), ms);
        }
        assert_eq!(state_ref.state().timestamp_ms(owner.record(4, None)), now);
    }

    /// What it was before says nothing about what it is now.
    #[test]
    fn a_state_that_is_used_again_remembers_nothing() {
        let slab = slab();
        let mut owner = Owner::of(slab, 0);
        let state = owner.state;
        let far = owner.record(3, Some(i64::MAX));
        let state_ref = owner.state_ref();
        assert_eq!(state_ref.state().timestamp_ms(far), i64::MAX);
        owner.resolve_nobodys(&Err(Error::closed("client")));
        drop(state_ref);
        release_dropped();
        let mut owner = Owner::of(slab, 0);
        assert!(std::ptr::eq(owner.state, state), "used again");
        assert!(state.rest().far.is_empty());
        let (state_ref, mut other) = (owner.state_ref(), Owner::of(slab, 0));
        owner.moved(vec![RecordLocation {
            state_ref: other.state_ref(),
            record: other.record(7, None),
        }]);
        assert!(matches!(state_ref.state().find(0), Some(Resolved::Moved(_))));
        other.resolve_nobodys(&acked(5));
    }
}
