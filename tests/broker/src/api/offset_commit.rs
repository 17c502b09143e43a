//! OffsetCommit: what a group has done with, partition by partition.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome};
use crate::acl::Right;
use crate::error_code as code;
use crate::groups::offsets::Offset;
use crate::groups::settings::MAX_METADATA;
use crate::groups::{Group, Groups};
use crate::state::State;

/// First version that tells the throttle time.
const THROTTLE: i16 = 3;

/// A partition that is committed, and why it is not.
struct Part<'a> {
    topic: &'a str,
    partition: &'a OffsetCommitRequestPartition,
    error: i16,
    after: Option<i16>,
}

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: OffsetCommitRequest = call.decode(ApiKey::OFFSET_COMMIT, body)?;
    let injected = match call.of_group(ApiKey::OFFSET_COMMIT, request.group_id.as_str()).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let parts = commit(call, &request, injected);
    let mut parts = parts.iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = parts.by_ref().take(topic.partitions.len()).map(|part| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(part.partition.partition_index)
                .with_error_code(part.after.unwrap_or(part.error))
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    let throttle = if call.version >= THROTTLE { call.throttle_time_ms() } else { 0 };
    let response = OffsetCommitResponse::default().with_topics(topics.collect());
    call.answer(&response.with_throttle_time_ms(throttle))
}

fn commit<'a>(
    call: &Call<'_>,
    request: &'a OffsetCommitRequest,
    injected: Injected,
) -> Vec<Part<'a>> {
    let id = request.group_id.as_str();
    let forbidden = call.forbidden(injected, Right::Group, id);
    let mut state = call.shared.state();
    let topics = request.topics.iter().flat_map(|topic| {
        let name = topic.name.as_str();
        topic.partitions.iter().map(move |partition| (name, partition))
    });
    let mut parts: Vec<Part<'a>> = topics
        .map(|(topic, partition)| {
            let index = partition.partition_index;
            let (before, after) = call.injected_in(ApiKey::OFFSET_COMMIT, Some(id), topic, index);
            let error = forbidden
                .or(before)
                .or_else(|| not_there(call, &state, topic, index))
                .unwrap_or(code::NONE);
            Part { topic, partition, error, after }
        })
        .collect();
    // Kafka asks the coordinator only if there is something to commit.
    if parts.iter().any(|part| part.error == code::NONE) {
        let now = Instant::now();
        let group = admit(call, &mut state.groups, request, now);
        let committed = store(group, &mut parts, request.retention_time_ms, now);
        call.broker.counters.committed(committed);
    }
    parts
}

/// Why a partition cannot be committed for whatever group.
pub(super) fn not_there(call: &Call<'_>, state: &State, topic: &str, index: i32) -> Option<i16> {
    if !call.may(Right::Read, topic) {
        return Some(code::TOPIC_AUTHORIZATION_FAILED);
    }
    let found = state.topics.get(topic);
    let there = found.is_some_and(|topic| {
        usize::try_from(index).is_ok_and(|index| index < topic.partitions.len())
    });
    (!there).then_some(code::UNKNOWN_TOPIC_OR_PARTITION)
}

fn admit<'a>(
    call: &Call<'_>,
    groups: &'a mut Groups,
    request: &OffsetCommitRequest,
    now: Instant,
) -> Result<&'a mut Group, i16> {
    let id = request.group_id.as_str();
    // A group without a name is allowed here, for clients of old.
    groups.check(call.broker.id, id, now)?;
    let instance = request.group_instance_id.as_ref().map(StrBytes::as_str);
    let member = (request.member_id.as_str(), instance);
    groups.commit(id, member, request.generation_id_or_member_epoch, call.version, now)
}

/// Returns how many were committed.
fn store(
    group: Result<&mut Group, i16>,
    parts: &mut [Part<'_>],
    retention_ms: i64,
    now: Instant,
) -> u64 {
    let valid = parts.iter_mut().filter(|part| part.error == code::NONE);
    let group = match group {
        Ok(group) => group,
        Err(error) => {
            valid.for_each(|part| part.error = error);
            return 0;
        }
    };
    let mut committed = 0;
    for part in valid {
        let metadata = part.partition.committed_metadata.as_ref().map_or("", |text| text.as_str());
        if metadata.encode_utf16().count() > MAX_METADATA {
            part.error = code::OFFSET_METADATA_TOO_LARGE;
            continue;
        }
        let retention = u64::try_from(retention_ms).ok().map(Duration::from_millis);
        let offset = Offset {
            offset: part.partition.committed_offset,
            leader_epoch: part.partition.committed_leader_epoch,
            metadata: metadata.to_owned(),
            committed: now,
            expires: retention.and_then(|time| now.checked_add(time)),
        };
        group.offsets.commit(part.topic, part.partition.partition_index, offset);
        committed += 1;
    }
    committed
}
