//! What becomes of batches whose attempt has failed: when they are tried again, and whether in place or elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::Sender;
use super::request::{InFlight, SentBatch};
use crate::cluster::{Lookup, TopicMeta};
use crate::config::MAX_PRODUCE_REQUEST;
use crate::error::names::MESSAGE_TOO_LARGE;
use crate::error::{Error, ErrorKind};
use crate::net::CallError;
use crate::policy::metadata_refresh::RefreshReason;
use crate::producer::batch::{Batch, FailureCause, SplitPlan, split};
use crate::protocol::NO_LEADER;

/// When the partitions of one response that have failed are tried again, by the number of their earlier failures: those
/// that fail equally often in a row get the same time, so that one request carries them again. A hundred requests
/// for a hundred partitions would empty the retry budget.
#[derive(Debug, Default)]
pub(super) struct RetryTimes(BTreeMap<u32, Instant>);

impl RetryTimes {
    /// Another response is handled.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The time of a partition that would have `own` if it were alone.
    pub(super) fn with_others(&mut self, failures: u32, own: Instant) -> Instant {
        *self.0.entry(failures).or_insert(own)
    }
}

impl Sender {
    /// An attempt failed: the batch is sent again, to another partition if it is free to move, otherwise in
    /// place.
    pub(super) fn failed(&mut self, item: &SentBatch, error: &Error, definite: bool, now: Instant) {
        self.failed_with(item, error, definite, false, now);
    }

    pub(super) fn failed_with(
        &mut self,
        item: &SentBatch,
        error: &Error,
        definite: bool,
        moved: bool,
        now: Instant,
    ) {
        if let Some(topic) = self.topics.get_mut(&item.topic) {
            topic.trouble = Some(error.clone());
        }
        self.delay_retry(item, moved, now);
        // A batch that goes to another leader, or that never left this process, is no retry.
        let unsent = definite && error.broker_code().is_none();
        let cause = if moved || unsent { FailureCause::Moved } else { FailureCause::Failed };
        let Some(partition) = self.topics.partition(item) else { return };
        partition.failed(item.batch, definite, cause);
        if !definite {
            self.reroute(item, now);
        }
    }

    /// Sends a batch in doubt to another partition, if its producer has `InDoubt::Reroute`: it would rather have a duplicate
    /// than wait. The batch leaves a hole in the sequence: the partition is drained and goes on under the next
    /// epoch, under which the broker would not recognise the batch either.
    pub(super) fn reroute(&mut self, item: &SentBatch, now: Instant) {
        self.topics.change(&item.topic, |topic| {
            // In a topic of one partition the batch would come back to it, behind later batches.
            if topic.meta.as_ref().is_some_and(|meta| meta.partitions.len() == 1) {
                return;
            }
            let Some(partition) = topic.partitions.get_mut(item.partition as usize) else { return };
            if !partition.batch(item.batch).is_some_and(Batch::reroutes) {
                return;
            }
            let Some((mut batch, _)) = partition.give_up(item.batch) else { return };
            self.metrics.records_rerouted(batch.records());
            batch.attempts.rerouted();
            batch.attempts.came_back(&FailureCause::Failed, now, &mut self.rng);
            topic.put_back(batch);
        });
    }

    /// Takes batches that may be rerouted away from brokers that have become stuck.
    pub(super) fn reroute_late(&mut self, now: Instant) {
        let late = self.leaders.newly_stuck();
        if late.is_empty() {
            return;
        }
        let of_them = self.in_flight.values().filter(|sent| late.contains(&sent.leader));
        let items: Vec<SentBatch> = of_them.flat_map(|sent| sent.items.iter().cloned()).collect();
        for item in &items {
            self.reroute(item, now);
        }
    }

    /// Delays the next attempt in a partition. `moved`: another leader is known.
    pub(super) fn delay_retry(&mut self, item: &SentBatch, moved: bool, now: Instant) {
        if let Some(partition) = self.topics.partition(item) {
            partition.delay_retry(moved, &mut self.retry_times, now, &mut self.rng);
        }
    }

    /// Whether another broker than `asked` is known to lead the partition.
    pub(super) fn led_elsewhere(&self, item: &SentBatch, asked: i32) -> bool {
        let Lookup::Known(meta) = self.metadata.lookup(&item.topic) else { return false };
        let leader = meta.partitions.get(item.partition as usize).map_or(NO_LEADER, |p| p.leader);
        leader >= 0 && leader != asked
    }

