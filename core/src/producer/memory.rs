//! The byte budget (`buffer_memory`) of open and unacknowledged batches, and the quota of it that one holder
//! may have: a topic, a partition that records name, or a broker that leads such partitions. Without quotas a
//! single partition that nothing can be sent to would fill the whole budget within seconds, and every other
//! topic would wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::caught;

/// Counts the bytes that batches hold. If there is no room, a caller waits in line; no later caller gets ahead
/// of it. A batch is charged after it has grown, so the budget can be exceeded by one chunk (64 KiB, or one
/// large record) for each open batch.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
    /// A caller was refused since the last release.
    pressed: AtomicBool,
    /// How many callers are in line, the first included.
    waiting: AtomicUsize,
    /// Its one permit belongs to the first in line.
    line: Semaphore,
    /// Tells the first in line that something was released.
    freed: Notify,
    /// How often something was released. `released` wakes everybody who watches this number.
    releases: AtomicU64,
    released: Notify,
    /// How many [`Quiet`]s exist: while there is one, no waiting caller is woken.
    quiet: AtomicUsize,
}

/// While it exists, no caller that waits for memory is woken. Needed to release memory under a lock: a waker is
/// the application's code and may send at once, which takes the same lock.
#[derive(Debug)]
pub(crate) struct Quiet<'a>(&'a Budget);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if self.0.quiet.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.wake_waiters();
        }
    }
}

/// A holder may hold at most `TIMES_FREE` times the bytes that are free. So a single holder stops at 2/3 of the
/// budget (2/3 is twice the third that is free), and of two each stops at 2/5: something is always left for
/// others (the dynamic thresholds of shared-memory switches, Choudhury and Hahne 1998). The number of holders
/// need not be known.
const TIMES_FREE: usize = 2;

/// See [`Budget::is_far_ahead`].
const FAR_AHEAD: usize = 4 << 20;

/// How many bytes one holder has, and the line of the callers that wait for more of them.
#[derive(Debug)]
pub(crate) struct MemoryQuota {
    bytes: AtomicUsize,
    line: Semaphore,
}

impl Default for MemoryQuota {
    fn default() -> Self {
        Self { bytes: AtomicUsize::new(0), line: Semaphore::new(1) }
    }
}

/// The holders that a batch's bytes are charged to.
#[derive(Clone, Debug)]
pub(crate) struct Quotas {
    /// The topic; the partition, if its records name one.
    pub(crate) own: Arc<MemoryQuota>,
    /// The broker that leads that partition; `None` for records that name none.
    pub(crate) broker: Option<Arc<MemoryQuota>>,
}

impl Quotas {
    fn all(&self) -> impl Iterator<Item = &MemoryQuota> {
        std::iter::once(&*self.own).chain(self.broker.as_deref())
    }
}

/// The right of the first caller in line, for which there is room now. No caller behind it is served while this
/// exists, so its owner appends its record first and drops this afterwards.
#[derive(Debug)]
pub(crate) struct SpacePermit<'a> {
    _own: SemaphorePermit<'a>,
    _first: SemaphorePermit<'a>,
    _waiting: Waiting<'a>,
}

