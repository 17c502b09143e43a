//! How many requests a lane may have in flight: as many as do not make its responses slower.
//!
//! A broker takes a connection's requests one by one. A few in flight keep it busy during a round trip;
//! beyond that they only wait in its queue, where they cannot be sent elsewhere any more. So the limit
//! follows the gradient of latency, as in Netflix's concurrency limits: while responses come as quickly as
//! they have for long, it grows; when they come slower, it shrinks within a few of them. What was slow
//! becomes usual with time: a broker that always takes a second is not overloaded by that.

use std::time::Duration;

use crate::config::MAX_REQUESTS_IN_FLIGHT;

const LEAST: f64 = 1.0;
const MOST: f64 = MAX_REQUESTS_IN_FLIGHT as f64;

/// Responses that take up to so many times the usual are usual: batches differ in size, and machines in
/// mood.
const TOLERANCE: f64 = 2.0;
/// It shrinks to no less than this part of itself at a step, before smoothing.
const STEEPEST: f64 = 0.5;
/// How much the limit grows in a step, before smoothing.
const GROWTH: f64 = 1.0;
/// Weight of a new response: in the limit, in what is recent and in what is usual.
const SMOOTHING: f64 = 0.2;
const RECENT: f64 = 1.0 / 8.0;
const USUAL: f64 = 1.0 / 300.0;
/// Responses after which it is known what is usual.
const LEARNING: f64 = 1.0 / 10.0;
/// By this what is usual comes down with each response that is far below it.
const RELIEF: f64 = 0.95;

/// The limit of one lane. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    limit: f64,
    recent: f64,
    usual: f64,
    responses: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Self { limit: MOST, recent: 0.0, usual: 0.0, responses: 0 }
    }
}

impl Limit {
    /// Requests that may be in flight now.
    pub(crate) fn get(&self) -> usize {
        self.limit as usize
    }

    /// A request was answered, so long after it was sent, and with it so many were in flight.
    pub(crate) fn answered(&mut self, took: Duration, in_flight: usize) {
        let took = took.as_secs_f64() * 1e6;
        self.responses += 1;
        // A plain mean of the first ones: the very first is no measure of anything.
        let first = 1.0 / self.responses as f64;
        self.recent += (took - self.recent) * RECENT.max(first);
        self.usual += (took - self.usual) * if first > LEARNING { first } else { USUAL };
        if self.usual > self.recent * TOLERANCE {
            self.usual *= RELIEF;
        }
        // One that does not use its limit says nothing about it.
        if in_flight * 2 < self.get() {
            return;
        }
        let gradient = (TOLERANCE * self.usual / self.recent.max(1.0)).clamp(STEEPEST, 1.0);
        let next = self.limit * gradient + GROWTH;
        self.limit += (next - self.limit) * SMOOTHING;
        self.limit = self.limit.clamp(LEAST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(limit: &mut Limit, responses: usize, us: u64, in_flight: usize) -> usize {
        for _ in 0..responses {
            limit.answered(Duration::from_micros(us), in_flight);
        }
        limit.get()
    }

    #[test]
    fn steady_responses_leave_it_at_the_most_whatever_they_take() {
        for us in [50, 1_000, 2_000_000] {
            assert_eq!(after(&mut Limit::default(), 100, us, 5), MAX_REQUESTS_IN_FLIGHT);
        }
    }

    #[test]
    fn twice_as_slow_is_nothing_ten_times_is_overload_and_then_usual() {
        let mut limit = Limit::default();
        after(&mut limit, 100, 1_000, 5);
        assert_eq!(after(&mut limit.clone(), 100, 1_900, 5), 5);
        assert!(after(&mut limit, 20, 10_000, 5) <= 2);
        // Never none: the next response is how it learns that things are better.
        assert!(limit.get() >= 1);
        assert_eq!(after(&mut limit, 1_000, 10_000, 2), 5, "what lasts is usual");
    }

    #[test]
    fn it_comes_back_soon_after_the_latency_does() {
        let mut limit = Limit::default();
        after(&mut limit, 100, 1_000, 5);
        after(&mut limit, 20, 10_000, 5);
        assert_eq!(after(&mut limit, 40, 1_000, 2), 5);
    }

    #[test]
    fn one_slow_response_changes_nothing() {
        let mut limit = Limit::default();
        after(&mut limit, 100, 1_000, 5);
        assert!(after(&mut limit, 1, 8_000, 5) >= 4);
    }

    #[test]
    fn an_idle_lane_says_nothing_about_it() {
        let mut limit = Limit::default();
        after(&mut limit, 100, 1_000, 1);
        assert_eq!(after(&mut limit, 50, 50_000, 1), 5);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(responses in prop::collection::vec((0u64..10_000_000, 1usize..9), 0..300)) {
            let mut limit = Limit::default();
            for (us, in_flight) in responses {
                limit.answered(Duration::from_micros(us), in_flight);
                prop_assert!((1..=MAX_REQUESTS_IN_FLIGHT).contains(&limit.get()));
            }
        }
    }
}
