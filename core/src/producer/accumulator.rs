//! Open batches. A record is copied once, here, into the open batch of its topic (or, if it names
//! a partition, of that partition); the sender takes batches when they are full, or when a broker
//! has nothing else to do.
//!
//! Producers with equal settings share one accumulator, so that eight producers make one batch per
//! partition and not eight.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::budget::{Budget, Share, Shares, Turn};
use super::delivery::{BatchDelivery, Delivery, RunTag};
use super::recent;
use super::record::Record;
use super::sealing::Sealing;
use super::sender::Event;
pub(crate) use super::slot::{Batch, Peek, Slot};
use super::slot::{OpenBatch, SlotInner, UNROUTED, Unresolved};
use super::states::Owner;
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
pub(super) const SHARDS: usize = 8;

/// See the module.
pub(crate) struct Accumulator {
    /// No other of this process has it, now or later.
    pub(super) id: u64,
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
    /// Batches not resolved yet, by number: what flush waits for. Those that one was split into share
    /// its number.
    unresolved: Mutex<BTreeMap<u64, u32>>,
    resolved: Notify,
    /// Open batches with a smaller number do not linger.
    flush_below: AtomicU64,
    /// What partitions that records name hold by the broker that leads them.
    brokers: Mutex<BTreeMap<i32, Arc<Share>>>,
    /// Batches that somebody else compresses.
    pub(super) sealing: Sealing,
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
    /// Bytes at which a batch is full: the setting, or less once the topic has refused as much.
    batch_size: AtomicUsize,
    /// 0 while unknown. Lets a partition that does not exist be refused at once.
    pub(crate) partitions: AtomicI32,
    /// Why nothing can be sent to it, for a while.
    failed: AtomicBool,
    failure: Mutex<Option<(Error, Instant)>>,
    pub(super) shards: [Arc<Slot>; SHARDS],
    pinned: RwLock<BTreeMap<i32, Arc<Slot>>>,
    /// See `unrouted.rs`.
    pub(super) unrouted: Arc<Slot>,
}

impl TopicBatches {
    pub(super) fn new(name: &str, config: &ProducerConfig) -> Arc<Self> {
        let own = config.topic_compression.get(name);
        let share = Arc::default();
        Arc::new(Self {
            name: Arc::from(name),
            compression: own.copied().unwrap_or(config.compression),
            batch_size: AtomicUsize::new(config.batch_size),
            partitions: AtomicI32::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            shards: std::array::from_fn(|_| Slot::new(None, &share)),
            pinned: RwLock::default(),
            unrouted: Slot::new(Some(UNROUTED), &share),
        })
    }

    /// Nothing can be sent to this topic for now: records are refused at once until it is asked for
    /// again.
    pub(crate) fn fail(&self, error: Error, until: Instant) {
        *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = Some((error, until));
        self.failed.store(true, Ordering::Release);
    }

    /// The topic did not take a batch of so many bytes before compression.
    pub(crate) fn took_less_than(&self, bytes: usize) {
        self.batch_size.fetch_min((bytes / 2).max(MIN_BATCH), Ordering::Relaxed);
    }

    #[inline]
    fn batch_size(&self) -> usize {
        self.batch_size.load(Ordering::Relaxed)
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
        Arc::clone(
            pinned.entry(partition).or_insert_with(|| Slot::new(Some(partition), &Arc::default())),
        )
    }
}

/// Headers of a record. Kafka itself has no limit, and consumers make an object of each.
const MAX_HEADERS: usize = 10_000;

/// Batches do not get smaller, however little a topic takes.
const MIN_BATCH: usize = 1 << 10;

/// Which space a record may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// What nobody waits for.
    Spare,
    Any,
}

/// Bytes of a record besides its payload, generously: what the limits are checked with.
const RECORD_OVERHEAD: usize = 40;

