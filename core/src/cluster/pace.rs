//! How the Produce requests of a pool are paced: the allowance that all its producers share. How strained brokers
//! are is known to the senders.

use std::sync::Mutex;

use tokio::time::Instant;

use crate::policy::pace::{Allowance, PaceLimits};

/// See the module.
pub(crate) struct Pace {
    limits: PaceLimits,
    allowance: Mutex<Allowance>,
}

impl Pace {
    pub(super) fn new(limits: PaceLimits, now: Instant) -> Self {
        Self { limits, allowance: Mutex::new(Allowance::new(&limits, now)) }
    }

    pub(crate) fn limits(&self) -> &PaceLimits {
        &self.limits
    }

    /// The allowance as it is now, for a round to plan with.
    pub(crate) fn look(&self, now: Instant) -> Allowance {
        let mut allowance = self.allowance.lock().unwrap_or_else(|e| e.into_inner());
        allowance.advance(now);
        *allowance
    }

    /// A request is made. `hasty`: its first batch may not wait. `strained`: the broker that it goes to is.
    pub(crate) fn take(&self, hasty: bool, strained: bool, now: Instant) {
        self.allowance.lock().unwrap_or_else(|e| e.into_inner()).take(hasty, strained, now);
    }
}
