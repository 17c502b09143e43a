//! A member under the classic protocol: all members join, the one that the coordinator makes the leader assigns, the
//! coordinator hands the plan round.
//!
//! | state | while there | leaves on |
//! |---|---|---|
//! | idle | no member: the application never asked, or has not come back | it asks |
//! | to join | backoff, lookup | the coordinator is there |
//! | joining | parked for as long as others take; commits pass | MEMBER_ID_REQUIRED: again with the id; a generation |
//! | planning | the leader loads topics and assigns; commits wait | a plan; the group rebalances again |
//! | syncing | parked until the leader has a plan; commits wait | an assignment |
//! | stable | commits | REBALANCE_IN_PROGRESS, the subscription, the leader's topics |
//! | leaving | LeaveGroup, on the connection that nothing is parked on | any answer |
//!
//! Giving up goes beside this: eager, all partitions before a join; cooperative, what the assignment lacks after it, and
//! topics that are not subscribed to any more before it; all, at the end.
//!
//! - Heartbeats go on in every state in which the coordinator knows us, on a connection where nothing is parked, also while
//!   JoinGroup and SyncGroup are: the broker answers them (GroupMetadataManager.classicGroupHeartbeat), so they tell
//!   whether it lives, whether we are still members, and that what is parked is there. An answer that cannot be, twice
//!   in a row, says that the parked request is lost or was answered without us.
//! - What a lost response would have said is asked for again: a second JoinGroup takes the place of the first, a second
//!   SyncGroup gets what the first got.
//! - What a member claims to own is told with the generation that it was assigned in, not with the one it missed: where
//!   two claim a partition, the leader believes the later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::codes::{Meaning, meaning};
use super::coordinator::{Coordinator, Lookup, SLOW};
use super::events::{
    Action, Commits, Event, Identity, Lane, Outcome, Part, RequestId, Round, Settings,
    Subscription, Trouble, Why,
};
use super::life::{Application, Session};
use super::told::Told;
use crate::error::names as code;
use crate::policy::backoff::Backoff;

mod advance;
mod answers;

/// To the coordinator. What else these carry is in the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Join {
        /// Empty at first.
        member_id: Arc<str>,
        topics: Vec<Arc<str>>,
        /// What is read, by the generation that assigned it (-1: nothing ever was). Empty if the group is eager.
        owned: Vec<Part>,
        owned_generation: i32,
    },
    Sync {
        member_id: Arc<str>,
        generation: i32,
        /// The leader's, with the plan that was made for this JoinGroup; without one after `skip_assignment`.
        planned: Option<RequestId>,
    },
    Heartbeat {
        member_id: Arc<str>,
        /// -1 of a member that is joining for the first time: it is refused, which is an answer.
        generation: i32,
    },
    Leave {
        member_id: Arc<str>,
    },
}

/// From the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Join {
        code: i16,
        member_id: Arc<str>,
        generation: i32,
        leader: bool,
        skip_assignment: bool,
    },
    /// `parts`: empty for no bytes at all, which is what a member gets that the leader left out.
    Sync {
        code: i16,
        parts: Vec<Part>,
    },
    /// To a Heartbeat or a LeaveGroup.
    Code(i16),
}

impl Answer {
    fn code(&self) -> i16 {
        match self {
            Self::Join { code, .. } | Self::Sync { code, .. } | Self::Code(code) => *code,
        }
    }
}

type Actions = Vec<Action<Request>>;

/// A request on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    id: RequestId,
    sent: Instant,
}

#[derive(Debug)]
enum State {
    Idle,
    ToJoin {
        not_before: Instant,
    },
    Joining {
        flight: Flight,
    },
    /// `plan_at`: when to try again to plan; `None` while somebody plans.
    Planning {
        join: RequestId,
        assign: bool,
        plan_at: Option<Instant>,
    },
    ToSync {
        not_before: Instant,
        planned: Option<RequestId>,
    },
    Syncing {
        flight: Flight,
        planned: Option<RequestId>,
    },
    Stable,
    Leaving {
        flight: Option<Flight>,
        not_before: Instant,
        until: Instant,
    },
    Ended,
}

