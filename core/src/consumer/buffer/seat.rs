//! What the member of a group has to do with the buffer: partitions that come and go by the group's decision, until when
//! anything may be handed out at all, what the application is told of it between two batches, and whether it is still
//! there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::parts::Taker;
use super::queue::{Dropped, Shelf};
use super::{Begin, Buffer, Key, State, Unreadable};
use crate::consumer::event::Event;
use crate::consumer::marks::{Attention, Place};
use crate::consumer::slot::SlotId;
use crate::consumer::{StreamEnd, WHO};

/// Until when partitions may be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Lease {
    Until(Instant),
    /// Somebody else may have them by now.
    Over,
}

/// Whether somebody who reads is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::consumer) struct Reader {
    /// How often he has asked for the next.
    pub(in crate::consumer) asks: u64,
    /// He waits, or what he was given last was nothing.
    pub(in crate::consumer) waits: bool,
}

/// Whether the application is there: who reads the consumer, and who reads single partitions, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::consumer) struct Presence {
    pub(in crate::consumer) asks: u64,
    pub(in crate::consumer) waits: bool,
    own: BTreeMap<u64, Reader>,
}

impl Presence {
    pub(in crate::consumer) fn readers(&self) -> impl Iterator<Item = (u64, Reader)> {
        let all = Reader { asks: self.asks, waits: self.waits };
        [(WHO, all)].into_iter().chain(self.own.iter().map(|(who, reader)| (*who, *reader)))
    }

    pub(in crate::consumer) fn reader(&self, who: u64) -> Option<Reader> {
        self.readers().find(|(of, _)| *of == who).map(|(_, reader)| reader)
    }
}

/// See the module.
pub(super) struct Seat {
    pub(super) attention: Arc<Attention>,
    lease: Lease,
    presence: Reader,
    /// What it was not told yet, with their numbers.
    events: VecDeque<(u64, Event)>,
    numbers: u64,
    /// The application takes events: what it is told is done with when it asks for the next.
    takes_events: bool,
    /// The last event that it was told, and the last that it has done with.
    told: u64,
    done: u64,
    /// At the end it is waited for what the application has in hand.
    waits_for_hand: bool,
    /// What could not be opened counts as in hand, until the application has heard why and asks for the next.
    unreadable: Option<Unreadable>,
}

impl Seat {
    pub(super) fn new(attention: &Arc<Attention>) -> Self {
        Self {
            attention: Arc::clone(attention),
            lease: Lease::Over,
            presence: Reader::default(),
            events: VecDeque::new(),
            numbers: 0,
            takes_events: false,
            told: 0,
            done: 0,
            waits_for_hand: true,
            unreadable: None,
        }
    }

    /// The application asks for the next: it has done with what it was told. Gives an event that comes before any batch.
    pub(super) fn asks(&mut self, takes_events: bool) -> Option<Event> {
        self.presence.asks += 1;
        self.presence.waits = true;
        if let Some(unreadable) = self.unreadable.take() {
            unreadable.done();
        }
        self.takes_events |= takes_events;
        self.done = self.done.max(self.told);
        if !takes_events {
            // Who does not take them leaves it to the consumer: nothing waits until they are told.
            self.done = self.done.max(self.numbers);
            if !self.takes_events {
                self.events.clear();
            }
            self.attention.draw();
            return None;
        }
        self.attention.draw();
        let (number, event) = self.events.pop_front()?;
        self.told = number;
        self.presence.waits = false;
        Some(event)
    }

    /// It is given a batch, or an error.
    pub(super) fn gives(&mut self) {
        self.presence.waits = false;
    }

    pub(super) fn may_hand_out(&self, now: Instant) -> bool {
        matches!(self.lease, Lease::Until(until) if now < until)
    }
}

impl State {
    /// Whether a batch may be handed out now.
    pub(super) fn may_hand_out(&self, now: impl FnOnce() -> Instant) -> bool {
        self.seat.as_ref().is_none_or(|seat| seat.may_hand_out(now()))
    }
}

impl Buffer {
    /// Whether a group decides what is read.
    pub(in crate::consumer) fn is_members(&self) -> bool {
        self.lock().seat.is_some()
    }

