//! A fetch session (KIP-227): the broker keeps what a consumer reads there, so that a request names only what has
//! changed, and a response only what there is news of. One machine per broker that a consumer reads from; it has
//! neither a connection nor a clock.
//!
//! | state | the next request (id, epoch) | it is answered: session `x` | no session | not found | another error | lost |
//! |---|---|---|---|---|---|---|
//! | none | (0, 0), all | open `x` | bare; none if it is empty and throttled | none | none | none |
//! | open | (id, n), what changed | epoch n + 1 | none | none | doubt | doubt |
//! | doubt | (id, 0), all | open `x` | as for none | none | doubt | doubt |
//! | bare | (0, -1), all; (0, 0) once its time has come | open `x` | bare for twice as long | bare | bare | bare |
//!
//! - *Open*: what the broker holds changes with the response, not with the request. A request that never left changes
//!   nothing, and a connection that ended between two requests is none of the session's business.
//! - *Doubt*: a request may have been heard, or not. The broker moves to the next epoch before it reads, so the
//!   old session cannot be gone on with. A request for everything that names its id ends it.
//! - *Bare*: the broker had no slot for a session. As long as none may be free, requests say that none is wanted: a request
//!   that asks for one may push out somebody else's.
//! - A throttled response is empty (KIP-219). To a request for everything it is also without a session, which then means
//!   nothing; in a session it counts as any other.
//! - The broker reads all of a session for each request, and answers at once as long as a partition in it has an
//!   error. So what is not wanted now, be it paused, far enough ahead or about to be tried again, is forgotten.
//! - A partition goes to the end of the broker's order once it has brought records. Old brokers (2.7) moved it whenever the
//!   response named it, so that the order never changes while all are written to. Where somebody is behind the
//!   log and never served, everything is asked for, beginning with whose turn it is. If that serves him, the broker is
//!   one of those, and is asked so whenever somebody was left without.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;
use uuid::Uuid;

use super::known::{Known, Map, PartitionRef};
use crate::consumer::slot::SlotId;
use crate::error::names::{FETCH_SESSION_ID_NOT_FOUND, NONE};

/// Of a request that wants no session.
const NO_SESSION: i32 = -1;

/// For how long requests are bare at first, and at most. Brokers give a slot up after two minutes without a request.
const BARE: Duration = Duration::from_secs(60);
const BARE_MAX: Duration = Duration::from_secs(15 * 60);

/// How many times its share of responses who is behind may get nothing, at first and at most.
const PATIENCE: u64 = 2;
const PATIENCE_MAX: u64 = 64;

/// What a broker is told of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) of: PartitionRef,
    /// Not for the broker: for whom the response is.
    pub(crate) incarnation: u64,
    pub(crate) offset: i64,
    pub(crate) fetched_epoch: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) max_bytes: i32,
}

impl Told {
    /// Whether the broker knows all of this if it knows `other`.
    fn says_the_same(&self, other: &Self) -> bool {
        let said =
            |told: &Self| (told.offset, told.fetched_epoch, told.leader_epoch, told.max_bytes);
        said(self) == said(other)
    }
}

pub(crate) enum Event<'a> {
    /// A request is to be sent. `ids`: its version has topic ids, and all of them are known; `supported`: its
    /// version has sessions (7 and later). If it turns out to be another version once there is a connection, the
    /// request is [`Unsent`](Self::Unsent), and another one is due. If nothing is wanted the session is closed: not
    /// to be said of a broker whose partitions are only far enough ahead.
    Due { ids: bool, supported: bool },
    /// The request was answered, by a response that could be read.
    Answered(Answer<'a>),
    /// The request never left, for certain.
    Unsent,
    /// Nobody knows whether the broker has heard the request: the connection ended, nothing came in time, or
    /// something that could not be read.
    Lost,
    /// The consumer ends: nothing more is asked.
    Closing,
}

/// What the session has to know of a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    /// The error of the response as a whole.
    pub(crate) error: i16,
    pub(crate) session_id: i32,
    /// It says that it was delayed by a quota.
    pub(crate) throttled: bool,
    /// The partitions that it names.
    pub(crate) parts: &'a [Part],
    /// How many partitions it names that were not asked for: [`Session::find`] does not know them.
    pub(crate) strangers: usize,
}

/// A partition in a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) slot: SlotId,
    /// There are records of it in the response.
    pub(crate) brought: bool,
    /// There are records behind those.
    pub(crate) lags: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    Send(Ask),
    /// Give the session back: (id, -1) with no partition named, since those would be read. Whatever comes of it
    /// is no event.
    Close {
        id: i32,
    },
}

