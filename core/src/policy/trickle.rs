//! Paces Fetches that bring little. A consumer that has read all there is gets a response as soon as there is a
//! record, so each of a thousand records a second would have a Fetch of its own.
//!
//! Each broker that a consumer reads from has a bucket of requests. While it holds some, the next Fetch goes
//! out at once; when it is empty, a Fetch that follows a response with little in it waits for the next request
//! to be due, for [`LONGEST`] at most. A response with much in it is not paced, nor is a partition that lags,
//! or of which nothing is known yet. How long the broker may hold a request back (`max_wait`), and for what
//! (`min_bytes`), is left as it is: a Fetch that waits there waits less here.

use std::time::Duration;

use tokio::time::Instant;

use super::pace::{Bucket, PaceLimits};

/// A response with fewer bytes of records than this brings little.
const LITTLE: usize = 16 << 10;

/// How long a Fetch waits at most, from the response before it.
const LONGEST: Duration = Duration::from_millis(5);

/// The bucket of one broker. A producer with default settings makes fewer requests a second than this, so a
/// consumer that reads what one producer writes is not paced, and has each record as soon as it is there.
const LIMITS: PaceLimits =
    PaceLimits { per_second: 200.0, burst: 20.0, least: 200.0, longest: LONGEST };

/// See the module. State of one broker.
#[derive(Debug, Default)]
pub(crate) struct Trickle {
    bucket: Option<Bucket>,
    not_before: Option<Instant>,
}

impl Trickle {
    /// A Fetch is sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        let bucket = self.bucket.get_or_insert_with(|| Bucket::new(&LIMITS, now));
        bucket.advance(now);
        bucket.take(false);
        self.not_before = None;
    }

    /// A Fetch is answered, with this many bytes of records.
    pub(crate) fn answered(&mut self, bytes: usize, now: Instant) {
        self.not_before = None;
        if bytes < LITTLE
            && let Some(bucket) = &mut self.bucket
        {
            bucket.advance(now);
            self.not_before = bucket.holds_at().map(|at| at.min(now + LONGEST));
        }
    }

    /// When the next Fetch may be sent; `None`: now.
    pub(crate) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Requests in ten seconds of responses with so many bytes that come so long after the request.
    fn ten_seconds(bytes: usize, after: Duration) -> usize {
        let (mut now, mut trickle, mut requests) = (Instant::now(), Trickle::default(), 0);
        let end = now + ms(10_000);
        while now < end {
            trickle.sent(now);
            requests += 1;
            now += after;
            trickle.answered(bytes, now);
            now = trickle.not_before(now).unwrap_or(now);
        }
        requests
    }

    #[test]
    fn responses_with_little_are_paced_and_others_are_not() {
        let paced = ten_seconds(100, ms(1));
        assert!((2_000..2_025).contains(&paced), "{paced}");
        assert_eq!(ten_seconds(LITTLE, ms(1)), 10_000);
        // The broker waits as long as we would.
        assert_eq!(ten_seconds(100, ms(6)), 1_667);
    }

    #[test]
    fn some_are_saved_up() {
        let (mut now, mut trickle) = (Instant::now(), Trickle::default());
        for _ in 0..3 {
            for n in 0..20 {
                assert_eq!(trickle.not_before(now), None, "{n}");
                trickle.sent(now);
                trickle.answered(100, now);
            }
            assert!(trickle.not_before(now).is_some());
            now += ms(300);
        }
    }

    proptest! {
        /// Whatever comes whenever: none waits for longer than it may, and none that follows much.
        #[test]
        fn nobody_waits_for_long(
            responses in prop::collection::vec((0usize..2 * LITTLE, 0u64..20_000), 1..300),
        ) {
            let (mut now, mut trickle) = (Instant::now(), Trickle::default());
            for (bytes, us) in responses {
                trickle.sent(now);
                now += Duration::from_micros(us);
                trickle.answered(bytes, now);
                let next = trickle.not_before(now).unwrap_or(now);
                prop_assert!(next <= now + LONGEST);
                prop_assert!(bytes < LITTLE || next == now);
                now = next;
            }
        }
    }
}
