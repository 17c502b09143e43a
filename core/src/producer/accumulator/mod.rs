//! Open batches. A record is copied here into the open batch of its topic (or, if it names a partition, of that
//! partition). The sender takes batches when they are full, or earlier if a broker has nothing in flight.
//!
//! Producers with equal settings share one accumulator, so that eight producers make one batch per
//! partition and not eight.

mod append;
mod batch_queue;
mod compressor;
mod event;
mod flush;
mod release;
mod shard;
mod space;
mod spin_lock;
mod submission;
#[cfg(test)]
mod tests;
mod thread_cache;
mod topic;
mod unpartitioned;
mod validate;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use tokio::sync::{Notify, mpsc};

use super::batch::{BatchLedger, Books, OpenBatch};
use super::memory::{Budget, MemoryQuota, Quotas};
use crate::config::{self, InDoubt, ProducerConfig};
use crate::environment::Environment;
use crate::error::Error;
use crate::fork;
use crate::metrics::Metrics;
use crate::record::builder::BatchBuilder;
use crate::record::pool::ChunkPool;

use batch_queue::BatchQueueInner;
use compressor::Compressor;
use shard::Shards;
use validate::Space;

pub(super) use batch_queue::{BatchQueue, LATE, Peek};
pub(super) use event::{Event, LastKnown, Told};
pub(super) use shard::Shard;
pub(crate) use thread_cache::forget;
pub(super) use topic::TopicBatches;
pub(super) use validate::size_of;

/// The open batches of all producers with equal settings.
pub(crate) struct Accumulator {
    /// Unique in this process, for good.
    id: u64,
    config: ProducerConfig,
    env: Environment,
    budget: Budget,
    /// How many open producers share it.
    users: AtomicUsize,
    /// Tells which of a topic's open batches a handle fills.
    shards: Shards,
    /// How many records are in batches that take no more records and are not resolved.
    on_way: AtomicUsize,
    buffers: ChunkPool,
    metrics: Arc<Metrics>,
    /// The topics that were sent to lately; see `release.rs`.
    topics: RwLock<HashMap<Arc<str>, Arc<TopicBatches>, foldhash::fast::RandomState>>,
    /// Topics that were forgotten at the moment at which a batch was opened in them; see `release.rs`.
    strays: Mutex<Vec<Weak<TopicBatches>>>,
    events: mpsc::UnboundedSender<Event>,
    next_batch: AtomicU64,
    /// The batches that are not resolved yet, by number: a flush waits for them.
    unresolved: Mutex<flush::Numbers>,
    resolved: Notify,
    /// Open batches with a smaller number than this do not linger: a flush waits for them.
    flush_below: AtomicU64,
    /// By broker id: the bytes of batches for partitions that records name and that this broker leads. An entry
    /// stays while a topic in use refers to it.
    brokers: Mutex<BTreeMap<i32, Arc<MemoryQuota>>>,
    /// Batches that worker threads compress.
    compressor: Compressor,
    /// How many batches hold keyed records that wait for their topic's number of partitions.
    unpartitioned: AtomicUsize,
    /// Batches that became full while such records were moved into them; see `unpartitioned.rs`.
    aside: Mutex<Vec<(Arc<BatchQueue>, OpenBatch)>>,
}

