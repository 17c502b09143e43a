//! For tests: a pool, the embedded cluster it talks to, and the network between them, which a test can
//! spoil. All in one runtime, in virtual time.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ottla_test_broker::{ApiKey, Builder, Cluster, Fault, FaultRule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::broker::Lane;
use super::metadata::{BrokerAddress, Brokers};
use super::pool::Pool;
use crate::config::{ClientConfig, ClusterChange, Endpoint, parse_bootstrap};
use crate::environment::{BoxFuture, Dialer, Environment, Transport};
use crate::net::Connection;
use crate::policy::reconnect::DialUrgency;
use crate::security::Security;

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What a dial to a host leads to.
#[derive(Clone, Default)]
pub(crate) enum Way {
    #[default]
    Open,
    Refused,
    /// Until it is opened.
    Hangs,
    /// They take so long.
    Slow(Duration),
    /// The process has no descriptor left.
    #[cfg(unix)]
    UsedUp,
    /// To somebody who says this, whatever is asked.
    Says(Vec<u8>),
    /// To a broker of another cluster.
    Elsewhere(ottla_test_broker::Dialer, String, u16),
}

/// The network between a pool and the embedded cluster, host by host.
#[derive(Clone)]
pub(crate) struct Net {
    cluster: ottla_test_broker::Dialer,
    ways: Arc<Mutex<HashMap<String, Way>>>,
    dials: Arc<Mutex<Vec<String>>>,
    changed: Arc<watch::Sender<()>>,
}

impl Net {
    fn ways(&self) -> MutexGuard<'_, HashMap<String, Way>> {
        self.ways.lock().unwrap()
    }

    pub(crate) fn set(&self, host: &str, way: Way) {
        self.ways().insert(host.to_owned(), way);
        self.changed.send_replace(());
    }

    /// How often this host was dialled.
    pub(crate) fn dials(&self, host: &str) -> usize {
        self.dials.lock().unwrap().iter().filter(|dialled| *dialled == host).count()
    }

    pub(crate) fn all_dials(&self) -> usize {
        self.dials.lock().unwrap().len()
    }
}

impl Dialer for Net {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        self.dials.lock().unwrap().push(to.host.clone());
        Box::pin(async move {
            let mut changed = self.changed.subscribe();
            loop {
                let way = self.ways().get(&to.host).cloned().unwrap_or_default();
                let stream = match way {
                    Way::Open => self.cluster.dial(&to.host, to.port)?,
                    Way::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
                    Way::Slow(time) => {
                        tokio::time::sleep(time).await;
                        self.cluster.dial(&to.host, to.port)?
                    }
                    #[cfg(unix)]
                    Way::UsedUp => return Err(rustix::io::Errno::MFILE.into()),
                    Way::Elsewhere(other, host, port) => other.dial(&host, port)?,
                    Way::Says(words) => {
                        let (near, mut far) = tokio::io::duplex(words.len().max(1 << 10));
                        far.write_all(&words).await?;
                        // It stays until the client has had enough.
                        tokio::spawn(async move { far.read_to_end(&mut Vec::new()).await });
                        near
                    }
                    Way::Hangs => {
                        changed.changed().await.expect("the sender is this network's");
                        continue;
                    }
                };
                return Ok(Box::new(stream) as Box<dyn Transport>);
            }
        })
    }
}

/// A pool, its environment, the embedded cluster, and the network between them.
pub(crate) struct Bed {
    pub(crate) cluster: Cluster,
    pub(crate) net: Net,
    pub(crate) env: Environment,
    pub(crate) pool: Arc<Pool>,
}

/// Brokers, with one topic "t" of a partition each, and a pool that knows only where they are.
pub(crate) fn bed(brokers: i32, seed: u64) -> Bed {
    bed_of(Cluster::builder().brokers(brokers).topic("t", brokers, brokers), seed)
}

