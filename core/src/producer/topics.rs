//! A topic as the sender sees it: where its batches wait, and the state of its partitions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::accumulator::{Accumulator, Batch, Slot};
use super::line::Line;
use super::partition::Partition;
use super::requests::Item;
use super::topic_batches::TopicBatches;
use crate::cluster::TopicMeta;
use crate::error::{Error, ErrorKind, OR_NO_PARTITION};
use crate::policy::spread::{self, Given};

pub(super) struct Topic {
    pub(super) name: Arc<str>,
    /// The topic's entry in each accumulator that uses it, to tell it what is known of the topic.
    pub(super) homes: Vec<(Weak<Accumulator>, Arc<TopicBatches>)>,
    /// When something was sent to it last.
    pub(super) used: Instant,
    /// Batches that may go to any partition.
    pub(super) unbound: Line,
    /// Batches with a named partition. A line that is empty is removed in the next round.
    pub(super) pinned: BTreeMap<i32, Line>,
    pub(super) partitions: Vec<Partition>,
    /// Partitions with something that is sent again in place.
    pub(super) resend: BTreeSet<usize>,
    /// In the last round a request was full before every partition had its turn.
    pub(super) crowded: bool,
    /// In the next round, batches that may go anywhere go before those that name their partition.
    pub(super) unbound_first: bool,
    /// On the sender's list of topics with something to send.
    pub(super) active: bool,
    pub(super) meta: Option<Arc<TopicMeta>>,
    /// At which change of the metadata (see [`Sender`](super::sender::Sender)) `meta` was looked up, and until
    /// when it need not be looked up again.
    pub(super) learned: Option<(u64, Instant)>,
    /// The partition that batches without one go to, until the next choice.
    pub(super) sticky: Option<Sticky>,
    /// How much each partition was given of batches that named none.
    pub(super) given: Given,
    /// The last error that kept batches from being sent, for the message of a timeout.
    pub(super) trouble: Option<Error>,
}

/// A choice that is kept for a batch's worth of bytes, and not for longer than [`STAY`]: a producer of a record a
/// second would keep it for an hour, and a broker that came back would be without work for so long.
#[derive(Clone, Copy)]
pub(super) struct Sticky {
    pub(super) partition: i32,
    left: usize,
    pub(super) until: Instant,
}

/// How long a choice is kept at most, in seconds.
const STAY: std::ops::Range<f64> = 300.0..600.0;

impl Topic {
    pub(super) fn new(name: &Arc<str>, now: Instant) -> Self {
        Self {
            name: Arc::clone(name),
            homes: Vec::new(),
            used: now,
            unbound: Line::default(),
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
        !self.resend.is_empty() || self.lines().any(|line| !line.is_empty())
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        std::iter::once(&self.unbound).chain(self.pinned.values())
    }

    pub(super) fn lines_mut(&mut self) -> impl Iterator<Item = &mut Line> {
        std::iter::once(&mut self.unbound).chain(self.pinned.values_mut())
    }

    /// The line of batches for this partition; `None`: of those that may go to any.
    pub(super) fn line(&mut self, partition: Option<i32>) -> &mut Line {
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

    /// Tells a slot which broker leads its partition, so that its batches are charged to that broker, too: a
    /// broker that leads many partitions and takes nothing must not fill the buffer.
    pub(super) fn tell_leader(&self, home: &Accumulator, slot: &Slot) {
        if let (Some(meta), Some(partition)) = (&self.meta, slot.partition) {
            slot.led_by(&home.share_of(leader_of(meta, partition)));
        }
    }

    /// The same for all slots that there are.
    pub(super) fn tell_leaders(&self) {
        for (home, slot) in self.pinned.values().flat_map(Line::slots) {
            self.tell_leader(home, slot);
        }
    }

    /// The batch that was sent as this item.
    pub(super) fn batch(&self, item: &Item) -> Option<&Batch> {
        self.partitions.get(item.partition as usize)?.batch(item.batch)
    }

    pub(super) fn timed_out(&self) -> Error {
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

    /// Puts a batch that came back from a partition into the line that it came from.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.line(batch.partition).put_back(batch);
    }

    /// A batch of so many bytes was put into `partition`: the choice is kept until it has had a batch's worth. A
    /// batch that went to another partition, because the leader of the kept one was busy, changes nothing.
    pub(super) fn stay(
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
        for batch in self.line(Some(partition)).take_all() {
            batch.resolve(Err(error.clone()));
        }
        self.homes.iter().for_each(|(_, batches)| batches.forget_slot(partition));
    }
}

fn leader_of(meta: &TopicMeta, partition: i32) -> i32 {
    let index = usize::try_from(partition).ok();
    index.and_then(|index| meta.partitions.get(index)).map_or(-1, |p| p.leader)
}
