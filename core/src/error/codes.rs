//! Every error code of Kafka, in one table: its name, what it means for trying again, whether
//! metadata must be asked for, how much it condemns, and what it says about a record in a Produce
//! answer. What decides anything about a code reads it here.
//!
//! Sources: `org.apache.kafka.common.protocol.Errors` of 4.3 for names and for what is retriable
//! (a copy of both is what the table is tested against); for fatal codes `TransactionManager` and
//! `ConsumerHeartbeatRequestManager` of the Java client; for the last column
//! `ReplicaManager.appendToLocalLog`, `DelayedProduce.tryComplete` and KIP-98/360. Refused before the
//! append is what `KafkaApis.handleProduceRequest` (rights, the topic, the shape of the batch),
//! `ReplicaManager` (acks, internal topics), `UnifiedLog.append` up to `localLog.append` (sizes,
//! checksums) and `LogValidator` (every record) refuse. A code whose place in the broker has not been
//! checked leaves the record in doubt; so does UNKNOWN_SERVER_ERROR, which is any exception anywhere.

pub(crate) mod names;

use super::ErrorKind;

/// Whether the batch is in the log, as far as the error code of a Produce response tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Refused before the append, always.
    No,
    /// Refused before the append only if the response carries base offset -1. With acks=all these
    /// codes also come after it: DelayedProduce overwrites the result of an appended batch when
    /// leadership moves, and then the base offset is set.
    NoIfBaseOffsetUnset,
    /// Cannot be known.
    InDoubt,
    /// It is in the log already.
    Yes,
}

/// How much a code condemns: what it says nothing about goes on as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorScope {
    /// The call that was answered, or what it names that is none of the others.
    Request,
    /// The batch of records.
    Record,
    /// The topic, or the partition of it that the response names.
    Topic,
    /// Whichever of group and transactional id the coordinator was asked about.
    Coordinator,
    /// The group, or this membership of it.
    Group,
    /// The transactional id, or the producer id.
    Transaction,
    /// The session for fetching, sharing or telemetry; a new one is opened in its place.
    Session,
    /// The connection. Credentials that one broker refuses may be good at the next.
    Connection,
    /// The cluster, or these credentials at all of it.
    Cluster,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BrokerCode {
    /// Kafka's number on the wire.
    pub code: i16,
    /// Kafka's name.
    pub name: &'static str,
    /// Whether Kafka calls it retriable.
    pub retriable: bool,
    /// Whether cached metadata is wrong when it comes. Where coordinators have moved, that is not
    /// metadata: they are asked for again without it.
    pub refresh_metadata: bool,
    /// Whether the handle or the transactional id that got it is of no more use. Refused rights
    /// are not fatal but for transactional ids: they can be granted while a handle lives.
    pub fatal: bool,
    /// The thing that the error is about.
    pub scope: ErrorScope,
    pub(crate) kind: ErrorKind,
    pub(crate) written: Written,
    /// It says that the broker itself does badly, rather than the request, the topic or what this
    /// client believes of the cluster: what its health is judged by.
    pub(crate) own_fault: bool,
}

impl BrokerCode {
    /// The row of a code. One that is not listed is called `UNKNOWN_CODE`, not retriable and about
    /// its request.
    pub fn of(code: i16) -> Self {
        describe(code)
    }
}

#[expect(clippy::too_many_arguments, reason = "one for each column")]
const fn row(
    code: i16,
    name: &'static str,
    kind: ErrorKind,
    retriable: bool,
    refresh_metadata: bool,
    fatal: bool,
    scope: ErrorScope,
    written: Written,
) -> BrokerCode {
    // UNKNOWN_SERVER_ERROR, REQUEST_TIMED_OUT, KAFKA_STORAGE_ERROR.
    let own_fault = matches!(
        code,
        names::UNKNOWN_SERVER_ERROR | names::REQUEST_TIMED_OUT | names::KAFKA_STORAGE_ERROR
    );
    BrokerCode { code, name, retriable, refresh_metadata, fatal, scope, kind, written, own_fault }
}

use ErrorKind as K;
use ErrorScope as S;
use Written as W;

