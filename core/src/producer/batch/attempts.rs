//! The attempts that were made with a batch: how often it was refused, whether one of them may have written it,
//! and when it may be put into a request again.

use rand::Rng;
use tokio::time::Instant;

use super::split::SplitPlan;
use crate::policy::backoff::Backoff;
use crate::policy::retry_budget::Cost;

/// Why an attempt of a batch came to nothing.
#[derive(Clone, Debug)]
pub(crate) enum FailureCause {
    /// The batch was never sent, or its partition has another leader now: sending it is no retry.
    Moved,
    /// The broker refused it, or it is in doubt.
    Failed,
    /// The broker refuses it as it is: it is taken apart, and its pieces go on.
    Split(SplitPlan),
}

/// After this many connections to one leader that ended while nothing but this batch was in flight on them, the
/// batch is to blame. A single one may be chance: a broker that is shut down.
const CLOSED_ALONE: u8 = 2;

/// The attempts that were made with one batch.
#[derive(Debug, Default)]
pub(crate) struct BatchAttempts {
    /// Made with the first refusal: most batches are never refused.
    backoff: Option<Box<Backoff>>,
    /// The last attempt failed: the next one is a retry.
    refused: bool,
    /// It may be in the log of a partition that it has left.
    doubt: bool,
    not_before: Option<Instant>,
    /// How many connections ended while it was in flight on them: together with other batches, and alone (with
    /// the leader of `closed_by`).
    closings: (u8, u8),
    closed_by: Option<i32>,
}

impl BatchAttempts {
    /// An attempt failed, and the batch came back from its partition. After the first failure it may go
    /// elsewhere at once; after each further one it waits longer, or a cluster that refuses everything would
    /// be asked as fast as it can refuse.
    pub(crate) fn came_back(&mut self, cause: &FailureCause, now: Instant, rng: &mut impl Rng) {
        self.refused = matches!(cause, FailureCause::Failed);
        match (&mut self.backoff, cause) {
            (None, FailureCause::Failed) => self.backoff = Some(Box::default()),
            (Some(backoff), FailureCause::Failed) => {
                self.not_before = Some(now + backoff.next(rng))
            }
            (_, FailureCause::Moved | FailureCause::Split(_)) => self.not_before = None,
        }
    }

    /// The attempts of a piece of the batch: only its doubt is inherited.
    pub(crate) fn of_piece(&self) -> Self {
        Self { doubt: self.doubt, ..Self::default() }
    }

    /// The connection to this leader ended while the batch was in flight on it; `alone`: nothing else was. Gives
    /// whether that has happened so often that the batch is to blame.
    pub(crate) fn closed(&mut self, leader: i32, alone: bool) -> bool {
        if alone && self.closed_by != Some(leader) {
            self.closed_by = Some(leader);
            self.closings.1 = 0;
        }
        let count = if alone { &mut self.closings.1 } else { &mut self.closings.0 };
        *count = count.saturating_add(1);
        self.closings.1 >= CLOSED_ALONE
    }

    /// Whether it is *suspect*: a connection may have ended because of it. Then it is sent alone on its
    /// connection.
    pub(crate) fn is_suspect(&self) -> bool {
        self.closings != (0, 0)
    }

    /// It goes to another partition although its last attempt may have written it.
    pub(crate) fn rerouted(&mut self) {
        self.doubt = true;
    }

    /// Whether an attempt in another partition may have written it. Sticks.
    pub(crate) fn in_doubt(&self) -> bool {
        self.doubt
    }

    /// The price, in the retry budget, of a request that carries only this batch; `None` if it is no retry.
    pub(crate) fn cost(&self) -> Option<Cost> {
        self.refused.then_some(if self.doubt { Cost::InDoubt } else { Cost::Definite })
    }

    /// When it may be put into a request again; `None`: now.
    pub(crate) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::time::Duration;

    #[test]
    fn elsewhere_at_once_and_then_ever_later() {
        let mut rng = StdRng::seed_from_u64(1);
        let now = Instant::now();
        let mut attempts = BatchAttempts::default();
        assert!(attempts.cost().is_none());
        attempts.came_back(&FailureCause::Failed, now, &mut rng);
        assert!(attempts.cost() == Some(Cost::Definite) && attempts.not_before(now).is_none());
        let mut sum = Duration::ZERO;
        for _ in 0..12 {
            attempts.came_back(&FailureCause::Failed, now, &mut rng);
            sum += attempts.not_before(now).map_or(Duration::ZERO, |at| at - now);
        }
        assert!(sum > Duration::from_secs(5), "{sum:?}");
        attempts.came_back(&FailureCause::Moved, now, &mut rng);
        assert!(attempts.cost().is_none() && attempts.not_before(now).is_none());
    }

    #[test]
    fn each_leader_that_goes_may_be_chance() {
        let mut attempts = BatchAttempts::default();
        assert!(!attempts.closed(1, false) && attempts.is_suspect());
        // A cluster that is restarted broker by broker, and hands the partition on.
        for leader in [1, 2, 3, 1, 2, 3] {
            assert!(!attempts.closed(leader, true), "{leader}");
        }
        assert!(!attempts.closed(3, false), "others were on it");
        assert!(attempts.closed(3, true));
    }
}
