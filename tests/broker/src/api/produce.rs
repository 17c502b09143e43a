//! Produce: judge, append, and for acks=all wait for the followers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceRequest, ProduceResponse};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::{ApiKey, Call, Outcome, str_bytes};
use crate::acl::Right;
use crate::batch::{self, BatchHeader, Depth, Refusal};
use crate::config::Storage;
use crate::error_code as code;
use crate::state::{Broker, Shared, State};

/// First version whose responses name the current leader (KIP-951).
const LEADER_HINTS: i16 = 10;
/// First version that names topics by id (KIP-516).
const TOPIC_IDS: i16 = 13;
/// Batches up to this size are copied out of their frame when they are kept. What is read into one
/// buffer stays in memory together: a small batch must not hold on to its neighbours.
const COPIED: usize = 32 << 10;

/// One partition of the request, and what has become of it.
struct Part {
    topic_index: usize,
    topic: String,
    topic_id: Uuid,
    partition: i32,
    result: Result<Done, Refusal>,
    /// Answered in place of `result`, which has happened all the same.
    error_after: Option<i16>,
    /// Current leader, for responses that say it is not this broker.
    leader: Option<(i32, i32)>,
}

#[derive(Debug, Clone, Copy)]
struct Done {
    base_offset: i64,
    end_offset: i64,
    log_start: i64,
    leader_epoch: i32,
    replicated: bool,
}

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: ProduceRequest = call.decode(ApiKey::PRODUCE, body)?;
    let mut parts = append_all(call, &request);
    if request.acks == -1 {
        let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
        wait_for_replicas(call.shared, &mut parts, Instant::now() + timeout).await;
    }
    if request.acks == 0 {
        // Nobody listens for a response; a broken connection is the only way to say that
        // something went wrong, and makes the client ask for metadata.
        let failed = parts.iter().any(|part| part.result.is_err() || part.error_after.is_some());
        return Ok(if failed { Outcome::Close } else { Outcome::NoResponse });
    }
    call.answer(&response(call, &request, &parts))
}

fn append_all(call: &mut Call<'_>, request: &ProduceRequest) -> Vec<Part> {
    let shared = call.shared;
    let depth = if shared.config.check_records { Depth::Records } else { Depth::Header };
    let other_id = has_forbidden_id(call, request);
    let mut parts = Vec::new();
    for (topic_index, topic) in request.topic_data.iter().enumerate() {
        let (name, topic_id, rules) = {
            let state = shared.state();
            let name = if call.version >= TOPIC_IDS {
                state.name_of(topic.topic_id).unwrap_or_default().to_owned()
            } else {
                topic.name.as_str().to_owned()
            };
            let found = state.topics.get(&name);
            let rules = found.map_or(shared.config.rules(), |topic| topic.rules);
            (name, found.map_or(topic.topic_id, |topic| topic.id), rules)
        };
        for data in &topic.partition_data {
            let (before, after) = call.injected(ApiKey::PRODUCE, &name, data.index);
            // Judged before the lock is taken: reading a batch is the expensive part.
            let judged = match (&data.records, before) {
                (_, Some(error)) => Err(Refusal::new(error, "by fault script")),
                (None, None) => Err(Refusal::new(code::INVALID_RECORD, "no records")),
                (Some(records), None) => batch::check(records, rules, depth, call.scratch)
                    .map(|header| (header, records.clone())),
            };
            if let Ok((header, _)) = &judged {
                call.work.batches += 1;
                call.work.records += header.record_count as u64;
            }
            let mut part = Part {
                topic_index,
                topic: name.clone(),
                topic_id,
                partition: data.index,
                result: Err(Refusal::new(code::NONE, "")),
                error_after: after,
                leader: None,
            };
            let forbidden = forbidden(call, other_id, &name).filter(|_| before.is_none());
            part.result = match forbidden {
                Some(refusal) => Err(refusal),
                None => {
                    append(shared, call.broker, request, call.version, &mut part, judged, before)
                }
            };
            parts.push(part);
        }
    }
    parts
}

