//! Chooses the partition of a batch that may go to any: which partitions can take it now, and which lanes are
//! opened so that there are more next time. If no broker of the subset can take it, brokers outside the subset
//! are used, and as a last resort any that can be reached.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::Round;
use crate::cluster::{Lookup, TopicMeta};
use crate::environment::earlier;
use crate::policy::metadata_refresh::RefreshReason;
use crate::policy::reconnect::DialUrgency;
use crate::policy::spread::{self, Candidate, Pick};
use crate::producer::sender::leaders::{DIAL_HEDGE, Leader};
use crate::producer::sender::topic::{Sticky, Topic};
use crate::protocol::NO_LEADER;

/// The batch that a partition is chosen for, and its topic.
struct SelectionContext<'a> {
    topic: &'a Topic,
    meta: &'a TopicMeta,
    /// The batch is full, or has waited for its linger.
    full: bool,
    /// Partitions that a request of this round names already.
    taken: &'a [bool],
}

/// The partitions that a batch could go to, by the state of their leaders.
#[derive(Default)]
struct Candidates {
    /// The leader takes a request now.
    ready: Vec<Candidate>,
    /// The leader is not connected, and may be dialled.
    absent: Vec<Candidate>,
    /// Leaders whose connection was quiet for so long that it has to be proved first.
    quiet: BTreeSet<i32>,
    /// A leader that is connected, or will be in a moment, could take the batch later.
    waiting: bool,
    /// A lane is being opened: another one is dialled only if that takes long.
    dialing: bool,
    /// Partitions that cannot be used now for another reason than being busy: the leader is avoided, stuck
    /// or lost, or a batch was refused. They do not catch up later on what they miss now.
    away: Vec<usize>,
    /// For each leader whose request of this round names partitions of this topic already: the least that
    /// any of these was given.
    named: BTreeMap<i32, f64>,
    /// When to look again, at the latest.
    look_at: Option<Instant>,
}

impl Candidates {
    /// Whether the batch can go nowhere: not now, not in a moment, and no lane may be opened for it.
    fn is_nothing(&self) -> bool {
        self.ready.is_empty() && self.absent.is_empty() && !self.waiting
    }
}

