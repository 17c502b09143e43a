//! The topics that the sender sends to: all that were used lately, and in which order those with something to send have
//! their turns. Topics that are not sent to any more are let go, with the sequences of their partitions.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::time::Instant;

use super::partition::Partition;
use super::producer_id::ProducerIdState;
use super::request::SentBatch;
use super::schedule::Schedule;
use super::topic::Topic;
use crate::cluster::Metadata;
use crate::environment::earlier;
use crate::metrics::Metrics;
use crate::producer::accumulator::{Accumulator, BatchQueue, TopicBatches};

/// A topic that nothing was sent to for this time is forgotten.
pub(super) const UNUSED_AFTER: Duration = Duration::from_secs(5 * 60);

/// With this many topics, unused ones are looked for whenever a topic is added, and not only when the first
/// of them is due: a service may name a new topic with every record.
const MANY_TOPICS: usize = 1 << 10;

pub(super) struct Topics {
    /// Hashing that is the same in every run: a simulation must repeat, and the order in which topics
    /// are looked at follows from it.
    all: HashMap<Arc<str>, Box<Topic>, FixedState>,
    /// Topics with something to send; the one whose turn came longest ago is first.
    active: VecDeque<Arc<str>>,
    /// The number of metadata changes so far: a topic is looked up again after each.
    changes: u64,
    /// With this many topics, unused ones are looked for at once.
    release_at_len: usize,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            all: HashMap::default(),
            active: VecDeque::new(),
            changes: 0,
            release_at_len: MANY_TOPICS,
        }
    }
}

impl Topics {
    pub(super) fn get(&self, name: &str) -> Option<&Topic> {
        self.all.get(name).map(|topic| &**topic)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.all.get_mut(name).map(|topic| &mut **topic)
    }

    /// The partition that a batch was sent to.
    pub(super) fn partition(&mut self, item: &SentBatch) -> Option<&mut Partition> {
        self.all.get_mut(&item.topic)?.partitions.get_mut(item.partition as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.all.values().map(|topic| &**topic)
    }

    /// To change what gives no topic more to send; else see [`change`](Self::change).
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Topic> {
        self.all.values_mut().map(|topic| &mut **topic)
    }

    /// Changes a topic, which may have something to send after that: then it has its turn.
    pub(super) fn change<T>(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Topic) -> T,
    ) -> Option<T> {
        let topic = self.all.get_mut(name)?;
        let out = change(topic);
        topic.activate(&mut self.active);
        Some(out)
    }

    /// The same for all of them.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(&mut Topic)) {
        for topic in self.all.values_mut() {
            change(topic);
            topic.activate(&mut self.active);
        }
    }

    /// A batch queue has announced itself. `holds`: it was not empty when it was looked at. A topic is entered even if its
    /// queue is empty: only a sender that knows a topic can forget it later. Gives whether the accumulator has
    /// used the topic before.
    pub(super) fn announced(
        &mut self,
        accumulator: &Arc<Accumulator>,
        batches: &Arc<TopicBatches>,
        batch_queue: &Arc<BatchQueue>,
        holds: bool,
        now: Instant,
    ) -> bool {
        let topic = self
            .all
            .entry(Arc::clone(&batches.name))
            .or_insert_with(|| Box::new(Topic::new(&batches.name, now)));
        let known = topic.used_by(accumulator, batches, now);
        if holds {
            if topic.queue(batch_queue.partition).add(accumulator, batch_queue) {
                topic.tell_leader(accumulator, batch_queue);
            }
            topic.activate(&mut self.active);
        }
        known
    }

    /// Whether any topic has something to send.
    pub(super) fn has_work(&self) -> bool {
        !self.active.is_empty()
    }

    /// The topics with something to send, in the order of their turns. Each of them is taken, and put back, in the round
    /// that begins.
    pub(super) fn take_active(&mut self) -> VecDeque<Arc<str>> {
        std::mem::take(&mut self.active)
    }

    /// The topics of a round that still have something to send, in the order of their next turns.
    pub(super) fn next_turns(&mut self, mut names: VecDeque<Arc<str>>) {
        self.active.append(&mut names);
    }

    /// Takes a topic out, so that it can be changed beside all others.
    pub(super) fn take(&mut self, name: &str) -> Option<Box<Topic>> {
        self.all.remove(name)
    }

    /// Puts it back.
    pub(super) fn put(&mut self, name: Arc<str>, topic: Box<Topic>) {
        self.all.insert(name, topic);
    }

    /// Brokers may have come, gone or moved.
    pub(super) fn cluster_changed(&mut self) {
        self.changes += 1;
    }

    /// Brings a topic's metadata up to date. `false`: nothing can be sent to it now.
    pub(super) fn learn(
        &self,
        topic: &mut Topic,
        metadata: &Metadata,
        metrics: &Metrics,
        now: Instant,
    ) -> bool {
        topic.learn(metadata, metrics, self.changes, now)
    }

    /// Forgets topics that were not used for long. Looks at every topic, so it does this once in a while.
    pub(super) fn release_unused(
        &mut self,
        id_state: &mut ProducerIdState,
        schedule: &mut Schedule,
        now: Instant,
    ) {
        if self.all.len() < self.release_at_len && !schedule.releases(now) {
            return;
        }
        let mut next = None;
        self.all.retain(|_, topic| {
            let at = topic.used + UNUSED_AFTER;
            if at <= now && topic.let_go() {
                topic
                    .partitions
                    .iter()
                    .filter_map(|p| p.begun())
                    .for_each(|name| id_state.forgotten(name));
                return false;
            }
            if at <= now {
                // `used` is set by announcements only. A topic whose queues never become empty makes none,
                // but is in use.
                topic.used = now;
            }
            next = earlier(next, Some(topic.used + UNUSED_AFTER));
            true
        });
        self.release_at_len = (2 * self.all.len()).max(MANY_TOPICS);
        // Topics that fall due within a minute are forgotten together.
        schedule.next_release(next.map(|at| at.max(now + UNUSED_AFTER / 5)));
    }
}
