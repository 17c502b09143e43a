//! Taking a broker that answers with errors out of the choice for a while.
//!
//! Five consecutive error responses on a live connection, or a success rate far below the others',
//! eject it for 30 s times the number of ejections, at most 300 s, jittered. Then it is *half open*:
//! one request probes it, and its response decides. Only records that can go elsewhere avoid it; what
//! must go there goes there. (Brokers that cannot be reached are [`super::reconnect`]'s.)

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

/// Error responses in a row that eject.
const CONSECUTIVE: u32 = 5;
/// Ejected for this long times the number of ejections...
const BASE: Duration = Duration::from_secs(30);
/// ...at most.
const MOST: Duration = Duration::from_secs(300);
/// Drawn from this share of it to the whole of it: a fleet must not come back in one instant.
const JITTER: std::ops::Range<f64> = 0.5..1.0;
/// An ejection is forgotten for each so long that went well.
const FORGIVE: Duration = Duration::from_secs(300);

/// A success rate this many standard deviations under the mean ejects.
const DEVIATIONS: f64 = 1.9;
/// Success rates are compared over windows of this length,
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// of at least so many brokers
const MIN_BROKERS: usize = 5;
/// with at least so many requests each: fewer say little.
const MIN_REQUESTS: u32 = 20;
/// A broker that nearly always succeeds is not ejected because the others always do.
const GOOD_ENOUGH: f64 = 0.9;

/// Whether one broker is ejected, and its last requests.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    until: Option<Instant>,
    /// The response to one request decides whether it is ejected again.
    probing: bool,
    times: u32,
    ended: Option<Instant>,
    consecutive: u32,
    succeeded: u32,
    failed: u32,
}

/// Whether a broker may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Open,
    /// One request may go there, as a probe.
    HalfOpen,
    Ejected {
        until: Instant,
    },
}

impl Ejection {
    pub(crate) fn admission(&self, now: Instant) -> Admission {
        match self.until {
            None => Admission::Open,
            Some(until) if until > now || self.probing => Admission::Ejected { until },
            Some(_) => Admission::HalfOpen,
        }
    }

    /// Whether it is ejected or half open.
    pub(crate) fn is_out(&self) -> bool {
        self.until.is_some()
    }

    /// The probe of a half open broker is on its way: nothing else until it is answered.
    pub(crate) fn probe(&mut self) {
        self.probing = true;
    }

    /// The probe's connection ended, which says nothing about what the broker would have answered.
    pub(crate) fn probe_lost(&mut self) {
        self.probing = false;
    }

    /// A request was answered without an error that is the broker's. Whether an ejection ended.
    pub(crate) fn succeeded(&mut self, now: Instant) -> bool {
        self.consecutive = 0;
        self.succeeded += 1;
        self.probing = false;
        if self.until.take_if(|until| *until <= now).is_some() {
            self.ended = Some(now);
            return true;
        }
        if let Some(ended) = self.ended
            && now.saturating_duration_since(ended) >= FORGIVE
        {
            self.times = self.times.saturating_sub(1);
            self.ended = (self.times > 0).then_some(now);
        }
        false
    }

