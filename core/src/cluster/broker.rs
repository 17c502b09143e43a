//! One broker (or bootstrap address): its lanes and its health. A broker answers one request at a time per
//! connection and lets Produce, Fetch and JoinGroup wait there, so short calls must not share a connection with
//! them.
//!
//! Health is one for all that use the broker: when a consumer finds it unreachable, a producer knows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::Rng;
use serde::Serialize;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::identity::Suspect;
use super::metadata::BrokerAddress;
use super::trouble::Attempts;
use crate::config::Endpoint;
use crate::error::Error;
use crate::metrics::BrokerMetrics;
use crate::net::Connection;
use crate::policy::ejection::{Admission, Ejection};
use crate::policy::reconnect::{DialEnd, DialUrgency, Loss, Reconnect};

/// The use of a connection: each lane of a broker is a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Short calls: metadata, producer ids, offsets, admin.
    Control,
    /// All producers of the process.
    Produce,
    /// The Fetches of one consumer, by its number in the pool.
    Fetch(u64),
    /// The membership of one consumer in its group, by the consumer's number: JoinGroup waits there for the others.
    Group(u64),
}

/// A broker, or a bootstrap address whose broker is not known.
pub(crate) struct Broker {
    /// Negative for a bootstrap address whose broker is not known.
    pub(crate) id: i32,
    pub(crate) metrics: Arc<BrokerMetrics>,
    address: Mutex<BrokerAddress>,
    /// Open connections by lane. Their number is bounded: one that ends is removed, and the environment bounds
    /// connections.
    lanes: Mutex<BTreeMap<Lane, Connection>>,
    /// Held while dialling: dials to one broker are serialised in a process.
    dial: Arc<tokio::sync::Mutex<()>>,
    health: Mutex<Health>,
    /// Whether it is unreachable or ejected: readable without the lock, because it is looked at per batch.
    troubled: AtomicBool,
    /// Connections lost and not replaced yet.
    lost: AtomicUsize,
    /// The last metadata names it as part of the cluster.
    member: AtomicBool,
    /// Since when metadata does not name it any more, in the environment's microseconds.
    gone_us: AtomicU64,
    suspect: Suspect,
}

#[derive(Default)]
struct Health {
    reconnect: Reconnect,
    /// Attempts to reach it since the last one that succeeded.
    attempts: Option<Attempts>,
    /// How it has turned this client away last: it counts for as long as the broker is not to be asked again, whatever
    /// else is heard of it meanwhile.
    refused: Option<Error>,
    /// A broker at this address has answered a request.
    reached: bool,
    ejection: Ejection,
}

impl Health {
    /// A connection has answered something.
    fn proven(&mut self) {
        self.reconnect.proven();
        self.attempts = None;
        self.reached = true;
    }
}

/// How a broker has turned this client away, and until when it is of no use to ask it again.
pub(crate) struct Refusal {
    pub(crate) until: Instant,
    pub(crate) error: Error,
}

/// How a broker does, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BrokerHealth {
    /// Nothing is known against it.
    Good,
    /// The last dial failed: records that can go elsewhere do, until a probe succeeds.
    Unreachable,
    /// It answered with errors too often, and is left alone for a while.
    Ejected,
}

impl Broker {
    pub(crate) fn new(
        id: i32,
        endpoint: Endpoint,
        rack: Option<String>,
        metrics: Arc<BrokerMetrics>,
    ) -> Self {
        Self {
            id,
            metrics,
            address: Mutex::new(BrokerAddress { endpoint, rack }),
            lanes: Mutex::default(),
            dial: Arc::default(),
            health: Mutex::default(),
            troubled: AtomicBool::new(false),
            lost: AtomicUsize::new(0),
            member: AtomicBool::new(true),
            gone_us: AtomicU64::new(0),
            suspect: Suspect::default(),
        }
    }