    /// These are the group's to this member: they are read from there on.
    pub(in crate::consumer) fn take_over(&self, partitions: Vec<(Key, Begin)>) {
        // After a close nothing is read.
        let _ = self.assign_at(partitions);
    }

    /// Nothing of these is handed out any more, and nothing fetched. What the application has of them it may finish.
    pub(in crate::consumer) fn withhold(&self, partitions: &[Key]) {
        let mut state = self.lock();
        for (topic, partition) in partitions {
            let Some(slot) = state.shelves.find(topic, *partition) else { continue };
            state.shelves.withhold(slot);
            state.changed(slot);
        }
        // Streams of these are to hear of their end.
        Self::notify(state, true, false);
        self.wake.notify_one();
    }

    /// These are somebody else's, or nobody's. Their streams are told so.
    pub(in crate::consumer) fn give_up(&self, partitions: &[Key], why: StreamEnd) {
        let mut state = self.lock();
        let mut dropped: Vec<Dropped> = Vec::new();
        for (topic, partition) in partitions {
            let Some(slot) = state.shelves.find(topic, *partition) else { continue };
            dropped.push(state.leave(slot, topic, *partition, why));
        }
        Self::notify(state, true, false);
        self.wake.notify_one();
        drop(dropped);
    }

    pub(in crate::consumer) fn lease(&self, lease: Lease) {
        let mut state = self.lock();
        let Some(seat) = &mut state.seat else { return };
        let before = std::mem::replace(&mut seat.lease, lease);
        // What waited for it may be handed out now. (One that has run out meanwhile was not seen to.)
        let again = before == Lease::Over && lease != Lease::Over;
        Self::notify(state, again, false);
    }

    /// The application is to hear of it before the next batch. Gives its number, for [`Self::has_done`].
    pub(in crate::consumer) fn announce(&self, event: Event) -> u64 {
        let mut state = self.lock();
        let Some(seat) = &mut state.seat else { return 0 };
        seat.numbers += 1;
        let number = seat.numbers;
        // Those who never ask get no memory for it: the last few say where the group stands.
        if seat.events.len() == MOST_EVENTS {
            seat.events.pop_front();
        }
        seat.events.push_back((number, event));
        let takes = seat.takes_events;
        Self::notify(state, takes, false);
        number
    }

    /// Whether the application has done with an event: it was told, and has asked for the next since; or it does not take
    /// any.
    pub(in crate::consumer) fn has_done(&self, event: u64) -> bool {
        let state = self.lock();
        state.seat.as_ref().is_none_or(|seat| !seat.takes_events || seat.done >= event)
    }

    /// Whether the application has something of these in hand that it did not finish.
    pub(in crate::consumer) fn is_open(&self, partitions: &[Key]) -> bool {
        let state = self.lock();
        partitions.iter().any(|(topic, partition)| {
            let slot = state.shelves.find(topic, *partition);
            slot.and_then(|slot| state.shelves.get(slot)).is_some_and(|shelf| shelf.is_open())
        })
    }

    /// Up to where the application has worked on these, or does still, as far as it was given any of them.
    pub(in crate::consumer) fn worked(&self, partitions: &[Key]) -> Vec<(Key, i64)> {
        let state = self.lock();
        let worked = |key: &Key| {
            let shelf = state.shelves.get(state.shelves.find(&key.0, key.1)?)?;
            Some((key.clone(), shelf.worked()?))
        };
        partitions.iter().filter_map(worked).collect()
    }

    /// The application ends the consumer itself: what it has in hand stays unfinished, unless it has said otherwise.
    pub(in crate::consumer) fn lets_go(&self) {
        if let Some(seat) = &mut self.lock().seat {
            seat.waits_for_hand = false;
        }
    }

    pub(in crate::consumer) fn waits_for_hand(&self) -> bool {
        self.lock().seat.as_ref().is_some_and(|seat| seat.waits_for_hand)
    }

