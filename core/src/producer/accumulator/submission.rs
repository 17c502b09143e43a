//! The way of a binding's submission into open batches: many records under one lock, and one note of whom to tell for all of
//! them. A call from another language brings thousands of records at once; what one of them costs here is what it costs to
//! copy it.

use std::sync::Arc;

use super::batch_queue::{BatchQueue, BatchQueueInner};
use super::event::Event;
use super::shard::Shard;
use super::topic::TopicBatches;
use super::validate::{Space, size_of};
use super::{Accumulator, thread_cache};
use crate::error::Error;
use crate::producer::delivery::RunTag;
use crate::producer::record::Record;

/// Most records that are copied under one lock: for as long as that takes, other threads that use the same producer look
/// again and again.
const MOST_LOCKED: u32 = 32;

/// The records of a submission that are not taken yet.
struct Left<'a, I> {
    next: Option<Record<'a>>,
    behind: I,
    /// Of the next record.
    run: RunTag<'a>,
    taken: usize,
}

impl<'a, I: Iterator<Item = Record<'a>>> Left<'a, I> {
    fn took(&mut self) {
        self.next = self.behind.next();
        self.run.index += 1;
        self.taken += 1;
    }
}

impl Accumulator {
    /// Copies records in order, up to the first that is refused, and tells their results to the sink of `run`, which is the first
    /// one's. Gives how many were taken. All of them are of one topic.
    ///
    /// A binding does not wait in the line for memory (its host waits for a completion that says that there is space), so
    /// records may use any free memory, even if others wait.
    pub(crate) fn append_submission<'a>(
        self: &Arc<Self>,
        shard: Shard,
        run: RunTag<'a>,
        mut records: impl Iterator<Item = Record<'a>>,
    ) -> (usize, Result<(), Error>) {
        let next = records.next();
        let mut left = Left { next, behind: records, run, taken: 0 };
        while let Some(record) = left.next {
            let result = if record.partition.is_none() && self.spreads(&record) {
                thread_cache::with(self, shard, record.topic, |topic, batch_queue| {
                    self.append_spread(topic, batch_queue, &mut left)
                })
            } else {
                let run = left.run;
                let taken = self.append_with(shard, &record, Space::Any, None, |open, index| {
                    let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
                    open.owner().state().add_to_run(run, index, 1, timestamp_ms);
                });
                taken.map(|()| left.took())
            };
            if let Err(error) = result {
                return (left.taken, Err(error));
            }
        }
        (left.taken, Ok(()))
    }

    /// Those from here on that may go to any partition.
    fn append_spread<'a>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        left: &mut Left<'a, impl Iterator<Item = Record<'a>>>,
    ) -> Result<(), Error> {
        while let Some(record) = left.next
            && record.partition.is_none()
            && self.spreads(&record)
        {
            let size = size_of(&record);
            self.check(topic, &record, size, Space::Any)?;
            let mut inner = batch_queue.lock();
            // Not checked again: a batch that was opened must get its first record, or a flush would wait for an empty
            // batch that nobody sends.
            while !inner.takes(size, topic.batch_size()) {
                drop(inner);
                self.roll_batch(topic, batch_queue, size, Space::Any)?;
                inner = batch_queue.lock();
            }
            let result = self.append_locked(topic, batch_queue, &mut inner, &record, left);
            drop(inner);
            if result.is_err() {
                self.after_refusal(batch_queue, Space::Any);
            }
            result?;
        }
        Ok(())
    }

    /// Copies the next record, which is known to fit, and those behind it that are as simple, into the open batch.
    #[inline]
    fn append_locked<'a>(
        self: &Arc<Self>,
        topic: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        inner: &mut BatchQueueInner,
        record: &Record<'a>,
        left: &mut Left<'a, impl Iterator<Item = Record<'a>>>,
    ) -> Result<(), Error> {
        let (run, batch_size) = (left.run, topic.batch_size());
        let (first, timestamp_ms) =
            self.append_open(topic, batch_queue, inner, record, None, |open, index| {
                (index, record.timestamp_ms.unwrap_or(open.opened_ms))
            })?;
        left.took();
        let open = inner.open.as_mut().expect("a batch that took a record is open");
        let mut more = 0;
        while let Some(record) = &left.next
            && more + 1 < MOST_LOCKED
            && record.partition.is_none()
            && self.spreads(record)
        {
            let size = size_of(record);
            if open.builder.len_bytes() + size > batch_size
                || self.must_be_checked(topic, record, size)
            {
                break;
            }
            let timestamp_ms = record.timestamp_ms.unwrap_or(open.opened_ms);
            let copied =
                open.builder.append(record.key, record.value, record.headers, timestamp_ms);
            if copied.is_err() {
                // What is wrong with it is said when it is looked at alone.
                break;
            }
            more += 1;
            left.took();
        }
        open.ledger.records += more as usize;
        let holds = open.builder.capacity_reserved();
        if holds > open.ledger.charged {
            open.ledger.holds(holds);
        }
        open.owner().state().add_to_run(run, first, 1 + more, timestamp_ms);
        if more > 0 && inner.cannot_wait(self) {
            let _ = self.events.send(Event::Pressure);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;
    use crate::config::ProducerConfig;
    use crate::environment::Environment;
    use crate::error::ErrorKind;
    use crate::producer::delivery::{BatchAck, RunResult, RunSink};
    use crate::record::Compression;
    use crate::record::builder::HeaderList;
    use crate::record::pool::ChunkPool;

    /// First record of a run, how many, partition, offset and timestamp of the first.
    type Told = (u32, u32, i32, i64, i64);

    #[derive(Default)]
    struct Sink(Mutex<Vec<Told>>);

    impl RunSink for Sink {
        fn resolved(&self, run: RunResult<'_>) {
            let at = run.outcome.expect("all are acknowledged");
            self.0.lock().unwrap().push((
                run.first,
                run.count,
                at.partition,
                at.offset,
                at.timestamp_ms,
            ));
        }
    }

    /// Batches of a kilobyte.
    fn accumulator(
        change: impl FnOnce(&mut ProducerConfig),
    ) -> (Arc<Accumulator>, mpsc::UnboundedReceiver<Event>) {
        let (tx, events) = mpsc::unbounded_channel();
        let mut config = ProducerConfig { batch_size: 1 << 10, ..ProducerConfig::default() };
        config.compression = Compression::None;
        change(&mut config);
        let env = Environment::builder().seed(1).build();
        let accumulator =
            Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        (Arc::new(accumulator), events)
    }

    /// Acknowledges what a queue holds, offsets counted from 0; gives how many records that were, and the most in one batch.
    fn acknowledge(
        accumulator: &Arc<Accumulator>,
        queue: &Arc<BatchQueue>,
        partition: i32,
    ) -> (usize, usize) {
        let (mut records, mut most) = (0, 0);
        while let Some(batch) = queue.take(accumulator) {
            let base_offset = records as i64;
            most = most.max(batch.records());
            records += batch.records();
            batch.resolve(Ok(BatchAck { partition, base_offset, append_time: None }));
        }
        (records, most)
    }

    /// Whatever there is about a record, and wherever a batch ends: each is told of once, with its own offset.
    #[test]
    fn each_record_is_told_of_once_and_in_order() {
        const RECORDS: u32 = 1_000;
        const NAMED: i32 = 3;
        let (accumulator, _events) = accumulator(|_| ());
        let seen = Arc::new(Sink::default());
        let sink: Arc<dyn RunSink> = seen.clone();
        let headers: [(&str, Option<&[u8]>); 2] = [("a", Some(b"1")), ("b", None)];
        let is_named = |i: u32| i % 7 == 3;
        let stamp = |i: u32| (i % 11 == 5).then(|| 1_000_000 + i64::from(i));
        let records = (0..RECORDS).map(|i| {
            let mut record = Record::to("t").value(&[7; 60][..(i % 60) as usize]);
            if is_named(i) {
                record = record.partition(NAMED);
            }
            if i % 50 == 20 {
                record.headers = HeaderList::Text(&headers);
            }
            if let Some(ms) = stamp(i) {
                record = record.timestamp_ms(ms);
            }
            record
        });
        let run = RunTag { sink: &sink, tag: 9, index: 0 };
        let (taken, result) = accumulator.append_submission(Shard::default(), run, records);
        assert!(result.is_ok() && taken == RECORDS as usize);

        let topic = accumulator.topic("t").unwrap();
        let spread = Arc::clone(topic.shard(Shard::default()));
        let (in_spread, most) = acknowledge(&accumulator, &spread, 0);
        let (in_named, _) = acknowledge(&accumulator, &topic.batch_queue(NAMED), NAMED);
        let named = (0..RECORDS).filter(|i| is_named(*i)).count();
        assert_eq!((in_spread, in_named), (RECORDS as usize - named, named));
        assert!((2..RECORDS as usize / 8).contains(&most), "{most} records in a batch");
        assert_eq!((accumulator.budget.used(), accumulator.outstanding()), (0, 0));

        let told = std::mem::take(&mut *seen.0.lock().unwrap());
        let mut offsets = vec![None; RECORDS as usize];
        for (first, count, partition, offset, timestamp_ms) in told {
            assert!(stamp(first).is_none_or(|own| own == timestamp_ms), "record {first}");
            for i in 0..count {
                let before = offsets[(first + i) as usize].replace(offset + i64::from(i));
                assert_eq!(before, None, "record {} is told of twice", first + i);
                assert_eq!(partition == NAMED, is_named(first + i), "record {}", first + i);
            }
        }
        // In the order in which they were given, those of each partition.
        for named in [false, true] {
            let of = (0..RECORDS).filter(|i| is_named(*i) == named);
            let offsets: Vec<_> = of.map(|i| offsets[i as usize].expect("told of")).collect();
            assert!(offsets.iter().copied().eq(0..offsets.len() as i64), "{offsets:?}");
        }
    }

    /// Those before it are on their way, those behind it are not looked at.
    #[test]
    fn a_record_that_is_refused_ends_a_submission() {
        let (accumulator, _events) = accumulator(|config| config.max_record_size = 100);
        let sink: Arc<dyn RunSink> = Arc::new(Sink::default());
        let (good, large) = ([7; 50], [7; 101]);
        let records = (0..90).map(|i| {
            assert!(i <= 70, "looked at record {i}");
            Record::to("t").value(if i == 70 { &large[..] } else { &good[..] })
        });
        let run = RunTag { sink: &sink, tag: 9, index: 0 };
        let (taken, result) = accumulator.append_submission(Shard::default(), run, records);
        assert_eq!((taken, result.unwrap_err().kind()), (70, ErrorKind::RecordTooLarge));
        let spread = Arc::clone(accumulator.topic("t").unwrap().shard(Shard::default()));
        assert_eq!(acknowledge(&accumulator, &spread, 0).0, 70);
    }

    /// The rest is for when there is room again, and the memory is what the batches hold.
    #[test]
    fn a_full_buffer_ends_a_submission() {
        let (accumulator, _events) = accumulator(|config| config.buffer_memory = 64 << 10);
        let seen = Arc::new(Sink::default());
        let sink: Arc<dyn RunSink> = seen.clone();
        let spread = Arc::clone(accumulator.topic("t").unwrap().shard(Shard::default()));
        let mut sent = 0;
        for round in 0..3 {
            let run = RunTag { sink: &sink, tag: round, index: 0 };
            let records = std::iter::repeat_n(Record::to("t").value(&[7; 200]), 10_000);
            let (taken, result) = accumulator.append_submission(Shard::default(), run, records);
            assert_eq!(result.unwrap_err().kind(), ErrorKind::BufferFull);
            assert!((50..10_000).contains(&taken), "{taken} taken");
            let held = accumulator.budget.used();
            assert!(held <= (64 << 10) + (64 << 10), "{held} bytes held");
            sent += taken;
            assert_eq!(acknowledge(&accumulator, &spread, 0).0, taken);
            assert_eq!(accumulator.budget.used(), 0);
        }
        let told: u32 = seen.0.lock().unwrap().iter().map(|(_, count, ..)| count).sum();
        assert_eq!(told as usize, sent);
    }
}
