//! The retry budget: a token bucket whose unit is a *request that exists only because of a retry*.
//! A retried batch that rides with first attempts is free, and so is a batch that moves because it
//! was never sent or because its partition has another leader now.
//!
//! Income is a fifth of a token per first request and one token a second; the bucket holds ten
//! seconds of income, twenty tokens at least. However many things fail, a client's traffic grows by
//! about a fifth. An empty bucket delays, it never fails anything.

use std::time::Duration;

use tokio::time::Instant;

/// Tokens for each first request.
const PER_FIRST_REQUEST: f64 = 0.2;
/// Tokens per second: a client that sends nothing else may still try again.
const PER_SECOND: f64 = 1.0;
/// The bucket holds the income of so many seconds, [`MIN_CAPACITY`] at least.
const HOLDS_SECONDS: f64 = 10.0;
const MIN_CAPACITY: f64 = 20.0;

/// The price of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Everything in the request is definitely not written yet.
    Definite,
    /// Something in it may be written already: the broker works twice for one result.
    InDoubt,
}

impl Cost {
    fn tokens(self) -> f64 {
        match self {
            Self::Definite => 1.0,
            Self::InDoubt => 2.0,
        }
    }
}

/// The token bucket.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    tokens: f64,
    /// Income from first requests, fading with the time constant [`HOLDS_SECONDS`]: about what
    /// came in during the last ten seconds.
    recent: f64,
    at: Instant,
}

impl RetryBudget {
    /// A full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: MIN_CAPACITY, recent: 0.0, at: now }
    }

    fn capacity(&self) -> f64 {
        (self.recent + PER_SECOND * HOLDS_SECONDS).max(MIN_CAPACITY)
    }

    fn advance(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        if seconds > 0.0 {
            self.at = now;
            self.recent *= (-seconds / HOLDS_SECONDS).exp();
            self.tokens += seconds * PER_SECOND;
        }
        self.tokens = self.tokens.min(self.capacity());
    }

    /// A request that is no retry was sent.
    pub(crate) fn first_request(&mut self, now: Instant) {
        self.advance(now);
        self.recent += PER_FIRST_REQUEST;
        self.tokens = (self.tokens + PER_FIRST_REQUEST).min(self.capacity());
    }

    /// Pays for a retry, or says when there will be enough if nothing else is paid meanwhile.
    pub(crate) fn retry(&mut self, cost: Cost, now: Instant) -> Result<(), Instant> {
        self.advance(now);
        let missing = cost.tokens() - self.tokens;
        // What a sum of fifths lacks to a whole is rounding, not a token.
        if missing <= 1e-6 {
            self.tokens = (self.tokens - cost.tokens()).max(0.0);
            return Ok(());
        }
        Err(now + Duration::from_secs_f64(missing / PER_SECOND))
    }

    /// Tokens left, for people.
    pub(crate) fn level(&self) -> f64 {
        self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_bucket_pays_twenty_and_then_one_a_second() {
        let t0 = Instant::now();
        let mut budget = RetryBudget::new(t0);
        for _ in 0..20 {
            assert_eq!(budget.retry(Cost::Definite, t0), Ok(()));
        }
        let next = budget.retry(Cost::Definite, t0).unwrap_err();
        assert_eq!(next, t0 + Duration::from_secs(1));
        assert_eq!(budget.retry(Cost::Definite, next), Ok(()));
        assert!(budget.retry(Cost::Definite, next).is_err());
    }

    #[test]
    fn five_first_requests_pay_one_retry_and_doubt_costs_double() {
        let t0 = Instant::now();
        let mut budget = RetryBudget::new(t0);
        while budget.retry(Cost::Definite, t0).is_ok() {}
        for _ in 0..10 {
            budget.first_request(t0);
        }
        assert_eq!(budget.retry(Cost::InDoubt, t0), Ok(()));
        assert!(budget.retry(Cost::Definite, t0).is_err());
        let wait = budget.retry(Cost::InDoubt, t0).unwrap_err() - t0;
        assert_eq!(wait, Duration::from_secs(2));
    }

    #[test]
    fn capacity_follows_the_traffic_and_shrinks_with_it() {
        let t0 = Instant::now();
        let mut budget = RetryBudget::new(t0);
        for ms in 0..20_000 {
            budget.first_request(t0 + Duration::from_millis(ms));
        }
        // 200 tokens a second for 20 s: ten seconds of that are kept, faded.
        assert!((1_600.0..=2_010.0).contains(&budget.level()), "{}", budget.level());
        let later = t0 + Duration::from_secs(120);
        budget.advance(later);
        assert!((20.0..20.1).contains(&budget.level()), "{}", budget.level());
    }

    proptest! {
        /// Whatever the traffic, retries never outnumber a fifth of the first requests plus one a
        /// second plus the largest bucket there was.
        #[test]
        fn retries_stay_under_the_income(
            steps in prop::collection::vec((0u64..50, any::<bool>()), 1..400),
        ) {
            let t0 = Instant::now();
            let mut now = t0;
            let mut budget = RetryBudget::new(t0);
            let (mut first, mut paid) = (0.0, 0.0);
            for (ms, retry) in steps {
                now += Duration::from_millis(ms);
                if retry {
                    paid += f64::from(u8::from(budget.retry(Cost::Definite, now).is_ok()));
                } else {
                    budget.first_request(now);
                    first += 1.0;
                }
            }
            let seconds = (now - t0).as_secs_f64();
            prop_assert!(paid <= MIN_CAPACITY + first * PER_FIRST_REQUEST + seconds * PER_SECOND + 1e-3);
        }
    }
}
