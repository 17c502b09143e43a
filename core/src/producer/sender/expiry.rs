//! Batches that end without a response: their delivery timeout has passed, the close of their producer may
//! wait no longer, or this client does not go on with another cluster.

use std::cell::LazyCell;
use std::sync::Arc;

use tokio::time::Instant;

use super::topics::Topics;
use crate::cluster::Pool;
use crate::environment::earlier;
use crate::error::Error;
use crate::producer::batch::{Batch, Books};

/// A topic and a partition of which batches have ended: it is to be settled.
pub(super) type Ended = (Arc<str>, i32);

impl Topics {
    /// Resolves the batches whose delivery timeout has passed. Gives where, and the earliest deadline of the others.
    pub(super) fn expire(
        &mut self,
        pool: Option<&Pool>,
        now: Instant,
    ) -> (Vec<Ended>, Option<Instant>) {
        let mut next = None;
        let mut ended = Vec::new();
        for topic in self.iter_mut() {
            let (timed_out, meta) = (topic.timed_out(), topic.meta.clone());
            // Put together only if a batch has expired: it looks at all brokers.
            let error = LazyCell::new(|| match pool {
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
                    ended.push((Arc::clone(&topic.name), index as i32));
                }
                next = earlier(next, partition.next_deadline());
            }
        }
        (ended, next)
    }

    /// Fails every batch of the accumulators that `of` picks, wherever it is. Gives the partitions in which it was.
    pub(super) fn fail_where(&mut self, of: impl Fn(u64) -> bool, error: &Error) -> Vec<Ended> {
        let mut ended = Vec::new();
        let batch_of = |batch: &Batch| of(batch.accumulator_id());
        self.change_all(|topic| {
            let mut gone = Vec::new();
            for queue in topic.queues_mut() {
                gone.extend(queue.take_back(batch_of));
                for (accumulator, batch_queue) in
                    queue.batch_queues().filter(|(accumulator, _)| of(accumulator.id()))
                {
                    gone.extend(std::iter::from_fn(|| batch_queue.take(accumulator)));
                }
                queue.forget_empty();
            }
            for batch in gone {
                batch.resolve(Err(error.with_maybe_written(false)));
            }
            for (index, partition) in topic.partitions.iter_mut().enumerate() {
                for id in partition.ids(batch_of) {
                    if let Some((batch, maybe)) = partition.give_up(id) {
                        batch.resolve(Err(error.with_maybe_written(maybe)));
                    }
                    ended.push((Arc::clone(&topic.name), index as i32));
                }
            }
        });
        ended
    }
}
