//! JoinGroup: who may join, who is asked to come again with an id, and whose answer is parked.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Classic, GroupSettings, Member, Phase, Timer};
use crate::error_code as code;

/// First version whose dynamic members are given an id before they join (KIP-394).
const KNOWN_ID: i16 = 4;
/// First version whose leader can be told to assign nothing (KIP-814).
const SKIP_ASSIGNMENT: i16 = 9;

/// New members have no heartbeats, and nobody sees them leave: after this time they are out.
const NEW_MEMBER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// What a client says when it joins.
#[derive(Debug, Clone)]
pub(crate) struct Join<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance: Option<&'a str>,
    pub(crate) client_id: &'a str,
    pub(crate) client_host: &'a str,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) protocol_type: &'a str,
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) version: i16,
    /// The id that it gets if it needs one.
    pub(crate) new_id: String,
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) error: i16,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) skip_assignment: bool,
    pub(crate) member_id: String,
    pub(crate) members: Vec<JoinedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) metadata: Bytes,
}

impl Joined {
    pub(crate) fn refused(error: i16, member_id: &str) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: Vec::new(),
        }
    }
}

impl Classic {
    /// A member joins. The answer comes when all have joined, or at once.
    pub(crate) fn join(
        &mut self,
        settings: &GroupSettings,
        join: &Join<'_>,
        answer: oneshot::Sender<Joined>,
        now: Instant,
    ) {
        if !self.has_room(settings, join.member_id) {
            self.remove(join.member_id);
            let _ = answer.send(Joined::refused(code::GROUP_MAX_SIZE_REACHED, ""));
        } else if !self.supports(join.protocol_type, &join.protocols) {
            let error = code::INCONSISTENT_GROUP_PROTOCOL;
            let _ = answer.send(Joined::refused(error, join.member_id));
        } else if join.member_id.is_empty() {
            self.join_new(settings, join, answer, now);
        } else {
            self.join_known(settings, join, answer, now);
        }
        // A new group is written down with its first request.
        self.stored.get_or_insert_with(|| super::Stored::empty(now));
    }

    /// Whether the group takes this one; of members that rejoin the last ones are out if it has become
    /// too large.
    fn has_room(&self, settings: &GroupSettings, id: &str) -> bool {
        let member = self.members.get(id);
        match self.phase {
            Phase::Empty => true,
            Phase::Preparing => {
                member.is_some_and(|member| member.join.is_some())
                    || self.joining < settings.max_size
            }
            Phase::Completing | Phase::Stable => {
                member.is_some() || self.members.len() < settings.max_size
            }
        }
    }

    fn join_new(
        &mut self,
        settings: &GroupSettings,
        join: &Join<'_>,
        answer: oneshot::Sender<Joined>,
        now: Instant,
    ) {
        match join.instance {
            Some(instance) => match self.instances.get(instance).cloned() {
                Some(old) => self.replace(settings, &old, join, answer, now),
                None => self.add_and_rebalance(settings, &join.new_id, join, answer, now),
            },
            None if join.version >= KNOWN_ID => {
                self.pending.insert(join.new_id.clone());
                let session = Timer::Session(join.new_id.clone());
                self.timers.schedule(session, now + join.session_timeout);
                let _ = answer.send(Joined::refused(code::MEMBER_ID_REQUIRED, &join.new_id));
            }
            None => self.add_and_rebalance(settings, &join.new_id, join, answer, now),
        }
    }

