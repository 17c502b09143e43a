//! Binding: gives each batch of a round its partition, and so its leader. This is done as late as possible: a
//! batch without a partition is free until it is put into a request. For those batches
//! [`select`](super::select) chooses.

use std::sync::Arc;

use tokio::time::Instant;

use super::Sender;
use super::partition::{Partition, ToSend};
use super::request::RequestDraft;
use super::round::Round;
use super::send_queue::{Next, SendQueue};
use super::topic::Topic;
use crate::caught::caught;
use crate::cluster::{Lane, TopicMeta};
use crate::config::MAX_PRODUCE_REQUEST;
use crate::environment::earlier;
use crate::policy::metadata_refresh::RefreshReason;
use crate::policy::pace::{Gather, Strain};
use crate::policy::reconnect::DialUrgency;
use crate::producer::accumulator::Event;
use crate::producer::batch::Batch;
use crate::protocol::NO_LEADER;

impl Sender {
    /// Assigns the batches of a topic that can go now. A request is bounded and carries one batch a partition, so batches
    /// that did not get into one come first in the next. That holds among partitions, and between batches that
    /// name their partition and batches that do not, which may want the same one.
    pub(super) fn assign(&mut self, topic: &mut Topic, round: &mut Round<'_>, taken: &mut [bool]) {
        let before = round.parts();
        let to_any = if topic.unbound_first {
            self.assign_unbound(topic, round, taken);
            let to_any = round.parts() - before;
            self.assign_bound(topic, round, taken);
            to_any
        } else {
            self.assign_bound(topic, round, taken);
            let named = round.parts();
            self.assign_unbound(topic, round, taken);
            round.parts() - named
        };
        if round.parts() == before {
            // No leader took a batch: whose turn comes next does not change.
            return;
        }
        topic.crowded = round.drafts.iter().any(|draft| draft.bytes >= MAX_PRODUCE_REQUEST);
        topic.unbound_first = to_any == 0 && !topic.unbound.is_empty();
    }

