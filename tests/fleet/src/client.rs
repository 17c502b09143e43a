//! One client of the fleet: a process of its own as far as the crate can tell, and what it does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ottla::testing::PaceLimits;
use ottla::{
    Assignor, Client, Compression, Environment, Event, GroupProtocol, Producer, Record, Stats,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::holdings::Holdings;
use crate::ledger::Ledger;
use crate::net::Network;

/// 1 January 2026: the time of day that every run starts at.
const WALL_CLOCK: Duration = Duration::from_secs(1_767_225_600);

/// How long brokers hold back fetches of members of groups.
const IDLE_FETCH: Duration = Duration::from_secs(20);

/// Where a client's records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// They name no partition.
    Anywhere,
    /// All to one partition, the client's number modulo this.
    OneOf(i32),
    /// Each to a partition drawn from this many.
    AnyOf(i32),
}

/// What a client sends.
#[derive(Debug, Clone)]
pub struct Load {
    /// Topics; records go to them in turn.
    pub topics: Arc<[String]>,
    /// Where in a topic.
    pub to: To,
    /// One record in this time, at a phase of the client's own. `None`: only one at the start.
    pub every: Option<Duration>,
    /// Records at each of these times.
    pub burst: usize,
    /// Bytes of a value.
    pub value: usize,
    /// The producer's `batch_size`; a choice of a partition is kept for so many bytes. `None`: the
    /// default.
    pub batch: Option<usize>,
    /// `every` is the mean of what lies between two records, each drawn by itself, as those of many users
    /// come. At even times a fleet whose requests follow from its records' times never gets into its
    /// own way: queues are felt where requests meet by chance.
    pub at_random: bool,
    /// The producer's `linger`. `None`: the default.
    pub linger: Option<Duration>,
    /// How its requests are paced.
    pub pace: PaceLimits,
    /// Values begin with the client's number and the record's, for [`crate::lab::Lab::read_back`].
    pub numbered: bool,
}

impl Load {
    /// One record of 100 bytes a second, without a partition.
    pub fn of(topic: &str) -> Self {
        Self {
            topics: Arc::new([topic.to_owned()]),
            to: To::Anywhere,
            every: Some(Duration::from_secs(1)),
            burst: 1,
            value: 100,
            batch: None,
            at_random: false,
            linger: None,
            pace: PaceLimits::default(),
            numbered: false,
        }
    }
}

/// A client; the lab holds them by number.
pub struct Member {
    /// Its number: what the network calls it.
    pub number: u32,
    network: Network,
    ledger: Ledger,
    client: OnceLock<Client>,
    connect_failures: AtomicU64,
    ordinal: Option<(u32, u32)>,
    /// Records acknowledged, by topic (its place in the load) and partition.
    written: Mutex<BTreeMap<(u32, i32), u64>>,
    /// Numbers of the records acknowledged, if they have any.
    acked: Mutex<Vec<u32>>,
    /// Times that it waits longer than its load says.
    slower: AtomicU32,
    /// Nanoseconds from one record to the next, if it is told; 0: what its load says.
    every: AtomicU64,
    stop: AtomicBool,
    /// To a member of a group that is to end.
    ends: Notify,
}

/// How a client takes part in a group.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The group.
    pub group: String,
    /// What it reads.
    pub topic: String,
    /// Which protocol it speaks; the classic one with the cooperative assignor.
    pub protocol: GroupProtocol,
    /// Who has what of the group.
    pub holdings: Holdings,
}

