//! The engine without a broker: what is submitted is written at once to partition 0 (or the one
//! asked for) of a log in memory, and read back from it. For the tests of the bindings.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use super::batch::{Batch, HeaderViews, RecordView};
use super::completion::{Completion, CompletionKind};
use super::consumer::Next;
use super::options::Subscription;
use super::pack::{Cursor, Entry, pack};
use super::queue::CompletionQueue;
use super::ready::Ready;
use crate::TopicPartition;
use crate::admin::OffsetSpec;
use crate::config::Start;
use crate::consumer::Claim;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that one partition keeps for its readers; the oldest batches go first, and a reader that
/// was behind goes on with the oldest that is left.
const KEPT_PER_PARTITION: usize = 16 << 20;

/// Records of one run, in the packed form.
pub(crate) struct EchoBatch {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    base_offset: i64,
    /// Given to records without a timestamp of their own.
    now_ms: i64,
    bytes: Vec<u8>,
    at: Vec<usize>,
}

impl EchoBatch {
    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.base_offset + self.at.len() as i64
    }

    pub(crate) fn get(&self, i: usize) -> Option<RecordView<'_>> {
        let mut cursor = Cursor { bytes: &self.bytes, at: *self.at.get(i)? };
        let fixed = cursor.fixed().ok()?;
        let header_count = fixed.header_count();
        let entry = fixed.entry(&[]);
        Some(RecordView {
            offset: self.base_offset + i as i64,
            timestamp_ms: entry.timestamp_ms.unwrap_or(self.now_ms),
            key: entry.key,
            value: entry.value,
            headers: HeaderViews::packed(cursor, header_count),
        })
    }
}

#[derive(Default)]
struct Log {
    batches: VecDeque<Arc<EchoBatch>>,
    bytes: usize,
    next_offset: i64,
}

/// All of an echo engine's topics. They exist as soon as they are written to.
#[derive(Default)]
pub(crate) struct Echo(Mutex<State>);

#[derive(Default)]
struct State {
    topics: HashMap<Arc<str>, BTreeMap<i32, Log>>,
    readers: Vec<Weak<Ready>>,
}

impl Echo {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        check_topic(topic)?;
        if partitions < 1 {
            return Err(Error::argument(format!("{partitions} partitions; there is at least 1")));
        }
        let mut state = self.lock();
        if state.topics.contains_key(topic) {
            let message = format!("topic '{topic}' exists");
            return Err(Error::new(ErrorKind::TopicExists, message));
        }
        let logs = (0..partitions).map(|p| (p, Log::default())).collect();
        state.topics.insert(topic.into(), logs);
        Ok(())
    }

    /// Takes records until one is refused; a completion per run of one partition.
    pub(crate) fn append<'r>(
        &self,
        queue: &CompletionQueue,
        tag: u64,
        topic: &str,
        max_record_size: usize,
        entries: impl Iterator<Item = Entry<'r>>,
    ) -> (usize, Option<Error>) {
        if let Err(error) = check_topic(topic) {
            return (0, Some(error));
        }
        let mut refused = None;
        let mut runs: Vec<Run> = Vec::new();
        let mut accepted = 0;
        for entry in entries {
            if entry.size() > max_record_size {
                refused = Some(Error::new(
                    ErrorKind::RecordTooLarge,
                    format!(
                        "a record for '{topic}' has {} bytes; max_record_size is {max_record_size}",
                        entry.size()
                    ),
                ));
                break;
            }
            let partition = entry.partition.unwrap_or(0);
            if runs.last().is_none_or(|run| run.partition != partition) {
                runs.push(Run { first: accepted, partition, bytes: Vec::new(), at: Vec::new() });
            }
            if let Some(run) = runs.last_mut() {
                run.at.push(run.bytes.len());
                pack(&mut run.bytes, &entry);
            }
            accepted += 1;
        }
        self.write(queue, tag, topic, runs);
        (accepted, refused)
    }

    fn write(&self, queue: &CompletionQueue, tag: u64, topic: &str, runs: Vec<Run>) {
        if runs.is_empty() {
            return;
        }
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        let mut state = self.lock();
        let name: Arc<str> = match state.topics.get_key_value(topic) {
            Some((name, _)) => name.clone(),
            None => topic.into(),
        };
        let logs = state.topics.entry(name.clone()).or_default();
        for run in runs {
            let log = logs.entry(run.partition).or_default();
            let batch = EchoBatch {
                topic: name.clone(),
                partition: run.partition,
                base_offset: log.next_offset,
                now_ms,
                bytes: run.bytes,
                at: run.at,
            };
            let completion = Completion {
                tag,
                kind: CompletionKind::Delivery,
                first: u32::try_from(run.first).unwrap_or(u32::MAX),
                count: u32::try_from(batch.len()).unwrap_or(u32::MAX),
                partition: batch.partition,
                offset: batch.base_offset,
                timestamp_ms: batch.get(0).map_or(now_ms, |r| r.timestamp_ms),
                error: None,
                unread: None,
            };
            log.next_offset = batch.next_offset();
            log.bytes += batch.bytes.len();
            log.batches.push_back(Arc::new(batch));
            while log.bytes > KEPT_PER_PARTITION && log.batches.len() > 1 {
                log.bytes -= log.batches.pop_front().map_or(0, |b| b.bytes.len());
            }
            queue.push(completion);
        }
        state.readers.retain(|r| r.strong_count() > 0);
        let readers: Vec<_> = state.readers.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        readers.iter().for_each(|r| r.fire());
    }

    /// A reader whose `ready` fires when anything is written.
    pub(crate) fn reader(&self, what: &Subscription, ready: &Arc<Ready>) -> Result<EchoReader> {
        let mut reader = Reading::default();
        let mut state = self.lock();
        match what {
            Subscription::Topics(topics, start) => {
                for topic in topics {
                    check_topic(topic)?;
                    reader.topics.insert(topic.as_str().into());
                    for (&p, log) in state.topics.get(topic.as_str()).into_iter().flatten() {
                        let key = (topic.as_str().into(), p);
                        reader.places.insert(key, Place::at(log.locate(*start)));
                    }
                }
            }
            Subscription::Partitions(list) => {
                for (topic, partition, start) in list {
                    check_topic(topic)?;
                    let key = (topic.as_str().into(), *partition);
                    reader.places.insert(key, Place::at(state.locate(topic, *partition, *start)));
                }
            }
        }
        state.readers.push(Arc::downgrade(ready));
        Ok(EchoReader(Mutex::new(reader)))
    }

    /// The offset of a place in a partition that was written to or created.
    pub(crate) fn offset(&self, topic: &str, partition: i32, spec: OffsetSpec) -> Result<i64> {
        let state = self.lock();
        let logs = state.topics.get(topic).ok_or_else(|| {
            Error::new(ErrorKind::UnknownTopic, format!("topic '{topic}' does not exist"))
        })?;
        let log = logs.get(&partition).ok_or_else(|| {
            let words = format!("partition {partition} of topic '{topic}' does not exist");
            Error::new(ErrorKind::UnknownPartition, words)
        })?;
        Ok(log.locate(match spec {
            OffsetSpec::Earliest => Start::Earliest,
            OffsetSpec::Latest => Start::Latest,
            OffsetSpec::Timestamp(ms) => Start::Timestamp(ms),
        }))
    }
}

