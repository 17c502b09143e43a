//! How many Produce requests a pool makes. A request costs a broker about the same whether it carries one
//! record or a hundred, so a client that sends each record as it comes turns messages per second into
//! requests per second, and ten thousand such clients are a cluster's whole load.
//!
//! - **A bucket of requests**, one for all producers of a pool. While it holds some, a batch goes as soon as
//!   its broker is idle: who sends little is acknowledged in a round trip. When it is empty, open batches
//!   gather until the next request is due, for their linger at most. What is full, flushed, pressed or overdue
//!   goes at once and takes a request out if there is one: nobody goes into debt. What may not wait at all
//!   (flushed, pressed, without a linger) leaves the last [`RESERVE`] requests to those that can, or one
//!   producer without a linger would make all others of the process gather for their whole linger.
//! - **What a broker feels** ([`Strain`]): one whose responses take longer than they usually do is paying for
//!   everybody's requests. Requests to it keep a distance, down to [`PaceLimits::least`] a second, and batches
//!   for it gather for up to [`PaceLimits::longest`]; other brokers' requests do not pay for it. Down in steps by a
//!   factor, up by a summand, both drawn, so that clients that feel the same do not move in step; and up with
//!   time while it is not heard of.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

/// How requests are paced. What the defaults are is a matter of measuring: at 180 a second a steady stream
/// is gathered for 5.6 ms, which is what other clients' default linger comes to, and the burst lets a program
/// that waits for each of its first thousand records do so in a round trip each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub, reason = "for tests and simulations"))]
pub struct PaceLimits {
    /// Requests a second. 0: none but what goes at once anyway, so that each batch gathers for its linger.
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
    /// The part of its pace that a strained broker is left.
    fn floor(&self) -> f64 {
        if self.per_second > 0.0 { (self.least / self.per_second).clamp(0.01, 1.0) } else { 1.0 }
    }
}

/// When a bucket that is never filled has something.
const NEVER: Duration = Duration::from_secs(86_400);

/// A request may go so much before its time: timers count in milliseconds, and would come as much after it.
/// What comes next waits for as much longer.
const AHEAD: Duration = Duration::from_millis(1);

/// What may not wait leaves so many requests in the bucket, or all there are if they are fewer.
pub(crate) const RESERVE: f64 = 10.0;

/// A request more or less in a billion is rounding.
const ROUNDING: f64 = 1e-9;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    most: f64,
    /// Below zero by what went ahead of its time.
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

    /// A request goes, whether it holds one or not. `hasty`: it carries what may not wait.
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

/// Answers beyond that many times the usual, and this much more, are slow: batches differ in size, machines in
/// mood, and replicas in how soon they ask.
const SLOW_TIMES: f64 = 2.0;
const SLOW_FLOOR_US: f64 = 2_000.0;
/// By which part what is usual follows the mean of a step: soon where that is lower, in a minute or so
/// where it is higher, and while it is so high that it strains, in many.
const USUAL_DOWN: f64 = 1.0 / 20.0;
const USUAL_UP: f64 = 1.0 / 400.0;
const USUAL_STRAINED: f64 = 1.0 / 4_000.0;
/// From one step to the next, in seconds, and how many responses one is judged by.
const STEP: std::ops::Range<f64> = 0.1..0.2;
const ANSWERS: u32 = 4;
/// A step down is by this factor, a step up by this part of the full pace.
const DOWN: std::ops::Range<f64> = 0.6..0.8;
const UP: std::ops::Range<f64> = 0.02..0.04;
/// One that is not heard of for so long, as nothing is sent to it or this process slept, is left more again: this
/// part of the full pace in a second.
const UNHEARD: Duration = Duration::from_secs(5);
const UP_UNHEARD: f64 = 0.2;

/// How much a broker is strained, by how long its responses take. Judged by most of the responses of a step: a
/// replica that is slow, or a moment in which this process did nothing, makes some of them slow; a
/// broker that has more to do than it can makes all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strain {
    /// What answers take in the long run, in microseconds; topics and replicas as they come.
    usual_us: Option<f64>,
    /// Of this step.
    sum_us: f64,
    slow: u32,
    responses: u32,
    step_at: Option<Instant>,
    /// The part of the full pace that it was left when it was heard of last, and when that was.
    pace: f64,
    heard: Option<Instant>,
    /// The last request to it.
    sent: Option<Instant>,
}

