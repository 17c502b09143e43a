//! A broker as far as sessions go: logs have lengths only, and a response has room for the records of one partition.

use std::collections::BTreeMap;

use super::super::*;

const UNKNOWN_TOPIC_ID: i16 = 100;
const NOT_LEADER: i16 = 6;
pub(super) const OUT_OF_RANGE: i16 = 1;

/// As many of its records.
pub(super) const RECORDS: i64 = 3;

pub(super) struct Log {
    pub(super) of: PartitionRef,
    pub(super) end: i64,
    pub(super) broken: bool,
}

/// What a broker keeps of a partition in a session.
pub(super) struct Cached {
    pub(super) told: Told,
    pub(super) high_watermark: i64,
}

pub(super) struct Kept {
    pub(super) epoch: i32,
    pub(super) ids: bool,
    /// In the order in which it is read.
    pub(super) parts: Vec<Cached>,
    pub(super) created: Instant,
    pub(super) used: Instant,
}

pub(super) struct Broker {
    pub(super) slots: usize,
    pub(super) evict_after: Duration,
    /// It moves to the end whatever it names, as Kafka 2.7 does.
    pub(super) old: bool,
    pub(super) sessions: BTreeMap<i32, Kept>,
    pub(super) next_id: i32,
    pub(super) logs: Vec<Log>,
}

pub(super) struct Request {
    pub(super) id: i32,
    pub(super) epoch: i32,
    pub(super) ids: bool,
    pub(super) named: Vec<Told>,
    pub(super) forget: Vec<PartitionRef>,
}

#[derive(Clone)]
pub(super) struct Piece {
    pub(super) of: PartitionRef,
    pub(super) error: i16,
    pub(super) from: i64,
    pub(super) records: i64,
    pub(super) high_watermark: i64,
}

pub(super) struct Response {
    pub(super) error: i16,
    pub(super) session_id: i32,
    pub(super) throttled: bool,
    pub(super) pieces: Vec<Piece>,
}

impl Response {
    fn error(error: i16) -> Self {
        Self { error, session_id: 0, throttled: false, pieces: Vec::new() }
    }
}

impl Broker {
    fn read(&self, told: &Told, ids: bool, room: &mut i64) -> Piece {
        let log = self.logs.iter().find(|log| log.of.is(&told.of, ids));
        let of = match ids {
            true => PartitionRef { topic: "".into(), ..told.of.clone() },
            false => PartitionRef { id: Uuid::nil(), ..told.of.clone() },
        };
        let error = |error| Piece {
            of: of.clone(),
            error,
            from: told.offset,
            records: 0,
            high_watermark: -1,
        };
        match log {
            None => error(UNKNOWN_TOPIC_ID),
            Some(log) if log.broken => error(NOT_LEADER),
            Some(log) if told.offset > log.end => error(OUT_OF_RANGE),
            Some(log) => {
                let records = if *room > 0 { RECORDS.min(log.end - told.offset) } else { 0 };
                *room -= i64::from(records > 0);
                Piece { records, high_watermark: log.end, ..error(NONE) }
            }
        }
    }

    pub(super) fn create(&mut self, ids: bool, parts: Vec<Cached>, now: Instant) -> i32 {
        let old = |since: Instant| now.saturating_duration_since(since) > self.evict_after;
        if self.sessions.len() >= self.slots {
            let unused = self.sessions.iter().min_by_key(|(_, kept)| kept.used);
            let unused = unused.filter(|(_, kept)| old(kept.used)).map(|(id, _)| *id);
            let small = self.sessions.iter().filter(|(_, kept)| old(kept.created));
            let small = small.min_by_key(|(_, kept)| kept.parts.len());
            let small =
                small.filter(|(_, kept)| kept.parts.len() <= parts.len()).map(|(id, _)| *id);
            let Some(victim) = unused.or(small) else { return 0 };
            self.sessions.remove(&victim);
        }
        self.next_id += 1;
        let kept = Kept { epoch: 1, ids, parts, created: now, used: now };
        self.sessions.insert(self.next_id, kept);
        self.next_id
    }

    pub(super) fn fetch(&mut self, request: &Request, throttle: bool, now: Instant) -> Response {
        assert!(request.id >= 0 && request.epoch >= -1);
        let ids = request.ids;
        let mut room = 1;
        if request.epoch <= 0 {
            self.sessions.remove(&request.id);
            let read = |told: &Told| self.read(told, ids, &mut room);
            let pieces: Vec<Piece> = request.named.iter().map(read).collect();
            if throttle {
                return Response { throttled: true, ..Response::error(NONE) };
            }
            let parts = request.named.iter().zip(&pieces).map(|(told, piece)| Cached {
                told: told.clone(),
                high_watermark: piece.high_watermark,
            });
            let parts = parts.collect();
            let session_id = if request.epoch == 0 { self.create(ids, parts, now) } else { 0 };
            return Response { session_id, pieces, ..Response::error(NONE) };
        }
        let Some(kept) = self.sessions.get_mut(&request.id) else {
            return Response::error(FETCH_SESSION_ID_NOT_FOUND);
        };
        if kept.epoch != request.epoch {
            return Response::error(INVALID_FETCH_SESSION_EPOCH);
        }
        if kept.ids != ids {
            return Response::error(FETCH_SESSION_TOPIC_ID_ERROR);
        }
        for told in &request.named {
            match kept.parts.iter_mut().find(|cached| cached.told.of.is(&told.of, ids)) {
                Some(cached) => {
                    // Unless another slot took over.
                    let new = told.incarnation != cached.told.incarnation;
                    assert!(new || !told.says_the_same(&cached.told), "it knows that: {told:?}");
                    cached.told = told.clone();
                }
                None => kept.parts.push(Cached { told: told.clone(), high_watermark: -1 }),
            }
        }
        for of in &request.forget {
            let before = kept.parts.len();
            kept.parts.retain(|cached| !cached.told.of.is(of, ids));
            assert_eq!(kept.parts.len() + 1, before, "it was never told of {of:?}");
        }
        assert!(!kept.parts.is_empty(), "a session is closed before it is empty");
        kept.used = now;
        // Before anything is read.
        kept.epoch = if kept.epoch == i32::MAX { 1 } else { kept.epoch + 1 };
        let mut response = Response { session_id: request.id, ..Response::error(NONE) };
        if throttle {
            response.throttled = true;
            return response;
        }
        let mut parts = std::mem::take(&mut kept.parts);
        let mut moved = Vec::new();
        let mut stay = Vec::new();
        for mut cached in parts.drain(..) {
            let piece = self.read(&cached.told, ids, &mut room);
            let news = piece.records > 0
                || piece.high_watermark != cached.high_watermark
                || piece.error != NONE;
            cached.high_watermark = piece.high_watermark;
            let moves = if self.old { news } else { piece.records > 0 };
            if news {
                response.pieces.push(piece);
            }
            if moves { moved.push(cached) } else { stay.push(cached) }
        }
        stay.append(&mut moved);
        if let Some(kept) = self.sessions.get_mut(&request.id) {
            kept.parts = stay;
        }
        response
    }
}
