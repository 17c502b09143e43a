//! The metadata cache: who the brokers are, which topics are in use, who leads what. Merged per
//! partition by leader epoch, so that a broker that is behind cannot take a newer leader away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use foldhash::fast::FixedState;
use kafka_protocol::messages::MetadataResponse;
use rand::rngs::StdRng;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::merge;
use crate::config::{Endpoint, UNKNOWN_TOPIC_SPACING, UNKNOWN_TOPIC_SPACING_ONE_BROKER};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::policy::ask::{AskPlan, Why};

/// A topic that is missing or forbidden is not asked for again for this long.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(5);

/// A topic that nobody used for so long is no longer in use, and not asked for.
const UNUSED_AFTER: Duration = Duration::from_secs(15 * 60);

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

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerPlace {
    pub(crate) endpoint: Endpoint,
    pub(crate) rack: Option<String>,
}

#[derive(Default)]
pub(super) struct TopicState {
    pub(super) meta: Option<Arc<TopicMeta>>,
    /// To be in the next request.
    wanted: bool,
    /// Why it cannot be used, and since when that is known.
    error: Option<(Error, Instant)>,
    missing: Option<Missing>,
    /// When somebody looked it up last, in the environment's microseconds.
    used_us: AtomicU64,
}

/// Answers that did not know the topic: brokers learn of new topics one by one, so one such answer
/// proves nothing.
struct Missing {
    first: Instant,
    first_broker: i32,
}

/// Where each broker is, by its id.
pub(crate) type Brokers = BTreeMap<i32, BrokerPlace>;

#[derive(Default)]
struct State {
    /// Why the last question was not answered; none: it was.
    trouble: Option<Error>,
    cluster_id: Option<String>,
    brokers: Brokers,
    topics: HashMap<Arc<str>, TopicState, FixedState>,
}

/// See the module.
pub(crate) struct Metadata {
    env: Environment,
    state: RwLock<State>,
    /// Counts merges; waiters watch it.
    changed: watch::Sender<u64>,
    plan: Mutex<(AskPlan, StdRng)>,
    /// Wakes the refresher when the plan changes.
    pub(super) ask: Notify,
}

/// The state of a topic for who wants to use it.
pub(crate) enum Lookup {
    Known(Arc<TopicMeta>),
    Failed(Error),
    /// Asked for, no answer yet.
    Pending,
}

/// What to ask for.
pub(super) struct Question {
    pub(super) topics: Vec<Arc<str>>,
    /// Everything in use, because it is time.
    pub(super) all: bool,
    /// A topic is among them that nobody knows yet.
    pub(super) new: bool,
    /// A broker did not know a topic: another one must say so too.
    pub(super) elsewhere: bool,
}

