//! What is in flight to one partition, in the order of its sequence numbers, and the rules of
//! idempotence about it. No I/O: the sender tells what happened and asks what to do.
//!
//! - A batch gets its sequence when it is put into a request, never earlier.
//! - One in flight until the first acknowledgement after start, error, leader change or new epoch:
//!   a partition without state accepts *any* first sequence, so a second batch could lock a
//!   refused first one out. Then at most five, which is what a broker remembers.
//! - After an error nothing more is sent until all that is in flight is answered. Then the longest
//!   tail of batches that are definitely unwritten is taken back (they may go elsewhere) and the
//!   sequence rewound; the rest is sent again in place, in order.
//! - A batch given up while in doubt leaves a hole: the partition is drained and goes on at
//!   sequence 0 under the next epoch.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::accumulator::Batch;
use crate::config::MAX_BATCHES_IN_FLIGHT;
use crate::policy::backoff::Backoff;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    /// Sequenced batches, oldest first.
    queue: VecDeque<Entry>,
    next_sequence: i32,
    pub(crate) epoch: i16,
    /// Acknowledged since start, error, leader change or epoch bump.
    proven: bool,
    /// A hole in the sequence: drain, then bump the epoch.
    bump: bool,
    /// Nothing is sent before; set after errors.
    pub(crate) retry_at: Option<Instant>,
    pub(crate) backoff: Backoff,
    /// Whom the last batch was sent to.
    leader: Option<i32>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    sequence: i32,
    /// `None`: resolved already (given up), kept until its attempt is answered.
    batch: Option<Batch>,
    sent: bool,
    /// At least one attempt may have been appended. Sticks.
    doubt: bool,
}

/// A batch to put into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ToSend {
    pub(crate) id: u64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
}

