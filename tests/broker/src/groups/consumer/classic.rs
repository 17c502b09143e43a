//! Members that speak the classic protocol, in a group of the next generation; and how a group becomes
//! one of the other kind while its members stay (KIP-848, policy `bidirectional`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Assignment, ClassicPart, Consumer, Image, Member, State, Timer, gather};
use crate::error_code as code;
use crate::groups::classic::{CONSUMER, Classic, Join, Joined, Leaving, Synced};
use crate::groups::embedded::{self, Subscription};
use crate::groups::settings::GroupSettings;

/// First version whose dynamic members are given an id before they join (KIP-394).
const KNOWN_ID: i16 = 4;

/// A member of a group that becomes one of the other kind.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// Under the protocol that was chosen.
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

/// A group that is to be a classic one from now on.
#[derive(Debug, Clone)]
pub(crate) struct Conversion {
    pub(crate) generation: i32,
    pub(crate) members: Vec<Moved>,
    /// Whether the others have to be told that somebody has left.
    pub(crate) rebalances: bool,
}

impl Consumer {
    /// A classic group goes on as one of the next generation. `None`: what its members have written is
    /// not what consumers write.
    pub(crate) fn from_classic(
        settings: &GroupSettings,
        generation: i32,
        members: Vec<Moved>,
        image: &Image<'_>,
        now: Instant,
    ) -> Option<Self> {
        let mut group = Self::new();
        group.epoch = generation;
        group.target_epoch = generation;
        for member in members {
            let subscription = embedded::subscription(&member.subscription)?;
            let assigned = match member.assignment.is_empty() {
                true => Assignment::new(),
                false => {
                    let assignment = embedded::assignment(&member.assignment)?;
                    // An assignor of the client's own would be lost.
                    if assignment.has_user_data {
                        return None;
                    }
                    by_ids(assignment.partitions, image)
                }
            };
            let id = member.id.clone();
            let mut new = Member::new(&id);
            new.instance = member.instance;
            new.client_id = member.client_id;
            new.client_host = member.client_host;
            new.rebalance_timeout = member.rebalance_timeout;
            new.rack = subscription.rack.filter(|rack| !rack.is_empty());
            new.topics = subscription.topics.into_iter().collect();
            new.current.epoch = generation;
            new.current.previous_epoch = generation;
            new.current.assigned = assigned.clone();
            new.classic = Some(ClassicPart {
                session_timeout: member.session_timeout,
                protocols: member.protocols,
            });
            group.place(new);
            group.target.insert(id.clone(), assigned);
            group.heard_of(settings, &id, now);
        }
        group.refresh(Some(image));
        Some(group)
    }

    /// Whether a member is the only one that does not speak the classic protocol.
    fn is_last(&self, id: &str) -> bool {
        self.members.values().all(|member| member.is_classic() != (member.id == id))
    }

    /// What is left if a member goes, where that was the last one of the new protocol.
    pub(super) fn downgrade_without(&self, id: &str) -> Option<Conversion> {
        if self.members.len() < 2 || !self.is_last(id) {
            return None;
        }
        let members = self.members.values().filter(|member| member.id != id);
        let members = members.map(|member| self.downgraded(member, &member.id));
        Some(Conversion { generation: self.epoch, members: members.collect(), rebalances: true })
    }

    fn downgraded(&self, member: &Member, target_of: &str) -> Moved {
        let classic = member.classic.clone().unwrap_or_else(|| ClassicPart {
            session_timeout: Duration::ZERO,
            protocols: Vec::new(),
        });
        let nothing = Assignment::new();
        let target = self.target.get(target_of).unwrap_or(&nothing);
        Moved {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout,
            session_timeout: classic.session_timeout,
            subscription: Bytes::new(),
            assignment: self.written(&classic, target),
            protocols: classic.protocols,
        }
    }

    /// An assignment as a member of the classic protocol reads it.
    fn written(&self, classic: &ClassicPart, assignment: &Assignment) -> Bytes {
        let metadata = classic.protocols.first().map(|(_, metadata)| metadata);
        let version = metadata.and_then(embedded::subscription).map_or(0, |told| told.version);
        let named: BTreeMap<&str, Vec<i32>> = assignment
            .iter()
            .filter_map(|(id, list)| Some((self.name_of(*id)?, list.iter().copied().collect())))
            .collect();
        embedded::write_assignment(version, &named)
    }

    /// A JoinGroup. It is answered at once: nobody waits for others here.
    pub(crate) fn join(
        &mut self,
        settings: &GroupSettings,
        join: &Join<'_>,
        image: &Image<'_>,
        now: Instant,
    ) -> (Joined, Option<Conversion>) {
        match self.try_join(settings, join, image, now) {
            Ok(told) => told,
            Err(error) => (Joined::refused(error, ""), None),
        }
    }

