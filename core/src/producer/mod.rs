//! Sending: a record is written once into an open batch ([`accumulator`]), the [`sender`] binds batches to
//! partitions and keeps them in order, and a batch's response resolves all its records at once ([`delivery`]).
//! The modules, from the handle down; each uses only those below it. The last column says which threads run it:
//!
//! ```text
//! this module   the handle: a call is accepted, or waits for memory        callers
//! registry      which producers share an accumulator and a sender          callers, engine
//! sender        partition, sequence, request, response, retry, expiry      engine
//! accumulator   open batches, queues of full ones, flush                   callers, engine, workers
//! batch         records, their ledger, attempts, taking a batch apart      callers, engine, workers
//! delivery      results and handles, failures that nobody has looked at    callers, engine, workers
//! memory        the budget of unacknowledged bytes, and who holds how many all of them
//! ```

mod accumulator;
mod batch;
#[cfg(feature = "bench-internals")]
pub(crate) mod bench;
mod builder;
mod delivery;
mod memory;
mod record;
mod registry;
mod sender;
mod sending;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Handle;
use crate::coop;
use crate::error::{Error, ErrorKind, Result, Undelivered};

use accumulator::{Accumulator, Shard, size_of};
use batch::Books;
use delivery::RunTag;

pub(crate) use accumulator::forget as forget_recent;
pub use builder::ProducerBuilder;
pub use delivery::{BatchDelivery, Delivery};
pub(crate) use delivery::{Counted, RunResult, RunSink, Unread};
pub use record::{Acked, BatchAcked, Record};
pub(crate) use registry::Registry;
pub use sending::Sending;

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
/// [`Partitioner::KeyHash`]: crate::Partitioner::KeyHash
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
pub struct Producer {
    inner: Arc<Inner>,
    /// Tells which of a topic's open batches this handle fills.
    shard: Shard,
}

impl Clone for Producer {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), shard: self.inner.accumulator.shards().take() }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.inner.accumulator.shards().give_back(self.shard);
    }
}

struct Inner {
    /// Keeps the pool alive, and with it the sender.
    pool: Handle,
    accumulator: Arc<Accumulator>,
    /// Records of this producer and its clones that failed and whose deliveries nobody has looked at.
    unread: Arc<Unread>,
    closed: AtomicBool,
}

impl Inner {
    fn leave(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.accumulator.left();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.pool.env().alive_here() {
            self.leave();
            if let Some(lost) = self.unread.gone() {
                Registry::of(&self.pool).lost(self.pool.metrics().logs(), &lost);
            }
        } else {
            // In a forked child: not even dropped, since that would resolve the parent's open batches.
            std::mem::forget(Arc::clone(&self.accumulator));
        }
    }
}

/// `send_batch` copies up to this many values under one lock of the batch queue.
const CHUNK: usize = 32;

