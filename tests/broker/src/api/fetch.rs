//! Fetch: whole batches from the log, after a wait if there are too few, and the sessions that make
//! requests and answers short.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::fetch_partition::{FOLLOWERS, Reader};
use super::fetch_response::{self, Answer, FetchResponse, PartResponse};
use super::{ApiKey, Call, Outcome};
use crate::acl::Right;
use crate::error_code as code;
use crate::sessions::{Ask, Context, Key, NO_SESSION, Request, TopicKey, Wanted};
use crate::state::State;

/// First version that names topics by id (KIP-516).
pub(crate) const TOPIC_IDS: i16 = 13;

/// First version with sessions (KIP-227).
pub(crate) const SESSIONS: i16 = 7;

/// Isolation level of those who want committed records only.
pub(crate) const READ_COMMITTED: i8 = 1;

/// Largest answer whatever the request asks for, as Kafka's `fetch.max.bytes` of the broker.
const MAX_ANSWER: usize = 55 << 20;

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: FetchRequest = call.decode(ApiKey::FETCH, body)?;
    let throttle_time_ms = call.throttle_time_ms();
    if let Some(error_code) = call.plan.session_error.filter(|_| call.version >= SESSIONS) {
        let response = FetchResponse { throttle_time_ms, error_code, ..Default::default() };
        return fetch_response::encode(call, response);
    }
    let (context, wanted, mut unknown) = begin(call, &request)?;
    // Injected once per request, not once per look at the log.
    let injected: Vec<Option<i16>> = wanted.iter().map(|wanted| injected(call, wanted)).collect();
    let look = look_until_ready(call, &request, &wanted, &injected).await;
    if throttle_time_ms > 0 {
        // What was read is thrown away (KIP-219), and with it what it would have changed.
        let (error_code, session_id) = context.throttled();
        let response = FetchResponse { throttle_time_ms, error_code, session_id, answers: vec![] };
        return fetch_response::encode(call, response);
    }
    let answers = wanted.into_iter().zip(look.parts);
    let mut answers: Vec<Answer> = answers.map(|(wanted, part)| Answer { wanted, part }).collect();
    // Kafka finds out what it does not know before it reads, and puts it behind the rest.
    answers.append(&mut unknown);
    let tells: Vec<_> = answers.iter().map(|one| (&one.wanted, one.part.told())).collect();
    let now = Instant::now();
    let (error_code, session_id, sent) = call.broker.sessions().finish(context, &tells, now);
    let mut sent = sent.into_iter();
    answers.retain(|_| sent.next().unwrap_or(false));
    let bytes: usize = answers.iter().map(|answer| answer.part.bytes()).sum();
    call.broker.counters.fetched(bytes as u64);
    call.work.bytes += bytes as u64;
    fetch_response::encode(
        call,
        FetchResponse { throttle_time_ms, error_code, session_id, answers },
    )
}

/// What the request has to do with sessions, what is to be read for it, and what is answered without
/// being read: topics and partitions that are not there.
fn begin(
    call: &Call<'_>,
    request: &FetchRequest,
) -> Result<(Context, Vec<Wanted>, Vec<Answer>), String> {
    let by_ids = call.version >= TOPIC_IDS;
    let state = call.shared.state();
    let name_of = |id: Uuid| state.name_of(id).map(Arc::from);
    let (session_id, epoch) = match call.version >= SESSIONS {
        true => (request.session_id, request.session_epoch),
        false => (NO_SESSION, -1),
    };
    let forgotten = match by_ids {
        true => forgotten(request, |topic| TopicKey::Id(topic.topic_id)),
        false => forgotten(request, |topic| TopicKey::Name(Arc::from(topic.topic.as_str()))),
    };
    let request = Request {
        session_id,
        epoch,
        by_ids,
        named: named(request, by_ids, name_of),
        forgotten: &forgotten,
    };
    let (context, list) = call.broker.sessions().begin(request, Instant::now(), name_of)?;
    let (mut wanted, mut unknown) = (Vec::with_capacity(list.len()), Vec::new());
    for one in list {
        match not_there(call, &state, &one) {
            None => wanted.push(one),
            Some(error) => {
                let part = PartResponse::error(one.key.partition, error);
                unknown.push(Answer { wanted: one, part });
            }
        }
    }
    Ok((context, wanted, unknown))
}

