//! Open batches. A record is copied once, here, into the open batch of its topic (or, if it names a partition,
//! of that partition). The sender takes batches when they are full, or earlier if a broker has nothing in
//! flight.
//!
//! Producers with equal settings share one accumulator, so that eight producers make one batch per
//! partition and not eight.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use tokio::sync::{Notify, mpsc};

use super::admission::{RECORD_OVERHEAD, Space, size_of};
use super::budget::{Budget, Share, Shares, Turn};
use super::delivery::{BatchDelivery, Delivery, RunTag};
use super::flush;
use super::recent;
use super::record::Record;
use super::sealing::Sealing;
use super::sender::Event;
use super::shard::{Shard, Shards};
pub(crate) use super::slot::{Batch, Peek, Slot};
use super::slot::{OpenBatch, SlotInner, UNROUTED, Unresolved};
use super::topic_batches::TopicBatches;
use super::unread::Unread;
use crate::config::{self, Partitioner, ProducerConfig};
use crate::environment::Environment;
use crate::error::Error;
use crate::fork;
use crate::metrics::Metrics;
use crate::policy::key_hash;
use crate::record::builder::BatchBuilder;
use crate::record::pool::ChunkPool;

/// The open batches of all producers with equal settings.
pub(crate) struct Accumulator {
    /// Unique in this process, for good.
    pub(super) id: u64,
    pub(crate) config: ProducerConfig,
    pub(crate) env: Environment,
    pub(crate) budget: Budget,
    /// How many open producers share it.
    pub(crate) users: AtomicUsize,
    /// Tells which of a topic's open batches a handle fills.
    pub(super) shards: Shards,
    /// How many records are in batches that take no more records and are not resolved.
    pub(super) on_way: AtomicUsize,
    pool: ChunkPool,
    pub(super) metrics: Arc<Metrics>,
    /// The topics that were sent to lately; see `release.rs`.
    pub(super) topics: RwLock<HashMap<Arc<str>, Arc<TopicBatches>, foldhash::fast::RandomState>>,
    /// Topics that were forgotten at the moment at which a batch was opened in them; see `release.rs`.
    pub(super) strays: Mutex<Vec<Weak<TopicBatches>>>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) next_batch: AtomicU64,
    /// The batches that are not resolved yet, by number: a flush waits for them.
    pub(super) unresolved: Mutex<flush::Numbers>,
    pub(super) resolved: Notify,
    /// Open batches with a smaller number than this do not linger: a flush waits for them.
    pub(super) flush_below: AtomicU64,
    /// By broker: how many bytes the partitions hold that it leads and that records name. An entry stays while a
    /// topic in use refers to it.
    pub(super) brokers: Mutex<BTreeMap<i32, Arc<Share>>>,
    /// Batches that worker threads compress.
    pub(super) sealing: Sealing,
    /// How many batches hold keyed records that wait for their topic's number of partitions.
    pub(super) unrouted: AtomicUsize,
}

