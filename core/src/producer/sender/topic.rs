//! A topic as the sender sees it: where its batches wait, and the state of its partitions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::partition::Partition;
use super::request::SentBatch;
use super::send_queue::SendQueue;
use crate::cluster::{Lookup, Metadata, TopicMeta};
use crate::error::{Error, ErrorKind, OR_NO_PARTITION};
use crate::metrics::{Metrics, limited};
use crate::policy::spread::{self, Given};
use crate::producer::accumulator::{Accumulator, BatchQueue, TopicBatches};
use crate::producer::batch::Batch;
use crate::protocol::NO_LEADER;

/// A topic that cannot be used is refused at once for this long before it is asked for again.
const FAILED_TOPIC: Duration = Duration::from_secs(1);

/// A topic in use is looked up in the metadata cache at least this often, even if the metadata has not
/// changed: the lookup marks the topic as used, so that the cache keeps it.
pub(super) const LEARN_AGAIN: Duration = Duration::from_secs(10);

pub(in crate::producer) struct Topic {
    pub(in crate::producer) name: Arc<str>,
    /// The topic's entry in each accumulator that uses it, to tell it what is known of the topic.
    pub(in crate::producer) topic_batches: Vec<(Weak<Accumulator>, Arc<TopicBatches>)>,
    /// When something was sent to it last.
    pub(in crate::producer) used: Instant,
    /// Batches that may go to any partition.
    pub(super) unbound: SendQueue,
    /// Batches with a named partition. A send queue that is empty is removed in the next round.
    pub(in crate::producer) pinned: BTreeMap<i32, SendQueue>,
    pub(in crate::producer) partitions: Vec<Partition>,
    /// Partitions with something that is sent again in place.
    pub(super) resend: BTreeSet<usize>,
    /// In the last round a request was full before every partition had its turn.
    pub(super) crowded: bool,
    /// In the next round, batches that may go anywhere go before those that name their partition.
    pub(super) unbound_first: bool,
    /// On the sender's list of topics with something to send.
    pub(super) active: bool,
    pub(in crate::producer) meta: Option<Arc<TopicMeta>>,
    /// How many metadata changes there had been when `meta` was looked up, and until when it need not be looked
    /// up again.
    pub(super) learned: Option<(u64, Instant)>,
    /// The partition that batches without one go to, until the next choice.
    pub(super) sticky: Option<Sticky>,
    /// How much each partition has got of the batches that named no partition, in full batches.
    pub(in crate::producer) given: Given,
    /// The last error that kept batches from being sent, for the message of a timeout.
    pub(in crate::producer) trouble: Option<Error>,
}

/// The partition that was chosen last for batches without one. Kept for a batch's worth of bytes, and not
/// for longer than [`STAY`]: with one record a second a batch's worth takes an hour, and for so long a
/// broker that came back would get nothing.
#[derive(Clone, Copy)]
pub(super) struct Sticky {
    pub(in crate::producer) partition: i32,
    left: usize,
    pub(in crate::producer) until: Instant,
}

/// How long a choice is kept at most, in seconds.
const STAY: std::ops::Range<f64> = 300.0..600.0;

impl Topic {
    pub(in crate::producer) fn new(name: &Arc<str>, now: Instant) -> Self {
        Self {
            name: Arc::clone(name),
            topic_batches: Vec::new(),
            used: now,
            unbound: SendQueue::default(),
            pinned: BTreeMap::new(),
            partitions: Vec::new(),
            resend: BTreeSet::new(),
            crowded: false,
            unbound_first: false,
            active: false,
            meta: None,
            learned: None,
            sticky: None,
            given: Given::default(),
            trouble: None,
        }
    }

