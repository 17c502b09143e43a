//! How a cluster's group coordinators are set.

use std::time::Duration;

/// `offset.metadata.max.bytes`; Kafka counts UTF-16 units.
pub(crate) const MAX_METADATA: usize = 4096;

/// `offsets.retention.check.interval.ms`: when a group's offsets are looked over.
pub(crate) const RETENTION_CHECK: Duration = Duration::from_secs(600);

/// Groups of a cluster: ids are the clients' choice and must be bounded.
pub(crate) const MAX_GROUPS: usize = 100_000;

/// Members of a group where nothing else is said. Kafka has no limit.
const MAX_MEMBERS: usize = 100_000;

#[derive(Debug, Clone)]
pub(crate) struct GroupSettings {
    /// `group.initial.rebalance.delay.ms`
    pub(crate) initial_rebalance_delay: Duration,
    /// `group.min.session.timeout.ms`
    pub(crate) min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`
    pub(crate) max_session_timeout: Duration,
    /// `group.max.size`, and `group.consumer.max.size`
    pub(crate) max_size: usize,
    /// `offsets.retention.minutes`
    pub(crate) offsets_retention: Duration,
    /// How long a coordinator reads its log before it knows its groups.
    pub(crate) load_time: Duration,
    /// `group.version`: whether there are groups of the next generation (KIP-848).
    pub(crate) next_generation: bool,
    /// `group.consumer.session.timeout.ms`
    pub(crate) consumer_session_timeout: Duration,
    /// `group.consumer.heartbeat.interval.ms`
    pub(crate) consumer_heartbeat_interval: Duration,
    /// Whether a member is fenced that begins anew under an id that is known, as up to Kafka 4.1.
    pub(crate) fences_rejoining: bool,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            initial_rebalance_delay: Duration::ZERO,
            min_session_timeout: Duration::from_secs(6),
            max_session_timeout: Duration::from_secs(30 * 60),
            max_size: MAX_MEMBERS,
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
            load_time: Duration::ZERO,
            next_generation: true,
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(5),
            fences_rejoining: false,
        }
    }
}