impl std::fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accumulator").field("config", &self.config).finish_non_exhaustive()
    }
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
            shards: Shards::default(),
            on_way: AtomicUsize::new(0),
            config,
            env: env.clone(),
            pool: pool.clone(),
            metrics: Arc::clone(metrics),
            topics: RwLock::default(),
            strays: Mutex::default(),
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

    /// The short way, which nearly every send takes: the record goes into a batch that is open and has room.
    /// `None` if anything is different; then nothing has happened, and the caller takes the long way,
    /// [`append`](Self::append).
    #[inline]
    pub(crate) fn append_at_once(
        &self,
        shard: Shard,
        record: &Record<'_>,
        sender: &Arc<Unread>,
    ) -> Option<Delivery> {
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
        recent::known(self, shard, record.topic, partition, |topic, slot| {
            if self.must_be_checked(topic, record, size) {
                return None;
            }
            let mut inner = slot.lock();
            if inner.quick != sender.address() || !inner.takes(size, topic.batch_size()) {
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

    /// Copies a record into its open batch. An error of kind `BufferFull` means that it would fit later; any other
    /// error is about this record alone.
    #[inline]
    pub(crate) fn append(
        self: &Arc<Self>,
        shard: Shard,
        record: &Record<'_>,
        sender: &Arc<Unread>,
    ) -> Result<Delivery, Error> {
        self.append_for(shard, record, Space::Spare, sender)
    }

    /// The same, for a caller that has waited in line and is first now.
    pub(crate) fn append_in_turn(
        self: &Arc<Self>,
        shard: Shard,
        record: &Record<'_>,
        sender: &Arc<Unread>,
        _turn: &Turn<'_>,
    ) -> Result<Delivery, Error> {
        self.append_for(shard, record, Space::Any, sender)
    }

    #[inline]
    fn append_for(
        self: &Arc<Self>,
        shard: Shard,
        record: &Record<'_>,
        space: Space,
        sender: &Arc<Unread>,
    ) -> Result<Delivery, Error> {
        self.append_with(shard, record, space, Some(sender), |open, index| {
            let owner = open.owner();
            Delivery::new(owner.share(), owner.mark(index, record.timestamp_ms))
        })
    }

    /// The same, for a record of a binding's submission. A binding waits without a place in the line, so it takes
    /// whatever memory is free.
    pub(crate) fn append_run(
        self: &Arc<Self>,
        shard: Shard,
        record: &Record<'_>,
        run: RunTag<'_>,
    ) -> Result<(), Error> {
        self.append_with(shard, record, Space::Any, None, |open, index| {
            let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
            open.owner().state().add_to_run(run, index, timestamp_ms);
        })
    }

    #[inline]
    fn append_with<T>(
        self: &Arc<Self>,
        shard: Shard,
        record: &Record<'_>,
        space: Space,
        sender: Option<&Arc<Unread>>,
        take: impl FnOnce(&mut OpenBatch, u32) -> T,
    ) -> Result<T, Error> {
        let size = size_of(record);
        if record.partition.is_none() && self.spreads(record) {
            return recent::with(self, shard, record.topic, |topic, slot| {
                self.check(topic, record, size, space)?;
                self.append_in(topic, slot, record, size, space, sender, take)
            });
        }
        let topic = self.topic(record.topic)?;
        self.check(&topic, record, size, space)?;
        let partition = match (record.partition, record.key) {
            (None, Some(key)) => match topic.partitions.load(Ordering::Acquire) {
                0 => return self.append_unrouted(&topic, record, key, size, space, sender, take),
                partitions => key_hash::partition(key, partitions),
            },
            (named, _) => named.unwrap_or_default(),
        };
        let slot = topic.slot(partition);
        let taken = self.append_in(&topic, &slot, record, size, space, sender, take);
        recent::remember_pinned(self, &topic, &slot);
        taken
    }

    /// Whether the record may go to any partition: it has no key, or keys do not choose.
    #[inline]
    fn spreads(&self, record: &Record<'_>) -> bool {
        record.key.is_none() || self.config.partitioner == Partitioner::Spread
    }

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

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "what is to be done, and where")]
    pub(super) fn append_in<T>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        record: &Record<'_>,
        size: usize,
        space: Space,
        sender: Option<&Arc<Unread>>,
        take: impl FnOnce(&mut OpenBatch, u32) -> T,
    ) -> Result<T, Error> {
        loop {
            let mut inner = slot.lock();
            if inner.takes(size, topic.batch_size()) {
                let taken = self.append_open(topic, slot, &mut inner, record, sender, take);
                drop(inner);
                if taken.is_err() {
                    self.after_refusal(slot, space);
                }
                return taken;
            }
            drop(inner);
            self.turn(topic, slot, size, space)?;
        }
    }

    /// Copies a record into the batch that is open in `inner`; there must be one.
    #[inline]
    pub(super) fn append_open<T>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        inner: &mut SlotInner,
        record: &Record<'_>,
        sender: Option<&Arc<Unread>>,
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
        let taken = take(open, index);
        inner.sent_by(sender, index);
        Ok(taken)
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
            return Err(Error::closed("client"));
        }
        inner.announced = true;
        Ok(())
    }

    /// A record was refused by an open batch. If the reason is that the sender has ended, the batches in the slot are
    /// dropped here, which resolves them. Not under the slot's lock: a task that is woken by that may send.
    #[cold]
    pub(super) fn after_refusal(&self, slot: &Slot, space: Space) {
        // A caller that moves records holds another slot's lock, and looks after it has given that back.
        if space != Space::Held && self.events.is_closed() {
            slot.clear();
        }
    }

    /// Opens a batch that takes `size` bytes, unless another thread has just done so. The batch that was open is
    /// sealed by this thread, without the lock, or by a worker. A function of its own since it is called once
    /// per batch.
    #[cold]
    #[inline(never)]
    pub(super) fn turn(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        size: usize,
        space: Space,
    ) -> Result<(), Error> {
        // Asked once per batch, since it costs a system call. In a forked child, records before this one went into a
        // batch of the parent: their handles report that.
        self.env.check_process()?;
        if self.events.is_closed() {
            return Err(Error::closed("client"));
        }
        let mut inner = slot.lock();
        if inner.takes(size, topic.batch_size()) {
            return Ok(());
        }
        if topic.was_let_go() {
            drop(inner);
            self.came_back(topic);
            inner = slot.lock();
            if inner.takes(size, topic.batch_size()) {
                return Ok(());
            }
        }
        let shares = self.shares_of(slot, &inner);
        if space != Space::Held && !self.budget.shares_fit(&shares, size) {
            return Err(self.share_used_up(topic));
        }
        let full = inner.turn(self.open_batch(topic, shares));
        drop(inner);
        if let Some(full) = full {
            if full.takes_long() {
                self.seal_later(slot, full);
            } else if slot.seal(self, full) {
                // Also if the slot is on the sender's list already: it may look only at a later time.
                let mut inner = slot.lock();
                let announced = self.announce(topic, slot, &mut inner);
                drop(inner);
                if announced.is_err() {
                    self.after_refusal(slot, space);
                }
                announced?;
                if self.budget.is_far_ahead() {
                    std::thread::yield_now();
                }
            }
        }
        Ok(())
    }

    /// A batch was sealed outside of a call and can be sent: tells the sender.
    pub(super) fn announce_sealed(self: &Arc<Self>, topic: &str, slot: &Arc<Slot>) {
        // If that fails, the sender has ended and the slot was cleared.
        if let Ok(topic) = self.topic(topic) {
            let mut inner = slot.lock();
            let announced = self.announce(&topic, slot, &mut inner);
            drop(inner);
            if announced.is_err() {
                self.after_refusal(slot, Space::Any);
            }
        }
    }

    /// Copies values into open batches, many under one lock. Gives how many were accepted, and why it stopped.
    pub(crate) fn append_values(
        self: &Arc<Self>,
        shard: Shard,
        name: &str,
        values: &[&[u8]],
        sender: &Arc<Unread>,
        turn: Option<&Turn<'_>>,
        all: &mut BatchDelivery,
    ) -> (usize, Result<(), Error>) {
        let space = if turn.is_some() { Space::Any } else { Space::Spare };
        let mut taken = 0;
        let result = recent::with(self, shard, name, |topic, slot| {
            while taken < values.len() {
                let size = RECORD_OVERHEAD + values[taken].len();
                self.check(topic, &Record::to(name), size, space)?;
                let mut inner = slot.lock();
                // Not checked again: a batch that was opened must get its first record, or a flush would wait for an
                // empty batch that nobody sends.
                while !inner.takes(size, topic.batch_size()) {
                    drop(inner);
                    self.turn(topic, slot, size, space)?;
                    inner = slot.lock();
                }
                let before = taken;
                let first = inner.open.as_ref().map_or(0, |open| open.builder.len_records());
                let result =
                    self.append_some(topic, slot, &mut inner, values, sender, space, &mut taken);
                if let (true, Some(open)) = (taken > before, &mut inner.open) {
                    all.add(taken - before, first as u32, open.owner());
                }
                drop(inner);
                if result.is_err() {
                    self.after_refusal(slot, space);
                }
                result?;
            }
            Ok(())
        });
        (taken, result)
    }

    /// Copies values as long as the open batch takes them. The first one is known to fit.
    #[expect(clippy::too_many_arguments, reason = "what is to be done, and where")]
    fn append_some(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        inner: &mut SlotInner,
        values: &[&[u8]],
        sender: &Arc<Unread>,
        space: Space,
        taken: &mut usize,
    ) -> Result<(), Error> {
        let first = *taken;
        while let Some(value) = values.get(*taken) {
            let record = Record::to(&topic.name).value(*value);
            let size = RECORD_OVERHEAD + value.len();
            if *taken > first {
                if !inner.takes(size, topic.batch_size()) {
                    break;
                }
                self.check(topic, &record, size, space)?;
            }
            self.append_open(topic, slot, inner, &record, Some(sender), |_, _| ())?;
            *taken += 1;
        }
        Ok(())
    }

    /// An open batch. Both clocks are read once for it; its records share the time.
    fn open_batch(self: &Arc<Self>, topic: &TopicBatches, shares: Shares) -> OpenBatch {
        let number = self.next_batch.fetch_add(1, Ordering::AcqRel);
        self.batch_opened(number);
        let opened_ms = self.env.wall_ms();
        OpenBatch {
            builder: BatchBuilder::new(self.pool.clone()),
            opened: self.env.now(),
            opened_ms,
            compression: topic.compression,
            rest: Unresolved::new(self, &topic.name, (opened_ms, opened_ms), number, shares),
        }
    }

    /// Pooled memory for batches.
    pub(super) fn buffers(&self) -> &ChunkPool {
        &self.pool
    }

    /// Tells a new sender of every slot: the old one may have had them on its list.
    pub(super) fn announce_all(self: &Arc<Self>) {
        for topic in self.all_topics() {
            for slot in topic.slots() {
                let _ = self.announce(&topic, &slot, &mut slot.lock());
            }
        }
    }

    /// The sender has ended for good: drops every batch that it has not taken, which resolves them.
    pub(crate) fn drop_open(&self) {
        self.slots().iter().for_each(|slot| slot.clear());
    }

    /// Fails every batch that the sender has not taken.
    pub(super) fn fail_open(&self, error: &Error) {
        self.slots().iter().for_each(|slot| slot.fail(error));
    }

    /// How many records are not resolved: those in open batches, and those on their way.
    pub(crate) fn unresolved_records(&self) -> usize {
        let open = self.slots().iter().map(|slot| slot.open_records()).sum::<usize>();
        open + self.on_way.load(Ordering::Relaxed)
    }

    /// All slots, collected first: tasks that are woken while batches in them resolve may send, so no lock may be held
    /// then.
    fn slots(&self) -> Vec<Arc<Slot>> {
        self.all_topics().iter().flat_map(|topic| topic.slots()).collect()
    }
}
