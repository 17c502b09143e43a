//! The fetcher: one task per consumer. One Fetch in flight per broker, on a lane of this consumer, with every
//! partition that the broker leads and the buffer has room for. This file sends requests. [`learn`] finds out
//! what there is to read, [`places`] what each partition waits for, [`responses`] reads what comes back, [`spells`] tries again what brokers answer with
//! errors, [`troubles`] reports brokers that cannot be reached, and [`silence`] brokers that can be reached and
//! do not answer.

mod learn;
mod other_cluster;
mod places;
mod responses;
mod silence;
mod spells;
mod troubles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::buffer::{Buffer, Key};
use super::position::Position;
use super::reading::{Reading, Readings, Source, Topic, Waits};
use super::slot::SlotId;
use crate::caught::caught;
use crate::cluster::list_offsets::{self, EARLIEST, FoundOffset, LATEST};
use crate::cluster::{BudgetKind, Handle, Lane};
use crate::config::Start;
use crate::environment::{Environment, earlier};
use crate::error::{Error, Result};
use crate::net::{CallError, Connection};
use crate::policy::reconnect::DialUrgency;
use crate::policy::retry_budget::Cost;
use crate::policy::silence::patience;
use crate::protocol::NO_EPOCH;

use troubles::Troubles;

/// Versions of Fetch: record batches (4) to the newest that is known; topic ids from 13.
const VERSIONS: (i16, i16) = crate::protocol::bounded::<FetchRequest>(4, 18);
/// The first version that carries the leader epoch of the last fetched batch.
const TELLS_EPOCHS: i16 = 12;

enum Event {
    /// The offsets at which partitions begin were looked up.
    Offsets {
        leader: i32,
        asked: Vec<Asked>,
        sent: Instant,
        found: Vec<(Key, Result<FoundOffset>)>,
    },
    Response {
        leader: i32,
        asked: Vec<Asked>,
        sent: Instant,
        /// A connection was open and the request was handed to it.
        went: bool,
        response: Result<FetchResponse>,
    },
    /// The response to the Fetch that was sent at `sent` is overdue.
    Overdue { leader: i32, sent: Instant, error: Error },
}

/// One partition of a request in flight, as it was when the request was sent.
struct Asked {
    slot: SlotId,
    key: Key,
    id: uuid::Uuid,
    incarnation: u64,
    begun: u64,
    /// The position that is fetched from; `None` in ListOffsets, which asks where to begin.
    from: Option<Position>,
}

impl Asked {
    fn new(slot: SlotId, reading: &Reading) -> Self {
        let Reading { key, id, incarnation, begun, next, .. } = reading;
        let (incarnation, begun) = (*incarnation, *begun);
        Self { slot, key: key.clone(), id: *id, incarnation, begun, from: *next }
    }

    /// Whether the response still answers what is read: the number was not given to another partition, nothing
    /// was sought in between, and the position is the same.
    fn is_of(&self, reading: &Reading) -> bool {
        self.incarnation == reading.incarnation
            && self.begun == reading.begun
            && self.from == reading.next
    }

    /// The partition, and from where it was asked for, if the response still answers that. Of one that only a seek
    /// moves on, a response that comes late, from a former leader, says nothing.
    fn current<'a>(&self, readings: &'a mut Readings) -> Option<(&'a mut Reading, Position)> {
        let reading = readings.get_mut(self.slot)?;
        (self.is_of(reading) && !reading.stopped).then_some(reading).zip(self.from)
    }
}

/// See the module.
pub(super) struct Fetcher {
    pool: Handle,
    /// The incarnation of the cluster that it reads.
    incarnation: u64,
    env: Environment,
    rng: StdRng,
    buffer: Arc<Buffer>,
    lane: Lane,
    /// The topics that the application named.
    topics: BTreeMap<Arc<str>, Topic>,
    /// Partitions that are read.
    reading: Readings,
    /// Those that wait for a time.
    retries: BTreeSet<(Instant, SlotId)>,
    /// Brokers that were asked before and are still part of the cluster.
    sources: BTreeMap<i32, Source>,
    /// Number of responses so far: the clock of the partitions' turns.
    responses: u64,
    /// Number of requests so far: the clock of the brokers' turns.
    requests: u64,
    troubles: Troubles,
    tx: mpsc::UnboundedSender<Event>,
    rx: mpsc::UnboundedReceiver<Event>,
    wake_at: Option<Instant>,
}