    fn address(&self) -> MutexGuard<'_, BrokerAddress> {
        self.address.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.address().endpoint.clone()
    }

    pub(crate) fn rack(&self) -> Option<String> {
        self.address().rack.clone()
    }

    /// Metadata names it at this endpoint. If that is a new one, connections to the old one get no new work.
    pub(crate) fn named_at(&self, endpoint: &Endpoint, rack: Option<String>) {
        self.member.store(true, Ordering::Relaxed);
        let mut address = self.address();
        address.rack = rack;
        if address.endpoint != *endpoint {
            address.endpoint = endpoint.clone();
            drop(address);
            let old = std::mem::take(&mut *self.lanes());
            old.values().for_each(Connection::retire);
            // Failures at the old address say nothing about the new one.
            let mut health = self.health();
            health.reconnect = Reconnect::default();
            health.attempts = None;
            health.reached = false;
            self.note(&health);
        }
    }

    /// Metadata no longer names it. It may come back, so what is known of it is kept for a while.
    pub(crate) fn vanished(&self, now_us: u64) {
        if self.member.swap(false, Ordering::Relaxed) {
            self.gone_us.store(now_us, Ordering::Relaxed);
        }
    }

    /// Since when metadata does not name it, in the environment's microseconds, if nothing is open to
    /// it either.
    pub(super) fn gone_since(&self) -> Option<u64> {
        let gone = self.id >= 0 && !self.is_member() && !self.is_connected();
        gone.then(|| self.gone_us.load(Ordering::Relaxed))
    }

    pub(crate) fn is_member(&self) -> bool {
        self.member.load(Ordering::Relaxed)
    }

    /// Notes whether its last Metadata response named another cluster.
    pub(super) fn suspect(&self, suspect: bool) {
        self.suspect.set(suspect);
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.get()
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> String {
        if self.id >= 0 {
            format!("broker {} at {}", self.id, self.endpoint())
        } else {
            format!("bootstrap {}", self.endpoint())
        }
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<Lane, Connection>> {
        self.lanes.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The lane's connection, if it is open and known to lead to the right cluster. A producer takes over the
    /// control lane's connection if nothing is in flight there: short calls use any idle connection, and it is
    /// one connection less for every client of a fleet.
    pub(crate) fn open(&self, lane: Lane) -> Option<Connection> {
        let mut lanes = self.lanes();
        let usable = |c: &&Connection| !c.is_closed() && c.is_vouched();
        if let Some(connection) = lanes.get(&lane).filter(usable) {
            return Some(connection.clone());
        }
        let free = |c: &Connection| c.is_free() && c.is_vouched();
        if lane == Lane::Produce && lanes.get(&Lane::Control).is_some_and(free) {
            let connection = lanes.remove(&Lane::Control)?;
            lanes.insert(lane, connection.clone());
            return Some(connection);
        }
        None
    }

    /// Puts a new connection into its lane and gives the connection that the lane has afterwards. If a producer
    /// has taken over the control lane's connection while this one was dialled, that one stays and the new one
    /// is retired: otherwise one of them would be in use without being in the map.
    pub(crate) fn put(&self, lane: Lane, connection: Connection) -> Connection {
        let mut lanes = self.lanes();
        if let Some(open) = lanes.get(&lane).filter(|c| !c.is_closed()) {
            connection.retire();
            return open.clone();
        }
        lanes.insert(lane, connection.clone());
        connection
    }

    /// A connection that is open, but not yet known to lead to the right cluster.
    pub(super) fn unvouched(&self) -> Option<Connection> {
        self.lanes().values().find(|c| !c.is_closed() && !c.is_vouched()).cloned()
    }

    pub(super) fn is_vouched(&self) -> bool {
        self.lanes().values().any(|c| !c.is_closed() && c.is_vouched())
    }

    pub(super) fn is_alive_since_the_last_loss(&self) -> bool {
        self.lanes().values().any(Connection::is_alive_since_the_last_loss)
    }

    pub(super) fn has(&self, connection: u64) -> bool {
        self.lanes().values().any(|c| c.id() == connection)
    }

    /// Retires its connections: they belong to another cluster.
    pub(super) fn hang_up(&self) {
        let lanes = std::mem::take(&mut *self.lanes());
        lanes.values().for_each(Connection::retire);
    }

    pub(crate) fn take(&self, lane: Lane) -> Option<Connection> {
        self.lanes().remove(&lane)
    }

    /// Forgets a connection that ended, and gives it back if it was this broker's.
    pub(crate) fn forget(&self, connection: u64) -> Option<Connection> {
        let mut lanes = self.lanes();
        let (lane, _) = lanes.iter().find(|(_, c)| c.id() == connection)?;
        let lane = *lane;
        lanes.remove(&lane)
    }

    /// A connection that a short call may use now: the control lane unless it is stuck, or any lane
    /// without requests in flight.
    pub(crate) fn open_for_control(&self, stuck: Duration, now: Instant) -> Option<Connection> {
        let lanes = self.lanes();
        let usable = |c: &&Connection| !c.is_closed() && c.muted_until(now).is_none();
        let control =
            lanes.get(&Lane::Control).filter(usable).filter(|c| !c.is_late(stuck, now)).cloned();
        control.or_else(|| lanes.values().filter(usable).find(|c| c.in_flight() == 0).cloned())
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.lanes().values().any(|c| !c.is_closed())
    }

    /// The connection without requests in flight that was used last the longest ago.
    pub(crate) fn longest_idle(&self) -> Option<(Instant, Connection)> {
        let lanes = self.lanes();
        lanes
            .values()
            .filter(|c| !c.is_closed() && c.in_flight() == 0)
            .map(|c| (c.last_used(), c.clone()))
            .min_by_key(|(at, _)| *at)
    }

    /// Lanes that are open, for people.
    pub(crate) fn open_lanes(&self) -> usize {
        self.lanes().values().filter(|c| !c.is_closed()).count()
    }

    /// Waits until no other caller dials this broker. The guard is held while dialling.
    pub(crate) async fn dial_lock(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.dial).lock_owned().await
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Updates `troubled` after a change of its health.
    fn note(&self, health: &Health) {
        let troubled = health.reconnect.is_unreachable() || health.ejection.is_out();
        self.troubled.store(troubled, Ordering::Relaxed);
    }

    /// When it may be dialled; `None`: now.
    pub(crate) fn not_before(&self, urgency: DialUrgency, now: Instant) -> Option<Instant> {
        self.health().reconnect.not_before(urgency).filter(|at| *at > now)
    }

    /// How it has turned this client away, if it is too soon to ask again.
    pub(crate) fn refusal(&self, now: Instant) -> Option<Refusal> {
        let health = self.health();
        let until = health.reconnect.turned_away_until().filter(|until| *until > now)?;
        let error = health.refused.clone()?;
        Some(Refusal { until, error })
    }

    pub(crate) fn setup_timeout(&self) -> Duration {
        self.health().reconnect.setup_timeout()
    }

    /// A dial begins. `true` if it replaces a connection that was lost.
    pub(crate) fn dialing(&self, now: Instant) -> bool {
        self.health().attempts.get_or_insert_with(|| Attempts::new(now)).dials += 1;
        self.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
    }

    pub(crate) fn connected(&self) {
        let mut health = self.health();
        health.reconnect.connected();
        if !health.reconnect.hangs_up() {
            health.attempts = None;
        }
        self.note(&health);
    }

    /// Whether it has closed its last connections on the first request after ApiVersions.
    pub(crate) fn hangs_up(&self) -> bool {
        self.health().reconnect.hangs_up()
    }

    /// Since when attempts to reach it have failed, and how the last attempt that has ended did.
    pub(crate) fn trouble(&self) -> Option<(Instant, Option<Error>)> {
        self.attempts().map(|(since, _, last)| (since, last))
    }

    /// Whether it has answered requests at its present address: then it is down now, and the address is right.
    pub(crate) fn was_reached(&self) -> bool {
        self.health().reached
    }

    /// A connection that has answered requests has ended.
    pub(crate) fn was_of_use(&self) {
        self.health().proven();
    }

    /// As [`trouble`](Self::trouble), with the number of dials.
    pub(super) fn attempts(&self) -> Option<(Instant, u32, Option<Error>)> {
        // A connection that answers a request ends the spell, whatever happened before.
        let proven = self.lanes().values().any(|c| !c.is_closed() && c.has_answered());
        let mut health = self.health();
        if proven {
            health.proven();
        }
        health.attempts.as_ref().map(|a| (a.since, a.dials, a.last.clone()))
    }

    /// A dial failed. `true` if it is the first failure of a spell.
    pub(crate) fn dial_failed(
        &self,
        how: DialEnd,
        reconnect: bool,
        error: &Error,
        now: Instant,
        rng: &mut impl Rng,
    ) -> bool {
        if reconnect {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        let mut health = self.health();
        health.reconnect.failed(how, now, rng);
        health.refused = (how == DialEnd::TurnedAway).then(|| error.clone());
        self.note(&health);
        health.attempts.get_or_insert_with(|| Attempts::new(now)).failed(error)
    }

    /// The peer closed a connection on the first request after ApiVersions. `true` if it is the first failure of
    /// a spell.
    pub(crate) fn hung_up(&self, error: &Error, now: Instant, rng: &mut impl Rng) -> bool {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let mut health = self.health();
        health.reconnect.hung_up(now, rng);
        self.note(&health);
        health.attempts.get_or_insert_with(|| Attempts::new(now)).failed(error)
    }

    /// A connection ended unasked.
    pub(crate) fn connection_lost(
        &self,
        how: Loss,
        others_connected: bool,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let mut health = self.health();
        health.reconnect.lost(how, others_connected, now, rng);
    }

    /// A newer leader epoch names it as a leader: the controller sees it alive, so it may be dialled again.
    pub(crate) fn named_leader(&self, now: Instant, rng: &mut impl Rng) {
        let mut health = self.health();
        health.reconnect.named_leader(now, rng);
        if health.reconnect.turned_away_until().is_none() {
            health.attempts = None;
        }
        health.ejection.named_leader();
        self.note(&health);
    }

    /// Whether it is unreachable or ejected; costs one load.
    pub(crate) fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    pub(crate) fn is_unreachable(&self) -> bool {
        self.is_troubled() && self.health().reconnect.is_unreachable()
    }

    /// Whether records that can go elsewhere may be sent here.
    pub(crate) fn admission(&self, now: Instant) -> Admission {
        if !self.is_troubled() {
            return Admission::Open;
        }
        self.health().ejection.admission(now)
    }

    /// The request that is sent now is the probe of an ejected broker: its response decides.
    pub(crate) fn probe(&self) {
        self.metrics.probe();
        self.health().ejection.probe();
    }

    /// The probe got no response: another request has to decide.
    pub(crate) fn probe_lost(&self) {
        if self.is_troubled() {
            self.health().ejection.probe_lost();
        }
    }

    /// A request was answered well, or failed by the broker's own fault. If that was one failure too many, gives
    /// for how long the broker is ejected; the caller counts and logs that when it holds no lock.
    #[must_use]
    pub(crate) fn answered(
        &self,
        well: bool,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        let mut health = self.health();
        let pause = if well {
            health.ejection.succeeded(now);
            None
        } else {
            health.ejection.failed(now, rng)
        };
        self.note(&health);
        pause
    }

    /// Ejects it, since its success rate is far below the others'. Gives for how long, as above.
    #[must_use]
    pub(crate) fn eject(&self, now: Instant, rng: &mut impl Rng) -> Duration {
        let mut health = self.health();
        let pause = health.ejection.eject(now, rng);
        self.note(&health);
        pause
    }

    /// How many requests have succeeded and failed since the last call.
    pub(crate) fn window(&self) -> (u32, u32) {
        self.health().ejection.window()
    }

    /// Its health, as people read it.
    pub(crate) fn condition(&self, now: Instant) -> BrokerHealth {
        let health = self.health();
        if health.reconnect.is_unreachable() {
            BrokerHealth::Unreachable
        } else if matches!(health.ejection.admission(now), Admission::Open) {
            BrokerHealth::Good
        } else {
            BrokerHealth::Ejected
        }
    }
}

#[cfg(test)]
mod tests;
