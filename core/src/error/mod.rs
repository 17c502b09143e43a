//! One error type for the whole crate: what happened, whether trying again helps, whether the
//! record may have been written all the same, and what to do about it.

mod codes;
mod kind;
mod undelivered;
#[cfg(test)]
mod words;

pub(crate) use codes::names;
pub use codes::{BrokerCode, ErrorScope};
pub(crate) use codes::{Written, definitely_unwritten, describe};
pub use kind::ErrorKind;
pub use undelivered::Undelivered;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Advice for responses that no Kafka broker gives, on a connection that has worked before.
pub(crate) const NOT_THE_PROTOCOL: &str = "find out what answers there: a broker of another make, or \
                                           something in between, does not keep to Kafka's protocol";

/// Advice for records that name a partition: they need not name one.
pub(crate) const OR_NO_PARTITION: &str = "choose one of the topic's partitions, or none at all";

const TRY_AGAIN: &str = "try again; if it repeats, look at the broker's log";

/// The advice for a code, where the advice of its kind does not fit.
fn advice_for(code: &BrokerCode) -> Option<&'static str> {
    Some(match code.code {
        names::UNKNOWN_SERVER_ERROR | names::INVALID_REQUEST => {
            "look at the broker's log, which says why"
        }
        names::CORRUPT_MESSAGE => {
            "try again; if it repeats, look at the memory of this machine and at the network"
        }
        names::INVALID_TOPIC_EXCEPTION => {
            "choose a name of 1 to 249 letters, digits, '.', '_' and '-'"
        }
        names::NOT_ENOUGH_REPLICAS | names::NOT_ENOUGH_REPLICAS_AFTER_APPEND => {
            "try again when more replicas are in sync: there are fewer than the topic's \
             min.insync.replicas"
        }
        names::INVALID_TIMESTAMP => {
            "correct the timestamp, or the topic's message.timestamp.before.max.ms and \
             message.timestamp.after.max.ms"
        }
        names::UNSUPPORTED_SASL_MECHANISM => {
            "use a mechanism that the listener has, or have it enabled (sasl.enabled.mechanisms)"
        }
        names::ILLEGAL_SASL_STATE => "leave sasl out, or use the port of a listener with SASL",
        names::UNSUPPORTED_VERSION => "do without what was asked for, or use brokers that offer it",
        names::NOT_CONTROLLER => "try again: the cluster changes its controller",
        names::UNSUPPORTED_FOR_MESSAGE_FORMAT => "use a topic whose message format is newer",
        names::POLICY_VIOLATION => "keep to the policy of the cluster, or ask its owners",
        names::OUT_OF_ORDER_SEQUENCE_NUMBER | names::UNKNOWN_PRODUCER_ID => {
            "read whether the record is there before it is sent again"
        }
        names::KAFKA_STORAGE_ERROR => "try again; if it repeats, look at the broker's disks",
        names::UNSUPPORTED_COMPRESSION_TYPE => {
            "choose another codec: the broker does not take this one"
        }
        names::INVALID_RECORD => {
            "look at the topic's settings: one that is compacted takes no record without a key"
        }
        names::THROTTLING_QUOTA_EXCEEDED => "ask for less at a time, or have the quota raised",
        names::UNKNOWN_TOPIC_ID => "try again: the topic was deleted, or made anew",
        names::OFFSET_MOVED_TO_TIERED_STORAGE => {
            "choose a start that the partition has: earliest, latest, or a timestamp"
        }
        _ if code.retriable && code.kind == ErrorKind::Broker => TRY_AGAIN,
        _ => return None,
    })
}