/// Most bytes that a record takes in a batch.
#[inline]
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
            brokers: Mutex::default(),
            sealing: Sealing::default(),
            unrouted: AtomicUsize::new(0),
        }
    }

    /// What nearly every send comes to: a record goes into a batch that is open and has room.
    /// `None` if anything about it is not like that; then nothing has happened, and
    /// [`append`](Self::append) is to be asked.
    #[inline]
    pub(crate) fn append_at_once(&self, record: &Record<'_>) -> Option<Delivery> {
        if !record.headers.is_empty() {
            return None;
        }
        let partition = |topic: &TopicBatches| match (record.partition, record.key) {
            (None, Some(key)) if !self.spreads(record) => {
                // None is remembered before it is known how many there are.
                let partitions = topic.partitions.load(Ordering::Acquire);
                Some(if partitions > 0 { key_hash::partition(key, partitions) } else { UNROUTED })
            }
            (named, _) => named,
        };
        let size = size_of(record);
        recent::known(self, record.topic, partition, |topic, slot| {
            if self.must_be_checked(topic, record, size) {
                return None;
            }
            let mut inner = slot.lock();
            if !inner.announced || !inner.takes(size, topic.batch_size()) {
                return None;
            }
            let open = inner.open.as_mut()?;
            let index = open.builder.len_records() as u32;
            let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
            if !open.builder.append_small(record.key, record.value, timestamp_ms) {
                return None;
            }
            open.rest.records += 1;
            let owner = open.owner();
            Some(Delivery::new(owner.share(), owner.mark(index, record.timestamp_ms)))
        })
    }

    /// Copies a record into its open batch. An error of kind `BufferFull` means that it would fit
    /// later; every other one concerns this record alone.
    #[inline]
    pub(crate) fn append(self: &Arc<Self>, record: &Record<'_>) -> Result<Delivery, Error> {
        self.append_for(record, Space::Spare)
    }

    /// The same for who is first in line for space.
    pub(crate) fn append_in_turn(
        self: &Arc<Self>,
        record: &Record<'_>,
        _turn: &Turn<'_>,
    ) -> Result<Delivery, Error> {
        self.append_for(record, Space::Any)
    }

    #[inline]
    fn append_for(self: &Arc<Self>, record: &Record<'_>, space: Space) -> Result<Delivery, Error> {
        self.append_with(record, space, |open, index| {
            let owner = open.owner();
            Delivery::new(owner.share(), owner.mark(index, record.timestamp_ms))
        })
    }

    /// The same for a record of a binding's submission. Whoever submits waits without keeping a
    /// place in line, so it takes what space there is.
    pub(crate) fn append_run(
        self: &Arc<Self>,
        record: &Record<'_>,
        run: RunTag<'_>,
    ) -> Result<(), Error> {
        self.append_with(record, Space::Any, |open, index| {
            let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
            open.owner().state().add_to_run(run, index, timestamp_ms);
        })
    }

    #[inline]
    fn append_with<T>(
        self: &Arc<Self>,
        record: &Record<'_>,
        space: Space,
        take: impl FnOnce(&mut OpenBatch, u32) -> T,
    ) -> Result<T, Error> {
        let size = size_of(record);
        if record.partition.is_none() && self.spreads(record) {
            return recent::with(self, record.topic, |topic, slot| {
                self.check(topic, record, size, space)?;
                self.append_in(topic, slot, record, size, take)
            });
        }
        let topic = self.topic(record.topic)?;
        self.check(&topic, record, size, space)?;
        let partition = match (record.partition, record.key) {
            (None, Some(key)) => match topic.partitions.load(Ordering::Acquire) {
                0 => return self.append_unrouted(&topic, record, key, size, take),
                partitions => key_hash::partition(key, partitions),
            },
            (named, _) => named.unwrap_or_default(),
        };
        let slot = topic.slot(partition);
        let taken = self.append_in(&topic, &slot, record, size, take);
        recent::remember_pinned(self, &topic, &slot);
        taken
    }

    /// Whether its key leaves open where it goes.
    #[inline]
    fn spreads(&self, record: &Record<'_>) -> bool {
        record.key.is_none() || self.config.partitioner == Partitioner::Spread
    }

    pub(super) fn topic(&self, name: &str) -> Result<Arc<TopicBatches>, Error> {
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

    /// What can be known without asking anyone; and whether there is space.
    #[inline]
    fn check(
        &self,
        topic: &TopicBatches,
        record: &Record<'_>,
        size: usize,
        space: Space,
    ) -> Result<(), Error> {
        if record.partition.is_some() || self.must_be_checked(topic, record, size) {
            return self.check_closely(topic, record, size, space);
        }
        Ok(())
    }

    /// Whether anything about it may be wrong besides the partition.
    #[inline]
    fn must_be_checked(&self, topic: &TopicBatches, record: &Record<'_>, size: usize) -> bool {
        topic.failed.load(Ordering::Acquire)
            || size > self.config.max_record_size + RECORD_OVERHEAD
            || record.timestamp_ms.is_some_and(|ms| ms < 0)
            || record.headers.len() > MAX_HEADERS
            || !self.budget.has_room(size)
    }

    #[cold]
    fn check_closely(
        &self,
        topic: &TopicBatches,
        record: &Record<'_>,
        size: usize,
        space: Space,
    ) -> Result<(), Error> {
        if let Some(error) = topic.failure() {
            return Err(error);
        }
        let payload = size - RECORD_OVERHEAD;
        if payload > self.config.max_record_size {
            return Err(Error::new(
                ErrorKind::RecordTooLarge,
                format!(
                    "a record of {payload} bytes for topic '{}'; max_record_size is {}",
                    topic.name, self.config.max_record_size
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
        if record.headers.len() > MAX_HEADERS {
            return Err(Error::argument(format!(
                "the record has {} headers; {MAX_HEADERS} at most",
                record.headers.len()
            )));
        }
        let room = match space {
            Space::Spare => self.budget.has_room(size),
            Space::Any => self.budget.fits(size),
        };
        if room {
            return Ok(());
        }
        self.press();
        Err(Error::new(
            ErrorKind::BufferFull,
            format!("buffer_memory ({} bytes) is full", self.config.buffer_memory),
        ))
    }

    /// What is open must go: it is what the space is waiting for.
    fn press(&self) {
        // Once, and not for each try of somebody who tries again and again.
        if self.budget.press() {
            let _ = self.events.send(Event::Pressure);
        }
    }

    /// There is space, but not for this holder.
    #[cold]
    pub(super) fn share_used_up(&self, topic: &TopicBatches) -> Error {
        self.press();
        let limit = self.config.buffer_memory;
        Error::new(
            ErrorKind::BufferFull,
            format!(
                "unacknowledged records of topic '{}' fill their share of buffer_memory ({limit} bytes); \
                 the rest is for others",
                topic.name
            ),
        )
    }

    /// Whose part of the budget a record would be of.
    pub(super) fn shares(&self, record: &Record<'_>) -> Result<Shares, Error> {
        let topic = self.topic(record.topic)?;
        let partitions = topic.partitions.load(Ordering::Acquire);
        let slot = match (record.partition, record.key) {
            (Some(partition), _) => topic.slot(partition),
            (None, Some(key)) if self.config.partitioner == Partitioner::KeyHash => {
                match partitions {
                    0 => Arc::clone(&topic.unrouted),
                    n => topic.slot(key_hash::partition(key, n)),
                }
            }
            (None, _) => Arc::clone(&topic.shards[0]),
        };
        let inner = slot.lock();
        Ok(self.shares_of(&slot, &inner))
    }

    /// Until it is known who leads a partition, nobody does.
    fn shares_of(&self, slot: &Slot, inner: &SlotInner) -> Shares {
        let mut shares = slot.shares(inner);
        if slot.partition.is_some() && shares.broker.is_none() {
            shares.broker = Some(self.share_of(-1));
        }
        shares
    }

    /// The share of a broker in the budget; -1: of partitions that nobody leads.
    pub(super) fn share_of(&self, broker: i32) -> Arc<Share> {
        let mut brokers = self.brokers.lock().unwrap_or_else(|e| e.into_inner());
        Arc::clone(brokers.entry(broker).or_default())
    }

    #[inline]
    pub(super) fn append_in<T>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        record: &Record<'_>,
        size: usize,
        take: impl FnOnce(&mut OpenBatch, u32) -> T,
    ) -> Result<T, Error> {
        loop {
            let mut inner = slot.lock();
            if inner.takes(size, topic.batch_size()) {
                return self.append_open(topic, slot, &mut inner, record, take);
            }
            drop(inner);
            self.turn(topic, slot, size)?;
        }
    }

    /// Copies a record into the open batch, which there is.
    #[inline]
    pub(super) fn append_open<T>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        inner: &mut SlotInner,
        record: &Record<'_>,
        take: impl FnOnce(&mut OpenBatch, u32) -> T,
    ) -> Result<T, Error> {
        if !inner.announced {
            self.announce(topic, slot, inner)?;
        }
        let open = inner.open.as_mut().expect("a batch that takes the record is open");
        let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
        let index = open.builder.len_records() as u32;
        open.builder
            .append(record.key, record.value, record.headers, timestamp_ms)
            .map_err(|_| Error::argument("the record is larger than the format can express"))?;
        let holds = open.builder.capacity_reserved();
        if holds > open.rest.charged {
            open.rest.holds(holds);
        }
        open.rest.records += 1;
        Ok(take(open, index))
    }

    /// Tells the sender that there is something in a slot.
    #[cold]
    fn announce(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        inner: &mut SlotInner,
    ) -> Result<(), Error> {
        let ready = Event::Ready(Arc::clone(self), Arc::clone(topic), Arc::clone(slot));
        if self.events.send(ready).is_err() {
            // Nobody is left to send it: it resolves as it is dropped.
            drop(inner.open.take());
            return Err(Error::closed("client"));
        }
        inner.announced = true;
        Ok(())
    }

    /// Opens a batch that takes `size` bytes, unless somebody else just has. One that was open is
    /// sealed, by this thread and without the lock. Once per batch: kept out of the way of the
    /// records.
    #[cold]
    #[inline(never)]
    pub(super) fn turn(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        size: usize,
    ) -> Result<(), Error> {
        if self.events.is_closed() {
            return Err(Error::closed("client"));
        }
        let mut inner = slot.lock();
        if inner.takes(size, topic.batch_size()) {
            return Ok(());
        }
        let shares = self.shares_of(slot, &inner);
        if !self.budget.shares_fit(&shares, size) {
            return Err(self.share_used_up(topic));
        }
        let full = inner.turn(self.open_batch(topic, shares));
        drop(inner);
        if let Some(full) = full {
            if full.takes_long() {
                self.seal_later(slot, full);
            } else if slot.seal(self, full) {
                // Whatever the sender knows of the slot, it is to look at it now.
                let mut inner = slot.lock();
                self.announce(topic, slot, &mut inner)?;
            }
        }
        Ok(())
    }

    /// A batch of a topic that was sealed elsewhere can be sent.
    pub(super) fn announce_sealed(self: &Arc<Self>, topic: &str, slot: &Arc<Slot>) {
        // Without a sender, what is in the slot has been dropped.
        if let Ok(topic) = self.topic(topic) {
            let _ = self.announce(&topic, slot, &mut slot.lock());
        }
    }

    /// Copies values into open batches, many under one lock. Says how many it took, and why it
    /// stopped.
    pub(crate) fn append_values(
        self: &Arc<Self>,
        name: &str,
        values: &[&[u8]],
        turn: Option<&Turn<'_>>,
        all: &mut BatchDelivery,
    ) -> (usize, Result<(), Error>) {
        let space = if turn.is_some() { Space::Any } else { Space::Spare };
        let mut taken = 0;
        let result = recent::with(self, name, |topic, slot| {
            while taken < values.len() {
                let size = RECORD_OVERHEAD + values[taken].len();
                self.check(topic, &Record::to(name), size, space)?;
                let mut inner = slot.lock();
                if !inner.takes(size, topic.batch_size()) {
                    drop(inner);
                    self.turn(topic, slot, size)?;
                    continue;
                }
                let before = taken;
                let first = inner.open.as_ref().map_or(0, |open| open.builder.len_records());
                let result = self.append_some(topic, slot, &mut inner, values, space, &mut taken);
                if let (true, Some(open)) = (taken > before, &mut inner.open) {
                    all.add(taken - before, first as u32, open.owner());
                }
                result?;
            }
            Ok(())
        });
        (taken, result)
    }

    /// Copies values for as long as the open batch takes them.
    fn append_some(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        inner: &mut SlotInner,
        values: &[&[u8]],
        space: Space,
        taken: &mut usize,
    ) -> Result<(), Error> {
        while let Some(value) = values.get(*taken) {
            let record = Record::to(&topic.name).value(*value);
            let size = RECORD_OVERHEAD + value.len();
            if !inner.takes(size, topic.batch_size()) {
                break;
            }
            self.check(topic, &record, size, space)?;
            self.append_open(topic, slot, inner, &record, |_, _| ())?;
            *taken += 1;
        }
        Ok(())
    }

    /// One reading of both clocks for a batch; its records share them.
    fn open_batch(self: &Arc<Self>, topic: &TopicBatches, shares: Shares) -> OpenBatch {
        let number = self.next_batch.fetch_add(1, Ordering::AcqRel);
        self.unresolved.lock().unwrap_or_else(|e| e.into_inner()).insert(number, 1);
        let opened_ms = self.env.wall_ms();
        OpenBatch {
            builder: BatchBuilder::new(self.pool.clone()),
            opened: self.env.now(),
            opened_ms,
            compression: topic.compression,
            rest: Unresolved {
                home: Arc::clone(self),
                topic: Arc::clone(&topic.name),
                timestamps_ms: (opened_ms, opened_ms),
                broker: -1,
                owner: Some(Owner::new(opened_ms)),
                number,
                charged: 0,
                shares,
                records: 0,
                unrouted: false,
            },
        }
    }

    /// One more batch has this number.
    pub(super) fn batch_again(&self, number: u64) {
        let mut unresolved = self.unresolved.lock().unwrap_or_else(|e| e.into_inner());
        *unresolved.entry(number).or_default() += 1;
    }

    /// Warm memory for batches.
    pub(super) fn buffers(&self) -> &ChunkPool {
        &self.pool
    }

    pub(super) fn batch_resolved(&self, number: u64) {
        let mut unresolved = self.unresolved.lock().unwrap_or_else(|e| e.into_inner());
        if let Entry::Occupied(mut batches) = unresolved.entry(number) {
            *batches.get_mut() -= 1;
            if *batches.get() == 0 {
                batches.remove();
            }
        }
        drop(unresolved);
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
        self.unresolved.lock().unwrap_or_else(|e| e.into_inner()).keys().next().copied()
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
                slot.clear();
            }
        }
    }

    /// Resolves everything that is not resolved with `error`: the close deadline has passed.
    pub(crate) fn abandon(self: &Arc<Self>, error: &Error) {
        let _ = self.events.send(Event::Abandon(Arc::clone(self), error.clone()));
    }
}
