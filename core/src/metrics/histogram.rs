//! How long things took: counted in buckets whose width grows with the value, by any number of
//! threads at once.
//!
//! Four buckets for each doubling, from 1 us to 1 h. What comes out is the middle of a bucket, and so
//! at most an eighth beside the truth. The buckets are allocated sixteen at a time (four doublings),
//! as values fall into them: response times of one kind lie close together, and thousands of clients
//! may live in one process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::stats::LatencyStats;

/// Longer times count as this long.
const LONGEST_US: u64 = 3_600_000_000;

/// A doubling has `1 << SUB_BITS` buckets.
const SUB_BITS: u32 = 2;
const BUCKETS_PER_PAGE: usize = 16;
const PAGES: usize = index(LONGEST_US) / BUCKETS_PER_PAGE + 1;

type Page = [AtomicU64; BUCKETS_PER_PAGE];

/// A histogram of durations.
#[derive(Default)]
pub(crate) struct Histogram {
    pages: [OnceLock<Box<Page>>; PAGES],
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

const fn index(us: u64) -> usize {
    if us < 1 << SUB_BITS {
        return us as usize;
    }
    let doubling = us.ilog2();
    let sub = (us >> (doubling - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    (((doubling - SUB_BITS + 1) as usize) << SUB_BITS) + sub as usize
}

/// The middle of a bucket.
const fn middle(index: usize) -> u64 {
    if index < 1 << SUB_BITS {
        return index as u64;
    }
    let shift = (index >> SUB_BITS) - 1;
    let sub = (index & ((1 << SUB_BITS) - 1)) as u64;
    let low = ((1 << SUB_BITS) + sub) << shift;
    low + ((1 << shift) >> 1)
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_US);
        // Before the bucket: a reader between the two sees a largest value that is not counted
        // yet, never one that is smaller than what is.
        if us > self.max_us.load(Ordering::Relaxed) {
            self.max_us.fetch_max(us, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        let at = index(us);
        let page = self.pages[at / BUCKETS_PER_PAGE].get_or_init(Box::default);
        page[at % BUCKETS_PER_PAGE].fetch_add(1, Ordering::Release);
    }

    pub(crate) fn snapshot(&self) -> LatencyStats {
        let mut counts = [0; PAGES * BUCKETS_PER_PAGE];
        for (page, counts) in self.pages.iter().zip(counts.chunks_mut(BUCKETS_PER_PAGE)) {
            let Some(page) = page.get() else { continue };
            for (bucket, count) in page.iter().zip(counts) {
                *count = bucket.load(Ordering::Acquire);
            }
        }
        let count: u64 = counts.iter().sum();
        if count == 0 {
            return LatencyStats::default();
        }
        let max = self.max_us.load(Ordering::Relaxed);
        // The value that `permille` of all are not above.
        let quantile = |permille: u64| {
            let rank = (u128::from(count) * u128::from(permille)).div_ceil(1000).max(1);
            let mut seen = 0;
            let at = counts.iter().position(|n| {
                seen += u128::from(*n);
                seen >= rank
            });
            Duration::from_micros(at.map_or(max, middle).min(max))
        };
        LatencyStats {
            count,
            mean: Duration::from_micros(self.sum_us.load(Ordering::Relaxed) / count),
            p50: quantile(500),
            p90: quantile(900),
            p99: quantile(990),
            p999: quantile(999),
            max: Duration::from_micros(max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_and_hold_their_middle() {
        let mut last = 0;
        for exponent in 0..32u32 {
            for eighth in 0..8 {
                let us = (1u64 << exponent) + (1u64 << exponent) * eighth / 8;
                let at = index(us.min(LONGEST_US));
                assert!(at == last || at == last + 1 || us < 8, "{us} us: {last} -> {at}");
                assert_eq!(index(middle(at)), at, "{us} us");
                last = at;
            }
        }
        assert_eq!(last / BUCKETS_PER_PAGE + 1, PAGES);
    }

    #[test]
    fn the_ends_of_the_range() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot(), LatencyStats::default());
        histogram.record(Duration::ZERO);
        assert_eq!(histogram.snapshot().max, Duration::from_micros(1));
        histogram.record(Duration::MAX);
        let two = histogram.snapshot();
        assert_eq!((two.count, two.max), (2, Duration::from_secs(3600)));
        assert_eq!(two.p50, Duration::from_micros(1));
    }

    /// The middle of a bucket may lie above all that fell into it.
    #[test]
    fn nothing_is_above_the_largest() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(900));
        let got = histogram.snapshot();
        assert!(middle(index(900)) > 900);
        assert_eq!((got.p50, got.p999, got.max), (got.max, got.max, Duration::from_micros(900)));
    }

    #[test]
    fn pages_are_allocated_for_what_is_seen() {
        let histogram = Histogram::default();
        for us in 1_000..3_000 {
            histogram.record(Duration::from_micros(us));
        }
        let pages = histogram.pages.iter().filter(|p| p.get().is_some()).count();
        assert!(pages <= 2, "{pages}");
        assert!(size_of::<Histogram>() <= 160, "{}", size_of::<Histogram>());
    }

    #[test]
    fn threads_lose_nothing() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let histogram = &histogram;
                scope.spawn(move || {
                    for us in 0..10_000 {
                        histogram.record(Duration::from_micros(us * 37 + thread));
                    }
                });
            }
        });
        assert_eq!(histogram.snapshot().count, 40_000);
    }

    proptest! {
        #[test]
        fn quantiles_are_near_the_truth(
            mut values in prop::collection::vec(
                prop_oneof![1u64..2_000, 1u64..LONGEST_US, Just(5_000)], 1..2_000)
        ) {
            let histogram = Histogram::default();
            for us in &values {
                histogram.record(Duration::from_micros(*us));
            }
            values.sort_unstable();
            let got = histogram.snapshot();
            prop_assert_eq!(got.count, values.len() as u64);
            prop_assert_eq!(got.max.as_micros(), u128::from(*values.last().unwrap()));
            let mean = values.iter().sum::<u64>() / values.len() as u64;
            prop_assert_eq!(got.mean.as_micros(), u128::from(mean));
            for (permille, value) in
                [(500, got.p50), (900, got.p90), (990, got.p99), (999, got.p999)]
            {
                let truth = values[(values.len() * permille).div_ceil(1000).max(1) - 1] as f64;
                let off = (value.as_micros() as f64 - truth).abs() / truth;
                prop_assert!(off <= 0.2, "p{permille}: {value:?} for {truth} us");
            }
        }
    }
}
