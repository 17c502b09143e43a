//! Offsets by time: ListOffsets, one request per leader.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use tokio::task::JoinSet;

use super::{Handle, Lane};
use crate::caught::caught;
use crate::config::Isolation;
use crate::error::names::NONE;
use crate::error::{Error, ErrorKind, NOT_THE_PROTOCOL, Result};
use crate::metrics::Api;
use crate::net::CallError;
use crate::policy::metadata_refresh::RefreshReason;

/// Versions of ListOffsets.
const VERSIONS: (i16, i16) = crate::protocol::bounded::<ListOffsetsRequest>(1, 10);
/// The first version that says which end is meant.
const TELLS_ISOLATION: i16 = 2;

pub(crate) const EARLIEST: i64 = -2;
pub(crate) const LATEST: i64 = -1;

pub(crate) type Key = (Arc<str>, i32);

/// An offset that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundOffset {
    pub(crate) offset: i64,
    /// The leader epoch of the record there; -1: not told.
    pub(crate) epoch: i32,
}

/// A lookup at one leader: the partition, the time, and the leader epoch that is known.
type WantedOffset = (Key, i64, i32);

/// Asks the leaders; `wanted` gives for each partition a timestamp, or [`EARLIEST`] or [`LATEST`].
/// A timestamp after the last record gives the end. `isolation`: which end is meant. The calls ride on a connection to the leader that
/// is idle; only if there is none is `lane` opened. Each partition gets a result of its own.
pub(crate) async fn list(
    pool: &Handle,
    lane: Lane,
    wanted: Vec<(Key, i64)>,
    isolation: Isolation,
) -> Vec<(Key, Result<FoundOffset>)> {
    let mut results = Vec::with_capacity(wanted.len());
    let mut by_leader: BTreeMap<i32, Vec<WantedOffset>> = BTreeMap::new();
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
                        pool.metadata().want(&key.0, RefreshReason::Stale);
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
    // All leaders at once: a silent one must not hold up the results of the others.
    let mut asking = JoinSet::new();
    for (leader, parts) in by_leader {
        let pool = pool.clone();
        asking.spawn(async move {
            let found = caught(look_up(&pool, lane, leader, &parts, isolation)).await;
            (parts, found.and_then(|found| found))
        });
    }
    while let Some(asked) = asking.join_next().await {
        let Ok((parts, found)) = asked else { continue };
        match found {
            Ok(mut found) => {
                for (key, _, _) in parts {
                    let result = found.remove(&key).unwrap_or_else(|| {
                        Err(Error::broker(
                            -1,
                            format_args!("{}: the response leaves it out", name(&key)),
                            None,
                        ))
                    });
                    if result.is_err() {
                        pool.metadata().want(&key.0, RefreshReason::Stale);
                    }
                    results.push((key, result));
                }
            }
            Err(e) => {
                for (key, _, _) in parts {
                    pool.metadata().want(&key.0, RefreshReason::Lost);
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

/// If there is no record at or after the timestamp, the end offset is asked for, and then the timestamp once
/// more: a record with that timestamp may have been written after the first response and before the end offset
/// was told, and would be passed over. The second response names it; if it names none either, all such records
/// come after that end offset.
async fn look_up(
    pool: &Handle,
    lane: Lane,
    leader: i32,
    parts: &[WantedOffset],
    isolation: Isolation,
) -> Result<BTreeMap<Key, Result<FoundOffset>>> {
    let mut found = ask(pool, lane, leader, parts, isolation).await?;
    let none = |found: &BTreeMap<Key, Response>| {
        let none = |key: &Key| matches!(found.get(key), Some(Response::NoneSince));
        parts.iter().filter(|(key, _, _)| none(key)).cloned().collect::<Vec<WantedOffset>>()
    };
    let late = none(&found);
    if !late.is_empty() {
        let ends: Vec<WantedOffset> =
            late.iter().map(|(key, _, epoch)| (key.clone(), LATEST, *epoch)).collect();
        let ends = ask(pool, lane, leader, &ends, isolation).await?;
        found.extend(ask(pool, lane, leader, &late, isolation).await?);
        for (key, _, _) in none(&found) {
            match ends.get(&key) {
                Some(end) => drop(found.insert(key, end.clone())),
                None => drop(found.remove(&key)),
            }
        }
    }
    Ok(found.into_iter().filter_map(|(key, response)| Some((key, response.result()?))).collect())
}

#[derive(Clone)]
enum Response {
    Told(Result<FoundOffset>),
    /// No record at that time or after it.
    NoneSince,
}

impl Response {
    fn result(self) -> Option<Result<FoundOffset>> {
        if let Self::Told(result) = self { Some(result) } else { None }
    }
}

async fn ask(
    pool: &Handle,
    lane: Lane,
    leader: i32,
    parts: &[WantedOffset],
    isolation: Isolation,
) -> Result<BTreeMap<Key, Response>> {
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
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation.level());
    let request = request.with_topics(
        topics
            .into_iter()
            .map(|(topic, partitions)| {
                ListOffsetsTopic::default()
                    .with_name(TopicName(StrBytes::from_string(topic.to_string())))
                    .with_partitions(partitions)
            })
            .collect(),
    );
    // Brokers that know no later version know no transactions.
    let least = if isolation == Isolation::ReadCommitted { TELLS_ISOLATION } else { VERSIONS.0 };
    let versions = (least, VERSIONS.1);
    let response =
        connection.call(&request, versions, false).await.map_err(CallError::into_error)?;
    let asked: HashMap<(&str, i32), &WantedOffset> =
        parts.iter().map(|part| ((&*part.0.0, part.0.1), part)).collect();
    let mut found = BTreeMap::new();
    let mut refused = false;
    for topic in &response.topics {
        for p in &topic.partitions {
            let of = (&*topic.name.0, p.partition_index);
            let Some((key, time, _)) = asked.get(&of) else { continue };
            let told = match p.error_code {
                NONE if p.offset < 0 && *time >= 0 => Response::NoneSince,
                NONE if p.offset < 0 => {
                    // Every log has a beginning and an end: asking once more would bring the same.
                    let which = if *time == LATEST { "an end" } else { "a beginning" };
                    let words = format!("{}: {which} at offset {}", name(key), p.offset);
                    Response::Told(Err(
                        Error::new(ErrorKind::NotKafka, words).advise(NOT_THE_PROTOCOL)
                    ))
                }
                NONE => Response::Told(Ok(FoundOffset { offset: p.offset, epoch: p.leader_epoch })),
                code => Response::Told(Err(Error::broker(code, name(key), None))),
            };
            refused |= matches!(told, Response::Told(Err(_)));
            found.insert(key.clone(), told);
        }
    }
    if refused {
        connection.metrics().broker().error_response(Api::ListOffsets);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::list_offsets_response::{
        ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
    };
    use kafka_protocol::messages::{ListOffsetsResponse, ResponseHeader};
    use kafka_protocol::protocol::Encodable;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::cluster::by_hand;
    use crate::net::by_hand::connection;

    const NOT_LEADER: i16 = 6;

    /// A broker that answers the next request with this.
    async fn responses(mut peer: DuplexStream, code: i16) {
        let len = peer.read_u32().await.unwrap();
        let mut request = vec![0; len as usize];
        peer.read_exact(&mut request).await.unwrap();
        let correlation = i32::from_be_bytes(request[4..8].try_into().unwrap());
        let partition =
            ListOffsetsPartitionResponse::default().with_error_code(code).with_offset(5);
        let topic = ListOffsetsTopicResponse::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partitions(vec![partition]);
        let response = ListOffsetsResponse::default().with_topics(vec![topic]);
        let mut frame = Vec::new();
        ResponseHeader::default().with_correlation_id(correlation).encode(&mut frame, 0).unwrap();
        response.encode(&mut frame, 1).unwrap();
        peer.write_u32(frame.len() as u32).await.unwrap();
        peer.write_all(&frame).await.unwrap();
        // Until who asked is gone.
        let _ = peer.read_u8().await;
    }

    async fn list_one(pool: &Handle) -> Result<FoundOffset> {
        let wanted = vec![(("t".into(), 0), EARLIEST)];
        list(pool, Lane::Control, wanted, Isolation::default()).await.remove(0).1
    }

    /// Who leads by now is known to others.
    #[tokio::test(start_paused = true)]
    async fn where_a_leader_refuses_metadata_is_asked_for() {
        for code in [0, NOT_LEADER] {
            let pool = by_hand::client();
            pool.told_of_topic(1..=1, 7, &[1]);
            let (connection, peer) = connection(pool.env(), 1);
            pool.broker(1).unwrap().put(Lane::Control, connection);
            tokio::spawn(responses(peer, code));
            let found = list_one(&pool).await.map_err(|e| e.broker_code());
            let refused = code == NOT_LEADER;
            assert_eq!(found.err(), refused.then_some(Some(NOT_LEADER)));
            assert_eq!(pool.is_asked_for(), refused, "code {code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_leader_cannot_be_reached_metadata_is_asked_for() {
        let pool = by_hand::client();
        pool.told_of_topic(1..=1, 7, &[1]);
        assert_eq!(list_one(&pool).await.unwrap_err().kind(), ErrorKind::Connect);
        assert!(pool.is_asked_for());
    }
}
