//! ConsumerGroupHeartbeat: joining, being there, going, and what comes back.

use std::time::Duration;

use regex_lite::Regex;
use tokio::time::Instant;

use super::reconcile::is_within;
use super::{
    ASSIGNORS, Assignment, Consumer, Conversion, Image, LEAVES, Member, Pattern, Timer,
    WILL_BE_BACK,
};
use crate::batch::Refusal;
use crate::error_code as code;
use crate::groups::settings::GroupSettings;

/// What a member says. `None`: nothing has changed.
#[derive(Debug, Clone)]
pub(crate) struct Beat<'a> {
    pub(crate) group: &'a str,
    pub(crate) member_id: &'a str,
    pub(crate) epoch: i32,
    pub(crate) instance: Option<&'a str>,
    pub(crate) rack: Option<&'a str>,
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) topics: Option<Vec<String>>,
    pub(crate) regex: Option<&'a str>,
    pub(crate) assignor: Option<&'a str>,
    pub(crate) owned: Option<Assignment>,
    pub(crate) client_id: &'a str,
    pub(crate) client_host: &'a str,
    /// The id that it gets if it brings none; `None`: it has to bring one (KIP-1082).
    pub(crate) new_id: Option<String>,
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) member_id: String,
    pub(crate) epoch: i32,
    /// `None`: as before.
    pub(crate) assignment: Option<Assignment>,
}

fn invalid<T>(words: &str) -> Result<T, Refusal> {
    Err(Refusal::new(code::INVALID_REQUEST, words))
}

impl Beat<'_> {
    pub(crate) fn joins(&self) -> bool {
        self.epoch == 0
    }

    /// What no member may say, whatever the group.
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        if self.group.is_empty() {
            return invalid("GroupId can't be empty.");
        }
        if self.instance == Some("") {
            return invalid("InstanceId can't be empty.");
        }
        if self.rack == Some("") {
            return invalid("RackId can't be empty.");
        }
        if self.member_id.is_empty() && (self.new_id.is_none() || !self.joins()) {
            return invalid("MemberId can't be empty.");
        }
        match self.epoch {
            0 => {
                if self.rebalance_timeout.is_none() {
                    return invalid("RebalanceTimeoutMs must be provided in first request.");
                }
                if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                    return invalid("TopicPartitions must be empty when (re-)joining.");
                }
                let topics = self.topics.as_ref().is_some_and(|topics| !topics.is_empty());
                if !topics && self.regex.is_none_or(str::is_empty) {
                    return invalid(
                        "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null \
                         when (re-)joining.",
                    );
                }
            }
            WILL_BE_BACK if self.instance.is_none() => return invalid("InstanceId can't be null."),
            LEAVES | WILL_BE_BACK | 1.. => {}
            _ => return invalid("MemberEpoch is invalid."),
        }
        match self.assignor {
            Some(assignor) if !ASSIGNORS.contains(&assignor) => {
                let known = ASSIGNORS.join(", ");
                let words = format!(
                    "ServerAssignor {assignor} is not supported. Supported assignors: {known}."
                );
                Err(Refusal::new(code::UNSUPPORTED_ASSIGNOR, words))
            }
            _ => Ok(()),
        }
    }

    /// Full requests are answered with the whole assignment.
    fn is_full(&self) -> bool {
        self.joins()
            || (self.rebalance_timeout.is_some() && self.topics.is_some() && self.owned.is_some())
    }
}

/// RE2 has no empty pattern; an empty one takes the subscription back.
fn pattern(text: &str) -> Result<Option<Pattern>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    // The whole name, as Kafka matches it. Compiled alone first: `a)|(b` is no expression.
    let compiled = Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$")));
    compiled.map(|compiled| Some(Pattern { text: text.to_owned(), compiled })).map_err(|error| {
        let words =
            format!("SubscribedTopicRegex `{text}` is not a valid regular expression: {error}");
        Refusal::new(code::INVALID_REGULAR_EXPRESSION, words)
    })
}

