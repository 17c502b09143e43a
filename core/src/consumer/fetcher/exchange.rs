//! One exchange with a broker: the request that its session makes, the task that waits for the response, and the
//! session given back once nobody reads there.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::time::Instant;

use super::epochs::has_to_be_checked;
use super::{Event, Failed, Fetcher, leave, silence};
use crate::caught::caught;
use crate::cluster::{Handle, Lane};
use crate::consumer::buffer::Key;
use crate::consumer::fetch::session::{self, Action, Ask};
use crate::consumer::slot::SlotId;
use crate::environment::{Environment, earlier};
use crate::net::{CallError, Connection};
use crate::policy::reconnect::DialUrgency;
use crate::policy::silence::patience;
use crate::protocol::NO_EPOCH;

/// Versions of Fetch: record batches (4) to the newest that is known.
const VERSIONS: (i16, i16) = crate::protocol::bounded::<FetchRequest>(4, 18);
/// The first versions that have sessions; that carry the leader epoch of the last fetched batch; and that tell topics apart
/// by their ids.
const SESSIONS: i16 = 7;
pub(super) const TELLS_EPOCHS: i16 = 12;
const IDS: i16 = 13;

/// The session of a request that wants none.
const NO_SESSION: i32 = -1;

/// How long the end of a session is waited for, besides the request before it.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the version of a request has to have.
#[derive(Clone, Copy)]
struct Needs {
    ids: bool,
    sessions: bool,
    epochs: bool,
}

impl Needs {
    fn has(self, version: i16) -> bool {
        (!self.ids || version >= IDS)
            && (!self.sessions || version >= SESSIONS)
            && (!self.epochs || version >= TELLS_EPOCHS)
    }

    fn versions(self) -> (i16, i16) {
        (VERSIONS.0, if self.ids { VERSIONS.1 } else { IDS - 1 })
    }
}

impl Fetcher {
    /// Asks a broker for what its session wants. Gives whether that is anything.
    pub(super) fn send(
        &mut self,
        leader: i32,
        (max_bytes, max_wait): (usize, Duration),
        retry: bool,
        sent: Instant,
    ) -> bool {
        let Some(source) = self.sources.get_mut(&leader) else { return false };
        // Before anything was heard of a broker it is taken for one of today.
        let version = source.version.unwrap_or(VERSIONS.1);
        let (readings, leader_epoch) = (&self.reading, |key: &Key| {
            self.topics.get(&key.0)?.meta.as_ref()?.partitions.get(usize::try_from(key.1).ok()?)
        });
        let unchecked = |slot: &SlotId| {
            readings.get(*slot).is_some_and(|reading| {
                leader_epoch(&reading.key).is_some_and(|p| has_to_be_checked(reading, p.epoch))
            })
        };
        let needs = Needs {
            ids: source.nameless.is_empty() && version >= IDS,
            sessions: version >= SESSIONS,
            // With an older one the position has to be compared first.
            epochs: source.version.is_none() && source.wanted.iter().any(unchecked),
        };
        let due = session::Event::Due { ids: needs.ids, supported: needs.sessions };
        let Action::Send(ask) = source.session.on(due, sent, &mut self.rng) else {
            return false;
        };
        self.requests += 1;
        source.in_flight = max_bytes.max(1);
        source.asked = self.requests;
        source.trickle.sent(sent);
        let rack = self.rack_for(leader, sent);
        let request = self.request(leader, ask, max_bytes, max_wait).with_rack_id(text(rack));
        self.troubles.wait_for(Some(leader));
        let (pool, tx, lane) = (self.pool.clone(), self.tx.clone(), self.lane);
        let cluster = self.incarnation;
        let (patience, of) = (patience(self.buffer.config.max_wait), self.whom(leader));
        self.env.spawn(async move {
            let (mut version, mut used) = (None, None);
            let response = caught(async {
                pool.env().mishap("fetch");
                let dialled = pool.lane(leader, lane, DialUrgency::Needed).await;
                let connection: &Connection = used.insert(dialled.map_err(Failed::Unsent)?);
                let speaks = connection.version(FetchRequest::KEY, VERSIONS);
                let speaks = *version.insert(speaks.map_err(Failed::Unsent)?);
                if !needs.has(speaks) {
                    return Err(Failed::OtherVersion);
                }
                let response = call(connection, request, (speaks, needs.versions()), retry);
                tokio::pin!(response);
                tokio::select! {
                    biased;
                    response = &mut response => return response,
                    () = silence::overdue(pool.env(), connection, patience) => {}
                }
                let error = silence::no_response(connection, &of, patience);
                let _ = tx.send(Event::Overdue { leader, sent, error });
                response.await
            });
            // A panic may have come before or after the request was on its way.
            let response = response.await.unwrap_or_else(|e| Err(Failed::Lost(e)));
            let late = tx.send(Event::Response { leader, cluster, sent, version, response });
            let Err(late) = late else { return };
            // The consumer is gone. A session that was begun with this response is nobody's.
            if let (Event::Response { response: Ok(response), .. }, Some(connection)) =
                (late.0, used)
                && response.session_id > 0
            {
                goodbye(pool.env(), &connection, response.session_id, GOODBYE).await;
            }
            leave(&pool, lane);
        });
        true
    }

