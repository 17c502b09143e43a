//! What the fetcher does with responses: records go into the buffer, leader hints to the metadata, and
//! positions move on, or elsewhere if the leader's log is not the one that was read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::{EpochEndOffset, LeaderIdAndEpoch, PartitionData};
use tokio::time::Instant;

use super::silence::Kind;
use super::{Asked, Event, Failed, Fetcher};
use crate::cluster::LeaderHint;
use crate::cluster::list_offsets::FoundOffset;
use crate::config::{Endpoint, Isolation, Start};
use crate::consumer::budget::{Budget, Charge};
use crate::consumer::buffer::{ENTRY_BYTES, Fetched, Key, Then};
use crate::consumer::decode::aborted::{Aborted, Seen};
use crate::consumer::fetch::session::{Answer, Event as Session, Part};
use crate::consumer::position::Position;
use crate::consumer::reading::Reading;
use crate::consumer::slot::SlotId;
use crate::error::names::{
    INCONSISTENT_TOPIC_ID, NONE, OFFSET_OUT_OF_RANGE, UNKNOWN_SERVER_ERROR, UNKNOWN_TOPIC_ID,
    UNKNOWN_TOPIC_OR_PARTITION,
};
use crate::error::{Error, ErrorKind, ErrorScope, NOT_THE_PROTOCOL, Result, describe};
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
            Event::Epochs { leader, asked, sent, ends } => {
                self.troubles.waited_for(Some(leader));
                self.checked(leader, &asked, sent, ends, now);
            }
            Event::Overdue { leader, sent, error } => {
                // Who is read as a replica is left at once, and is nobody's trouble then.
                let asked = self.asked(leader);
                let left =
                    asked.iter().filter(|part| self.leaves_replica(part, leader, now)).count();
                if left > 0 && left == asked.len() {
                    return;
                }
                self.unanswered(leader, Kind::Fetch, sent, true, &error, now);
            }
            // What brokers of another cluster say means nothing to those that have their numbers now.
            Event::Response { leader, cluster, .. } if cluster != self.incarnation => {
                self.sources.entry(leader).or_default().in_flight = 0;
                self.troubles.waited_for(Some(leader));
            }
            Event::Response { leader, sent, version, response, .. } => {
                if let Ok(response) = &response {
                    self.came(leader, bytes_of(response), sent, now);
                }
                let source = self.sources.entry(leader).or_default();
                source.in_flight = 0;
                source.rests = Some(now);
                let before = source.version;
                source.version = version.or(before);
                if before != source.version {
                    // What they wait for depends on it.
                    source.wanted.iter().for_each(|slot| self.reading.touch(*slot));
                }
                self.troubles.waited_for(Some(leader));
                let now_is = |event, fetcher: &mut Self| fetcher.session(leader, event, now);
                match response {
                    Ok(response) => self.responded(leader, sent, response, now),
                    // It is asked again at once, as it should have been.
                    Err(Failed::OtherVersion) => now_is(Session::Unsent, self),
                    Err(Failed::Unsent(e)) => {
                        let asked = self.asked(leader);
                        now_is(Session::Unsent, self);
                        self.request_failed(leader, asked.iter(), &e, now);
                    }
                    Err(Failed::Lost(e)) => {
                        let asked = self.asked(leader);
                        now_is(Session::Lost, self);
                        self.request_failed(leader, asked.iter(), &e, now);
                        self.failed_unanswered(leader, Kind::Fetch, sent, &e, now);
                    }
                }
            }
        }
    }

    /// All that the broker was asked for, as the session has it: to be called before the session hears of the response.
    fn asked(&self, leader: i32) -> Vec<Asked> {
        let told = self.sources.get(&leader).into_iter().flat_map(|source| source.session.told());
        told.map(|(slot, told)| Asked::records(slot, told)).collect()
    }

    /// The session of a broker hears of a response.
    fn session(&mut self, leader: i32, event: Session<'_>, now: Instant) {
        let Some(source) = self.sources.get_mut(&leader) else { return };
        // It gives a session back only once the consumer has ended, which nothing comes after here.
        let _ = source.session.on(event, now, &mut self.rng);
    }

    /// A Fetch was answered.
    fn responded(&mut self, leader: i32, sent: Instant, response: FetchResponse, now: Instant) {
        self.count(leader, &response);
        let (session_id, throttled) = (response.session_id, response.throttle_time_ms > 0);
        let answer = |error, parts, strangers| {
            Session::Answered(Answer { error, session_id, throttled, parts, strangers })
        };
        if response.error_code != NONE {
            let error = Error::broker(response.error_code, "Fetch", None);
            let source = self.sources.entry(leader).or_default();
            // The session is gone, or not as was thought: that is asked for again at once, all of it. Of such a
            // request, which rests on nothing, any error is trouble.
            let all = source.session.asks_all() || !is_sessions(response.error_code);
            let asked = if all { self.asked(leader) } else { Vec::new() };
            self.session(leader, answer(response.error_code, &[], 0), now);
            if all {
                self.request_failed(leader, asked.iter(), &error, now);
            } else {
                limited!(self.pool.metrics().logs(), "ottla::consumer", DEBUG, broker = leader, error = %error.message(), "the fetch session is begun anew");
            }
            return;
        }
        let bytes = bytes_of(&response);
        let answered = self.answered(leader, response, now);
        self.session(leader, answer(NONE, &answered.parts, answered.strangers), now);
        let source = self.sources.entry(leader).or_default();
        source.spell.ended();
        source.silence.answered();
        source.pacing.answered(answered.brought, sent, &mut self.rng);
        source.trickle.answered(bytes, now);
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
            let leads = self.leader(&key).and_then(|(id, epoch)| (id == leader).then_some(epoch));
            let Some(reading) = self.reading.get_mut(part.slot) else { continue };
            // A seek came in between: this answers the old question.
            let is_of = part.is_of(reading);
            match result {
                Ok(at) if is_of => {
                    reading.next = Some(Position::at(at.offset, at.epoch));
                    reading.lags = reading.end.is_none_or(|end| at.offset < end);
                    reading.checked = leads.unwrap_or(NO_EPOCH);
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

    /// Buffers the records of a response.
    fn answered(&mut self, leader: i32, response: FetchResponse, now: Instant) -> Answered {
        self.responses += 1;
        let endpoints: Vec<(i32, Endpoint)> = response
            .node_endpoints
            .iter()
            .filter_map(|n| Some((n.node_id.0, Endpoint::of_broker(&n.host, n.port)?)))
            .collect();
        // Its batches are slices of one buffer.
        let charge = self.buffer.budget.response(bytes_of(&response));
        let mut again = None;
        let mut answered = Answered::default();
        let mut seen: HashSet<SlotId, foldhash::fast::RandomState> = HashSet::default();
        for topic in response.responses {
            for p in topic.partitions {
                let session = self.sources.get(&leader).map(|source| &source.session);
                let found =
                    session.and_then(|s| s.find(&topic.topic.0, topic.topic_id, p.partition_index));
                let Some((slot, told)) = found else {
                    answered.strangers += 1;
                    continue;
                };
                // If a response names a partition twice, the second part is ignored.
                if !seen.insert(slot) {
                    continue;
                }
                let part = Asked::records(slot, told);
                let good = p.error_code == NONE;
                let some = p.records.as_ref().is_some_and(|records| !records.is_empty());
                self.hint(&part, &p.current_leader, &endpoints);
                if p.error_code == NONE {
                    let (named, end) = (p.preferred_read_replica.0, self.end_of(&p));
                    answered.brought |= self.sent_on(&part, (leader, named), end, now);
                    self.says_end(&part, leader, end, now);
                }
                let parts = p.diverging_epoch.epoch >= 0 || p.diverging_epoch.end_offset >= 0;
                let leads = self.leader(&part.key).is_none_or(|(id, _)| id == leader);
                match p.error_code {
                    // A replica may be behind: what it does not have is nothing to go by.
                    code if (code != NONE || parts) && self.leaves_replica(&part, leader, now) => {
                        answered.brought = true;
                    }
                    // Nor is what comes late, of one that is not asked any more.
                    NONE if parts && !leads => {}
                    OFFSET_OUT_OF_RANGE if !leads => {}
                    NONE if parts => {
                        if let Err(error) = self.parted(&part, &p.diverging_epoch) {
                            self.partition_failed(slot, &error, now, &mut again);
                        }
                    }
                    NONE => {
                        answered.brought |= self.records(&part, p, &charge);
                    }
                    OFFSET_OUT_OF_RANGE => self.out_of_range(&part, p.log_start_offset),
                    code => {
                        if describe(code).refresh_metadata {
                            self.pool.metadata().want(&part.key.0, RefreshReason::Stale);
                        }
                        if self.is_asked_of(leader, &part) {
                            if is_of_a_stranger(code)
                                && let Some((reading, _)) = part.current(&mut self.reading)
                                && !std::mem::replace(&mut reading.doubted, true)
                            {
                                self.buffer.doubts(slot, part.incarnation, Some(now));
                            }
                            let error = Error::broker(code, name(&part.key), None);
                            self.partition_failed(slot, &error, now, &mut again);
                        }
                    }
                }
                let lags = good && self.reading.get(slot).is_some_and(|r| r.lags);
                answered.parts.push(Part { slot, brought: some, lags });
            }
        }
        // A response that a quota has delayed is empty, and says nothing.
        if response.throttle_time_ms == 0 || !seen.is_empty() {
            answered.strangers += self.not_answered(leader, &seen, now, &mut again);
            self.others_are_well(leader, now);
        }
        answered
    }

    /// Of what a response in a session leaves out nothing has changed: what failed before is well.
    fn others_are_well(&mut self, leader: i32, now: Instant) {
        let Some(source) = self.sources.get(&leader) else { return };
        let told = source.retrying.iter().filter(|slot| source.session.asked(**slot).is_some());
        let told: Vec<SlotId> = told.copied().collect();
        for slot in told {
            let waits = |reading: &Reading| reading.retry_at.is_some_and(|at| at > now);
            if !self.reading.get(slot).is_some_and(waits) {
                self.partition_is_well(slot);
            }
        }
    }

    /// What a response has to name and leaves out fails: all, if everything was asked for; in a session what the request has
    /// added, as the rest is as it was. Gives how many of these there are, since the broker may not have them.
    fn not_answered(
        &mut self,
        leader: i32,
        seen: &HashSet<SlotId, foldhash::fast::RandomState>,
        now: Instant,
        again: &mut Option<Instant>,
    ) -> usize {
        let Some(session) = self.sources.get(&leader).map(|source| &source.session) else {
            return 0;
        };
        let mut asked: Vec<Asked> = if session.asks_all() {
            self.asked(leader)
        } else {
            session.added().map(|(slot, told)| Asked::records(slot, told)).collect()
        };
        asked.retain(|part| !seen.contains(&part.slot) && self.is_asked_of(leader, part));
        asked.sort_by_key(|part| part.slot);
        for part in &asked {
            self.partition_failed(part.slot, &left_out(&part.key), now, again);
        }
        asked.len()
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

    /// Up to where records of a partition are given to this consumer.
    fn end_of(&self, p: &PartitionData) -> i64 {
        match self.buffer.config.isolation {
            Isolation::ReadCommitted => p.last_stable_offset,
            Isolation::ReadUncommitted => p.high_watermark,
        }
    }

    /// Buffers the records of one partition. Gives whether its position moved on.
    fn records(&mut self, part: &Asked, p: PartitionData, charge: &Arc<Charge>) -> bool {
        let committed = self.buffer.config.isolation == Isolation::ReadCommitted;
        let end = self.end_of(&p);
        // Where it ends is true all the same, and is not told twice in a session.
        if let Some(reading) = self.reading.get_mut(part.slot)
            && (&reading.key, reading.id) == (&part.key, part.id)
        {
            reading.end = Some(end);
        }
        // After a seek, or if the topic is another one, the records answer an old question and are ignored.
        // `true`, so that pacing does not take this for an empty response.
        let Some((reading, from)) = part.current(&mut self.reading) else { return true };
        reading.recovered();
        if std::mem::take(&mut reading.doubted) {
            self.buffer.doubts(part.slot, part.incarnation, None);
        }
        reading.checked = part.leader_epoch;
        let listed = p.aborted_transactions.unwrap_or_default().into_iter();
        let listed = listed.map(|listed| (listed.producer_id.0, listed.first_offset));
        let mut aborted = Aborted::new(listed.filter(|_| committed));
        let records = Budget::pin(p.records.unwrap_or_default(), charge);
        let mut next = from;
        let mut fetched = Vec::new();
        let mut damaged = None;
        let size = records.len();
        for raw in reader::split(records) {
            match raw {
                Ok(raw) => {
                    let shown = aborted.shows(&Seen {
                        last_offset: raw.last_offset,
                        producer_id: raw.producer_id,
                        transactional: raw.transactional,
                        control: raw.control.then(|| raw.first_key()),
                    });
                    if raw.last_offset < next.offset {
                        continue;
                    }
                    // Batches that overlap are no reason to hand out a record twice.
                    let at = next.offset;
                    next.pass(raw.base_offset, raw.last_offset, raw.leader_epoch);
                    // Markers of transactions are the broker's, not the application's; and of some batches compaction
                    // has left nothing but the header.
                    if !shown || raw.count == 0 && raw.payload().is_empty() {
                        continue;
                    }
                    fetched.push(Fetched { raw, from: at, frame: charge.bytes() });
                }
                Err(e) => {
                    reading.stopped = true;
                    damaged = Some(e.error_of(&part.key.0, part.key.1));
                    break;
                }
            }
        }
        reading.next = Some(next);
        reading.lags = next.offset < end;
        let moved = next.offset > from.offset;
        if moved {
            reading.turn.brought(self.responses);
        } else {
            reading.turn.came_empty(from.offset < end);
        }
        if let Some(topic) = self.topics.get_mut(&part.key.0) {
            topic.rights.ended();
        }
        self.pool.metrics().records_fetched(size);
        charge.add(fetched.len() * ENTRY_BYTES);
        self.part_from(charge, part.slot, size, &mut fetched);
        let ends = ((next.offset, next.epoch), end);
        self.buffer.push(part.slot, part.incarnation, fetched, ends);
        if let Some(error) = damaged {
            // Behind what came before the damage.
            self.buffer.tell(error, &[(part.slot, part.incarnation)], Then::Stays);
        }
        moved
    }

    /// What lies in the queue of a stream lies there for as long as that likes, and would keep a response that has come for
    /// others. So where much is kept it is copied, unless somebody waits for it.
    fn part_from(&self, charge: &Charge, slot: SlotId, size: usize, fetched: &mut [Fetched]) {
        let budget = &self.buffer.budget;
        let lies = self.own.get(&slot) == Some(&false) && size < charge.bytes() / 2;
        if !lies || budget.held() <= self.buffer.config.buffer_memory / 2 {
            return;
        }
        for Fetched { raw, frame, .. } in fetched {
            *raw = raw.copied(self.pool.buffers(), |chunk| budget.pin_chunk(chunk));
            *frame = raw.len_bytes();
        }
    }

    /// The leader's log differs from what was read: an election made a replica the leader that lacked some of
    /// it. A partition that began at earliest, latest or a timestamp goes on where the two logs part; one that
    /// began at an offset of the application stops until a seek.
    pub(super) fn parted(&mut self, part: &Asked, diverging: &EpochEndOffset) -> Result<()> {
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
        let then = if chosen { Then::Unknown } else { Then::At(to.offset, to.epoch) };
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

/// Whether a broker says that it has no such topic: it was deleted, or the broker is behind.
fn is_of_a_stranger(code: i16) -> bool {
    matches!(code, UNKNOWN_TOPIC_ID | INCONSISTENT_TOPIC_ID | UNKNOWN_TOPIC_OR_PARTITION)
}

fn name(key: &Key) -> String {
    format!("topic '{}' partition {}", key.0, key.1)
}

pub(super) fn left_out(key: &Key) -> Error {
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

/// How many bytes of records there are in it.
fn bytes_of(response: &FetchResponse) -> usize {
    let parts = response.responses.iter().flat_map(|topic| &topic.partitions);
    parts.filter_map(|p| p.records.as_ref()).map(Bytes::len).sum()
}

/// Whether an error is about the session that was named.
fn is_sessions(code: i16) -> bool {
    describe(code).scope == ErrorScope::Session
}

/// What a response had.
#[derive(Default)]
struct Answered {
    /// The position of a partition moved on.
    brought: bool,
    parts: Vec<Part>,
    /// How many of its partitions were not asked for.
    strangers: usize,
}