/// The error of every call. Cheap to clone: a batch that fails hands one to each of its records.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    /// The advice for this error, if it differs from that of its kind.
    advice: Option<&'static str>,
    broker_code: Option<i16>,
    retriable: bool,
    fatal: bool,
    maybe_written: bool,
    undelivered: Option<Box<Undelivered>>,
    /// The batch that cannot be read: topic, partition, offset.
    unreadable: Option<Box<(Arc<str>, i32, i64)>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            advice: None,
            broker_code: None,
            retriable: kind.retriable(),
            fatal: kind.fatal(),
            maybe_written: false,
            undelivered: None,
            unreadable: None,
        }))
    }

    /// The error for a code that a broker answered; `what` names the scope ("topic 'events'").
    pub(crate) fn broker(code: i16, what: impl fmt::Display, broker_message: Option<&str>) -> Self {
        let entry = describe(code);
        let message = match broker_message {
            Some(text) if !text.is_empty() => {
                format!("{what}: {text} ({}, code {code})", entry.name)
            }
            _ => format!("{what}: {} (code {code})", entry.name),
        };
        Self(Arc::new(Inner {
            kind: entry.kind,
            message,
            advice: advice_for(&entry),
            broker_code: Some(code),
            retriable: entry.retriable,
            fatal: entry.fatal,
            maybe_written: false,
            undelivered: None,
            unreadable: None,
        }))
    }

    /// The same error, changed: it may be shared.
    fn but(&self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Inner::clone(&self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// The same error, marked with whether the record may be in the log all the same.
    pub(crate) fn with_maybe_written(&self, maybe: bool) -> Self {
        if self.0.maybe_written == maybe {
            return self.clone();
        }
        self.but(|inner| inner.maybe_written = maybe)
    }

    /// The same error with words in front of its message.
    pub(crate) fn context(&self, what: impl fmt::Display) -> Self {
        self.but(|inner| inner.message = format!("{what}: {}", inner.message))
    }

    /// The same error with words behind its message.
    pub(crate) fn and(&self, what: impl fmt::Display) -> Self {
        self.but(|inner| inner.message = format!("{}; {what}", inner.message))
    }

    /// The same error in other words.
    pub(crate) fn in_words(&self, message: impl Into<String>) -> Self {
        self.but(|inner| inner.message = message.into())
    }

    /// The same error with a remedy of its own.
    pub(crate) fn advise(&self, advice: &'static str) -> Self {
        self.but(|inner| inner.advice = Some(advice))
    }

    /// The same error where the cluster has said it often enough: trying again will not help soon.
    pub(crate) fn settled(&self) -> Self {
        self.but(|inner| inner.retriable = false)
    }

    /// The same error where the same call may succeed later.
    pub(crate) fn passing(&self) -> Self {
        self.but(|inner| (inner.retriable, inner.fatal) = (true, false))
    }

    /// The same error of a handle that stays of use.
    pub(crate) fn not_fatal(&self) -> Self {
        self.but(|inner| inner.fatal = false)
    }

    /// The same error, which tells of records that nobody had looked at as well.
    pub(crate) fn with_undelivered(&self, lost: Option<Undelivered>) -> Self {
        let Some(lost) = lost else { return self.clone() };
        self.but(|inner| {
            inner.message = format!("{}; {lost}", inner.message);
            inner.maybe_written |= lost.maybe_written;
            inner.undelivered = Some(Box::new(lost));
        })
    }

    /// The same error, of the batch at this offset of a partition.
    pub(crate) fn of_batch(&self, topic: &Arc<str>, partition: i32, offset: i64) -> Self {
        let at = Box::new((Arc::clone(topic), partition, offset));
        self.but(|inner| inner.unreadable = Some(at))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(ErrorKind::Closed, format!("the {what} is closed"))
    }

    pub(crate) fn timeout(what: impl fmt::Display, after: Duration) -> Self {
        Self::new(ErrorKind::Timeout, format!("{what}: no result within {after:?}"))
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message without advice.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The Kafka error code, if a broker answered one.
    pub fn broker_code(&self) -> Option<i16> {
        self.0.broker_code
    }

    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        self.0.retriable
    }

    /// Whether trying again will not help, also with another broker.
    pub(crate) fn is_final(&self) -> bool {
        !self.is_retriable() && self.broker_code().is_none_or(|code| !describe(code).own_fault)
    }

    /// Whether the handle (client, producer, consumer) that gave this error is of no more use.
    pub fn is_fatal(&self) -> bool {
        self.0.fatal
    }

    /// Whether the record may be in the log although its send failed. `false` means that it
    /// certainly is not: sending it again makes no duplicate.
    pub fn maybe_written(&self) -> bool {
        self.0.maybe_written
    }

    /// Records that failed and that nobody had looked at, where the error tells of such: one of kind
    /// [`ErrorKind::Undelivered`], or that of a close whose time was over.
    pub fn undelivered(&self) -> Option<&Undelivered> {
        self.0.undelivered.as_deref()
    }

    /// Topic, partition and offset of the batch that could not be read, where the error tells of one (`Corrupt`,
    /// `UnsupportedCodec`). A consumer that is asked for the next passes over it; who does not want that seeks, or
    /// ends. Where the partition has stopped, a seek behind this offset goes on.
    pub fn unreadable(&self) -> Option<(&str, i32, i64)> {
        let (topic, partition, offset) = self.0.unreadable.as_deref()?;
        Some((topic, *partition, *offset))
    }

    /// One sentence on what the caller can do about this error.
    pub fn advice(&self) -> &'static str {
        match (self.0.kind, &self.0.undelivered) {
            // What made the first fail is what there is to mend.
            (ErrorKind::Undelivered, Some(lost)) => lost.first_error().advice(),
            (kind, _) => self.0.advice.unwrap_or(kind.advice()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.0.message, self.advice())?;
        if self.0.maybe_written {
            f.write_str(match &self.0.undelivered {
                None => " (the record may have been written)",
                Some(_) => " (some of the records may have been written)",
            })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("broker_code", &self.0.broker_code)
            .field("retriable", &self.0.retriable)
            .field("maybe_written", &self.0.maybe_written)
            .finish()
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_do_and_whether_it_may_be_written() {
        let e = Error::timeout("record for 'events'", Duration::from_secs(30));
        assert!(e.is_retriable() && !e.is_fatal() && !e.maybe_written());
        let e = e.with_maybe_written(true);
        assert!(e.to_string().ends_with("(the record may have been written)"), "{e}");
        assert!(e.to_string().contains("allow more time"));
    }

    #[test]
    fn a_brokers_words_are_kept() {
        let e = Error::broker(29, "topic 'x'", Some("Not allowed here."));
        assert_eq!(e.kind(), ErrorKind::Authorization);
        assert_eq!(e.broker_code(), Some(29));
        assert!(e.message().contains("Not allowed here."));
        assert!(!e.is_retriable());
        assert!(!e.is_fatal());
        let fenced = Error::broker(90, "transactional id 'x'", None).context("commit");
        assert!(fenced.is_fatal() && fenced.settled().is_fatal());
    }
}
