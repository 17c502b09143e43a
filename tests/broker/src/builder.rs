//! Describing and starting a cluster.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::acl::Acls;
use crate::api::ApiKey;
use crate::cluster::Cluster;
use crate::config::{Config, Storage};
use crate::price::{Price, Queue};
use crate::sasl::Sasl;
use crate::sessions::SessionCache;
use crate::state::{Broker, Shared};
use crate::tls::{Endpoints, Tls};
use crate::{host, listener};

/// More brokers than this in one process are taken for a mistake.
const MAX_BROKERS: i32 = 1000;
/// Port that brokers without TCP are named with.
const IN_MEMORY_PORT: u16 = 9092;

/// Describes a cluster. Everything has a default: one broker, loopback TCP, no topics.
#[derive(Debug, Clone, Default)]
#[must_use = "a cluster runs once it is started"]
pub struct Builder {
    config: Config,
}

impl Builder {
    /// Number of brokers, 1 to 1000; their ids are 1 to n. Default 1.
    pub fn brokers(mut self, brokers: i32) -> Self {
        self.config.brokers = brokers;
        self
    }

    /// Racks, given to brokers in turn. The leader of a partition sends clients that tell their rack to
    /// a follower in it (KIP-392), as Kafka does with `RackAwareReplicaSelector`. Default none.
    pub fn racks<S: Into<String>>(mut self, racks: impl IntoIterator<Item = S>) -> Self {
        self.config.racks = racks.into_iter().map(Into::into).collect();
        self
    }

    /// Whether brokers listen on loopback TCP. Without, they are reached through memory only, are
    /// named `broker-N:9092`, and no file descriptor is used. Default true.
    pub fn tcp(mut self, tcp: bool) -> Self {
        self.config.tcp = tcp;
        self
    }

    /// Cluster id. Default: one that no other cluster of this process has.
    pub fn cluster_id(mut self, id: impl Into<String>) -> Self {
        self.config.cluster_id = Some(id.into());
        self
    }

    /// A topic that exists from the start.
    pub fn topic(mut self, name: impl Into<String>, partitions: i32, replication: i32) -> Self {
        self.config.topics.push((name.into(), partitions, replication));
        self
    }

    /// What partitions keep. Default: batches.
    pub fn storage(mut self, storage: Storage) -> Self {
        self.config.storage = storage;
        self
    }

    /// Most bytes of batches kept in the whole cluster; beyond, the oldest batches go first and the
    /// log start of their partitions moves. The newest batch always stays. Default 1 GiB.
    pub fn max_bytes_retained(mut self, bytes: usize) -> Self {
        self.config.max_bytes_retained = bytes;
        self
    }

