//! A classic group: members that rejoin together, one of which assigns for all.
//!
//! The rules are those of Kafka's `ClassicGroup` and of the part of its `GroupMetadataManager` that
//! is about it. A group is *empty*; or *preparing* (members are waited for, with their JoinGroup
//! requests parked); or *completing* (all have the new generation, the leader's SyncGroup is waited
//! for); or *stable*. What a coordinator has written down outlives it: see [`Stored`].

mod join;
mod rebalance;
mod requests;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::settings::GroupSettings;
use super::timers::Timers;
use crate::error_code as code;

pub(crate) use join::{Join, Joined};
pub(crate) use requests::{Leaving, Synced};
pub(crate) use stored::Stored;

/// The protocol type of consumers, whose subscriptions a coordinator can read.
pub(crate) const CONSUMER: &str = "consumer";

/// Where a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    Preparing,
    Completing,
    Stable,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Of a member, or of an id that was given and has not joined.
    Session(String),
    /// Members have joined, or are out.
    Join,
    /// Members have synced, or are out.
    Sync,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) session_timeout: Duration,
    /// By its preference, each once.
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    /// It has had no generation yet: nothing that it could send a heartbeat with.
    is_new: bool,
    join: Option<oneshot::Sender<Joined>>,
    sync: Option<oneshot::Sender<Synced>>,
}

impl Member {
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    fn vote(&self, candidates: &BTreeSet<&str>) -> Option<&str> {
        self.protocols.iter().map(|(name, _)| &**name).find(|name| candidates.contains(name))
    }
}

#[derive(Debug)]
pub(crate) struct Classic {
    phase: Phase,
    previous: Phase,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Member ids of static members, by their instance ids.
    instances: BTreeMap<String, String>,
    /// Ids that were given (KIP-394), and have not joined.
    pending: BTreeSet<String>,
    /// Who has to sync in this generation.
    unsynced: BTreeSet<String>,
    /// Members whose JoinGroup is parked.
    joining: usize,
    /// How many members know a protocol.
    supported: BTreeMap<String, usize>,
    /// Of the first rebalance: how long the join timer runs, and what is left after it.
    initial: Option<(Duration, Duration)>,
    more_came: bool,
    /// Topics that consumers subscribe to, where that can be read.
    subscribed: Option<BTreeSet<String>>,
    since: Instant,
    timers: Timers<Timer>,
    stored: Option<Stored>,
    pub(crate) rebalances: u64,
    pub(crate) expired: u64,
}

impl Classic {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Empty,
            previous: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            joining: 0,
            supported: BTreeMap::new(),
            initial: None,
            more_came: false,
            subscribed: None,
            since: now,
            timers: Timers::default(),
            stored: None,
            rebalances: 0,
            expired: 0,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    pub(crate) fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    pub(crate) fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &str> {
        self.pending.iter().map(String::as_str)
    }

    /// Since when it has been in its phase.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn is_of_consumers(&self) -> bool {
        self.protocol_type() == Some(CONSUMER)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.phase == Phase::Empty
    }

    /// Whether nothing would be lost with it.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.is_empty() && self.pending.is_empty()
    }

    /// Whether members read a topic; what cannot be known counts as yes for consumers.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_of_consumers(),
        }
    }

    pub(crate) fn knows_subscriptions(&self) -> bool {
        self.is_of_consumers() && self.subscribed.is_some()
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.previous = self.phase;
        self.phase = phase;
        self.since = now;
    }

    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    fn all_have_joined(&self) -> bool {
        self.joining == self.members.len() && self.pending.is_empty()
    }

    fn is_leader(&self, id: &str) -> bool {
        self.leader() == Some(id)
    }

    fn add(&mut self, member: Member, protocol_type: &str) {
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.joining += usize::from(member.join.is_some());
        self.count(&member.protocols, true);
        self.pending.remove(&member.id);
        self.members.insert(member.id.clone(), member);
    }

    fn remove(&mut self, id: &str) {
        if let Some(gone) = self.members.remove(id) {
            self.count(&gone.protocols, false);
            self.joining -= usize::from(gone.join.is_some());
            if let Some(instance) = &gone.instance {
                self.instances.remove(instance);
            }
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending.remove(id);
        self.unsynced.remove(id);
        self.timers.cancel(&Timer::Session(id.to_owned()));
    }

    fn count(&mut self, protocols: &[(String, Bytes)], more: bool) {
        for (name, _) in protocols {
            match self.supported.get_mut(name) {
                Some(count) if more => *count += 1,
                Some(count) if *count > 1 => *count -= 1,
                Some(_) => drop(self.supported.remove(name)),
                None => drop(self.supported.insert(name.clone(), 1)),
            }
        }
    }

    /// What a member says when it joins again.
    fn update(&mut self, id: &str, join: &Join<'_>, answer: Option<oneshot::Sender<Joined>>) {
        let Some(mut member) = self.members.remove(id) else { return };
        self.count(&member.protocols, false);
        self.count(&join.protocols, true);
        member.protocols = join.protocols.clone();
        member.rebalance_timeout = join.rebalance_timeout;
        member.session_timeout = join.session_timeout;
        self.joining -= usize::from(member.join.is_some());
        self.joining += usize::from(answer.is_some());
        member.join = answer;
        self.members.insert(id.to_owned(), member);
    }

    fn answer_join(&mut self, id: &str, answer: Joined) {
        let parked = self.members.get_mut(id).and_then(|member| member.join.take());
        if let Some(parked) = parked {
            self.joining -= 1;
            // Who has left does not hear of it.
            let _ = parked.send(answer);
        }
    }

    fn answer_sync(&mut self, id: &str, answer: Synced) -> bool {
        let parked = self.members.get_mut(id).and_then(|member| member.sync.take());
        parked.map(|parked| parked.send(answer)).is_some()
    }

    /// Whether a member could join with these protocols.
    fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let all = self.members.len();
        self.protocol_type() == Some(protocol_type)
            && protocols
                .iter()
                .any(|(name, _)| self.supported.get(name).copied().unwrap_or(0) == all)
    }

    /// The protocol that all know and most prefer.
    fn select_protocol(&self) -> Option<String> {
        let all = self.members.len();
        let known = self.supported.iter().filter(|(_, count)| **count == all);
        let candidates: BTreeSet<&str> = known.map(|(name, _)| &**name).collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for vote in self.members.values().filter_map(|member| member.vote(&candidates)) {
            *votes.entry(vote).or_default() += 1;
        }
        let most = votes.iter().rev().max_by_key(|(_, count)| **count);
        most.map(|(name, _)| (*name).to_owned())
    }

    /// A member by its id, and by its instance id if it tells one.
    fn validate(&self, id: &str, instance: Option<&str>) -> Result<(), i16> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(code::UNKNOWN_MEMBER_ID),
                Some(current) if current != id => return Err(code::FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(code::UNKNOWN_MEMBER_ID) }
    }

    fn read_subscriptions(&self) -> Option<BTreeSet<String>> {
        if !self.is_of_consumers() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(super::embedded::subscribed_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    /// A heartbeat, or what counts as one.
    fn heard_of(&mut self, id: &str, now: Instant) {
        if let Some(member) = self.members.get(id) {
            self.timers.schedule(Timer::Session(id.to_owned()), now + member.session_timeout);
        }
    }
}