    fn try_join(
        &mut self,
        settings: &GroupSettings,
        join: &Join<'_>,
        image: &Image<'_>,
        now: Instant,
    ) -> Result<(Joined, Option<Conversion>), i16> {
        let is_new = join.member_id.is_empty();
        let id = if is_new { join.new_id.as_str() } else { join.member_id };
        if self.members.len() >= settings.max_size && !self.members.contains_key(id) {
            return Err(code::GROUP_MAX_SIZE_REACHED);
        }
        if !self.supports(join) {
            return Err(code::INCONSISTENT_GROUP_PROTOCOL);
        }
        if is_new && join.instance.is_none() && join.version >= KNOWN_ID {
            return Ok((Joined::refused(code::MEMBER_ID_REQUIRED, id), None));
        }
        let subscription =
            join.protocols.first().and_then(|(_, told)| embedded::subscription(told));
        let Some(subscription) = subscription else { return Err(code::UNKNOWN_SERVER_ERROR) };
        let current = join.instance.and_then(|instance| self.instances.get(instance)).cloned();
        let mut downgrades = false;
        let before = match (join.instance, current) {
            (None, _) => self.members.get(id).cloned().unwrap_or_else(|| Member::new(id)),
            (Some(_), None) if is_new => Member::new(id),
            (Some(_), None) => return Err(code::UNKNOWN_MEMBER_ID),
            (Some(_), Some(current)) if is_new => {
                downgrades = self.is_last(&current);
                self.replace(&current, id)
            }
            (Some(_), Some(current)) if current != id => return Err(code::FENCED_INSTANCE_ID),
            (Some(_), Some(_)) => self.members.get(id).cloned().ok_or(code::UNKNOWN_MEMBER_ID)?,
        };
        let owned = by_ids(subscription.owned.clone(), image);
        let changed = self.update(before, join, subscription);
        self.follow(id, changed, Some(&owned), image, now);
        self.timers.cancel(&Timer::Join(id.to_owned()));
        self.heard_of(settings, id, now);
        let member = self.members.get(id).ok_or(code::UNKNOWN_MEMBER_ID)?;
        let timeout = member.rebalance_timeout;
        let told = Joined {
            error: code::NONE,
            generation: member.current.epoch,
            protocol_type: Some(CONSUMER.to_owned()),
            protocol: join.protocols.first().map(|(name, _)| name.clone()),
            ..Joined::refused(code::NONE, id)
        };
        self.timers.schedule(Timer::Sync(id.to_owned()), now + timeout);
        // The one that it replaces was the last of the new protocol.
        let conversion = downgrades.then(|| Conversion {
            generation: self.epoch,
            members: self.members.values().map(|one| self.downgraded(one, &one.id)).collect(),
            rebalances: false,
        });
        Ok((told, conversion))
    }

    /// Whether its protocols are known to all others of the classic protocol.
    fn supports(&self, join: &Join<'_>) -> bool {
        let others: Vec<&ClassicPart> =
            self.members.values().filter_map(|member| member.classic.as_ref()).collect();
        join.protocol_type == CONSUMER
            && join.protocols.iter().any(|(name, _)| {
                others.iter().all(|other| other.protocols.iter().any(|(known, _)| known == name))
            })
    }

    /// True if its subscription has changed.
    fn update(&mut self, before: Member, join: &Join<'_>, subscription: Subscription) -> bool {
        let mut member = before.clone();
        if let Some(instance) = join.instance {
            member.instance = Some(instance.to_owned());
        }
        if let Some(rack) = subscription.rack.filter(|rack| !rack.is_empty()) {
            member.rack = Some(rack);
        }
        member.rebalance_timeout = join.rebalance_timeout;
        member.topics = subscription.topics.into_iter().collect();
        member.regex = None;
        member.client_id = join.client_id.to_owned();
        member.client_host = join.client_host.to_owned();
        member.classic = Some(ClassicPart {
            session_timeout: join.session_timeout,
            protocols: join.protocols.clone(),
        });
        let changed = member.topics != before.topics || before.regex.is_some();
        self.place(member);
        changed
    }

    /// A member of the classic protocol, by its id, and by its instance id if it tells one.
    fn classic_member(&self, id: &str, instance: Option<&str>) -> Result<&Member, i16> {
        if let Some(instance) = instance {
            let current = self.instances.get(instance).ok_or(code::UNKNOWN_MEMBER_ID)?;
            if current != id {
                return Err(code::FENCED_INSTANCE_ID);
            }
        }
        let member = self.members.get(id).ok_or(code::UNKNOWN_MEMBER_ID)?;
        if member.is_classic() { Ok(member) } else { Err(code::UNKNOWN_MEMBER_ID) }
    }

