//! The handle of a record is its batch's shared state and an index: nothing is allocated for it,
//! and a batch resolves all its records at once.

mod outcome;
mod state;
mod unread;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use super::record::{Acked, BatchAcked};
use crate::error::{Error, Result};
use crate::park::block_on;
use crate::{coop, fork};

use state::{BatchState, RecordIndex, Resolved, StateRef};

pub(super) use outcome::{Outcome, Resolution};
pub(super) use state::{Owner, RecordLocation, Sent};
pub(super) use unread::Producers;
pub(crate) use unread::{Counted, Unread};

/// Where an acknowledged batch is.
#[derive(Clone, Debug)]
pub(crate) struct BatchAck {
    pub(super) partition: i32,
    pub(super) base_offset: i64,
    /// When the broker appended it, by its clock, if the topic has `message.timestamp.type` LogAppendTime.
    pub(super) append_time: Option<i64>,
}

pub(crate) type BatchResult = Result<BatchAck>;

/// Receives the results of records in runs, without a future for each record. For bindings. Called on the engine's
/// thread, so it must not block or call foreign code.
pub(crate) trait RunSink: Send + Sync {
    fn resolved(&self, run: RunResult<'_>);
}

/// Consecutive records of one submission that share a batch.
pub(crate) struct RunResult<'a> {
    pub(crate) tag: u64,
    pub(crate) topic: &'a Arc<str>,
    /// Index within the submission.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// The offset of the first record; those of the others follow it.
    pub(crate) outcome: Result<Acked, &'a Error>,
}

/// Which run of a submission a record belongs to: its result is reported to `sink`.
#[derive(Clone, Copy)]
pub(crate) struct RunTag<'a> {
    pub(super) sink: &'a Arc<dyn RunSink>,
    pub(super) tag: u64,
    /// Index within the submission.
    pub(super) index: u32,
}

/// A run whose result is not told yet.
pub(super) struct Run {
    sink: Arc<dyn RunSink>,
    tag: u64,
    first: u32,
    count: u32,
    /// Index of its first record in the batch, and that record's timestamp.
    at: u32,
    timestamp_ms: i64,
}

impl Run {
    pub(super) fn tell(&self, outcome: &BatchResult, topic: &Arc<str>) {
        let outcome = match outcome {
            Ok(ack) => Ok(acked(ack, self.at, self.timestamp_ms)),
            Err(e) => Err(e),
        };
        self.sink.resolved(RunResult {
            tag: self.tag,
            topic,
            first: self.first,
            count: self.count,
            outcome,
        });
    }

    /// Each of its records: the index in the batch, and where its result is told.
    pub(super) fn tags(&self) -> impl Iterator<Item = (u32, RunTag<'_>)> {
        (0..self.count).map(|i| {
            (self.at + i, RunTag { sink: &self.sink, tag: self.tag, index: self.first + i })
        })
    }
}

impl BatchState {
    /// Registers so many records of a submission, which follow each other there and in the batch; what continues the last
    /// run makes it longer. `timestamp_ms` is the first one's. Called under the open batch's lock, so before the batch can
    /// resolve.
    pub(super) fn add_to_run(&self, run: RunTag<'_>, at: u32, count: u32, timestamp_ms: i64) {
        self.add_run(|runs| {
            if let Some(last) = runs.last_mut()
                && last.tag == run.tag
                && last.first + last.count == run.index
                && Arc::ptr_eq(&last.sink, run.sink)
            {
                last.count += count;
                return;
            }
            runs.push(Run {
                sink: Arc::clone(run.sink),
                tag: run.tag,
                first: run.index,
                count,
                at,
                timestamp_ms,
            });
        });
    }
}

#[inline]
fn acked(ack: &BatchAck, index: u32, timestamp_ms: i64) -> Acked {
    Acked {
        partition: ack.partition,
        offset: if ack.base_offset < 0 { -1 } else { ack.base_offset.saturating_add(index.into()) },
        timestamp_ms: ack.append_time.unwrap_or(timestamp_ms),
    }
}

/// The handle of one record: a future of its result, for any executor. Resolves exactly once, by the delivery
/// timeout at the latest. Dropping it changes nothing about the record.
#[derive(Debug)]
#[must_use = "dropping it is fine, but then nobody learns what became of the record"]
pub struct Delivery {
    state_ref: StateRef,
    record: RecordIndex,
}

impl Delivery {
    /// Whether its record is the first of its batch.
    pub(super) fn is_first(&self) -> bool {
        self.record.index() == 0
    }