impl Producer {
    /// Takes a record if there is buffer space now.
    ///
    /// # Errors
    /// `BufferFull` (would fit later), `RecordTooLarge`, `UnknownPartition`, `InvalidArgument`, `UnknownTopic`
    /// (a broker said so within the last second), or `Closed`. The record is the caller's still, since a
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
        self.send_until(record, self.space_deadline()).await
    }

    /// Until when a caller that begins to wait for buffer space now may wait. For bindings.
    pub(crate) fn space_deadline(&self) -> Instant {
        self.inner.accumulator.space_deadline()
    }

    /// As [`send`](Self::send), for who has waited for its turn already. For bindings.
    pub(crate) async fn send_until(
        &self,
        record: Record<'_>,
        deadline: Instant,
    ) -> Result<Delivery> {
        self.check_open()?;
        loop {
            let accumulator = &self.inner.accumulator;
            let quotas = accumulator.quotas(self.shard, &record)?;
            let permit = accumulator.space(&quotas, size_of(&record), deadline).await?;
            self.check_open()?;
            match accumulator.append_with_permit(self.shard, &record, &self.inner.unread, &permit) {
                // A caller that does not wait in the line (a binding) took the memory first: wait again.
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
            let quotas = self.inner.accumulator.quotas(self.shard, &Record::to(topic))?;
            let mut permit = None;
            while !left.is_empty() {
                self.check_open()?;
                let accumulator = &self.inner.accumulator;
                let producer = &self.inner.unread;
                let (taken, result) = accumulator.append_values(
                    self.shard,
                    topic,
                    left,
                    producer,
                    permit.as_ref(),
                    &mut all,
                );
                left = &left[taken..];
                match result {
                    Err(e) if e.kind() == ErrorKind::BufferFull => {
                        let deadline =
                            *deadline.get_or_insert_with(|| accumulator.space_deadline());
                        let record = Record::to(topic).value_opt(left.first().copied());
                        drop(permit.take());
                        permit =
                            Some(accumulator.space(&quotas, size_of(&record), deadline).await?);
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
        self.inner.pool.env().check_process()?;
        coop::turn().await;
        coop::spend(1);
        self.inner.accumulator.flush().await;
        self.inner.unread.report(self.inner.pool.env()).await
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
        self.inner.pool.env().check_process()?;
        // A close that was cancelled half-way can be repeated; one that is done finds nothing left.
        self.inner.leave();
        let (env, accumulator) = (self.inner.pool.env(), &self.inner.accumulator);
        let sleep = env.sleep(timeout);
        tokio::select! {
            biased;
            () = accumulator.flush() => return self.inner.unread.report(env).await,
            () = sleep => {}
        }
        let left = accumulator.outstanding();
        let error = Error::timeout(format_args!("closing with {left} batches unresolved"), timeout);
        let error = self.explain(error);
        if Registry::of(&self.inner.pool).is_left(accumulator) {
            accumulator.abandon(&error);
            accumulator.flush().await;
        }
        Err(error.with_undelivered(self.inner.unread.take_later(env).await))
    }

    /// A report on the records that failed since the last one and that nobody has looked at. For bindings.
    pub(crate) fn take_unread(&self) -> Option<Undelivered> {
        // A parent's are not a child's to tell, and its locks may be held for ever.
        if self.inner.pool.env().alive_here() { self.inner.unread.take() } else { None }
    }

    /// A number that is equal for producers that share batches, and how many of their records are not resolved.
    /// For bindings.
    pub(crate) fn unresolved_records(&self) -> (u64, usize) {
        let accumulator = &self.inner.accumulator;
        let here = self.inner.pool.env().alive_here();
        (accumulator.id(), if here { accumulator.unresolved_records() } else { 0 })
    }

    /// Calls `then` once everything taken so far is resolved. For bindings.
    pub(crate) fn when_resolved(&self, then: impl FnOnce() + Send + 'static) {
        let (env, accumulator) = (self.inner.pool.env(), Arc::clone(&self.inner.accumulator));
        if env.alive_here() {
            env.spawn(async move {
                accumulator.flush().await;
                drop(accumulator);
                then();
            });
        }
    }

    /// The binding itself reports records that are unacknowledged at the end, so the pool logs no warning about
    /// them. For bindings.
    pub(crate) fn told(&self) {
        Registry::of(&self.inner.pool).told();
    }

    /// The error of a wait that ended in vain, with what was in its way.
    pub(crate) fn explain(&self, error: Error) -> Error {
        self.inner.pool.explain_by_any(error)
    }

    fn check_open(&self) -> Result<()> {
        if self.inner.closed.load(Ordering::Acquire) {
            Err(Error::closed("producer"))
        } else {
            Ok(())
        }
    }

    #[inline]
    fn append_at_once(&self, record: &Record<'_>) -> Option<Delivery> {
        if self.inner.closed.load(Ordering::Acquire) {
            return None;
        }
        self.inner.accumulator.append_at_once(self.shard, record, &self.inner.unread)
    }

    fn append(&self, record: &Record<'_>) -> Result<Delivery> {
        self.check_open()?;
        self.inner.accumulator.append(self.shard, record, &self.inner.unread)
    }

    /// Appends records of one topic in order without waiting and stops at the first that is not taken: with
    /// `BufferFull` it would be later. What is taken is reported to `sink` in runs. For bindings.
    pub(crate) fn submit_run<'a>(
        &self,
        sink: &'a Arc<dyn RunSink>,
        tag: u64,
        records: impl Iterator<Item = Record<'a>>,
    ) -> (usize, Option<Error>) {
        if let Err(error) = self.check_open() {
            return (0, Some(error));
        }
        let run = RunTag { sink, tag, index: 0 };
        let (taken, result) = self.inner.accumulator.append_submission(self.shard, run, records);
        (taken, result.err())
    }

    /// How often buffer space was given back. For bindings.
    pub(crate) fn releases(&self) -> u64 {
        self.inner.accumulator.releases()
    }

    /// Resolves when `bytes` of buffer space are free, and some memory was released since there had been
    /// `before` releases: free memory may lie in the quota of others. For bindings.
    pub(crate) fn space_free(
        &self,
        bytes: usize,
        before: u64,
    ) -> impl Future<Output = ()> + Send + 'static {
        let accumulator = Arc::clone(&self.inner.accumulator);
        async move { accumulator.space_free(bytes, before).await }
    }
}
