//! Every Kafka error code this client can meet, in one table: its name, what it means for trying
//! again, whether metadata must be asked for, and what it says about a record in a Produce
//! answer. Sources: `org.apache.kafka.common.protocol.Errors` for names and retriability; for
//! the last column `ReplicaManager.appendRecords`, `DelayedProduce.tryComplete` and KIP-98/360.
//! A code whose place in the broker has not been checked leaves the record in doubt.

use super::ErrorKind;

/// What a code in a Produce answer says about whether the batch is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Refused before the append, always.
    No,
    /// Refused before the append only if the answer carries base offset -1. With acks=all these
    /// codes also come after it: DelayedProduce overwrites the result of an appended batch when
    /// leadership moves, and then the base offset is set.
    NoIfBaseOffsetUnset,
    /// Cannot be known.
    InDoubt,
    /// It is in the log already.
    Yes,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct BrokerCode {
    /// Kafka's number on the wire.
    pub code: i16,
    /// Kafka's name.
    pub name: &'static str,
    /// Whether Kafka calls it retriable.
    pub retriable: bool,
    /// Whether cached metadata is wrong when it comes.
    pub refresh_metadata: bool,
    pub(crate) kind: ErrorKind,
    pub(crate) written: Written,
    /// It says that the broker itself does badly, rather than the request, the topic or what this
    /// client believes of the cluster: what its health is judged by.
    pub(crate) own_fault: bool,
}

const fn row(
    code: i16,
    name: &'static str,
    kind: ErrorKind,
    retriable: bool,
    refresh_metadata: bool,
    written: Written,
) -> BrokerCode {
    // UNKNOWN_SERVER_ERROR, REQUEST_TIMED_OUT, KAFKA_STORAGE_ERROR.
    let own_fault = matches!(code, -1 | 7 | 56);
    BrokerCode { code, name, retriable, refresh_metadata, kind, written, own_fault }
}

use ErrorKind as K;
use Written as W;

