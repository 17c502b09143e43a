//! Followers that are not where the leader is: what each replica of a partition has.
//!
//! All replicas share one log here. A follower's part of it ends where a test says, or where the high
//! watermark is: what every follower has by then.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::topic::Partition;

/// What one replica has of its partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) high_watermark: i64,
    pub(crate) leads: bool,
}

/// What a test says of a follower; the rest is as the leader has it.
#[derive(Debug, Clone, Copy, Default)]
struct Set {
    start: Option<i64>,
    end: Option<i64>,
    high_watermark: Option<i64>,
}

/// The followers that a test says something of.
#[derive(Debug, Default)]
pub(crate) struct Followers(BTreeMap<i32, Set>);

impl Followers {
    /// Its log begins at `start`, whatever the leader's does.
    pub(crate) fn start_at(&mut self, broker: i32, start: Option<i64>) {
        self.0.entry(broker).or_default().start = start;
    }

    /// It copies nothing behind `end`; `None`: it copies everything again. Its high watermark is the
    /// leader's up to there, or the one that it knew last.
    pub(crate) fn end_at(&mut self, broker: i32, end: Option<i64>, high_watermark: Option<i64>) {
        let set = self.0.entry(broker).or_default();
        set.end = end;
        set.high_watermark = high_watermark;
    }

    /// It leads: its log is the log.
    pub(crate) fn leads(&mut self, broker: i32) {
        self.0.remove(&broker);
    }

    /// The log ends at `end` now, and so does what followers have of it.
    pub(crate) fn cut_back(&mut self, end: i64) {
        for set in self.0.values_mut() {
            for offset in [&mut set.start, &mut set.end, &mut set.high_watermark] {
                *offset = offset.map(|at| at.min(end));
            }
        }
    }
}

impl Partition {
    /// What a broker has of the log; `None`: it is no replica.
    pub(crate) fn replica(
        &mut self,
        broker: i32,
        now: Instant,
        cluster_delay: Duration,
    ) -> Option<Replica> {
        let high_watermark = self.high_watermark(now, cluster_delay);
        let (start, end) = (self.log.start(), self.log.end());
        if self.leader == Some(broker) {
            return Some(Replica { start, end, high_watermark, leads: true });
        }
        if !self.replicas.contains(&broker) {
            return None;
        }
        let set = self.followers.0.get(&broker).copied().unwrap_or_default();
        let end = set.end.unwrap_or(high_watermark).min(end);
        Some(Replica {
            start: set.start.unwrap_or(start).max(start),
            end,
            high_watermark: set.high_watermark.unwrap_or(high_watermark).min(end),
            leads: false,
        })
    }

    /// Which of these brokers a consumer is sent to, to read from `offset` on; `None`: to nobody else
    /// than the leader. In sync, with that offset, and with the most, as Kafka's
    /// `ReplicaManager.findPreferredReadReplica` and `RackAwareReplicaSelector` choose.
    pub(crate) fn preferred(
        &mut self,
        near: &[i32],
        offset: i64,
        now: Instant,
        cluster_delay: Duration,
    ) -> Option<i32> {
        if self.leader.is_none_or(|leader| near.contains(&leader)) {
            return None;
        }
        let in_sync: Vec<i32> = near.iter().copied().filter(|id| self.isr.contains(id)).collect();
        let ends = in_sync.into_iter().filter_map(|id| {
            let replica = self.replica(id, now, cluster_delay)?;
            (replica.start..=replica.end).contains(&offset).then_some((replica.end, id))
        });
        ends.max().map(|(_, id)| id)
    }
}
