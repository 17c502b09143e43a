//! What a coordinator has written to `__consumer_offsets` of a classic group, and what the next one
//! makes of it: the last generation that was complete. Ids that were given, members that were
//! joining and requests that waited are not in it. And what is made of a group that goes on as one of
//! the other kind.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Classic, GroupSettings, Joined, Member, Phase, Synced};
use crate::error_code as code;
use crate::groups::consumer::Moved;

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    since: Instant,
    members: Vec<StoredMember>,
}

#[derive(Debug, Clone)]
struct StoredMember {
    id: String,
    instance: Option<String>,
    client_id: String,
    client_host: String,
    rebalance_timeout: Duration,
    session_timeout: Duration,
    /// For the protocol that was chosen: others are forgotten.
    subscription: Bytes,
    assignment: Bytes,
}

impl Stored {
    pub(super) fn empty(now: Instant) -> Self {
        Self {
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            since: now,
            members: Vec::new(),
        }
    }
}

impl Classic {
    pub(super) fn store(&mut self, now: Instant) {
        let protocol = self.protocol().unwrap_or_default();
        let stored = |member: &Member| StoredMember {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout,
            session_timeout: member.session_timeout,
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        };
        self.stored = Some(Stored {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since: now,
            members: self.members.values().map(stored).collect(),
        });
    }

    /// A group that only its offsets are known of is one without a protocol.
    pub(crate) fn simple(now: Instant) -> Self {
        Self { stored: Some(Stored::empty(now)), ..Self::new(now) }
    }

    /// Another coordinator loads the group. What waited at the one before is told so. `None`: nothing of
    /// it was written down.
    pub(crate) fn reload(&mut self, settings: &GroupSettings, now: Instant) -> Option<Self> {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.answer_join(&id, Joined::refused(code::NOT_COORDINATOR, &id));
            self.answer_sync(&id, Synced::refused(code::NOT_COORDINATOR));
        }
        let stored = self.stored.clone()?;
        let mut new = Self::new(now);
        new.since = stored.since;
        new.generation = stored.generation;
        new.protocol.clone_from(&stored.protocol);
        new.protocol_type.clone_from(&stored.protocol_type);
        new.rebalances = self.rebalances;
        new.expired = self.expired;
        let protocol = stored.protocol.clone().unwrap_or_default();
        let protocol_type = stored.protocol_type.clone().unwrap_or_default();
        for one in &stored.members {
            let member = Member {
                id: one.id.clone(),
                instance: one.instance.clone(),
                client_id: one.client_id.clone(),
                client_host: one.client_host.clone(),
                rebalance_timeout: one.rebalance_timeout,
                session_timeout: one.session_timeout,
                protocols: vec![(protocol.clone(), one.subscription.clone())],
                assignment: one.assignment.clone(),
                is_new: false,
                join: None,
                sync: None,
            };
            new.add(member, &protocol_type);
            new.heard_of(&one.id, now);
        }
        new.leader.clone_from(&stored.leader);
        new.subscribed = new.read_subscriptions();
        if !new.members.is_empty() {
            new.phase = Phase::Stable;
            if new.members.len() > settings.max_size {
                new.prepare(settings, now);
            }
        }
        new.stored = Some(stored);
        Some(new)
    }

    /// The group goes on as one of the next generation: whoever waits here has to join again. Generation
    /// and members; `None`: they have agreed on nothing yet.
    pub(crate) fn moved(&mut self) -> Option<(i32, Vec<Moved>)> {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.answer_join(&id, Joined::refused(code::REBALANCE_IN_PROGRESS, &id));
            self.answer_sync(&id, Synced::refused(code::REBALANCE_IN_PROGRESS));
        }
        let protocol = self.protocol.clone().or_else(|| self.select_protocol())?;
        let members = self.members.values().map(|member| Moved {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout,
            session_timeout: member.session_timeout,
            protocols: member.protocols.clone(),
            subscription: member.metadata(&protocol),
            assignment: member.assignment.clone(),
        });
        Some((self.generation, members.collect()))
    }

    /// A group whose members have what they have.
    pub(crate) fn settled(generation: i32, members: Vec<Moved>, now: Instant) -> Self {
        let mut group = Self::new(now);
        group.generation = generation;
        for moved in members {
            let id = moved.id.clone();
            let member = Member {
                id: moved.id,
                instance: moved.instance,
                client_id: moved.client_id,
                client_host: moved.client_host,
                rebalance_timeout: moved.rebalance_timeout,
                session_timeout: moved.session_timeout,
                protocols: moved.protocols,
                assignment: moved.assignment,
                is_new: false,
                join: None,
                sync: None,
            };
            group.add(member, super::CONSUMER);
            group.heard_of(&id, now);
        }
        group.protocol = group.select_protocol();
        group.subscribed = group.read_subscriptions();
        group.phase = Phase::Stable;
        group.store(now);
        group
    }

    /// Its members are to join again.
    pub(crate) fn rebalance(&mut self, settings: &GroupSettings, now: Instant) {
        self.prepare(settings, now);
    }
}
