//! Sending: a record is written once into an open batch ([`accumulator`]), the [`sender`] binds
//! batches to partitions and keeps them in order, and a batch's answer resolves all its records
//! at once ([`delivery`]).
//!
//! ```text
//! a record is taken            admission.rs, budget.rs, flush.rs
//!   into an open batch         accumulator.rs, shard.rs, recent.rs, topic_batches.rs, slot.rs; unrouted.rs
//! a batch waits                topics.rs, line.rs, sealing.rs
//!   gets a partition           assign.rs, choices.rs, leaders.rs
//!   and a sequence             gate.rs, partition.rs
//!   and goes out               requests.rs
//! what comes of it             answers.rs, tries.rs, split.rs, lookup.rs, endings.rs, other_cluster.rs
//!   is told to its records     resolution.rs, delivery.rs, states.rs; unread.rs
//! topics of long ago           release.rs
//! ```

mod accumulator;
mod admission;
mod answers;
mod assign;
#[cfg(feature = "bench-internals")]
pub(crate) mod bench;
mod budget;
mod choices;
mod delivery;
mod endings;
#[cfg(test)]
mod filling_tests;
mod flush;
mod gate;
mod leaders;
mod line;
mod lock;
mod lookup;
mod other_cluster;
mod partition;
mod producers;
mod recent;
mod record;
mod release;
mod requests;
mod resolution;
mod sealing;
mod sender;
mod shard;
mod slot;
mod split;
mod states;
mod topic_batches;
mod topics;
mod tries;
mod unread;
mod unrouted;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

pub use delivery::{BatchDelivery, Delivery};
pub(crate) use delivery::{RunResult, RunSink};
pub(crate) use producers::Producers;
pub(crate) use recent::forget as forget_recent;
pub use record::{Acked, BatchAcked, Record};
pub(crate) use unread::{Counted, Unread};

use accumulator::Accumulator;
use admission::size_of;
use budget::{Shares, Turn};
use delivery::RunTag;
use shard::Shard;

use crate::cluster::Handle;
use crate::config::foreign::Owner;
use crate::config::properties::{self, Properties, Value};
use crate::config::{Acks, InDoubt, Partitioner, ProducerConfig};
use crate::coop;
use crate::environment::BoxFuture;
use crate::error::{Error, ErrorKind, Result, Undelivered};
use crate::record::Compression;

/// Settings of a [`Producer`]; get one from [`Client::producer`](crate::Client::producer).
#[derive(Clone)]
#[must_use]
pub struct ProducerBuilder {
    pool: Handle,
    config: ProducerConfig,
    /// Why its properties were refused.
    refused: Option<Error>,
}

impl ProducerBuilder {
    pub(crate) fn new(pool: Handle) -> Self {
        Self { pool, config: ProducerConfig::default(), refused: None }
    }

    /// How long an open batch may wait for more records. 0 to 60 s, default 5 ms.
    ///
    /// It does not wait while its broker has nothing in flight and this process has made few requests of
    /// late: all producers of a client's process and cluster together may make 180 a second, of which up to
    /// 1,000 are saved up while fewer are made. Beyond that, records gather: until the next request may be
    /// made, for this long at most. Up to 20 ms while a broker's answers take much longer than they
    /// usually do. A batch that is full, that a flush or a full buffer waits for, or whose time is nearly up goes
    /// at once.
    ///
    /// So a program that waits for each record before it sends the next comes down to 180 records a second
    /// after the first thousand: let it send many before it waits, or use
    /// [`send_batch`](Producer::send_batch). 0 sends every batch at once whatever others do, which is a
    /// request to a broker for nearly every record, and costs it many times what records cost that are sent
    /// together; so does a flush after each record.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }

    /// Bytes of records, before compression, at which a batch is full. 1 KiB to 16 MiB, default
    /// 256 KiB. The topic's `max.message.bytes` bounds a batch as a whole.
    pub fn batch_size(mut self, bytes: usize) -> Self {
        self.config.batch_size = bytes;
        self
    }

    /// The codec of batches. Default: lz4 where it is built in.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// The codec of one topic's batches, instead of [`compression`](Self::compression).
    pub fn topic_compression(mut self, topic: impl Into<String>, compression: Compression) -> Self {
        self.config.topic_compression.insert(topic.into(), compression);
        self
    }

    /// How records that name no partition get one. Default: spread by load.
    pub fn partitioner(mut self, partitioner: Partitioner) -> Self {
        self.config.partitioner = partitioner;
        self
    }

