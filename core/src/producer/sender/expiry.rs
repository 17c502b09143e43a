//! Batches that end without a response: their delivery timeout has passed, the close of their producer may
//! wait no longer, or this client does not go on with another cluster.

use std::cell::LazyCell;
use std::sync::Arc;

use tokio::time::Instant;

use super::Sender;
use crate::environment::earlier;
use crate::error::Error;
use crate::producer::batch::Batch;

impl Sender {
    /// Resolves the batches whose delivery timeout has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|at| at > now) {
            return;
        }
        let mut next = None;
        let mut settled = Vec::new();
        let pool = self.pool.upgrade();
        for topic in self.topics.values_mut() {
            let (timed_out, meta) = (topic.timed_out(), topic.meta.clone());
            // Put together only if a batch has expired: it looks at all brokers.
            let error = LazyCell::new(|| match &pool {
                Some(pool) => pool.explain(timed_out, meta.iter().flat_map(|m| m.leaders())),
                None => timed_out,
            });
            let mut gone = Vec::new();
            for queue in topic.queues_mut() {
                gone.extend(queue.take_back(|b| b.deadline <= now));
                for (accumulator, batch_queue) in queue.batch_queues() {
                    gone.extend(batch_queue.take_expired(accumulator, now));
                }
                queue.forget_empty();
                let deadlines = queue
                    .batch_queues()
                    .map(|(accumulator, batch_queue)| batch_queue.first_deadline(accumulator));
                next = deadlines.fold(earlier(next, queue.back_deadline()), earlier);
            }
            for batch in gone {
                batch.resolve(Err(error.clone()));
            }
            for (index, partition) in topic.partitions.iter_mut().enumerate() {
                for id in partition.expired(now) {
                    if let Some((batch, maybe)) = partition.give_up(id) {
                        batch.resolve(Err(error.with_maybe_written(maybe)));
                    }
                    settled.push((Arc::clone(&topic.name), index as i32));
                }
                next = earlier(next, partition.next_deadline());
            }
        }
        self.next_expiry = next;
        for (topic, partition) in settled {
            self.settle(&topic, partition);
        }
    }

    /// Fails every batch of the accumulators that `of` picks, wherever it is.
    pub(super) fn fail_where(&mut self, of: impl Fn(u64) -> bool, error: &Error) {
        let mut settled = Vec::new();
        let batch_of = |batch: &Batch| of(batch.accumulator_id());
        for topic in self.topics.values_mut() {
            let mut gone = Vec::new();
            for queue in topic.queues_mut() {
                gone.extend(queue.take_back(batch_of));
                for (accumulator, batch_queue) in
                    queue.batch_queues().filter(|(accumulator, _)| of(accumulator.id))
                {
                    gone.extend(std::iter::from_fn(|| batch_queue.take(accumulator)));
                }
                queue.forget_empty();
            }
            topic.activate(&mut self.active);
            for batch in gone {
                batch.resolve(Err(error.with_maybe_written(false)));
            }
            for (index, partition) in topic.partitions.iter_mut().enumerate() {
                for id in partition.ids(batch_of) {
                    if let Some((batch, maybe)) = partition.give_up(id) {
                        batch.resolve(Err(error.with_maybe_written(maybe)));
                    }
                    settled.push((Arc::clone(&topic.name), index as i32));
                }
            }
        }
        for (topic, partition) in settled {
            self.settle(&topic, partition);
        }
    }
}