/// Partitions that are being given up.
#[derive(Debug)]
struct Giving {
    round: Round,
    parts: BTreeSet<Part>,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    deadline: Instant,
    leave: bool,
}

/// The heartbeat on its way.
#[derive(Clone, Copy, Debug)]
struct Beat {
    flight: Flight,
    generation: i32,
}

#[derive(Debug)]
struct Heartbeat {
    interval: Duration,
    flight: Option<Beat>,
    /// When the next one goes out.
    due: Instant,
    /// Answers in a row that what is parked does not explain.
    odd: u8,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Classic {
    settings: Settings,
    subscription: Subscription,
    numbers: u64,
    coordinator: Coordinator,
    state: State,
    giving: Option<Giving>,
    closing: Option<Closing>,
    /// Empty: not known, or not good any more.
    member_id: Arc<str>,
    /// That of the last JoinGroup; -1 without a membership.
    generation: i32,
    leader: bool,
    /// What is handed out, or being given up.
    owned: BTreeSet<Part>,
    owned_generation: i32,
    /// Join again as soon as that is possible.
    again: bool,
    heartbeat: Heartbeat,
    session: Session,
    application: Application,
    backoff: Backoff,
    /// For what somebody has to do something about.
    slow: Backoff,
    told: Told,
}

/// What to keep of the time that a close has, for LeaveGroup.
const LEAVE_SHARE: u32 = 4;
const LEAVE_MOST: Duration = Duration::from_secs(2);

/// How long others may take longer than they should before a parked request is given up (as Java's client has it).
const PARKED_RESERVE: Duration = Duration::from_secs(5);

impl Classic {
    pub(crate) fn new(settings: Settings, subscription: Subscription, now: Instant) -> Self {
        let heartbeat =
            Heartbeat { interval: settings.heartbeat_interval(), flight: None, due: now, odd: 0 };
        Self {
            session: Session::new(settings.session_timeout),
            application: Application::new(settings.max_poll_interval),
            settings,
            subscription,
            numbers: 0,
            coordinator: Coordinator::new(now),
            state: State::Idle,
            giving: None,
            closing: None,
            member_id: Arc::from(""),
            generation: -1,
            leader: false,
            owned: BTreeSet::new(),
            owned_generation: -1,
            again: false,
            heartbeat,
            backoff: Backoff::default(),
            slow: Backoff::new(SLOW.0, SLOW.1),
            told: Told::default(),
        }
    }

    /// Something has happened. What is due now is done as well.
    pub(crate) fn on(&mut self, event: Event<Answer>, now: Instant, rng: &mut impl Rng) -> Actions {
        let mut out = Vec::new();
        match event {
            Event::Tick => {}
            Event::Asks => self.asks(now),
            Event::Away { since } => self.application.away(since),
            Event::Coordinator { to, outcome } => self.looked_up(to, &outcome, now, rng, &mut out),
            Event::CoordinatorLost { found } => {
                if self.coordinator.found() == Some(found) {
                    self.coordinator.is_silent();
                    self.coordinator_lost(now, rng, &mut out);
                }
            }
            Event::Answer { to, outcome } => self.answered(to, outcome, now, rng, &mut out),
            Event::GaveUp { round } => {
                if self.giving.as_ref().is_some_and(|giving| giving.round == round) {
                    self.gave_up(now, &mut out);
                }
            }
            Event::Refused { code, sent, found } => {
                self.refused(code, &sent, found, now, rng, &mut out);
            }
            Event::Alive { sent, since } => {
                if self.identity().as_ref() == Some(&sent) {
                    self.session.answered(since);
                }
            }
            Event::Subscribed(subscription) => {
                if subscription != self.subscription {
                    self.subscription = subscription;
                    self.again = true;
                }
            }
            Event::TopicsChanged => self.again |= self.leader,
            Event::Planned { join, ok } => self.planned(join, ok, now, rng),
            Event::Named { .. } | Event::Committing(_) => {}
            Event::Close { deadline, leave } => self.close(deadline, leave, now, &mut out),
        }
        self.advance(now, rng, &mut out);
        out
    }

