//! What the responses that this client reads consist of: no more than is needed to walk over them.
//!
//! Names are those of the protocol's documents, in snake case. A field carries the versions it
//! exists in; whether lengths are compact and tagged fields follow is a property of the whole
//! answer. To read the response to another request, add its table here.

mod groups;

/// The response to one request.
pub(crate) struct Schema {
    pub(crate) api_key: i16,
    /// First and last version described, never beyond those the decoder knows.
    pub(crate) versions: (i16, i16),
    /// First version with compact lengths and tagged fields.
    pub(crate) flexible: i16,
    pub(crate) root: &'static Struct,
}

/// A message, or a structure in one.
pub(crate) struct Struct {
    pub(crate) fields: &'static [Field],
    /// Optional fields, by tag.
    pub(crate) tagged: &'static [(u32, Field)],
}

pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    since: i16,
    until: i16,
}

impl Field {
    pub(crate) const fn exists_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }

    const fn since(mut self, version: i16) -> Self {
        self.since = version;
        self
    }

    const fn until(mut self, version: i16) -> Self {
        self.until = version;
        self
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// A number, a flag or an id of so many bytes.
    Fixed(usize),
    /// A string or null.
    Text,
    /// Bytes or null, records among them.
    Bytes,
    /// An array of numbers of so many bytes each.
    Numbers(usize),
    /// An array of structures.
    Structs(&'static Struct),
    /// One structure, without a length.
    Struct(&'static Struct),
    /// One structure behind a byte: 1, or -1 for null.
    Nullable(&'static Struct),
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, since: 0, until: i16::MAX }
}

const fn plain(fields: &'static [Field]) -> Struct {
    Struct { fields, tagged: &[] }
}

const BOOL: Kind = Kind::Fixed(1);
const I16: Kind = Kind::Fixed(2);
const I32: Kind = Kind::Fixed(4);
const I64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);
const TEXT: Kind = Kind::Text;

/// All tables.
pub(crate) static SCHEMAS: [Schema; 20] = [
    Schema { api_key: 0, versions: (3, 13), flexible: 9, root: &PRODUCE },
    Schema { api_key: 1, versions: (4, 18), flexible: 12, root: &FETCH },
    Schema { api_key: 2, versions: (1, 10), flexible: 6, root: &LIST_OFFSETS },
    Schema { api_key: 3, versions: (9, 13), flexible: 9, root: &METADATA },
    Schema { api_key: 8, versions: (7, 9), flexible: 8, root: &groups::OFFSET_COMMIT },
    Schema { api_key: 9, versions: (8, 9), flexible: 6, root: &groups::OFFSET_FETCH },
    Schema { api_key: 10, versions: (4, 6), flexible: 3, root: &groups::FIND_COORDINATOR },
    Schema { api_key: 11, versions: (5, 9), flexible: 6, root: &groups::JOIN_GROUP },
    Schema { api_key: 12, versions: (3, 4), flexible: 4, root: &groups::HEARTBEAT },
    Schema { api_key: 13, versions: (3, 5), flexible: 4, root: &groups::LEAVE_GROUP },
    Schema { api_key: 14, versions: (3, 5), flexible: 4, root: &groups::SYNC_GROUP },
    Schema { api_key: 15, versions: (5, 6), flexible: 5, root: &groups::DESCRIBE_GROUPS },
    Schema { api_key: 17, versions: (0, 1), flexible: i16::MAX, root: &SASL_HANDSHAKE },
    Schema { api_key: 18, versions: (0, 4), flexible: 3, root: &API_VERSIONS },
    Schema { api_key: 19, versions: (2, 7), flexible: 5, root: &CREATE_TOPICS },
    Schema { api_key: 22, versions: (0, 6), flexible: 2, root: &INIT_PRODUCER_ID },
    Schema { api_key: 23, versions: (3, 4), flexible: 4, root: &OFFSET_FOR_LEADER_EPOCH },
    Schema { api_key: 36, versions: (0, 2), flexible: 2, root: &SASL_AUTHENTICATE },
    Schema { api_key: 61, versions: (0, 0), flexible: 0, root: &DESCRIBE_PRODUCERS },
    Schema { api_key: 68, versions: (0, 1), flexible: 0, root: &groups::CONSUMER_GROUP_HEARTBEAT },
];

/// The table for a response.
pub(crate) fn find(api_key: i16, version: i16) -> Option<&'static Schema> {
    SCHEMAS.iter().find(|schema| {
        schema.api_key == api_key && (schema.versions.0..=schema.versions.1).contains(&version)
    })
}

