//! When the sender's loop must run again even if no event comes.
//!
//! Three times are kept apart, since the work that each of them calls for looks at every topic: the next round, the next
//! delivery timeout, and the search for topics that are not used any more.

use std::time::Duration;

use tokio::time::Instant;

use crate::environment::{STALL, earlier};

/// If a timer fires this much too late, the engine's thread did not run meanwhile. That is too short to
/// doubt a deadline (see [`STALL`]), but response times that were measured across it are too long by as
/// much: pacing ignores them.
const OVERSLEPT: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// When a round is needed: until then no batch may go that could not go in the last one.
    round_at: Option<Instant>,
    /// No batch reaches its delivery timeout before this time.
    expiry_at: Option<Instant>,
    /// When unused topics are looked for.
    release_at: Option<Instant>,
    /// No request is sent before this time: the predecessor panicked, perhaps because of what it sent.
    rests_until: Option<Instant>,
    /// When this process last ran again after a pause. The response time of a request that was in flight
    /// then says nothing about its broker.
    resumed: Option<Instant>,
}

impl Schedule {
    /// The earliest of all times.
    pub(super) fn next(&self) -> Option<Instant> {
        earlier(earlier(self.round_at, self.expiry_at), self.release_at)
    }

    /// The loop runs: it was to be woken at `wake`, if by nothing else.
    pub(super) fn woke(&mut self, wake: Option<Instant>, now: Instant) {
        if wake.is_some_and(|at| now.saturating_duration_since(at) > OVERSLEPT) {
            self.resumed = Some(now);
        }
    }

    /// Whether this process ran all the time since then.
    pub(super) fn ran_since(&self, sent: Instant) -> bool {
        self.resumed.is_none_or(|at| at <= sent)
    }

    /// Whether a delivery timeout has passed while this process was stopped.
    pub(super) fn missed_expiry(&self, wake: Option<Instant>, now: Instant) -> bool {
        let overslept = wake.is_some_and(|at| now.saturating_duration_since(at) > STALL);
        overslept && self.expires(now)
    }

    /// Rounds begin: what they leave for later is told by `round_by`.
    pub(super) fn begin_rounds(&mut self) {
        self.round_at = None;
    }

    /// A round is needed at this time, if at none before.
    pub(super) fn round_by(&mut self, at: Option<Instant>) {
        self.round_at = earlier(self.round_at, at);
    }

    /// Sends no request before `at`. Delivery timeouts and closes still end batches.
    pub(super) fn rest_until(&mut self, at: Instant) {
        self.rests_until = Some(at);
    }

    /// Whether no request may be sent yet.
    pub(super) fn rests(&mut self, now: Instant) -> bool {
        let until = self.rests_until.filter(|at| *at > now);
        self.round_by(until);
        until.is_some()
    }

    /// Whether a batch may have reached its delivery timeout.
    pub(super) fn expires(&self, now: Instant) -> bool {
        self.expiry_at.is_some_and(|at| at <= now)
    }

    /// A batch has this deadline.
    pub(super) fn expiry_by(&mut self, deadline: Option<Instant>) {
        self.expiry_at = earlier(self.expiry_at, deadline);
    }

    /// All batches were looked at: this is their earliest deadline.
    pub(super) fn next_expiry(&mut self, deadline: Option<Instant>) {
        self.expiry_at = deadline;
    }

    /// Whether unused topics are to be looked for.
    pub(super) fn releases(&self, now: Instant) -> bool {
        self.release_at.is_some_and(|at| at <= now)
    }

    /// A topic may be unused from this time on.
    pub(super) fn release_by(&mut self, at: Instant) {
        self.release_at = earlier(self.release_at, Some(at));
    }

    /// All topics were looked at, and are again at this time.
    pub(super) fn next_release(&mut self, at: Option<Instant>) {
        self.release_at = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_loop_runs_at_the_earliest_of_all_times() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        assert_eq!(schedule.next(), None);
        schedule.release_by(now + 5 * SECOND);
        schedule.expiry_by(Some(now + 4 * SECOND));
        schedule.round_by(Some(now + 3 * SECOND));
        schedule.round_by(Some(now + 6 * SECOND));
        schedule.round_by(None);
        assert_eq!(schedule.next(), Some(now + 3 * SECOND));
        schedule.begin_rounds();
        assert_eq!(schedule.next(), Some(now + 4 * SECOND));
        schedule.next_expiry(None);
        assert_eq!(schedule.next(), Some(now + 5 * SECOND));
        assert!(!schedule.releases(now) && schedule.releases(now + 5 * SECOND));
    }

    #[test]
    fn a_successor_rests_and_sends_then() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        assert!(!schedule.rests(now) && schedule.next().is_none());
        schedule.rest_until(now + SECOND);
        assert!(schedule.rests(now) && schedule.next() == Some(now + SECOND));
        schedule.begin_rounds();
        assert!(!schedule.rests(now + SECOND) && schedule.next().is_none());
    }

    #[test]
    fn what_was_measured_across_a_pause_says_nothing() {
        let (sent, wake) = (Instant::now(), Instant::now() + SECOND);
        let mut schedule = Schedule::default();
        schedule.woke(Some(wake), wake + OVERSLEPT);
        schedule.woke(None, wake + SECOND);
        assert!(schedule.ran_since(sent), "a moment too late");
        let resumed = wake + OVERSLEPT + Duration::from_millis(1);
        schedule.woke(Some(wake), resumed);
        assert!(!schedule.ran_since(sent) && schedule.ran_since(resumed));
    }

    #[test]
    fn a_deadline_is_missed_if_the_process_was_stopped_meanwhile() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.expiry_by(Some(now));
        let late = now + STALL + Duration::from_millis(1);
        assert!(!schedule.missed_expiry(Some(now), now + STALL), "a timer that is a bit late");
        assert!(schedule.missed_expiry(Some(now), late));
        assert!(!schedule.missed_expiry(None, late), "it was not to be woken");
        schedule.next_expiry(Some(late + SECOND));
        assert!(!schedule.missed_expiry(Some(now), late), "there is time left");
    }
}
