//! Open batches. A record is copied once, here, into the open batch of its topic (or, if it names
//! a partition, of that partition); the sender takes batches when they are full, or when a broker
//! has nothing else to do.
//!
//! Producers with equal settings share one accumulator, so that eight producers make one batch per
//! partition and not eight.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::budget::Budget;
use super::delivery::{BatchDelivery, BatchState, RunSink};
use super::record::Record;
use super::sender::Event;
pub(crate) use super::slot::{Batch, Peek, Slot};
use super::slot::{OpenBatch, SlotInner, UNROUTED, Unresolved};
use crate::config::{self, Partitioner, ProducerConfig};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::metrics::Metrics;
use crate::policy::key_hash;
use crate::record::Compression;
use crate::record::builder::BatchBuilder;
use crate::record::pool::ChunkPool;

/// Open batches per topic: enough that a few threads rarely meet, few enough that records still
/// share batches.
const SHARDS: usize = 4;

/// See the module.
pub(crate) struct Accumulator {
    /// No other of this process has it, now or later.
    id: u64,
    pub(crate) config: ProducerConfig,
    pub(crate) env: Environment,
    pub(crate) budget: Budget,
    /// Open producers that share it.
    pub(crate) users: AtomicUsize,
    pool: ChunkPool,
    pub(super) metrics: Arc<Metrics>,
    topics: RwLock<HashMap<Arc<str>, Arc<TopicBatches>, foldhash::fast::RandomState>>,
    events: mpsc::UnboundedSender<Event>,
    next_batch: AtomicU64,
    /// Batches not resolved yet, by number: what flush waits for.
    unresolved: Mutex<BTreeSet<u64>>,
    resolved: Notify,
    /// Open batches with a smaller number do not linger.
    flush_below: AtomicU64,
    /// Topics with keyed records that wait for the number of partitions.
    pub(super) unrouted: AtomicUsize,
}

impl std::fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accumulator").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A topic as producers see it.
pub(crate) struct TopicBatches {
    pub(crate) name: Arc<str>,
    compression: Compression,
    /// 0 while unknown. Lets a partition that does not exist be refused at once.
    pub(crate) partitions: AtomicI32,
    /// Why nothing can be sent to it, for a while.
    failed: AtomicBool,
    failure: Mutex<Option<(Error, Instant)>>,
    shards: [Arc<Slot>; SHARDS],
    pinned: RwLock<HashMap<i32, Arc<Slot>>>,
    /// See `unrouted.rs`.
    pub(super) unrouted: Arc<Slot>,
}

impl TopicBatches {
    fn new(name: &str, config: &ProducerConfig) -> Arc<Self> {
        let own = config.topic_compression.get(name);
        Arc::new(Self {
            name: Arc::from(name),
            compression: own.copied().unwrap_or(config.compression),
            partitions: AtomicI32::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            shards: std::array::from_fn(|_| Slot::new(None)),
            pinned: RwLock::default(),
            unrouted: Slot::new(Some(UNROUTED)),
        })
    }

    /// Nothing can be sent to this topic for now: records are refused at once until it is asked for
    /// again.
    pub(crate) fn fail(&self, error: Error, until: Instant) {
        *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = Some((error, until));
        self.failed.store(true, Ordering::Release);
    }

    fn failure(&self) -> Option<Error> {
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

    pub(super) fn slot(&self, partition: i32) -> Arc<Slot> {
        if let Some(slot) = self.pinned.read().unwrap_or_else(|e| e.into_inner()).get(&partition) {
            return Arc::clone(slot);
        }
        let mut pinned = self.pinned.write().unwrap_or_else(|e| e.into_inner());
        Arc::clone(pinned.entry(partition).or_insert_with(|| Slot::new(Some(partition))))
    }
}

/// Where an accepted record is.
pub(crate) struct Accepted {
    pub(crate) state: Arc<BatchState>,
    pub(crate) index: u32,
    pub(crate) timestamp_ms: i64,
}

/// Who wants the completion, for submissions of bindings.
#[derive(Clone, Copy)]
pub(crate) struct RunTag<'a> {
    pub(crate) sink: &'a Arc<dyn RunSink>,
    pub(crate) tag: u64,
    pub(crate) index: u32,
}

