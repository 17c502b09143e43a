//! One partition of a consumer, read by itself: see [`Consumer::partition_stream`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::batch::Batch;
use super::buffer::{Back, Buffer, Part};
use super::{Consumer, TopicPartition, spend};
use crate::cluster::Handle;
use crate::coop;
use crate::error::Result;

/// Why a [`PartitionStream`] has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamEnd {
    /// The consumer was closed or dropped, or cannot go on: it tells why.
    Closed,
    /// The group takes the partition away. What is finished when the stream says so is committed for whoever has it next. Where
    /// commits are made by hand ([`Commit::Manual`](crate::Commit::Manual)), they belong before the stream is dropped: it waits
    /// for that, up to the deadline.
    GivenUp,
    /// The partition is somebody else's by now, perhaps: the membership was lost.
    Lost,
    /// The consumer does not read it any more: it was unassigned, or does not exist.
    Left,
}

/// The batches of one partition: see [`Consumer::partition_stream`]. `Send`, and a `Stream`.
pub struct PartitionStream {
    pool: Handle,
    buffer: Arc<Buffer>,
    of: TopicPartition,
    part: Part,
    /// What was handed out last counts as done once the next is asked for.
    marks: bool,
    in_hand: Option<Back>,
    /// A wait for the next is under way.
    waits: bool,
    end: Option<StreamEnd>,
}

impl Consumer {
    /// The batches of one partition that this consumer reads, in order, for somebody who reads nothing else: a task for each
    /// partition, say. As long as the stream is there, [`next`](Self::next), [`records`](Self::records) and [`run`](Self::run)
    /// are given nothing of that partition. All else goes on as before: the consumer is paused, sought and asked as ever, it tells what a
    /// group says ([`next_event`](Self::next_event)) and what is about no single partition, and has to be read from for
    /// that. (librdkafka calls this the queue of a partition.)
    ///
    /// What is fetched ahead for all streams together, and not taken yet, is at most half of
    /// [`buffer_memory`](crate::ConsumerBuilder::buffer_memory), in equal shares; where a share is smaller than a batch it is one batch. So neither other
    /// streams nor the consumer wait for one that nobody reads. Where memory is full all the same (of batches that are kept), a
    /// small response at a time is fetched for those who wait and have nothing.
    ///
    /// It ends, and [says why](PartitionStream::end), when the consumer does not read the partition any more: the group takes
    /// it away, it is unassigned, or the consumer is closed. If the partition comes back it needs another stream.
    ///
    /// Dropping a stream loses nothing: what was not handed out comes from the consumer, in order. In a group so does what was
    /// handed out last and not asked beyond (as with [`next`](Self::next), a batch counts as done once the next is asked for),
    /// from the first record that was not [acknowledged](Batch::ack); or, if that could not be read, its error. With
    /// [`Commit::Acked`](crate::Commit::Acked) batches stay the application's when the stream is gone: it acknowledges them
    /// then as well, and they do not come again.
    ///
    /// In a group a stream, too, has to be asked for the next within [`max_poll_interval`](crate::ConsumerBuilder::max_poll_interval): from
    /// when it was made, given something, or a wait was given up. One that hangs is noticed whatever the others do.
    ///
    /// # Errors
    /// `UnknownPartition` for one that is not read, `InvalidArgument` if there is a stream of it, `Closed` after
    /// [`close`](Self::close).
    ///
    /// ```
    /// # use ottla::{Client, Record, Start, testing::Cluster};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = Cluster::builder().topic("events", 2, 1).start()?;
    /// # let bootstrap = broker.bootstrap();
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let client = Client::connect(&bootstrap).await?;
    /// # let producer = client.producer().build()?;
    /// # for partition in 0..2 {
    /// #     producer.send(Record::to("events").partition(partition).value("hello")).await?.await?;
    /// # }
    /// let parts = [("events", 0, Start::Earliest), ("events", 1, Start::Earliest)];
    /// let mut consumer = client.consumer().assign(parts).build()?;
    /// let mut slow = consumer.partition_stream("events", 1)?;
    /// let task = tokio::spawn(async move {
    ///     while let Some(batch) = slow.next().await.transpose()? {
    ///         println!("{} records", batch.len());
    ///     }
    ///     Ok::<_, ottla::Error>(slow.end())
    /// });
    /// // All others.
    /// let batch = consumer.next().await.transpose()?;
    /// # assert_eq!(batch.unwrap().partition(), 0);
    /// consumer.close().await?;
    /// # assert_eq!(task.await??, Some(ottla::StreamEnd::Closed));
    /// # Ok(()) })
    /// # }
    /// ```
    pub fn partition_stream(&mut self, topic: &str, partition: i32) -> Result<PartitionStream> {
        self.pool.env().check_process()?;
        let kept = &mut self.kept;
        // What is kept of it comes first.
        let back = || {
            let is_of = |batch: &Batch| (batch.topic(), batch.partition()) == (topic, partition);
            let (of, others) = kept.drain(..).partition::<Vec<_>, _>(is_of);
            kept.extend(others);
            of
        };
        let part = self.buffer.part(topic, partition, back)?;
        Ok(PartitionStream {
            pool: self.pool.clone(),
            buffer: Arc::clone(&self.buffer),
            of: TopicPartition { topic: Arc::from(topic), partition },
            part,
            marks: self.marks_by_asking(),
            in_hand: None,
            waits: false,
            end: None,
        })
    }
}