impl Fetcher {
    pub(super) fn new(
        pool: &Handle,
        buffer: &Arc<Buffer>,
        whole: Vec<Arc<str>>,
        start: Start,
    ) -> Self {
        let mut topics: BTreeMap<Arc<str>, Topic> = BTreeMap::new();
        for name in whole {
            topics.entry(name).or_default().whole = Some(start);
        }
        let (tx, rx) = mpsc::unbounded_channel();
        Self {
            incarnation: pool.settings().born,
            pool: pool.clone(),
            env: pool.env().clone(),
            rng: pool.env().rng(),
            buffer: Arc::clone(buffer),
            lane: Lane::Fetch(pool.next_consumer()),
            topics,
            reading: Readings::default(),
            retries: BTreeSet::new(),
            sources: BTreeMap::new(),
            responses: 0,
            requests: 0,
            troubles: Troubles::default(),
            tx,
            rx,
            wake_at: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut metadata = self.pool.metadata().subscribe();
        // Finer than the runtime's timer: a trickle waits for a few milliseconds.
        let mut alarm = self.env.alarm();
        loop {
            if self.buffer.is_closed() || !self.goes_on() {
                break;
            }
            self.env.mishap("fetcher");
            let now = self.env.now();
            self.wake_at = None;
            self.obey();
            self.learn(now);
            self.find_starts(now);
            self.fetch(now);
            self.tell_troubles(now);
            let wake = self.wake_at;
            let first = tokio::select! {
                biased;
                event = self.rx.recv() => event,
                () = self.buffer.wake.notified() => None,
                _ = metadata.changed() => {
                    self.forget_sources();
                    None
                }
                () = alarm.until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => None,
            };
            let mut next = first;
            while let Some(event) = next {
                self.handle(event);
                next = self.rx.try_recv().ok();
            }
        }
    }

    /// Forgets brokers that are no longer part of the cluster, unless a response of theirs is still to come, or
    /// partitions wait for them.
    fn forget_sources(&mut self) {
        let pool = &self.pool;
        let is_there = |id: i32| pool.broker(id).is_some();
        self.sources.retain(|id, source| source.is_waited_for() || is_there(*id));
        self.troubles.forget(is_there);
    }

    /// The leader of a partition, and its leader epoch.
    fn leader(&self, key: &Key) -> Option<(i32, i32)> {
        let meta = self.topics.get(&key.0)?.meta.as_ref()?;
        let partition = meta.partitions.get(usize::try_from(key.1).ok()?)?;
        Some((partition.leader, partition.epoch))
    }

    /// Asks for the first offsets of partitions that have no position. Each leader is asked on its own: one
    /// that is silent must not delay what the others tell.
    fn find_starts(&mut self, now: Instant) {
        self.settle(now);
        let starting: Vec<(i32, BTreeSet<SlotId>)> = self
            .sources
            .iter_mut()
            .filter(|(_, source)| !source.starting.is_empty())
            .map(|(leader, source)| (*leader, std::mem::take(&mut source.starting)))
            .collect();
        for (leader, slots) in starting {
            let mut wanted = Vec::with_capacity(slots.len());
            let mut asked = Vec::with_capacity(slots.len());
            for slot in slots {
                self.reading.waits_for(slot, Waits::Nothing);
                let Some(reading) = self.reading.get_mut(slot) else { continue };
                let time = match reading.start {
                    // That is the position at once.
                    Start::Offset(_) => continue,
                    Start::Earliest => EARLIEST,
                    Start::Latest => LATEST,
                    Start::Timestamp(ms) => ms,
                };
                reading.looking = true;
                wanted.push((reading.key.clone(), time));
                asked.push(Asked::new(slot, reading));
            }
            if wanted.is_empty() {
                continue;
            }
            self.troubles.wait_for(Some(leader));
            let (pool, tx, lane) = (self.pool.clone(), self.tx.clone(), self.lane);
            self.env.spawn(async move {
                let keys: Vec<Key> = wanted.iter().map(|(key, _)| key.clone()).collect();
                let found = caught(async {
                    pool.env().mishap("offsets");
                    list_offsets::list(&pool, lane, wanted).await
                });
                let found = found.await.unwrap_or_else(|e| {
                    keys.into_iter().map(|key| (key, Err(e.clone()))).collect()
                });
                if tx.send(Event::Offsets { leader, asked, sent: now, found }).is_err() {
                    leave(&pool, lane);
                }
            });
        }
    }

    /// Sends one Fetch to each leader that has none in flight.
    fn fetch(&mut self, now: Instant) {
        self.settle(now);
        // Bytes that requests in flight may bring count: all responses together must fit the buffer. Each may
        // bring one batch that is larger than asked for, since brokers never cut the first.
        let in_flight = self.sources.values().map(|source| source.in_flight).sum();
        let mut room = self.buffer.room().saturating_sub(in_flight);
        let mut ready: Vec<(i32, Vec<SlotId>)> = self
            .sources
            .iter()
            .filter(|(_, source)| source.in_flight == 0 && !source.wanted.is_empty())
            .map(|(leader, source)| (*leader, source.wanted.iter().copied().collect()))
            .collect();
        let mut left_out: BTreeMap<i32, Vec<SlotId>> = BTreeMap::new();
        for (leader, slots) in &mut ready {
            let mut are_full = self.buffer.are_full(slots.iter().copied()).into_iter();
            slots.retain(|slot| {
                let full = are_full.next().unwrap_or_default();
                if full && self.lags(*slot) {
                    left_out.entry(*leader).or_default().push(*slot);
                }
                !full
            });
        }
        ready.retain(|(_, slots)| !slots.is_empty());
        // If the buffer has no room for a response of every broker, brokers take turns, and each Fetch asks for
        // at most its share of the buffer. Otherwise a broker without new records, which holds its Fetch back,
        // would reserve memory that the others need.
        let last = |leader: &i32| self.sources.get(leader).map_or(0, |source| source.asked);
        ready.sort_by_key(|(leader, _)| last(leader));
        let at_work = self.sources.values().filter(|source| source.in_flight > 0).count();
        let share = self.buffer.config.buffer_memory / (at_work + ready.len()).max(1);
        for (leader, mut slots) in ready {
            // Where there is something in what is named the broker answers at once.
            let waits = !slots.iter().any(|slot| self.lags(*slot));
            let source = self.sources.entry(leader).or_default();
            let left_out = left_out.remove(&leader).filter(|_| waits).unwrap_or_default();
            if left_out.is_empty() {
                source.left_out.nobody();
            } else if let Some(at) = source.left_out.not_before(now) {
                self.wake_at = earlier(self.wake_at, Some(at));
                continue;
            }
            if let Some(at) = source.pacing.not_before(now) {
                self.wake_at = earlier(self.wake_at, Some(at));
                continue;
            }
            let trickle = source.trickle.not_before(now);
            if trickle.is_some() && waits {
                self.wake_at = earlier(self.wake_at, trickle);
                continue;
            }
            let bytes = self.buffer.config.max_bytes.min(share.max(1)).min(room);
            if bytes == 0 {
                break;
            }
            let retry = match self.pay(leader, &slots, now) {
                Ok(retry) => retry,
                Err(at) => {
                    self.wake_at = earlier(self.wake_at, Some(at));
                    continue;
                }
            };
            let mut max_wait = self.buffer.config.max_wait;
            if !left_out.is_empty() {
                // What was taken of them counts for this request alone.
                let taken = self.buffer.were_taken(&left_out);
                let source = self.sources.entry(leader).or_default();
                max_wait = source.left_out.max_wait(max_wait, taken);
            }
            room -= bytes;
            // The sort is stable: partitions with equal turns stay in the order of their numbers.
            slots.sort_by_key(|slot| self.reading.get(*slot).map(|r| r.turn));
            self.send(leader, &slots, (bytes, max_wait), retry, now);
        }
    }

    /// Whether a partition may have records beyond its position.
    fn lags(&self, slot: SlotId) -> bool {
        self.reading.get(slot).is_none_or(|reading| reading.lags)
    }

    /// A request in which every partition is tried again is paid from the retry budget. Gives whether it is
    /// such a request, or as an error the time at which the budget can pay.
    fn pay(&mut self, leader: i32, slots: &[SlotId], now: Instant) -> Result<bool, Instant> {
        let again =
            |slot: &SlotId| self.reading.get(*slot).is_some_and(|r| r.backoff.attempts() > 0);
        let budgets = self.pool.budgets();
        let retry = slots.iter().all(again);
        let source = self.sources.entry(leader).or_default();
        if !retry {
            budgets.first_request(BudgetKind::Fetch, now);
        } else if let Err(at) = budgets.retry(BudgetKind::Fetch, Cost::Definite, now) {
            if !std::mem::replace(&mut source.unpaid, true) {
                budgets.delayed(BudgetKind::Fetch);
            }
            return Err(at);
        }
        source.unpaid = false;
        Ok(retry)
    }

    fn send(
        &mut self,
        leader: i32,
        slots: &[SlotId],
        (max_bytes, max_wait): (usize, Duration),
        retry: bool,
        sent: Instant,
    ) {
        let config = &self.buffer.config;
        let mut ids_known = true;
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut asked = Vec::with_capacity(slots.len());
        for slot in slots {
            let Some(reading) = self.reading.get(*slot) else { continue };
            let part = Asked::new(*slot, reading);
            let (Some(from), Some((_, epoch))) = (part.from, self.leader(&part.key)) else {
                continue;
            };
            ids_known &= !part.id.is_nil();
            let partition = FetchPartition::default()
                .with_partition(part.key.1)
                .with_current_leader_epoch(epoch)
                .with_fetch_offset(from.offset)
                .with_last_fetched_epoch(from.epoch)
                .with_partition_max_bytes(int(config.max_partition_bytes));
            // The order is that of turns: a topic may be named more than once, as the Java client does.
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
            .with_max_wait_ms(int(max_wait.as_millis() as usize))
            .with_min_bytes(int(config.min_bytes))
            .with_max_bytes(int(max_bytes))
            .with_session_epoch(-1)
            .with_topics(topics);
        self.requests += 1;
        let source = self.sources.entry(leader).or_default();
        source.in_flight = max_bytes;
        source.asked = self.requests;
        source.trickle.sent(sent);
        self.troubles.wait_for(Some(leader));
        let versions = (VERSIONS.0, if ids_known { VERSIONS.1 } else { 12 });
        let (pool, tx, lane) = (self.pool.clone(), self.tx.clone(), self.lane);
        let patience = patience(config.max_wait);
        self.env.spawn(async move {
            let mut went = false;
            let response = caught(async {
                pool.env().mishap("fetch");
                let connection = pool.lane(leader, lane, DialUrgency::Needed).await?;
                went = true;
                let response = call(&connection, request, versions, retry);
                tokio::pin!(response);
                tokio::select! {
                    biased;
                    response = &mut response => return response,
                    () = silence::overdue(pool.env(), &connection, patience) => {}
                }
                let error = silence::no_response(&connection, &asked, patience);
                let _ = tx.send(Event::Overdue { leader, sent, error });
                response.await
            });
            let response = response.await.and_then(|response| response);
            if tx.send(Event::Response { leader, asked, sent, went, response }).is_err() {
                leave(&pool, lane);
            }
        });
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        // A task that is still opening a connection then finds the channel closed, and gives its connection up
        // itself.
        self.rx.close();
        leave(&self.pool, self.lane);
    }
}

/// Gives up the connections of a consumer that is gone: they serve nobody else.
fn leave(pool: &Handle, lane: Lane) {
    for broker in pool.members() {
        broker.take(lane);
    }
}

/// Sends a Fetch and waits for its response; leader epochs are left out where the broker does not know them.
async fn call(
    connection: &Connection,
    mut request: FetchRequest,
    versions: (i16, i16),
    retry: bool,
) -> Result<FetchResponse> {
    if connection.version(FetchRequest::KEY, versions)? < TELLS_EPOCHS {
        for partition in request.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.last_fetched_epoch = NO_EPOCH;
        }
    }
    connection.call(&request, versions, retry).await.map_err(CallError::into_error)
}

fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