/// Counts one waiter, until it is dropped: also if the waiting future is dropped half-way.
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
            releases: AtomicU64::new(0),
            released: Notify::new(),
            quiet: AtomicUsize::new(0),
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

    /// A caller was refused for lack of memory: open batches must be sent, since they hold that memory.
    /// `true` if nobody was refused since the last release.
    pub(crate) fn press(&self) -> bool {
        !self.pressed.swap(true, Ordering::AcqRel)
    }

    /// Whether more bytes wait than fit a processor's cache. Where application threads and the engine share
    /// processors, the engine would run only after all of them, and the batches would be out of the cache
    /// by then. So a thread that has filled a batch yields to the engine.
    pub(crate) fn is_far_ahead(&self) -> bool {
        self.used.load(Ordering::Relaxed) > FAR_AHEAD
    }

    /// Whether these holders may have `bytes` more. A holder that has nothing may always have something: it
    /// is not to blame for what other partitions of its broker hold.
    pub(crate) fn quotas_fit(&self, quotas: &Quotas, bytes: usize) -> bool {
        let free = self.limit.saturating_sub(self.used.load(Ordering::Relaxed));
        let held = |quota: &MemoryQuota| quota.bytes.load(Ordering::Relaxed);
        held(&quotas.own) == 0
            || quotas.all().all(|quota| held(quota) + bytes <= free.saturating_mul(TIMES_FREE))
    }

    pub(crate) fn charge(&self, quotas: &Quotas, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        for quota in quotas.all() {
            quota.bytes.fetch_add(bytes, Ordering::AcqRel);
        }
    }

    pub(crate) fn release(&self, quotas: &Quotas, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        for quota in quotas.all() {
            quota.bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
        self.pressed.store(false, Ordering::Release);
        self.releases.fetch_add(1, Ordering::AcqRel);
        // Looked at after the release: when the last `Quiet` is dropped, callers are woken for all releases
        // before that.
        if self.quiet.load(Ordering::Acquire) == 0 {
            self.wake_waiters();
        }
    }

    fn wake_waiters(&self) {
        // These wakers are the application's: one that panics must not keep the batch from resolving.
        let _ = caught::call(|| self.freed.notify_one());
        let _ = caught::call(|| self.released.notify_waiters());
    }

    /// Nobody is woken until the result is dropped.
    pub(crate) fn quiet(&self) -> Quiet<'_> {
        self.quiet.fetch_add(1, Ordering::AcqRel);
        Quiet(self)
    }

    /// How often something was released.
    pub(crate) fn releases(&self) -> u64 {
        self.releases.load(Ordering::Acquire)
    }

    /// Waits until there have been more than `before` releases.
    pub(crate) async fn released_since(&self, before: u64) {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if self.releases() != before {
                return;
            }
            released.await;
        }
    }

    /// Bytes held now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Whether a caller wants memory that is not free: then no batch may linger.
    pub(crate) fn is_wanted(&self) -> bool {
        self.pressed.load(Ordering::Acquire) || self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits in line until `bytes` fit. First come, first served: a caller that wants much is not
    /// overtaken for ever by callers that want little. A caller whose holder has used up its quota waits
    /// in that holder's own line first, where it is in nobody else's way.
    pub(crate) async fn acquire<'a>(&'a self, quotas: &'a Quotas, bytes: usize) -> SpacePermit<'a> {
        let own = quotas.own.line.acquire().await.expect("the line is never closed");
        loop {
            let before = self.releases();
            if !self.quotas_fit(quotas, bytes) {
                self.released_since(before).await;
                continue;
            }
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let waiting = Waiting(self);
            let first = self.line.acquire().await.expect("the line is never closed");
            while !self.fits(bytes) {
                // A release that came before this wait is remembered.
                self.freed.notified().await;
            }
            if self.quotas_fit(quotas, bytes) {
                return SpacePermit { _own: own, _first: first, _waiting: waiting };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn quotas() -> Quotas {
        Quotas { own: Arc::default(), broker: None }
    }

    /// Starts waiters for so many bytes each, one after the other; what they get is charged, and
    /// noted by their number.
    async fn line(budget: &Arc<Budget>, wants: &[usize]) -> Arc<Mutex<Vec<usize>>> {
        let served = Arc::<Mutex<Vec<usize>>>::default();
        for (number, bytes) in wants.iter().copied().enumerate() {
            let (budget, served) = (Arc::clone(budget), Arc::clone(&served));
            let before = budget.waiting.load(Ordering::Relaxed);
            let watched = Arc::clone(&budget);
            tokio::spawn(async move {
                let quotas = quotas();
                let permit = budget.acquire(&quotas, bytes).await;
                budget.charge(&quotas, bytes);
                served.lock().unwrap().push(number);
                drop(permit);
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
        let all = quotas();
        budget.charge(&all, 100);
        let served = line(&budget, &[10, 90, 5, 5]).await;
        budget.release(&all, 20);
        settled().await;
        assert_eq!(*served.lock().unwrap(), [0], "5 would fit, but 90 was there first");
        assert!(budget.fits(5) && !budget.has_room(5), "nor does a newcomer overtake it");
        budget.release(&all, 80);
        settled().await;
        assert_eq!(*served.lock().unwrap(), [0, 1]);
        budget.release(&all, 90);
        settled().await;
        assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3]);
        assert!(!budget.is_wanted() && budget.has_room(5));
    }

    /// Nothing lingers meanwhile.
    #[tokio::test]
    async fn space_is_wanted_for_as_long_as_somebody_waits() {
        let budget = Arc::new(Budget::new(100));
        let all = quotas();
        budget.charge(&all, 100);
        assert!(!budget.is_wanted());
        let served = line(&budget, &[60]).await;
        assert!(budget.is_wanted());
        budget.release(&all, 10);
        settled().await;
        assert!(budget.is_wanted() && served.lock().unwrap().is_empty(), "that is not enough");
        budget.release(&all, 60);
        settled().await;
        assert!(!budget.is_wanted() && served.lock().unwrap().len() == 1);
        // Who is refused does not wait, and wants it all the same; until some is given back.
        assert!(budget.press() && budget.is_wanted());
        budget.release(&all, 10);
        assert!(!budget.is_wanted());
    }

    /// What a holder has given back counts no more.
    #[test]
    fn a_quota_ends_with_what_it_was_for() {
        let budget = Budget::new(100);
        let one = Quotas { own: Arc::default(), broker: Some(Arc::default()) };
        for _ in 0..10 {
            budget.charge(&one, 60);
            assert!(!budget.quotas_fit(&one, 60));
            budget.release(&one, 50);
            assert!(budget.quotas_fit(&one, 60));
            budget.release(&one, 10);
        }
    }

    #[tokio::test]
    async fn who_gives_up_makes_place() {
        let budget = Arc::new(Budget::new(100));
        let all = quotas();
        budget.charge(&all, 95);
        let own = quotas();
        let mut impatient = Box::pin(budget.acquire(&own, 90));
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
        let (budget, all) = (Budget::new(10), quotas());
        budget.charge(&all, 10);
        assert!(!budget.is_wanted());
        assert!(budget.press() && !budget.press() && budget.is_wanted());
        budget.release(&all, 10);
        assert!(!budget.is_wanted() && budget.press());
    }

    #[test]
    fn an_empty_budget_takes_anything() {
        let budget = Budget::new(10);
        assert!(budget.has_room(1000));
        budget.charge(&quotas(), 1);
        assert!(!budget.has_room(10));
    }

    #[test]
    fn every_holder_leaves_something_for_the_next() {
        let budget = Budget::new(900);
        let (a, b, c) = (quotas(), quotas(), quotas());
        let fill = |of: &Quotas| {
            let before = budget.used();
            // Without its limit a holder would take more than there is.
            while budget.quotas_fit(of, 10) && budget.used() < 2 * 900 {
                budget.charge(of, 10);
            }
            budget.used() - before
        };
        // What one has already is not taken from it.
        assert_eq!((fill(&a), fill(&b), fill(&a)), (600, 200, 0));
        assert!(budget.quotas_fit(&c, 10));
    }

    #[test]
    fn a_broker_has_a_quota_whatever_its_partitions_have() {
        let budget = Budget::new(900);
        let broker = Arc::new(MemoryQuota::default());
        let of_it = || Quotas { own: Arc::default(), broker: Some(Arc::clone(&broker)) };
        let partitions: Vec<_> = (0..6).map(|_| of_it()).collect();
        for partition in partitions.iter().cycle().take(60) {
            assert!(budget.quotas_fit(partition, 10));
            budget.charge(partition, 10);
        }
        assert!(!budget.quotas_fit(&partitions[0], 10) && budget.quotas_fit(&quotas(), 10));
        assert!(budget.quotas_fit(&of_it(), 10), "a partition that has nothing");
    }

    #[tokio::test]
    async fn who_waits_for_a_quota_is_in_nobodys_way() {
        let budget = Arc::new(Budget::new(100));
        let (stalled, other) = (quotas(), quotas());
        budget.charge(&stalled, 70);
        let own = stalled.clone();
        let mut waits = Box::pin(budget.acquire(&own, 10));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        assert!(budget.has_room(10), "there is room for others");
        drop(budget.acquire(&other, 10).await);
        budget.release(&stalled, 40);
        assert!(waits.as_mut().poll(&mut cx).is_ready());
    }

    /// Others of its kind may have taken what was left of it meanwhile.
    #[tokio::test]
    async fn a_quota_is_looked_at_again_behind_the_line() {
        let budget = Budget::new(100);
        let (own, others) = (quotas(), quotas());
        budget.charge(&others, 100);
        let mut waits = Box::pin(budget.acquire(&own, 10));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        budget.charge(&own, 60);
        budget.release(&others, 90);
        assert!(budget.fits(10) && !budget.quotas_fit(&own, 10));
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        budget.release(&own, 40);
        assert!(waits.as_mut().poll(&mut cx).is_ready());
    }

    /// Who is woken may want the lock that is held meanwhile.
    #[tokio::test]
    async fn nobody_is_woken_before_the_quiet_ends_and_everybody_then() {
        let budget = Arc::new(Budget::new(100));
        let all = quotas();
        budget.charge(&all, 100);
        let served = line(&budget, &[10]).await;
        let watches = Arc::clone(&budget);
        let mut watcher = tokio::spawn(async move { watches.released_since(0).await });
        settled().await;
        let (quiet, longer) = (budget.quiet(), budget.quiet());
        budget.release(&all, 50);
        drop(quiet);
        settled().await;
        assert!(served.lock().unwrap().is_empty() && !watcher.is_finished());
        drop(longer);
        settled().await;
        assert_eq!(*served.lock().unwrap(), [0]);
        tokio::time::timeout(std::time::Duration::from_secs(20), &mut watcher)
            .await
            .expect("woken")
            .unwrap();
    }
}
