//! Waiting for what was taken: batches are numbered as they are opened, and a flush waits for all
//! numbers up to its own.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::accumulator::Accumulator;
use super::sender::Event;
use crate::caught;
use crate::error::Error;

/// Unresolved batches by number.
pub(super) type Numbers = BTreeMap<u64, Numbered>;

/// Batches with one number: those that one was split into share it.
#[derive(Debug)]
pub(super) struct Numbered {
    batches: u32,
    /// Since when the oldest of their records has been waiting that came from another batch.
    routed: Option<Instant>,
}

impl Accumulator {
    fn unresolved<T>(&self, act: impl FnOnce(&mut Numbers) -> T) -> T {
        act(&mut self.unresolved.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// A batch is opened.
    pub(super) fn batch_opened(&self, number: u64) {
        self.unresolved(|all| all.insert(number, Numbered { batches: 1, routed: None }));
    }

    /// One more batch has this number.
    pub(super) fn batch_again(&self, number: u64) {
        self.unresolved(|all| {
            all.entry(number).or_insert(Numbered { batches: 0, routed: None }).batches += 1;
        });
    }

    /// A record that came to its partition is in this batch; it has been waiting since then.
    pub(super) fn batch_routed(&self, number: u64, since: Instant) {
        self.unresolved(|all| {
            if let Some(of) = all.get_mut(&number) {
                of.routed = Some(of.routed.map_or(since, |at| at.min(since)));
            }
        });
    }

    pub(super) fn batch_resolved(&self, number: u64) {
        self.unresolved(|all| {
            if let Entry::Occupied(mut of) = all.entry(number) {
                of.get_mut().batches -= 1;
                if of.get().batches == 0 {
                    of.remove();
                }
            }
        });
        // Who flushes may have a waker that panics, as who waits for a record.
        let _ = caught::call(|| self.resolved.notify_waiters());
    }

    /// Whether the open batch with this number has to go although it is not full.
    pub(super) fn may_not_linger(&self, number: u64) -> bool {
        number < self.flush_below.load(Ordering::Acquire) || self.budget.is_wanted()
    }

    /// Everything accepted before the call is resolved when this returns.
    pub(crate) async fn flush(&self) {
        let begun = self.env.now();
        let unrouted = self.unrouted.load(Ordering::Acquire) > 0;
        let target = self.next_batch.load(Ordering::Acquire);
        self.flush_while(|all| all.keys().next().is_some_and(|oldest| *oldest < target)).await;
        if unrouted {
            // Records that waited for their partition are in batches with later numbers once they have
            // it. For others with such numbers nobody waits: they may take as long again.
            let routed = |of: &Numbered| of.routed.is_some_and(|since| since <= begun);
            self.flush_while(|all| all.values().any(routed)).await;
        }
    }

    /// Waits for as long as there are such batches; nothing that is open now lingers.
    async fn flush_while(&self, some: impl Fn(&Numbers) -> bool) {
        let target = self.next_batch.load(Ordering::Acquire);
        loop {
            let resolved = self.resolved.notified();
            tokio::pin!(resolved);
            resolved.as_mut().enable();
            if !self.unresolved(|all| some(all)) {
                return;
            }
            // Open batches may keep taking records of others; they go at once now.
            if self.flush_below.fetch_max(target, Ordering::AcqRel) < target {
                let _ = self.events.send(Event::Pressure);
            }
            resolved.await;
        }
    }

    /// Batches that nobody has resolved yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.unresolved(|all| all.len())
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
    use super::super::shard::Shard;
    use super::super::slot::Slot;
    use super::super::unread::Unread;
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
        let sender = Unread::new(None);
        while_space_comes_and_goes(&home, || {
            let mut all = BatchDelivery::default();
            let shard = Shard::default();
            let (taken, _) = home.append_values(shard, "t", &[b"v"], &sender, None, &mut all);
            let batches = home.outstanding();
            assert_eq!(batches, taken, "{taken} records taken, {batches} batches waited for");
            topic.shards().for_each(&end);
        });
    }
}
