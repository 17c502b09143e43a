//! What the application has done of what it was handed: what a group's consumer may commit of a partition. Each range that
//! is handed out stays open until the application asks for more (or says by itself that it is done); what is committed
//! is where the lowest open range begins, and the position if none is open. So whatever ends the program, nothing that
//! it did not finish counts as done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::sync::Notify;

use crate::protocol::NO_EPOCH;

/// So many ranges of a partition may be open at once: what is never acknowledged must not take memory without end, and what
/// is acknowledged here and there neither. A range is a batch that is handed out, or what is left of one.
pub(crate) const MOST_OPEN: usize = 10_000;

/// A partition that had as many goes on once there are no more than these.
const OPEN_AGAIN: usize = MOST_OPEN / 4 * 3;

/// Wakes who sees to the membership when something that it waits for may have come about.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    pub(crate) wake: Notify,
    /// It waits for what the application does next.
    wanted: AtomicBool,
    /// How often a partition had [`MOST_OPEN`] ranges open, and how often that was over.
    filled: AtomicU64,
    freed: AtomicU64,
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

    /// How often a partition was full, and how often it was not any more.
    pub(crate) fn fillings(&self) -> (u64, u64) {
        // In this order: one that ends meanwhile counts as one that has not.
        let freed = self.freed.load(Ordering::SeqCst);
        (self.filled.load(Ordering::SeqCst), freed)
    }

    /// Some partition waits until more of what was handed out is finished.
    pub(crate) fn is_any_full(&self) -> bool {
        let (filled, freed) = self.fillings();
        filled != freed
    }
}

/// Where a log stands: an offset, and the leader epoch of what lies before it (-1: not known).
pub(crate) type Place = (i64, i32);

/// How far who hands the records of one batch on one by one has come. Each batch has its own: where somebody is in one
/// says nothing of another one, though its offsets may be the same (of a log that was cut back, or of a topic that was
/// made anew). Written without a lock, for each record.
#[derive(Debug)]
struct Walk {
    /// At this offset; -1: nobody is anywhere.
    at: AtomicI64,
    /// The same when it was looked whether the application has moved.
    seen: AtomicI64,
}

impl Walk {
    fn new() -> Arc<Self> {
        Arc::new(Self { at: AtomicI64::new(-1), seen: AtomicI64::new(-1) })
    }

    fn at(&self) -> i64 {
        self.at.load(Ordering::Acquire)
    }

    fn has_moved(&self) -> bool {
        let now = self.at.load(Ordering::Relaxed);
        self.seen.swap(now, Ordering::Relaxed) != now
    }
}

/// A range that is not finished.
#[derive(Clone, Debug)]
struct Open {
    next: i64,
    /// The epoch of what lies before it.
    before: i32,
    /// Its own.
    epoch: i32,
    /// Of its batch.
    walk: Arc<Walk>,
    /// It was not handed on yet, and waits.
    aside: bool,
    /// Who has it in hand, if that may end without having finished it.
    holder: Option<Weak<()>>,
}

impl Open {
    fn is_in_hand(&self) -> bool {
        !self.aside && self.holder.as_ref().is_none_or(|holder| holder.strong_count() > 0)
    }
}

/// One partition's, of one incarnation: what was handed out of another topic of the name says nothing of this one.
#[derive(Debug, Default)]
struct Ledger {
    incarnation: u64,
    /// By first offset.
    open: BTreeMap<i64, Open>,
    /// Behind all that was handed out.
    end: i64,
    /// Each time that the log was cut back below that: how far at most since then. A word for each unclean election.
    cuts: Vec<i64>,
    /// Of the batch that was handed out last.
    last: Option<Arc<Walk>>,
    /// The partition is read no more, or from elsewhere: whoever keeps batches of it holds nothing up.
    left: bool,
}

impl Ledger {
    /// The range that goes on across an offset ends there, and another begins. Gives where the first of them begins.
    fn cut(&mut self, at: i64) -> Option<i64> {
        let (first, open) = self.open.range_mut(..at).next_back()?;
        let (first, whole) = (*first, open.clone());
        if whole.next <= at {
            return None;
        }
        open.next = at;
        self.open.insert(at, Open { before: whole.epoch, ..whole });
        Some(first)
    }

    /// What there is still of a span between two offsets, if there is anything.
    fn part(&self, span: &Span, first: i64, next: i64) -> Option<(i64, i64)> {
        let (first, mut next) = (first.max(span.first), next.min(span.next));
        // What was cut before it was handed out says nothing of it.
        if let Some(low) = self.cuts.get(span.cuts) {
            next = next.min(*low);
        }
        (self.incarnation == span.incarnation && first < next).then_some((first, next))
    }

