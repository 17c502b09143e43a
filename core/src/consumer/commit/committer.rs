//! Sends what is committed. One request of a group's is on its way at a time: a second one could overtake the first on
//! another connection, and the older offset would be the last. So a retry carries what is newest, and each request all
//! that has changed.
//!
//! - Marks go out after 5 s +-20 %, in step with nobody. What the application or a rebalance waits for (a *ticket*) goes at once.
//! - A request bears the identity of the member as it is then. One that is refused for it says nothing: the same offsets go
//!   again under the next identity, and those of partitions that are lost by then do not.
//! - Offsets of a group without members expire by their own age (`OffsetExpirationConditionImpl`), so those that are
//!   assigned by hand are committed again each day, whether they moved or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::Spot;
use crate::consumer::group::codes::{Meaning, meaning};
use crate::consumer::group::coordinator::SLOW;
use crate::consumer::group::events::{Commits, Identity, Outcome, Part, RequestId, Trouble};
use crate::consumer::group::told::Told;
use crate::error::names as code;
use crate::policy::backoff::Backoff;

/// Between commits of marks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// Brokers keep offsets for seven days, and some for one.
const REPEAT: Duration = Duration::from_secs(24 * 3_600);
/// For how long an identity that was refused is believed to be no good although nothing has changed it.
const HELD: Duration = Duration::from_secs(5);

/// Between retries of one partition that the broker does not know or does not let us commit.
const PART_RETRY: Duration = Duration::from_secs(1);
const PART_RETRY_MAX: Duration = Duration::from_secs(30);

/// What the brokers take with an offset, by default (`offset.metadata.max.bytes`).
pub(crate) const MOST_METADATA: usize = 4_096;

/// Whoever waits for a commit. Given by those who ask, rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// What is committed of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offset {
    pub(crate) spot: Spot,
    /// The application's words. At most [`MOST_METADATA`] bytes.
    pub(crate) metadata: Option<Arc<str>>,
}

impl From<Spot> for Offset {
    fn from(spot: Spot) -> Self {
        Self { spot, metadata: None }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Time has passed, or the member's [`Commits`] are not what they were.
    Tick,
    /// Something was marked since [`Action::Collect`]. Costs nothing to tell for each batch.
    Dirty,
    /// What [`Action::Collect`] asked for: this may be committed, as the ledgers say. Of an incarnation that was followed by
    /// another one it is not heeded.
    Marks { marks: Vec<(Part, u64, Spot)> },
    /// Commit this now. With marks: all that may be committed, as for [`Action::Collect`].
    Commit { ticket: Ticket, offsets: Vec<(Part, u64, Offset)> },
    /// This is committed, as the coordinator says.
    Known { part: Part, incarnation: u64, offset: Offset },
    /// These are not ours any more.
    Forget { parts: Vec<Part> },
    /// What became of a request: the code of each partition.
    Answer { to: RequestId, outcome: Outcome<Vec<(Part, i16)>> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is time to commit what was marked: tell [`Event::Marks`], at once.
    Collect,
    Send {
        id: RequestId,
        identity: Identity,
        offsets: Vec<(Part, Offset)>,
    },
    /// What a ticket waited for is committed, or cannot be.
    Done {
        ticket: Ticket,
        result: Result<(), Failure>,
    },
    /// For the member: `Event::Refused`.
    Refused {
        code: i16,
        sent: Identity,
    },
    /// For the member: `Event::Alive`.
    Alive {
        sent: Identity,
        since: Instant,
    },
    /// For the member: the connection was lost (`Event::CoordinatorLost`).
    Lost,
    /// Tell the application. At most once a minute.
    Tell(Trouble),
}

/// Why a ticket's offsets are not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The partition, or the membership, is not ours any more.
    NotOurs(Option<Part>),
    /// The broker refused this one for good.
    Refused { part: Part, code: i16 },
}

#[derive(Debug)]
struct Entry {
    incarnation: u64,
    want: Offset,
    /// Rises with each change of `want`.
    version: u64,
    committed: Option<Offset>,
    /// It is not sent again until it changes: nobody would take it.
    hopeless: bool,
    /// The broker did not take this one, and may later: how often, and when it is tried again. The others do not wait.
    tries: u32,
    retry_at: Option<Instant>,
}

impl Entry {
    fn new(incarnation: u64, want: Offset, committed: Option<Offset>, version: u64) -> Self {
        let (hopeless, tries, retry_at) = (false, 0, None);
        Self { incarnation, want, version, committed, hopeless, tries, retry_at }
    }

