//! The interface for bindings to other languages: everything that a host asks for is a submission with a tag, and
//! everything that finishes is a [`Completion`] in one queue with one wake-up descriptor.
//!
//! ```text
//! host thread ── submit(tag) ──> HostProducer ────> producer ──> brokers
//!      ^                                                            │
//!      └── drain ── CompletionQueue <── one completion per run ─────┘
//! ```
//!
//! Nothing here calls into the host: the host pulls. The engine's thread only ever pushes into the
//! queue and, when the queue was empty, makes the descriptor readable.
//!
//! A host with an event loop of its own (asyncio) polls the futures of the crate on it, with wakers of [`Wakeups`].
//!
//! [`HostClient::echo`] is the same surface without a broker: submissions complete at once, and its
//! consumers hand back what was submitted. A binding can be tested with it alone.

mod batch;
#[cfg(test)]
mod cluster_tests;
mod completion;
mod consumer;
mod deliveries;
mod echo;
mod group;
#[cfg(test)]
mod group_tests;
mod handle;
mod hold;
mod offsets;
mod operations;
mod options;
mod pack;
mod producer;
mod queue;
mod ready;
mod security;
#[cfg(test)]
mod tests;
mod tokens;
mod wakeups;
mod watch;

use std::collections::BTreeMap;

use crate::error::{Error, Undelivered};
use crate::producer::Producer;

pub mod logs {
    //! Log lines for programs that have no subscriber of `tracing`.

    pub use crate::logs::*;
}

pub use crate::caught::panic_error;
pub use crate::config::Start;
pub use crate::config::foreign::{
    Foreign, Meaning, Owner, Values, foreign, foreign_names, nearest,
};
pub use crate::config::properties::{Plain, Properties, plain_settings};
pub use crate::fork::forks;
pub use batch::{Batch, HeaderViews, RecordView, Wanted, Words};
pub use completion::{Completion, CompletionKind};
pub use consumer::{HostConsumer, Next, reached};
pub use group::{CommitOffset, GroupEvent, GroupOptions, assignors};
pub use handle::HostClient;
pub use hold::{
    Departure, Hold, close_consumer, detach_record, leave_marks_to_host, waits_no_more,
};
pub use offsets::{Offsets, WantedOffset};
pub use options::{ClientOptions, ConsumerOptions, ProducerOptions, Subscription};
pub use pack::{Entry, Packed, PackedEntries, RECORD_HEADER_LEN, pack};
pub use producer::{HostProducer, Submitted};
pub use queue::{CompletionQueue, MAX_UNDRAINED};
pub use security::{CredentialsOptions, TlsOptions, TokenSource, sasl_named, verify_named};
pub use tokens::{HostProvider, TokenRequest, TokenRequests, Wanted as WantedToken};
pub use wakeups::Wakeups;
pub use watch::{OwnedRecord, another, batch_of, connect_later, space_deadline, watch};

/// To be called in the child of a fork, by the thread that forked. Takes no lock.
pub fn in_child() {
    crate::fork::forked_here();
    crate::producer::forget_recent();
}

/// Takes the report of failures of a producer and its clones that nobody has looked at.
pub fn take_undelivered(producer: &Producer) -> Option<Undelivered> {
    producer.take_unread()
}

/// How many records of these producers, and of others that share their batches, are not resolved.
pub fn unresolved_records<'a>(producers: impl IntoIterator<Item = &'a Producer>) -> usize {
    let each = producers.into_iter().map(Producer::unresolved_records);
    each.collect::<BTreeMap<_, _>>().values().sum()
}

/// Calls `then` on the engine once everything is resolved that this producer has taken so far: not at all
/// if the engine ends before. Keeps nothing of the producer alive but its batches.
pub fn when_resolved(producer: &Producer, then: impl FnOnce() + Send + 'static) {
    producer.when_resolved(then);
}

/// The host tells of records that are left when the handles of this producer's pool are dropped: no warning from the core.
pub fn told_by_host(producer: &Producer) {
    producer.told();
}

/// Runs one poll of a future for a thread that waits for nothing else: it does not make room for other
/// tasks of the thread, since there are none.
pub fn poll_alone<T>(poll: impl FnOnce() -> T) -> T {
    crate::coop::alone(poll)
}

/// An error about an argument, for bindings that check what they were given.
pub fn argument_error(message: impl Into<String>) -> Error {
    Error::argument(message)
}

/// The error for the use of a closed handle.
pub fn closed_error(what: &str) -> Error {
    Error::closed(what)
}

/// The error for the use, in the child of a fork, of what its parent has made.
pub fn forked_error() -> Error {
    crate::fork::forked()
}
