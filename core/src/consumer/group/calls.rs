//! The requests of a member to its coordinator, and what comes back, checked for shape. What any of it means is decided
//! elsewhere.
//!
//! JoinGroup and SyncGroup wait at the broker for the other members, and what comes behind them on their connection waits
//! as well. So these have a connection of the consumer's own ([`Lane::Group`]); heartbeats, commits, lookups of committed
//! offsets and the farewell ride on one where nothing waits.

mod next;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::cluster::{Handle, Lane};
use crate::config::Caller;
use crate::consumer::buffer::Key;
use crate::error::names::NONE;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Api;
use crate::net::{CallError, Connection};
use crate::policy::reconnect::DialUrgency;
use crate::protocol::Throttle;

pub(in crate::consumer) use next::{Profile, Turns};

const JOIN: (i16, i16) = crate::protocol::bounded::<JoinGroupRequest>(5, 9);
const SYNC: (i16, i16) = crate::protocol::bounded::<SyncGroupRequest>(3, 5);
const HEARTBEAT: (i16, i16) = crate::protocol::bounded::<HeartbeatRequest>(3, 4);
const LEAVE: (i16, i16) = crate::protocol::bounded::<LeaveGroupRequest>(3, 5);
const COMMIT: (i16, i16) = crate::protocol::bounded::<OffsetCommitRequest>(7, 9);
const FETCH: (i16, i16) = crate::protocol::bounded::<OffsetFetchRequest>(8, 9);

/// The first versions that say why somebody joins (KIP-800) and leaves; and that name the protocol (KIP-559).
const JOIN_REASON: i16 = 8;
const LEAVE_REASON: i16 = 5;
const SYNC_NAMES: i16 = 5;

/// What members of all languages call themselves.
const PROTOCOL_TYPE: StrBytes = StrBytes::from_static_str("consumer");

/// Why a call has no result.
#[derive(Clone, Debug)]
pub(in crate::consumer) enum Failure {
    /// The broker has answered with this code.
    Code(i16, Error),
    /// It was not asked.
    Unsent(Error),
    /// It may have been asked, and may have done it.
    Lost(Error),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unsent(e) => Self::Unsent(e),
            CallError::InDoubt(e) => Self::Lost(e),
        }
    }
}

/// Who calls, in which generation. A member that is not in the group commits with the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Membership {
    pub(in crate::consumer) member: Arc<str>,
    pub(in crate::consumer) generation: i32,
}

impl Default for Membership {
    /// A consumer that belongs to no generation.
    fn default() -> Self {
        Self { member: Arc::from(""), generation: -1 }
    }
}

/// What one protocol says of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Offer {
    pub(in crate::consumer) name: &'static str,
    pub(in crate::consumer) metadata: Bytes,
}

/// A member as its leader hears of it.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct JoinedMember {
    pub(in crate::consumer) member: String,
    pub(in crate::consumer) instance: Option<String>,
    pub(in crate::consumer) metadata: Bytes,
}

/// The response to JoinGroup.
#[derive(Clone, Debug)]
pub(in crate::consumer) struct Joined {
    pub(in crate::consumer) membership: Membership,
    pub(in crate::consumer) protocol: String,
    /// This member is the leader.
    pub(in crate::consumer) leads: bool,
    /// The leader is to give no assignment: it was a static member that came back.
    pub(in crate::consumer) skip_assignment: bool,
    /// Of the leader alone.
    pub(in crate::consumer) members: Vec<JoinedMember>,
}

/// What a group keeps of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Committed {
    pub(in crate::consumer) offset: i64,
    /// The leader epoch of what lies before it; -1: not told.
    pub(in crate::consumer) epoch: i32,
    pub(in crate::consumer) metadata: String,
}

/// What a group keeps of one partition, if it says so.
pub(in crate::consumer) type Found = Result<Option<Committed>, Failure>;

/// How a member reaches its coordinator.
#[derive(Clone)]
pub(in crate::consumer) struct Calls {
    pool: Handle,
    lane: Lane,
    group: Arc<str>,
    instance: Option<Arc<str>>,
    caller: Arc<Caller>,
}

impl Calls {
    pub(in crate::consumer) fn new(
        pool: &Handle,
        consumer: u64,
        (group, instance): (Arc<str>, Option<Arc<str>>),
    ) -> Self {
        let (lane, caller) = (Lane::Group(consumer), Arc::clone(pool.caller()));
        Self { pool: pool.clone(), lane, group, instance, caller }
    }

    /// Calls that wait for an answer for so long.
    pub(in crate::consumer) fn within(&self, timeout: Duration) -> Self {
        let caller = Caller { request_timeout: timeout, ..(*self.caller).clone() };
        Self { caller: Arc::new(caller), ..self.clone() }
    }

    /// The connection of the membership, which is closed.
    pub(in crate::consumer) fn hang_up(&self, coordinator: i32) {
        if let Some(connection) = self.pool.broker(coordinator).and_then(|b| b.take(self.lane)) {
            connection.retire();
        }
    }

