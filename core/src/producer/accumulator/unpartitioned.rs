//! Keyed records, where keys choose the partition, of a topic whose number of partitions is not known yet. They
//! are accepted like all others and wait in a queue of their own, in the order of the calls. When the number is
//! known they are copied into the batches of their partitions, before any later record is. That happens under
//! the lock of their queue, however many they are: only then no later record can come before them. A handle
//! that was given out meanwhile finds its record at its new place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Accumulator;
use super::batch_queue::BatchQueue;
use super::topic::TopicBatches;
use super::validate::{Space, size_of};
use crate::error::Error;
use crate::policy::key_hash;
use crate::producer::batch::{OpenBatch, failed};
use crate::producer::delivery::{RecordLocation, Unread};
use crate::producer::record::Record;
use crate::record::walk;

impl Accumulator {
    #[expect(clippy::too_many_arguments, reason = "what is to be done, and where")]
    pub(super) fn append_unpartitioned<T>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        record: &Record<'_>,
        key: &[u8],
        size: usize,
        space: Space,
        producer: Option<&Arc<Unread>>,
        take: impl FnOnce(&mut OpenBatch, u32) -> T,
    ) -> Result<T, Error> {
        let batch_queue = &topic.unpartitioned;
        loop {
            let mut inner = batch_queue.lock();
            // The number may have become known a moment ago: `learned` stores it under this lock, after it has
            // copied all earlier records, so this one comes behind them.
            let partitions = topic.partitions.load(Ordering::Acquire);
            if partitions > 0 {
                drop(inner);
                let batch_queue = topic.batch_queue(key_hash::partition(key, partitions));
                return self.append_in(topic, &batch_queue, record, size, space, producer, take);
            }
            // All records wait in one batch, however large: it is never sent as it is.
            if let Some(open) = &mut inner.open {
                let has_some = open.builder.len_records() > 0;
                if has_some && !self.budget.quotas_fit(&open.ledger.quotas, size) {
                    return Err(self.quota_used_up(topic));
                }
                open.ledger.waits_for_partition();
                let taken =
                    self.append_open(topic, batch_queue, &mut inner, record, producer, take);
                drop(inner);
                if taken.is_err() {
                    self.after_refusal(batch_queue, space);
                }
                return taken;
            }
            drop(inner);
            self.roll_batch(topic, batch_queue, size, space)?;
        }
    }

    /// Keeps a batch that has become full while records were moved, until it can be sealed without the lock of
    /// their queue: compression takes long, and if it fails, tasks are woken that may send. The batch has its
    /// place in its own queue meanwhile.
    pub(super) fn set_aside(&self, batch_queue: &Arc<BatchQueue>, full: OpenBatch) {
        let mut aside = self.aside.lock().unwrap_or_else(|e| e.into_inner());
        aside.push((Arc::clone(batch_queue), full));
    }

    /// Copies every record into the batch of its partition, and gives the place of each. The caller, which
    /// holds the lock of the queue of unpartitioned records, passes the places on to the handles when it has
    /// given the lock back.
    fn move_all(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        open: &mut OpenBatch,
        partitions: i32,
    ) -> Vec<RecordLocation> {
        let runs = open.owner().state().take_runs();
        let mut tags = runs.iter().flat_map(|run| run.tags()).peekable();
        let mut places = Vec::with_capacity(open.builder.len_records());
        let base_timestamp = open.builder.base_timestamp();
        let producers = std::mem::take(&mut open.ledger.producers);
        let mut noted = None;
        // Chunk by chunk, each given back before the next: the records are not in memory twice.
        for chunk in open.builder.take_chunks() {
            for record in walk(chunk.as_ref(), base_timestamp) {
                let key = record.key().unwrap_or_default();
                let batch_queue = topic.batch_queue(key_hash::partition(key, partitions));
                let timestamp_ms = record.timestamp_ms();
                let headers: Vec<_> = record.headers().collect();
                let record = Record::to(&topic.name)
                    .key_opt(record.key())
                    .value_opt(record.value())
                    .raw_headers(&headers)
                    .timestamp_ms(timestamp_ms);
                let at = places.len() as u32;
                let run = tags.next_if(|(index, _)| *index == at).map(|(_, run)| run);
                let since = open.opened;
                let take = |open: &mut OpenBatch, index| {
                    if noted.replace(open.ledger.number) != Some(open.ledger.number) {
                        self.batch_partitioned(open.ledger.number, since);
                    }
                    // The deadline is that of the wait as a whole.
                    open.opened = open.opened.min(since);
                    let owner = open.owner();
                    if let Some(run) = run {
                        owner.state().add_to_run(run, index, 1, timestamp_ms);
                    }
                    RecordLocation {
                        state_ref: owner.state_ref(),
                        record: owner.record(index, Some(timestamp_ms)),
                    }
                };
                let size = size_of(&record);
                let producer = producers.of(at);
                let appended =
                    self.append_in(topic, &batch_queue, &record, size, Space::Held, producer, take);
                places.push(
                    appended.unwrap_or_else(|error| failed(error, run, &topic.name, producer)),
                );
            }
            open.ledger.release(chunk.capacity());
        }
        places
    }
}