    /// A request was answered with an error that is the broker's, or its response never came. Whether
    /// it is ejected for that, and for how long.
    pub(crate) fn failed(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Duration> {
        self.failed += 1;
        self.consecutive += 1;
        let probe_failed = self.probing || self.until.is_some_and(|until| until <= now);
        let over = self.consecutive >= CONSECUTIVE && self.until.is_none();
        (probe_failed || over).then(|| self.eject(now, rng))
    }

    /// Out of the choice for a while.
    pub(crate) fn eject(&mut self, now: Instant, rng: &mut impl Rng) -> Duration {
        self.times += 1;
        self.consecutive = 0;
        self.probing = false;
        let time = (BASE * self.times).min(MOST).mul_f64(rng.random_range(JITTER));
        self.until = Some(now + time);
        time
    }

    /// A newer leader epoch names the broker: what it did before counts no more.
    pub(crate) fn named_leader(&mut self) {
        self.until = None;
        self.probing = false;
        self.consecutive = 0;
    }

    /// Ends a window; gives (succeeded, failed) of it.
    pub(crate) fn window(&mut self) -> (u32, u32) {
        (std::mem::take(&mut self.succeeded), std::mem::take(&mut self.failed))
    }
}

/// Which brokers of a window succeed far less often than the others do.
pub(crate) fn outliers(window: &[(i32, u32, u32)]) -> Vec<i32> {
    let rates: Vec<(i32, f64)> = window
        .iter()
        .filter(|(_, ok, failed)| ok + failed >= MIN_REQUESTS)
        .map(|(id, ok, failed)| (*id, f64::from(*ok) / f64::from(ok + failed)))
        .collect();
    if rates.len() < MIN_BROKERS {
        return Vec::new();
    }
    let n = rates.len() as f64;
    let mean = rates.iter().map(|(_, r)| r).sum::<f64>() / n;
    let variance = rates.iter().map(|(_, r)| (r - mean).powi(2)).sum::<f64>() / n;
    let threshold = (mean - DEVIATIONS * variance.sqrt()).min(GOOD_ENOUGH);
    rates.into_iter().filter(|(_, rate)| *rate < threshold).map(|(id, _)| id).collect()
}

/// Whether brokers that are out are to be avoided: never more than half of all, else everybody is
/// used (panic mode), because what is left would not carry the load.
pub(crate) fn avoid_out(out: usize, of: usize) -> bool {
    out * 2 <= of
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn until(ejection: &Ejection, now: Instant) -> Duration {
        match ejection.admission(now) {
            Admission::Ejected { until } => until - now,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn five_in_a_row_eject_and_a_success_between_does_not() {
        let mut rng = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let mut e = Ejection::default();
        for _ in 0..4 {
            assert!(e.failed(now, &mut rng).is_none());
        }
        e.succeeded(now);
        for _ in 0..4 {
            assert!(e.failed(now, &mut rng).is_none());
        }
        assert!(e.failed(now, &mut rng).is_some());
        let time = until(&e, now);
        assert!((15..=30).contains(&time.as_secs()), "{time:?}");
    }

    #[test]
    fn a_probe_that_is_lost_makes_room_for_another() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut now = Instant::now();
        let mut e = Ejection::default();
        e.eject(now, &mut rng);
        now += BASE;
        assert_eq!(e.admission(now), Admission::HalfOpen);
        e.probe();
        assert!(matches!(e.admission(now), Admission::Ejected { .. }));
        e.probe_lost();
        assert_eq!(e.admission(now), Admission::HalfOpen);
    }

    #[test]
    fn ejections_grow_are_bounded_and_jittered() {
        let mut rng = StdRng::seed_from_u64(2);
        let now = Instant::now();
        let mut e = Ejection::default();
        let mut times = Vec::new();
        for n in 1..=20u32 {
            e.eject(now, &mut rng);
            let time = until(&e, now);
            assert!(time <= (BASE * n).min(MOST) && time * 2 >= (BASE * n).min(MOST));
            times.push(time);
        }
        times.sort();
        assert!(times.windows(2).all(|w| w[0] != w[1]));
    }

    #[test]
    fn one_probe_decides() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut now = Instant::now();
        let mut e = Ejection::default();
        e.eject(now, &mut rng);
        now += until(&e, now);
        assert_eq!(e.admission(now), Admission::HalfOpen);
        e.probe();
        assert!(matches!(e.admission(now), Admission::Ejected { .. }), "one at a time");
        assert!(e.failed(now, &mut rng).is_some(), "out again, for longer");
        now += until(&e, now);
        e.probe();
        assert!(e.succeeded(now));
        assert_eq!(e.admission(now), Admission::Open);
    }

    #[test]
    fn a_newer_leader_epoch_ends_it() {
        let mut rng = StdRng::seed_from_u64(4);
        let now = Instant::now();
        let mut e = Ejection::default();
        e.eject(now, &mut rng);
        e.named_leader();
        assert_eq!(e.admission(now), Admission::Open);
    }

    #[test]
    fn good_times_are_remembered_too() {
        let mut rng = StdRng::seed_from_u64(5);
        let mut now = Instant::now();
        let mut e = Ejection::default();
        e.eject(now, &mut rng);
        e.eject(now, &mut rng);
        now += until(&e, now);
        e.succeeded(now);
        now += FORGIVE * 2;
        e.succeeded(now);
        now += FORGIVE;
        e.succeeded(now);
        e.eject(now, &mut rng);
        assert!(until(&e, now) <= BASE);
    }

    #[test]
    fn the_one_far_below_the_others_is_found() {
        let good = |id| (id, 100, 0);
        type Row = (Vec<(i32, u32, u32)>, Vec<i32>);
        let table: &[Row] = &[
            (vec![good(1), good(2), good(3), good(4), good(5)], vec![]),
            (vec![good(1), good(2), good(3), good(4), (5, 40, 60)], vec![5]),
            // Too few to compare, or too little to say.
            (vec![good(1), good(2), good(3), (4, 40, 60)], vec![]),
            (vec![good(1), good(2), good(3), good(4), (5, 4, 6)], vec![]),
            // All alike, and one that is nearly perfect among perfect ones.
            (vec![(1, 50, 50), (2, 50, 50), (3, 50, 50), (4, 50, 50), (5, 50, 50)], vec![]),
            (vec![good(1), good(2), good(3), good(4), (5, 99, 1)], vec![]),
        ];
        for (window, want) in table {
            assert_eq!(outliers(window), *want, "{window:?}");
        }
    }

    #[test]
    fn never_more_than_half() {
        for (out, of, avoid) in [(1, 2, true), (2, 3, false), (10, 20, true), (11, 20, false)] {
            assert_eq!(avoid_out(out, of), avoid, "{out} of {of}");
        }
    }

    /// What must go to it goes there meanwhile: no response to that brings it back sooner or puts it off.
    #[test]
    fn while_it_is_out_responses_change_nothing() {
        let mut rng = StdRng::seed_from_u64(6);
        let now = Instant::now();
        let mut e = Ejection::default();
        e.eject(now, &mut rng);
        let left = until(&e, now);
        assert!(!e.succeeded(now));
        for _ in 0..2 * CONSECUTIVE {
            assert!(e.failed(now, &mut rng).is_none());
        }
        assert_eq!(until(&e, now), left);
    }

    #[test]
    fn a_newer_leader_epoch_forgives_the_errors_before_it() {
        let mut rng = StdRng::seed_from_u64(7);
        let now = Instant::now();
        let mut e = Ejection::default();
        for _ in 0..CONSECUTIVE - 1 {
            assert!(e.failed(now, &mut rng).is_none());
        }
        e.named_leader();
        assert!(e.failed(now, &mut rng).is_none());
    }

    #[test]
    fn each_window_has_its_own_responses() {
        let mut rng = StdRng::seed_from_u64(8);
        let now = Instant::now();
        let mut e = Ejection::default();
        e.succeeded(now);
        e.succeeded(now);
        e.failed(now, &mut rng);
        assert_eq!((e.window(), e.window()), ((2, 1), (0, 0)));
    }
}
