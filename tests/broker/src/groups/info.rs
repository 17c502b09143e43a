//! A group as a test sees it.

use bytes::Bytes;

use super::classic::{Classic, Phase};
use super::consumer::{Assignment, Consumer};
use super::{Group, Image, Kind};

/// What kind of group it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupKind {
    /// Its members rejoin together, and one of them assigns.
    Classic,
    /// Its coordinator assigns (KIP-848).
    Consumer,
}

/// Where a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupState {
    /// It has no members.
    Empty,
    /// Members are waited for.
    PreparingRebalance,
    /// The leader's assignment is waited for.
    CompletingRebalance,
    /// Members, subscriptions or topics have changed, and nobody has asked since.
    Assigning,
    /// Members are on their way to what they are to have.
    Reconciling,
    /// All have what they are to have.
    Stable,
}

impl GroupState {
    /// As Kafka writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

impl From<Phase> for GroupState {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Empty => Self::Empty,
            Phase::Preparing => Self::PreparingRebalance,
            Phase::Completing => Self::CompletingRebalance,
            Phase::Stable => Self::Stable,
        }
    }
}

/// A group, as its coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// Its id.
    pub id: String,
    /// What kind of group it is.
    pub kind: GroupKind,
    /// The broker that coordinates it; `None`: nobody can.
    pub coordinator: Option<i32>,
    /// Where it is.
    pub state: GroupState,
    /// Its generation, or its epoch.
    pub generation: i32,
    /// The epoch that its assignment is of; of classic groups the generation.
    pub assignment_epoch: i32,
    /// What kind of clients it is of: `consumer`. `None`: nobody has joined yet.
    pub protocol_type: Option<String>,
    /// The assignor that its members have agreed on.
    pub protocol: Option<String>,
    /// Id of the member that assigns.
    pub leader: Option<String>,
    /// By their ids.
    pub members: Vec<GroupMember>,
    /// Ids that were given, and whose clients have not joined with them.
    pub pending: Vec<String>,
    /// What was committed, by topic and partition.
    pub offsets: Vec<CommittedOffset>,
    /// How often it was assigned anew: by a leader, or by the coordinator.
    pub rebalances: u64,
    /// Members whose sessions were over.
    pub expired: u64,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// The id that it was given.
    pub id: String,
    /// `group.instance.id`, of a static member.
    pub instance: Option<String>,
    /// `client.id`
    pub client_id: String,
    /// Where it comes from.
    pub client_host: String,
    /// Whether it speaks the classic protocol, in whatever kind of group.
    pub is_classic: bool,
    /// Its epoch; in a classic group the generation.
    pub epoch: i32,
    /// In a group of the next generation: what it may use now.
    pub partitions: Vec<(String, i32)>,
    /// In a group of the next generation: what it is to have in the end.
    pub target: Vec<(String, i32)>,
    /// What it has said under the protocol that was chosen; as long as none is, nothing.
    pub subscription: Bytes,
    /// What the leader has given it.
    pub assignment: Bytes,
}

/// What a group has committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommittedOffset {
    /// Topic
    pub topic: String,
    /// Partition
    pub partition: i32,
    /// The next record to read.
    pub offset: i64,
    /// Epoch of the record before; `None`: not told.
    pub leader_epoch: Option<i32>,
    /// What the client has added.
    pub metadata: String,
}

impl GroupInfo {
    pub(crate) fn of(id: &str, coordinator: Option<i32>, group: &Group, image: &Image<'_>) -> Self {
        let partitions = group.offsets.topics().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, offset)| (topic, *partition, offset))
        });
        let offsets = partitions.map(|(topic, partition, offset)| CommittedOffset {
            topic: topic.to_owned(),
            partition,
            offset: offset.offset,
            leader_epoch: (offset.leader_epoch >= 0).then_some(offset.leader_epoch),
            metadata: offset.metadata.clone(),
        });
        let offsets = offsets.collect();
        match &group.kind {
            Kind::Classic(classic) => {
                Self { offsets, ..Self::of_classic(id, coordinator, classic) }
            }
            Kind::Consumer(consumer) => {
                Self { offsets, ..Self::of_consumer(id, coordinator, consumer, image) }
            }
        }
    }

    fn of_classic(id: &str, coordinator: Option<i32>, classic: &Classic) -> Self {
        let members = classic.members().map(|member| GroupMember {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            is_classic: true,
            epoch: classic.generation(),
            partitions: Vec::new(),
            target: Vec::new(),
            subscription: classic
                .protocol()
                .map(|protocol| member.metadata(protocol))
                .unwrap_or_default(),
            assignment: member.assignment.clone(),
        });
        Self {
            id: id.to_owned(),
            kind: GroupKind::Classic,
            coordinator,
            assignment_epoch: classic.generation(),
            state: classic.phase().into(),
            generation: classic.generation(),
            protocol_type: classic.protocol_type().map(str::to_owned),
            protocol: classic.protocol().map(str::to_owned),
            leader: classic.leader().map(str::to_owned),
            members: members.collect(),
            pending: classic.pending().map(str::to_owned).collect(),
            offsets: Vec::new(),
            rebalances: classic.rebalances,
            expired: classic.expired,
        }
    }

    fn of_consumer(
        id: &str,
        coordinator: Option<i32>,
        consumer: &Consumer,
        image: &Image<'_>,
    ) -> Self {
        let named = |assignment: Option<&Assignment>| {
            let topics = assignment.into_iter().flatten();
            let mut named: Vec<(String, i32)> = topics
                .filter_map(|(id, list)| Some((image.name(*id)?, list)))
                .flat_map(|(name, list)| list.iter().map(|one| (name.to_owned(), *one)))
                .collect();
            named.sort();
            named
        };
        let members = consumer.members().map(|member| GroupMember {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            is_classic: member.is_classic(),
            epoch: member.epoch(),
            partitions: named(Some(member.assigned())),
            target: named(consumer.target(&member.id)),
            subscription: Bytes::new(),
            assignment: Bytes::new(),
        });
        Self {
            id: id.to_owned(),
            kind: GroupKind::Consumer,
            coordinator,
            state: consumer.state(),
            generation: consumer.epoch(),
            assignment_epoch: consumer.target_epoch(),
            protocol_type: Some(super::classic::CONSUMER.to_owned()),
            protocol: Some(consumer.assignor().to_owned()),
            leader: None,
            members: members.collect(),
            pending: Vec::new(),
            offsets: Vec::new(),
            rebalances: consumer.rebalances,
            expired: consumer.expired,
        }
    }

    /// What was committed for a partition.
    pub fn committed(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.offsets.iter().find(|one| one.topic == topic && one.partition == partition)
    }

    /// A member by its id.
    pub fn member(&self, id: &str) -> Option<&GroupMember> {
        self.members.iter().find(|one| one.id == id)
    }
}