    /// The connection on which requests wait for other members.
    async fn own(&self, coordinator: i32) -> Result<Connection, Failure> {
        let connection = self.pool.lane(coordinator, self.lane, DialUrgency::Needed).await;
        connection.map(|c| c.on_behalf_of(&self.caller)).map_err(Failure::Unsent)
    }

    /// One on which nothing waits.
    async fn shared(&self, coordinator: i32) -> Result<Connection, Failure> {
        let connection = self.pool.lane_for_call(coordinator, Lane::Control).await;
        connection.map(|c| c.on_behalf_of(&self.caller)).map_err(Failure::Unsent)
    }

    fn instance(&self) -> Option<StrBytes> {
        self.instance.as_deref().map(text)
    }

    fn group_id(&self) -> GroupId {
        GroupId(text(&self.group))
    }

    /// The code as an error in words.
    fn refused(&self, connection: &Connection, api: Api, code: i16) -> Failure {
        connection.metrics().broker().error_response(api);
        let what = format!("{}: {} of group '{}'", connection.name(), api.name(), self.group);
        Failure::Code(code, Error::broker(code, what, None))
    }

    pub(in crate::consumer) async fn join(
        &self,
        coordinator: i32,
        member: &str,
        offers: &[Offer],
        (session, rebalance): (Duration, Duration),
        reason: &str,
    ) -> Result<Joined, (Failure, Option<Arc<str>>)> {
        let plain = |failure| (failure, None);
        let connection = self.own(coordinator).await.map_err(plain)?;
        let version = version::<JoinGroupRequest>(&connection, JOIN).map_err(plain)?;
        let offer = |offer: &Offer| {
            JoinGroupRequestProtocol::default()
                .with_name(StrBytes::from_static_str(offer.name))
                .with_metadata(offer.metadata.clone())
        };
        let request = JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(ms(session))
            .with_rebalance_timeout_ms(ms(rebalance))
            .with_member_id(text(member))
            .with_group_instance_id(self.instance())
            .with_protocol_type(PROTOCOL_TYPE)
            .with_protocols(offers.iter().map(offer).collect())
            .with_reason((version >= JOIN_REASON).then(|| text(reason)));
        let response = call(&connection, &request, version).await.map_err(plain)?;
        let member: Arc<str> = Arc::from(&*response.member_id);
        if response.error_code != NONE {
            let refused = self.refused(&connection, Api::JoinGroup, response.error_code);
            // MEMBER_ID_REQUIRED comes with the id to join with.
            return Err((refused, (!member.is_empty()).then_some(member)));
        }
        let leads = *response.leader == *member;
        let joined = |m: kafka_protocol::messages::join_group_response::JoinGroupResponseMember| {
            JoinedMember {
                member: m.member_id.to_string(),
                instance: m.group_instance_id.map(|id| id.to_string()),
                metadata: m.metadata,
            }
        };
        Ok(Joined {
            membership: Membership { member, generation: response.generation_id },
            protocol: response.protocol_name.as_deref().unwrap_or_default().to_owned(),
            leads,
            skip_assignment: response.skip_assignment,
            members: response.members.into_iter().map(joined).collect(),
        })
    }

