//! Reading: one task per consumer fetches ahead ([`fetcher`]), within a byte budget, into a buffer
//! ([`buffer`]). The application takes batches that borrow the fetched bytes. Checksums are compared, and
//! batches decompressed, on the thread that takes them.

mod batch;
mod budget;
mod buffer;
mod builder;
mod claim;
mod control;
mod decode;
mod event;
mod fetch;
mod fetcher;
pub(crate) mod group;
mod marks;
mod partition_stream;
mod position;
mod reading;
mod slot;
mod stream;
mod workers;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;

use crate::cluster::Handle;
use crate::config::Start;
use crate::coop;
use crate::error::Result;
use crate::fork::Origin;

use buffer::Buffer;

pub use batch::{Batch, Records};
pub use builder::ConsumerBuilder;
pub(crate) use claim::Claim;
pub use claim::Standing;
pub use control::ConsumerControl;
pub use event::Event;
use group::task::Contact;
pub use group::{Assignor, Commit, GroupProtocol};
pub(crate) use marks::{Marks, Span};
pub use partition_stream::{PartitionStream, StreamEnd};
pub use stream::{BatchRecord, RecordStream};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Its number, from 0.
    pub partition: i32,
}

/// Reads records of partitions it is told to read. `Send`; a `Stream` of batches.
///
/// ```
/// # use ottla::{Client, Record, testing::Cluster};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = Cluster::builder().topic("events", 3, 1).start()?;
/// # let bootstrap = broker.bootstrap();
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let client = Client::connect(&bootstrap).await?;
/// # client.producer().build()?.send(Record::to("events").value("hello")).await?.await?;
/// let mut consumer = client.consumer().topics(["events"]).build()?;
/// while let Some(batch) = consumer.next().await.transpose()? {
///     for record in &batch {
///         println!("{}: {:?}", record.offset(), record.value());
///     }
///     # break;
/// }
/// # Ok(()) })
/// # }
/// ```
pub struct Consumer {
    pool: Handle,
    buffer: Arc<Buffer>,
    /// Of a member of a group.
    member: Option<Member>,
    /// What was taken and not done: see [`workers`].
    kept: VecDeque<Batch>,
}

/// The application's side of a membership.
struct Member {
    contact: Contact,
    /// What was handed out last counts as done once the next is asked for.
    marks: bool,
    in_hand: Option<(Arc<Claim>, Span)>,
    /// Closed when its task has ended.
    ended: watch::Receiver<()>,
}

/// This many records of a batch count as one unit of a task's budget (see `coop`), and a batch counts as
/// [`MOST_UNITS`] at most: the time to open it, and to work on it, grows with its size.
const RECORDS_A_UNIT: usize = 64;
const MOST_UNITS: u32 = 16;

/// The number of who takes all that a consumer reads (see `buffer::wakers`).
const WHO: u64 = 0;

impl Consumer {
    /// The next batch: records of one partition in order. `None` after [`close`](Self::close).
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// Reading is tried again as long as the consumer exists. An error is told once for
    /// each spell of trouble, and reading goes on by itself: `UnknownTopic` and `Authorization` at once;
    /// any other code of a broker when it has lasted for 10 s; a broker that was never reached within the
    /// time a connection may take; one that can be reached and does not answer (`Timeout`,
    /// `Disconnected`) 10 s after [`max_wait`](ConsumerBuilder::max_wait), or as its connections have
    /// ended on it for 10 s. If it answered before, that is an outage at first, which is only logged, and
    /// told when a second fetch has gone the same way. `Corrupt` and `UnsupportedCodec`: the batch is passed over, or, where
    /// not even its header can be read, the partition stops until a [`seek`](Self::seek). `Internal` if
    /// the engine has panicked, after which the consumer may be at its end.
    ///
    /// `Truncated` tells that what was read is not what is in the log now. After an unclean election
    /// reading goes on where both part; a topic that was deleted and made anew is read from its first
    /// record (partitions of [`assign`](ConsumerBuilder::assign) from the same time, if that is how they
    /// began). `OffsetOutOfRange` tells that the records at the position are gone, or never were: reading goes on
    /// at [`start`](ConsumerBuilder::start), and what lies between is not read. Both come behind all that was
    /// fetched before. Only partitions that were begun at an offset of the application's stop until a
    /// seek.
    ///
    /// Topics take turns of 64 KiB, and so do the partitions of each: one that always has records leaves the others
    /// their share. Errors that concern no single partition come first.
    pub async fn next(&mut self) -> Option<Result<Batch>> {
        let waits = Waits::new(self);
        std::future::poll_fn(|cx| waits.0.poll_next(cx)).await
    }

