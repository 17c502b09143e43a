//! The pool: one per environment and cluster, shared by all clients of a process. The one place
//! where connections are opened ([`dial`](super::dial)) and brokers are known.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::time::Instant;

use super::broker::{Broker, Lane};
use super::budgets::Budgets;
use super::dial::ReconnectPacer;
use super::identity::Identity;
use super::metadata::{Brokers, Metadata};
use super::pace::Pace;
use super::pools::{PoolKey, Pools};
use super::{refresh, view};
use crate::config::{Caller, ClientConfig, Endpoint};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Logs, Metrics, event};
use crate::net::{Connection, SetupContext};
use crate::policy::ejection;
use crate::policy::latency::Latency;
use crate::policy::subset::Member;
use crate::record::pool::{CLUSTER_KEEP, ChunkPool};
use crate::security::{Guard, SecurityKey};

/// A broker that metadata no longer names is remembered for this time, and at most this many of them. Brokers
/// that are restarted come back sooner, and what is known of them is then of use.
const GONE_REMEMBERED: Duration = Duration::from_secs(15 * 60);
const MOST_GONE: usize = 64;

/// If the first contact takes longer than this, a line is logged. By then a second address was tried, if the
/// first one does not answer dials.
const REACHED_SOON: Duration = Duration::from_millis(1_500);

/// What the pool knows of the producers that live on it.
pub(crate) trait Guest: Any + Send + Sync {
    /// This client has created a topic: its records are no longer refused because it was missing.
    fn topic_created(&self, topic: &str);

    /// The last handle of the pool is dropped: records that are not acknowledged are lost.
    fn left_behind(&self, logs: &Logs);

    /// The pool is gone: records that are left resolve with an error.
    fn stop(&self);
}

/// The pool of one cluster.
pub(crate) struct Pool {
    pub(super) setup: SetupContext,
    pub(super) identity: Identity,
    /// Held while a broker is asked which cluster it belongs to.
    pub(super) identifying: tokio::sync::Mutex<()>,
    metadata: Arc<Metadata>,
    metrics: Arc<Metrics>,
    budgets: Budgets,
    pace: Pace,
    /// Brokers by id: those that the last response named, those that are connected, and up to [`MOST_GONE`] others.
    /// Bootstrap addresses have negative ids.
    brokers: Mutex<BTreeMap<i32, Arc<Broker>>>,
    /// Paces dials while no broker is connected at all.
    pub(super) reconnect_pacer: Mutex<ReconnectPacer>,
    /// Held while a caller dials one broker after the other until one is reached.
    pub(super) reaching: tokio::sync::Mutex<()>,
    /// Latency of short calls.
    control: Mutex<Latency>,
    rng: Mutex<StdRng>,
    /// Pools that are made later have higher numbers.
    number: u64,
    software: (String, String),
    security: SecurityKey,
    /// A random number that tells this process from others in the choice of a subset.
    instance: u64,
    /// When the success rates of the brokers were compared last, in the environment's microseconds.
    compared_us: AtomicU64,
    /// The producers' registry, which is told of the pool's end.
    guest: OnceLock<Box<dyn Guest>>,
    next_consumer: AtomicU64,
    pub(super) next_connection: AtomicU64,
    /// Its refresher was started.
    refreshed: AtomicBool,
}

impl Pool {
    /// The pool for these settings: an existing one of the environment, or a new one.
    ///
    /// # Errors
    /// `Config` if files that the settings name are missing or of no use.
    pub(crate) fn get(env: &Environment, config: &ClientConfig) -> Result<Arc<Self>> {
        let mut bootstrap = config.bootstrap.clone();
        bootstrap.sort();
        let (software, security) = (config.software.clone(), config.security.key());
        let key = PoolKey { bootstrap, software, security: security.clone() };
        let make = || {
            let guard = Guard::new(&config.security, env)?;
            Ok(Arc::new(Self::new(env, config, security, guard)))
        };
        let pool = Pools::of(env).get(key, make)?;
        if !pool.refreshed.swap(true, Ordering::AcqRel) {
            env.spawn(refresh::run(Arc::downgrade(&pool)));
            pool.setup.guard.warn(&config.bootstrap, &pool.metrics);
        }
        Ok(pool)
    }

