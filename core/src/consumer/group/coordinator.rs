//! Who the coordinator of a group is: asked for when it is needed, again when it is lost or turns out to be another one.
//! Lookups back off until a coordinator that was found has served something: brokers that do not agree on who it is
//! would else be asked without a pause. Whoever lost the coordinator comes back within half a heartbeat at random, since all
//! members of all its groups lost it in the same instant.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::codes::{Meaning, meaning};
use super::events::{Outcome, RequestId};
use crate::policy::backoff::Backoff;

/// Between requests that are refused until somebody has done something: a right is missing, the group is full.
pub(in crate::consumer) const SLOW: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30));

/// The coordinator that is named cannot be reached: until brokers have noticed that it is gone (9 s), all members of its groups
/// would ask them again and again.
const PATIENT: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum State {
    Unknown {
        not_before: Instant,
    },
    Asking {
        id: RequestId,
    },
    /// By this lookup. Not to be asked for anything before a time.
    Known {
        found: RequestId,
        not_before: Instant,
    },
}

#[derive(Debug)]
pub(super) struct Coordinator {
    state: State,
    backoff: Backoff,
    slow: Backoff,
    /// One was known before.
    lost: bool,
    /// It has served nothing since it was found.
    unserved: bool,
    /// It could not be reached.
    gone: bool,
}

/// What came of a lookup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Not the one that is waited for.
    Stale,
    Found,
    /// It is asked for again by itself.
    Failed(Option<i16>),
}

impl Coordinator {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Unknown { not_before: now },
            backoff: Backoff::default(),
            slow: Backoff::new(SLOW.0, SLOW.1),
            lost: false,
            unserved: false,
            gone: false,
        }
    }

    /// By which lookup it was found.
    pub(super) fn found(&self) -> Option<RequestId> {
        match self.state {
            State::Known { found, .. } => Some(found),
            State::Unknown { .. } | State::Asking { .. } => None,
        }
    }

    /// From when on it may be asked for something; `None`: there is none.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        match self.state {
            State::Known { not_before, .. } => Some(not_before),
            State::Unknown { .. } | State::Asking { .. } => None,
        }
    }

    /// It is needed: whether it is to be asked for now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Unknown { not_before } if not_before <= now)
    }

    pub(super) fn asked(&mut self, id: RequestId) {
        self.state = State::Asking { id };
    }

    /// When to look again, if it is needed.
    pub(super) fn wake(&self) -> Option<Instant> {
        match self.state {
            State::Unknown { not_before } => Some(not_before),
            State::Asking { .. } | State::Known { .. } => None,
        }
    }

    /// `spread`: within which time members come back to a coordinator that they had lost.
    pub(super) fn answered(
        &mut self,
        to: RequestId,
        outcome: &Outcome<i16>,
        spread: Duration,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Lookup {
        match self.state {
            State::Asking { id } if id == to => {}
            _ => return Lookup::Stale,
        }
        let failed = match outcome {
            Outcome::Answered(code) => Some(*code),
            Outcome::NotSent | Outcome::Cut | Outcome::TimedOut => None,
        };
        match failed.map(meaning) {
            Some(Meaning::Fine) => {
                let spread = if self.lost { spread } else { Duration::ZERO };
                let not_before = now + spread.mul_f64(rng.random_range(0.0..1.0));
                self.state = State::Known { found: to, not_before };
                self.unserved = true;
                self.slow.reset();
                return Lookup::Found;
            }
            Some(Meaning::Told) => {
                self.state = State::Unknown { not_before: now + self.slow.next(rng) };
            }
            _ => self.state = State::Unknown { not_before: now + self.backoff.next(rng) },
        }
        Lookup::Failed(failed)
    }

    /// It is not the coordinator any more, or cannot be reached. A lookup that is on its way goes on.
    pub(super) fn lose(&mut self, now: Instant, rng: &mut impl Rng) {
        if let State::Known { .. } = self.state {
            let mut wait = self.backoff.next(rng);
            if std::mem::take(&mut self.gone) && self.unserved {
                wait = PATIENT.mul_f64(rng.random_range(0.5..1.0));
            }
            self.state = State::Unknown { not_before: now + wait };
            self.lost = true;
        }
    }

    /// It is about to be lost because nothing was heard of it, and not by a word of its own.
    pub(super) fn is_silent(&mut self) {
        self.gone = true;
    }

    /// It has served a request of the group's.
    pub(super) fn served(&mut self) {
        self.backoff.reset();
        (self.unserved, self.gone) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// How long until it is looked up again after it was found for the so-manyeth time.
    fn pauses(times: u64, lost: impl Fn(&mut Coordinator)) -> Vec<Duration> {
        let (now, rng) = (Instant::now(), &mut StdRng::seed_from_u64(1));
        let mut coordinator = Coordinator::new(now);
        let mut pauses = Vec::new();
        for number in 1..=times {
            coordinator.asked(RequestId(number));
            let found = Outcome::Answered(crate::error::names::NONE);
            coordinator.answered(RequestId(number), &found, Duration::ZERO, now, rng);
            lost(&mut coordinator);
            coordinator.lose(now, rng);
            pauses.push(coordinator.wake().unwrap() - now);
        }
        pauses
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_gone_and_still_named_is_asked_for_seldom() {
        let secs = Duration::from_secs_f64;
        let gone = pauses(9, Coordinator::is_silent);
        assert!(gone.iter().all(|pause| (secs(2.5)..=secs(5.0)).contains(pause)), "{gone:?}");
        // It has served: this is news.
        let cut = pauses(9, |coordinator| {
            coordinator.served();
            coordinator.is_silent();
        });
        assert!(cut.iter().all(|pause| *pause <= secs(0.1)), "{cut:?}");
        // By its own word it is another one.
        let moved = pauses(2, |_| {});
        assert!(moved.iter().all(|pause| *pause <= secs(0.2)), "{moved:?}");
    }
}