impl Default for Strain {
    fn default() -> Self {
        Self {
            usual_us: None,
            sum_us: 0.0,
            slow: 0,
            responses: 0,
            step_at: None,
            pace: 1.0,
            heard: None,
            sent: None,
        }
    }
}

impl Strain {
    /// A request was written, and the broker was at work on it for so long.
    pub(crate) fn answered(
        &mut self,
        took: Duration,
        limits: &PaceLimits,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let us = took.as_secs_f64() * 1e6;
        *self = self.by(now);
        let before = self.heard.replace(now);
        if before.is_some_and(|at| now.saturating_duration_since(at) > UNHEARD) {
            // What came before that is of another time.
            (self.sum_us, self.slow, self.responses, self.step_at) = (0.0, 0, 0, None);
        }
        self.responses += 1;
        self.sum_us += us;
        let slow = self.usual_us.is_some_and(|usual| us > usual * SLOW_TIMES + SLOW_FLOOR_US);
        self.slow += u32::from(slow);
        let mut step = || now + Duration::from_secs_f64(rng.random_range(STEP));
        let at = *self.step_at.get_or_insert_with(&mut step);
        if now < at || self.responses < ANSWERS {
            return;
        }
        self.step_at = Some(step());
        let mean = self.sum_us / f64::from(self.responses);
        let slow = self.slow * 2 > self.responses;
        let usual = self.usual_us.unwrap_or(mean);
        let follows = match slow {
            _ if mean < usual => USUAL_DOWN,
            false => USUAL_UP,
            true => USUAL_STRAINED,
        };
        self.usual_us = Some(usual + (mean - usual) * follows);
        self.pace = if slow {
            (self.pace * rng.random_range(DOWN)).max(limits.floor())
        } else {
            (self.pace + rng.random_range(UP)).min(1.0)
        };
        (self.sum_us, self.slow, self.responses) = (0.0, 0, 0);
    }

    /// A request goes to it.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.sent = Some(now);
    }

    /// The same, by then.
    pub(crate) fn by(&self, now: Instant) -> Self {
        let heard = self.heard.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let up = heard.saturating_sub(UNHEARD).as_secs_f64() * UP_UNHEARD;
        Self { pace: (self.pace + up).min(1.0), ..*self }
    }

    /// When the next request may go to it, as far as it is concerned. It has no burst.
    pub(crate) fn not_before(&self, limits: &PaceLimits) -> Option<Instant> {
        if self.pace >= 1.0 || limits.per_second <= 0.0 {
            return None;
        }
        let distance = Duration::from_secs_f64(1.0 / (limits.per_second * self.pace));
        self.sent.map(|at| at + distance)
    }

    /// The part of the way from not strained to as strained as can be.
    fn part(&self, limits: &PaceLimits) -> f64 {
        let floor = limits.floor();
        if floor < 1.0 { ((1.0 - self.pace) / (1.0 - floor)).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// How long batches for it gather at most, whose linger is this.
    pub(crate) fn linger(&self, linger: Duration, limits: &PaceLimits) -> Duration {
        linger + limits.longest.saturating_sub(linger).mul_f64(self.part(limits))
    }
}

/// An open batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) opened: Instant,
    /// From when on an idle broker may have it, as far as it is concerned.
    pub(crate) early: Instant,
    /// Its linger ends.
    pub(crate) at: Instant,
    /// When most of the time is up that its records have.
    pub(crate) late: Instant,
}

impl Waits {
    /// Flushed, pressed, or without a linger: it does not wait for anything.
    pub(crate) fn may_not_wait(&self) -> bool {
        self.at <= self.opened
    }
}

/// What open batches for a broker are waiting for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gather {
    /// A request may be made then, if not now.
    pub(crate) until: Option<Instant>,
    /// The same of one that is not made yet.
    pub(crate) next: Option<Instant>,
    pub(crate) strain: Strain,
    pub(crate) limits: PaceLimits,
}

impl Gather {
    /// How long batches gather at most, whose linger is this.
    pub(crate) fn linger(&self, linger: Duration) -> Duration {
        if linger.is_zero() { linger } else { self.strain.linger(linger, &self.limits) + AHEAD }
    }

    /// From when on an idle broker may have a batch, and when it goes in any case. One that may not wait does
    /// not wait for this either.
    pub(crate) fn bounds(&self, batch: Waits) -> (Instant, Instant) {
        let Waits { opened, early, at, late } = batch;
        if batch.may_not_wait() {
            return (early, at);
        }
        let linger = self.strain.linger(at - opened, &self.limits);
        // Never earlier than without any of this: who has set a linger beyond the timeout has that.
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
