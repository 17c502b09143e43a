//! What a batch has behind it: how often it was refused for certain, and when it may be put into a
//! request again.

use rand::Rng;
use tokio::time::Instant;

use super::split::Cut;
use crate::policy::backoff::Backoff;
use crate::policy::retry_budget::Cost;

/// Why an attempt of a batch came to nothing.
#[derive(Clone, Debug)]
pub(crate) enum Cause {
    /// It never left, or its partition has another leader now: going there is no retry.
    Moved,
    /// The broker refused it, or nobody knows.
    Failed,
    /// The broker refuses it as it is: taken apart, it may go on.
    Cut(Cut),
}

/// Connections that a batch may end while nothing else is on them. One may be chance, a broker that is
/// shut down.
const CLOSED_ALONE: u8 = 2;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// Made when first needed: most batches are refused never.
    backoff: Option<Box<Backoff>>,
    refused: bool,
    /// It may be written already, in a partition that it has left.
    doubt: bool,
    not_before: Option<Instant>,
    /// Connections that ended while it was on them: with others, and alone, to the leader that it was alone
    /// with last.
    closings: (u8, u8),
    closed_by: Option<i32>,
}

impl Tries {
    /// It came back from a partition. The first time it goes elsewhere at once; one that is refused
    /// wherever it goes waits longer each time, or a cluster that refuses everything would be asked
    /// as fast as it can refuse.
    pub(crate) fn came_back(&mut self, cause: &Cause, now: Instant, rng: &mut impl Rng) {
        self.refused = matches!(cause, Cause::Failed);
        match (&mut self.backoff, cause) {
            (None, Cause::Failed) => self.backoff = Some(Box::default()),
            (Some(backoff), Cause::Failed) => self.not_before = Some(now + backoff.next(rng)),
            (_, Cause::Moved | Cause::Cut(_)) => self.not_before = None,
        }
    }

    /// What a part of the batch has behind it.
    pub(crate) fn of_piece(&self) -> Self {
        Self { doubt: self.doubt, ..Self::default() }
    }

    /// The connection to this leader ended that it was on, with nothing else if `alone`. Whether that was
    /// so often that it is to blame.
    pub(crate) fn closed(&mut self, leader: i32, alone: bool) -> bool {
        if alone && self.closed_by != Some(leader) {
            self.closed_by = Some(leader);
            self.closings.1 = 0;
        }
        let count = if alone { &mut self.closings.1 } else { &mut self.closings.0 };
        *count = count.saturating_add(1);
        self.closings.1 >= CLOSED_ALONE
    }

    /// A connection may have ended for it: it goes on one that nobody else needs meanwhile.
    pub(crate) fn is_suspect(&self) -> bool {
        self.closings != (0, 0)
    }

    /// It goes elsewhere although its last attempt may have been written.
    pub(crate) fn rerouted(&mut self) {
        self.doubt = true;
    }

    /// Whether an attempt elsewhere may have been written. Sticks.
    pub(crate) fn in_doubt(&self) -> bool {
        self.doubt
    }

    /// What a request of nothing but this costs the retry budget; `None` if it is no retry.
    pub(crate) fn cost(&self) -> Option<Cost> {
        self.refused.then_some(if self.doubt { Cost::InDoubt } else { Cost::Definite })
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
        assert!(tries.cost().is_none());
        tries.came_back(&Cause::Failed, now, &mut rng);
        assert!(tries.cost() == Some(Cost::Definite) && tries.not_before(now).is_none());
        let mut sum = Duration::ZERO;
        for _ in 0..12 {
            tries.came_back(&Cause::Failed, now, &mut rng);
            sum += tries.not_before(now).map_or(Duration::ZERO, |at| at - now);
        }
        assert!(sum > Duration::from_secs(5), "{sum:?}");
        tries.came_back(&Cause::Moved, now, &mut rng);
        assert!(tries.cost().is_none() && tries.not_before(now).is_none());
    }

    #[test]
    fn each_leader_that_goes_may_be_chance() {
        let mut tries = Tries::default();
        assert!(!tries.closed(1, false) && tries.is_suspect());
        // A cluster that is restarted broker by broker, and hands the partition on.
        for leader in [1, 2, 3, 1, 2, 3] {
            assert!(!tries.closed(leader, true), "{leader}");
        }
        assert!(!tries.closed(3, false), "others were on it");
        assert!(tries.closed(3, true));
    }
}