static LEADER: Struct = plain(&[field("leader_id", I32), field("leader_epoch", I32)]);

static NODE_ENDPOINT: Struct =
    plain(&[field("node_id", I32), field("host", TEXT), field("port", I32), field("rack", TEXT)]);

static PRODUCE: Struct = Struct {
    fields: &[field("responses", Kind::Structs(&PRODUCE_TOPIC)), field("throttle_time_ms", I32)],
    tagged: &[(0, field("node_endpoints", Kind::Structs(&NODE_ENDPOINT)).since(10))],
};

static PRODUCE_TOPIC: Struct = plain(&[
    field("name", TEXT).until(12),
    field("topic_id", UUID).since(13),
    field("partition_responses", Kind::Structs(&PRODUCE_PARTITION)),
]);

static PRODUCE_PARTITION: Struct = Struct {
    fields: &[
        field("index", I32),
        field("error_code", I16),
        field("base_offset", I64),
        field("log_append_time_ms", I64),
        field("log_start_offset", I64).since(5),
        field("record_errors", Kind::Structs(&RECORD_ERROR)).since(8),
        field("error_message", TEXT).since(8),
    ],
    tagged: &[(0, field("current_leader", Kind::Struct(&LEADER)).since(10))],
};

static RECORD_ERROR: Struct =
    plain(&[field("batch_index", I32), field("batch_index_error_message", TEXT)]);

static FETCH: Struct = Struct {
    fields: &[
        field("throttle_time_ms", I32),
        field("error_code", I16).since(7),
        field("session_id", I32).since(7),
        field("responses", Kind::Structs(&FETCH_TOPIC)),
    ],
    tagged: &[(0, field("node_endpoints", Kind::Structs(&NODE_ENDPOINT)).since(16))],
};

static FETCH_TOPIC: Struct = plain(&[
    field("topic", TEXT).until(12),
    field("topic_id", UUID).since(13),
    field("partitions", Kind::Structs(&FETCH_PARTITION)),
]);

static FETCH_PARTITION: Struct = Struct {
    fields: &[
        field("partition_index", I32),
        field("error_code", I16),
        field("high_watermark", I64),
        field("last_stable_offset", I64),
        field("log_start_offset", I64).since(5),
        field("aborted_transactions", Kind::Structs(&ABORTED_TRANSACTION)),
        field("preferred_read_replica", I32).since(11),
        field("records", Kind::Bytes),
    ],
    tagged: &[
        (0, field("diverging_epoch", Kind::Struct(&EPOCH_END_OFFSET))),
        (1, field("current_leader", Kind::Struct(&LEADER))),
        (2, field("snapshot_id", Kind::Struct(&SNAPSHOT_ID))),
    ],
};

static ABORTED_TRANSACTION: Struct =
    plain(&[field("producer_id", I64), field("first_offset", I64)]);

static EPOCH_END_OFFSET: Struct = plain(&[field("epoch", I32), field("end_offset", I64)]);

static SNAPSHOT_ID: Struct = plain(&[field("end_offset", I64), field("epoch", I32)]);

static LIST_OFFSETS: Struct = plain(&[
    field("throttle_time_ms", I32).since(2),
    field("topics", Kind::Structs(&LIST_OFFSETS_TOPIC)),
]);

static LIST_OFFSETS_TOPIC: Struct =
    plain(&[field("name", TEXT), field("partitions", Kind::Structs(&LIST_OFFSETS_PARTITION))]);

static LIST_OFFSETS_PARTITION: Struct = plain(&[
    field("partition_index", I32),
    field("error_code", I16),
    field("timestamp", I64),
    field("offset", I64),
    field("leader_epoch", I32).since(4),
]);

static OFFSET_FOR_LEADER_EPOCH: Struct =
    plain(&[field("throttle_time_ms", I32), field("topics", Kind::Structs(&EPOCH_TOPIC))]);

static EPOCH_TOPIC: Struct =
    plain(&[field("topic", TEXT), field("partitions", Kind::Structs(&EPOCH_PARTITION))]);

static EPOCH_PARTITION: Struct = plain(&[
    field("error_code", I16),
    field("partition", I32),
    field("leader_epoch", I32),
    field("end_offset", I64),
]);

