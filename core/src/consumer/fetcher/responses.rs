//! What the fetcher does with responses: records go into the buffer, leader hints to the metadata, and
//! positions move on, or elsewhere if the leader's log is not the one that was read.

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::{EpochEndOffset, LeaderIdAndEpoch};
use tokio::time::Instant;

use super::silence::Kind;
use super::{Asked, Event, Fetcher};
use crate::cluster::LeaderHint;
use crate::cluster::list_offsets::FoundOffset;
use crate::config::{Endpoint, Start};
use crate::consumer::buffer::{FetchedBatch, Key, Moved};
use crate::consumer::position::Position;
use crate::error::names::{NONE, OFFSET_OUT_OF_RANGE, UNKNOWN_SERVER_ERROR};
use crate::error::{Error, ErrorKind, NOT_THE_PROTOCOL, Result, describe};
use crate::metrics::{Api, limited};
use crate::policy::metadata_refresh::RefreshReason;
use crate::protocol::NO_EPOCH;
use crate::record::reader;

impl Fetcher {
    pub(super) fn handle(&mut self, event: Event) {
        let now = self.env.now();
        match event {
            Event::Offsets { leader, asked, sent, found } => {
                self.troubles.waited_for(Some(leader));
                self.started(leader, &asked, sent, found, now);
            }
            Event::Overdue { leader, sent, error } => {
                self.unanswered(leader, Kind::Fetch, sent, true, &error, now);
            }
            Event::Response { leader, asked, sent, went, response } => {
                let source = self.sources.entry(leader).or_default();
                source.in_flight = 0;
                self.troubles.waited_for(Some(leader));
                for part in &asked {
                    if let Some(reading) = self.reading.get_mut(&part.key) {
                        reading.busy = false;
                    }
                }
                if let Ok(response) = &response {
                    self.count(leader, response);
                }
                match response.and_then(whole_response) {
                    Ok(response) => {
                        let parts = response.responses.iter().flat_map(|topic| &topic.partitions);
                        let bytes: usize =
                            parts.filter_map(|p| p.records.as_ref()).map(Bytes::len).sum();
                        let brought = self.answered(&asked, response, now);
                        let source = self.sources.entry(leader).or_default();
                        source.spell.ended();
                        source.silence.answered();
                        source.pacing.answered(brought, sent, &mut self.rng);
                        source.trickle.answered(bytes, now);
                    }
                    Err(e) => {
                        let keys = asked.iter().map(|part| &part.key);
                        self.request_failed(leader, keys, &e, now);
                        if went {
                            self.failed_unanswered(leader, Kind::Fetch, sent, &e, now);
                        }
                    }
                }
            }
        }
    }

    /// ListOffsets was answered: partitions begin at the offsets that were found.
    fn started(
        &mut self,
        leader: i32,
        asked: &[Asked],
        sent: Instant,
        found: Vec<(Key, Result<FoundOffset>)>,
        now: Instant,
    ) {
        for part in asked {
            if let Some(reading) = self.reading.get_mut(&part.key) {
                reading.busy = false;
            }
        }
        let mut again = None;
        let mut unanswered = None;
        let mut rest: Vec<&Key> = asked.iter().map(|part| &part.key).collect();
        for (key, result) in found {
            rest.retain(|left| **left != key);
            let Some(part) = asked.iter().find(|part| part.key == key) else { continue };
            let Some(reading) = self.reading.get_mut(&key) else { continue };
            match result {
                // A seek came in between: this offset answers the old question.
                Ok(_) if !part.is_of(reading) => {}
                Ok(at) => {
                    reading.next = Some(Position::at(at.offset, at.epoch));
                    self.partition_is_well(&key);
                    let source = self.sources.entry(leader).or_default();
                    source.spell.ended();
                    source.starts_silence.answered();
                }
                Err(e) if is_requests(&e) => unanswered.get_or_insert((Vec::new(), e)).0.push(key),
                Err(e) => self.partition_failed(&key, &e, now, &mut again),
            }
        }
        if let Some((keys, error)) = unanswered {
            self.request_failed(leader, keys.iter(), &error, now);
            self.failed_unanswered(leader, Kind::ListOffsets, sent, &error, now);
        }
        for key in rest {
            let error = left_out(key);
            self.partition_failed(key, &error, now, &mut again);
        }
    }

    /// Counts a response that carries an error code, of its own or of a partition.
    fn count(&self, leader: i32, response: &FetchResponse) {
        let mut parts = response.responses.iter().flat_map(|topic| &topic.partitions);
        if response.error_code != NONE || parts.any(|p| p.error_code != NONE) {
            self.pool.metrics().broker(leader).error_response(Api::Fetch);
        }
    }

