//! One partition for itself: somebody takes what is fetched of it who takes nothing else, and the consumer is handed nothing
//! of it. What is there waits for no turn. All else (pause, seek, the group, a close) is as for the others.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::taking::Item;
use super::{Buffer, State};
use crate::cluster::Pool;
use crate::consumer::batch::Batch;
use crate::consumer::claim::Claim;
use crate::consumer::marks::Span;
use crate::consumer::partition_stream::StreamEnd;
use crate::consumer::slot::SlotId;
use crate::error::{Error, Result};

/// A partition that somebody takes by itself.
#[derive(Debug)]
pub(in crate::consumer) struct Part {
    slot: SlotId,
    /// A later one of the same number is another.
    born: u64,
    who: u64,
}

/// What was taken.
pub(in crate::consumer) struct Taking {
    pub(in crate::consumer) result: Result<Batch>,
    /// What could not be opened: it counts as in hand, until the next is asked for.
    pub(in crate::consumer) unreadable: Option<(Arc<Claim>, Span)>,
}

impl State {
    pub(super) fn taker(&self, slot: SlotId) -> Option<u64> {
        self.shelves.get(slot)?.taker
    }

    /// Whether there will be nothing more of it, and why.
    fn end_of(&self, part: &Part) -> Option<StreamEnd> {
        if self.closed {
            return Some(StreamEnd::Closed);
        }
        let shelf = self.shelves.get(part.slot).filter(|shelf| shelf.born == part.born);
        match (shelf, &self.seat) {
            (None, Some(_)) => Some(StreamEnd::Lost),
            (None, None) => Some(StreamEnd::Left),
            (Some(shelf), _) if shelf.withheld => Some(StreamEnd::GivenUp),
            _ => None,
        }
    }
}

impl Buffer {
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
        let who = state.takers;
        state.shelves.give_to(slot, Some(who));
        for batch in back().into_iter().rev() {
            state.shelves.return_to(slot, batch);
        }
        let born = state.shelves.get(slot).map_or(0, |shelf| shelf.born);
        drop(state);
        self.wake.notify_one();
        Ok(Part { slot, born, who })
    }

    /// The next of it; an error says that there is none any more.
    pub(in crate::consumer) fn poll_take_part(
        &self,
        part: &Part,
        pool: &Pool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Taking, StreamEnd>> {
        let mut waker = None;
        loop {
            let mut state = self.lock();
            if let Some(end) = state.end_of(part) {
                return Poll::Ready(Err(end));
            }
            if let Some(seat) = &mut state.seat {
                seat.asks_of_part();
            }
            let may = state.may_hand_out(|| pool.env().now());
            if let Some(taken) = may.then(|| state.shelves.pop_of(part.slot)).flatten() {
                if let Some(seat) = &mut state.seat {
                    seat.gives();
                }
                // Of a wait that nobody was woken from.
                let stale = state.wakers.take_of(part.who);
                let wake = taken.bytes > 0 && state.took(taken.source, taken.bytes);
                // Who takes nothing else has nothing to take now, however much there is of others.
                let is_empty = state.shelves.get(part.slot).is_none_or(|shelf| shelf.bytes == 0);
                if wake || is_empty && state.is_waited_for(taken.source) {
                    self.wake.notify_one();
                }
                drop(state);
                drop(stale);
                let mut unreadable = None;
                let shown = self.show_as(pool, Item::Taken(taken), |claim, span| {
                    unreadable = span.map(|span| (Arc::clone(claim), span));
                });
                match shown {
                    Some(result) => return Poll::Ready(Ok(Taking { result, unreadable })),
                    None => continue,
                }
            }
            if state.ended {
                return Poll::Ready(Err(StreamEnd::Closed));
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

    /// A wait for it was given up.
    pub(in crate::consumer) fn part_waits_no_more(&self, part: &Part) {
        self.waits_no_more(part.who);
    }

    /// The consumer takes it again, and first what comes back.
    pub(in crate::consumer) fn give_back(&self, part: &Part, back: Option<Batch>) {
        let mut state = self.lock();
        let is_there = state.taker(part.slot) == Some(part.who)
            && state.shelves.get(part.slot).is_some_and(|shelf| shelf.born == part.born);
        let mut ready = false;
        if is_there && !state.closed {
            state.shelves.give_to(part.slot, None);
            if let Some(batch) = back {
                batch.put_aside(i64::MIN, true);
                state.shelves.return_to(part.slot, batch);
            }
            ready = state.shelves.ready(part.slot);
        }
        Self::notify(state, ready, false);
        self.wake.notify_one();
    }
}
