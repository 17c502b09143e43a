//! Cluster, network and clients in one runtime of virtual time.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ottla_test_broker::{Cluster, Doors, Leaders, Price, Storage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use crate::client::{Joining, Load, Member, numbers_of};
use crate::holdings::Holdings;
use crate::ledger::Ledger;
use crate::net::{Api, Host, Link, Network, Stream};
use crate::plot::Plot;

/// The topic of experiments that need one.
pub const TOPIC: &str = "events";

/// How long the controller of a KRaft cluster waits for a broker that says nothing more before its
/// partitions get other leaders (`broker.session.timeout.ms`).
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(9);

/// Retries are counted no oftener.
const RETRIES_COUNTED_EVERY: Duration = Duration::from_secs(5);

/// What a lab is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Number of brokers.
    pub brokers: i32,
    /// Partitions of [`TOPIC`], led by the brokers in turn; 0: there is no such topic.
    pub partitions: i32,
    /// Every draw of the run follows from it.
    pub seed: u64,
    /// Of every broker.
    pub link: Link,
    /// Whether records are kept, for consumers.
    pub keep: bool,
    /// Clients know their number among so many equal ones.
    pub ordinals: Option<u32>,
    /// What requests cost brokers. `None`: nothing.
    pub price: Option<Price>,
}

impl Setup {
    /// 20 brokers, 60 partitions, a round trip of 2 ms.
    pub fn new(seed: u64) -> Self {
        let link = Link::default();
        Self { brokers: 20, partitions: 60, seed, link, keep: false, ordinals: None, price: None }
    }
}

/// What became of numbered records, by what is in the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBack {
    /// Acknowledged, and not there.
    pub lost: u64,
    /// There more than once, acknowledged or not.
    pub doubled: u64,
}

struct Brokers(Doors);

impl Host for Brokers {
    fn listens(&self, broker: i32) -> bool {
        self.0.is_open(broker)
    }

    fn accept(&self, broker: i32, stream: Stream) -> io::Result<()> {
        self.0.admit(broker, stream)
    }
}

/// See the module.
pub struct Lab {
    /// The brokers.
    pub cluster: Cluster,
    /// The network.
    pub network: Network,
    /// What became of records.
    pub ledger: Ledger,
    /// The clients, by number.
    pub members: Vec<Arc<Member>>,
    bootstrap: Arc<str>,
    ordinals: Option<u32>,
    rng: StdRng,
    marks: Vec<(u64, String)>,
    /// When retries were counted, and those of all clients until then.
    retries: Vec<(u64, u64)>,
}

/// Runs a script in virtual time: the clock stands still while anything can be done, and jumps to the
/// next timer when nothing can.
pub fn virtual_time<T>(script: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system")
        .block_on(script)
}

impl Lab {
    /// Starts brokers and network. Inside [`virtual_time`] only.
    pub fn open(setup: &Setup) -> Self {
        let replication = setup.brokers.min(3);
        let mut builder = Cluster::builder().brokers(setup.brokers).tcp(false);
        if !setup.keep {
            builder = builder.storage(Storage::Sink);
        }
        if setup.partitions > 0 {
            builder = builder.topic(TOPIC, setup.partitions, replication);
        }
        if let Some(price) = setup.price {
            builder = builder.price(price);
        }
        let cluster = builder
            .cluster_id("fleet")
            .max_bytes_retained(256 << 20)
            .start_on_current_runtime()
            .expect("a cluster in memory needs nothing of the system");
        let network = Network::new(setup.brokers, setup.link, Brokers(cluster.doors()));
        Self {
            bootstrap: cluster.bootstrap().into(),
            ordinals: setup.ordinals,
            cluster,
            network,
            ledger: Ledger::default(),
            members: Vec::new(),
            rng: StdRng::seed_from_u64(setup.seed),
            marks: Vec::new(),
            retries: Vec::new(),
        }
    }

    fn enlist(&mut self, over: Duration) -> (Arc<Member>, Instant, u64) {
        let number = self.members.len() as u32;
        let ordinal = self.ordinals.map(|count| (number, count));
        let member = Member::new(number, &self.network, &self.ledger, ordinal);
        self.members.push(Arc::clone(&member));
        let at = Instant::now() + over.mul_f64(self.rng.random());
        (member, at, self.rng.random())
    }

    /// Adds clients that send `load`; each starts at a moment of its own within `over`.
    pub fn add_producers(&mut self, clients: u32, over: Duration, load: &Load) {
        for _ in 0..clients {
            let (member, at, seed) = self.enlist(over);
            tokio::spawn(member.produce(at, Arc::clone(&self.bootstrap), seed, load.clone()));
        }
    }

    /// Adds clients that read all of [`TOPIC`].
    pub fn add_consumers(&mut self, clients: u32, over: Duration) {
        for _ in 0..clients {
            let (member, at, seed) = self.enlist(over);
            let topic = TOPIC.to_owned();
            tokio::spawn(member.consume(at, Arc::clone(&self.bootstrap), seed, topic));
        }
    }

    /// Adds a client that is a member of a group from now on, or from a moment of its own within `over`.
    pub fn add_member(&mut self, over: Duration, how: &Joining) -> u32 {
        let (member, at, seed) = self.enlist(over);
        let number = member.number;
        tokio::spawn(member.join(at, Arc::clone(&self.bootstrap), seed, how.clone()));
        number
    }

    /// A member's process is gone, and says good-bye to nobody.
    pub fn kill_member(&self, number: u32, holdings: &Holdings) {
        self.network.kill(number);
        holdings.leaves(number, self.now_ms());
    }

