//! What a response to a Produce request says of each batch: written, refused, or in doubt. What becomes of batches that
//! were not written is in [`retry`](super::retry).

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::produce_response::BatchIndexAndErrorMessage;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::Request;
use tokio::time::Instant;

use super::Sender;
use super::request::{InFlight, SentBatch};
use crate::cluster::LeaderHint;
use crate::config::Endpoint;
use crate::error::names::{
    INVALID_PRODUCER_EPOCH, MESSAGE_TOO_LARGE, NONE, OUT_OF_ORDER_SEQUENCE_NUMBER,
    RECORD_LIST_TOO_LARGE, UNKNOWN_PRODUCER_ID,
};
use crate::error::{
    Error, ErrorKind, ErrorScope, NOT_THE_PROTOCOL, Written, definitely_unwritten, describe,
};
use crate::metrics::{Api, limited};
use crate::net::CallError;
use crate::policy::metadata_refresh::RefreshReason;
use crate::producer::batch::{FailureCause, SplitPlan};
use crate::producer::delivery::BatchAck;
use crate::protocol::NO_OFFSET;

/// The response of one partition.
struct PartitionResponse<'a> {
    code: i16,
    base_offset: i64,
    append_time: i64,
    message: Option<&'a str>,
    record_errors: &'a [BatchIndexAndErrorMessage],
}

impl Sender {
    /// A request was answered, or never will be: decides what that means for each of its batches.
    pub(in crate::producer) fn answered(
        &mut self,
        request: u64,
        response: Result<Option<ProduceResponse>, CallError>,
    ) {
        let Some(sent) = self.in_flight.remove(&request) else { return };
        let now = self.env.now();
        self.retry_times.clear();
        if let Some(leader) = self.leaders.get(sent.leader) {
            leader.returned(sent.bytes);
        }
        if response.is_ok() {
            let records = sent.items.iter().map(|item| item.records).sum();
            self.metrics.produce_answered(records, sent.items.iter().all(|item| item.hasty), now);
        }
        match response {
            Ok(Some(response)) => self.parts(&sent, &response, now),
            Ok(None) => {
                for item in &sent.items {
                    self.acknowledged(sent.leader, item, NO_OFFSET, None);
                }
            }
            Err(error) => self.unanswered(&sent, &error, now),
        }
        for item in &sent.items {
            self.settle(&item.topic, item.partition);
        }
    }

