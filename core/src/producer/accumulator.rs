//! Open batches. A record is copied once, here, into the open batch of its topic (or, if it names
//! a partition, of that partition); the sender takes batches when they are full, or when a broker
//! has nothing else to do.
//!
//! Producers with equal settings share one accumulator, so that eight producers make one batch per
//! partition and not eight.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::budget::Budget;
use super::delivery::{BatchDelivery, BatchState, Outcome, RunSink};
use super::record::Record;
use super::sender::Event;
use super::tries::Tries;
use crate::config::{self, ProducerConfig};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::metrics::{Metrics, limited};
use crate::record::builder::{BatchBuilder, SealedBatch};
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
    metrics: Arc<Metrics>,
    topics: RwLock<HashMap<Arc<str>, Arc<TopicBatches>, foldhash::fast::RandomState>>,
    events: mpsc::UnboundedSender<Event>,
    next_batch: AtomicU64,
    /// Batches not resolved yet, by number: what flush waits for.
    unresolved: Mutex<BTreeSet<u64>>,
    resolved: Notify,
    /// Open batches with a smaller number do not linger.
    flush_below: AtomicU64,
}

impl std::fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accumulator").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A topic as producers see it.
pub(crate) struct TopicBatches {
    pub(crate) name: Arc<str>,
    /// 0 while unknown. Lets a partition that does not exist be refused at once.
    pub(crate) partitions: AtomicI32,
    /// Why nothing can be sent to it, for a while.
    failed: AtomicBool,
    failure: Mutex<Option<(Error, Instant)>>,
    shards: [Arc<Slot>; SHARDS],
    pinned: RwLock<BTreeMap<i32, Arc<Slot>>>,
}

/// A place where a batch is open, and the full ones behind it that the sender has not taken yet.
/// One lock orders both, so that batches of a partition leave in the order they were filled.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) partition: Option<i32>,
    inner: Mutex<SlotInner>,
}

#[derive(Debug, Default)]
struct SlotInner {
    full: VecDeque<Batch>,
    open: Option<OpenBatch>,
    /// The sender has this slot on its list.
    announced: bool,
}

impl SlotInner {
    /// Whether a batch is open that takes `size` bytes more.
    #[inline]
    fn takes(&self, size: usize, batch_size: usize) -> bool {
        self.open.as_ref().is_some_and(|open| open.builder.len_bytes() + size <= batch_size)
    }
}

#[derive(Debug)]
struct OpenBatch {
    builder: BatchBuilder,
    opened: Instant,
    opened_ms: i64,
    rest: Unresolved,
}

/// A sealed batch on its way.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) sealed: SealedBatch,
    pub(crate) home: Arc<Accumulator>,
    pub(crate) partition: Option<i32>,
    pub(crate) deadline: Instant,
    /// What it has behind it.
    pub(crate) tries: Tries,
    rest: Unresolved,
}

/// What of a batch must be settled exactly once: its records' results, its memory, its place among
/// the unresolved. Dropped without a result (a panic, the end of the engine) it settles itself.
#[derive(Debug)]
struct Unresolved {
    home: Arc<Accumulator>,
    /// `None` once settled.
    state: Option<Arc<BatchState>>,
    number: u64,
    charged: usize,
    records: usize,
}

impl Unresolved {
    fn settle(&mut self, outcome: Outcome) {
        let Some(state) = self.state.take() else { return };
        if let Err(e) = &outcome {
            self.home.metrics.records_failed(self.records);
            limited!(
                self.home.metrics.logs(), DEBUG, records = self.records, error = %e.message(),
                "records failed"
            );
        }
        self.home.budget.release(self.charged);
        state.resolve(outcome);
        self.home.batch_resolved(self.number);
    }
}

impl Drop for Unresolved {
    fn drop(&mut self) {
        if self.state.is_some() {
            self.settle(Err(Error::new(
                ErrorKind::Closed,
                "the engine ended before the record was acknowledged",
            )
            .with_maybe_written(true)));
        }
    }
}

impl Batch {
    /// Resolves all its records.
    pub(crate) fn resolve(mut self, outcome: Outcome) {
        self.rest.settle(outcome);
    }

    pub(crate) fn records(&self) -> usize {
        self.sealed.records()
    }
}

/// What the sender may take from a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    Empty,
    /// A full batch waits.
    Full,
    /// Only an open one; it may be taken early if a broker is idle, and must be once `at` passed.
    Open {
        at: Instant,
        urgent: bool,
    },
}

