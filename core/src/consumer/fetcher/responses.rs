//! What the fetcher does with responses: records go into the buffer, leader hints to the metadata, and
//! positions move on, or elsewhere if the leader's log is not the one that was read.

use std::collections::HashMap;

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::{EpochEndOffset, LeaderIdAndEpoch};
use tokio::time::Instant;

use super::silence::Kind;
use super::{Asked, Event, Fetcher};
use crate::cluster::LeaderHint;
use crate::cluster::list_offsets::FoundOffset;
use crate::config::{Endpoint, Start};
use crate::consumer::buffer::{Fetched, Key, Then};
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
                if let Ok(response) = &response {
                    self.count(leader, response);
                }
                match response.and_then(whole_response) {
                    Ok(response) => {
                        let parts = response.responses.iter().flat_map(|topic| &topic.partitions);
                        let bytes: usize =
                            parts.filter_map(|p| p.records.as_ref()).map(Bytes::len).sum();
                        let brought = self.answered(leader, &asked, response, now);
                        let source = self.sources.entry(leader).or_default();
                        source.spell.ended();
                        source.silence.answered();
                        source.pacing.answered(brought, sent, &mut self.rng);
                        source.trickle.answered(bytes, now);
                    }
                    Err(e) => {
                        self.request_failed(leader, asked.iter(), &e, now);
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
        let mut left: HashMap<&Key, &Asked> = HashMap::with_capacity(asked.len());
        for part in asked {
            left.insert(&part.key, part);
            if let Some(reading) = self.reading.get_mut(part.slot)
                && part.is_of(reading)
            {
                reading.looking = false;
            }
        }
        let mut again = None;
        let mut unanswered = None;
        for (key, result) in found {
            let Some(part) = left.remove(&key) else { continue };
            let Some(reading) = self.reading.get_mut(part.slot) else { continue };
            // A seek came in between: this answers the old question.
            let is_of = part.is_of(reading);
            match result {
                Ok(at) if is_of => {
                    reading.next = Some(Position::at(at.offset, at.epoch));
                    self.begun(part.slot);
                    self.partition_is_well(part.slot);
                    let source = self.sources.entry(leader).or_default();
                    source.spell.ended();
                    source.starts_silence.answered();
                }
                Err(e) if is_requests(&e) => {
                    unanswered.get_or_insert((Vec::new(), e)).0.push(part);
                }
                Err(e) if is_of => self.partition_failed(part.slot, &e, now, &mut again),
                _ => {}
            }
        }
        if let Some((parts, error)) = unanswered {
            self.request_failed(leader, parts.into_iter(), &error, now);
            self.failed_unanswered(leader, Kind::ListOffsets, sent, &error, now);
        }
        for part in asked.iter().filter(|part| left.contains_key(&part.key)) {
            if self.is_asked_of(leader, part) {
                let error = left_out(&part.key);
                self.partition_failed(part.slot, &error, now, &mut again);
            }
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
    fn answered(
        &mut self,
        leader: i32,
        asked: &[Asked],
        response: FetchResponse,
        now: Instant,
    ) -> bool {
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
                            self.partition_failed(part.slot, &error, now, &mut again);
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
                        if self.is_asked_of(leader, part) {
                            let error = Error::broker(code, name(&part.key), None);
                            self.partition_failed(part.slot, &error, now, &mut again);
                        }
                    }
                }
            }
        }
        for (part, _) in asked.iter().zip(&answered).filter(|(_, answered)| !**answered) {
            if self.is_asked_of(leader, part) {
                self.partition_failed(part.slot, &left_out(&part.key), now, &mut again);
            }
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
        // After a seek, or if the topic is another one, the records answer an old question and are ignored.
        // `true`, so that pacing does not take this for an empty response.
        let Some((reading, from)) = part.current(&mut self.reading) else { return true };
        reading.recovered();
        let mut next = from;
        let mut fetched = Vec::new();
        let mut damaged = None;
        let size = records.len();
        for raw in reader::split(records) {
            match raw {
                Ok(raw) => {
                    if raw.last_offset < next.offset {
                        continue;
                    }
                    // Batches that overlap are no reason to hand out a record twice.
                    let at = next.offset;
                    next.pass(raw.base_offset, raw.last_offset, raw.leader_epoch);
                    // Markers of transactions are the broker's, not the application's; and of some batches compaction
                    // has left nothing but the header.
                    if raw.control || raw.count == 0 && raw.payload().is_empty() {
                        continue;
                    }
                    fetched.push(Fetched { raw, from: at });
                }
                Err(e) => {
                    reading.stopped = true;
                    damaged = Some(e.error(name(&part.key)));
                    break;
                }
            }
        }
        reading.next = Some(next);
        reading.lags = next.offset < high_watermark;
        let moved = next.offset > from.offset;
        if moved {
            reading.turn.brought(self.responses);
        } else {
            reading.turn.came_empty(from.offset < high_watermark);
        }
        if let Some(topic) = self.topics.get_mut(&part.key.0) {
            topic.rights.ended();
        }
        self.pool.metrics().records_fetched(size);
        let ends = (next.offset, high_watermark);
        self.buffer.push(part.slot, part.incarnation, fetched, ends);
        if let Some(error) = damaged {
            // Behind what came before the damage.
            self.buffer.tell(error, &[(part.slot, part.incarnation)], Then::Stays);
        }
        moved
    }

    /// The leader's log differs from what was read: an election made a replica the leader that lacked some of
    /// it. A partition that began at earliest, latest or a timestamp goes on where the two logs part; one that
    /// began at an offset of the application stops until a seek.
    fn parted(&mut self, part: &Asked, diverging: &EpochEndOffset) -> Result<()> {
        let Some((reading, from)) = part.current(&mut self.reading) else { return Ok(()) };
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
            self.partition_is_well(part.slot);
            return Ok(());
        }
        self.partition_is_well(part.slot);
        let Some(reading) = self.reading.get_mut(part.slot) else { return Ok(()) };
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
        let then = if chosen { Then::Unknown } else { Then::At(to.offset) };
        let error = Error::new(ErrorKind::Truncated, message);
        self.buffer.tell(error, &[(part.slot, part.incarnation)], then);
        Ok(())
    }

    /// The records at the position are gone (or never were). The application is told before reading goes on elsewhere:
    /// what lies between is not read.
    fn out_of_range(&mut self, part: &Asked, log_start: i64) {
        let Some((reading, from)) = part.current(&mut self.reading) else { return };
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
        let what = format!("{}: offset {}{starts}", name(&part.key), from.offset);
        let of = [(part.slot, part.incarnation)];
        let on = match reading.reset {
            Start::Offset(_) => {
                reading.stopped = true;
                self.buffer.tell(Error::broker(OFFSET_OUT_OF_RANGE, what, None), &of, Then::Stays);
                return;
            }
            Start::Latest => "its end: what was written until then is not read",
            Start::Earliest | Start::Timestamp(_) => "its oldest record",
        };
        reading.begin_again();
        limited!(self.pool.metrics().logs(), "ottla::consumer", WARN, %topic, partition, offset = from.offset, log_start, "offset out of range: reset");
        let error = Error::broker(
            OFFSET_OUT_OF_RANGE,
            format_args!("{what}; the partition is read on from {on}"),
            None,
        );
        self.buffer.tell(error.advise(GONE), &of, Then::Unknown);
    }
}

const GONE: &str = "nothing, if these records may be missed; otherwise keep them for longer (retention), or \
                    read faster";

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
