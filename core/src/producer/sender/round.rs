//! A round: one pass over the topics that have something to send. Each topic has its turn, and gives at most one batch
//! of each partition to the draft of its leader's request ([`assign`]); a batch that may go to any partition gets one
//! first ([`select`]). A round has no hand in requests that are in flight: it ends with its drafts.

mod assign;
mod select;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand::rngs::StdRng;
use tokio::time::Instant;

use super::Sender;
use super::leaders::Leaders;
use super::lookup::Wanted;
use super::producer_id::ProducerIdState;
use super::request::{Ids, RequestDraft};
use super::schedule::Schedule;
use super::tasks::Tasks;
use super::topics::Topics;
use crate::cluster::{Metadata, Pool};
use crate::metrics::Metrics;
use crate::policy::pace::Allowance;

/// The state of one round, and what it uses of the sender.
pub(super) struct Round<'a> {
    pool: &'a Pool,
    metadata: &'a Metadata,
    metrics: &'a Metrics,
    tasks: &'a Tasks,
    topics: &'a mut Topics,
    leaders: &'a mut Leaders,
    schedule: &'a mut Schedule,
    id_state: &'a ProducerIdState,
    ids: &'a mut Ids,
    rng: &'a mut StdRng,
    now: Instant,
    drafts: Vec<RequestDraft>,
    /// By leader: the partitions whose last sequence it is to be asked for.
    lookups: BTreeMap<i32, Vec<Wanted>>,
    /// Requests that may be made, less those of this round.
    allowance: Allowance,
    turns: Turns,
    /// An open batch was left to gather. It may still ride in this round, if another batch makes a request
    /// to its leader.
    held: bool,
    /// The round is at its second turns. Lookups were asked for in the first ones, and are not asked for
    /// twice.
    again: bool,
}

/// The topics of one round: `served` got a batch into a request, `not_served` did not, and `held` get a
/// second turn at the end of the round.
#[derive(Default)]
struct Turns {
    served: VecDeque<Arc<str>>,
    not_served: VecDeque<Arc<str>>,
    held: Vec<Held>,
    /// For each partition of the topic whose turn it is: a request of this round names it already. Kept
    /// here only so that its memory is used again.
    taken: Vec<bool>,
}

/// A topic with open batches that were left to gather: it gets a second turn.
struct Held {
    name: Arc<str>,
    /// Its partitions that requests of this round name already.
    taken: Vec<bool>,
    served: bool,
}

impl Sender {
    /// Begins a round, in which no batch has a partition yet.
    pub(super) fn begin_round<'a>(&'a mut self, pool: &'a Pool, now: Instant) -> Round<'a> {
        self.leaders.begin_round(pool, &self.metrics, now);
        Round {
            pool,
            metadata: &self.metadata,
            metrics: &self.metrics,
            tasks: &self.tasks,
            topics: &mut self.topics,
            leaders: &mut self.leaders,
            schedule: &mut self.schedule,
            id_state: &self.id_state,
            ids: &mut self.ids,
            rng: &mut self.rng,
            now,
            drafts: Vec::new(),
            lookups: BTreeMap::new(),
            allowance: pool.pace().look(now),
            turns: Turns::default(),
            held: false,
            again: false,
        }
    }
}

impl Round<'_> {
    /// Gives each topic with something to send its turn. What comes of it: a draft for each leader that gets something,
    /// and what is to be asked of leaders.
    pub(super) fn assemble(mut self) -> (Vec<RequestDraft>, BTreeMap<i32, Vec<Wanted>>) {
        for name in self.topics.take_active() {
            self.turn(name, None);
        }
        self.second_turns();
        if self.again {
            self.drafts.iter_mut().for_each(RequestDraft::join_topics);
        }
        self.topics.next_turns(self.turns.not_served);
        self.topics.next_turns(self.turns.served);
        (self.drafts, self.lookups)
    }

    /// Open batches that were left to gather ride in requests that this round makes anyway.
    fn second_turns(&mut self) {
        let held = std::mem::take(&mut self.turns.held);
        self.again = !held.is_empty() && !self.drafts.is_empty();
        for held in held {
            if self.drafts.is_empty() {
                self.turns.not_served.push_back(held.name);
            } else {
                self.turn(Arc::clone(&held.name), Some(held));
            }
        }
    }

    /// One topic's turn. `again`: it is the second turn, and this is what the first one left.
    fn turn(&mut self, name: Arc<str>, again: Option<Held>) {
        // Taken out so that leaders and topic can be changed side by side.
        let Some(mut topic) = self.topics.take(&name) else { return };
        let given = self.parts();
        let mut served = again.as_ref().is_some_and(|held| held.served);
        let mut held = false;
        if again.is_some() || self.topics.learn(&mut topic, self.metadata, self.metrics, self.now) {
            // A request may name a partition only once: the parts of its response are told apart by the
            // partition.
            let first = again.is_none();
            let mut taken =
                again.map_or_else(|| std::mem::take(&mut self.turns.taken), |a| a.taken);
            if first {
                taken.clear();
                taken.resize(topic.partitions.len(), false);
            }
            self.held = false;
            self.assign(&mut topic, &mut taken);
            served |= self.parts() > given;
            held = first && self.held && topic.has_work();
            match held {
                true => self.turns.held.push(Held { name: Arc::clone(&name), taken, served }),
                false => self.turns.taken = taken,
            }
        }
        topic.active = topic.has_work();
        if topic.active && !held {
            // A request has a maximum size. So a topic that got something into one goes behind the others
            // in the next round.
            let queue = if served { &mut self.turns.served } else { &mut self.turns.not_served };
            queue.push_back(Arc::clone(&name));
        }
        self.topics.put(name, topic);
    }

    /// One topic alone has both of its turns. Gives what is asked of leaders.
    #[cfg(test)]
    pub(super) fn with_two_turns(mut self, name: &str) -> BTreeMap<i32, Vec<Wanted>> {
        self.turn(Arc::from(name), None);
        let held = self.turns.held.pop().expect("something is left to gather");
        self.again = true;
        self.turn(Arc::from(name), Some(held));
        self.lookups
    }

    /// The number of batches in the drafts so far.
    fn parts(&self) -> usize {
        self.drafts.iter().map(RequestDraft::len).sum()
    }
}
