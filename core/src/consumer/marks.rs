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
    /// How often the log was cut back below what had been handed out, and how far at most.
    cuts: u64,
    cut_at: i64,
}

impl Ledger {
    /// The range that goes on across an offset ends there, and another begins. Gives where the first of them begins.
    fn cut(&mut self, at: i64) -> Option<i64> {
        let (first, open) = self.open.range_mut(..at).next_back()?;
        let (first, whole) = (*first, *open);
        if whole.next <= at {
            return None;
        }
        open.next = at;
        self.open.insert(at, Open { before: whole.epoch, ..whole });
        Some(first)
    }
}

/// What was handed out at once, to be marked as done later.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) incarnation: u64,
    pub(crate) first: i64,
    pub(crate) next: i64,
    /// The log was cut back so often before.
    cuts: u64,
}

/// The ledger of a partition, from its assignment or a seek on until the next.
#[derive(Debug)]
pub(crate) struct Marks {
    ledger: Mutex<Ledger>,
    /// Who hands the records of a batch on one by one is at this offset; -1: nobody is anywhere. Looked at with the ledger,
    /// and written without it, for each record.
    reached: AtomicI64,
    /// Who hands records on one by one has handed on this one last, if that says nothing of those before it.
    handed_on: AtomicI64,
    /// Both, as they were when it was looked whether the application has moved.
    seen: [AtomicI64; 2],
    /// Nobody has any of it in hand: what is open was not handed on yet, and waits.
    aside: AtomicBool,
    attention: Arc<Attention>,
}

