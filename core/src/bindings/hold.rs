//! Records of a group's consumer that a thread of the host has in hand, apart from those of other threads.

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use crate::consumer::{Batch, Claim, Consumer, ConsumerControl, Span, Standing};
use crate::error::Result;
use crate::record::RecordPosition;

/// What lies between two offsets of a batch: it is finished when this says so, whatever of the batch is finished before. Keeps
/// nothing of the batch's bytes.
#[derive(Clone, Debug)]
pub struct Hold {
    claim: Arc<Claim>,
    span: Span,
    first: i64,
    next: i64,
}

impl Hold {
    /// From the first of these offsets on to before the second. `None` without a group. `holder` belongs to who has it: once that
    /// is gone nobody can finish it any more, and it is not waited for.
    pub fn new(batch: &Batch, first: i64, next: i64, holder: &Weak<()>) -> Option<Self> {
        let hold = Self::apart(batch, first, next)?;
        batch.claim.marks()?.set_apart(&hold.span, hold.first, hold.next, holder);
        Some(hold)
    }

    /// The same of what nobody has in hand but who keeps this, and is waited for as all of the batch is.
    pub fn apart(batch: &Batch, first: i64, next: i64) -> Option<Self> {
        batch.claim.marks()?;
        let span = batch.span.clone()?;
        let first = if first <= batch.base_offset() { span.first } else { first };
        let next = if next >= batch.next_offset() { span.next } else { next };
        Some(Self { claim: Arc::clone(&batch.claim), span, first, next })
    }

    /// The application has finished it.
    pub fn done(&self) {
        if let Some(marks) = self.claim.marks() {
            marks.done_range(&self.span, self.first, self.next);
        }
    }

    /// Whether it does not matter any more, as the application went elsewhere, or the partition is somebody else's.
    pub fn is_left(&self) -> bool {
        self.claim.standing() == Standing::Left
    }
}

/// One record of a batch in memory of its own, as a batch, and where it is there: for hosts whose records are places in batches. What is
/// done of it is said by a [`Hold`].
pub fn detach_record(batch: &Batch, position: RecordPosition) -> (Batch, RecordPosition) {
    batch.detach_one(position)
}

/// The host says what of a consumer's batches is done. Gives whether that is so when the application asks for the next.
pub fn leave_marks_to_host(consumer: &mut Consumer) -> bool {
    let by_asking = consumer.marks_by_asking();
    consumer.leaves_marks_to_host();
    by_asking
}

/// The host has given up a wait for a consumer that it polls: a member of a group has to come back within the max poll interval.
pub fn waits_no_more(consumer: &Consumer) {
    consumer.waits_no_more();
}

/// Closes a consumer as [`Consumer::close`] does, from anywhere and without a wait: what is in hand counts as not done.
pub fn close_consumer(control: &ConsumerControl) -> Result<()> {
    control.lets_go();
    control.close()
}

/// The end of a membership: it comes after a consumer was closed or dropped, when its group has been told.
#[derive(Clone)]
pub struct Departure(Option<watch::Receiver<()>>);

impl Departure {
    /// Of this consumer.
    pub fn of(consumer: &Consumer) -> Self {
        Self(consumer.departure())
    }

    /// Whether it has come, or there never was a membership.
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|ended| ended.has_changed().is_err())
    }

    /// Waits for it.
    pub async fn wait(&self) {
        let Some(mut ended) = self.0.clone() else { return };
        // It never says anything: its end is what is waited for.
        while ended.changed().await.is_ok() {}
    }
}