    fn joins_again(&mut self, id: &str, timeout: Duration, now: Instant) {
        let timer = Timer::Join(id.to_owned());
        if !self.timers.is_scheduled(&timer) {
            self.timers.schedule(timer, now + timeout);
        }
    }

    /// A SyncGroup.
    pub(crate) fn sync(
        &mut self,
        settings: &GroupSettings,
        (id, instance): (&str, Option<&str>),
        generation: i32,
        (kind, name): (Option<&str>, Option<&str>),
        now: Instant,
    ) -> Result<Synced, i16> {
        let member = self.classic_member(id, instance)?;
        if member.current.epoch != generation {
            return Err(code::ILLEGAL_GENERATION);
        }
        let classic = member.classic.as_ref().ok_or(code::UNKNOWN_MEMBER_ID)?;
        let first = classic.protocols.first().map(|(name, _)| name.as_str());
        let wrong = kind.is_some_and(|kind| kind != CONSUMER) || (name.is_some() && name != first);
        if wrong {
            return Err(code::INCONSISTENT_GROUP_PROTOCOL);
        }
        if self.epoch > member.current.epoch && member.current.state != State::Unrevoked {
            let timeout = member.rebalance_timeout;
            self.joins_again(id, timeout, now);
            return Err(code::REBALANCE_IN_PROGRESS);
        }
        let told = Synced {
            error: code::NONE,
            protocol_type: kind.map(str::to_owned),
            protocol: name.map(str::to_owned),
            assignment: self.written(classic, &member.current.assigned),
        };
        self.timers.cancel(&Timer::Sync(id.to_owned()));
        self.heard_of(settings, id, now);
        Ok(told)
    }

    /// A Heartbeat: a member joins again if there is something to do for it.
    pub(crate) fn classic_heartbeat(
        &mut self,
        settings: &GroupSettings,
        (id, instance): (&str, Option<&str>),
        generation: i32,
        now: Instant,
    ) -> Result<(), i16> {
        let member = self.classic_member(id, instance)?;
        if member.current.epoch != generation {
            return Err(code::ILLEGAL_GENERATION);
        }
        let something = member.current.epoch < self.epoch
            || match member.current.state {
                State::Stable => false,
                State::Unrevoked => true,
                State::Unreleased => !self.waits_for_others(member),
            };
        let timeout = member.rebalance_timeout;
        self.heard_of(settings, id, now);
        if something {
            self.joins_again(id, timeout, now);
            return Err(code::REBALANCE_IN_PROGRESS);
        }
        Ok(())
    }

    /// Whether somebody has what a member is to have.
    fn waits_for_others(&self, member: &Member) -> bool {
        let held = |topic: Uuid, partition: i32| {
            self.members.values().any(|other| {
                let current = &other.current;
                [&current.assigned, &current.revoking].into_iter().any(|assignment| {
                    assignment.get(&topic).is_some_and(|list| list.contains(&partition))
                })
            })
        };
        let target = self.target.get(&member.id).into_iter().flatten();
        target.into_iter().any(|(topic, list)| {
            let mine = member.current.assigned.get(topic);
            list.iter().any(|partition| {
                !mine.is_some_and(|mine| mine.contains(partition)) && held(*topic, *partition)
            })
        })
    }

    /// A LeaveGroup: only members of the classic protocol can.
    pub(crate) fn classic_leave(&mut self, leaving: &[Leaving<'_>]) -> Vec<Result<(), i16>> {
        let outcomes: Vec<_> = leaving.iter().map(|one| self.leave_one(*one)).collect();
        if outcomes.iter().any(Result::is_ok) {
            self.refresh(None);
            self.epoch += 1;
        }
        outcomes
    }

    fn leave_one(&mut self, leaving: Leaving<'_>) -> Result<(), i16> {
        let id = match leaving.instance {
            Some(instance) if leaving.member_id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(code::UNKNOWN_MEMBER_ID)?
            }
            _ => leaving.member_id.to_owned(),
        };
        self.classic_member(&id, leaving.instance)?;
        self.take_out(&id);
        Ok(())
    }
}

/// Partitions by the ids of their topics; topics that are not there are left out.
fn by_ids(partitions: Vec<(String, Vec<i32>)>, image: &Image<'_>) -> Assignment {
    let known = partitions.into_iter();
    gather(known.filter_map(|(name, list)| Some((image.topic(&name)?.0, list))))
}

impl Classic {
    /// A group of the next generation goes on as a classic one.
    pub(crate) fn from_consumer(
        settings: &GroupSettings,
        conversion: Conversion,
        now: Instant,
    ) -> Self {
        let mut group = Self::settled(conversion.generation, conversion.members, now);
        if conversion.rebalances {
            group.rebalance(settings, now);
        }
        group
    }
}
