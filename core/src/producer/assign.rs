//! Binding: which partition each batch goes to in a round, and so which leader. As late as can be:
//! a batch without a partition is free until it is put into a request.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::accumulator::Batch;
use super::leaders::Leader;
use super::partition::ToSend;
use super::sender::{Event, Load, Sender, earlier};
use super::topics::{Next, Topic};
use crate::cluster::{Lane, TopicMeta};
use crate::config::MAX_PRODUCE_REQUEST;
use crate::policy::spread::{self, Candidate};

impl Sender {
    /// Batches sent again in place, and those with a named partition.
    pub(super) fn assign_bound(
        &mut self,
        topic: &mut Topic,
        now: Instant,
        taken: &mut [bool],
        loads: &mut Vec<Load>,
    ) {
        let Some(meta) = topic.meta.clone() else { return };
        for (index, taken) in taken.iter_mut().enumerate() {
            if !topic.partitions[index].needs_leader() {
                continue;
            }
            let at = topic.partitions[index].retry_at;
            if at.is_some_and(|at| at > now) {
                self.wake_at = earlier(self.wake_at, at);
                continue;
            }
            let Some(leader) = self.needed_leader(&meta, index, now) else { continue };
            if let Some(to_send) = topic.partitions[index].next_resend(leader, now) {
                let bytes =
                    topic.partitions[index].batch(to_send.id).map_or(0, |b| b.sealed.wire_len());
                *taken = true;
                self.load(loads, leader, &meta, index, to_send, bytes, true);
            }
        }
        let mut wanted: Vec<i32> = topic
            .pinned
            .iter()
            .filter(|(_, queue)| !queue.is_empty())
            .map(|(partition, _)| *partition)
            .collect();
        wanted.extend(topic.slots.iter().filter_map(|(_, slot)| slot.partition));
        wanted.sort_unstable();
        wanted.dedup();
        for partition in wanted {
            let Some(index) =
                usize::try_from(partition).ok().filter(|i| *i < topic.partitions.len())
            else {
                topic.refuse_partition(partition, meta.partitions.len());
                continue;
            };
            if taken[index] {
                continue;
            }
            let state = &topic.partitions[index];
            if !state.has_room(meta.partitions.get(index).map_or(-1, |p| p.leader), now) {
                self.wake_at = earlier(self.wake_at, state.retry_at.filter(|at| *at > now));
                continue;
            }
            let Some(leader) = self.needed_leader(&meta, index, now) else { continue };
            let idle = self.leaders.get(&leader).is_some_and(Leader::is_idle);
            let batch = match topic.pinned.get_mut(&partition).and_then(VecDeque::pop_front) {
                Some(batch) => Some(batch),
                None => {
                    let (batch, wake) =
                        topic.take(|slot| slot.partition == Some(partition), now, idle);
                    self.wake_at = earlier(self.wake_at, wake);
                    batch
                }
            };
            if let Some(batch) = batch {
                taken[index] = true;
                self.put(topic, &meta, index, leader, batch, loads);
            }
        }
    }

    /// Batches that may go anywhere: the better of two partitions drawn at random, staying for a
    /// batch's worth of bytes.
    pub(super) fn assign_unbound(
        &mut self,
        topic: &mut Topic,
        now: Instant,
        taken: &mut [bool],
        loads: &mut Vec<Load>,
    ) {
        let Some(meta) = topic.meta.clone() else { return };
        loop {
            let (full, due) = match topic.next_unbound(now) {
                Next::Nothing => return,
                Next::Full => (true, None),
                Next::Open { due } => (due <= now, Some(due)),
            };
            let mut ready: Vec<Candidate> = Vec::new();
            let mut absent: Vec<Candidate> = Vec::new();
            let mut retry_at = None;
            for (index, state) in topic.partitions.iter().enumerate() {
                let leader_id = meta.partitions.get(index).map_or(-1, |p| p.leader);
                if leader_id < 0 || taken[index] {
                    continue;
                }
                if !state.has_room(leader_id, now) {
                    retry_at = earlier(retry_at, state.retry_at.filter(|at| *at > now));
                    continue;
                }
                let leader = self.leaders.entry(leader_id).or_default();
                let candidate = Candidate {
                    partition: index as i32,
                    bytes_in_flight: leader.bytes_in_flight + leader.assembled,
                    latency_us: leader.latency_us,
                };
                if leader.is_ready(now) {
                    let fits = leader.assembled < MAX_PRODUCE_REQUEST;
                    if fits && (full || leader.is_idle()) {
                        ready.push(candidate);
                    }
                } else if leader.may_dial(now, false) {
                    absent.push(candidate);
                } else if leader.connection.is_none() && !leader.dialing {
                    retry_at = earlier(retry_at, leader.next_dial(false));
                } else {
                    retry_at = earlier(retry_at, leader.muted_until.filter(|at| *at > now));
                }
            }
            let stays = topic.sticky.and_then(|(p, _)| ready.iter().position(|c| c.partition == p));
            let choice = stays.map(|i| ready[i]).or_else(|| {
                let both: Vec<_> = ready.iter().chain(&absent).copied().collect();
                let first = both[spread::choose(&both, &mut self.rng)?];
                if ready.contains(&first) {
                    return Some(first);
                }
                // Its broker is opened for later; the batch does not wait for that if another can
                // have it now.
                self.dial(meta.partitions[first.partition as usize].leader);
                spread::choose(&ready, &mut self.rng).map(|i| ready[i])
            });
            let Some(choice) = choice else {
                self.wake_at = earlier(self.wake_at, earlier(retry_at, due.filter(|at| *at > now)));
                if meta.partitions.iter().all(|p| p.leader < 0) {
                    self.metadata.want(&topic.name);
                }
                self.rescue(topic, &meta, now);
                return;
            };
            let batch = match topic.unbound.pop_front() {
                Some(batch) => Some(batch),
                None => topic.take(|slot| slot.partition.is_none(), now, true).0,
            };
            let Some(batch) = batch else { return };
            let index = choice.partition as usize;
            taken[index] = true;
            topic.stay(
                choice.partition,
                batch.sealed.uncompressed_len(),
                batch.home.config.batch_size,
            );
            let leader = meta.partitions[index].leader;
            self.put(topic, &meta, index, leader, batch, loads);
        }
    }