/// Whether there are records of a transaction that is not the client's. Then no record of the request is
/// written.
fn has_forbidden_id(call: &Call<'_>, request: &ProduceRequest) -> bool {
    let mut records = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    call.rights.is_some()
        && records.any(|data| data.records.as_deref().is_some_and(batch::is_transactional))
        && !call.may(
            Right::TransactionalId,
            request.transactional_id.as_ref().map_or("", |id| id.as_str()),
        )
}

/// What the client may not do. A topic id that nobody knows is found to be so instead.
fn forbidden(call: &Call<'_>, other_id: bool, topic: &str) -> Option<Refusal> {
    if other_id {
        let words = "Transactional Id authorization failed.";
        return Some(Refusal::new(code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, words));
    }
    let by_unknown_id = call.version >= TOPIC_IDS && topic.is_empty();
    let words = "Topic authorization failed.";
    (!by_unknown_id && !call.may(Right::Write, topic))
        .then(|| Refusal::new(code::TOPIC_AUTHORIZATION_FAILED, words))
}

fn append(
    shared: &Shared,
    broker: &Broker,
    request: &ProduceRequest,
    version: i16,
    part: &mut Part,
    judged: Result<(BatchHeader, Bytes), Refusal>,
    injected: Option<i16>,
) -> Result<Done, Refusal> {
    let mut state = shared.state();
    let State { topics, replica_delay, .. } = &mut *state;
    let delay = *replica_delay;
    if !matches!(request.acks, -1..=1) {
        return Err(Refusal::new(code::INVALID_REQUIRED_ACKS, format!("acks={}", request.acks)));
    }
    let Some(partition) =
        topics.get_mut(&part.topic).and_then(|topic| topic.partition_mut(part.partition))
    else {
        // A topic id that is unknown, and a partition that a known topic does not have.
        let by_id = version >= TOPIC_IDS && part.topic.is_empty();
        let error = if by_id { code::UNKNOWN_TOPIC_ID } else { code::UNKNOWN_TOPIC_OR_PARTITION };
        return Err(Refusal::new(error, "the topic or partition does not exist"));
    };
    if injected == Some(code::NOT_LEADER_OR_FOLLOWER)
        || part.error_after == Some(code::NOT_LEADER_OR_FOLLOWER)
        || partition.leader != Some(broker.id)
    {
        part.leader = partition.leader.map(|leader| (leader, partition.leader_epoch));
    }
    if injected.is_none() && partition.leader != Some(broker.id) {
        return Err(Refusal::new(
            code::NOT_LEADER_OR_FOLLOWER,
            format!("broker {} does not lead this partition", broker.id),
        ));
    }
    let (header, data) = judged?;
    if request.acks == -1 && partition.isr.len() < shared.config.min_insync_replicas {
        return Err(Refusal::new(
            code::NOT_ENOUGH_REPLICAS,
            format!(
                "{} in sync, min.insync.replicas is {}",
                partition.isr.len(),
                shared.config.min_insync_replicas
            ),
        ));
    }
    let len = data.len();
    let data = match partition.log.stores() {
        // An endless source has no place for records: it judges them and moves on.
        false => Bytes::new(),
        // Kept as a slice, a small batch would hold on to the whole buffer that it was read into.
        true if len <= COPIED => Bytes::copy_from_slice(&data),
        true => data,
    };
    let appended = partition.append(&header, data, Instant::now(), delay)?;
    let done = Done {
        base_offset: appended.base_offset,
        end_offset: appended.end_offset,
        log_start: partition.log.start(),
        leader_epoch: partition.leader_epoch,
        replicated: false,
    };
    if appended.duplicate {
        broker.counters.duplicate();
    } else {
        broker.counters.produced(header.record_count as u64, len as u64);
        if matches!(shared.config.storage, Storage::Keep) {
            state.retain(part.topic_id, part.partition, len);
        }
    }
    Ok(done)
}

/// Waits until every appended batch is on all in-sync replicas, its leader has changed, or the
/// request's time is up. Whatever happens, the batches stay appended.
async fn wait_for_replicas(shared: &Arc<Shared>, parts: &mut [Part], deadline: Instant) {
    let notify = Arc::new(Notify::new());
    loop {
        let now = Instant::now();
        let Some(next) = check_replicas(shared, parts, now, &notify) else { return };
        if now >= deadline {
            for part in parts.iter_mut() {
                if let Ok(Done { replicated: false, .. }) = part.result {
                    part.error_after.get_or_insert(code::REQUEST_TIMED_OUT);
                }
            }
            return;
        }
        tokio::select! {
            biased;
            () = notify.notified() => {}
            () = tokio::time::sleep_until(next.map_or(deadline, |next| next.min(deadline))) => {}
        }
    }
}

