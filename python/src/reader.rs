//! What threads that read one consumer share.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll};

use ottla::bindings::reached;
use ottla::{Standing, TopicPartition};

use crate::batch::{Batch, Cursor, Record};
use crate::exclusive::{Exclusive, lock};

/// Partitions, and the offsets up to which they are read.
pub(crate) type Ends = Vec<(TopicPartition, i64)>;

/// Of two locks that are held together the consumer's is taken first. Who steers takes neither across anything that
/// lasts.
pub(crate) struct Reader {
    /// Locked while it is looked whether there is a batch, and while that is opened. Never across a
    /// wait.
    consumer: Mutex<ottla::Consumer>,
    pub(crate) control: ottla::ConsumerControl,
    /// The batches that records are taken from, in order. More than one only after a signal handler
    /// read while its thread waited for a batch, and where partitions are paused in the middle of one.
    current: Mutex<VecDeque<Cursor>>,
    pub(crate) exclusive: Exclusive,
    pub(crate) pid: u32,
}

/// What came of a look for the next batch.
pub(crate) enum Looked {
    /// There is something to take.
    Found,
    /// The partitions that were named are where they were to come to.
    Reached,
    /// The consumer is at its end.
    End,
}

impl Reader {
    pub(crate) fn new(consumer: ottla::Consumer) -> Self {
        Self {
            control: consumer.control(),
            consumer: Mutex::new(consumer),
            current: Mutex::default(),
            exclusive: Exclusive::default(),
            pid: std::process::id(),
        }
    }

    /// Puts the next batch behind the current ones.
    pub(crate) fn poll(
        &self,
        ends: &[(TopicPartition, i64)],
        context: &mut Context<'_>,
    ) -> Poll<ottla::Result<Looked>> {
        let mut consumer = lock(&self.consumer);
        // What a pause holds back in the middle of a batch was not handed out yet, though its partition's position is
        // behind it.
        let ends = if self.holds_back(ends) { &[] } else { ends };
        match consumer.poll_next_until(ends, context) {
            // Or somebody has resumed what is in hand since it was looked for.
            Poll::Pending if self.has_current() => Poll::Ready(Ok(Looked::Found)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) if reached(&self.control, ends) => Poll::Ready(Ok(Looked::Reached)),
            Poll::Ready(None) => Poll::Ready(Ok(Looked::End)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(Some(Ok(batch))) => {
                lock(&self.current).push_back(Cursor::new(batch));
                Poll::Ready(Ok(Looked::Found))
            }
        }
    }

    fn holds_back(&self, ends: &[(TopicPartition, i64)]) -> bool {
        let current = lock(&self.current);
        ends.iter().any(|(of, end)| current.iter().any(|cursor| cursor.is_short_of(of, *end)))
    }

    /// Whether something in hand may be handed out.
    pub(crate) fn has_current(&self) -> bool {
        first_current(&mut lock(&self.current)).is_some()
    }

    /// The next record of what is in hand.
    pub(crate) fn record(&self) -> Option<Record> {
        let mut current = lock(&self.current);
        loop {
            let at = first_current(&mut current)?;
            if let Some(record) = current.get_mut(at).and_then(Cursor::advance) {
                return Some(record);
            }
            current.remove(at);
        }
    }

    /// The next batch of what is in hand, or what records left of it.
    pub(crate) fn batch(&self) -> Option<Batch> {
        let mut current = lock(&self.current);
        loop {
            let at = first_current(&mut current)?;
            if let Some(batch) = current.remove(at).and_then(Cursor::into_batch) {
                return Some(batch);
            }
        }
    }

    /// Steers the consumer, and lets go of what nobody wants any more.
    pub(crate) fn steer(
        &self,
        call: impl FnOnce(&ottla::ConsumerControl) -> ottla::Result<()>,
    ) -> ottla::Result<()> {
        call(&self.control)?;
        let mut current = lock(&self.current);
        let is_left = |cursor: &Cursor| cursor.standing() == Standing::Left;
        let (left, kept) = current.drain(..).partition::<VecDeque<_>, _>(is_left);
        *current = kept;
        drop(current);
        drop(left);
        Ok(())
    }

    pub(crate) fn close(&self) -> ottla::Result<()> {
        self.control.close()?;
        let current = std::mem::take(&mut *lock(&self.current));
        drop(current);
        Ok(())
    }
}

/// The first that may be handed out. Those of partitions that are paused wait in their places; what a seek has left
/// behind since goes.
fn first_current(current: &mut VecDeque<Cursor>) -> Option<usize> {
    let mut at = 0;
    while let Some(cursor) = current.get(at) {
        match cursor.standing() {
            Standing::Current => return Some(at),
            Standing::Paused => at += 1,
            Standing::Left => drop(current.remove(at)),
        }
    }
    None
}
