//! The sender's view of the brokers ([`leader`]): which of them this process uses for records that may go anywhere, and
//! their produce lanes ([`lanes`]) with what is in flight there.

mod lanes;
mod leader;
mod left;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Pool;
use crate::metrics::Metrics;
use crate::policy::ejection::{Admission, avoid_out};
use crate::policy::latency::avoid_late;
use crate::policy::pace::Strain;
use crate::policy::subset::{self, Chooser, Member, Size};

pub(super) use leader::DIAL_HEDGE;
pub(crate) use leader::Leader;
use left::Left;

/// The least time after which a broker is looked at again for lateness.
const LATE_CHECK: Duration = Duration::from_millis(10);

/// Brokers outside the subset that were added are given up after this time, unless they are needed again.
const OUTSIDE_FOR: Duration = Duration::from_secs(300);

/// If the brokers used outside the subset are more than this percentage of what a new choice would need, they
/// are chosen again.
const TOO_MANY: usize = 115;

/// All brokers, as this sender sees them.
pub(crate) struct Leaders {
    all: BTreeMap<i32, Leader>,
    /// Chooses this client's subset.
    chooser: Chooser,
    size: Size,
    /// The brokers by the last metadata.
    members: Vec<Member>,
    /// This process's ranking of them, and until when it holds.
    ranking: Vec<i32>,
    ranked_until: Option<Instant>,
    /// The first of the ranking; all brokers if the cluster is small or the volume large.
    subset: BTreeSet<i32>,
    /// Brokers that are used besides, because a topic has no usable partition in the subset.
    outside: BTreeSet<i32>,
    outside_until: Option<Instant>,
    /// Brokers that were used before the last turn of the subset.
    left: Left,
    /// More than half of the brokers are unreachable or ejected, so none is avoided.
    none_avoided: bool,
    /// In this round.
    least_strain: Strain,
    /// Bytes sent since a lane was opened.
    since_opened: usize,
    /// How many lanes were open when this round began.
    lanes: usize,
    /// A lane was lost at some time.
    lost_one: bool,
    /// When one more lane is opened, whatever the volume is.
    spare_at: Option<Instant>,
}

impl Leaders {
    pub(crate) fn new(now: Instant, chooser: Chooser) -> Self {
        Self {
            all: BTreeMap::new(),
            chooser,
            size: Size::new(now),
            members: Vec::new(),
            ranking: Vec::new(),
            ranked_until: None,
            subset: BTreeSet::new(),
            outside: BTreeSet::new(),
            outside_until: None,
            left: Left::default(),
            none_avoided: false,
            least_strain: Strain::default(),
            since_opened: 0,
            lanes: 0,
            lost_one: false,
            spare_at: None,
        }
    }

    pub(crate) fn chooser(&self) -> &Chooser {
        &self.chooser
    }

    /// How strained the one is that is strained least, of the brokers that records which may go anywhere go to in
    /// this round: used, connected, not avoided.
    pub(crate) fn least_strain(&self) -> Strain {
        self.least_strain
    }

    pub(crate) fn get(&mut self, id: i32) -> Option<&mut Leader> {
        self.all.get_mut(&id)
    }

    /// A broker that records may be sent to: one of the cluster, or one that is still connected. Batches for any other
    /// wait until metadata names another leader.
    pub(crate) fn known(&mut self, id: i32) -> Option<&mut Leader> {
        let leader = self.all.get_mut(&id)?;
        (leader.broker.is_member() || leader.lane().is_some()).then_some(leader)
    }

    /// Takes over the brokers of the cluster, which may have changed.
    pub(crate) fn learn(&mut self, pool: &Pool) {
        let members = pool.members();
        for broker in &members {
            let leader =
                self.all.entry(broker.id).or_insert_with(|| Leader::new(Arc::clone(broker)));
            // The pool has forgotten this broker and knows it again: lanes are opened through the new
            // entry.
            if !Arc::ptr_eq(&leader.broker, broker)
                && leader.requests == 0
                && leader.dialing.is_none()
            {
                *leader = Leader::new(Arc::clone(broker));
            }
        }
        // A broker that is no longer there stays as long as something is in flight to it.
        self.all.retain(|id, leader| {
            leader.requests > 0
                || leader.dialing.is_some()
                || members.iter().any(|broker| broker.id == *id)
        });
        let racks = pool.racks();
        if racks != self.members {
            self.members = racks;
            self.ranked_until = None;
        }
    }

