//! The handle of a record is its batch's shared state and an index: nothing is allocated for it,
//! and a batch resolves all its records at once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::record::{Acked, BatchAcked};
use crate::blocking::block_on;
use crate::error::{Error, Result};

/// What became of a batch.
#[derive(Clone, Debug)]
pub(crate) struct BatchAck {
    pub(crate) partition: i32,
    pub(crate) base_offset: i64,
    /// The broker's clock, if the topic says so.
    pub(crate) append_time: Option<i64>,
}

pub(crate) type Outcome = Result<BatchAck>;

/// Receives completions without a future per record: what bindings use. Called on the engine's
/// thread, so it must not block or call foreign code.
pub(crate) trait RunSink: Send + Sync {
    fn resolved(&self, run: RunResult<'_>);
}

/// Consecutive records of one submission that share a batch.
pub(crate) struct RunResult<'a> {
    pub(crate) tag: u64,
    /// Index within the submission.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Of the first record; offsets of the others follow.
    pub(crate) outcome: Result<Acked, &'a Error>,
}

pub(super) struct Run {
    pub(super) sink: Arc<dyn RunSink>,
    pub(super) tag: u64,
    pub(super) first: u32,
    pub(super) count: u32,
    /// Index of its first record in the batch, and that record's timestamp.
    pub(super) at: u32,
    timestamp_ms: i64,
}

/// Where a record is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) state: Arc<BatchState>,
    pub(crate) index: u32,
}

/// What ends a batch's waiting.
enum End {
    Resolved(Outcome),
    /// Its records are in other batches now, by index: they waited for their partitions.
    Moved(Vec<Place>),
}

#[derive(Default)]
pub(crate) struct BatchState {
    end: OnceLock<End>,
    waiters: Mutex<Vec<Waker>>,
    runs: Mutex<Vec<Run>>,
}

impl fmt::Debug for BatchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchState")
            .field("ended", &self.end.get().is_some())
            .finish_non_exhaustive()
    }
}