    /// There is something to send.
    fn is_open(&self) -> bool {
        !self.hopeless && self.committed.as_ref() != Some(&self.want)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.is_open() && self.retry_at.is_none_or(|at| at <= now)
    }
}

#[derive(Debug)]
struct Flight {
    id: RequestId,
    sent: Instant,
    identity: Identity,
    /// Incarnation, version and offset of each.
    of: BTreeMap<Part, (u64, u64, Offset)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Committer {
    /// When it was made.
    start: Instant,
    numbers: u64,
    /// There are marks that it does not know.
    dirty: bool,
    entries: BTreeMap<Part, Entry>,
    /// What each waits for: incarnations and versions.
    tickets: BTreeMap<Ticket, BTreeMap<Part, (u64, u64)>>,
    flight: Option<Flight>,
    /// When marks are sent.
    due: Option<Instant>,
    /// When all is sent again.
    repeat: Option<Instant>,
    /// Nothing is sent before.
    not_before: Option<Instant>,
    /// This identity was refused: until then it is not used again.
    held: Option<(Identity, Instant)>,
    backoff: Backoff,
    slow: Backoff,
    told: Told,
}

mod answers;

type Actions = Vec<Action>;

impl Committer {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            start: now,
            numbers: 0,
            dirty: false,
            entries: BTreeMap::new(),
            tickets: BTreeMap::new(),
            flight: None,
            due: None,
            repeat: None,
            not_before: None,
            held: None,
            backoff: Backoff::default(),
            slow: Backoff::new(SLOW.0, SLOW.1),
            told: Told::default(),
        }
    }

