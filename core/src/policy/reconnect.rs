//! When a broker may be dialled (again), and for how long a dial may take.
//!
//! What matters is whether something must go to *this* broker. One that others can stand in for is
//! probed late: after a failed dial first within U(5 s, 60 s), then every U(45 s, 75 s), so that a
//! fleet of ten thousand that lost one broker knocks a few hundred times a second at most, evenly.
//! One that is needed (the leader of a pinned or doubtful batch or of a fetched partition, a
//! coordinator) is tried with full-jitter backoff from 100 ms to 5 s. One that turns this client away (a wrong
//! password, a certificate) is tried after 1 s to 60 s at the soonest, whoever needs it: each login costs
//! the broker a signature or a key derivation, and accounts are locked after a few that fail.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::backoff::Backoff;
use crate::config::{SETUP_TIMEOUT, SETUP_TIMEOUT_MAX};

/// After a connection was lost, batches that must go to this broker may have it dialled again within this.
const AFTER_LOSS: Duration = Duration::from_millis(100);

/// The same if the broker was silent until the request timeout. Longer, since a fleet that timed out together must not
/// dial together, and batches that have waited so long lose little.
const AFTER_SILENCE: Duration = Duration::from_secs(5);

/// No longer than this part of the time that a batch in doubt has waited for, and of what it has left.
const SILENCE_SHARE: u32 = 4;

/// Probes of a broker that nothing must go to, in seconds.
const FIRST_PROBE: std::ops::Range<f64> = 5.0..60.0;
const LATER_PROBES: std::ops::Range<f64> = 45.0..75.0;

/// How urgently a broker is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DialUrgency {
    /// Other brokers can stand in for it.
    Optional,
    /// Other brokers could, but all of them are busy, or none is connected.
    Pressed,
    /// Something must go to this very broker.
    Needed,
}

/// Who was turned away does not dial again sooner than after this, and up to as much more as the backoff says.
const TURNED_AWAY: Duration = Duration::from_secs(1);
const TURNED_AWAY_MORE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(59));

/// How a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialEnd {
    /// Nothing came back in time.
    TimedOut,
    /// By TLS or by the login.
    TurnedAway,
    /// In any other way.
    Failed,
}

/// How a connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The peer closed it, or broke the protocol.
    Cut,
    /// No response came within the request timeout.
    Silence,
}

/// When one broker may be dialled.
#[derive(Debug)]
pub(crate) struct Reconnect {
    backoff: Backoff,
    /// Of dials that were turned away.
    away: Backoff,
    away_until: Option<Instant>,
    /// Dials that failed since one succeeded.
    failures: u32,
    /// How many of those timed out.
    timeouts: u32,
    /// How many connections in a row ended before they had answered a request.
    hang_ups: u32,
    needed_at: Option<Instant>,
    optional_at: Option<Instant>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            away: Backoff::new(TURNED_AWAY_MORE.0, TURNED_AWAY_MORE.1),
            away_until: None,
            failures: 0,
            timeouts: 0,
            hang_ups: 0,
            needed_at: None,
            optional_at: None,
        }
    }
}

impl Reconnect {
    /// From when on it may be dialled; `None`: now.
    pub(crate) fn not_before(&self, urgency: DialUrgency) -> Option<Instant> {
        match urgency {
            DialUrgency::Needed => self.needed_at,
            // A lost connection comes back when the volume asks; a dial that failed does not make
            // the next one more promising because there is much to send.
            DialUrgency::Pressed if self.failures == 0 => self.needed_at,
            DialUrgency::Pressed | DialUrgency::Optional => self.optional_at,
        }
    }

