//! ListOffsets: earliest, latest, by timestamp, and of the largest timestamp.

use bytes::Bytes;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use tokio::time::Instant;

use super::fetch::READ_COMMITTED;
use super::fetch_partition::epoch;
use super::{ApiKey, Call, Outcome};
use crate::acl::Right;
use crate::batch;
use crate::error_code as code;
use crate::state::State;
use crate::topic::Partition;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// KIP-734
const MAX_TIMESTAMP: i64 = -3;
/// KIP-405: there is no tiered storage here, so the local log is the whole log.
const EARLIEST_LOCAL: i64 = -4;
/// KIP-1005
const LATEST_TIERED: i64 = -5;

/// First version that is told that an offset is not known yet (KIP-207).
const OFFSETS_MAY_BE_UNKNOWN: i16 = 5;

/// What a lookup found: error code, timestamp, offset and the leader epoch at that offset.
struct Found {
    error_code: i16,
    timestamp: i64,
    offset: i64,
    leader_epoch: i32,
}

impl Found {
    fn error(error_code: i16) -> Self {
        Self { error_code, timestamp: -1, offset: -1, leader_epoch: -1 }
    }
}

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: ListOffsetsRequest = call.decode(ApiKey::LIST_OFFSETS, body)?;
    let mut state = call.shared.state();
    let State { topics, replica_delay, .. } = &mut *state;
    let now = Instant::now();
    let mut results = Vec::new();
    for topic in request.topics {
        let seen = call.may(Right::Describe, topic.name.as_str());
        let mut partitions = Vec::new();
        for wanted in topic.partitions {
            let (before, after) =
                call.injected(ApiKey::LIST_OFFSETS, &topic.name, wanted.partition_index);
            let forbidden = (!seen).then_some(code::TOPIC_AUTHORIZATION_FAILED);
            let found = match before.or(after).or(forbidden) {
                Some(error) => Found::error(error),
                None => match topics
                    .get_mut(topic.name.as_str())
                    .and_then(|topic| topic.partition_mut(wanted.partition_index))
                {
                    None => Found::error(code::UNKNOWN_TOPIC_OR_PARTITION),
                    Some(partition) => {
                        match leadership(partition, call.broker.id, wanted.current_leader_epoch) {
                            Ok(()) => {
                                let delay = *replica_delay;
                                let limit = match request.isolation_level {
                                    READ_COMMITTED => partition.last_stable(now, delay),
                                    _ => partition.high_watermark(now, delay),
                                };
                                let found = find(partition, wanted.timestamp, limit);
                                let behind =
                                    partition.high_watermark(now, delay) < partition.epoch_start;
                                if behind && is_unsure(partition, wanted.timestamp, &found) {
                                    Found::error(match call.version {
                                        ..OFFSETS_MAY_BE_UNKNOWN => code::LEADER_NOT_AVAILABLE,
                                        _ => code::OFFSET_NOT_AVAILABLE,
                                    })
                                } else {
                                    found
                                }
                            }
                            Err(error) => Found::error(error),
                        }
                    }
                },
            };
            let mut response = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(found.error_code)
                .with_timestamp(found.timestamp)
                .with_offset(found.offset);
            if call.version >= 4 {
                response.leader_epoch = found.leader_epoch;
            }
            partitions.push(response);
        }
        results.push(
            ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions),
        );
    }
    drop(state);
    let response = ListOffsetsResponse::default()
        .with_throttle_time_ms(if call.version >= 2 { call.throttle_time_ms() } else { 0 })
        .with_topics(results);
    call.answer(&response)
}

/// Whether this broker leads the partition under the epoch that the client knows (KIP-320). A replica
/// compares the epoch first: a client that is behind learns so even from a former leader.
pub(crate) fn leadership(partition: &Partition, broker: i32, client_epoch: i32) -> Result<(), i16> {
    let leads = partition.leader == Some(broker);
    if !leads && !partition.replicas.contains(&broker) {
        return Err(code::NOT_LEADER_OR_FOLLOWER);
    }
    epoch(partition, client_epoch)?;
    if leads { Ok(()) } else { Err(code::NOT_LEADER_OR_FOLLOWER) }
}

/// Whether a new leader, which does not know yet what its predecessor let be read, had better not say
/// that this is the end.
fn is_unsure(partition: &Partition, timestamp: i64, found: &Found) -> bool {
    match timestamp {
        LATEST => true,
        0.. => {
            found.offset < 0
                && partition.log.batches().any(|batch| batch.max_timestamp >= timestamp)
        }
        _ => false,
    }
}

/// `limit`: where the readers end that ask.
fn find(partition: &Partition, timestamp: i64, limit: i64) -> Found {
    let at = |offset, timestamp, leader_epoch| Found {
        error_code: code::NONE,
        timestamp,
        offset,
        leader_epoch,
    };
    let epoch = partition.leader_epoch;
    match timestamp {
        LATEST => at(limit, -1, epoch),
        EARLIEST | EARLIEST_LOCAL => {
            let start = partition.log.start();
            let first = partition.log.batches().next().map_or(epoch, |batch| batch.leader_epoch);
            at(start, -1, first)
        }
        LATEST_TIERED => at(-1, -1, -1),
        MAX_TIMESTAMP => {
            let largest = partition
                .log
                .batches()
                .filter(|batch| batch.last_offset < limit)
                .max_by_key(|batch| (batch.max_timestamp, std::cmp::Reverse(batch.base_offset)))
                .map(|batch| batch.max_timestamp);
            match largest {
                None => at(-1, -1, -1),
                Some(largest) => by_timestamp(partition, largest, limit),
            }
        }
        target if target >= 0 => by_timestamp(partition, target, limit),
        _ => Found::error(code::UNSUPPORTED_VERSION),
    }
}

/// The first record at or after a time. Only one batch is decoded: the first that reaches it.
fn by_timestamp(partition: &Partition, target: i64, limit: i64) -> Found {
    let start = partition.log.start();
    for stored in partition.log.batches().filter(|batch| batch.max_timestamp >= target) {
        if stored.last_offset >= limit {
            break;
        }
        let Ok(records) = batch::decode(&stored.data, stored.base_offset, stored.leader_epoch)
        else {
            return Found::error(code::CORRUPT_MESSAGE);
        };
        let first = records.iter().find(|one| one.timestamp >= target && one.offset >= start);
        if let Some(record) = first {
            return Found {
                error_code: code::NONE,
                timestamp: record.timestamp,
                offset: record.offset,
                leader_epoch: stored.leader_epoch,
            };
        }
    }
    Found { error_code: code::NONE, timestamp: -1, offset: -1, leader_epoch: -1 }
}