    /// Lets this much time pass, and counts retries now and then: asking ten thousand clients for
    /// their statistics is no small matter.
    pub async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let every = RETRIES_COUNTED_EVERY.max(time / 100);
        loop {
            tokio::time::sleep_until(end.min(Instant::now() + every)).await;
            let now = self.now_ms();
            let last = self.retries.last().map_or(0, |(at, _)| *at);
            if now - last >= every.as_millis() as u64 {
                self.retries.push((now, self.produce_retries()));
            }
            if Instant::now() >= end {
                return;
            }
        }
    }

    /// Milliseconds since the lab was opened.
    pub fn now_ms(&self) -> u64 {
        self.network.now_ms()
    }

    /// Begins a phase of the script, and marks it in plots.
    pub fn phase(&mut self, name: &str) -> u64 {
        let now = self.now_ms();
        self.ledger.phase(name, now);
        self.marks.push((now, name.to_owned()));
        now
    }

    /// What plots mark, and when it was.
    pub fn marks(&self) -> &[(u64, String)] {
        &self.marks
    }

    /// Number of clients.
    pub fn clients(&self) -> u32 {
        self.members.len() as u32
    }

    /// Produce requests that held a batch sent before, by the clients' own count.
    pub fn produce_retries(&self) -> u64 {
        self.members.iter().map(|member| member.stats().produce_retries).sum()
    }

    /// The same per second, as a mean between two counts.
    pub fn retries_by_second(&self) -> Vec<f64> {
        let mut seconds = Vec::new();
        let (mut since, mut before) = (0, 0);
        for &(at, retries) in &self.retries {
            let per_second = (retries - before) as f64 * 1000.0 / (at - since) as f64;
            seconds.resize((at / 1000) as usize, per_second);
            (since, before) = (at, retries);
        }
        seconds
    }

    /// Waits until every client has reached the cluster.
    pub async fn all_connected(&mut self) {
        while !self.members.iter().all(|member| member.is_connected()) {
            self.pass(Duration::from_millis(100)).await;
        }
    }

    /// A broker's process dies. Its partitions keep naming it as leader until the controller notices.
    pub fn kill(&self, broker: i32) {
        self.network.hang_up(broker);
        self.cluster.stop_broker(broker, Leaders::Keep).expect("a broker of this cluster");
    }

    /// The controller has noticed that a broker is gone.
    pub fn fence(&self, broker: i32) {
        self.cluster.fence_broker(broker).expect("a broker of this cluster");
    }

    /// A broker stops in order: its partitions have other leaders before it closes its connections.
    pub fn shut_down(&self, broker: i32) {
        self.fence(broker);
        self.network.hang_up(broker);
        self.cluster.stop_broker(broker, Leaders::Move).expect("a broker of this cluster");
    }

    /// A broker is back and follows; it leads again after an election.
    pub fn restart(&self, broker: i32) {
        self.cluster.start_broker(broker).expect("a broker of this cluster");
    }

    /// Nobody sends any more; lets time pass until every record is resolved, `limit` at most.
    pub async fn drain(&mut self, limit: Duration) {
        self.members.iter().for_each(|member| member.stop());
        let end = Instant::now() + limit;
        while self.ledger.total().unresolved() > 0 && Instant::now() < end {
            self.pass(Duration::from_millis(100)).await;
        }
    }

    /// Time of their request threads that brokers have worked so far, by id from 1.
    pub fn worked(&self) -> Vec<Duration> {
        self.cluster.stats().brokers.iter().map(|broker| broker.worked).collect()
    }

    /// Reads all of [`TOPIC`] and compares it with what clients were told; their records must be kept
    /// and numbered.
    pub fn read_back(&self) -> ReadBack {
        let mut there: Vec<BTreeMap<u32, u32>> = vec![BTreeMap::new(); self.members.len()];
        let partitions = self.cluster.partitions(TOPIC).expect("the topic of the lab");
        for partition in 0..partitions {
            let records =
                self.cluster.records(TOPIC, partition).expect("batches that were checked");
            for value in records.into_iter().filter_map(|record| record.value) {
                let [client, number] = numbers_of(&value).expect("records of this load");
                *there[client as usize].entry(number).or_default() += 1;
            }
        }
        let missing = |(member, there): (&Arc<Member>, &BTreeMap<u32, u32>)| {
            member.acked().iter().filter(|number| !there.contains_key(number)).count() as u64
        };
        ReadBack {
            lost: self.members.iter().zip(&there).map(missing).sum(),
            doubled: there.iter().flat_map(BTreeMap::values).filter(|n| **n > 1).count() as u64,
        }
    }

    /// What happened so far, drawn.
    pub fn plot(&self) -> Plot {
        let mut plot = Plot { marks: self.marks.clone(), ..Plot::default() };
        let seconds = (self.now_ms() / 1000) as usize;
        self.network.log(|log| {
            let mut dials = vec![0.0; seconds + 1];
            for dial in log.dials() {
                dials[(dial.at_ms / 1000) as usize] += 1.0;
            }
            plot.chart("dials per second, whole fleet", dials);
            plot.chart(
                "Produce requests that repeat a batch, per second",
                self.retries_by_second(),
            );
            let requests = |api: Api| log.by_second().iter().map(move |of| of[api as usize] as f64);
            plot.chart("Metadata requests per second", requests(Api::Metadata));
            plot.chart("Produce requests per second", requests(Api::Produce));
        });
        let waits = self.ledger.by_second();
        plot.chart(
            "longest wait for an acknowledgement that came in this second, ms",
            waits.iter().map(|second| second.longest_ms as f64),
        );
        plot
    }
}
