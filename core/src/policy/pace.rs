//! How many Produce requests a pool makes. A request costs a broker about the same whether it carries one
//! record or a hundred, so a client that sends each record as it comes turns messages per second into
//! requests per second, and ten thousand such clients are a cluster's whole load.
//!
//! - **A bucket of requests**, one for all producers of a pool. While it holds some, a batch goes as soon as
//!   its broker has nothing in flight: a producer that sends little gets its acknowledgement in one round trip.
//!   When it is empty, open batches gather until the next request is due, for their linger at most. A batch
//!   that is full, flushed, pressed or overdue goes at once and takes a request out if there is one: nobody
//!   goes into debt. A batch that may not wait at all (flushed, pressed, without a linger) leaves the last
//!   [`RESERVE`] requests to those that can, or one producer without a linger would make all others of the
//!   process gather for their whole linger.
//! - **How strained a broker is** ([`Strain`]): a broker whose responses take longer than they usually do has
//!   too much to do for everybody. Requests to it keep a distance, down to [`PaceLimits::least`] a second, and
//!   batches for it gather for up to [`PaceLimits::longest`]; requests to other brokers do not pay for it. The
//!   distance is kept from the last request to any strained broker: if all of them are strained, the whole pool
//!   slows down, however many they are. A broker's pace goes down in steps by a factor and up by a summand, both
//!   drawn, so that clients with the same experience do not move in step; and up with time while no response
//!   comes from it.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

/// How requests are paced. The defaults were measured: at 180 a second a steady stream is gathered for 5.6 ms,
/// which is what other clients' default linger comes to, and the burst lets a program that waits for each of
/// its first thousand records do so in a round trip each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub, reason = "for tests and simulations"))]
pub struct PaceLimits {
    /// Requests a second. 0: only requests that go at once anyway, so that each batch gathers for its linger.
    pub per_second: f64,
    /// Requests that are saved up while fewer are made.
    pub burst: f64,
    /// Requests a second while the broker they go to is strained, at least.
    pub least: f64,
    /// How long batches gather for such a broker at most, unless their linger is longer.
    pub longest: Duration,
}

impl Default for PaceLimits {
    fn default() -> Self {
        Self { per_second: 180.0, burst: 1_000.0, least: 50.0, longest: Duration::from_millis(20) }
    }
}

impl PaceLimits {
    /// The part of the full pace that the most strained broker still gets.
    fn floor(&self) -> f64 {
        if self.per_second > 0.0 { (self.least / self.per_second).clamp(0.01, 1.0) } else { 1.0 }
    }
}

/// A wait that stands for "never": a bucket that is not filled has no request before that.
const NEVER: Duration = Duration::from_secs(86_400);

/// A request may go this much early: timers count in milliseconds, and would fire up to as much late. The next
/// request waits for as much longer.
const AHEAD: Duration = Duration::from_millis(1);

/// Requests for batches that may not wait do not touch the last `RESERVE` requests of the bucket: these are
/// left for batches that can wait.
pub(crate) const RESERVE: f64 = 10.0;

/// A billionth of a request is a rounding error.
const ROUNDING: f64 = 1e-9;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    most: f64,
    /// Requests that may be made now; below zero by what went early (see [`AHEAD`]).
    holds: f64,
    at: Instant,
}

impl Bucket {
    /// One that is full.
    pub(crate) fn new(limits: &PaceLimits, now: Instant) -> Self {
        let PaceLimits { per_second, burst, .. } = *limits;
        // One is saved up in any case.
        Self { per_second, most: burst.max(1.0), holds: burst, at: now }
    }

    pub(crate) fn advance(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        if seconds > 0.0 {
            self.at = now;
            self.holds = (self.holds + seconds * self.per_second).min(self.most);
        }
    }

    /// When it holds a request, if it does not now.
    pub(crate) fn holds_at(&self) -> Option<Instant> {
        let missing = 1.0 - self.ahead() - self.holds;
        if missing <= ROUNDING {
            return None;
        }
        let wait = missing / self.per_second;
        Some(
            self.at
                + if wait < NEVER.as_secs_f64() { Duration::from_secs_f64(wait) } else { NEVER },
        )
    }

    /// A request is made, whether the bucket holds one or not. `hasty`: its first batch may not wait.
    pub(crate) fn take(&mut self, hasty: bool) {
        if hasty && self.holds < RESERVE + 1.0 {
            return;
        }
        let there = self.holds_at().is_none();
        self.holds = if there { self.holds - 1.0 } else { self.holds.min(0.0) };
    }

    fn ahead(&self) -> f64 {
        (self.per_second * AHEAD.as_secs_f64()).min(0.5)
    }
}

/// What a pool may send: its bucket, and the distance between requests to strained brokers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    bucket: Bucket,
    /// When the last request was made to a strained broker, without those that could not wait.
    strained_at: Option<Instant>,
}

impl Allowance {
    pub(crate) fn new(limits: &PaceLimits, now: Instant) -> Self {
        Self { bucket: Bucket::new(limits, now), strained_at: None }
    }