static METADATA: Struct = plain(&[
    field("throttle_time_ms", I32),
    field("brokers", Kind::Structs(&NODE_ENDPOINT)),
    field("cluster_id", TEXT),
    field("controller_id", I32),
    field("topics", Kind::Structs(&METADATA_TOPIC)),
    field("cluster_authorized_operations", I32).until(10),
    field("error_code", I16).since(13),
]);

static METADATA_TOPIC: Struct = plain(&[
    field("error_code", I16),
    field("name", TEXT),
    field("topic_id", UUID).since(10),
    field("is_internal", BOOL),
    field("partitions", Kind::Structs(&METADATA_PARTITION)),
    field("topic_authorized_operations", I32),
]);

static METADATA_PARTITION: Struct = plain(&[
    field("error_code", I16),
    field("partition_index", I32),
    field("leader_id", I32),
    field("leader_epoch", I32),
    field("replica_nodes", Kind::Numbers(4)),
    field("isr_nodes", Kind::Numbers(4)),
    field("offline_replicas", Kind::Numbers(4)),
]);

static API_VERSIONS: Struct = Struct {
    fields: &[
        field("error_code", I16),
        field("api_keys", Kind::Structs(&API_VERSION)),
        field("throttle_time_ms", I32).since(1),
    ],
    tagged: &[
        (0, field("supported_features", Kind::Structs(&FEATURE))),
        (1, field("finalized_features_epoch", I64)),
        (2, field("finalized_features", Kind::Structs(&FEATURE))),
        (3, field("zk_migration_ready", BOOL)),
    ],
};

static API_VERSION: Struct =
    plain(&[field("api_key", I16), field("min_version", I16), field("max_version", I16)]);

/// Supported and finalized features differ in the order of minimum and maximum only.
static FEATURE: Struct =
    plain(&[field("name", TEXT), field("one_version", I16), field("other_version", I16)]);

static SASL_HANDSHAKE: Struct =
    plain(&[field("error_code", I16), field("mechanisms", Kind::Structs(&MECHANISM))]);

/// A bare string: before flexible versions a structure is no more than its fields.
static MECHANISM: Struct = plain(&[field("mechanisms", TEXT)]);

static SASL_AUTHENTICATE: Struct = plain(&[
    field("error_code", I16),
    field("error_message", TEXT),
    field("auth_bytes", Kind::Bytes),
    field("session_lifetime_ms", I64).since(1),
]);

static CREATE_TOPICS: Struct =
    plain(&[field("throttle_time_ms", I32), field("topics", Kind::Structs(&CREATED_TOPIC))]);

static CREATED_TOPIC: Struct = Struct {
    fields: &[
        field("name", TEXT),
        field("topic_id", UUID).since(7),
        field("error_code", I16),
        field("error_message", TEXT),
        field("num_partitions", I32).since(5),
        field("replication_factor", I16).since(5),
        field("configs", Kind::Structs(&TOPIC_CONFIG)).since(5),
    ],
    tagged: &[(0, field("topic_config_error_code", I16))],
};

static TOPIC_CONFIG: Struct = plain(&[
    field("name", TEXT),
    field("value", TEXT),
    field("read_only", BOOL),
    field("config_source", Kind::Fixed(1)),
    field("is_sensitive", BOOL),
]);

static INIT_PRODUCER_ID: Struct = plain(&[
    field("throttle_time_ms", I32),
    field("error_code", I16),
    field("producer_id", I64),
    field("producer_epoch", I16),
    field("ongoing_txn_producer_id", I64).since(6),
    field("ongoing_txn_producer_epoch", I16).since(6),
]);

static DESCRIBE_PRODUCERS: Struct =
    plain(&[field("throttle_time_ms", I32), field("topics", Kind::Structs(&DESCRIBED_TOPIC))]);

static DESCRIBED_TOPIC: Struct =
    plain(&[field("name", TEXT), field("partitions", Kind::Structs(&DESCRIBED_PARTITION))]);

static DESCRIBED_PARTITION: Struct = plain(&[
    field("partition_index", I32),
    field("error_code", I16),
    field("error_message", TEXT),
    field("active_producers", Kind::Structs(&ACTIVE_PRODUCER)),
]);

static ACTIVE_PRODUCER: Struct = plain(&[
    field("producer_id", I64),
    field("producer_epoch", I32),
    field("last_sequence", I32),
    field("last_timestamp", I64),
    field("coordinator_epoch", I32),
    field("current_txn_start_offset", I64),
]);
