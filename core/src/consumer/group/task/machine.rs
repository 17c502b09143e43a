//! The machine of either protocol. What a member is told and what it wants is the same but for the requests.

use std::time::Duration;

use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::consumer::group::classic::{self, Classic};
use crate::consumer::group::events::{
    Action, Commits, Event, Identity, Outcome, Settings, Subscription,
};
use crate::consumer::group::next::{self, Next};

/// See the module.
pub(super) enum Machine {
    /// Which one it will be is not known yet: nobody has asked for a batch, or the group is being looked at.
    None {
        wanted: bool,
    },
    Classic(Box<Classic>),
    Next(Box<Next>),
}

/// What the coordinator has answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Classic(classic::Answer),
    Next(next::Answer),
}

pub(super) enum Request {
    Classic(classic::Request),
    Next(next::Request),
}

impl Machine {
    pub(super) fn classic(settings: Settings, subscription: Subscription, now: Instant) -> Self {
        Self::Classic(Box::new(Classic::new(settings, subscription, now)))
    }

    pub(super) fn next(
        settings: Settings,
        subscription: Subscription,
        now: Instant,
        rng: &mut StdRng,
    ) -> Self {
        Self::Next(Box::new(Next::new(settings, subscription, now, rng)))
    }

    pub(super) fn on(
        &mut self,
        event: Event<Answer>,
        now: Instant,
        rng: &mut StdRng,
    ) -> Vec<Action<Request>> {
        match self {
            Self::None { wanted } => match event {
                Event::Asks => {
                    *wanted = true;
                    Vec::new()
                }
                // There is nothing to give up, and nobody to tell.
                Event::Close { .. } => vec![Action::Closed],
                _ => Vec::new(),
            },
            Self::Classic(machine) => {
                let event = event.answered(|answer| match answer {
                    Answer::Classic(answer) => Some(answer),
                    Answer::Next(_) => None,
                });
                let actions = event.map(|event| machine.on(event, now, rng)).unwrap_or_default();
                actions.into_iter().map(|action| action.asking(Request::Classic)).collect()
            }
            Self::Next(machine) => {
                let event = event.answered(|answer| match answer {
                    Answer::Next(answer) => Some(answer),
                    Answer::Classic(_) => None,
                });
                let actions = event.map(|event| machine.on(event, now, rng)).unwrap_or_default();
                actions.into_iter().map(|action| action.asking(Request::Next)).collect()
            }
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        match self {
            Self::None { .. } => None,
            Self::Classic(machine) => machine.next_wake(),
            Self::Next(machine) => machine.next_wake(),
        }
    }

    pub(super) fn lease(&self) -> Option<Instant> {
        match self {
            Self::None { .. } => None,
            Self::Classic(machine) => machine.lease(),
            Self::Next(machine) => machine.lease(),
        }
    }

    /// How long a commit may take; `None`: as long as any request.
    pub(super) fn commit_timeout(&self) -> Option<Duration> {
        match self {
            // Heartbeats wait for it.
            Self::Next(machine) => Some(machine.call_timeout()),
            Self::None { .. } | Self::Classic(_) => None,
        }
    }

    pub(super) fn commits(&self) -> Commits {
        match self {
            Self::None { .. } => Commits::Never,
            Self::Classic(machine) => machine.commits(),
            Self::Next(machine) => machine.commits(),
        }
    }

    /// Whether it is assigned something of topics whose names are not known yet.
    pub(super) fn has_nameless(&self) -> bool {
        match self {
            Self::Next(machine) => machine.unnamed().next().is_some(),
            Self::None { .. } | Self::Classic(_) => false,
        }
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        match self {
            Self::None { .. } => None,
            Self::Classic(machine) => machine.identity(),
            Self::Next(machine) => machine.identity(),
        }
    }
}

impl<A> Event<A> {
    /// The same with the answer as another has it; `None` if that has no such answer.
    fn answered<B>(self, to: impl FnOnce(A) -> Option<B>) -> Option<Event<B>> {
        Some(match self {
            Event::Answer { to: id, outcome } => {
                let outcome = match outcome {
                    Outcome::Answered(answer) => Outcome::Answered(to(answer)?),
                    Outcome::NotSent => Outcome::NotSent,
                    Outcome::Cut => Outcome::Cut,
                    Outcome::TimedOut => Outcome::TimedOut,
                };
                Event::Answer { to: id, outcome }
            }
            Event::Tick => Event::Tick,
            Event::Asks => Event::Asks,
            Event::Away { since } => Event::Away { since },
            Event::Coordinator { to, outcome } => Event::Coordinator { to, outcome },
            Event::CoordinatorLost { found } => Event::CoordinatorLost { found },
            Event::GaveUp { round } => Event::GaveUp { round },
            Event::Refused { code, sent, found } => Event::Refused { code, sent, found },
            Event::Alive { sent, since } => Event::Alive { sent, since },
            Event::Committing(flying) => Event::Committing(flying),
            Event::Subscribed(subscription) => Event::Subscribed(subscription),
            Event::TopicsChanged => Event::TopicsChanged,
            Event::Planned { join, ok } => Event::Planned { join, ok },
            Event::Named { topics } => Event::Named { topics },
            Event::Close { deadline, leave } => Event::Close { deadline, leave },
        })
    }
}

impl<R> Action<R> {
    fn asking<S>(self, to: impl FnOnce(R) -> S) -> Action<S> {
        match self {
            Action::Send { id, lane, timeout, request } => {
                Action::Send { id, lane, timeout, request: to(request) }
            }
            Action::FindCoordinator { id } => Action::FindCoordinator { id },
            Action::Abandon { id } => Action::Abandon { id },
            Action::Plan { join, assign } => Action::Plan { join, assign },
            Action::Resolve { topics } => Action::Resolve { topics },
            Action::Take { parts } => Action::Take { parts },
            Action::GiveUp { round, parts, deadline } => Action::GiveUp { round, parts, deadline },
            Action::Drop { parts, why } => Action::Drop { parts, why },
            Action::Halt => Action::Halt,
            Action::Resume => Action::Resume,
            Action::Tell(trouble) => Action::Tell(trouble),
            Action::UseClassic => Action::UseClassic,
            Action::End(trouble) => Action::End(trouble),
            Action::Closed => Action::Closed,
        }
    }
}
