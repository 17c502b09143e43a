//! Between the fetcher and the application: fetched batches, in order for each partition, within a
//! byte budget, and where each partition stands.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use super::TopicPartition;
use super::batch::Batch;
use crate::caught;
use crate::cluster::Pool;
use crate::config::{ConsumerConfig, Start};
use crate::error::{Error, ErrorKind, Result};
use crate::record::reader::{RawBatch, RecordError};

pub(super) type Key = (Arc<str>, i32);

/// A batch as it was fetched: not checked and not decompressed.
pub(super) struct FetchedBatch {
    pub(super) key: Key,
    pub(super) raw: RawBatch,
    /// Records with a smaller offset are not handed out.
    pub(super) from: i64,
    pub(super) high_watermark: i64,
    /// How many seeks the partition had had when it was asked for.
    pub(super) generation: u64,
}

enum Item {
    Batch(FetchedBatch),
    Error(Error),
    /// An error, after which reading goes on at other offsets of these partitions.
    Moved(Error, Vec<Moved>),
}

/// At most this many errors are kept for an application that does not read: trouble may come and go for days.
const MAX_ERRORS: usize = 1_000;

/// Where reading of a partition goes on.
pub(super) struct Moved {
    pub(super) key: Key,
    /// The next offset; `None` if it is not known yet.
    pub(super) next: Option<i64>,
    /// How many seeks the partition had had then: a later seek decides instead.
    pub(super) generation: u64,
}

/// A seek of the application; `generation`: the number of seeks of the partition, itself included.
pub(super) struct Seek {
    pub(super) key: Key,
    pub(super) to: Start,
    pub(super) generation: u64,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    errors: usize,
    /// The partitions that are read.
    partitions: BTreeMap<Key, PartitionState>,
    seeks: Vec<Seek>,
    waker: Option<Waker>,
    closed: bool,
    /// The fetcher has ended; items that are there can still be taken.
    ended: bool,
}

#[derive(Default)]
struct PartitionState {
    next: Option<i64>,
    buffered: usize,
    /// The application has taken records of this partition since the fetcher looked.
    taken: bool,
    generation: u64,
}

impl State {
    /// How many bytes of one partition are buffered, at most.
    fn share(&self, config: &ConsumerConfig) -> usize {
        (config.buffer_memory / self.partitions.len().max(1)).max(config.max_partition_bytes)
    }
}

/// The buffer of one consumer.
pub(super) struct Buffer {
    pub(super) config: ConsumerConfig,
    state: Mutex<State>,
    /// Wakes the fetcher: space, a seek, or the end.
    pub(super) wake: Notify,
}