/// The part of a Fetch that is the session's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    /// All that is wanted is named, and the response has to name all of it, unless it is empty and throttled. Whoever
    /// encodes it puts those first whose turn it is: the broker's order begins as this one.
    pub(crate) full: bool,
    /// What to tell of each is in [`Session::asked`].
    pub(crate) named: Vec<SlotId>,
    pub(crate) forget: Vec<PartitionRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    None,
    Open { id: i32, next: i32 },
    Doubt { id: i32 },
    Bare { until: Instant },
}

/// The request that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// Everything, for a new session.
    Full,
    /// Everything, for none.
    Sessionless,
    Changes,
}

#[derive(Debug, Default)]
struct Entry {
    want: Option<Told>,
    /// What the broker was told, with the request in flight.
    told: Option<Told>,
    /// In `Session::changed`.
    listed: bool,
    /// It is behind its log and got nothing, since as many responses with records.
    waits: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    flight: Option<Flight>,
    /// Topics are told apart by their ids, not by their names.
    ids: bool,
    entries: Map<SlotId, Entry>,
    /// How many are wanted.
    wanted: usize,
    /// Those whose entries may differ in `want` and `told`.
    changed: Vec<SlotId>,
    /// What the broker held before the request in flight, if that names changes.
    undo: Vec<(SlotId, Option<Told>)>,
    known: Known,
    /// How often in a row there was no slot.
    tries: u32,
    /// Responses with records, and at how many of them to look for somebody who waits.
    fed: u64,
    look_at: u64,
    /// Who waits for this many times as many responses as there are partitions starves.
    patience: u64,
    /// Who did, when everything was asked for because of it.
    starved: Vec<SlotId>,
    /// The broker's order never changes.
    unfair: bool,
    closing: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            state: State::None,
            flight: None,
            ids: false,
            entries: Map::default(),
            wanted: 0,
            changed: Vec::new(),
            undo: Vec::new(),
            known: Known::default(),
            tries: 0,
            fed: 0,
            look_at: 0,
            patience: PATIENCE,
            starved: Vec::new(),
            unfair: false,
            closing: false,
        }
    }
}

impl Session {
    /// The next request is to ask for this, whatever was wanted of the slot before. No two slots may want the
    /// same partition.
    pub(crate) fn want(&mut self, slot: SlotId, told: Told) {
        let entry = self.entries.entry(slot).or_default();
        self.wanted += usize::from(entry.want.replace(told).is_none());
        self.list(slot);
    }

