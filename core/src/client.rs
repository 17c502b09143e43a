//! A client: a handle on the process's pool for a cluster.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::admin::Admin;
use crate::cluster::{ClusterView, Handle};
use crate::config::foreign::Owner;
use crate::config::properties::{self, Properties, Value};
use crate::config::{ClientConfig, ClusterChange, parse_bootstrap};
use crate::consumer::ConsumerBuilder;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::metrics::{Stats, StatsHandle};
use crate::producer::ProducerBuilder;
use crate::security::{Sasl, Security, Tls};

/// Settings of a [`Client`].
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    bootstrap: String,
    client_id: String,
    software: (String, String),
    connect_timeout: Duration,
    request_timeout: Duration,
    idle_timeout: Duration,
    rack: Option<String>,
    ordinal: Option<(u32, u32)>,
    on_cluster_change: ClusterChange,
    security: Security,
    environment: Option<Environment>,
    /// Why its properties were refused.
    refused: Option<Error>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            bootstrap: String::new(),
            client_id: "ottla".into(),
            software: ("ottla-rust".into(), env!("CARGO_PKG_VERSION").into()),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(540),
            rack: None,
            ordinal: None,
            on_cluster_change: ClusterChange::Fail,
            security: Security::default(),
            environment: None,
            refused: None,
        }
    }
}

impl ClientBuilder {
    /// Addresses to reach the cluster by, "host:port,host:port"; any one will do, tried in random
    /// order. The port may be left out (9092).
    pub fn bootstrap(mut self, list: impl AsRef<str>) -> Self {
        list.as_ref().clone_into(&mut self.bootstrap);
        self
    }

    /// The name under which brokers log and count this client's requests. Default "ottla"; 249 bytes at
    /// most.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// How long [`connect`](Self::connect) tries to reach a broker. 1 ms to 1 h, default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a broker may take to answer before its connection is closed. 100 ms to 1 h, default
    /// 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// A connection that nothing was asked on for so long is closed, up to a fifth sooner. 1 s to one
    /// day, default 9 minutes: brokers close theirs after 10 (`connections.max.idle.ms`).
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// The rack (availability zone) this process runs in, by the name brokers have in `broker.rack`.
    /// A client that does not need all brokers then uses those of its own rack first, and consumers read from a replica in
    /// it where the brokers allow that (KIP-392, `replica.selector.class`). Default: none,
    /// then it takes its brokers from all racks alike, and reads from leaders.
    pub fn rack(mut self, rack: impl Into<String>) -> Self {
        self.rack = Some(rack.into());
        self
    }

    /// This process's number among `count` equal ones, from 0 (a StatefulSet's ordinal): which
    /// brokers each uses is then shared out exactly instead of by chance. Default: by chance.
    pub fn ordinal(mut self, index: u32, count: u32) -> Self {
        self.ordinal = Some((index, count));
        self
    }

    /// Whether this client fails or goes on once another cluster, one with another id, answers at its
    /// addresses. Default: it fails.
    pub fn on_cluster_change(mut self, change: ClusterChange) -> Self {
        self.on_cluster_change = change;
        self
    }

    /// Reaches brokers by TLS. Default: in plaintext.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.security.tls = Some(tls);
        self
    }

    /// Logs in at brokers. Default: brokers are not told who this client is.
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.security.sasl = Some(sasl);
        self
    }

    /// Name and version that brokers see as the client software (KIP-511). Default: this crate's.
    pub fn software(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.software = (name.into(), version.into());
        self
    }

    /// Where the client runs. Default: [`Environment::process`].
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Takes the settings of a client from properties as Java's client and librdkafka have them:
    /// `bootstrap.servers`, `client.id`, `client.rack`, `request.timeout.ms`, `connections.max.idle.ms`,
    /// `security.protocol` with what belongs to it (`ssl.*`, `sasl.*`: TLS, PLAIN and SCRAM), and their aliases. Those of producers and consumers are passed over: they are for
    /// [`ProducerBuilder::from_properties`] and [`ConsumerBuilder::from_properties`]. What is named by
    /// none of them keeps the default it has here.
    ///
    /// A name that no client has, and one that asks for what is not done here, is refused when the
    /// client is made (`Config`), with what there is instead.
    /// ```
    /// # use ottla::Client;
    /// let properties = [("bootstrap.servers", "localhost:9092"), ("socks5.proxy", "a:1")];
    /// let error = Client::builder().from_properties(properties).build().err().unwrap();
    /// assert!(error.message().contains("proxies are not offered"));
    /// ```
    pub fn from_properties<K: Into<String>, V: Into<String>>(
        self,
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.read_properties(&properties.into_iter().collect())
    }

    pub(crate) fn read_properties(mut self, properties: &Properties) -> Self {
        let settings = properties::read(Owner::Client, properties);
        let taken = settings.and_then(|settings| {
            for (name, value) in settings {
                match (name, value) {
                    ("bootstrap", Value::Text(list)) => self.bootstrap = list,
                    ("client_id", Value::Text(id)) => self.client_id = id,
                    ("rack", Value::Text(rack)) => self.rack = Some(rack),
                    ("request_timeout", Value::Time(time)) => self.request_timeout = time,
                    ("idle_timeout", Value::Time(time)) => self.idle_timeout = time,
                    ("tls", Value::Tls(tls)) => self.security.tls = Some(tls),
                    ("sasl", Value::Sasl(sasl)) => self.security.sasl = Some(sasl),
                    (name, _) => return Err(properties::not_taken(name)),
                }
            }
            Ok(())
        });
        self.refused = self.refused.or(taken.err());
        self
    }

    /// The client, without contacting anyone yet.
    ///
    /// # Errors
    /// `Config` for a setting out of its range, or certificates that are missing or of no use; `OutOfResources` if the system has no thread or
    /// descriptor left for the engine.
    pub fn build(self) -> Result<Client> {
        Ok(self.make()?.0)
    }

    /// The client, once a broker has answered.
    ///
    /// # Errors
    /// As [`build`](Self::build); `Resolve` or `Connect` after `connect_timeout`; `NotKafka`, `Authentication`, `Tls`
    /// and `UnsupportedVersion` as soon as that is known.
    pub async fn connect(self) -> Result<Client> {
        let (client, timeout) = self.make()?;
        let pool = client.pool();
        let env = pool.env().clone();
        env.run(async move { reach(&pool, timeout).await }).await?;
        Ok(client)
    }

    /// The client at once, and what to wait for until a broker has answered. For bindings.
    pub(crate) fn build_and_reach(
        self,
    ) -> Result<(Client, impl Future<Output = Result<()>> + Send + 'static)> {
        let (client, timeout) = self.make()?;
        let pool = client.pool();
        Ok((client, async move { reach(&pool, timeout).await }))
    }

    /// The same for who waits on a thread of its own, with the engine at work for it. For bindings.
    pub(crate) fn build_and_connect(
        self,
    ) -> Result<(Client, impl Future<Output = Result<()>> + Send + 'static)> {
        let (client, reached) = self.build_and_reach()?;
        let env = client.env.clone();
        Ok((client, async move { env.run(reached).await }))
    }

    fn make(self) -> Result<(Client, Duration)> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let config = ClientConfig {
            bootstrap: parse_bootstrap(&self.bootstrap)?,
            client_id: self.client_id,
            software: self.software,
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            idle_timeout: self.idle_timeout,
            rack: self.rack,
            ordinal: self.ordinal,
            on_cluster_change: self.on_cluster_change,
            security: self.security,
        };
        config.check()?;
        let env = self.environment.unwrap_or_else(Environment::process);
        env.start()?;
        Ok((Client::new(Handle::get(&env, &config)?), config.connect_timeout))
    }
}

