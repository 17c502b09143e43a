//! The sender: one task per pool for each pair of acks and client settings. Binds batches to partitions as
//! late as it can, puts every ready batch of a broker into one request, and keeps what is in flight in
//! order.
//!
//! ```text
//! batch queues (open, full) ──┐   round.rs, round/                         request.rs
//! taken back after a refusal ─┼─> round: a partition for each ─> one request per leader ─> lane
//! sent again in place ────────┘                                                             │
//!                 response.rs, retry.rs: acknowledged, refused, in doubt <──────────────────┘
//! ```
//!
//! Its parts keep their fields to themselves:
//!
//! ```text
//! Topics     batches that wait, and what is in flight, by topic and partition; whose turn it is
//! Leaders    brokers, their produce lanes, and what is in flight there
//! Schedule   when the loop runs again though no event comes
//! Tasks      what is asked of brokers; each question ends in an event
//! Round      borrows these for one pass, and ends with a draft for each leader
//! ```
//!
//! Every wait ends: a batch resolves by its delivery timeout whatever else happens, and when the task ends (or
//! panics), the batches that it holds resolve with an error as they are dropped. A sender that panics has a
//! successor, which begins under a producer id of its own.

mod expiry;
mod leaders;
mod lookup;
mod other_cluster;
mod partition;
mod producer_id;
mod request;
mod response;
mod retry;
mod round;
mod schedule;
mod send_queue;
mod tasks;
mod topic;
mod topics;

use std::collections::HashMap;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::accumulator::{Accumulator, BatchQueue, Event, TopicBatches};
use crate::cluster::{Metadata, Pool, Settings};
use crate::config::Acks;
use crate::environment::{Environment, READ_FIRST};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::producer::batch::Books;

use leaders::Leaders;
use producer_id::{ProducerIdState, Readiness};
use request::{Ids, InFlight};
use retry::RetryTimes;
use schedule::Schedule;
use tasks::Tasks;
use topics::{Topics, UNUSED_AFTER};

/// At most this many rounds in one turn of the loop: responses must be read in between.
const MAX_ROUNDS: usize = 16;

pub(crate) struct Sender {
    metadata: Arc<Metadata>,
    metrics: Arc<Metrics>,
    env: Environment,
    rng: StdRng,
    /// Random numbers for pacing only, so that pacing changes no other draw of a run with the same seed.
    pace_rng: StdRng,
    /// The settings (client id, time-outs, rack) of the clients whose batches this sender sends.
    settings: Arc<Settings>,
    acks: Acks,
    /// How long a broker may wait for its replicas.
    timeout_ms: i32,
    /// How many clusters there were before this one.
    incarnation: u64,
    tasks: Tasks,
    schedule: Schedule,
    topics: Topics,
    leaders: Leaders,
    in_flight: HashMap<u64, InFlight>,
    ids: Ids,
    id_state: ProducerIdState,
    /// While one response is handled.
    retry_times: RetryTimes,
    /// Some producer has `InDoubt::Reroute`: its batches leave a broker whose response is late.
    reroutes: bool,
}

impl Sender {
    /// `first_id`: responses to requests with smaller ids are a predecessor's.
    pub(crate) fn new(
        pool: &Arc<Pool>,
        settings: &Arc<Settings>,
        acks: Acks,
        events: mpsc::UnboundedSender<Event>,
        first_id: u64,
    ) -> Self {
        // The broker gives up on its replicas before this client gives up on the broker, so that
        // the response says what happened.
        let timeout = settings.caller.request_timeout.mul_f64(0.75);
        Self {
            metadata: Arc::clone(pool.metadata()),
            metrics: Arc::clone(pool.metrics()),
            env: pool.env().clone(),
            rng: pool.env().rng(),
            pace_rng: StdRng::seed_from_u64(pool.instance()),
            settings: Arc::clone(settings),
            acks,
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            incarnation: settings.born,
            tasks: Tasks::new(pool, &settings.caller, events),
            schedule: Schedule::default(),
            topics: Topics::default(),
            leaders: Leaders::new(pool.env().now(), settings.chooser(pool)),
            in_flight: HashMap::new(),
            ids: Ids::after(first_id),
            id_state: ProducerIdState::new(acks),
            retry_times: RetryTimes::default(),
            reroutes: false,
        }
    }

    pub(super) fn env(&self) -> &Environment {
        &self.env
    }

