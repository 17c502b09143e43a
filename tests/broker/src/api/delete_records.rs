//! DeleteRecords: a partition begins later from now on.

use bytes::Bytes;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use tokio::time::Instant;

use super::{ApiKey, Call, Outcome};
use crate::acl::Right;
use crate::error_code as code;

/// Stands for all that is replicated.
const ALL: i64 = -1;

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let api = ApiKey::DELETE_RECORDS;
    let request: DeleteRecordsRequest = call.decode(api, body)?;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let (before, after) = call.injected(api, topic.name.as_str(), index);
            let deleted = match before {
                Some(error) => Err(error),
                None => delete(call, topic.name.as_str(), index, partition.offset),
            };
            let told = DeleteRecordsPartitionResult::default().with_partition_index(index);
            match after.map_or(deleted, Err) {
                Ok(start) => told.with_low_watermark(start),
                Err(error) => told.with_low_watermark(-1).with_error_code(error),
            }
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
    });
    let response = DeleteRecordsResponse::default()
        .with_topics(topics.collect())
        .with_throttle_time_ms(call.throttle_time_ms());
    call.answer(&response)
}

/// Returns where the partition begins now.
fn delete(call: &Call<'_>, name: &str, index: i32, offset: i64) -> Result<i64, i16> {
    if !call.may(Right::Delete, name) {
        return Err(code::TOPIC_AUTHORIZATION_FAILED);
    }
    let mut state = call.shared.state();
    let delay = state.replica_delay;
    let topic = state.topics.get_mut(name).ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
    if topic.rules.compacted {
        return Err(code::POLICY_VIOLATION);
    }
    let partition = topic.partition_mut(index).ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
    if partition.leader != Some(call.broker.id) {
        return Err(code::NOT_LEADER_OR_FOLLOWER);
    }
    let end = partition.high_watermark(Instant::now(), delay);
    let until = if offset == ALL { end } else { offset };
    if !(0..=end).contains(&until) {
        return Err(code::OFFSET_OUT_OF_RANGE);
    }
    state.delete_records(name, index, until).ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)
}
