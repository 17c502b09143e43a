//! The retry budgets of a pool: one for Produce, and one for fetching and lookups, so that a storm of retries of
//! one kind does not hold up the other.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::metrics::{self, Metrics};
use crate::policy::retry_budget::{Cost, RetryBudget};

/// The retry budgets of one pool.
pub(crate) struct Budgets {
    produce: Mutex<RetryBudget>,
    fetch: Mutex<RetryBudget>,
    metrics: Arc<Metrics>,
}

/// The kind of requests that a budget is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BudgetKind {
    Produce,
    /// Fetch, offsets, metadata, topics.
    Fetch,
}

impl Budgets {
    pub(super) fn new(now: Instant, metrics: &Arc<Metrics>) -> Self {
        Self {
            produce: Mutex::new(RetryBudget::new(now)),
            fetch: Mutex::new(RetryBudget::new(now)),
            metrics: Arc::clone(metrics),
        }
    }

    fn with<T>(&self, kind: BudgetKind, act: impl FnOnce(&mut RetryBudget) -> T) -> T {
        let (budget, counted) = match kind {
            BudgetKind::Produce => (&self.produce, metrics::RetryBudget::Produce),
            BudgetKind::Fetch => (&self.fetch, metrics::RetryBudget::Fetch),
        };
        let mut budget = budget.lock().unwrap_or_else(|e| e.into_inner());
        let result = act(&mut budget);
        self.metrics.budget_level(counted, budget.level());
        result
    }

    /// A request that is no retry is sent.
    pub(crate) fn first_request(&self, kind: BudgetKind, now: Instant) {
        self.with(kind, |budget| budget.first_request(now));
    }

    /// Pays for a request that exists only because of a retry. If the budget is empty, gives the time from which on
    /// it can be paid.
    pub(crate) fn retry(&self, kind: BudgetKind, cost: Cost, now: Instant) -> Result<(), Instant> {
        self.with(kind, |budget| budget.retry(cost, now))
    }

    /// A request has to wait for the budget.
    pub(crate) fn delayed(&self, kind: BudgetKind) {
        self.metrics.budget_delayed(match kind {
            BudgetKind::Produce => metrics::RetryBudget::Produce,
            BudgetKind::Fetch => metrics::RetryBudget::Fetch,
        });
    }
}
