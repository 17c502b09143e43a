//! What finishes, and who hears of it: the queue, or one thread that waits.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::queue::CompletionQueue;
use crate::error::{Error, Result};
use crate::producer::Counted;

/// The kind of a [`Completion`]. The numbers are part of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum CompletionKind {
    /// Records `first .. first + count` of the submission `tag` are written (or failed).
    Delivery = 1,
    /// The client reached a broker, or did not.
    Connected = 2,
    /// A flush is done: everything accepted before it is resolved.
    Flushed = 3,
    /// A producer is closed, or a consumer has left its group.
    Closed = 4,
    /// A consumer that had nothing now has something; `tag` is the consumer's.
    ConsumerReady = 5,
    /// A topic was created, or was not.
    TopicCreated = 6,
    /// A producer that had no buffer space has some again; `tag` is the producer's.
    Space = 7,
    /// A lookup of offsets is done.
    OffsetsListed = 8,
    /// A commit of a consumer's group is done.
    Committed = 9,
}

/// One thing that finished.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The tag that the submission, or the handle, was given.
    pub tag: u64,
    /// Its kind.
    pub kind: CompletionKind,
    /// `Delivery`: index in the submission of the first record of the run; else 0.
    pub first: u32,
    /// `Delivery`: how many records the run has; else 0.
    pub count: u32,
    /// `Delivery` without error: the partition; else -1.
    pub partition: i32,
    /// `Delivery` without error: the offset of record `first`; record `first + k` has
    /// `offset + k`. -1 if the broker knew the records only as duplicates.
    pub offset: i64,
    /// `Delivery` without error: the timestamp of record `first` in ms since 1970; -1 if unknown.
    pub timestamp_ms: i64,
    /// Why it failed; `None` is success.
    pub error: Option<Error>,
    /// Where the failure is counted until somebody drains it.
    pub(crate) unread: Option<Counted>,
}

impl Completion {
    /// A completion that is not a delivery.
    pub(crate) fn operation(tag: u64, kind: CompletionKind, error: Option<Error>) -> Self {
        Self {
            tag,
            kind,
            first: 0,
            count: 0,
            partition: -1,
            offset: -1,
            timestamp_ms: -1,
            error,
            unread: None,
        }
    }

    /// The host has it now.
    pub(super) fn looked_at(&mut self) {
        if let Some(counted) = self.unread.take() {
            counted.looked_at(self.count as usize);
        }
    }
}

/// Whoever is told how one operation ended: told exactly once. Dropped untold (its task was
/// dropped with the engine), it says that the handle is closed: no operation is left hanging.
pub(crate) struct Reply(Option<To>);

enum To {
    Queue { queue: Arc<CompletionQueue>, tag: u64, kind: CompletionKind },
    Waiter(Arc<Waiter>),
}

impl Reply {
    pub(crate) fn queue(queue: &Arc<CompletionQueue>, tag: u64, kind: CompletionKind) -> Self {
        Self(Some(To::Queue { queue: queue.clone(), tag, kind }))
    }

    pub(crate) fn waiter() -> (Self, Arc<Waiter>) {
        let waiter = Arc::new(Waiter::default());
        (Self(Some(To::Waiter(waiter.clone()))), waiter)
    }

    pub(crate) fn resolve(mut self, outcome: Result<()>) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Result<()>) {
        match self.0.take() {
            None => {}
            Some(To::Queue { queue, tag, kind }) => {
                queue.push(Completion::operation(tag, kind, outcome.err()));
            }
            Some(To::Waiter(waiter)) => waiter.set(outcome),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.tell(Err(Error::closed("client")));
        }
    }
}

/// Lets one thread wait for one operation.
#[derive(Default)]
pub(crate) struct Waiter {
    outcome: Mutex<Option<Result<()>>>,
    told: Condvar,
}

impl Waiter {
    fn set(&self, outcome: Result<()>) {
        *self.outcome.lock().unwrap_or_else(|e| e.into_inner()) = Some(outcome);
        self.told.notify_all();
    }

    /// Ends with the outcome or after `timeout` (`None`: however long it takes; the operation has
    /// a deadline of its own, and the end of the engine resolves it).
    pub(crate) fn wait(&self, what: &str, timeout: Option<Duration>) -> Result<()> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut slot = self.outcome.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            if let Some(outcome) = slot.take() {
                return outcome;
            }
            slot = match deadline {
                None => self.told.wait(slot).unwrap_or_else(|e| e.into_inner()),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Error::timeout(what, timeout.unwrap_or_default()));
                    }
                    self.told.wait_timeout(slot, left).unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
    }
}
