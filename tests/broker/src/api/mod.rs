//! The requests this broker understands, one module each.

pub(crate) mod api_versions;
mod consumer_group_describe;
mod consumer_group_heartbeat;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
mod delete_groups;
pub(crate) mod delete_topics;
mod describe_groups;
pub(crate) mod describe_producers;
pub(crate) mod fetch;
mod fetch_partition;
mod fetch_response;
pub(crate) mod find_coordinator;
mod groups;
mod heartbeat;
pub(crate) mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod sasl;
mod sync_group;

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, StrBytes};

use crate::acl::{Acls, Right};
use crate::batch::Refusal;
use crate::faults::Plan;
use crate::price::Work;
use crate::shape;
use crate::state::{Broker, Shared};
use crate::wire::Response;

/// A kind of request, by its number in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKey(pub i16);

impl ApiKey {
    /// Produce
    pub const PRODUCE: Self = Self(0);
    /// Fetch
    pub const FETCH: Self = Self(1);
    /// ListOffsets
    pub const LIST_OFFSETS: Self = Self(2);
    /// Metadata
    pub const METADATA: Self = Self(3);
    /// OffsetCommit
    pub const OFFSET_COMMIT: Self = Self(8);
    /// OffsetFetch
    pub const OFFSET_FETCH: Self = Self(9);
    /// FindCoordinator
    pub const FIND_COORDINATOR: Self = Self(10);
    /// JoinGroup
    pub const JOIN_GROUP: Self = Self(11);
    /// Heartbeat
    pub const HEARTBEAT: Self = Self(12);
    /// LeaveGroup
    pub const LEAVE_GROUP: Self = Self(13);
    /// SyncGroup
    pub const SYNC_GROUP: Self = Self(14);
    /// DescribeGroups
    pub const DESCRIBE_GROUPS: Self = Self(15);
    /// ListGroups
    pub const LIST_GROUPS: Self = Self(16);
    /// SaslHandshake
    pub const SASL_HANDSHAKE: Self = Self(17);
    /// ApiVersions
    pub const API_VERSIONS: Self = Self(18);
    /// CreateTopics
    pub const CREATE_TOPICS: Self = Self(19);
    /// DeleteTopics
    pub const DELETE_TOPICS: Self = Self(20);
    /// InitProducerId
    pub const INIT_PRODUCER_ID: Self = Self(22);
    /// OffsetsForLeaderEpoch
    pub const OFFSET_FOR_LEADER_EPOCH: Self = Self(23);
    /// SaslAuthenticate
    pub const SASL_AUTHENTICATE: Self = Self(36);
    /// CreatePartitions
    pub const CREATE_PARTITIONS: Self = Self(37);
    /// DeleteGroups
    pub const DELETE_GROUPS: Self = Self(42);
    /// OffsetDelete
    pub const OFFSET_DELETE: Self = Self(47);
    /// DescribeProducers
    pub const DESCRIBE_PRODUCERS: Self = Self(61);
    /// ConsumerGroupHeartbeat
    pub const CONSUMER_GROUP_HEARTBEAT: Self = Self(68);
    /// ConsumerGroupDescribe
    pub const CONSUMER_GROUP_DESCRIBE: Self = Self(69);
}

/// Every api this broker answers, with the versions it knows.
pub(crate) const SUPPORTED: [(ApiKey, i16, i16); 26] = [
    (ApiKey::PRODUCE, 3, 13),
    (ApiKey::FETCH, 4, 18),
    (ApiKey::LIST_OFFSETS, 1, 10),
    (ApiKey::METADATA, 0, 13),
    (ApiKey::OFFSET_COMMIT, 2, 9),
    (ApiKey::OFFSET_FETCH, 1, 9),
    (ApiKey::FIND_COORDINATOR, 0, 6),
    (ApiKey::JOIN_GROUP, 0, 9),
    (ApiKey::HEARTBEAT, 0, 4),
    (ApiKey::LEAVE_GROUP, 0, 5),
    (ApiKey::SYNC_GROUP, 0, 5),
    (ApiKey::DESCRIBE_GROUPS, 0, 6),
    (ApiKey::LIST_GROUPS, 0, 5),
    (ApiKey::SASL_HANDSHAKE, 0, 1),
    (ApiKey::API_VERSIONS, 0, 4),
    (ApiKey::CREATE_TOPICS, 2, 7),
    (ApiKey::DELETE_TOPICS, 1, 6),
    (ApiKey::INIT_PRODUCER_ID, 0, 5),
    (ApiKey::OFFSET_FOR_LEADER_EPOCH, 2, 4),
    (ApiKey::SASL_AUTHENTICATE, 0, 2),
    (ApiKey::CREATE_PARTITIONS, 0, 3),
    (ApiKey::DELETE_GROUPS, 0, 2),
    (ApiKey::OFFSET_DELETE, 0, 0),
    (ApiKey::DESCRIBE_PRODUCERS, 0, 0),
    (ApiKey::CONSUMER_GROUP_HEARTBEAT, 0, 1),
    (ApiKey::CONSUMER_GROUP_DESCRIBE, 0, 1),
];

/// One request on its way through its handler.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    /// What clients may do, and who this one is; `None`: everything.
    pub(crate) rights: Option<(Arc<Acls>, Arc<str>)>,
    pub(crate) broker: &'a Broker,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Bytes,
    pub(crate) plan: Plan,
    /// What the request makes the broker do, as far as its handler has found out.
    pub(crate) work: Work,
    /// For unpacking compressed batches; reused by the connection.
    pub(crate) scratch: &'a mut Vec<u8>,
}

