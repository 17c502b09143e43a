//! The fetcher: one task per consumer. One Fetch in flight per broker, on a lane of this consumer, with every
//! partition that the broker leads and the buffer has room for, in a session ([`fetch`](super::fetch)) so that only what has
//! changed is named. [`learn`] finds out what there is to read, [`places`] what each partition waits for, [`asks`] whom to
//! ask now and for what, [`exchange`] sends that, [`responses`] reads what comes back, [`epochs`] asks
//! old brokers whether their log is the one that was read, [`spells`] tries again what
//! brokers answer with errors, [`nearer`] has partitions read from replicas that are nearer than their leaders, [`troubles`] reports brokers that cannot be reached, and [`silence`] brokers that can be
//! reached and do not answer.

mod asks;
mod epochs;
mod exchange;
mod learn;
mod nearer;
mod other_cluster;
mod places;
mod responses;
mod silence;
mod spells;
mod troubles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::messages::FetchResponse;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::buffer::{Buffer, Key};
use super::fetch::session::Told;
use super::position::Position;
use super::reading::{Reading, Readings, Source, Topic, Waits};
use super::slot::SlotId;
use crate::caught::caught;
use crate::cluster::list_offsets::{self, EARLIEST, FoundOffset, LATEST};
use crate::cluster::{Handle, Lane};
use crate::config::Start;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::protocol::NO_EPOCH;

pub(super) use spells::outlook;
use troubles::Troubles;

enum Event {
    /// The offsets at which partitions begin were looked up.
    Offsets {
        leader: i32,
        asked: Vec<Asked>,
        sent: Instant,
        found: Vec<(Key, Result<FoundOffset>)>,
    },
    /// Where the epochs of positions end in a leader's log was asked; with the epoch in which it was thought to lead.
    Epochs { leader: i32, asked: Vec<(Asked, i32)>, sent: Instant, ends: epochs::Ends },
    Response {
        leader: i32,
        /// The incarnation of the cluster that was asked.
        cluster: u64,
        sent: Instant,
        /// The newest version of Fetch that the broker speaks, once there was a connection.
        version: Option<i16>,
        response: Result<FetchResponse, Failed>,
    },
    /// The response to the Fetch that was sent at `sent` is overdue.
    Overdue { leader: i32, sent: Instant, error: Error },
}

/// A Fetch that has no response.
enum Failed {
    /// The broker speaks another version than was thought, so that it was not asked.
    OtherVersion,
    /// The broker was not asked: there was no connection, or the request never left.
    Unsent(Error),
    /// Nobody knows whether it was heard.
    Lost(Error),
}

/// One partition of a request in flight, as it was when the broker was told of it.
#[derive(Debug)]
struct Asked {
    slot: SlotId,
    key: Key,
    id: uuid::Uuid,
    incarnation: u64,
    /// Under which its broker was thought to lead, for a Fetch.
    leader_epoch: i32,
    what: What,
}

/// What was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Where it begins, the so-manyeth time.
    Start { begun: u64 },
    /// Records from here on, after what is of this leader epoch.
    Records { offset: i64, epoch: i32 },
}

impl Asked {
    fn start(slot: SlotId, reading: &Reading) -> Self {
        Self::of(slot, reading, What::Start { begun: reading.begun })
    }

    fn of(slot: SlotId, reading: &Reading, what: What) -> Self {
        let Reading { key, id, incarnation, .. } = reading;
        let (key, leader_epoch) = (key.clone(), NO_EPOCH);
        Self { slot, key, id: *id, incarnation: *incarnation, leader_epoch, what }
    }

    fn records(slot: SlotId, told: &Told) -> Self {
        let Told { of, incarnation, offset, fetched_epoch, leader_epoch, .. } = told;
        let what = What::Records { offset: *offset, epoch: *fetched_epoch };
        let key = (Arc::clone(&of.topic), of.partition);
        let (incarnation, leader_epoch) = (*incarnation, *leader_epoch);
        Self { slot, key, id: of.id, incarnation, leader_epoch, what }
    }

    /// Whether the response still answers what is read: the number was not given to another partition, nothing
    /// was sought in between, and the position is the same.
    fn is_of(&self, reading: &Reading) -> bool {
        self.incarnation == reading.incarnation
            && match self.what {
                What::Start { begun } => begun == reading.begun && reading.next.is_none(),
                What::Records { offset, epoch } => {
                    reading.next.is_some_and(|at| (at.offset, at.epoch) == (offset, epoch))
                }
            }
    }

    /// The partition, and from where it was asked for, if the response still answers that. Of one that only a seek
    /// moves on, a response that comes late, from a former leader, says nothing.
    fn current<'a>(&self, readings: &'a mut Readings) -> Option<(&'a mut Reading, Position)> {
        let reading = readings.get_mut(self.slot)?;
        let from = reading.next;
        (self.is_of(reading) && !reading.stopped).then_some(reading).zip(from)
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
    /// When to look again whom a partition is read from; and those with a replica that is shunned.
    leases: BTreeSet<(Instant, SlotId)>,
    shunned: BTreeSet<SlotId>,
    /// Brokers that were asked before and are still part of the cluster.
    sources: BTreeMap<i32, Source>,
    /// Where partitions are read from since the buffer was told.
    moves: Vec<(SlotId, i32)>,
    /// Partitions that somebody reads alone, and whether he waits and has nothing; and how much may be queued of each.
    own: BTreeMap<SlotId, bool>,
    own_share: usize,
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
            leases: BTreeSet::new(),
            shunned: BTreeSet::new(),
            sources: BTreeMap::new(),
            moves: Vec::new(),
            own: BTreeMap::new(),
            own_share: usize::MAX,
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
            // In another cluster, sessions of the same numbers are somebody else's.
            if !self.goes_on() {
                return;
            }
            if self.buffer.is_closed() {
                break;
            }
            self.env.mishap("fetcher");
            let now = self.env.now();
            self.wake_at = None;
            self.obey();
            self.learn(now);
            self.find_starts(now);
            self.check_epochs(now);
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
        self.give_back();
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
                asked.push(Asked::start(slot, reading));
            }
            if wanted.is_empty() {
                continue;
            }
            self.troubles.wait_for(Some(leader));
            let (pool, tx, lane) = (self.pool.clone(), self.tx.clone(), self.lane);
            let isolation = self.buffer.config.isolation;
            self.env.spawn(async move {
                let keys: Vec<Key> = wanted.iter().map(|(key, _)| key.clone()).collect();
                let found = caught(async {
                    pool.env().mishap("offsets");
                    list_offsets::list(&pool, lane, wanted, isolation).await
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

#[cfg(test)]
mod tests;
