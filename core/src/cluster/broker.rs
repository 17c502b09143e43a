//! One broker (or bootstrap address) and its lanes. A broker answers one request at a time per
//! connection and lets Produce, Fetch and JoinGroup wait there, so that nothing short may share
//! a connection with them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::time::Instant;

use crate::config::Endpoint;
use crate::net::Connection;
use crate::policy::backoff::Backoff;

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Short calls: metadata, producer ids, offsets, admin.
    Control,
    /// All producers of the process.
    Produce,
    /// One consumer, by its number in the pool.
    Fetch(u64),
}

/// See the module.
pub(crate) struct Broker {
    /// Negative for a bootstrap address whose broker is not known.
    pub(crate) id: i32,
    endpoint: Mutex<Endpoint>,
    lanes: Mutex<BTreeMap<Lane, Connection>>,
    /// Held while dialling: dials to one broker are serialised in a process.
    pub(crate) dial: tokio::sync::Mutex<DialState>,
}

/// Pace of dials to a broker.
#[derive(Default)]
pub(crate) struct DialState {
    pub(crate) backoff: Backoff,
    pub(crate) not_before: Option<Instant>,
}

impl Broker {
    pub(crate) fn new(id: i32, endpoint: Endpoint) -> Self {
        Self {
            id,
            endpoint: Mutex::new(endpoint),
            lanes: Mutex::default(),
            dial: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// The broker is elsewhere now: connections to the old address get no new work.
    pub(crate) fn moved(&self, endpoint: &Endpoint) {
        let mut current = self.endpoint.lock().unwrap_or_else(|e| e.into_inner());
        if *current != *endpoint {
            *current = endpoint.clone();
            drop(current);
            self.lanes().clear();
        }
    }

    /// For messages.
    pub(crate) fn name(&self) -> String {
        if self.id >= 0 {
            format!("broker {} at {}", self.id, self.endpoint())
        } else {
            format!("bootstrap {}", self.endpoint())
        }
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, BTreeMap<Lane, Connection>> {
        self.lanes.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The lane's connection, if it is open.
    pub(crate) fn open(&self, lane: Lane) -> Option<Connection> {
        let mut lanes = self.lanes();
        match lanes.get(&lane) {
            Some(connection) if !connection.is_closed() => Some(connection.clone()),
            Some(_) => {
                lanes.remove(&lane);
                None
            }
            None => None,
        }
    }

    pub(crate) fn put(&self, lane: Lane, connection: Connection) {
        self.lanes().insert(lane, connection);
    }

    pub(crate) fn take(&self, lane: Lane) -> Option<Connection> {
        self.lanes().remove(&lane)
    }

    /// A connection that a short call may use now: the control lane, or any lane without requests
    /// in flight.
    pub(crate) fn open_for_control(&self) -> Option<Connection> {
        self.open(Lane::Control).or_else(|| {
            let lanes = self.lanes();
            lanes
                .values()
                .find(|connection| !connection.is_closed() && connection.in_flight() == 0)
                .cloned()
        })
    }
}