/// The partitions that a request names. One that is named twice is asked for once, as it is named last.
fn named(
    request: &FetchRequest,
    by_ids: bool,
    name_of: impl Fn(Uuid) -> Option<Arc<str>>,
) -> Vec<Wanted> {
    let mut places: HashMap<Key, usize> = HashMap::new();
    let mut named: Vec<Wanted> = Vec::new();
    for topic in &request.topics {
        let (key, name) = match by_ids {
            true => (TopicKey::Id(topic.topic_id), name_of(topic.topic_id)),
            false => {
                // A copy: a slice would keep the whole request for as long as the session is there.
                let name: Arc<str> = Arc::from(topic.topic.as_str());
                (TopicKey::Name(Arc::clone(&name)), Some(name))
            }
        };
        for partition in &topic.partitions {
            let key = Key { topic: key.clone(), partition: partition.partition };
            let ask = Ask {
                offset: partition.fetch_offset,
                fetched_epoch: partition.last_fetched_epoch,
                leader_epoch: partition.current_leader_epoch,
                max_bytes: partition.partition_max_bytes,
            };
            match places.get(&key) {
                Some(place) => named[*place].ask = ask,
                None => {
                    places.insert(key.clone(), named.len());
                    named.push(Wanted { key, name: name.clone(), ask });
                }
            }
        }
    }
    named
}

fn forgotten(request: &FetchRequest, key: impl Fn(&ForgottenTopic) -> TopicKey) -> Vec<Key> {
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let topic_key = key(topic);
        let keys = topic.partitions.iter();
        forgotten.extend(keys.map(|index| Key { topic: topic_key.clone(), partition: *index }));
    }
    forgotten
}

/// The error of a partition that the client may not read, or that nobody knows.
fn not_there(call: &Call<'_>, state: &State, wanted: &Wanted) -> Option<i16> {
    let Some(name) = &wanted.name else { return Some(code::UNKNOWN_TOPIC_ID) };
    if !call.may(Right::Read, name) {
        return Some(code::TOPIC_AUTHORIZATION_FAILED);
    }
    let there = state.topics.get(&**name).is_some_and(|topic| {
        usize::try_from(wanted.key.partition).is_ok_and(|index| index < topic.partitions.len())
    });
    (!there).then_some(code::UNKNOWN_TOPIC_OR_PARTITION)
}

/// Error of the fault script.
fn injected(call: &Call<'_>, wanted: &Wanted) -> Option<i16> {
    let name = wanted.name.as_deref().unwrap_or_default();
    let (before, after) = call.injected(ApiKey::FETCH, name, wanted.key.partition);
    before.or(after)
}

/// One look at the log.
struct Look {
    parts: Vec<PartResponse>,
    /// Enough to answer with: bytes, an error, or nothing that could still arrive.
    ready: bool,
    /// When more becomes visible without a further append.
    next: Option<Instant>,
}

async fn look_until_ready(
    call: &Call<'_>,
    request: &FetchRequest,
    wanted: &[Wanted],
    injected: &[Option<i16>],
) -> Look {
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + max_wait;
    let notify = Arc::new(Notify::new());
    loop {
        let now = Instant::now();
        let look = look(call, request, wanted, injected, now, &notify);
        if look.ready || now >= deadline {
            return look;
        }
        tokio::select! {
            biased;
            () = notify.notified() => {}
            () = tokio::time::sleep_until(look.next.map_or(deadline, |at| at.min(deadline))) => {}
        }
    }
}

fn look(
    call: &Call<'_>,
    request: &FetchRequest,
    wanted: &[Wanted],
    injected: &[Option<i16>],
    now: Instant,
    notify: &Arc<Notify>,
) -> Look {
    let mut state = call.shared.state();
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(MAX_ANSWER);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes);
    let reader = Reader {
        broker: call.broker.id,
        version: call.version,
        committed: request.isolation_level == READ_COMMITTED,
        near: near(call, &state, request),
        now,
        delay: state.replica_delay,
        partial: call.shared.config.partial_batches,
    };
    let mut look = Look { parts: Vec::new(), ready: wanted.is_empty(), next: None };
    let mut bytes = 0;
    for (wanted, injected) in wanted.iter().zip(injected) {
        let room = max_bytes.saturating_sub(bytes);
        let index = wanted.key.partition;
        let topic = wanted.name.as_ref().and_then(|name| state.topics.get_mut(&**name));
        let part = match topic {
            None => PartResponse::error(index, code::UNKNOWN_TOPIC_OR_PARTITION),
            Some(topic) => {
                let part = reader.read(topic, wanted, *injected, room, bytes == 0);
                if let Some(partition) = topic.partition_mut(index) {
                    if let Some(at) = partition.log.next_replication(partition.delay(reader.delay))
                    {
                        look.next = Some(look.next.map_or(at, |next| next.min(at)));
                    }
                    partition.wait(notify);
                }
                part
            }
        };
        bytes += part.bytes();
        look.ready |= part.is_urgent();
        look.parts.push(part);
    }
    look.ready |= bytes >= min_bytes;
    look
}

/// Brokers that the client could read from in its own rack.
fn near(call: &Call<'_>, state: &State, request: &FetchRequest) -> Vec<i32> {
    let rack = request.rack_id.as_str();
    if call.version < FOLLOWERS || rack.is_empty() {
        return Vec::new();
    }
    let brokers = call.shared.brokers.iter();
    brokers
        .filter(|broker| broker.rack.as_deref() == Some(rack) && !state.is_fenced(broker.id))
        .map(|broker| broker.id)
        .collect()
}