    /// Who must have a record before it counts as acknowledged. Default: all in-sync replicas, idempotently.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.config.acks = acks;
        self
    }

    /// Where a batch whose records named no partition goes once nobody can tell whether it was written.
    /// Default: it waits where it was sent, and is written once.
    pub fn in_doubt(mut self, in_doubt: InDoubt) -> Self {
        self.config.in_doubt = in_doubt;
        self
    }

    /// Bytes that open and unacknowledged batches may hold. 1 MiB to 1 TiB, default 64 MiB. One topic (of
    /// records with a partition or a hashed key: one partition, and one broker) holds twice what all
    /// leave free at most, two thirds if it is alone: what takes nothing does not stop the rest.
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.config.buffer_memory = bytes;
        self
    }

    /// By when a record is acknowledged or fails, counted from its batch's first record. 10 ms to
    /// one day, default 120 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.config.delivery_timeout = timeout;
        self
    }

    /// How long a send may wait for buffer space. 0 to one day, default 60 s.
    pub fn max_block(mut self, timeout: Duration) -> Self {
        self.config.max_block = timeout;
        self
    }

    /// Largest record (key, value and headers) this producer takes. 1 B to 100 MiB, default 1 MiB
    /// (what a topic takes unless told otherwise).
    pub fn max_record_size(mut self, bytes: usize) -> Self {
        self.config.max_record_size = bytes;
        self
    }

    /// Takes the settings of a producer from properties as Java's client and librdkafka have them:
    /// `acks`, `linger.ms`, `batch.size`, `buffer.memory`, `compression.type` and its levels,
    /// `delivery.timeout.ms`, `max.block.ms`, `max.request.size`, `partitioner` and their aliases. Those of
    /// clients are passed over ([`ClientBuilder::from_properties`](crate::ClientBuilder::from_properties)).
    ///
    /// Settings that are not named keep Ottla's defaults: records with keys are spread too, unless
    /// [`partitioner`](Self::partitioner) is told otherwise.
    ///
    /// A consumer's property, a name that no client has, and one that asks for what is not done here,
    /// is refused by [`build`](Self::build) (`Config`), with what there is instead.
    pub fn from_properties<K: Into<String>, V: Into<String>>(
        self,
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.read_properties(&properties.into_iter().collect())
    }

    pub(crate) fn read_properties(mut self, properties: &Properties) -> Self {
        let settings = properties::read(Owner::Producer, properties);
        let taken = settings.and_then(|settings| {
            let config = &mut self.config;
            for (name, value) in settings {
                match (name, value) {
                    ("acks", Value::Acks(acks)) => config.acks = acks,
                    ("batch_size", Value::Size(bytes)) => config.batch_size = bytes,
                    ("buffer_memory", Value::Size(bytes)) => config.buffer_memory = bytes,
                    ("compression", Value::Compression(codec)) => config.compression = codec,
                    ("delivery_timeout", Value::Time(time)) => config.delivery_timeout = time,
                    ("linger", Value::Time(time)) => config.linger = time,
                    ("max_block", Value::Time(time)) => config.max_block = time,
                    ("max_record_size", Value::Size(bytes)) => config.max_record_size = bytes,
                    ("partitioner", Value::Partitioner(how)) => config.partitioner = how,
                    (name, _) => return Err(properties::not_taken(name)),
                }
            }
            Ok(())
        });
        self.refused = self.refused.or(taken.err());
        self
    }

    /// The producer. Producers with equal settings on one client share batches and memory; making
    /// one costs next to nothing.
    ///
    /// # Errors
    /// `Config` for a setting out of its range.
    pub fn build(self) -> Result<Producer> {
        self.pool.env().check_process()?;
        if let Some(error) = self.refused {
            return Err(error);
        }
        self.config.check()?;
        let home = self.pool.producers().home(&self.pool, &self.config);
        let shard = home.shards.first();
        let unread = Unread::new(Some(self.pool.producers().left()));
        let closed = AtomicBool::new(false);
        Ok(Producer(Arc::new(Inner { pool: self.pool, home, unread, closed }), shard))
    }
}

