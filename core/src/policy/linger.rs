//! How long an open batch waits for company although a broker has nothing to do, and a request may be made
//! ([`pace`](super::pace)).
//!
//! If records are few it does not wait: waiting gains nothing, and the acknowledgement comes a linger later. If
//! they come in a stream, a request for each handful that gathers in a round trip costs client and broker
//! several times what full batches do, and the stream fills a batch within a millisecond or two anyway. So a
//! stream that is quick enough is given that time.

use std::time::Duration;

use tokio::time::Instant;

/// How long a stream of records is given to fill a batch: too short to be noticed in an acknowledgement.
const GATHER: Duration = Duration::from_millis(1);

/// How many bytes must come in that time to be worth waiting for.
const WORTH: usize = 16 << 10;

/// How quickly the last batches of a batch queue have filled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FillRate {
    /// When the last batch that was closed had been opened, and its bytes.
    last: Option<(Instant, usize)>,
    /// The batch that is open now continues a stream.
    stream: bool,
}

impl FillRate {
    /// A batch takes no more records.
    pub(crate) fn closed(&mut self, opened: Instant, bytes: usize) {
        self.last = Some((opened, bytes));
    }

    /// The next one is open. From opening to opening, because pauses in which nothing is open count.
    pub(crate) fn opened(&mut self, now: Instant) {
        self.stream = self.last.is_some_and(|(before, bytes)| {
            let took = now.saturating_duration_since(before).max(Duration::from_micros(1));
            let expected = bytes as u128 * GATHER.as_nanos() / took.as_nanos();
            // As quick, but only a few bytes: not yet a stream.
            expected >= WORTH as u128 && bytes >= WORTH / 8
        });
    }
}

/// From when an idle broker may have the open batch.
pub(crate) fn early(opened: Instant, fill_rate: FillRate) -> Instant {
    if fill_rate.stream { opened + GATHER } else { opened }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the batch behind ones of these bytes, each opened so many microseconds after the one
    /// before, waits.
    fn waits(batches: &[(usize, u64)]) -> bool {
        let mut now = Instant::now();
        let mut fill_rate = FillRate::default();
        fill_rate.opened(now);
        for (bytes, then) in batches {
            fill_rate.closed(now, *bytes);
            now += Duration::from_micros(*then);
            fill_rate.opened(now);
        }
        match early(now, fill_rate).saturating_duration_since(now) {
            Duration::ZERO => false,
            wait => {
                assert_eq!(wait, GATHER);
                true
            }
        }
    }

    #[test]
    fn sparse_records_never_wait() {
        assert!(!waits(&[]));
        // One record a second, 1,000 a second, and 20,000: a batch each.
        for apart in [1_000_000, 1_000, 50] {
            assert!(!waits(&[(110, apart); 20]));
        }
        // Large ones now and then.
        assert!(!waits(&[(100_000, 20_000); 20]));
    }

    #[test]
    fn a_stream_gathers() {
        // 1 GB/s in full batches; 100 MB/s in what a round trip lets gather; 17 MB/s.
        for (bytes, apart) in [(262_000, 262), (10_000, 100), (17_000, 1_000)] {
            assert!(waits(&[(bytes, apart); 3]), "{bytes}");
        }
        assert!(!waits(&[(15_000, 1_000); 3]));
    }

    #[test]
    fn a_stream_that_pauses_begins_anew() {
        assert!(!waits(&[(262_000, 262), (262_000, 262), (262_000, 500_000)]));
    }
}