impl Metadata {
    pub(crate) fn new(env: &Environment) -> Self {
        let mut rng = env.rng();
        let plan = AskPlan::new(env.now(), &mut rng);
        Self {
            env: env.clone(),
            state: RwLock::default(),
            changed: watch::Sender::new(0),
            plan: Mutex::new((plan, rng)),
            ask: Notify::new(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn plan<T>(&self, act: impl FnOnce(&mut AskPlan, &mut StdRng, Instant) -> T) -> T {
        let now = self.env.now();
        let mut plan = self.plan.lock().unwrap_or_else(|e| e.into_inner());
        let (plan, rng) = &mut *plan;
        act(plan, rng, now)
    }

    fn plan_for(&self, why: Why) {
        self.plan(|plan, rng, now| plan.want(why, now, rng));
        self.ask.notify_one();
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    pub(crate) fn cluster_id(&self) -> Option<String> {
        self.read().cluster_id.clone()
    }

    pub(crate) fn knows_brokers(&self) -> bool {
        !self.read().brokers.is_empty()
    }

    /// What is known of a topic; makes it one in use and asks for it if it is new or failed.
    pub(crate) fn lookup(&self, topic: &str) -> Lookup {
        let now = self.env.now();
        if let Some(state) = self.read().topics.get(topic) {
            state.used_us.store(self.env.micros(now), Ordering::Relaxed);
            if let Some(meta) = &state.meta {
                return Lookup::Known(Arc::clone(meta));
            }
            if let Some((error, since)) = &state.error
                && now.saturating_duration_since(*since) < FAILURE_REMEMBERED
            {
                return Lookup::Failed(error.clone());
            }
            if state.wanted {
                return Lookup::Pending;
            }
        }
        self.want(topic, Why::New);
        Lookup::Pending
    }

    /// Asks for a topic (again).
    pub(crate) fn want(&self, topic: &str, why: Why) {
        let mut state = self.write();
        let entry = match state.topics.get_mut(topic) {
            Some(entry) => entry,
            None => state.topics.entry(Arc::from(topic)).or_default(),
        };
        entry.used_us.store(self.env.micros(self.env.now()), Ordering::Relaxed);
        entry.error = None;
        let asked = std::mem::replace(&mut entry.wanted, true);
        drop(state);
        if !asked || why != Why::New {
            self.plan_for(why);
        }
    }

    /// Our own CreateTopics clears what we remember of missing ones.
    pub(crate) fn created(&self, topic: &str) {
        let mut state = self.write();
        if let Some(entry) = state.topics.get_mut(topic) {
            entry.error = None;
            entry.missing = None;
        }
    }

    /// What to put into a request now, if it is time for one. What nobody uses any more is
    /// forgotten on the way.
    pub(super) fn question(&self) -> Option<Question> {
        let all = self.plan(|plan, _, now| plan.due(now))?;
        let now_us = self.env.micros(self.env.now());
        let mut state = self.write();
        if all {
            state.topics.retain(|_, t| {
                let used = t.used_us.load(Ordering::Relaxed);
                t.wanted || u128::from(now_us.saturating_sub(used)) < UNUSED_AFTER.as_micros()
            });
        }
        let chosen = || state.topics.iter().filter(|(_, t)| all || t.wanted);
        let mut topics: Vec<Arc<str>> = chosen().map(|(name, _)| Arc::clone(name)).collect();
        topics.sort();
        let new = chosen().any(|(_, t)| t.meta.is_none() && t.missing.is_none());
        let elsewhere = chosen().any(|(_, t)| t.missing.is_some());
        Some(Question { topics, all, new, elsewhere })
    }

    /// The request is on its way: what is wanted from now on is for the next.
    pub(super) fn asked(&self, question: &Question) {
        self.plan(|plan, _, now| plan.asked(now));
        let mut state = self.write();
        for name in &question.topics {
            // One without partitions stays pending until the answer.
            if let Some(topic) = state.topics.get_mut(name).filter(|t| t.meta.is_some()) {
                topic.wanted = false;
            }
        }
    }

    /// Nobody answered: what was asked for is wanted still.
    pub(super) fn not_answered(&self, question: &Question, error: &Error) {
        let mut state = self.write();
        state.trouble = Some(error.clone());
        for name in &question.topics {
            if let Some(topic) = state.topics.get_mut(name) {
                topic.wanted = true;
            }
        }
        drop(state);
        self.plan(|plan, rng, now| plan.failed(question.all, now, rng));
    }

    /// Fails everything that is waited for: every broker refuses us.
    pub(super) fn all_brokers_refused(&self, error: &Error) {
        let now = self.env.now();
        let mut state = self.write();
        for topic in state.topics.values_mut().filter(|t| t.wanted && t.meta.is_none()) {
            topic.error = Some((error.clone(), now));
            topic.wanted = false;
        }
        drop(state);
        self.tell();
    }

    /// Forgets the brokers, to begin again from the bootstrap list (KIP-899, KIP-1102).
    pub(super) fn forget_brokers(&self) {
        self.write().brokers.clear();
    }

    /// Applies an answer of the broker `from` (negative: a bootstrap address). `brokers` hears of the
    /// brokers, and of those that a newer leader epoch names, before anybody can read of a topic
    /// whose leaders they are. Tells whether anything at all was news.
    pub(crate) fn merge(
        &self,
        answer: &MetadataResponse,
        from: i32,
        all: bool,
        brokers: impl FnOnce(&Brokers, &BTreeSet<i32>),
    ) -> bool {
        let now = self.env.now();
        let (mut changed, mut named) = (false, BTreeSet::new());
        let mut guard = self.write();
        let state = &mut *guard;
        state.trouble = None;
        let cluster_id = answer.cluster_id.as_ref().map(ToString::to_string);
        if cluster_id.is_some() && state.cluster_id.is_some() && cluster_id != state.cluster_id {
            tracing::warn!(target: "ottla::cluster", was = ?state.cluster_id, is = ?cluster_id, "this is another cluster now");
        }
        if cluster_id.is_some() {
            state.cluster_id = cluster_id;
        }
        // A broker that is cut off from the controller goes on answering what it knew. Older epochs
        // betray it; then neither its list of brokers nor what it does not know counts.
        let behind = answer.topics.iter().any(|topic| {
            let known = topic.name.as_ref().and_then(|n| state.topics.get(n.0.as_str()));
            known.and_then(|t| t.meta.as_ref()).is_some_and(|meta| merge::is_behind(meta, topic))
        });
        if !answer.brokers.is_empty() && !behind {
            let brokers = merge::brokers(answer);
            changed |= brokers != state.brokers;
            state.brokers = brokers;
        }
        let several = state.brokers.len() > 1;
        for topic in &answer.topics {
            let Some(name) = topic.name.as_ref().map(|n| n.0.as_str()) else { continue };
            // What nobody asked for is not kept.
            let Some(entry) = state.topics.get_mut(name) else { continue };
            match topic.error_code {
                0 | 5 => {
                    entry.missing = None;
                    entry.error = None;
                    let merge = merge::topic(entry.meta.as_ref(), name, topic);
                    changed |= merge.changed;
                    named.extend(merge.named);
                    let meta = merge.meta;
                    // A partition without leader is asked for again by whoever needs it, not by
                    // everybody who knows of it.
                    entry.wanted = meta.partitions.is_empty();
                    if !meta.partitions.is_empty() {
                        entry.meta = Some(meta);
                    }
                }
                3 | 100 if behind && entry.meta.is_some() => entry.wanted = true,
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
                        changed |= entry.meta.take().is_some();
                        entry.wanted = false;
                        let error =
                            Error::broker(3, format_args!("topic '{name}'"), None).settled();
                        entry.error = Some((error, now));
                    } else {
                        entry.wanted = true;
                    }
                }
                code => {
                    let error = Error::broker(code, format_args!("topic '{name}'"), None);
                    if error.is_retriable() {
                        entry.wanted = true;
                    } else {
                        entry.wanted = false;
                        entry.meta = None;
                        entry.error = Some((error, now));
                    }
                }
            }
        }
        // Also what the answer did not mention.
        let again = state.topics.values().any(|t| t.wanted);
        brokers(&state.brokers, &named);
        drop(guard);
        self.plan(|plan, rng, now| {
            plan.answered(all, changed, now, rng);
            if again {
                plan.want(Why::Again, now, rng);
            }
        });
        self.tell();
        changed
    }

    /// Applies leaders named in an answer, without asking anybody (KIP-951). Gives the brokers that
    /// are named by an epoch newer than what was known; none: nothing was news. `brokers` as in
    /// [`merge`](Self::merge), if something was. `id` is that of the topic that was asked about, nil
    /// if nobody told: its leaders are not those of another one of the same name.
    pub(crate) fn hint(
        &self,
        topic: &str,
        id: Uuid,
        hints: &[LeaderHint],
        endpoints: &[(i32, Endpoint)],
        brokers: impl FnOnce(&Brokers, &BTreeSet<i32>),
    ) -> BTreeSet<i32> {
        let mut state = self.write();
        let mut named = BTreeSet::new();
        let entry = state.topics.get_mut(topic);
        let same = |meta: &&mut Arc<TopicMeta>| id.is_nil() || meta.id == id;
        if let Some(meta) = entry.and_then(|t| t.meta.as_mut()).filter(same) {
            let mut partitions = meta.partitions.clone();
            for hint in hints {
                let slot = usize::try_from(hint.partition).ok().and_then(|i| partitions.get_mut(i));
                if let Some(slot) = slot.filter(|s| hint.leader >= 0 && hint.epoch > s.epoch) {
                    *slot = PartitionMeta { leader: hint.leader, epoch: hint.epoch };
                    named.insert(hint.leader);
                }
            }
            if !named.is_empty() {
                *meta = Arc::new(TopicMeta { name: meta.name.clone(), id: meta.id, partitions });
            }
        }
        if !named.is_empty() {
            for (id, endpoint) in endpoints {
                let rack = state.brokers.get(id).and_then(|place| place.rack.clone());
                state.brokers.insert(*id, BrokerPlace { endpoint: endpoint.clone(), rack });
            }
            brokers(&state.brokers, &named);
            drop(state);
            self.tell();
        }
        named
    }

    /// Waits until a topic is known or fails, `patience` at most.
    pub(crate) async fn topic(
        &self,
        name: &str,
        patience: Duration,
    ) -> Result<Arc<TopicMeta>, Error> {
        let sleep = self.env.sleep(patience);
        tokio::select! {
            biased;
            found = self.topic_soon(name) => found,
            () = sleep => {
                let trouble = self.read().trouble.clone();
                let what = format!("asking about topic '{name}' for {patience:?}");
                Err(match trouble {
                    Some(e) => e.context(what),
                    None => Error::timeout(what, patience),
                })
            }
        }
    }

    async fn topic_soon(&self, name: &str) -> Result<Arc<TopicMeta>, Error> {
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

    /// Shows every topic in use, in the order of names: what is known, or why nothing is.
    pub(super) fn each_topic(
        &self,
        mut show: impl FnMut(&str, Option<&TopicMeta>, Option<&Error>),
    ) {
        let state = self.read();
        let mut topics: Vec<_> = state.topics.iter().collect();
        topics.sort_by_key(|(name, _)| *name);
        for (name, topic) in topics {
            show(name, topic.meta.as_deref(), topic.error.as_ref().map(|(e, _)| e));
        }
    }
}

#[cfg(test)]
mod tests;
