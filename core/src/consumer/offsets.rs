//! Offsets by time: ListOffsets, one request per leader.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use tokio::task::JoinSet;

use crate::caught::caught;
use crate::cluster::{Lane, Pool};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Api;
use crate::net::CallError;
use crate::policy::ask::Why;

/// Versions of ListOffsets.
const VERSIONS: (i16, i16) = crate::protocol::bounded::<ListOffsetsRequest>(1, 10);

pub(crate) const EARLIEST: i64 = -2;
pub(crate) const LATEST: i64 = -1;

pub(crate) type Key = (Arc<str>, i32);

/// Asks the leaders; `wanted` gives for each partition a timestamp, or [`EARLIEST`] or [`LATEST`].
/// A timestamp after the last record gives the end. The calls ride on a connection to the leader that
/// is idle; only if there is none is `lane` opened. Each partition gets a result of its own.
pub(crate) async fn list(
    pool: &Arc<Pool>,
    lane: Lane,
    wanted: Vec<(Key, i64)>,
) -> Vec<(Key, Result<i64>)> {
    let mut results = Vec::with_capacity(wanted.len());
    let mut by_leader: BTreeMap<i32, Vec<(Key, i64, i32)>> = BTreeMap::new();
    for (key, time) in wanted {
        match pool.metadata().topic(&key.0, pool.request_timeout()).await {
            Err(e) => results.push((key, Err(e))),
            Ok(meta) => {
                let found = usize::try_from(key.1).ok().and_then(|i| meta.partitions.get(i));
                match found {
                    Some(p) if p.leader >= 0 => {
                        by_leader.entry(p.leader).or_default().push((key, time, p.epoch));
                    }
                    Some(_) => {
                        pool.metadata().want(&key.0, Why::Stale);
                        let e = Error::broker(5, name(&key), None);
                        results.push((key, Err(e)));
                    }
                    None => {
                        let e = Error::new(
                            ErrorKind::UnknownPartition,
                            format!("{} does not exist", name(&key)),
                        );
                        results.push((key, Err(e)));
                    }
                }
            }
        }
    }
    // All at once: one that is silent must not keep back what the others tell.
    let mut asking = JoinSet::new();
    for (leader, parts) in by_leader {
        let pool = Arc::clone(pool);
        asking.spawn(async move {
            let found = caught(ask(&pool, lane, leader, &parts)).await;
            (parts, found.and_then(|found| found))
        });
    }
    while let Some(asked) = asking.join_next().await {
        let Ok((parts, found)) = asked else { continue };
        match found {
            Ok(mut found) => {
                for (key, _, _) in parts {
                    let result = found.remove(&key).unwrap_or_else(|| {
                        Err(Error::broker(-1, format_args!("{}: no answer", name(&key)), None))
                    });
                    if result.is_err() {
                        pool.metadata().want(&key.0, Why::Stale);
                    }
                    results.push((key, result));
                }
            }
            Err(e) => {
                for (key, _, _) in parts {
                    pool.metadata().want(&key.0, Why::Lost);
                    results.push((key, Err(e.clone())));
                }
            }
        }
    }
    results
}

fn name(key: &Key) -> String {
    format!("topic '{}' partition {}", key.0, key.1)
}

async fn ask(
    pool: &Arc<Pool>,
    lane: Lane,
    leader: i32,
    parts: &[(Key, i64, i32)],
) -> Result<BTreeMap<Key, Result<i64>>> {
    let connection = pool.lane_for_call(leader, lane).await?;
    let mut topics: BTreeMap<&Arc<str>, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for ((topic, partition), time, epoch) in parts {
        topics.entry(topic).or_default().push(
            ListOffsetsPartition::default()
                .with_partition_index(*partition)
                .with_current_leader_epoch(*epoch)
                .with_timestamp(*time),
        );
    }
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(
        topics
            .into_iter()
            .map(|(topic, partitions)| {
                ListOffsetsTopic::default()
                    .with_name(TopicName(StrBytes::from_string(topic.to_string())))
                    .with_partitions(partitions)
            })
            .collect(),
    );
    let answer = connection.call(&request, VERSIONS, false).await.map_err(CallError::into_error)?;
    let mut found = BTreeMap::new();
    let mut past_the_end = Vec::new();
    for topic in &answer.topics {
        for p in &topic.partitions {
            let Some((key, time, _)) =
                parts.iter().find(|((t, i), _, _)| **t == *topic.name.0 && *i == p.partition_index)
            else {
                continue;
            };
            let result = match p.error_code {
                0 if p.offset < 0 && *time == LATEST => {
                    // Every log has an end: asking once more would bring the same.
                    let words = format!("{}: an end at offset {}", name(key), p.offset);
                    Err(Error::new(ErrorKind::NotKafka, words))
                }
                0 if p.offset < 0 => {
                    past_the_end.push((key.clone(), LATEST));
                    continue;
                }
                0 => Ok(p.offset),
                code => Err(Error::broker(code, name(key), None)),
            };
            found.insert(key.clone(), result);
        }
    }
    if found.values().any(Result::is_err) {
        connection.metrics().broker().error_answer(Api::ListOffsets);
    }
    // No record at or after that time: the end is where the next one will be.
    if !past_the_end.is_empty() {
        let parts: Vec<_> = past_the_end
            .into_iter()
            .map(|(key, time)| {
                let epoch = parts.iter().find(|(k, _, _)| *k == key).map_or(-1, |p| p.2);
                (key, time, epoch)
            })
            .collect();
        found.extend(Box::pin(ask(pool, lane, leader, &parts)).await?);
    }
    Ok(found)
}
