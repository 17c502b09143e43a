//! Waiting for memory, in the order of the callers.

use std::sync::Arc;

use tokio::time::Instant;

use super::Accumulator;
use crate::error::{Error, ErrorKind, Result};
use crate::producer::memory::{Quotas, SpacePermit};

impl Accumulator {
    /// Until when a caller that begins to wait now may wait.
    pub(in crate::producer) fn space_deadline(&self) -> Instant {
        self.env.now() + self.config.max_block
    }

    /// Waits in line for `bytes`.
    pub(in crate::producer) async fn space<'a>(
        &'a self,
        quotas: &'a Quotas,
        bytes: usize,
        deadline: Instant,
    ) -> Result<SpacePermit<'a>> {
        self.env.check_process()?;
        let sleep = self.env.sleep_until(deadline);
        tokio::select! {
            biased;
            permit = self.budget.acquire(quotas, bytes) => Ok(permit),
            () = sleep => Err(Error::new(
                ErrorKind::BufferFull,
                format!(
                    "buffer_memory ({} bytes) stayed full for {:?}",
                    self.config.buffer_memory, self.config.max_block
                ),
            )),
        }
    }

    /// How often memory was given back.
    pub(in crate::producer) fn releases(&self) -> u64 {
        self.budget.releases()
    }

    /// Waits until `bytes` are free, and some memory was released since there had been `before` releases: free memory
    /// may lie in the quota of others.
    pub(in crate::producer) async fn space_free(&self, bytes: usize, before: u64) {
        let nobodys = Quotas { own: Arc::default(), broker: None };
        drop(self.budget.acquire(&nobodys, bytes).await);
        self.budget.released_since(before).await;
    }
}
