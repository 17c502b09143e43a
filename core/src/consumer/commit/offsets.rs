//! Asks where the group has committed, for each partition that is added. Only an answer without an error that says -1
//! means that nothing was committed: a consumer that takes trouble for that begins anew, and reads everything again or
//! skips it.
//!
//! A transaction may be about to commit other offsets (UNSTABLE_OFFSET_COMMIT, KIP-447): what will hold is known once it
//! has ended.

use std::collections::BTreeMap;

use rand::Rng;
use tokio::time::Instant;

use super::Spot;
use super::committer::Offset;
use crate::consumer::group::codes::{Meaning, meaning};
use crate::consumer::group::coordinator::SLOW;
use crate::consumer::group::events::{Commits, Identity, Outcome, Part, RequestId, Trouble};
use crate::consumer::group::told::Told;
use crate::error::names as code;
use crate::policy::backoff::Backoff;

/// What the coordinator says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) part: Part,
    pub(crate) code: i16,
    /// With offset -1: nothing is committed.
    pub(crate) offset: Offset,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Time has passed, or the member's [`Commits`] are not what they were.
    Tick,
    /// These are added, each with its incarnation.
    Want { parts: Vec<(Part, u64)> },
    /// These are not wanted any more.
    Forget { parts: Vec<Part> },
    /// `code`: of the response as a whole.
    Answer { to: RequestId, outcome: Outcome<(i16, Vec<Said>)> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// OffsetFetch, with `require_stable`.
    Send { id: RequestId, identity: Identity, parts: Vec<Part> },
    /// Reading goes on there; `None`: nothing was ever committed, and the start policy says where.
    Found { part: Part, incarnation: u64, committed: Option<Offset> },
    /// For the member: `Event::Refused`.
    Refused { code: i16, sent: Identity },
    /// For the member: the connection was lost (`Event::CoordinatorLost`).
    Lost,
    /// Tell the application. At most once a minute.
    Tell(Trouble),
}

#[derive(Debug)]
struct Flight {
    id: RequestId,
    identity: Identity,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Offsets {
    numbers: u64,
    /// Incarnations of those that are wanted.
    wanted: BTreeMap<Part, u64>,
    flight: Option<Flight>,
    not_before: Instant,
    /// Some partitions have no answer; the others need not wait for them.
    partial: bool,
    backoff: Backoff,
    slow: Backoff,
    told: Told,
}

type Actions = Vec<Action>;

impl Offsets {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            numbers: 0,
            wanted: BTreeMap::new(),
            flight: None,
            not_before: now,
            partial: false,
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
            Event::Want { parts } => {
                self.wanted.extend(parts);
                if std::mem::take(&mut self.partial) {
                    self.not_before = now;
                }
            }
            Event::Forget { parts } => {
                for part in &parts {
                    self.wanted.remove(part);
                }
            }
            Event::Answer { to, outcome } => self.answered(to, outcome, now, rng, &mut out),
        }
        if let Commits::As(identity) = commits
            && self.flight.is_none()
            && self.not_before <= now
            && !self.wanted.is_empty()
        {
            self.numbers += 1;
            let id = RequestId(self.numbers);
            let parts = self.wanted.keys().cloned().collect();
            out.push(Action::Send { id, identity: identity.clone(), parts });
            self.flight = Some(Flight { id, identity: identity.clone() });
        }
        out
    }

    /// When [`Event::Tick`] is due.
    pub(crate) fn next_wake(&self, commits: &Commits) -> Option<Instant> {
        let waits = self.flight.is_none() && !self.wanted.is_empty();
        (waits && matches!(commits, Commits::As(_))).then_some(self.not_before)
    }

    fn answered(
        &mut self,
        to: RequestId,
        outcome: Outcome<(i16, Vec<Said>)>,
        now: Instant,
        rng: &mut impl Rng,
        out: &mut Actions,
    ) {
        let Some(flight) = self.flight.take_if(|flight| flight.id == to) else { return };
        self.partial = false;
        let Outcome::Answered((code, said)) = outcome else {
            self.not_before = now + self.backoff.next(rng);
            out.push(Action::Lost);
            return;
        };
        match meaning(code) {
            Meaning::Fine => {}
            Meaning::Behind
            | Meaning::Generation
            | Meaning::Member
            | Meaning::Epoch
            | Meaning::NoGroup
            | Meaning::Moved => {
                out.push(Action::Refused { code, sent: flight.identity });
                self.not_before = now + self.backoff.next(rng);
                return;
            }
            Meaning::Told => {
                self.tell(code, now, out);
                self.not_before = now + self.slow.next(rng);
                return;
            }
            _ => {
                self.tell(code, now, out);
                self.not_before = now + self.backoff.next(rng);
                return;
            }
        }
        let mut right_is_missing = false;
        for Said { part, code, offset } in said {
            let Some(incarnation) = self.wanted.get(&part).copied() else { continue };
            if code == code::NONE {
                self.wanted.remove(&part);
                let committed = (offset.spot.offset >= 0).then_some(offset);
                out.push(Action::Found { part, incarnation, committed });
            } else {
                right_is_missing |= meaning(code) == Meaning::Told;
                if code != code::UNSTABLE_OFFSET_COMMIT {
                    self.tell(code, now, out);
                }
            }
        }
        if self.wanted.is_empty() {
            self.backoff.reset();
            self.slow.reset();
            self.told.over();
        } else {
            let backoff = if right_is_missing { &mut self.slow } else { &mut self.backoff };
            self.not_before = now + backoff.next(rng);
            self.partial = true;
        }
    }

    fn tell(&mut self, code: i16, now: Instant, out: &mut Actions) {
        let trouble = Trouble { code, during: "OffsetFetch" };
        if self.told.trouble(trouble, now) {
            out.push(Action::Tell(trouble));
        }
    }
}

/// Where reading begins, as the coordinator says it.
impl From<(i64, i32)> for Offset {
    fn from((offset, epoch): (i64, i32)) -> Self {
        Spot { offset, epoch }.into()
    }
}

#[cfg(test)]
mod tests;