    #[inline]
    pub(crate) fn new(state_ref: StateRef, record: RecordIndex) -> Self {
        Self { state_ref, record }
    }

    #[inline(always)]
    fn acked(&self, ack: &BatchAck) -> Acked {
        let timestamp_ms = match ack.append_time {
            Some(time) => time,
            None => self.state_ref.state().timestamp_ms(self.record),
        };
        acked(ack, self.record.index(), timestamp_ms)
    }

    /// The result, if it is there.
    #[inline]
    pub fn try_get(&self) -> Option<Result<Acked>> {
        match self.state_ref.state().acknowledged() {
            Some(ack) => Some(Ok(self.acked(&ack))),
            None => self.look(true),
        }
    }

    /// The same, but a failure still counts as one that nobody has looked at: the producer's flush or close reports
    /// it. For code that prints or counts handles.
    pub fn peek(&self) -> Option<Result<Acked>> {
        self.look(false)
    }

    #[cold]
    fn look(&self, tell: bool) -> Option<Result<Acked>> {
        let state = self.state_ref.state();
        if state.is_orphaned() {
            return Some(Err(fork::forked()));
        }
        match state.find(self.record.index())? {
            Resolved::Acknowledged(ack) => Some(Ok(self.acked(&ack))),
            Resolved::Failed(error) => {
                if tell {
                    state.look_at(self.record.index(), 1);
                }
                Some(Err(error))
            }
            Resolved::Moved(place) => Self::new(place.state_ref, place.record).look(tell),
        }
    }

    /// Whether the result is there.
    pub fn is_done(&self) -> bool {
        self.peek().is_some()
    }

    /// The number of the batch that its record is in, which no other one has that is not resolved. `None` if it is
    /// resolved. For bindings.
    pub(crate) fn batch(&self) -> Option<u32> {
        let state = self.state_ref.state();
        if state.is_pending() {
            return Some(state.number());
        }
        match state.find(self.record.index())? {
            Resolved::Moved(place) => Self::new(place.state_ref, place.record).batch(),
            Resolved::Acknowledged(_) | Resolved::Failed(_) => None,
        }
    }

    /// Wakes this waker once that batch is resolved or the record has moved to another one; `false` if there is nothing
    /// to wait for. Whoever waits for the record itself does so all the same. For bindings.
    pub(crate) fn watch(&self, waker: Waker) -> bool {
        let state = self.state_ref.state();
        match state.find(self.record.index()) {
            Some(Resolved::Moved(place)) => Self::new(place.state_ref, place.record).watch(waker),
            Some(_) => false,
            None => state.watch(waker),
        }
    }

    /// Another handle of the same record, to be watched and not to be polled. For bindings.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.state_ref.clone(), self.record)
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
}

fn still_waiting(timeout: Option<Duration>) -> Error {
    Error::timeout("waiting for the acknowledgement", timeout.unwrap_or_default())
        .with_maybe_written(true)
}

impl Future for Delivery {
    type Output = Result<Acked>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match this.state_ref.state().acknowledged() {
            Some(ack) if !this.record.index().is_multiple_of(TURN) => {
                Poll::Ready(Ok(this.acked(&ack)))
            }
            _ => this.wait_or_fail(cx),
        }
    }
}

/// One in this many acknowledged records of a batch asks whether other tasks should run. To ask for each record
/// would cost as much as reading its result.
const TURN: u32 = 64;

impl Delivery {
    #[cold]
    fn wait_or_fail(&mut self, cx: &mut Context<'_>) -> Poll<Result<Acked>> {
        let outcome = loop {
            if self.state_ref.state().is_orphaned() {
                return Poll::Ready(Err(fork::forked()));
            }
            match self.state_ref.state().poll(self.record.index(), cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Resolved::Acknowledged(ack)) => break Ok(self.acked(&ack)),
                Poll::Ready(Resolved::Failed(error)) => break Err(error),
                Poll::Ready(Resolved::Moved(place)) => {
                    *self = Self::new(place.state_ref, place.record)
                }
            }
        };
        ready!(coop::poll_turn(cx));
        coop::spend(1);
        if outcome.is_err() {
            self.state_ref.state().look_at(self.record.index(), 1);
        }
        Poll::Ready(outcome)
    }
}

/// Those records of a `send_batch` that are in one batch: the mark of the first, and how many there are. All of them
/// have the same timestamp.
#[derive(Debug)]
struct DeliveryPart {
    state_ref: StateRef,
    first: RecordIndex,
    records: u32,
}

