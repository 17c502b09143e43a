//! The pool: one per environment and cluster, shared by all clients of a process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::broker::{Broker, Lane};
use super::metadata::Metadata;
use super::refresh;
use super::stats::Counters;
use crate::config::{ClientConfig, SETUP_TIMEOUT};
use crate::environment::{Environment, PoolKey};
use crate::error::{Error, ErrorKind, Result};
use crate::net::{self, Connection, NoAuthentication, SetupContext};
use crate::policy::backoff::Backoff;
use crate::producer::Producers;
use crate::record::pool::ChunkPool;

/// How long one broker may take to be reached for a short call while there are others to ask.
const CONTROL_DIAL: Duration = Duration::from_secs(3);

/// See the module.
pub(crate) struct Pool {
    setup: SetupContext,
    metadata: Arc<Metadata>,
    counters: Arc<Counters>,
    /// Bootstrap addresses under negative ids.
    brokers: Mutex<BTreeMap<i32, Arc<Broker>>>,
    producers: OnceLock<Arc<Producers>>,
    next_consumer: AtomicU64,
}

impl Pool {
    /// The pool for these settings: an existing one of the environment, or a new one.
    pub(crate) fn get(env: &Environment, config: &ClientConfig) -> Arc<Self> {
        let mut bootstrap = config.bootstrap.clone();
        bootstrap.sort();
        let key = PoolKey {
            bootstrap,
            client_id: config.client_id.clone(),
            software: config.software.clone(),
            request_timeout: config.request_timeout,
        };
        env.pool(key, || {
            let pool = Arc::new(Self::new(env, config));
            env.spawn(refresh::run(Arc::downgrade(&pool)));
            pool
        })
    }

    fn new(env: &Environment, config: &ClientConfig) -> Self {
        let brokers = config
            .bootstrap
            .iter()
            .enumerate()
            .map(|(i, endpoint)| {
                let id = -1 - i as i32;
                (id, Arc::new(Broker::new(id, endpoint.clone())))
            })
            .collect();
        Self {
            setup: SetupContext {
                env: env.clone(),
                client_id: config.client_id.clone(),
                software: config.software.clone(),
                request_timeout: config.request_timeout,
                authenticator: Arc::new(NoAuthentication),
                buffers: ChunkPool::new(32 << 20),
            },
            metadata: Arc::new(Metadata::new()),
            counters: Arc::default(),
            brokers: Mutex::new(brokers),
            producers: OnceLock::new(),
            next_consumer: AtomicU64::new(0),
        }
    }

    pub(crate) fn env(&self) -> &Environment {
        &self.setup.env
    }

    pub(crate) fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Warm buffers for batches, frames and decompression.
    pub(crate) fn buffers(&self) -> &ChunkPool {
        &self.setup.buffers
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.setup.client_id
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.setup.request_timeout
    }

    /// What all producers of the pool share.
    pub(crate) fn producers(self: &Arc<Self>) -> &Arc<Producers> {
        self.producers.get_or_init(|| Producers::start(self))
    }