impl Buffer {
    pub(super) fn new(config: ConsumerConfig) -> Self {
        Self { config, state: Mutex::default(), wake: Notify::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    // --- the fetcher's side

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn add_partition(&self, key: &Key) {
        self.lock().partitions.entry(key.clone()).or_default();
    }

    /// How many bytes may still be fetched.
    pub(super) fn room(&self) -> usize {
        self.config.buffer_memory.saturating_sub(self.lock().bytes)
    }

    /// Whether a partition has its share of the buffer: it gets no more then, so that one busy partition does not fill the
    /// buffer alone.
    pub(super) fn is_full(&self, key: &Key) -> bool {
        let state = self.lock();
        state.partitions.get(key).is_some_and(|p| p.buffered >= state.share(&self.config))
    }

    /// Whether the application has taken something of a partition since the last call.
    pub(super) fn was_taken(&self, key: &Key) -> bool {
        let mut state = self.lock();
        state.partitions.get_mut(key).is_some_and(|p| std::mem::take(&mut p.taken))
    }

    /// Seeks since the last call, in the order in which they were asked for.
    pub(super) fn take_seeks(&self) -> Vec<Seek> {
        std::mem::take(&mut self.lock().seeks)
    }

    /// The partition does not exist any more. Batches of it that are buffered are still handed out.
    pub(super) fn remove_partition(&self, key: &Key) {
        let mut state = self.lock();
        state.partitions.remove(key);
        state.seeks.retain(|seek| seek.key != *key);
    }

    /// Adds batches that were fetched, and wakes the task that waits in `next`.
    pub(super) fn push(&self, fetched: impl IntoIterator<Item = FetchedBatch>) {
        let mut state = self.lock();
        let inner = &mut *state;
        // After a close nothing is kept, also not responses that were under way.
        for item in fetched.into_iter().filter(|_| !inner.closed) {
            let Some(partition_state) = inner.partitions.get_mut(&item.key) else { continue };
            // It was asked for before a seek, and is not wanted any more.
            if partition_state.generation != item.generation {
                continue;
            }
            partition_state.buffered += item.raw.payload().len();
            inner.bytes += item.raw.payload().len();
            inner.items.push_back(Item::Batch(item));
        }
        Self::notify(state);
    }

    pub(super) fn fail(&self, error: Error) {
        self.put(Item::Error(error));
    }

    /// Tells the application, with an error, that reading goes on at other offsets in some partitions.
    pub(super) fn moved(&self, error: Error, to: Vec<Moved>) {
        self.put(Item::Moved(error, to));
    }

    fn put(&self, error: Item) {
        let mut state = self.lock();
        if state.errors < MAX_ERRORS && !state.closed {
            state.errors += 1;
            state.items.push_back(error);
        }
        Self::notify(state);
    }

    /// The last error: nothing comes after it.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.lock();
        state.ended = true;
        state.errors += 1;
        state.items.push_back(Item::Error(error));
        Self::notify(state);
    }

    /// Another cluster has taken the place of the old one: positions and fetches under way mean nothing any more. Batches
    /// that are buffered are still handed out. Gives the new generation of each partition.
    pub(super) fn begin_anew(&self) -> BTreeMap<Key, u64> {
        let mut state = self.lock();
        state.seeks.clear();
        for partition_state in state.partitions.values_mut() {
            partition_state.generation += 1;
            partition_state.next = None;
        }
        state
            .partitions
            .iter()
            .map(|(key, partition_state)| (key.clone(), partition_state.generation))
            .collect()
    }

    /// Wakes the task that waits in `next`, with the lock given back: a waker is the application's code.
    fn notify(mut state: std::sync::MutexGuard<'_, State>) {
        let waker = if state.items.is_empty() && !state.closed { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            // One that panics must not end the fetcher.
            let _ = caught::call(|| waker.wake());
        }
    }

    // --- the application's side

    /// Takes the next item, if there is one.
    pub(super) fn take(&self, pool: &Pool) -> Option<Result<Batch>> {
        loop {
            let item = self.pop(&mut self.lock())?;
            if let Some(shown) = self.show(pool, item) {
                return Some(shown);
            }
        }
    }

    pub(super) fn poll_take(
        &self,
        pool: &Pool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Batch>>> {
        // Cloning and dropping a waker is foreign code: neither happens under the lock.
        let mut waker = None;
        loop {
            let mut state = self.lock();
            if state.closed {
                return Poll::Ready(None);
            }
            if state.ended && state.items.is_empty() {
                return Poll::Ready(None);
            }
            if let Some(item) = self.pop(&mut state) {
                drop(state);
                if let Some(shown) = self.show(pool, item) {
                    return Poll::Ready(Some(shown));
                }
                continue;
            }
            if state.ended {
                return Poll::Ready(None);
            }
            if state.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            if let Some(waker) = waker.take() {
                let old = state.waker.replace(waker);
                drop(state);
                drop(old);
                return Poll::Pending;
            }
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }

    /// Takes the next item and accounts for it: bytes, position, and whether the fetcher has room again.
    fn pop(&self, state: &mut State) -> Option<Item> {
        let item = state.items.pop_front()?;
        state.errors -= usize::from(!matches!(item, Item::Batch(_)));
        if let Item::Moved(_, to) = &item {
            for moved in to {
                if let Some(partition_state) = state.partitions.get_mut(&moved.key)
                    && partition_state.generation == moved.generation
                {
                    partition_state.next = moved.next;
                }
            }
        }
        if let Item::Batch(fetched) = &item {
            let size = fetched.raw.payload().len();
            let before = state.bytes;
            state.bytes -= size;
            let (half, share) = (self.config.buffer_memory / 2, state.share(&self.config));
            // The fetcher may have stopped for lack of room, as a whole or for this partition.
            let mut wake = before > half && state.bytes <= half;
            if let Some(partition_state) = state.partitions.get_mut(&fetched.key) {
                // It may be less than `size` if the partition was removed and added again meanwhile.
                let before = partition_state.buffered;
                partition_state.buffered = before.saturating_sub(size);
                partition_state.taken = true;
                if partition_state.generation == fetched.generation {
                    partition_state.next = Some(fetched.raw.last_offset + 1);
                }
                // Left out while it had its share: it is asked for again before nothing of it is left.
                wake |= before > share / 2 && partition_state.buffered <= share / 2;
            }
            if wake {
                self.wake.notify_one();
            }
        }
        Some(item)
    }

    /// The item as the application sees it; `None` if all its records are before the offset that was asked for.
    fn show(&self, pool: &Pool, item: Item) -> Option<Result<Batch>> {
        let opened = match item {
            Item::Error(e) | Item::Moved(e, _) => Err(e),
            // This is the application's thread: a panic of a codec becomes an error.
            Item::Batch(fetched) => caught::call(|| {
                pool.env().mishap("decompression");
                self.open(pool, fetched)
            })
            .and_then(|opened| opened),
        };
        match opened {
            Ok(batch) if batch.is_empty() => None,
            Ok(batch) => {
                pool.metrics().records_consumed(batch.len());
                Some(Ok(batch))
            }
            Err(e) => Some(Err(e)),
        }
    }

    fn open(&self, pool: &Pool, fetched: FetchedBatch) -> Result<Batch> {
        let FetchedBatch { key: (topic, partition), raw, from, high_watermark, .. } = fetched;
        let damaged =
            |e: RecordError| e.error(format_args!("topic '{topic}' partition {partition}"));
        if self.config.check_crc {
            raw.verify_crc().map_err(damaged)?;
        }
        let records = raw.open(pool.buffers(), self.config.max_decompressed).map_err(damaged)?;
        let skip = if raw.base_offset < from {
            records.iter().take_while(|r| r.offset() < from).count()
        } else {
            0
        };
        Ok(Batch { topic, partition, records, skip, high_watermark })
    }

    pub(super) fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.lock().partitions.get(&(Arc::from(topic), partition))?.next
    }

    pub(super) fn seek(&self, topic: &str, partition: i32, to: Start) -> Result<()> {
        to.check()?;
        let key: Key = (Arc::from(topic), partition);
        let mut state = self.lock();
        if state.closed {
            return Err(Error::closed("consumer"));
        }
        let inner = &mut *state;
        let Some(partition_state) = inner.partitions.get_mut(&key) else {
            return Err(Error::new(
                ErrorKind::UnknownPartition,
                format!("partition {partition} of topic '{topic}' is not read by this consumer"),
            )
            .advise("seek in one of the partitions that the consumer reads"));
        };
        partition_state.generation += 1;
        partition_state.next = if let Start::Offset(at) = to { Some(at) } else { None };
        partition_state.buffered = 0;
        // The last one counts, so only one is kept for each partition.
        inner.seeks.retain(|seek| seek.key != key);
        inner.seeks.push(Seek { key: key.clone(), to, generation: partition_state.generation });
        let bytes = &mut inner.bytes;
        inner.items.retain(|item| match item {
            Item::Batch(batch) if batch.key == key => {
                *bytes -= batch.raw.payload().len();
                false
            }
            _ => true,
        });
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        let state = self.lock();
        let all = state.partitions.keys();
        all.map(|(t, p)| TopicPartition { topic: Arc::clone(t), partition: *p }).collect()
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Dropped without the lock, since it may take long.
        let items = std::mem::take(&mut state.items);
        state.bytes = 0;
        state.errors = 0;
        Self::notify(state);
        self.wake.notify_one();
        drop(items);
    }
}

#[cfg(test)]
mod tests;