impl DeliveryPart {
    /// If its records were moved to other batches: where they are now.
    fn moved(&self) -> Option<Vec<Self>> {
        let places = self.state_ref.state().places(self.first.index(), self.records)?;
        let mut parts: Vec<Self> = Vec::new();
        for RecordLocation { state_ref, record } in places {
            match parts.last_mut() {
                Some(last)
                    if last.state_ref.is(&state_ref)
                        && record.continues(last.first, last.records) =>
                {
                    last.records += 1;
                }
                _ => parts.push(Self { state_ref, first: record, records: 1 }),
            }
        }
        Some(parts)
    }

    fn is_done(&self) -> bool {
        match self.moved() {
            Some(parts) => parts.iter().all(Self::is_done),
            None => !self.state_ref.state().is_pending() || self.state_ref.state().is_orphaned(),
        }
    }

    /// The handle of one of its records.
    fn handle(&self, at: u32) -> Delivery {
        Delivery::new(self.state_ref.clone(), self.first.plus(at))
    }

    /// The application has read a failure: its records do not count as unread any more.
    fn look_at(&self) {
        if let Some(Resolved::Failed(_)) = self.state_ref.state().find(self.first.index()) {
            self.state_ref.state().look_at(self.first.index(), self.records);
        }
    }
}

/// The handle of the records of one `send_batch`: a future that is ready when all of them are resolved.
#[derive(Debug, Default)]
#[must_use = "dropping it is fine, but then nobody learns what became of the records"]
pub struct BatchDelivery {
    parts: Vec<DeliveryPart>,
    records: usize,
    done: usize,
    failed: Option<Error>,
}