    /// No partition can take a batch: if that is because no leader is connected, the probes of
    /// optional brokers are too slow; any one is needed now.
    fn rescue(&mut self, topic: &Topic, meta: &TopicMeta, now: Instant) {
        let leaders: Vec<i32> =
            meta.partitions.iter().map(|p| p.leader).filter(|id| *id >= 0).collect();
        let alive = |l: &Leader| l.connection.is_some() || l.dialing;
        if leaders.iter().any(|id| self.leaders.get(id).is_some_and(alive)) {
            return;
        }
        let may: Vec<i32> = leaders
            .iter()
            .copied()
            .filter(|id| self.leaders.get(id).is_none_or(|l| l.may_dial(now, true)))
            .collect();
        let all: Vec<_> = may
            .iter()
            .map(|id| Candidate { partition: *id, bytes_in_flight: 0, latency_us: 0 })
            .collect();
        if let Some(i) = spread::choose(&all, &mut self.rng) {
            self.dial(may[i]);
        } else {
            let next = leaders.iter().filter_map(|id| self.leaders.get(id)?.next_dial(true)).min();
            self.wake_at = earlier(self.wake_at, next.filter(|at| *at > now));
        }
        let _ = topic;
    }

    /// The leader that a bound batch must go to, if it can take a request now; dials it else.
    fn needed_leader(&mut self, meta: &TopicMeta, index: usize, now: Instant) -> Option<i32> {
        let id = meta.partitions.get(index).map_or(-1, |p| p.leader);
        if id < 0 {
            self.metadata.want(&meta.name);
            return None;
        }
        let leader = self.leaders.entry(id).or_default();
        if leader.is_ready(now) {
            return (leader.assembled < MAX_PRODUCE_REQUEST).then_some(id);
        }
        if leader.may_dial(now, true) {
            self.dial(id);
        } else if leader.connection.is_none() && !leader.dialing {
            self.wake_at = earlier(self.wake_at, leader.next_dial(true));
        } else {
            self.wake_at = earlier(self.wake_at, leader.muted_until.filter(|at| *at > now));
        }
        None
    }

    fn dial(&mut self, id: i32) {
        let leader = self.leaders.entry(id).or_default();
        if leader.dialing || leader.connection.is_some() {
            return;
        }
        leader.dialing = true;
        let (pool, tx) = (self.pool.clone(), self.tx.clone());
        self.env.spawn(async move {
            let Some(pool) = pool.upgrade() else { return };
            let result = pool.lane(id, Lane::Produce).await;
            let _ = tx.send(Event::Lane(id, result));
        });
    }

    fn put(
        &mut self,
        topic: &mut Topic,
        meta: &TopicMeta,
        index: usize,
        leader: i32,
        batch: Batch,
        loads: &mut Vec<Load>,
    ) {
        self.next_id += 1;
        let bytes = batch.sealed.wire_len();
        self.next_expiry = earlier(self.next_expiry, Some(batch.deadline));
        let to_send = topic.partitions[index].push(self.next_id, batch, leader);
        self.load(loads, leader, meta, index, to_send, bytes, false);
    }

    #[allow(clippy::too_many_arguments, reason = "one line of a request, named field by field")]
    fn load(
        &mut self,
        loads: &mut Vec<Load>,
        leader: i32,
        meta: &TopicMeta,
        index: usize,
        to_send: ToSend,
        bytes: usize,
        retry: bool,
    ) {
        self.leaders.entry(leader).or_default().assembled += bytes;
        let load = match loads.iter_mut().position(|l| l.leader == leader) {
            Some(i) => &mut loads[i],
            None => {
                loads.push(Load { leader, parts: Vec::new(), retries: true });
                loads.last_mut().expect("pushed above")
            }
        };
        load.retries &= retry;
        load.parts.push((Arc::clone(&meta.name), meta.id, index as i32, to_send));
    }
}