    pub(crate) fn advance(&mut self, now: Instant) {
        self.bucket.advance(now);
    }

    /// A request is made, whether there is one to make or not. `hasty`: its first batch may not wait.
    /// `strained`: the broker that it goes to is.
    pub(crate) fn take(&mut self, hasty: bool, strained: bool, now: Instant) {
        self.bucket.take(hasty);
        if strained && !hasty {
            self.strained_at = Some(now);
        }
    }

    /// When a broker in this state may get a request, if it may not now.
    pub(crate) fn next_at(
        &self,
        strain: &Strain,
        limits: &PaceLimits,
        now: Instant,
    ) -> Option<Instant> {
        self.bucket.holds_at().max(self.apart(strain, limits, now))
    }

    /// When the distance is kept, if it is not now.
    pub(crate) fn apart(
        &self,
        strain: &Strain,
        limits: &PaceLimits,
        now: Instant,
    ) -> Option<Instant> {
        let distance = strain.distance(limits)?;
        self.strained_at.map(|at| at + distance).filter(|at| *at > now)
    }
}

/// A response is late if it takes more than this many times the usual, and this much more: requests queue at the
/// broker. Two of three late responses in a step make the broker a busy one, whose pace falls to [`BUSY`] at
/// least: that keeps its queue short before it is long. A process that wakes up for a response after some rest needs
/// the better part of a millisecond for that, which says nothing about the broker.
const LATE_TIMES: f64 = 1.5;
const LATE_FLOOR_US: f64 = 1_000.0;
const BUSY: f64 = 0.5;
/// A response is slow if it takes more than this many times the usual, and this much more: batches differ in
/// size, machines in load, and replicas in how soon they fetch. If most of a step are, the broker has more to do
/// than it can, and its pace falls to the floor.
const SLOW_TIMES: f64 = 3.0;
const SLOW_FLOOR_US: f64 = 4_000.0;
/// The part of the difference by which the usual time follows the mean of a step: within seconds where the mean
/// is lower, in a minute or so where it is higher, and in many minutes while it is so high that it strains.
const USUAL_DOWN: f64 = 1.0 / 20.0;
const USUAL_UP: f64 = 1.0 / 400.0;
const USUAL_STRAINED: f64 = 1.0 / 4_000.0;
/// The first step counts as usual as far as it is no longer than the connection's round trip and this. Clients
/// that begin together while their brokers have too much to do would otherwise never know them any other way.
const USUAL_FIRST_US: f64 = 5_000.0;
/// Seconds from one step to the next, and the least number of responses that a step is judged by.
const STEP: std::ops::Range<f64> = 0.1..0.2;
const ANSWERS: u32 = 4;
/// A step down multiplies the pace by a factor of this range, for a broker that is slow or busy; a step up adds
/// this part of the full pace.
const DOWN: std::ops::Range<f64> = 0.6..0.8;
const DOWN_BUSY: std::ops::Range<f64> = 0.7..0.85;
const UP: std::ops::Range<f64> = 0.01..0.02;
/// If no response came from a broker for this time (nothing is sent to it, or this process slept), its pace
/// rises again by this part of the full pace per second.
const UNHEARD: Duration = Duration::from_secs(5);
const UP_UNHEARD: f64 = 0.2;

/// How strained a broker is, by the time that its responses take. Judged by most of the responses of a step: a
/// replica that is slow, or a moment in which this process did nothing, makes some of them slow; a broker that
/// has more to do than it can makes all of them slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strain {
    /// The time that responses take in the long run, in microseconds, over all topics and replicas.
    usual_us: Option<f64>,
    /// The sum of the response times of this step, in microseconds.
    sum_us: f64,
    late: u32,
    slow: u32,
    responses: u32,
    step_at: Option<Instant>,
    /// The part of the full pace that it had at its last response, and when that came.
    pace: f64,
    heard: Option<Instant>,
}

impl Default for Strain {
    fn default() -> Self {
        Self {
            usual_us: None,
            sum_us: 0.0,
            late: 0,
            slow: 0,
            responses: 0,
            step_at: None,
            pace: 1.0,
            heard: None,
        }
    }
}