impl BatchDelivery {
    /// A batch has accepted so many records, from index `first` on.
    #[inline]
    pub(super) fn add(&mut self, records: usize, first: u32, owner: &mut Owner) {
        self.records += records;
        match self.parts.last_mut() {
            Some(last)
                if owner.gave(&last.state_ref) && last.first.index() + last.records == first =>
            {
                last.records += records as u32;
            }
            _ => self.parts.push(DeliveryPart {
                state_ref: owner.state_ref(),
                first: owner.record(first, None),
                records: records as u32,
            }),
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
        self.parts[self.done..].iter().all(DeliveryPart::is_done)
    }

    /// The result of each record, in the order of the values: where it is, or the error it failed with. `None` for
    /// records that are not resolved yet. Failures that this gives count as looked at.
    pub fn outcomes(&self) -> impl Iterator<Item = Option<Result<Acked>>> + '_ {
        let handles = |part: &'_ DeliveryPart| {
            let handles: Vec<_> = (0..part.records).map(|at| part.handle(at)).collect();
            handles
        };
        self.parts.iter().flat_map(handles).map(|handle| handle.try_get())
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
        ready!(coop::poll_turn(cx));
        while let Some(part) = this.parts.get(this.done) {
            if part.state_ref.state().is_orphaned() {
                return Poll::Ready(Err(fork::forked()));
            }
            match part.state_ref.state().poll(part.first.index(), cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Resolved::Moved(_)) => {
                    let parts = part.moved().unwrap_or_default();
                    this.parts.splice(this.done..=this.done, parts);
                    continue;
                }
                Poll::Ready(Resolved::Failed(e)) => drop(this.failed.get_or_insert(e)),
                Poll::Ready(Resolved::Acknowledged(_)) => {}
            }
            this.done += 1;
        }
        coop::spend(1);
        if this.failed.is_some() {
            this.parts.iter().for_each(DeliveryPart::look_at);
        }
        Poll::Ready(match &this.failed {
            Some(e) => Err(e.clone()),
            None => Ok(BatchAcked { records: this.records }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

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
        let owner = Owner::new(0);
        let seen = Arc::new(Sink(Mutex::default()));
        let sink: Arc<dyn RunSink> = seen.clone();
        for i in 0..3 {
            owner.state().add_to_run(RunTag { sink: &sink, tag: 7, index: i }, 10 + i, 1, 5);
        }
        owner.state().add_to_run(RunTag { sink: &sink, tag: 8, index: 0 }, 13, 1, 5);
        owner.resolve_nobodys(&Ok(BatchAck { partition: 2, base_offset: 100, append_time: None }));
        let at = |offset| Some(Acked { partition: 2, offset, timestamp_ms: 5 });
        assert_eq!(*seen.0.lock().unwrap(), [(7, 0, 3, at(110)), (8, 0, 1, at(113))]);
    }

    /// The record between went elsewhere.
    #[test]
    fn a_run_ends_where_a_record_of_the_submission_is_missing() {
        let owner = Owner::new(0);
        let seen = Arc::new(Sink(Mutex::default()));
        let sink: Arc<dyn RunSink> = seen.clone();
        for (at, index) in (10..).zip([0, 1, 3]) {
            owner.state().add_to_run(RunTag { sink: &sink, tag: 7, index }, at, 1, 5);
        }
        owner.resolve_nobodys(&Ok(BatchAck { partition: 2, base_offset: 100, append_time: None }));
        let at = |offset| Some(Acked { partition: 2, offset, timestamp_ms: 5 });
        assert_eq!(*seen.0.lock().unwrap(), [(7, 0, 2, at(110)), (7, 3, 1, at(112))]);
    }

    #[test]
    fn of_several_failures_the_first_is_told() {
        let mut all = BatchDelivery::default();
        let kinds = [ErrorKind::Timeout, ErrorKind::Closed];
        for kind in kinds {
            let mut owner = Owner::new(0);
            all.add(1, 0, &mut owner);
            owner.resolve_nobodys(&Err(Error::new(kind, "by the test")));
        }
        assert_eq!(all.wait(None).unwrap_err().kind(), ErrorKind::Timeout);
        let each: Vec<_> = all.outcomes().map(|o| o.unwrap().unwrap_err().kind()).collect();
        assert_eq!(each, kinds);
    }

    #[test]
    fn a_wait_that_times_out_leaves_the_handle_usable() {
        let mut owner = Owner::new(9);
        let mut delivery = Delivery::new(owner.state_ref(), owner.record(4, None));
        let e = delivery.wait(Some(Duration::ZERO)).unwrap_err();
        assert!(e.kind() == ErrorKind::Timeout && e.maybe_written());
        owner.resolve_nobodys(&Ok(BatchAck {
            partition: 0,
            base_offset: 10,
            append_time: Some(3),
        }));
        let want = Acked { partition: 0, offset: 14, timestamp_ms: 3 };
        assert_eq!(delivery.wait(None).unwrap(), want);
        assert_eq!(delivery.try_get().unwrap().unwrap(), want);
    }

    #[test]
    fn who_watches_a_batch_is_woken_once_whoever_else_waits() {
        let mut owner = Owner::new(0);
        let mut one = Delivery::new(owner.state_ref(), owner.record(0, None));
        let two = Delivery::new(owner.state_ref(), owner.record(1, None));
        let counters: [Arc<Wakes>; 3] = Default::default();
        let [waits, watches, too] = counters.each_ref().map(|counter| Waker::from(counter.clone()));
        assert!(one.batch().is_some() && one.batch() == two.another().batch());
        assert!(Pin::new(&mut one).poll(&mut Context::from_waker(&waits)).is_pending());
        assert!(one.watch(watches) && two.watch(too));
        let (topic, producers) = ("t".into(), Producers::default());
        let sent = state::Sent { topic: &topic, producers: &producers, records: 2 };
        owner.resolve(&Err(Error::closed("client")), &sent);
        assert_eq!(counters.each_ref().map(|counter| counter.0.load(Ordering::SeqCst)), [1; 3]);
        assert!(two.batch().is_none() && !two.watch(waits));
        assert_eq!(two.try_get().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    }

    /// It is looked at again, and found where it is now.
    #[test]
    fn who_watches_is_woken_when_records_move() {
        let (mut old, mut new) = (Owner::new(0), Owner::new(0));
        let delivery = Delivery::new(old.state_ref(), old.record(0, None));
        let counters: [Arc<Wakes>; 2] = Default::default();
        let [before, after] = counters.each_ref().map(|counter| Waker::from(counter.clone()));
        let number = delivery.batch();
        assert!(delivery.watch(before));
        old.moved(vec![RecordLocation { state_ref: new.state_ref(), record: new.record(5, None) }]);
        assert_eq!(counters[0].0.load(Ordering::SeqCst), 1);
        assert!(delivery.batch().is_some() && delivery.batch() != number);
        assert!(delivery.watch(after));
        new.resolve_nobodys(&Ok(BatchAck { partition: 0, base_offset: 10, append_time: Some(3) }));
        assert_eq!(counters[1].0.load(Ordering::SeqCst), 1);
        assert_eq!(delivery.try_get().unwrap().unwrap().offset, 15);
    }

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_size_of_a_handle() {
        // Two registers: a send returns it without going through memory.
        assert_eq!(size_of::<Result<Delivery>>(), 16);
    }
}
