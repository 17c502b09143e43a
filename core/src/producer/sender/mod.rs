//! The sender: one task per pool for each pair of acks and client settings. Binds batches to partitions as
//! late as it can, puts every ready batch of a broker into one request, and keeps what is in flight in
//! order.
//!
//! ```text
//! batch queues (open, full) ──┐   round.rs, assign.rs, select.rs           request.rs
//! taken back after a refusal ─┼─> round: a partition for each ─> one request per leader ─> lane
//! sent again in place ────────┘                                                             │
//!                 response.rs, retry.rs: acknowledged, refused, in doubt <──────────────────┘
//! ```
//!
//! Every wait ends: a batch resolves by its delivery timeout whatever else happens, and when the task ends (or
//! panics), the batches that it holds resolve with an error as they are dropped. A sender that panics has a
//! successor, which begins under a producer id of its own.

mod assign;
mod expiry;
mod leaders;
mod lookup;
mod other_cluster;
mod partition;
mod producer_id;
mod release;
mod request;
mod response;
mod retry;
mod round;
mod select;
mod send_queue;
mod topic;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::fast::FixedState;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::accumulator::{Accumulator, BatchQueue, Event, TopicBatches};
use crate::caught::caught;
use crate::cluster::{Lookup, Metadata, Pool, Settings};
use crate::config::{Acks, InDoubt};
use crate::environment::{Environment, READ_FIRST, STALL, earlier};
use crate::metrics::{Metrics, limited};

use leaders::Leaders;
use partition::Partition;
use producer_id::{ProducerIdState, Readiness, init_producer_id};
use release::{MANY_TOPICS, UNUSED_AFTER};
use request::InFlight;
use send_queue::SendQueue;
use topic::Topic;

/// A topic that cannot be used is refused at once for this long before it is asked for again.
const FAILED_TOPIC: Duration = Duration::from_secs(1);

/// A topic in use is looked up in the metadata cache at least this often, even if the metadata has not
/// changed: the lookup marks the topic as used, so that the cache keeps it.
const LEARN_AGAIN: Duration = Duration::from_secs(10);

/// If a timer fires this much too late, the engine's thread did not run meanwhile. That is too short to
/// doubt a deadline (see [`STALL`]), but response times that were measured across it are too long by as
/// much: pacing ignores them.
const OVERSLEPT: Duration = Duration::from_millis(10);

/// At most this many rounds in one turn of the loop: responses must be read in between.
const MAX_ROUNDS: usize = 16;

/// Hashing that is the same in every run: a simulation must repeat, and the order in which topics
/// are looked at follows from it.
pub(super) type Topics = HashMap<Arc<str>, Box<Topic>, FixedState>;

pub(crate) struct Sender {
    pub(super) pool: Weak<Pool>,
    metadata: Arc<Metadata>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) env: Environment,
    pub(super) rng: StdRng,
    /// Random numbers for pacing only, so that pacing changes no other draw of a run with the same seed.
    pace_rng: StdRng,
    /// The settings (client id, time-outs, rack) of the clients whose batches this sender sends.
    settings: Arc<Settings>,
    /// How many clusters there were before this one.
    incarnation: u64,
    timeout_ms: i32,
    pub(super) acks: Acks,
    pub(super) tx: mpsc::UnboundedSender<Event>,
    pub(super) topics: Topics,
    /// Topics with something to send; the one whose turn came longest ago is first.
    active: VecDeque<Arc<str>>,
    leaders: Leaders,
    in_flight: HashMap<u64, InFlight>,
    id_state: ProducerIdState,
    /// Ids of this sender's requests and batches are larger than `first_id`; smaller ones are a
    /// predecessor's. `next_id` is the last one that was given out.
    first_id: u64,
    next_id: u64,
    /// Some producer has `InDoubt::Reroute`: its batches leave a broker whose response is late.
    reroutes: bool,
    /// While one response is handled: when its failed partitions are tried again, by the number of their
    /// earlier failures. Equal numbers get the same time, so that one request carries them again.
    together: BTreeMap<u32, Instant>,
    /// No request is sent before this time: the predecessor panicked, perhaps because of what it sent.
    rests_until: Option<Instant>,
    /// When the loop must run again even if no event comes.
    wake_at: Option<Instant>,
    /// No batch reaches its delivery timeout before this time.
    next_expiry: Option<Instant>,
    /// The number of metadata changes so far.
    changes: u64,
    /// When this process last ran again after a pause. The response time of a request that was in flight
    /// then says nothing about its broker.
    resumed: Option<Instant>,
    /// When unused topics are looked for; or as soon as there are `release_at_len` topics.
    release_at: Option<Instant>,
    release_at_len: usize,
}

