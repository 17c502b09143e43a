//! What is in flight to one partition, in the order of its sequence numbers, and the rules of
//! idempotence about it. No I/O: the sender tells what happened and asks what to do.
//!
//! - A batch gets its sequence when it is put into a request, never earlier.
//! - Only one batch is in flight until the first acknowledgement after a start, an error, a change of the
//!   leader or a new producer epoch: a partition without state accepts *any* first sequence, so a second
//!   batch could lock a refused first one out. Then at most five, which is what a broker remembers.
//! - The limit of five counts from the oldest unresolved batch, acknowledged ones behind it included: a
//!   broker takes a batch older than the five it remembers for a gap, not for a duplicate.
//! - After an error nothing more is sent until all that is in flight is answered. Then the longest
//!   tail of batches that are definitely unwritten is taken back (they may go elsewhere) and the
//!   sequence rewound; the rest is sent again in place, in order.
//! - A batch given up while in doubt leaves a hole: the partition is drained and goes on at sequence 0
//!   under the next producer epoch ([`sequence`]). Below, and in the modules of this one, *epoch* alone is
//!   the producer epoch.
//! - A batch that is too large and has doubtful ones behind it is cut in place: its halves have its
//!   sequences. Batches that are certainly unwritten and lie behind a certain hole do not wait for the
//!   drain.
//! - Doubt sticks: a refusal of its sequence does not end it. Whether such a batch is in the log is
//!   looked up at the leader ([`doubt`]).

mod cutting;
mod doubt;
mod sequence;

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::producer_id::ProducerStamp;
use super::retry::RetryTimes;
use crate::config::MAX_BATCHES_IN_FLIGHT;
use crate::policy::backoff::Backoff;
use crate::policy::reconnect;
use crate::policy::retry_budget::Cost;
use crate::producer::batch::{Batch, BatchAttempts, FailureCause};

use doubt::Asked;
use sequence::{BatchPosition, Sequence};

/// One partition, as one sender sees it.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    /// Sequenced batches, oldest first.
    queue: VecDeque<InFlightBatch>,
    sequence: Sequence,
    /// Something was acknowledged since the start, the last error, leader change or new epoch.
    proven: bool,
    /// An attempt failed and others are in flight still: nothing is sent until they are answered.
    settling: bool,
    /// There is a hole in the sequence: nothing new is sent until the partition is empty, and then the
    /// producer epoch is counted up.
    bump: bool,
    /// Nothing is sent before this time; set after errors.
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// The last attempt got no answer in time: a leader that is not connected is not dialled before this.
    dial_at: Option<Instant>,
    /// The broker that the last batch was sent to.
    leader: Option<i32>,
    /// The position of the last batch that was acknowledged.
    acknowledged: Option<BatchPosition>,
    /// The id of the last batch that it got. Ids grow, so the partition with the smallest one had its turn
    /// longest ago.
    last_batch_id: u64,
}

#[derive(Debug)]
struct InFlightBatch {
    id: u64,
    position: BatchPosition,
    /// `None`: it was given up and is resolved. Its place is kept until its attempt is answered.
    batch: Option<Batch>,
    sent: bool,
    /// At least one attempt may have been appended. Never reset.
    doubt: bool,
    /// Why the last attempt failed.
    cause: FailureCause,
    asked: Asked,
    /// The batch is in no log, and cannot be appended under this epoch any more.
    locked_out: bool,
}

/// A batch to put into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ToSend {
    pub(in crate::producer) id: u64,
    pub(super) stamp: ProducerStamp,
    /// The batch was in a request before, under this sequence.
    pub(super) again: bool,
    /// The price, in the retry budget, of a request that carries only this batch; `None` if it is no retry.
    pub(in crate::producer) retry: Option<Cost>,
}