impl Member {
    pub(crate) fn new(
        number: u32,
        network: &Network,
        ledger: &Ledger,
        ordinal: Option<(u32, u32)>,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            network: network.clone(),
            ledger: ledger.clone(),
            client: OnceLock::new(),
            connect_failures: AtomicU64::new(0),
            ordinal,
            written: Mutex::default(),
            acked: Mutex::default(),
            slower: AtomicU32::new(1),
            every: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            ends: Notify::new(),
        })
    }

    /// What the client counts about itself; nothing before it has connected.
    pub fn stats(&self) -> Stats {
        self.client.get().map(Client::stats).unwrap_or_default()
    }

    /// Whether it has reached the cluster.
    pub fn is_connected(&self) -> bool {
        self.client.get().is_some()
    }

    /// How often connecting failed.
    pub fn connect_failures(&self) -> u64 {
        self.connect_failures.load(Ordering::Relaxed)
    }

    /// Records of this client that were acknowledged, by topic (its place in the load) and partition.
    pub fn written(&self) -> BTreeMap<(u32, i32), u64> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Numbers of the records that were acknowledged, if the load gives them any.
    pub fn acked(&self) -> Vec<u32> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From its next record on it sends this many times less often than its load says.
    pub fn slow_down(&self, times: u32) {
        self.slower.store(times, Ordering::Relaxed);
    }

    /// From its next record on it sends one in this time, whatever its load says.
    pub fn send_every(&self, time: Duration) {
        let nanos = time.as_nanos().try_into().unwrap_or(u64::MAX);
        self.every.store(nanos, Ordering::Relaxed);
    }

    /// It sends nothing more; what it sent goes on. A member of a group leaves.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ends.notify_one();
    }

    /// The client, once it is connected. Tries again for ever, as a supervisor would that starts a
    /// process anew.
    pub(crate) async fn connect(&self, bootstrap: &str, seed: u64, pace: PaceLimits) -> Client {
        let environment = Environment::builder()
            .runtime(Handle::current())
            .dialer(self.network.dialer(self.number))
            .seed(seed)
            .pace(pace)
            .wall_clock(WALL_CLOCK + Duration::from_millis(self.network.now_ms()))
            .build();
        let mut builder = Client::builder().bootstrap(bootstrap).environment(environment);
        if let Some((index, count)) = self.ordinal {
            builder = builder.ordinal(index, count);
        }
        loop {
            match builder.clone().connect().await {
                Ok(client) => {
                    let _ = self.client.set(client.clone());
                    return client;
                }
                Err(_) => drop(self.connect_failures.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    /// Connects at `at` and sends its load until it is stopped.
    pub(crate) async fn produce(
        self: Arc<Self>,
        at: Instant,
        bootstrap: Arc<str>,
        seed: u64,
        load: Load,
    ) {
        tokio::time::sleep_until(at).await;
        let client = self.connect(&bootstrap, seed, load.pace).await;
        let mut producer = client.producer().compression(Compression::None);
        if let Some(bytes) = load.batch {
            producer = producer.batch_size(bytes);
        }
        if let Some(linger) = load.linger {
            producer = producer.linger(linger);
        }
        let producer = producer.build().expect("the settings are in their ranges");
        drop(client);
        let mut rng = StdRng::seed_from_u64(!seed);
        let value = vec![b'x'; load.value];
        let Some(every) = load.every else {
            return self.send(&producer, &load, 0, &value, &mut rng).await;
        };
        let mut next = Instant::now() + every.mul_f64(rng.random());
        for count in 0.. {
            tokio::time::sleep_until(next).await;
            let every = match self.every.load(Ordering::Relaxed) {
                0 => every,
                told => Duration::from_nanos(told),
            };
            let gap = match load.at_random {
                true => every.mul_f64(-(1.0 - rng.random::<f64>()).ln()),
                false => every,
            };
            next += gap * self.slower.load(Ordering::Relaxed);
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            for i in 0..load.burst {
                self.send(&producer, &load, count * load.burst + i, &value, &mut rng).await;
            }
        }
        // What is still on its way needs the producer's pool.
        let _ = producer.flush().await;
    }

    async fn send(
        self: &Arc<Self>,
        producer: &Producer,
        load: &Load,
        count: usize,
        value: &[u8],
        rng: &mut StdRng,
    ) {
        let topic = count % load.topics.len();
        let numbers = load.numbered.then(|| [self.number, count as u32]);
        let value = match numbers {
            Some(numbers) => &numbered(numbers, value.len())[..],
            None => value,
        };
        let mut record = Record::to(&load.topics[topic]).value(value);
        match load.to {
            To::Anywhere => {}
            To::OneOf(n) => record = record.partition((self.number % n.unsigned_abs()) as i32),
            To::AnyOf(n) => record = record.partition(rng.random_range(0..n)),
        }
        let sent = self.ledger.sent(self.number, self.network.now_ms());
        match producer.send(record).await {
            Ok(delivery) => {
                let me = Arc::clone(self);
                tokio::spawn(async move {
                    let result = delivery.await;
                    me.ledger.resolved(sent, me.network.now_ms(), &result);
                    if let Ok(acked) = result {
                        let mut written = me.written.lock().unwrap_or_else(PoisonError::into_inner);
                        *written.entry((topic as u32, acked.partition)).or_default() += 1;
                        drop(written);
                        if let Some([_, number]) = numbers {
                            let mut acked = me.acked.lock().unwrap_or_else(PoisonError::into_inner);
                            acked.push(number);
                        }
                    }
                });
            }
            Err(e) => self.ledger.resolved(sent, self.network.now_ms(), &Err(e)),
        }
    }

    /// Connects at `at` and reads all partitions of a topic from the end on, until it is stopped.
    pub(crate) async fn consume(
        self: Arc<Self>,
        at: Instant,
        bootstrap: Arc<str>,
        seed: u64,
        topic: String,
    ) {
        tokio::time::sleep_until(at).await;
        let client = self.connect(&bootstrap, seed, PaceLimits::default()).await;
        let mut consumer =
            client.consumer().topics([topic]).build().expect("the settings are the defaults");
        while let Some(batch) = consumer.next().await {
            // An error has been reported by the consumer's own counters; it goes on by itself.
            drop(batch);
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

impl Member {
    /// Connects at `at` and is a member of a group until it is stopped.
    pub(crate) async fn join(
        self: Arc<Self>,
        at: Instant,
        bootstrap: Arc<str>,
        seed: u64,
        how: Joining,
    ) {
        tokio::time::sleep_until(at).await;
        let client = self.connect(&bootstrap, seed, PaceLimits::default()).await;
        let builder = client.consumer().group(how.group).topics([how.topic]);
        // What is measured is the group: who has nothing to read asks rarely.
        let builder = builder.max_wait(IDLE_FETCH).group_protocol(how.protocol);
        let builder = match how.protocol {
            GroupProtocol::Classic => builder.assignors([Assignor::CooperativeSticky]),
            _ => builder,
        };
        let mut consumer = builder.build().expect("the settings are in their ranges");
        let holdings = how.holdings;
        loop {
            let event = tokio::select! {
                biased;
                () = self.ends.notified() => break,
                event = consumer.next_event() => event,
            };
            let now = self.network.now_ms();
            match event {
                Some(Ok(Event::Assigned(parts))) => {
                    holdings.takes(self.number, parts.iter().map(|part| part.partition), now);
                }
                Some(Ok(Event::GivingUp { partitions: parts, .. } | Event::Lost(parts))) => {
                    holdings.gives(self.number, parts.iter().map(|part| part.partition), now);
                }
                // Errors have been counted by the consumer; it goes on by itself.
                Some(_) => {}
                None => break,
            }
        }
        holdings.leaves(self.number, self.network.now_ms());
        let _ = consumer.close().await;
    }
}

fn numbered(numbers: [u32; 2], len: usize) -> Vec<u8> {
    let mut value: Vec<u8> = numbers.into_iter().flat_map(u32::to_be_bytes).collect();
    value.resize(len.max(value.len()), b'x');
    value
}

/// The numbers of a client and of its record, from a value that has them.
pub(crate) fn numbers_of(value: &[u8]) -> Option<[u32; 2]> {
    let (client, rest) = value.split_first_chunk()?;
    let (record, _) = rest.split_first_chunk()?;
    Some([u32::from_be_bytes(*client), u32::from_be_bytes(*record)])
}
