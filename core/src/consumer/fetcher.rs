//! The fetcher: one task per consumer. One Fetch in flight per broker, on a lane of this consumer,
//! with every partition that broker leads and the buffer has room for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Start;
use super::buffer::{Buffer, Fetched, Key};
use super::offsets::{self, EARLIEST, LATEST};
use crate::cluster::{Lane, LeaderHint, Lookup, Pool, Purse, TopicMeta};
use crate::config::Endpoint;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result, describe};
use crate::metrics::{Api, limited};
use crate::net::CallError;
use crate::policy::ask::Why;
use crate::policy::backoff::Backoff;
use crate::policy::reconnect::Need;
use crate::policy::retry_budget::Cost;
use crate::record::reader;

/// Versions of Fetch: record batches (4) to the newest that is known; topic ids from 13.
const VERSIONS: (i16, i16) = crate::protocol::bounded::<FetchRequest>(4, 18);

const OFFSET_OUT_OF_RANGE: i16 = 1;

enum Event {
    /// Starts that were looked up, and the generation of each partition when they were asked for.
    Offsets(Vec<(Key, Result<i64>)>, BTreeMap<Key, u64>),
    Answer {
        leader: i32,
        asked: Vec<Asked>,
        answer: Result<FetchResponse>,
    },
}

/// One partition of a request in flight.
struct Asked {
    key: Key,
    id: uuid::Uuid,
    from: i64,
    generation: u64,
}

struct Reading {
    /// The next offset to fetch; `None` until it is known.
    next: Option<i64>,
    start: Start,
    generation: u64,
    /// In a request, or its start is being asked for.
    busy: bool,
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// Told to the application; nothing more until a seek.
    stopped: bool,
    /// An error that is tried again was told to the application; not again until an answer is good.
    told: bool,
}

impl Reading {
    fn new(start: Start) -> Self {
        Self {
            next: None,
            start,
            generation: 0,
            busy: false,
            retry_at: None,
            backoff: Backoff::default(),
            stopped: false,
            told: false,
        }
    }

    fn recovered(&mut self) {
        self.backoff.reset();
        self.told = false;
    }
}

/// See the module.
pub(super) struct Fetcher {
    pool: Arc<Pool>,
    env: Environment,
    rng: StdRng,
    buffer: Arc<Buffer>,
    lane: Lane,
    topics: Vec<Arc<str>>,
    start: Start,
    reading: BTreeMap<Key, Reading>,
    /// Partitions assigned by hand, until their topic is known.
    assigned: Vec<(Arc<str>, i32, Start)>,
    /// Brokers asked before, and how many bytes the request in flight there may bring (0: none is).
    busy: BTreeMap<i32, usize>,
    /// Brokers whose next request waits for the retry budget.
    unpaid: BTreeSet<i32>,
    told: BTreeMap<Arc<str>, ErrorKind>,
    tx: mpsc::UnboundedSender<Event>,
    rx: mpsc::UnboundedReceiver<Event>,
    wake_at: Option<Instant>,
}