    /// A batch that is there already.
    pub fn try_next(&mut self) -> Option<Result<Batch>> {
        if let Err(forked) = self.pool.env().check_process() {
            return Some(Err(forked));
        }
        self.lets_go();
        if let Some(kept) = self.take_kept(|_| true) {
            self.takes(Some(&kept));
            return Some(Ok(kept));
        }
        let taken = self.buffer.take(&self.pool);
        if taken.is_none() && self.member.is_some() {
            self.buffer.waits_no_more();
        }
        self.takes(taken.as_ref().and_then(|taken| taken.as_ref().ok()));
        taken
    }

    /// As [`next`](Self::next), for those who poll. Where this was pending, a member of a group counts as waiting until it is polled
    /// again and given something, or is dropped: nobody can tell here whether a waker is still waited with. So does a
    /// `Stream`: who gives up waits (a timeout, a `select!`) uses [`next`](Self::next), which says so when its future is
    /// dropped. Else a program that hangs after such a wait keeps its partitions.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Batch>>> {
        self.poll_next_until(&[], cx)
    }

    /// As [`next_until`](Self::next_until), for those who poll.
    pub fn poll_next_until(
        &mut self,
        ends: &[(TopicPartition, i64)],
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Batch>>> {
        if let Err(forked) = self.pool.env().check_process() {
            return Poll::Ready(Some(Err(forked)));
        }
        ready!(coop::poll_turn(cx));
        let next = ready!(self.poll_alone(ends, cx));
        spend(next.as_ref().and_then(|next| next.as_ref().ok()));
        Poll::Ready(next)
    }

    /// The same, for a thread that waits for nothing else. For bindings.
    pub(crate) fn poll_alone(
        &mut self,
        ends: &[(TopicPartition, i64)],
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Batch>>> {
        self.lets_go();
        if let Some(kept) = self.take_kept(|_| true) {
            self.takes(Some(&kept));
            return Poll::Ready(Some(Ok(kept)));
        }
        let next = ready!(self.buffer.poll_take_until(WHO, ends, &self.pool, cx));
        self.takes(next.as_ref().and_then(|next| next.as_ref().ok()));
        Poll::Ready(next)
    }

    /// The same, and asking says nothing of what was handed out before, nor of this.
    fn poll_unmarked(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Batch>>> {
        if let Err(forked) = self.pool.env().check_process() {
            return Poll::Ready(Some(Err(forked)));
        }
        ready!(coop::poll_turn(cx));
        let next = ready!(self.buffer.poll_take_until(WHO, &[], &self.pool, cx));
        spend(next.as_ref().and_then(|next| next.as_ref().ok()));
        Poll::Ready(next)
    }

    /// Whether asking for the next says that the one before is done.
    pub(crate) fn marks_by_asking(&self) -> bool {
        self.member.as_ref().is_some_and(|member| member.marks)
    }

    /// Asking for the next says nothing of the one before: the host keeps by itself what is done, and acknowledges it.
    pub(crate) fn leaves_marks_to_host(&mut self) {
        if let Some(member) = &mut self.member {
            member.marks = false;
        }
    }

    /// A wait has ended without anything: the application has to come back within the max poll interval.
    pub(crate) fn waits_no_more(&self) {
        if self.member.is_some() && self.pool.env().alive_here() {
            self.buffer.waits_no_more();
        }
    }

    /// Closed when a member of a group has left it.
    pub(crate) fn departure(&self) -> Option<watch::Receiver<()>> {
        self.member.as_ref().map(|member| member.ended.clone())
    }

    /// The application asks for the next: what it had in hand is done.
    fn lets_go(&mut self) {
        let Some(member) = &mut self.member else { return };
        if let Some((claim, span)) = member.in_hand.take()
            && let Some(marks) = claim.marks()
        {
            marks.done(&span, span.next);
        }
    }

    fn takes(&mut self, batch: Option<&Batch>) {
        if let (Some(member), Some(batch)) = (&mut self.member, batch)
            && let (true, Some(span)) = (member.marks, &batch.span)
        {
            member.in_hand = Some((Arc::clone(&batch.claim), span.clone()));
        }
    }

    /// The next batch of a group's consumer, or what the group says: partitions that come and go. Who uses
    /// [`next`](Self::next) instead leaves that to the consumer. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of [`next`](Self::next).
    pub async fn next_event(&mut self) -> Option<Result<Event>> {
        let waits = Waits::new(self);
        std::future::poll_fn(|cx| waits.0.poll_next_event(cx)).await
    }

    /// As [`next_event`](Self::next_event), for those who poll.
    pub fn poll_next_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        if let Err(forked) = self.pool.env().check_process() {
            return Poll::Ready(Some(Err(forked)));
        }
        ready!(coop::poll_turn(cx));
        self.lets_go();
        if let Some(kept) = self.take_kept(|_| true) {
            self.takes(Some(&kept));
            return Poll::Ready(Some(Ok(Event::Batch(kept))));
        }
        let next = ready!(self.buffer.poll_take(WHO, (&[], true), &self.pool, cx));
        let batch = match &next {
            Some(Ok(Event::Batch(batch))) => Some(batch.clone()),
            _ => None,
        };
        spend(batch.as_ref());
        self.takes(batch.as_ref());
        Poll::Ready(next)
    }

    /// Commits what is done, and waits until the group has it.
    ///
    /// # Errors
    /// `InvalidArgument` without a group; the broker's; `Fenced` once the membership is lost, `Closed` after
    /// [`close`](Self::close).
    pub async fn commit(&self) -> Result<()> {
        self.control().commit().await
    }

    /// Commits these offsets (of the next record to read), whatever is done, and waits until the group has them.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); `InvalidArgument` for an offset below zero.
    pub async fn commit_to<'a>(
        &self,
        offsets: impl IntoIterator<Item = (&'a str, i32, i64)>,
    ) -> Result<()> {
        self.control().commit_to(offsets).await
    }

    /// Reads these topics from now on, with the other members of the group. Patterns are those of
    /// [`ConsumerBuilder::topics`].
    ///
    /// # Errors
    /// `InvalidArgument` for what is neither a topic name nor a pattern, for none, and without a group; `Closed` after [`close`](Self::close).
    pub fn subscribe<T: Into<String>>(&self, topics: impl IntoIterator<Item = T>) -> Result<()> {
        self.control().subscribe(topics)
    }

    /// The next batch, of whatever partition, until each of these partitions has reached an offset: `None`
    /// then, and after [`close`](Self::close). Dropping the future loses nothing.
    ///
    /// That is how to read up to an end that was looked up before. A loop of one's own over
    /// [`position`](Self::position) and [`next`](Self::next) would wait for ever where the last offsets hold nothing
    /// that is handed out (markers of transactions, what compaction has removed): the position passes those
    /// without a batch.
    ///
    /// A partition that is not read, or not known yet, has not reached anything. With no partition named this
    /// is [`next`](Self::next).
    ///
    /// # Errors
    /// Those of [`next`](Self::next).
    ///
    /// ```
    /// # use ottla::{Client, OffsetSpec, Record, testing::Cluster};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = Cluster::builder().topic("events", 1, 1).start()?;
    /// # let bootstrap = broker.bootstrap();
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let client = Client::connect(&bootstrap).await?;
    /// # client.producer().build()?.send(Record::to("events").value("hello")).await?.await?;
    /// let mut ends = Vec::new();
    /// for (partition, end) in client.admin().list_offsets([("events", 0, OffsetSpec::Latest)]).await? {
    ///     ends.push((partition, end?));
    /// }
    /// let mut consumer = client.consumer().topics(["events"]).build()?;
    /// let mut records = 0;
    /// while let Some(batch) = consumer.next_until(&ends).await.transpose()? {
    ///     records += batch.len();
    /// }
    /// # assert_eq!((records, consumer.lag("events", 0)), (1, Some(0)));
    /// # Ok(()) })
    /// # }
    /// ```
    pub async fn next_until(&mut self, ends: &[(TopicPartition, i64)]) -> Option<Result<Batch>> {
        let waits = Waits::new(self);
        std::future::poll_fn(|cx| waits.0.poll_next_until(ends, cx)).await
    }

    /// A handle to ask and steer it from elsewhere while somebody waits for records.
    pub fn control(&self) -> ConsumerControl {
        let contact = self.member.as_ref().map(|member| member.contact.clone());
        ConsumerControl { buffer: Arc::clone(&self.buffer), contact, origin: Origin::here() }
    }

    /// The offset after all that was handed out of a partition, or passed over because it is not handed out (markers of
    /// transactions, what compaction has removed). Before the first record where reading begins, once that is
    /// known; `None` until then, and for a partition that is not read.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.pool.env().check_process().ok()?;
        self.buffer.position(topic, partition)
    }

    /// How many offsets lie between the position of a partition and its end (its high watermark), as its leader told
    /// that with the last fetch: nobody is asked. `None` until both are known, and for a partition that is not
    /// read. Offsets without records count: 0 is the end, more is a bound.
    ///
    /// While a partition is paused its end is not heard of.
    pub fn lag(&self, topic: &str, partition: i32) -> Option<i64> {
        self.pool.env().check_process().ok()?;
        self.buffer.lag(topic, partition)
    }

    /// Hands out nothing of these partitions, from when this returns, until they are [resumed](Self::resume), or a group
    /// takes them away (which a rebalance does for a moment if an assignor is not cooperative). What
    /// was fetched of them is kept, within [`buffer_memory`](ConsumerBuilder::buffer_memory), and nothing more is
    /// fetched. All of them are paused or, after an error, none. Pausing again does nothing.
    ///
    /// # Errors
    /// `UnknownPartition` if one is not read, `Closed` after [`close`](Self::close).
    ///
    /// ```
    /// # use ottla::{Client, Record, Start, testing::Cluster};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = Cluster::builder().topic("events", 2, 1).start()?;
    /// # let bootstrap = broker.bootstrap();
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let client = Client::connect(&bootstrap).await?;
    /// # let producer = client.producer().build()?;
    /// # producer.send(Record::to("events").partition(1).value("hello")).await?.await?;
    /// let mut consumer = client.consumer().assign([("events", 0, Start::Earliest)]).build()?;
    /// consumer.assign([("events", 1, Start::Earliest)])?;
    /// // What goes with partition 0 is not ready yet.
    /// consumer.pause([("events", 0)])?;
    /// let batch = consumer.next().await.transpose()?;
    /// # assert_eq!(batch.unwrap().partition(), 1);
    /// // All that are paused go on.
    /// let paused = consumer.paused();
    /// consumer.resume(paused.iter().map(|part| (&*part.topic, part.partition)))?;
    /// # assert!(consumer.paused().is_empty());
    /// # Ok(()) })
    /// # }
    /// ```
    pub fn pause<'a>(&self, partitions: impl IntoIterator<Item = (&'a str, i32)>) -> Result<()> {
        self.control().pause(partitions)
    }

    /// Hands these partitions out again, from where they were.
    ///
    /// # Errors
    /// Those of [`pause`](Self::pause).
    pub fn resume<'a>(&self, partitions: impl IntoIterator<Item = (&'a str, i32)>) -> Result<()> {
        self.control().resume(partitions)
    }

    /// The partitions that are paused.
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.control().paused()
    }

    /// Reads these partitions, too. One that is read already goes on at its start, as after a [`seek`](Self::seek). One
    /// that does not exist is told once (`UnknownPartition` or `UnknownTopic` from [`next`](Self::next)), and
    /// read when it does.
    ///
    /// # Errors
    /// `InvalidArgument` for what is not a topic name, a partition or a start below zero; `Closed` after
    /// [`close`](Self::close). Then nothing has changed.
    pub fn assign<T: Into<String>>(
        &self,
        partitions: impl IntoIterator<Item = (T, i32, Start)>,
    ) -> Result<()> {
        self.control().assign(partitions)
    }

    /// Reads these partitions no more: nothing of them is handed out from when this returns, and what was fetched is
    /// dropped. Those of a whole topic stay out until they are [assigned](Self::assign). All of them are left or,
    /// after an error, none.
    ///
    /// # Errors
    /// `UnknownPartition` if one is not read, `Closed` after [`close`](Self::close).
    pub fn unassign<'a>(&self, partitions: impl IntoIterator<Item = (&'a str, i32)>) -> Result<()> {
        self.control().unassign(partitions)
    }

    /// Goes on elsewhere in a partition: what is buffered of it is dropped.
    ///
    /// # Errors
    /// `UnknownPartition` for one that is not read, `InvalidArgument` for a start below zero, `Closed`
    /// after [`close`](Self::close).
    pub fn seek(&self, topic: &str, partition: i32, to: Start) -> Result<()> {
        self.pool.env().check_process()?;
        self.buffer.seek(topic, partition, to)
    }

    /// The partitions being read: of whole topics, those known so far; those that were assigned, whether they are there
    /// or not.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        if !self.pool.env().alive_here() {
            return Vec::new();
        }
        self.buffer.assignment()
    }

    /// Ends fetching; `next` gives `None` from now on. A member of a group commits what is done and leaves it, which takes
    /// 10 s at most; what is in hand counts as not done. Closing again does nothing.
    ///
    /// # Errors
    /// `Forked` in a child of the process that made it.
    pub async fn close(&mut self) -> Result<()> {
        self.pool.env().check_process()?;
        self.buffer.lets_go();
        self.buffer.close();
        if let Some(member) = &mut self.member {
            // It never says anything: its end is what is waited for.
            while member.ended.changed().await.is_ok() {}
        }
        Ok(())
    }
}

/// A wait that may be given up: an application that does not wait has to come back within the max poll interval.
struct Waits<'a>(&'a mut Consumer);

impl<'a> Waits<'a> {
    fn new(consumer: &'a mut Consumer) -> Self {
        Self(consumer)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waits_no_more();
    }
}

/// What it costs of a task's turn to open a batch and to work on it.
fn spend(batch: Option<&Batch>) {
    let records = batch.map_or(0, Batch::len);
    coop::spend(
        u32::try_from(1 + records / RECORDS_A_UNIT).map_or(MOST_UNITS, |n| n.min(MOST_UNITS)),
    );
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if self.pool.env().alive_here() {
            self.buffer.lets_go();
            self.buffer.close();
        } else {
            std::mem::forget(Arc::clone(&self.buffer));
            std::mem::forget(self.member.take());
        }
    }
}

impl futures_core::Stream for Consumer {
    type Item = Result<Batch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Consumer::poll_next(self.get_mut(), cx)
    }
}
