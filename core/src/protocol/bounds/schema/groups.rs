//! The responses of a group's coordinator.

use super::{BOOL, I16, I32, I64, Kind, Struct, TEXT, UUID, field, plain};

pub(super) static FIND_COORDINATOR: Struct =
    plain(&[field("throttle_time_ms", I32), field("coordinators", Kind::Structs(&COORDINATOR))]);

static COORDINATOR: Struct = plain(&[
    field("key", TEXT),
    field("node_id", I32),
    field("host", TEXT),
    field("port", I32),
    field("error_code", I16),
    field("error_message", TEXT),
]);

pub(super) static JOIN_GROUP: Struct = plain(&[
    field("throttle_time_ms", I32),
    field("error_code", I16),
    field("generation_id", I32),
    field("protocol_type", TEXT).since(7),
    field("protocol_name", TEXT),
    field("leader", TEXT),
    field("skip_assignment", BOOL).since(9),
    field("member_id", TEXT),
    field("members", Kind::Structs(&JOINED_MEMBER)),
]);

static JOINED_MEMBER: Struct = plain(&[
    field("member_id", TEXT),
    field("group_instance_id", TEXT),
    field("metadata", Kind::Bytes),
]);

pub(super) static SYNC_GROUP: Struct = plain(&[
    field("throttle_time_ms", I32),
    field("error_code", I16),
    field("protocol_type", TEXT).since(5),
    field("protocol_name", TEXT).since(5),
    field("assignment", Kind::Bytes),
]);

pub(super) static HEARTBEAT: Struct =
    plain(&[field("throttle_time_ms", I32), field("error_code", I16)]);

pub(super) static LEAVE_GROUP: Struct = plain(&[
    field("throttle_time_ms", I32),
    field("error_code", I16),
    field("members", Kind::Structs(&LEFT_MEMBER)),
]);

static LEFT_MEMBER: Struct =
    plain(&[field("member_id", TEXT), field("group_instance_id", TEXT), field("error_code", I16)]);

pub(super) static OFFSET_COMMIT: Struct =
    plain(&[field("throttle_time_ms", I32), field("topics", Kind::Structs(&COMMITTED_TOPIC))]);

static COMMITTED_TOPIC: Struct =
    plain(&[field("name", TEXT), field("partitions", Kind::Structs(&COMMITTED_PARTITION))]);

static COMMITTED_PARTITION: Struct =
    plain(&[field("partition_index", I32), field("error_code", I16)]);

pub(super) static OFFSET_FETCH: Struct =
    plain(&[field("throttle_time_ms", I32), field("groups", Kind::Structs(&FOUND_GROUP))]);

static FOUND_GROUP: Struct = plain(&[
    field("group_id", TEXT),
    field("topics", Kind::Structs(&FOUND_TOPIC)),
    field("error_code", I16),
]);

static FOUND_TOPIC: Struct =
    plain(&[field("name", TEXT), field("partitions", Kind::Structs(&FOUND_PARTITION))]);

static FOUND_PARTITION: Struct = plain(&[
    field("partition_index", I32),
    field("committed_offset", I64),
    field("committed_leader_epoch", I32),
    field("metadata", TEXT),
    field("error_code", I16),
]);

pub(super) static DESCRIBE_GROUPS: Struct =
    plain(&[field("throttle_time_ms", I32), field("groups", Kind::Structs(&DESCRIBED_GROUP))]);

static DESCRIBED_GROUP: Struct = plain(&[
    field("error_code", I16),
    field("error_message", TEXT).since(6),
    field("group_id", TEXT),
    field("group_state", TEXT),
    field("protocol_type", TEXT),
    field("protocol_data", TEXT),
    field("members", Kind::Structs(&DESCRIBED_MEMBER)),
    field("authorized_operations", I32),
]);

static DESCRIBED_MEMBER: Struct = plain(&[
    field("member_id", TEXT),
    field("group_instance_id", TEXT),
    field("client_id", TEXT),
    field("client_host", TEXT),
    field("member_metadata", Kind::Bytes),
    field("member_assignment", Kind::Bytes),
]);

pub(super) static CONSUMER_GROUP_HEARTBEAT: Struct = plain(&[
    field("throttle_time_ms", I32),
    field("error_code", I16),
    field("error_message", TEXT),
    field("member_id", TEXT),
    field("member_epoch", I32),
    field("heartbeat_interval_ms", I32),
    field("assignment", Kind::Nullable(&ASSIGNMENT)),
]);

static ASSIGNMENT: Struct = plain(&[field("topic_partitions", Kind::Structs(&ASSIGNED_TOPIC))]);

static ASSIGNED_TOPIC: Struct =
    plain(&[field("topic_id", UUID), field("partitions", Kind::Numbers(4))]);
