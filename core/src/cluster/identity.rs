//! Which cluster a pool talks to. Producer ids, sequences, topic ids and offsets belong to one cluster; an
//! address does not: after a while another cluster may be behind it, which gives the same numbers to other
//! things.
//!
//! - A connection is *vouched for* before a request goes over it that relies on what is known of the cluster.
//!   While any connection of the pool is open, connections that are opened beside it are taken to lead to the
//!   same cluster. After all of them were gone, for whatever reason, the first new one is asked: one Metadata
//!   request for the pool, none for each dial.
//! - Connections that are lost at the same time are not noticed at the same time. After a loss, those that are
//!   left count again once they have answered a request.
//! - A response of another cluster condemns the connection it came over, and its broker is asked each time it
//!   is dialled, until it answers for the right cluster again. Then other brokers are asked.
//! - Only if no broker answers for the old cluster does the other one take its place: at once if every broker
//!   that was asked names it, after ten seconds if some cannot be reached.
//! - Then everything that is known is forgotten, and the next [incarnation](Identity) begins. A client that
//!   goes on with another cluster (`on_cluster_change`) does so; any other gets an error with both names.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use tokio::time::Instant;

use super::broker::{Broker, Lane};
use super::pool::Pool;
use super::refresh;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{MetadataReason, event};
use crate::net::{CallError, Connection, Vouch};
use crate::policy::reconnect::DialEnd;

/// If some brokers of the old cluster cannot be reached, they may come back: only after this time is another
/// cluster believed to have taken its place.
const BELIEVED_AFTER: Duration = Duration::from_secs(10);

/// Which cluster a pool talks to.
#[derive(Default)]
pub(crate) struct Identity {
    state: Mutex<State>,
    /// How many clusters were known before this one.
    incarnation: AtomicU64,
    /// How many connections were lost.
    losses: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    id: Option<String>,
    /// Shared by all connections that were opened since the pool last had none.
    spell: Option<Arc<Vouch>>,
    /// The last response of another cluster, and since when such responses come.
    foreign: Option<Foreign>,
    /// The last change: from which cluster to which.
    changed: Option<(String, String)>,
}

struct Foreign {
    since: Instant,
    from: i32,
    response: Box<MetadataResponse>,
}

impl Identity {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// The cluster's id, once a broker has told it.
    pub(crate) fn cluster_id(&self) -> Option<String> {
        self.state().id.clone()
    }

    /// A connection was lost.
    pub(super) fn lost(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
    }

    /// The error of a client that does not go on with another cluster.
    pub(crate) fn changed(&self) -> Error {
        let (was, is) = self.state().changed.clone().unwrap_or_default();
        changed(&was, &is)
    }
}

fn changed(was: &str, is: &str) -> Error {
    Error::new(
        ErrorKind::ClusterChanged,
        format!("the addresses of cluster '{was}' lead to another one now, '{is}'"),
    )
}

impl Pool {
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A new connection is open: puts it into `lane`, unless that has one already, and gives the one it has then.
    /// `None`, and the connection is retired, if it does not belong to the cluster as it is known now: its dial
    /// began in the `incarnation` before this one, or the pool has forgotten the broker while its caller waited.
    /// The connections of the new cluster must not vouch for one to the old.
    pub(super) fn admit(
        &self,
        broker: &Broker,
        lane: Lane,
        connection: Connection,
        incarnation: u64,
    ) -> Option<Connection> {
        // Held until it can be found: of two that are opened at once only the first begins a spell. And no other
        // incarnation begins meanwhile.
        let mut state = self.identity.state();
        let is_known = |broker: &Broker| {
            self.lock().get(&broker.id).is_some_and(|known| std::ptr::eq(&**known, broker))
        };
        if self.identity.incarnation() != incarnation || !is_known(broker) {
            drop(state);
            connection.retire();
            return None;
        }
        let losses = &self.identity.losses;
        let vouch = if broker.is_suspect() {
            Arc::new(Vouch::new(false, losses))
        } else {
            let goes_on = state.spell.as_ref().is_some_and(|spell| match spell.is_known() {
                true => self.lock().values().any(|b| b.is_alive_since_the_last_loss()),
                false => spell.is_undisturbed() && self.is_connected(None),
            });
            if !goes_on {
                state.spell = None;
            }
            // As long as no cluster is known, none can be the wrong one.
            let known = state.id.is_some();
            let begin = || Arc::new(Vouch::new(!known, losses));
            Arc::clone(state.spell.get_or_insert_with(begin))
        };
        connection.vouched_by(vouch);
        Some(broker.put(lane, connection))
    }

