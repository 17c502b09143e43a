//! Between the fetcher and the application: what was fetched and not handed out yet, within a byte budget,
//! and where each partition stands. [`queue`] has a queue for each partition and decides whose turn it is.
//!
//! Here is what the fetcher does with it; [`taking`] and [`commands`] are the application's side.

mod commands;
mod parts;
mod queue;
mod ring;
mod seat;
mod taking;
mod wakers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use uuid::Uuid;

use super::budget::Budget;
use super::slot::SlotId;
use crate::caught;
use crate::config::{ConsumerConfig, Start};
use crate::consumer::WHO;
use crate::consumer::marks::Attention;
use crate::error::Error;
use crate::protocol::NO_EPOCH;

use queue::{Notice, Shelf, Shelves};
use wakers::Wakers;

pub(super) use parts::{Back, Part, Unreadable};
pub(super) use queue::{Amount, ENTRY_BYTES, Fetched, Then};
use seat::Seat;
pub(super) use seat::{Lease, Presence};

pub(super) type Key = (Arc<str>, i32);

/// At most this many errors that concern no single partition are kept for an application that does not read:
/// trouble may come and go for days.
const MAX_ERRORS: usize = 1_000;

/// Where a partition is read from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Begin {
    pub(super) start: Start,
    /// The leader epoch of what lies before an offset; -1: it is not known.
    pub(super) epoch: i32,
    /// Where to go on if the records there are gone.
    pub(super) reset: Start,
    /// Of a topic with this id only; nil: of whichever has the name.
    pub(super) id: Uuid,
}

impl From<Start> for Begin {
    /// As the application has chosen it.
    fn from(start: Start) -> Self {
        Self { start, epoch: NO_EPOCH, reset: start, id: Uuid::nil() }
    }
}

/// What the application wants, for the fetcher.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    /// Reads a partition, which has a number already.
    Assign { slot: SlotId, incarnation: u64, key: Key, begin: Begin },
    /// Does not read it any more: the number is free.
    Unassign { slot: SlotId, key: Key },
    /// Goes on elsewhere, if `seek` says so, or is paused, or is not.
    Change { slot: SlotId, incarnation: u64, seek: Option<Start>, paused: bool },
}

#[derive(Default)]
struct State {
    shelves: Shelves,
    /// Errors that concern no single partition; they go before batches.
    news: VecDeque<Error>,
    /// One of them was the last that was handed out: a batch goes first, so that many of them delay none.
    was_news: bool,
    /// Nothing comes after it.
    last_word: Option<Error>,
    commands: Vec<Command>,
    marks: Marks,
    wakers: Wakers,
    /// The number of who was given a partition for himself last.
    takers: u64,
    /// Somebody waits for a position that may be reached without a batch.
    watched: bool,
    /// Of a member of a group.
    seat: Option<Seat>,
    closed: bool,
    /// The fetcher has ended; what is there can still be taken.
    ended: bool,
}

/// What the fetcher sees of the buffer.
pub(super) struct Survey {
    /// Partitions of which something came or was taken since the last one.
    pub(super) amounts: Vec<Amount>,
    /// How many bytes may come.
    pub(super) free: usize,
    /// There is nothing that a reader could take: only what is paused, or a stream's.
    pub(super) dry: bool,
    /// Partitions that somebody reads alone, and whether he waits and has nothing.
    pub(super) own: BTreeMap<SlotId, bool>,
    /// How many bytes may be queued of each of those.
    pub(super) own_share: usize,
}

/// When the fetcher is to be woken, although it is told nothing.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// So many bytes of this broker's partitions were taken.
    pub(super) taken: Vec<(i32, usize)>,
    /// So many are free, or (`dry`) nothing is left that could be taken.
    pub(super) free: Option<usize>,
    pub(super) dry: bool,
}

impl State {
    fn is_dry(&self) -> bool {
        self.shelves.bytes == self.shelves.held
    }

    /// So many bytes of a broker's partitions were taken. Gives whether the fetcher waits for that.
    fn took(&mut self, source: i32, bytes: usize) -> bool {
        let mut wake = false;
        self.marks.taken.retain_mut(|(of, left)| {
            if *of == source {
                *left = left.saturating_sub(bytes);
            }
            wake |= *left == 0;
            *left > 0
        });
        let is_dry = self.marks.dry && self.is_dry();
        if self.marks.free.is_some() && is_dry {
            self.marks.free = None;
            wake = true;
        }
        wake
    }
}

