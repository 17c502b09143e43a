//! Brokers of a cluster that stop, move, and lose their connections or their cluster.

use std::io;

use super::Cluster;
use crate::listener;
use crate::sessions::SessionInfo;

/// What becomes of the partitions that a stopped broker leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaders {
    /// The cluster notices: in-sync replicas on other brokers take over under a new leader epoch,
    /// and Metadata no longer names the broker.
    Move,
    /// The cluster does not notice (yet): Metadata goes on naming the broker as leader.
    Keep,
}

impl Cluster {
    /// Stops a broker: its port refuses, its connections are cut, requests that wait there have no
    /// further answer. Its records stay; its fetch sessions are gone, and so is what waited in the groups
    /// that it coordinates.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn stop_broker(&self, broker: i32, leaders: Leaders) -> io::Result<()> {
        listener::close(&self.shared, broker)?;
        self.forget_fetch_sessions(broker)?;
        let now = self.shared.now();
        let mut state = self.shared.state();
        state.groups.stopped(broker, now);
        if leaders == Leaders::Move {
            state.fence(broker, now);
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
        let now = self.shared.now();
        self.shared.state().fence(broker, now);
        Ok(())
    }

    /// The controller hears of a fenced broker again: it follows at once, and leads what nobody does.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn unfence_broker(&self, broker: i32) -> io::Result<()> {
        self.shared.broker(broker).ok_or_else(|| listener::unknown_broker(broker))?;
        let now = self.shared.now();
        self.shared.state().unfence(broker, now);
        Ok(())
    }

    /// Starts a stopped broker on its old port. It follows at once; leaders stay where they are
    /// unless a partition has none.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker; the system's error if the port cannot be listened on.
    pub fn start_broker(&self, broker: i32) -> io::Result<()> {
        listener::open(&self.shared, broker)?;
        let now = self.shared.now();
        self.shared.state().unfence(broker, now);
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
            broker.sessions().clear();
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

    /// A broker forgets its fetch sessions, as one that was started again: the next request of each
    /// is answered with `FETCH_SESSION_ID_NOT_FOUND`. What waits there is answered as if nothing had
    /// happened.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn forget_fetch_sessions(&self, broker: i32) -> io::Result<()> {
        let found = self.shared.broker(broker);
        found.ok_or_else(|| listener::unknown_broker(broker))?.sessions().clear();
        Ok(())
    }

    /// The fetch sessions that a broker holds now (KIP-227), by their ids.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn fetch_sessions(&self, broker: i32) -> io::Result<Vec<SessionInfo>> {
        let found = self.shared.broker(broker);
        Ok(found.ok_or_else(|| listener::unknown_broker(broker))?.sessions().infos())
    }
}
