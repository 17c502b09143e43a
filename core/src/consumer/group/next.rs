//! A member under the next generation of the protocol (KIP-848): the coordinator assigns, and each member moves towards
//! what it is assigned by itself, told by heartbeats.
//!
//! | state | heartbeat | leaves on |
//! |---|---|---|
//! | idle | none: the application never asked, or has not come back | it asks |
//! | joining | epoch 0, all fields, owned: an empty list | an epoch |
//! | member | nothing but the epoch; all fields after one that failed | fenced, unknown |
//! | - giving up | owned: null, which is all that it was | given up |
//! | - acknowledging | at once, owned: a list | an answer |
//! | leaving | epoch -1, or -2 of a static member that comes back | any answer |
//!
//! - The assignment in an answer is the whole of it; none means that it is as before.
//! - The epoch moves in answers to our heartbeats only, and commits bear it. So a heartbeat waits for a commit that is on
//!   its way, and a commit for a heartbeat; then only a lost answer makes a commit stale.
//! - After a failed heartbeat it is not known which epoch the coordinator has us at. It takes the one before only from who
//!   names what he owns (`GroupMetadataManager.throwIfConsumerGroupMemberEpochIsInvalid`).
//! - The member id is our own (KIP-1082): a join whose answer was lost is repeated, and does not make a second member.
//! - Commits do not count as signs of life here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;
use uuid::Uuid;

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

/// Of a member that is new.
const JOINS: i32 = 0;
const LEAVES: i32 = -1;
/// Of a static member that is to be back.
const LEAVES_FOR_NOW: i32 = -2;

/// A partition as requests and answers have it.
pub(crate) type Place = (Uuid, i32);

/// ConsumerGroupHeartbeat. The group, the instance id and the assignor are in every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) member_id: Arc<str>,
    /// The member's; 0 joins, -1 leaves, -2 leaves for now.
    pub(crate) epoch: i32,
    /// With the rack and the rebalance timeout; `None`: null, as before.
    pub(crate) all: Option<Subscription>,
    /// `None`: null, all that it was.
    pub(crate) owned: Option<Vec<Place>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: i16,
    pub(crate) epoch: i32,
    /// Until the next heartbeat; zero or less is none.
    pub(crate) interval_ms: i32,
    /// `None`: as before.
    pub(crate) assignment: Option<Vec<Place>>,
}

type Actions = Vec<Action<Request>>;

#[derive(Clone, Copy, Debug)]
struct Flight {
    id: RequestId,
    sent: Instant,
    epoch: i32,
    /// It named what is owned, as it was then.
    owned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Join,
    Stay,
    End,
}

