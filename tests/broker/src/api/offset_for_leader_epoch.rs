//! OffsetsForLeaderEpoch: where an epoch ends, for clients that ask whether their records are still
//! there (KIP-320).

use bytes::Bytes;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::fetch_partition::NO_EPOCH;
use super::list_offsets::leadership;
use super::{ApiKey, Call, Outcome};
use crate::acl::Right;
use crate::error_code as code;

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: OffsetForLeaderEpochRequest =
        call.decode(ApiKey::OFFSET_FOR_LEADER_EPOCH, body)?;
    let mut topics = Vec::new();
    for topic in request.topics {
        let name = topic.topic.as_str();
        let partitions = topic.partitions.iter().map(|wanted| {
            let answer = EpochEndOffset::default().with_partition(wanted.partition);
            match end(call, name, wanted) {
                Ok(Some((epoch, end))) => answer.with_leader_epoch(epoch).with_end_offset(end),
                // No error: it is not known, which both are -1 for.
                Ok(None) => answer,
                Err(error) => answer.with_error_code(error),
            }
        });
        let partitions = partitions.collect();
        topics.push(
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic)
                .with_partitions(partitions),
        );
    }
    let response = OffsetForLeaderEpochResponse::default()
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_topics(topics);
    call.answer(&response)
}

/// The largest epoch up to the one that is asked for, and where it ends.
fn end(
    call: &Call<'_>,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<Option<(i32, i64)>, i16> {
    let (before, after) = call.injected(ApiKey::OFFSET_FOR_LEADER_EPOCH, topic, wanted.partition);
    if let Some(error) = before.or(after) {
        return Err(error);
    }
    if !call.may(Right::Describe, topic) {
        return Err(code::TOPIC_AUTHORIZATION_FAILED);
    }
    let mut state = call.shared.state();
    let found = state.topics.get_mut(topic);
    let partition = found
        .and_then(|topic| topic.partition_mut(wanted.partition))
        .ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
    leadership(partition, call.broker.id, wanted.current_leader_epoch)?;
    Ok(match wanted.leader_epoch {
        NO_EPOCH => None,
        epoch => partition.log.end_of_epoch(epoch),
    })
}
