//! Fetch sessions (KIP-227): what a broker keeps of a client's partitions between two Fetch requests.
//!
//! A request opens a session with epoch 0, names what changed with the epochs after it, and closes
//! it with epoch -1. The answers to the requests in between leave out what has not changed. The rules
//! are those of Kafka's `FetchManager` and `FetchSessionCache`, with one difference: Kafka divides its
//! slots among eight caches that take turns, so that it gives no session at all with fewer than eight.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::error_code as code;

/// Epoch of a request that opens a session.
const FIRST: i32 = 0;
/// Epoch of a request that wants no session, and closes the one that it names.
const FINAL: i32 = -1;
/// The id of no session.
pub(crate) const NO_SESSION: i32 = 0;
/// How long a session has to be unused, or to be there, before it may be evicted
/// (`MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`).
const EVICT_AFTER: Duration = Duration::from_secs(120);
/// Most partitions of all sessions of a broker together. Kafka has no such bound, and a client that
/// adds partitions with each request would take all of its memory.
const MAX_PARTITIONS: usize = 1 << 21;

/// A topic as a request names it: by id from version 13 on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    Id(Uuid),
    Name(Arc<str>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) topic: TopicKey,
    pub(crate) partition: i32,
}

/// What is asked of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) offset: i64,
    pub(crate) fetched_epoch: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) max_bytes: i32,
}

/// A partition that a request wants read, named by itself or by its session.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) key: Key,
    /// `None`: nobody knows a topic of this id.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) ask: Ask,
}

/// What an answer says of a partition, as far as a session compares it with what was said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    /// It has records.
    pub(crate) records: bool,
    pub(crate) error: bool,
    /// It has something that is told each time: another replica to read from, or where logs part.
    pub(crate) always: bool,
}

/// A partition in a session.
#[derive(Debug)]
struct Cached {
    wanted: Wanted,
    /// As last told; -1 if what was told last was an error.
    high_watermark: i64,
    log_start: i64,
}

impl Cached {
    /// Whether an answer has to have it; `told` is what is known of it from then on.
    fn changes(&mut self, told: Told) -> bool {
        let changed = told.high_watermark != self.high_watermark
            || told.log_start != self.log_start
            || told.records
            || told.error
            || told.always;
        // An error's are -1, and equal to no real ones: when it is over the partition is told again.
        self.high_watermark = told.high_watermark;
        self.log_start = told.log_start;
        changed
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    id: i32,
    /// Of the next request.
    epoch: i32,
    by_ids: bool,
    created: Instant,
    last_used: Instant,
    /// Partitions when it was last used, which is what evictions go by.
    size: usize,
    /// It had been there for long enough when it was last used.
    evictable: bool,
    /// In the order in which they are read.
    parts: BTreeMap<u64, Cached>,
    places: HashMap<Key, u64>,
    next_place: u64,
}

impl Session {
    fn add(&mut self, cached: Cached) {
        self.places.insert(cached.wanted.key.clone(), self.next_place);
        self.parts.insert(self.next_place, cached);
        self.next_place += 1;
    }

    fn remove(&mut self, key: &Key) -> Option<Cached> {
        self.parts.remove(&self.places.remove(key)?)
    }

    /// What a request names takes the place of what was asked of it; what is new goes to the end.
    fn update(&mut self, named: &[Wanted], forgotten: &[Key]) {
        for wanted in named {
            let known = self.places.get(&wanted.key).and_then(|place| self.parts.get_mut(place));
            match known {
                Some(cached) => cached.wanted.ask = wanted.ask,
                None => {
                    self.add(Cached { wanted: wanted.clone(), high_watermark: -1, log_start: -1 });
                }
            }
        }
        for key in forgotten {
            self.remove(key);
        }
    }

    /// Whether an answer has to have this partition; one that brings records is read last from then on.
    fn tells(&mut self, key: &Key, told: Told) -> bool {
        let known = self.places.get(key).and_then(|place| self.parts.get_mut(place));
        let changed = known.is_some_and(|cached| cached.changes(told));
        if changed
            && told.records
            && let Some(cached) = self.remove(key)
        {
            self.add(cached);
        }
        changed
    }

