//! When to ask for metadata. One plan for a whole pool: whatever is wanted rides in the next
//! request, so that a thousand partitions that move make one request and not a thousand.
//!
//! - A topic nobody knows yet asks at once. More of them right after it are gathered until none
//!   comes for 10 ms, 50 ms at most: who begins with a thousand topics asks twice, and not once for
//!   each round trip that it takes to name them all.
//! - An error without a hint asks when what is known is 250 ms old, jittered: the response that just
//!   came may know better.
//! - A lost broker that something needs asks another one within U(0, 250 ms), never once per dial.
//! - Asking again for what did not help backs off to 5 s, for as long as somebody wants it.
//! - Else every 5 minutes +-20 %, up to 15 while the responses bring nothing new.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::backoff::Backoff;
use crate::config::{METADATA_MIN_AGE, METADATA_PERIOD, METADATA_PERIOD_MAX};

/// After so long without trouble, the next trouble begins without backoff.
const CALM: Duration = Duration::from_secs(10);

/// A new topic that comes so soon after a request for new topics is gathered with others that come.
const BURST: Duration = Duration::from_millis(100);
/// Gathered topics are asked for when no more have come for so long,
const QUIET: Duration = Duration::from_millis(10);
/// or when the first of them has waited for so long.
const GATHERED: Duration = Duration::from_millis(50);

/// Why metadata is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshReason {
    /// The topic is not known yet.
    New,
    /// A response says that cached metadata is wrong, and does not name the new leader.
    Stale,
    /// A broker that something must go to cannot be reached.
    Lost,
    /// The last response did not help: a topic is missing, or a partition has no leader.
    Again,
}

/// When the next Metadata request of a pool is due.
#[derive(Debug)]
pub(crate) struct AskPlan {
    /// When to ask for known topics, if any are wanted.
    at: Option<Instant>,
    /// When to ask for topics that are not known yet.
    new: Option<Gathering>,
    /// When such topics were asked for last.
    asked_new: Option<Instant>,
    period: Duration,
    periodic_at: Instant,
    answered: Option<Instant>,
    backoff: Backoff,
    /// When something other than a new topic was wanted last.
    trouble: Option<Instant>,
    /// A request was sent since the trouble began: the next one backs off.
    asked_in_trouble: bool,
}

#[derive(Clone, Copy, Debug)]
struct Gathering {
    since: Instant,
    until: Instant,
}

impl AskPlan {
    pub(crate) fn new(now: Instant, rng: &mut impl Rng) -> Self {
        let mut plan = Self {
            at: None,
            new: None,
            asked_new: None,
            period: METADATA_PERIOD,
            periodic_at: now,
            answered: None,
            backoff: Backoff::default(),
            trouble: None,
            asked_in_trouble: false,
        };
        plan.next_period(now, rng);
        plan
    }

    fn next_period(&mut self, now: Instant, rng: &mut impl Rng) {
        self.periodic_at = now + self.period.mul_f64(rng.random_range(0.8..1.2));
    }

    /// Something is wanted. Several wishes become one request, at the earliest of their times.
    pub(crate) fn want(&mut self, why: RefreshReason, now: Instant, rng: &mut impl Rng) {
        if why == RefreshReason::New {
            let burst = self.asked_new.is_some_and(|at| now.saturating_duration_since(at) < BURST);
            let since = self.new.map_or(now, |new| new.since);
            let until = if burst { (now + QUIET).min(since + GATHERED) } else { since };
            self.new = Some(Gathering { since, until });
            return;
        }
        if self.trouble.is_none_or(|at| now.saturating_duration_since(at) >= CALM) {
            self.backoff.reset();
            self.asked_in_trouble = false;
        }
        self.trouble = Some(now);
        // Planned already, sooner or later: more wishes do not make it more urgent.
        if self.at.is_some() {
            return;
        }
        let jitter = METADATA_MIN_AGE.mul_f64(rng.random_range(0.0..1.0));
        let soonest = match why {
            RefreshReason::Lost => now + jitter,
            _ => self.answered.map_or(now, |at| (at + METADATA_MIN_AGE + jitter).max(now)),
        };
        let paced = if self.asked_in_trouble {
            now + self.backoff.next(rng).max(METADATA_MIN_AGE / 5)
        } else {
            now
        };
        self.at = Some(soonest.max(paced));
    }

    /// When to ask next: for what is wanted, or else for all that is in use.
    pub(crate) fn next(&self) -> Instant {
        self.wanted().map_or(self.periodic_at, |at| at.min(self.periodic_at))
    }

    /// What is due: everything in use (`true`), or what is wanted; `None`: nothing yet.
    pub(crate) fn due(&self, now: Instant) -> Option<bool> {
        if self.periodic_at <= now {
            return Some(true);
        }
        self.wanted().filter(|at| *at <= now).map(|_| false)
    }

