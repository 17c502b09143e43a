//! The engine without a broker: what is submitted is written at once to partition 0 (or the one
//! asked for) of a log in memory, and read back from it. For the tests of the bindings.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use super::batch::{Batch, HeaderViews, RecordView};
use super::completion::{Completion, CompletionKind};
use super::options::Subscription;
use super::pack::{Cursor, Entry, pack};
use super::queue::CompletionQueue;
use super::ready::Ready;
use crate::config::Start;
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
        let mut reader = EchoReader { topics: HashMap::new(), positions: BTreeMap::new() };
        let mut state = self.lock();
        match what {
            Subscription::Topics(topics, start) => {
                for topic in topics {
                    check_topic(topic)?;
                    reader.topics.insert(topic.as_str().into(), *start);
                    for (&p, log) in state.topics.get(topic.as_str()).into_iter().flatten() {
                        reader.positions.insert((topic.as_str().into(), p), log.locate(*start));
                    }
                }
            }
            Subscription::Partitions(list) => {
                for (topic, partition, start) in list {
                    check_topic(topic)?;
                    let log = state.topics.get(topic.as_str()).and_then(|l| l.get(partition));
                    let at = log.map_or(0, |log| log.locate(*start));
                    reader.positions.insert((topic.as_str().into(), *partition), at);
                }
            }
        }
        state.readers.push(Arc::downgrade(ready));
        Ok(reader)
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

/// The positions of one consumer of the echo.
pub(crate) struct EchoReader {
    /// Topics read as a whole: partitions that appear later are read from their start.
    topics: HashMap<Arc<str>, Start>,
    positions: BTreeMap<(Arc<str>, i32), i64>,
}

impl EchoReader {
    pub(crate) fn next(&mut self, echo: &Echo) -> Option<Batch> {
        let state = echo.lock();
        for topic in self.topics.keys() {
            for &p in state.topics.get(topic).into_iter().flat_map(BTreeMap::keys) {
                self.positions.entry((topic.clone(), p)).or_insert(0);
            }
        }
        for ((topic, partition), at) in &mut self.positions {
            let log = state.topics.get(topic).and_then(|logs| logs.get(partition));
            let batch = log.and_then(|log| log.batches.iter().find(|b| b.next_offset() > *at));
            if let Some(batch) = batch {
                let skip = usize::try_from(*at - batch.base_offset).unwrap_or(0);
                *at = batch.next_offset();
                return Some(Batch::echo(if skip == 0 {
                    batch.clone()
                } else {
                    Arc::new(batch.without_first(skip))
                }));
            }
        }
        None
    }

    pub(crate) fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.positions.get(&(topic.into(), partition)).copied()
    }

    pub(crate) fn seek(
        &mut self,
        echo: &Echo,
        topic: &str,
        partition: i32,
        to: Start,
    ) -> Result<()> {
        let Some(at) = self.positions.get_mut(&(topic.into(), partition)) else {
            return Err(Error::argument(format!(
                "partition {partition} of '{topic}' is not read here"
            )));
        };
        let state = echo.lock();
        let log = state.topics.get(topic).and_then(|logs| logs.get(&partition));
        *at = log.map_or(0, |log| log.locate(to));
        Ok(())
    }
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
