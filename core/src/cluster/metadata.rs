//! The metadata cache: who the brokers are, which topics are in use, who leads what. Merged per
//! partition by leader epoch, so that a broker that is behind cannot take a newer leader away.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use kafka_protocol::messages::MetadataResponse;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::{Endpoint, UNKNOWN_TOPIC_SPACING, UNKNOWN_TOPIC_SPACING_ONE_BROKER};
use crate::error::{Error, ErrorKind};

/// A topic that is missing or forbidden is not asked for again for this long.
const FAILURE_REMEMBERED: std::time::Duration = std::time::Duration::from_secs(5);

/// What is known of a topic; never changes, a newer one takes its place.
#[derive(Debug, Clone)]
pub(crate) struct TopicMeta {
    pub(crate) name: Arc<str>,
    /// Nil where the broker is too old to tell.
    pub(crate) id: Uuid,
    /// By partition number.
    pub(crate) partitions: Vec<PartitionMeta>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionMeta {
    /// -1: none now.
    pub(crate) leader: i32,
    /// -1: not told.
    pub(crate) epoch: i32,
}

/// A leader named in a Produce or Fetch answer (KIP-951).
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaderHint {
    pub(crate) partition: i32,
    pub(crate) leader: i32,
    pub(crate) epoch: i32,
}

#[derive(Default)]
struct TopicState {
    meta: Option<Arc<TopicMeta>>,
    /// Asked for since the last answer.
    wanted: bool,
    /// Why it cannot be used, and since when that is known.
    error: Option<(Error, Instant)>,
    missing: Option<Missing>,
}

/// Answers that did not know the topic: brokers learn of new topics one by one, so one such answer
/// proves nothing.
struct Missing {
    first: Instant,
    first_broker: i32,
}

#[derive(Default)]
struct State {
    brokers: BTreeMap<i32, Endpoint>,
    topics: BTreeMap<Arc<str>, TopicState>,
}

/// See the module.
pub(crate) struct Metadata {
    state: RwLock<State>,
    /// Counts merges; waiters watch it.
    changed: watch::Sender<u64>,
    /// Wakes the refresher.
    pub(crate) ask: Notify,
}

/// The state of a topic for who wants to use it.
pub(crate) enum Lookup {
    Known(Arc<TopicMeta>),
    Failed(Error),
    /// Asked for, no answer yet.
    Pending,
}

impl Metadata {
    pub(crate) fn new() -> Self {
        Self { state: RwLock::default(), changed: watch::Sender::new(0), ask: Notify::new() }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn brokers(&self) -> Vec<(i32, Endpoint)> {
        self.read().brokers.iter().map(|(id, e)| (*id, e.clone())).collect()
    }

    /// What is known of a topic; makes it one in use and asks for it if it is new or failed.
    pub(crate) fn lookup(&self, topic: &str) -> Lookup {
        if let Some(state) = self.read().topics.get(topic) {
            if let Some(meta) = &state.meta {
                return Lookup::Known(Arc::clone(meta));
            }
            if let Some((error, since)) = &state.error
                && since.elapsed() < FAILURE_REMEMBERED
            {
                return Lookup::Failed(error.clone());
            }
            if state.wanted {
                return Lookup::Pending;
            }
        }
        self.want(topic);
        Lookup::Pending
    }

    /// Asks for a topic again.
    pub(crate) fn want(&self, topic: &str) {
        let mut state = self.write();
        let entry = match state.topics.get_mut(topic) {
            Some(entry) => entry,
            None => state.topics.entry(Arc::from(topic)).or_default(),
        };
        entry.wanted = true;
        entry.error = None;
        drop(state);
        self.ask.notify_one();
    }

    /// Our own CreateTopics clears what we remember of missing ones.
    pub(crate) fn created(&self, topic: &str) {
        let mut state = self.write();
        if let Some(entry) = state.topics.get_mut(topic) {
            entry.error = None;
            entry.missing = None;
        }
    }

    /// Every topic in use, and whether any of them is waited for.
    pub(crate) fn in_use(&self) -> Vec<(Arc<str>, bool)> {
        self.read().topics.iter().map(|(name, t)| (Arc::clone(name), t.wanted)).collect()
    }

    /// Fails everything that is waited for: nobody could be asked.
    pub(crate) fn all_brokers_refused(&self, error: &Error) {
        let mut state = self.write();
        for topic in state.topics.values_mut().filter(|t| t.wanted && t.meta.is_none()) {
            topic.error = Some((error.clone(), Instant::now()));
            topic.wanted = false;
        }
        drop(state);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Applies an answer. Gives the topics that must be asked for again soon.
    pub(crate) fn merge(
        &self,
        answer: &MetadataResponse,
        from: i32,
        now: Instant,
    ) -> Vec<Arc<str>> {
        let mut again = Vec::new();
        let mut state = self.write();
        let state = &mut *state;
        if !answer.brokers.is_empty() {
            state.brokers = answer
                .brokers
                .iter()
                .filter_map(|b| {
                    let port = u16::try_from(b.port).ok()?;
                    Some((b.node_id.0, Endpoint { host: b.host.to_string(), port }))
                })
                .collect();
        }
        let several = state.brokers.len() > 1;
        for topic in &answer.topics {
            let Some(name) = topic.name.as_ref().map(|n| n.0.as_str()) else { continue };
            // What nobody asked for is not kept.
            let Some(entry) = state.topics.get_mut(name) else { continue };
            let name: Arc<str> = Arc::from(name);
            match topic.error_code {
                0 | 5 => {
                    entry.missing = None;
                    entry.error = None;
                    let fresh = partitions(topic);
                    let merged = match &entry.meta {
                        Some(old) if old.id == topic.topic_id => merge_partitions(old, fresh),
                        _ => fresh,
                    };
                    let leaderless = merged.is_empty() || merged.iter().any(|p| p.leader < 0);
                    if leaderless {
                        again.push(Arc::clone(&name));
                    }
                    entry.wanted = merged.is_empty();
                    let meta = TopicMeta { name, id: topic.topic_id, partitions: merged };
                    if !meta.partitions.is_empty() {
                        entry.meta = Some(Arc::new(meta));
                    }
                }
                3 | 100 => {
                    let missing =
                        entry.missing.get_or_insert(Missing { first: now, first_broker: from });
                    let age = now.saturating_duration_since(missing.first);
                    // A bootstrap address (negative) may be any of the brokers.
                    let another = several
                        && missing.first_broker.min(from) >= 0
                        && missing.first_broker != from;
                    let proven = (another && age >= UNKNOWN_TOPIC_SPACING)
                        || age >= UNKNOWN_TOPIC_SPACING_ONE_BROKER;
                    if proven {
                        entry.meta = None;
                        entry.wanted = false;
                        let error =
                            Error::broker(3, format_args!("topic '{name}'"), None).settled();
                        entry.error = Some((error, now));
                    } else {
                        again.push(name);
                    }
                }
                code => {
                    let error = Error::broker(code, format_args!("topic '{name}'"), None);
                    if error.is_retriable() {
                        again.push(name);
                    } else {
                        entry.wanted = false;
                        entry.meta = None;
                        entry.error = Some((error, now));
                    }
                }
            }
        }
        self.changed.send_modify(|n| *n += 1);
        again
    }

    /// Applies leaders named in an answer; gives whether anything is newer than what was known.
    pub(crate) fn hint(
        &self,
        topic: &str,
        hints: &[LeaderHint],
        endpoints: &[(i32, Endpoint)],
    ) -> bool {
        let mut state = self.write();
        let mut changed = false;
        let entry = state.topics.get_mut(topic);
        if let Some(meta) = entry.and_then(|t| t.meta.as_mut()) {
            let mut partitions = meta.partitions.clone();
            for hint in hints {
                let slot = usize::try_from(hint.partition).ok().and_then(|i| partitions.get_mut(i));
                if let Some(slot) = slot.filter(|s| hint.leader >= 0 && hint.epoch > s.epoch) {
                    *slot = PartitionMeta { leader: hint.leader, epoch: hint.epoch };
                    changed = true;
                }
            }
            if changed {
                *meta = Arc::new(TopicMeta { name: meta.name.clone(), id: meta.id, partitions });
            }
        }
        if changed {
            for (id, endpoint) in endpoints {
                state.brokers.insert(*id, endpoint.clone());
            }
            drop(state);
            self.changed.send_modify(|n| *n += 1);
        }
        changed
    }

    /// Waits until a topic is known or fails.
    pub(crate) async fn topic(&self, name: &str) -> Result<Arc<TopicMeta>, Error> {
        let mut changed = self.subscribe();
        loop {
            match self.lookup(name) {
                Lookup::Known(meta) => return Ok(meta),
                Lookup::Failed(error) => return Err(error),
                Lookup::Pending => {}
            }
            if changed.changed().await.is_err() {
                return Err(Error::new(ErrorKind::Closed, "the client is closed"));
            }
        }
    }
}

fn partitions(
    topic: &kafka_protocol::messages::metadata_response::MetadataResponseTopic,
) -> Vec<PartitionMeta> {
    let mut out = Vec::with_capacity(topic.partitions.len());
    for p in &topic.partitions {
        let Ok(index) = usize::try_from(p.partition_index) else { continue };
        // Partitions are numbered without gaps; an answer that names a far one is damaged, and must
        // not make this table large.
        if index >= topic.partitions.len() {
            continue;
        }
        if out.len() <= index {
            out.resize(index + 1, PartitionMeta { leader: -1, epoch: -1 });
        }
        out[index] = PartitionMeta { leader: p.leader_id.0, epoch: p.leader_epoch };
    }
    out
}

/// The newer of both for each partition; partitions are never lost while the topic id stays.
fn merge_partitions(old: &TopicMeta, fresh: Vec<PartitionMeta>) -> Vec<PartitionMeta> {
    let mut merged = fresh;
    if merged.len() < old.partitions.len() {
        merged.extend_from_slice(&old.partitions[merged.len()..]);
    }
    for (new, old) in merged.iter_mut().zip(&old.partitions) {
        if old.epoch > new.epoch {
            *new = *old;
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{BrokerId, TopicName};
    use kafka_protocol::protocol::StrBytes;

    fn answer(code: i16, leaders: &[(i32, i32)]) -> MetadataResponse {
        let partitions = leaders
            .iter()
            .enumerate()
            .map(|(i, (leader, epoch))| {
                MetadataResponsePartition::default()
                    .with_partition_index(i as i32)
                    .with_leader_id(BrokerId(*leader))
                    .with_leader_epoch(*epoch)
            })
            .collect();
        let brokers = (1..=3).map(|id| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(StrBytes::from_static_str("h"))
                .with_port(9092)
        });
        MetadataResponse::default().with_brokers(brokers.collect()).with_topics(vec![
            MetadataResponseTopic::default()
                .with_error_code(code)
                .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
                .with_partitions(partitions),
        ])
    }

    fn leaders(m: &Metadata) -> Vec<(i32, i32)> {
        match m.lookup("t") {
            Lookup::Known(t) => t.partitions.iter().map(|p| (p.leader, p.epoch)).collect(),
            _ => vec![],
        }
    }

    #[test]
    fn the_newer_epoch_wins_whatever_comes_last() {
        let m = Metadata::new();
        assert!(matches!(m.lookup("t"), Lookup::Pending));
        let now = Instant::now();
        m.merge(&answer(0, &[(1, 5), (2, 5)]), 1, now);
        m.merge(&answer(0, &[(3, 6), (1, 4)]), 2, now);
        assert_eq!(leaders(&m), [(3, 6), (2, 5)]);
        let hint = |leader, epoch| LeaderHint { partition: 0, leader, epoch };
        assert!(!m.hint("t", &[hint(9, 6)], &[]));
        assert!(m.hint("t", &[hint(2, 7)], &[]));
        assert_eq!(leaders(&m), [(2, 7), (2, 5)]);
    }

    #[test]
    fn one_broker_that_does_not_know_a_topic_proves_nothing() {
        let m = Metadata::new();
        m.lookup("t");
        let t0 = Instant::now();
        assert_eq!(m.merge(&answer(3, &[]), 1, t0).len(), 1);
        assert_eq!(m.merge(&answer(3, &[]), 1, t0 + UNKNOWN_TOPIC_SPACING).len(), 1);
        assert!(matches!(m.lookup("t"), Lookup::Pending));
        assert!(m.merge(&answer(3, &[]), 2, t0 + UNKNOWN_TOPIC_SPACING).is_empty());
        assert!(matches!(m.lookup("t"), Lookup::Failed(e) if e.kind() == ErrorKind::UnknownTopic));
        m.created("t");
        assert!(matches!(m.lookup("t"), Lookup::Pending));
    }

    #[test]
    fn a_refusal_fails_its_topic_with_the_kind() {
        let m = Metadata::new();
        m.lookup("t");
        m.merge(&answer(29, &[]), 1, Instant::now());
        assert!(matches!(m.lookup("t"), Lookup::Failed(e) if e.kind() == ErrorKind::Authorization));
    }
}