    /// An accumulator has sent to it. Gives whether it has before.
    pub(super) fn used_by(
        &mut self,
        accumulator: &Arc<Accumulator>,
        batches: &Arc<TopicBatches>,
        now: Instant,
    ) -> bool {
        self.used = now;
        let known = self.topic_batches.iter().any(|(_, other)| Arc::ptr_eq(other, batches));
        if !known {
            // Entries of accumulators that are gone are removed.
            self.topic_batches.retain(|(accumulator, _)| accumulator.strong_count() > 0);
            self.topic_batches.push((Arc::downgrade(accumulator), Arc::clone(batches)));
            self.learned = None;
        }
        known
    }

    /// Forgets it in its accumulators, unless a batch of it is open or under way. `true` if it is in none of them
    /// any more.
    pub(super) fn let_go(&mut self) -> bool {
        if self.has_work() || !self.partitions.iter().all(|p| p.is_empty()) {
            return false;
        }
        self.topic_batches.retain(|(accumulator, batches)| match accumulator.upgrade() {
            Some(accumulator) => !accumulator.let_go(batches),
            None => false,
        });
        self.topic_batches.is_empty()
    }

    /// Brings its metadata up to date. `changes`: how many changes there were. `false`: nothing can be sent to it
    /// now.
    pub(super) fn learn(
        &mut self,
        metadata: &Metadata,
        metrics: &Metrics,
        changes: u64,
        now: Instant,
    ) -> bool {
        if self.learned.is_some_and(|(then, until)| then == changes && until > now) {
            return true;
        }
        self.learned = None;
        match metadata.lookup(&self.name) {
            Lookup::Pending => false,
            Lookup::Failed(error) => {
                for (_, batches) in &self.topic_batches {
                    batches.fail(error.clone(), now + FAILED_TOPIC);
                }
                for batch in self.queues_mut().flat_map(SendQueue::take_all) {
                    batch.resolve(Err(error.clone()));
                }
                false
            }
            Lookup::Known(meta) => {
                if !self.meta.as_ref().is_some_and(|old| Arc::ptr_eq(old, &meta)) {
                    self.take_over(&meta, metrics);
                }
                // An accumulator that uses the topic for the first time learns of it here, too.
                let n = i32::try_from(meta.partitions.len()).unwrap_or(i32::MAX);
                for (accumulator, batches) in &self.topic_batches {
                    // An accumulator that is gone has no open batch.
                    if let Some(accumulator) = accumulator.upgrade() {
                        batches.learned(&accumulator, n);
                    }
                }
                self.learned = Some((changes, now + LEARN_AGAIN));
                true
            }
        }
    }

    /// Its partitions, their leaders or its id have changed.
    fn take_over(&mut self, meta: &Arc<TopicMeta>, metrics: &Metrics) {
        // Another id is another topic of the same name: its partitions know nothing of our sequences, and
        // take any as the first.
        if self.meta.as_ref().is_some_and(|old| old.id != meta.id) {
            limited!(metrics.logs(), "ottla::producer", WARN, topic = %self.name, "the topic was recreated");
            self.partitions.iter_mut().for_each(Partition::recreated);
        }
        if self.partitions.len() < meta.partitions.len() {
            // The kept partition was chosen among fewer, and a producer that sends little would keep it for
            // minutes.
            self.sticky = None;
            self.partitions.resize_with(meta.partitions.len(), Partition::default);
        }
        self.meta = Some(Arc::clone(meta));
        self.tell_leaders();
    }

