//! How often one kind of log line may appear: a few at once, then one in a while that says how many
//! were kept back. When a cluster is away, every client of a fleet has the same thing to say about
//! every broker, many times a second.

use std::time::Duration;

use tokio::time::Instant;

/// Lines that may come at once.
const BURST: u32 = 5;

/// After those, one in each such period; after five quiet ones, [`BURST`] again.
const PERIOD: Duration = Duration::from_secs(10);

/// Whether a line appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It appears; `suppressed`: how many lines before it did not.
    Pass {
        suppressed: u64,
    },
    Suppress,
}

/// The allowance of one kind of line.
#[derive(Debug)]
pub(crate) struct LogLimit {
    left: u32,
    /// When `left` last grew, or was full.
    since: Option<Instant>,
    suppressed: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self { left: BURST, since: None, suppressed: 0 }
    }
}

impl LogLimit {
    pub(crate) fn decide(&mut self, now: Instant) -> Decision {
        let since = *self.since.get_or_insert(now);
        let periods = now.saturating_duration_since(since).as_nanos() / PERIOD.as_nanos();
        let grown = u32::try_from(periods).unwrap_or(u32::MAX);
        if self.left.saturating_add(grown) >= BURST {
            self.left = BURST;
            self.since = Some(now);
        } else {
            self.left += grown;
            self.since = Some(since + PERIOD * grown);
        }
        if self.left == 0 {
            self.suppressed += 1;
            return Decision::Suppress;
        }
        self.left -= 1;
        Decision::Pass { suppressed: std::mem::take(&mut self.suppressed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASS: Decision = Decision::Pass { suppressed: 0 };

    #[test]
    fn a_burst_then_one_a_period() {
        let table = [
            // Milliseconds, lines at that moment, what becomes of the last one.
            (0, 5, PASS),
            (0, 1, Decision::Suppress),
            (9_999, 811, Decision::Suppress),
            (10_000, 1, Decision::Pass { suppressed: 812 }),
            (10_000, 3, Decision::Suppress),
            (25_000, 1, Decision::Pass { suppressed: 3 }),
            // Its period began at 20 s, not when the line came.
            (30_000, 1, PASS),
            (30_000, 1, Decision::Suppress),
            (79_999, 1, Decision::Pass { suppressed: 1 }),
            (79_999, 3, PASS),
            (79_999, 1, Decision::Suppress),
            (1_000_000, 5, Decision::Pass { suppressed: 0 }),
            (1_000_000, 1, Decision::Suppress),
        ];
        let (start, mut limit) = (Instant::now(), LogLimit::default());
        for (ms, lines, last) in table {
            let now = start + Duration::from_millis(ms);
            let got = (0..lines).map(|_| limit.decide(now)).last();
            assert_eq!(got, Some(last), "line {lines} at {ms} ms");
        }
    }

    proptest! {
        #[test]
        fn no_flood_and_no_line_uncounted(
            gaps in prop::collection::vec(
                prop_oneof![8 => 0u64..50, 1 => 0u64..30_000, 1 => 0u64..200_000], 1..3_000)
        ) {
            let mut limit = LogLimit::default();
            let start = Instant::now();
            let (mut now, mut passed, mut told) = (start, 0u64, 0u64);
            for gap in &gaps {
                now += Duration::from_millis(*gap);
                if let Decision::Pass { suppressed } = limit.decide(now) {
                    passed += 1;
                    told += suppressed;
                }
            }
            let periods = (now - start).as_secs() / PERIOD.as_secs();
            prop_assert!(passed <= u64::from(BURST) + periods, "{passed} in {periods} periods");
            prop_assert!(passed >= (gaps.len() as u64).min(u64::from(BURST)));
            prop_assert_eq!(passed + told + limit.suppressed, gaps.len() as u64);
        }
    }
}