/// A handle on a cluster. All clients of a process share one pool of connections and one metadata cache
/// for each cluster, whatever their bootstrap lists and other settings are; clones and further clients
/// cost nothing. (With bootstrap lists that differ, what is made before any broker has answered, without
/// [`connect`](Self::connect), has a pool of its own.) The pool closes when the last client, producer and consumer of it is dropped.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Mutex<Handle>>,
    /// Readable without a lock, which a process that forked may have inherited taken.
    env: Environment,
}

/// Reaches a broker and, if the process has other pools, finds out whether this is one of them.
async fn reach(pool: &Handle, timeout: Duration) -> Result<()> {
    pool.reach(timeout).await?;
    pool.learn_identity().await;
    Ok(())
}

impl Client {
    fn new(pool: Handle) -> Self {
        let env = pool.env().clone();
        Self { pool: Arc::new(Mutex::new(pool)), env }
    }

    /// Its hold on the pool: on an older one of the same cluster, as soon as it is known that it is.
    fn pool(&self) -> Handle {
        let pool = self.pool.lock().unwrap_or_else(|e| e.into_inner()).clone();
        let Some(twin) = pool.twin() else { return pool };
        let mut held = self.pool.lock().unwrap_or_else(|e| e.into_inner());
        let before = std::mem::replace(&mut *held, twin.clone());
        // It may be the last, and closes the pool: not under the lock.
        drop(held);
        drop(before);
        twin
    }

    /// A client with default settings, once a broker of the list has answered.
    ///
    /// # Errors
    /// See [`ClientBuilder::connect`].
    pub async fn connect(bootstrap: impl AsRef<str>) -> Result<Self> {
        Self::builder().bootstrap(bootstrap).connect().await
    }

    /// A client with settings of one's own.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A producer's settings.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.pool())
    }

    /// A consumer's settings.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.pool())
    }

    /// Topics and offsets.
    pub fn admin(&self) -> Admin {
        Admin::new(self.pool())
    }

    /// Counters of all that this client's pool has done so far: its producers, consumers and connections.
    /// [`Stats::bad_stuff`] is the part to look at first.
    pub fn stats(&self) -> Stats {
        self.pool().metrics().snapshot()
    }

    /// The error of a wait that ended in vain, with what was in its way.
    pub(crate) fn explain(&self, error: Error) -> Error {
        self.pool().explain_by_any(error)
    }

    /// What is in the way of reaching brokers now, in words. For bindings, whose hosts end waits themselves.
    pub(crate) fn in_the_way(&self) -> Option<String> {
        self.pool().in_the_way()
    }

    /// What this client knows of the cluster now: brokers and how they do, topics in use and who leads
    /// their partitions. No broker is asked.
    pub fn cluster(&self) -> ClusterView {
        self.pool().view()
    }

    /// The same as [`stats`](Self::stats) for who must not keep the pool open.
    pub fn stats_handle(&self) -> StatsHandle {
        StatsHandle::new(self.pool().metrics())
    }

    /// Whether the client was made in this process, and not inherited through a fork: an inherited
    /// one has no engine thread and must not be used.
    pub fn is_usable(&self) -> bool {
        self.env.alive_here()
    }
}
