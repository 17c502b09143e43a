//! Batches that end without a response: their delivery timeout has passed, the close of their producer may
//! wait no longer, or this client does not go on with another cluster.

use std::cell::LazyCell;
use std::sync::Arc;

use tokio::time::Instant;

use super::accumulator::{Accumulator, Batch};
use super::sender::Sender;
use crate::environment::earlier;
use crate::error::Error;

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
            for line in topic.lines_mut() {
                gone.extend(line.take_back(|b| b.deadline <= now));
                for (home, slot) in line.slots() {
                    gone.extend(slot.take_expired(home, now));
                }
                line.forget_empty();
                let deadlines = line.slots().map(|(home, slot)| slot.first_deadline(home));
                next = deadlines.fold(earlier(next, line.back_deadline()), earlier);
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
    pub(super) fn fail_where(&mut self, of: impl Fn(&Arc<Accumulator>) -> bool, error: &Error) {
        let mut settled = Vec::new();
        let batch_of = |batch: &Batch| of(&batch.home);
        for topic in self.topics.values_mut() {
            let mut gone = Vec::new();
            for line in topic.lines_mut() {
                gone.extend(line.take_back(batch_of));
                for (home, slot) in line.slots().filter(|(home, _)| of(home)) {
                    gone.extend(std::iter::from_fn(|| slot.take(home)));
                }
                line.forget_empty();
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