    /// Assigns batches that are sent again in place, and those with a named partition.
    fn assign_bound(&mut self, topic: &mut Topic, round: &mut Round<'_>, taken: &mut [bool]) {
        let Some(meta) = topic.meta.clone() else { return };
        let now = round.now;
        for index in topic.resend.clone() {
            if !topic.partitions[index].needs_leader() {
                topic.resend.remove(&index);
                continue;
            }
            if taken[index] {
                continue;
            }
            let at = topic.partitions[index].retry_at;
            if at.is_some_and(|at| at > now) {
                self.wake_at = earlier(self.wake_at, at);
                continue;
            }
            let leader = meta.partitions.get(index).map_or(NO_LEADER, |p| p.leader);
            if let Some(producer_id) = topic.partitions[index].wants_lookup()
                && leader >= 0
            {
                if !round.again {
                    let wanted = (Arc::clone(&topic.name), index as i32, producer_id);
                    round.lookups.entry(leader).or_default().push(wanted);
                }
                continue;
            }
            let Some(leader) = self.needed_leader(&meta, index, round) else { continue };
            if topic.partitions[index].next_is_suspect() && !self.takes_alone(leader) {
                continue;
            }
            if let Some(to_send) = topic.partitions[index].next_resend(leader, now) {
                taken[index] = true;
                self.add_to_draft(round, leader, topic, &meta, index, to_send);
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
        let gather = self.gather(None, round);
        for partition in wanted {
            let queue = topic.queue(Some(partition));
            if let Some(at) = queue.rests(now, &gather) {
                self.wake_at = earlier(self.wake_at, Some(at));
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
                self.wake_at = earlier(self.wake_at, state.retry_at.filter(|at| *at > now));
                continue;
            }
            let Some(leader) = self.needed_leader(&meta, index, round) else { continue };
            let idle = self.leaders.get(leader).is_some_and(|l| l.is_idle());
            let gather = self.gather(Some(leader), round);
            let queue = topic.queue(Some(partition));
            if queue.next_is_suspect() && !self.takes_alone(leader) {
                continue;
            }
            let batch = match queue.pop_back() {
                Some(batch) => Some(batch),
                None => {
                    let (batch, wake) = queue.take(now, idle, &gather);
                    self.wake_at = earlier(self.wake_at, wake);
                    round.held |= batch.is_none() && gather.until.is_some();
                    batch
                }
            };
            if let Some(batch) = batch {
                taken[index] = true;
                self.put(topic, &meta, index, leader, batch, round);
            }
        }
    }

    /// Assigns batches that may go to any partition: to the better of two that are drawn from the
    /// partitions that were given least. The choice stays for a batch's worth of bytes.
    fn assign_unbound(&mut self, topic: &mut Topic, round: &mut Round<'_>, taken: &mut [bool]) {
        let Some(meta) = topic.meta.clone() else { return };
        // In a topic of one partition, batches keep the order in which they came.
        let in_order = meta.partitions.len() == 1;
        loop {
            // The leader of the kept partition: its strain decides how long the next open batch gathers.
            let stays = topic.sticky.filter(|sticky| sticky.until > round.now);
            let leader = stays.and_then(|s| meta.partitions.get(s.partition as usize));
            let gather = self.gather(leader.map(|p| p.leader), round);
            let (full, due) = match topic.unbound.next(round.now, in_order, &gather) {
                Next::Nothing => return,
                Next::Later(at) => {
                    round.held |= gather.until.is_some();
                    self.wake_at = earlier(self.wake_at, Some(at));
                    return;
                }
                Next::Full => (true, None),
                Next::Open { due, later } => {
                    round.held |= gather.until.is_some() && later.is_some();
                    self.wake_at = earlier(self.wake_at, later);
                    (due <= round.now, Some(due))
                }
            };
            // The bucket allows no new request: the batch may only ride in one that this round makes
            // already.
            let next = gather.next.filter(|_| !full && gather.until.is_none());
            let riding = next.is_some();
            let Some(choice) = self.choose(topic, &meta, full, riding, taken, round) else {
                let at = earlier(next, due.filter(|at| *at > round.now));
                self.wake_at = earlier(self.wake_at, at);
                return;
            };
            let batch = match topic.unbound.pop_back_due(round.now, in_order) {
                Some(batch) => Some(batch),
                None => topic.unbound.take(round.now, true, &gather).0,
            };
            let Some(batch) = batch else { return };
            let index = choice.partition as usize;
            let leader = meta.partitions[index].leader;
            if batch.attempts.is_suspect() && !self.takes_alone(leader) {
                topic.unbound.put_back(batch);
                return;
            }
            taken[index] = true;
            let size = batch.batch_size();
            let bytes = batch.sealed.uncompressed_len();
            topic.given.give(&choice, bytes as f64 / size as f64);
            topic.stay(choice.partition, bytes, size, round.now, &mut self.rng);
            self.put(topic, &meta, index, leader, batch, round);
        }
    }

    /// What open batches for a leader wait for: the time at which a request to it may be made, or nothing
    /// if this round makes one already. `leader` is `None` while it is not known yet which one it will be.
    fn gather(&mut self, leader: Option<i32>, round: &Round<'_>) -> Gather {
        let (strain, rides) = match leader.and_then(|id| self.leaders.get(id)) {
            Some(leader) => (leader.strain.by(round.now), leader.assembled > 0),
            None => (Strain::default(), !round.drafts.is_empty()),
        };
        let limits = *round.pool.pace().limits();
        let apart = strain.not_before(&limits).filter(|at| *at > round.now);
        let next = round.bucket.holds_at().max(apart);
        let until = if rides { None } else { next };
        Gather { until, next, strain, limits }
    }

    /// Whether a suspect batch can go to this leader now: only if nothing is in flight there or assembled
    /// for it. If not, the leader is reserved for it.
    fn takes_alone(&mut self, leader: i32) -> bool {
        let Some(leader) = self.leaders.get(leader) else { return false };
        let alone = leader.is_idle() && leader.assembled == 0;
        leader.reserved = !alone;
        leader.alone = alone;
        alone
    }

    /// The leader that a batch with a given partition must go to, if it can take a request now. If it is not connected it is
    /// dialled.
    fn needed_leader(&mut self, meta: &TopicMeta, index: usize, round: &Round<'_>) -> Option<i32> {
        let now = round.now;
        let id = meta.partitions.get(index).map_or(NO_LEADER, |p| p.leader);
        let Some(leader) = self.leaders.known(id) else {
            self.metadata.want(&meta.name, RefreshReason::Stale);
            return None;
        };
        if leader.is_quiet(now) {
            self.doubt(id, now);
            return None;
        }
        if leader.lane().is_some() {
            if leader.is_ready(now) {
                // A late connection gets nothing new; its response, or its end, is waited for.
                return (!leader.is_stuck() && leader.assembled < MAX_PRODUCE_REQUEST)
                    .then_some(id);
            }
            self.wake_at = earlier(self.wake_at, leader.muted_until(now));
            return None;
        }
        if leader.dialing.is_none() {
            if leader.broker.is_unreachable() {
                // The cluster may have named another one meanwhile.
                self.metadata.want(&meta.name, RefreshReason::Lost);
            }
            match leader.broker.not_before(DialUrgency::Needed, now) {
                None => self.dial(id, DialUrgency::Needed),
                at => self.wake_at = earlier(self.wake_at, at),
            }
        }
        None
    }

    /// Opens the produce lane to a leader, unless it is open or being opened: with the control lane's
    /// connection if that is idle, otherwise by a dial.
    pub(in crate::producer) fn dial(&mut self, id: i32, urgency: DialUrgency) {
        let now = self.env.now();
        let Some(leader) = self.leaders.get(id) else { return };
        if leader.dialing.is_some() || leader.lane().is_some() {
            return;
        }
        if let Some(connection) = leader.broker.open(Lane::Produce) {
            leader.connection = Some(connection);
            // This round has passed this leader already. The event starts another round, which finds the
            // connection.
            let _ = self.tx.send(Event::Pressure);
            return;
        }
        leader.dialing = Some(now);
        self.leaders.opening();
        let Some(leader) = self.leaders.get(id) else { return };
        if leader.broker.is_unreachable() {
            leader.broker.metrics.probe();
        }
        self.open_lane(id, urgency);
    }

    /// If a leader's connection was quiet for long: asks it for a sign of life, before records are trusted to it, and gives
    /// `true`.
    pub(in crate::producer) fn doubt(&mut self, id: i32, now: Instant) -> bool {
        let Some(leader) = self.leaders.get(id).filter(|leader| leader.is_quiet(now)) else {
            return false;
        };
        leader.doubt(now);
        self.open_lane(id, DialUrgency::Needed);
        true
    }

    /// Asks the pool for the lane: the open connection, once it has given a sign of life, or a new one.
    pub(super) fn open_lane(&self, id: i32, urgency: DialUrgency) {
        let (pool, tx) = (self.pool.clone(), self.tx.clone());
        self.env.spawn(async move {
            let Some(pool) = pool.upgrade() else { return };
            let result = caught(async {
                pool.env().mishap("lane");
                pool.lane(id, Lane::Produce, urgency).await
            });
            let result = result.await.and_then(|result| result);
            let _ = tx.send(Event::Lane(id, result));
        });
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
        round: &mut Round<'_>,
    ) {
        let begins = self.id_state.begins();
        self.next_id += 1;
        self.next_expiry = earlier(self.next_expiry, Some(batch.deadline));
        let to_send = topic.partitions[index].push(self.next_id, batch, leader, begins);
        self.add_to_draft(round, leader, topic, meta, index, to_send);
    }

    /// Adds a batch to the draft of its leader's request, and begins that draft if there is none.
    fn add_to_draft(
        &mut self,
        round: &mut Round<'_>,
        id: i32,
        topic: &Topic,
        meta: &TopicMeta,
        index: usize,
        to_send: ToSend,
    ) {
        let batch = topic.partitions[index].batch(to_send.id);
        let (bytes, hasty) = batch.map_or((0, false), |b| (b.sealed.wire_len(), b.hasty));
        if let Some(leader) = self.leaders.get(id) {
            leader.assembled += bytes;
        }
        let draft = match round.drafts.iter_mut().position(|l| l.leader == id) {
            Some(i) => &mut round.drafts[i],
            None => {
                round.bucket.take(hasty);
                round.drafts.push(RequestDraft { leader: id, parts: Vec::new(), bytes: 0, hasty });
                round.drafts.last_mut().expect("pushed above")
            }
        };
        draft.bytes += bytes;
        draft.parts.push((Arc::clone(&meta.name), meta.id, index as i32, to_send));
    }
}