impl Sender {
    /// `first_id`: responses to requests with smaller ids are a predecessor's.
    pub(crate) fn new(
        pool: &Arc<Pool>,
        settings: &Arc<Settings>,
        acks: Acks,
        tx: mpsc::UnboundedSender<Event>,
        first_id: u64,
    ) -> Self {
        // The broker gives up on its replicas before this client gives up on the broker, so that
        // the response says what happened.
        let timeout = settings.caller.request_timeout.mul_f64(0.75);
        Self {
            settings: Arc::clone(settings),
            incarnation: settings.born,
            pool: Arc::downgrade(pool),
            metadata: Arc::clone(pool.metadata()),
            metrics: Arc::clone(pool.metrics()),
            env: pool.env().clone(),
            rng: pool.env().rng(),
            pace_rng: StdRng::seed_from_u64(pool.instance()),
            acks,
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            tx,
            topics: Topics::default(),
            active: VecDeque::new(),
            leaders: Leaders::new(pool.env().now(), settings.chooser(pool)),
            in_flight: HashMap::new(),
            id_state: ProducerIdState::new(acks),
            first_id,
            next_id: first_id,
            reroutes: false,
            together: BTreeMap::new(),
            rests_until: None,
            wake_at: None,
            next_expiry: None,
            changes: 0,
            resumed: None,
            release_at: None,
            release_at_len: MANY_TOPICS,
        }
    }

    /// Sends no request before `at`. Delivery timeouts and closes still end batches.
    pub(super) fn rest_until(&mut self, at: Instant) {
        self.rests_until = Some(at);
    }