    pub(in crate::consumer) fn presence(&self) -> Presence {
        let state = self.lock();
        let Some(seat) = &state.seat else { return Presence::default() };
        // Who waits for nothing but what it has finished nothing of is not there for the group.
        let is_stuck = seat.attention.is_any_full() && {
            let others = state.shelves.iter().filter_map(|(_, slot)| state.shelves.get(slot));
            let is_wanted = |shelf: &&Shelf| !shelf.is_unwanted() && shelf.taker.is_none();
            let mut wanted = others.filter(is_wanted).peekable();
            wanted.peek().is_some() && wanted.all(Shelf::is_full)
        };
        let Reader { asks, waits } = seat.presence;
        let own = state.shelves.takers().map(|(slot, Taker { who, presence, .. })| {
            let is_stuck = |shelf: &Shelf| shelf.is_full() && !shelf.is_unwanted();
            let is_full = state.shelves.get(slot).is_some_and(is_stuck);
            (*who, Reader { waits: presence.waits && !is_full, ..*presence })
        });
        Presence { asks, waits: waits && !is_stuck, own: own.collect() }
    }

    /// Which readers have handed records on one by one since the last look.
    pub(in crate::consumer) fn moved(&self) -> Vec<u64> {
        let state = self.lock();
        let moved = |slot: SlotId| {
            let shelf = state.shelves.get(slot).filter(|shelf| shelf.has_moved())?;
            Some(shelf.taker.as_ref().map_or(WHO, |taker| taker.who))
        };
        // All are looked at, so that none is news the next time.
        let mut moved: Vec<u64> =
            state.shelves.iter().filter_map(|(_, slot)| moved(slot)).collect();
        moved.dedup();
        moved
    }

    /// Some partitions are full, or are not any more: what there is of these is handed out again. Gives those that are.
    pub(in crate::consumer) fn look_for_full(&self) -> Vec<Key> {
        let mut state = self.lock();
        let all: Vec<(Key, SlotId)> =
            state.shelves.iter().map(|(key, slot)| (key.clone(), slot)).collect();
        let mut any_ready = false;
        let mut full = Vec::new();
        for (key, slot) in all {
            if state.shelves.see_full(slot) {
                state.changed(slot);
            }
            if state.shelves.get(slot).is_some_and(Shelf::is_full) {
                full.push(key);
            } else {
                any_ready |= state.shelves.ready(slot);
            }
        }
        Self::notify(state, any_ready, false);
        self.wake.notify_one();
        full
    }

    /// The application waits no more, and has nothing in hand: its time runs from now on.
    pub(in crate::consumer) fn waits_no_more(&self) {
        if let Some(seat) = &mut self.lock().seat {
            seat.gives();
        }
    }

    /// The application is told why it is not given these records.
    pub(super) fn is_unreadable(&self, unreadable: Unreadable) {
        let mut state = self.lock();
        let old = state.seat.as_mut().map(|seat| seat.unreadable.replace(unreadable));
        drop(state);
        drop(old);
    }

    /// The broker of a partition does not know its topic since then, or it does.
    pub(in crate::consumer) fn doubts(
        &self,
        slot: SlotId,
        incarnation: u64,
        since: Option<Instant>,
    ) {
        let mut state = self.lock();
        let shelf = state.shelves.get_mut(slot).filter(|shelf| shelf.incarnation == incarnation);
        let Some(shelf) = shelf else { return };
        shelf.doubted = since;
        if let Some(seat) = &state.seat {
            seat.attention.wake.notify_one();
        }
    }

    /// Since when it is in doubt for the first of these partitions, or of all, whether their topics are still the same.
    pub(in crate::consumer) fn doubted(&self, of: Option<&[Key]>) -> Option<Instant> {
        let state = self.lock();
        let is_of = |key: &Key| of.is_none_or(|of| of.contains(key));
        let shelves = state.shelves.iter().filter(|(key, _)| is_of(key));
        shelves.filter_map(|(_, slot)| state.shelves.get(slot)?.doubted).min()
    }

    /// From where the next reader of each partition is to go on, as far as that is known, and in which incarnation of it.
    pub(in crate::consumer) fn committable(&self) -> Vec<(Key, Place, u64)> {
        let state = self.lock();
        let place = |(key, slot): (&Key, SlotId)| {
            let shelf = state.shelves.get(slot)?;
            Some((key.clone(), shelf.committable()?, shelf.incarnation))
        };
        state.shelves.iter().filter_map(place).collect()
    }
}

/// An application that takes events and does not ask hears of so many at most.
const MOST_EVENTS: usize = 1_000;