/// Sends records: idempotent, acknowledged by all in-sync replicas, spread over partitions by load.
/// Cheap to clone and to share between threads.
///
/// # Order
/// Records that are given to one handle one after the other stay in that order within a partition,
/// whichever threads or tasks give them: always in a topic of one partition, for a named partition, and for equal
/// keys with [`Partitioner::KeyHash`]; of records that are spread, a batch that had to move to another
/// partition may come behind later ones. A clone is a handle of its own, in no order with the others:
/// threads that send much have a clone each and do not wait for one another. Nor are records that name
/// their partition in an order with records that do not.
///
/// # Failures
/// A [`Delivery`] tells its record's outcome. [`flush`](Self::flush) and [`close`](Self::close) fail with
/// what failed and nobody looked at; when the last clone is dropped, a warning names the number. A handle
/// in a `static` is never dropped, and nothing waits for records when `main` returns: close or flush it
/// before.
///
/// ```
/// # use ottla::{Client, Record, testing::Cluster};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = Cluster::builder().topic("events", 3, 1).start()?;
/// # let bootstrap = broker.bootstrap();
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let client = Client::connect(&bootstrap).await?;
/// let producer = client.producer().build()?;
/// let delivery = producer.send(Record::to("events").value("hello")).await?; // has buffer space
/// let at = delivery.await?; // acknowledged
/// assert_eq!(at.offset, 0);
/// producer.flush().await?;
/// # Ok(()) })
/// # }
/// ```
pub struct Producer(Arc<Inner>, Shard);

impl Clone for Producer {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), self.0.home.shards.take())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.0.home.shards.give_back(self.1);
    }
}

struct Inner {
    /// Keeps the pool alive, and with it the sender.
    pool: Handle,
    home: Arc<Accumulator>,
    /// Records of this producer and its clones that failed and whose deliveries nobody has looked at.
    unread: Arc<Unread>,
    closed: AtomicBool,
}

impl Inner {
    fn leave(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.home.users.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.pool.env().alive_here() {
            self.leave();
            if let Some(lost) = self.unread.gone() {
                self.pool.producers().lost(self.pool.metrics().logs(), &lost);
            }
        } else {
            // A child's: not even dropped, since what is open in it would be resolved by that.
            std::mem::forget(Arc::clone(&self.home));
        }
    }
}

/// A [`Producer::send`]: ready as soon as there is space for the record, which is at once unless the
/// buffer is full. Written out and not an `async fn`, which would move the record several times.
#[must_use = "nothing is sent until it is awaited"]
pub struct Sending<'a> {
    producer: &'a Producer,
    record: Record<'a>,
    /// Where there was no space.
    waiting: Option<BoxFuture<'a, Result<Delivery>>>,
}

impl Future for Sending<'_> {
    type Output = Result<Delivery>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.waiting.is_none()
            && let Some(delivery) = this.producer.append_at_once(&this.record)
        {
            return Poll::Ready(Ok(delivery));
        }
        this.append_or_wait(cx)
    }
}

impl Sending<'_> {
    #[inline(never)]
    fn append_or_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<Delivery>> {
        let (producer, record) = (self.producer, self.record);
        if self.waiting.is_none() {
            ready!(coop::poll_turn(cx));
            match producer.append(&record) {
                Err(e) if e.kind() == ErrorKind::BufferFull => {}
                done => {
                    let units = match &done {
                        Ok(delivery) if !delivery.is_first() && record.headers.is_empty() => TURN,
                        _ => 1,
                    };
                    coop::spend(units);
                    return Poll::Ready(done);
                }
            }
        }
        let later = || -> BoxFuture<'_, _> { Box::pin(producer.send_later(record)) };
        self.waiting.get_or_insert_with(later).as_mut().poll(cx)
    }
}

/// What a record counts in a task's budget that comes here because a piece of its batch's memory is full:
/// those before it have gone in without being counted. The first of a batch may be all there is of it.
const TURN: u32 = 8;

/// Values that one lock is taken for.
const CHUNK: usize = 32;

impl Producer {
    /// Takes a record if there is buffer space now.
    ///
    /// # Errors
    /// `BufferFull` (would fit later), `RecordTooLarge`, `UnknownPartition`, `InvalidArgument`,
    /// `UnknownTopic` (asked a moment ago), or `Closed`. The record is the caller's still, since a
    /// [`Record`] is `Copy` and borrows everything:
    ///
    /// ```
    /// # use ottla::{Delivery, ErrorKind, Producer, Record, Result};
    /// # async fn example(producer: &Producer) -> Result<Delivery> {
    /// let record = Record::to("events").value("hello");
    /// match producer.try_send(record) {
    ///     Err(e) if e.kind() == ErrorKind::BufferFull => producer.send(record).await,
    ///     done => done,
    /// }
    /// # }
    /// ```
    #[inline]
    pub fn try_send(&self, record: Record<'_>) -> Result<Delivery> {
        match self.append_at_once(&record) {
            Some(delivery) => Ok(delivery),
            None => self.append(&record),
        }
    }

