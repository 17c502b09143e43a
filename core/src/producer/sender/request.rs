//! The Produce request of a leader in a round: whether the retry budget allows it, how it is put together and
//! sent, and how its batches are put back if it cannot go.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::protocol::Request;
use tokio::time::Instant;

use super::Sender;
use super::partition::ToSend;
use super::producer_id::ProducerStamp;
use crate::cluster::{BudgetKind, Pool};
use crate::config::{Acks, MAX_PRODUCE_REQUEST};
use crate::net::Frame;
use crate::policy::retry_budget::Cost;
use crate::protocol::{self, PartitionData, TopicData};

/// Versions of Produce: record batches (3) to topic ids (13).
const VERSIONS: (i16, i16) = protocol::bounded::<ProduceRequest>(3, 13);

/// A request in flight.
pub(super) struct InFlight {
    pub(in crate::producer) leader: i32,
    pub(in crate::producer) sent: Instant,
    pub(in crate::producer) bytes: usize,
    /// It carries a suspect batch, and was sent with nothing else on the connection.
    pub(super) alone: bool,
    pub(in crate::producer) items: Vec<SentBatch>,
}

/// One batch of a request in flight.
#[derive(Clone)]
pub(in crate::producer) struct SentBatch {
    pub(in crate::producer) topic: Arc<str>,
    pub(in crate::producer) id: uuid::Uuid,
    pub(in crate::producer) partition: i32,
    pub(in crate::producer) batch: u64,
    pub(in crate::producer) records: usize,
    pub(super) hasty: bool,
}

/// The numbers of one sender's requests and batches, which grow. Those up to the first one are a predecessor's.
pub(super) struct Ids {
    first: u64,
    last: u64,
}

impl Ids {
    pub(super) fn after(first: u64) -> Self {
        Self { first, last: first }
    }

    /// What tells this sender from its predecessors.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// So many numbers in a row.
    pub(super) fn several(&mut self, count: usize) -> impl Iterator<Item = u64> + use<> {
        let next = self.last + 1;
        self.last += count as u64;
        next..=self.last
    }
}

/// A batch in a draft: its topic, the topic's id, its partition, and what is to be sent.
pub(super) type DraftPart = (Arc<str>, uuid::Uuid, i32, ToSend);

/// The batches that a round gathers for one leader.
pub(super) struct RequestDraft {
    leader: i32,
    parts: Vec<DraftPart>,
    bytes: usize,
    /// The batch that began this request may not wait (flush, memory is wanted, no linger); the others
    /// ride.
    hasty: bool,
}

impl RequestDraft {
    pub(super) fn new(leader: i32, hasty: bool) -> Self {
        Self { leader, parts: Vec::new(), bytes: 0, hasty }
    }

    pub(super) fn leader(&self) -> i32 {
        self.leader
    }

    pub(super) fn is_hasty(&self) -> bool {
        self.hasty
    }

    /// The number of its batches.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn add(&mut self, part: DraftPart, bytes: usize) {
        self.bytes += bytes;
        self.parts.push(part);
    }

    /// Whether it takes no more batches.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_PRODUCE_REQUEST
    }

    /// The price of the request in the retry budget; `None` if anything in it is no retry.
    pub(in crate::producer) fn cost(&self) -> Option<Cost> {
        let mut cost = Some(Cost::Definite);
        for (_, _, _, to_send) in &self.parts {
            match to_send.retry {
                None => return None,
                Some(Cost::InDoubt) => cost = Some(Cost::InDoubt),
                Some(Cost::Definite) => {}
            }
        }
        cost
    }

    /// Puts the parts of one topic side by side, in the order of the topics' first turns: a topic that was
    /// held has its second turn after the first turns of others.
    pub(super) fn join_topics(&mut self) {
        let mut first: HashMap<Arc<str>, usize> = HashMap::with_capacity(self.parts.len());
        for (at, (name, ..)) in self.parts.iter().enumerate() {
            first.entry(Arc::clone(name)).or_insert(at);
        }
        self.parts.sort_by_key(|(name, ..)| first[name]);
    }
}

