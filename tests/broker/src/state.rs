//! What all brokers of a cluster share: topics, leaders, producer ids, retention.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use kafka_protocol::messages::MetadataResponse;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::acl::Acls;
use crate::batch::{Refusal, Rules};
use crate::config::{Config, Storage};
use crate::error_code as code;
use crate::faults::Faults;
use crate::groups::{Groups, Image};
use crate::log::Keeps;
use crate::price::{Queue, Work};
use crate::sasl::Registry;
use crate::sessions::SessionCache;
use crate::stats::Counters;
use crate::tls::Endpoints;
use crate::topic::{Partition, Topic};

/// One broker: where it is, and its gate.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) id: i32,
    /// What it listens on.
    pub(crate) port: u16,
    pub(crate) rack: Option<String>,
    pub(crate) counters: Counters,
    pub(crate) gate: Mutex<Gate>,
    /// Host and port that answers name it at.
    named_at: Mutex<(String, u16)>,
    /// What it knew of the cluster when it was cut off.
    stale: Mutex<Option<Box<MetadataResponse>>>,
    /// Its request threads, where requests have a price.
    queue: Option<Mutex<Queue>>,
    /// Taken after the cluster's lock where both are needed.
    sessions: Mutex<SessionCache>,
}

/// Whether a broker lets anybody in. Dropping a sender ends what watches it.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) listening: Option<watch::Sender<()>>,
    pub(crate) connections: Option<watch::Sender<()>>,
    /// The listening socket; of a stopped broker, the bound one that holds its port.
    pub(crate) socket: Option<socket2::Socket>,
}

impl Broker {
    pub(crate) fn new(
        id: i32,
        host: String,
        port: u16,
        rack: Option<String>,
        socket: Option<socket2::Socket>,
        queue: Option<Queue>,
        sessions: SessionCache,
    ) -> Self {
        Self {
            id,
            port,
            rack,
            counters: Counters::default(),
            gate: Mutex::new(Gate { socket, ..Gate::default() }),
            named_at: Mutex::new((host, port)),
            stale: Mutex::default(),
            queue: queue.map(Mutex::new),
            sessions: Mutex::new(sessions),
        }
    }