impl Consumer {
    /// A member joins, or is still there.
    pub(crate) fn heartbeat(
        &mut self,
        settings: &GroupSettings,
        beat: &Beat<'_>,
        image: &Image<'_>,
        now: Instant,
    ) -> Result<Told, Refusal> {
        let full = self.members.len() >= settings.max_size;
        if full && !self.members.contains_key(beat.member_id) {
            let words = format!(
                "The consumer group has reached its maximum capacity of {} members.",
                settings.max_size
            );
            return Err(Refusal::new(code::GROUP_MAX_SIZE_REACHED, words));
        }
        let regex = beat.regex.map(pattern).transpose()?;
        let new_id = beat.new_id.as_deref().unwrap_or_default();
        let id = if beat.member_id.is_empty() { new_id } else { beat.member_id };
        let before = match beat.instance {
            None => self.dynamic(settings, id, beat)?,
            Some(instance) => self.of_instance(id, instance, beat)?,
        };
        let mut member = before.clone();
        if let Some(instance) = beat.instance {
            member.instance = Some(instance.to_owned());
        }
        if let Some(rack) = beat.rack {
            member.rack = Some(rack.to_owned());
        }
        if let Some(timeout) = beat.rebalance_timeout {
            member.rebalance_timeout = timeout;
        }
        if let Some(assignor) = beat.assignor {
            member.assignor = Some(assignor.to_owned());
        }
        if let Some(topics) = &beat.topics {
            member.topics = topics.iter().cloned().collect();
        }
        if let Some(regex) = regex {
            member.regex = regex;
        }
        member.client_id = beat.client_id.to_owned();
        member.client_host = beat.client_host.to_owned();
        member.classic = None;
        let changed = member.topics != before.topics || member.regex() != before.regex();
        let assigned = before.current.assigned;
        self.place(member);
        self.follow(id, changed, beat.owned.as_ref(), image, now);
        self.heard_of(settings, id, now);
        self.timers.cancel(&Timer::Join(id.to_owned()));
        self.timers.cancel(&Timer::Sync(id.to_owned()));
        let told = self.members.get(id).map(|member| Told {
            member_id: member.id.clone(),
            epoch: member.current.epoch,
            assignment: (beat.is_full() || member.current.assigned != assigned)
                .then(|| member.current.assigned.clone()),
        });
        told.ok_or_else(|| Refusal::new(code::UNKNOWN_MEMBER_ID, "the member is gone"))
    }

    /// What a member's heartbeat, or its JoinGroup, makes of the group and of itself.
    pub(super) fn follow(
        &mut self,
        id: &str,
        changed: bool,
        owned: Option<&Assignment>,
        image: &Image<'_>,
        now: Instant,
    ) {
        if self.refresh(Some(image)) || changed {
            self.epoch += 1;
        }
        self.retarget();
        self.reconcile(id, owned, now);
    }

    fn dynamic(
        &self,
        settings: &GroupSettings,
        id: &str,
        beat: &Beat<'_>,
    ) -> Result<Member, Refusal> {
        match self.members.get(id) {
            Some(member) => {
                member.validate(settings, beat)?;
                Ok(member.clone())
            }
            None if beat.joins() => Ok(Member::new(id)),
            None => Err(unknown(id, beat.group)),
        }
    }

    fn of_instance(
        &mut self,
        id: &str,
        instance: &str,
        beat: &Beat<'_>,
    ) -> Result<Member, Refusal> {
        let current = self.instances.get(instance).cloned();
        let Some(current) = current else {
            if !beat.joins() {
                let words = format!("Instance id {instance} is unknown.");
                return Err(Refusal::new(code::UNKNOWN_MEMBER_ID, words));
            }
            return Ok(self.members.get(id).cloned().unwrap_or_else(|| Member::new(id)));
        };
        let member = self.members.get(&current).cloned().unwrap_or_else(|| Member::new(&current));
        if !beat.joins() {
            if current != id {
                let words = format!(
                    "Static member {id} with instance id {instance} was fenced by member {current}."
                );
                return Err(Refusal::new(code::FENCED_INSTANCE_ID, words));
            }
            member.validate_received(beat)?;
            return Ok(member);
        }
        // Unlike a classic member, the one before has to have gone first.
        if !member.is_classic() && member.current.epoch != WILL_BE_BACK {
            let words = format!(
                "Static member {id} with instance id {instance} cannot join the group because the \
                 instance id is owned by {current} member."
            );
            return Err(Refusal::new(code::UNRELEASED_INSTANCE_ID, words));
        }
        Ok(self.replace(&current, id))
    }

