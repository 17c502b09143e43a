//! The byte budget of open and unacknowledged batches.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts bytes held; who wants more than there is waits in line. A batch is charged when it
/// grows, after the fact, so the budget can be exceeded by one chunk (64 KiB, or one large record)
/// for each open batch.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
    line: Notify,
    waiting: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit, line: Notify::new(), waiting: AtomicUsize::new(0) }
    }

    /// Whether `bytes` more fit now. An empty budget takes anything.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        used == 0 || used + bytes <= self.limit
    }

    pub(crate) fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.line.notify_one();
    }

    /// Bytes held now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Whether somebody waits: then nothing may linger.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Resolves when `bytes` fit; the caller tries again then. First come, first served.
    pub(crate) async fn room(&self, bytes: usize) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _left = Left(self);
        while !self.has_room(bytes) {
            self.line.notified().await;
        }
    }
}

/// Counts a waiter out, also when its future is dropped, and passes the turn on: the space that
/// woke this one may be enough for the next, too.
struct Left<'a>(&'a Budget);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.line.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn waits_in_line_and_lets_everyone_through() {
        let budget = Arc::new(Budget::new(100));
        budget.charge(100);
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let budget = Arc::clone(&budget);
                tokio::spawn(async move { budget.room(30).await })
            })
            .collect();
        while budget.waiting.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        assert!(budget.is_wanted());
        budget.release(50);
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert!(!budget.is_wanted());
    }

    #[test]
    fn an_empty_budget_takes_anything() {
        let budget = Budget::new(10);
        assert!(budget.has_room(1000));
        budget.charge(1);
        assert!(!budget.has_room(10));
    }
}