    pub(crate) fn named_at(&self) -> (String, u16) {
        self.named_at.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn name_at(&self, host: &str, port: u16) {
        *self.named_at.lock().unwrap_or_else(PoisonError::into_inner) = (host.to_owned(), port);
    }

    pub(crate) fn stale(&self) -> MutexGuard<'_, Option<Box<MetadataResponse>>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queue(&self) -> Option<MutexGuard<'_, Queue>> {
        Some(self.queue.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, SessionCache> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) handle: tokio::runtime::Handle,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) faults: Faults,
    /// `None`: its listeners speak no TLS.
    pub(crate) tls: Option<Endpoints>,
    /// `None`: nobody logs in.
    pub(crate) sasl: Option<Registry>,
    acls: RwLock<Option<Arc<Acls>>>,
    state: Mutex<State>,
    started: Instant,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        handle: tokio::runtime::Handle,
        brokers: Vec<Broker>,
        tls: Option<Endpoints>,
    ) -> Self {
        let state = Mutex::new(State::new(&config));
        let started = {
            let _context = handle.enter();
            Instant::now()
        };
        let sasl = config.sasl.clone().map(|sasl| Registry::new(sasl, started));
        let acls = RwLock::new(config.acls.clone().map(Arc::new));
        let faults = Faults::default();
        Self { config, handle, brokers, faults, tls, sasl, acls, state, started }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What clients may do now; `None`: everything.
    pub(crate) fn acls(&self) -> Option<Arc<Acls>> {
        self.acls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_acls(&self, acls: Option<Acls>) {
        *self.acls.write().unwrap_or_else(PoisonError::into_inner) = acls.map(Arc::new);
    }

    pub(crate) fn broker(&self, id: i32) -> Option<&Broker> {
        usize::try_from(id.checked_sub(1)?).ok().and_then(|index| self.brokers.get(index))
    }

    /// The cluster's clock, also for callers outside its runtime: with a paused clock theirs would
    /// be another one.
    pub(crate) fn now(&self) -> Instant {
        let _context = self.handle.enter();
        Instant::now()
    }

    /// A broker's request threads are given work; when it will be done. `None`: requests cost nothing
    /// here.
    pub(crate) fn charge(&self, broker: &Broker, work: Work) -> Option<Instant> {
        let cost = self.config.price?.of(work);
        let done = broker.queue()?.take(self.now() - self.started, cost);
        Some(self.started + done)
    }

    /// What the broker's request threads have worked so far, and the longest that a request has
    /// waited for one.
    pub(crate) fn worked(&self, broker: &Broker) -> (Duration, Duration) {
        let queue = broker.queue();
        let of = |queue: &Queue| (queue.worked(self.now() - self.started), queue.longest_wait());
        queue.map_or_else(Default::default, |queue| of(&queue))
    }
}

/// The cluster's state; one lock guards it, taken per request and never across a wait.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) topics: BTreeMap<String, Topic>,
    names: HashMap<Uuid, String>,
    /// Brokers known to be down: not named in Metadata, lead nothing.
    pub(crate) fenced: Vec<bool>,
    pub(crate) replica_delay: Duration,
    pub(crate) max_bytes_retained: usize,
    retained_bytes: usize,
    /// Every kept batch's partition in order of arrival: the oldest goes first, and with it
    /// the frame that all its batches are slices of.
    arrivals: VecDeque<(Uuid, i32)>,
    topics_created: u64,
    pub(crate) cluster_id: Option<String>,
    next_producer_id: i64,
    pub(crate) transactional: HashMap<String, (i64, i16)>,
    pub(crate) groups: Groups,
}

/// Longest transactional id map: ids are the clients' choice and must be bounded.
pub(crate) const MAX_TRANSACTIONAL_IDS: usize = 100_000;
/// Most partitions of one topic, to keep a mistyped number from exhausting memory.
pub(crate) const MAX_PARTITIONS: i32 = 100_000;
/// Most partitions of a cluster: each takes some hundred bytes, and anybody may create topics.
const MAX_PARTITIONS_TOGETHER: usize = 1_000_000;
const MAX_TOPIC_NAME: usize = 249;

impl State {
    fn new(config: &Config) -> Self {
        Self {
            topics: BTreeMap::new(),
            names: HashMap::new(),
            fenced: vec![false; config.brokers as usize],
            replica_delay: config.replica_delay,
            max_bytes_retained: config.max_bytes_retained,
            retained_bytes: 0,
            arrivals: VecDeque::new(),
            topics_created: 0,
            cluster_id: config.cluster_id.clone(),
            next_producer_id: 1000,
            transactional: HashMap::new(),
            groups: Groups::new(&config.groups, config.brokers),
        }
    }

    /// Another cluster with this id: it knows nothing of this one, and gives the same producer ids.
    pub(crate) fn replace(&mut self, config: &Config, cluster_id: String) {
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            partition.wake();
        }
        let new = Self { cluster_id: Some(cluster_id), ..Self::new(config) };
        // Topic ids are the one thing that two clusters never have in common.
        *self = Self { topics_created: self.topics_created, ..new };
    }

    pub(crate) fn is_fenced(&self, broker: i32) -> bool {
        usize::try_from(broker - 1)
            .ok()
            .and_then(|index| self.fenced.get(index))
            .copied()
            .unwrap_or(true)
    }

    /// Groups, and the topics that they see.
    pub(crate) fn groups_and_topics(&mut self) -> (&mut Groups, Image<'_>) {
        (&mut self.groups, Image { topics: &self.topics, names: &self.names })
    }

