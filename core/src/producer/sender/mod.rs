//! The sender: one task per pool and kind of acknowledgement. Binds batches to partitions as late as
//! it can, puts every ready batch of a broker into one request, and keeps what is in flight in order.
//!
//! ```text
//! batch queues (open, full) ──┐   topic.rs     assign.rs, select.rs        request.rs
//! taken back after a refusal ─┼─> round: a partition for each ─> one request per leader ─> lane
//! sent again in place ────────┘                                                             │
//!                          response.rs: acknowledged, refused, in doubt <───────────────────┘
//! ```
//!
//! Every wait ends: a batch resolves by its delivery timeout whatever else happens, and when the
//! task ends (or panics) what it holds resolves with an error as it is dropped. One that panics has a
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

use assign::Round;
use leaders::Leaders;
use partition::Partition;
use producer_id::{ProducerIdState, Readiness, init_producer_id};
use release::{MANY_TOPICS, UNUSED_AFTER};
use request::{InFlight, RequestDraft};
use send_queue::SendQueue;
use topic::Topic;

/// A topic that cannot be used is refused at once for this long before it is asked for again.
const FAILED_TOPIC: Duration = Duration::from_secs(1);

/// A topic is looked up again after so long though nothing has changed: that says it is in use.
const LEARN_AGAIN: Duration = Duration::from_secs(10);

/// A timer that fires so much too late tells that this thread did nothing meanwhile. Far less than what
/// makes a deadline doubtful, but what answers seem to take is off by as much.
const OVERSLEPT: Duration = Duration::from_millis(10);

/// Rounds of requests in one go, so that answers are read in between.
const MAX_ROUNDS: usize = 16;

/// Topics in a round: those that got something, those that did not, and those that get another chance.
#[derive(Default)]
struct Turns {
    served: VecDeque<Arc<str>>,
    not_served: VecDeque<Arc<str>>,
    held: Vec<Held>,
    /// Of who has had its turn: memory that is used again.
    taken: Vec<bool>,
}

/// A topic with batches that were left to gather.
struct Held {
    name: Arc<str>,
    /// Its partitions that requests of this round name already.
    taken: Vec<bool>,
    served: bool,
}

/// Hashing that is the same in every run: a simulation must repeat, and the order in which topics
/// are looked at follows from it.
pub(super) type Topics = HashMap<Arc<str>, Box<Topic>, FixedState>;

pub(crate) struct Sender {
    pub(super) pool: Weak<Pool>,
    metadata: Arc<Metadata>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) env: Environment,
    pub(super) rng: StdRng,
    /// For its part in how requests are paced.
    pace_rng: StdRng,
    /// Of the clients whose batches they are.
    settings: Arc<Settings>,
    /// How many clusters there were before this one.
    incarnation: u64,
    timeout_ms: i32,
    pub(super) acks: Acks,
    pub(super) tx: mpsc::UnboundedSender<Event>,
    pub(super) topics: Topics,
    /// Topics with something to send, whose turn came longest ago first.
    active: VecDeque<Arc<str>>,
    leaders: Leaders,
    in_flight: HashMap<u64, InFlight>,
    id_state: ProducerIdState,
    /// Of requests: its own begin here, and go on there.
    first_id: u64,
    next_id: u64,
    /// There are batches that do not wait for a broker that is silent.
    reroutes: bool,
    /// When the partitions that failed in the answer at hand are tried again, by how often they failed
    /// before.
    together: BTreeMap<u32, Instant>,
    /// It sends nothing before, because its predecessor panicked.
    rests_until: Option<Instant>,
    /// When to look again although nothing happened.
    wake_at: Option<Instant>,
    /// No batch times out before.
    next_expiry: Option<Instant>,
    /// How often the metadata has changed.
    changes: u64,
    /// When this process came back from doing nothing. What was under way then says nothing of brokers.
    resumed: Option<Instant>,
    /// When topics that are unused are let go, and with how many topics at the latest.
    release_at: Option<Instant>,
    release_at_len: usize,
}

impl Sender {
    /// `first_id`: answers to requests below it are another sender's.
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

    /// Sends nothing before. What has to end meanwhile ends.
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
            // Before anything is bound by it, whatever woke us.
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

