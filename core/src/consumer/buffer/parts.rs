//! One partition for itself: somebody takes what is fetched of it who takes nothing else, and the consumer is handed nothing
//! of it. What is there waits for no turn. All else (pause, seek, the group, a close) is as for the others.
//!
//! Nobody waits for somebody else: what is queued for a stream is bounded by a share of the memory for each of them, and
//! says nothing of the others. The fetcher is told when little is left of that, and when somebody begins to wait with
//! nothing: however full memory is, it then fetches for him. Why a stream has ended is set once, by whoever takes
//! the partition away.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use super::queue::Shelves;
use super::seat::Reader;
use super::taking::Item;
use super::{Buffer, Key, State};
use crate::caught;
use crate::cluster::Pool;
use crate::consumer::WHO;
use crate::consumer::batch::Batch;
use crate::consumer::claim::{Claim, Standing};
use crate::consumer::marks::Span;
use crate::consumer::partition_stream::StreamEnd;
use crate::consumer::slot::SlotId;
use crate::error::{Error, Result};

/// All streams together have such a part of the memory for what they have not taken yet: each has its share of half of
/// that, since a response may bring as much again.
const PART: usize = 4;

/// A partition that somebody takes by itself.
#[derive(Debug)]
pub(in crate::consumer) struct Part {
    slot: SlotId,
    /// A later one of the same number is another.
    born: u64,
    who: u64,
    end: Arc<OnceLock<StreamEnd>>,
}

/// Who takes a partition by itself.
pub(super) struct Taker {
    pub(super) who: u64,
    pub(super) presence: Reader,
    /// Why there is no more of it, once that is so.
    pub(super) end: Arc<OnceLock<StreamEnd>>,
}

impl Taker {
    /// Whether he waits, and there is nothing for him.
    pub(super) fn starves(&self, shelves: &Shelves, slot: SlotId) -> bool {
        self.presence.waits && shelves.get(slot).is_some_and(|shelf| shelf.has_nothing())
    }
}

/// What was handed out, and is not finished.
pub(in crate::consumer) enum Back {
    Batch(Batch),
    Unreadable(Unreadable),
}

/// A batch that could not be opened, which was told. It counts as in hand until somebody asks for the next.
pub(in crate::consumer) struct Unreadable {
    pub(super) error: Error,
    pub(super) claim: Arc<Claim>,
    pub(super) span: Span,
}

impl Unreadable {
    /// It is passed over.
    pub(in crate::consumer) fn done(&self) {
        if let Some(marks) = self.claim.marks() {
            marks.done(&self.span, self.span.next);
        }
    }
}

impl Back {
    /// The application went elsewhere since.
    pub(super) fn is_left(&self) -> bool {
        let standing = match self {
            Self::Batch(batch) => batch.standing(),
            Self::Unreadable(unreadable) => unreadable.claim.standing(),
        };
        standing == Standing::Left
    }

    /// Nobody has it in hand, or somebody has again.
    pub(super) fn put_aside(&self, aside: bool) {
        match self {
            Self::Batch(batch) => batch.put_aside(i64::MIN, aside),
            Self::Unreadable(Unreadable { claim, span, .. }) => {
                if let Some(marks) = claim.marks() {
                    marks.put_aside(span, i64::MIN, aside);
                }
            }
        }
    }
}

/// What was taken.
pub(in crate::consumer) struct Taking {
    pub(in crate::consumer) result: Result<Batch>,
    pub(in crate::consumer) unreadable: Option<Unreadable>,
}

impl State {
    pub(super) fn taker(&self, slot: SlotId) -> Option<u64> {
        Some(self.shelves.get(slot)?.taker.as_ref()?.who)
    }

    fn taker_mut(&mut self, part: &Part) -> Option<&mut Taker> {
        let shelf = self.shelves.get_mut(part.slot).filter(|shelf| shelf.born == part.born)?;
        shelf.taker.as_mut().filter(|taker| taker.who == part.who)
    }

    /// Whether there will be nothing more of it, and why.
    fn end_of(&self, part: &Part) -> Option<StreamEnd> {
        if let Some(end) = part.end.get() {
            return Some(*end);
        }
        if self.closed {
            return Some(StreamEnd::Closed);
        }
        let is_withheld = self.shelves.get(part.slot).is_some_and(|shelf| shelf.withheld);
        is_withheld.then_some(StreamEnd::GivenUp)
    }
}

impl Buffer {
    /// How much may be queued of each partition that somebody takes by itself.
    pub(super) fn own_share(&self, state: &State) -> usize {
        (self.config.buffer_memory / PART / (state.shelves.own_count() + 1)).max(1)
    }