    pub(crate) fn name_of(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// The controller: the first broker that is not fenced.
    pub(crate) fn controller(&self) -> i32 {
        self.fenced.iter().position(|fenced| !fenced).map_or(-1, |index| index as i32 + 1)
    }

    pub(crate) fn new_producer_id(&mut self) -> i64 {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        id
    }

    /// Validates and creates a topic; `replicas[p]` are the brokers of partition `p`.
    pub(crate) fn create_topic(
        &mut self,
        config: &Config,
        name: &str,
        replicas: Vec<Vec<i32>>,
        rules: Rules,
    ) -> Result<Uuid, Refusal> {
        self.check_new_topic(config, name, &replicas)?;
        self.topics_created += 1;
        // Never reused: a topic that is deleted and created again is another topic.
        let id =
            Uuid::from_u64_pair(0x6f74_746c_6174_4000, 0x8000_0000_0000_0000 | self.topics_created);
        let partitions = self.partitions(config, replicas);
        self.topics.insert(name.to_owned(), Topic { id, partitions, rules });
        self.names.insert(id, name.to_owned());
        Ok(id)
    }

    pub(crate) fn check_new_topic(
        &self,
        config: &Config,
        name: &str,
        replicas: &[Vec<i32>],
    ) -> Result<(), Refusal> {
        check_name(name)?;
        if self.topics.contains_key(name) {
            return Err(Refusal::new(
                code::TOPIC_ALREADY_EXISTS,
                format!("topic '{name}' already exists"),
            ));
        }
        if replicas.is_empty() || replicas.len() > MAX_PARTITIONS as usize {
            return Err(Refusal::new(
                code::INVALID_PARTITIONS,
                format!("a topic has 1 to {MAX_PARTITIONS} partitions, not {}", replicas.len()),
            ));
        }
        check_replicas(config, replicas)?;
        self.check_room(replicas.len())
    }

    fn check_room(&self, more: usize) -> Result<(), Refusal> {
        let now: usize = self.topics.values().map(|topic| topic.partitions.len()).sum();
        if now + more > MAX_PARTITIONS_TOGETHER {
            return Err(Refusal::new(
                code::POLICY_VIOLATION,
                format!(
                    "the cluster has {now} partitions, {more} more exceed {MAX_PARTITIONS_TOGETHER}"
                ),
            ));
        }
        Ok(())
    }

    fn partitions(&self, config: &Config, replicas: Vec<Vec<i32>>) -> Vec<Partition> {
        let keeps = match &config.storage {
            Storage::Keep => Keeps::Batches,
            Storage::Sink => Keeps::Nothing,
            Storage::Source(batch) => {
                Keeps::Endless { batch: batch.bytes.clone(), records: batch.records }
            }
        };
        replicas
            .into_iter()
            .map(|replicas| Partition::new(replicas, |id| !self.is_fenced(id), keeps.clone()))
            .collect()
    }

    pub(crate) fn add_partitions(
        &mut self,
        config: &Config,
        name: &str,
        replicas: Vec<Vec<i32>>,
    ) -> Result<(), Refusal> {
        check_replicas(config, &replicas)?;
        self.check_room(replicas.len())?;
        let more = self.partitions(config, replicas);
        let topic = self.topics.get_mut(name).ok_or_else(|| unknown_topic(name))?;
        topic.partitions.extend(more);
        Ok(())
    }

    pub(crate) fn delete_topic(&mut self, name: &str) -> Result<Uuid, Refusal> {
        let mut topic = self.topics.remove(name).ok_or_else(|| unknown_topic(name))?;
        self.names.remove(&topic.id);
        for partition in &mut topic.partitions {
            self.retained_bytes -= partition.log.kept_bytes();
            partition.wake();
        }
        self.arrivals.retain(|(id, _)| *id != topic.id);
        self.groups.delete_topic(name);
        Ok(topic.id)
    }

    /// Accounts for a batch that was appended, and deletes the oldest ones beyond the bound.
    pub(crate) fn retain(&mut self, topic: Uuid, partition: i32, bytes: usize) {
        self.arrivals.push_back((topic, partition));
        self.retained_bytes += bytes;
        // The newest batch always stays: a consumer must see at least one.
        while self.retained_bytes > self.max_bytes_retained && self.arrivals.len() > 1 {
            let Some((topic, partition)) = self.arrivals.pop_front() else { return };
            let freed = self
                .names
                .get(&topic)
                .and_then(|name| self.topics.get_mut(name))
                .and_then(|topic| topic.partition_mut(partition))
                .and_then(|partition| partition.log.drop_oldest());
            self.retained_bytes -= freed.unwrap_or(0);
        }
    }

    /// Deletes records below `offset`, as the DeleteRecords API does.
    pub(crate) fn delete_records(
        &mut self,
        name: &str,
        partition: i32,
        offset: i64,
    ) -> Option<i64> {
        let topic = self.topics.get_mut(name)?;
        let id = topic.id;
        let log = &mut topic.partition_mut(partition)?.log;
        let before = log.batches().count();
        self.retained_bytes -= log.delete_before(offset);
        let start = log.start();
        let mut gone = before - log.batches().count();
        self.arrivals.retain(|entry| {
            let drop = gone > 0 && *entry == (id, partition);
            gone -= usize::from(drop);
            !drop
        });
        Some(start)
    }

    /// A replica that lacks what is at `end` or after it becomes the leader.
    pub(crate) fn elect_uncleanly(
        &mut self,
        name: &str,
        partition: i32,
        leader: i32,
        end: i64,
    ) -> Option<i64> {
        let topic = self.topics.get_mut(name)?;
        let id = topic.id;
        let found = topic.partition_mut(partition)?;
        let (freed, mut gone) = found.log.cut_back(end);
        // What it knew of producers was rebuilt from a log that is no more.
        found.producers.forget();
        found.transactions.cut_back(found.log.end());
        found.followers.cut_back(found.log.end());
        if !found.replicas.contains(&leader) {
            found.replicas.push(leader);
        }
        found.isr = vec![leader];
        found.lead(Some(leader));
        let end = found.log.end();
        self.retained_bytes -= freed;
        for at in (0..self.arrivals.len()).rev() {
            if gone > 0 && self.arrivals[at] == (id, partition) {
                self.arrivals.remove(at);
                gone -= 1;
            }
        }
        Some(end)
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        self.retained_bytes
    }

    /// Takes a broker out of every in-sync set and moves what it led to replicas that are up, and what
    /// it coordinated to the next broker.
    pub(crate) fn fence(&mut self, broker: i32, now: Instant) {
        let Some(fenced) =
            usize::try_from(broker - 1).ok().and_then(|index| self.fenced.get_mut(index))
        else {
            return;
        };
        *fenced = true;
        let fenced = &self.fenced;
        let is_up = |id: i32| fenced.get(id as usize - 1).is_some_and(|fenced| !fenced);
        self.groups.fenced(broker, is_up, now);
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            // The last in-sync replica stays in the set: only it has all the records.
            if partition.isr.len() > 1 {
                partition.isr.retain(|id| *id != broker);
            }
            if partition.leader == Some(broker) {
                let next = partition.isr.iter().copied().find(|id| *id != broker);
                partition.lead(next);
            }
        }
    }