/// The buffer of one consumer.
pub(super) struct Buffer {
    pub(super) config: ConsumerConfig,
    state: Mutex<State>,
    /// Wakes the fetcher: space, a command, or the end.
    pub(super) wake: Arc<Notify>,
    /// What is fetched and kept anywhere.
    pub(super) budget: Arc<Budget>,
}

impl Buffer {
    pub(super) fn new(config: ConsumerConfig) -> Self {
        let wake = Arc::new(Notify::new());
        let budget = Budget::new(config.buffer_memory, &wake);
        Self { config, state: Mutex::default(), wake, budget }
    }

    /// Of a member of a group: nothing is read but what the group gives it.
    pub(super) fn of_member(config: ConsumerConfig, attention: &Arc<Attention>) -> Self {
        let buffer = Self::new(config);
        let mut state = buffer.lock();
        state.seat = Some(Seat::new(attention));
        state.shelves.attention = Some(Arc::clone(attention));
        drop(state);
        buffer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    // --- the fetcher's side

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        state.closed || state.ended
    }

    /// A partition is read from now on. Gives its number and incarnation; those that it has, if it is read already.
    pub(super) fn add(&self, key: &Key) -> (SlotId, u64) {
        let mut state = self.lock();
        let known = state.shelves.find(&key.0, key.1);
        let known = known.and_then(|slot| Some((slot, state.shelves.get(slot)?.incarnation)));
        known.unwrap_or_else(|| state.shelves.add(key))
    }

    /// What is queued, as far as it has changed since the last call. `from`: brokers that partitions are read from now.
    pub(super) fn survey(&self, from: &[(SlotId, i32)]) -> Survey {
        let mut state = self.lock();
        for (slot, source) in from {
            if let Some(shelf) = state.shelves.get_mut(*slot) {
                shelf.source = *source;
            }
        }
        let (amounts, free) = (state.shelves.take_amounts(), self.budget.free());
        let own =
            state.shelves.takers().map(|(slot, taker)| (slot, taker.starves(&state.shelves, slot)));
        let own = own.collect();
        Survey { amounts, free, dry: state.is_dry(), own, own_share: self.own_share(&state) }
    }

    /// Wakes the fetcher when any of this has come about since the last [`Self::survey`]; earlier marks do not
    /// count any more.
    pub(super) fn mark(&self, marks: Marks) {
        let mut state = self.lock();
        self.budget.wake_at(marks.free);
        state.marks = marks;
        let sources: Vec<i32> = state.marks.taken.iter().map(|(source, _)| *source).collect();
        let mut wake = state.took(queue::NOBODY, 0);
        for source in sources {
            let drained = state.shelves.drained(source);
            wake |= state.took(source, drained);
        }
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Commands since the last call, in the order in which they were given.
    pub(super) fn take_commands(&self) -> Vec<Command> {
        let mut state = self.lock();
        let mut commands = std::mem::take(&mut state.commands);
        commands.retain_mut(|command| match command {
            Command::Assign { slot, incarnation, .. } => {
                // Another one since, if there is another cluster.
                if let Some(shelf) = state.shelves.get(*slot) {
                    *incarnation = shelf.incarnation;
                }
                true
            }
            Command::Unassign { slot, .. } => {
                state.shelves.release(*slot);
                true
            }
            Command::Change { slot, incarnation, seek, paused } => {
                // As it is now: many changes of a partition are one.
                // And not those of one that had the number before.
                let shelf = state.shelves.get_mut(*slot);
                let is_meant = |shelf: &&mut Shelf| shelf.changed && shelf.born <= *incarnation;
                let Some(shelf) = shelf.filter(is_meant) else { return false };
                shelf.changed = false;
                (*incarnation, *paused) = (shelf.incarnation, shelf.is_held());
                *seek = shelf.sought.take();
                true
            }
        });
        commands
    }

    /// The partition does not exist any more. Batches of it that are buffered are still handed out.
    pub(super) fn retire(&self, slot: SlotId) {
        let mut state = self.lock();
        let is_own = state.taker(slot).is_some();
        let ready = state.shelves.retire(slot);
        // Who takes it is to hear of its end.
        Self::notify(state, ready || is_own, false);
    }

    /// Adds batches that were fetched, and wakes who waits in `next`. `next`: where reading goes on, behind these and
    /// behind what is not handed out; `end`: the partition's high watermark.
    pub(super) fn push(
        &self,
        slot: SlotId,
        incarnation: u64,
        fetched: Vec<Fetched>,
        (next, end): ((i64, i32), i64),
    ) {
        let mut state = self.lock();
        // After a close nothing is kept, also not responses that were under way. And what was asked for before a
        // seek is not wanted any more.
        let pushed = match state.closed {
            true => Err(fetched),
            false => state.shelves.push(slot, incarnation, fetched, (next, end)),
        };
        match pushed {
            Ok((ready, moved)) => Self::notify_of(state, slot, (ready, moved)),
            Err(unwanted) => {
                drop(state);
                drop(unwanted);
            }
        }
    }

    /// Where reading of a partition begins.
    pub(super) fn starts(&self, slot: SlotId, incarnation: u64, at: (i64, i32)) {
        let mut state = self.lock();
        let moved = state.shelves.pass(slot, incarnation, at);
        Self::notify(state, false, moved);
    }

    /// Tells the application an error that concerns no single partition.
    pub(super) fn fail(&self, error: Error) {
        let mut state = self.lock();
        let kept = state.news.len() < MAX_ERRORS && !state.closed;
        if kept {
            state.news.push_back(error);
        }
        Self::notify(state, kept, false);
    }

    /// Tells the application an error once it has all that is there of these partitions; what is said of the position
    /// holds then, for each of the named incarnation.
    pub(super) fn tell(&self, error: Error, slots: &[(SlotId, u64)], then: Then) {
        let notice = Notice::new(error);
        let mut state = self.lock();
        let (mut ready, mut dropped) = (false, Vec::new());
        if !state.closed {
            for (slot, incarnation) in slots {
                let (is_ready, old) = state.shelves.tell(*slot, *incarnation, &notice, then);
                ready |= is_ready;
                dropped.push(old);
            }
        }
        Self::notify(state, ready, false);
        drop(dropped);
    }

    /// The last error: nothing comes after it.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.lock();
        state.ended = true;
        let old = state.last_word.replace(error);
        Self::notify(state, true, true);
        drop(old);
    }