impl std::fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accumulator").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Books for Accumulator {
    fn id(&self) -> u64 {
        self.id
    }

    fn config(&self) -> &ProducerConfig {
        &self.config
    }

    fn env(&self) -> &Environment {
        &self.env
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn buffers(&self) -> &ChunkPool {
        &self.buffers
    }

    fn budget(&self) -> &Budget {
        &self.budget
    }

    fn batch_again(&self, number: u64) {
        self.add_to_number(number);
    }

    fn batch_resolved(&self, number: u64) {
        self.take_from_number(number);
    }

    fn records_closed(&self, records: usize) {
        self.on_way.fetch_add(records, Ordering::Relaxed);
    }

    fn records_resolved(&self, records: usize) {
        self.on_way.fetch_sub(records, Ordering::Relaxed);
    }

    fn waits_for_partition(&self, waits: bool) {
        if waits {
            self.unpartitioned.fetch_add(1, Ordering::AcqRel);
        } else {
            self.unpartitioned.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Accumulator {
    pub(crate) fn new(
        config: ProducerConfig,
        env: &Environment,
        buffers: &ChunkPool,
        metrics: &Arc<Metrics>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            budget: Budget::new(config.buffer_memory),
            users: AtomicUsize::new(0),
            shards: Shards::default(),
            on_way: AtomicUsize::new(0),
            config,
            env: env.clone(),
            buffers: buffers.clone(),
            metrics: Arc::clone(metrics),
            topics: RwLock::default(),
            strays: Mutex::default(),
            events,
            next_batch: AtomicU64::new(1),
            unresolved: Mutex::default(),
            resolved: Notify::new(),
            flush_below: AtomicU64::new(0),
            brokers: Mutex::default(),
            compressor: Compressor::default(),
            unpartitioned: AtomicUsize::new(0),
            aside: Mutex::default(),
        }
    }

    /// A producer with these settings was built.
    pub(super) fn joined(&self) {
        self.users.fetch_add(1, Ordering::AcqRel);
    }

    /// One of them takes no more records.
    pub(super) fn left(&self) {
        self.users.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether no open producer shares it.
    pub(super) fn is_left(&self) -> bool {
        self.users.load(Ordering::Acquire) == 0
    }

    /// Which of a topic's open batches the handles fill.
    pub(super) fn shards(&self) -> &Shards {
        &self.shards
    }

    /// Whether its batches leave a broker whose response is late.
    pub(super) fn reroutes(&self) -> bool {
        self.config.in_doubt == InDoubt::Reroute
    }

    /// The entry of a topic; made if there is none.
    pub(super) fn topic(&self, name: &str) -> Result<Arc<TopicBatches>, Error> {
        if !self.env.seems_alive_here() {
            return Err(fork::forked());
        }
        let topics = self.topics.read().unwrap_or_else(|e| e.into_inner());
        if let Some(topic) = topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        drop(topics);
        config::check_topic(name)?;
        let mut topics = self.topics.write().unwrap_or_else(|e| e.into_inner());
        let topic = TopicBatches::new(name, &self.config);
        Ok(Arc::clone(topics.entry(Arc::clone(&topic.name)).or_insert(topic)))
    }

    /// A topic that was missing exists now: its records are accepted again.
    pub(super) fn topic_created(&self, name: &str) {
        let topics = self.topics.read().unwrap_or_else(|e| e.into_inner());
        if let Some(topic) = topics.get(name) {
            topic.recovered();
        }
    }

    /// Tells the sender that a queue holds a batch, so that the sender puts the queue on its list. Called
    /// before the first record is copied, so that no record is ever in a queue that nobody looks at; then not
    /// again until the sender has found the queue empty.
    #[cold]
    fn announce(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        inner: &mut BatchQueueInner,
    ) -> Result<(), Error> {
        let ready = Event::Ready(Arc::clone(self), Arc::clone(topic), Arc::clone(batch_queue));
        if self.events.send(ready).is_err() {
            return Err(Error::closed("client"));
        }
        inner.announced = true;
        Ok(())
    }

    /// A record was refused by an open batch. If the reason is that the sender has ended, the batches in the
    /// queue are dropped here, which resolves them; otherwise nothing happens. Not under the queue's lock: a
    /// task that is woken by that may send.
    #[cold]
    fn after_refusal(&self, batch_queue: &BatchQueue, space: Space) {
        // A caller that moves records holds another queue's lock, and looks after it has given that back.
        if space != Space::Held && self.events.is_closed() {
            batch_queue.clear();
        }
    }

    /// Opens a batch that takes `size` bytes, unless another thread has just done so. The batch that was open
    /// is sealed by this thread, without the lock, or by a worker ([`seal_full`](Self::seal_full)). A function
    /// of its own since it is called once per batch.
    #[cold]
    #[inline(never)]
    pub(super) fn roll_batch(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        size: usize,
        space: Space,
    ) -> Result<(), Error> {
        // Asked once per batch, since it costs a system call (the short way does not ask). In a forked child,
        // records before this one went into a batch of the parent: their handles report that.
        self.env.check_process()?;
        if self.events.is_closed() {
            return Err(Error::closed("client"));
        }
        let mut inner = batch_queue.lock();
        if inner.takes(size, topic.batch_size()) {
            return Ok(());
        }
        if topic.was_let_go() {
            drop(inner);
            self.came_back(topic);
            inner = batch_queue.lock();
            if inner.takes(size, topic.batch_size()) {
                return Ok(());
            }
        }
        let quotas = self.quotas_of(batch_queue, &inner);
        if space != Space::Held && !self.budget.quotas_fit(&quotas, size) {
            return Err(self.quota_used_up(topic));
        }
        let full = inner.roll(self.open_batch(topic, quotas));
        drop(inner);
        match full {
            None => Ok(()),
            Some(full) if space == Space::Held => {
                // The caller holds the lock of the queue that the records come from, and seals it after that.
                self.set_aside(batch_queue, full);
                Ok(())
            }
            Some(full) => self.seal_full(topic, batch_queue, full, space),
        }
    }

    /// Seals a full batch, or has a worker do it. Then the sender is told of it, and if more than 4 MiB wait, this
    /// thread yields its processor to the engine.
    fn seal_full(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        full: OpenBatch,
        space: Space,
    ) -> Result<(), Error> {
        if full.takes_long() {
            self.seal_later(batch_queue, full);
        } else if batch_queue.seal(full) {
            // Announced even if the queue is on the sender's list: the sender may have planned its next look for
            // later, when the open batch would be due.
            let mut inner = batch_queue.lock();
            let announced = self.announce(topic, batch_queue, &mut inner);
            drop(inner);
            if announced.is_err() {
                self.after_refusal(batch_queue, space);
            }
            announced?;
            if self.budget.is_far_ahead() {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// A batch was sealed outside of a call and can be sent: tells the sender.
    fn announce_sealed(self: &Arc<Self>, topic: &str, batch_queue: &Arc<BatchQueue>) {
        // If that fails, the sender has ended and the queue was cleared.
        if let Ok(topic) = self.topic(topic) {
            let mut inner = batch_queue.lock();
            let announced = self.announce(&topic, batch_queue, &mut inner);
            drop(inner);
            if announced.is_err() {
                self.after_refusal(batch_queue, Space::Any);
            }
        }
    }

    /// An open batch. Both clocks are read once for it; its records share the time.
    fn open_batch(self: &Arc<Self>, topic: &TopicBatches, quotas: Quotas) -> OpenBatch {
        let number = self.next_batch.fetch_add(1, Ordering::AcqRel);
        self.batch_opened(number);
        let opened_ms = self.env.wall_ms();
        OpenBatch {
            builder: BatchBuilder::new(self.buffers.clone()),
            opened: self.env.now(),
            opened_ms,
            compression: topic.compression,
            ledger: BatchLedger::new(
                Arc::clone(self) as _,
                &topic.name,
                (opened_ms, opened_ms),
                number,
                quotas,
            ),
        }
    }

    /// Tells a new sender of every queue: the old one may have had them on its list.
    pub(super) fn announce_all(self: &Arc<Self>) {
        for topic in self.all_topics() {
            for batch_queue in topic.batch_queues() {
                let _ = self.announce(&topic, &batch_queue, &mut batch_queue.lock());
            }
        }
    }

    /// The sender has ended for good: drops every batch that it has not taken, which resolves them.
    pub(crate) fn drop_open(&self) {
        self.batch_queues().iter().for_each(|batch_queue| batch_queue.clear());
    }

    /// Fails every batch that the sender has not taken.
    pub(super) fn fail_open(&self, error: &Error) {
        self.batch_queues().iter().for_each(|batch_queue| batch_queue.fail(error));
    }

    /// How many records are not resolved: those in open batches, and those on their way.
    pub(crate) fn unresolved_records(&self) -> usize {
        let open =
            self.batch_queues().iter().map(|batch_queue| batch_queue.open_records()).sum::<usize>();
        open + self.on_way.load(Ordering::Relaxed)
    }

    /// All queues, collected first: tasks that are woken while batches in them resolve may send, so no lock may be held
    /// then.
    fn batch_queues(&self) -> Vec<Arc<BatchQueue>> {
        self.all_topics().iter().flat_map(|topic| topic.batch_queues()).collect()
    }
}
