//! Several batches at once, one of each partition: [`Consumer::run`]. While it runs, nothing more of a partition is taken
//! as long as somebody works on a batch of it, so that its batches are worked on one after the other; and no more
//! batches are taken than there are workers. What is not done at the end is kept, and comes first the next time.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::Consumer;
use super::batch::Batch;
use super::claim::Standing;
use crate::error::Error;

/// So many workers at most: each wake-up looks at all of them.
const MOST: usize = 1_000;

impl Consumer {
    /// Works on up to `workers` batches at once (1 to 1,000), of different partitions: those of one partition come one after the
    /// other, in order. No batch is taken that nobody works on, so who is slow is not overrun. A batch is done when `work` has
    /// returned `Ok` for it: that is what a group commits, whatever [`Commit`](crate::Commit) says of
    /// marks.
    ///
    /// `work` runs within this future, in the caller's task: to use several cores, have it spawn.
    ///
    /// Ends with `Ok` once the consumer is [closed](crate::ConsumerControl::close), and what is under way is done. After an error no
    /// more is taken, what is under way is finished, and the error returned. Then, and also if the
    /// future is dropped or `work` panics, batches that are not done are kept: they come first when this is called again, or
    /// [`next`](Self::next). Nothing is lost, and what was begun is begun again.
    ///
    /// # Errors
    /// The first of `work`'s, or of [`next`](Self::next)'s: some of those pass, and reading goes on when this is called
    /// again. `InvalidArgument` for a number of workers that is out of range.
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
    /// let control = consumer.control();
    /// consumer
    ///     .run(8, async |batch| {
    ///         for record in &batch {
    ///             println!("{}: {:?}", record.offset(), record.value());
    ///         }
    ///         // It was the only one.
    ///         control.close()
    ///     })
    ///     .await?;
    /// # Ok(()) })
    /// # }
    /// ```
    pub async fn run<W, F, E>(&mut self, workers: usize, work: W) -> Result<(), E>
    where
        W: Fn(Batch) -> F,
        F: Future<Output = Result<(), E>>,
        E: From<Error>,
    {
        if !(1..=MOST).contains(&workers) {
            let words = format!("{workers} workers; there may be 1 to {MOST}");
            return Err(Error::argument(words).into());
        }
        self.pool.env().check_process()?;
        self.lets_go();
        let mut running = Running { consumer: self, active: Vec::new(), failed: None, ends: false };
        std::future::poll_fn(|cx| running.poll(workers, &work, cx)).await
    }
}

/// A batch that is worked on.
struct Active<F> {
    batch: Batch,
    work: Pin<Box<F>>,
}

struct Running<'a, F, E> {
    consumer: &'a mut Consumer,
    active: Vec<Active<F>>,
    /// Nothing more is taken; and why, if that is an error.
    ends: bool,
    failed: Option<E>,
}

impl<F, E> Running<'_, F, E>
where
    F: Future<Output = Result<(), E>>,
    E: From<Error>,
{
    fn poll(
        &mut self,
        workers: usize,
        work: &impl Fn(Batch) -> F,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), E>> {
        // Where the first begins that were not looked at since they were begun.
        let mut from = 0;
        loop {
            self.poll_active(from, cx);
            if !self.ends && self.active.len() < workers {
                from = self.active.len();
                match self.poll_take(cx) {
                    Poll::Ready(Some(Ok(batch))) => {
                        // Its work may panic before there is a future: the batch is kept by then.
                        self.consumer.kept.push_front(batch);
                        let work = Box::pin(work(self.consumer.kept[0].clone()));
                        let batch = self.consumer.kept.pop_front();
                        self.active.extend(batch.map(|batch| Active { batch, work }));
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        self.ends = true;
                        self.failed.get_or_insert(error.into());
                    }
                    Poll::Ready(None) => self.ends = true,
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.ends && self.active.is_empty() {
                return Poll::Ready(self.failed.take().map_or(Ok(()), Err));
            }
            return Poll::Pending;
        }
    }

    /// Polls those from an index on.
    fn poll_active(&mut self, from: usize, cx: &mut Context<'_>) {
        let mut at = from;
        while let Some(active) = self.active.get_mut(at) {
            let Poll::Ready(result) = active.work.as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            // In the order in which they were begun: see the drop.
            let Active { batch, .. } = self.active.remove(at);
            self.consumer.buffer.is_worked_on(batch.topic(), batch.partition(), false);
            match result {
                Ok(()) => batch.ack(),
                Err(error) => {
                    self.ends = true;
                    self.failed.get_or_insert(error);
                    self.consumer.keep(batch, i64::MIN);
                }
            }
        }
    }

    /// The next batch of a partition that nobody works on.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Batch, Error>>> {
        loop {
            let active = &self.active;
            let is_free = |batch: &Batch| !active.iter().any(|a| is_of(&a.batch, batch));
            if let Some(batch) = self.consumer.take_kept(is_free) {
                self.works_on(&batch);
                return Poll::Ready(Some(Ok(batch)));
            }
            let next = std::task::ready!(self.consumer.poll_unmarked(cx));
            let Some(Ok(batch)) = next else { return Poll::Ready(next) };
            self.works_on(&batch);
            // Of a partition that was taken away and is here again, or of which the last run left one.
            if !self.is_waited_for(&batch) {
                return Poll::Ready(Some(Ok(batch)));
            }
            self.consumer.kept.push_back(batch);
        }
    }
}

impl<F, E> Running<'_, F, E> {
    /// Nothing more is taken of its partition.
    fn works_on(&self, batch: &Batch) {
        self.consumer.buffer.is_worked_on(batch.topic(), batch.partition(), true);
    }

    /// Whether others of its partition come first.
    fn is_waited_for(&self, batch: &Batch) -> bool {
        let active = self.active.iter().map(|active| &active.batch);
        active.chain(&self.consumer.kept).any(|other| is_of(other, batch))
    }
}

fn is_of(one: &Batch, other: &Batch) -> bool {
    (one.topic(), one.partition()) == (other.topic(), other.partition())
}

impl<F, E> Drop for Running<'_, F, E> {
    fn drop(&mut self) {
        // The work goes first: it may hold batches as well.
        let left: Vec<Batch> = self.active.drain(..).map(|active| active.batch).collect();
        left.into_iter().rev().for_each(|batch| self.consumer.keep(batch, i64::MIN));
        // Also of one whose work has panicked before it was begun.
        if self.consumer.pool.env().alive_here() {
            for batch in &self.consumer.kept {
                self.consumer.buffer.is_worked_on(batch.topic(), batch.partition(), false);
            }
        }
        self.consumer.waits_no_more();
    }
}

impl Consumer {
    /// Keeps a batch that was taken and is not done: it comes before all others of its partition.
    /// From `first` on nobody has it in hand.
    pub(super) fn keep(&mut self, batch: Batch, first: i64) {
        batch.put_aside(first, true);
        self.kept.push_front(batch);
    }

    /// The first of those that are kept and still wanted now.
    pub(super) fn take_kept(&mut self, may: impl Fn(&Batch) -> bool) -> Option<Batch> {
        if self.kept.is_empty() {
            return None;
        }
        if !self.pool.env().alive_here() || self.buffer.is_closed() {
            self.kept.clear();
        }
        self.kept.retain(|batch| batch.standing() != Standing::Left);
        let is_next = |batch: &Batch| batch.standing() == Standing::Current && may(batch);
        let at = self.kept.iter().position(is_next)?;
        let batch = self.kept.remove(at)?;
        batch.put_aside(i64::MIN, false);
        Some(batch)
    }
}