    /// A static member is there again, with another id or the same one: it has what the one before had.
    pub(super) fn replace(&mut self, old: &str, new: &str) -> Member {
        let target = self.target.get(old).cloned();
        let mut member = self.take_out(old).unwrap_or_else(|| Member::new(new));
        member.id = new.to_owned();
        member.current.epoch = 0;
        member.current.previous_epoch = 0;
        if let Some(target) = target {
            self.target.insert(new.to_owned(), target);
        }
        self.place(member.clone());
        member
    }

    /// A member goes. Its epoch says whether it will be back.
    pub(crate) fn leave(&mut self, beat: &Beat<'_>) -> Result<(Told, Option<Conversion>), Refusal> {
        let id = match beat.instance {
            None => beat.member_id,
            Some(instance) => match self.instances.get(instance).map(String::as_str) {
                None => {
                    let words = format!("Instance id {instance} is unknown.");
                    return Err(Refusal::new(code::UNKNOWN_MEMBER_ID, words));
                }
                Some(current) if current != beat.member_id => {
                    let words = format!(
                        "Static member {} with instance id {instance} was fenced by member {current}.",
                        beat.member_id
                    );
                    return Err(Refusal::new(code::FENCED_INSTANCE_ID, words));
                }
                Some(current) => current,
            },
        }
        .to_owned();
        let Some(member) = self.members.get_mut(&id) else { return Err(unknown(&id, beat.group)) };
        let told = Told { member_id: id.clone(), epoch: beat.epoch, assignment: None };
        if beat.instance.is_some() && beat.epoch == WILL_BE_BACK {
            // It keeps what it has until its session is over.
            member.current.epoch = WILL_BE_BACK;
            member.current.revoking = Assignment::new();
            return Ok((told, None));
        }
        Ok((told, self.fence(&id)))
    }

    /// A member is out. If only members of the classic protocol are left, the group is theirs.
    pub(crate) fn fence(&mut self, id: &str) -> Option<Conversion> {
        if let Some(conversion) = self.downgrade_without(id) {
            return Some(conversion);
        }
        self.remove(id);
        None
    }
}

fn unknown(id: &str, group: &str) -> Refusal {
    let words = format!("Member {id} is not a member of group {group}.");
    Refusal::new(code::UNKNOWN_MEMBER_ID, words)
}

impl Member {
    fn validate(&self, settings: &GroupSettings, beat: &Beat<'_>) -> Result<(), Refusal> {
        // Up to 4.1 who begins anew under an id that is known is fenced (KAFKA-19233).
        if beat.joins() && !settings.fences_rejoining {
            return Ok(());
        }
        self.validate_received(beat)
    }

    /// An epoch that is not the current one is let pass if the answer with the current one may have been
    /// lost: the member has to show that it has nothing that it may not have.
    fn validate_received(&self, beat: &Beat<'_>) -> Result<(), Refusal> {
        let (epoch, known) = (beat.epoch, self.current.epoch);
        let lost = epoch == self.current.previous_epoch
            && beat.owned.as_ref().is_some_and(|owned| is_within(owned, &self.current.assigned));
        let (than, wrong) =
            if epoch > known { ("greater", true) } else { ("smaller", epoch < known && !lost) };
        if !wrong {
            return Ok(());
        }
        let words = format!(
            "The consumer group member has a {than} member epoch ({epoch}) than the one known by the \
             group coordinator ({known}). The member must abandon all its partitions and rejoin."
        );
        Err(Refusal::new(code::FENCED_MEMBER_EPOCH, words))
    }
}
