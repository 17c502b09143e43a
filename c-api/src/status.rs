//! The result of every call.

use std::ffi::{CStr, c_char};

use ottla::ErrorKind;

/// How a call ended. Anything but `OTTLA_STATUS_OK` comes with an error object, if one was asked
/// for. New values may be added: treat those you do not know as failures.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_status {
    /// It worked.
    OTTLA_STATUS_OK = 0,
    /// A setting is missing, misspelt or out of its range.
    OTTLA_STATUS_CONFIG = 1,
    /// An argument is not usable: null, not UTF-8, an empty topic name.
    OTTLA_STATUS_INVALID_ARGUMENT = 2,
    /// A host name of the bootstrap list could not be resolved.
    OTTLA_STATUS_RESOLVE = 3,
    /// Nobody could be reached.
    OTTLA_STATUS_CONNECT = 4,
    /// The peer does not speak Kafka's protocol.
    OTTLA_STATUS_NOT_KAFKA = 5,
    /// Broker and client share no version of a request that is needed.
    OTTLA_STATUS_UNSUPPORTED_VERSION = 6,
    /// A connection was lost with requests in flight.
    OTTLA_STATUS_DISCONNECTED = 7,
    /// A deadline passed.
    OTTLA_STATUS_TIMEOUT = 8,
    /// No buffer space now: wait for an `OTTLA_COMPLETION_SPACE`, then submit the rest.
    OTTLA_STATUS_BUFFER_FULL = 9,
    /// A record is larger than the client or the topic takes.
    OTTLA_STATUS_RECORD_TOO_LARGE = 10,
    /// The broker refused the record's content.
    OTTLA_STATUS_INVALID_RECORD = 11,
    /// The cluster does not know the topic.
    OTTLA_STATUS_UNKNOWN_TOPIC = 12,
    /// The topic has no such partition.
    OTTLA_STATUS_UNKNOWN_PARTITION = 13,
    /// The topic to be created exists.
    OTTLA_STATUS_TOPIC_EXISTS = 14,
    /// The credentials do not allow this.
    OTTLA_STATUS_AUTHORIZATION = 15,
    /// The credentials were refused.
    OTTLA_STATUS_AUTHENTICATION = 16,
    /// The producer was fenced, or its state on the broker is lost.
    OTTLA_STATUS_FENCED = 17,
    /// The offset is outside what the partition holds.
    OTTLA_STATUS_OFFSET_OUT_OF_RANGE = 18,
    /// Fetched bytes are damaged.
    OTTLA_STATUS_CORRUPT = 19,
    /// Fetched records use a codec that this build cannot read.
    OTTLA_STATUS_UNSUPPORTED_CODEC = 20,
    /// Another error of the broker: see `ottla_error_broker_code`.
    OTTLA_STATUS_BROKER = 21,
    /// The handle was used after it, or its client, was closed.
    OTTLA_STATUS_CLOSED = 22,
    /// This process is a fork of the one that made the client.
    OTTLA_STATUS_FORKED = 23,
    /// A fault of this library.
    OTTLA_STATUS_INTERNAL = 24,
    /// The wait was cancelled.
    OTTLA_STATUS_CANCELLED = 25,
    /// The system has no thread, descriptor or memory left for this process.
    OTTLA_STATUS_OUT_OF_RESOURCES = 26,
    /// Another cluster answers at the addresses now: see `ottla_cluster_change`.
    OTTLA_STATUS_CLUSTER_CHANGED = 27,
    /// The log is not the one that was read any more: it was cut back, or its topic was made anew.
    OTTLA_STATUS_TRUNCATED = 28,
    /// Records failed whose completions nobody has taken: they are in the queue.
    OTTLA_STATUS_UNDELIVERED = 29,
    /// TLS with a broker failed: a certificate that is not trusted, on either side, or a listener
    /// without TLS.
    OTTLA_STATUS_TLS = 30,
    /// There is nothing to log in with: no token was to be had. No broker has refused anything.
    OTTLA_STATUS_CREDENTIALS = 31,
    /// A failure that this version of the interface has no name for.
    OTTLA_STATUS_UNKNOWN = 1000,
}

use ottla_status::*;

