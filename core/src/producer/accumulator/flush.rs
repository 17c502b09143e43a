//! Flush: waits until every record that was accepted before the call is resolved. Batches are numbered as
//! they are opened; a flush waits for all numbers below the next one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Accumulator;
use super::event::Event;
use crate::caught;
use crate::error::Error;

/// The batches that are not resolved yet, by number.
pub(in crate::producer) type Numbers = BTreeMap<u64, Numbered>;

/// The batches that have one number: usually one; the pieces of a batch that was taken apart share its number.
#[derive(Debug)]
pub(super) struct Numbered {
    batches: u32,
    /// When the oldest record that was moved into them was first accepted. Such a record comes from the queue
    /// of unpartitioned records, so this is earlier than the opening of the batch. `None`: no record was moved.
    moved_since: Option<Instant>,
}

impl Accumulator {
    fn unresolved<T>(&self, act: impl FnOnce(&mut Numbers) -> T) -> T {
        act(&mut self.unresolved.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// A batch is opened.
    pub(super) fn batch_opened(&self, number: u64) {
        self.unresolved(|all| all.insert(number, Numbered { batches: 1, moved_since: None }));
    }

    /// One more batch has this number: a piece of a batch that is being taken apart.
    pub(super) fn add_to_number(&self, number: u64) {
        self.unresolved(|all| {
            all.entry(number).or_insert(Numbered { batches: 0, moved_since: None }).batches += 1;
        });
    }

    /// A record that had waited for its partition was moved into this batch; it was accepted at `since`.
    pub(super) fn batch_partitioned(&self, number: u64, since: Instant) {
        self.unresolved(|all| {
            if let Some(of) = all.get_mut(&number) {
                of.moved_since = Some(of.moved_since.map_or(since, |at| at.min(since)));
            }
        });
    }

    /// A batch with this number is resolved.
    pub(super) fn take_from_number(&self, number: u64) {
        self.unresolved(|all| {
            if let Entry::Occupied(mut of) = all.entry(number) {
                of.get_mut().batches -= 1;
                if of.get().batches == 0 {
                    of.remove();
                }
            }
        });
        // The waker of a task that flushes is the application's: one that panics must not stop the sender.
        let _ = caught::call(|| self.resolved.notify_waiters());
    }

    /// Whether the open batch with this number must not wait for its linger: a flush waits for it, or somebody
    /// waits for memory.
    pub(super) fn may_not_linger(&self, number: u64) -> bool {
        number < self.flush_below.load(Ordering::Acquire) || self.budget.is_wanted()
    }

    /// Returns when everything that was accepted before the call is resolved.
    pub(crate) async fn flush(&self) {
        let begun = self.env.now();
        let unpartitioned = self.unpartitioned.load(Ordering::Acquire) > 0;
        let target = self.next_batch.load(Ordering::Acquire);
        self.flush_while(|all| all.keys().next().is_some_and(|oldest| *oldest < target)).await;
        if unpartitioned {
            // Records that waited for their partition have moved into batches with later numbers by now.
            // Only those batches are waited for: the others were opened after this flush began.
            let moved_since = |of: &Numbered| of.moved_since.is_some_and(|since| since <= begun);
            self.flush_while(|all| all.values().any(moved_since)).await;
        }
    }

    /// Waits until no unresolved batch matches `some`. Batches that are open now do not linger.
    async fn flush_while(&self, some: impl Fn(&Numbers) -> bool) {
        let target = self.next_batch.load(Ordering::Acquire);
        loop {
            let resolved = self.resolved.notified();
            tokio::pin!(resolved);
            resolved.as_mut().enable();
            if !self.unresolved(|all| some(all)) {
                return;
            }
            // Other callers may go on filling these batches; without this they would linger.
            if self.flush_below.fetch_max(target, Ordering::AcqRel) < target {
                let _ = self.events.send(Event::Pressure);
            }
            resolved.await;
        }
    }

    /// How many batch numbers are not resolved yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.unresolved(|all| all.len())
    }

    /// Has the sender resolve everything that is left with `error`: the deadline of a close has passed.
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

    use super::*;
    use crate::config::ProducerConfig;
    use crate::environment::Environment;
    use crate::producer::accumulator::batch_queue::BatchQueue;
    use crate::producer::accumulator::shard::Shard;
    use crate::producer::delivery::{BatchDelivery, Unread};
    use crate::producer::memory::Quotas;
    use crate::record::pool::ChunkPool;

    /// Runs `act` again and again while another thread waits for space, and does not, and does.
    fn while_space_comes_and_goes(accumulator: &Accumulator, act: impl Fn()) {
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
                let quotas = Quotas { own: Arc::default(), broker: None };
                while !seen.load(Ordering::Relaxed) {
                    let mut permit = pin!(accumulator.budget.acquire(&quotas, 1));
                    let mut cx = Context::from_waker(Waker::noop());
                    assert!(permit.as_mut().poll(&mut cx).is_ready());
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
        let accumulator =
            Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        let accumulator = Arc::new(accumulator);
        let topic = accumulator.topic("t").unwrap();
        let end = |batch_queue: &Arc<BatchQueue>| {
            if let Some(batch) = batch_queue.take(&accumulator) {
                batch.resolve(Err(Error::closed("producer")));
            }
        };
        let producer = Unread::new(None);
        while_space_comes_and_goes(&accumulator, || {
            let mut all = BatchDelivery::default();
            let shard = Shard::default();
            let (taken, _) =
                accumulator.append_values(shard, "t", &[b"v"], &producer, None, &mut all);
            let batches = accumulator.outstanding();
            assert_eq!(batches, taken, "{taken} records taken, {batches} batches waited for");
            topic.shards().for_each(&end);
        });
    }
}