    /// Whether the last dial failed: batches that can go elsewhere do.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.failures > 0
    }

    /// How long the next dial may take with everything up to the ready connection: grows while
    /// dials time out, since a broker that is only slow must be given the time it needs (KIP-601).
    pub(crate) fn setup_timeout(&self) -> Duration {
        (SETUP_TIMEOUT * (1 << self.timeouts.min(4))).min(SETUP_TIMEOUT_MAX)
    }

    /// A connection is ready. If the one before it never answered a request, it first has to: a listener that accepts
    /// connections and closes them on the first request is dialled as slowly as one that refuses.
    pub(crate) fn connected(&mut self) {
        let before = std::mem::take(self);
        if before.hang_ups > 0 {
            self.hang_ups = before.hang_ups;
            self.backoff = before.backoff;
        }
    }

    /// A connection answered a request.
    pub(crate) fn proven(&mut self) {
        if self.hang_ups > 0 {
            self.hang_ups = 0;
            self.backoff.reset();
        }
    }

    /// Whether connections have come to nothing lately.
    pub(crate) fn hangs_up(&self) -> bool {
        self.hang_ups > 0
    }

    /// The peer closed a connection instead of answering the first thing it was asked: the dial that
    /// made it might as well have failed.
    pub(crate) fn hung_up(&mut self, now: Instant, rng: &mut impl Rng) {
        self.hang_ups += 1;
        self.failed(DialEnd::Failed, now, rng);
    }

    /// A dial failed.
    pub(crate) fn failed(&mut self, how: DialEnd, now: Instant, rng: &mut impl Rng) {
        let probe = if self.failures == 0 { FIRST_PROBE } else { LATER_PROBES };
        self.failures += 1;
        self.timeouts += u32::from(how == DialEnd::TimedOut);
        let soon = now + self.backoff.next(rng);
        self.away_until =
            (how == DialEnd::TurnedAway).then(|| now + TURNED_AWAY + self.away.next(rng));
        self.needed_at = self.away_until.max(Some(soon));
        self.optional_at = self.away_until.max(Some(now + seconds(probe, rng)));
    }

    /// Until when it is of no use to dial, since the last dial was turned away.
    pub(crate) fn turned_away_until(&self) -> Option<Instant> {
        self.away_until
    }

    /// The connection ended unasked. While others stand in it is left alone for a while: the
    /// cluster may be restarting it, and every client lost it in the same instant. What failed dials
    /// have put off stays put off: who is connected and found to be another cluster's is lost each time,
    /// and another lane that is lost later makes the next dial no more promising.
    pub(crate) fn lost(
        &mut self,
        how: Loss,
        others_connected: bool,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let within = match how {
            Loss::Cut => AFTER_LOSS,
            Loss::Silence => AFTER_SILENCE,
        };
        let soon = now + within.mul_f64(rng.random_range(0.0..1.0));
        let probe = if others_connected { now + seconds(FIRST_PROBE, rng) } else { soon };
        let put_off = |at: Option<Instant>| at.filter(|_| self.failures > 0);
        (self.needed_at, self.optional_at) =
            (put_off(self.needed_at).max(Some(soon)), put_off(self.optional_at).max(Some(probe)));
    }

    /// A newer leader epoch names the broker: the controller sees it alive.
    pub(crate) fn named_leader(&mut self, now: Instant, rng: &mut impl Rng) {
        let soon = now + AFTER_LOSS.mul_f64(rng.random_range(0.0..1.0));
        self.failures = 0;
        self.timeouts = 0;
        self.hang_ups = 0;
        self.backoff.reset();
        // Its being alive makes a password no better.
        let soon = self.away_until.map_or(soon, |until| until.max(soon));
        self.needed_at = self.needed_at.map(|at| at.min(soon));
        self.optional_at = self.optional_at.map(|at| at.min(soon));
    }
}

/// When a broker that was named in the place of one that was silent for `waited` may be dialled, for a batch whose `deadline` is this. All
/// clients of the silent one have lost it in the same second, and are told of the same successors.
pub(crate) fn successor_not_before(
    waited: Duration,
    deadline: Option<Instant>,
    now: Instant,
    rng: &mut impl Rng,
) -> Instant {
    let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
    now + AFTER_SILENCE.min(left.min(waited) / SILENCE_SHARE).mul_f64(rng.random_range(0.0..1.0))
}