    pub(crate) async fn run(mut self, rx: &mut mpsc::UnboundedReceiver<Event>) {
        let mut metadata = self.metadata.subscribe();
        let mut alarm = self.env.alarm();
        self.cluster_changed();
        loop {
            let wake = earlier(earlier(self.wake_at, self.next_expiry), self.release_at);
            let mut told = false;
            let event = tokio::select! {
                biased;
                event = rx.recv() => event,
                _ = metadata.changed() => {
                    told = true;
                    Some(Event::Pressure)
                }
                () = alarm.until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    Some(Event::Pressure)
                }
            };
            if let Some(at) = wake {
                let now = self.env.now();
                if now.saturating_duration_since(at) > OVERSLEPT {
                    self.resumed = Some(now);
                }
            }
            let mut next = event;
            while let Some(event) = next {
                if matches!(event, Event::Stop) {
                    return;
                }
                self.handle(event);
                next = rx.try_recv().ok();
            }
            // A change of the metadata is applied before any batch is bound to a partition, whatever woke
            // this task.
            if metadata.has_changed().is_ok_and(|changed| changed) || told {
                metadata.mark_unchanged();
                self.cluster_changed();
            }
            let mut now = self.env.now();
            let overslept = wake.is_some_and(|at| now.saturating_duration_since(at) > STALL);
            if overslept && self.next_expiry.is_some_and(|at| at <= now) {
                // The process was stopped. Acknowledgements that came meanwhile lie in the sockets:
                // what they are for was delivered in time, and may not be told to have failed.
                self.env.sleep(READ_FIRST).await;
                while let Ok(event) = rx.try_recv() {
                    if matches!(event, Event::Stop) {
                        return;
                    }
                    self.handle(event);
                }
                now = self.env.now();
            }
            self.expire(now);
            self.release_unused(now);
            self.wake_at = None;
            if !self.goes_on() {
                continue;
            }
            self.look_for_late(now);
            for _ in 0..MAX_ROUNDS {
                if !self.round(now) {
                    break;
                }
            }
            if self.reroutes {
                let late = |sent: &InFlight| self.leaders.late_at(sent.leader, sent.sent, now);
                let next = self.in_flight.values().filter_map(late).min();
                self.wake_at = earlier(self.wake_at, next);
            }
        }
    }

    /// Takes batches that may be rerouted away from brokers whose responses are late.
    fn look_for_late(&mut self, now: Instant) {
        if !self.reroutes || self.in_flight.is_empty() {
            return;
        }
        let Some(pool) = self.pool.upgrade() else { return };
        self.leaders.begin_round(&pool, &self.metrics, now);
        self.reroute_late(now);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ready(accumulator, batches, batch_queue) => {
                self.ready(accumulator, &batches, batch_queue)
            }
            Event::Pressure | Event::Stop => {}
            Event::Lane(leader, Ok(connection)) => self.leaders.connected(leader, connection),
            Event::Lane(leader, Err(e)) => {
                self.leaders.dial_failed(leader);
                self.unreachable(leader, &e);
            }
            Event::Response(id, response) => self.answered(id, response),
            // The id was given by a cluster that is gone.
            Event::ProducerId(of, _) if of != self.incarnation => {}
            Event::ProducerId(_, id) => {
                self.id_state.told(&id, self.env.now(), &mut self.rng);
                let Err(e) = id else { return };
                for topic in self.topics.values_mut() {
                    topic.trouble = Some(e.clone());
                }
                if e.is_final() && e.broker_code().is_some() {
                    self.fail_where(|_| true, &e);
                }
            }
            Event::LookedUp(told) => self.looked_up(told),
            Event::Abandon(accumulator, error) => {
                // Also batches that are on none of the sender's lists because a worker compresses them.
                accumulator.fail_open(&error.with_maybe_written(false));
                self.fail_where(|of| of == accumulator.id, &error);
            }
        }
    }

    fn ready(
        &mut self,
        accumulator: Arc<Accumulator>,
        batches: &Arc<TopicBatches>,
        batch_queue: Arc<BatchQueue>,
    ) {
        let now = self.env.now();
        self.reroutes |= accumulator.config.in_doubt == InDoubt::Reroute;
        // The queue may be empty by now. Then `peek` clears its mark `announced`, so that its next record
        // announces it. An empty queue on the list would not be announced, and nobody would know the
        // deadline of its next batch.
        let _ = batch_queue.peek(&accumulator);
        let deadline = batch_queue.first_deadline(&accumulator);
        self.next_expiry = earlier(self.next_expiry, deadline);
        // The topic is entered even if its queue is empty: only a sender that knows a topic can forget it
        // later.
        let topic = self
            .topics
            .entry(Arc::clone(&batches.name))
            .or_insert_with(|| Box::new(Topic::new(&batches.name, now)));
        topic.used = now;
        if !topic.topic_batches.iter().any(|(_, h)| Arc::ptr_eq(h, batches)) {
            // Entries of accumulators that are gone are removed.
            topic.topic_batches.retain(|(accumulator, _)| accumulator.strong_count() > 0);
            topic.topic_batches.push((Arc::downgrade(&accumulator), Arc::clone(batches)));
            topic.learned = None;
            self.release_at = earlier(self.release_at, Some(now + UNUSED_AFTER));
        }
        if deadline.is_none() {
            return;
        }
        if topic.queue(batch_queue.partition).add(&accumulator, &batch_queue) {
            topic.tell_leader(&accumulator, &batch_queue);
        }
        topic.activate(&mut self.active);
    }

    /// Brokers may have come, gone or moved.
    fn cluster_changed(&mut self) {
        self.changes += 1;
        if let Some(pool) = self.pool.upgrade() {
            self.leaders.learn(&pool);
        }
    }

    /// Whether batches may get sequences now. With acks=all that needs a producer id: if there is none, a
    /// task asks for it.
    fn passes(&mut self, now: Instant) -> bool {
        match self.id_state.readiness(now) {
            Readiness::Ready => true,
            Readiness::Wait(until) => {
                self.wake_at = earlier(self.wake_at, until);
                false
            }
            Readiness::Ask => {
                let (pool, tx) = (self.pool.clone(), self.tx.clone());
                let (caller, of) = (Arc::clone(&self.settings.caller), self.incarnation);
                self.env.spawn(async move {
                    let Some(pool) = pool.upgrade() else { return };
                    let id = caught(async {
                        pool.env().mishap("producer id");
                        init_producer_id(&pool, &caller).await
                    });
                    let _ = tx.send(Event::ProducerId(of, id.await.and_then(|id| id)));
                });
                false
            }
        }
    }

    /// Brings the topic's metadata up to date. `false`: nothing can be sent to it now.
    fn learn(&mut self, topic: &mut Topic, now: Instant) -> bool {
        if topic.learned.is_some_and(|(changes, until)| changes == self.changes && until > now) {
            return true;
        }
        topic.learned = None;
        match self.metadata.lookup(&topic.name) {
            Lookup::Pending => false,
            Lookup::Failed(error) => {
                for (_, accumulator) in &topic.topic_batches {
                    accumulator.fail(error.clone(), now + FAILED_TOPIC);
                }
                for batch in topic.queues_mut().flat_map(SendQueue::take_all) {
                    batch.resolve(Err(error.clone()));
                }
                false
            }
            Lookup::Known(meta) => {
                if !topic.meta.as_ref().is_some_and(|old| Arc::ptr_eq(old, &meta)) {
                    // Another id is another topic of the same name: its partitions know nothing of
                    // our sequences, and take any as the first.
                    if topic.meta.as_ref().is_some_and(|old| old.id != meta.id) {
                        limited!(self.metrics.logs(), "ottla::producer", WARN, topic = %topic.name, "the topic was recreated");
                        topic.partitions.iter_mut().for_each(Partition::recreated);
                    }
                    if topic.partitions.len() < meta.partitions.len() {
                        // The kept partition was chosen among fewer, and a producer that sends little would
                        // keep it for minutes.
                        topic.sticky = None;
                        topic.partitions.resize_with(meta.partitions.len(), Partition::default);
                    }
                    topic.meta = Some(Arc::clone(&meta));
                    topic.tell_leaders();
                }
                // An accumulator that uses the topic for the first time learns of it here, too.
                let n = i32::try_from(meta.partitions.len()).unwrap_or(i32::MAX);
                for (accumulator, batches) in &topic.topic_batches {
                    // An accumulator that is gone has no open batch.
                    if let Some(accumulator) = accumulator.upgrade() {
                        batches.learned(&accumulator, n);
                    }
                }
                topic.learned = Some((self.changes, now + LEARN_AGAIN));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests;