    /// Gives a partition to somebody by itself, with what was handed out of it and comes back, the first in front.
    pub(in crate::consumer) fn part(
        &self,
        topic: &str,
        partition: i32,
        back: impl FnOnce() -> Vec<Batch>,
    ) -> Result<Part> {
        let mut state = self.lock();
        let slot = state.slot(topic, partition)?;
        if state.taker(slot).is_some() {
            let words = format!("topic '{topic}' partition {partition} has a stream already");
            return Err(Error::argument(words).advise("drop that one first"));
        }
        state.takers += 1;
        let (who, end) = (state.takers, Arc::default());
        let taker = Taker { who, presence: Reader::default(), end: Arc::clone(&end) };
        state.shelves.give_to(slot, Some(taker));
        for batch in back().into_iter().rev() {
            state.shelves.return_to(slot, Back::Batch(batch));
        }
        let born = state.shelves.get(slot).map_or(0, |shelf| shelf.born);
        drop(state);
        self.wake.notify_one();
        Ok(Part { slot, born, who, end })
    }

    /// The next of it; an error says that there is none any more.
    pub(in crate::consumer) fn poll_take_part(
        &self,
        part: &Part,
        pool: &Pool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Taking, StreamEnd>> {
        // Cloning and dropping a waker is foreign code: neither happens under the lock.
        let mut waker = None;
        loop {
            let mut state = self.lock();
            if let Some(end) = state.end_of(part) {
                // Whoever has heard that has nothing in hand, and nothing to come back for.
                if let Some(taker) = state.taker_mut(part) {
                    taker.presence.waits = true;
                }
                return Poll::Ready(Err(end));
            }
            if let Some(taker) = state.taker_mut(part) {
                taker.presence.asks += 1;
            }
            if let Some(seat) = &state.seat {
                seat.attention.draw();
            }
            if let Some(item) = self.pop_of(&mut state, part, pool) {
                // Of a wait that nobody was woken from; and who waits for positions.
                let stale = state.wakers.take_of(part.who);
                let watches = std::mem::take(&mut state.watched);
                let watcher = watches.then(|| state.wakers.take_of(WHO)).flatten();
                drop(state);
                drop(stale);
                if let Some(waker) = watcher {
                    let _ = caught::call(move || waker.wake());
                }
                let mut told = None;
                if let Some(result) = self.show_as(pool, item, |unreadable| told = Some(unreadable))
                {
                    return Poll::Ready(Ok(Taking { result, unreadable: told }));
                }
                continue;
            }
            if state.ended {
                return Poll::Ready(Err(StreamEnd::Closed));
            }
            // He waits from now on: memory may be full of what nobody takes, and then nothing else tells the fetcher.
            let waits = state.taker_mut(part).map(|taker| &mut taker.presence.waits);
            if waits.is_some_and(|waits| !std::mem::replace(waits, true)) {
                self.wake.notify_one();
            }
            if state.wakers.knows(part.who, cx.waker()) {
                return Poll::Pending;
            }
            if let Some(waker) = waker.take() {
                let old = state.wakers.keep(part.who, waker);
                drop(state);
                drop(old);
                return Poll::Pending;
            }
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }

    /// Takes the next of it, if it may be handed out. The fetcher hears of it when little is left.
    fn pop_of(&self, state: &mut State, part: &Part, pool: &Pool) -> Option<Item> {
        if !state.may_hand_out(|| pool.env().now()) {
            return None;
        }
        let little = self.own_share(state) / 2;
        let queued = |state: &State| state.shelves.get(part.slot).map_or(0, |shelf| shelf.bytes);
        let before = queued(state);
        let taken = state.shelves.pop_of(part.slot)?;
        if let Some(taker) = state.taker_mut(part) {
            taker.presence.waits = false;
        }
        if self.is_filled(state, &taken) || before > little && queued(state) <= little {
            self.wake.notify_one();
        }
        Some(Item::Taken(taken))
    }

    /// Whether somebody takes one of these by itself, or has not let go of it yet.
    pub(in crate::consumer) fn is_taken(&self, partitions: &[Key]) -> bool {
        let state = self.lock();
        let slots =
            partitions.iter().filter_map(|(topic, number)| state.shelves.find(topic, *number));
        slots.into_iter().any(|slot| state.taker(slot).is_some())
    }

    /// A wait for it was given up: who reads it has to come back.
    pub(in crate::consumer) fn part_waits_no_more(&self, part: &Part) {
        let mut state = self.lock();
        let waker = state.wakers.take_of(part.who);
        if let Some(taker) = state.taker_mut(part) {
            taker.presence.waits = false;
        }
        drop(state);
        drop(waker);
    }

    /// The consumer takes it again, and first what comes back.
    pub(in crate::consumer) fn give_back(&self, part: &Part, back: Option<Back>) {
        // Nobody has it in hand any more, whatever has become of its partition.
        if let Some(back) = &back {
            back.put_aside(true);
        }
        let mut state = self.lock();
        let waker = state.wakers.take_of(part.who);
        let (mut back, mut ready) = (back, false);
        if state.taker_mut(part).is_some() {
            state.shelves.give_to(part.slot, None);
            if let Some(back) = back.take_if(|back| !state.closed && !back.is_left()) {
                state.shelves.return_to(part.slot, back);
            }
            ready = state.shelves.ready(part.slot);
        }
        if let Some(seat) = &state.seat {
            seat.attention.draw();
        }
        Self::notify(state, ready, false);
        self.wake.notify_one();
        drop((waker, back));
    }
}
