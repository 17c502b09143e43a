//! What members ask once they have joined: SyncGroup, Heartbeat, LeaveGroup, and whether they may
//! commit.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Classic, GroupSettings, Joined, Phase, Timer};
use crate::error_code as code;

/// The answer to a SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) error: i16,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl Synced {
    pub(crate) fn refused(error: i16) -> Self {
        Self { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// One that leaves, or is told to by an administrator who knows its instance id only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance: Option<&'a str>,
}

/// Whether two names are there and differ.
fn differ(told: Option<&str>, known: Option<&str>) -> bool {
    matches!((told, known), (Some(told), Some(known)) if told != known)
}

impl Classic {
    /// A member asks for its assignment; the leader brings all of them.
    pub(crate) fn sync(
        &mut self,
        (id, instance): (&str, Option<&str>),
        generation: i32,
        (protocol_type, protocol): (Option<&str>, Option<&str>),
        assignments: HashMap<String, Bytes>,
        answer: oneshot::Sender<Synced>,
        now: Instant,
    ) {
        if self.is_empty() {
            let _ = answer.send(Synced::refused(code::UNKNOWN_MEMBER_ID));
            return;
        }
        let wrong = self.validate(id, instance).err().or_else(|| {
            if generation != self.generation {
                Some(code::ILLEGAL_GENERATION)
            } else if differ(protocol_type, self.protocol_type())
                || differ(protocol, self.protocol())
            {
                Some(code::INCONSISTENT_GROUP_PROTOCOL)
            } else {
                (self.phase == Phase::Preparing).then_some(code::REBALANCE_IN_PROGRESS)
            }
        });
        if let Some(error) = wrong {
            let _ = answer.send(Synced::refused(error));
            return;
        }
        self.unsynced.remove(id);
        if self.unsynced.is_empty() {
            self.timers.cancel(&Timer::Sync);
        }
        if self.phase == Phase::Stable {
            let _ = answer.send(self.assignment_of(id));
            return;
        }
        if let Some(member) = self.members.get_mut(id) {
            member.sync = Some(answer);
        }
        if self.is_leader(id) {
            for member in self.members.values_mut() {
                // Whom the leader has left out has nothing.
                member.assignment = assignments.get(&member.id).cloned().unwrap_or_default();
            }
            self.store(now);
            self.propagate(None, now);
            self.enter(Phase::Stable, now);
            self.rebalances += 1;
        }
    }

    pub(super) fn assignment_of(&self, id: &str) -> Synced {
        Synced {
            error: code::NONE,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|one| one.assignment.clone()).unwrap_or_default(),
        }
    }

    pub(crate) fn heartbeat(
        &mut self,
        (id, instance): (&str, Option<&str>),
        generation: i32,
        now: Instant,
    ) -> Result<(), i16> {
        self.validate(id, instance)?;
        if generation != self.generation {
            return Err(code::ILLEGAL_GENERATION);
        }
        self.heard_of(id, now);
        match self.phase {
            Phase::Empty => Err(code::UNKNOWN_MEMBER_ID),
            Phase::Preparing => Err(code::REBALANCE_IN_PROGRESS),
            Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    /// Members leave, each with an outcome of its own; the others rebalance once.
    pub(crate) fn leave(
        &mut self,
        settings: &GroupSettings,
        leaving: &[Leaving<'_>],
        now: Instant,
    ) -> Vec<Result<(), i16>> {
        let outcomes: Vec<_> = leaving.iter().map(|one| self.leave_one(*one)).collect();
        if outcomes.iter().any(Result::is_ok) {
            match self.phase {
                Phase::Stable | Phase::Completing => self.prepare(settings, now),
                Phase::Preparing => self.complete_if_all_joined(now),
                Phase::Empty => {}
            }
        }
        outcomes
    }

    fn leave_one(&mut self, leaving: Leaving<'_>) -> Result<(), i16> {
        let id = if leaving.member_id.is_empty() {
            let known = leaving.instance.and_then(|instance| self.instances.get(instance));
            known.cloned().ok_or(code::UNKNOWN_MEMBER_ID)?
        } else {
            if !self.pending.contains(leaving.member_id) {
                self.validate(leaving.member_id, leaving.instance)?;
            }
            leaving.member_id.to_owned()
        };
        self.answer_join(&id, Joined::refused(code::UNKNOWN_MEMBER_ID, ""));
        self.remove(&id);
        Ok(())
    }

    /// Whether offsets may be committed; if so, it was a sign of life.
    pub(crate) fn commit(
        &mut self,
        (id, instance): (&str, Option<&str>),
        generation: i32,
        now: Instant,
    ) -> Result<(), i16> {
        if generation < 0 && self.is_empty() {
            // An administrator, or a consumer that has assigned itself.
            return Ok(());
        }
        if generation < 0 && id.is_empty() && instance.is_none() {
            return Err(code::UNKNOWN_MEMBER_ID);
        }
        self.validate(id, instance)?;
        if generation != self.generation {
            return Err(code::ILLEGAL_GENERATION);
        }
        if self.phase == Phase::Completing {
            return Err(code::REBALANCE_IN_PROGRESS);
        }
        self.heard_of(id, now);
        Ok(())
    }

    /// Whether offsets may be deleted at all; topics that are read keep theirs.
    pub(crate) fn may_delete_offsets(&self) -> Result<(), i16> {
        if self.is_empty() || self.is_of_consumers() { Ok(()) } else { Err(code::NON_EMPTY_GROUP) }
    }

    pub(crate) fn may_be_deleted(&self) -> Result<(), i16> {
        if self.is_empty() { Ok(()) } else { Err(code::NON_EMPTY_GROUP) }
    }
}
