//! What a cluster is built from, and every default.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::acl::Acls;
use crate::api::ApiKey;
use crate::batch::Rules;
use crate::groups::settings::GroupSettings;
use crate::price::Price;
use crate::sasl::Sasl;
use crate::tls::Tls;
use crate::wire::MAX_FRAME;
use crate::writer::SourceBatch;

/// What partitions keep of what is produced.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Storage {
    /// Batches, up to the cluster's byte bound.
    #[default]
    Keep,
    /// Nothing: batches are checked and acknowledged, offsets move on. For producer benchmarks.
    Sink,
    /// Nothing that is produced; every fetch at any offset is answered with this batch, as often as
    /// fits. For consumer benchmarks.
    Source(SourceBatch),
}

#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) brokers: i32,
    pub(crate) racks: Vec<String>,
    pub(crate) tcp: bool,
    pub(crate) cluster_id: Option<String>,
    pub(crate) topics: Vec<(String, i32, i32)>,
    pub(crate) storage: Storage,
    pub(crate) max_bytes_retained: usize,
    pub(crate) max_message_bytes: usize,
    pub(crate) max_request_bytes: usize,
    pub(crate) min_insync_replicas: usize,
    pub(crate) replica_delay: Duration,
    pub(crate) auto_create: Option<i32>,
    pub(crate) default_partitions: i32,
    pub(crate) partial_batches: bool,
    pub(crate) check_records: bool,
    pub(crate) max_versions: BTreeMap<ApiKey, i16>,
    pub(crate) price: Option<Price>,
    pub(crate) fetch_session_slots: usize,
    pub(crate) tls: Option<Tls>,
    pub(crate) sasl: Option<Sasl>,
    pub(crate) acls: Option<Acls>,
    pub(crate) groups: GroupSettings,
}

impl Config {
    /// Of a topic that says nothing else.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            max_message_bytes: self.max_message_bytes,
            compacted: false,
            latest_timestamp: i64::MAX,
        }
    }

    /// Default bound on all batches of a cluster together.
    pub(crate) const MAX_BYTES_RETAINED: usize = 1 << 30;
    /// Kafka's default of `message.max.bytes`.
    pub(crate) const MAX_MESSAGE_BYTES: usize = 1_048_588;

    /// Kafka's usual default, as far as there are brokers.
    pub(crate) fn default_replication(&self) -> i32 {
        self.brokers.min(3)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: 1,
            racks: Vec::new(),
            tcp: true,
            cluster_id: None,
            topics: Vec::new(),
            storage: Storage::Keep,
            max_bytes_retained: Self::MAX_BYTES_RETAINED,
            max_message_bytes: Self::MAX_MESSAGE_BYTES,
            max_request_bytes: MAX_FRAME,
            min_insync_replicas: 1,
            replica_delay: Duration::ZERO,
            auto_create: None,
            default_partitions: 1,
            partial_batches: true,
            check_records: true,
            max_versions: BTreeMap::new(),
            price: None,
            fetch_session_slots: 1000,
            tls: None,
            sasl: None,
            acls: None,
            groups: GroupSettings::default(),
        }
    }
}
