//! Fetch responses, encoded by hand: batches go out from where they lie in the log, and a generated
//! encoder would copy them into its buffer.

use bytes::{BufMut, Bytes, BytesMut};

use super::fetch::SESSIONS;
use super::{Call, Outcome};
use crate::error_code as code;
use crate::log::ServedBatch;
use crate::sessions::{Told, TopicKey, Wanted};
use crate::wire::{self, Response, put_unsigned};

/// First version with compact fields and tags.
const FLEXIBLE: i16 = 12;
/// First version whose responses name leaders, and their addresses (KIP-951).
const LEADERS: i16 = 16;
/// Batches up to this size are copied behind their heads: a piece of its own costs more.
const COPIED: usize = 2048;

#[derive(Default)]
pub(crate) struct FetchResponse {
    pub(crate) throttle_time_ms: i32,
    pub(crate) error_code: i16,
    pub(crate) session_id: i32,
    pub(crate) answers: Vec<Answer>,
}

/// A partition that was asked for, and what is said of it.
pub(crate) struct Answer {
    pub(crate) wanted: Wanted,
    pub(crate) part: PartResponse,
}

pub(crate) struct PartResponse {
    pub(crate) partition: i32,
    pub(crate) error_code: i16,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start: i64,
    /// Producer and first offset of aborted transactions; `None` for readers of everything.
    pub(crate) aborted: Option<Vec<(i64, i64)>>,
    /// Leader and its epoch, for those who asked the wrong broker.
    pub(crate) leader: Option<(i32, i32)>,
    /// Where the log and what the client has read part: an epoch and its end (KIP-595).
    pub(crate) diverging: Option<(i32, i64)>,
    /// The replica that the client is to read from instead (KIP-392).
    pub(crate) preferred: Option<i32>,
    pub(crate) batches: Vec<ServedBatch>,
}

impl PartResponse {
    pub(crate) fn new(partition: i32) -> Self {
        Self {
            partition,
            error_code: code::NONE,
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            aborted: None,
            leader: None,
            diverging: None,
            preferred: None,
            batches: Vec::new(),
        }
    }

    /// An error says nothing of the log, not even where it begins (`createLogReadResult`).
    pub(crate) fn error(partition: i32, error_code: i16) -> Self {
        Self { error_code, ..Self::new(partition) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.batches.iter().map(ServedBatch::len).sum()
    }

    /// Whether a long poll ends with it.
    pub(crate) fn is_urgent(&self) -> bool {
        self.error_code != code::NONE || self.diverging.is_some() || self.preferred.is_some()
    }

    pub(crate) fn told(&self) -> Told {
        Told {
            high_watermark: self.high_watermark,
            log_start: self.log_start,
            records: !self.batches.is_empty(),
            error: self.error_code != code::NONE,
            always: self.diverging.is_some() || self.preferred.is_some(),
        }
    }
}

pub(crate) fn encode(call: &Call<'_>, response: FetchResponse) -> Result<Outcome, String> {
    let FetchResponse { throttle_time_ms, error_code, session_id, answers } = response;
    let mut leaders: Vec<i32> =
        answers.iter().filter_map(|one| one.part.leader.map(|(leader, _)| leader)).collect();
    leaders.sort_unstable();
    leaders.dedup();

    let mut writer = Writer::new(call.version, call.correlation_id);
    writer.head.put_i32(throttle_time_ms);
    if call.version >= SESSIONS {
        writer.head.put_i16(error_code);
        writer.head.put_i32(session_id);
    }
    // Neighbours of one topic go together. A session reads in an order of its own, so that a topic
    // may come more than once.
    let topics = || answers.chunk_by(|a, b| a.wanted.key.topic == b.wanted.key.topic);
    writer.count(topics().count());
    let counts: Vec<usize> = topics().map(<[Answer]>::len).collect();
    let mut answers = answers.into_iter();
    for count in counts {
        for (at, Answer { wanted, part }) in answers.by_ref().take(count).enumerate() {
            if at == 0 {
                match &wanted.key.topic {
                    TopicKey::Id(id) => writer.head.put_slice(id.as_bytes()),
                    TopicKey::Name(name) => writer.string(name),
                }
                writer.count(count);
            }
            writer.partition(part);
        }
        writer.no_tags();
    }
    if call.version >= LEADERS && !leaders.is_empty() {
        writer.endpoints(call, &leaders);
    } else {
        writer.no_tags();
    }
    Ok(Outcome::Response(writer.finish()))
}

struct Writer {
    version: i16,
    flexible: bool,
    head: BytesMut,
    response: Response,
}

impl Writer {
    fn new(version: i16, correlation_id: i32) -> Self {
        let flexible = version >= FLEXIBLE;
        let mut head = BytesMut::with_capacity(512);
        wire::start(&mut head, correlation_id, flexible);
        Self { version, flexible, head, response: Response::default() }
    }

