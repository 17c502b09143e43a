//! Brokers that this process has left: the subset has turned, or the cluster has changed, and records that may go
//! anywhere go to others from now on. The lane to one of them closes when a lane that is opened instead has taken
//! its place. So a turn needs no more connections than there were: until their idle timeout it would be twice as
//! many, of a whole fleet at once where ordinals turn together.
//!
//! A lane that is used all the same stays: for batches that must go there, or by another sender of the process.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Leaders;

/// Within this, what was sent before the turn is answered. A lane that is used later is still of use.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Left {
    brokers: BTreeSet<i32>,
    /// Whose lane was used after this is of use.
    unused_since: Option<Instant>,
    /// Lanes that were opened since, and have taken nobody's place yet.
    successors: usize,
}

impl Left {
    /// A lane was opened to a broker that is used now.
    pub(super) fn succeeded(&mut self) {
        if !self.brokers.is_empty() {
            self.successors += 1;
        }
    }
}

impl Leaders {
    /// The brokers are chosen anew: all that are used are left, as far as they are not chosen again.
    pub(super) fn leave_all(&mut self, now: Instant) {
        let Self { all, subset, outside, left, .. } = self;
        left.brokers.extend(subset.union(outside));
        left.brokers.retain(|id| all.get_mut(id).is_some_and(|leader| leader.lane().is_some()));
        left.unused_since = Some(now + ANSWERED_WITHIN);
        left.successors = 0;
    }

    /// Closes the lanes whose place others have taken, and that nothing is in flight on.
    pub(super) fn close_left(&mut self) {
        let Self { all, subset, outside, left, lanes, .. } = self;
        let Left { brokers, unused_since, successors } = left;
        if *successors == 0 {
            return;
        }
        brokers.retain(|id| {
            let chosen = subset.contains(id) || outside.contains(id);
            let Some(leader) = all.get_mut(id).filter(|_| !chosen) else { return false };
            let idle = leader.requests == 0;
            let Some(connection) = leader.lane() else { return false };
            if unused_since.is_none_or(|since| connection.last_used() > since) {
                return false;
            }
            if *successors == 0 || !idle || connection.in_flight() > 0 {
                return true;
            }
            connection.retire();
            leader.connection = None;
            *successors -= 1;
            // None was lost.
            *lanes = lanes.saturating_sub(1);
            false
        });
        if brokers.is_empty() {
            *successors = 0;
        }
    }
}