/// Bytes of a record besides its payload, generously: what the limits are checked with.
const RECORD_OVERHEAD: usize = 40;

/// Most bytes that a record takes in a batch.
pub(super) fn size_of(record: &Record<'_>) -> usize {
    let mut size =
        RECORD_OVERHEAD + record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
    for (name, value) in record.headers {
        size += 10 + name.len() + value.map_or(0, <[u8]>::len);
    }
    size
}

impl Accumulator {
    pub(crate) fn new(
        config: ProducerConfig,
        env: &Environment,
        pool: &ChunkPool,
        metrics: &Arc<Metrics>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            budget: Budget::new(config.buffer_memory),
            users: AtomicUsize::new(0),
            config,
            env: env.clone(),
            pool: pool.clone(),
            metrics: Arc::clone(metrics),
            topics: RwLock::default(),
            events,
            next_batch: AtomicU64::new(1),
            unresolved: Mutex::default(),
            resolved: Notify::new(),
            flush_below: AtomicU64::new(0),
            unrouted: AtomicUsize::new(0),
        }
    }

    /// Copies a record into its open batch. An error of kind `BufferFull` means that it would fit
    /// later; every other one concerns this record alone.
    pub(crate) fn append(
        self: &Arc<Self>,
        record: &Record<'_>,
        run: Option<RunTag<'_>>,
    ) -> Result<Accepted, Error> {
        self.with_topic(record.topic, |topic| self.append_to(topic, record, run))
    }

    /// Finds a topic's batches, or makes them. A thread that sends to the topic it sent to last
    /// time compares a name instead of locking and hashing: that is most threads.
    fn with_topic<T>(
        &self,
        name: &str,
        then: impl FnOnce(&Arc<TopicBatches>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        thread_local! {
            static LAST: RefCell<Option<(u64, Arc<TopicBatches>)>> = const { RefCell::new(None) };
        }
        // Borrowed by none but this function; it may be within itself, when `then` wakes somebody
        // who sends at once, or within the thread's end. Then there is nothing to compare with.
        let mut then = Some(then);
        let found = LAST.try_with(|last| match last.try_borrow().as_deref() {
            Ok(Some((id, topic))) if *id == self.id && *topic.name == *name => {
                then.take().map(|then| then(topic))
            }
            _ => None,
        });
        if let Ok(Some(result)) = found {
            return result;
        }
        let topic = self.topic(name)?;
        let _ = LAST.try_with(|last| {
            if let Ok(mut last) = last.try_borrow_mut() {
                *last = Some((self.id, Arc::clone(&topic)));
            }
        });
        then.take().expect("not called if nothing was found")(&topic)
    }

    fn topic(&self, name: &str) -> Result<Arc<TopicBatches>, Error> {
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

    fn append_to(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        record: &Record<'_>,
        run: Option<RunTag<'_>>,
    ) -> Result<Accepted, Error> {
        self.check_open(topic)?;
        let size = self.check(topic, record)?;
        self.check_room(size)?;
        let partition = match (record.partition, record.key) {
            (None, Some(key)) if self.config.partitioner == Partitioner::KeyHash => {
                match topic.partitions.load(Ordering::Acquire) {
                    0 => return self.append_unrouted(topic, record, key, size, run),
                    partitions => Some(key_hash::partition(key, partitions)),
                }
            }
            (named, _) => named,
        };
        match partition {
            None => self.append_in(topic, &topic.shards[shard()], record, size, run),
            Some(partition) => self.append_in(topic, &topic.slot(partition), record, size, run),
        }
    }

    fn check_open(&self, topic: &TopicBatches) -> Result<(), Error> {
        if let Some(error) = topic.failure() {
            return Err(error);
        }
        if self.events.is_closed() {
            return Err(Error::closed("client"));
        }
        Ok(())
    }

    fn check_room(&self, size: usize) -> Result<(), Error> {
        if self.budget.has_room(size) {
            return Ok(());
        }
        // What is open must go now: it is what the space is waiting for.
        let _ = self.events.send(Event::Pressure);
        Err(Error::new(
            ErrorKind::BufferFull,
            format!("buffer_memory ({} bytes) is full", self.config.buffer_memory),
        ))
    }

    /// What can be known without asking anyone.
    fn check(&self, topic: &TopicBatches, record: &Record<'_>) -> Result<usize, Error> {
        let size = size_of(record);
        if size - RECORD_OVERHEAD > self.config.max_record_size {
            return Err(Error::new(
                ErrorKind::RecordTooLarge,
                format!(
                    "a record of {} bytes for topic '{}'; max_record_size is {}",
                    size - RECORD_OVERHEAD,
                    topic.name,
                    self.config.max_record_size
                ),
            ));
        }
        if let Some(partition) = record.partition {
            let known = topic.partitions.load(Ordering::Acquire);
            if partition < 0 || (known > 0 && partition >= known) {
                return Err(Error::new(
                    ErrorKind::UnknownPartition,
                    format!("topic '{}' has no partition {partition}, it has {known}", topic.name),
                ));
            }
        }
        if let Some(ms) = record.timestamp_ms.filter(|ms| *ms < 0) {
            return Err(Error::argument(format!("the timestamp {ms} is negative")));
        }
        Ok(size)
    }

    pub(super) fn append_in(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        record: &Record<'_>,
        size: usize,
        run: Option<RunTag<'_>>,
    ) -> Result<Accepted, Error> {
        let mut guard = slot.lock();
        self.room_in(topic, slot, &mut guard, size)?;
        self.append_open(&mut guard, record, run)
    }

    /// Sees to it that a batch is open that takes `size` bytes more.
    #[inline]
    pub(super) fn room_in(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        guard: &mut SlotInner,
        size: usize,
    ) -> Result<(), Error> {
        if guard.takes(size, self.config.batch_size) {
            return Ok(());
        }
        self.make_room(topic, slot, guard)
    }

    /// Copies a record into the open batch, which there is.
    pub(super) fn append_open(
        &self,
        guard: &mut SlotInner,
        record: &Record<'_>,
        run: Option<RunTag<'_>>,
    ) -> Result<Accepted, Error> {
        let open = guard.open.as_mut().expect("opened above");
        let (index, timestamp_ms) = self.write(open, record)?;
        let state = open.state();
        if let Some(run) = run {
            state.add_to_run(run.sink, run.tag, run.index, index, timestamp_ms);
        }
        Ok(Accepted { state: Arc::clone(state), index, timestamp_ms })
    }

    /// Opens a batch; one that is open is sealed. Once per batch: kept out of the way of the
    /// records.
    #[cold]
    #[inline(never)]
    fn make_room(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        inner: &mut SlotInner,
    ) -> Result<(), Error> {
        let ready = || Event::Ready(Arc::clone(self), Arc::clone(topic), Arc::clone(slot));
        if let Some(open) = inner.open.take() {
            inner.full.extend(open.seal(self, slot.partition));
            let _ = self.events.send(ready());
            inner.announced = true;
        }
        if !inner.announced && self.events.send(ready()).is_err() {
            return Err(Error::closed("client"));
        }
        inner.announced = true;
        inner.open = Some(self.open_batch(topic.compression));
        Ok(())
    }

    /// Gives the record's index in the batch and its timestamp.
    #[inline]
    fn write(&self, open: &mut OpenBatch, record: &Record<'_>) -> Result<(u32, i64), Error> {
        let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
        let index = open.builder.len_records() as u32;
        open.builder
            .append(record.key, record.value, record.headers, timestamp_ms)
            .map_err(|_| Error::argument("the record is larger than the format can express"))?;
        let holds = open.builder.capacity_reserved();
        if holds > open.rest.charged {
            self.budget.charge(holds - open.rest.charged);
            open.rest.charged = holds;
        }
        open.rest.records += 1;
        Ok((index, timestamp_ms))
    }

    /// Copies values into open batches under one lock. Says how many it took, and why it stopped.
    pub(crate) fn append_values(
        self: &Arc<Self>,
        name: &str,
        values: &[&[u8]],
        all: &mut BatchDelivery,
    ) -> (usize, Result<(), Error>) {
        let mut taken = 0;
        let result = self.with_topic(name, |topic| {
            self.check_open(topic)?;
            let slot = &topic.shards[shard()];
            let mut guard = slot.lock();
            for value in values {
                let record = Record::to(name).value(*value);
                let size = self.check(topic, &record)?;
                self.check_room(size)?;
                self.room_in(topic, slot, &mut guard, size)?;
                let open = guard.open.as_mut().expect("opened above");
                self.write(open, &record)?;
                all.add(open.state());
                taken += 1;
            }
            Ok(())
        });
        (taken, result)
    }

    /// One reading of both clocks for a batch; its records share them.
    fn open_batch(self: &Arc<Self>, compression: Compression) -> OpenBatch {
        let number = self.next_batch.fetch_add(1, Ordering::AcqRel);
        self.unresolved.lock().unwrap_or_else(|e| e.into_inner()).insert(number);
        OpenBatch {
            builder: BatchBuilder::new(self.pool.clone()),
            opened: self.env.now(),
            opened_ms: self.env.wall_ms(),
            compression,
            rest: Unresolved {
                home: Arc::clone(self),
                state: Some(Arc::default()),
                number,
                charged: 0,
                records: 0,
                unrouted: false,
            },
        }
    }

    pub(super) fn batch_resolved(&self, number: u64) {
        self.unresolved.lock().unwrap_or_else(|e| e.into_inner()).remove(&number);
        self.resolved.notify_waiters();
    }

    /// Whether the open batch with this number has to go although it is not full.
    pub(super) fn may_not_linger(&self, number: u64) -> bool {
        number < self.flush_below.load(Ordering::Acquire) || self.budget.is_wanted()
    }

    /// Everything accepted before the call is resolved when this returns.
    pub(crate) async fn flush(&self) {
        // Records that wait for their partition are in batches with later numbers once they have it.
        let unrouted = self.unrouted.load(Ordering::Acquire) > 0;
        self.flush_opened().await;
        if unrouted {
            self.flush_opened().await;
        }
    }

    /// Every batch opened before the call is resolved when this returns.
    async fn flush_opened(&self) {
        let target = self.next_batch.load(Ordering::Acquire);
        loop {
            let resolved = self.resolved.notified();
            tokio::pin!(resolved);
            resolved.as_mut().enable();
            if self.oldest_unresolved().is_none_or(|oldest| oldest >= target) {
                return;
            }
            // Open batches may keep taking records of others; they go at once now.
            if self.flush_below.fetch_max(target, Ordering::AcqRel) < target {
                let _ = self.events.send(Event::Pressure);
            }
            resolved.await;
        }
    }

    fn oldest_unresolved(&self) -> Option<u64> {
        self.unresolved.lock().unwrap_or_else(|e| e.into_inner()).first().copied()
    }

    /// Batches that nobody has resolved yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.unresolved.lock().unwrap_or_else(|e| e.into_inner()).len()
    }

    /// The sender is gone (a panic): nothing will take what is open, so it resolves here.
    pub(crate) fn drop_open(&self) {
        let topics = self.topics.read().unwrap_or_else(|e| e.into_inner());
        for topic in topics.values() {
            let pinned = topic.pinned.read().unwrap_or_else(|e| e.into_inner());
            let waiting = std::iter::once(&topic.unrouted);
            for slot in topic.shards.iter().chain(pinned.values()).chain(waiting) {
                let left = std::mem::take(&mut *slot.lock());
                drop(left);
            }
        }
    }

    /// Resolves everything that is not resolved with `error`: the close deadline has passed.
    pub(crate) fn abandon(self: &Arc<Self>, error: &Error) {
        let _ = self.events.send(Event::Abandon(Arc::clone(self), error.clone()));
    }
}

/// The shard of this thread: a thread stays with its own, so that one thread fills one batch.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    MINE.with(|mine| *mine)
}