impl State {
    fn log(&self, topic: &str, partition: i32) -> Option<&Log> {
        self.topics.get(topic)?.get(&partition)
    }

    fn locate(&self, topic: &str, partition: i32, start: Start) -> i64 {
        let fixed = if let Start::Offset(offset) = start { offset } else { 0 };
        self.log(topic, partition).map_or(fixed, |log| log.locate(start))
    }
}

struct Run {
    first: usize,
    partition: i32,
    bytes: Vec<u8>,
    at: Vec<usize>,
}

impl Log {
    fn locate(&self, start: Start) -> i64 {
        match start {
            Start::Earliest => 0,
            Start::Latest => self.next_offset,
            Start::Offset(offset) => offset,
            Start::Timestamp(ms) => self
                .batches
                .iter()
                .flat_map(|b| (0..b.len()).filter_map(|i| b.get(i)))
                .find(|r| r.timestamp_ms >= ms)
                .map_or(self.next_offset, |r| r.offset),
        }
    }
}

type Key = (Arc<str>, i32);

/// A partition that is read.
struct Place {
    at: i64,
    paused: bool,
    claim: Arc<Claim>,
}

impl Place {
    fn at(at: i64) -> Self {
        Self { at, paused: false, claim: Claim::new(false) }
    }

    fn go_to(&mut self, at: i64) {
        self.at = at;
        std::mem::replace(&mut self.claim, Claim::new(self.paused)).leave();
    }
}

/// The positions of one consumer of the echo. Locked before the echo.
pub(crate) struct EchoReader(Mutex<Reading>);

#[derive(Default)]
struct Reading {
    /// Topics read as a whole: partitions that appear later are read from their start.
    topics: BTreeSet<Arc<str>>,
    /// Partitions of these that are not wanted.
    unwanted: BTreeSet<Key>,
    places: BTreeMap<Key, Place>,
}

impl Reading {
    /// Finds the partitions of whole topics that have appeared since.
    fn learn(&mut self, echo: &State) {
        for topic in &self.topics {
            for &p in echo.topics.get(topic).into_iter().flat_map(BTreeMap::keys) {
                let key = (topic.clone(), p);
                if !self.unwanted.contains(&key) {
                    self.places.entry(key).or_insert_with(|| Place::at(0));
                }
            }
        }
    }

    fn place(&self, topic: &str, partition: i32) -> Option<&Place> {
        self.places.get(&(topic.into(), partition))
    }

