//! Completions as C sees them.

use ottla::bindings::{Completion, CompletionKind};

use crate::error::ottla_error;

/// The event that a completion reports. New values may be added: ignore those you do not know, but free
/// their error.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_completion_kind {
    /// Records `first` to `first + count - 1` of the submission `tag` are written, or failed.
    OTTLA_COMPLETION_DELIVERY = 1,
    /// The client reached a broker, or did not; `tag` from its options.
    OTTLA_COMPLETION_CONNECTED = 2,
    /// A flush is done.
    OTTLA_COMPLETION_FLUSHED = 3,
    /// A producer is closed, or a consumer has left its group.
    OTTLA_COMPLETION_CLOSED = 4,
    /// A consumer that had nothing should be asked again; `tag` from its options.
    OTTLA_COMPLETION_CONSUMER_READY = 5,
    /// A topic was created, or was not.
    OTTLA_COMPLETION_TOPIC_CREATED = 6,
    /// A producer that had no space has some again; `tag` from its options.
    OTTLA_COMPLETION_SPACE = 7,
    /// A lookup of offsets is done.
    OTTLA_COMPLETION_OFFSETS_LISTED = 8,
    /// A commit of a consumer's group is done.
    OTTLA_COMPLETION_COMMITTED = 9,
}

/// One thing that finished.
#[repr(C)]
pub struct ottla_completion {
    /// Of the submission, the operation or the handle.
    pub tag: u64,
    /// Delivery: offset of record `first`; record `first + k` has `offset + k`. -1: unknown.
    pub offset: i64,
    /// Delivery: timestamp of record `first`, ms since 1970. -1: unknown.
    pub timestamp_ms: i64,
    /// Null: success. Else yours: free it with `ottla_error_free`.
    pub error: *mut ottla_error,
    /// One of `ottla_completion_kind`.
    pub kind: i32,
    /// Delivery: the partition. -1: unknown.
    pub partition: i32,
    /// Delivery: index in the submission of the run's first record.
    pub first: u32,
    /// Delivery: records in the run.
    pub count: u32,
}

impl From<Completion> for ottla_completion {
    fn from(c: Completion) -> Self {
        use ottla_completion_kind::*;
        let kind = match c.kind {
            CompletionKind::Delivery => OTTLA_COMPLETION_DELIVERY as i32,
            CompletionKind::Connected => OTTLA_COMPLETION_CONNECTED as i32,
            CompletionKind::Flushed => OTTLA_COMPLETION_FLUSHED as i32,
            CompletionKind::Closed => OTTLA_COMPLETION_CLOSED as i32,
            CompletionKind::ConsumerReady => OTTLA_COMPLETION_CONSUMER_READY as i32,
            CompletionKind::TopicCreated => OTTLA_COMPLETION_TOPIC_CREATED as i32,
            CompletionKind::Space => OTTLA_COMPLETION_SPACE as i32,
            CompletionKind::OffsetsListed => OTTLA_COMPLETION_OFFSETS_LISTED as i32,
            CompletionKind::Committed => OTTLA_COMPLETION_COMMITTED as i32,
            other => other as i32,
        };
        Self {
            tag: c.tag,
            offset: c.offset,
            timestamp_ms: c.timestamp_ms,
            error: c.error.map_or(std::ptr::null_mut(), ottla_error::boxed),
            kind,
            partition: c.partition,
            first: c.first,
            count: c.count,
        }
    }
}