impl Slot {
    fn new(partition: Option<i32>) -> Arc<Self> {
        Arc::new(Self { partition, inner: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SlotInner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What could be taken. Empty: the slot is off the sender's list until it announces itself.
    pub(crate) fn peek(&self, home: &Accumulator) -> Peek {
        let mut inner = self.lock();
        if !inner.full.is_empty() {
            return Peek::Full;
        }
        match &inner.open {
            Some(open) => {
                let urgent = open.rest.number < home.flush_below.load(Ordering::Acquire)
                    || home.budget.is_wanted();
                Peek::Open { at: open.opened + home.config.linger, urgent }
            }
            None => {
                inner.announced = false;
                Peek::Empty
            }
        }
    }

    /// When the oldest batch here was opened.
    pub(crate) fn oldest_deadline(&self, home: &Accumulator) -> Option<Instant> {
        let inner = self.lock();
        inner
            .full
            .front()
            .map(|b| b.deadline)
            .or_else(|| inner.open.as_ref().map(|open| open.opened + home.config.delivery_timeout))
    }

    /// The oldest batch; an open one is sealed.
    pub(crate) fn take(&self, home: &Arc<Accumulator>) -> Option<Batch> {
        let mut inner = self.lock();
        inner.full.pop_front().or_else(|| {
            let open = inner.open.take()?;
            open.seal(home, self.partition)
        })
    }
}

impl OpenBatch {
    fn state(&self) -> &Arc<BatchState> {
        self.rest.state.as_ref().expect("an open batch is not settled")
    }

    fn seal(mut self, home: &Arc<Accumulator>, partition: Option<i32>) -> Option<Batch> {
        let Some(sealed) = self.builder.seal(home.config.compression) else {
            // Nobody holds a handle to a batch without records.
            self.rest.state = None;
            home.budget.release(self.rest.charged);
            home.batch_resolved(self.rest.number);
            return None;
        };
        // Compressed bytes may take less memory than the open batch did.
        let holds = sealed.capacity_reserved();
        if holds < self.rest.charged {
            home.budget.release(self.rest.charged - holds);
        } else {
            home.budget.charge(holds - self.rest.charged);
        }
        self.rest.charged = holds;
        self.rest.records = sealed.records();
        Some(Batch {
            sealed,
            home: Arc::clone(home),
            partition,
            deadline: self.opened + home.config.delivery_timeout,
            tries: Tries::default(),
            rest: self.rest,
        })
    }
}

impl TopicBatches {
    fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::from(name),
            partitions: AtomicI32::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            shards: std::array::from_fn(|_| Slot::new(None)),
            pinned: RwLock::default(),
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

    fn slot(&self, partition: Option<i32>) -> Arc<Slot> {
        let partition = partition.expect("a slot is looked up for a named partition");
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
pub(crate) struct RunTag<'a> {
    pub(crate) sink: &'a Arc<dyn RunSink>,
    pub(crate) tag: u64,
    pub(crate) index: u32,
}

/// Bytes of a record besides its payload, generously: what the limits are checked with.
const RECORD_OVERHEAD: usize = 40;

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
        let topic = TopicBatches::new(name);
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
        match record.partition {
            None => self.append_in(topic, &topic.shards[shard()], record, size, run),
            Some(_) => {
                let slot = topic.slot(record.partition);
                self.append_in(topic, &slot, record, size, run)
            }
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
        let mut size = RECORD_OVERHEAD
            + record.key.map_or(0, <[u8]>::len)
            + record.value.map_or(0, <[u8]>::len);
        for (name, value) in record.headers {
            size += 10 + name.len() + value.map_or(0, <[u8]>::len);
        }
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
            let known = topic.partitions.load(Ordering::Relaxed);
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

    fn append_in(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        record: &Record<'_>,
        size: usize,
        run: Option<RunTag<'_>>,
    ) -> Result<Accepted, Error> {
        let mut guard = slot.lock();
        if !guard.takes(size, self.config.batch_size)
            && let Err(open) = self.make_room(topic, slot, &mut guard)
        {
            drop(guard);
            drop(open.seal(self, slot.partition));
            return Err(Error::closed("client"));
        }
        let open = guard.open.as_mut().expect("opened above");
        let (index, timestamp_ms) = self.write(open, record)?;
        let state = open.state();
        if let Some(run) = run {
            state.add_to_run(run.sink, run.tag, run.index, index, timestamp_ms);
        }
        Ok(Accepted { state: Arc::clone(state), index, timestamp_ms })
    }

    /// Opens a batch; one that is open is sealed. Gives the new one back if nobody is left to send
    /// it. Once per batch: kept out of the way of the records.
    #[cold]
    #[inline(never)]
    fn make_room(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        slot: &Arc<Slot>,
        inner: &mut SlotInner,
    ) -> Result<(), Box<OpenBatch>> {
        let ready = || Event::Ready(Arc::clone(self), Arc::clone(topic), Arc::clone(slot));
        if let Some(open) = inner.open.take() {
            inner.full.extend(open.seal(self, slot.partition));
            let _ = self.events.send(ready());
            inner.announced = true;
        }
        let open = self.open_batch();
        if !inner.announced && self.events.send(ready()).is_err() {
            return Err(Box::new(open));
        }
        inner.announced = true;
        inner.open = Some(open);
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
                if !guard.takes(size, self.config.batch_size)
                    && let Err(open) = self.make_room(topic, slot, &mut guard)
                {
                    drop(guard);
                    drop(open.seal(self, slot.partition));
                    return Err(Error::closed("client"));
                }
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
    fn open_batch(self: &Arc<Self>) -> OpenBatch {
        let number = self.next_batch.fetch_add(1, Ordering::AcqRel);
        self.unresolved.lock().unwrap_or_else(|e| e.into_inner()).insert(number);
        OpenBatch {
            builder: BatchBuilder::new(self.pool.clone()),
            opened: self.env.now(),
            opened_ms: self.env.wall_ms(),
            rest: Unresolved {
                home: Arc::clone(self),
                state: Some(Arc::default()),
                number,
                charged: 0,
                records: 0,
            },
        }
    }

    fn batch_resolved(&self, number: u64) {
        self.unresolved.lock().unwrap_or_else(|e| e.into_inner()).remove(&number);
        self.resolved.notify_waiters();
    }

    /// Everything accepted before the call is resolved when this returns.
    pub(crate) async fn flush(&self) {
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
            for slot in topic.shards.iter().chain(pinned.values()) {
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