    pub(crate) fn next_consumer(&self) -> u64 {
        self.next_consumer.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, Arc<Broker>>> {
        self.brokers.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn broker(&self, id: i32) -> Option<Arc<Broker>> {
        self.lock().get(&id).cloned()
    }

    /// The open connection of a lane, or a new one. Waits for its turn and for the backoff after
    /// earlier failures.
    pub(crate) async fn lane(&self, id: i32, lane: Lane) -> Result<Connection> {
        let broker = self.broker(id).ok_or_else(|| {
            Error::new(ErrorKind::Connect, format!("broker {id} is not part of the cluster now"))
        })?;
        if let Some(connection) = broker.open(lane) {
            return Ok(connection);
        }
        let mut dial = broker.dial.lock().await;
        if let Some(connection) = broker.open(lane) {
            return Ok(connection);
        }
        if let Some(at) = dial.not_before.take() {
            tokio::time::sleep_until(at).await;
        }
        let counters = Arc::clone(&self.counters);
        let on_close = Box::new(move || {
            counters.connections_open.fetch_sub(1, Ordering::Relaxed);
        });
        match net::open(&self.setup, &broker.endpoint(), broker.name(), SETUP_TIMEOUT, on_close)
            .await
        {
            Ok(connection) => {
                Counters::add(&self.counters.connects, 1);
                Counters::add(&self.counters.connections_open, 1);
                dial.backoff.reset();
                broker.put(lane, connection.clone());
                Ok(connection)
            }
            Err(e) => {
                Counters::add(&self.counters.connect_failures, 1);
                let delay = dial.backoff.next(&mut self.env().rng());
                dial.not_before = Some(self.env().now() + delay);
                tracing::debug!(broker = %broker.name(), error = %e.message(), "dial failed");
                Err(e)
            }
        }
    }

    /// A connection for a short call, to another broker than `not` if there is one, and the id of
    /// its broker. One that is open, chosen at random; else known brokers and then bootstrap
    /// addresses are dialled in random order.
    pub(crate) async fn control(&self, not: Option<i32>) -> Result<(i32, Connection)> {
        let mut brokers: Vec<_> = self.lock().values().cloned().collect();
        brokers.shuffle(&mut self.env().rng());
        // Stable: random within known brokers (first) and within bootstrap addresses, the one that
        // was just asked last.
        brokers.sort_by_key(|b| (Some(b.id) == not, b.id < 0));
        let open = |wanted: fn(&Broker) -> Option<Connection>| {
            brokers
                .iter()
                .filter(|b| Some(b.id) != not || brokers.len() == 1)
                .find_map(|b| wanted(b).map(|c| (b.id, c)))
        };
        if let Some(found) = open(|b| b.open(Lane::Control)) {
            return Ok(found);
        }
        if let Some(found) = open(Broker::open_for_control) {
            return Ok(found);
        }
        // Those that failed a moment ago come last: their backoff would be waited for.
        let rested = |b: &&Arc<Broker>| {
            b.dial.try_lock().is_ok_and(|d| d.not_before.is_none_or(|at| at <= self.env().now()))
        };
        let (first, last): (Vec<_>, Vec<_>) = brokers.iter().partition(rested);
        let mut errors: Vec<Error> = Vec::new();
        let count = brokers.len();
        for (i, broker) in first.into_iter().chain(last).enumerate() {
            let dial = self.lane(broker.id, Lane::Control);
            let result = if i + 1 < count {
                // A black hole must not use up the time of the ones behind it.
                tokio::time::timeout(CONTROL_DIAL, dial).await.unwrap_or_else(|_| {
                    let what = format!("{}: no connection within {CONTROL_DIAL:?}", broker.name());
                    Err(Error::new(ErrorKind::Connect, what))
                })
            } else {
                dial.await
            };
            match result {
                Ok(connection) => return Ok((broker.id, connection)),
                Err(e) => errors.push(e),
            }
        }
        Err(summary(errors))
    }

    /// A broker did not answer a short call in time: its control connection gets no more of them.
    pub(crate) fn silent(&self, id: i32) {
        if let Some(broker) = self.broker(id) {
            broker.take(Lane::Control);
        }
    }

    /// After metadata: new brokers, moved ones, vanished ones; bootstrap connections whose broker
    /// is now known become its control lane.
    pub(crate) fn brokers_changed(&self) {
        let known = self.metadata.brokers();
        let mut brokers = self.lock();
        for (id, endpoint) in &known {
            match brokers.get(id) {
                Some(broker) => broker.moved(endpoint),
                None => {
                    brokers.insert(*id, Arc::new(Broker::new(*id, endpoint.clone())));
                }
            }
        }
        brokers.retain(|id, _| *id < 0 || known.iter().any(|(k, _)| k == id));
        let bootstraps: Vec<_> = brokers.values().filter(|b| b.id < 0).cloned().collect();
        for bootstrap in bootstraps {
            let Some(connection) = bootstrap.open(Lane::Control) else { continue };
            let asked = bootstrap.endpoint();
            let owner = known.iter().find(|(_, endpoint)| {
                *endpoint == asked
                    || connection.peer_addr().is_some_and(|peer| {
                        let same_host = endpoint.host.parse::<std::net::IpAddr>().map_or(
                            endpoint.host == "localhost" && peer.ip().is_loopback(),
                            |ip| ip == peer.ip(),
                        );
                        peer.port() == endpoint.port && same_host
                    })
            });
            if let Some((id, _)) = owner {
                bootstrap.take(Lane::Control);
                let broker = &brokers[id];
                if broker.open(Lane::Control).is_none() {
                    broker.put(Lane::Control, connection);
                }
            }
        }
    }

    /// Reaches the cluster for the first time. Tries until the deadline, unless every address
    /// answered something that trying again will not change.
    pub(crate) async fn reach(self: &Arc<Self>, timeout: Duration) -> Result<()> {
        if !self.metadata.brokers().is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + timeout;
        let mut rng = self.env().rng();
        let mut backoff = Backoff::default();
        let mut last: Option<Error> = None;
        loop {
            match tokio::time::timeout_at(deadline, refresh::ask(self, &[], None)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(e)) => {
                    let hopeless = matches!(
                        e.kind(),
                        ErrorKind::NotKafka
                            | ErrorKind::Authentication
                            | ErrorKind::UnsupportedVersion
                    );
                    if hopeless {
                        return Err(e);
                    }
                    last = Some(e);
                }
                Err(_) => break,
            }
            let at = Instant::now() + backoff.next(&mut rng);
            if at >= deadline {
                break;
            }
            tokio::time::sleep_until(at).await;
        }
        let addresses: Vec<_> = {
            let brokers = self.lock();
            brokers.values().filter(|b| b.id < 0).map(|b| b.endpoint().to_string()).collect()
        };
        let what = format!("no broker reached within {timeout:?} at {}", addresses.join(", "));
        Err(match last {
            Some(e) => e.context(what),
            None => Error::new(ErrorKind::Connect, what),
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The refresher finds the pool gone and ends.
        self.metadata.ask.notify_one();
        if let Some(producers) = self.producers.get() {
            producers.stop();
        }
    }
}

/// One error for several dials: what all share, or the one that says most.
fn summary(mut errors: Vec<Error>) -> Error {
    // Unreachable brokers are common while another address has the real answer (wrong port,
    // refused credentials), so connection errors come last.
    errors.sort_by_key(|e| matches!(e.kind(), ErrorKind::Connect | ErrorKind::Disconnected));
    errors
        .into_iter()
        .next()
        .unwrap_or_else(|| Error::new(ErrorKind::Connect, "there is no broker to ask"))
}