    /// The partition is another one, of the same name: its position and what is under way mean nothing. Batches that are
    /// buffered are still handed out. Gives its new incarnation.
    pub(super) fn renew(&self, slot: SlotId) -> Option<u64> {
        let mut state = self.lock();
        let sought = state.shelves.get(slot)?.sought;
        let incarnation = state.shelves.renew(slot);
        // The fetcher is about to hear of a seek: that is where the new one is read.
        if let (Some(shelf), Some(Start::Offset(at))) = (state.shelves.get_mut(slot), sought) {
            shelf.goes_to(Some(at));
        }
        Self::notify(state, false, true);
        incarnation
    }

    /// The same for all, as another cluster has taken the place of the old one: seeks mean nothing either. Gives the new
    /// incarnation of each.
    pub(super) fn begin_anew(&self) -> Vec<(SlotId, u64)> {
        let mut state = self.lock();
        let slots: Vec<SlotId> = state.shelves.iter().map(|(_, slot)| slot).collect();
        let mut renewed = Vec::with_capacity(slots.len());
        for slot in slots {
            renewed.extend(state.shelves.renew(slot).map(|incarnation| (slot, incarnation)));
            if let Some(shelf) = state.shelves.get_mut(slot) {
                shelf.sought = None;
            }
        }
        renewed
    }

    /// The same where it is about one partition: who takes that is woken, and of the others only who waits for positions.
    fn notify_of(mut state: MutexGuard<'_, State>, slot: SlotId, (ready, moved): (bool, bool)) {
        let who = state.taker(slot).unwrap_or(WHO);
        let all = ready && who == WHO || moved && state.watched;
        state.watched &= !all;
        let of = [(ready && who != WHO).then_some(who), all.then_some(WHO)];
        let wakers = of.map(|who| who.and_then(|who| state.wakers.take_of(who)));
        drop(state);
        for waker in wakers.into_iter().flatten() {
            // One that panics must not end the fetcher.
            let _ = caught::call(move || waker.wake());
        }
    }

    /// Wakes who waits in `next`, with the lock given back: a waker is the application's code. `ready`: there is
    /// something to take; `moved`: a position has moved, which some wait for.
    fn notify(mut state: MutexGuard<'_, State>, ready: bool, moved: bool) {
        let wanted = ready || moved && state.watched;
        if !wanted {
            return;
        }
        state.watched = false;
        let wakers = state.wakers.take();
        drop(state);
        for waker in wakers {
            // One that panics must not end the fetcher.
            let _ = caught::call(|| waker.wake());
        }
    }
}

#[cfg(test)]
pub(super) use tests::one_record;

#[cfg(test)]
mod tests;