    /// What lies before where somebody is in a batch is finished, also when that is within another range later.
    fn note(&mut self, walk: &Arc<Walk>) {
        let at = walk.at();
        let is_there = |(_, open): &(&i64, &Open)| at < open.next && Arc::ptr_eq(&open.walk, walk);
        if self.open.range(..at).next_back().filter(is_there).is_some()
            && let Some(walked) = self.cut(at)
        {
            self.open.remove(&walked);
        }
    }

    /// The log is another one from here on: what was handed out of it is not there any more.
    fn cut_back(&mut self, at: i64) {
        if at >= self.end {
            return;
        }
        let across = self.open.range(..at).next_back().filter(|(_, open)| at < open.next);
        if let Some(walk) = across.map(|(_, open)| Arc::clone(&open.walk)) {
            self.note(&walk);
        }
        self.cut(at);
        self.open.split_off(&at);
        self.cuts.iter_mut().for_each(|low| *low = at.min(*low));
        self.cuts.push(at);
    }
}

/// What was handed out at once, to be marked as done later.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) incarnation: u64,
    pub(crate) first: i64,
    pub(crate) next: i64,
    /// The log was cut back so often before.
    cuts: usize,
    walk: Arc<Walk>,
}

impl Span {
    /// The record at this offset, of a batch that is not finished, is in hand: those before it are finished.
    #[inline]
    pub(crate) fn reached(&self, offset: i64) {
        self.walk.at.store(offset, Ordering::Release);
    }

    /// Where [`Self::reached`] writes.
    pub(crate) fn reached_word(&self) -> &AtomicI64 {
        &self.walk.at
    }
}

/// The ledger of a partition, from its assignment or a seek on until the next.
#[derive(Debug)]
pub(crate) struct Marks {
    ledger: Mutex<Ledger>,
    /// Who hands records on one by one has handed on this one last, if that says nothing of those before it.
    handed_on: Arc<Walk>,
    attention: Arc<Attention>,
    /// Nothing more is to be handed out now.
    full: AtomicBool,
    /// Something was finished while that was so: who works off what he has is there.
    works: AtomicBool,
}

