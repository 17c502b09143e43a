//! What a batch has behind it: how often it was refused for certain, and when it may be put into a
//! request again.

use rand::Rng;
use tokio::time::Instant;

use crate::policy::backoff::Backoff;

/// Why an attempt of a batch came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It never left, or its partition has another leader now: going there is no retry.
    Moved,
    /// The broker refused it, or nobody knows.
    Failed,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// Made when first needed: most batches are refused never.
    backoff: Option<Box<Backoff>>,
    refused: bool,
    not_before: Option<Instant>,
}

impl Tries {
    /// It came back from a partition. The first time it goes elsewhere at once; one that is refused
    /// wherever it goes waits longer each time, or a cluster that refuses everything would be asked
    /// as fast as it can refuse.
    pub(crate) fn came_back(&mut self, cause: Cause, now: Instant, rng: &mut impl Rng) {
        self.refused = cause == Cause::Failed;
        match (&mut self.backoff, cause) {
            (None, Cause::Failed) => self.backoff = Some(Box::default()),
            (Some(backoff), Cause::Failed) => self.not_before = Some(now + backoff.next(rng)),
            (_, Cause::Moved) => self.not_before = None,
        }
    }

    /// Whether sending it is a retry, which the budget pays for.
    pub(crate) fn is_retry(&self) -> bool {
        self.refused
    }

    /// It may be put into a request no sooner.
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
        let mut tries = Tries::default();
        assert!(!tries.is_retry());
        tries.came_back(Cause::Failed, now, &mut rng);
        assert!(tries.is_retry() && tries.not_before(now).is_none());
        let mut sum = Duration::ZERO;
        for _ in 0..12 {
            tries.came_back(Cause::Failed, now, &mut rng);
            sum += tries.not_before(now).map_or(Duration::ZERO, |at| at - now);
        }
        assert!(sum > Duration::from_secs(5), "{sum:?}");
        tries.came_back(Cause::Moved, now, &mut rng);
        assert!(!tries.is_retry() && tries.not_before(now).is_none());
    }
}