impl Partition {
    /// Whether a batch without sequence can be put in now, to be sent to `leader`.
    pub(crate) fn has_room(&self, leader: i32, now: Instant) -> bool {
        // What the old leader has not answered may or may not be known to the new one.
        if self.leader.is_some_and(|old| old != leader) && !self.queue.is_empty() {
            return false;
        }
        let limit = if self.proven { MAX_BATCHES_IN_FLIGHT } else { 1 };
        !self.bump
            && self.queue.len() < limit
            && self.queue.iter().all(|e| e.sent)
            && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Gives a batch the next sequence.
    pub(crate) fn push(&mut self, id: u64, batch: Batch, leader: i32) -> ToSend {
        self.sent_to(leader);
        let sequence = self.next_sequence;
        self.next_sequence = advance(sequence, batch.records());
        self.queue.push_back(Entry { id, sequence, batch: Some(batch), sent: true, doubt: false });
        ToSend { id, epoch: self.epoch, sequence }
    }

    /// A batch by its id.
    pub(crate) fn batch(&self, id: u64) -> Option<&Batch> {
        self.queue.iter().find(|e| e.id == id)?.batch.as_ref()
    }

    /// A batch to be sent again in place, oldest first, or nothing while the window is closed.
    pub(crate) fn next_resend(&mut self, leader: i32, now: Instant) -> Option<ToSend> {
        if self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let first = self.queue.iter().position(|e| !e.sent && e.batch.is_some())?;
        let limit = if self.proven { MAX_BATCHES_IN_FLIGHT } else { 1 };
        let in_flight = self.queue.iter().filter(|e| e.sent).count();
        let moved = self.leader.is_some_and(|old| old != leader);
        if in_flight >= limit || (moved && in_flight > 0) {
            return None;
        }
        self.sent_to(leader);
        let epoch = self.epoch;
        let entry = &mut self.queue[first];
        entry.sent = true;
        Some(ToSend { id: entry.id, epoch, sequence: entry.sequence })
    }

    /// Whether anything waits to be sent again in place: it needs this partition's leader.
    pub(crate) fn needs_leader(&self) -> bool {
        self.queue.iter().any(|e| !e.sent && e.batch.is_some())
    }

    fn sent_to(&mut self, leader: i32) {
        if self.leader != Some(leader) {
            self.leader = Some(leader);
            self.proven = false;
        }
    }

    /// The attempt was acknowledged. `None` if the batch was given up before.
    pub(crate) fn acknowledged(&mut self, id: u64) -> Option<Batch> {
        let at = self.queue.iter().position(|e| e.id == id)?;
        self.proven = true;
        self.backoff.reset();
        self.retry_at = None;
        let entry = self.queue.remove(at).expect("found above");
        if entry.batch.is_none() && self.queue.is_empty() {
            // The given up batch is in the log after all: no hole.
            self.bump = false;
        }
        self.drained();
        entry.batch
    }

    /// The attempt failed. `definite`: this attempt appended nothing.
    pub(crate) fn failed(&mut self, id: u64, definite: bool) {
        self.proven = false;
        if let Some(entry) = self.queue.iter_mut().find(|e| e.id == id) {
            entry.sent = false;
            entry.doubt |= !definite;
        }
    }

    /// The batch will not be tried again: it leaves, its place in the sequence stays until the
    /// partition is settled. Gives the batch and whether it may have been written.
    pub(crate) fn give_up(&mut self, id: u64) -> Option<(Batch, bool)> {
        let entry = self.queue.iter_mut().find(|e| e.id == id)?;
        let maybe = entry.doubt || entry.sent;
        entry.batch.take().map(|batch| (batch, maybe))
    }

    /// Whether an older batch of the partition is still unresolved: then OUT_OF_ORDER_SEQUENCE is
    /// only its shadow. Else the log lost data.
    pub(crate) fn has_older(&self, id: u64) -> bool {
        self.queue.front().is_some_and(|front| front.id != id)
    }

    /// The log does not know what was acknowledged before this batch, and so does not hold the batch
    /// either: it goes on under the next epoch, once the partition is drained.
    pub(crate) fn lost(&mut self, id: u64) {
        self.failed(id, true);
        self.bump = true;
        if let Some(entry) = self.queue.iter_mut().find(|e| e.id == id) {
            entry.doubt = false;
        }
    }

    /// Once everything in flight is answered: takes back what is definitely unwritten, oldest
    /// first. What stays is sent again in place.
    pub(crate) fn settle(&mut self) -> Vec<Batch> {
        if self.queue.iter().any(|e| e.sent) {
            return Vec::new();
        }
        let mut back = VecDeque::new();
        while let Some(last) = self.queue.back() {
            if last.doubt {
                break;
            }
            let entry = self.queue.pop_back().expect("looked at above");
            self.next_sequence = entry.sequence;
            if let Some(batch) = entry.batch {
                back.push_front(batch);
            }
        }
        // Given up batches in doubt cannot be rewound over; those at the front are done with, and
        // what is behind them waits for the new epoch.
        let before = self.queue.len();
        self.queue.retain(|e| e.batch.is_some());
        if self.queue.len() < before {
            self.bump = true;
        }
        self.drained();
        back.into()
    }

    /// A drained partition with a hole behind it goes on under a new epoch.
    fn drained(&mut self) {
        if self.bump && self.queue.is_empty() {
            self.bump = false;
            self.proven = false;
            self.next_sequence = 0;
            self.epoch = self.epoch.saturating_add(1);
        }
    }

    /// Ids of batches whose delivery timeout has passed.
    pub(crate) fn expired(&self, now: Instant) -> Vec<u64> {
        let late = |e: &&Entry| e.batch.as_ref().is_some_and(|b| b.deadline <= now);
        self.queue.iter().filter(late).map(|e| e.id).collect()
    }

    /// Earliest delivery timeout of what is here.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.queue.iter().filter_map(|e| e.batch.as_ref()).map(|b| b.deadline).min()
    }

    /// Ids of the batches of one home, or of all.
    pub(crate) fn ids(&self, of: impl Fn(&Batch) -> bool) -> Vec<u64> {
        let wanted = |e: &&Entry| e.batch.as_ref().is_some_and(&of);
        self.queue.iter().filter(wanted).map(|e| e.id).collect()
    }
}

/// Sequences wrap from 2^31 - 1 to 0 (`DefaultRecordBatch.incrementSequence`).
fn advance(sequence: i32, records: usize) -> i32 {
    ((i64::from(sequence) + records as i64) % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_as_the_brokers_do() {
        assert_eq!(advance(0, 5), 5);
        assert_eq!(advance(i32::MAX, 1), 0);
        assert_eq!(advance(i32::MAX - 2, 5), 2);
    }
}