impl Sender {
    /// Whether the request may go: one that carries only retries is paid from the retry budget.
    pub(super) fn affords(&mut self, pool: &Pool, draft: &RequestDraft, now: Instant) -> bool {
        let Some(leader) = self.leaders.get(draft.leader) else { return true };
        let Some(cost) = draft.cost() else {
            leader.retries_go();
            pool.budgets().first_request(BudgetKind::Produce, now);
            return true;
        };
        match pool.budgets().retry(BudgetKind::Produce, cost, now) {
            Ok(()) => {
                leader.retries_go();
                true
            }
            Err(at) => {
                if !leader.retries_wait(at) {
                    pool.budgets().delayed(BudgetKind::Produce);
                }
                self.schedule.round_by(Some(at));
                false
            }
        }
    }

    /// The request is not sent after all: puts its batches back where they were.
    pub(super) fn withdraw(&mut self, draft: &RequestDraft) {
        for (name, _, index, to_send) in draft.parts.iter().rev() {
            self.topics.change(name, |topic| {
                let Some(partition) = topic.partitions.get_mut(*index as usize) else { return };
                match partition.withdraw(to_send.id, to_send.again) {
                    Some(batch) => topic.put_back(batch),
                    None => {
                        topic.resend.insert(*index as usize);
                    }
                }
            });
        }
    }

    /// Sends one request with all batches that a leader got in this round, and starts the task that waits for
    /// its response.
    pub(super) fn send(&mut self, draft: RequestDraft, now: Instant) {
        let retries = draft.cost().is_some();
        let connection = self.leaders.get(draft.leader).and_then(|l| l.connection().cloned());
        let Some(connection) = connection else { return self.withdraw(&draft) };
        let connection = connection.on_behalf_of(&self.settings.caller);
        let mut items = Vec::with_capacity(draft.parts.len());
        let mut topics: Vec<TopicData<'_>> = Vec::new();
        let mut ids_known = true;
        for (name, id, partition, to_send) in &draft.parts {
            let Some(batch) = self
                .topics
                .get(name)
                .and_then(|t| t.partitions.get(*partition as usize))
                .and_then(|p| p.batch(to_send.id))
            else {
                continue;
            };
            ids_known &= !id.is_nil();
            let data = PartitionData {
                index: *partition,
                header: {
                    let ProducerStamp { producer_id, epoch, sequence } =
                        self.id_state.stamp(to_send.stamp);
                    batch.sealed.header(producer_id, epoch, sequence)
                },
                body: batch.sealed.segments(),
            };
            items.push(SentBatch {
                topic: Arc::clone(name),
                id: *id,
                partition: *partition,
                batch: to_send.id,
                records: batch.records(),
                hasty: batch.hasty,
            });
            // The parts of a topic are side by side, and the request names it once.
            match topics.last_mut() {
                Some(last) if last.name == &**name => last.partitions.push(data),
                _ => topics.push(TopicData { name, id: *id, partitions: vec![data] }),
            }
        }
        let request = self.ids.next();
        let newest = if ids_known { VERSIONS.1 } else { 12 };
        let answered = self.acks != Acks::None;
        let correlation = connection.next_correlation();
        let (receiver, version, bytes) =
            match connection.version(ProduceRequest::KEY, (VERSIONS.0, newest)) {
                Ok(version) => {
                    let (segments, bytes) = protocol::encode_produce(
                        version,
                        correlation,
                        connection.client_id(),
                        None,
                        self.acks.wire(),
                        self.timeout_ms,
                        &topics,
                    );
                    let frame = Frame {
                        segments,
                        correlation,
                        api_key: ProduceRequest::KEY,
                        retry: retries,
                        answered,
                    };
                    (Ok(connection.send(frame)), version, bytes)
                }
                Err(e) => (Err(e), 0, 0),
            };
        drop(topics);
        self.metrics.batches_sent(items.len());
        self.leaders.sent(bytes, now);
        let alone = self.leaders.get(draft.leader).is_some_and(|leader| leader.sent(bytes, now));
        self.in_flight
            .insert(request, InFlight { leader: draft.leader, sent: now, bytes, alone, items });
        self.tasks.await_response(request, connection, receiver, version, answered);
    }
}
