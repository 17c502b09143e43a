//! Batches that may be in the log although the broker refuses their sequence: the broker has forgotten them.
//! After a clean restart it knows only the last batch of each producer
//! (`ProducerStateManager.readSnapshot`). The first resend of two doubtful batches then gets
//! OUT_OF_ORDER_SEQUENCE_NUMBER though both are in the log. Under the next epoch it would be there twice.
//!
//! So the leader is asked for the last sequence that it knows of our producer id (DescribeProducers,
//! KIP-664). That sequence proves:
//!
//! - if it is beyond the batch, under our epoch: the batch was appended, since sequences have no gaps. But the
//!   leader may tell of records that other replicas do not have yet. So the batch counts as acknowledged
//!   only once a later batch is, which is behind it in the log and was waited for. If no later batch is
//!   acknowledged yet, the one that the broker remembers is sent again: it is a duplicate, and is
//!   acknowledged when all replicas have it.
//! - if it is right before the batch, or the batch's own: sent again in place, the batch is taken, or
//!   recognised as a duplicate.
//! - in all other cases, also if the leader refuses to tell: nothing. That the batch is not in this log does not
//!   say that it is in none: the broker that answers may not lead any more.

use super::sequence::is_beyond;
use super::{InFlightBatch, Partition};
use crate::producer::accumulator::LastKnown;
use crate::producer::batch::{Batch, FailureCause};

/// How far the lookup of a batch with a refused sequence has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::producer) enum Asked {
    /// Its sequence was not refused.
    No,
    /// To be looked up.
    Wanted,
    UnderWay,
    /// Appended; the log ends with this sequence.
    There(i32),
}

/// The batches that are resolved by a lookup.
#[derive(Debug, Default)]
pub(crate) struct LookedUp {
    /// In the log, at offsets that are not known.
    pub(in crate::producer) acknowledged: Vec<Batch>,
    /// Whether these are in the log cannot be found out.
    pub(in crate::producer::sender) unknown: Vec<Batch>,
}

impl Partition {
    /// The broker refuses the batch's sequence, and no batch before it is unresolved. A batch that never was in
    /// doubt is in no log: it goes on under the next epoch. Any other is looked up.
    pub(crate) fn out_of_sequence(&mut self, id: u64) {
        self.failed(id, true, FailureCause::Failed);
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

    /// The producer id that the leader is to be asked about, if it is to be asked.
    pub(crate) fn wants_lookup(&mut self) -> Option<i64> {
        self.look_up_without_witness();
        let wanted = |e: &InFlightBatch| e.asked == Asked::Wanted && e.batch.is_some();
        let wants = !self.settling && self.queue.iter().any(wanted);
        wants.then(|| self.sequence.producer_id()).flatten()
    }

    /// The acknowledgement of the batch that the broker remembers was to prove the batches before it. If it
    /// was given up meanwhile, they are looked up again.
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

    /// There is another leader now: what the old one said does not count.
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

    /// The leader has answered a lookup. `None`: it knows nothing of us, or does not tell.
    pub(crate) fn looked_up(&mut self, last: Option<LastKnown>) -> LookedUp {
        let epoch = i32::from(self.sequence.epoch());
        let last = last.filter(|last| last.epoch == epoch).map(|last| last.sequence);
        let ends = |e: &InFlightBatch| Some(e.position.last_sequence(e.batch.as_ref()?.records()));
        let remembered = |e: &InFlightBatch| last.is_some() && ends(e) == last;
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
            // Its place in the sequence stays until the partition is settled.
            out.unknown.extend(entry.batch.take());
            true
        });
        self.drained();
        out
    }

    /// The batch that is sent again next; `None` if it has to wait for a lookup.
    pub(super) fn first_to_resend(&self) -> Option<usize> {
        let waits = |e: &InFlightBatch| !e.sent && e.batch.is_some();
        let first = self.queue.iter().position(waits)?;
        let Asked::There(last) = self.queue[first].asked else {
            return (self.queue[first].asked == Asked::No).then_some(first);
        };
        // The batch that the broker remembers: its acknowledgement says that all replicas have both.
        let remembered = |e: &InFlightBatch| {
            let ends = |batch: &Batch| e.position.last_sequence(batch.records());
            waits(e) && e.batch.as_ref().map(ends) == Some(last)
        };
        self.queue.iter().position(remembered)
    }

    /// Takes the batches that a lookup found in the log and that lie before an acknowledged one.
    pub(crate) fn take_in_log(&mut self) -> Vec<Batch> {
        let Some(last) = self.acknowledged else { return Vec::new() };
        let proven =
            |e: &InFlightBatch| matches!(e.asked, Asked::There(_)) && e.position.is_before(last);
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