    /// Something has happened. `commits`: what the member says now.
    pub(crate) fn on(
        &mut self,
        event: Event,
        commits: &Commits,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Actions {
        let mut out = Vec::new();
        match event {
            Event::Tick => {}
            Event::Dirty => {
                self.dirty = true;
                self.set_due(now, rng);
            }
            Event::Marks { marks } => {
                for (part, incarnation, spot) in marks {
                    self.want(part, incarnation, spot.into());
                }
                self.due = Some(now);
            }
            Event::Commit { ticket, offsets } => {
                let of = |(_, _, offset): &&(Part, u64, Offset)| {
                    offset.metadata.as_ref().is_some_and(|words| words.len() > MOST_METADATA)
                };
                if let Some((part, ..)) = offsets.iter().find(of) {
                    let (part, code) = (part.clone(), code::OFFSET_METADATA_TOO_LARGE);
                    let result = Err(Failure::Refused { part, code });
                    out.push(Action::Done { ticket, result });
                    return out;
                }
                for (part, incarnation, offset) in offsets {
                    self.want(part, incarnation, offset);
                }
                let due = self.entries.iter().filter(|(_, entry)| entry.is_open());
                let waits =
                    due.map(|(part, entry)| (part.clone(), (entry.incarnation, entry.version)));
                self.tickets.insert(ticket, waits.collect());
                self.set_due(now, rng);
            }
            Event::Known { part, incarnation, offset } => {
                self.known(part, incarnation, offset, now, rng);
            }
            Event::Forget { parts } => self.forget(&parts, &mut out),
            Event::Answer { to, outcome } => self.answered(to, outcome, now, rng, &mut out),
        }
        self.advance(commits, now, rng, &mut out);
        out
    }

    /// When [`Event::Tick`] is due, as long as nothing is on its way.
    pub(crate) fn next_wake(&self, commits: &Commits) -> Option<Instant> {
        let Commits::As(identity) = commits else { return None };
        if self.flight.is_some() {
            return None;
        }
        let marks = self.due.filter(|_| self.dirty);
        let open = self.entries.iter().filter(|(_, entry)| entry.is_open());
        let open = open.filter_map(|(part, entry)| match entry.retry_at {
            Some(at) => Some(at),
            None if self.is_waited_for(part) => Some(self.start),
            None => self.due,
        });
        let repeat = self.repeat.filter(|_| *identity == Identity::none());
        let at = open.chain(marks).chain(repeat).min()?;
        let held = self.held_until(identity);
        Some([self.not_before, held].into_iter().flatten().fold(at, Instant::max))
    }

    /// The request that is on its way.
    pub(crate) fn in_flight(&self) -> Option<RequestId> {
        self.flight.as_ref().map(|flight| flight.id)
    }

    /// Whether all that it was told is committed, or cannot be.
    pub(crate) fn is_idle(&self) -> bool {
        self.flight.is_none() && !self.entries.values().any(Entry::is_open)
    }

    fn is_waited_for(&self, part: &Part) -> bool {
        self.tickets.values().any(|waits| waits.contains_key(part))
    }

    fn set_due(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.due.is_none() {
            self.due = Some(now + INTERVAL.mul_f64(rng.random_range(0.8..1.2)));
        }
    }

    fn held_until(&self, identity: &Identity) -> Option<Instant> {
        self.held.as_ref().filter(|(held, _)| held == identity).map(|(_, until)| *until)
    }

    fn want(&mut self, part: Part, incarnation: u64, offset: Offset) {
        let Some(entry) = self.entries.get_mut(&part) else {
            self.entries.insert(part, Entry::new(incarnation, offset, None, 1));
            return;
        };
        if incarnation < entry.incarnation {
            return;
        }
        if incarnation > entry.incarnation || entry.want != offset {
            entry.incarnation = incarnation;
            entry.want = offset;
            entry.version += 1;
            entry.hopeless = false;
        }
    }

    /// As the coordinator says: nothing is to be sent for it.
    fn known(
        &mut self,
        part: Part,
        incarnation: u64,
        offset: Offset,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        if self.entries.get(&part).is_some_and(|entry| entry.incarnation >= incarnation) {
            return;
        }
        let (want, committed) = (offset.clone(), Some(offset));
        let version = self.entries.get(&part).map_or(0, |entry| entry.version) + 1;
        self.entries.insert(part, Entry::new(incarnation, want, committed, version));
        self.repeat_later(now, rng);
    }

    fn forget(&mut self, parts: &[Part], out: &mut Actions) {
        for part in parts {
            self.entries.remove(part);
            let waits = self.tickets.iter().filter(|(_, waits)| waits.contains_key(part));
            let failed: Vec<Ticket> = waits.map(|(ticket, _)| *ticket).collect();
            for ticket in failed {
                self.tickets.remove(&ticket);
                let result = Err(Failure::NotOurs(Some(part.clone())));
                out.push(Action::Done { ticket, result });
            }
        }
    }

    fn advance(&mut self, commits: &Commits, now: Instant, rng: &mut impl Rng, out: &mut Actions) {
        self.tickets.retain(|ticket, waits| {
            let done = waits.is_empty();
            if done {
                out.push(Action::Done { ticket: *ticket, result: Ok(()) });
            }
            !done
        });
        let identity = match commits {
            Commits::As(identity) => identity,
            Commits::Wait => return,
            Commits::Never => {
                for ticket in std::mem::take(&mut self.tickets).into_keys() {
                    out.push(Action::Done { ticket, result: Err(Failure::NotOurs(None)) });
                }
                return;
            }
        };
        let later = |at: Option<Instant>| at.is_some_and(|at| now < at);
        if self.flight.is_some() || later(self.not_before) || later(self.held_until(identity)) {
            return;
        }
        self.held = None;
        let is_time = self.due.is_some_and(|at| at <= now);
        if is_time && std::mem::take(&mut self.dirty) {
            out.push(Action::Collect);
            return;
        }
        let repeats = *identity == Identity::none() && self.repeat.is_some_and(|at| at <= now);
        let goes = |part: &Part, entry: &Entry| {
            entry.is_due(now) && (is_time || entry.retry_at.is_some() || self.is_waited_for(part))
        };
        let somebody = self.entries.iter().any(|(part, entry)| goes(part, entry));
        if is_time {
            self.due = None;
        }
        if !repeats && !somebody {
            return;
        }
        let sends = |entry: &Entry| !entry.hopeless && (repeats || entry.is_due(now));
        let of: BTreeMap<Part, (u64, u64, Offset)> = (self.entries.iter())
            .filter(|(_, entry)| sends(entry))
            .map(|(part, entry)| {
                (part.clone(), (entry.incarnation, entry.version, entry.want.clone()))
            })
            .collect();
        if repeats {
            self.repeat = None;
        }
        if !self.dirty {
            self.due = None;
        }
        if of.is_empty() {
            return;
        }
        self.numbers += 1;
        let id = RequestId(self.numbers);
        let offsets =
            of.iter().map(|(part, (.., offset))| (part.clone(), offset.clone())).collect();
        out.push(Action::Send { id, identity: identity.clone(), offsets });
        self.flight = Some(Flight { id, sent: now, identity: identity.clone(), of });
        self.repeat_later(now, rng);
    }

    fn repeat_later(&mut self, now: Instant, rng: &mut impl Rng) {
        let after = REPEAT.mul_f64(rng.random_range(0.6..1.0));
        self.repeat.get_or_insert(now + after);
    }
}

#[cfg(test)]
mod tests;
