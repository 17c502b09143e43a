//! Topics and partitions: who leads, who follows, and what lies in the log.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::batch::{self, BatchHeader, Refusal, Rules};
use crate::error_code as code;
use crate::followers::Followers;
use crate::log::{Keeps, PartitionLog};
use crate::producer_state::{ProducerStates, Verdict};
use crate::settings::Overrides;
use crate::transactions::{TransactionEnd, Transactions};
use crate::writer;

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) rules: Rules,
    /// What was set for it.
    pub(crate) settings: Overrides,
}

impl Topic {
    pub(crate) fn partition_mut(&mut self, index: i32) -> Option<&mut Partition> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get_mut(index))
    }
}

#[derive(Debug)]
pub(crate) struct Partition {
    /// `None`: no replica can lead at the moment.
    pub(crate) leader: Option<i32>,
    pub(crate) leader_epoch: i32,
    /// Assigned brokers; the first is the preferred leader.
    pub(crate) replicas: Vec<i32>,
    /// In-sync replicas.
    pub(crate) isr: Vec<i32>,
    pub(crate) log: PartitionLog,
    pub(crate) producers: ProducerStates,
    pub(crate) transactions: Transactions,
    pub(crate) followers: Followers,
    /// Where the log ended when the leader began to lead.
    pub(crate) epoch_start: i64,
    /// Overrides the cluster's replica delay.
    pub(crate) replica_delay: Option<Duration>,
    waiters: Waiters,
}

/// Where an append ended up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    /// One past the last record: the high watermark that acks=all waits for.
    pub(crate) end_offset: i64,
    pub(crate) duplicate: bool,
}

impl Partition {
    pub(crate) fn new(replicas: Vec<i32>, alive: impl Fn(i32) -> bool, keeps: Keeps) -> Self {
        let isr: Vec<i32> = replicas.iter().copied().filter(|id| alive(*id)).collect();
        Self {
            leader: isr.first().copied(),
            leader_epoch: 0,
            isr,
            replicas,
            log: PartitionLog::new(keeps),
            producers: ProducerStates::default(),
            transactions: Transactions::default(),
            followers: Followers::default(),
            epoch_start: 0,
            replica_delay: None,
            waiters: Waiters::default(),
        }
    }

    /// Makes `leader` the leader under a new epoch and tells everybody who waits here.
    pub(crate) fn lead(&mut self, leader: Option<i32>) {
        self.leader = leader;
        self.leader_epoch += 1;
        if let Some(leader) = leader {
            self.log.begin_epoch(self.leader_epoch);
            self.epoch_start = self.log.end();
            self.followers.leads(leader);
        }
        self.waiters.wake();
    }

    pub(crate) fn append(
        &mut self,
        header: &BatchHeader,
        data: Bytes,
        now: Instant,
        delay: Duration,
    ) -> Result<Appended, Refusal> {
        match self.producers.judge(header)? {
            Verdict::Duplicate { base_offset, last_offset } => {
                Ok(Appended { base_offset, end_offset: last_offset + 1, duplicate: true })
            }
            Verdict::Append => {
                let open = self.transactions.open_since(header.producer_id).is_some();
                if open && !header.is_transactional() {
                    return Err(Refusal::new(
                        code::INVALID_TXN_STATE,
                        format!("producer {} has a transaction open", header.producer_id),
                    ));
                }
                if header.is_transactional() && !open && !self.transactions.has_room() {
                    return Err(Refusal::new(
                        code::POLICY_VIOLATION,
                        "too many transactions are open in this partition",
                    ));
                }
                let base_offset = self.push(header, data, now, delay);
                self.producers.appended(header, base_offset);
                if header.is_transactional() {
                    self.transactions.appended(header.producer_id, base_offset);
                }
                self.waiters.wake();
                Ok(Appended { base_offset, end_offset: self.log.end(), duplicate: false })
            }
        }
    }

    /// Appends the marker that ends a producer's transaction. Returns its offset and its size.
    pub(crate) fn end_transaction(
        &mut self,
        (producer_id, epoch): (i64, i16),
        end: TransactionEnd,
        now: Instant,
        delay: Duration,
    ) -> Result<(i64, usize), Refusal> {
        self.producers.marked(producer_id, epoch)?;
        let marker = writer::marker(producer_id, epoch, end);
        let header = batch::read_header(&marker)?;
        let len = marker.len();
        let data = if self.log.stores() { marker } else { Bytes::new() };
        let offset = self.push(&header, data, now, delay);
        self.transactions.ended(producer_id, offset, end);
        self.waiters.wake();
        Ok((offset, len))
    }

    fn push(&mut self, header: &BatchHeader, data: Bytes, now: Instant, delay: Duration) -> i64 {
        let followers = self.isr.len() > 1 && !self.delay(delay).is_zero();
        let base_offset = self.log.append(header, data, self.leader_epoch, now, followers);
        self.transactions.forget_before(self.log.start());
        base_offset
    }

    /// How long followers take to copy a batch here.
    pub(crate) fn delay(&self, cluster: Duration) -> Duration {
        if self.isr.len() < 2 { Duration::ZERO } else { self.replica_delay.unwrap_or(cluster) }
    }

    pub(crate) fn high_watermark(&mut self, now: Instant, cluster_delay: Duration) -> i64 {
        let delay = self.delay(cluster_delay);
        self.log.high_watermark(now, delay)
    }

    /// The offset up to which it is decided what belongs to the log (KIP-98).
    pub(crate) fn last_stable(&mut self, now: Instant, cluster_delay: Duration) -> i64 {
        let high_watermark = self.high_watermark(now, cluster_delay);
        self.transactions.stable(self.log.start(), high_watermark)
    }

    /// `notify` hears of the next append, leader change or change of delay here.
    pub(crate) fn wait(&mut self, notify: &Arc<Notify>) {
        self.waiters.add(notify);
    }

    pub(crate) fn wake(&mut self) {
        self.waiters.wake();
    }
}

/// Requests waiting for something to happen at a partition. They register anew for each wait, so
/// the list holds no one who already left for longer than until the next sweep.
#[derive(Debug, Default)]
struct Waiters {
    list: Vec<Weak<Notify>>,
    sweep_at: usize,
}

impl Waiters {
    fn add(&mut self, notify: &Arc<Notify>) {
        // A quiet partition is never appended to, and would collect an entry per long poll.
        if self.list.len() >= self.sweep_at {
            self.list.retain(|waiter| waiter.strong_count() > 0);
            self.sweep_at = (self.list.len() * 2).max(16);
        }
        let new = Arc::downgrade(notify);
        if !self.list.iter().rev().take(4).any(|waiter| waiter.ptr_eq(&new)) {
            self.list.push(new);
        }
    }

    fn wake(&mut self) {
        for waiter in self.list.drain(..) {
            if let Some(waiter) = waiter.upgrade() {
                waiter.notify_one();
            }
        }
    }
}
