//! OffsetFetch: what groups have committed, for partitions that are named or for all.

use bytes::Bytes;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome, str_bytes, topic_name};
use crate::acl::Right;
use crate::error_code as code;
use crate::groups::offsets::{Offset, Offsets};

/// First version with an error code of its own, which can ask for all partitions.
const WHOLE: i16 = 2;
/// First version that tells the throttle time.
const THROTTLE: i16 = 3;
/// First version that asks for several groups.
const BATCHED: i16 = 8;

/// A group that is asked for.
struct Wanted {
    id: GroupId,
    member: Option<(StrBytes, i32)>,
    /// `None`: all that is committed.
    topics: Option<Vec<(TopicName, Vec<i32>)>>,
}

struct Part {
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: String,
    error: i16,
}

struct Found {
    id: GroupId,
    error: i16,
    topics: Vec<(TopicName, Vec<Part>)>,
}

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: OffsetFetchRequest = call.decode(ApiKey::OFFSET_FETCH, body)?;
    let require_stable = request.require_stable;
    let wanted = wanted(call, request);
    let ids = wanted.iter().map(|wanted| wanted.id.as_str());
    let injected = match call.of_groups(ApiKey::OFFSET_FETCH, ids).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let found = wanted.into_iter().zip(injected);
    let found = found.map(|(wanted, injected)| fetch(call, wanted, injected, require_stable));
    let found: Vec<Found> = found.collect();
    let throttle = if call.version >= THROTTLE { call.throttle_time_ms() } else { 0 };
    let response = OffsetFetchResponse::default().with_throttle_time_ms(throttle);
    match call.version {
        BATCHED.. => call.answer(&response.with_groups(found.into_iter().map(group).collect())),
        _ => {
            let Some(found) = found.into_iter().next() else { return Err("no group".to_owned()) };
            call.answer(&response.with_error_code(found.error).with_topics(topics(found)))
        }
    }
}

fn wanted(call: &Call<'_>, request: OffsetFetchRequest) -> Vec<Wanted> {
    if call.version < BATCHED {
        let topics = request.topics.map(|topics| {
            topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
        });
        return vec![Wanted { id: request.group_id, member: None, topics }];
    }
    let of = |group: OffsetFetchRequestGroup| Wanted {
        id: group.group_id,
        member: group.member_id.map(|id| (id, group.member_epoch)),
        topics: group.topics.map(|topics| {
            topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
        }),
    };
    request.groups.into_iter().map(of).collect()
}

fn fetch(call: &Call<'_>, wanted: Wanted, injected: Injected, require_stable: bool) -> Found {
    let Wanted { id, member, topics } = wanted;
    let forbidden = call.forbidden(injected, Right::DescribeGroup, id.as_str());
    let now = Instant::now();
    let mut state = call.shared.state();
    let groups = &mut state.groups;
    // A group without a name is allowed here, for clients of old.
    let refusal = forbidden
        .or_else(|| groups.check(call.broker.id, id.as_str(), now).err())
        .or_else(|| {
            let member = member.as_ref().map(|(id, epoch)| (id.as_str(), *epoch));
            groups.may_fetch(id.as_str(), member, now).err()
        })
        .or(injected.after);
    if let Some(error) = refusal {
        // Before there was a place for it, an error was each partition's.
        let each = if call.version < WHOLE { topics.unwrap_or_default() } else { Vec::new() };
        let part = |partition| Part { error, ..none(partition) };
        let each = each.into_iter().map(|(topic, list)| (topic, list.into_iter().map(part)));
        let topics = each.map(|(topic, list)| (topic, list.collect())).collect();
        return Found { id, error, topics };
    }
    let nothing = Offsets::default();
    let offsets = groups.get(id.as_str(), now).map_or(&nothing, |group| &group.offsets);
    let told = |topic: &str, partition: i32, offset: Option<&Offset>| {
        let (before, after) =
            call.injected_in(ApiKey::OFFSET_FETCH, Some(id.as_str()), topic, partition);
        let unstable = require_stable && offsets.is_unstable(topic, partition);
        let unstable = unstable.then_some(code::UNSTABLE_OFFSET_COMMIT);
        match (before.or(after).or(unstable), offset) {
            (Some(error), _) => Part { error, ..none(partition) },
            (None, None) => none(partition),
            (None, Some(offset)) => Part {
                partition,
                offset: offset.offset,
                leader_epoch: offset.leader_epoch,
                metadata: offset.metadata.clone(),
                error: code::NONE,
            },
        }
    };
    let topics = match topics {
        None => {
            let seen = offsets.topics().filter(|(topic, _)| call.may(Right::Describe, topic));
            seen.map(|(topic, partitions)| {
                let parts = partitions.iter();
                let parts = parts.map(|(index, offset)| told(topic, *index, Some(offset)));
                (topic_name(topic), parts.collect())
            })
            .collect()
        }
        Some(topics) => topics
            .into_iter()
            .map(|(topic, partitions)| {
                let seen = call.may(Right::Describe, topic.as_str());
                let part = |index: i32| match seen {
                    true => told(topic.as_str(), index, offsets.get(topic.as_str(), index)),
                    false => Part { error: code::TOPIC_AUTHORIZATION_FAILED, ..none(index) },
                };
                let parts = partitions.into_iter().map(part).collect();
                (topic, parts)
            })
            .collect(),
    };
    Found { id, error: code::NONE, topics }
}

/// Nothing is committed.
fn none(partition: i32) -> Part {
    Part { partition, offset: -1, leader_epoch: -1, metadata: String::new(), error: code::NONE }
}

fn group(found: Found) -> OffsetFetchResponseGroup {
    let part = |part: Part| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(part.partition)
            .with_committed_offset(part.offset)
            .with_committed_leader_epoch(part.leader_epoch)
            .with_metadata(Some(str_bytes(&part.metadata)))
            .with_error_code(part.error)
    };
    let topics = found.topics.into_iter().map(|(name, parts)| {
        OffsetFetchResponseTopics::default()
            .with_name(name)
            .with_partitions(parts.into_iter().map(part).collect())
    });
    OffsetFetchResponseGroup::default()
        .with_group_id(found.id)
        .with_error_code(found.error)
        .with_topics(topics.collect())
}

fn topics(found: Found) -> Vec<OffsetFetchResponseTopic> {
    let part = |part: Part| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(part.partition)
            .with_committed_offset(part.offset)
            .with_committed_leader_epoch(part.leader_epoch)
            .with_metadata(Some(str_bytes(&part.metadata)))
            .with_error_code(part.error)
    };
    let topics = found.topics.into_iter().map(|(name, parts)| {
        OffsetFetchResponseTopic::default()
            .with_name(name)
            .with_partitions(parts.into_iter().map(part).collect())
    });
    topics.collect()
}
