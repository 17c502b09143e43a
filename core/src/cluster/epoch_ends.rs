//! Where leader epochs end in a leader's log (OffsetsForLeaderEpoch, KIP-320): whether what was read is still in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, OffsetForLeaderEpochRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::list_offsets::Key;
use super::{Handle, Lane};
use crate::error::names::NONE;
use crate::error::{Error, Result};
use crate::metrics::Api;
use crate::net::CallError;

/// Versions of OffsetsForLeaderEpoch. Before 3 it was for brokers: who reads had no right to it.
const VERSIONS: (i16, i16) = crate::protocol::bounded::<OffsetForLeaderEpochRequest>(3, 4);

/// What is asked of a partition.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: Key,
    /// The epoch whose end is wanted.
    pub(crate) epoch: i32,
    /// The epoch in which the broker leads, as far as is known.
    pub(crate) leader_epoch: i32,
}

/// The largest epoch up to the one that was asked for, and where it ends in the leader's log. Both -1: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EpochEnd {
    pub(crate) epoch: i32,
    pub(crate) end: i64,
}

/// Asks one leader. Partitions that its response leaves out have no result.
pub(crate) async fn ask(
    pool: &Handle,
    lane: Lane,
    leader: i32,
    wanted: &[Wanted],
) -> Result<Vec<(Key, Result<EpochEnd>)>> {
    let connection = pool.lane_for_call(leader, lane).await?;
    let mut topics: BTreeMap<&Arc<str>, Vec<OffsetForLeaderPartition>> = BTreeMap::new();
    for part in wanted {
        topics.entry(&part.key.0).or_default().push(
            OffsetForLeaderPartition::default()
                .with_partition(part.key.1)
                .with_current_leader_epoch(part.leader_epoch)
                .with_leader_epoch(part.epoch),
        );
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        OffsetForLeaderTopic::default()
            .with_topic(TopicName(StrBytes::from_string(topic.to_string())))
            .with_partitions(partitions)
    });
    let request = OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(topics.collect());
    let response =
        connection.call(&request, VERSIONS, false).await.map_err(CallError::into_error)?;
    let mut asked: HashMap<(&str, i32), &Wanted> =
        wanted.iter().map(|part| ((&*part.key.0, part.key.1), part)).collect();
    let mut found = Vec::with_capacity(wanted.len());
    let mut refused = false;
    for topic in &response.topics {
        for p in &topic.partitions {
            let Some(part) = asked.remove(&(&*topic.topic.0, p.partition)) else { continue };
            let told = match p.error_code {
                NONE => Ok(EpochEnd { epoch: p.leader_epoch, end: p.end_offset }),
                code => {
                    let what = format!("topic '{}' partition {}", part.key.0, part.key.1);
                    Err(Error::broker(code, what, None))
                }
            };
            refused |= told.is_err();
            found.push((part.key.clone(), told));
        }
    }
    if refused {
        connection.metrics().broker().error_response(Api::OffsetForLeaderEpoch);
    }
    Ok(found)
}
