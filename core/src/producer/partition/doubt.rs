//! Batches that may be in the log, and whose sequence the broker refuses all the same: it has forgotten
//! them. After a clean restart it knows the last batch of each producer and no older one
//! (`ProducerStateManager.readSnapshot`); the first resend of two doubtful ones gets
//! OUT_OF_ORDER_SEQUENCE though both are there. Under the next epoch it would be there twice.
//!
//! So the leader is asked for the last sequence that it knows of us (DescribeProducers, KIP-664). What
//! that says, and what not:
//!
//! - It is beyond the batch, under our epoch: the batch was appended, since sequences have no gaps. But
//!   any replica answers, of records that others may not have yet. It counts as acknowledged once a
//!   later batch is: that one is behind it in the log, and was waited for. If none is yet, the batch
//!   that the broker does remember is sent again; as a duplicate, it is acknowledged when everybody
//!   has it.
//! - It is right before the batch, or the batch's own: sent again in place, it is taken, or recognised.
//! - Anything else, a refusal to tell among it: nobody knows. That the batch is not in this log does
//!   not say that it is in none: who answers may lead no more.

use super::sequence::is_beyond;
use super::{Entry, Partition};
use crate::producer::accumulator::Batch;
use crate::producer::tries::Cause;

/// What is known of a batch with a refused sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its sequence was not refused.
    No,
    /// To be looked up.
    Wanted,
    UnderWay,
    /// Appended; the log ends with this sequence.
    There(i32),
}

/// What a leader knows of a producer in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastKnown {
    pub(crate) epoch: i32,
    pub(crate) sequence: i32,
}

/// What became of batches that were looked up.
#[derive(Debug, Default)]
pub(crate) struct LookedUp {
    /// They are in the log, at offsets that nobody tells.
    pub(crate) acknowledged: Vec<Batch>,
    /// Nobody knows.
    pub(crate) unknown: Vec<Batch>,
}

impl Partition {
    /// The broker refuses the batch's place in the sequence, and nothing before it is unresolved. One
    /// that never was in doubt is in no log: it goes on under the next epoch. Any other is looked
    /// up.
    pub(crate) fn out_of_sequence(&mut self, id: u64) {
        self.failed(id, true, Cause::Failed);
        for entry in &mut self.queue {
            if entry.doubt {
                entry.asked = Asked::Wanted;
            }
            if entry.id == id {
                entry.locked_out = !entry.doubt;
                self.bump |= entry.locked_out;
                return;
            }
        }
    }

    /// Whether the leader is to be asked; and under whose name.
    pub(crate) fn wants_lookup(&mut self) -> Option<i64> {
        self.look_up_without_witness();
        let wanted = |e: &Entry| e.asked == Asked::Wanted && e.batch.is_some();
        let wants = !self.settling && self.queue.iter().any(wanted);
        wants.then(|| self.sequence.producer_id()).flatten()
    }

    /// What the broker remembers was to tell of the batches before it, and was given up meanwhile.
    fn look_up_without_witness(&mut self) {
        let first = self.queue.iter().find(|e| !e.sent && e.batch.is_some()).map(|e| e.asked);
        if let Some(Asked::There(last)) = first
            && self.first_to_resend().is_none()
            && !self.queue.iter().any(|e| e.sent)
        {
            self.all_asked(Asked::There(last), Asked::Wanted);
        }
    }

    pub(crate) fn lookup_begun(&mut self) {
        self.all_asked(Asked::Wanted, Asked::UnderWay);
    }

    /// The leader could not be asked.
    pub(crate) fn lookup_failed(&mut self) {
        self.all_asked(Asked::UnderWay, Asked::Wanted);
    }

    /// What one leader said is not what another knows.
    pub(super) fn told_by_another(&mut self) {
        for entry in &mut self.queue {
            if matches!(entry.asked, Asked::There(_)) {
                entry.asked = Asked::No;
            }
        }
    }

    fn all_asked(&mut self, from: Asked, to: Asked) {
        let asked = self.queue.iter_mut().filter(|e| e.asked == from);
        asked.for_each(|entry| entry.asked = to);
    }

    /// What the leader knows of us. `None`: nothing, or it does not tell.
    pub(crate) fn looked_up(&mut self, last: Option<LastKnown>) -> LookedUp {
        let epoch = i32::from(self.sequence.epoch());
        let last = last.filter(|last| last.epoch == epoch).map(|last| last.sequence);
        let ends = |e: &Entry| Some(e.position.last_sequence(e.batch.as_ref()?.records()));
        let remembered = |e: &Entry| last.is_some() && ends(e) == last;
        let witness = self.queue.iter().any(remembered);
        let acknowledged = self.acknowledged;
        let mut out = LookedUp::default();
        self.queue.retain_mut(|entry| {
            let (Asked::UnderWay, Some(end)) = (entry.asked, ends(entry)) else { return true };
            entry.asked = Asked::No;
            match last {
                Some(last) if last == end || entry.position.follows(last) => return true,
                Some(last) if is_beyond(last, end) => {
                    if acknowledged.is_some_and(|last| entry.position.is_before(last)) {
                        out.acknowledged.extend(entry.batch.take());
                        return false;
                    }
                    if witness {
                        entry.asked = Asked::There(last);
                        return true;
                    }
                }
                _ => {}
            }
            // Its place stays until the partition is settled.
            out.unknown.extend(entry.batch.take());
            true
        });
        self.drained();
        out
    }

    /// What is sent again next, if it need not wait for a lookup.
    pub(super) fn first_to_resend(&self) -> Option<usize> {
        let waits = |e: &Entry| !e.sent && e.batch.is_some();
        let first = self.queue.iter().position(waits)?;
        let Asked::There(last) = self.queue[first].asked else {
            return (self.queue[first].asked == Asked::No).then_some(first);
        };
        // That which the broker remembers tells when everybody has both.
        let remembered = |e: &Entry| {
            let ends = |batch: &Batch| e.position.last_sequence(batch.records());
            waits(e) && e.batch.as_ref().map(ends) == Some(last)
        };
        self.queue.iter().position(remembered)
    }

    /// Batches that are in the log and before one that has been acknowledged.
    pub(crate) fn take_proven(&mut self) -> Vec<Batch> {
        let Some(last) = self.acknowledged else { return Vec::new() };
        let proven = |e: &Entry| matches!(e.asked, Asked::There(_)) && e.position.is_before(last);
        let mut out = Vec::new();
        self.queue.retain_mut(|entry| {
            let proven = proven(entry);
            out.extend(proven.then(|| entry.batch.take()).flatten());
            !proven
        });
        if !out.is_empty() {
            self.drained();
        }
        out
    }
}