fn seconds(range: std::ops::Range<f64>, rng: &mut impl Rng) -> Duration {
    Duration::from_secs_f64(rng.random_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use DialUrgency::{Needed, Optional, Pressed};

    fn may_dial(broker: &Reconnect, urgency: DialUrgency, now: Instant) -> bool {
        broker.not_before(urgency).is_none_or(|at| at <= now)
    }

    #[test]
    fn an_optional_broker_is_probed_late_and_a_needed_one_soon() {
        let mut rng = StdRng::seed_from_u64(5);
        let now = Instant::now();
        let secs = |n| now + Duration::from_secs(n);
        for _ in 0..200 {
            let mut broker = Reconnect::default();
            assert!(may_dial(&broker, Optional, now));
            broker.failed(DialEnd::Failed, now, &mut rng);
            assert!(may_dial(&broker, Needed, now + Duration::from_millis(100)));
            for urgency in [Optional, Pressed] {
                assert!(
                    !may_dial(&broker, urgency, secs(4)) && may_dial(&broker, urgency, secs(60))
                );
            }
            broker.failed(DialEnd::Failed, now, &mut rng);
            assert!(
                !may_dial(&broker, Optional, secs(44)) && may_dial(&broker, Optional, secs(75))
            );
        }
    }

    /// Whoever needs the broker, and although the controller sees it alive: its being there makes a password no better.
    #[test]
    fn who_is_turned_away_comes_back_seldom() {
        let mut rng = StdRng::seed_from_u64(8);
        for _ in 0..100 {
            let (mut now, mut broker) = (Instant::now(), Reconnect::default());
            let mut waits = Vec::new();
            for _ in 0..20 {
                broker.failed(DialEnd::TurnedAway, now, &mut rng);
                broker.named_leader(now, &mut rng);
                let until = broker.turned_away_until().unwrap();
                for urgency in [Needed, Pressed, Optional] {
                    assert!(!may_dial(&broker, urgency, until - Duration::from_millis(1)));
                }
                assert!(may_dial(&broker, Needed, until), "and then it may");
                waits.push(until - now);
                now = until;
            }
            let secs = Duration::from_secs;
            assert!(waits.iter().all(|wait| (secs(1)..=secs(60)).contains(wait)), "{waits:?}");
            assert!(waits[0] <= secs(2), "{waits:?}");
            assert!(waits[8..].iter().sum::<Duration>() > secs(100), "{waits:?}");
        }
        let mut broker = Reconnect::default();
        let now = Instant::now();
        broker.failed(DialEnd::TurnedAway, now, &mut rng);
        broker.failed(DialEnd::Failed, now, &mut rng);
        assert_eq!(broker.turned_away_until(), None, "it fails in another way now");
        broker.failed(DialEnd::TurnedAway, now, &mut rng);
        broker.connected();
        assert_eq!((broker.turned_away_until(), broker.not_before(Needed)), (None, None));
    }

    #[test]
    fn probes_of_a_fleet_are_spread_evenly() {
        let mut rng = StdRng::seed_from_u64(6);
        let now = Instant::now();
        let mut per_second = [0u32; 60];
        for _ in 0..10_000 {
            let mut broker = Reconnect::default();
            broker.failed(DialEnd::Failed, now, &mut rng);
            let at = broker.not_before(Optional).unwrap() - now;
            per_second[at.as_secs() as usize] += 1;
        }
        assert!(per_second.iter().all(|n| *n <= 10_000 / 30), "{per_second:?}");
    }

    #[test]
    fn a_lost_broker_comes_back_at_once_only_for_what_must_go_there() {
        let mut rng = StdRng::seed_from_u64(7);
        let now = Instant::now();
        let soon = now + AFTER_LOSS;
        let mut broker = Reconnect::default();
        broker.lost(Loss::Cut, true, now, &mut rng);
        assert!(may_dial(&broker, Needed, soon) && may_dial(&broker, Pressed, soon));
        assert!(!may_dial(&broker, Optional, now + Duration::from_secs(4)));
        assert!(!broker.is_unreachable());
        broker.lost(Loss::Cut, false, now, &mut rng);
        assert!(may_dial(&broker, Optional, soon), "there is nobody else");
        let mut waits: Vec<Duration> = (0..100)
            .map(|_| {
                broker.lost(Loss::Silence, true, now, &mut rng);
                broker.not_before(Needed).unwrap() - now
            })
            .collect();
        waits.sort();
        assert!(waits[25] > AFTER_LOSS * 5 && waits[99] <= AFTER_SILENCE, "{waits:?}");
    }

    #[test]
    fn who_takes_the_place_of_a_silent_one_is_not_dialled_by_a_fleet_in_one_second() {
        let mut rng = StdRng::seed_from_u64(13);
        let now = Instant::now();
        for (waited, left, within) in [
            (30, None, AFTER_SILENCE),
            (30, Some(90), AFTER_SILENCE),
            (30, Some(20), AFTER_SILENCE),
            (30, Some(4), Duration::from_secs(1)),
            (30, Some(0), Duration::ZERO),
            (2, Some(90), Duration::from_millis(500)),
        ] {
            let waited = Duration::from_secs(waited);
            let deadline = left.map(|seconds| now + Duration::from_secs(seconds));
            let mut fifths = [0u32; 5];
            for _ in 0..10_000 {
                let wait = successor_not_before(waited, deadline, now, &mut rng) - now;
                assert!(wait <= within, "{left:?}: {wait:?}");
                if !within.is_zero() {
                    let part = wait.as_secs_f64() / within.as_secs_f64();
                    fifths[((part * 5.0) as usize).min(4)] += 1;
                }
            }
            let even = fifths.iter().all(|n| (1_840..=2_160).contains(n));
            assert!(even || within.is_zero(), "{left:?}: {fifths:?}");
        }
    }

    #[test]
    fn a_loss_brings_no_dial_nearer_that_failures_have_put_off() {
        let mut rng = StdRng::seed_from_u64(12);
        let now = Instant::now();
        for others_connected in [false, true] {
            let mut broker = Reconnect::default();
            while may_dial(&broker, Needed, now + AFTER_LOSS) {
                broker.failed(DialEnd::Failed, now, &mut rng);
            }
            let before = [Needed, Optional].map(|urgency| broker.not_before(urgency));
            broker.lost(Loss::Cut, others_connected, now, &mut rng);
            let after = [Needed, Optional].map(|urgency| broker.not_before(urgency));
            assert!(after[0] == before[0] && after[1] >= before[1], "{before:?}, {after:?}");
            broker.connected();
            broker.lost(Loss::Cut, others_connected, now, &mut rng);
            assert!(may_dial(&broker, Needed, now + AFTER_LOSS));
        }
    }

    #[test]
    fn setup_timeouts_grow_only_with_timeouts() {
        let mut rng = StdRng::seed_from_u64(8);
        let now = Instant::now();
        let mut broker = Reconnect::default();
        let mut seen = vec![broker.setup_timeout().as_secs()];
        for timed_out in [false, true, true] {
            broker.failed(
                if timed_out { DialEnd::TimedOut } else { DialEnd::Failed },
                now,
                &mut rng,
            );
            seen.push(broker.setup_timeout().as_secs());
        }
        assert_eq!(seen, [10, 10, 20, 30]);
        broker.connected();
        assert_eq!(broker.setup_timeout().as_secs(), 10);
    }

    #[test]
    fn who_hangs_up_on_every_request_is_dialled_as_who_refuses() {
        let mut rng = StdRng::seed_from_u64(10);
        let start = Instant::now();
        let (mut now, mut dials) = (start, 0);
        let mut broker = Reconnect::default();
        while now - start < Duration::from_secs(120) {
            now = broker.not_before(Needed).unwrap_or(now).max(now);
            broker.connected();
            assert!(!broker.is_unreachable(), "a dial succeeded");
            broker.hung_up(now, &mut rng);
            assert!(broker.is_unreachable() && broker.hangs_up());
            dials += 1;
        }
        assert!((30..=75).contains(&dials), "{dials}");
        broker.connected();
        broker.proven();
        broker.lost(Loss::Cut, false, now, &mut rng);
        assert!(may_dial(&broker, Needed, now + AFTER_LOSS) && !broker.hangs_up());
    }

    #[test]
    fn a_newer_leader_epoch_ends_the_waiting() {
        let mut rng = StdRng::seed_from_u64(9);
        let now = Instant::now();
        let mut broker = Reconnect::default();
        for _ in 0..8 {
            broker.failed(DialEnd::TimedOut, now, &mut rng);
        }
        broker.named_leader(now, &mut rng);
        assert!(may_dial(&broker, Optional, now + AFTER_LOSS) && !broker.is_unreachable());
    }

    /// Also what must go there does not wait any longer, and begins anew with its delays.
    #[test]
    fn a_newer_leader_epoch_forgives_the_failures_before_it() {
        let mut rng = StdRng::seed_from_u64(11);
        let now = Instant::now();
        for _ in 0..50 {
            let mut broker = Reconnect::default();
            for _ in 0..10 {
                broker.failed(DialEnd::Failed, now, &mut rng);
            }
            broker.named_leader(now, &mut rng);
            for urgency in [Needed, Pressed, Optional] {
                assert!(may_dial(&broker, urgency, now + AFTER_LOSS));
            }
            broker.failed(DialEnd::Failed, now, &mut rng);
            assert!(may_dial(&broker, Needed, now + crate::config::BACKOFF_BASE));
        }
    }
}