    /// Waits until a connection is known to lead to the right cluster; asks the broker if nobody else does.
    pub(super) async fn vouch(self: &Arc<Self>, id: i32, connection: &Connection) -> Result<()> {
        if connection.is_vouched() {
            return Ok(());
        }
        // Another caller's request may be answered sooner, and that counts for all.
        tokio::select! {
            biased;
            () = connection.vouched() => Ok(()),
            known = self.ask_identity(id, connection) => known,
        }
    }

    pub(super) async fn ask_identity(
        self: &Arc<Self>,
        id: i32,
        connection: &Connection,
    ) -> Result<()> {
        // One caller asks at a time, but does not wait behind a broker that is silent.
        let guard = tokio::time::timeout(self.call_patience(), self.identifying.lock()).await;
        if connection.is_vouched() && self.identity.cluster_id().is_some() {
            return Ok(());
        }
        self.metrics().metadata_asked(MetadataReason::FirstContact);
        let request = MetadataRequest::default()
            .with_allow_auto_topic_creation(false)
            .with_topics(Some(Vec::new()));
        let response = connection.call(&request, refresh::VERSIONS, false).await;
        drop(guard);
        let response = response.map_err(CallError::into_error)?;
        self.recognise(id, connection, &response).inspect_err(|_| self.metadata().want_identity())
    }

    /// Checks that a Metadata response comes from the known cluster. If none is known yet, it is this one from now
    /// on.
    pub(super) fn recognise(
        &self,
        id: i32,
        connection: &Connection,
        response: &MetadataResponse,
    ) -> Result<()> {
        let Some(theirs) = response.cluster_id.as_ref().map(ToString::to_string) else {
            connection.vouch();
            return Ok(());
        };
        let mut state = self.identity.state();
        let ours = state.id.get_or_insert_with(|| theirs.clone());
        if *ours == theirs {
            state.foreign = None;
            drop(state);
            connection.vouch();
            if let Some(broker) = self.broker_of(connection).filter(|broker| broker.is_suspect()) {
                broker.suspect(false);
                // Only now does its dial count as a success.
                broker.connected();
            }
            return Ok(());
        }
        let error = changed(ours, &theirs);
        let now = self.env().now();
        let since = state.foreign.as_ref().map_or(now, |foreign| foreign.since);
        state.foreign = Some(Foreign { since, from: id, response: Box::new(response.clone()) });
        drop(state);
        if let Some(broker) = self.broker_of(connection) {
            broker.suspect(true);
            self.random(|rng| broker.dial_failed(DialEnd::Failed, false, &error, now, rng));
        }
        connection.condemn(error.clone());
        Err(error)
    }

    /// No broker that was asked has answered for the known cluster. If another one has taken its place, that is the
    /// known one from now on, and this gives `true`. `unanimous`: all that were asked named another cluster.
    pub(super) fn give_in(self: &Arc<Self>, unanimous: bool) -> bool {
        let now = self.env().now();
        let mut state = self.identity.state();
        let Some(foreign) = &state.foreign else { return false };
        let waited = now.saturating_duration_since(foreign.since) >= BELIEVED_AFTER;
        let vouched = || self.lock().values().any(|broker| broker.is_vouched());
        if !unanimous && (!waited || vouched()) {
            return false;
        }
        let Some(Foreign { from, response, .. }) = state.foreign.take() else { return false };
        let theirs = response.cluster_id.as_ref().map(ToString::to_string);
        let was = std::mem::replace(&mut state.id, theirs.clone());
        let (was, is) = (was.unwrap_or_default(), theirs.unwrap_or_default());
        state.changed = Some((was.clone(), is.clone()));
        state.spell = None;
        // Counted before anybody can see anything of the new cluster.
        self.identity.incarnation.fetch_add(1, Ordering::AcqRel);
        drop(state);
        self.forget_brokers();
        self.metadata().begin_anew(&response, from, |all, named| self.brokers_changed(all, named));
        event!(self.metrics().logs(), "ottla::cluster", WARN, %was, %is, "this is another cluster now");
        true
    }
}

/// A broker that answered for another cluster, until it answers for the right one.
#[derive(Default)]
pub(super) struct Suspect(AtomicBool);

impl Suspect {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, suspect: bool) {
        self.0.store(suspect, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