impl Fetcher {
    pub(super) fn new(
        pool: &Arc<Pool>,
        buffer: &Arc<Buffer>,
        topics: Vec<Arc<str>>,
        assigned: Vec<(Arc<str>, i32, Start)>,
        start: Start,
    ) -> Self {
        let (tx, rx) = mpsc::unbounded_channel();
        Self {
            pool: Arc::clone(pool),
            env: pool.env().clone(),
            rng: pool.env().rng(),
            buffer: Arc::clone(buffer),
            lane: Lane::Fetch(pool.next_consumer()),
            topics,
            start,
            reading: BTreeMap::new(),
            assigned,
            busy: BTreeMap::new(),
            unpaid: BTreeSet::new(),
            told: BTreeMap::new(),
            tx,
            rx,
            wake_at: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut metadata = self.pool.metadata().subscribe();
        loop {
            if self.buffer.is_closed() {
                break;
            }
            let now = self.env.now();
            self.wake_at = None;
            self.learn(now);
            self.find_starts(now);
            self.fetch(now);
            let wake = self.wake_at;
            let first = tokio::select! {
                biased;
                event = self.rx.recv() => event,
                () = self.buffer.wake.notified() => None,
                _ = metadata.changed() => None,
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => None,
            };
            let mut next = first;
            while let Some(event) = next {
                self.handle(event);
                next = self.rx.try_recv().ok();
            }
        }
        // Its connections serve nobody else.
        for leader in self.busy.keys() {
            if let Some(broker) = self.pool.broker(*leader) {
                broker.take(self.lane);
            }
        }
    }

    /// Partitions that are there to read.
    fn learn(&mut self, now: Instant) {
        let metadata = Arc::clone(self.pool.metadata());
        let mut names = self.topics.clone();
        names.extend(self.assigned.iter().map(|(t, _, _)| Arc::clone(t)));
        names.sort();
        names.dedup();
        for name in names {
            match metadata.lookup(&name) {
                Lookup::Pending => {}
                Lookup::Failed(e) => {
                    if self.told.insert(Arc::clone(&name), e.kind()) != Some(e.kind()) {
                        self.buffer.fail(e);
                    }
                    let again = now + std::time::Duration::from_secs(5);
                    self.wake_at = earlier(self.wake_at, Some(again));
                }
                Lookup::Known(meta) => self.add(&meta),
            }
        }
        for (key, reading) in &mut self.reading {
            let (seek, generation) = self.buffer.take_seek(key);
            if let Some(to) = seek {
                reading.start = to;
                reading.next = if let Start::Offset(at) = to { Some(at) } else { None };
                reading.stopped = false;
                reading.retry_at = None;
            }
            reading.generation = generation;
        }
    }

    fn add(&mut self, meta: &Arc<TopicMeta>) {
        let count = meta.partitions.len() as i32;
        self.told.remove(&meta.name);
        if self.topics.contains(&meta.name) {
            for partition in 0..count {
                let key = (Arc::clone(&meta.name), partition);
                if !self.reading.contains_key(&key) {
                    self.buffer.add_partition(&key);
                    self.reading.insert(key, Reading::new(self.start));
                }
            }
        }
        let (known, rest) = std::mem::take(&mut self.assigned)
            .into_iter()
            .partition::<Vec<_>, _>(|(topic, _, _)| *topic == meta.name);
        self.assigned = rest;
        for (topic, partition, start) in known {
            if partition >= count {
                self.buffer.fail(Error::new(
                    ErrorKind::UnknownPartition,
                    format!("topic '{topic}' has no partition {partition}, it has {count}"),
                ));
                continue;
            }
            let key = (topic, partition);
            self.buffer.add_partition(&key);
            self.reading.insert(key, Reading::new(start));
        }
    }

    /// Asks for the first offsets of partitions that do not have one. Each leader for itself: one that
    /// is silent must not keep back what the others tell.
    fn find_starts(&mut self, now: Instant) {
        let metadata = Arc::clone(self.pool.metadata());
        let mut by_leader: BTreeMap<i32, (Vec<_>, BTreeMap<Key, u64>)> = BTreeMap::new();
        for (key, reading) in &mut self.reading {
            if reading.next.is_some() || reading.busy || reading.stopped {
                continue;
            }
            if let Some(at) = reading.retry_at.filter(|at| *at > now) {
                self.wake_at = earlier(self.wake_at, Some(at));
                continue;
            }
            let time = match reading.start {
                Start::Offset(at) => {
                    reading.next = Some(at);
                    continue;
                }
                Start::Earliest => EARLIEST,
                Start::Latest => LATEST,
                Start::Timestamp(ms) => ms,
            };
            reading.busy = true;
            let leader = match metadata.lookup(&key.0) {
                Lookup::Known(meta) => meta.partitions.get(key.1 as usize).map_or(-1, |p| p.leader),
                Lookup::Failed(_) | Lookup::Pending => -1,
            };
            let (wanted, generations) = by_leader.entry(leader).or_default();
            wanted.push((key.clone(), time));
            generations.insert(key.clone(), reading.generation);
        }
        for (wanted, generations) in by_leader.into_values() {
            let (pool, tx, lane) = (Arc::clone(&self.pool), self.tx.clone(), self.lane);
            self.env.spawn(async move {
                let found = offsets::list(&pool, lane, wanted).await;
                let _ = tx.send(Event::Offsets(found, generations));
            });
        }
    }

    /// One request to each leader that has none in flight.
    fn fetch(&mut self, now: Instant) {
        let mut by_leader: BTreeMap<i32, Vec<(Asked, i32)>> = BTreeMap::new();
        for (key, reading) in &self.reading {
            let Some(from) = reading.next else { continue };
            if reading.busy || reading.stopped {
                continue;
            }
            if let Some(at) = reading.retry_at.filter(|at| *at > now) {
                self.wake_at = earlier(self.wake_at, Some(at));
                continue;
            }
            let Lookup::Known(meta) = self.pool.metadata().lookup(&key.0) else { continue };
            let Some(p) = meta.partitions.get(key.1 as usize) else { continue };
            if p.leader < 0 {
                self.pool.metadata().want(&key.0, Why::Stale);
                continue;
            }
            if self.busy.get(&p.leader).is_some_and(|bytes| *bytes > 0) || self.buffer.is_full(key)
            {
                continue;
            }
            let asked =
                Asked { key: key.clone(), id: meta.id, from, generation: reading.generation };
            by_leader.entry(p.leader).or_default().push((asked, p.epoch));
        }
        // What is in flight counts: all answers together must fit the buffer. Each may bring one
        // batch that is larger than asked for, since brokers never cut the first.
        let mut room = self.buffer.room().saturating_sub(self.busy.values().sum());
        for (leader, parts) in by_leader {
            let bytes = self.buffer.config.max_bytes.min(room);
            if bytes == 0 {
                break;
            }
            let retry = match self.pay(leader, &parts, now) {
                Ok(retry) => retry,
                Err(at) => {
                    self.wake_at = earlier(self.wake_at, Some(at));
                    continue;
                }
            };
            room -= bytes;
            self.send(leader, parts, bytes, retry);
        }
    }

    /// A request in which every partition is tried again is paid from the retry budget. Tells whether
    /// it was one, or when there will be enough.
    fn pay(&mut self, leader: i32, parts: &[(Asked, i32)], now: Instant) -> Result<bool, Instant> {
        let again = |key: &Key| self.reading.get(key).is_some_and(|r| r.backoff.attempts() > 0);
        let budgets = self.pool.budgets();
        let retry = parts.iter().all(|(part, _)| again(&part.key));
        if !retry {
            budgets.first_request(Purse::Fetch, now);
        } else if let Err(at) = budgets.retry(Purse::Fetch, Cost::Definite, now) {
            if self.unpaid.insert(leader) {
                budgets.delayed(Purse::Fetch);
            }
            return Err(at);
        }
        self.unpaid.remove(&leader);
        Ok(retry)
    }

    fn send(&mut self, leader: i32, parts: Vec<(Asked, i32)>, max_bytes: usize, retry: bool) {
        let config = &self.buffer.config;
        let ids_known = parts.iter().all(|(asked, _)| !asked.id.is_nil());
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut asked = Vec::with_capacity(parts.len());
        for (part, epoch) in parts {
            if let Some(reading) = self.reading.get_mut(&part.key) {
                reading.busy = true;
            }
            let partition = FetchPartition::default()
                .with_partition(part.key.1)
                .with_current_leader_epoch(epoch)
                .with_fetch_offset(part.from)
                .with_partition_max_bytes(int(config.max_partition_bytes));
            match topics.last_mut() {
                Some(last) if *last.topic.0 == *part.key.0 => last.partitions.push(partition),
                _ => topics.push(
                    FetchTopic::default()
                        .with_topic(TopicName(StrBytes::from_string(part.key.0.to_string())))
                        .with_topic_id(part.id)
                        .with_partitions(vec![partition]),
                ),
            }
            asked.push(part);
        }
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(int(config.max_wait.as_millis() as usize))
            .with_min_bytes(int(config.min_bytes))
            .with_max_bytes(int(max_bytes))
            .with_session_epoch(-1)
            .with_topics(topics);
        self.busy.insert(leader, max_bytes);
        let versions = (VERSIONS.0, if ids_known { VERSIONS.1 } else { 12 });
        let (pool, tx, lane) = (Arc::clone(&self.pool), self.tx.clone(), self.lane);
        self.env.spawn(async move {
            let answer = match pool.lane(leader, lane, Need::Needed).await {
                Err(e) => Err(e),
                Ok(connection) => {
                    connection.call(&request, versions, retry).await.map_err(CallError::into_error)
                }
            };
            let _ = tx.send(Event::Answer { leader, asked, answer });
        });
    }

    fn handle(&mut self, event: Event) {
        let now = self.env.now();
        match event {
            Event::Offsets(found, generations) => {
                let mut again = None;
                for (key, result) in found {
                    let Some(reading) = self.reading.get_mut(&key) else { continue };
                    reading.busy = false;
                    match result {
                        // A seek came in between: this is where the old start would have been.
                        Ok(_) if generations.get(&key) != Some(&reading.generation) => {}
                        Ok(offset) => {
                            reading.next.get_or_insert(offset);
                            reading.recovered();
                        }
                        Err(e) => self.trouble(&key, &e, now, &mut again),
                    }
                }
            }
            Event::Answer { leader, asked, answer } => {
                self.busy.insert(leader, 0);
                for part in &asked {
                    if let Some(reading) = self.reading.get_mut(&part.key) {
                        reading.busy = false;
                    }
                }
                if let Ok(answer) = &answer {
                    self.count(leader, answer);
                }
                match answer.and_then(whole_answer) {
                    Ok(answer) => self.answered(&asked, answer, now),
                    Err(e) => {
                        let mut again = None;
                        for part in &asked {
                            self.pool.metadata().want(&part.key.0, Why::Lost);
                            self.trouble(&part.key, &e, now, &mut again);
                        }
                    }
                }
            }
        }
    }

    fn count(&self, leader: i32, answer: &FetchResponse) {
        let mut parts = answer.responses.iter().flat_map(|topic| &topic.partitions);
        if answer.error_code != 0 || parts.any(|p| p.error_code != 0) {
            self.pool.metrics().broker(leader).error_answer(Api::Fetch);
        }
    }

    /// Waits and tries again, or tells the application and stops, as the error says. What failed in
    /// one request is tried again at one time, `again`, which the first of them draws: with a delay
    /// for each partition the one request would come back as many.
    fn trouble(&mut self, key: &Key, error: &Error, now: Instant, again: &mut Option<Instant>) {
        let Some(reading) = self.reading.get_mut(key) else { return };
        // A missing topic is told by `learn`, and may be created yet.
        let passing = error.is_retriable()
            || error.broker_code().is_none()
            || error.kind() == ErrorKind::UnknownTopic;
        if passing {
            let delay = reading.backoff.next(&mut self.rng);
            reading.retry_at = Some(*again.get_or_insert(now + delay));
            // It may pass with this very broker, but somebody has to know if it does not.
            let foreign = matches!(
                error.kind(),
                ErrorKind::NotKafka | ErrorKind::UnsupportedVersion | ErrorKind::Authentication
            );
            if foreign
                && reading.backoff.attempts() > 1
                && !std::mem::replace(&mut reading.told, true)
            {
                self.buffer.fail(error.clone());
            }
            limited!(self.pool.metrics().logs(), DEBUG, topic = %key.0, partition = key.1, error = %error.message(), "fetch");
        } else {
            reading.stopped = true;
            self.buffer.fail(error.clone());
        }
    }

    fn answered(&mut self, asked: &[Asked], answer: FetchResponse, now: Instant) {
        let endpoints: Vec<(i32, Endpoint)> = answer
            .node_endpoints
            .iter()
            .filter_map(|n| {
                let port = u16::try_from(n.port).ok()?;
                Some((n.node_id.0, Endpoint { host: n.host.to_string(), port }))
            })
            .collect();
        let mut again = None;
        for topic in answer.responses {
            for p in topic.partitions {
                let Some(part) = asked.iter().find(|a| {
                    a.key.1 == p.partition_index
                        && (*a.key.0 == *topic.topic.0
                            || (topic.topic.0.is_empty() && a.id == topic.topic_id))
                }) else {
                    continue;
                };
                if p.current_leader.leader_id.0 >= 0 {
                    let hint = LeaderHint {
                        partition: p.partition_index,
                        leader: p.current_leader.leader_id.0,
                        epoch: p.current_leader.leader_epoch,
                    };
                    let pool = &self.pool;
                    let named = pool.metadata().hint(
                        &part.key.0,
                        part.id,
                        &[hint],
                        &endpoints,
                        |all, named| {
                            pool.brokers_changed(all, named);
                        },
                    );
                    if !named.is_empty() {
                        self.pool.metrics().hint_applied();
                    }
                }
                match p.error_code {
                    0 => {
                        let records = p.records.unwrap_or_default();
                        self.records(part, records, p.high_watermark);
                    }
                    OFFSET_OUT_OF_RANGE => self.out_of_range(part, p.log_start_offset),
                    code => {
                        if describe(code).refresh_metadata {
                            self.pool.metadata().want(&part.key.0, Why::Stale);
                        }
                        let what = format!("topic '{}' partition {}", part.key.0, part.key.1);
                        self.trouble(&part.key, &Error::broker(code, what, None), now, &mut again);
                    }
                }
            }
        }
    }

    fn records(&mut self, part: &Asked, records: Bytes, high_watermark: i64) {
        let Some(reading) = self.reading.get_mut(&part.key) else { return };
        reading.recovered();
        reading.retry_at = None;
        // A seek happened meanwhile: the answer is to an old question.
        if reading.generation != part.generation || reading.next != Some(part.from) {
            return;
        }
        self.pool.metrics().records_fetched(records.len());
        let mut next = part.from;
        let mut fetched = Vec::new();
        for raw in reader::split(records) {
            match raw {
                Ok(raw) => {
                    if raw.last_offset < next {
                        continue;
                    }
                    next = raw.last_offset + 1;
                    // Markers of transactions are the broker's, not the application's.
                    if raw.control {
                        continue;
                    }
                    fetched.push(Fetched {
                        key: part.key.clone(),
                        raw,
                        from: part.from,
                        high_watermark,
                        generation: part.generation,
                    });
                }
                Err(e) => {
                    reading.stopped = true;
                    let what = format!("topic '{}' partition {}: {e}", part.key.0, part.key.1);
                    self.buffer.push(std::mem::take(&mut fetched));
                    self.buffer.fail(Error::new(ErrorKind::Corrupt, what));
                    break;
                }
            }
        }
        reading.next = Some(next);
        self.buffer.push(fetched);
    }

    /// The records at the position are gone (or never were).
    fn out_of_range(&mut self, part: &Asked, log_start: i64) {
        let Some(reading) = self.reading.get_mut(&part.key) else { return };
        if reading.generation != part.generation {
            return;
        }
        let (topic, partition) = &part.key;
        if let Start::Offset(_) = reading.start {
            reading.stopped = true;
            self.buffer.fail(Error::broker(
                OFFSET_OUT_OF_RANGE,
                format_args!(
                    "topic '{topic}' partition {partition}: offset {} (the log starts at {log_start})",
                    part.from
                ),
                None,
            ));
            return;
        }
        limited!(self.pool.metrics().logs(), WARN, %topic, partition, offset = part.from, log_start, "offset out of range: reset");
        if let Start::Timestamp(_) = reading.start {
            reading.start = Start::Earliest;
        }
        reading.next = None;
    }
}

/// An answer as a whole may carry an error, too.
fn whole_answer(answer: FetchResponse) -> Result<FetchResponse> {
    match answer.error_code {
        0 => Ok(answer),
        code => Err(Error::broker(code, "Fetch", None)),
    }
}

fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