    fn list(&mut self, name_of: impl Fn(Uuid) -> Option<Arc<str>>) -> Vec<Wanted> {
        let mut list = Vec::with_capacity(self.parts.len());
        for cached in self.parts.values_mut() {
            let wanted = &mut cached.wanted;
            // Looked up until it is found, and never again: a topic that is made anew under its old
            // name stays another one for this session.
            if let (None, TopicKey::Id(id)) = (&wanted.name, &wanted.key.topic) {
                wanted.name = name_of(*id);
            }
            list.push(wanted.clone());
        }
        list
    }
}

/// What a request has to do with sessions.
#[derive(Debug)]
pub(crate) enum Context {
    /// It is answered with this error, and nothing else.
    Error(i16),
    None,
    /// It wants a session, which it gets with its answer.
    Full {
        by_ids: bool,
    },
    Incremental {
        session: Arc<Mutex<Session>>,
        /// Of the request that follows. Another one by the time of the answer: a second request has
        /// come in between.
        epoch: i32,
    },
}

impl Context {
    /// Id of the session that a throttled answer names, and its error. Such an answer is empty: it
    /// makes no session, and changes none.
    pub(crate) fn throttled(&self) -> (i16, i32) {
        match self {
            Self::Error(_) | Self::None | Self::Full { .. } => (code::NONE, NO_SESSION),
            Self::Incremental { session, epoch } => {
                let session = lock(session);
                match session.epoch == *epoch {
                    true => (code::NONE, session.id),
                    false => (code::INVALID_FETCH_SESSION_EPOCH, session.id),
                }
            }
        }
    }
}

/// What a Fetch request says that sessions care about.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) session_id: i32,
    pub(crate) epoch: i32,
    pub(crate) by_ids: bool,
    pub(crate) named: Vec<Wanted>,
    pub(crate) forgotten: &'a [Key],
}

/// A broker's sessions. They survive connections, and end with the broker.
#[derive(Debug)]
pub(crate) struct SessionCache {
    slots: usize,
    sessions: HashMap<i32, Arc<Mutex<Session>>>,
    /// Partitions in all of them.
    partitions: usize,
    /// State of the generator of ids.
    ids: u64,
}

/// A fetch session, as [`crate::Cluster::fetch_sessions`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its id, which is positive.
    pub id: i32,
    /// Epoch that the next request has to have.
    pub next_epoch: i32,
    /// Whether topics are named by their ids (Fetch version 13 and later).
    pub topic_ids: bool,
    /// What it holds, in the order in which it is read.
    pub partitions: Vec<SessionPartition>,
}

/// A partition in a fetch session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionPartition {
    /// Name of the topic; `None` if its id was never known here.
    pub topic: Option<String>,
    /// Id of the topic; nil where topics are named.
    pub topic_id: Uuid,
    /// Number in its topic.
    pub partition: i32,
    /// Offset that is read from.
    pub offset: i64,
}

impl SessionCache {
    pub(crate) fn new(slots: usize, seed: u64) -> Self {
        Self { slots, sessions: HashMap::new(), partitions: 0, ids: seed }
    }

    /// Forgets all sessions, as a broker that starts anew.
    pub(crate) fn clear(&mut self) {
        self.sessions.clear();
        self.partitions = 0;
    }