    /// What may go elsewhere does not wait for the response of a broker that is silent.
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
            // A cluster that is gone gave it.
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
                // Also what is not on any list, because it is being compressed.
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
        // Nothing is in it any more: then it says so, and announces what comes next. On the list it would
        // not, and nobody knew when that has to end.
        let _ = batch_queue.peek(&accumulator);
        let deadline = batch_queue.first_deadline(&accumulator);
        self.next_expiry = earlier(self.next_expiry, deadline);
        // Known all the same: what is not used is let go by who knows of it.
        let topic = self
            .topics
            .entry(Arc::clone(&batches.name))
            .or_insert_with(|| Box::new(Topic::new(&batches.name, now)));
        topic.used = now;
        if !topic.topic_batches.iter().any(|(_, h)| Arc::ptr_eq(h, batches)) {
            // Those of producers that are gone go with them.
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

    /// Assigns at most one batch to each partition and sends one request to each leader that got
    /// some. Gives whether anything was sent.
    fn round(&mut self, now: Instant) -> bool {
        if self.active.is_empty() {
            return false;
        }
        if let Some(at) = self.rests_until.filter(|at| *at > now) {
            self.wake_at = earlier(self.wake_at, Some(at));
            return false;
        }
        if !self.passes(now) {
            return false;
        }
        let Some(pool) = self.pool.upgrade() else { return false };
        self.env.mishap("sender");
        self.leaders.begin_round(&pool, &self.metrics, now);
        let mut round = Round {
            pool: &pool,
            now,
            drafts: Vec::new(),
            lookups: BTreeMap::new(),
            bucket: pool.pace().look(now),
            held: false,
            again: false,
        };
        let mut turns = Turns::default();
        for name in std::mem::take(&mut self.active) {
            self.turn(name, None, &mut round, &mut turns);
        }
        // What was left to gather goes with a request that is made for somebody else.
        let held = std::mem::take(&mut turns.held);
        round.again = !held.is_empty() && !round.drafts.is_empty();
        for held in held {
            if round.drafts.is_empty() {
                turns.not_served.push_back(held.name);
            } else {
                self.turn(Arc::clone(&held.name), Some(held), &mut round, &mut turns);
            }
        }
        if round.again {
            round.drafts.iter_mut().for_each(RequestDraft::join_topics);
        }
        self.active.append(&mut turns.not_served);
        self.active.append(&mut turns.served);
        self.look_up(std::mem::take(&mut round.lookups));
        let mut any = false;
        for draft in round.drafts {
            if self.affords(&pool, &draft, now) {
                any = true;
                // One of nothing but retries is paid from their budget.
                if draft.cost().is_none() {
                    pool.pace().take(draft.hasty);
                }
                self.send(draft, now);
            } else {
                self.withdraw(&draft);
            }
        }
        any
    }

    /// One topic's turn in a round. `again`: its second one, and what became of it in the first.
    fn turn(
        &mut self,
        name: Arc<str>,
        again: Option<Held>,
        round: &mut Round<'_>,
        turns: &mut Turns,
    ) {
        // Taken out so that leaders and topic can be changed side by side.
        let Some(mut topic) = self.topics.remove(&name) else { return };
        let given = round.parts();
        let mut served = again.as_ref().is_some_and(|held| held.served);
        let mut held = false;
        if again.is_some() || self.learn(&mut topic, round.now) {
            // A request may name a partition once: answers are told apart by it.
            let first = again.is_none();
            let mut taken = again.map_or_else(|| std::mem::take(&mut turns.taken), |a| a.taken);
            if first {
                taken.clear();
                taken.resize(topic.partitions.len(), false);
            }
            round.held = false;
            self.assign(&mut topic, round, &mut taken);
            served |= round.parts() > given;
            held = first && round.held && topic.has_work();
            match held {
                true => turns.held.push(Held { name: Arc::clone(&name), taken, served }),
                false => turns.taken = taken,
            }
        }
        topic.active = topic.has_work();
        if topic.active && !held {
            // Requests are bounded: who got something lets the others go first next time.
            let queue = if served { &mut turns.served } else { &mut turns.not_served };
            queue.push_back(Arc::clone(&name));
        }
        self.topics.insert(name, topic);
    }

    /// Brokers may have come, gone or moved.
    fn cluster_changed(&mut self) {
        self.changes += 1;
        if let Some(pool) = self.pool.upgrade() {
            self.leaders.learn(&pool);
        }
    }

    /// Whether batches may pass the gate; asks for what is missing else.
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
                        // A choice among fewer, which one that sends little keeps for minutes.
                        topic.sticky = None;
                        topic.partitions.resize_with(meta.partitions.len(), Partition::default);
                    }
                    topic.meta = Some(Arc::clone(&meta));
                    topic.tell_leaders();
                }
                // An accumulator that uses the topic for the first time learns of it here, too.
                let n = i32::try_from(meta.partitions.len()).unwrap_or(i32::MAX);
                for (accumulator, batches) in &topic.topic_batches {
                    // One that is gone has nothing open in it.
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