    fn new(env: &Environment, config: &ClientConfig, security: SecurityKey, guard: Guard) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let bootstrap: Vec<_> = config.bootstrap.iter().map(ToString::to_string).collect();
        let bootstrap = bootstrap.join(",");
        // Outside the caller's span: the pool outlives the call that makes it.
        let span = tracing::info_span!(
            target: "ottla::cluster",
            parent: None,
            "pool",
            bootstrap = bootstrap.as_str(),
        );
        let metrics = Arc::new(Metrics::new(span, bootstrap));
        let brokers = config
            .bootstrap
            .iter()
            .enumerate()
            .map(|(i, endpoint)| {
                let id = -1 - i as i32;
                (id, Arc::new(Broker::new(id, endpoint.clone(), None, metrics.broker(id))))
            })
            .collect();
        let mut rng = env.rng();
        let instance = rand::RngExt::random(&mut rng);
        Self {
            setup: SetupContext {
                env: env.clone(),
                caller: Arc::new(config.caller()),
                software: config.software.clone(),
                guard: Arc::new(guard),
                metrics: Arc::clone(&metrics),
                buffers: ChunkPool::new(CLUSTER_KEEP),
            },
            identity: Identity::default(),
            identifying: tokio::sync::Mutex::default(),
            metadata: Arc::new(Metadata::new(env)),
            budgets: Budgets::new(env.now(), &metrics),
            pace: Pace::new(*env.pace(), env.now()),
            metrics,
            brokers: Mutex::new(brokers),
            reconnect_pacer: Mutex::default(),
            reaching: tokio::sync::Mutex::default(),
            control: Mutex::default(),
            rng: Mutex::new(rng),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            software: config.software.clone(),
            security,
            instance,
            compared_us: AtomicU64::new(0),
            guest: OnceLock::new(),
            next_consumer: AtomicU64::new(0),
            next_connection: AtomicU64::new(0),
            refreshed: AtomicBool::new(false),
        }
    }

    /// Whether this pool was made before the other, and clients of the other may use it: the same software and
    /// security settings.
    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        self.number < other.number
            && self.software == other.software
            && self.security == other.security
    }

    pub(crate) fn env(&self) -> &Environment {
        &self.setup.env
    }

    pub(crate) fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The retry budgets.
    pub(crate) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// How Produce requests are paced.
    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Warm buffers for batches, frames and decompression.
    pub(crate) fn buffers(&self) -> &ChunkPool {
        &self.setup.buffers
    }

    /// The client that made the pool: requests that serve all clients carry its client id.
    pub(super) fn caller(&self) -> &Arc<Caller> {
        &self.setup.caller
    }

    /// Tells this process from others in the choice of a subset.
    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// The producers' registry; made when first asked for.
    pub(crate) fn guest<T: Guest + Default>(&self) -> &T {
        let guest: &dyn Any = &**self.guest.get_or_init(|| Box::new(T::default()));
        guest.downcast_ref().expect("a pool has one kind of guest")
    }

    /// This client itself has made a topic.
    pub(crate) fn topic_created(&self, topic: &str) {
        if let Some(guest) = self.guest.get() {
            guest.topic_created(topic);
        }
    }

    pub(crate) fn next_consumer(&self) -> u64 {
        self.next_consumer.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Broker>>> {
        self.brokers.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(|e| e.into_inner()))
    }

    pub(super) fn control_latency(&self) -> MutexGuard<'_, Latency> {
        self.control.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn broker(&self, id: i32) -> Option<Arc<Broker>> {
        self.lock().get(&id).filter(|b| b.is_member()).cloned()
    }

    /// Brokers that metadata names.
    pub(crate) fn members(&self) -> Vec<Arc<Broker>> {
        self.lock().values().filter(|b| b.id >= 0 && b.is_member()).cloned().collect()
    }

    /// The ids and racks of these brokers, for the choice of a subset.
    pub(crate) fn racks(&self) -> Vec<Member> {
        self.members().iter().map(|b| Member { id: b.id, rack: b.rack() }).collect()
    }

    /// Whether a connection to this broker is open.
    pub(crate) fn is_connected_to(&self, id: i32) -> bool {
        self.broker(id).is_some_and(|broker| broker.is_connected())
    }

    /// Whether any other broker than `but` is connected.
    pub(crate) fn is_connected(&self, but: Option<i32>) -> bool {
        self.lock().values().any(|b| Some(b.id) != but && b.is_connected())
    }

    /// Takes over the brokers of a Metadata response or a leader hint: adds new ones, moves those with another
    /// address, marks those that are not named. Brokers in `named`, which a newer leader epoch names, may be
    /// dialled again. Connections of bootstrap addresses whose broker is known now become that broker's.
    ///
    /// Called under the write lock of the metadata: nothing here may read metadata.
    pub(crate) fn brokers_changed(&self, known: &Brokers, named: &BTreeSet<i32>) {
        let mut brokers = self.lock();
        for (id, place) in known {
            match brokers.get(id) {
                Some(broker) => broker.named_at(&place.endpoint, place.rack.clone()),
                None => {
                    let metrics = self.metrics.broker(*id);
                    let (endpoint, rack) = (place.endpoint.clone(), place.rack.clone());
                    brokers.insert(*id, Arc::new(Broker::new(*id, endpoint, rack, metrics)));
                }
            }
        }
        let now = self.env().now();
        let now_us = self.env().micros(now);
        for broker in brokers.values().filter(|b| b.id >= 0) {
            if !known.contains_key(&broker.id) {
                broker.vanished(now_us);
            }
        }
        let mut gone: Vec<(u64, i32)> =
            brokers.values().filter_map(|b| Some((b.gone_since()?, b.id))).collect();
        gone.sort_unstable();
        let too_many = gone.len().saturating_sub(MOST_GONE);
        for (i, (since_us, id)) in gone.into_iter().enumerate() {
            let long = u128::from(now_us.saturating_sub(since_us)) >= GONE_REMEMBERED.as_micros();
            if long || i < too_many {
                brokers.remove(&id);
                self.metrics.departed(id);
            }
        }
        for id in named {
            if let Some(broker) = brokers.get(id) {
                self.random(|rng| broker.named_leader(now, rng));
            }
        }
        let bootstraps: Vec<_> = brokers.values().filter(|b| b.id < 0).cloned().collect();
        for bootstrap in bootstraps {
            let Some(connection) = bootstrap.open(Lane::Control) else { continue };
            let asked = bootstrap.endpoint();
            let mut owners =
                known.iter().filter(|(_, place)| is_at(&place.endpoint, &asked, &connection));
            // If two brokers have this address, nobody can tell whose connection it is.
            let (Some((id, _)), None) = (owners.next(), owners.next()) else { continue };
            bootstrap.take(Lane::Control);
            let broker = &brokers[id];
            connection.metrics().adopted(&broker.metrics);
            broker.put(Lane::Control, connection);
            broker.connected();
        }
    }

    /// The broker that has this connection.
    pub(super) fn broker_of(&self, connection: &Connection) -> Option<Arc<Broker>> {
        self.lock().values().find(|broker| broker.has(connection.id())).cloned()
    }

    /// Another cluster has taken the place of the old one: forgets its brokers and retires its connections.
    pub(super) fn forget_brokers(&self) {
        let mut brokers = self.lock();
        for broker in brokers.values() {
            broker.hang_up();
            broker.suspect(false);
            broker.vanished(self.env().micros(self.env().now()));
        }
        brokers.retain(|id, _| *id < 0);
        for bootstrap in brokers.values() {
            bootstrap.named_at(&bootstrap.endpoint(), None);
        }
    }

    /// A broker has answered a request well, or failed by its own fault: updates its health. Every ten seconds
    /// compares the success rates of all brokers.
    pub(crate) fn judge(&self, broker: &Broker, well: bool, now: Instant) {
        if let Some(pause) = self.random(|rng| broker.answered(well, now, rng)) {
            broker.metrics.ejected(pause);
        }
        let now_us = self.env().micros(now);
        let before = self.compared_us.load(Ordering::Relaxed);
        let due = u128::from(now_us.saturating_sub(before)) >= ejection::WINDOW.as_micros();
        if !due
            || self
                .compared_us
                .compare_exchange(before, now_us, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let members = self.members();
        let window: Vec<_> = members
            .iter()
            .map(|b| {
                let (succeeded, failed) = b.window();
                (b.id, succeeded, failed)
            })
            .collect();
        for id in ejection::outliers(&window) {
            if let Some(broker) = members.iter().find(|b| b.id == id) {
                let pause = self.random(|rng| broker.eject(now, rng));
                broker.metrics.ejected(pause);
            }
        }
    }

    /// The known state of the cluster, for people and tests.
    pub(crate) fn view(&self) -> view::ClusterView {
        view::ClusterView::of(self)
    }

    /// The connection that was used last the longest ago, if nothing waits on it.
    pub(crate) fn longest_idle(&self) -> Option<(Instant, Connection)> {
        self.lock().values().filter_map(|b| b.longest_idle()).min_by_key(|(at, _)| *at)
    }

    /// Asks which cluster it is, if that is not known yet and other pools exist: there may be one for it.
    pub(crate) async fn learn_identity(self: &Arc<Self>) {
        if self.identity.cluster_id().is_some() || !Pools::of(self.env()).has_others() {
            return;
        }
        if let Ok((id, connection)) = self.control_but(&[]).await {
            // A broker that cannot tell now is asked together with the first topic.
            let _ = self.ask_identity(id, &connection).await;
        }
    }

    /// Reaches the cluster for the first time. Tries until the deadline, unless every address
    /// answered something that trying again will not change.
    pub(crate) async fn reach(self: &Arc<Self>, timeout: Duration) -> Result<()> {
        let last: Mutex<Option<Error>> = Mutex::default();
        let reached = async {
            // A peer that has answered ApiVersions is a broker: it is asked for metadata together with the
            // first topic, and not twice.
            while !self.metadata.knows_brokers() {
                match self.control_but(&[]).await.and_then(|(_, c)| refresh::speaks_with(&c)) {
                    Ok(()) => break,
                    Err(e) if is_hopeless(&e) => return Err(e),
                    Err(e) => *last.lock().unwrap_or_else(|e| e.into_inner()) = Some(e),
                }
            }
            Ok(())
        };
        tokio::pin!(reached);
        let (env, deadline) = (self.env(), self.env().now() + timeout);
        let patience = REACHED_SOON.min(timeout);
        tokio::select! {
            biased;
            outcome = &mut reached => return outcome,
            () = env.sleep(patience) => {}
        }
        // Brokers may start later than services do: the attempts go on, and a line is logged.
        event!(
            self.metrics.logs(), "ottla::cluster", WARN, tried = %self.tried(),
            "no broker reached yet; trying for {timeout:?}"
        );
        tokio::select! {
            biased;
            outcome = &mut reached => outcome,
            () = env.sleep_until(deadline) => {
                let words = format!("no broker reached within {timeout:?}: {}", self.tried());
                let last = last.lock().unwrap_or_else(|e| e.into_inner()).take();
                Err(match last {
                    // Brokers were not even asked.
                    Some(e) if e.kind() == ErrorKind::Credentials => {
                        e.context(format_args!("no broker reached within {timeout:?}"))
                    }
                    Some(e) => e.in_words(words),
                    None => Error::new(ErrorKind::Connect, words),
                })
            }
        }
    }
}