/// Settles what can be settled. `None`: everything is. Otherwise the time of the next change that
/// is foreseeable, if any; `notify` hears of the others.
fn check_replicas(
    shared: &Shared,
    parts: &mut [Part],
    now: Instant,
    notify: &Arc<Notify>,
) -> Option<Option<Instant>> {
    let mut state = shared.state();
    let State { topics, replica_delay, .. } = &mut *state;
    let mut waiting = false;
    let mut next: Option<Instant> = None;
    for part in parts {
        let Ok(done) = &mut part.result else { continue };
        if done.replicated {
            continue;
        }
        let found = topics
            .get_mut(&part.topic)
            .filter(|topic| topic.id == part.topic_id)
            .and_then(|topic| topic.partition_mut(part.partition));
        let Some(partition) = found else {
            done.replicated = true;
            part.error_after = Some(code::UNKNOWN_TOPIC_OR_PARTITION);
            continue;
        };
        if partition.high_watermark(now, *replica_delay) >= done.end_offset {
            done.replicated = true;
        } else if partition.leader_epoch != done.leader_epoch {
            // Appended here, but another broker decides now whether that counts.
            done.replicated = true;
            part.error_after = Some(code::NOT_LEADER_OR_FOLLOWER);
            part.leader = partition.leader.map(|leader| (leader, partition.leader_epoch));
        } else {
            waiting = true;
            let delay = partition.delay(*replica_delay);
            let at = partition.log.replicated_at(done.end_offset, delay);
            next = match (next, at) {
                (Some(next), Some(at)) => Some(next.min(at)),
                (next, at) => next.or(at),
            };
            partition.wait(notify);
        }
    }
    waiting.then_some(next)
}

fn response(call: &Call<'_>, request: &ProduceRequest, parts: &[Part]) -> ProduceResponse {
    let mut topics: Vec<TopicProduceResponse> = request
        .topic_data
        .iter()
        .map(|topic| {
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_topic_id(topic.topic_id)
        })
        .collect();
    let mut leaders = Vec::new();
    for part in parts {
        let mut answer = PartitionProduceResponse::default()
            .with_index(part.partition)
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1);
        match &part.result {
            Ok(done) => {
                answer.error_code = part.error_after.unwrap_or(code::NONE);
                answer.base_offset = done.base_offset;
                if call.version >= 5 {
                    answer.log_start_offset = done.log_start;
                }
            }
            Err(refusal) => {
                answer.error_code = refusal.code;
                if call.version >= 8 && !refusal.message.is_empty() {
                    answer.error_message = Some(str_bytes(&refusal.message));
                }
                if call.version >= 8 {
                    let blamed = |(index, message): &(i32, String)| {
                        BatchIndexAndErrorMessage::default()
                            .with_batch_index(*index)
                            .with_batch_index_error_message(Some(str_bytes(message)))
                    };
                    answer.record_errors = refusal.records.iter().map(blamed).collect();
                }
            }
        }
        if call.version >= LEADER_HINTS
            && answer.error_code == code::NOT_LEADER_OR_FOLLOWER
            && let Some((leader, epoch)) = part.leader
        {
            answer.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(leader))
                .with_leader_epoch(epoch);
            leaders.push(leader);
        }
        topics[part.topic_index].partition_responses.push(answer);
    }
    leaders.sort_unstable();
    leaders.dedup();
    let endpoints = leaders
        .into_iter()
        .filter_map(|id| call.shared.broker(id))
        .map(|broker| {
            let (host, port) = broker.named_at();
            NodeEndpoint::default()
                .with_node_id(BrokerId(broker.id))
                .with_host(str_bytes(&host))
                .with_port(i32::from(port))
                .with_rack(broker.rack.as_deref().map(str_bytes))
        })
        .collect();
    ProduceResponse::default()
        .with_responses(topics)
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_node_endpoints(endpoints)
}
