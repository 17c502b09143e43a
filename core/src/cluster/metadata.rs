//! The metadata cache: who the brokers are, which topics are in use, who leads what. Merged per
//! partition by leader epoch, so that a broker that is behind cannot take a newer leader away.

mod incarnations;
mod responses;

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

use crate::config::Endpoint;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::policy::agreement::Objection;
use crate::policy::metadata_refresh::{AskPlan, RefreshReason};

use incarnations::Incarnations;

/// A topic that is missing or forbidden is not asked for again for this long.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(5);

/// A topic that nobody has used for this time is no longer asked for, and is forgotten.
const UNUSED_AFTER: Duration = Duration::from_secs(15 * 60);

/// With this many topics, unused ones are looked for when one is added, and not only when all are asked for: a
/// service may name a new topic with every record.
const MANY_TOPICS: usize = 1 << 10;

/// A topic's id and partitions, as last told. Never changed: a newer one takes its place.
#[derive(Debug, Clone)]
pub(crate) struct TopicMeta {
    pub(crate) name: Arc<str>,
    /// Nil if the broker is too old to tell it.
    pub(crate) id: Uuid,
    /// By partition number.
    pub(crate) partitions: Vec<PartitionMeta>,
}

impl TopicMeta {
    /// Brokers that lead a partition of it, each once.
    pub(crate) fn leaders(&self) -> BTreeSet<i32> {
        self.partitions.iter().map(|p| p.leader).filter(|leader| *leader >= 0).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionMeta {
    /// Its broker id; -1: the partition has no leader now.
    pub(crate) leader: i32,
    /// The leader epoch; -1: the broker did not tell it.
    pub(crate) epoch: i32,
}

/// A leader named in a Produce or Fetch response (KIP-951).
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaderHint {
    pub(crate) partition: i32,
    pub(crate) leader: i32,
    pub(crate) epoch: i32,
}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerAddress {
    pub(crate) endpoint: Endpoint,
    pub(crate) rack: Option<String>,
}

#[derive(Default)]
pub(super) struct TopicState {
    pub(super) meta: Option<Arc<TopicMeta>>,
    incarnations: Incarnations,
    /// It will be in the next request.
    wanted: bool,
    /// It is in the request that is under way. Not the same as `wanted`: a caller that wants it meanwhile may
    /// know of a change that the response does not contain yet.
    asked: bool,
    /// Why it cannot be used, and since when that is known.
    error: Option<(Error, Instant)>,
    /// An error that brokers gave for it and that is not believed yet.
    objection: Option<Objection>,
    /// A missing right was logged, and no response since has said that it is granted.
    forbidden: bool,
    /// When somebody looked it up last, in the environment's microseconds.
    used_us: AtomicU64,
}

impl TopicState {
    /// Whether somebody has used it lately.
    fn in_use(&self, now_us: u64) -> bool {
        let unused = now_us.saturating_sub(self.used_us.load(Ordering::Relaxed));
        u128::from(unused) < UNUSED_AFTER.as_micros()
    }
}

/// Where each broker is, by its id.
pub(crate) type Brokers = BTreeMap<i32, BrokerAddress>;

#[derive(Default)]
struct State {
    /// Since when no broker has answered, and the last error; `None`: the last request was answered.
    trouble: Option<(Instant, Error)>,
    /// A broker is to be asked which cluster it belongs to, even if no topic is in use.
    identity: bool,
    /// The brokers of the last response.
    brokers: Brokers,
    /// Brokers were known and have been forgotten: they are to be found again from the bootstrap list.
    begins_again: bool,
    /// Topics that were used in the last [`UNUSED_AFTER`]. With more than [`MANY_TOPICS`] of them, up to as many
    /// unused ones are kept for a while.
    topics: HashMap<Arc<str>, TopicState, FixedState>,
    /// At this number of topics, unused ones are looked for.
    swept_at: usize,
}

impl State {
    fn forget_unused(&mut self, now_us: u64) {
        self.topics.retain(|_, topic| topic.in_use(now_us));
        self.swept_at = (2 * self.topics.len()).max(MANY_TOPICS);
    }
}

/// The metadata cache of one pool.
pub(crate) struct Metadata {
    env: Environment,
    state: RwLock<State>,
    /// Counts changes; tasks that wait for metadata watch it.
    changed: watch::Sender<u64>,
    plan: Mutex<(AskPlan, StdRng)>,
    /// Wakes the refresher when the plan changes.
    pub(super) ask: Notify,
}

/// The result of looking a topic up.
pub(crate) enum Lookup {
    Known(Arc<TopicMeta>),
    Failed(Error),
    /// Not known yet; it will be, or is being, asked for.
    Pending,
}

/// The content of the next Metadata request.
pub(super) struct Question {
    pub(super) topics: Vec<Arc<str>>,
    /// All topics in use are asked for, because the period is over.
    pub(super) all: bool,
    /// One of the topics is not known yet.
    pub(super) new: bool,
    /// A broker did not know one of the topics: another broker must be asked.
    pub(super) elsewhere: bool,
    /// To be sent even without topics: the response says which cluster it is.
    pub(super) identity: bool,
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

    fn plan_for(&self, why: RefreshReason) {
        self.plan(|plan, rng, now| plan.want(why, now, rng));
        self.ask.notify_one();
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Since when no broker has answered, and the last error.
    pub(crate) fn trouble(&self) -> Option<(Instant, Error)> {
        self.read().trouble.clone()
    }

    pub(crate) fn knows_brokers(&self) -> bool {
        !self.read().brokers.is_empty()
    }

    /// Looks a topic up, which marks it as in use. Asks for it if it is new, or if it failed long enough ago.
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
            if state.wanted || state.asked {
                return Lookup::Pending;
            }
        }
        self.want(topic, RefreshReason::New);
        Lookup::Pending
    }

    /// Asks for a topic (again).
    pub(crate) fn want(&self, topic: &str, why: RefreshReason) {
        let now_us = self.env.micros(self.env.now());
        let mut guard = self.write();
        let state = &mut *guard;
        if state.topics.len() >= state.swept_at.max(MANY_TOPICS) {
            state.forget_unused(now_us);
        }
        let entry = match state.topics.get_mut(topic) {
            Some(entry) => entry,
            None => state.topics.entry(Arc::from(topic)).or_default(),
        };
        entry.used_us.store(now_us, Ordering::Relaxed);
        entry.error = None;
        let asked = std::mem::replace(&mut entry.wanted, true);
        drop(guard);
        if !asked || why != RefreshReason::New {
            self.plan_for(why);
        }
    }

    /// A broker answered for another cluster: the others are to be asked.
    pub(super) fn want_identity(&self) {
        self.write().identity = true;
        self.plan_for(RefreshReason::Lost);
    }

    /// Another cluster has taken the place of the old one; `response` is its first response. Everything else is
    /// forgotten.
    pub(super) fn begin_anew(
        &self,
        response: &MetadataResponse,
        from: i32,
        brokers: impl FnOnce(&Brokers, &BTreeSet<i32>),
    ) {
        let mut state = self.write();
        state.brokers.clear();
        for topic in state.topics.values_mut() {
            let used_us = std::mem::take(&mut topic.used_us);
            *topic = TopicState { wanted: true, used_us, ..TopicState::default() };
        }
        drop(state);
        self.merge(response, from, false, brokers);
    }

    /// Our own CreateTopics made this topic: that it was missing is forgotten.
    pub(crate) fn created(&self, topic: &str) {
        let mut state = self.write();
        if let Some(entry) = state.topics.get_mut(topic) {
            entry.error = None;
            entry.objection = None;
        }
    }

    /// The content of the next request, if it is time for one. Topics that are not in use any more are forgotten
    /// on the way.
    pub(super) fn question(&self) -> Option<Question> {
        let all = self.plan(|plan, _, now| plan.due(now))?;
        let now_us = self.env.micros(self.env.now());
        let mut state = self.write();
        if all {
            state.forget_unused(now_us);
        }
        let chosen = || state.topics.iter().filter(|(_, t)| all || t.wanted);
        let mut topics: Vec<Arc<str>> = chosen().map(|(name, _)| Arc::clone(name)).collect();
        topics.sort();
        let new = chosen().any(|(_, t)| t.meta.is_none() && t.objection.is_none());
        let elsewhere = chosen().any(|(_, t)| t.objection.is_some());
        Some(Question { topics, all, new, elsewhere, identity: state.identity })
    }

    /// The request is sent: topics that are wanted from now on are for the next one.
    pub(super) fn asked(&self, question: &Question) {
        self.plan(|plan, _, now| plan.asked(now));
        let mut state = self.write();
        state.identity = false;
        for name in &question.topics {
            if let Some(topic) = state.topics.get_mut(name) {
                topic.asked = true;
                topic.wanted = false;
            }
        }
    }

    /// Nobody answered: the topics that were asked for are wanted again.
    pub(super) fn not_answered(&self, question: &Question, error: &Error) {
        let mut state = self.write();
        // Since the first request that was not answered.
        let since = state.trouble.as_ref().map_or(self.env.now(), |(since, _)| *since);
        state.trouble = Some((since, error.clone()));
        state.identity |= question.identity;
        for name in &question.topics {
            if let Some(topic) = state.topics.get_mut(name) {
                topic.asked = false;
                topic.wanted = true;
            }
        }
        drop(state);
        self.plan(|plan, rng, now| plan.failed(question.all, now, rng));
    }

    /// Fails all topics that are waited for: every broker refuses this client.
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
        let mut state = self.write();
        state.begins_again |= !state.brokers.is_empty();
        state.brokers.clear();
    }

    /// Whether brokers were known before and were forgotten.
    pub(super) fn begins_again(&self) -> bool {
        self.read().begins_again
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
                let trouble = self.trouble().map(|(_, e)| e);
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
impl Metadata {
    /// Whether a topic is to be asked for, or is being asked for. That is forgotten with this.
    pub(super) fn forget_wish(&self, topic: &str) -> bool {
        self.write().topics.get_mut(topic).is_some_and(|topic| {
            let asked = std::mem::take(&mut topic.asked);
            std::mem::take(&mut topic.wanted) || asked
        })
    }
}

#[cfg(test)]
mod tests;
