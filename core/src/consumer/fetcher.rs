//! The fetcher: one task per consumer. One Fetch in flight per broker, on a lane of this consumer,
//! with every partition that broker leads and the buffer has room for. Asking is here; what comes
//! back is read in [`answers`].

mod answers;
mod troubles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Start;
use super::buffer::{Buffer, Key};
use super::offsets::{self, EARLIEST, LATEST};
use crate::caught::caught;
use crate::cluster::{Lane, Lookup, Pool, Purse, TopicMeta};
use crate::environment::{Environment, earlier};
use crate::error::{Error, ErrorKind, Result};
use crate::net::CallError;
use crate::policy::ask::Why;
use crate::policy::backoff::Backoff;
use crate::policy::reconnect::Need;
use crate::policy::retry_budget::Cost;

use troubles::Troubles;

/// Versions of Fetch: record batches (4) to the newest that is known; topic ids from 13.
const VERSIONS: (i16, i16) = crate::protocol::bounded::<FetchRequest>(4, 18);

enum Event {
    /// Starts that were looked up, and the generation of each partition when they were asked for.
    /// By the leader that was asked; -1: there was none.
    Offsets(i32, Vec<(Key, Result<i64>)>, BTreeMap<Key, u64>),
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
    troubles: Troubles,
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
            troubles: Troubles::default(),
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
            self.env.mishap("fetcher");
            let now = self.env.now();
            self.wake_at = None;
            self.learn(now);
            self.find_starts(now);
            self.fetch(now);
            self.tell_troubles(now);
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
                Lookup::Pending => self.troubles.wait_for(None),
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
        for (leader, (wanted, generations)) in by_leader {
            self.troubles.wait_for((leader >= 0).then_some(leader));
            let (pool, tx, lane) = (Arc::clone(&self.pool), self.tx.clone(), self.lane);
            self.env.spawn(async move {
                let keys: Vec<Key> = wanted.iter().map(|(key, _)| key.clone()).collect();
                let found = caught(async {
                    pool.env().mishap("offsets");
                    offsets::list(&pool, lane, wanted).await
                });
                let found = found.await.unwrap_or_else(|e| {
                    keys.into_iter().map(|key| (key, Err(e.clone()))).collect()
                });
                let _ = tx.send(Event::Offsets(leader, found, generations));
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
        self.troubles.wait_for(Some(leader));
        let versions = (VERSIONS.0, if ids_known { VERSIONS.1 } else { 12 });
        let (pool, tx, lane) = (Arc::clone(&self.pool), self.tx.clone(), self.lane);
        self.env.spawn(async move {
            let answer = caught(async {
                pool.env().mishap("fetch");
                let connection = pool.lane(leader, lane, Need::Needed).await?;
                connection.call(&request, versions, retry).await.map_err(CallError::into_error)
            });
            let answer = answer.await.and_then(|answer| answer);
            let _ = tx.send(Event::Answer { leader, asked, answer });
        });
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        // Its connections serve nobody else.
        for leader in self.busy.keys() {
            if let Some(broker) = self.pool.broker(*leader) {
                broker.take(self.lane);
            }
        }
    }
}

fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