impl Partition {
    /// Whether a batch without sequence can be put in now, to be sent to `leader`.
    pub(crate) fn has_room(&self, leader: i32, now: Instant) -> bool {
        // Batches that the old leader has not answered may or may not be known to the new one.
        if self.leader.is_some_and(|old| old != leader) && !self.queue.is_empty() {
            return false;
        }
        let limit = if self.proven { MAX_BATCHES_IN_FLIGHT } else { 1 };
        let window =
            self.queue.front().map_or(0, |oldest| self.sequence.given_since(oldest.position));
        !self.bump
            && !self.settling
            && window < limit as u64
            && self.queue.iter().all(|e| e.sent)
            && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Gives a batch the next sequence. A partition that has none yet begins under `begins`: producer id and
    /// epoch.
    pub(crate) fn push(
        &mut self,
        id: u64,
        batch: Batch,
        leader: i32,
        begins: (i64, i16),
    ) -> ToSend {
        self.sent_to(leader);
        self.last_batch_id = id;
        let position = self.sequence.give(batch.records(), begins);
        let retry = batch.attempts.cost();
        self.queue.push_back(InFlightBatch {
            id,
            position,
            batch: Some(batch),
            sent: true,
            doubt: false,
            cause: FailureCause::Failed,
            asked: Asked::No,
            locked_out: false,
        });
        ToSend { id, stamp: self.sequence.stamp(position), again: false, retry }
    }

    /// The id of the last batch that it was given.
    pub(crate) fn last_batch_id(&self) -> u64 {
        self.last_batch_id
    }

    /// A batch by its id.
    pub(crate) fn batch(&self, id: u64) -> Option<&Batch> {
        self.queue.iter().find(|e| e.id == id)?.batch.as_ref()
    }

    /// The oldest batch that is to be sent again in place; `None` while nothing may be sent.
    pub(crate) fn next_resend(&mut self, leader: i32, now: Instant) -> Option<ToSend> {
        if self.settling || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let moved = self.leader.is_some_and(|old| old != leader);
        if moved {
            self.told_by_another();
        }
        let first = self.first_to_resend()?;
        let limit = if self.proven { MAX_BATCHES_IN_FLIGHT } else { 1 };
        let in_flight = self.queue.iter().filter(|e| e.sent).count();
        if in_flight >= limit || (moved && in_flight > 0) {
            return None;
        }
        self.sent_to(leader);
        let stamp = self.sequence.stamp(self.queue[first].position);
        let entry = &mut self.queue[first];
        entry.sent = true;
        let retry = match (entry.doubt, &entry.cause) {
            (true, _) => Some(Cost::InDoubt),
            (false, FailureCause::Failed) => Some(Cost::Definite),
            (false, FailureCause::Moved | FailureCause::Split(_)) => None,
        };
        Some(ToSend { id: entry.id, stamp, again: true, retry })
    }

    /// The batch was put into a request that is not sent after all.
    pub(crate) fn withdraw(&mut self, id: u64, again: bool) -> Option<Batch> {
        let entry = self.queue.iter_mut().find(|e| e.id == id)?;
        entry.sent = false;
        if again {
            return None;
        }
        // It got its sequence in this very round, so it is the last one.
        let entry = self.queue.pop_back()?;
        self.rewind(entry.position);
        entry.batch
    }

    /// Whether all that was sent to it is resolved and answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The producer id and epoch that the broker knows this partition's batches by; `None` if none was sent.
    pub(crate) fn begun(&self) -> Option<(i64, i16)> {
        self.sequence.producer_id().map(|id| (id, self.sequence.epoch()))
    }

    /// Whether the batch that is sent again next is suspect. `false` while none can be sent: no leader is
    /// kept free for a batch that waits for a response first.
    pub(crate) fn next_is_suspect(&self) -> bool {
        let next = self.first_to_resend().filter(|_| !self.settling);
        let batch = next.and_then(|next| self.queue[next].batch.as_ref());
        batch.is_some_and(|batch| batch.attempts.is_suspect())
    }

    /// The attempts of the batch with this id.
    pub(crate) fn attempts(&mut self, id: u64) -> Option<&mut BatchAttempts> {
        let entry = self.queue.iter_mut().find(|e| e.id == id)?;
        entry.batch.as_mut().map(|batch| &mut batch.attempts)
    }

    /// Whether anything waits to be sent again in place: it needs this partition's leader.
    pub(crate) fn needs_leader(&self) -> bool {
        self.queue.iter().any(|e| !e.sent && e.batch.is_some())
    }

    /// Until when nothing is sent after an error; `None` if that is over.
    pub(crate) fn waits_until(&self, now: Instant) -> Option<Instant> {
        self.retry_at.filter(|at| *at > now)
    }

    /// An attempt has failed: delays the next one, together with those of other partitions (see [`RetryTimes`]). There is
    /// no delay if the new leader is known (`moved`), unless the partition keeps moving. A batch that fails while an
    /// error is being settled fails together with it.
    pub(crate) fn delay_retry(
        &mut self,
        moved: bool,
        times: &mut RetryTimes,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        if self.settling {
            return;
        }
        let before = self.backoff.attempts();
        let own = now + self.backoff.next(rng);
        let at = times.with_others(before, own);
        self.retry_at = (!(moved && before == 0)).then_some(at);
    }

    /// Its leader has not answered within the request timeout, `waited`. If another one is named that is not connected, the
    /// dial waits for a moment.
    pub(crate) fn not_answered(&mut self, waited: Duration, now: Instant, rng: &mut impl Rng) {
        let deadline = self.next_deadline();
        self.dial_at = Some(reconnect::successor_not_before(waited, deadline, now, rng));
    }

    /// From when on its leader may be dialled; `None`: now.
    pub(crate) fn dials_not_before(&self, now: Instant) -> Option<Instant> {
        self.dial_at.filter(|at| *at > now)
    }

    /// A lookup has failed: the next one is delayed.
    pub(crate) fn delay_lookup(&mut self, now: Instant, rng: &mut impl Rng) {
        self.retry_at = Some(now + self.backoff.next(rng));
    }

    /// Its log is a new one: one batch in flight until the new log has acknowledged something.
    pub(crate) fn recreated(&mut self) {
        self.proven = false;
        self.told_by_another();
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
        // A batch that was sent before the error that is being settled proves nothing about later ones.
        if !self.settling {
            self.proven = true;
            self.backoff.reset();
            self.retry_at = None;
        }
        let entry = self.queue.remove(at).expect("found above");
        if self.acknowledged.is_none_or(|last| last.is_before(entry.position)) {
            self.acknowledged = Some(entry.position);
        }
        if entry.batch.is_none() && self.queue.is_empty() {
            // The given up batch is in the log after all: no hole.
            self.bump = false;
        }
        self.drained();
        entry.batch
    }

    /// The attempt failed. `definite`: this attempt appended nothing.
    pub(crate) fn failed(&mut self, id: u64, definite: bool, cause: FailureCause) {
        self.proven = false;
        self.settling = true;
        if let Some(entry) = self.queue.iter_mut().find(|e| e.id == id) {
            entry.sent = false;
            entry.doubt |= !definite;
            entry.cause = cause;
        }
    }

    /// The batch will not be tried again: it is taken out, and only its place in the sequence stays, until the
    /// partition is settled. Gives the batch and whether it may have been written.
    pub(crate) fn give_up(&mut self, id: u64) -> Option<(Batch, bool)> {
        let entry = self.queue.iter_mut().find(|e| e.id == id)?;
        let maybe = entry.doubt || entry.sent;
        entry.batch.take().map(|batch| (batch, maybe))
    }

    /// Takes every batch, oldest first, each with whether it may have been written. Responses that are still to
    /// come find nothing.
    pub(crate) fn take_all(&mut self) -> Vec<(Batch, bool)> {
        let all = std::mem::take(&mut self.queue).into_iter();
        all.filter_map(|e| Some((e.batch?, e.doubt || e.sent))).collect()
    }

    /// Whether an older batch of the partition is still unresolved: then OUT_OF_ORDER_SEQUENCE_NUMBER only
    /// follows from that one.
    pub(crate) fn has_older(&self, id: u64) -> bool {
        let older = |e: &&InFlightBatch| !matches!(e.asked, Asked::There(_));
        self.queue.iter().find(older).is_some_and(|front| front.id != id)
    }

    /// Whether an attempt of the batch may have been appended.
    pub(crate) fn in_doubt(&self, id: u64) -> bool {
        self.queue.iter().any(|e| e.id == id && e.doubt)
    }

    /// Once everything in flight is answered: takes back the batches that are definitely unwritten and need not
    /// keep their place, oldest first, each with why it failed. The others are sent again in place.
    pub(crate) fn settle(&mut self) -> Vec<(Batch, FailureCause)> {
        if self.queue.iter().any(|e| e.sent) {
            return Vec::new();
        }
        self.settling = false;
        // No batch behind the last doubtful one is in the log: it is as if they had never been sent.
        let tail = self.queue.iter().rposition(|e| e.doubt).map_or(0, |last| last + 1);
        if let Some(first) = self.queue.get(tail) {
            self.rewind(first.position);
        }
        let mut back = Vec::new();
        // A certain hole: no batch behind it can be appended under this epoch.
        let mut hole = false;
        for (at, entry) in std::mem::take(&mut self.queue).into_iter().enumerate() {
            hole |= !entry.doubt && at < tail && entry.leaves_a_hole();
            if !entry.doubt && (hole || at >= tail) {
                back.extend(entry.batch.map(|batch| (batch, entry.cause)));
            } else if entry.batch.is_some() {
                self.queue.push_back(entry);
            } else {
                // Given up in doubt: the sequence must not be rewound over it. Batches behind it wait for the
                // new epoch.
                self.bump = true;
            }
        }
        self.bump |= hole;
        self.drained();
        back
    }

    fn rewind(&mut self, to: BatchPosition) {
        self.sequence.rewind(to);
        // The positions behind it are given again.
        self.acknowledged = self.acknowledged.filter(|last| last.is_before(to));
    }

    /// A drained partition with a hole behind it goes on under a new epoch.
    fn drained(&mut self) {
        if self.bump && self.queue.is_empty() {
            self.bump = false;
            self.proven = false;
            self.sequence.begin_epoch();
        }
    }

    /// The producer id whose last epoch this partition has used, if that happened since the last call.
    pub(crate) fn take_used_up(&mut self) -> Option<i64> {
        self.sequence.take_used_up()
    }

    /// Ids of batches whose delivery timeout has passed.
    pub(crate) fn expired(&self, now: Instant) -> Vec<u64> {
        let late = |e: &&InFlightBatch| e.batch.as_ref().is_some_and(|b| b.deadline <= now);
        self.queue.iter().filter(late).map(|e| e.id).collect()
    }

    /// The earliest delivery deadline of its batches.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.queue.iter().filter_map(|e| e.batch.as_ref()).map(|b| b.deadline).min()
    }

    /// Ids of the batches that `of` picks.
    pub(crate) fn ids(&self, of: impl Fn(&Batch) -> bool) -> Vec<u64> {
        let wanted = |e: &&InFlightBatch| e.batch.as_ref().is_some_and(&of);
        self.queue.iter().filter(wanted).map(|e| e.id).collect()
    }
}

#[cfg(test)]
mod tests;
