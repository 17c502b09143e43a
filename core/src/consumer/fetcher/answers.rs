//! What the fetcher does with answers: records go into the buffer, hints to the metadata; what failed
//! is tried again or told to the application.

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use tokio::time::Instant;

use super::{Asked, Event, Fetcher};
use crate::cluster::LeaderHint;
use crate::config::Endpoint;
use crate::consumer::Start;
use crate::consumer::buffer::{Fetched, Key};
use crate::error::{Error, ErrorKind, Result, describe};
use crate::metrics::{Api, limited};
use crate::policy::ask::Why;
use crate::record::reader;

const OFFSET_OUT_OF_RANGE: i16 = 1;

impl Fetcher {
    pub(super) fn handle(&mut self, event: Event) {
        let now = self.env.now();
        match event {
            Event::Offsets(leader, found, generations) => {
                self.troubles.waited_for((leader >= 0).then_some(leader));
                let mut again = None;
                for (key, result) in found {
                    let Some(reading) = self.reading.get_mut(&key) else { continue };
                    reading.busy = false;
                    match result {
                        // A seek came in between: this is where the old start would have been.
                        Ok(_) if generations.get(&key) != Some(&reading.generation) => {}
                        Ok(offset) => {
                            reading.next.get_or_insert(offset);
                            reading.recovered();
                        }
                        Err(e) => self.trouble(&key, &e, now, &mut again),
                    }
                }
            }
            Event::Answer { leader, asked, answer } => {
                self.busy.insert(leader, 0);
                self.troubles.waited_for(Some(leader));
                for part in &asked {
                    if let Some(reading) = self.reading.get_mut(&part.key) {
                        reading.busy = false;
                    }
                }
                if let Ok(answer) = &answer {
                    self.count(leader, answer);
                }
                match answer.and_then(whole_answer) {
                    Ok(answer) => self.answered(&asked, answer, now),
                    Err(e) => {
                        let mut again = None;
                        for part in &asked {
                            self.pool.metadata().want(&part.key.0, Why::Lost);
                            self.trouble(&part.key, &e, now, &mut again);
                        }
                    }
                }
            }
        }
    }

    fn count(&self, leader: i32, answer: &FetchResponse) {
        let mut parts = answer.responses.iter().flat_map(|topic| &topic.partitions);
        if answer.error_code != 0 || parts.any(|p| p.error_code != 0) {
            self.pool.metrics().broker(leader).error_answer(Api::Fetch);
        }
    }

    /// Waits and tries again, or tells the application and stops, as the error says. What failed in
    /// one request is tried again at one time, `again`, which the first of them draws: with a delay
    /// for each partition the one request would come back as many.
    fn trouble(&mut self, key: &Key, error: &Error, now: Instant, again: &mut Option<Instant>) {
        let Some(reading) = self.reading.get_mut(key) else { return };
        // A missing topic is told by `learn`, and may be created yet.
        let passing = error.is_retriable()
            || error.broker_code().is_none()
            || error.kind() == ErrorKind::UnknownTopic;
        if passing {
            let delay = reading.backoff.next(&mut self.rng);
            reading.retry_at = Some(*again.get_or_insert(now + delay));
            // It may pass with this very broker, but somebody has to know if it does not.
            let foreign = matches!(
                error.kind(),
                ErrorKind::NotKafka | ErrorKind::UnsupportedVersion | ErrorKind::Authentication
            );
            if foreign
                && reading.backoff.attempts() > 1
                && !std::mem::replace(&mut reading.told, true)
            {
                self.buffer.fail(error.clone());
            }
            limited!(self.pool.metrics().logs(), "ottla::consumer", DEBUG, topic = %key.0, partition = key.1, error = %error.message(), "fetch");
        } else {
            reading.stopped = true;
            self.buffer.fail(error.clone());
        }
    }