impl Round<'_> {
    /// The partition that a batch goes to now, if any. Opens lanes on the way: to brokers that could take some of the
    /// load; and if no broker can take the batch, to any that may be dialled. `riding`: only to a leader that gets a
    /// request in this round anyway.
    pub(in crate::producer::sender) fn choose(
        &mut self,
        topic: &mut Topic,
        meta: &TopicMeta,
        full: bool,
        riding: bool,
        taken: &[bool],
    ) -> Option<Pick> {
        let now = self.now;
        let context = SelectionContext { topic, meta, full, taken };
        let mut candidates = self.some_candidates(&context);
        if riding {
            // A batch that only rides causes no dial: its own time has not come yet.
            let leader = |c: &Candidate| meta.partitions[c.partition as usize].leader;
            candidates.ready.retain(|c| self.leaders.get(leader(c)).is_some_and(|l| l.has_draft()));
            if candidates.ready.is_empty() {
                return None;
            }
        }
        if candidates.is_nothing() && self.leave_subset(meta, now) {
            candidates = self.candidates(&context, false);
        }
        if candidates.is_nothing() {
            // Only brokers that are better avoided are left: one that is connected is used all the same; if
            // none is, one is dialled.
            candidates = self.candidates(&context, true);
            if candidates.is_nothing() {
                self.rescue(meta);
            }
        }
        let again = topic.unbound.next_was_refused(now);
        if !again {
            let leader = |c: &Candidate| meta.partitions[c.partition as usize].leader;
            candidates
                .ready
                .retain(|c| spread::goes_beside(c, candidates.named.get(&leader(c)).copied()));
        }
        let Candidates { ready, absent, quiet, away, mut dialing, mut look_at, .. } = candidates;
        // A few lanes are enough until the volume grows. Then one more is opened, for later batches.
        if !ready.is_empty()
            && !dialing
            && self.leaders.wants_more(now, self.rng)
            && let Some(i) = spread::draw(&absent, self.rng)
        {
            let leader = meta.partitions[absent[i].partition as usize].leader;
            self.leaders.dial(leader, DialUrgency::Pressed, now, self.tasks);
            dialing = true;
        }
        // While the leader of the kept partition is only busy, other partitions take the batches and the
        // choice stands: how the bytes spread still follows the draws.
        topic.sticky = topic.sticky.filter(|s| s.until > now && self.keeps(topic, meta, s, now));
        let stay = topic.sticky.map(|sticky| sticky.partition);
        let chosen = spread::choose(&ready, stay, again, self.rng);
        if let Some(pick) = &chosen {
            away.into_iter().for_each(|index| topic.given.passed_over(index, pick));
        }
        if chosen.is_none() && !dialing {
            // All quiet connections are proved at once: the first leader that responds gets the batch.
            for id in quiet {
                dialing |= self.leaders.prove(id, now, self.tasks);
            }
            if dialing {
                look_at = earlier(look_at, Some(now + DIAL_HEDGE));
            }
        }
        if chosen.is_none()
            && !dialing
            && let Some(i) = spread::draw(&absent, self.rng)
        {
            let urgency = if full { DialUrgency::Pressed } else { DialUrgency::Optional };
            let leader = meta.partitions[absent[i].partition as usize].leader;
            self.leaders.dial(leader, urgency, now, self.tasks);
        }
        if chosen.is_none() {
            self.schedule.round_by(look_at);
            if meta.partitions.iter().all(|p| self.leaders.known(p.leader).is_none()) {
                self.metadata.want(&meta.name, RefreshReason::Stale);
            }
        }
        chosen
    }

    /// Whether a choice is kept: not if its leader is avoided, or if batches may not go there for a while.
    fn keeps(&mut self, topic: &Topic, meta: &TopicMeta, sticky: &Sticky, now: Instant) -> bool {
        let index = sticky.partition as usize;
        let leader = meta.partitions.get(index).map_or(NO_LEADER, |p| p.leader);
        let waits = topic.partitions.get(index).is_some_and(|p| p.waits_until(now).is_some());
        let usable = |leader: &mut Leader| {
            leader.lane().is_some()
                && !leader.is_avoided()
                && !leader.is_stuck()
                && leader.muted_until(now).is_none()
        };
        !waits && self.leaders.is_used(leader) && self.leaders.get(leader).is_some_and(usable)
    }

    /// The candidates among a sample of the partitions if there are many, otherwise among all.
    fn some_candidates(&mut self, context: &SelectionContext<'_>) -> Candidates {
        let with = context.topic.sticky.map(|sticky| sticky.partition as usize);
        if let Some(some) = spread::sample(context.topic.partitions.len(), with, self.rng) {
            let candidates = self.candidates_of(some, context, false);
            // Two, so that there is something to compare.
            if candidates.ready.len() > 1 {
                return candidates;
            }
        }
        self.candidates(context, false)
    }

    /// The candidates. `anybody`: also brokers outside the subset and brokers that are avoided, but only if they are
    /// connected.
    fn candidates(&mut self, context: &SelectionContext<'_>, anybody: bool) -> Candidates {
        self.candidates_of(0..context.topic.partitions.len(), context, anybody)
    }

    fn candidates_of(
        &mut self,
        which: impl IntoIterator<Item = usize>,
        context: &SelectionContext<'_>,
        anybody: bool,
    ) -> Candidates {
        let SelectionContext { topic, meta, full, taken } = *context;
        let now = self.now;
        let connected = self.leaders.is_connected();
        // A full batch that finds every connected leader busy is as urgent as a high volume.
        let pressed = full || self.leaders.wants_more(now, self.rng);
        let urgency = if pressed { DialUrgency::Pressed } else { DialUrgency::Optional };
        let mut out = Candidates::default();
        let note = |at: &mut Option<Instant>, next: Option<Instant>| {
            *at = earlier(*at, next.filter(|next| *next > now));
        };
        for index in which {
            let state = &topic.partitions[index];
            let leader_id = meta.partitions.get(index).map_or(NO_LEADER, |p| p.leader);
            if leader_id < 0 || !(anybody || self.leaders.is_used(leader_id)) {
                continue;
            }
            let Some(leader) = self.leaders.known(leader_id) else { continue };
            // A broker that was lost is dialled now and then; otherwise nobody would notice that it is
            // back.
            let probed = !taken[index] && !leader.is_being_dialled() && leader.is_lost();
            let waits = state.waits_until(now);
            if waits.is_some() || leader.is_avoided() || leader.is_stuck() || leader.is_lost() {
                out.away.push(index);
            }
            if !anybody && leader.is_avoided() && !probed {
                continue;
            }
            if leader.is_stuck() {
                // The response, or the end of the connection, is waited for: no request is put behind one
                // that is overdue.
                out.waiting = true;
                continue;
            }
            if !connected {
                leader.take_control_lane();
            }
            if anybody && leader.lane().is_none() {
                continue;
            }
            if taken[index] || !state.has_room(leader_id, now) {
                // The partition has a batch in flight, or an error is being settled: it can take a batch
                // later.
                out.waiting = true;
                // Not if the partition only has a batch that is sent again: the retry budget may hold that
                // request back.
                if taken[index] && !topic.resend.contains(&index) {
                    let given = topic.given.to(index);
                    out.named
                        .entry(leader_id)
                        .and_modify(|least| *least = least.min(given))
                        .or_insert(given);
                }
                note(&mut out.look_at, waits);
                continue;
            }
            let candidate = Candidate {
                partition: index as i32,
                bytes_in_flight: leader.load(),
                latency_us: leader.latency_us(),
                given: topic.given.to(index),
            };
            if leader.is_quiet(now) {
                out.waiting = true;
                out.quiet.insert(leader_id);
                continue;
            }
            if leader.lane().is_some() {
                out.waiting = true;
                note(&mut out.look_at, leader.muted_until(now));
                let fits = leader.draft_has_room();
                if !(leader.is_ready(now) && fits && (full || leader.is_idle())) {
                    continue;
                }
                // A batch that can wait keeps the distance to a strained broker, unless it rides.
                let limits = self.pool.pace().limits();
                let apart = self.allowance.apart(&leader.strain(now), limits, now);
                match apart.filter(|_| !full && !leader.has_draft()) {
                    None => out.ready.push(candidate),
                    apart => note(&mut out.look_at, apart),
                }
                continue;
            }
            if leader.is_being_dialled() {
                let hopeful = leader.is_dialing(now);
                out.waiting |= hopeful;
                out.dialing |= hopeful;
                note(&mut out.look_at, leader.dial_hedged_at());
                continue;
            }
            match leader.broker().not_before(urgency, now) {
                None => out.absent.push(candidate),
                at => note(&mut out.look_at, at),
            }
        }
        out
    }

    /// The topic has no usable partition inside the subset: some brokers outside are used as well,
    /// chosen so that they cover every topic in use.
    fn leave_subset(&mut self, meta: &TopicMeta, now: Instant) -> bool {
        let leaders = |meta: &TopicMeta| -> BTreeSet<i32> {
            meta.partitions.iter().map(|p| p.leader).filter(|id| *id >= 0).collect()
        };
        // Also topics whose turn in this round has not come yet: choosing topic by topic ends with about
        // 1.5 times as many brokers as choosing for all topics at once.
        let mut topics: Vec<BTreeSet<i32>> = self
            .topics
            .iter()
            .filter_map(|topic| match &topic.meta {
                Some(meta) => Some(leaders(meta)),
                None => match self.metadata.lookup(&topic.name) {
                    Lookup::Known(meta) => Some(leaders(&meta)),
                    Lookup::Failed(_) | Lookup::Pending => None,
                },
            })
            .collect();
        // The topic in its turn was taken out of them, so it is added here.
        topics.push(leaders(meta));
        self.leaders.widen(&topics, now)
    }

    /// No leader is connected, and none may be dialled with the urgency of a batch that others could take.
    /// Now any one is needed. Dials one at a time, at the pace of all callers that look for any broker.
    fn rescue(&mut self, meta: &TopicMeta) {
        let now = self.now;
        let mut ids: BTreeSet<i32> =
            meta.partitions.iter().map(|p| p.leader).filter(|id| *id >= 0).collect();
        // Brokers of the subset are preferred, unless they cannot be reached: if each rescue added another
        // broker, this client would be connected to all of them at last.
        let mut used = ids.clone();
        used.retain(|id| self.leaders.is_used(*id));
        let mut leaders = used.iter().filter_map(|id| self.pool.broker(*id));
        if leaders.any(|broker| !broker.is_unreachable()) {
            ids = used;
        }
        let brokers: Vec<_> = ids.iter().filter_map(|id| self.pool.broker(*id)).collect();
        let lost = brokers.iter().filter(|broker| broker.is_unreachable()).count();
        // If all of them are lost, the cluster may have named other leaders meanwhile, or may be at other
        // addresses by now, to which only the bootstrap list leads.
        if lost > 0 && (lost == brokers.len() || !self.pool.is_connected(None)) {
            self.metadata.want(&meta.name, RefreshReason::Lost);
        }
        let mut may = Vec::new();
        let mut next = None;
        for id in ids {
            let Some(leader) = self.leaders.known(id) else { continue };
            if leader.is_dialing(now) {
                return;
            }
            if leader.is_being_dialled() || leader.lane().is_some() {
                continue;
            }
            match leader.broker().not_before(DialUrgency::Needed, now) {
                None => may.push(id),
                at => next = earlier(next, at),
            }
        }
        let all: Vec<_> = may
            .iter()
            .map(|id| Candidate { partition: *id, bytes_in_flight: 0, latency_us: 0, given: 0.0 })
            .collect();
        let Some(i) = spread::draw(&all, self.rng) else {
            self.schedule.round_by(next);
            return;
        };
        match self.pool.look_for_somebody(now) {
            Ok(()) => self.leaders.dial(may[i], DialUrgency::Needed, now, self.tasks),
            Err(at) => self.schedule.round_by(Some(at)),
        }
    }
}
