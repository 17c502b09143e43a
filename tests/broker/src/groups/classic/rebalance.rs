//! A rebalance: it begins, members are waited for, and a generation begins.

use std::time::Duration;

use tokio::time::Instant;

use super::{Classic, GroupSettings, Joined, Member, Phase, Synced, Timer};
use crate::error_code as code;

/// A rebalance that waits again waits at least so long: a timeout of zero must not spin.
const LEAST_WAIT: Duration = Duration::from_millis(1);

impl Classic {
    /// Something about a member has changed.
    pub(super) fn rebalance_or_complete(&mut self, settings: &GroupSettings, now: Instant) {
        match self.phase {
            Phase::Preparing => self.complete_if_all_joined(now),
            _ => self.prepare(settings, now),
        }
    }

    pub(super) fn prepare(&mut self, settings: &GroupSettings, now: Instant) {
        if self.phase == Phase::Completing {
            // Who has synced already is sent back to join.
            self.members.values_mut().for_each(|member| member.assignment = bytes::Bytes::new());
            self.propagate(Some(code::REBALANCE_IN_PROGRESS), now);
        }
        self.unsynced.clear();
        self.timers.cancel(&Timer::Sync);
        let first = self.phase == Phase::Empty;
        if first {
            let delay = settings.initial_rebalance_delay;
            let left = self.rebalance_timeout().saturating_sub(delay);
            self.initial = Some((delay, left));
            self.timers.schedule(Timer::Join, now + delay);
        }
        self.enter(Phase::Preparing, now);
        if first {
            return;
        }
        if self.all_have_joined() {
            self.complete(now);
        } else {
            self.initial = None;
            self.timers.schedule(Timer::Join, now + self.rebalance_timeout());
        }
    }

    /// The first rebalance of a group waits for its delay, others for all members.
    pub(super) fn complete_if_all_joined(&mut self, now: Instant) {
        let first = self.previous == Phase::Empty;
        if self.phase == Phase::Preparing && !first && self.all_have_joined() {
            self.complete(now);
        }
    }

    /// The join phase is over: dynamic members that have not joined are out.
    pub(super) fn complete(&mut self, now: Instant) {
        self.timers.cancel(&Timer::Join);
        self.initial = None;
        let absent = self.members.values().filter(|one| one.join.is_none());
        let out: Vec<String> =
            absent.filter(|one| one.instance.is_none()).map(|one| one.id.clone()).collect();
        for id in out {
            self.remove(&id);
        }
        if !self.elect() && !self.members.is_empty() {
            // Static members only, and none of them is there.
            let wait = self.rebalance_timeout().max(LEAST_WAIT);
            self.timers.schedule(Timer::Join, now + wait);
            return;
        }
        self.generation = self.generation.wrapping_add(1).max(0);
        self.unsynced.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.subscribed = self.read_subscriptions();
            self.enter(Phase::Empty, now);
            self.store(now);
            return;
        }
        self.protocol = self.select_protocol();
        self.subscribed = self.read_subscriptions();
        self.enter(Phase::Completing, now);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let told = self.generation_for(&id, false);
            self.answer_join(&id, told);
            self.heard_of(&id, now);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
            }
            self.unsynced.insert(id);
        }
        self.timers.schedule(Timer::Sync, now + self.rebalance_timeout());
    }

    /// Whether there is a leader that has joined.
    fn elect(&mut self) -> bool {
        let Some(leader) = self.leader().and_then(|id| self.members.get(id)) else { return false };
        if leader.join.is_some() {
            return true;
        }
        let next = self.members.values().find(|member| member.join.is_some());
        match next.map(|member| member.id.clone()) {
            None => false,
            next => {
                self.leader = next;
                true
            }
        }
    }

    /// Answers the SyncGroup requests that are parked: with what was assigned, or an error.
    pub(super) fn propagate(&mut self, error: Option<i16>, now: Instant) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = match error {
                Some(error) => Synced::refused(error),
                None => self.assignment_of(&id),
            };
            if self.answer_sync(&id, answer) {
                self.heard_of(&id, now);
            }
        }
    }

    /// What has fallen due.
    pub(crate) fn advance(&mut self, settings: &GroupSettings, now: Instant) {
        while let Some((at, timer)) = self.timers.due(now) {
            match timer {
                Timer::Session(id) => self.session_over(settings, &id, at),
                Timer::Join => self.join_phase_over(settings, at),
                Timer::Sync => self.sync_phase_over(settings, at),
            }
        }
    }

    fn session_over(&mut self, settings: &GroupSettings, id: &str, at: Instant) {
        // Who waits for a rebalance is there; but of new members nobody knows.
        let waits = |member: &Member| member.join.is_some() || member.sync.is_some();
        if !self.members.get(id).is_some_and(|member| !member.is_new && waits(member)) {
            self.expire(settings, id, at);
        }
    }

    /// A member is out, and whoever is left rebalances; or an id that was given is no longer waited for.
    /// False if there is neither.
    pub(crate) fn expire(&mut self, settings: &GroupSettings, id: &str, now: Instant) -> bool {
        let pending = self.pending.contains(id);
        if !pending && !self.members.contains_key(id) {
            return false;
        }
        self.expired += u64::from(!pending);
        self.answer_join(id, Joined::refused(code::UNKNOWN_MEMBER_ID, ""));
        self.remove(id);
        match self.phase {
            Phase::Stable | Phase::Completing if !pending => self.prepare(settings, now),
            Phase::Preparing if self.all_have_joined() => self.complete(now),
            _ => {}
        }
        true
    }

    fn join_phase_over(&mut self, settings: &GroupSettings, at: Instant) {
        match self.initial {
            Some((delay, left)) if self.more_came && !left.is_zero() => {
                self.more_came = false;
                let next = settings.initial_rebalance_delay.min(left);
                self.initial = Some((next, left.saturating_sub(delay)));
                self.timers.schedule(Timer::Join, at + next);
            }
            _ => self.complete(at),
        }
    }

    /// Members that have their generation, and do not sync, are out.
    fn sync_phase_over(&mut self, settings: &GroupSettings, at: Instant) {
        let there = matches!(self.phase, Phase::Completing | Phase::Stable);
        if !there || self.unsynced.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.unsynced) {
            self.remove(&id);
        }
        self.prepare(settings, at);
    }
}