#[derive(Debug)]
enum State {
    Idle,
    Joining,
    Member,
    Leaving {
        flight: Option<Flight>,
        epoch: i32,
        not_before: Instant,
        until: Option<Instant>,
        then: Then,
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

/// See the module.
#[derive(Debug)]
pub(crate) struct Next {
    settings: Settings,
    subscription: Subscription,
    numbers: u64,
    coordinator: Coordinator,
    state: State,
    giving: Option<Giving>,
    closing: Option<Closing>,
    member_id: Arc<str>,
    /// 0 without a membership.
    epoch: i32,
    /// What the coordinator wants us to have.
    target: Option<BTreeSet<Place>>,
    /// Of topics in `target`, and those that are owned.
    names: BTreeMap<Uuid, Arc<str>>,
    /// Whose names were asked for.
    asked: BTreeSet<Uuid>,
    /// What is handed out, or being given up.
    owned: BTreeSet<Part>,
    flight: Option<Flight>,
    /// When the next heartbeat goes out.
    due: Instant,
    interval: Duration,
    /// It is to say all there is.
    all: bool,
    /// What is owned is not what was told last.
    tell_owned: bool,
    committing: bool,
    /// It was a member once, or a join was answered: the coordinator knows the protocol.
    known: bool,
    /// A join may have been heard although it was not answered, or an epoch was refused: the coordinator may have us.
    doubt: bool,
    /// Since when the instance id is somebody's who has not left.
    unreleased: Option<Instant>,
    session: Session,
    application: Application,
    backoff: Backoff,
    /// For what somebody has to do something about.
    slow: Backoff,
    told: Told,
}

/// Until the coordinator says how often it is to hear from us.
const INTERVAL: Duration = Duration::from_secs(5);
/// The session's timeout is not told. Brokers have 45 s, and those that want heartbeats more often have it lower.
const SESSION: Duration = Duration::from_secs(45);
const SESSION_HEARTBEATS: u32 = 9;
/// After that long past a session nobody holds an instance id who is not there.
const RELEASE_RESERVE: Duration = Duration::from_secs(15);
/// Brokers from 4.3 on assign a while after a join, not with it.
const ASSIGNED_AFTER: Duration = Duration::from_secs(1);
/// What to keep of the time that a close has, for leaving.
const LEAVE_SHARE: u32 = 4;
const LEAVE_MOST: Duration = Duration::from_secs(2);

impl Next {
    pub(crate) fn new(
        settings: Settings,
        subscription: Subscription,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Self {
        let id = uuid::Builder::from_random_bytes(rng.random()).into_uuid();
        Self {
            session: Session::new(SESSION),
            application: Application::new(settings.max_poll_interval),
            settings,
            subscription,
            numbers: 0,
            coordinator: Coordinator::new(now),
            state: State::Idle,
            giving: None,
            closing: None,
            member_id: Arc::from(id.to_string()),
            epoch: 0,
            target: None,
            names: BTreeMap::new(),
            asked: BTreeSet::new(),
            owned: BTreeSet::new(),
            flight: None,
            due: now,
            interval: INTERVAL,
            all: true,
            tell_owned: false,
            committing: false,
            known: false,
            doubt: false,
            unreleased: None,
            backoff: Backoff::default(),
            slow: Backoff::new(SLOW.0, SLOW.1),
            told: Told::default(),
        }
    }

    /// Something has happened. What is due now is done as well.
    pub(crate) fn on(&mut self, event: Event<Answer>, now: Instant, rng: &mut impl Rng) -> Actions {
        let mut out = Vec::new();
        match event {
            Event::Tick | Event::TopicsChanged | Event::Planned { .. } | Event::Alive { .. } => {}
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
            Event::Committing(flying) => self.committing = flying,
            Event::Subscribed(subscription) => {
                if subscription != self.subscription {
                    self.subscription = subscription;
                    self.all = true;
                    self.due = self.due.min(now);
                }
            }
            Event::Named { topics } => {
                let wanted = |id: &Uuid| self.target.iter().flatten().any(|(of, _)| of == id);
                let new: Vec<_> = topics.into_iter().filter(|(id, _)| wanted(id)).collect();
                self.names.extend(new);
                self.reconcile(now, &mut out);
            }
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
            State::Joining | State::Member if self.may_beat() => {
                ready.map(|ready| ready.max(self.due))
            }
            State::Joining | State::Member => None,
            State::Leaving { flight: None, not_before, .. } => {
                ready.map(|ready| ready.max(*not_before))
            }
            State::Leaving { .. } => None,
        };
        let leaving = match &self.state {
            State::Leaving { until, .. } => *until,
            _ => None,
        };
        let silence =
            (!self.owned.is_empty() && !self.session.halted).then(|| self.session.until());
        [
            request,
            leaving,
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
        if self.flight.is_none() && self.coordinator.found().is_some() {
            Commits::As(identity)
        } else {
            Commits::Wait
        }
    }

    /// How long a call may take that holds heartbeats back.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.settings.request_timeout.min(self.session.timeout() / 2)
    }

    /// What is owned, with what is being given up.
    #[cfg(test)]
    pub(crate) fn owned(&self) -> impl Iterator<Item = &Part> {
        self.owned.iter()
    }

    /// Assigned topics whose names are not known.
    pub(crate) fn unnamed(&self) -> impl Iterator<Item = Uuid> {
        self.asked.iter().copied()
    }

    /// The member as the coordinator knows it.
    pub(crate) fn identity(&self) -> Option<Identity> {
        matches!(self.state, State::Member).then(|| Identity {
            member_id: Arc::clone(&self.member_id),
            generation: self.epoch,
            instance_id: self.settings.instance_id.clone(),
        })
    }

    fn is_member(&self) -> bool {
        matches!(self.state, State::Joining | State::Member)
    }

    /// Whether the application has to be there.
    fn is_there(&self) -> bool {
        let joins = matches!(self.state, State::Leaving { then: Then::Join, .. });
        (self.is_member() || joins) && self.closing.is_none()
    }

    fn needs_coordinator(&self) -> bool {
        !matches!(self.state, State::Idle | State::Ended)
    }

    /// Nothing is on its way that has to be answered first.
    fn may_beat(&self) -> bool {
        self.flight.is_none() && !self.committing
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

#[cfg(test)]
mod tests;
