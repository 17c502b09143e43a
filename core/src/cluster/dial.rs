//! Opening connections: to a broker for a lane, or to anybody for a short call.
//!
//! A dial, once begun, runs to its end even if its caller stops waiting: its outcome is what the pool knows of
//! the broker. Dials to one broker are serialised. While nothing at all is connected, all callers that look for
//! *any* broker share one pace, so that a process whose cluster is down dials as often as one broker's backoff
//! allows, however many brokers and callers there are.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::seq::{IndexedRandom, SliceRandom};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::Instant;

use super::broker::{Broker, Lane};
use super::pool::{Pool, is_hopeless};
use super::trouble;
use crate::caught::caught;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::DialFailure;
use crate::net::{self, CloseReason, Connection, OnClose};
use crate::policy::backoff::Backoff;
use crate::policy::reconnect::{DialEnd, DialUrgency, Loss};

/// If a dial for a short call takes longer, it goes on by itself while another address is tried.
const DIAL_PATIENCE: Duration = Duration::from_secs(1);

/// The least time for which a short call is unanswered before another broker is asked.
const CALL_PATIENCE: Duration = Duration::from_secs(1);
/// The longest: short calls are so rare that one slow response counts as usual for a day.
const CALL_PATIENCE_MAX: Duration = Duration::from_secs(5);

/// This many known brokers are tried, drawn anew each time, before the bootstrap list.
const KNOWN_TRIED: usize = 3;

/// Who has been turned away by all brokers looks this often whether somebody else has come to one.
const LOOKED_FOR: Duration = Duration::from_millis(200);

/// How a search for any broker has ended.
enum Reached {
    Somebody(i32, Connection),
    /// All have turned this client away; one of them may be asked again from then on.
    Nobody {
        until: Instant,
    },
}