impl BatchState {
    fn waiters(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiters.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Registers a record of a submission; consecutive ones grow the last run. Called under the
    /// open batch's lock, so before the batch can resolve.
    pub(crate) fn add_to_run(
        &self,
        sink: &Arc<dyn RunSink>,
        tag: u64,
        index_in_submission: u32,
        index_in_batch: u32,
        timestamp_ms: i64,
    ) {
        let mut runs = self.runs.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(last) = runs.last_mut()
            && last.tag == tag
            && last.first + last.count == index_in_submission
            && Arc::ptr_eq(&last.sink, sink)
        {
            last.count += 1;
            return;
        }
        runs.push(Run {
            sink: Arc::clone(sink),
            tag,
            first: index_in_submission,
            count: 1,
            at: index_in_batch,
            timestamp_ms,
        });
    }

    /// The submissions whose records are in this batch, in the batch's order; they are told by
    /// whoever takes them.
    pub(super) fn take_runs(&self) -> Vec<Run> {
        std::mem::take(&mut *self.runs.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Once per batch, and the only place where one resolves.
    pub(crate) fn resolve(&self, outcome: Outcome) {
        if self.end.set(End::Resolved(outcome)).is_err() {
            debug_assert!(false, "a batch resolved twice");
            return;
        }
        let Some(End::Resolved(outcome)) = self.end.get() else { unreachable!("set above") };
        for run in self.take_runs() {
            let result = match outcome {
                Ok(ack) => Ok(acked(ack, run.at, run.timestamp_ms)),
                Err(e) => Err(e),
            };
            run.sink.resolved(RunResult {
                tag: run.tag,
                first: run.first,
                count: run.count,
                outcome: result,
            });
        }
        self.wake();
    }

    /// In place of resolving: who waits is to look at its record's new place.
    pub(super) fn moved(&self, places: Vec<Place>) {
        debug_assert!(self.end.get().is_none(), "a batch that is resolved cannot move");
        let _ = self.end.set(End::Moved(places));
        self.wake();
    }

    fn wake(&self) {
        for waker in std::mem::take(&mut *self.waiters()) {
            waker.wake();
        }
    }

    /// The outcome of the record with this index, and its index in the batch that resolved it.
    fn outcome(&self, index: u32) -> Option<(&Outcome, u32)> {
        match self.end.get()? {
            End::Resolved(outcome) => Some((outcome, index)),
            End::Moved(places) => {
                let place = &places[index as usize];
                place.state.outcome(place.index)
            }
        }
    }

    /// `slot` is where this waiter's waker is kept.
    fn poll(&self, slot: &mut Option<u32>, cx: &mut Context<'_>) -> Poll<&End> {
        if let Some(end) = self.end.get() {
            return Poll::Ready(end);
        }
        let mut waiters = self.waiters();
        // Ended in between: whoever ended it took the waiters before this one was in.
        if let Some(end) = self.end.get() {
            return Poll::Ready(end);
        }
        if let Some(waker) = slot.and_then(|i| waiters.get_mut(i as usize)) {
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        // One task that waits for many records of a batch needs one place, not one for each.
        if !waiters.last().is_some_and(|w| w.will_wake(cx.waker())) {
            *slot = Some(waiters.len() as u32);
            waiters.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

fn acked(ack: &BatchAck, index: u32, timestamp_ms: i64) -> Acked {
    Acked {
        partition: ack.partition,
        offset: if ack.base_offset < 0 { -1 } else { ack.base_offset + i64::from(index) },
        timestamp_ms: ack.append_time.unwrap_or(timestamp_ms),
    }
}

/// What will become of one record: a future for any executor. Resolves exactly once, by the
/// delivery timeout at the latest; dropping it changes nothing about the record.
#[derive(Debug)]
#[must_use = "dropping it is fine, but then nobody learns what became of the record"]
pub struct Delivery {
    state: Arc<BatchState>,
    index: u32,
    timestamp_ms: i64,
    slot: Option<u32>,
}

impl Delivery {
    pub(crate) fn new(state: Arc<BatchState>, index: u32, timestamp_ms: i64) -> Self {
        Self { state, index, timestamp_ms, slot: None }
    }

    /// The result, if it is there.
    pub fn try_get(&self) -> Option<Result<Acked>> {
        let (outcome, index) = self.state.outcome(self.index)?;
        Some(self.read(outcome, index))
    }

    /// Whether the result is there.
    pub fn is_done(&self) -> bool {
        self.state.outcome(self.index).is_some()
    }

    /// Blocks the thread until the result is there; `None` waits until the delivery timeout.
    ///
    /// # Errors
    /// The record's own error; or one of kind `Timeout` after `timeout`, which leaves the record on
    /// its way and this handle usable (its `maybe_written` is true, since the record may arrive).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Acked> {
        match block_on(&mut *self, timeout) {
            Some(result) => result,
            None => Err(still_waiting(timeout)),
        }
    }

    fn read(&self, outcome: &Outcome, index: u32) -> Result<Acked> {
        match outcome {
            Ok(ack) => Ok(acked(ack, index, self.timestamp_ms)),
            Err(e) => Err(e.clone()),
        }
    }
}

fn still_waiting(timeout: Option<Duration>) -> Error {
    Error::timeout("waiting for the acknowledgement", timeout.unwrap_or_default())
        .with_maybe_written(true)
}

impl Future for Delivery {
    type Output = Result<Acked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let place = match this.state.poll(&mut this.slot, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(End::Resolved(outcome)) => {
                    return Poll::Ready(this.read(outcome, this.index));
                }
                Poll::Ready(End::Moved(places)) => places[this.index as usize].clone(),
            };
            this.state = place.state;
            this.index = place.index;
            this.slot = None;
        }
    }
}

/// What will become of the records of one `send_batch`.
#[derive(Debug, Default)]
#[must_use = "dropping it is fine, but then nobody learns what became of the records"]
pub struct BatchDelivery {
    parts: Vec<Arc<BatchState>>,
    records: usize,
    done: usize,
    slot: Option<u32>,
    failed: Option<Error>,
}

impl BatchDelivery {
    pub(crate) fn add(&mut self, state: &Arc<BatchState>) {
        self.records += 1;
        if !self.parts.last().is_some_and(|last| Arc::ptr_eq(last, state)) {
            self.parts.push(Arc::clone(state));
        }
    }

    /// How many records it stands for.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether it stands for none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether every record is resolved.
    pub fn is_done(&self) -> bool {
        self.parts.iter().all(|p| p.end.get().is_some())
    }

    /// Blocks the thread until every record is resolved. See [`Delivery::wait`].
    ///
    /// # Errors
    /// The first error among the records, or `Timeout`.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<BatchAcked> {
        match block_on(&mut *self, timeout) {
            Some(result) => result,
            None => Err(still_waiting(timeout)),
        }
    }
}

impl Future for BatchDelivery {
    type Output = Result<BatchAcked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        while let Some(part) = this.parts.get(this.done) {
            match part.poll(&mut this.slot, cx) {
                Poll::Pending => return Poll::Pending,
                // Values without keys do not wait for a partition, so they do not move.
                Poll::Ready(end) => {
                    if let End::Resolved(Err(e)) = end {
                        this.failed.get_or_insert_with(|| e.clone());
                    }
                    this.done += 1;
                    this.slot = None;
                }
            }
        }
        Poll::Ready(match &this.failed {
            Some(e) => Err(e.clone()),
            None => Ok(BatchAcked { records: this.records }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// Tag, first, count, and where the first record is.
    type Seen = (u64, u32, u32, Option<Acked>);

    struct Sink(Mutex<Vec<Seen>>);

    impl RunSink for Sink {
        fn resolved(&self, run: RunResult<'_>) {
            self.0.lock().unwrap().push((run.tag, run.first, run.count, run.outcome.ok()));
        }
    }

    #[test]
    fn runs_are_one_completion_per_submission_and_batch() {
        let state = BatchState::default();
        let seen = Arc::new(Sink(Mutex::default()));
        let sink: Arc<dyn RunSink> = seen.clone();
        for i in 0..3 {
            state.add_to_run(&sink, 7, i, 10 + i, 5);
        }
        state.add_to_run(&sink, 8, 0, 13, 5);
        state.resolve(Ok(BatchAck { partition: 2, base_offset: 100, append_time: None }));
        let at = |offset| Some(Acked { partition: 2, offset, timestamp_ms: 5 });
        assert_eq!(*seen.0.lock().unwrap(), [(7, 0, 3, at(110)), (8, 0, 1, at(113))]);
    }

    #[test]
    fn a_wait_that_times_out_leaves_the_handle_usable() {
        let state = Arc::new(BatchState::default());
        let mut delivery = Delivery::new(Arc::clone(&state), 4, 9);
        let e = delivery.wait(Some(Duration::ZERO)).unwrap_err();
        assert!(e.kind() == ErrorKind::Timeout && e.maybe_written());
        state.resolve(Ok(BatchAck { partition: 0, base_offset: 10, append_time: Some(3) }));
        let want = Acked { partition: 0, offset: 14, timestamp_ms: 3 };
        assert_eq!(delivery.wait(None).unwrap(), want);
        assert_eq!(delivery.try_get().unwrap().unwrap(), want);
    }
}
