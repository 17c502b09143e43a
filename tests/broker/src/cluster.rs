//! The cluster as its user holds it: start, script, inspect, stop.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::watch;
use uuid::Uuid;

use crate::batch::{self, Record, Refusal};
use crate::builder::Builder;
use crate::compression::Codec;
use crate::doors::{Dialer, Doors};
use crate::faults::Faults;
use crate::listener;
use crate::state::{self, Broker, Shared, State, unknown_topic};
use crate::stats::Stats;
use crate::topic::Partition;

/// What becomes of the partitions that a stopped broker leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaders {
    /// The cluster notices: in-sync replicas on other brokers take over under a new leader epoch,
    /// and Metadata no longer names the broker.
    Move,
    /// The cluster does not notice (yet): Metadata goes on naming the broker as leader.
    Keep,
}

/// Running brokers that share topics. Dropping it stops them, closes every connection and forgets
/// all records.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: Option<watch::Sender<()>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

/// What [`Cluster::partition`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// Leading broker, if any can lead.
    pub leader: Option<i32>,
    /// How often the leader changed.
    pub leader_epoch: i32,
    /// Assigned brokers.
    pub replicas: Vec<i32>,
    /// In-sync brokers.
    pub isr: Vec<i32>,
    /// First offset kept.
    pub log_start: i64,
    /// First offset that consumers cannot read yet.
    pub high_watermark: i64,
    /// Offset of the next record appended.
    pub log_end: i64,
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

    /// Stops a broker: its port refuses, its connections are cut, requests that wait there have no
    /// further answer. Its records stay.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn stop_broker(&self, broker: i32, leaders: Leaders) -> io::Result<()> {
        listener::close(&self.shared, broker)?;
        if leaders == Leaders::Move {
            self.shared.state().fence(broker);
        }
        Ok(())
    }

    /// The controller takes `broker` for dead, as it does when its heartbeats stay away: other in-sync
    /// replicas lead, and Metadata no longer names it. Its process knows nothing of that and goes on.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn fence_broker(&self, broker: i32) -> io::Result<()> {
        self.shared.broker(broker).ok_or_else(|| listener::unknown_broker(broker))?;
        self.shared.state().fence(broker);
        Ok(())
    }

    /// The controller hears of a fenced broker again: it follows at once, and leads what nobody does.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn unfence_broker(&self, broker: i32) -> io::Result<()> {
        self.shared.broker(broker).ok_or_else(|| listener::unknown_broker(broker))?;
        self.shared.state().unfence(broker);
        Ok(())
    }

    /// Starts a stopped broker on its old port. It follows at once; leaders stay where they are
    /// unless a partition has none.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker; the system's error if the port cannot be listened on.
    pub fn start_broker(&self, broker: i32) -> io::Result<()> {
        listener::open(&self.shared, broker)?;
        self.shared.state().unfence(broker);
        Ok(())
    }

    /// From now on answers name a broker at this address. In-memory dials find it there, and no
    /// longer where it was; a TCP port stays what it is. Two brokers may have one address: dials
    /// then reach the one with the lower id, as with a proxy that stands for both.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn move_broker(&self, broker: i32, host: &str, port: u16) -> io::Result<()> {
        let found = self.shared.broker(broker);
        found.ok_or_else(|| listener::unknown_broker(broker))?.name_at(host, port);
        Ok(())
    }

    /// Cuts a broker off from the controller: it goes on serving, but answers Metadata with what it
    /// knows now, whatever happens elsewhere, until [`Cluster::reconnect_broker`].
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn cut_off_broker(&self, broker: i32) -> io::Result<()> {
        let found = self.shared.broker(broker);
        let found = found.ok_or_else(|| listener::unknown_broker(broker))?;
        let now = crate::api::metadata::everything(&self.shared);
        *found.stale() = Some(Box::new(now));
        Ok(())
    }

    /// As after a start of the whole cluster: the broker serves, but knows nothing of the cluster yet.
    /// It answers Metadata without any broker, and knows no topic, until
    /// [`Cluster::reconnect_broker`].
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn forget_cluster(&self, broker: i32) -> io::Result<()> {
        let found = self.shared.broker(broker);
        let found = found.ok_or_else(|| listener::unknown_broker(broker))?;
        let now = crate::api::metadata::everything(&self.shared);
        *found.stale() = Some(Box::new(now.with_brokers(Vec::new()).with_topics(Vec::new())));
        Ok(())
    }

    /// Another cluster takes the place of this one, at the same addresses: it has another id, other
    /// topics (of those that the cluster was built with, and with other ids), and no records. Its
    /// producer ids are given from the beginning again, so that they are the same. All connections
    /// are cut.
    ///
    /// # Errors
    /// `InvalidInput` if a topic cannot be created.
    pub fn replace(&self, cluster_id: impl Into<String>) -> io::Result<()> {
        let config = &self.shared.config;
        self.shared.state().replace(config, cluster_id.into());
        for broker in &self.shared.brokers {
            *broker.stale() = None;
            listener::cut(&self.shared, broker.id)?;
        }
        for (name, partitions, replication) in &config.topics {
            self.create_topic(name, *partitions, *replication)?;
        }
        Ok(())
    }

    /// Ends [`Cluster::cut_off_broker`] and [`Cluster::forget_cluster`].
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn reconnect_broker(&self, broker: i32) -> io::Result<()> {
        let found = self.shared.broker(broker);
        *found.ok_or_else(|| listener::unknown_broker(broker))?.stale() = None;
        Ok(())
    }

    /// Cuts all connections of a broker, which goes on listening.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn cut_connections(&self, broker: i32) -> io::Result<()> {
        listener::cut(&self.shared, broker)
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

    /// Deletes records below `offset`; the log start moves there.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> io::Result<i64> {
        self.shared
            .state()
            .delete_records(topic, partition, offset)
            .ok_or_else(|| refused(unknown_topic(topic)))
    }

    /// Forgets all but the last batch of each of a partition's producers, as a broker does that is
    /// shut down and started again: an older batch that is sent again is out of order then, and no
    /// duplicate.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown.
    pub fn forget_older_batches(&self, topic: &str, partition: i32) -> io::Result<()> {
        self.with_partition(topic, partition, |partition, _| {
            partition.producers.forget_all_but_the_last();
        })
    }

    /// Forgets a partition's producers, as a broker does when they expire: the next batch of each
    /// is accepted with any sequence number.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown.
    pub fn forget_producers(&self, topic: &str, partition: i32) -> io::Result<()> {
        self.with_partition(topic, partition, |partition, _| partition.producers.forget())
    }

    /// Leader, replicas and offsets of a partition.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown.
    pub fn partition(&self, topic: &str, partition: i32) -> io::Result<PartitionInfo> {
        let now = self.shared.now();
        self.with_partition(topic, partition, |partition, delay| PartitionInfo {
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas.clone(),
            isr: partition.isr.clone(),
            log_start: partition.log.start(),
            high_watermark: partition.high_watermark(now, delay),
            log_end: partition.log.end(),
        })
    }

    /// Number of partitions of a topic.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such topic.
    pub fn partitions(&self, topic: &str) -> io::Result<i32> {
        let state = self.shared.state();
        let topic = state.topics.get(topic).ok_or_else(|| refused(unknown_topic(topic)))?;
        Ok(topic.partitions.len() as i32)
    }

    /// Every record kept in a partition, replicated or not, read by the broker's own reader.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown; `InvalidData` if a batch cannot be read,
    /// which the checks at append rule out unless they are switched off.
    pub fn records(&self, topic: &str, partition: i32) -> io::Result<Vec<Record>> {
        let (start, batches) = self.with_partition(topic, partition, |partition, _| {
            (partition.log.start(), partition.log.batches().cloned().collect::<Vec<_>>())
        })?;
        let mut records = Vec::new();
        for stored in batches {
            let decoded = batch::decode(&stored.data, stored.base_offset, stored.leader_epoch)
                .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal.message))?;
            records.extend(decoded.into_iter().filter(|record| record.offset >= start));
        }
        Ok(records)
    }

    /// How the batches kept in a topic are compressed: every way that occurs.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such topic; `InvalidData` as for [`Cluster::records`].
    pub fn codecs(&self, topic: &str) -> io::Result<BTreeSet<Codec>> {
        let state = self.shared.state();
        let found = state.topics.get(topic).ok_or_else(|| refused(unknown_topic(topic)))?;
        let batches = found.partitions.iter().flat_map(|partition| partition.log.batches());
        batches
            .map(|stored| {
                batch::codec(&stored.data)
                    .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal.message))
            })
            .collect()
    }

    /// Bytes of all batches kept now.
    pub fn retained_bytes(&self) -> usize {
        self.shared.state().retained_bytes()
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