/// What becomes of a request.
pub(crate) enum Outcome {
    Response(Response),
    /// acks=0.
    NoResponse,
    /// The broker has nothing better than to hang up.
    Close,
    /// By the fault script: the connection is cut, or never answers again.
    Cut,
    Swallow,
    /// A login is refused: after a while the client is told so, if there is a way, and the connection ends.
    Refused(Option<Response>),
}

impl Call<'_> {
    pub(crate) fn answer<T: Encodable + HeaderVersion>(&self, body: &T) -> Result<Outcome, String> {
        Response::encode(self.correlation_id, self.version, body).map(Outcome::Response)
    }

    pub(crate) fn may(&self, right: Right, name: &str) -> bool {
        self.rights.as_ref().is_none_or(|(acls, principal)| acls.may(principal, right, name))
    }

    pub(crate) fn may_somewhere(&self, right: Right) -> bool {
        self.rights.as_ref().is_none_or(|(acls, principal)| acls.may_somewhere(principal, right))
    }

    pub(crate) fn throttle_time_ms(&self) -> i32 {
        i32::try_from(self.plan.throttle.as_millis()).unwrap_or(i32::MAX)
    }

    /// Errors the fault script has for one partition: (before, after) it takes effect.
    pub(crate) fn injected(
        &self,
        api: ApiKey,
        topic: &str,
        partition: i32,
    ) -> (Option<i16>, Option<i16>) {
        self.injected_in(api, None, topic, partition)
    }

    /// The same where a group asks.
    pub(crate) fn injected_in(
        &self,
        api: ApiKey,
        group: Option<&str>,
        topic: &str,
        partition: i32,
    ) -> (Option<i16>, Option<i16>) {
        let faults = &self.shared.faults;
        let (before, after) = faults.partition_errors(self.broker.id, api, group, topic, partition);
        (before.or(self.plan.error_before), after.or(self.plan.error_after))
    }

    pub(crate) fn decode<T: Decodable + Message>(
        &self,
        api: ApiKey,
        mut body: Bytes,
    ) -> Result<T, String> {
        shape::check(api, self.version, &body)?;
        T::decode(&mut body, self.version).map_err(|error| error.to_string())
    }
}

/// Handles one request. An error is something no Kafka broker would answer: it ends the connection.
pub(crate) async fn handle(
    call: &mut Call<'_>,
    api: ApiKey,
    body: Bytes,
) -> Result<Outcome, String> {
    if api == ApiKey::API_VERSIONS {
        return api_versions::handle(call, body).map(|(outcome, _)| outcome);
    }
    let Some((min, max)) = versions(call.shared, api) else { return Ok(Outcome::Close) };
    if !(min..=max).contains(&call.version) {
        // As Kafka does: a client that asked ApiVersions does not get here.
        return Ok(Outcome::Close);
    }
    match api {
        ApiKey::PRODUCE => produce::handle(call, body).await,
        ApiKey::FETCH => fetch::handle(call, body).await,
        ApiKey::LIST_OFFSETS => list_offsets::handle(call, body),
        ApiKey::METADATA => metadata::handle(call, body),
        ApiKey::OFFSET_COMMIT => offset_commit::handle(call, body).await,
        ApiKey::OFFSET_FETCH => offset_fetch::handle(call, body).await,
        ApiKey::FIND_COORDINATOR => find_coordinator::handle(call, body).await,
        ApiKey::JOIN_GROUP => join_group::handle(call, body).await,
        ApiKey::HEARTBEAT => heartbeat::handle(call, body).await,
        ApiKey::LEAVE_GROUP => leave_group::handle(call, body).await,
        ApiKey::SYNC_GROUP => sync_group::handle(call, body).await,
        ApiKey::DESCRIBE_GROUPS => describe_groups::handle(call, body).await,
        ApiKey::LIST_GROUPS => list_groups::handle(call, body),
        ApiKey::CREATE_TOPICS => create_topics::handle(call, body),
        ApiKey::DELETE_TOPICS => delete_topics::handle(call, body),
        ApiKey::INIT_PRODUCER_ID => init_producer_id::handle(call, body),
        ApiKey::OFFSET_FOR_LEADER_EPOCH => offset_for_leader_epoch::handle(call, body),
        ApiKey::CREATE_PARTITIONS => create_partitions::handle(call, body),
        ApiKey::SASL_HANDSHAKE => sasl::handshake(call, body),
        ApiKey::SASL_AUTHENTICATE => sasl::authenticate(call, body),
        ApiKey::DELETE_GROUPS => delete_groups::handle(call, body).await,
        ApiKey::OFFSET_DELETE => offset_delete::handle(call, body).await,
        ApiKey::DESCRIBE_PRODUCERS => describe_producers::handle(call, body),
        ApiKey::CONSUMER_GROUP_HEARTBEAT => consumer_group_heartbeat::handle(call, body).await,
        ApiKey::CONSUMER_GROUP_DESCRIBE => consumer_group_describe::handle(call, body).await,
        _ => Ok(Outcome::Close),
    }
}

/// The versions this cluster offers of an api.
pub(crate) fn versions(shared: &Shared, api: ApiKey) -> Option<(i16, i16)> {
    let (_, min, max) = SUPPORTED.into_iter().find(|(key, ..)| *key == api)?;
    let max = shared.config.max_versions.get(&api).map_or(max, |limit| max.min(*limit));
    (min <= max).then_some((min, max))
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(str_bytes(name))
}

pub(crate) fn str_bytes(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn broker_ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// Error code and message of an outcome, as most answers carry them.
pub(crate) fn verdict<T>(result: &Result<T, Refusal>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (0, None),
        Err(refusal) => (refusal.code, Some(str_bytes(&refusal.message))),
    }
}