    /// Takes a record, waiting for buffer space (`max_block` at most) and for nothing else. Dropping
    /// the future before it is ready means that the record was not taken.
    ///
    /// # Errors
    /// `BufferFull` after `max_block`; `RecordTooLarge`, `UnknownPartition`, `InvalidArgument`,
    /// `UnknownTopic`, `Closed` at once.
    #[inline]
    pub fn send<'a>(&'a self, record: Record<'a>) -> Sending<'a> {
        Sending { producer: self, record, waiting: None }
    }

    async fn send_later(&self, record: Record<'_>) -> Result<Delivery> {
        let deadline = self.deadline();
        loop {
            let shares = self.0.home.shares(self.1, &record)?;
            let turn = self.space(&shares, size_of(&record), deadline).await?;
            self.check_open()?;
            match self.0.home.append_in_turn(self.1, &record, &self.0.unread, &turn) {
                // Somebody who does not wait in line was quicker.
                Err(e) if e.kind() == ErrorKind::BufferFull => {}
                done => return done,
            }
        }
    }

    /// Takes many values for one topic; one handle for all.
    ///
    /// # Errors
    /// As [`send`](Self::send). Values before the one that failed are on their way.
    pub async fn send_batch<V: AsRef<[u8]>>(
        &self,
        topic: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Result<BatchDelivery> {
        let mut all = BatchDelivery::default();
        let mut values = values.into_iter().fuse();
        loop {
            coop::turn().await;
            coop::spend(1);
            // Taken from the caller's iterator first: its code must not run under a batch's lock.
            let chunk: [Option<V>; CHUNK] = std::array::from_fn(|_| values.next());
            let given = chunk.iter().flatten().count();
            let slices: [&[u8]; CHUNK] =
                std::array::from_fn(|i| chunk[i].as_ref().map_or(&[][..], V::as_ref));
            let mut left = &slices[..given];
            let mut deadline = None;
            let shares = self.0.home.shares(self.1, &Record::to(topic))?;
            let mut turn = None;
            while !left.is_empty() {
                self.check_open()?;
                let home = &self.0.home;
                let sender = &self.0.unread;
                let (taken, result) =
                    home.append_values(self.1, topic, left, sender, turn.as_ref(), &mut all);
                left = &left[taken..];
                match result {
                    Err(e) if e.kind() == ErrorKind::BufferFull => {
                        let deadline = *deadline.get_or_insert_with(|| self.deadline());
                        let record = Record::to(topic).value_opt(left.first().copied());
                        drop(turn.take());
                        turn = Some(self.space(&shares, size_of(&record), deadline).await?);
                    }
                    done => done?,
                }
            }
            if given < CHUNK {
                break;
            }
        }
        Ok(all)
    }

    /// Waits until everything taken before is acknowledged or has failed. Nothing lingers
    /// meanwhile. Ends by the delivery timeout at the latest.
    ///
    /// # Errors
    /// `Undelivered` if records of this producer, or of a clone, failed since the last report and
    /// nobody has looked at that: how many, the first error and the topics are told by
    /// [`Error::undelivered`], once. A [`Delivery`] whose failure was read is not among them; a task that
    /// waits for one at this moment is given a chance to. `Closed` if the producer is closed.
    pub async fn flush(&self) -> Result<()> {
        self.check_open()?;
        self.0.pool.env().check_process()?;
        coop::turn().await;
        coop::spend(1);
        self.0.home.flush().await;
        self.0.unread.report(&self.0.home.env).await
    }

    /// Takes no more records, and waits until what was taken is resolved. What is not by `timeout`
    /// resolves with an error that says whether it may have been written; only if other open
    /// producers share its batches (equal settings, one client) does it stay on its way, until its
    /// delivery timeout. Closing again waits for what is left, if anything.
    ///
    /// # Errors
    /// `Timeout` if something was left; `Undelivered` as a [`flush`](Self::flush) has it. Either tells by
    /// [`Error::undelivered`] what failed and nobody has looked at.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        self.0.pool.env().check_process()?;
        // A close that was cancelled half-way can be repeated; one that is done finds nothing left.
        self.0.leave();
        let home = &self.0.home;
        let sleep = home.env.sleep(timeout);
        tokio::select! {
            biased;
            () = home.flush() => return self.0.unread.report(&home.env).await,
            () = sleep => {}
        }
        let left = home.outstanding();
        let error = Error::timeout(format_args!("closing with {left} batches unresolved"), timeout);
        let error = self.explain(error);
        if self.0.pool.producers().is_left(home) {
            home.abandon(&error);
            home.flush().await;
        }
        Err(error.with_undelivered(self.0.unread.take_later(&home.env).await))
    }

