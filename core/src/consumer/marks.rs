//! What the application has done of what it was handed: what a group's consumer may commit of a partition. Each range that
//! is handed out stays open until the application asks for more (or says by itself that it is done); what is committed
//! is where the lowest open range begins, and the position if none is open. So whatever ends the program, nothing that
//! it did not finish counts as done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// Wakes who sees to the membership when something that it waits for may have come about.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    pub(crate) wake: Notify,
    /// It waits for what the application does next.
    wanted: AtomicBool,
}

impl Attention {
    /// Wanted from now on, until it was drawn once.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::SeqCst);
    }

    /// The application has done something.
    pub(crate) fn draw(&self) {
        if self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }
}

/// Where a log stands: an offset, and the leader epoch of what lies before it (-1: not known).
pub(crate) type Place = (i64, i32);

/// A range that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    next: i64,
    /// The epoch of what lies before it.
    before: i32,
    /// Its own.
    epoch: i32,
}

/// One partition's, of one incarnation: what was handed out of another topic of the name says nothing of this one.
#[derive(Debug, Default)]
struct Ledger {
    incarnation: u64,
    /// By first offset.
    open: BTreeMap<i64, Open>,
}

/// What was handed out at once, to be marked as done later.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) incarnation: u64,
    pub(crate) first: i64,
    pub(crate) next: i64,
}

/// The ledger of a partition, from its assignment or a seek on until the next.
#[derive(Debug)]
pub(crate) struct Marks {
    ledger: Mutex<Ledger>,
    /// Who hands the records of a batch on one by one is at this offset; -1: nobody is anywhere. Looked at with the ledger,
    /// and written without it, for each record.
    reached: AtomicI64,
    attention: Arc<Attention>,
}

impl Marks {
    pub(crate) fn new(attention: &Arc<Attention>) -> Self {
        let (ledger, reached) = (Mutex::default(), AtomicI64::new(-1));
        Self { ledger, reached, attention: Arc::clone(attention) }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The application is handed what lies between two places, read under an epoch.
    pub(crate) fn handed(&self, incarnation: u64, from: Place, to: Place) -> Span {
        let mut ledger = self.lock();
        if ledger.incarnation != incarnation {
            *ledger = Ledger { incarnation, open: BTreeMap::new() };
        }
        let open = Open { next: to.0, before: from.1, epoch: to.1 };
        ledger.open.insert(from.0, open);
        Span { incarnation, first: from.0, next: to.0 }
    }

    /// It has finished a span, or its beginning, up to `next`. Finishing twice, or what is not open any more, does
    /// nothing.
    pub(crate) fn done(&self, span: &Span, next: i64) {
        let mut ledger = self.lock();
        if ledger.incarnation != span.incarnation {
            return;
        }
        // The beginning of it may be done already.
        let Some((first, open)) = ledger.open.range(span.first..span.next).next() else { return };
        let (first, open) = (*first, *open);
        if open.next > span.next || next <= first {
            return;
        }
        ledger.open.remove(&first);
        if next < open.next {
            ledger.open.insert(next, Open { before: open.epoch, ..open });
        }
        drop(ledger);
        self.attention.draw();
    }

    /// The record at this offset, of a batch that is not finished, is in hand: those before it are finished.
    #[inline]
    pub(crate) fn reached(&self, offset: i64) {
        self.reached.store(offset, Ordering::Release);
    }

    /// Where [`Self::reached`] writes.
    pub(crate) fn reached_word(&self) -> &AtomicI64 {
        &self.reached
    }

    /// Whether the application has something that it did not finish.
    pub(crate) fn is_open(&self) -> bool {
        !self.lock().open.is_empty()
    }

    /// From where the next reader is to go on, if the position is here.
    pub(crate) fn committable(&self, incarnation: u64, position: Place) -> Place {
        let ledger = self.lock();
        let lowest = ledger.open.first_key_value().filter(|_| ledger.incarnation == incarnation);
        let Some((first, open)) = lowest else { return position };
        match self.reached.load(Ordering::Acquire) {
            at if *first < at && at < open.next => (at, open.epoch),
            _ => (*first, open.before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        Marks::new(&Arc::default())
    }

    #[test]
    fn what_is_not_finished_is_read_again() {
        let marks = marks();
        assert_eq!(marks.committable(1, (10, 3)), (10, 3), "nothing was handed out");
        let a = marks.handed(1, (10, 3), (20, 4));
        let b = marks.handed(1, (20, 4), (30, 5));
        let c = marks.handed(1, (30, 5), (33, 5));
        let at = || marks.committable(1, (35, 6));
        assert_eq!(at(), (10, 3));
        // Out of order: the lowest counts.
        marks.done(&b, 30);
        assert_eq!(at(), (10, 3));
        marks.done(&a, 15);
        assert_eq!(at(), (15, 4), "as far as it has come");
        marks.done(&a, 15);
        marks.done(&a, 12);
        assert_eq!(at(), (15, 4));
        marks.done(&a, 20);
        assert_eq!(at(), (30, 5));
        marks.done(&c, 33);
        // What is passed without being handed out counts once nothing is open.
        assert_eq!((at(), marks.is_open()), ((35, 6), false));
        marks.done(&a, 20);
        assert_eq!(at(), (35, 6));
    }

    #[test]
    fn of_a_batch_whose_records_are_handed_on_one_by_one_those_before_the_one_in_hand_are_finished()
    {
        let marks = marks();
        let span = marks.handed(1, (10, 3), (20, 4));
        for (reached, at) in [(10, (10, 3)), (11, (11, 4)), (19, (19, 4))] {
            marks.reached(reached);
            assert_eq!(marks.committable(1, (20, 4)), at);
        }
        let next = marks.handed(1, (20, 4), (30, 4));
        marks.done(&span, 20);
        assert_eq!(
            marks.committable(1, (30, 4)),
            (20, 4),
            "where it was in another one says nothing"
        );
        marks.reached(25);
        assert_eq!(marks.committable(1, (30, 4)), (25, 4));
        marks.done(&next, 30);
        assert_eq!(marks.committable(1, (30, 4)), (30, 4));
    }

    /// lr2782: offsets of one partition were committed for another of its name.
    #[test]
    fn what_another_incarnation_left_open_says_nothing() {
        let marks = marks();
        let old = marks.handed(1, (10, 3), (20, 3));
        assert_eq!(marks.committable(2, (0, -1)), (0, -1));
        let new = marks.handed(2, (0, -1), (15, 0));
        marks.done(&old, 20);
        assert_eq!(marks.committable(2, (15, 0)), (0, -1));
        marks.done(&new, 15);
        assert_eq!(marks.committable(2, (15, 0)), (15, 0));
    }

    #[test]
    fn who_waits_is_woken_once() {
        let attention = Arc::new(Attention::default());
        let marks = Marks::new(&attention);
        let is_woken = || {
            let notified = std::pin::pin!(attention.wake.notified());
            notified.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        let span = marks.handed(1, (0, -1), (2, 0));
        marks.done(&span, 1);
        assert!(!is_woken(), "nobody waits");
        attention.want();
        marks.done(&span, 2);
        assert!(is_woken() && !is_woken());
        attention.draw();
        assert!(!is_woken());
    }
}
