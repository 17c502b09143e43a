//! How the Produce requests of a pool are paced: the bucket that all its producers share. How strained brokers
//! are is known to the senders.

use std::sync::Mutex;

use tokio::time::Instant;

use crate::policy::pace::{Bucket, PaceLimits};

/// See the module.
pub(crate) struct Pace {
    limits: PaceLimits,
    bucket: Mutex<Bucket>,
}

impl Pace {
    pub(super) fn new(limits: PaceLimits, now: Instant) -> Self {
        Self { limits, bucket: Mutex::new(Bucket::new(&limits, now)) }
    }

    pub(crate) fn limits(&self) -> &PaceLimits {
        &self.limits
    }

    /// The bucket as it is now, for a round to plan with.
    pub(crate) fn look(&self, now: Instant) -> Bucket {
        let mut bucket = self.bucket.lock().unwrap_or_else(|e| e.into_inner());
        bucket.advance(now);
        *bucket
    }

    /// A request is made. `hasty`: its first batch may not wait.
    pub(crate) fn take(&self, hasty: bool) {
        self.bucket.lock().unwrap_or_else(|e| e.into_inner()).take(hasty);
    }
}