    /// Lets a broker back into the in-sync sets; it leads and coordinates again only what nobody does.
    pub(crate) fn unfence(&mut self, broker: i32, now: Instant) {
        let Some(fenced) =
            usize::try_from(broker - 1).ok().and_then(|index| self.fenced.get_mut(index))
        else {
            return;
        };
        *fenced = false;
        self.groups.started(broker, now);
        for partition in self.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            if partition.replicas.contains(&broker) && !partition.isr.contains(&broker) {
                partition.isr.push(broker);
            }
            if partition.leader.is_none() && partition.isr.contains(&broker) {
                partition.lead(Some(broker));
            }
        }
    }
}

pub(crate) fn unknown_topic(name: &str) -> Refusal {
    Refusal::new(code::UNKNOWN_TOPIC_OR_PARTITION, format!("topic '{name}' does not exist"))
}

/// Kafka's rule for topic names.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    let legal = !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= MAX_TOPIC_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if legal {
        return Ok(());
    }
    Err(Refusal::new(
        code::INVALID_TOPIC_EXCEPTION,
        format!("'{name}' is no topic name: 1 to {MAX_TOPIC_NAME} of a-z A-Z 0-9 . _ - are"),
    ))
}

fn check_replicas(config: &Config, replicas: &[Vec<i32>]) -> Result<(), Refusal> {
    for brokers in replicas {
        if brokers.is_empty() || brokers.len() > config.brokers as usize {
            return Err(Refusal::new(
                code::INVALID_REPLICATION_FACTOR,
                format!("replication factor {} with {} brokers", brokers.len(), config.brokers),
            ));
        }
        for (index, broker) in brokers.iter().enumerate() {
            if !(1..=config.brokers).contains(broker) || brokers[..index].contains(broker) {
                return Err(Refusal::new(
                    code::INVALID_REPLICA_ASSIGNMENT,
                    format!("broker {broker} is unknown or named twice"),
                ));
            }
        }
    }
    Ok(())
}

/// Spreads partitions `from..to` round robin: partition p is led by broker p mod n + 1.
pub(crate) fn spread(config: &Config, from: i32, to: i32, replication: i32) -> Vec<Vec<i32>> {
    let brokers = config.brokers;
    (from..to.min(from.saturating_add(MAX_PARTITIONS + 1)))
        .map(|partition| {
            // A factor beyond the number of brokers is left one too long, for the check to refuse.
            (0..replication.clamp(0, brokers + 1)).map(|k| (partition + k) % brokers + 1).collect()
        })
        .collect()
}