    /// Buffers the records of a response. Gives whether the position of any partition moved on.
    fn answered(&mut self, asked: &[Asked], response: FetchResponse, now: Instant) -> bool {
        self.responses += 1;
        let endpoints: Vec<(i32, Endpoint)> = response
            .node_endpoints
            .iter()
            .filter_map(|n| Some((n.node_id.0, Endpoint::of_broker(&n.host, n.port)?)))
            .collect();
        let mut again = None;
        let mut brought = false;
        let mut answered = vec![false; asked.len()];
        // Responses come in the order of the request, as a rule.
        let mut next = 0;
        for topic in response.responses {
            for p in topic.partitions {
                let is_it = |a: &Asked| {
                    a.key.1 == p.partition_index
                        && (*a.key.0 == *topic.topic.0
                            || (topic.topic.0.is_empty() && a.id == topic.topic_id))
                };
                let expected = asked.get(next).is_some_and(is_it).then_some(next);
                let Some(at) = expected.or_else(|| asked.iter().position(is_it)) else { continue };
                next = at + 1;
                // If a response names a partition twice, the second part is ignored.
                if std::mem::replace(&mut answered[at], true) {
                    continue;
                }
                let part = &asked[at];
                self.hint(part, &p.current_leader, &endpoints);
                match p.error_code {
                    NONE if p.diverging_epoch.epoch >= 0 || p.diverging_epoch.end_offset >= 0 => {
                        if let Err(error) = self.parted(part, &p.diverging_epoch) {
                            self.partition_failed(&part.key, &error, now, &mut again);
                        }
                    }
                    NONE => {
                        let records = p.records.unwrap_or_default();
                        brought |= self.records(part, records, p.high_watermark);
                    }
                    OFFSET_OUT_OF_RANGE => self.out_of_range(part, p.log_start_offset),
                    code => {
                        if describe(code).refresh_metadata {
                            self.pool.metadata().want(&part.key.0, RefreshReason::Stale);
                        }
                        let error = Error::broker(code, name(&part.key), None);
                        self.partition_failed(&part.key, &error, now, &mut again);
                    }
                }
            }
        }
        for (part, _) in asked.iter().zip(&answered).filter(|(_, answered)| !**answered) {
            self.partition_failed(&part.key, &left_out(&part.key), now, &mut again);
        }
        brought
    }

    fn hint(&self, part: &Asked, leader: &LeaderIdAndEpoch, endpoints: &[(i32, Endpoint)]) {
        if leader.leader_id.0 < 0 {
            return;
        }
        let hint = LeaderHint {
            partition: part.key.1,
            leader: leader.leader_id.0,
            epoch: leader.leader_epoch,
        };
        let pool = &self.pool;
        let named = pool.metadata().hint(&part.key.0, part.id, &[hint], endpoints, |all, named| {
            pool.brokers_changed(all, named);
        });
        if !named.is_empty() {
            self.pool.metrics().hint_applied();
        }
    }

    /// Buffers the records of one partition. Gives whether its position moved on.
    fn records(&mut self, part: &Asked, records: Bytes, high_watermark: i64) -> bool {
        self.partition_is_well(&part.key);
        let Some(reading) = self.reading.get_mut(&part.key) else { return false };
        // After a seek, or if the topic is another one, the records answer an old question and are ignored.
        // `true`, so that pacing does not take this for an empty response.
        let (true, Some(from)) = (part.is_of(reading), part.from) else { return true };
        self.pool.metrics().records_fetched(records.len());
        let mut next = from;
        let mut fetched = Vec::new();
        for raw in reader::split(records) {
            match raw {
                Ok(raw) => {
                    if raw.last_offset < next.offset {
                        continue;
                    }
                    next.pass(raw.base_offset, raw.last_offset, raw.leader_epoch);
                    // Markers of transactions are the broker's, not the application's.
                    if raw.control {
                        continue;
                    }
                    fetched.push(FetchedBatch {
                        key: part.key.clone(),
                        raw,
                        from: from.offset,
                        high_watermark,
                        generation: part.generation,
                    });
                }
                Err(e) => {
                    reading.stopped = true;
                    let what = name(&part.key);
                    self.buffer.push(std::mem::take(&mut fetched));
                    self.buffer.fail(e.error(what));
                    break;
                }
            }
        }
        reading.next = Some(next);
        reading.lags = next.offset < high_watermark;
        self.buffer.push(fetched);
        let moved = next.offset > from.offset;
        if moved {
            reading.turn.brought(self.responses);
        } else {
            reading.turn.came_empty(from.offset < high_watermark);
        }
        moved
    }