    /// Forgets what belongs to a cluster that is gone. Batches that it may have written fail with this error; those that
    /// were never sent go to the new one, in their order.
    pub(super) fn begin_anew(&mut self, error: &Error) {
        self.meta = None;
        self.learned = None;
        self.sticky = None;
        self.resend.clear();
        let mut unsent = Vec::new();
        for mut partition in std::mem::take(&mut self.partitions) {
            for (batch, maybe) in partition.take_all() {
                match maybe {
                    true => batch.resolve(Err(error.with_maybe_written(true))),
                    false => unsent.push(batch),
                }
            }
        }
        for batch in unsent.into_iter().rev() {
            self.put_back(batch);
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.resend.is_empty() || self.queues().any(|queue| !queue.is_empty())
    }

    pub(in crate::producer) fn queues(&self) -> impl Iterator<Item = &SendQueue> {
        std::iter::once(&self.unbound).chain(self.pinned.values())
    }

    pub(super) fn queues_mut(&mut self) -> impl Iterator<Item = &mut SendQueue> {
        std::iter::once(&mut self.unbound).chain(self.pinned.values_mut())
    }

    /// The send queue of this partition; `None`: that of the batches that may go to any.
    pub(in crate::producer) fn queue(&mut self, partition: Option<i32>) -> &mut SendQueue {
        match partition {
            None => &mut self.unbound,
            Some(partition) => self.pinned.entry(partition).or_default(),
        }
    }

    /// Puts it on the list of topics with something to send, if it has and is not there.
    pub(super) fn activate(&mut self, list: &mut VecDeque<Arc<str>>) {
        if !self.active && self.has_work() {
            self.active = true;
            list.push_back(Arc::clone(&self.name));
        }
    }

    /// Tells a queue which broker leads its partition, so that its batches are charged to that broker, too: a
    /// broker that leads many partitions and takes nothing must not fill the buffer.
    pub(super) fn tell_leader(&self, accumulator: &Accumulator, batch_queue: &BatchQueue) {
        if let (Some(meta), Some(partition)) = (&self.meta, batch_queue.partition) {
            batch_queue.led_by(&accumulator.quota_of(leader_of(meta, partition)));
        }
    }

    /// The same for all queues of named partitions.
    pub(super) fn tell_leaders(&self) {
        for (accumulator, batch_queue) in self.pinned.values().flat_map(SendQueue::batch_queues) {
            self.tell_leader(accumulator, batch_queue);
        }
    }

    /// The batch that was sent as this item.
    pub(in crate::producer) fn batch(&self, item: &SentBatch) -> Option<&Batch> {
        self.partitions.get(item.partition as usize)?.batch(item.batch)
    }

    pub(in crate::producer) fn timed_out(&self) -> Error {
        let why = match &self.trouble {
            Some(e) => format!("; last trouble: {}", e.message()),
            None if self.meta.is_none() => "; its partitions are not known yet".to_owned(),
            None => String::new(),
        };
        Error::new(
            ErrorKind::Timeout,
            format!("a record for topic '{}' was not acknowledged in time{why}", self.name),
        )
    }

    /// Puts a batch that came back from a partition into its send queue, before all others.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.queue(batch.partition).put_back(batch);
    }

    /// A batch of `bytes` was put into `partition`: the choice is kept until the partition has got a batch's
    /// worth. A batch that went to another partition, because the leader of the kept one was busy, changes
    /// nothing.
    pub(in crate::producer) fn stay(
        &mut self,
        partition: i32,
        bytes: usize,
        batch_size: usize,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let mut sticky = match self.sticky {
            Some(sticky) if sticky.partition == partition => sticky,
            Some(_) => return,
            None => Sticky {
                partition,
                left: batch_size,
                until: now + Duration::from_secs_f64(rng.random_range(STAY)),
            },
        };
        sticky.left = sticky.left.saturating_sub(bytes);
        self.sticky = spread::stays(sticky.left, bytes).then_some(sticky);
    }

    pub(super) fn refuse_partition(&mut self, partition: i32, known: usize) {
        let error = Error::new(
            ErrorKind::UnknownPartition,
            format!("topic '{}' has no partition {partition}, it has {known}", self.name),
        )
        .advise(OR_NO_PARTITION);
        for batch in self.queue(Some(partition)).take_all() {
            batch.resolve(Err(error.clone()));
        }
        self.topic_batches.iter().for_each(|(_, batches)| batches.forget_batch_queue(partition));
    }
}

fn leader_of(meta: &TopicMeta, partition: i32) -> i32 {
    let index = usize::try_from(partition).ok();
    index.and_then(|index| meta.partitions.get(index)).map_or(NO_LEADER, |p| p.leader)
}