    fn wanted(&self) -> Option<Instant> {
        self.at.into_iter().chain(self.new.map(|new| new.until)).min()
    }

    /// The request is sent: wishes from now on are for the next one.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.at = None;
        if self.new.take().is_some() {
            self.asked_new = Some(now);
        }
        self.asked_in_trouble = self.trouble.is_some();
    }

    /// There is a response. `changed`: it contained something new.
    pub(crate) fn answered(&mut self, all: bool, changed: bool, now: Instant, rng: &mut impl Rng) {
        self.answered = Some(now);
        if changed {
            self.period = METADATA_PERIOD;
        } else if all {
            self.period = (self.period * 2).min(METADATA_PERIOD_MAX);
        }
        if all || changed {
            self.next_period(now, rng);
        }
    }

    /// Nobody answered: the same is asked for again, after a backoff.
    pub(crate) fn failed(&mut self, all: bool, now: Instant, rng: &mut impl Rng) {
        if all {
            self.next_period(now, rng);
        }
        self.trouble = Some(now);
        self.asked_in_trouble = true;
        let at = now + self.backoff.next(rng).max(METADATA_MIN_AGE / 5);
        // Also for topics that came meanwhile: who names new ones all the time must not ask all the
        // time somebody who does not answer.
        self.at = Some(self.wanted().map_or(at, |planned| planned.max(at)));
        self.new = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_new_topic_asks_at_once_whatever_was_asked_before() {
        let mut rng = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let mut plan = AskPlan::new(now, &mut rng);
        assert_eq!(plan.due(now), None);
        plan.want(RefreshReason::Stale, now, &mut rng);
        plan.answered(false, true, now, &mut rng);
        plan.want(RefreshReason::New, now, &mut rng);
        assert_eq!(plan.due(now), Some(false));
    }

    #[test]
    fn new_topics_in_a_row_are_gathered() {
        let mut rng = StdRng::seed_from_u64(7);
        let start = Instant::now();
        let mut now = start;
        let mut plan = AskPlan::new(now, &mut rng);
        plan.want(RefreshReason::New, now, &mut rng);
        assert_eq!(plan.due(now), Some(false), "the first waits for nobody");
        plan.asked(now);
        // One every millisecond, through the response: until a pause, or for as long as one may wait.
        for (wishes, waits) in [(20, ms(29)), (200, ms(50))] {
            let first = now + ms(1);
            let mut asked = None;
            for _ in 0..wishes {
                now += ms(1);
                plan.want(RefreshReason::New, now, &mut rng);
                if plan.due(now).is_some() {
                    asked = Some(now);
                    break;
                }
            }
            let asked = asked.unwrap_or_else(|| plan.next());
            assert_eq!(asked - first, waits);
            now = asked;
            plan.asked(now);
            plan.answered(false, true, now, &mut rng);
        }
        // What comes later begins anew.
        now += BURST;
        plan.want(RefreshReason::New, now, &mut rng);
        assert_eq!(plan.due(now), Some(false));
    }

    #[test]
    fn a_thousand_wishes_are_one_request() {
        let mut rng = StdRng::seed_from_u64(2);
        let now = Instant::now();
        let mut plan = AskPlan::new(now, &mut rng);
        plan.answered(false, true, now, &mut rng);
        for _ in 0..1_000 {
            plan.want(RefreshReason::Stale, now, &mut rng);
        }
        assert_eq!(plan.due(now), None);
        let at = plan.next() - now;
        assert!((ms(250)..=ms(500)).contains(&at), "{at:?}");
        plan.asked(now);
        assert!(plan.next() - now > Duration::from_secs(200), "nothing is left but the period");
    }

    #[test]
    fn a_lost_broker_asks_within_250_ms_and_then_backs_off_to_5_s() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut now = Instant::now();
        let mut plan = AskPlan::new(now, &mut rng);
        plan.answered(false, true, now, &mut rng);
        now += Duration::from_secs(60);
        plan.want(RefreshReason::Lost, now, &mut rng);
        assert!(plan.next() - now <= ms(250));
        let start = now;
        let mut asked = 0;
        while now - start < Duration::from_secs(60) {
            now = plan.next();
            plan.asked(now);
            plan.answered(false, false, now, &mut rng);
            asked += 1;
            plan.want(RefreshReason::Lost, now, &mut rng);
        }
        // The formula: ceilings 0.1, 0.2, ... 5 s with means of half: about 6 + 57 / 2.5.
        assert!((20..=42).contains(&asked), "{asked}");
    }

    #[test]
    fn trouble_that_is_over_is_forgotten() {
        let mut rng = StdRng::seed_from_u64(4);
        let mut now = Instant::now();
        let mut plan = AskPlan::new(now, &mut rng);
        for _ in 0..12 {
            plan.want(RefreshReason::Lost, now, &mut rng);
            now = plan.next();
            plan.asked(now);
            plan.answered(false, false, now, &mut rng);
        }
        now += CALM;
        plan.want(RefreshReason::Lost, now, &mut rng);
        assert!(plan.next() - now <= ms(250));
    }

    #[test]
    fn the_period_is_jittered_and_stretches_while_nothing_changes() {
        let mut rng = StdRng::seed_from_u64(5);
        let mut now = Instant::now();
        let mut plan = AskPlan::new(now, &mut rng);
        let mut gaps = Vec::new();
        for _ in 0..6 {
            let at = plan.next();
            assert_eq!(plan.due(at), Some(true));
            gaps.push((at - now).as_secs());
            now = at;
            plan.asked(now);
            plan.answered(true, false, now, &mut rng);
        }
        for (gap, period) in gaps.iter().zip([300u64, 600, 900, 900, 900, 900]) {
            assert!((period * 8 / 10..=period * 12 / 10).contains(gap), "{gaps:?}");
        }
        let hour: u64 = gaps.iter().take(4).sum();
        assert!(hour < 3_600 && gaps.len() <= 12);
        plan.answered(true, true, now, &mut rng);
        assert!((plan.next() - now).as_secs() <= 360);
    }

    #[test]
    fn topics_that_come_while_nobody_answers_wait_for_the_backoff() {
        let mut rng = StdRng::seed_from_u64(8);
        let mut now = Instant::now();
        let mut plan = AskPlan::new(now, &mut rng);
        plan.want(RefreshReason::New, now, &mut rng);
        let start = now;
        let mut asked = 0;
        while now - start < Duration::from_secs(60) {
            now = plan.next();
            plan.asked(now);
            plan.want(RefreshReason::New, now + ms(1), &mut rng);
            now += ms(2);
            plan.failed(false, now, &mut rng);
            asked += 1;
        }
        assert!((20..=42).contains(&asked), "{asked}");
    }

    #[test]
    fn no_response_backs_off_too() {
        let mut rng = StdRng::seed_from_u64(6);
        let mut now = Instant::now();
        let mut plan = AskPlan::new(now, &mut rng);
        plan.want(RefreshReason::New, now, &mut rng);
        let start = now;
        let mut asked = 0;
        while now - start < Duration::from_secs(60) {
            now = plan.next();
            plan.asked(now);
            plan.failed(false, now, &mut rng);
            asked += 1;
        }
        assert!((20..=42).contains(&asked), "{asked}");
    }

    #[test]
    fn a_wish_that_is_planned_is_not_put_off_by_others() {
        let mut rng = StdRng::seed_from_u64(20);
        let mut now = Instant::now();
        let mut plan = AskPlan::new(now, &mut rng);
        plan.answered(false, true, now, &mut rng);
        plan.want(RefreshReason::Stale, now, &mut rng);
        let at = plan.next();
        while now < at {
            for why in [RefreshReason::Stale, RefreshReason::Lost, RefreshReason::Again] {
                plan.want(why, now, &mut rng);
            }
            assert_eq!(plan.next(), at);
            now += ms(20);
        }
    }

    #[test]
    fn who_lost_the_same_broker_asks_at_different_moments() {
        let mut rng = StdRng::seed_from_u64(21);
        let now = Instant::now();
        let mut moments = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let mut plan = AskPlan::new(now, &mut rng);
            plan.want(RefreshReason::Lost, now, &mut rng);
            assert!(plan.next() <= now + METADATA_MIN_AGE);
            moments.insert(plan.next());
        }
        assert_eq!(moments.len(), 100);
    }

    /// Periods are drawn apart, stand whatever else is asked meanwhile, and ask for all that is in use.
    #[test]
    fn periods_are_their_own() {
        let mut rng = StdRng::seed_from_u64(22);
        let now = Instant::now();
        let mut plan = AskPlan::new(now, &mut rng);
        let at = plan.next();
        assert_ne!(AskPlan::new(now, &mut rng).next(), at, "whoever began with us asks with us");
        plan.answered(false, false, now, &mut rng);
        assert_eq!(plan.next(), at, "that was no answer about all that is in use");
        plan.want(RefreshReason::Stale, at, &mut rng);
        assert_eq!(plan.due(at + ms(1_000)), Some(true));
        // Nobody answers: the next period is as far away, and only what was asked for is wanted soon.
        plan.asked(at);
        plan.failed(true, at, &mut rng);
        assert!(plan.next() > at);
        let soon = plan.next();
        plan.asked(soon);
        assert!(plan.next() >= at + METADATA_PERIOD.mul_f64(0.8));
    }
}
