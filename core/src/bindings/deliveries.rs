//! Records on their way, by submission: what a client that is closed still owes its host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::completion::{Completion, CompletionKind};
use super::queue::CompletionQueue;
use crate::error::Error;
use crate::producer::{RunResult, RunSink, Unread};

/// The submissions of one producer that are not fully told. Costs per submission and per run,
/// not per record.
pub(crate) struct Deliveries {
    queue: Arc<CompletionQueue>,
    state: Mutex<State>,
    /// Failures that lie in the queue: whoever drains them has looked at them.
    unread: Arc<Unread>,
}

#[derive(Default)]
struct State {
    next: u64,
    open: HashMap<u64, Submission, foldhash::fast::RandomState>,
}

struct Submission {
    /// The host's tag.
    tag: u64,
    /// How many records were accepted; unknown while the call is still at it.
    accepted: Option<u32>,
    told: u32,
    /// Runs that were told: first and count.
    runs: Vec<(u32, u32)>,
}

impl Submission {
    fn is_told(&self) -> bool {
        self.accepted == Some(self.told)
    }

    /// The runs that were not told.
    fn rest(mut self) -> Vec<(u32, u32)> {
        self.runs.sort_unstable();
        let mut at = 0;
        let mut rest = Vec::new();
        for (first, count) in self.runs {
            if first > at {
                rest.push((at, first - at));
            }
            at = first + count;
        }
        let end = self.accepted.unwrap_or(at);
        if end > at {
            rest.push((at, end - at));
        }
        rest
    }
}

impl Deliveries {
    pub(crate) fn new(queue: &Arc<CompletionQueue>) -> Arc<Self> {
        let (queue, unread) = (Arc::clone(queue), Unread::new(None));
        Arc::new(Self { queue, state: Mutex::default(), unread })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The failures that were not drained.
    pub(crate) fn unread(&self) -> &Arc<Unread> {
        &self.unread
    }

    /// A submission begins; its runs are reported under the number that this returns, since a host
    /// may use a tag twice.
    pub(crate) fn begin(&self, tag: u64) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        let id = state.next;
        let submission = Submission { tag, accepted: None, told: 0, runs: Vec::new() };
        state.open.insert(id, submission);
        id
    }

    /// So many of its records were accepted.
    pub(crate) fn accepted(&self, id: u64, count: u32) {
        let mut state = self.lock();
        if let Some(submission) = state.open.get_mut(&id) {
            submission.accepted = Some(count);
            if submission.is_told() {
                state.open.remove(&id);
            }
        }
    }

    /// Fails every record that was accepted and not told. Whatever is reported of them later is
    /// dropped. No submission may be at it.
    pub(crate) fn fail_all(&self, error: &Error) {
        let mut state = self.lock();
        let mut open: Vec<_> = std::mem::take(&mut state.open).into_iter().collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        for (_, submission) in open {
            let tag = submission.tag;
            for (first, count) in submission.rest() {
                let kind = CompletionKind::Delivery;
                let failed = Completion::operation(tag, kind, Some(error.clone()));
                self.queue.push(Completion { first, count, ..failed });
            }
        }
    }
}

impl RunSink for Deliveries {
    fn resolved(&self, run: RunResult<'_>) {
        // Pushed under the lock: a close fails what is left only after what was told.
        let mut state = self.lock();
        let Some(submission) = state.open.get_mut(&run.tag) else { return };
        let tag = submission.tag;
        submission.told += run.count;
        if submission.is_told() {
            state.open.remove(&run.tag);
        } else {
            submission.runs.push((run.first, run.count));
        }
        let kind = CompletionKind::Delivery;
        let completion = match run.outcome {
            Ok(acked) => Completion {
                partition: acked.partition,
                offset: acked.offset,
                timestamp_ms: acked.timestamp_ms,
                ..Completion::operation(tag, kind, None)
            },
            Err(error) => {
                let records = run.count as usize;
                // Another thread may be draining: it has a chance to.
                let counted = self.unread.failed(run.topic, error, records, true);
                let failed = Completion::operation(tag, kind, Some(error.clone()));
                Completion { unread: Some(counted), ..failed }
            }
        };
        self.queue.push(Completion { first: run.first, count: run.count, ..completion });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::error::ErrorKind;
    use crate::producer::Acked;

    fn run(tag: u64, first: u32, count: u32) -> RunResult<'static> {
        let outcome = Ok(Acked { partition: 1, offset: 10, timestamp_ms: 5 });
        static TOPIC: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("t"));
        RunResult { tag, topic: &TOPIC, first, count, outcome }
    }

    #[test]
    fn a_close_fails_exactly_what_was_not_told() {
        let queue = CompletionQueue::new().unwrap();
        let deliveries = Deliveries::new(&queue);
        let a = deliveries.begin(70);
        // Told before the call that submits them is back.
        deliveries.resolved(run(a, 2, 3));
        deliveries.accepted(a, 9);
        deliveries.resolved(run(a, 6, 1));
        let b = deliveries.begin(70);
        deliveries.resolved(run(b, 0, 4));
        deliveries.accepted(b, 4);
        let none = deliveries.begin(71);
        deliveries.accepted(none, 0);
        assert_eq!(deliveries.lock().open.len(), 1, "one of them waits");

        deliveries.fail_all(&Error::closed("client"));
        deliveries.resolved(run(a, 7, 2));
        let mut told = Vec::new();
        queue.drain(&mut told, 99);
        let told: Vec<_> = told
            .iter()
            .map(|c| (c.tag, c.first, c.count, c.error.as_ref().map(Error::kind)))
            .collect();
        let closed = Some(ErrorKind::Closed);
        assert_eq!(
            told,
            [
                (70, 2, 3, None),
                (70, 6, 1, None),
                (70, 0, 4, None),
                (70, 0, 2, closed),
                (70, 5, 1, closed),
                (70, 7, 2, closed),
            ]
        );
    }

    /// A host has them in the order in which it submitted them.
    #[test]
    fn a_close_fails_submissions_in_their_order() {
        let queue = CompletionQueue::new().unwrap();
        let deliveries = Deliveries::new(&queue);
        for tag in 0..50 {
            let id = deliveries.begin(tag);
            deliveries.accepted(id, 1);
        }
        deliveries.fail_all(&Error::closed("client"));
        let mut told = Vec::new();
        queue.drain(&mut told, 99);
        assert!(told.iter().map(|c| c.tag).eq(0..50), "{told:?}");
    }
}