    /// The leader's log differs from what was read: an election made a replica the leader that lacked some of
    /// it. A partition that began at earliest, latest or a timestamp goes on where the two logs part; one that
    /// began at an offset of the application stops until a seek.
    fn parted(&mut self, part: &Asked, diverging: &EpochEndOffset) -> Result<()> {
        let Some(reading) = self.reading.get_mut(&part.key) else { return Ok(()) };
        let (true, Some(from)) = (part.is_of(reading), part.from) else { return Ok(()) };
        let to = from.parted(diverging.epoch, diverging.end_offset);
        if to.offset >= from.offset {
            // Nothing that was read is missing, only its leader epoch has another number. If the leader names
            // the epoch that it was told, the next Fetch sends none: otherwise the leader would give the same
            // answer for ever.
            let same = diverging.epoch >= from.epoch;
            reading.next = Some(if same { Position::at(from.offset, NO_EPOCH) } else { to });
            if from.epoch < 0 {
                let words = format!(
                    "{}: the leader says that its log parts in epoch {} from what was read, and was told \
                     no epoch",
                    name(&part.key),
                    diverging.epoch,
                );
                return Err(Error::new(ErrorKind::NotKafka, words).advise(NOT_THE_PROTOCOL));
            }
            self.partition_is_well(&part.key);
            return Ok(());
        }
        self.partition_is_well(&part.key);
        let Some(reading) = self.reading.get_mut(&part.key) else { return Ok(()) };
        let chosen = matches!(reading.reset, Start::Offset(_));
        let on = if chosen {
            reading.stopped = true;
            "it is read again after a seek".to_owned()
        } else {
            reading.next = Some(to);
            reading.turn = crate::policy::turns::Turn::new();
            format!("it is read on from offset {}", to.offset)
        };
        let (topic, partition) = &part.key;
        limited!(self.pool.metrics().logs(), "ottla::consumer", WARN, %topic, partition, read = from.offset, end = to.offset, "the log was cut back");
        let message = format!(
            "{}: the log was cut back to offset {}, after it was read up to offset {}: what was between \
             is lost or was written anew; {on}",
            name(&part.key),
            to.offset,
            from.offset,
        );
        let next = (!chosen).then_some(to.offset);
        let error = Error::new(ErrorKind::Truncated, message);
        let generation = part.generation;
        self.buffer.moved(error, vec![Moved { key: part.key.clone(), next, generation }]);
        Ok(())
    }

    /// The records at the position are gone (or never were).
    fn out_of_range(&mut self, part: &Asked, log_start: i64) {
        let Some(reading) = self.reading.get_mut(&part.key) else { return };
        let (true, Some(from)) = (part.is_of(reading), part.from) else { return };
        let (topic, partition) = &part.key;
        // A broker that does not know the position's leader epoch gives this error, too. So the next Fetch
        // sends only the offset.
        if from.epoch >= 0 {
            limited!(self.pool.metrics().logs(), "ottla::consumer", DEBUG, %topic, partition, offset = from.offset, epoch = from.epoch, "out of range: by its epoch?");
            reading.next = Some(Position::at(from.offset, NO_EPOCH));
            return;
        }
        // Most brokers do not tell where the log starts.
        let starts = match log_start {
            ..0 => String::new(),
            start => format!(" (the log starts at {start})"),
        };
        if let Start::Offset(_) = reading.reset {
            reading.stopped = true;
            self.buffer.fail(Error::broker(
                OFFSET_OUT_OF_RANGE,
                format_args!("{}: offset {}{starts}", name(&part.key), from.offset),
                None,
            ));
            return;
        }
        limited!(self.pool.metrics().logs(), "ottla::consumer", WARN, %topic, partition, offset = from.offset, log_start, "offset out of range: reset");
        reading.begin_again();
    }
}

fn name(key: &Key) -> String {
    format!("topic '{}' partition {}", key.0, key.1)
}

fn left_out(key: &Key) -> Error {
    Error::broker(
        UNKNOWN_SERVER_ERROR,
        format_args!("{}: the response leaves it out", name(key)),
        None,
    )
}

/// Whether an error is about the request, and not about what a partition's response said.
fn is_requests(error: &Error) -> bool {
    error.broker_code().is_none() && error.kind() != ErrorKind::UnknownPartition
}

/// A response as a whole may carry an error, too.
fn whole_response(response: FetchResponse) -> Result<FetchResponse> {
    match response.error_code {
        NONE => Ok(response),
        code => Err(Error::broker(code, "Fetch", None)),
    }
}
