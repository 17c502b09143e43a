//! Groups of a cluster: what they are, and what happens to them.

use std::io;

use super::Cluster;
use crate::groups::GroupInfo;
use crate::groups::offsets::Offset;
use crate::listener;

impl Cluster {
    /// A group as it is now. `None`: nobody has joined or committed, or it is forgotten.
    pub fn group(&self, id: &str) -> Option<GroupInfo> {
        let now = self.shared.now();
        let mut state = self.shared.state();
        let (groups, image) = state.groups_and_topics();
        let coordinator = groups.coordinator(id);
        groups.get(id, now).map(|group| GroupInfo::of(id, coordinator, group, &image))
    }

    /// Ids of all groups.
    pub fn group_ids(&self) -> Vec<String> {
        let now = self.shared.now();
        self.shared.state().groups.ids(now)
    }

    /// The broker that coordinates a group, also one that is not there yet. `None`: no broker is up, or
    /// it was taken away.
    pub fn coordinator(&self, group: &str) -> Option<i32> {
        self.shared.state().groups.coordinator(group)
    }

    /// Commits an offset, whoever is in the group; makes the group if there is none.
    ///
    /// # Errors
    /// `InvalidInput` if there are too many groups.
    pub fn set_committed(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> io::Result<()> {
        let now = self.shared.now();
        let offset = Offset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            committed: now,
            expires: None,
        };
        let groups = &mut self.shared.state().groups;
        match groups.set_committed(group, (topic, partition), offset, now) {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "there are too many groups")),
        }
    }

    /// A transaction is about to commit an offset, or no longer is: who asks for stable offsets is
    /// answered with `UNSTABLE_OFFSET_COMMIT`.
    ///
    /// # Errors
    /// `NotFound` for an unknown group.
    pub fn set_unstable_offset(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        unstable: bool,
    ) -> io::Result<()> {
        let now = self.shared.now();
        let groups = &mut self.shared.state().groups;
        let found = groups.get(group, now).ok_or_else(|| unknown_group(group))?;
        found.offsets.set_unstable(topic, partition, unstable);
        Ok(())
    }

    /// The coordinator takes a member for dead, as when its session is over; or it waits no longer for
    /// one that was given an id.
    ///
    /// # Errors
    /// `NotFound` for an unknown group or member.
    pub fn expire_member(&self, group: &str, member: &str) -> io::Result<()> {
        let now = self.shared.now();
        let expired = self.shared.state().groups.expire_member(group, member, now);
        expired.then_some(()).ok_or_else(|| unknown_group(group))
    }

    /// Another broker coordinates a group from now on, and all groups that share a partition of
    /// `__consumer_offsets` with it. It knows of them what was written down: the last generation that
    /// was complete, and offsets. Whoever waits for a rebalance is answered with `NOT_COORDINATOR`.
    /// Moved to the broker that it is at, it is as if that had lost it for a moment.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker.
    pub fn move_coordinator(&self, group: &str, broker: i32) -> io::Result<()> {
        self.shared.broker(broker).ok_or_else(|| listener::unknown_broker(broker))?;
        let now = self.shared.now();
        self.shared.state().groups.move_to(group, Some(broker), now);
        Ok(())
    }

    /// Nobody coordinates a group until [`Cluster::move_coordinator`], or until a broker starts:
    /// FindCoordinator is answered with `COORDINATOR_NOT_AVAILABLE`.
    pub fn remove_coordinator(&self, group: &str) {
        let now = self.shared.now();
        self.shared.state().groups.move_to(group, None, now);
    }
}

fn unknown_group(group: &str) -> io::Error {
    let words = format!("group '{group}' or its member is not there");
    io::Error::new(io::ErrorKind::NotFound, words)
}