/// Dropped when the lock is given back, also by a panic: seals the batches that were set aside. They are all of this
/// topic: only the sender's task moves records, one topic after the other.
struct Aside<'a> {
    accumulator: &'a Arc<Accumulator>,
    topic: &'a Arc<TopicBatches>,
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        let aside = &self.accumulator.aside;
        let full = std::mem::take(&mut *aside.lock().unwrap_or_else(|e| e.into_inner()));
        for (batch_queue, open) in full {
            // An error says that the sender has ended: then the queue was cleared.
            let _ = self.accumulator.seal_full(self.topic, &batch_queue, open, Space::Any);
        }
    }
}

impl TopicBatches {
    /// The number of the topic's partitions is known: records that waited for it are moved to their partitions.
    /// The lock of their queue is held until all are moved, so that no later record comes before them.
    pub(crate) fn learned(self: &Arc<Self>, accumulator: &Arc<Accumulator>, partitions: i32) {
        if self.partitions.load(Ordering::Relaxed) == partitions {
            return;
        }
        let aside = Aside { accumulator, topic: self };
        let mut waiting = self.unpartitioned.lock();
        waiting.short_way_for = 0;
        let Some(mut open) = waiting.open.take() else {
            return self.partitions.store(partitions, Ordering::Release);
        };
        // Tasks that wait for memory, or for one of the records, may send at once when they are woken, which
        // takes this lock: they are woken after it is given back.
        let quiet = accumulator.budget.quiet();
        let places = accumulator.move_all(self, &mut open, partitions);
        self.partitions.store(partitions, Ordering::Release);
        drop(waiting);
        drop(quiet);
        open.ledger.moved(places);
        drop(aside);
        if accumulator.events.is_closed() {
            accumulator.drop_open();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, OnceLock};

    use tokio::sync::mpsc;

    use super::*;
    use crate::config::{Partitioner, ProducerConfig};
    use crate::environment::Environment;
    use crate::error::ErrorKind;
    use crate::producer::accumulator::event::Event;
    use crate::producer::accumulator::shard::Shard;
    use crate::producer::delivery::{BatchAck, RunResult, RunSink, RunTag};
    use crate::record::pool::ChunkPool;

    /// Tag, index in the submission, and the partition or what failed.
    type Told = (u64, u32, Result<i32, ErrorKind>);

    #[derive(Default)]
    struct Sink(Mutex<Vec<Told>>);

    impl RunSink for Sink {
        fn resolved(&self, run: RunResult<'_>) {
            let mut told = self.0.lock().unwrap();
            for i in 0..run.count {
                let outcome = run.outcome.as_ref().map(|at| at.partition).map_err(|e| e.kind());
                told.push((run.tag, run.first + i, outcome));
            }
        }
    }

    fn accumulator() -> (Arc<Accumulator>, mpsc::UnboundedReceiver<Event>) {
        let (tx, events) = mpsc::unbounded_channel();
        let config =
            ProducerConfig { partitioner: Partitioner::KeyHash, ..ProducerConfig::default() };
        let env = Environment::builder().seed(1).build();
        let accumulator =
            Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        (Arc::new(accumulator), events)
    }

    fn producer() -> Arc<Unread> {
        Unread::new(None)
    }

    /// Keys by number; several chunks of records.
    const RECORDS: u32 = 3_000;

    fn submit(accumulator: &Arc<Accumulator>, sink: &Arc<dyn RunSink>, only: impl Fn(u32) -> bool) {
        for i in (0..RECORDS).filter(|i| only(*i)) {
            let key = i.to_be_bytes();
            let record = Record::to("t").key(&key).value(&[7; 30]);
            // Every third has no submission to tell.
            if i % 3 == 0 {
                drop(accumulator.append(Shard::default(), &record, &producer()).unwrap());
            } else {
                let run = RunTag { sink, tag: u64::from(i % 2), index: i };
                let (taken, result) =
                    accumulator.append_submission(Shard::default(), run, std::iter::once(record));
                assert!(taken == 1 && result.is_ok());
            }
        }
    }

    #[test]
    fn submissions_are_told_of_records_that_moved() {
        let (accumulator, mut events) = accumulator();
        let seen = Arc::new(Sink::default());
        let sink: Arc<dyn RunSink> = seen.clone();
        submit(&accumulator, &sink, |_| true);
        let Ok(Event::Ready(_, topic, waiting)) = events.try_recv() else { panic!("announced") };
        let held = accumulator.budget.used();
        topic.learned(&accumulator, 5);
        assert!(waiting.take(&accumulator).is_none(), "nothing waits any more");
        assert!(accumulator.budget.used() < held + 5 * (128 << 10), "what moved is counted twice");
        for partition in 0..5 {
            while let Some(batch) = topic.batch_queue(partition).take(&accumulator) {
                assert_eq!(batch.partition, Some(partition));
                batch.resolve(Ok(BatchAck { partition, base_offset: 0, append_time: None }));
            }
        }
        assert_eq!((accumulator.budget.used(), accumulator.outstanding()), (0, 0));
        let mut told = std::mem::take(&mut *seen.0.lock().unwrap());
        told.sort_by_key(|(_, index, _)| *index);
        let expected: Vec<_> = (0..RECORDS)
            .filter(|i| i % 3 != 0)
            .map(|i| (u64::from(i % 2), i, Ok(key_hash::partition(&i.to_be_bytes(), 5))))
            .collect();
        assert_eq!(told, expected);
    }

    /// What was taken stays taken, however full the buffer is by then.
    #[test]
    fn a_full_quota_is_no_reason_not_to_move() {
        let (tx, mut events) = mpsc::unbounded_channel();
        let config = ProducerConfig {
            partitioner: Partitioner::KeyHash,
            batch_size: 16 << 10,
            buffer_memory: 1 << 20,
            ..ProducerConfig::default()
        };
        let env = Environment::builder().seed(1).build();
        let accumulator =
            Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        let accumulator = Arc::new(accumulator);
        let mut deliveries = Vec::new();
        let full = loop {
            let key = (deliveries.len() as u32).to_be_bytes();
            let record = Record::to("t").key(&key).value(&[7; 300]);
            match accumulator.append(Shard::default(), &record, &producer()) {
                Ok(delivery) => deliveries.push(delivery),
                Err(e) => break e,
            }
        };
        assert_eq!(full.kind(), ErrorKind::BufferFull);
        let Ok(Event::Ready(_, topic, _)) = events.try_recv() else { panic!("announced") };
        topic.learned(&accumulator, 3);
        assert!(deliveries.iter().all(|delivery| delivery.try_get().is_none()));
        let moved: usize = (0..3).map(|partition| topic.batch_queue(partition).records()).sum();
        assert_eq!(moved, deliveries.len());
    }

    /// A codec takes long, and one that panics wakes tasks that may send.
    #[test]
    fn batches_that_become_full_are_compressed_after_the_lock_is_given_back() {
        let topic = Arc::<OnceLock<Arc<TopicBatches>>>::default();
        let (seen, compressed) = (Arc::clone(&topic), Arc::<Mutex<Vec<bool>>>::default());
        let noted = Arc::clone(&compressed);
        let env = Environment::builder().seed(1).mishaps(move |place| {
            if let (Some(topic), "compression") = (seen.get(), place) {
                noted.lock().unwrap().push(topic.unpartitioned.is_locked());
            }
            false
        });
        let (tx, mut events) = mpsc::unbounded_channel();
        let config = ProducerConfig {
            partitioner: Partitioner::KeyHash,
            batch_size: 16 << 10,
            ..ProducerConfig::default()
        };
        let env = env.build();
        let accumulator =
            Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        let accumulator = Arc::new(accumulator);
        let sink: Arc<dyn RunSink> = Arc::new(Sink::default());
        submit(&accumulator, &sink, |_| true);
        let Ok(Event::Ready(_, waiting, _)) = events.try_recv() else { panic!("announced") };
        topic.set(Arc::clone(&waiting)).ok().unwrap();
        waiting.learned(&accumulator, 2);
        let under_lock = std::mem::take(&mut *compressed.lock().unwrap());
        assert!(under_lock.len() > 2, "{} have become full", under_lock.len());
        assert!(!under_lock.contains(&true), "{under_lock:?}");
        let mut records = 0;
        for partition in 0..2 {
            while let Some(batch) = waiting.batch_queue(partition).take(&accumulator) {
                records += batch.records();
                batch.resolve(Err(Error::closed("producer")));
            }
        }
        assert_eq!(records, RECORDS as usize);
    }

    #[test]
    fn without_a_sender_what_cannot_move_fails() {
        let (accumulator, mut events) = accumulator();
        let seen = Arc::new(Sink::default());
        let sink: Arc<dyn RunSink> = seen.clone();
        submit(&accumulator, &sink, |i| i < 10);
        let Ok(Event::Ready(_, topic, _)) = events.try_recv() else { panic!("announced") };
        drop(events);
        topic.learned(&accumulator, 5);
        assert_eq!((accumulator.budget.used(), accumulator.outstanding()), (0, 0));
        let told = seen.0.lock().unwrap();
        assert_eq!(told.len(), 6);
        assert!(told.iter().all(|(_, _, outcome)| *outcome == Err(ErrorKind::Closed)), "{told:?}");
    }
}