    /// A report on the records that failed since the last one and that nobody has looked at. For bindings.
    pub(crate) fn take_unread(&self) -> Option<Undelivered> {
        // A parent's are not a child's to tell, and its locks may be held for ever.
        if self.0.pool.env().alive_here() { self.0.unread.take() } else { None }
    }

    /// By what producers can be told apart that share batches, and how many records are in those that
    /// are not resolved. For bindings.
    pub(crate) fn unresolved_records(&self) -> (u64, usize) {
        let home = &self.0.home;
        let here = self.0.pool.env().alive_here();
        (home.id, if here { home.unresolved_records() } else { 0 })
    }

    /// Calls `then` once everything taken so far is resolved. For bindings.
    pub(crate) fn when_resolved(&self, then: impl FnOnce() + Send + 'static) {
        let (env, home) = (self.0.pool.env(), Arc::clone(&self.0.home));
        if env.alive_here() {
            env.spawn(async move {
                home.flush().await;
                drop(home);
                then();
            });
        }
    }

    /// Whoever uses it tells itself of what is left when it is dropped. For bindings.
    pub(crate) fn told(&self) {
        self.0.pool.producers().told();
    }

    /// The error of a wait that ended in vain, with what was in its way.
    pub(crate) fn explain(&self, error: Error) -> Error {
        self.0.pool.explain_by_any(error)
    }

    fn check_open(&self) -> Result<()> {
        if self.0.closed.load(Ordering::Acquire) { Err(Error::closed("producer")) } else { Ok(()) }
    }

    #[inline]
    fn append_at_once(&self, record: &Record<'_>) -> Option<Delivery> {
        if self.0.closed.load(Ordering::Acquire) {
            return None;
        }
        self.0.home.append_at_once(self.1, record, &self.0.unread)
    }

    fn append(&self, record: &Record<'_>) -> Result<Delivery> {
        self.check_open()?;
        self.0.home.append(self.1, record, &self.0.unread)
    }

    fn deadline(&self) -> tokio::time::Instant {
        self.0.home.env.now() + self.0.home.config.max_block
    }

    /// Waits in line for space.
    async fn space<'a>(
        &'a self,
        shares: &'a Shares,
        bytes: usize,
        deadline: tokio::time::Instant,
    ) -> Result<Turn<'a>> {
        let home = &self.0.home;
        home.env.check_process()?;
        let sleep = home.env.sleep_until(deadline);
        tokio::select! {
            biased;
            turn = home.budget.turn(shares, bytes) => Ok(turn),
            () = sleep => Err(Error::new(
                ErrorKind::BufferFull,
                format!(
                    "buffer_memory ({} bytes) stayed full for {:?}",
                    home.config.buffer_memory, home.config.max_block
                ),
            )),
        }
    }

    /// Appends records in order without waiting and stops at the first that is not taken: with
    /// `BufferFull` it would be later. What is taken is reported to `sink` in runs. For bindings.
    pub(crate) fn submit_run<'r>(
        &self,
        sink: &Arc<dyn RunSink>,
        tag: u64,
        first: u32,
        records: &mut dyn Iterator<Item = Record<'r>>,
    ) -> (usize, Option<Error>) {
        let mut taken = 0;
        for record in records {
            let run = RunTag { sink, tag, index: first + taken as u32 };
            match self.check_open().and_then(|()| self.0.home.append_run(self.1, &record, run)) {
                Ok(()) => taken += 1,
                Err(e) => return (taken, Some(e)),
            }
        }
        (taken, None)
    }

    /// How often buffer space was given back. For bindings.
    pub(crate) fn releases(&self) -> u64 {
        self.0.home.budget.releases()
    }

    /// Resolves when so much buffer space is free, and some was given back since there had been `before`
    /// releases: what is free may not be for everyone. For bindings.
    pub(crate) fn space_free(
        &self,
        bytes: usize,
        before: u64,
    ) -> impl Future<Output = ()> + Send + 'static {
        let home = Arc::clone(&self.0.home);
        async move {
            let nobodys = Shares { own: Arc::default(), broker: None };
            drop(home.budget.turn(&nobodys, bytes).await);
            home.budget.released_since(before).await;
        }
    }
}