impl Marks {
    pub(crate) fn new(attention: &Arc<Attention>) -> Self {
        let nowhere = || AtomicI64::new(-1);
        Self {
            ledger: Mutex::default(),
            reached: nowhere(),
            handed_on: nowhere(),
            seen: [nowhere(), nowhere()],
            aside: AtomicBool::new(false),
            attention: Arc::clone(attention),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The application is handed what lies between two places, read under an epoch.
    pub(crate) fn handed(&self, incarnation: u64, from: Place, to: Place) -> Span {
        let mut ledger = self.lock();
        if ledger.incarnation != incarnation {
            *ledger = Ledger { incarnation, cut_at: i64::MAX, ..Ledger::default() };
            self.reached.store(-1, Ordering::Release);
        }
        let open = Open { next: to.0, before: from.1, epoch: to.1 };
        // What was handed out from here on before is not in the log any more.
        ledger.cut(from.0);
        if !ledger.open.split_off(&from.0).is_empty() {
            ledger.cuts += 1;
            ledger.cut_at = ledger.cut_at.min(from.0);
            self.reached.store(-1, Ordering::Release);
        }
        ledger.open.insert(from.0, open);
        Span { incarnation, first: from.0, next: to.0, cuts: ledger.cuts }
    }

    /// It has finished a span, or its beginning, up to `next`. Finishing twice, or what is not open any more, does
    /// nothing.
    pub(crate) fn done(&self, span: &Span, next: i64) {
        self.done_range(span, span.first, next);
    }

    /// It has finished what lies between two offsets of a span, in whatever order.
    pub(crate) fn done_range(&self, span: &Span, first: i64, next: i64) {
        let (first, mut next) = (first.max(span.first), next.min(span.next));
        let mut ledger = self.lock();
        if span.cuts != ledger.cuts {
            next = next.min(ledger.cut_at);
        }
        if ledger.incarnation != span.incarnation || first >= next {
            return;
        }
        self.cut_range(&mut ledger, first, next);
        let done: Vec<i64> = ledger.open.range(first..next).map(|(at, _)| *at).collect();
        let is_news = !done.is_empty();
        for at in done {
            ledger.open.remove(&at);
        }
        drop(ledger);
        if is_news {
            self.attention.draw();
        }
    }

    /// What lies between two offsets of a span is finished apart from the rest: to have reached an offset behind it says nothing of
    /// it. For several who work on the records of one batch.
    pub(crate) fn set_apart(&self, span: &Span, first: i64, next: i64) {
        let mut ledger = self.lock();
        if ledger.incarnation == span.incarnation {
            self.cut_range(&mut ledger, first.max(span.first), next.min(span.next));
        }
    }

    /// What is open begins anew at both offsets. What was reached is noted in the ledger first: later that may be
    /// within another range.
    fn cut_range(&self, ledger: &mut Ledger, first: i64, next: i64) {
        let reached = self.reached.load(Ordering::Acquire);
        if let Some(walked) = ledger.cut(reached) {
            ledger.open.remove(&walked);
        }
        ledger.cut(first);
        ledger.cut(next);
    }

    /// The record at this offset, of a batch that is not finished, is in hand: those before it are finished.
    #[inline]
    pub(crate) fn reached(&self, offset: i64) {
        self.reached.store(offset, Ordering::Release);
    }

    /// The record at this offset is handed on, by whom records are handed on one by one.
    #[inline]
    pub(crate) fn hands_on(&self, offset: i64) {
        self.handed_on.store(offset, Ordering::Relaxed);
    }

    /// Whether records were handed on one by one since the last look: the application is there, though it asks for no batch.
    pub(crate) fn has_moved(&self) -> bool {
        let now = [&self.reached, &self.handed_on].map(|at| at.load(Ordering::Relaxed));
        let before = [0, 1].map(|i| self.seen[i].swap(now[i], Ordering::Relaxed));
        now != before
    }

    /// Nobody has any of it in hand, or somebody has again.
    pub(crate) fn put_aside(&self, aside: bool) {
        self.aside.store(aside, Ordering::Release);
        self.attention.draw();
    }

    /// Where [`Self::reached`] writes.
    pub(crate) fn reached_word(&self) -> &AtomicI64 {
        &self.reached
    }

    /// Whether the application has something that it did not finish.
    pub(crate) fn is_open(&self) -> bool {
        !self.aside.load(Ordering::Acquire) && !self.lock().open.is_empty()
    }

    /// From where the next reader is to go on, if the position is here.
    pub(crate) fn committable(&self, incarnation: u64, position: Place) -> Place {
        let ledger = self.lock();
        let lowest = ledger.open.first_key_value().filter(|_| ledger.incarnation == incarnation);
        // Before anything is handed out of a log that was cut back, the position is what counts.
        let lowest = lowest.filter(|(first, _)| **first < position.0);
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

    #[test]
    fn single_offsets_are_finished_in_any_order() {
        let marks = marks();
        let span = marks.handed(1, (10, 3), (20, 4));
        let at = || marks.committable(1, (20, 4));
        marks.done_range(&span, 15, 16);
        marks.done_range(&span, 12, 13);
        assert_eq!(at(), (10, 3));
        marks.done_range(&span, 10, 11);
        assert_eq!(at(), (11, 4));
        marks.done_range(&span, 11, 12);
        assert_eq!(at(), (13, 4), "across what was finished before");
        marks.done_range(&span, 15, 15);
        marks.done_range(&span, 16, 15);
        assert_eq!(at(), (13, 4));
        marks.done_range(&span, i64::MIN, 15);
        assert_eq!(at(), (16, 4));
        // Behind its end is another's.
        let next = marks.handed(1, (20, 4), (30, 4));
        marks.done_range(&span, 16, i64::MAX);
        assert_eq!(marks.committable(1, (30, 4)), (20, 4));
        marks.done(&next, 30);
        assert!(!marks.is_open());
        // All of it, however it was taken apart.
        let span = marks.handed(1, (30, 4), (40, 4));
        marks.done_range(&span, 33, 34);
        marks.done(&span, 40);
        assert!(!marks.is_open());
    }

    #[test]
    fn what_was_reached_is_finished_whatever_is_acknowledged_behind_it() {
        let marks = marks();
        let span = marks.handed(1, (10, 3), (20, 4));
        marks.reached(14);
        marks.done_range(&span, 14, 15);
        assert_eq!(marks.committable(1, (20, 4)), (15, 4));
        marks.reached(15);
        marks.reached(17);
        marks.done_range(&span, 18, 19);
        assert_eq!(marks.committable(1, (20, 4)), (17, 4));
    }

    #[test]
    fn what_is_set_apart_is_not_finished_by_who_comes_behind_it() {
        let marks = marks();
        let span = marks.handed(1, (10, 3), (20, 4));
        marks.reached(12);
        // Another goes on behind it.
        marks.set_apart(&span, 12, 13);
        marks.reached(13);
        marks.reached(17);
        assert_eq!(marks.committable(1, (20, 4)), (12, 4));
        marks.done_range(&span, 12, 13);
        assert_eq!(marks.committable(1, (20, 4)), (17, 4));
    }

    /// After an unclean election offsets are given again.
    #[test]
    fn what_a_log_that_was_cut_back_has_no_more_is_neither_open_nor_done() {
        let marks = marks();
        let low = marks.handed(1, (40, 1), (60, 1));
        let high = marks.handed(1, (60, 1), (100, 1));
        assert_eq!(marks.committable(1, (50, 1)), (40, 1));
        marks.done(&low, 45);
        // It goes on at 50.
        let new = marks.handed(1, (50, 1), (70, 2));
        marks.done(&high, 100);
        marks.done(&low, 60);
        assert_eq!(marks.committable(1, (70, 2)), (50, 1), "those of before say nothing of it");
        marks.done(&new, 70);
        assert_eq!(marks.committable(1, (70, 2)), (70, 2));
        assert!(!marks.is_open());
        marks.handed(1, (70, 2), (80, 2));
        assert_eq!(
            marks.committable(1, (65, 2)),
            (65, 2),
            "cut back, and nothing handed out since"
        );
    }

    /// lr2782: offsets of one partition were committed for another of its name.
    #[test]
    fn what_another_incarnation_left_open_says_nothing() {
        let marks = marks();
        let old = marks.handed(1, (10, 3), (20, 3));
        assert_eq!(marks.committable(2, (0, -1)), (0, -1));
        marks.reached(12);
        let new = marks.handed(2, (0, -1), (15, 0));
        assert_eq!(marks.committable(2, (15, 0)), (0, -1));
        marks.done(&old, 20);
        assert_eq!(marks.committable(2, (15, 0)), (0, -1));
        marks.done(&new, 15);
        assert_eq!(marks.committable(2, (15, 0)), (15, 0));
    }

    #[test]
    fn who_hands_records_on_is_there() {
        let marks = marks();
        assert!(!marks.has_moved());
        marks.handed(1, (0, -1), (9, 0));
        assert!(!marks.has_moved());
        marks.reached(3);
        assert!(marks.has_moved() && !marks.has_moved());
        marks.hands_on(3);
        assert!(marks.has_moved() && !marks.has_moved());
        marks.reached(3);
        assert!(!marks.has_moved());
    }

    #[test]
    fn what_is_put_aside_is_in_nobodys_hand_and_not_finished() {
        let marks = marks();
        let span = marks.handed(1, (10, 3), (20, 4));
        marks.done_range(&span, 10, 14);
        marks.put_aside(true);
        assert_eq!((marks.is_open(), marks.committable(1, (20, 4))), (false, (14, 4)));
        marks.put_aside(false);
        assert!(marks.is_open());
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
