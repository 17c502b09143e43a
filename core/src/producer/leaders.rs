//! The sender's view of a broker: its produce lane, what is in flight on it, and when it may be
//! dialled again.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use crate::config::MAX_REQUESTS_IN_FLIGHT;
use crate::net::Connection;
use crate::policy::backoff::Backoff;

/// After the connection is lost, records that wait make it come back within this, jittered: a
/// fleet that lost the same broker must not return in one instant.
const RECONNECT_JITTER: Duration = Duration::from_millis(100);

/// When a broker that records need not go to is tried again after it could not be reached.
const FIRST_PROBE: std::ops::Range<f64> = 5.0..60.0;
const LATER_PROBES: std::ops::Range<f64> = 45.0..75.0;

#[derive(Default)]
pub(crate) struct Leader {
    pub(crate) connection: Option<Connection>,
    pub(crate) dialing: bool,
    pub(crate) requests: usize,
    pub(crate) bytes_in_flight: usize,
    pub(crate) latency_us: u32,
    /// Throttled by the broker (KIP-219): nothing is sent before.
    pub(crate) muted_until: Option<Instant>,
    /// Dialled no sooner if a batch needs this very broker; and if others would do.
    needed_at: Option<Instant>,
    optional_at: Option<Instant>,
    backoff: Backoff,
    /// Being assembled in this round.
    pub(crate) assembled: usize,
}

impl Leader {
    /// Whether a request can be sent to it now.
    pub(crate) fn is_ready(&mut self, now: Instant) -> bool {
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            self.connection = None;
        }
        self.connection.is_some()
            && self.requests < MAX_REQUESTS_IN_FLIGHT
            && self.muted_until.is_none_or(|until| until <= now)
    }

    /// Nothing in flight: what is there may go at once.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests == 0
    }

    /// Whether it may be dialled now.
    pub(crate) fn may_dial(&self, now: Instant, needed: bool) -> bool {
        let at = if needed { self.needed_at } else { self.optional_at };
        self.connection.is_none() && !self.dialing && at.is_none_or(|at| at <= now)
    }

    /// When to look at it again, if it is what something waits for.
    pub(crate) fn next_dial(&self, needed: bool) -> Option<Instant> {
        if needed { self.needed_at } else { self.optional_at }
    }

    pub(crate) fn connected(&mut self, connection: Connection) {
        self.connection = Some(connection);
        self.dialing = false;
        self.backoff.reset();
        self.needed_at = None;
        self.optional_at = None;
    }

    pub(crate) fn dial_failed(&mut self, now: Instant, rng: &mut impl Rng) {
        self.dialing = false;
        let probe = if self.backoff.attempts() == 0 { FIRST_PROBE } else { LATER_PROBES };
        self.needed_at = Some(now + self.backoff.next(rng));
        self.optional_at = Some(now + Duration::from_secs_f64(rng.random_range(probe)));
    }

    pub(crate) fn lost(&mut self, now: Instant, rng: &mut impl Rng) {
        self.connection = None;
        let at = now + RECONNECT_JITTER.mul_f64(rng.random_range(0.0..1.0));
        self.needed_at = Some(at);
        self.optional_at = Some(at);
    }

    /// A newer leader epoch names this broker: it is back.
    pub(crate) fn answered(&mut self, took: Duration) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.latency_us = if self.latency_us == 0 {
            us
        } else {
            // One eighth of the new, as TCP smooths its round trip.
            self.latency_us - self.latency_us / 8 + us / 8
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn an_optional_broker_is_probed_late_and_a_needed_one_soon() {
        let mut rng = StdRng::seed_from_u64(5);
        let now = Instant::now();
        let secs = |n| now + Duration::from_secs(n);
        for _ in 0..200 {
            let mut leader = Leader { dialing: true, ..Leader::default() };
            leader.dial_failed(now, &mut rng);
            assert!(leader.may_dial(now + Duration::from_millis(100), true));
            assert!(!leader.may_dial(secs(4), false) && leader.may_dial(secs(60), false));
            leader.dialing = true;
            leader.dial_failed(now, &mut rng);
            assert!(!leader.may_dial(secs(44), false) && leader.may_dial(secs(75), false));
        }
    }
}