    /// All of these, or an error.
    fn keys(&self, partitions: &[(&str, i32)]) -> Result<Vec<Key>> {
        let known = |&(topic, partition): &(&str, i32)| {
            let key: Key = (topic.into(), partition);
            if self.places.contains_key(&key) { Ok(key) } else { Err(not_read(topic, partition)) }
        };
        partitions.iter().map(known).collect()
    }

    fn named<'a>(list: impl Iterator<Item = &'a Key>) -> Vec<TopicPartition> {
        list.map(|(topic, partition)| TopicPartition {
            topic: topic.clone(),
            partition: *partition,
        })
        .collect()
    }
}

impl EchoReader {
    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn next(&self, echo: &Echo, ends: &[(TopicPartition, i64)]) -> Next {
        let mut reading = self.lock();
        let state = echo.lock();
        reading.learn(&state);
        let is_there = |(part, end): &(TopicPartition, i64)| {
            reading.place(&part.topic, part.partition).is_some_and(|place| place.at >= *end)
        };
        if !ends.is_empty() && ends.iter().all(is_there) {
            return Next::Reached;
        }
        for ((topic, partition), place) in &mut reading.places {
            if place.paused {
                continue;
            }
            let log = state.log(topic, *partition);
            let batch = log.and_then(|log| log.batches.iter().find(|b| b.next_offset() > place.at));
            if let Some(batch) = batch {
                let skip = usize::try_from(place.at - batch.base_offset).unwrap_or(0);
                place.at = batch.next_offset();
                let batch =
                    if skip == 0 { batch.clone() } else { Arc::new(batch.without_first(skip)) };
                return Next::Batch(Batch::echo(batch, place.claim.clone()));
            }
        }
        Next::Nothing
    }

    pub(crate) fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.lock().place(topic, partition).map(|place| place.at)
    }

    pub(crate) fn lag(&self, echo: &Echo, topic: &str, partition: i32) -> Option<i64> {
        let reading = self.lock();
        let at = reading.place(topic, partition)?.at;
        Some((echo.lock().log(topic, partition)?.next_offset - at).max(0))
    }

    pub(crate) fn seek(&self, echo: &Echo, topic: &str, partition: i32, to: Start) -> Result<()> {
        let mut reading = self.lock();
        let Some(place) = reading.places.get_mut(&(topic.into(), partition)) else {
            return Err(not_read(topic, partition));
        };
        place.go_to(echo.lock().locate(topic, partition, to));
        Ok(())
    }

    pub(crate) fn pause(&self, partitions: &[(&str, i32)], pause: bool) -> Result<()> {
        let mut reading = self.lock();
        for key in reading.keys(partitions)? {
            if let Some(place) = reading.places.get_mut(&key) {
                place.paused = pause;
                place.claim.pause(pause);
            }
        }
        Ok(())
    }

    pub(crate) fn paused(&self) -> Vec<TopicPartition> {
        let reading = self.lock();
        Reading::named(reading.places.iter().filter(|(_, at)| at.paused).map(|(key, _)| key))
    }

    pub(crate) fn assign(&self, echo: &Echo, partitions: &[(&str, i32, Start)]) -> Result<()> {
        for (topic, partition, start) in partitions {
            check_topic(topic)?;
            start.check()?;
            if *partition < 0 {
                return Err(Error::argument(format!("partition {partition} is negative")));
            }
        }
        let mut reading = self.lock();
        let state = echo.lock();
        for (topic, partition, start) in partitions {
            let key: Key = ((*topic).into(), *partition);
            reading.unwanted.remove(&key);
            let at = state.locate(topic, *partition, *start);
            let place = reading.places.entry(key).or_insert_with(|| Place::at(at));
            place.go_to(at);
        }
        Ok(())
    }

    pub(crate) fn unassign(&self, partitions: &[(&str, i32)]) -> Result<()> {
        let mut reading = self.lock();
        for key in reading.keys(partitions)? {
            if let Some(place) = reading.places.remove(&key) {
                place.claim.leave();
            }
            if reading.topics.contains(&key.0) {
                reading.unwanted.insert(key);
            }
        }
        Ok(())
    }

    pub(crate) fn assignment(&self, echo: &Echo) -> Vec<TopicPartition> {
        let mut reading = self.lock();
        reading.learn(&echo.lock());
        Reading::named(reading.places.keys())
    }
}

fn not_read(topic: &str, partition: i32) -> Error {
    let words = format!("partition {partition} of topic '{topic}' is not read by this consumer");
    Error::new(ErrorKind::UnknownPartition, words)
        .advise("name one of the partitions that the consumer reads")
}

impl EchoBatch {
    fn without_first(&self, n: usize) -> Self {
        Self {
            topic: self.topic.clone(),
            partition: self.partition,
            base_offset: self.base_offset + n as i64,
            now_ms: self.now_ms,
            bytes: self.bytes.clone(),
            at: self.at[n..].to_vec(),
        }
    }
}

fn check_topic(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::argument("the topic name is empty"));
    }
    Ok(())
}