/// Every status and its name, in the order of their numbers: OK, each kind of the core, and the unknown.
const NAMED: [(ottla_status, &CStr); ErrorKind::ALL.len() + 2] = [
    (OTTLA_STATUS_OK, c"ok"),
    (OTTLA_STATUS_CONFIG, c"config"),
    (OTTLA_STATUS_INVALID_ARGUMENT, c"invalid_argument"),
    (OTTLA_STATUS_RESOLVE, c"resolve"),
    (OTTLA_STATUS_CONNECT, c"connect"),
    (OTTLA_STATUS_NOT_KAFKA, c"not_kafka"),
    (OTTLA_STATUS_UNSUPPORTED_VERSION, c"unsupported_version"),
    (OTTLA_STATUS_DISCONNECTED, c"disconnected"),
    (OTTLA_STATUS_TIMEOUT, c"timeout"),
    (OTTLA_STATUS_BUFFER_FULL, c"buffer_full"),
    (OTTLA_STATUS_RECORD_TOO_LARGE, c"record_too_large"),
    (OTTLA_STATUS_INVALID_RECORD, c"invalid_record"),
    (OTTLA_STATUS_UNKNOWN_TOPIC, c"unknown_topic"),
    (OTTLA_STATUS_UNKNOWN_PARTITION, c"unknown_partition"),
    (OTTLA_STATUS_TOPIC_EXISTS, c"topic_exists"),
    (OTTLA_STATUS_AUTHORIZATION, c"authorization"),
    (OTTLA_STATUS_AUTHENTICATION, c"authentication"),
    (OTTLA_STATUS_FENCED, c"fenced"),
    (OTTLA_STATUS_OFFSET_OUT_OF_RANGE, c"offset_out_of_range"),
    (OTTLA_STATUS_CORRUPT, c"corrupt"),
    (OTTLA_STATUS_UNSUPPORTED_CODEC, c"unsupported_codec"),
    (OTTLA_STATUS_BROKER, c"broker"),
    (OTTLA_STATUS_CLOSED, c"closed"),
    (OTTLA_STATUS_FORKED, c"forked"),
    (OTTLA_STATUS_INTERNAL, c"internal"),
    (OTTLA_STATUS_CANCELLED, c"cancelled"),
    (OTTLA_STATUS_OUT_OF_RESOURCES, c"out_of_resources"),
    (OTTLA_STATUS_CLUSTER_CHANGED, c"cluster_changed"),
    (OTTLA_STATUS_TRUNCATED, c"truncated"),
    (OTTLA_STATUS_UNDELIVERED, c"undelivered"),
    (OTTLA_STATUS_TLS, c"tls"),
    (OTTLA_STATUS_CREDENTIALS, c"credentials"),
    (OTTLA_STATUS_UNKNOWN, c"unknown"),
];

// Each kind of the core has its status here, with the same number and the same name.
const _: () = {
    let mut i = 0;
    while i < ErrorKind::ALL.len() {
        let (kind, (status, name)) = (ErrorKind::ALL[i], NAMED[i + 1]);
        assert!(kind as usize == i + 1 && kind as i32 == status as i32, "a kind has no status");
        let (ours, theirs) = (name.to_bytes(), kind.as_str().as_bytes());
        assert!(ours.len() == theirs.len(), "a status is not named as its kind");
        let mut at = 0;
        while at < ours.len() {
            assert!(ours[at] == theirs[at], "a status is not named as its kind");
            at += 1;
        }
        i += 1;
    }
};

impl ottla_status {
    /// The status of an error kind; kinds and statuses share their numbers.
    pub(crate) fn of(kind: ErrorKind) -> Self {
        NAMED.get(kind as usize).map_or(OTTLA_STATUS_UNKNOWN, |(status, _)| *status)
    }
}

fn name(status: i32) -> &'static CStr {
    NAMED.iter().find(|(s, _)| *s as i32 == status).map_or(c"unknown", |(_, name)| name)
}

/// The stable lower-case name of a status ("unknown_topic"), the same in every language. Static;
/// never null, whatever the number.
#[unsafe(no_mangle)]
pub extern "C" fn ottla_status_name(status: i32) -> *const c_char {
    name(status).as_ptr()
}

/// The version of the library, "MAJOR.MINOR.PATCH". Static.
#[unsafe(no_mangle)]
pub extern "C" fn ottla_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_statuses_share_numbers_and_names() {
        for kind in ErrorKind::ALL {
            let status = ottla_status::of(*kind);
            assert_eq!(status as i32, *kind as i32);
            assert_eq!(name(status as i32).to_str(), Ok(kind.as_str()));
        }
        assert_eq!(name(-4), c"unknown");
    }
}
