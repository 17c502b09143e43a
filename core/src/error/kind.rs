//! The kinds of errors, in one table: number, name, whether another call helps, and advice. What must know each kind
//! (the C library's statuses, Python's classes, the table of words) is compared with [`ErrorKind::ALL`], so a kind that
//! is forgotten there does not compile or fails a test.

use std::fmt;

/// What an error of a kind says of further calls, unless the broker's code says more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// The same call may succeed later without a change to program or cluster set-up.
    Retriable,
    /// Trying again does not help, but the handle works.
    Permanent,
    /// The handle that reported it is of no more use.
    Fatal,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, $name:literal, $severity:ident, $advice:literal;)*) => {
        /// The kind of an error. Stable: programs may match on it, and every binding (Python, Go, C) uses the same
        /// words (see [`ErrorKind::as_str`]).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(i32)]
        pub enum ErrorKind {
            $($(#[$doc])* $kind = $number,)*
        }

        impl ErrorKind {
            /// Every kind, in the order of their numbers, which are 1, 2, 3 and so on. Later versions have more.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The stable, lower-case name of the kind, the same in every language.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            const fn severity(self) -> Severity {
                match self {
                    $(Self::$kind => Severity::$severity,)*
                }
            }

            /// The advice for errors of this kind: what to do, in one sentence.
            pub(super) const fn advice(self) -> &'static str {
                match self {
                    $(Self::$kind => $advice,)*
                }
            }
        }
    };
}

kinds! {
    /// A setting is missing, misspelt or out of its range. Fix the program; never retried.
    Config = 1, "config", Fatal, "correct the setting and start again";
    /// An argument of a call is not usable (empty topic name, negative timestamp).
    InvalidArgument = 2, "invalid_argument", Permanent, "correct the argument";
    /// A host name in the bootstrap list could not be resolved.
    Resolve = 3, "resolve", Retriable,
        "check the spelling of the host and that this machine can resolve it";
    /// Nobody could be reached: connection refused, unreachable, set-up timed out.
    Connect = 4, "connect", Retriable,
        "check that the brokers run and that host, port and firewall let this machine in";
    /// The peer is not a Kafka broker, or sent bytes that are not Kafka's protocol.
    NotKafka = 5, "not_kafka", Permanent,
        "check the port: it may speak HTTP or TLS, or belong to another service";
    /// The broker and this client share no version of a request that is needed.
    UnsupportedVersion = 6, "unsupported_version", Permanent, "use Kafka 3.9 or newer";
    /// A connection was lost with requests in flight.
    Disconnected = 7, "disconnected", Retriable,
        "try again; if it repeats, look at the broker's log";
    /// A deadline passed: the call's, the record's delivery timeout, or the request's.
    Timeout = 8, "timeout", Retriable, "look at broker load and network, or allow more time";
    /// The buffer stayed full for longer than `max_block`.
    BufferFull = 9, "buffer_full", Retriable,
        "send slower, raise buffer_memory, or find out why the brokers do not keep up";
    /// One record is larger than the client or the topic takes.
    RecordTooLarge = 10, "record_too_large", Permanent,
        "split the record, or raise max_record_size here and max.message.bytes of the topic";
    /// The broker refused the record's content.
    InvalidRecord = 11, "invalid_record", Permanent,
        "look at the topic's settings (cleanup.policy, timestamps)";
    /// The cluster does not know the topic.
    UnknownTopic = 12, "unknown_topic", Permanent,
        "create the topic first: it is never created by asking";
    /// The topic exists but not this partition.
    UnknownPartition = 13, "unknown_partition", Permanent, "choose one of the topic's partitions";
    /// The topic to be created exists.
    TopicExists = 14, "topic_exists", Permanent,
        "use the topic that there is, or choose another name";
    /// The credentials do not allow this.
    Authorization = 15, "authorization", Permanent, "ask the cluster's owners for the right";
    /// The credentials were refused.
    Authentication = 16, "authentication", Fatal, "check the credentials and the mechanism";
    /// The producer was fenced, or its state on the broker is lost beyond mending.
    Fenced = 17, "fenced", Permanent, "make a new producer";
    /// Requested offset is outside what the partition holds.
    OffsetOutOfRange = 18, "offset_out_of_range", Permanent,
        "choose a start: earliest, latest, or a timestamp";
    /// Fetched bytes are damaged: checksum or structure.
    Corrupt = 19, "corrupt", Permanent, "read past the offset, and look at the broker's disk";
    /// Fetched records use a codec this build cannot read.
    UnsupportedCodec = 20, "unsupported_codec", Permanent, "build with the codec's feature";
    /// Any other error code of the broker; see [`Error::broker_code`].
    Broker = 21, "broker", Permanent, "look up the broker's error code";
    /// The handle was used after `close`.
    Closed = 22, "closed", Fatal, "make a new handle";
    /// The process forked: a client does not survive into the child.
    Forked = 23, "forked", Fatal, "make a new client after the fork";
    /// A fault of this library (a caught panic). Please report it.
    Internal = 24, "internal", Permanent,
        "this is a fault of the library: report it with the message";
    /// The caller cancelled the wait (an interrupted call, an ended context).
    Cancelled = 25, "cancelled", Retriable, "wait again if the result still matters";
    /// The operating system has no thread, descriptor or memory left for this process. Works again
    /// when there is some.
    OutOfResources = 26, "out_of_resources", Retriable,
        "raise the process's limits (ulimit -n, -u), or find out what uses them up";
    /// Another cluster answers at the addresses now, by its id. What was known of the old one says
    /// nothing about it. See [`ClusterChange`](crate::ClusterChange).
    ClusterChanged = 27, "cluster_changed", Fatal,
        "make a new client if the new cluster is meant, or set on_cluster_change to accept";
    /// The log is not the one that was read any more: it was cut back by an unclean election, or its
    /// topic was deleted and made anew. The message says how far it was read and where reading goes on.
    Truncated = 28, "truncated", Permanent,
        "look whether what was made of the records that are gone has to be undone";
    /// Records failed and nobody had looked at them: told by flush, close and the like. See
    /// [`Error::undelivered`].
    Undelivered = 29, "undelivered", Permanent, "keep the handles of records whose fate matters";
    /// TLS with a broker failed: a certificate that is not trusted, on either side, or a listener
    /// without TLS.
    Tls = 30, "tls", Permanent, "look at the certificates of both sides, and at the listener's port";
    /// There is nothing to log in with: no token was to be had. No broker has refused anything.
    Credentials = 31, "credentials", Permanent, "look at where the token comes from";
}

// The C library and Go find a kind by its number.
const _: () = {
    let mut i = 0;
    while i < ErrorKind::ALL.len() {
        assert!(ErrorKind::ALL[i] as usize == i + 1, "a new kind has the next number");
        i += 1;
    }
};

impl ErrorKind {
    /// Whether the same call may succeed later without a change to program or cluster set-up.
    pub(super) fn retriable(self) -> bool {
        self.severity() == Severity::Retriable
    }

    /// Whether the handle that reported it is of no more use.
    pub(super) fn fatal(self) -> bool {
        self.severity() == Severity::Fatal
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
