//! A topic as the sender sees it: where its batches wait, and the state of its partitions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::partition::Partition;
use super::request::SentBatch;
use super::send_queue::SendQueue;
use crate::cluster::TopicMeta;
use crate::error::{Error, ErrorKind, OR_NO_PARTITION};
use crate::policy::spread::{self, Given};
use crate::producer::accumulator::{Accumulator, BatchQueue, TopicBatches};
use crate::producer::batch::Batch;
use crate::protocol::NO_LEADER;

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
    /// The value of `Sender::changes` when `meta` was looked up, and until when it need not be looked up
    /// again.
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