/// Whether the error stays the same however often the peer is asked.
pub(super) fn is_hopeless(error: &Error) -> bool {
    let kind = matches!(
        error.kind(),
        ErrorKind::NotKafka
            | ErrorKind::Authentication
            | ErrorKind::UnsupportedVersion
            | ErrorKind::Tls
            | ErrorKind::Credentials
    );
    // What passes by itself: credentials that were good a while ago, a peer that hung up.
    kind && !error.is_retriable()
}

/// Whether a connection to the bootstrap address `asked` leads to `endpoint`.
fn is_at(endpoint: &Endpoint, asked: &Endpoint, connection: &Connection) -> bool {
    *endpoint == *asked
        || connection.peer_addr().is_some_and(|peer| {
            let same_host = endpoint
                .host
                .parse::<std::net::IpAddr>()
                .map_or(endpoint.host == "localhost" && peer.ip().is_loopback(), |ip| {
                    ip == peer.ip()
                });
            peer.port() == endpoint.port && same_host
        })
}

/// A handle's reference to its pool, which closes with the last one. In a forked child it is forgotten instead:
/// to drop it would wait for locks of the parent's threads, and take the parent's sockets from its poll set.
#[derive(Clone)]
pub(crate) struct Hold(Arc<Pool>);

impl From<Arc<Pool>> for Hold {
    fn from(pool: Arc<Pool>) -> Self {
        Self(pool)
    }
}

impl std::ops::Deref for Hold {
    type Target = Arc<Pool>;

    fn deref(&self) -> &Arc<Pool> {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.env().alive_here() {
            std::mem::forget(Arc::clone(&self.0));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The refresher finds the pool gone and ends.
        self.metadata.ask.notify_one();
        if let Some(guest) = self.guest.get() {
            if self.env().alive_here() {
                guest.left_behind(self.metrics.logs());
            }
            guest.stop();
        }
    }
}

#[cfg(test)]
mod tests;