impl Drop for Marks {
    fn drop(&mut self) {
        if *self.full.get_mut() {
            self.attention.freed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Marks {
    pub(crate) fn new(attention: &Arc<Attention>) -> Self {
        Self {
            ledger: Mutex::default(),
            handed_on: Walk::new(),
            attention: Arc::clone(attention),
            full: AtomicBool::new(false),
            works: AtomicBool::new(false),
        }
    }

    /// So much is open that nothing more is handed out until some of it is finished.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// Nothing more is handed out of it, for good.
    pub(crate) fn leave(&self) {
        let mut ledger = self.lock();
        ledger.left = true;
        self.weigh(ledger);
    }

    /// After each change of what is open.
    fn weigh(&self, ledger: MutexGuard<'_, Ledger>) {
        let open = if ledger.left { 0 } else { ledger.open.len() };
        let was = self.is_full();
        let is = if was { open > OPEN_AGAIN } else { open >= MOST_OPEN };
        if was != is {
            self.full.store(is, Ordering::SeqCst);
            let count = if is { &self.attention.filled } else { &self.attention.freed };
            count.fetch_add(1, Ordering::SeqCst);
        }
        drop(ledger);
        if was != is {
            self.attention.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The application is handed what lies between two places, read under an epoch.
    pub(crate) fn handed(&self, incarnation: u64, from: Place, to: Place) -> Span {
        let mut ledger = self.lock();
        if ledger.incarnation != incarnation {
            *ledger = Ledger { incarnation, ..Ledger::default() };
        }
        ledger.cut_back(from.0);
        let walk = Walk::new();
        let open = Open {
            next: to.0,
            before: from.1,
            epoch: to.1,
            walk: Arc::clone(&walk),
            aside: false,
            holder: None,
        };
        ledger.open.insert(from.0, open);
        ledger.end = to.0;
        ledger.last = Some(Arc::clone(&walk));
        let cuts = ledger.cuts.len();
        self.weigh(ledger);
        Span { incarnation, first: from.0, next: to.0, cuts, walk }
    }

    /// It has finished a span, or its beginning, up to `next`. Finishing twice, or what is not open any more, does
    /// nothing.
    pub(crate) fn done(&self, span: &Span, next: i64) {
        self.done_range(span, span.first, next);
    }

    /// It has finished what lies between two offsets of a span, in whatever order.
    pub(crate) fn done_range(&self, span: &Span, first: i64, next: i64) {
        let mut ledger = self.lock();
        let Some((first, next)) = ledger.part(span, first, next) else { return };
        cut_range(&mut ledger, span, first, next);
        let done: Vec<i64> = ledger.open.range(first..next).map(|(at, _)| *at).collect();
        let is_news = !done.is_empty();
        if is_news && self.is_full() {
            self.works.store(true, Ordering::Relaxed);
        }
        for at in done {
            ledger.open.remove(&at);
        }
        self.weigh(ledger);
        if is_news {
            self.attention.draw();
        }
    }

    /// What lies between two offsets of a span is finished apart from the rest: to have reached an offset behind it says nothing of
    /// it. For several who work on the records of one batch. `holder`: who works on it. Once that is gone nobody will finish it,
    /// and it is not waited for.
    pub(crate) fn set_apart(&self, span: &Span, first: i64, next: i64, holder: &Weak<()>) {
        self.each(span, first, next, |open| open.holder = Some(Weak::clone(holder)));
    }

    /// What is open of a span between two offsets.
    fn each(&self, span: &Span, first: i64, next: i64, mut of: impl FnMut(&mut Open)) {
        let mut ledger = self.lock();
        let Some((first, next)) = ledger.part(span, first, next) else { return };
        cut_range(&mut ledger, span, first, next);
        ledger.open.range_mut(first..next).for_each(|(_, open)| of(open));
        self.weigh(ledger);
    }

    /// The record at this offset is handed on, by whom records are handed on one by one.
    #[inline]
    pub(crate) fn hands_on(&self, offset: i64) {
        self.handed_on.at.store(offset, Ordering::Relaxed);
    }

    /// Where [`Self::hands_on`] writes.
    pub(crate) fn handed_on_word(&self) -> &AtomicI64 {
        &self.handed_on.at
    }

    /// Whether records were handed on one by one since the last look, or were finished of what is too much: the application is
    /// there, though it asks for no batch.
    pub(crate) fn has_moved(&self) -> bool {
        let works = self.works.swap(false, Ordering::Relaxed);
        let ledger = self.lock();
        // All are looked at, so that none is news the next time.
        let walks = ledger.open.values().map(|open| &open.walk).chain(&ledger.last);
        walks.fold(self.handed_on.has_moved() || works, |any, walk| walk.has_moved() || any)
    }

    /// Nobody has what lies from this offset on of a span in hand, or somebody has again.
    pub(crate) fn put_aside(&self, span: &Span, first: i64, aside: bool) {
        self.each(span, first, span.next, |open| open.aside = aside);
        self.attention.draw();
    }

    /// Whether the application has something that it did not finish.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().open.values().any(Open::is_in_hand)
    }

    /// From where on a span is not finished; `None`: all of it is.
    pub(crate) fn owed(&self, span: &Span) -> Option<i64> {
        let mut ledger = self.lock();
        let (first, next) = ledger.part(span, span.first, span.next)?;
        cut_range(&mut ledger, span, first, next);
        let is_of = |(_, open): &(&i64, &Open)| Arc::ptr_eq(&open.walk, &span.walk);
        ledger.open.range(first..next).find(is_of).map(|(at, _)| *at)
    }

    /// Up to where the application has worked, or does still: the end of what is in hand, or of what is finished without a
    /// gap; `None` if it was given nothing.
    pub(crate) fn worked(&self, incarnation: u64) -> Option<i64> {
        let ledger = self.lock();
        if ledger.incarnation != incarnation || ledger.last.is_none() {
            return None;
        }
        let in_hand = ledger.open.values().rfind(|open| open.is_in_hand()).map(|open| open.next);
        let end = (ledger.end, NO_EPOCH);
        drop(ledger);
        in_hand.or_else(|| Some(self.committable(incarnation, end).0))
    }

    /// From where the next reader is to go on, if the position is here.
    pub(crate) fn committable(&self, incarnation: u64, position: Place) -> Place {
        let ledger = self.lock();
        let lowest = ledger.open.first_key_value().filter(|_| ledger.incarnation == incarnation);
        // Before anything is handed out of a log that was cut back, the position is what counts.
        let lowest = lowest.filter(|(first, _)| **first < position.0);
        let Some((first, open)) = lowest else { return position };
        match open.walk.at() {
            at if *first < at && at < open.next => (at, open.epoch),
            _ => (*first, open.before),
        }
    }
}

/// What is open begins anew at both offsets.
fn cut_range(ledger: &mut Ledger, span: &Span, first: i64, next: i64) {
    ledger.note(&span.walk);
    ledger.cut(first);
    ledger.cut(next);
}

#[cfg(test)]
mod tests;