    /// The request for what the session asks.
    fn request(&self, leader: i32, ask: Ask, max_bytes: usize, max_wait: Duration) -> FetchRequest {
        let Ask { id, epoch, mut named, forget, .. } = ask;
        // The broker's order begins as this one, and what it is told of again comes behind all that it has. The sort is
        // stable: partitions with equal turns stay in the order of their numbers.
        named.sort_by_key(|slot| self.reading.get(*slot).map(|reading| reading.turn));
        let mut topics: Vec<FetchTopic> = Vec::new();
        let session = self.sources.get(&leader).map(|source| &source.session);
        for told in named.iter().filter_map(|slot| session?.asked(*slot)) {
            let partition = FetchPartition::default()
                .with_partition(told.of.partition)
                .with_current_leader_epoch(told.leader_epoch)
                .with_fetch_offset(told.offset)
                .with_last_fetched_epoch(told.fetched_epoch)
                .with_partition_max_bytes(told.max_bytes);
            // The order is that of turns: a topic may be named more than once, as the Java client does.
            match topics.last_mut() {
                Some(last) if *last.topic.0 == *told.of.topic => last.partitions.push(partition),
                _ => topics.push(
                    FetchTopic::default()
                        .with_topic(name(&told.of.topic))
                        .with_topic_id(told.of.id)
                        .with_partitions(vec![partition]),
                ),
            }
        }
        let mut forgotten: Vec<ForgottenTopic> = Vec::new();
        for of in forget {
            match forgotten.last_mut() {
                Some(last) if last.topic_id == of.id && *last.topic.0 == *of.topic => {
                    last.partitions.push(of.partition);
                }
                _ => forgotten.push(
                    ForgottenTopic::default()
                        .with_topic(name(&of.topic))
                        .with_topic_id(of.id)
                        .with_partitions(vec![of.partition]),
                ),
            }
        }
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(int(max_wait.as_millis() as usize))
            .with_min_bytes(int(self.buffer.config.min_bytes))
            .with_max_bytes(int(max_bytes))
            .with_isolation_level(self.buffer.config.isolation.level())
            .with_session_id(id)
            .with_session_epoch(epoch)
            .with_topics(topics)
            .with_forgotten_topics_data(forgotten)
    }

    /// What the broker is asked for, in words: a partition and how many more.
    fn whom(&self, leader: i32) -> String {
        let session = self.sources.get(&leader).map(|source| &source.session);
        let first = session.and_then(|session| Some((session.told().next()?.1, session.count())));
        let Some((first, count)) = first else { return String::new() };
        let more = match count {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        format!(", asked for topic '{}' partition {}{more}", first.of.topic, first.of.partition)
    }

    /// Ends sessions with brokers of which nothing was read for a while: they hold memory there.
    pub(super) fn close_emptied(&mut self, now: Instant) {
        for (leader, source) in &mut self.sources {
            if !source.wanted.is_empty() || source.in_flight > 0 || !source.session.is_open() {
                source.emptied = None;
                continue;
            }
            let at = *source.emptied.get_or_insert(now) + EMPTY;
            if now < at {
                self.wake_at = earlier(self.wake_at, Some(at));
                continue;
            }
            let due = session::Event::Due { ids: true, supported: true };
            if let Action::Close { id } = source.session.on(due, now, &mut self.rng) {
                say_goodbye(&self.pool, *leader, self.lane, id, GOODBYE);
            }
        }
    }

    /// The consumer ends: brokers need not keep what they know of it.
    pub(super) fn give_back(&mut self) {
        // What comes from now on is given back by whoever waits for it.
        self.rx.close();
        while let Ok(event) = self.rx.try_recv() {
            if let Event::Response { leader, response: Ok(response), .. } = event
                && response.session_id > 0
            {
                say_goodbye(&self.pool, leader, self.lane, response.session_id, GOODBYE);
            }
        }
        let (now, closing) = (self.env.now(), || session::Event::Closing);
        for (leader, source) in &mut self.sources {
            if let Action::Close { id } = source.session.on(closing(), now, &mut self.rng) {
                // Behind the request in flight, which the broker may hold for as long as it was told.
                let patience = self.buffer.config.max_wait + GOODBYE;
                say_goodbye(&self.pool, *leader, self.lane, id, patience);
            }
        }
    }
}

/// For how long nothing is read before a session is ended: what is tried again, or paused for a moment, keeps its own.
const EMPTY: Duration = Duration::from_secs(5);

/// Ends a session on the connection that is there; without one it ages out at the broker.
fn say_goodbye(pool: &Handle, leader: i32, lane: Lane, id: i32, patience: Duration) {
    let Some(connection) = pool.broker(leader).and_then(|broker| broker.open(lane)) else { return };
    let env = pool.env().clone();
    pool.env().spawn(async move {
        let _ = caught(goodbye(&env, &connection, id, patience)).await;
    });
}

/// Ends a session. Whatever comes of it: the broker would find out by itself, later.
async fn goodbye(env: &Environment, connection: &Connection, id: i32, patience: Duration) {
    // No partition is named, since those would be read.
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(1)
        .with_session_id(id)
        .with_session_epoch(NO_SESSION);
    let _ = env.within(patience, connection.call(&request, (SESSIONS, VERSIONS.1), false)).await;
}

/// Sends a Fetch and waits for its response; leader epochs are left out where the broker does not know them.
async fn call(
    connection: &Connection,
    mut request: FetchRequest,
    (speaks, versions): (i16, (i16, i16)),
    retry: bool,
) -> Result<FetchResponse, Failed> {
    if speaks < TELLS_EPOCHS {
        for partition in request.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.last_fetched_epoch = NO_EPOCH;
        }
    }
    connection.call(&request, versions, retry).await.map_err(|e| match e {
        CallError::Unsent(e) => Failed::Unsent(e),
        CallError::InDoubt(e) => Failed::Lost(e),
    })
}

fn text(rack: Option<String>) -> StrBytes {
    rack.map(StrBytes::from_string).unwrap_or_default()
}

fn name(topic: &Arc<str>) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_string()))
}

pub(super) fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
