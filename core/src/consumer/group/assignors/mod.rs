//! Who of a group reads what. The leader of a classic group decides that for all, by the assignor that the coordinator
//! has chosen from what every member offers ([`offers`]); [`Assignor::plan`] is a pure function of what the members
//! said and of the topics there are. Whoever leads next, with whichever client, must find little to change: the
//! names are Java's, and so is what they do. `range` and `roundrobin` give exactly what Java gives.
//!
//! What holds for all of them: every member is named in the plan, who gets nothing too (a member that is left out gets
//! zero bytes, which ends Java's consumer); static members come first, by instance id, then the others by member id
//! (Java's MemberInfo), so that a static member has the same place after a restart; a topic that does not exist, or that
//! nobody wants, is nobody's; and the plan that follows a plan moves nothing.

mod claims;
mod cooperative;
mod fill;
mod layout;
mod range;
mod round_robin;
mod shares;
mod sticky;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};

use super::wire::{self, Assignment, History, NO_GENERATION, Partitions, Subscription};
use layout::Layout;

/// A member, as the leader gets to know it from the coordinator's answer to JoinGroup.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    /// Of a static member.
    pub(crate) instance_id: Option<Arc<str>>,
    /// What it wants and has. The default for a member whose bytes are malformed: it gets nothing, and the others
    /// go on.
    pub(crate) subscription: Subscription,
}

/// The topics there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topics(BTreeMap<Arc<str>, Topic>);

#[derive(Clone, Debug)]
struct Topic {
    partitions: usize,
    /// Of each partition the racks of its replicas, in sync or not. Nothing where none is known.
    racks: Vec<Vec<Arc<str>>>,
}

impl Topics {
    /// A topic whose replicas are in racks that nobody knows.
    pub(crate) fn insert(&mut self, name: impl Into<Arc<str>>, partitions: usize) {
        self.0.insert(name.into(), Topic { partitions, racks: Vec::new() });
    }

    /// A topic, with the racks of the replicas of each partition.
    pub(crate) fn insert_with_racks(
        &mut self,
        name: impl Into<Arc<str>>,
        racks: Vec<Vec<Arc<str>>>,
    ) {
        self.0.insert(name.into(), Topic { partitions: racks.len(), racks });
    }
}

/// What each member is to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Each member once, in the order in which they were given.
    pub(crate) members: Vec<(Arc<str>, Partitions)>,
}

impl Plan {
    /// What SyncGroup hands out: each member's assignment.
    pub(crate) fn encode(&self) -> impl Iterator<Item = (Arc<str>, Bytes)> {
        self.members.iter().map(|(id, partitions)| {
            let assignment = Assignment { partitions: partitions.clone(), user_data: None };
            (Arc::clone(id), assignment.encode())
        })
    }
}

/// Who decides which member of a group reads what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Assignor {
    /// Each topic in ranges of equal size; partitions of the same number meet in the same member. Eager.
    Range,
    /// Partition by partition in turn. Eager.
    RoundRobin,
    /// Balanced over all topics, and moves as little as that allows. Eager.
    Sticky,
    /// The same, and members go on reading what they keep.
    CooperativeSticky,
}

/// What a member offers unless it is told otherwise. With `range` among them all members are eager; one restart
/// later without it, they are cooperative.
pub(crate) const DEFAULT: [Assignor; 2] = [Assignor::Range, Assignor::CooperativeSticky];

impl Assignor {
    const ALL: [Self; 4] = [Self::Range, Self::RoundRobin, Self::Sticky, Self::CooperativeSticky];

    /// As groups know it: `cooperative-sticky`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::Sticky => "sticky",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// Who reads what. A member that is named twice is heard once.
    pub(crate) fn plan(self, members: &[Member], topics: &Topics) -> Plan {
        let layout = Layout::new(members, topics);
        let owners = match self {
            Self::Range => range::plan(&layout),
            Self::RoundRobin => round_robin::plan(&layout),
            Self::Sticky => sticky::plan(&layout),
            Self::CooperativeSticky => cooperative::plan(&layout),
        };
        layout.plan(&owners)
    }

    fn user_data(self, joining: &Joining<'_>) -> Option<Bytes> {
        let held = joining.generation != NO_GENERATION;
        match self {
            Self::Range | Self::RoundRobin => None,
            Self::Sticky => held.then(|| {
                let partitions = joining.held.clone();
                History { partitions, generation: joining.generation }.encode()
            }),
            Self::CooperativeSticky => Some(wire::encode_generation(joining.generation)),
        }
    }
}

impl FromStr for Assignor {
    type Err = Error;

    /// By the name that groups know it by.
    ///
    /// # Errors
    /// `Config` for another one.
    fn from_str(name: &str) -> Result<Self> {
        Self::from_name(name).ok_or_else(|| {
            let all = Self::ALL.map(Self::name).join(", ");
            Error::config(format!("there is no assignor '{name}'; there are {all}"))
        })
    }
}

/// Whether a member that offers these goes on reading while it joins: one eager assignor among them makes it
/// eager, whichever the coordinator chooses (Java's ConsumerCoordinator), because it has to give up what it reads
/// before it knows.
pub(crate) fn is_cooperative(assignors: &[Assignor]) -> bool {
    let cooperative = |assignor: &Assignor| *assignor == Assignor::CooperativeSticky;
    !assignors.is_empty() && assignors.iter().all(cooperative)
}

/// What a member knows of itself as it joins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joining<'a> {
    pub(crate) topics: &'a [Arc<str>],
    pub(crate) rack: Option<&'a Arc<str>>,
    /// What it holds, or as an eager member has held until now.
    pub(crate) held: &'a Partitions,
    /// Since which generation; [`NO_GENERATION`] if it holds nothing, or has lost it.
    pub(crate) generation: i32,
}

/// The protocols of a JoinGroup: name and metadata of each assignor, the preferred first.
///
/// An eager member owns nothing, whatever the assignor: a cooperative leader would hold back what such a member
/// claims until it gives it up, which it has done already. The generation stands in the field, and where there is user
/// data it stands there too: Java compares the one of one member with the other of another.
pub(crate) fn offers(assignors: &[Assignor], joining: &Joining<'_>) -> Vec<(&'static str, Bytes)> {
    let owned = if is_cooperative(assignors) { joining.held.clone() } else { Vec::new() };
    let mut subscription = Subscription {
        topics: joining.topics.to_vec(),
        user_data: None,
        owned,
        generation: joining.generation,
        rack: joining.rack.cloned(),
    };
    let offer = |assignor: &Assignor| {
        subscription.user_data = assignor.user_data(joining);
        (assignor.name(), subscription.encode())
    };
    assignors.iter().map(offer).collect()
}

#[cfg(test)]
mod tests;