    /// Finds the part of the response that belongs to each batch of the request, and acts on it.
    fn parts(&mut self, sent: &InFlight, response: &ProduceResponse, now: Instant) {
        if let Some(leader) = self.leaders.get(sent.leader) {
            let sent_at = leader.connection().map_or(sent.sent, |c| c.at_work_since(sent.sent));
            let took = now.saturating_duration_since(sent_at);
            leader.answered(took);
            let since = leader.at_work_since(sent_at, now);
            // A refusal is quick, however long an append takes.
            let mut codes = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            if codes.all(|p| p.error_code == NONE)
                && self.schedule.ran_since(sent.sent)
                && let Some(pool) = self.tasks.pool()
            {
                let took = now.saturating_duration_since(since);
                leader.felt(took, pool.pace().limits(), now, &mut self.pace_rng);
            }
            if let Some(connection) = leader.connection() {
                connection.heed(ProduceRequest::KEY, response);
            }
        }
        let mut parts: Vec<((&str, uuid::Uuid, i32), PartitionResponse<'_>)> =
            Vec::with_capacity(sent.items.len());
        let mut hints: HashMap<(&str, uuid::Uuid), Vec<LeaderHint>> = HashMap::new();
        for topic in &response.responses {
            let key = (topic.name.0.as_str(), topic.topic_id);
            for p in &topic.partition_responses {
                let part = PartitionResponse {
                    code: p.error_code,
                    base_offset: p.base_offset,
                    append_time: p.log_append_time_ms,
                    message: p.error_message.as_deref(),
                    record_errors: &p.record_errors,
                };
                parts.push(((key.0, key.1, p.index), part));
                if p.current_leader.leader_id.0 >= 0 {
                    hints.entry(key).or_default().push(LeaderHint {
                        partition: p.index,
                        leader: p.current_leader.leader_id.0,
                        epoch: p.current_leader.leader_epoch,
                    });
                }
            }
        }
        // Versions before 13 name topics, 13 identifies them.
        let is = |item: &SentBatch, (name, id, partition): &(&str, uuid::Uuid, i32)| {
            *partition == item.partition
                && (if id.is_nil() { *name == &*item.topic } else { *id == item.id })
        };
        // Brokers answer in the order of the request, but the protocol does not say that they must.
        let in_order = parts.len() == sent.items.len()
            && parts.iter().zip(&sent.items).all(|((key, _), item)| is(item, key));
        let by_key: HashMap<_, _> = match in_order {
            true => HashMap::new(),
            false => parts.iter().map(|(key, part)| (*key, part)).collect(),
        };
        if !in_order && by_key.len() < parts.len() {
            // It is unknown which of the two is true. The batches are sent again in place; the broker then
            // tells what it has.
            let words = "the answer to Produce names a partition twice";
            let error =
                CallError::InDoubt(Error::new(ErrorKind::NotKafka, words).advise(NOT_THE_PROTOCOL));
            return self.unanswered(sent, &error, now);
        }
        if parts.iter().any(|(_, part)| part.code != NONE) {
            self.metrics.broker(sent.leader).error_response(Api::Produce);
        }
        let own_fault = |code: i16| describe(code).own_fault;
        self.judge(sent.leader, !parts.iter().all(|(_, part)| own_fault(part.code)), now);
        let endpoints: Vec<(i32, Endpoint)> = response
            .node_endpoints
            .iter()
            .filter_map(|n| Some((n.node_id.0, Endpoint::of_broker(&n.host, n.port)?)))
            .collect();
        for (at, item) in sent.items.iter().enumerate() {
            let found = match in_order {
                true => Some(&parts[at].1),
                false => by_key
                    .get(&(&*item.topic, uuid::Uuid::nil(), item.partition))
                    .or_else(|| by_key.get(&("", item.id, item.partition)))
                    .copied(),
            };
            let Some(part) = found else {
                let e = Error::broker(
                    -1,
                    format_args!("topic '{}': the response leaves it out", item.topic),
                    None,
                );
                self.failed(item, &e, false, now);
                continue;
            };
            let hint = match hints.is_empty() {
                true => None,
                false => hints
                    .get(&(&*item.topic, uuid::Uuid::nil()))
                    .or_else(|| hints.get(&("", item.id))),
            };
            if let Some(hint) = hint {
                let tasks = &self.tasks;
                let named =
                    self.metadata.hint(&item.topic, item.id, hint, &endpoints, |all, named| {
                        if let Some(pool) = tasks.pool() {
                            pool.brokers_changed(all, named);
                        }
                    });
                if !named.is_empty() {
                    self.metrics.hint_applied();
                }
            }
            self.part(sent.leader, item, part, now);
        }
    }

    /// What a broker says of one batch: written, refused, or in doubt.
    fn part(&mut self, leader: i32, item: &SentBatch, part: &PartitionResponse<'_>, now: Instant) {
        let row = describe(part.code);
        if row.written == Written::Yes {
            let base_offset = if part.code == NONE { part.base_offset } else { NO_OFFSET };
            let append_time = (part.append_time >= 0).then_some(part.append_time);
            return self.acknowledged(leader, item, base_offset, append_time);
        }
        let what = format!("topic '{}' partition {}", item.topic, item.partition);
        // If the batch has one record, the record's own message takes the place of the partition's.
        let own = part.record_errors.first().filter(|_| item.records == 1);
        let words = own.and_then(|bad| bad.batch_index_error_message.as_deref());
        let error = Error::broker(part.code, what, words.or(part.message));
        match part.code {
            OUT_OF_ORDER_SEQUENCE_NUMBER => {
                // Refused before the append. If an older batch of the partition is unresolved, this error
                // only follows from that one.
                let Some(partition) = self.topics.partition(item) else { return };
                if partition.has_older(item.batch) {
                    self.failed(item, &error, true, now);
                } else {
                    self.out_of_sequence(item, &error, now);
                }
            }
            UNKNOWN_PRODUCER_ID | INVALID_PRODUCER_EPOCH => {
                self.out_of_sequence(item, &error, now);
            }
            code => {
                let definite = definitely_unwritten(code, part.base_offset);
                if row.retriable {
                    // The response itself may have named the new leader.
                    let moved = row.refresh_metadata && self.led_elsewhere(item, leader);
                    if row.refresh_metadata && !moved {
                        self.metadata.want(&item.topic, RefreshReason::Stale);
                    }
                    self.failed_with(item, &error, definite, moved, now);
                } else if let Some(plan) = self.plan(item, part, &error, definite) {
                    self.taken_apart(item, code, plan);
                } else {
                    self.refused(item, &error, definite);
                }
            }
        }
    }

    fn acknowledged(
        &mut self,
        broker: i32,
        item: &SentBatch,
        base_offset: i64,
        append_time: Option<i64>,
    ) {
        let Some(partition) = self.topics.partition(item) else { return };
        let batch = partition.acknowledged(item.batch);
        // These batches lie before the acknowledged one in the log, so all in-sync replicas have them, too.
        let proven = partition.take_in_log();
        let partition = item.partition;
        for batch in proven {
            batch.acknowledged(
                broker,
                BatchAck { partition, base_offset: NO_OFFSET, append_time: None },
            );
        }
        if let Some(batch) = batch {
            batch.acknowledged(broker, BatchAck { partition, base_offset, append_time });
        }
    }

    /// How to take a batch apart that the broker refuses for some of its records or for its size. `None` if that does not
    /// help: it has a single record, or an earlier attempt may have written it.
    fn plan(
        &mut self,
        item: &SentBatch,
        part: &PartitionResponse<'_>,
        error: &Error,
        definite: bool,
    ) -> Option<SplitPlan> {
        let concerns_records = describe(part.code).scope == ErrorScope::Record;
        let certain = definite && !self.topics.partition(item)?.in_doubt(item.batch);
        if !concerns_records || !certain || item.records < 2 {
            return None;
        }
        let of = |bad: &BatchIndexAndErrorMessage| {
            let index = u32::try_from(bad.batch_index).ok()?;
            let what = format!("topic '{}' partition {}", item.topic, item.partition);
            let words = bad.batch_index_error_message.as_deref();
            let own = words.map(|words| Error::broker(part.code, what, Some(words)));
            let known = (index as usize) < item.records;
            known.then(|| (index, own.unwrap_or_else(|| error.clone())))
        };
        let bad: BTreeMap<_, _> = part.record_errors.iter().filter_map(of).collect();
        Some(if bad.is_empty() { SplitPlan::Halves } else { SplitPlan::Without(bad.into()) })
    }

    pub(super) fn taken_apart(&mut self, item: &SentBatch, code: i16, plan: SplitPlan) {
        limited!(self.metrics.logs(), "ottla::producer", DEBUG, topic = %item.topic, partition = item.partition, records = item.records,
            "a refused batch is taken apart");
        let too_large = matches!(code, MESSAGE_TOO_LARGE | RECORD_LIST_TOO_LARGE);
        if too_large
            && let Some(topic) = self.topics.get(&item.topic)
            && let Some(batch) = topic.batch(item)
        {
            let bytes = batch.sealed.uncompressed_len();
            topic.topic_batches.iter().for_each(|(_, batches)| batches.refused_batch_of(bytes));
        }
        if let Some(partition) = self.topics.partition(item) {
            partition.failed(item.batch, true, FailureCause::Split(plan));
        }
    }

    /// The broker will never take the batch: its records fail, other batches of the partition go on.
    pub(super) fn refused(&mut self, item: &SentBatch, error: &Error, definite: bool) {
        let Some(partition) = self.topics.partition(item) else { return };
        partition.failed(item.batch, definite, FailureCause::Failed);
        if let Some((batch, maybe)) = partition.give_up(item.batch) {
            batch.resolve(Err(error.with_maybe_written(maybe)));
        }
    }

    /// The broker knows other sequences of this producer than the batch's, and refuses it: its log has lost acknowledged
    /// records, or it has forgotten batches that are in its log.
    fn out_of_sequence(&mut self, item: &SentBatch, error: &Error, now: Instant) {
        limited!(self.metrics.logs(), "ottla::producer", WARN, topic = %item.topic, partition = item.partition, error = %error.message(),
            "the broker does not know this producer's earlier records");
        if let Some(topic) = self.topics.get_mut(&item.topic) {
            topic.trouble = Some(error.clone());
        }
        self.delay_retry(item, false, now);
        if let Some(partition) = self.topics.partition(item) {
            partition.out_of_sequence(item.batch);
        }
    }

    pub(super) fn judge(&mut self, leader: i32, well: bool, now: Instant) {
        if let Some(pool) = self.tasks.pool()
            && let Some(leader) = self.leaders.get(leader)
        {
            pool.judge(leader.broker(), well, now);
        }
    }
}