impl Strain {
    /// A request was answered, and the broker had appended all of it; it worked on it for `took`. `round_trip`:
    /// that of the connection, when nobody waited for a broker's work.
    pub(crate) fn answered(
        &mut self,
        took: Duration,
        round_trip: Duration,
        limits: &PaceLimits,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let us = took.as_secs_f64() * 1e6;
        *self = self.by(now);
        let before = self.heard.replace(now);
        if before.is_some_and(|at| now.saturating_duration_since(at) > UNHEARD) {
            // The responses before that say nothing about now.
            self.begin_step(None);
        }
        self.responses += 1;
        self.sum_us += us;
        let beyond = |times: f64, floor_us: f64| {
            self.usual_us.is_some_and(|usual| us > usual * times + floor_us)
        };
        let (late, slow) = (beyond(LATE_TIMES, LATE_FLOOR_US), beyond(SLOW_TIMES, SLOW_FLOOR_US));
        self.late += u32::from(late);
        self.slow += u32::from(slow);
        let mut step = || now + Duration::from_secs_f64(rng.random_range(STEP));
        let at = *self.step_at.get_or_insert_with(&mut step);
        if now < at || self.responses < ANSWERS {
            return;
        }
        let next = step();
        let mean = self.sum_us / f64::from(self.responses);
        let slow = self.slow * 2 > self.responses;
        let busy = self.late * 3 > self.responses * 2;
        let first = || mean.min(round_trip.as_secs_f64() * 1e6 + USUAL_FIRST_US);
        let usual = self.usual_us.unwrap_or_else(first);
        let follows = match slow || busy {
            _ if mean < usual => USUAL_DOWN,
            false => USUAL_UP,
            true => USUAL_STRAINED,
        };
        self.usual_us = Some(usual + (mean - usual) * follows);
        let least_busy = BUSY.max(limits.floor());
        self.pace = if slow {
            (self.pace * rng.random_range(DOWN)).max(limits.floor())
        } else if busy && self.pace > least_busy {
            (self.pace * rng.random_range(DOWN_BUSY)).max(least_busy)
        } else {
            // Back to what a busy broker is left, or to all.
            (self.pace + rng.random_range(UP)).min(if busy { least_busy } else { 1.0 })
        };
        self.begin_step(Some(next));
    }

    /// Responses are counted anew, until then.
    fn begin_step(&mut self, until: Option<Instant>) {
        (self.sum_us, self.late, self.slow, self.responses) = (0.0, 0, 0, 0);
        self.step_at = until;
    }

    /// Its state at `now`: the pace rises with time if no response came for long.
    pub(crate) fn by(&self, now: Instant) -> Self {
        let heard = self.heard.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let up = heard.saturating_sub(UNHEARD).as_secs_f64() * UP_UNHEARD;
        Self { pace: (self.pace + up).min(1.0), ..*self }
    }

    /// Whether it is strained at all.
    pub(crate) fn is_felt(&self) -> bool {
        self.pace < 1.0
    }

    /// The part of the full pace that it is left: 1 if it is not strained.
    pub(crate) fn pace(&self) -> f64 {
        self.pace
    }

    /// The time between requests to a strained broker, which saves nothing up.
    fn distance(&self, limits: &PaceLimits) -> Option<Duration> {
        (self.is_felt() && limits.per_second > 0.0)
            .then(|| Duration::from_secs_f64(1.0 / (limits.per_second * self.pace)))
    }

    /// How strained it is: 0 is not at all, 1 as strained as can be.
    fn part(&self, limits: &PaceLimits) -> f64 {
        let floor = limits.floor();
        if floor < 1.0 { ((1.0 - self.pace) / (1.0 - floor)).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// How long batches with this linger gather for it at most.
    pub(crate) fn linger(&self, linger: Duration, limits: &PaceLimits) -> Duration {
        linger + limits.longest.saturating_sub(linger).mul_f64(self.part(limits))
    }
}

/// What an open batch waits for by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) opened: Instant,
    /// From this time on it may go to a broker with nothing in flight.
    pub(crate) early: Instant,
    /// The end of its linger.
    pub(crate) at: Instant,
    /// The end of the part of its delivery timeout for which pacing may hold it back.
    pub(crate) late: Instant,
}

impl Waits {
    /// Flushed, pressed, or without a linger: it does not wait for anything.
    pub(crate) fn may_not_wait(&self) -> bool {
        self.at <= self.opened
    }
}

/// What open batches for a broker wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gather {
    /// When a request to the leader may be made; `None`: now, or one is being made in this round.
    pub(crate) until: Option<Instant>,
    /// When one more request may be made, even if one is being made in this round; `None`: now.
    pub(crate) next: Option<Instant>,
    pub(crate) strain: Strain,
    pub(crate) limits: PaceLimits,
}

impl Gather {
    /// How long batches with this linger gather at most.
    pub(crate) fn linger(&self, linger: Duration) -> Duration {
        if linger.is_zero() { linger } else { self.strain.linger(linger, &self.limits) + AHEAD }
    }

    /// From when on a batch may go to a broker with nothing in flight, and when it goes in any case. Pacing
    /// does not delay a batch that may not wait.
    pub(crate) fn bounds(&self, batch: Waits) -> (Instant, Instant) {
        let Waits { opened, early, at, late } = batch;
        if batch.may_not_wait() {
            return (early, at);
        }
        let linger = self.strain.linger(at - opened, &self.limits);
        // Never earlier than the linger, even if that was set beyond the delivery timeout.
        let mut at = at.max((opened + linger).min(late));
        // A request that is due in a moment is waited for: a linger that ends before it would make one more.
        if let Some(until) = self.until.filter(|until| *until > at && *until <= at + AHEAD) {
            at = at.max(until.min(late));
        }
        let until = self.until.map_or(early, |until| early.max(until.min(late)));
        (until.min(at), at)
    }
}

#[cfg(test)]
mod tests;