    /// `message.max.bytes`: largest batch accepted. Default 1,048,588, as Kafka's.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.config.max_message_bytes = bytes;
        self
    }

    /// `socket.request.max.bytes`: a longer request closes its connection. Default 128 MiB.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.config.max_request_bytes = bytes;
        self
    }

    /// `min.insync.replicas`: fewer in-sync replicas refuse acks=all. Default 1.
    pub fn min_insync_replicas(mut self, replicas: usize) -> Self {
        self.config.min_insync_replicas = replicas;
        self
    }

    /// How long followers take to copy an append. Default none.
    pub fn replica_delay(mut self, delay: Duration) -> Self {
        self.config.replica_delay = delay;
        self
    }

    /// Creates unknown topics that a Metadata request names and allows to be created, with this
    /// many partitions. Default off.
    pub fn auto_create_topics(mut self, partitions: i32) -> Self {
        self.config.auto_create = Some(partitions);
        self
    }

    /// `num.partitions`: for CreateTopics without a number. Default 1.
    pub fn default_partitions(mut self, partitions: i32) -> Self {
        self.config.default_partitions = partitions;
        self
    }

    /// Whether a fetch response may end in the middle of a batch, as Kafka's do. Default true.
    pub fn partial_batches(mut self, partial: bool) -> Self {
        self.config.partial_batches = partial;
        self
    }

    /// Whether each record of a produced batch is checked; off, only header and CRC are (to measure
    /// a producer with as little broker beside it as possible). Default true.
    pub fn check_records(mut self, check: bool) -> Self {
        self.config.check_records = check;
        self
    }

    /// Offers an api only up to `version`, as an older broker would; -1 leaves it out.
    pub fn max_version(mut self, api: ApiKey, version: i16) -> Self {
        self.config.max_versions.insert(api, version);
        self
    }

    /// What requests cost each broker in time of its request threads; answers come when the work
    /// before them is done. Default: nothing, and answers come at once.
    pub fn price(mut self, price: Price) -> Self {
        self.config.price = Some(price);
        self
    }

    /// `max.incremental.fetch.session.cache.slots`: most fetch sessions of a broker; with 0 none is
    /// given. Kafka divides its slots among eight caches that take turns, and so gives no session at
    /// all with fewer than eight; here they are one cache. Default 1,000, as Kafka's.
    pub fn fetch_session_slots(mut self, slots: usize) -> Self {
        self.config.fetch_session_slots = slots;
        self
    }

    /// Brokers speak TLS, over TCP and through memory alike; [`Cluster::ca_pem`] is what clients are to
    /// believe. Default: they do not.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.config.tls = Some(tls);
        self
    }

    /// Clients log in. Default: they do not.
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.config.sasl = Some(sasl);
        self
    }

    /// What clients may do. Default: everything.
    pub fn acls(mut self, acls: Acls) -> Self {
        self.config.acls = Some(acls);
        self
    }

    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of a group waits for more
    /// members. Default none, so that tests are quick; Kafka's is 3 s.
    pub fn group_initial_rebalance_delay(mut self, delay: Duration) -> Self {
        self.config.groups.initial_rebalance_delay = delay;
        self
    }

    /// `group.min.session.timeout.ms` and `group.max.session.timeout.ms`: members that ask for another
    /// are refused. Default 6 s to 30 min, as Kafka's.
    pub fn group_session_timeouts(mut self, min: Duration, max: Duration) -> Self {
        self.config.groups.min_session_timeout = min;
        self.config.groups.max_session_timeout = max;
        self
    }

    /// `group.max.size`: most members of a group. Default 100,000; Kafka has no limit.
    pub fn group_max_size(mut self, members: usize) -> Self {
        self.config.groups.max_size = members;
        self
    }

    /// `offsets.retention.minutes`: offsets of groups without members are forgotten after this time.
    /// Looked over every ten minutes, as Kafka does. Default 7 days.
    pub fn offsets_retention(mut self, retention: Duration) -> Self {
        self.config.groups.offsets_retention = retention;
        self
    }

    /// How long a broker reads the groups of another before it coordinates them; until then it answers
    /// with `COORDINATOR_LOAD_IN_PROGRESS`. Default none.
    pub fn coordinator_load_time(mut self, time: Duration) -> Self {
        self.config.groups.load_time = time;
        self
    }

    /// `group.version`: whether there are groups of the next generation (KIP-848). Without, what they
    /// ask is answered with `UNSUPPORTED_VERSION`, as by Kafka 3.9. Default true, as with Kafka 4.
    pub fn consumer_groups(mut self, there: bool) -> Self {
        self.config.groups.next_generation = there;
        self
    }

    /// `group.consumer.session.timeout.ms` and `group.consumer.heartbeat.interval.ms`, of groups of the
    /// next generation. Default 45 s and 5 s, as Kafka's.
    pub fn consumer_group_timing(mut self, session: Duration, heartbeat: Duration) -> Self {
        self.config.groups.consumer_session_timeout = session;
        self.config.groups.consumer_heartbeat_interval = heartbeat;
        self
    }

    /// Whether a member of a group of the next generation is fenced if it begins anew, with epoch 0,
    /// under an id that is known: so does Kafka up to 4.1 (KAFKA-19233). Default false.
    pub fn fences_rejoining_members(mut self, fences: bool) -> Self {
        self.config.groups.fences_rejoining = fences;
        self
    }

    /// Starts the cluster on a thread and runtime of its own. It may be used, and dropped, from any
    /// thread, also inside another runtime.
    ///
    /// # Errors
    /// `InvalidInput` for a number out of range or an illegal topic; the system's error if no port,
    /// thread or runtime is to be had.
    pub fn start(self) -> io::Result<Cluster> {
        let (stop, mut stopped) = watch::channel(());
        let (send_handle, handle) = mpsc::sync_channel(1);
        let thread = host::start(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(send_handle.send(Err(error))),
            };
            if send_handle.send(Ok(runtime.handle().clone())).is_ok() {
                // Ends when the cluster drops its sender; connections go with the runtime.
                runtime.block_on(async { while stopped.changed().await.is_ok() {} });
            }
        })?;
        let handle = handle
            .recv()
            .map_err(|_| io::Error::other("the broker thread ended before it started"))??;
        // Built before the listeners open: if they cannot, dropping it ends the thread.
        let mut cluster = self.build(handle)?;
        cluster.stop = Some(stop);
        cluster.thread = Some(thread);
        cluster.open()
    }

    /// Starts the cluster inside the caller's tokio runtime: with a paused clock, in virtual time.
    /// The runtime needs its I/O driver unless [`Builder::tcp`] is off.
    ///
    /// # Errors
    /// As [`Builder::start`]; also if there is no runtime.
    pub fn start_on_current_runtime(self) -> io::Result<Cluster> {
        let handle = Handle::try_current().map_err(io::Error::other)?;
        self.build(handle)?.open()
    }

    fn build(self, handle: Handle) -> io::Result<Cluster> {
        static CLUSTERS: AtomicU64 = AtomicU64::new(1);
        let mut config = self.config;
        if !(1..=MAX_BROKERS).contains(&config.brokers) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a cluster has 1 to {MAX_BROKERS} brokers, not {}", config.brokers),
            ));
        }
        config.cluster_id.get_or_insert_with(|| {
            format!("ottla-test-cluster-{}", CLUSTERS.fetch_add(1, Ordering::Relaxed))
        });
        let mut brokers = Vec::new();
        for id in 1..=config.brokers {
            let (host, port, socket) = if config.tcp {
                let (socket, port) = listener::bind(0)?;
                ("127.0.0.1".to_owned(), port, Some(socket))
            } else {
                (format!("broker-{id}"), IN_MEMORY_PORT, None)
            };
            let rack = match config.racks.len() {
                0 => None,
                racks => Some(config.racks[(id as usize - 1) % racks].clone()),
            };
            let queue = config.price.map(|price| Queue::new(price.threads));
            // The ids of two brokers' sessions differ, but are the same in every run.
            let sessions = SessionCache::new(config.fetch_session_slots, id as u64);
            brokers.push(Broker::new(id, host, port, rack, socket, queue, sessions));
        }
        let id = config.cluster_id.as_deref().unwrap_or_default();
        let tls = config.tls.clone().map(|tls| Endpoints::new(tls, id, config.brokers));
        let shared = Arc::new(Shared::new(config, handle, brokers, tls.transpose()?));
        Ok(Cluster { shared, stop: None, thread: None })
    }
}

impl Cluster {
    /// Creates the topics and opens the doors.
    fn open(self) -> io::Result<Self> {
        for (name, partitions, replication) in &self.shared.config.topics {
            self.create_topic(name, *partitions, *replication)?;
        }
        for broker in &self.shared.brokers {
            listener::open(&self.shared, broker.id)?;
        }
        Ok(self)
    }
}
