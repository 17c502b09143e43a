//! Forgets topics that are not sent to any more: a service that names a new topic with every job would keep
//! them all. What is forgotten: the topic's batch queues ([`TopicBatches`]), and the sender's view of it with
//! the sequences of its partitions.
//!
//! The broker keeps a sequence for a day (`producer.id.expiration.ms`), but takes sequence 0 of a later epoch
//! at any time. So a partition that begins anew begins under an epoch later than all that were forgotten;
//! under the same epoch its first batch would be a gap, or the duplicate of another.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

use super::Accumulator;
use super::batch_queue::BatchQueue;
use super::topic::TopicBatches;

impl Accumulator {
    /// Forgets a topic unless a batch of it is open. A thread that has looked it up before may still use it: see
    /// [`Accumulator::came_back`].
    pub(in crate::producer) fn let_go(&self, topic: &Arc<TopicBatches>) -> bool {
        let mut topics = self.topics.write().unwrap_or_else(|e| e.into_inner());
        topic.retired.store(true, Ordering::SeqCst);
        // A thread that opens a batch now either sees `retired`, or its batch is seen here.
        fence(Ordering::SeqCst);
        if topic.batch_queues().iter().any(|batch_queue| batch_queue.is_used()) {
            topic.retired.store(false, Ordering::SeqCst);
            return false;
        }
        if topics.get(&topic.name).is_some_and(|current| Arc::ptr_eq(current, topic)) {
            topics.remove(&topic.name);
        }
        let mut brokers = self.brokers.lock().unwrap_or_else(|e| e.into_inner());
        // Entries of brokers that no queue refers to any more.
        brokers.retain(|_, quota| Arc::strong_count(quota) > 1);
        true
    }

    /// A batch is opened in a topic that was forgotten at this very moment: the topic is put back. If another
    /// thread has made a new entry meanwhile, the two calls ran at the same time, so there is no order
    /// between their records that could be broken; the old entry is kept among the strays.
    #[cold]
    pub(in crate::producer) fn came_back(&self, topic: &Arc<TopicBatches>) {
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

    /// The same, for a thread that holds the lock of one of its queues.
    pub(super) fn was_let_go(&self) -> bool {
        fence(Ordering::SeqCst);
        self.retired.load(Ordering::SeqCst)
    }

    /// All its queues.
    pub(in crate::producer) fn batch_queues(&self) -> Vec<Arc<BatchQueue>> {
        let pinned = self.pinned.read().unwrap_or_else(|e| e.into_inner());
        self.shards().chain(pinned.values()).chain([&self.unpartitioned]).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::ProducerConfig;
    use crate::environment::Environment;
    use crate::error::Error;
    use crate::producer::accumulator::validate::{Space, size_of};
    use crate::producer::record::Record;
    use crate::record::pool::ChunkPool;

    /// Somebody had the topic at hand as it was let go, and somebody else began with it anew.
    #[test]
    fn what_came_into_a_topic_that_was_let_go_is_counted_and_ended_like_all() {
        let (tx, _events) = mpsc::unbounded_channel();
        let env = Environment::builder().seed(1).build();
        let config = ProducerConfig::default();
        let accumulator =
            Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        let accumulator = Arc::new(accumulator);
        let put = |topic: &Arc<TopicBatches>| {
            let record = Record::to("t").value("v").partition(0);
            let (batch_queue, size) = (topic.batch_queue(0), size_of(&record));
            accumulator
                .append_in(topic, &batch_queue, &record, size, Space::Any, None, |_, _| ())
                .unwrap();
        };
        let at_hand = accumulator.topic("t").unwrap();
        assert!(accumulator.let_go(&at_hand));
        let anew = accumulator.topic("t").unwrap();
        assert!(!Arc::ptr_eq(&at_hand, &anew));
        put(&at_hand);
        put(&anew);
        assert_eq!(accumulator.unresolved_records(), 2);
        accumulator.fail_open(&Error::closed("producer"));
        assert_eq!(accumulator.unresolved_records(), 0);
    }

    fn accumulator()
    -> (Arc<Accumulator>, mpsc::UnboundedReceiver<crate::producer::accumulator::event::Event>) {
        let (tx, events) = mpsc::unbounded_channel();
        let env = Environment::builder().seed(1).build();
        let config = ProducerConfig::default();
        let accumulator =
            Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        (Arc::new(accumulator), events)
    }

    /// Nobody would send it any more.
    #[test]
    fn a_topic_with_something_open_is_not_let_go() {
        let (accumulator, _events) = accumulator();
        let topic = accumulator.topic("t").unwrap();
        let record = Record::to("t").value("v").partition(0);
        let (batch_queue, size) = (topic.batch_queue(0), size_of(&record));
        accumulator
            .append_in(&topic, &batch_queue, &record, size, Space::Any, None, |_, _| ())
            .unwrap();
        assert!(!accumulator.let_go(&topic) && !topic.is_retired());
        assert!(Arc::ptr_eq(&topic, &accumulator.topic("t").unwrap()));
        // Taken, and looked at once more: the sender has it all.
        drop(batch_queue.take(&accumulator));
        batch_queue.peek(&accumulator);
        assert!(accumulator.let_go(&topic) && topic.is_retired());
    }

    /// Brokers come and go, with a new id each time where nobody thinks of it.
    #[test]
    fn what_a_broker_holds_is_forgotten_once_nothing_holds_it() {
        let (accumulator, _events) = accumulator();
        let topic = accumulator.topic("t").unwrap();
        let (kept, gone) = (accumulator.quota_of(1), accumulator.quota_of(2));
        topic.batch_queue(0).led_by(&kept);
        drop((kept, gone));
        let other = accumulator.topic("u").unwrap();
        assert!(accumulator.let_go(&other));
        let left: Vec<_> = accumulator.brokers.lock().unwrap().keys().copied().collect();
        assert_eq!(left, [1]);
    }
}
