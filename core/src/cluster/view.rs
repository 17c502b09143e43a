//! The known state of a cluster, as people and tests read it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::broker::BrokerHealth;
use super::pool::Pool;

/// The state of the cluster as this client knows it now: the contents of its cache. No broker is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClusterView {
    /// The cluster's id, once a broker has told it.
    pub cluster_id: Option<String>,
    /// Brokers by id.
    pub brokers: BTreeMap<i32, BrokerView>,
    /// Topics in use, by name.
    pub topics: BTreeMap<String, TopicView>,
}

/// A broker of a [`ClusterView`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BrokerView {
    /// Where it is, "host:port".
    pub address: String,
    /// Its rack, if it has told one.
    pub rack: Option<String>,
    /// Connections open to it.
    pub connections: usize,
    /// How it does.
    pub health: BrokerHealth,
}

/// A topic of a [`ClusterView`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TopicView {
    /// Its id; none while it is not known, or where brokers are too old to tell.
    pub id: Option<String>,
    /// Its partitions in order; empty while they are not known.
    pub partitions: Vec<PartitionView>,
    /// Why it cannot be used, if that is known.
    pub error: Option<String>,
}

/// A partition of a [`TopicView`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PartitionView {
    /// The broker that leads it; none: nobody does now.
    pub leader: Option<i32>,
    /// How often the leader changed; none: not told.
    pub leader_epoch: Option<i32>,
}

impl ClusterView {
    pub(super) fn of(pool: &Pool) -> Self {
        let now = pool.env().now();
        let brokers = pool
            .members()
            .iter()
            .map(|b| {
                let view = BrokerView {
                    address: b.endpoint().to_string(),
                    rack: b.rack(),
                    connections: b.open_lanes(),
                    health: b.condition(now),
                };
                (b.id, view)
            })
            .collect();
        let known = |n: i32| (n >= 0).then_some(n);
        let mut topics = BTreeMap::new();
        pool.metadata().each_topic(|name, meta, error| {
            let partitions = meta
                .iter()
                .flat_map(|m| &m.partitions)
                .map(|p| PartitionView { leader: known(p.leader), leader_epoch: known(p.epoch) });
            let view = TopicView {
                id: meta.filter(|m| !m.id.is_nil()).map(|m| m.id.to_string()),
                partitions: partitions.collect(),
                error: error.map(|e| e.message().to_owned()),
            };
            topics.insert(name.to_owned(), view);
        });
        Self { cluster_id: pool.identity().cluster_id(), brokers, topics }
    }
}
