//! Paces fetches that bring nothing. A broker that holds a fetch back until there is something to
//! answer paces its client by itself. With `max_wait` or `min_bytes` at zero, or behind a proxy that
//! answers at once, nobody does: an idle topic would be asked for as often as a round trip allows.
//!
//! After the n-th empty response in a row, the next fetch to that broker goes out not before
//! U(1/2, 1) * min(100 ms, 1 ms * 2^n), counted from when the last one was sent: what the broker has
//! waited is not waited again. A response that brings records ends it, so what flows is never paced,
//! and what comes to an idle topic is at most 100 ms late.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

/// The first pause is up to twice this.
const FIRST: Duration = Duration::from_millis(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_millis(100);

/// Paces the fetches of one consumer to one broker.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    /// How many empty responses came in a row.
    empty: u32,
    not_before: Option<Instant>,
}

impl Pacing {
    /// There is a response to the request that was sent at `sent`; `brought`: the position of some partition moved on.
    pub(crate) fn answered(&mut self, brought: bool, sent: Instant, rng: &mut impl Rng) {
        if brought {
            self.reset();
            return;
        }
        self.empty = self.empty.saturating_add(1);
        let ceiling = LONGEST.min(FIRST * 2u32.saturating_pow(self.empty.min(16)));
        self.not_before = Some(sent + ceiling.mul_f64(rng.random_range(0.5..1.0)));
    }

    /// From when on the next request may be sent, if not now.
    pub(crate) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| *at > now)
    }

    /// Something else is asked for now, after a seek: no pause.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn pauses_grow_to_their_limit_and_end_with_the_first_record() {
        let (mut rng, now) = (StdRng::seed_from_u64(1), Instant::now());
        let mut pacing = Pacing::default();
        for longest in [2, 4, 8, 16, 32, 64, 100, 100, 100] {
            pacing.answered(false, now, &mut rng);
            let pause = pacing.not_before(now).unwrap() - now;
            assert!((ms(longest) / 2..=ms(longest)).contains(&pause), "{pause:?} of {longest} ms");
        }
        pacing.answered(true, now, &mut rng);
        assert_eq!(pacing.not_before(now), None);
        pacing.answered(false, now, &mut rng);
        assert!(pacing.not_before(now).unwrap() <= now + ms(2), "it begins anew");
    }

    #[test]
    fn what_the_broker_waited_counts() {
        let (mut rng, sent) = (StdRng::seed_from_u64(1), Instant::now());
        let mut pacing = Pacing::default();
        for _ in 0..100 {
            pacing.answered(false, sent, &mut rng);
        }
        assert_eq!(pacing.not_before(sent + ms(500)), None);
        assert!(pacing.not_before(sent + ms(40)).is_some());
    }

    #[test]
    fn many_clients_do_not_ask_in_step() {
        let sent = Instant::now();
        let mut at: Vec<_> = (0..100)
            .map(|seed| {
                let (mut rng, mut pacing) = (StdRng::seed_from_u64(seed), Pacing::default());
                (0..10).for_each(|_| pacing.answered(false, sent, &mut rng));
                pacing.not_before(sent).unwrap()
            })
            .collect();
        at.sort();
        at.dedup();
        assert_eq!(at.len(), 100);
    }

    proptest! {
        /// Whatever is answered after whatever round trips: after ten empty responses in a row there are
        /// at most 20 requests a second, no pause is longer than 100 ms, and none follows a record.
        #[test]
        fn idle_brokers_are_asked_rarely_and_busy_ones_at_once(
            responses in prop::collection::vec((any::<bool>(), 0u64..300), 1..300),
            seed in any::<u64>(),
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut now, mut pacing, mut empty) = (Instant::now(), Pacing::default(), 0);
            for (brought, round_trip_us) in responses {
                let sent = now;
                now += Duration::from_micros(round_trip_us);
                pacing.answered(brought, sent, &mut rng);
                empty = if brought { 0 } else { empty + 1 };
                let next = pacing.not_before(now).unwrap_or(now);
                prop_assert!(next <= sent.max(now - ms(100)) + ms(100));
                prop_assert!(!brought || next == now);
                prop_assert!(empty < 10 || next - sent >= ms(50));
                now = next;
            }
        }
    }
}
