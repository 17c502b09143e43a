//! A group of the next generation (KIP-848): members say what they subscribe to, the coordinator says
//! who has what, and each member goes there by itself.
//!
//! Three epochs: the *group's* moves when subscriptions, members or topics change; that of the *target*
//! follows when the next member asks, and with it an assignor is run; each *member's* follows as it
//! gives up and takes over ([`reconcile`]). All of it is written down at once, so that the next
//! coordinator knows all of it. The rules are those of Kafka's `ConsumerGroup` and of the part of its
//! `GroupMetadataManager` that is about it.

mod assign;
mod classic;
mod heartbeat;
mod reconcile;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use bytes::Bytes;
use regex_lite::Regex;
use tokio::time::Instant;
use uuid::Uuid;

use self::assign::Claim;
use self::reconcile::{Current, State};
use super::image::Image;
use super::info::GroupState;
use super::settings::GroupSettings;
use super::timers::Timers;
use crate::error_code as code;

pub(crate) use self::assign::{ASSIGNORS, Assignment};
pub(crate) use self::classic::{Conversion, Moved};
pub(crate) use self::heartbeat::{Beat, Told};
pub(crate) use self::reconcile::gather;

/// Epoch of a member that leaves.
pub(crate) const LEAVES: i32 = -1;
/// Epoch of a static member that will be back.
pub(crate) const WILL_BE_BACK: i32 = -2;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Session(String),
    /// To give up what it has to.
    Rebalance(String),
    /// Of members that speak the classic protocol: to join again, and to sync.
    Join(String),
    Sync(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) rack: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    rebalance_timeout: Duration,
    pub(crate) topics: BTreeSet<String>,
    regex: Option<Pattern>,
    assignor: Option<String>,
    current: Current,
    /// Of members that speak the classic protocol.
    classic: Option<ClassicPart>,
}

/// A regular expression that topics are subscribed to with.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    /// Of the whole name.
    compiled: Regex,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ClassicPart {
    session_timeout: Duration,
    protocols: Vec<(String, Bytes)>,
}

impl Member {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            instance: None,
            rack: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout: Duration::ZERO,
            topics: BTreeSet::new(),
            regex: None,
            assignor: None,
            current: Current::new(),
            classic: None,
        }
    }

    pub(crate) fn epoch(&self) -> i32 {
        self.current.epoch
    }

    /// What it may use now.
    pub(crate) fn assigned(&self) -> &Assignment {
        &self.current.assigned
    }

    pub(crate) fn regex(&self) -> Option<&str> {
        self.regex.as_ref().map(|pattern| pattern.text.as_str())
    }

    pub(crate) fn is_classic(&self) -> bool {
        self.classic.is_some()
    }

    /// Topics that are there and that it subscribes to.
    fn subscribed(&self, image: &Image<'_>) -> BTreeSet<String> {
        let mut all = self.topics.clone();
        if let Some(pattern) = &self.regex {
            let names = image.names().filter(|name| pattern.compiled.is_match(name));
            all.extend(names.map(str::to_owned));
        }
        all
    }

    fn subscribes_to(&self, topic: &str) -> bool {
        self.topics.contains(topic)
            || self.regex.as_ref().is_some_and(|pattern| pattern.compiled.is_match(topic))
    }
}

#[derive(Debug)]
pub(crate) struct Consumer {
    epoch: i32,
    target_epoch: i32,
    members: BTreeMap<String, Member>,
    /// Member ids of static members, by their instance ids.
    instances: BTreeMap<String, String>,
    /// By member ids.
    target: BTreeMap<String, Assignment>,
    /// Topics that members subscribe to and that are there: ids and numbers of partitions.
    topics: BTreeMap<String, (Uuid, i32)>,
    timers: Timers<Timer>,
    pub(crate) rebalances: u64,
    pub(crate) expired: u64,
}

impl Consumer {
    pub(crate) fn new() -> Self {
        Self {
            epoch: 0,
            target_epoch: 0,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            target: BTreeMap::new(),
            topics: BTreeMap::new(),
            timers: Timers::default(),
            rebalances: 0,
            expired: 0,
        }
    }

    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(crate) fn target_epoch(&self) -> i32 {
        self.target_epoch
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// What a member is to have.
    pub(crate) fn target(&self, id: &str) -> Option<&Assignment> {
        self.target.get(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn state(&self) -> GroupState {
        let settled = |member: &Member| member.current.is_reconciled_to(self.target_epoch);
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.epoch > self.target_epoch {
            GroupState::Assigning
        } else if self.members.values().all(settled) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// Name of a topic that is subscribed to.
    pub(crate) fn name_of(&self, id: Uuid) -> Option<&str> {
        self.topics.iter().find(|(_, (topic, _))| *topic == id).map(|(name, _)| name.as_str())
    }

    /// The assignor that most members ask for.
    pub(crate) fn assignor(&self) -> &str {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|member| member.assignor.as_deref()) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.into_iter().max_by_key(|(_, count)| *count);
        most.map_or(ASSIGNORS[0], |(assignor, _)| assignor)
    }

    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.subscribes_to(topic))
    }

    pub(crate) fn may_be_deleted(&self) -> Result<(), i16> {
        if self.is_empty() { Ok(()) } else { Err(code::NON_EMPTY_GROUP) }
    }

    /// Whether offsets may be committed.
    pub(crate) fn commit(&self, id: &str, epoch: i32, version: i16) -> Result<(), i16> {
        /// First version that members of the new protocol may use.
        const EPOCHS: i16 = 9;
        if epoch < 0 && self.is_empty() {
            return Ok(());
        }
        let member = self.members.get(id).ok_or(code::UNKNOWN_MEMBER_ID)?;
        if !member.is_classic() && version < EPOCHS {
            return Err(code::UNSUPPORTED_VERSION);
        }
        member.validate_epoch(epoch)
    }

    /// Whether a member may see what is committed; who is none may.
    pub(crate) fn may_fetch(&self, member: Option<(&str, i32)>) -> Result<(), i16> {
        let Some((id, epoch)) = member else { return Ok(()) };
        self.members.get(id).ok_or(code::UNKNOWN_MEMBER_ID)?.validate_epoch(epoch)
    }

    /// Another coordinator has loaded the group: nothing of it is lost, and sessions begin anew.
    pub(crate) fn reload(&mut self, settings: &GroupSettings, from: Instant) {
        self.timers = Timers::default();
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.heard_of(settings, &id, from);
            if let Some(member) = self.members.get(&id)
                && member.current.state == State::Unrevoked
                && !member.is_classic()
            {
                self.timers.schedule(Timer::Rebalance(id), from + member.rebalance_timeout);
            }
        }
    }

