//! How long a lane's responses take: a smoothed mean beyond the round trip for choosing, and a high quantile for calling a
//! connection *late*.

use std::time::Duration;

/// A connection is late if its oldest request is unanswered for this long, or for
/// [`LATE_FACTOR`] times what nearly all responses need.
const LATE_FLOOR: Duration = Duration::from_millis(200);
const LATE_FACTOR: u32 = 4;

/// Buckets of the histogram: four per doubling, from 16 us to 17 minutes.
const BUCKETS: usize = 104;
const SMALLEST_US: u64 = 16;

/// Samples after which all counts are halved, so that yesterday's latency fades.
const FADE_AFTER: u32 = 512;

/// The latency of one lane. Fixed size; made lazily by its owner.
#[derive(Debug)]
pub(crate) struct Latency {
    mean_us: u32,
    /// The shortest response time since the counts were halved, and before that.
    least_us: [u32; 2],
    samples: u32,
    counts: [u16; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Self { mean_us: 0, least_us: [u32::MAX; 2], samples: 0, counts: [0; BUCKETS] }
    }
}

impl Latency {
    pub(crate) fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let short = u32::try_from(us).unwrap_or(u32::MAX);
        self.mean_us = if self.mean_us == 0 {
            short
        } else {
            // One eighth of the new, as TCP smooths its round trip.
            self.mean_us - self.mean_us / 8 + short / 8
        };
        self.least_us[0] = self.least_us[0].min(short);
        let slot = &mut self.counts[bucket(us)];
        *slot = slot.saturating_add(1);
        self.samples += 1;
        if self.samples >= FADE_AFTER {
            self.samples = 0;
            self.least_us = [u32::MAX, self.least_us[0]];
            for count in &mut self.counts {
                *count /= 2;
                self.samples += u32::from(*count);
            }
        }
    }

    /// The smoothed mean of what responses take beyond the round trip, in microseconds: the time that
    /// requests spend at the broker. A measured round trip may hold waiting of its own; no response is
    /// quicker than one.
    pub(crate) fn beyond_us(&self, round_trip: Duration) -> u32 {
        let round_trip = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
        self.mean_us.saturating_sub(round_trip.min(self.least_us[0]).min(self.least_us[1]))
    }

    /// 99 of 100 recent responses came within this, rounded up by a fifth at most.
    pub(crate) fn p99(&self) -> Duration {
        let beyond = self.samples / 100;
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate().rev() {
            seen += u32::from(*count);
            if seen > beyond {
                return Duration::from_micros(upper_us(i));
            }
        }
        Duration::ZERO
    }

    /// Age at which an unanswered request makes its connection late.
    pub(crate) fn late_after(&self) -> Duration {
        LATE_FLOOR.max(self.p99().saturating_mul(LATE_FACTOR))
    }
}

fn bucket(us: u64) -> usize {
    let us = us.max(SMALLEST_US);
    let doublings = (us / SMALLEST_US).ilog2();
    // Quarters between one power of two and the next.
    let quarter = (us - (SMALLEST_US << doublings)) * 4 / (SMALLEST_US << doublings);
    (doublings as usize * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The least value above bucket `i`.
fn upper_us(i: usize) -> u64 {
    let base = SMALLEST_US << (i / 4);
    base + base * (i as u64 % 4 + 1) / 4
}

/// Whether brokers that are late are to be avoided: if more than half of them are late at once, it
/// is our own stall or the whole cluster's, and avoiding them would only move the load in circles.
pub(crate) fn avoid_late(late: usize, of: usize) -> bool {
    late * 2 <= of
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_responses_only_the_floor_counts() {
        let latency = Latency::default();
        assert_eq!((latency.mean_us, latency.p99()), (0, Duration::ZERO));
        assert_eq!(latency.late_after(), LATE_FLOOR);
    }

    #[test]
    fn one_slow_response_in_a_hundred_does_not_make_the_rest_late() {
        let mut latency = Latency::default();
        for i in 0..500 {
            latency.record(Duration::from_millis(if i % 200 == 0 { 5_000 } else { 100 }));
        }
        let p99 = latency.p99().as_millis();
        assert!((100..=125).contains(&p99), "{p99}");
        assert!(latency.late_after() >= Duration::from_millis(400));
    }

    #[test]
    fn what_was_slow_long_ago_fades() {
        let mut latency = Latency::default();
        for _ in 0..1_000 {
            latency.record(Duration::from_secs(3));
        }
        for _ in 0..6_000 {
            latency.record(Duration::from_millis(1));
        }
        assert_eq!(latency.late_after(), LATE_FLOOR);
        assert!(latency.mean_us < 1_100);
    }

    #[test]
    fn time_at_the_broker_is_what_is_beyond_the_round_trip() {
        let ms = Duration::from_millis;
        let mut latency = Latency::default();
        assert_eq!(latency.beyond_us(ms(2)), 0);
        for _ in 0..200 {
            latency.record(ms(5));
        }
        let near = |latency: &Latency, round_trip, us: u32| {
            let beyond = latency.beyond_us(round_trip);
            assert!(beyond.abs_diff(us) < 100, "{beyond}");
        };
        near(&latency, ms(2), 3_000);
        // It was measured while much was under way, and some responses were quicker.
        near(&latency, ms(30), 0);
        // Its way is longer now than when it was measured; what was quick is forgotten in the end.
        for _ in 0..2 * FADE_AFTER {
            latency.record(ms(50));
        }
        near(&latency, ms(60), 0);
        near(&latency, ms(2), 48_000);
    }

    #[test]
    fn more_than_half_late_is_nobodys_fault() {
        for (late, of, avoid) in
            [(0, 3, true), (1, 3, true), (2, 3, false), (1, 2, true), (1, 1, false)]
        {
            assert_eq!(avoid_late(late, of), avoid, "{late} of {of}");
        }
    }

    proptest! {
        #[test]
        fn every_latency_lies_in_its_bucket(us in 0u64..2_000_000_000) {
            let i = bucket(us);
            prop_assert!(i == BUCKETS - 1 || us < upper_us(i));
            prop_assert!(i == 0 || us >= upper_us(i - 1));
        }

        #[test]
        fn the_quantile_is_no_less_than_the_truth_and_a_quarter_more_at_most(
            mut values in prop::collection::vec(16u64..10_000_000, 1..400),
        ) {
            let mut latency = Latency::default();
            for us in &values {
                latency.record(Duration::from_micros(*us));
            }
            values.sort_unstable();
            let truth = values[values.len() - 1 - values.len() / 100];
            let p99 = latency.p99().as_micros() as u64;
            prop_assert!(p99 >= truth && p99 <= truth + truth / 4 + 1, "{p99} for {truth}");
        }
    }

    /// One slow response among many is an eighth of the mean.
    #[test]
    fn the_mean_is_smoothed() {
        let mut latency = Latency::default();
        for _ in 0..100 {
            latency.record(Duration::from_millis(8));
        }
        latency.record(Duration::from_millis(80));
        let mean = latency.mean_us;
        assert!((16_000..=18_000).contains(&mean), "{mean}");
    }
}