    /// Counts bytes that were sent: the volume decides how many brokers are used.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        self.size.sent(bytes, now);
        self.since_opened = self.since_opened.saturating_add(bytes);
    }

    /// Before a round: brings the subset up to date and decides which brokers are avoided.
    pub(crate) fn begin_round(&mut self, pool: &Pool, metrics: &Metrics, now: Instant) {
        self.choose_subset(pool, now);
        self.close_left();
        let of = self.all.len();
        let mut out = BTreeSet::new();
        let (mut late, mut connected) = (Vec::new(), 0);
        for (id, leader) in &mut self.all {
            leader.begin_round();
            if leader.broker.is_troubled()
                && (leader.broker.is_unreachable()
                    || matches!(leader.broker.admission(now), Admission::Ejected { .. }))
            {
                out.insert(*id);
            }
            if leader.is_late(now) {
                late.push(*id);
            }
            connected += usize::from(leader.connection.is_some() || leader.proving);
        }
        // A lane was lost: the bytes sent before say nothing about how many lanes are needed now.
        if connected < self.lanes {
            self.spare_at = None;
            self.since_opened = 0;
            self.lost_one = true;
        }
        self.lanes = connected;
        let none_avoided = !avoid_out(out.len(), of);
        if none_avoided && !self.none_avoided {
            metrics.panic_entered();
        }
        self.none_avoided = none_avoided;
        if !none_avoided {
            self.avoid(&out);
        }
        // A client with a single lane cannot tell its broker's silence from everybody's: it tries one
        // other broker, and believes in a common cause if that is late too.
        if avoid_late(late.len(), connected.max(of.min(2))) {
            self.avoid(&late);
            for id in late {
                if let Some(leader) = self.all.get_mut(&id) {
                    leader.stuck = true;
                }
            }
        }
        self.find_least_strain(now);
    }

    fn find_least_strain(&mut self, now: Instant) {
        let Self { all, subset, outside, .. } = self;
        let used = all.iter_mut().filter(|(id, _)| subset.contains(id) || outside.contains(id));
        let strains = used.filter_map(|(_, leader)| {
            let fit = !leader.avoided && !leader.stuck && leader.lane().is_some();
            fit.then(|| leader.strain(now))
        });
        let least = strains.max_by(|a, b| a.pace().total_cmp(&b.pace()));
        self.least_strain = least.unwrap_or_default();
    }

    /// Brokers that have become stuck since the last call.
    pub(crate) fn newly_stuck(&mut self) -> Vec<i32> {
        let mut new = Vec::new();
        for (id, leader) in &mut self.all {
            if leader.stuck && !leader.passed_on {
                new.push(*id);
            }
            leader.passed_on = leader.stuck;
        }
        new
    }

    /// When a broker will be late whose oldest request was sent at `sent`. If it is late already, but not stuck because
    /// most brokers are, it is looked at again soon. `None` once it is stuck.
    pub(crate) fn late_at(&self, id: i32, sent: Instant, now: Instant) -> Option<Instant> {
        let leader = self.all.get(&id).filter(|leader| !leader.stuck)?;
        Some((sent + leader.late_after).max(now + LATE_CHECK))
    }

    fn avoid<'a>(&mut self, ids: impl IntoIterator<Item = &'a i32>) {
        for id in ids {
            if let Some(leader) = self.all.get_mut(id) {
                leader.avoided = true;
            }
        }
    }

    fn choose_subset(&mut self, pool: &Pool, now: Instant) {
        if self.ranked_until.is_none_or(|until| until <= now) {
            let wall = Duration::from_millis(u64::try_from(pool.env().wall_ms()).unwrap_or(0));
            let (rotation, left) = self.chooser.rotation(wall);
            self.ranking = self.chooser.rank(&self.members, rotation);
            self.ranked_until = Some(now + left);
            self.leave_all(now);
            self.subset.clear();
            self.outside.clear();
        }
        if self.outside_until.is_some_and(|until| until <= now) {
            self.outside.clear();
            self.outside_until = None;
        }
        let size = self.size.get(self.ranking.len(), now);
        if self.subset.len() != size {
            self.subset = self.ranking[..size].iter().copied().collect();
        }
    }

    /// Whether records that may go anywhere may go to this broker: it is in the subset, or was added to it.
    pub(crate) fn is_used(&self, id: i32) -> bool {
        self.subset.contains(&id) || self.outside.contains(&id)
    }

    /// Whether any lane is open.
    pub(crate) fn is_connected(&mut self) -> bool {
        self.all.values_mut().any(|leader| leader.lane().is_some())
    }

    /// Adds brokers outside the subset for topics without a usable partition in it. `topics`: the leaders of each topic
    /// in use. `true` if that helps any of them.
    pub(crate) fn widen(&mut self, topics: &[BTreeSet<i32>], now: Instant) -> bool {
        let usable = |id: &i32| self.all.get(id).is_some_and(|leader| !leader.avoided);
        let open: Vec<BTreeSet<i32>> =
            topics.iter().map(|leaders| leaders.iter().copied().filter(usable).collect()).collect();
        let used: BTreeSet<i32> = self.subset.union(&self.outside).copied().collect();
        let connected: BTreeSet<i32> = self
            .all
            .iter()
            .filter(|(_, leader)| leader.broker.is_connected())
            .map(|(id, _)| *id)
            .collect();
        let more = subset::cover(&open, &used, &connected, &self.ranking);
        if more.is_empty() {
            return false;
        }
        self.outside.extend(more);
        self.outside_until.get_or_insert(now + OUTSIDE_FOR);
        // `outside` grew topic by topic, and a choice for all topics together may need fewer brokers. If it
        // needs clearly fewer, it takes the place of the old one.
        let afresh = subset::cover(&open, &self.subset, &BTreeSet::new(), &self.ranking);
        if afresh.len() * TOO_MANY < self.outside.len() * 100 {
            self.outside = afresh.into_iter().collect();
            self.give_up_unused();
        }
        true
    }

    /// Closes lanes to brokers that are not used any more.
    fn give_up_unused(&mut self) {
        for (id, leader) in &mut self.all {
            let used = self.subset.contains(id) || self.outside.contains(id);
            if !used
                && leader.requests == 0
                && let Some(connection) = leader.connection.take()
            {
                connection.retire();
            }
        }
    }
}

#[cfg(test)]
mod tests;