    /// When [`Event::Tick`] is due; `None` if nothing comes by itself.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let ready = self.coordinator.ready_at();
        let request = match &self.state {
            State::Ended => return None,
            State::Idle => None,
            State::ToJoin { .. } if self.giving.is_some() || self.closing.is_some() => None,
            State::ToJoin { not_before } | State::ToSync { not_before, .. } => {
                ready.map(|ready| ready.max(*not_before))
            }
            // Without a coordinator that is looked for first.
            State::Planning { plan_at, .. } => ready.and(*plan_at),
            State::Leaving { flight: None, not_before, .. } => {
                ready.map(|ready| ready.max(*not_before))
            }
            State::Joining { .. }
            | State::Syncing { .. }
            | State::Stable
            | State::Leaving { .. } => None,
        };
        let leaving = match &self.state {
            State::Leaving { until, .. } => Some(*until),
            _ => None,
        };
        let heartbeat = (self.has_heartbeats() && self.heartbeat.flight.is_none())
            .then(|| ready.map(|ready| ready.max(self.heartbeat.due)))
            .flatten();
        let silence =
            (!self.owned.is_empty() && !self.session.halted).then(|| self.session.until());
        [
            request,
            leaving,
            heartbeat,
            silence.flatten(),
            self.needs_coordinator().then(|| self.coordinator.wake()).flatten(),
            self.is_there().then(|| self.application.until()).flatten(),
            self.giving.as_ref().map(|giving| giving.until),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Until when what is owned may be handed out, as far as is known now; `None`: nothing may be. Partitions that are
    /// being given up are not handed out either.
    pub(crate) fn lease(&self) -> Option<Instant> {
        let none = self.owned.is_empty() || self.closing.is_some();
        self.session.until().filter(|_| !none)
    }

    /// Whether a commit may go out.
    pub(crate) fn commits(&self) -> Commits {
        let Some(identity) = self.identity() else { return Commits::Never };
        match self.state {
            State::ToJoin { .. } | State::Joining { .. } | State::Stable
                if self.coordinator.found().is_some() =>
            {
                Commits::As(identity)
            }
            _ => Commits::Wait,
        }
    }

    /// What is owned, with what is being given up.
    #[cfg(test)]
    pub(crate) fn owned(&self) -> impl Iterator<Item = &Part> {
        self.owned.iter()
    }

    /// The member as the coordinator knows it.
    pub(crate) fn identity(&self) -> Option<Identity> {
        (self.generation >= 0).then(|| Identity {
            member_id: Arc::clone(&self.member_id),
            generation: self.generation,
            instance_id: self.settings.instance_id.clone(),
        })
    }

    /// There is a membership, or there is to be one.
    fn is_member(&self) -> bool {
        !matches!(self.state, State::Idle | State::Leaving { .. } | State::Ended)
    }

    /// Whether the application has to be there.
    fn is_there(&self) -> bool {
        self.is_member() && self.closing.is_none()
    }

    fn needs_coordinator(&self) -> bool {
        !matches!(self.state, State::Idle | State::Ended)
    }

    /// Whether the coordinator is told that we are there. While a static member joins for the first time its id is not known.
    fn has_heartbeats(&self) -> bool {
        match self.state {
            State::Joining { .. } => !self.member_id.is_empty(),
            State::ToJoin { .. }
            | State::Planning { .. }
            | State::ToSync { .. }
            | State::Syncing { .. }
            | State::Stable => self.generation >= 0,
            State::Idle | State::Leaving { .. } | State::Ended => false,
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

#[cfg(test)]
mod tests;
