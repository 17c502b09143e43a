//! Binding: gives each batch of a round its partition, and so its leader. This is done as late as possible: a
//! batch without a partition is free until it is put into a request. For those batches
//! [`select`](super::select) chooses.

use std::sync::Arc;

use tokio::time::Instant;

use super::Round;
use crate::cluster::TopicMeta;
use crate::environment::earlier;
use crate::policy::metadata_refresh::RefreshReason;
use crate::policy::pace::{Gather, Strain};
use crate::policy::reconnect::DialUrgency;
use crate::producer::batch::Batch;
use crate::producer::sender::partition::{Partition, ToSend};
use crate::producer::sender::request::RequestDraft;
use crate::producer::sender::send_queue::{Next, SendQueue};
use crate::producer::sender::topic::Topic;
use crate::protocol::NO_LEADER;

impl Round<'_> {
    /// Assigns the batches of a topic that can go now. A request is bounded and carries one batch a partition, so batches
    /// that did not get into one come first in the next. That holds among partitions, and between batches that
    /// name their partition and batches that do not, which may want the same one.
    pub(super) fn assign(&mut self, topic: &mut Topic, taken: &mut [bool]) {
        let before = self.parts();
        let to_any = if topic.unbound_first {
            self.assign_unbound(topic, taken);
            let to_any = self.parts() - before;
            self.assign_bound(topic, taken);
            to_any
        } else {
            self.assign_bound(topic, taken);
            let named = self.parts();
            self.assign_unbound(topic, taken);
            self.parts() - named
        };
        if self.parts() == before {
            // No leader took a batch: whose turn comes next does not change.
            return;
        }
        topic.crowded = self.drafts.iter().any(RequestDraft::is_full);
        topic.unbound_first = to_any == 0 && !topic.unbound.is_empty();
    }

    /// Assigns batches that are sent again in place, and those with a named partition.
    fn assign_bound(&mut self, topic: &mut Topic, taken: &mut [bool]) {
        let Some(meta) = topic.meta.clone() else { return };
        let now = self.now;
        for index in topic.resend.clone() {
            if !topic.partitions[index].needs_leader() {
                topic.resend.remove(&index);
                continue;
            }
            if taken[index] {
                continue;
            }
            let waits = topic.partitions[index].waits_until(now);
            if waits.is_some() {
                self.schedule.round_by(waits);
                continue;
            }
            let leader = meta.partitions.get(index).map_or(NO_LEADER, |p| p.leader);
            if let Some(producer_id) = topic.partitions[index].wants_lookup()
                && leader >= 0
            {
                if !self.again {
                    let wanted = (Arc::clone(&topic.name), index as i32, producer_id);
                    self.lookups.entry(leader).or_default().push(wanted);
                }
                continue;
            }
            let dial_at = topic.partitions[index].dials_not_before(now);
            let Some(leader) = self.needed_leader(&meta, index, dial_at) else { continue };
            if topic.partitions[index].next_is_suspect() && !self.leaders.takes_alone(leader) {
                continue;
            }
            if let Some(to_send) = topic.partitions[index].next_resend(leader, now) {
                taken[index] = true;
                self.add_to_draft(leader, topic, &meta, index, to_send);
            }
        }
        topic.pinned.retain(|_, queue| !queue.is_empty());
        let mut wanted: Vec<i32> = topic.pinned.keys().copied().collect();
        if topic.crowded {
            let given = |partition: &i32| {
                let index = usize::try_from(*partition).ok();
                index.and_then(|i| topic.partitions.get(i)).map_or(0, Partition::last_batch_id)
            };
            wanted.sort_by_key(given);
        }
        // Suspect batches, which have to go alone, come first: behind partitions that always have something
        // they would never find their leader idle.
        let suspect =
            |partition: &i32| topic.pinned.get(partition).is_some_and(SendQueue::next_is_suspect);
        wanted.sort_by_key(|partition| !suspect(partition));
        for partition in wanted {
            let leader = usize::try_from(partition).ok().and_then(|i| meta.partitions.get(i));
            let gather = self.gather(Some(leader.map_or(NO_LEADER, |p| p.leader)));
            let queue = topic.queue(Some(partition));
            if let Some(at) = queue.rests(now, &gather) {
                self.schedule.round_by(Some(at));
                continue;
            }
            if queue.is_empty() {
                continue;
            }
            let Some(index) =
                usize::try_from(partition).ok().filter(|i| *i < meta.partitions.len())
            else {
                topic.refuse_partition(partition, meta.partitions.len());
                continue;
            };
            if taken[index] {
                continue;
            }
            let state = &topic.partitions[index];
            if !state.has_room(meta.partitions.get(index).map_or(NO_LEADER, |p| p.leader), now) {
                self.schedule.round_by(state.waits_until(now));
                continue;
            }
            let dial_at = topic.partitions[index].dials_not_before(now);
            let Some(leader) = self.needed_leader(&meta, index, dial_at) else { continue };
            let idle = self.leaders.get(leader).is_some_and(|l| l.is_idle());
            let gather = self.gather(Some(leader));
            let queue = topic.queue(Some(partition));
            if queue.next_is_suspect() && !self.leaders.takes_alone(leader) {
                continue;
            }
            let batch = match queue.pop_back() {
                Some(batch) => Some(batch),
                None => {
                    let (batch, wake) = queue.take(now, idle, &gather);
                    self.schedule.round_by(wake);
                    self.held |= batch.is_none() && gather.until.is_some();
                    batch
                }
            };
            if let Some(batch) = batch {
                taken[index] = true;
                self.put(topic, &meta, index, leader, batch);
            }
        }
    }

    /// Assigns batches that may go to any partition: to the better of two that are drawn from the
    /// partitions that were given least. The choice stays for a batch's worth of bytes.
    fn assign_unbound(&mut self, topic: &mut Topic, taken: &mut [bool]) {
        let Some(meta) = topic.meta.clone() else { return };
        // In a topic of one partition, batches keep the order in which they came.
        let in_order = meta.partitions.len() == 1;
        loop {
            // The leader of the kept partition: its strain decides how long the next open batch gathers. While it
            // may get no request for that, others take the batches and the choice stands.
            let stays = topic.sticky.filter(|sticky| sticky.until > self.now);
            let leader = stays.and_then(|s| meta.partitions.get(s.partition as usize));
            let leader =
                leader.map(|p| p.leader).filter(|id| !self.leaves_it_to_others(*id, &meta));
            let gather = self.gather(leader);
            let (full, due) = match topic.unbound.next(self.now, in_order, &gather) {
                Next::Nothing => return,
                Next::Later(at) => {
                    self.held |= gather.until.is_some();
                    self.schedule.round_by(Some(at));
                    return;
                }
                Next::Full => (true, None),
                Next::Open { due, later } => {
                    self.held |= gather.until.is_some() && later.is_some();
                    self.schedule.round_by(later);
                    (due <= self.now, Some(due))
                }
            };
            // The bucket allows no new request: the batch may only ride in one that this round makes
            // already.
            let next = gather.next.filter(|_| !full && gather.until.is_none());
            let riding = next.is_some();
            let Some(choice) = self.choose(topic, &meta, full, riding, taken) else {
                let at = earlier(next, due.filter(|at| *at > self.now));
                self.schedule.round_by(at);
                return;
            };
            let batch = match topic.unbound.pop_back_due(self.now, in_order) {
                Some(batch) => Some(batch),
                None => {
                    let (batch, wake) = topic.unbound.take(self.now, true, &gather);
                    // A worker may have taken the batch that was looked at; others wait for their own time.
                    self.schedule.round_by(wake);
                    batch
                }
            };
            let Some(batch) = batch else { return };
            let index = choice.partition as usize;
            let leader = meta.partitions[index].leader;
            if batch.attempts.is_suspect() && !self.leaders.takes_alone(leader) {
                topic.unbound.put_back(batch);
                return;
            }
            taken[index] = true;
            let size = batch.batch_size();
            let bytes = batch.sealed.uncompressed_len();
            topic.given.give(&choice, bytes as f64 / size as f64);
            topic.stay(choice.partition, bytes, size, self.now, self.rng);
            self.put(topic, &meta, index, leader, batch);
        }
    }

    /// What open batches for a leader wait for: the time at which a request to it may be made, or nothing
    /// if this round makes one already. `leader` is `None` while it is not known yet which one it will be.
    fn gather(&mut self, leader: Option<i32>) -> Gather {
        let (strain, rides) = match leader.and_then(|id| self.leaders.get(id)) {
            Some(leader) => (leader.strain(self.now), leader.has_draft()),
            None if leader.is_none() => (self.leaders.least_strain(), !self.drafts.is_empty()),
            None => (Strain::default(), !self.drafts.is_empty()),
        };
        let limits = *self.pool.pace().limits();
        let next = self.allowance.next_at(&strain, &limits, self.now);
        let until = if rides { None } else { next };
        Gather { until, next, strain, limits }
    }

    /// Whether this leader may get no request yet, and another of the topic may. If none may, or it is the only one,
    /// batches gather as long as its own strain asks for.
    fn leaves_it_to_others(&mut self, id: i32, meta: &TopicMeta) -> bool {
        if !self.keeps_a_distance(id) {
            return false;
        }
        let (limits, least) = (self.pool.pace().limits(), self.leaders.least_strain());
        // Known without looking at the partitions, which may be thousands.
        if self.allowance.apart(&least, limits, self.now).is_some() {
            return false;
        }
        meta.partitions.iter().map(|p| p.leader).any(|other| {
            other != id
                && self.leaders.is_used(other)
                && self.leaders.get(other).is_some_and(|leader| leader.lane().is_some())
                && !self.keeps_a_distance(other)
        })
    }

    /// Whether this leader, which is strained, may get no request yet.
    fn keeps_a_distance(&mut self, id: i32) -> bool {
        let limits = self.pool.pace().limits();
        self.leaders.get(id).is_some_and(|leader| {
            !leader.has_draft()
                && self.allowance.apart(&leader.strain(self.now), limits, self.now).is_some()
        })
    }

    /// The leader that a batch with a given partition must go to, if it can take a request now. If it is not connected it is
    /// dialled, from `dial_at` on.
    fn needed_leader(
        &mut self,
        meta: &TopicMeta,
        index: usize,
        dial_at: Option<Instant>,
    ) -> Option<i32> {
        let now = self.now;
        let id = meta.partitions.get(index).map_or(NO_LEADER, |p| p.leader);
        let Some(leader) = self.leaders.known(id) else {
            self.metadata.want(&meta.name, RefreshReason::Stale);
            return None;
        };
        if leader.is_quiet(now) {
            self.leaders.prove(id, now, self.tasks);
            return None;
        }
        if leader.lane().is_some() {
            if leader.is_ready(now) {
                // A late connection gets nothing new; its response, or its end, is waited for.
                return (!leader.is_stuck() && leader.draft_has_room()).then_some(id);
            }
            self.schedule.round_by(leader.muted_until(now));
            return None;
        }
        if !leader.is_being_dialled() {
            if leader.broker().is_unreachable() {
                // The cluster may have named another one meanwhile.
                self.metadata.want(&meta.name, RefreshReason::Lost);
            }
            match leader.broker().not_before(DialUrgency::Needed, now).max(dial_at) {
                None => self.leaders.dial(id, DialUrgency::Needed, now, self.tasks),
                at => self.schedule.round_by(at),
            }
        }
        None
    }

    /// Binds a batch to a partition: gives it an id and a sequence, and adds it to the draft of its
    /// leader's request.
    fn put(
        &mut self,
        topic: &mut Topic,
        meta: &TopicMeta,
        index: usize,
        leader: i32,
        batch: Batch,
    ) {
        let begins = self.id_state.begins();
        self.schedule.expiry_by(Some(batch.deadline));
        let to_send = topic.partitions[index].push(self.ids.next(), batch, leader, begins);
        self.add_to_draft(leader, topic, meta, index, to_send);
    }

    /// Adds a batch to the draft of its leader's request, and begins that draft if there is none.
    fn add_to_draft(
        &mut self,
        id: i32,
        topic: &Topic,
        meta: &TopicMeta,
        index: usize,
        to_send: ToSend,
    ) {
        let batch = topic.partitions[index].batch(to_send.id);
        let (bytes, hasty) = batch.map_or((0, false), |b| (b.sealed.wire_len(), b.hasty));
        let mut strained = false;
        if let Some(leader) = self.leaders.get(id) {
            leader.assemble(bytes);
            strained = to_send.retry.is_none() && leader.strain(self.now).is_felt();
        }
        let draft = match self.drafts.iter_mut().position(|draft| draft.leader() == id) {
            Some(i) => &mut self.drafts[i],
            None => {
                self.allowance.take(hasty, strained, self.now);
                self.drafts.push(RequestDraft::new(id, hasty));
                self.drafts.last_mut().expect("pushed above")
            }
        };
        draft.add((Arc::clone(&meta.name), meta.id, index as i32, to_send), bytes);
    }
}