    /// Gives the assignment of this member. `plan`: by the leader, what each member gets.
    pub(in crate::consumer) async fn sync(
        &self,
        coordinator: i32,
        of: &Membership,
        protocol: &str,
        plan: Vec<(String, Bytes)>,
    ) -> Result<Bytes, Failure> {
        let connection = self.own(coordinator).await?;
        let version = version::<SyncGroupRequest>(&connection, SYNC)?;
        let names = version >= SYNC_NAMES;
        let assignment = |(member, bytes): (String, Bytes)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(StrBytes::from_string(member))
                .with_assignment(bytes)
        };
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(of.generation)
            .with_member_id(text(&of.member))
            .with_group_instance_id(self.instance())
            .with_protocol_type(names.then_some(PROTOCOL_TYPE))
            .with_protocol_name(names.then(|| text(protocol)))
            .with_assignments(plan.into_iter().map(assignment).collect());
        let response = call(&connection, &request, version).await?;
        match response.error_code {
            NONE => Ok(response.assignment),
            code => Err(self.refused(&connection, Api::SyncGroup, code)),
        }
    }

    pub(in crate::consumer) async fn heartbeat(
        &self,
        coordinator: i32,
        of: &Membership,
    ) -> Result<(), Failure> {
        let connection = self.shared(coordinator).await?;
        let version = version::<HeartbeatRequest>(&connection, HEARTBEAT)?;
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(of.generation)
            .with_member_id(text(&of.member))
            .with_group_instance_id(self.instance());
        match call(&connection, &request, version).await?.error_code {
            NONE => Ok(()),
            code => Err(self.refused(&connection, Api::Heartbeat, code)),
        }
    }

    pub(in crate::consumer) async fn leave(
        &self,
        coordinator: i32,
        member: &str,
        reason: &str,
    ) -> Result<(), Failure> {
        let connection = self.shared(coordinator).await?;
        let version = version::<LeaveGroupRequest>(&connection, LEAVE)?;
        let member = MemberIdentity::default()
            .with_member_id(text(member))
            .with_group_instance_id(self.instance())
            .with_reason((version >= LEAVE_REASON).then(|| text(reason)));
        let request =
            LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![member]);
        let response = call(&connection, &request, version).await?;
        let of_member = response.members.first().map_or(NONE, |member| member.error_code);
        match response.error_code {
            NONE if of_member == NONE => Ok(()),
            NONE => Err(self.refused(&connection, Api::LeaveGroup, of_member)),
            code => Err(self.refused(&connection, Api::LeaveGroup, code)),
        }
    }

    /// What the group keeps of these partitions, `None` where it keeps nothing. Only that is none: where there is an error
    /// nobody knows.
    pub(in crate::consumer) async fn committed(
        &self,
        coordinator: i32,
        partitions: &[Key],
    ) -> Result<Vec<(Key, Found)>, Failure> {
        let connection = self.shared(coordinator).await?;
        let version = version::<OffsetFetchRequest>(&connection, FETCH)?;
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        let topic = |(topic, partitions): (&str, Vec<i32>)| {
            OffsetFetchRequestTopics::default()
                .with_name(TopicName(text(topic)))
                .with_partition_indexes(partitions)
        };
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(self.group_id())
            .with_topics(Some(topics.into_iter().map(topic).collect()));
        // A transaction may still commit offsets: they are waited for.
        let request =
            OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(true);
        let response = call(&connection, &request, version).await?;
        let group = response.groups.into_iter().find(|group| *group.group_id.0 == *self.group);
        let Some(group) = group else { return Err(self.left_out(&connection, Api::OffsetFetch)) };
        if group.error_code != NONE {
            return Err(self.refused(&connection, Api::OffsetFetch, group.error_code));
        }
        let mut found: BTreeMap<(String, i32), Found> = BTreeMap::new();
        for topic in group.topics {
            for p in topic.partitions {
                let of = match p.error_code {
                    NONE => Ok((p.committed_offset >= 0).then(|| Committed {
                        offset: p.committed_offset,
                        epoch: p.committed_leader_epoch,
                        metadata: p.metadata.as_deref().unwrap_or_default().to_owned(),
                    })),
                    code => Err(self.refused(&connection, Api::OffsetFetch, code)),
                };
                found.insert((topic.name.to_string(), p.partition_index), of);
            }
        }
        let mut all = Vec::with_capacity(partitions.len());
        for key in partitions {
            let of_key = found.remove(&(key.0.to_string(), key.1));
            let left_out = || Err(self.left_out(&connection, Api::OffsetFetch));
            all.push((key.clone(), of_key.unwrap_or_else(left_out)));
        }
        Ok(all)
    }

    /// Commits. Gives the code of each partition.
    pub(in crate::consumer) async fn commit(
        &self,
        coordinator: i32,
        of: &Membership,
        offsets: &[(Key, Committed)],
    ) -> Result<Vec<(Key, i16)>, Failure> {
        let connection = self.shared(coordinator).await?;
        let version = version::<OffsetCommitRequest>(&connection, COMMIT)?;
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for ((topic, partition), committed) in offsets {
            topics.entry(topic).or_default().push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(*partition)
                    .with_committed_offset(committed.offset)
                    .with_committed_leader_epoch(committed.epoch)
                    .with_committed_metadata(Some(text(&committed.metadata))),
            );
        }
        let topic = |(topic, partitions): (&str, Vec<OffsetCommitRequestPartition>)| {
            OffsetCommitRequestTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(partitions)
        };
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(of.generation)
            .with_member_id(text(&of.member))
            // An instance id belongs to a member of a generation.
            .with_group_instance_id(self.instance().filter(|_| of.generation >= 0))
            .with_topics(topics.into_iter().map(topic).collect());
        let response = call(&connection, &request, version).await?;
        let mut codes: BTreeMap<(String, i32), i16> = BTreeMap::new();
        for topic in response.topics {
            for p in topic.partitions {
                codes.insert((topic.name.to_string(), p.partition_index), p.error_code);
            }
        }
        if codes.values().any(|code| *code != NONE) {
            connection.metrics().broker().error_response(Api::OffsetCommit);
        }
        let mut all = Vec::with_capacity(offsets.len());
        for (key, _) in offsets {
            let code = codes.remove(&(key.0.to_string(), key.1));
            let code = code.ok_or_else(|| self.left_out(&connection, Api::OffsetCommit))?;
            all.push((key.clone(), code));
        }
        Ok(all)
    }

    fn left_out(&self, connection: &Connection, api: Api) -> Failure {
        let words = format!(
            "{}: the response to {} of group '{}' leaves out what was asked for",
            connection.name(),
            api.name(),
            self.group
        );
        Failure::Lost(Error::new(ErrorKind::Broker, words))
    }
}

fn version<R: Request>(connection: &Connection, ours: (i16, i16)) -> Result<i16, Failure> {
    connection.version(R::KEY, ours).map_err(Failure::Unsent)
}

async fn call<R>(connection: &Connection, request: &R, version: i16) -> Result<R::Response, Failure>
where
    R: Request,
    R::Response: Throttle,
{
    Ok(connection.call(request, (version, version), false).await?)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn ms(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}