impl PartitionStream {
    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.of.topic
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.of.partition
    }

    /// The next batch. `None`: there is nothing more, and [`end`](Self::end) says why. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of [`Consumer::next`] that are about this partition; reading goes on after them as there.
    pub async fn next(&mut self) -> Option<Result<Batch>> {
        let waits = Waits(self);
        std::future::poll_fn(|cx| waits.0.poll_next(cx)).await
    }

    /// As [`next`](Self::next), for those who poll. Who gives up waiting uses [`next`](Self::next), which says so when its future
    /// is dropped: else in a group it counts as waiting until it is polled again and given something, or the stream is dropped.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Batch>>> {
        if let Err(forked) = self.pool.env().check_process() {
            return Poll::Ready(Some(Err(forked)));
        }
        ready!(coop::poll_turn(cx));
        self.lets_go();
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        self.waits = true;
        let taken = ready!(self.buffer.poll_take_part(&self.part, &self.pool, cx));
        self.waits = false;
        let taking = match taken {
            Ok(taking) => taking,
            Err(end) => {
                self.end = Some(end);
                return Poll::Ready(None);
            }
        };
        let batch = taking.result.as_ref().ok();
        spend(batch);
        let batch = batch.filter(|batch| self.marks && batch.span.is_some());
        let unreadable = taking.unreadable.map(Back::Unreadable);
        self.in_hand = batch.cloned().map(Back::Batch).or(unreadable);
        Poll::Ready(Some(taking.result))
    }

    /// Why there is nothing more; `None` until [`next`](Self::next) has given `None`.
    pub fn end(&self) -> Option<StreamEnd> {
        self.end
    }

    /// The next is asked for: what was in hand is done.
    fn lets_go(&mut self) {
        match self.in_hand.take() {
            Some(Back::Batch(batch)) => batch.ack(),
            Some(Back::Unreadable(unreadable)) => unreadable.done(),
            None => {}
        }
    }
}

/// A wait that may be given up.
struct Waits<'a>(&'a mut PartitionStream);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if std::mem::take(&mut self.0.waits) && self.0.pool.env().alive_here() {
            self.0.buffer.part_waits_no_more(&self.0.part);
        }
    }
}

impl Drop for PartitionStream {
    fn drop(&mut self) {
        if !self.pool.env().alive_here() {
            std::mem::forget(Arc::clone(&self.buffer));
            return;
        }
        let back = self.in_hand.take().and_then(|back| match back {
            Back::Batch(batch) => batch.unfinished().map(Back::Batch),
            unreadable => Some(unreadable),
        });
        self.buffer.give_back(&self.part, back);
    }
}

impl futures_core::Stream for PartitionStream {
    type Item = Result<Batch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        PartitionStream::poll_next(self.get_mut(), cx)
    }
}