    /// Sends no request before `at`. Delivery timeouts and closes still end batches.
    pub(super) fn rest_until(&mut self, at: Instant) {
        self.schedule.rest_until(at);
    }

    pub(crate) async fn run(mut self, rx: &mut mpsc::UnboundedReceiver<Event>) {
        let mut metadata = self.metadata.subscribe();
        let mut alarm = self.env.alarm();
        self.cluster_changed();
        loop {
            let wake = self.schedule.next();
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
            self.schedule.woke(wake, self.env.now());
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
            if self.schedule.missed_expiry(wake, now) {
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
            self.topics.release_unused(&mut self.id_state, &mut self.schedule, now);
            self.schedule.begin_rounds();
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
                self.schedule.round_by(next);
            }
        }
    }

    /// Takes batches that may be rerouted away from brokers whose responses are late.
    fn look_for_late(&mut self, now: Instant) {
        if !self.reroutes || self.in_flight.is_empty() {
            return;
        }
        let Some(pool) = self.tasks.pool() else { return };
        self.leaders.begin_round(&pool, &self.metrics, now);
        self.reroute_late(now);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ready(accumulator, batches, batch_queue) => {
                self.ready(&accumulator, &batches, &batch_queue)
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
                for topic in self.topics.iter_mut() {
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
                self.fail_where(|of| of == accumulator.id(), &error);
            }
        }
    }

    fn ready(
        &mut self,
        accumulator: &Arc<Accumulator>,
        batches: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
    ) {
        let now = self.env.now();
        self.reroutes |= accumulator.reroutes();
        // The queue may be empty by now. Then `peek` clears its mark `announced`, so that its next record
        // announces it. An empty queue on the list would not be announced, and nobody would know the
        // deadline of its next batch.
        let _ = batch_queue.peek(accumulator);
        let deadline = batch_queue.first_deadline(accumulator);
        self.schedule.expiry_by(deadline);
        if !self.topics.announced(accumulator, batches, batch_queue, deadline.is_some(), now) {
            self.schedule.release_by(now + UNUSED_AFTER);
        }
    }

    /// Brokers may have come, gone or moved.
    fn cluster_changed(&mut self) {
        self.topics.cluster_changed();
        if let Some(pool) = self.tasks.pool() {
            self.leaders.learn(&pool);
        }
    }

    /// Assigns at most one batch to each partition and sends one request to each leader that got
    /// some. Gives whether anything was sent.
    fn round(&mut self, now: Instant) -> bool {
        if !self.topics.has_work() || self.schedule.rests(now) || !self.passes(now) {
            return false;
        }
        let Some(pool) = self.tasks.pool() else { return false };
        self.env.mishap("sender");
        let (drafts, lookups) = self.begin_round(&pool, now).assemble();
        self.look_up(lookups);
        let mut any = false;
        for draft in drafts {
            if self.affords(&pool, &draft, now) {
                any = true;
                // A request with nothing but retries is paid from the retry budget, not from the bucket.
                if draft.cost().is_none() {
                    let leader = self.leaders.get(draft.leader());
                    let strained = leader.is_some_and(|leader| leader.strain(now).is_felt());
                    pool.pace().take(draft.is_hasty(), strained, now);
                }
                self.send(draft, now);
            } else {
                self.withdraw(&draft);
            }
        }
        any
    }

    /// Whether batches may get sequences now. With acks=all that needs a producer id: if there is none, a
    /// task asks for it.
    fn passes(&mut self, now: Instant) -> bool {
        match self.id_state.readiness(now) {
            Readiness::Ready => true,
            Readiness::Wait(until) => {
                self.schedule.round_by(until);
                false
            }
            Readiness::Ask => {
                self.tasks.ask_producer_id(self.incarnation);
                false
            }
        }
    }

    /// Resolves the batches whose delivery timeout has passed.
    fn expire(&mut self, now: Instant) {
        if !self.schedule.expires(now) {
            return;
        }
        let pool = self.tasks.pool();
        let (ended, next) = self.topics.expire(pool.as_deref(), now);
        self.schedule.next_expiry(next);
        ended.iter().for_each(|(topic, partition)| self.settle(topic, *partition));
    }

    /// Fails every batch of the accumulators that `of` picks, wherever it is.
    fn fail_where(&mut self, of: impl Fn(u64) -> bool, error: &Error) {
        let ended = self.topics.fail_where(of, error);
        ended.iter().for_each(|(topic, partition)| self.settle(topic, *partition));
    }
}

#[cfg(test)]
mod tests;