#[rustfmt::skip]
const TABLE: &[BrokerCode] = &[
    //  code name                                     kind                  retry  refresh  fatal  scope           written
    row(-1,  "UNKNOWN_SERVER_ERROR",                  K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(0,   "NONE",                                  K::Broker,            false, false,   false, S::Request,     W::Yes),
    row(1,   "OFFSET_OUT_OF_RANGE",                   K::OffsetOutOfRange,  false, false,   false, S::Topic,       W::InDoubt),
    row(2,   "CORRUPT_MESSAGE",                       K::Corrupt,           true,  false,   false, S::Record,      W::No),
    row(3,   "UNKNOWN_TOPIC_OR_PARTITION",            K::UnknownTopic,      true,  true,    false, S::Topic,       W::NoIfBaseOffsetUnset),
    row(4,   "INVALID_FETCH_SIZE",                    K::Broker,            false, false,   false, S::Topic,       W::InDoubt),
    row(5,   "LEADER_NOT_AVAILABLE",                  K::Broker,            true,  true,    false, S::Topic,       W::InDoubt),
    row(6,   "NOT_LEADER_OR_FOLLOWER",                K::Broker,            true,  true,    false, S::Topic,       W::NoIfBaseOffsetUnset),
    row(7,   "REQUEST_TIMED_OUT",                     K::Timeout,           true,  false,   false, S::Request,     W::InDoubt),
    row(8,   "BROKER_NOT_AVAILABLE",                  K::Broker,            false, true,    false, S::Cluster,     W::InDoubt),
    row(9,   "REPLICA_NOT_AVAILABLE",                 K::Broker,            true,  true,    false, S::Topic,       W::InDoubt),
    row(10,  "MESSAGE_TOO_LARGE",                     K::RecordTooLarge,    false, false,   false, S::Record,      W::No),
    row(11,  "STALE_CONTROLLER_EPOCH",                K::Broker,            false, false,   false, S::Cluster,     W::InDoubt),
    row(12,  "OFFSET_METADATA_TOO_LARGE",             K::InvalidArgument,   false, false,   false, S::Topic,       W::InDoubt),
    row(13,  "NETWORK_EXCEPTION",                     K::Disconnected,      true,  true,    false, S::Connection,  W::InDoubt),
    row(14,  "COORDINATOR_LOAD_IN_PROGRESS",          K::Broker,            true,  false,   false, S::Coordinator, W::InDoubt),
    row(15,  "COORDINATOR_NOT_AVAILABLE",             K::Broker,            true,  false,   false, S::Coordinator, W::InDoubt),
    row(16,  "NOT_COORDINATOR",                       K::Broker,            true,  false,   false, S::Coordinator, W::InDoubt),
    row(17,  "INVALID_TOPIC_EXCEPTION",               K::InvalidArgument,   false, false,   false, S::Topic,       W::No),
    row(18,  "RECORD_LIST_TOO_LARGE",                 K::RecordTooLarge,    false, false,   false, S::Record,      W::No),
    row(19,  "NOT_ENOUGH_REPLICAS",                   K::Broker,            true,  false,   false, S::Topic,       W::No),
    row(20,  "NOT_ENOUGH_REPLICAS_AFTER_APPEND",      K::Broker,            true,  false,   false, S::Topic,       W::InDoubt),
    row(21,  "INVALID_REQUIRED_ACKS",                 K::Config,            false, false,   true,  S::Request,     W::No),
    row(22,  "ILLEGAL_GENERATION",                    K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(23,  "INCONSISTENT_GROUP_PROTOCOL",           K::Config,            false, false,   true,  S::Group,       W::InDoubt),
    row(24,  "INVALID_GROUP_ID",                      K::Config,            false, false,   true,  S::Group,       W::InDoubt),
    row(25,  "UNKNOWN_MEMBER_ID",                     K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(26,  "INVALID_SESSION_TIMEOUT",               K::Config,            false, false,   true,  S::Group,       W::InDoubt),
    row(27,  "REBALANCE_IN_PROGRESS",                 K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(28,  "INVALID_COMMIT_OFFSET_SIZE",            K::Broker,            false, false,   false, S::Topic,       W::InDoubt),
    row(29,  "TOPIC_AUTHORIZATION_FAILED",            K::Authorization,     false, false,   false, S::Topic,       W::No),
    row(30,  "GROUP_AUTHORIZATION_FAILED",            K::Authorization,     false, false,   false, S::Group,       W::No),
    row(31,  "CLUSTER_AUTHORIZATION_FAILED",          K::Authorization,     false, false,   false, S::Cluster,     W::No),
    row(32,  "INVALID_TIMESTAMP",                     K::InvalidRecord,     false, false,   false, S::Record,      W::No),
    row(33,  "UNSUPPORTED_SASL_MECHANISM",            K::Authentication,    false, false,   true,  S::Connection,  W::InDoubt),
    row(34,  "ILLEGAL_SASL_STATE",                    K::Authentication,    false, false,   true,  S::Connection,  W::InDoubt),
    row(35,  "UNSUPPORTED_VERSION",                   K::UnsupportedVersion, false, false,   false, S::Connection,  W::InDoubt),
    row(36,  "TOPIC_ALREADY_EXISTS",                  K::TopicExists,       false, false,   false, S::Topic,       W::InDoubt),
    row(37,  "INVALID_PARTITIONS",                    K::InvalidArgument,   false, false,   false, S::Topic,       W::InDoubt),
    row(38,  "INVALID_REPLICATION_FACTOR",            K::InvalidArgument,   false, false,   false, S::Topic,       W::InDoubt),
    row(39,  "INVALID_REPLICA_ASSIGNMENT",            K::InvalidArgument,   false, false,   false, S::Topic,       W::InDoubt),
    row(40,  "INVALID_CONFIG",                        K::InvalidArgument,   false, false,   false, S::Request,     W::InDoubt),
    row(41,  "NOT_CONTROLLER",                        K::Broker,            true,  true,    false, S::Cluster,     W::InDoubt),
    row(42,  "INVALID_REQUEST",                       K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(43,  "UNSUPPORTED_FOR_MESSAGE_FORMAT",        K::Broker,            false, false,   false, S::Topic,       W::No),
    row(44,  "POLICY_VIOLATION",                      K::InvalidArgument,   false, false,   false, S::Request,     W::InDoubt),
    row(45,  "OUT_OF_ORDER_SEQUENCE_NUMBER",          K::Broker,            false, false,   false, S::Topic,       W::InDoubt),
    row(46,  "DUPLICATE_SEQUENCE_NUMBER",             K::Broker,            false, false,   false, S::Topic,       W::Yes),
    row(47,  "INVALID_PRODUCER_EPOCH",                K::Fenced,            false, false,   false, S::Transaction, W::InDoubt),
    row(48,  "INVALID_TXN_STATE",                     K::Broker,            false, false,   true,  S::Transaction, W::InDoubt),
    row(49,  "INVALID_PRODUCER_ID_MAPPING",           K::Broker,            false, false,   false, S::Transaction, W::InDoubt),
    row(50,  "INVALID_TRANSACTION_TIMEOUT",           K::Config,            false, false,   true,  S::Transaction, W::InDoubt),
    row(51,  "CONCURRENT_TRANSACTIONS",               K::Broker,            true,  false,   false, S::Transaction, W::InDoubt),
    row(52,  "TRANSACTION_COORDINATOR_FENCED",        K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(53,  "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", K::Authorization,     false, false,   true,  S::Transaction, W::No),
    row(54,  "SECURITY_DISABLED",                     K::Broker,            false, false,   false, S::Cluster,     W::InDoubt),
    row(55,  "OPERATION_NOT_ATTEMPTED",               K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(56,  "KAFKA_STORAGE_ERROR",                   K::Broker,            true,  true,    false, S::Topic,       W::NoIfBaseOffsetUnset),
    row(57,  "LOG_DIR_NOT_FOUND",                     K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(58,  "SASL_AUTHENTICATION_FAILED",            K::Authentication,    false, false,   true,  S::Connection,  W::InDoubt),
    row(59,  "UNKNOWN_PRODUCER_ID",                   K::Broker,            false, false,   false, S::Topic,       W::InDoubt),
    row(60,  "REASSIGNMENT_IN_PROGRESS",              K::Broker,            false, false,   false, S::Topic,       W::InDoubt),
    row(61,  "DELEGATION_TOKEN_AUTH_DISABLED",        K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(62,  "DELEGATION_TOKEN_NOT_FOUND",            K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(63,  "DELEGATION_TOKEN_OWNER_MISMATCH",       K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(64,  "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",  K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(65,  "DELEGATION_TOKEN_AUTHORIZATION_FAILED", K::Authorization,     false, false,   false, S::Request,     W::InDoubt),
    row(66,  "DELEGATION_TOKEN_EXPIRED",              K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(67,  "INVALID_PRINCIPAL_TYPE",                K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(68,  "NON_EMPTY_GROUP",                       K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(69,  "GROUP_ID_NOT_FOUND",                    K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(70,  "FETCH_SESSION_ID_NOT_FOUND",            K::Broker,            true,  false,   false, S::Session,     W::InDoubt),
    row(71,  "INVALID_FETCH_SESSION_EPOCH",           K::Broker,            true,  false,   false, S::Session,     W::InDoubt),
    row(72,  "LISTENER_NOT_FOUND",                    K::Broker,            true,  true,    false, S::Topic,       W::InDoubt),
    row(73,  "TOPIC_DELETION_DISABLED",               K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(74,  "FENCED_LEADER_EPOCH",                   K::Broker,            true,  true,    false, S::Topic,       W::InDoubt),
    row(75,  "UNKNOWN_LEADER_EPOCH",                  K::Broker,            true,  false,   false, S::Topic,       W::InDoubt),
    row(76,  "UNSUPPORTED_COMPRESSION_TYPE",          K::UnsupportedCodec,  false, false,   false, S::Record,      W::No),
    row(77,  "STALE_BROKER_EPOCH",                    K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(78,  "OFFSET_NOT_AVAILABLE",                  K::Broker,            true,  false,   false, S::Topic,       W::InDoubt),
    row(79,  "MEMBER_ID_REQUIRED",                    K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(80,  "PREFERRED_LEADER_NOT_AVAILABLE",        K::Broker,            true,  true,    false, S::Topic,       W::InDoubt),
    row(81,  "GROUP_MAX_SIZE_REACHED",                K::Broker,            false, false,   true,  S::Group,       W::InDoubt),
    row(82,  "FENCED_INSTANCE_ID",                    K::Broker,            false, false,   true,  S::Group,       W::InDoubt),
    row(83,  "ELIGIBLE_LEADERS_NOT_AVAILABLE",        K::Broker,            true,  true,    false, S::Topic,       W::InDoubt),
    row(84,  "ELECTION_NOT_NEEDED",                   K::Broker,            true,  true,    false, S::Topic,       W::InDoubt),
    row(85,  "NO_REASSIGNMENT_IN_PROGRESS",           K::Broker,            false, false,   false, S::Topic,       W::InDoubt),
    row(86,  "GROUP_SUBSCRIBED_TO_TOPIC",             K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(87,  "INVALID_RECORD",                        K::InvalidRecord,     false, false,   false, S::Record,      W::No),
    row(88,  "UNSTABLE_OFFSET_COMMIT",                K::Broker,            true,  false,   false, S::Group,       W::InDoubt),
    row(89,  "THROTTLING_QUOTA_EXCEEDED",             K::Broker,            true,  false,   false, S::Request,     W::InDoubt),
    row(90,  "PRODUCER_FENCED",                       K::Fenced,            false, false,   true,  S::Transaction, W::InDoubt),
    row(91,  "RESOURCE_NOT_FOUND",                    K::InvalidArgument,   false, false,   false, S::Request,     W::InDoubt),
    row(92,  "DUPLICATE_RESOURCE",                    K::InvalidArgument,   false, false,   false, S::Request,     W::InDoubt),
    row(93,  "UNACCEPTABLE_CREDENTIAL",               K::InvalidArgument,   false, false,   false, S::Request,     W::InDoubt),
    row(94,  "INCONSISTENT_VOTER_SET",                K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(95,  "INVALID_UPDATE_VERSION",                K::InvalidArgument,   false, false,   false, S::Request,     W::InDoubt),
    row(96,  "FEATURE_UPDATE_FAILED",                 K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(97,  "PRINCIPAL_DESERIALIZATION_FAILURE",     K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(98,  "SNAPSHOT_NOT_FOUND",                    K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(99,  "POSITION_OUT_OF_RANGE",                 K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(100, "UNKNOWN_TOPIC_ID",                      K::UnknownTopic,      true,  true,    false, S::Topic,       W::NoIfBaseOffsetUnset),
    row(101, "DUPLICATE_BROKER_REGISTRATION",         K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(102, "BROKER_ID_NOT_REGISTERED",              K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(103, "INCONSISTENT_TOPIC_ID",                 K::Broker,            true,  true,    false, S::Topic,       W::InDoubt),
    row(104, "INCONSISTENT_CLUSTER_ID",               K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(105, "TRANSACTIONAL_ID_NOT_FOUND",            K::Broker,            false, false,   false, S::Transaction, W::InDoubt),
    row(106, "FETCH_SESSION_TOPIC_ID_ERROR",          K::Broker,            true,  true,    false, S::Session,     W::InDoubt),
    row(107, "INELIGIBLE_REPLICA",                    K::Broker,            false, false,   false, S::Topic,       W::InDoubt),
    row(108, "NEW_LEADER_ELECTED",                    K::Broker,            false, false,   false, S::Topic,       W::InDoubt),
    row(109, "OFFSET_MOVED_TO_TIERED_STORAGE",        K::OffsetOutOfRange,  false, false,   false, S::Topic,       W::InDoubt),
    row(110, "FENCED_MEMBER_EPOCH",                   K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(111, "UNRELEASED_INSTANCE_ID",                K::Broker,            false, false,   true,  S::Group,       W::InDoubt),
    row(112, "UNSUPPORTED_ASSIGNOR",                  K::Config,            false, false,   true,  S::Group,       W::InDoubt),
    row(113, "STALE_MEMBER_EPOCH",                    K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(114, "MISMATCHED_ENDPOINT_TYPE",              K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(115, "UNSUPPORTED_ENDPOINT_TYPE",             K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(116, "UNKNOWN_CONTROLLER_ID",                 K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(117, "UNKNOWN_SUBSCRIPTION_ID",               K::Broker,            false, false,   false, S::Session,     W::InDoubt),
    row(118, "TELEMETRY_TOO_LARGE",                   K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(119, "INVALID_REGISTRATION",                  K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(120, "TRANSACTION_ABORTABLE",                 K::Broker,            false, false,   false, S::Transaction, W::InDoubt),
    row(121, "INVALID_RECORD_STATE",                  K::Broker,            false, false,   false, S::Topic,       W::InDoubt),
    row(122, "SHARE_SESSION_NOT_FOUND",               K::Broker,            true,  false,   false, S::Session,     W::InDoubt),
    row(123, "INVALID_SHARE_SESSION_EPOCH",           K::Broker,            true,  false,   false, S::Session,     W::InDoubt),
    row(124, "FENCED_STATE_EPOCH",                    K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(125, "INVALID_VOTER_KEY",                     K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(126, "DUPLICATE_VOTER",                       K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(127, "VOTER_NOT_FOUND",                       K::Broker,            false, false,   false, S::Request,     W::InDoubt),
    row(128, "INVALID_REGULAR_EXPRESSION",            K::InvalidArgument,   false, false,   true,  S::Group,       W::InDoubt),
    row(129, "REBOOTSTRAP_REQUIRED",                  K::Broker,            false, true,    false, S::Cluster,     W::InDoubt),
    row(130, "STREAMS_INVALID_TOPOLOGY",              K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(131, "STREAMS_INVALID_TOPOLOGY_EPOCH",        K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(132, "STREAMS_TOPOLOGY_FENCED",               K::Broker,            false, false,   false, S::Group,       W::InDoubt),
    row(133, "SHARE_SESSION_LIMIT_REACHED",           K::Broker,            true,  false,   false, S::Session,     W::InDoubt),
];

/// The row of a code; one that is not listed is not retriable and leaves a record in doubt.
pub(crate) fn describe(code: i16) -> BrokerCode {
    match TABLE.binary_search_by_key(&code, |r| r.code) {
        Ok(i) => TABLE[i],
        Err(_) => row(code, "UNKNOWN_CODE", K::Broker, false, false, false, S::Request, W::InDoubt),
    }
}

/// Whether a Produce response with this code and base offset proves that the batch was not
/// appended by the attempt it answers. The one place that decides it.
pub(crate) fn definitely_unwritten(code: i16, base_offset: i64) -> bool {
    match describe(code).written {
        Written::No => true,
        Written::NoIfBaseOffsetUnset => base_offset == -1,
        Written::InDoubt | Written::Yes => false,
    }
}

#[cfg(test)]
mod tests;
