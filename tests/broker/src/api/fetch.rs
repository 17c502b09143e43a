//! Fetch: whole batches from the log, after a wait if there are too few.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::FetchRequest;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::list_offsets::leadership;
use super::{ApiKey, Call, Outcome};
use crate::api::fetch_response::{self, FetchResponse, PartResponse, TopicResponse};
use crate::error_code as code;
use crate::log::{PartitionLog, Slice};
use crate::state::State;

/// First version that names topics by id (KIP-516).
pub(crate) const TOPIC_IDS: i16 = 13;

/// First version that tells the epoch of what was fetched last (KIP-595).
const EPOCHS: i16 = 12;

/// Largest answer whatever the request asks for, as Kafka's `fetch.max.bytes` of the broker.
const MAX_ANSWER: usize = 55 << 20;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: FetchRequest = call.decode(ApiKey::FETCH, body)?;
    let mut response =
        FetchResponse { throttle_time_ms: call.throttle_time_ms(), ..Default::default() };
    if request.session_id != 0 {
        // Sessions are never granted (the response's session id is 0), so none can be known.
        response.error_code = code::FETCH_SESSION_ID_NOT_FOUND;
        return fetch_response::encode(call, response);
    }
    // Injected once per request, not once per look at the log.
    let injected = injected(call, &request);
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + max_wait;
    let notify = Arc::new(Notify::new());
    loop {
        let now = Instant::now();
        let look = read(call, &request, &injected, now, &notify);
        if look.ready || now >= deadline {
            response.topics = look.topics;
            call.broker.counters.fetched(look.bytes as u64);
            call.work.bytes += look.bytes as u64;
            return fetch_response::encode(call, response);
        }
        tokio::select! {
            biased;
            () = notify.notified() => {}
            () = tokio::time::sleep_until(look.next.map_or(deadline, |at| at.min(deadline))) => {}
        }
    }
}

/// Where a client that has read up to `offset`, last under `epoch`, and the log part; `None`: nowhere.
fn diverges(log: &PartitionLog, offset: i64, epoch: i32) -> Result<Option<(i32, i64)>, i16> {
    if epoch < 0 {
        return Ok(None);
    }
    let (known, end) = log.end_of_epoch(epoch).ok_or(code::OFFSET_OUT_OF_RANGE)?;
    if offset < log.start() {
        return Err(code::OFFSET_OUT_OF_RANGE);
    }
    Ok((known < epoch || end < offset).then_some((known, end)))
}

/// Errors of the fault script, in the order in which the request names partitions.
fn injected(call: &Call<'_>, request: &FetchRequest) -> Vec<Option<i16>> {
    let mut errors = Vec::new();
    for topic in &request.topics {
        let name = if call.version >= TOPIC_IDS {
            call.shared.state().name_of(topic.topic_id).unwrap_or_default().to_owned()
        } else {
            topic.topic.as_str().to_owned()
        };
        for partition in &topic.partitions {
            let (before, after) = call.injected(ApiKey::FETCH, &name, partition.partition);
            errors.push(before.or(after));
        }
    }
    errors
}

/// One look at the log.
struct Look {
    topics: Vec<TopicResponse>,
    bytes: usize,
    /// Enough to answer with: bytes, an error, or nothing that could still arrive.
    ready: bool,
    /// When more becomes visible without a further append.
    next: Option<Instant>,
}

fn read(
    call: &Call<'_>,
    request: &FetchRequest,
    injected: &[Option<i16>],
    now: Instant,
    notify: &Arc<Notify>,
) -> Look {
    let mut state = call.shared.state();
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(MAX_ANSWER);
    let mut look =
        Look { topics: Vec::new(), bytes: 0, ready: request.topics.is_empty(), next: None };
    let mut errors = injected.iter();
    for topic in &request.topics {
        let name = if call.version >= TOPIC_IDS {
            state.name_of(topic.topic_id).map(str::to_owned)
        } else {
            Some(topic.topic.as_str().to_owned())
        };
        let unknown = match &name {
            Some(_) => code::UNKNOWN_TOPIC_OR_PARTITION,
            None => code::UNKNOWN_TOPIC_ID,
        };
        let State { topics, replica_delay, .. } = &mut *state;
        let mut found = name.as_ref().and_then(|name| topics.get_mut(name));
        let mut partitions = Vec::new();
        for wanted in &topic.partitions {
            let mut part = PartResponse::new(wanted.partition);
            let partition = found.as_mut().and_then(|topic| topic.partition_mut(wanted.partition));
            part.error_code = errors.next().copied().flatten().unwrap_or(code::NONE);
            match partition {
                None => part.error_code = unknown,
                Some(partition) => {
                    if part.error_code == code::NONE {
                        part.error_code =
                            leadership(partition, call.broker.id, wanted.current_leader_epoch);
                    }
                    if part.error_code == code::NOT_LEADER_OR_FOLLOWER
                        || part.error_code == code::FENCED_LEADER_EPOCH
                    {
                        part.leader =
                            partition.leader.map(|leader| (leader, partition.leader_epoch));
                    }
                    let offset = wanted.fetch_offset;
                    // The epoch is looked at before the offset: where both are wrong, the client
                    // learns where its records part from the log (Partition.fetchRecords).
                    if part.error_code == code::NONE && call.version >= EPOCHS {
                        match diverges(&partition.log, offset, wanted.last_fetched_epoch) {
                            Ok(diverging) => part.diverging = diverging,
                            Err(refusal) => part.error_code = refusal,
                        }
                    }
                    let range = partition.log.start()..=partition.log.end();
                    if part.error_code == code::NONE
                        && part.diverging.is_none()
                        && !range.contains(&offset)
                    {
                        part.error_code = code::OFFSET_OUT_OF_RANGE;
                    }
                    if part.error_code == code::OFFSET_OUT_OF_RANGE || part.diverging.is_some() {
                        part.log_start = partition.log.start();
                        part.high_watermark = partition.high_watermark(now, *replica_delay);
                    } else if part.error_code == code::NONE {
                        let high_watermark = partition.high_watermark(now, *replica_delay);
                        part.high_watermark = high_watermark;
                        part.log_start = partition.log.start();
                        let room = usize::try_from(wanted.partition_max_bytes)
                            .unwrap_or(0)
                            .min(max_bytes.saturating_sub(look.bytes));
                        // The first batch of a response always goes, or a consumer with small
                        // limits would never get past a large one (KIP-74).
                        let slice = if offset < high_watermark {
                            partition.log.read(
                                offset,
                                high_watermark,
                                room,
                                look.bytes == 0,
                                call.shared.config.partial_batches,
                            )
                        } else {
                            Slice::default()
                        };
                        look.bytes += slice.bytes;
                        part.batches = slice.batches;
                        let delay = partition.delay(*replica_delay);
                        if let Some(at) = partition.log.next_replication(delay) {
                            look.next = Some(look.next.map_or(at, |next| next.min(at)));
                        }
                        partition.wait(notify);
                    }
                }
            }
            look.ready |= part.error_code != code::NONE || part.diverging.is_some();
            partitions.push(part);
        }
        look.topics.push(TopicResponse {
            name: topic.topic.clone(),
            id: if call.version >= TOPIC_IDS { topic.topic_id } else { Uuid::nil() },
            partitions,
        });
    }
    look.ready |= look.bytes >= min_bytes;
    look
}