    fn count(&mut self, count: usize) {
        if self.flexible {
            put_unsigned(&mut self.head, count as u32 + 1);
        } else {
            self.head.put_i32(count as i32);
        }
    }

    /// An array that is not there.
    fn null(&mut self) {
        match self.flexible {
            true => self.head.put_u8(0),
            false => self.head.put_i32(-1),
        }
    }

    fn string(&mut self, text: &str) {
        put_string(&mut self.head, text, self.flexible);
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.head.put_u8(0);
        }
    }

    fn partition(&mut self, part: PartResponse) {
        self.head.put_i32(part.partition);
        self.head.put_i16(part.error_code);
        self.head.put_i64(part.high_watermark);
        self.head.put_i64(part.last_stable);
        if self.version >= 5 {
            self.head.put_i64(part.log_start);
        }
        match &part.aborted {
            None => self.null(),
            Some(aborted) => {
                self.count(aborted.len());
                for (producer_id, first) in aborted {
                    self.head.put_i64(*producer_id);
                    self.head.put_i64(*first);
                    self.no_tags();
                }
            }
        }
        if self.version >= 11 {
            self.head.put_i32(part.preferred.unwrap_or(-1));
        }
        self.count(part.bytes()); // bytes carry their length as arrays carry their count
        for batch in part.batches {
            self.head.put_slice(&batch.head);
            if batch.rest.len() <= COPIED {
                self.head.put_slice(&batch.rest);
            } else {
                self.flush();
                self.response.push(batch.rest);
            }
        }
        if !self.flexible {
            return;
        }
        let leader = part.leader.filter(|_| self.version >= LEADERS);
        let tags = u32::from(part.diverging.is_some()) + u32::from(leader.is_some());
        put_unsigned(&mut self.head, tags);
        if let Some((epoch, end)) = part.diverging {
            put_unsigned(&mut self.head, 0); // tag 0: diverging epoch
            put_unsigned(&mut self.head, 13);
            self.head.put_i32(epoch);
            self.head.put_i64(end);
            self.head.put_u8(0);
        }
        if let Some((leader, epoch)) = leader {
            put_unsigned(&mut self.head, 1); // tag 1: current leader
            put_unsigned(&mut self.head, 9);
            self.head.put_i32(leader);
            self.head.put_i32(epoch);
            self.head.put_u8(0);
        }
    }

    fn endpoints(&mut self, call: &Call<'_>, leaders: &[i32]) {
        let mut field = BytesMut::new();
        let brokers: Vec<_> = leaders.iter().filter_map(|id| call.shared.broker(*id)).collect();
        put_unsigned(&mut field, brokers.len() as u32 + 1);
        for broker in brokers {
            field.put_i32(broker.id);
            let (host, port) = broker.named_at();
            put_string(&mut field, &host, true);
            field.put_i32(i32::from(port));
            match &broker.rack {
                Some(rack) => put_string(&mut field, rack, true),
                None => field.put_u8(0),
            }
            field.put_u8(0);
        }
        put_unsigned(&mut self.head, 1);
        put_unsigned(&mut self.head, 0); // tag 0: node endpoints
        put_unsigned(&mut self.head, field.len() as u32);
        self.head.put_slice(&field);
    }

    fn flush(&mut self) {
        let piece: Bytes = self.head.split().freeze();
        self.response.push(piece);
    }

    fn finish(mut self) -> Response {
        self.flush();
        self.response.finish();
        self.response
    }
}

fn put_string(buf: &mut BytesMut, text: &str, flexible: bool) {
    if flexible {
        put_unsigned(buf, text.len() as u32 + 1);
    } else {
        buf.put_i16(text.len() as i16);
    }
    buf.put_slice(text.as_bytes());
}
