//! Topics that are not sent to any more are let go, or a service that names a new one with every job would
//! keep them all. Theirs are: the batches where producers fill them ([`TopicBatches`]), and the
//! sender's view of them, with the sequences of their partitions.
//!
//! A sequence may be forgotten: the broker keeps it for a day (`producer.id.expiration.ms`), and takes
//! a new epoch at 0 at any time. So a partition that begins anew begins under an epoch later than
//! all that were forgotten; under the same one, its first batch would be a gap, or the duplicate of
//! another.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use tokio::time::Instant;

use super::accumulator::Accumulator;
use super::sender::Sender;
use super::slot::Slot;
use super::topic_batches::TopicBatches;
use super::topics::Topic;
use crate::environment::earlier;

/// A topic that nothing was sent to for so long is let go.
pub(super) const UNUSED_AFTER: Duration = Duration::from_secs(5 * 60);

/// With so many topics those that are unused are looked for when one is added, and not only when the
/// first of them is: a service may name a new one with every record.
pub(super) const MANY_TOPICS: usize = 1 << 10;

impl Sender {
    /// Lets go of what was not used for long. Looks at every topic: once in a while.
    pub(super) fn release_unused(&mut self, now: Instant) {
        let many = self.topics.len() >= self.release_at_len;
        if !many && self.release_at.is_none_or(|at| at > now) {
            return;
        }
        let mut next = None;
        let Self { topics, gate, .. } = self;
        topics.retain(|_, topic| {
            let at = topic.used + UNUSED_AFTER;
            if at <= now && topic.let_go() {
                topic
                    .partitions
                    .iter()
                    .filter_map(|p| p.begun())
                    .for_each(|name| gate.forgotten(name));
                return false;
            }
            if at <= now {
                // In use all the time, so that nobody announced anything.
                topic.used = now;
            }
            next = earlier(next, Some(topic.used + UNUSED_AFTER));
            true
        });
        self.release_at_len = (2 * self.topics.len()).max(MANY_TOPICS);
        // Those of a minute together.
        self.release_at = next.map(|at| at.max(now + UNUSED_AFTER / 5));
    }
}

impl Topic {
    /// Whether nothing of it is under way, in which case no producer has a batch open for it any more.
    fn let_go(&mut self) -> bool {
        if self.has_work() || !self.partitions.iter().all(|p| p.is_settled()) {
            return false;
        }
        self.homes.retain(|(home, batches)| match home.upgrade() {
            Some(home) => !home.let_go(batches),
            None => false,
        });
        self.homes.is_empty()
    }
}

impl Accumulator {
    /// Lets go of a topic unless something is in it. Whoever has it at hand still may use it: see
    /// [`Accumulator::came_back`].
    fn let_go(&self, topic: &Arc<TopicBatches>) -> bool {
        let mut topics = self.topics.write().unwrap_or_else(|e| e.into_inner());
        topic.retired.store(true, Ordering::SeqCst);
        // Either whoever opens a batch sees that, or the batch is seen here.
        fence(Ordering::SeqCst);
        if topic.slots().iter().any(|slot| slot.is_used()) {
            topic.retired.store(false, Ordering::SeqCst);
            return false;
        }
        if topics.get(&topic.name).is_some_and(|current| Arc::ptr_eq(current, topic)) {
            topics.remove(&topic.name);
        }
        let mut brokers = self.brokers.lock().unwrap_or_else(|e| e.into_inner());
        // Brokers whose partitions nobody has named since: no slot has their share.
        brokers.retain(|_, share| Arc::strong_count(share) > 1);
        true
    }

    /// A batch is opened in a topic that was let go in this very moment. If somebody else has begun with
    /// it anew, that was beside this call, and nobody knows of an order between the two.
    #[cold]
    pub(super) fn came_back(&self, topic: &Arc<TopicBatches>) {
        let mut topics = self.topics.write().unwrap_or_else(|e| e.into_inner());
        if !topics.contains_key(&topic.name) {
            topics.insert(Arc::clone(&topic.name), Arc::clone(topic));
            topic.retired.store(false, Ordering::SeqCst);
        }
    }
}

impl TopicBatches {
    /// Whether producers that look for the topic find another one, or make it.
    #[inline]
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// The same for who holds the lock of a slot in it.
    pub(super) fn was_let_go(&self) -> bool {
        fence(Ordering::SeqCst);
        self.retired.load(Ordering::SeqCst)
    }

    /// All there are.
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        let pinned = self.pinned.read().unwrap_or_else(|e| e.into_inner());
        self.shards().chain(pinned.values()).chain([&self.unrouted]).cloned().collect()
    }
}