    fn answered(&mut self, asked: &[Asked], answer: FetchResponse, now: Instant) {
        let endpoints: Vec<(i32, Endpoint)> = answer
            .node_endpoints
            .iter()
            .filter_map(|n| Some((n.node_id.0, Endpoint::of_broker(&n.host, n.port)?)))
            .collect();
        let mut again = None;
        for topic in answer.responses {
            for p in topic.partitions {
                let Some(part) = asked.iter().find(|a| {
                    a.key.1 == p.partition_index
                        && (*a.key.0 == *topic.topic.0
                            || (topic.topic.0.is_empty() && a.id == topic.topic_id))
                }) else {
                    continue;
                };
                if p.current_leader.leader_id.0 >= 0 {
                    let hint = LeaderHint {
                        partition: p.partition_index,
                        leader: p.current_leader.leader_id.0,
                        epoch: p.current_leader.leader_epoch,
                    };
                    let pool = &self.pool;
                    let named = pool.metadata().hint(
                        &part.key.0,
                        part.id,
                        &[hint],
                        &endpoints,
                        |all, named| {
                            pool.brokers_changed(all, named);
                        },
                    );
                    if !named.is_empty() {
                        self.pool.metrics().hint_applied();
                    }
                }
                match p.error_code {
                    0 => {
                        let records = p.records.unwrap_or_default();
                        self.records(part, records, p.high_watermark);
                    }
                    OFFSET_OUT_OF_RANGE => self.out_of_range(part, p.log_start_offset),
                    code => {
                        if describe(code).refresh_metadata {
                            self.pool.metadata().want(&part.key.0, Why::Stale);
                        }
                        let what = format!("topic '{}' partition {}", part.key.0, part.key.1);
                        self.trouble(&part.key, &Error::broker(code, what, None), now, &mut again);
                    }
                }
            }
        }
    }

    fn records(&mut self, part: &Asked, records: Bytes, high_watermark: i64) {
        let Some(reading) = self.reading.get_mut(&part.key) else { return };
        reading.recovered();
        reading.retry_at = None;
        // A seek happened meanwhile: the answer is to an old question.
        if reading.generation != part.generation || reading.next != Some(part.from) {
            return;
        }
        self.pool.metrics().records_fetched(records.len());
        let mut next = part.from;
        let mut fetched = Vec::new();
        for raw in reader::split(records) {
            match raw {
                Ok(raw) => {
                    if raw.last_offset < next {
                        continue;
                    }
                    next = raw.last_offset + 1;
                    // Markers of transactions are the broker's, not the application's.
                    if raw.control {
                        continue;
                    }
                    fetched.push(Fetched {
                        key: part.key.clone(),
                        raw,
                        from: part.from,
                        high_watermark,
                        generation: part.generation,
                    });
                }
                Err(e) => {
                    reading.stopped = true;
                    let what = format!("topic '{}' partition {}: {e}", part.key.0, part.key.1);
                    self.buffer.push(std::mem::take(&mut fetched));
                    self.buffer.fail(Error::new(ErrorKind::Corrupt, what));
                    break;
                }
            }
        }
        reading.next = Some(next);
        self.buffer.push(fetched);
    }

    /// The records at the position are gone (or never were).
    fn out_of_range(&mut self, part: &Asked, log_start: i64) {
        let Some(reading) = self.reading.get_mut(&part.key) else { return };
        if reading.generation != part.generation {
            return;
        }
        let (topic, partition) = &part.key;
        if let Start::Offset(_) = reading.start {
            reading.stopped = true;
            self.buffer.fail(Error::broker(
                OFFSET_OUT_OF_RANGE,
                format_args!(
                    "topic '{topic}' partition {partition}: offset {} (the log starts at {log_start})",
                    part.from
                ),
                None,
            ));
            return;
        }
        limited!(self.pool.metrics().logs(), "ottla::consumer", WARN, %topic, partition, offset = part.from, log_start, "offset out of range: reset");
        if let Start::Timestamp(_) = reading.start {
            reading.start = Start::Earliest;
        }
        reading.next = None;
    }
}

/// An answer as a whole may carry an error, too.
fn whole_answer(answer: FetchResponse) -> Result<FetchResponse> {
    match answer.error_code {
        0 => Ok(answer),
        code => Err(Error::broker(code, "Fetch", None)),
    }
}