/// Paces dials while no broker is connected, for all callers that look for any broker.
#[derive(Default)]
pub(crate) struct ReconnectPacer {
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Pool {
    /// The open connection of a lane, or a new one. Waits while another caller dials the same broker. If the broker
    /// may not be dialled yet, a caller that needs this broker waits for that; a caller that can use another
    /// one gets an error at once.
    pub(crate) async fn lane(
        self: &Arc<Self>,
        id: i32,
        lane: Lane,
        urgency: DialUrgency,
    ) -> Result<Connection> {
        let known = || {
            self.broker(id).ok_or_else(|| {
                let words = format!("broker {id} is not part of the cluster now");
                Error::new(ErrorKind::Connect, words)
                    .advise("try again: somebody else leads by now, or will")
            })
        };
        let mut broker = known()?;
        if let Some(connection) = broker.open(lane)
            && connection.prove().await.is_ok()
        {
            return Ok(connection);
        }
        loop {
            let dial_lock = broker.dial_lock().await;
            // It may have been forgotten meanwhile, and be known again, elsewhere or in another cluster.
            let now_known = known()?;
            if !Arc::ptr_eq(&now_known, &broker) {
                broker = now_known;
                continue;
            }
            // Connections that are open but not vouched for are asked before another one is dialled.
            while let Some(connection) = broker.unvouched() {
                self.vouch(id, &connection).await?;
            }
            if let Some(connection) = broker.open(lane) {
                return Ok(connection);
            }
            let Some(at) = broker.not_before(urgency, self.env().now()) else {
                let dialled = result(self.dial(&broker, lane, dial_lock).await);
                if dialled.is_err()
                    && self.broker(id).is_some_and(|now| !Arc::ptr_eq(&now, &broker))
                {
                    continue;
                }
                let connection = dialled?;
                self.vouch(id, &connection).await?;
                return Ok(connection);
            };
            if urgency != DialUrgency::Needed {
                let left_alone = "left alone for a while after a failure";
                return Err(match broker.trouble() {
                    Some((_, Some(e))) => e.and(left_alone),
                    _ => {
                        let words = format!("{}: {left_alone}", broker.name());
                        Error::new(ErrorKind::Connect, words)
                    }
                });
            }
            // Not while holding the lock: a caller that may dial sooner must not wait for this one.
            drop(dial_lock);
            self.env().sleep_until(at).await;
        }
    }

    /// A connection to this broker for a short call: one where nothing waits. If there is none, a new
    /// one: `lane`, which is of use afterwards, unless that is open and at work already.
    pub(crate) async fn lane_for_call(self: &Arc<Self>, id: i32, lane: Lane) -> Result<Connection> {
        let (stuck, now) = (self.call_patience(), self.env().now());
        let broker = self.broker(id);
        if let Some(open) = broker.as_ref().and_then(|b| b.open_for_control(stuck, now))
            && open.prove().await.is_ok()
        {
            self.vouch(id, &open).await?;
            return Ok(open);
        }
        if broker.is_none_or(|b| b.open(lane).is_none()) {
            let connection = self.lane(id, lane, DialUrgency::Needed).await?;
            // Another caller that waited for the same dial may have sent a long poll on it already.
            if connection.in_flight() == 0 {
                return Ok(connection);
            }
        }
        self.lane(id, Lane::Control, DialUrgency::Needed).await
    }

    /// Begins a dial in a task of its own.
    fn dial(
        self: &Arc<Self>,
        broker: &Arc<Broker>,
        lane: Lane,
        dial_lock: OwnedMutexGuard<()>,
    ) -> oneshot::Receiver<Result<Connection>> {
        let (tx, rx) = oneshot::channel();
        let (pool, broker) = (Arc::downgrade(self), Arc::clone(broker));
        let setup = self.setup.clone();
        let incarnation = self.identity().incarnation();
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        self.env().spawn(async move {
            let timeout = broker.setup_timeout();
            let permit = match setup.env.permit(timeout).await {
                Ok(permit) => permit,
                // If this process may not open one more connection, that says nothing about the broker.
                Err(e) => {
                    drop(dial_lock);
                    let _ = tx.send(Err(e));
                    return;
                }
            };
            let endpoint = broker.endpoint();
            let deadline = setup.env.now() + timeout;
            let prepared = setup.guard.prepare(&setup.env, &endpoint, &setup.metrics);
            // Half of the time there is at most: the rest is the broker's.
            let prepared = match setup.env.within(timeout / 2, prepared).await {
                Some(Ok(prepared)) => prepared,
                // Nor does it if there is nothing to log in with.
                Some(Err(e)) => {
                    drop(dial_lock);
                    let _ = tx.send(Err(e));
                    return;
                }
                None => {
                    drop(dial_lock);
                    let words = format!(
                        "{}: nothing to log in with within {:?}",
                        broker.name(),
                        timeout / 2
                    );
                    let _ = tx.send(Err(Error::new(ErrorKind::Credentials, words).passing()));
                    return;
                }
            };
            let timeout = deadline.saturating_duration_since(setup.env.now());
            let reconnect = broker.dialing(setup.env.now());
            let target = net::Target {
                id,
                endpoint: &endpoint,
                name: broker.name(),
                timeout,
                broker: &broker.metrics,
                reconnect,
                prepared,
            };
            // Foreign code may run in it: the dialer, the authenticator.
            let opened = caught(net::open(&setup, target, on_close(&pool, &broker, id, permit)));
            let opened = opened.await.unwrap_or_else(|e| {
                Err((DialFailure::Other, e.context(format_args!("{}: dialling", broker.name()))))
            });
            let Some(pool) = pool.upgrade() else { return };
            let elsewhere = || {
                let words = format!("{}: it is elsewhere by now", broker.name());
                Error::new(ErrorKind::Connect, words)
            };
            let result = match opened {
                Ok(connection) if broker.endpoint() == endpoint => {
                    let admitted = pool.admit(&broker, lane, connection, incarnation);
                    // A broker that led to another cluster counts as well only once it has been asked.
                    if admitted.is_some() && !broker.is_suspect() {
                        broker.connected();
                    }
                    // Otherwise callers that look for any broker would find it again and again, at once.
                    if admitted.is_some() && !broker.hangs_up() {
                        pool.reconnect_pacer().reached();
                    }
                    admitted.ok_or_else(elsewhere)
                }
                // The broker has moved during the dial: this is not a connection to it any more.
                Ok(connection) => {
                    connection.retire();
                    Err(elsewhere())
                }
                Err((why, e)) => {
                    let now = setup.env.now();
                    let how = match why {
                        DialFailure::TimedOut => DialEnd::TimedOut,
                        _ if is_refusal(&e) => DialEnd::TurnedAway,
                        _ => DialEnd::Failed,
                    };
                    let e = pool.of_address(&broker, &endpoint, e);
                    let news = pool.random(|rng| broker.dial_failed(how, reconnect, &e, now, rng));
                    if news {
                        pool.spell_began(&broker, &e);
                    }
                    Err(e)
                }
            };
            // Released before the result is given: a caller that waits for the lock then finds the lane open.
            drop(dial_lock);
            let _ = tx.send(result);
        });
        rx
    }

    fn reconnect_pacer(&self) -> std::sync::MutexGuard<'_, ReconnectPacer> {
        self.reconnect_pacer.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Callers that look for any broker ask here before they dial: while no broker is connected all of them share
    /// one pace. The error is the time at which to ask again.
    pub(crate) fn look_for_somebody(&self, now: Instant) -> Result<(), Instant> {
        if self.is_connected(None) {
            return Ok(());
        }
        let mut reconnect_pacer = self.reconnect_pacer();
        if let Some(at) = reconnect_pacer.not_before.filter(|at| *at > now) {
            return Err(at);
        }
        let delay = self.random(|rng| reconnect_pacer.backoff.next(rng));
        reconnect_pacer.not_before = Some(now + delay);
        Ok(())
    }

    /// A connection for a short call, and the id of its broker: an open one, chosen at random, or a new one if
    /// none is open.
    pub(crate) async fn control(self: &Arc<Self>) -> Result<(i32, Connection)> {
        let (id, connection) = self.control_but(&[]).await?;
        self.vouch(id, &connection).await?;
        Ok((id, connection))
    }

    /// The same, to another broker than those of `not` if there is one, and without knowing that it is of the right
    /// cluster: for the request that asks for the cluster's id.
    pub(crate) async fn control_but(self: &Arc<Self>, not: &[i32]) -> Result<(i32, Connection)> {
        loop {
            if let Some(found) = self.open_control(not) {
                return Ok(found);
            }
            let one_at_a_time = self.reaching.lock().await;
            if let Some(found) = self.open_control(not) {
                return Ok(found);
            }
            let until = match self.reach_anybody(not).await? {
                Reached::Somebody(id, connection) => return Ok((id, connection)),
                Reached::Nobody { until } => until,
            };
            // Not while holding the lock, nor without looking who comes meanwhile.
            drop(one_at_a_time);
            self.env().sleep_until(until.min(self.env().now() + LOOKED_FOR)).await;
        }
    }

    pub(super) fn open_control(&self, not: &[i32]) -> Option<(i32, Connection)> {
        let now = self.env().now();
        let stuck = self.call_patience();
        let open: Vec<(i32, Connection)> = self
            .lock()
            .values()
            .filter(|b| b.is_member() && !not.contains(&b.id))
            .filter_map(|b| b.open_for_control(stuck, now).map(|c| (b.id, c)))
            .collect();
        self.random(|rng| open.choose(rng).cloned())
    }

    /// How long a response to a short call is waited for before another broker is asked.
    pub(super) fn call_patience(&self) -> Duration {
        self.control_latency().late_after().clamp(CALL_PATIENCE, CALL_PATIENCE_MAX)
    }

    /// Dials one after the other, known brokers first, then the bootstrap list (KIP-899), until one
    /// is reached or all were tried.
    async fn reach_anybody(self: &Arc<Self>, not: &[i32]) -> Result<Reached> {
        let mut candidates = self.candidates(not);
        if candidates.is_empty() {
            candidates = self.candidates(&[]);
        }
        if let Some(until) = self.turned_away_until(&candidates) {
            return Ok(Reached::Nobody { until });
        }
        let mut errors = Vec::new();
        let mut waiting: Vec<(i32, oneshot::Receiver<Result<Connection>>)> = Vec::new();
        for broker in candidates {
            // One login tells as much as ten: who was turned away a moment ago is turned away again.
            if let Some(refusal) = broker.refusal(self.env().now()) {
                errors.push(refusal.error);
                continue;
            }
            while let Err(at) = self.look_for_somebody(self.env().now()) {
                self.env().sleep_until(at).await;
                // Another caller may have reached a broker meanwhile.
                if let Some((id, connection)) = self.open_control(not) {
                    return Ok(Reached::Somebody(id, connection));
                }
            }
            // A dial that is under way belongs to another caller; its outcome comes by itself.
            let dial_lock = tokio::time::timeout(DIAL_PATIENCE, broker.dial_lock()).await;
            let Ok(dial_lock) = dial_lock else {
                let words = format!("{}: it is being dialled", broker.name());
                errors.push(Error::new(ErrorKind::Connect, words));
                continue;
            };
            if let Some(connection) = broker.open(Lane::Control) {
                return Ok(Reached::Somebody(broker.id, connection));
            }
            if let Some(refusal) = broker.refusal(self.env().now()) {
                errors.push(refusal.error);
                continue;
            }
            let mut outcome = self.dial(&broker, Lane::Control, dial_lock);
            match tokio::time::timeout(DIAL_PATIENCE, &mut outcome).await {
                Err(_) => waiting.push((broker.id, outcome)),
                Ok(outcome) => match result(outcome) {
                    Ok(connection) => return Ok(Reached::Somebody(broker.id, connection)),
                    Err(e) => {
                        // What there is not for one broker there is not for another.
                        let nothing = e.kind() == ErrorKind::Credentials;
                        errors.push(e);
                        if nothing {
                            break;
                        }
                    }
                },
            }
        }
        // All were tried: one of the slow ones may be the only one that answers.
        for (id, outcome) in waiting {
            match result(outcome.await) {
                Ok(connection) => return Ok(Reached::Somebody(id, connection)),
                Err(e) => errors.push(e),
            }
        }
        Err(summary(errors))
    }

    /// If all of them have turned this client away, and that may pass: when one of them may be asked again. If it does
    /// not pass, the caller is to hear of it.
    fn turned_away_until(&self, brokers: &[Arc<Broker>]) -> Option<Instant> {
        let now = self.env().now();
        let refusals: Option<Vec<_>> = brokers.iter().map(|b| b.refusal(now)).collect();
        let refusals = refusals?;
        let passing = refusals.iter().filter(|refusal| !is_hopeless(&refusal.error));
        passing.map(|refusal| refusal.until).min()
    }

    /// The brokers to dial for a short call: known brokers that are not backing off, in random order, then
    /// bootstrap addresses of others.
    fn candidates(&self, not: &[i32]) -> Vec<Arc<Broker>> {
        let now = self.env().now();
        let brokers: Vec<Arc<Broker>> =
            self.lock().values().filter(|b| b.is_member()).cloned().collect();
        let (mut known, mut bootstrap): (Vec<_>, Vec<_>) =
            brokers.into_iter().partition(|b| b.id >= 0);
        bootstrap.retain(|b| !known.iter().any(|k| k.endpoint() == b.endpoint()));
        for brokers in [&mut known, &mut bootstrap] {
            brokers.retain(|b| !not.contains(&b.id));
        }
        self.random(|rng| {
            known.shuffle(rng);
            bootstrap.shuffle(rng);
        });
        // Before who is not to be asked yet.
        known.sort_by_key(|b| b.refusal(now).is_some());
        // If many brokers are known, only a few are tried before the bootstrap list: all of them may be gone.
        if !bootstrap.is_empty() {
            known.truncate(KNOWN_TRIED);
        }
        known.extend(bootstrap);
        // The sort is stable: brokers that failed a moment ago come last, as their backoff has to be waited
        // for.
        known.sort_by_key(|b| b.not_before(DialUrgency::Needed, now).is_some());
        known
    }

    /// A connection ended.
    fn ended(&self, dialed: &Arc<Broker>, connection: u64, ending: &CloseReason) {
        // A bootstrap connection may have become a broker's meanwhile.
        let owner = self.lock().values().find_map(|b| Some((Arc::clone(b), b.forget(connection)?)));
        let broker = owner.as_ref().map_or(dialed, |(broker, _)| broker);
        if owner.as_ref().is_some_and(|(_, connection)| connection.has_answered()) {
            broker.was_of_use();
        }
        if matches!(ending, CloseReason::Lost(_) | CloseReason::HungUp(_)) {
            self.identity().lost();
        }
        let now = self.env().now();
        match ending {
            CloseReason::Unneeded | CloseReason::Idle => {}
            CloseReason::Lost(error) => {
                let others = self.is_connected(Some(broker.id));
                let silent = error.kind() == ErrorKind::Timeout;
                let how = if silent { Loss::Silence } else { Loss::Cut };
                self.random(|rng| broker.connection_lost(how, others, now, rng));
            }
            CloseReason::HungUp(error) => {
                let error = self.of_address(broker, &broker.endpoint(), error.clone());
                if self.random(|rng| broker.hung_up(&error, now, rng)) {
                    self.spell_began(broker, &error);
                }
            }
        }
    }
}

impl ReconnectPacer {
    fn reached(&mut self) {
        *self = Self::default();
    }
}

fn on_close(
    pool: &Weak<Pool>,
    broker: &Arc<Broker>,
    id: u64,
    permit: crate::environment::Permit,
) -> OnClose {
    // Weak references: the broker holds the connection, which holds this closure. Strong ones would be a cycle,
    // and the pool's connections would stay open after its last handle is dropped.
    let (pool, broker) = (pool.clone(), Arc::downgrade(broker));
    Box::new(move |ending| {
        drop(permit);
        if let (Some(pool), Some(broker)) = (pool.upgrade(), broker.upgrade()) {
            pool.ended(&broker, id, ending);
        }
    })
}

fn result(outcome: Result<Result<Connection>, oneshot::error::RecvError>) -> Result<Connection> {
    outcome.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Internal, "the engine ended a dial without a result"))
    })
}

/// Whether the broker was reached and does not want this client as it is, or this client not the broker: then the
/// next dial soon after ends in the same way.
fn is_refusal(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Authentication => true,
        // A peer that hung up in the handshake may be a proxy before a broker that is down.
        ErrorKind::Tls => !error.is_retriable(),
        _ => false,
    }
}

/// One error for several dials, with the end of each of them. It is of a kind that trying again will not change
/// only if every address gave such a response; otherwise what counts is that some were not reached.
fn summary(errors: Vec<Error>) -> Error {
    let Some(told) = errors.iter().find(|e| !is_hopeless(e)).or(errors.first()) else {
        return Error::new(ErrorKind::Connect, "there is no broker to ask");
    };
    let mut words: Vec<String> = Vec::new();
    for error in &errors {
        if !words.iter().any(|known| known == error.message()) {
            words.push(error.message().to_owned());
        }
    }
    told.in_words(trouble::listed(words.into_iter()))
}

#[cfg(test)]
mod tests;