#[rustfmt::skip]
const TABLE: &[BrokerCode] = &[
    //  code  name                                kind                  retry  refresh written
    row(-1,  "UNKNOWN_SERVER_ERROR",              K::Broker,            false, false, W::InDoubt),
    row(0,   "NONE",                              K::Broker,            false, false, W::Yes),
    row(1,   "OFFSET_OUT_OF_RANGE",               K::OffsetOutOfRange,  false, false, W::InDoubt),
    row(2,   "CORRUPT_MESSAGE",                   K::Corrupt,           true,  false, W::InDoubt),
    row(3,   "UNKNOWN_TOPIC_OR_PARTITION",        K::UnknownTopic,      true,  true,  W::NoIfBaseOffsetUnset),
    row(4,   "INVALID_FETCH_SIZE",                K::Broker,            false, false, W::InDoubt),
    row(5,   "LEADER_NOT_AVAILABLE",              K::Broker,            true,  true,  W::InDoubt),
    row(6,   "NOT_LEADER_OR_FOLLOWER",            K::Broker,            true,  true,  W::NoIfBaseOffsetUnset),
    row(7,   "REQUEST_TIMED_OUT",                 K::Timeout,           true,  false, W::InDoubt),
    row(8,   "BROKER_NOT_AVAILABLE",              K::Broker,            false, true,  W::InDoubt),
    row(9,   "REPLICA_NOT_AVAILABLE",             K::Broker,            true,  true,  W::InDoubt),
    row(10,  "MESSAGE_TOO_LARGE",                 K::RecordTooLarge,    false, false, W::No),
    row(13,  "NETWORK_EXCEPTION",                 K::Disconnected,      true,  true,  W::InDoubt),
    row(14,  "COORDINATOR_LOAD_IN_PROGRESS",      K::Broker,            true,  false, W::InDoubt),
    row(15,  "COORDINATOR_NOT_AVAILABLE",         K::Broker,            true,  false, W::InDoubt),
    row(16,  "NOT_COORDINATOR",                   K::Broker,            true,  false, W::InDoubt),
    row(17,  "INVALID_TOPIC_EXCEPTION",           K::InvalidArgument,   false, false, W::InDoubt),
    row(18,  "RECORD_LIST_TOO_LARGE",             K::RecordTooLarge,    false, false, W::InDoubt),
    row(19,  "NOT_ENOUGH_REPLICAS",               K::Broker,            true,  false, W::No),
    row(20,  "NOT_ENOUGH_REPLICAS_AFTER_APPEND",  K::Broker,            true,  false, W::InDoubt),
    row(21,  "INVALID_REQUIRED_ACKS",             K::Config,            false, false, W::InDoubt),
    row(29,  "TOPIC_AUTHORIZATION_FAILED",        K::Authorization,     false, false, W::No),
    row(30,  "GROUP_AUTHORIZATION_FAILED",        K::Authorization,     false, false, W::No),
    row(31,  "CLUSTER_AUTHORIZATION_FAILED",      K::Authorization,     false, false, W::No),
    row(32,  "INVALID_TIMESTAMP",                 K::InvalidRecord,     false, false, W::InDoubt),
    row(33,  "UNSUPPORTED_SASL_MECHANISM",        K::Authentication,    false, false, W::InDoubt),
    row(34,  "ILLEGAL_SASL_STATE",                K::Authentication,    false, false, W::InDoubt),
    row(35,  "UNSUPPORTED_VERSION",               K::UnsupportedVersion,false, false, W::InDoubt),
    row(36,  "TOPIC_ALREADY_EXISTS",              K::TopicExists,       false, false, W::InDoubt),
    row(37,  "INVALID_PARTITIONS",                K::InvalidArgument,   false, false, W::InDoubt),
    row(38,  "INVALID_REPLICATION_FACTOR",        K::InvalidArgument,   false, false, W::InDoubt),
    row(39,  "INVALID_REPLICA_ASSIGNMENT",        K::InvalidArgument,   false, false, W::InDoubt),
    row(40,  "INVALID_CONFIG",                    K::InvalidArgument,   false, false, W::InDoubt),
    row(41,  "NOT_CONTROLLER",                    K::Broker,            true,  true,  W::InDoubt),
    row(42,  "INVALID_REQUEST",                   K::Broker,            false, false, W::InDoubt),
    row(43,  "UNSUPPORTED_FOR_MESSAGE_FORMAT",    K::Broker,            false, false, W::InDoubt),
    row(44,  "POLICY_VIOLATION",                  K::InvalidArgument,   false, false, W::InDoubt),
    row(45,  "OUT_OF_ORDER_SEQUENCE_NUMBER",      K::Broker,            false, false, W::InDoubt),
    row(46,  "DUPLICATE_SEQUENCE_NUMBER",         K::Broker,            false, false, W::Yes),
    row(47,  "INVALID_PRODUCER_EPOCH",            K::Fenced,            false, false, W::InDoubt),
    row(53,  "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", K::Authorization, false, false, W::No),
    row(56,  "KAFKA_STORAGE_ERROR",               K::Broker,            true,  true,  W::NoIfBaseOffsetUnset),
    row(58,  "SASL_AUTHENTICATION_FAILED",        K::Authentication,    false, false, W::InDoubt),
    row(59,  "UNKNOWN_PRODUCER_ID",               K::Broker,            false, false, W::InDoubt),
    row(60,  "REASSIGNMENT_IN_PROGRESS",          K::Broker,            false, false, W::InDoubt),
    row(70,  "FETCH_SESSION_ID_NOT_FOUND",        K::Broker,            true,  false, W::InDoubt),
    row(71,  "INVALID_FETCH_SESSION_EPOCH",       K::Broker,            true,  false, W::InDoubt),
    row(72,  "LISTENER_NOT_FOUND",                K::Broker,            true,  true,  W::InDoubt),
    row(74,  "FENCED_LEADER_EPOCH",               K::Broker,            true,  true,  W::InDoubt),
    row(75,  "UNKNOWN_LEADER_EPOCH",              K::Broker,            true,  false, W::InDoubt),
    row(76,  "UNSUPPORTED_COMPRESSION_TYPE",      K::UnsupportedCodec,  false, false, W::InDoubt),
    row(78,  "OFFSET_NOT_AVAILABLE",              K::Broker,            true,  false, W::InDoubt),
    row(87,  "INVALID_RECORD",                    K::InvalidRecord,     false, false, W::No),
    row(89,  "THROTTLING_QUOTA_EXCEEDED",         K::Broker,            true,  false, W::InDoubt),
    row(90,  "PRODUCER_FENCED",                   K::Fenced,            false, false, W::InDoubt),
    row(100, "UNKNOWN_TOPIC_ID",                  K::UnknownTopic,      true,  true,  W::NoIfBaseOffsetUnset),
    row(103, "INCONSISTENT_TOPIC_ID",             K::Broker,            true,  true,  W::InDoubt),
    row(106, "FETCH_SESSION_TOPIC_ID_ERROR",      K::Broker,            true,  true,  W::InDoubt),
];

/// The row of a code; one that is not listed is not retriable and leaves a record in doubt.
pub(crate) fn describe(code: i16) -> BrokerCode {
    match TABLE.binary_search_by_key(&code, |r| r.code) {
        Ok(i) => TABLE[i],
        Err(_) => row(code, "UNKNOWN_CODE", K::Broker, false, false, W::InDoubt),
    }
}

/// Whether a Produce answer with this code and base offset proves that the batch was not
/// appended by the attempt it answers. The one place that decides it.
pub(crate) fn definitely_unwritten(code: i16, base_offset: i64) -> bool {
    match describe(code).written {
        Written::No => true,
        Written::NoIfBaseOffsetUnset => base_offset == -1,
        Written::InDoubt | Written::Yes => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_so_that_it_can_be_searched() {
        assert!(TABLE.windows(2).all(|w| w[0].code < w[1].code));
    }

    #[test]
    fn unlisted_codes_are_in_doubt() {
        assert!(!definitely_unwritten(999, -1));
        assert_eq!(describe(999).name, "UNKNOWN_CODE");
    }

    #[test]
    fn what_is_definite() {
        // (code, base offset, definitely unwritten)
        for (code, base, want) in [
            (6, -1, true),
            (6, 41, false),
            (3, -1, true),
            (3, 0, false),
            (100, -1, true),
            (56, -1, true),
            (56, 7, false),
            (19, -1, true),
            (20, -1, false),
            (7, -1, false),
            (10, -1, true),
            (87, -1, true),
            (29, -1, true),
            (45, -1, false),
            (46, -1, false),
            (-1, -1, false),
            (0, 5, false),
        ] {
            assert_eq!(definitely_unwritten(code, base), want, "code {code} base {base}");
        }
    }
}
