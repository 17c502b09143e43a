//! Waiting for what was taken: batches are numbered as they are opened, and a flush waits for all
//! numbers up to its own.

use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::accumulator::Accumulator;
use super::sender::Event;
use crate::error::Error;

impl Accumulator {
    /// One more batch has this number.
    pub(super) fn batch_again(&self, number: u64) {
        let mut unresolved = self.unresolved.lock().unwrap_or_else(|e| e.into_inner());
        *unresolved.entry(number).or_default() += 1;
    }

    pub(super) fn batch_resolved(&self, number: u64) {
        let mut unresolved = self.unresolved.lock().unwrap_or_else(|e| e.into_inner());
        if let Entry::Occupied(mut batches) = unresolved.entry(number) {
            *batches.get_mut() -= 1;
            if *batches.get() == 0 {
                batches.remove();
            }
        }
        drop(unresolved);
        self.resolved.notify_waiters();
    }

    /// Whether the open batch with this number has to go although it is not full.
    pub(super) fn may_not_linger(&self, number: u64) -> bool {
        number < self.flush_below.load(Ordering::Acquire) || self.budget.is_wanted()
    }

    /// Everything accepted before the call is resolved when this returns.
    pub(crate) async fn flush(&self) {
        // Records that wait for their partition are in batches with later numbers once they have it.
        let unrouted = self.unrouted.load(Ordering::Acquire) > 0;
        self.flush_opened().await;
        if unrouted {
            self.flush_opened().await;
        }
    }

    /// Every batch opened before the call is resolved when this returns.
    async fn flush_opened(&self) {
        let target = self.next_batch.load(Ordering::Acquire);
        loop {
            let resolved = self.resolved.notified();
            tokio::pin!(resolved);
            resolved.as_mut().enable();
            if self.oldest_unresolved().is_none_or(|oldest| oldest >= target) {
                return;
            }
            // Open batches may keep taking records of others; they go at once now.
            if self.flush_below.fetch_max(target, Ordering::AcqRel) < target {
                let _ = self.events.send(Event::Pressure);
            }
            resolved.await;
        }
    }

    fn oldest_unresolved(&self) -> Option<u64> {
        self.unresolved.lock().unwrap_or_else(|e| e.into_inner()).keys().next().copied()
    }

    /// Batches that nobody has resolved yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.unresolved.lock().unwrap_or_else(|e| e.into_inner()).len()
    }

    /// Resolves everything that is not resolved with `error`: the close deadline has passed.
    pub(crate) fn abandon(self: &Arc<Self>, error: &Error) {
        let _ = self.events.send(Event::Abandon(Arc::clone(self), error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Waker};

    use tokio::sync::mpsc;

    use super::super::budget::Shares;
    use super::super::delivery::BatchDelivery;
    use super::super::slot::Slot;
    use super::*;
    use crate::config::ProducerConfig;
    use crate::environment::Environment;
    use crate::record::pool::ChunkPool;

    /// Runs `act` again and again while another thread waits for space, and does not, and does.
    fn while_space_comes_and_goes(home: &Accumulator, act: impl Fn()) {
        struct Done(Arc<AtomicBool>);
        impl Drop for Done {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let done = Done(Arc::default());
        let seen = Arc::clone(&done.0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let shares = Shares { own: Arc::default(), broker: None };
                while !seen.load(Ordering::Relaxed) {
                    let mut turn = pin!(home.budget.turn(&shares, 1));
                    let mut cx = Context::from_waker(Waker::noop());
                    assert!(turn.as_mut().poll(&mut cx).is_ready());
                }
            });
            // Dropped whatever happens: the scope waits for the other thread.
            let _done = done;
            (0..200_000).for_each(|_| act());
        });
    }

    /// A batch that is opened for a record which is refused then is none that a flush waits for:
    /// nobody would ever send it.
    #[test]
    fn no_batch_is_left_open_without_a_record() {
        let (tx, _events) = mpsc::unbounded_channel();
        let config = ProducerConfig::default();
        let env = Environment::builder().seed(1).build();
        let home = Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        let home = Arc::new(home);
        let topic = home.topic("t").unwrap();
        let end = |slot: &Arc<Slot>| {
            if let Some(batch) = slot.take(&home) {
                batch.resolve(Err(Error::closed("producer")));
            }
        };
        while_space_comes_and_goes(&home, || {
            let mut all = BatchDelivery::default();
            let (taken, _) = home.append_values("t", &[b"v"], None, &mut all);
            let batches = home.outstanding();
            assert_eq!(batches, taken, "{taken} records taken, {batches} batches waited for");
            topic.shards.iter().for_each(&end);
        });
    }
}