    fn join_known(
        &mut self,
        settings: &GroupSettings,
        join: &Join<'_>,
        answer: oneshot::Sender<Joined>,
        now: Instant,
    ) {
        let id = join.member_id;
        if self.pending.contains(id) {
            if join.instance.is_some() {
                // An id without an instance was given: Kafka throws here.
                let _ = answer.send(Joined::refused(code::UNKNOWN_SERVER_ERROR, id));
                return;
            }
            return self.add_and_rebalance(settings, id, join, answer, now);
        }
        if let Err(error) = self.validate(id, join.instance) {
            let _ = answer.send(Joined::refused(error, id));
            return;
        }
        let unchanged =
            self.members.get(id).is_some_and(|member| member.protocols == join.protocols);
        match self.phase {
            Phase::Preparing => {}
            // Its answer was lost.
            Phase::Completing if unchanged => {
                let _ = answer.send(self.generation_for(id, false));
                return;
            }
            // Nothing is new with a follower.
            Phase::Stable if unchanged && !self.is_leader(id) => {
                let _ = answer.send(Joined { members: vec![], ..self.generation_for(id, false) });
                return;
            }
            Phase::Completing | Phase::Stable => {}
            Phase::Empty => {
                let _ = answer.send(Joined::refused(code::UNKNOWN_MEMBER_ID, id));
                return;
            }
        }
        self.update(id, join, Some(answer));
        self.rebalance_or_complete(settings, now);
    }

    /// The current generation as a member is told it.
    pub(super) fn generation_for(&self, id: &str, skip_assignment: bool) -> Joined {
        let protocol = self.protocol().unwrap_or_default();
        let told = |member: &Member| JoinedMember {
            id: member.id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(protocol),
        };
        let leads = self.is_leader(id);
        Joined {
            error: code::NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment,
            member_id: id.to_owned(),
            members: if leads { self.members.values().map(told).collect() } else { Vec::new() },
        }
    }

    fn add_and_rebalance(
        &mut self,
        settings: &GroupSettings,
        id: &str,
        join: &Join<'_>,
        answer: oneshot::Sender<Joined>,
        now: Instant,
    ) {
        // The first rebalance can be put off further.
        self.more_came |= self.phase == Phase::Preparing && self.previous == Phase::Empty;
        let member = Member {
            id: id.to_owned(),
            instance: join.instance.map(str::to_owned),
            client_id: join.client_id.to_owned(),
            client_host: join.client_host.to_owned(),
            rebalance_timeout: join.rebalance_timeout,
            session_timeout: join.session_timeout,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            is_new: true,
            join: Some(answer),
            sync: None,
        };
        self.add(member, join.protocol_type);
        self.timers.schedule(Timer::Session(id.to_owned()), now + NEW_MEMBER_TIMEOUT);
        self.rebalance_or_complete(settings, now);
    }

    /// A static member is there again, with a new id: it has the place and the assignment of the one
    /// before, which is fenced (KIP-345).
    fn replace(
        &mut self,
        settings: &GroupSettings,
        old: &str,
        join: &Join<'_>,
        answer: oneshot::Sender<Joined>,
        now: Instant,
    ) {
        let leader = self.leader.clone().unwrap_or_default();
        let new = &join.new_id;
        let fenced = code::FENCED_INSTANCE_ID;
        self.answer_join(old, Joined::refused(fenced, old));
        self.answer_sync(old, super::Synced::refused(fenced));
        let Some(mut member) = self.members.remove(old) else { return };
        member.id.clone_from(new);
        member.is_new = false;
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), new.clone());
        }
        self.members.insert(new.clone(), member);
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        // The timer of the old id runs out without effect in Kafka; here it is gone at once.
        self.timers.cancel(&Timer::Session(old.to_owned()));
        self.heard_of(new, now);
        self.update(new, join, Some(answer));
        match self.phase {
            Phase::Stable if self.select_protocol() == self.protocol => {
                self.store(now);
                let told = match join.version >= SKIP_ASSIGNMENT {
                    true => self.generation_for(new, self.is_leader(new)),
                    // It cannot be told to skip, and so is told that the one before leads still.
                    false => Joined { leader, members: vec![], ..self.generation_for(new, false) },
                };
                self.answer_join(new, told);
            }
            Phase::Stable => self.rebalance_or_complete(settings, now),
            // The leader may have been told of the old id already.
            Phase::Completing => self.prepare(settings, now),
            Phase::Preparing | Phase::Empty => self.complete_if_all_joined(now),
        }
    }
}
