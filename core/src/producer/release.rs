//! Forgets topics that are not sent to any more: a service that names a new topic with every job would keep
//! them all. Forgotten are the places where producers fill its batches ([`TopicBatches`]) and the sender's
//! view of it, with the sequences of its partitions.
//!
//! The broker keeps a sequence for a day (`producer.id.expiration.ms`), but takes sequence 0 of a later epoch
//! at any time. So a partition that begins anew begins under an epoch later than all that were forgotten;
//! under the same epoch its first batch would be a gap, or the duplicate of another.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::accumulator::Accumulator;
use super::sender::Sender;
use super::slot::Slot;
use super::topic_batches::TopicBatches;
use super::topics::Topic;
use crate::environment::earlier;

/// A topic that nothing was sent to for so long is forgotten.
pub(super) const UNUSED_AFTER: Duration = Duration::from_secs(5 * 60);

/// With so many topics, unused ones are looked for whenever a topic is added, and not only when the first of
/// them is due: a service may name a new topic with every record.
pub(super) const MANY_TOPICS: usize = 1 << 10;

impl Sender {
    /// Forgets topics that were not used for long. Looks at every topic, so it does this once in a while.
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
                // In use all the time: its slots never became empty, so they did not announce themselves.
                topic.used = now;
            }
            next = earlier(next, Some(topic.used + UNUSED_AFTER));
            true
        });
        self.release_at_len = (2 * self.topics.len()).max(MANY_TOPICS);
        // Topics that fall due within a minute are forgotten together.
        self.release_at = next.map(|at| at.max(now + UNUSED_AFTER / 5));
    }
}

impl Topic {
    /// Forgets it in its accumulators, unless a batch of it is open or under way. `true` if it is in none of them
    /// any more.
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
    /// Forgets a topic unless a batch of it is open. A thread that has looked it up before may still use it: see
    /// [`Accumulator::came_back`].
    fn let_go(&self, topic: &Arc<TopicBatches>) -> bool {
        let mut topics = self.topics.write().unwrap_or_else(|e| e.into_inner());
        topic.retired.store(true, Ordering::SeqCst);
        // A thread that opens a batch now either sees `retired`, or its batch is seen here.
        fence(Ordering::SeqCst);
        if topic.slots().iter().any(|slot| slot.is_used()) {
            topic.retired.store(false, Ordering::SeqCst);
            return false;
        }
        if topics.get(&topic.name).is_some_and(|current| Arc::ptr_eq(current, topic)) {
            topics.remove(&topic.name);
        }
        let mut brokers = self.brokers.lock().unwrap_or_else(|e| e.into_inner());
        // Entries of brokers that no slot refers to any more.
        brokers.retain(|_, share| Arc::strong_count(share) > 1);
        true
    }

    /// A batch is opened in a topic that was forgotten at this very moment: the topic is put back. If another
    /// thread has made a new entry meanwhile, the two calls ran at the same time, so there is no order
    /// between their records that could be broken; the old entry is kept among the strays.
    #[cold]
    pub(super) fn came_back(&self, topic: &Arc<TopicBatches>) {
        let mut topics = self.topics.write().unwrap_or_else(|e| e.into_inner());
        if !topics.contains_key(&topic.name) {
            topics.insert(Arc::clone(&topic.name), Arc::clone(topic));
            topic.retired.store(false, Ordering::SeqCst);
            return;
        }
        // So that a close, or a count of open records, finds it as long as it exists.
        let mut strays = self.strays.lock().unwrap_or_else(|e| e.into_inner());
        let this = Arc::downgrade(topic);
        strays.retain(|stray| stray.strong_count() > 0 && !stray.ptr_eq(&this));
        strays.push(this);
    }

    /// All topics that may have an open batch, strays included.
    pub(super) fn all_topics(&self) -> Vec<Arc<TopicBatches>> {
        let topics = self.topics.read().unwrap_or_else(|e| e.into_inner());
        let strays = self.strays.lock().unwrap_or_else(|e| e.into_inner());
        topics.values().cloned().chain(strays.iter().filter_map(Weak::upgrade)).collect()
    }
}

impl TopicBatches {
    /// Whether it was forgotten: producers that look for the topic find another entry, or make one.
    #[inline]
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// The same, for a thread that holds the lock of one of its slots.
    pub(super) fn was_let_go(&self) -> bool {
        fence(Ordering::SeqCst);
        self.retired.load(Ordering::SeqCst)
    }

    /// All its slots.
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        let pinned = self.pinned.read().unwrap_or_else(|e| e.into_inner());
        self.shards().chain(pinned.values()).chain([&self.unrouted]).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::super::admission::{Space, size_of};
    use super::super::record::Record;
    use super::*;
    use crate::config::ProducerConfig;
    use crate::environment::Environment;
    use crate::error::Error;
    use crate::record::pool::ChunkPool;

    /// Somebody had the topic at hand as it was let go, and somebody else began with it anew.
    #[test]
    fn what_came_into_a_topic_that_was_let_go_is_counted_and_ended_like_all() {
        let (tx, _events) = mpsc::unbounded_channel();
        let env = Environment::builder().seed(1).build();
        let config = ProducerConfig::default();
        let home = Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        let home = Arc::new(home);
        let put = |topic: &Arc<TopicBatches>| {
            let record = Record::to("t").value("v").partition(0);
            let (slot, size) = (topic.slot(0), size_of(&record));
            home.append_in(topic, &slot, &record, size, Space::Any, None, |_, _| ()).unwrap();
        };
        let at_hand = home.topic("t").unwrap();
        assert!(home.let_go(&at_hand));
        let anew = home.topic("t").unwrap();
        assert!(!Arc::ptr_eq(&at_hand, &anew));
        put(&at_hand);
        put(&anew);
        assert_eq!(home.unresolved_records(), 2);
        home.fail_open(&Error::closed("producer"));
        assert_eq!(home.unresolved_records(), 0);
    }

    fn home() -> (Arc<Accumulator>, mpsc::UnboundedReceiver<super::super::sender::Event>) {
        let (tx, events) = mpsc::unbounded_channel();
        let env = Environment::builder().seed(1).build();
        let config = ProducerConfig::default();
        let home = Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        (Arc::new(home), events)
    }

    /// Nobody would send it any more.
    #[test]
    fn a_topic_with_something_open_is_not_let_go() {
        let (home, _events) = home();
        let topic = home.topic("t").unwrap();
        let record = Record::to("t").value("v").partition(0);
        let (slot, size) = (topic.slot(0), size_of(&record));
        home.append_in(&topic, &slot, &record, size, Space::Any, None, |_, _| ()).unwrap();
        assert!(!home.let_go(&topic) && !topic.is_retired());
        assert!(Arc::ptr_eq(&topic, &home.topic("t").unwrap()));
        // Taken, and looked at once more: the sender has it all.
        drop(slot.take(&home));
        slot.peek(&home);
        assert!(home.let_go(&topic) && topic.is_retired());
    }

    /// Brokers come and go, with a new id each time where nobody thinks of it.
    #[test]
    fn what_a_broker_holds_is_forgotten_once_nothing_holds_it() {
        let (home, _events) = home();
        let topic = home.topic("t").unwrap();
        let (kept, gone) = (home.share_of(1), home.share_of(2));
        topic.slot(0).led_by(&kept);
        drop((kept, gone));
        let other = home.topic("u").unwrap();
        assert!(home.let_go(&other));
        let left: Vec<_> = home.brokers.lock().unwrap().keys().copied().collect();
        assert_eq!(left, [1]);
    }
}
