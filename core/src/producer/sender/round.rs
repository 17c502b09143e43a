//! A round: one pass over the topics that have something to send. Each topic has its turn, and gives at most one batch
//! of each partition to the draft of its leader's request; then the drafts are sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::Sender;
use super::lookup::Wanted;
use super::request::RequestDraft;
use crate::cluster::Pool;
use crate::environment::earlier;
use crate::policy::pace::Bucket;

/// The state of one round.
pub(super) struct Round<'a> {
    pub(in crate::producer) pool: &'a Arc<Pool>,
    pub(super) now: Instant,
    pub(super) drafts: Vec<RequestDraft>,
    /// By leader: the partitions whose last sequence it is to be asked for.
    pub(super) lookups: BTreeMap<i32, Vec<Wanted>>,
    /// Requests that may be made, less those of this round.
    pub(in crate::producer) bucket: Bucket,
    /// An open batch was left to gather. It may still ride in this round, if another batch makes a request
    /// to its leader.
    pub(in crate::producer) held: bool,
    /// The round is at its second turns. Lookups were asked for in the first ones, and are not asked for
    /// twice.
    pub(super) again: bool,
}

impl Round<'_> {
    /// The number of batches in the drafts so far.
    pub(in crate::producer) fn parts(&self) -> usize {
        self.drafts.iter().map(|draft| draft.parts.len()).sum()
    }
}

/// The topics of one round: `served` got a batch into a request, `not_served` did not, and `held` get a
/// second turn at the end of the round.
#[derive(Default)]
pub(super) struct Turns {
    served: VecDeque<Arc<str>>,
    not_served: VecDeque<Arc<str>>,
    pub(super) held: Vec<Held>,
    /// For each partition of the topic whose turn it is: a request of this round names it already. Kept
    /// here only so that its memory is used again.
    taken: Vec<bool>,
}

/// A topic with open batches that were left to gather: it gets a second turn.
pub(super) struct Held {
    name: Arc<str>,
    /// Its partitions that requests of this round name already.
    taken: Vec<bool>,
    served: bool,
}

impl Sender {
    /// Assigns at most one batch to each partition and sends one request to each leader that got
    /// some. Gives whether anything was sent.
    pub(super) fn round(&mut self, now: Instant) -> bool {
        if self.active.is_empty() {
            return false;
        }
        if let Some(at) = self.rests_until.filter(|at| *at > now) {
            self.wake_at = earlier(self.wake_at, Some(at));
            return false;
        }
        if !self.passes(now) {
            return false;
        }
        let Some(pool) = self.pool.upgrade() else { return false };
        self.env.mishap("sender");
        self.leaders.begin_round(&pool, &self.metrics, now);
        let mut round = Round {
            pool: &pool,
            now,
            drafts: Vec::new(),
            lookups: BTreeMap::new(),
            bucket: pool.pace().look(now),
            held: false,
            again: false,
        };
        let mut turns = Turns::default();
        for name in std::mem::take(&mut self.active) {
            self.turn(name, None, &mut round, &mut turns);
        }
        // Open batches that were left to gather ride in requests that this round makes anyway.
        let held = std::mem::take(&mut turns.held);
        round.again = !held.is_empty() && !round.drafts.is_empty();
        for held in held {
            if round.drafts.is_empty() {
                turns.not_served.push_back(held.name);
            } else {
                self.turn(Arc::clone(&held.name), Some(held), &mut round, &mut turns);
            }
        }
        if round.again {
            round.drafts.iter_mut().for_each(RequestDraft::join_topics);
        }
        self.active.append(&mut turns.not_served);
        self.active.append(&mut turns.served);
        self.look_up(std::mem::take(&mut round.lookups));
        let mut any = false;
        for draft in round.drafts {
            if self.affords(&pool, &draft, now) {
                any = true;
                // A request with nothing but retries is paid from the retry budget, not from the bucket.
                if draft.cost().is_none() {
                    pool.pace().take(draft.hasty);
                }
                self.send(draft, now);
            } else {
                self.withdraw(&draft);
            }
        }
        any
    }

    /// One topic's turn in a round. `again`: it is the second turn, and this is what the first one left.
    pub(super) fn turn(
        &mut self,
        name: Arc<str>,
        again: Option<Held>,
        round: &mut Round<'_>,
        turns: &mut Turns,
    ) {
        // Taken out so that leaders and topic can be changed side by side.
        let Some(mut topic) = self.topics.remove(&name) else { return };
        let given = round.parts();
        let mut served = again.as_ref().is_some_and(|held| held.served);
        let mut held = false;
        if again.is_some() || self.learn(&mut topic, round.now) {
            // A request may name a partition only once: the parts of its response are told apart by the
            // partition.
            let first = again.is_none();
            let mut taken = again.map_or_else(|| std::mem::take(&mut turns.taken), |a| a.taken);
            if first {
                taken.clear();
                taken.resize(topic.partitions.len(), false);
            }
            round.held = false;
            self.assign(&mut topic, round, &mut taken);
            served |= round.parts() > given;
            held = first && round.held && topic.has_work();
            match held {
                true => turns.held.push(Held { name: Arc::clone(&name), taken, served }),
                false => turns.taken = taken,
            }
        }
        topic.active = topic.has_work();
        if topic.active && !held {
            // A request has a maximum size. So a topic that got something into one goes behind the others
            // in the next round.
            let queue = if served { &mut turns.served } else { &mut turns.not_served };
            queue.push_back(Arc::clone(&name));
        }
        self.topics.insert(name, topic);
    }
}
