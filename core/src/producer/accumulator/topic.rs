//! A topic as the producers of one accumulator see it: where its batches are open, and what is known of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use tokio::time::Instant;

use super::batch_queue::{BatchQueue, UNPARTITIONED};
use super::shard::{SHARDS, Shard};
use crate::config::ProducerConfig;
use crate::error::Error;
use crate::producer::memory::MemoryQuota;
use crate::record::Compression;

/// The least size that batches are reduced to after a topic has refused larger ones.
const MIN_BATCH: usize = 1 << 10;

/// One topic of one accumulator.
pub(crate) struct TopicBatches {
    pub(in crate::producer) name: Arc<str>,
    pub(in crate::producer) compression: Compression,
    /// Bytes at which a batch is full: the setting, or less since the topic has refused a larger one.
    batch_size: AtomicUsize,
    /// How many partitions it has; 0 while that is not known. A record that names another is refused at once.
    pub(in crate::producer) partitions: AtomicI32,
    /// Whether `failure` holds something: readable without its lock, for each record.
    pub(in crate::producer) failed: AtomicBool,
    /// Why records are refused, and until when.
    failure: Mutex<Option<(Error, Instant)>>,
    /// The queue of each shard; made when a handle of that shard first sends to the topic. Most topics have
    /// one.
    shards: [OnceLock<Arc<BatchQueue>>; SHARDS],
    /// The bytes that its batches without a named partition hold.
    quota: Arc<MemoryQuota>,
    pub(in crate::producer) pinned: RwLock<BTreeMap<i32, Arc<BatchQueue>>>,
    /// See `unpartitioned.rs`.
    pub(in crate::producer) unpartitioned: Arc<BatchQueue>,
    /// The topic was forgotten, since nothing was sent to it for long; see `release.rs`.
    pub(super) retired: AtomicBool,
}

impl TopicBatches {
    pub(in crate::producer) fn new(name: &str, config: &ProducerConfig) -> Arc<Self> {
        let own = config.topic_compression.get(name);
        let quota = Arc::default();
        let unpartitioned = BatchQueue::new(Some(UNPARTITIONED), &quota);
        Arc::new(Self {
            name: Arc::from(name),
            compression: own.copied().unwrap_or(config.compression),
            batch_size: AtomicUsize::new(config.batch_size),
            partitions: AtomicI32::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            shards: [const { OnceLock::new() }; SHARDS],
            quota,
            pinned: RwLock::default(),
            unpartitioned,
            retired: AtomicBool::new(false),
        })
    }

    /// Nothing can be sent to this topic now: until then, records are refused at once with this error.
    pub(crate) fn fail(&self, error: Error, until: Instant) {
        *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = Some((error, until));
        self.failed.store(true, Ordering::Release);
    }

    /// Records are accepted again.
    pub(in crate::producer) fn recovered(&self) {
        *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = None;
        self.failed.store(false, Ordering::Release);
    }

    /// The topic refused a batch of `bytes` (before compression): from now on batches are full at half of that.
    pub(crate) fn refused_batch_of(&self, bytes: usize) {
        self.batch_size.fetch_min((bytes / 2).max(MIN_BATCH), Ordering::Relaxed);
    }

    #[inline]
    pub(in crate::producer) fn batch_size(&self) -> usize {
        self.batch_size.load(Ordering::Relaxed)
    }

    pub(in crate::producer) fn failure(&self) -> Option<Error> {
        if !self.failed.load(Ordering::Acquire) {
            return None;
        }
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        match &*failure {
            Some((error, until)) if Instant::now() < *until => Some(error.clone()),
            _ => {
                *failure = None;
                self.failed.store(false, Ordering::Release);
                None
            }
        }
    }

    /// The queue of records without a partition, of the handles of a shard; `None` if they have sent nothing yet.
    #[inline]
    pub(super) fn open_at(&self, shard: Shard) -> Option<&Arc<BatchQueue>> {
        self.shards[shard.index()].get()
    }

    /// The same, made if need be.
    #[inline]
    pub(in crate::producer) fn shard(&self, shard: Shard) -> &Arc<BatchQueue> {
        self.shards[shard.index()].get_or_init(|| BatchQueue::new(None, &self.quota))
    }

    /// The queues of all shards that were made.
    pub(in crate::producer) fn shards(&self) -> impl Iterator<Item = &Arc<BatchQueue>> {
        self.shards.iter().filter_map(OnceLock::get)
    }

    pub(in crate::producer) fn batch_queue(&self, partition: i32) -> Arc<BatchQueue> {
        if let Some(batch_queue) =
            self.pinned.read().unwrap_or_else(|e| e.into_inner()).get(&partition)
        {
            return Arc::clone(batch_queue);
        }
        let mut pinned = self.pinned.write().unwrap_or_else(|e| e.into_inner());
        Arc::clone(
            pinned
                .entry(partition)
                .or_insert_with(|| BatchQueue::new(Some(partition), &Arc::default())),
        )
    }

    /// There is no such partition: its queue is removed once it is empty.
    pub(in crate::producer) fn forget_batch_queue(&self, partition: i32) {
        let mut pinned = self.pinned.write().unwrap_or_else(|e| e.into_inner());
        if pinned.get(&partition).is_some_and(|batch_queue| !batch_queue.is_used()) {
            pinned.remove(&partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn topic() -> Arc<TopicBatches> {
        TopicBatches::new("t", &ProducerConfig::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_takes_nothing_is_asked_for_again_after_a_while() {
        let topic = topic();
        topic.fail(Error::closed("topic"), Instant::now() + Duration::from_secs(5));
        assert!(topic.failure().is_some());
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(topic.failure().is_some());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(topic.failure().is_none() && !topic.failed.load(Ordering::Relaxed));
    }

    /// A batch that was larger was sealed before, and its refusal says nothing new.
    #[test]
    fn batches_of_a_topic_that_refuses_them_only_get_smaller() {
        let topic = topic();
        topic.refused_batch_of(100_000);
        topic.refused_batch_of(250_000);
        assert_eq!(topic.batch_size(), 50_000);
        topic.refused_batch_of(1);
        assert_eq!(topic.batch_size(), MIN_BATCH);
    }

    #[test]
    fn nothing_is_kept_for_a_partition_that_there_is_not() {
        let topic = topic();
        drop(topic.batch_queue(9));
        topic.forget_batch_queue(9);
        assert!(topic.pinned.read().unwrap().is_empty());
    }
}