pub(crate) fn bed_of(cluster: Builder, seed: u64) -> Bed {
    bed_as(cluster, seed, Security::default())
}

/// The same with a pool of these settings.
pub(crate) fn bed_as(cluster: Builder, seed: u64, security: Security) -> Bed {
    let cluster = cluster.tcp(false).start_on_current_runtime().unwrap();
    let net = Net {
        cluster: cluster.dialer(),
        ways: Arc::default(),
        dials: Arc::default(),
        changed: Arc::new(watch::Sender::new(())),
    };
    let env = Environment::builder()
        .runtime(Handle::current())
        .dialer(Arc::new(net.clone()))
        .seed(seed)
        .build();
    let config = ClientConfig { security, ..config(&cluster.bootstrap()) };
    let pool = Pool::get(&env, &config).expect("it names no files");
    Bed { cluster, net, env, pool }
}

pub(crate) fn config(bootstrap: &str) -> ClientConfig {
    ClientConfig {
        bootstrap: parse_bootstrap(bootstrap).unwrap(),
        client_id: "c".into(),
        software: ("s".into(), "1".into()),
        connect_timeout: secs(10),
        request_timeout: secs(30),
        idle_timeout: secs(540),
        rack: None,
        ordinal: None,
        on_cluster_change: ClusterChange::Fail,
        security: Default::default(),
    }
}

impl Bed {
    /// The pool knows the cluster, and is connected to one of its brokers.
    pub(crate) async fn known(self) -> Self {
        self.pool.metadata().topic("t", secs(30)).await.unwrap();
        self
    }

    pub(crate) fn host(&self, broker: i32) -> String {
        self.cluster.address(broker).unwrap().0
    }

    /// A broker that the pool is connected to, and one that it is not.
    pub(crate) fn friend_and_stranger(&self) -> (i32, i32) {
        let members = self.pool.members();
        let (friends, strangers): (Vec<_>, Vec<_>) =
            members.iter().map(|b| b.id).partition(|id| self.pool.is_connected_to(*id));
        (friends[0], strangers[0])
    }

    pub(crate) async fn lane(&self, broker: i32, lane: Lane) -> Connection {
        self.pool.lane(broker, lane, DialUrgency::Needed).await.unwrap()
    }

    /// All connections are lost, and so long ago that what was lost may be dialled again.
    pub(crate) async fn cut(&self) {
        for broker in self.cluster.broker_ids() {
            self.cluster.cut_connections(broker).unwrap();
        }
        tokio::time::sleep(secs(1)).await;
    }

    /// As a response that names all brokers, these at another host, and these as leaders of a newer epoch.
    pub(crate) fn named(&self, changed: &[(i32, &str)], leaders: &[i32]) {
        let mut known: Brokers = BTreeSet::from_iter(self.cluster.broker_ids())
            .into_iter()
            .map(|id| {
                let (host, port) = self.cluster.address(id).unwrap();
                (id, BrokerAddress { endpoint: Endpoint { host, port }, rack: None })
            })
            .collect();
        for (id, host) in changed {
            known.get_mut(id).unwrap().endpoint.host = (*host).to_owned();
        }
        self.pool.brokers_changed(&known, &leaders.iter().copied().collect());
    }

    /// Requests of a kind that a broker has read.
    pub(crate) fn seen(&self, broker: i32, api: ApiKey) -> u64 {
        self.cluster.stats().broker(broker).map_or(0, |b| b.requests_of(api))
    }

    /// The next such requests meet this.
    pub(crate) fn spoil(&self, fault: Fault, api: ApiKey, times: usize) {
        self.cluster.faults().inject(FaultRule::new(fault).api(api).times(times));
    }

    /// Tokens for lookups that are tried again.
    pub(crate) fn tokens(&self) -> f64 {
        self.pool.metrics().snapshot().retry_budget.fetch.level.expect("something was asked")
    }

    pub(crate) fn now(&self) -> Instant {
        self.env.now()
    }
}
