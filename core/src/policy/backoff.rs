//! Full jitter, clamped first: delay = U(0, min(cap, base * 2^n)), the first retry included.
//!
//! Others draw first and clamp then, so that at the cap half or all of their delays are the same
//! value and a fleet that lost a broker comes back in step.

use std::time::Duration;

use backon::BackoffBuilder;
use rand::{Rng, RngExt};

use crate::config::{BACKOFF_BASE, BACKOFF_CAP};

/// The delays of one thing that keeps failing.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    ceilings: backon::ExponentialBackoff,
    attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(BACKOFF_BASE, BACKOFF_CAP)
    }
}

impl Backoff {
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        let ceilings = backon::ExponentialBuilder::default()
            .with_factor(2.0)
            .with_min_delay(base)
            .with_max_delay(cap)
            .without_max_times()
            .build();
        Self { base, cap, ceilings, attempts: 0 }
    }

    /// How long to wait before the next attempt.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        self.attempts += 1;
        let ceiling = self.ceilings.next().unwrap_or(self.cap);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.random_range(0..=nanos))
    }

    /// Failures since the last success.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// After a success: the next failure starts small again.
    pub(crate) fn reset(&mut self) {
        if self.attempts > 0 {
            *self = Self::new(self.base, self.cap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn spreads_at_the_cap_and_stays_under_the_ceiling() {
        let mut rng = StdRng::seed_from_u64(7);
        let cap = Duration::from_secs(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), cap);
        let mut ceiling = Duration::from_millis(100);
        let mut at_cap = Vec::new();
        for _ in 0..5_000 {
            let delay = backoff.next(&mut rng);
            assert!(delay <= ceiling, "{delay:?} > {ceiling:?}");
            if ceiling == cap {
                at_cap.push(delay);
            }
            ceiling = (ceiling * 2).min(cap);
        }
        // No value carries more than its share: ten slices of the range, each near a tenth.
        for slice in 0..10 {
            let (low, high) = (cap / 10 * slice, cap / 10 * (slice + 1));
            let n = at_cap.iter().filter(|d| (low..high).contains(*d)).count();
            assert!((400..600).contains(&n), "slice {slice} holds {n}");
        }
        at_cap.sort();
        assert!(at_cap.windows(2).all(|w| w[0] != w[1]), "two delays are equal");
    }

    #[test]
    fn the_first_delay_is_drawn_too() {
        let mut rng = StdRng::seed_from_u64(1);
        let first: Vec<_> = (0..100).map(|_| Backoff::default().next(&mut rng)).collect();
        assert!(first.iter().any(|d| *d < Duration::from_millis(50)));
        assert!(first.iter().any(|d| *d > Duration::from_millis(50)));
        assert!(first.iter().all(|d| *d <= Duration::from_millis(100)));
    }
}
