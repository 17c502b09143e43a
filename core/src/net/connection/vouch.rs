//! Whether a connection is believed to lead to its broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Whether a group of connections is known to lead to the right cluster. Once it is known, it stays so. See
/// `cluster/identity.rs`.
#[derive(Debug)]
pub(crate) struct Vouch {
    pub(super) known: AtomicBool,
    pub(super) told: Notify,
    /// How many connections of the pool were lost so far.
    pub(super) losses: Arc<AtomicU64>,
    /// How many of them before this was made.
    pub(super) since: u64,
}

impl Vouch {
    pub(crate) fn new(known: bool, losses: &Arc<AtomicU64>) -> Self {
        let since = losses.load(Ordering::Acquire);
        Self {
            known: AtomicBool::new(known),
            told: Notify::new(),
            losses: Arc::clone(losses),
            since,
        }
    }

    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Whether no connection was lost since it was made.
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.losses.load(Ordering::Acquire) == self.since
    }
}