    /// The next request is not to ask for it.
    pub(crate) fn unwant(&mut self, slot: SlotId) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        self.wanted -= usize::from(entry.want.take().is_some());
        self.list(slot);
    }

    /// What the broker was told of the slot, with the request in flight. To be looked at before the response is an
    /// event here.
    pub(crate) fn asked(&self, slot: SlotId) -> Option<&Told> {
        self.entries.get(&slot)?.told.as_ref()
    }

    /// Whom a partition of a response belongs to, by the topic's id or name as the response has it: likewise.
    pub(crate) fn find(&self, topic: &str, id: Uuid, partition: i32) -> Option<(SlotId, &Told)> {
        let slot = self.known.find(self.ids, topic, id, partition)?;
        Some((slot, self.asked(slot)?))
    }

    /// All that the broker was told of, with the request in flight: likewise.
    pub(crate) fn told(&self) -> impl Iterator<Item = (SlotId, &Told)> {
        self.entries.iter().filter_map(|(slot, entry)| Some((*slot, entry.told.as_ref()?)))
    }

    /// Whether a request is not answered yet that names all that is wanted.
    pub(crate) fn asks_all(&self) -> bool {
        matches!(self.flight, Some(Flight::Full | Flight::Sessionless))
    }

    /// How many the broker was told of, with the request in flight.
    pub(crate) fn count(&self) -> usize {
        self.known.count
    }

    /// What the request in flight has added to what the broker holds: its response has to name it.
    pub(crate) fn added(&self) -> impl Iterator<Item = (SlotId, &Told)> {
        let added = self.undo.iter().filter(|(_, before)| before.is_none());
        added.filter_map(|(slot, _)| Some((*slot, self.asked(*slot)?)))
    }

    /// Whether the broker may keep something for it.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. } | State::Doubt { .. })
    }

    pub(crate) fn on(&mut self, event: Event<'_>, now: Instant, rng: &mut impl Rng) -> Action {
        match event {
            Event::Due { ids, supported } => self.due(ids, supported, now),
            Event::Answered(answer) => self.answered(&answer, now, rng),
            Event::Unsent => {
                self.unsent();
                Action::Nothing
            }
            Event::Lost => {
                if self.flight.take().is_some() {
                    self.doubt();
                }
                Action::Nothing
            }
            Event::Closing => {
                self.closing = true;
                self.close()
            }
        }
    }

    fn due(&mut self, ids: bool, supported: bool, now: Instant) -> Action {
        // A second request would have to name an epoch that only the response to the first one makes true.
        if self.flight.is_some() || self.closing {
            return Action::Nothing;
        }
        if self.wanted == 0 {
            return self.close();
        }
        if !supported {
            // The broker was replaced by an older one: the session cannot even be closed.
            if !matches!(self.state, State::Bare { .. }) {
                self.state = State::None;
            }
            return self.ask_all(0, NO_SESSION, ids);
        }
        match self.state {
            State::Open { id, next } if self.ids == ids => self.ask_changes(id, next),
            // A session is for ids or for names. A request of the other kind would be refused.
            State::Open { id, .. } | State::Doubt { id } => {
                self.state = State::Doubt { id };
                self.ask_all(id, 0, ids)
            }
            State::Bare { until } if now < until => self.ask_all(0, NO_SESSION, ids),
            State::None | State::Bare { .. } => self.ask_all(0, 0, ids),
        }
    }

    /// Everything that is wanted. Nothing that was told before counts.
    fn ask_all(&mut self, id: i32, epoch: i32, ids: bool) -> Action {
        self.forget_told();
        self.ids = ids;
        self.changed.clear();
        let mut named: Vec<SlotId> = self.entries.keys().copied().collect();
        named.sort_unstable();
        for slot in &named {
            let Some(entry) = self.entries.get_mut(slot) else { continue };
            entry.listed = false;
            let want = entry.want.clone();
            self.tell(*slot, want);
        }
        let sessionless = epoch == NO_SESSION;
        self.flight = Some(if sessionless { Flight::Sessionless } else { Flight::Full });
        Action::Send(Ask { id, epoch, full: true, named, forget: Vec::new() })
    }

    /// What has changed since the last response.
    fn ask_changes(&mut self, id: i32, epoch: i32) -> Action {
        let (mut named, mut forget) = (Vec::new(), Vec::new());
        for slot in std::mem::take(&mut self.changed) {
            let Some(entry) = self.entries.get_mut(&slot) else { continue };
            // It may be listed a second time, after it was removed and came again.
            if !std::mem::replace(&mut entry.listed, false) {
                continue;
            }
            match (&entry.want, &entry.told) {
                (Some(want), Some(told)) if want.of.is(&told.of, self.ids) => {
                    if !want.says_the_same(told) {
                        named.push(slot);
                    }
                }
                (want, told) => {
                    forget.extend(told.as_ref().map(|told| told.of.clone()));
                    named.extend(want.as_ref().map(|_| slot));
                }
            }
            let (want, told) = (entry.want.clone(), entry.told.clone());
            self.undo.push((slot, told));
            self.tell(slot, want);
        }
        // Brokers add what is named before they remove what is to be forgotten: what another slot has taken over
        // would be lost.
        forget.retain(|of| self.known.find(self.ids, &of.topic, of.id, of.partition).is_none());
        self.flight = Some(Flight::Changes);
        Action::Send(Ask { id, epoch, full: false, named, forget })
    }

    fn answered(&mut self, answer: &Answer<'_>, now: Instant, rng: &mut impl Rng) -> Action {
        let Some(flight) = self.flight.take() else { return Action::Nothing };
        self.undo.clear();
        if answer.error != NONE {
            self.doubt();
            let not_found = answer.error == FETCH_SESSION_ID_NOT_FOUND;
            if not_found && matches!(self.state, State::Doubt { .. }) {
                self.state = State::None;
                // It may have been started anew, and be another release by now.
                (self.patience, self.unfair) = (PATIENCE, false);
            }
            return Action::Nothing;
        }
        let empty = answer.parts.is_empty() && answer.strangers == 0;
        match (flight, self.state) {
            (Flight::Full, _) if answer.session_id > 0 => {
                let id = answer.session_id;
                if self.closing {
                    self.state = State::None;
                    return Action::Close { id };
                }
                self.state = State::Open { id, next: 1 };
                self.tries = 0;
                self.look_at = self.fed;
                self.served(answer);
                return Action::Nothing;
            }
            (Flight::Full, State::Bare { .. }) if empty && answer.throttled => {}
            (Flight::Full, _) if empty && answer.throttled => self.state = State::None,
            (Flight::Full, _) => {
                let pause = BARE_MAX.min(BARE * 2u32.saturating_pow(self.tries.min(16)));
                self.tries = self.tries.saturating_add(1);
                self.state = State::Bare { until: now + pause.mul_f64(rng.random_range(0.8..1.0)) };
            }
            (Flight::Changes, State::Open { id, next }) if answer.session_id == id => {
                let next = if next == i32::MAX { 1 } else { next + 1 };
                self.state = State::Open { id, next };
                self.served(answer);
                return Action::Nothing;
            }
            // It is closed, by a broker that found it empty, or that keeps none at all.
            (Flight::Changes, State::Open { .. }) if answer.session_id == 0 => {
                self.state = State::None;
            }
            // Some other session, which is not ours.
            (Flight::Changes, _) => self.doubt(),
            (Flight::Sessionless, _) => {}
        }
        self.forget_told();
        Action::Nothing
    }

    /// The session goes on: is the response what it should be, and does everybody get something?
    fn served(&mut self, answer: &Answer<'_>) {
        self.fed += u64::from(answer.parts.iter().any(|part| part.brought));
        if !self.starved.is_empty() {
            let starved = std::mem::take(&mut self.starved);
            let mut theirs =
                answer.parts.iter().filter(|part| starved.binary_search(&part.slot).is_ok());
            match theirs.clone().any(|part| part.brought) {
                true => self.unfair = true,
                // There is nothing to be had: the broker has its reasons, as a follower that is behind.
                false if theirs.any(|part| part.lags) => {
                    self.patience = PATIENCE_MAX.min(self.patience * 2);
                }
                false => {}
            }
        }
        for part in answer.parts {
            let Some(entry) = self.entries.get_mut(&part.slot) else { continue };
            let since = entry.waits.filter(|_| !part.brought).unwrap_or(self.fed);
            entry.waits = part.lags.then_some(since);
        }
        if answer.strangers > 0 || self.somebody_starves() {
            self.doubt();
        }
    }

    /// Looks once in as many responses as there are partitions, so that it costs one step each.
    fn somebody_starves(&mut self) -> bool {
        if self.fed < self.look_at && !self.unfair {
            return false;
        }
        let all = (self.known.count as u64).max(1);
        self.look_at = self.fed + all;
        let limit = if self.unfair { 1 } else { self.patience * all };
        let waits = |entry: &Entry| {
            let since = entry.waits.filter(|_| entry.want.is_some());
            since.map_or(0, |since| self.fed - since)
        };
        if !self.entries.values().any(|entry| waits(entry) >= limit) {
            return false;
        }
        // Where each has his turn nobody waits for longer than this, unless there is nothing to be had.
        let starved = self.entries.iter().filter(|(_, entry)| waits(entry) > all);
        self.starved = starved.map(|(slot, _)| *slot).collect();
        self.starved.sort_unstable();
        true
    }

    fn unsent(&mut self) {
        match self.flight.take() {
            None => {}
            Some(Flight::Full | Flight::Sessionless) => self.forget_told(),
            Some(Flight::Changes) => {
                for (slot, told) in std::mem::take(&mut self.undo) {
                    self.tell(slot, told);
                    self.list(slot);
                }
            }
        }
    }

    /// What the broker holds is not known any more.
    fn doubt(&mut self) {
        if let State::Open { id, .. } = self.state {
            self.state = State::Doubt { id };
        }
        self.forget_told();
    }

    fn close(&mut self) -> Action {
        match self.state {
            State::Open { id, .. } | State::Doubt { id } => {
                self.state = State::None;
                self.forget_told();
                Action::Close { id }
            }
            State::None | State::Bare { .. } => Action::Nothing,
        }
    }

    fn list(&mut self, slot: SlotId) {
        let entry = self.entries.entry(slot).or_default();
        if !std::mem::replace(&mut entry.listed, true) {
            self.changed.push(slot);
        }
    }

    fn tell(&mut self, slot: SlotId, told: Option<Told>) {
        let entry = self.entries.entry(slot).or_default();
        if let Some(old) = &entry.told {
            self.known.remove(self.ids, &old.of, slot);
        }
        if let Some(new) = &told {
            self.known.add(self.ids, &new.of, slot);
        } else {
            entry.waits = None;
        }
        entry.told = told;
        if entry.want.is_none() && entry.told.is_none() && !entry.listed {
            self.entries.remove(&slot);
        }
    }

    /// Nothing is held that the next request could rest on.
    fn forget_told(&mut self) {
        self.undo.clear();
        self.known = Known::default();
        self.entries.retain(|_, entry| {
            entry.told = None;
            entry.waits = None;
            entry.want.is_some()
        });
    }
}

#[cfg(test)]
mod tests;
