//! The cluster as its user holds it: start, script, inspect, stop.

mod brokers;
mod groups;
mod logs;
mod replicas;
mod security;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::watch;
use uuid::Uuid;

use crate::batch::Refusal;
use crate::builder::Builder;
use crate::doors::{Dialer, Doors};
use crate::faults::Faults;
use crate::listener;
use crate::state::{self, Broker, Shared, State, unknown_topic};
use crate::stats::Stats;
use crate::topic::Partition;

pub use brokers::Leaders;
pub use logs::PartitionInfo;

/// Running brokers that share topics. Dropping it stops them, closes every connection and forgets
/// all records.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: Option<watch::Sender<()>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

impl Cluster {
    /// Describes a cluster; `start` starts it.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Addresses of all brokers, comma-separated, as clients take them.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self
            .shared
            .brokers
            .iter()
            .map(|broker| {
                let (host, port) = broker.named_at();
                format!("{host}:{port}")
            })
            .collect();
        addresses.join(",")
    }

    /// Ids of all brokers: 1 to n.
    pub fn broker_ids(&self) -> Vec<i32> {
        self.shared.brokers.iter().map(|broker| broker.id).collect()
    }

    /// Host and port under which a broker is named in Metadata.
    pub fn address(&self, broker: i32) -> Option<(String, u16)> {
        self.shared.broker(broker).map(Broker::named_at)
    }

    /// A new connection to a broker through memory instead of TCP.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker; `ConnectionRefused` while it is stopped, or when the fault
    /// script says so.
    pub fn connect_in_memory(&self, broker: i32) -> io::Result<DuplexStream> {
        listener::connect_in_memory(&self.shared, broker)
    }

    /// As [`Cluster::connect_in_memory`], by the address that Metadata names: what a client's
    /// dialer is given.
    ///
    /// # Errors
    /// Also `NotFound` if no broker has this address.
    pub fn dial_in_memory(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        self.dialer().dial(host, port)
    }

    /// A handle that only dials, and that may outlive the cluster: then it is refused.
    pub fn dialer(&self) -> Dialer {
        Dialer { shared: Arc::clone(&self.shared) }
    }

    /// The brokers' doors, for a network of the caller's own.
    pub fn doors(&self) -> Doors {
        Doors { shared: Arc::clone(&self.shared) }
    }

    /// The fault script.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// What the brokers have seen so far.
    pub fn stats(&self) -> Stats {
        Stats {
            brokers: self
                .shared
                .brokers
                .iter()
                .map(|broker| broker.counters.snapshot(broker.id, self.shared.worked(broker)))
                .collect(),
        }
    }

    /// Creates a topic; partition p is led by broker p mod n + 1.
    ///
    /// # Errors
    /// `InvalidInput` if the name is taken or illegal, or a number is out of range.
    pub fn create_topic(&self, name: &str, partitions: i32, replication: i32) -> io::Result<Uuid> {
        let config = &self.shared.config;
        let replicas = state::spread(config, 0, partitions, replication);
        self.shared.state().create_topic(config, name, replicas, config.rules()).map_err(refused)
    }

    /// Sets a topic's `cleanup.policy` to compact: it takes no records without keys any more. Nothing
    /// is compacted.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such topic.
    pub fn compact(&self, name: &str) -> io::Result<()> {
        let mut state = self.shared.state();
        let topic =
            state.topics.get_mut(name).ok_or_else(|| refused(state::unknown_topic(name)))?;
        topic.rules.compacted = true;
        topic.settings.insert("cleanup.policy".to_owned(), "compact".to_owned());
        Ok(())
    }

    /// Sets the latest timestamp that a topic takes, in milliseconds since 1970, as
    /// `message.timestamp.after.max.ms` does from the broker's clock on.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such topic.
    pub fn refuse_timestamps_after(&self, name: &str, latest_ms: i64) -> io::Result<()> {
        let mut state = self.shared.state();
        let topic =
            state.topics.get_mut(name).ok_or_else(|| refused(state::unknown_topic(name)))?;
        topic.rules.latest_timestamp = latest_ms;
        Ok(())
    }

    /// Deletes a topic and its records. A later topic of the same name has another id.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such topic.
    pub fn delete_topic(&self, name: &str) -> io::Result<()> {
        self.shared.state().delete_topic(name).map(drop).map_err(refused)
    }

    /// Grows a topic to `count` partitions.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such topic or it has that many already.
    pub fn create_partitions(&self, name: &str, count: i32) -> io::Result<()> {
        let mut state = self.shared.state();
        crate::api::create_partitions::grow(
            &mut state,
            &self.shared.config,
            name,
            count,
            None,
            false,
        )
        .map_err(refused)
    }

    /// Names and ids of all topics.
    pub fn topics(&self) -> Vec<(String, Uuid)> {
        let state = self.shared.state();
        state.topics.iter().map(|(name, topic)| (name.clone(), topic.id)).collect()
    }

    /// Makes `broker` the leader of a partition under a new leader epoch, as a reassignment would:
    /// it becomes an in-sync replica if it is none. Appends that wait for replicas are answered
    /// with `NOT_LEADER_OR_FOLLOWER` and the offset they have.
    ///
    /// # Errors
    /// `InvalidInput` if topic, partition or broker is unknown.
    pub fn move_leader(&self, topic: &str, partition: i32, broker: i32) -> io::Result<()> {
        self.shared.broker(broker).ok_or_else(|| listener::unknown_broker(broker))?;
        self.with_partition(topic, partition, |partition, _| {
            if !partition.replicas.contains(&broker) {
                partition.replicas.push(broker);
            }
            if !partition.isr.contains(&broker) {
                partition.isr.push(broker);
            }
            partition.lead(Some(broker));
        })
    }

    /// An unclean election: `broker` becomes the leader although its log ends before the first batch
    /// that reaches `end`. What lay behind is lost, also for those who have read it. Returns where the
    /// log ends now.
    ///
    /// # Errors
    /// `InvalidInput` if topic, partition or broker is unknown.
    pub fn elect_uncleanly(
        &self,
        topic: &str,
        partition: i32,
        broker: i32,
        end: i64,
    ) -> io::Result<i64> {
        self.shared.broker(broker).ok_or_else(|| listener::unknown_broker(broker))?;
        let mut state = self.shared.state();
        let end = state.elect_uncleanly(topic, partition, broker, end);
        end.ok_or_else(|| refused(unknown_topic(&format!("{topic}[{partition}]"))))
    }

    /// Takes the leader away from a partition until [`Cluster::move_leader`].
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown.
    pub fn remove_leader(&self, topic: &str, partition: i32) -> io::Result<()> {
        self.with_partition(topic, partition, |partition, _| partition.lead(None))
    }

    /// Gives every partition back to its preferred leader, if that is up and in sync. Returns how
    /// many moved.
    pub fn elect_preferred_leaders(&self) -> usize {
        let mut moved = 0;
        let mut state = self.shared.state();
        for partition in state.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            let preferred = partition.replicas.first().copied();
            if let Some(id) = preferred
                && partition.leader != preferred
                && partition.isr.contains(&id)
            {
                partition.lead(preferred);
                moved += 1;
            }
        }
        moved
    }

    /// How long followers take to copy an append: acks=all and consumers wait that long. Also
    /// applies to what waits now: zero lets it go. `Duration::MAX` stands for followers that never
    /// catch up.
    pub fn set_replica_delay(&self, delay: Duration) {
        let mut state = self.shared.state();
        state.replica_delay = delay;
        for partition in state.topics.values_mut().flat_map(|topic| &mut topic.partitions) {
            partition.wake();
        }
    }

    /// As [`Cluster::set_replica_delay`] for one partition; `None`: the cluster's again.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown.
    pub fn set_partition_replica_delay(
        &self,
        topic: &str,
        partition: i32,
        delay: Option<Duration>,
    ) -> io::Result<()> {
        self.with_partition(topic, partition, |partition, _| {
            partition.replica_delay = delay;
            partition.wake();
        })
    }

    fn with_partition<T>(
        &self,
        topic: &str,
        partition: i32,
        act: impl FnOnce(&mut Partition, Duration) -> T,
    ) -> io::Result<T> {
        let mut state = self.shared.state();
        let State { topics, replica_delay, .. } = &mut *state;
        let found = topics
            .get_mut(topic)
            .and_then(|topic| topic.partition_mut(partition))
            .ok_or_else(|| refused(unknown_topic(&format!("{topic}[{partition}]"))))?;
        Ok(act(found, *replica_delay))
    }
}

fn refused(refusal: Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, refusal.message)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for broker in &self.shared.brokers {
            let mut gate = broker.gate();
            gate.connections = None;
            gate.listening = None;
            gate.socket = None;
        }
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there was printed when it happened; a second one here would abort.
            let _ = thread.join();
        }
    }
}
