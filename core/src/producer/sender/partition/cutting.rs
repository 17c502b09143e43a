//! Cutting a batch in its place. It is too large for its partition, and there are doubtful batches behind it:
//! these are in the log already, or can only come behind it, so its place cannot be given up. A broker
//! compares only where a batch's sequences begin, so two halves that share the sequences of the whole fit
//! into its place.

use super::doubt::Asked;
use super::sequence::BatchPosition;
use super::{InFlightBatch, Partition};
use crate::producer::batch::{Batch, FailureCause, SplitPlan};

impl Partition {
    /// A batch that is to be cut where it is, and the place of its parts. To be given back with
    /// [`put_parts`](Self::put_parts) at once.
    pub(crate) fn take_halved(&mut self) -> Option<(usize, Batch)> {
        if self.settling {
            return None;
        }
        let halved = |e: &InFlightBatch| {
            !e.sent && matches!(e.cause, FailureCause::Split(SplitPlan::Halves))
        };
        let at = self.queue.iter().position(|e| halved(e) && e.batch.is_some())?;
        self.queue[at].batch.take().map(|batch| (at, batch))
    }

    /// Puts the parts of the batch that was taken into its place, with their new ids. If the parts lack some of
    /// its records, the sequence has a hole; then gives the parts back, and after them, in order, the batches
    /// behind that are not in doubt: none of these can be appended behind a hole.
    pub(crate) fn put_parts(
        &mut self,
        at: usize,
        parts: Vec<(u64, Batch)>,
        records: usize,
    ) -> Vec<(Batch, FailureCause)> {
        let Some(whole) = self.queue.remove(at) else { return Vec::new() };
        let have: usize = parts.iter().map(|(_, part)| part.records()).sum();
        if have != records || parts.is_empty() {
            self.bump = true;
            let mut out: Vec<_> =
                parts.into_iter().map(|(_, part)| (part, FailureCause::Moved)).collect();
            for entry in self.queue.split_off(at) {
                if entry.doubt {
                    self.queue.push_back(entry);
                } else {
                    out.extend(entry.batch.map(|batch| (batch, entry.cause)));
                }
            }
            self.drained();
            return out;
        }
        let more = parts.len() as u64 - 1;
        for entry in self.queue.iter_mut().skip(at) {
            entry.position.moves_on(more);
        }
        self.sequence.became_more(more);
        if let Some(last) =
            self.acknowledged.as_mut().filter(|last| whole.position.is_before(**last))
        {
            last.moves_on(more);
        }
        let mut before = 0;
        for (i, (id, part)) in parts.into_iter().enumerate() {
            let position: BatchPosition = whole.position.behind(before, i as u64);
            before += part.records();
            let entry = InFlightBatch {
                id,
                position,
                batch: Some(part),
                sent: false,
                doubt: false,
                cause: FailureCause::Moved,
                asked: Asked::No,
                locked_out: false,
            };
            self.queue.insert(at + i, entry);
        }
        Vec::new()
    }
}

impl InFlightBatch {
    /// Whether nothing takes its place in the sequence under this epoch, as it is in no log.
    pub(super) fn leaves_a_hole(&self) -> bool {
        self.batch.is_none()
            || self.locked_out
            || matches!(self.cause, FailureCause::Split(SplitPlan::Without(_)))
    }
}