    /// There is no response: the connection ended, or the response could not be read.
    pub(super) fn unanswered(&mut self, sent: &InFlight, error: &CallError, now: Instant) {
        let (definite, error) = match error {
            CallError::Unsent(e) => (true, e),
            CallError::InDoubt(e) => (false, e),
        };
        // What waited for a login in vain was never sent: that tells nothing of how the broker answers.
        let silent = !definite && error.kind() == ErrorKind::Timeout;
        if silent {
            self.judge(sent.leader, false, now);
        } else if let Some(leader) = self.leaders.get(sent.leader) {
            leader.broker().probe_lost();
        }
        for item in &sent.items {
            // If the broker did not respond, metadata is asked for now: a dial to a host that is gone takes
            // long to fail. If the broker closed the connection, the next dial tells soon.
            if silent {
                self.metadata.want(&item.topic, RefreshReason::Lost);
                if let Some(partition) = self.topics.partition(item) {
                    let waited = now.saturating_duration_since(sent.sent);
                    partition.not_answered(waited, now, &mut self.rng);
                }
            }
            if error.kind() == ErrorKind::Disconnected
                && self.closed_because_of(sent, item, definite)
            {
                continue;
            }
            self.failed(item, error, definite, now);
        }
    }

    /// A broker closes the connection without a response if a request is larger than its `socket.request.max.bytes`. Gives
    /// whether that has become certain of this batch, which is then taken apart or given up.
    fn closed_because_of(&mut self, sent: &InFlight, item: &SentBatch, definite: bool) -> bool {
        let Some(topic) = self.topics.get_mut(&item.topic) else { return false };
        let Some(bytes) = topic.batch(item).map(|batch| batch.sealed.wire_len()) else {
            return false;
        };
        let Some(partition) = topic.partitions.get_mut(item.partition as usize) else {
            return false;
        };
        let certain = definite && !partition.in_doubt(item.batch);
        let Some(attempts) = partition.attempts(item.batch).filter(|_| bytes > MAX_PRODUCE_REQUEST)
        else {
            return false;
        };
        if !attempts.closed(sent.leader, sent.alone) {
            return false;
        }
        if certain && item.records > 1 {
            self.taken_apart(item, MESSAGE_TOO_LARGE, SplitPlan::Halves);
            return true;
        }
        let words = format!(
            "topic '{}' partition {}: broker {} closed the connection each time that it was given a \
             request of {} bytes; its socket.request.max.bytes may be less (it is 100 MiB unless set)",
            item.topic, item.partition, sent.leader, sent.bytes
        );
        self.refused(item, &Error::new(ErrorKind::RecordTooLarge, words), definite);
        true
    }

    /// A leader cannot be reached. Records that can go elsewhere do; what must go there asks for
    /// metadata when its turn to dial comes again.
    pub(in crate::producer) fn unreachable(&mut self, leader: i32, error: &Error) {
        for topic in self.topics.iter_mut() {
            let led = |meta: &Arc<TopicMeta>| meta.partitions.iter().any(|p| p.leader == leader);
            if topic.meta.as_ref().is_some_and(led) {
                topic.trouble = Some(error.clone());
            }
        }
    }

    /// Once nothing of a partition is in flight: batches that may move go back into their send queue.
    pub(in crate::producer) fn settle(&mut self, topic: &Arc<str>, partition: i32) {
        let now = self.env.now();
        self.topics.change(topic, |topic| {
            let Some(state) = topic.partitions.get_mut(partition as usize) else { return };
            let behind = state.settle();
            let mut back = Vec::new();
            while let Some((at, batch)) = state.take_halved() {
                let records = batch.records();
                let parts = split(batch, &SplitPlan::Halves);
                let ids = self.ids.several(parts.len());
                back.extend(state.put_parts(at, ids.zip(parts).collect(), records));
            }
            // Batches that kept their place in the sequence until now go before those that have lost it.
            back.extend(behind);
            if let Some(producer_id) = state.take_used_up() {
                self.id_state.used_up(producer_id);
            }
            for (mut batch, cause) in back.into_iter().rev() {
                if batch.partition.is_none() && !matches!(cause, FailureCause::Split(_)) {
                    self.metrics.records_rerouted(batch.records());
                }
                if let FailureCause::Split(plan) = &cause {
                    for piece in split(batch, plan).into_iter().rev() {
                        topic.put_back(piece);
                    }
                    continue;
                }
                batch.attempts.came_back(&cause, now, &mut self.rng);
                topic.put_back(batch);
            }
            if topic.partitions[partition as usize].needs_leader() {
                topic.resend.insert(partition as usize);
            }
        });
    }
}