    /// Takes a request, and says what is to be read for it. The session is in its next epoch from now
    /// on: a client that does not get the answer cannot ask for it again.
    ///
    /// # Errors
    /// The session would hold more partitions than anybody has.
    pub(crate) fn begin(
        &mut self,
        request: Request<'_>,
        now: Instant,
        name_of: impl Fn(Uuid) -> Option<Arc<str>>,
    ) -> Result<(Context, Vec<Wanted>), String> {
        let Request { session_id, epoch, by_ids, named, forgotten } = request;
        if epoch == FIRST || epoch == FINAL {
            if session_id != NO_SESSION {
                self.remove(session_id);
            }
            let context = if epoch == FINAL { Context::None } else { Context::Full { by_ids } };
            return Ok((context, named));
        }
        let refused = |error| Ok((Context::Error(error), Vec::new()));
        let Some(session) = self.sessions.get(&session_id).cloned() else {
            return refused(code::FETCH_SESSION_ID_NOT_FOUND);
        };
        let mut open = lock(&session);
        if open.epoch != epoch {
            return refused(code::INVALID_FETCH_SESSION_EPOCH);
        }
        if open.by_ids != by_ids {
            return refused(code::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        if self.partitions + named.len() > MAX_PARTITIONS {
            return Err(format!("fetch sessions of more than {MAX_PARTITIONS} partitions"));
        }
        open.update(&named, forgotten);
        if open.parts.is_empty() {
            drop(open);
            self.remove(session_id);
            return Ok((Context::None, named));
        }
        self.partitions -= open.size;
        self.touch(&mut open, now);
        open.epoch = next_epoch(epoch);
        let (list, epoch) = (open.list(name_of), open.epoch);
        drop(open);
        Ok((Context::Incremental { session, epoch }, list))
    }

    /// Decides what of an answer is sent: `tells` are all partitions that were read. Returns the
    /// answer's error, the id of its session, and which partitions it has.
    pub(crate) fn finish(
        &mut self,
        context: Context,
        tells: &[(&Wanted, Told)],
        now: Instant,
    ) -> (i16, i32, Vec<bool>) {
        match context {
            Context::Error(error) => (error, NO_SESSION, vec![false; tells.len()]),
            Context::None => (code::NONE, NO_SESSION, vec![true; tells.len()]),
            Context::Full { by_ids } => {
                (code::NONE, self.open(by_ids, tells, now), vec![true; tells.len()])
            }
            Context::Incremental { session, epoch } => {
                let mut session = lock(&session);
                if session.epoch != epoch {
                    let error = code::INVALID_FETCH_SESSION_EPOCH;
                    return (error, session.id, vec![false; tells.len()]);
                }
                let sent = tells.iter().map(|(wanted, told)| session.tells(&wanted.key, *told));
                let sent = sent.collect();
                (code::NONE, session.id, sent)
            }
        }
    }

    /// Opens a session if there is room, or can be made. Returns its id.
    fn open(&mut self, by_ids: bool, tells: &[(&Wanted, Told)], now: Instant) -> i32 {
        let full = self.sessions.len() >= self.slots;
        if (full && !self.evict(tells.len(), now)) || self.partitions + tells.len() > MAX_PARTITIONS
        {
            return NO_SESSION;
        }
        let mut session = Session {
            id: self.new_id(),
            epoch: next_epoch(FIRST),
            by_ids,
            created: now,
            last_used: now,
            size: 0,
            evictable: false,
            parts: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        };
        for (wanted, told) in tells {
            session.add(Cached {
                wanted: (*wanted).clone(),
                high_watermark: told.high_watermark,
                log_start: told.log_start,
            });
        }
        self.touch(&mut session, now);
        let id = session.id;
        self.sessions.insert(id, Arc::new(Mutex::new(session)));
        id
    }

    /// The session is used now, and has the size that it has now.
    fn touch(&mut self, session: &mut Session, now: Instant) {
        session.last_used = now;
        session.size = session.parts.len();
        session.evictable = now.saturating_duration_since(session.created) > EVICT_AFTER;
        self.partitions += session.size;
    }

    /// Makes room for a session of `size` partitions: what was not used for long goes, or else the
    /// smallest of those that have been there for long, if it is smaller than the new one.
    fn evict(&mut self, size: usize, now: Instant) -> bool {
        let oldest = self.sessions.values().map(|session| {
            let session = lock(session);
            (session.last_used, session.id)
        });
        let stale =
            oldest.min().filter(|(used, _)| now.saturating_duration_since(*used) > EVICT_AFTER);
        if let Some((_, id)) = stale {
            self.remove(id);
            return true;
        }
        let smallest = self.sessions.values().filter_map(|session| {
            let session = lock(session);
            session.evictable.then_some((session.size, session.id))
        });
        match smallest.min() {
            Some((least, id)) if size > least => {
                self.remove(id);
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= lock(&session).size;
        }
    }

    /// An id that no session of this broker has. Never in a row, so that a client that mixes up two
    /// sessions does not happen to be right.
    fn new_id(&mut self) -> i32 {
        loop {
            // SplitMix64, as for the fault script.
            self.ids = self.ids.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.ids;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let id = ((z ^ (z >> 31)) >> 33) as i32;
            if id != NO_SESSION && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    pub(crate) fn infos(&self) -> Vec<SessionInfo> {
        let mut infos: Vec<SessionInfo> =
            self.sessions.values().map(|one| lock(one).info()).collect();
        infos.sort_by_key(|info| info.id);
        infos
    }
}

impl Session {
    fn info(&self) -> SessionInfo {
        let partition = |cached: &Cached| SessionPartition {
            topic: cached.wanted.name.as_deref().map(str::to_owned),
            topic_id: match cached.wanted.key.topic {
                TopicKey::Id(id) => id,
                TopicKey::Name(_) => Uuid::nil(),
            },
            partition: cached.wanted.key.partition,
            offset: cached.wanted.ask.offset,
        };
        SessionInfo {
            id: self.id,
            next_epoch: self.epoch,
            topic_ids: self.by_ids,
            partitions: self.parts.values().map(partition).collect(),
        }
    }
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Epochs run from 1 to `i32::MAX` and then start again at 1: 0 and -1 have a meaning of their own.
fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        ..0 => FINAL,
        i32::MAX => 1,
        _ => epoch + 1,
    }
}

#[cfg(test)]
mod tests;
