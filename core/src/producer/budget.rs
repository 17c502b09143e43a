//! The byte budget of open and unacknowledged batches.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Counts bytes held; who wants more than there is waits in line, and nobody who comes later gets
/// ahead. A batch is charged when it grows, after the fact, so the budget can be exceeded by one
/// chunk (64 KiB, or one large record) for each open batch.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
    /// Somebody was refused since the last release.
    pressed: AtomicBool,
    /// In line, the first included.
    waiting: AtomicUsize,
    /// Who holds the permit is first in line.
    line: Semaphore,
    /// What the first waits for.
    freed: Notify,
}

/// Being first in line, with room. Whoever waits behind stays there for as long as this exists, so
/// the holder appends first and drops it then.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _first: SemaphorePermit<'a>,
    _waiting: Waiting<'a>,
}

/// Counts a waiter, also when its future is dropped half-way.
#[derive(Debug)]
struct Waiting<'a>(&'a Budget);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit,
            pressed: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            line: Semaphore::new(1),
            freed: Notify::new(),
        }
    }

    /// Whether `bytes` more fit now. An empty budget takes anything.
    #[inline]
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        used == 0 || used + bytes <= self.limit
    }

    /// Whether `bytes` more fit and nobody waits for them.
    #[inline]
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.fits(bytes) && self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Somebody is refused: what is open must go, since it is what the space is waiting for. Says
    /// whether this is news.
    pub(crate) fn press(&self) -> bool {
        !self.pressed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        self.pressed.store(false, Ordering::Release);
        self.freed.notify_one();
    }

    /// Bytes held now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Whether somebody wants space that there is not: then nothing may linger.
    pub(crate) fn is_wanted(&self) -> bool {
        self.pressed.load(Ordering::Acquire) || self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits in line until `bytes` fit. First come, first served: one that wants much is not
    /// overtaken for ever by those that want little.
    pub(crate) async fn turn(&self, bytes: usize) -> Turn<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(self);
        let first = self.line.acquire().await.expect("the line is never closed");
        while !self.fits(bytes) {
            // One that came before the wait is remembered.
            self.freed.notified().await;
        }
        Turn { _first: first, _waiting: waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Starts waiters for so many bytes each, one after the other; what they get is charged, and
    /// noted by their number.
    async fn line(budget: &Arc<Budget>, wants: &[usize]) -> Arc<Mutex<Vec<usize>>> {
        let served = Arc::<Mutex<Vec<usize>>>::default();
        for (number, bytes) in wants.iter().copied().enumerate() {
            let (budget, served) = (Arc::clone(budget), Arc::clone(&served));
            let before = budget.waiting.load(Ordering::Relaxed);
            let watched = Arc::clone(&budget);
            tokio::spawn(async move {
                let turn = budget.turn(bytes).await;
                budget.charge(bytes);
                served.lock().unwrap().push(number);
                drop(turn);
            });
            while watched.waiting.load(Ordering::Relaxed) == before {
                tokio::task::yield_now().await;
            }
        }
        served
    }

    async fn settled() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn served_in_the_order_they_came() {
        let budget = Arc::new(Budget::new(100));
        budget.charge(100);
        let served = line(&budget, &[10, 90, 5, 5]).await;
        budget.release(20);
        settled().await;
        assert_eq!(*served.lock().unwrap(), [0], "5 would fit, but 90 was there first");
        assert!(budget.fits(5) && !budget.has_room(5), "nor does a newcomer overtake it");
        budget.release(80);
        settled().await;
        assert_eq!(*served.lock().unwrap(), [0, 1]);
        budget.release(90);
        settled().await;
        assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3]);
        assert!(!budget.is_wanted() && budget.has_room(5));
    }

    #[tokio::test]
    async fn who_gives_up_makes_place() {
        let budget = Arc::new(Budget::new(100));
        budget.charge(95);
        let mut impatient = Box::pin(budget.turn(90));
        assert!(
            std::future::poll_fn(|cx| {
                std::task::Poll::Ready(impatient.as_mut().poll(cx).is_pending())
            })
            .await
        );
        let served = line(&budget, &[5]).await;
        settled().await;
        assert!(served.lock().unwrap().is_empty());
        drop(impatient);
        settled().await;
        assert_eq!(*served.lock().unwrap(), [0]);
    }

    #[test]
    fn a_refusal_is_news_once_until_there_is_space() {
        let budget = Budget::new(10);
        budget.charge(10);
        assert!(!budget.is_wanted());
        assert!(budget.press() && !budget.press() && budget.is_wanted());
        budget.release(10);
        assert!(!budget.is_wanted() && budget.press());
    }

    #[test]
    fn an_empty_budget_takes_anything() {
        let budget = Budget::new(10);
        assert!(budget.has_room(1000));
        budget.charge(1);
        assert!(!budget.has_room(10));
    }
}