    fn heard_of(&mut self, settings: &GroupSettings, id: &str, now: Instant) {
        if let Some(member) = self.members.get(id) {
            let own = member.classic.as_ref().map(|classic| classic.session_timeout);
            let timeout = own.unwrap_or(settings.consumer_session_timeout);
            self.timers.schedule(Timer::Session(id.to_owned()), now + timeout);
        }
    }

    /// The next member that is out by now: its session is over, or it has not done in time what it had
    /// to.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(Instant, String)> {
        loop {
            let (at, timer) = self.timers.due(now)?;
            match timer {
                Timer::Session(id) | Timer::Join(id) | Timer::Sync(id) => return Some((at, id)),
                Timer::Rebalance(id) => {
                    let member = self.members.get(&id);
                    if member.is_some_and(|member| member.current.state == State::Unrevoked) {
                        return Some((at, id));
                    }
                }
            }
        }
    }

    /// Takes a member out. The others' target changes when the next of them asks.
    fn remove(&mut self, id: &str) {
        self.take_out(id);
        self.refresh(None);
        self.epoch += 1;
    }

    fn take_out(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance
            && self.instances.get(instance).is_some_and(|current| current == id)
        {
            self.instances.remove(instance);
        }
        self.target.remove(id);
        for timer in [Timer::Session, Timer::Rebalance, Timer::Join, Timer::Sync] {
            self.timers.cancel(&timer(id.to_owned()));
        }
        Some(member)
    }

    fn place(&mut self, member: Member) {
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Looks which of the topics that are subscribed to are there; true if that has changed. Without the
    /// cluster at hand only those are left out that nobody subscribes to any more.
    fn refresh(&mut self, image: Option<&Image<'_>>) -> bool {
        let topics = match image {
            Some(image) => {
                let mut names = BTreeSet::new();
                self.members.values().for_each(|member| names.extend(member.subscribed(image)));
                let known = names.into_iter();
                known.filter_map(|name| image.topic(&name).map(|topic| (name, topic))).collect()
            }
            None => {
                let mut topics = self.topics.clone();
                topics.retain(|name, _| self.is_subscribed(name));
                topics
            }
        };
        let changed = topics != self.topics;
        self.topics = topics;
        changed
    }

    /// Brings the target up to the group's epoch.
    fn retarget(&mut self) {
        if self.epoch <= self.target_epoch {
            return;
        }
        let nothing = Assignment::new();
        let wanted = |member: &Member| {
            let topics = self.topics.iter().filter(|(name, _)| member.subscribes_to(name));
            topics.map(|(_, (id, _))| *id).collect()
        };
        let claims: Vec<Claim<'_>> = self
            .members
            .values()
            .map(|member| Claim {
                member: &member.id,
                instance: member.instance.as_deref(),
                topics: wanted(member),
                before: self.target.get(&member.id).unwrap_or(&nothing),
            })
            .collect();
        let partitions = self.topics.values().copied().collect();
        self.target = assign::assign(self.assignor(), &claims, &partitions);
        self.target_epoch = self.epoch;
        self.rebalances += 1;
    }

    /// Takes a member a step further to its target.
    fn reconcile(&mut self, id: &str, owned: Option<&Assignment>, now: Instant) {
        let Some(member) = self.members.get(id) else { return };
        if member.current.is_reconciled_to(self.target_epoch) {
            return;
        }
        let mut held: HashSet<(Uuid, i32)> = HashSet::new();
        for member in self.members.values() {
            for (topic, list) in member.current.assigned.iter().chain(&member.current.revoking) {
                held.extend(list.iter().map(|partition| (*topic, *partition)));
            }
        }
        let nothing = Assignment::new();
        let target = (self.target_epoch, self.target.get(id).unwrap_or(&nothing));
        let next = reconcile::next(&member.current, target, owned, |topic, partition| {
            !held.contains(&(topic, partition))
        });
        if next == member.current {
            return;
        }
        if !member.is_classic() {
            let timer = Timer::Rebalance(id.to_owned());
            match next.state {
                State::Unrevoked => {
                    self.timers.schedule(timer, now + member.rebalance_timeout);
                }
                State::Stable | State::Unreleased => self.timers.cancel(&timer),
            }
        }
        if let Some(member) = self.members.get_mut(id) {
            member.current = next;
        }
    }
}

impl Member {
    fn validate_epoch(&self, epoch: i32) -> Result<(), i16> {
        if epoch == self.current.epoch {
            return Ok(());
        }
        let classic = self.is_classic();
        Err(if classic { code::ILLEGAL_GENERATION } else { code::STALE_MEMBER_EPOCH })
    }
}
