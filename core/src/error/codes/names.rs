//! Codes that the client itself acts on, by the names that Kafka gives them.

pub(crate) const UNKNOWN_SERVER_ERROR: i16 = -1;
pub(crate) const NONE: i16 = 0;
pub(crate) const OFFSET_OUT_OF_RANGE: i16 = 1;
pub(crate) const CORRUPT_MESSAGE: i16 = 2;
pub(crate) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
pub(crate) const LEADER_NOT_AVAILABLE: i16 = 5;
pub(crate) const REQUEST_TIMED_OUT: i16 = 7;
pub(crate) const MESSAGE_TOO_LARGE: i16 = 10;
pub(crate) const INVALID_TOPIC_EXCEPTION: i16 = 17;
pub(crate) const RECORD_LIST_TOO_LARGE: i16 = 18;
pub(crate) const NOT_ENOUGH_REPLICAS: i16 = 19;
pub(crate) const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
pub(crate) const INVALID_TIMESTAMP: i16 = 32;
pub(crate) const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
pub(crate) const ILLEGAL_SASL_STATE: i16 = 34;
pub(crate) const UNSUPPORTED_VERSION: i16 = 35;
pub(crate) const NOT_CONTROLLER: i16 = 41;
pub(crate) const INVALID_REQUEST: i16 = 42;
pub(crate) const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
pub(crate) const POLICY_VIOLATION: i16 = 44;
pub(crate) const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
pub(crate) const INVALID_PRODUCER_EPOCH: i16 = 47;
pub(crate) const KAFKA_STORAGE_ERROR: i16 = 56;
pub(crate) const SASL_AUTHENTICATION_FAILED: i16 = 58;
pub(crate) const UNKNOWN_PRODUCER_ID: i16 = 59;
pub(crate) const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
pub(crate) const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
pub(crate) const INVALID_RECORD: i16 = 87;
pub(crate) const THROTTLING_QUOTA_EXCEEDED: i16 = 89;
pub(crate) const UNKNOWN_TOPIC_ID: i16 = 100;
pub(crate) const OFFSET_MOVED_TO_TIERED_STORAGE: i16 = 109;
pub(crate) const REBOOTSTRAP_REQUIRED: i16 = 129;

#[cfg(test)]
mod tests {
    use super::super::describe;
    use super::*;

    #[test]
    fn each_is_the_code_of_its_name() {
        for (code, name) in [
            (UNKNOWN_SERVER_ERROR, "UNKNOWN_SERVER_ERROR"),
            (NONE, "NONE"),
            (OFFSET_OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"),
            (CORRUPT_MESSAGE, "CORRUPT_MESSAGE"),
            (UNKNOWN_TOPIC_OR_PARTITION, "UNKNOWN_TOPIC_OR_PARTITION"),
            (LEADER_NOT_AVAILABLE, "LEADER_NOT_AVAILABLE"),
            (REQUEST_TIMED_OUT, "REQUEST_TIMED_OUT"),
            (MESSAGE_TOO_LARGE, "MESSAGE_TOO_LARGE"),
            (INVALID_TOPIC_EXCEPTION, "INVALID_TOPIC_EXCEPTION"),
            (RECORD_LIST_TOO_LARGE, "RECORD_LIST_TOO_LARGE"),
            (NOT_ENOUGH_REPLICAS, "NOT_ENOUGH_REPLICAS"),
            (NOT_ENOUGH_REPLICAS_AFTER_APPEND, "NOT_ENOUGH_REPLICAS_AFTER_APPEND"),
            (INVALID_TIMESTAMP, "INVALID_TIMESTAMP"),
            (UNSUPPORTED_SASL_MECHANISM, "UNSUPPORTED_SASL_MECHANISM"),
            (ILLEGAL_SASL_STATE, "ILLEGAL_SASL_STATE"),
            (SASL_AUTHENTICATION_FAILED, "SASL_AUTHENTICATION_FAILED"),
            (UNSUPPORTED_VERSION, "UNSUPPORTED_VERSION"),
            (NOT_CONTROLLER, "NOT_CONTROLLER"),
            (INVALID_REQUEST, "INVALID_REQUEST"),
            (UNSUPPORTED_FOR_MESSAGE_FORMAT, "UNSUPPORTED_FOR_MESSAGE_FORMAT"),
            (POLICY_VIOLATION, "POLICY_VIOLATION"),
            (OUT_OF_ORDER_SEQUENCE_NUMBER, "OUT_OF_ORDER_SEQUENCE_NUMBER"),
            (INVALID_PRODUCER_EPOCH, "INVALID_PRODUCER_EPOCH"),
            (KAFKA_STORAGE_ERROR, "KAFKA_STORAGE_ERROR"),
            (UNKNOWN_PRODUCER_ID, "UNKNOWN_PRODUCER_ID"),
            (FETCH_SESSION_ID_NOT_FOUND, "FETCH_SESSION_ID_NOT_FOUND"),
            (UNSUPPORTED_COMPRESSION_TYPE, "UNSUPPORTED_COMPRESSION_TYPE"),
            (INVALID_RECORD, "INVALID_RECORD"),
            (THROTTLING_QUOTA_EXCEEDED, "THROTTLING_QUOTA_EXCEEDED"),
            (UNKNOWN_TOPIC_ID, "UNKNOWN_TOPIC_ID"),
            (OFFSET_MOVED_TO_TIERED_STORAGE, "OFFSET_MOVED_TO_TIERED_STORAGE"),
            (REBOOTSTRAP_REQUIRED, "REBOOTSTRAP_REQUIRED"),
        ] {
            assert_eq!(describe(code).name, name);
        }
    }
}
