//! A topic as the sender sees it: where its batches wait.

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
    /// The topic's entry in each home, to tell it what is known.
    pub(super) homes: Vec<(Weak<Accumulator>, Arc<TopicBatches>)>,
    /// When something was sent to it last.
    pub(super) used: Instant,
    /// Batches that may go to any partition.
    pub(super) unbound: Line,
    /// Batches with a named partition; none that is empty stays for longer than a round.
    pub(super) pinned: BTreeMap<i32, Line>,
    pub(super) partitions: Vec<Partition>,
    /// Partitions with something that is sent again in place.
    pub(super) resend: BTreeSet<usize>,
    /// In the last round a request was full before everything had its turn.
    pub(super) crowded: bool,
    /// What may go anywhere goes before what names its partition, in the next round.
    pub(super) unbound_first: bool,
    /// On the sender's list of topics with something to send.
    pub(super) active: bool,
    pub(super) meta: Option<Arc<TopicMeta>>,
    /// In which state of the cluster `meta` was looked up, and until when it need not be again.
    pub(super) learned: Option<(u64, Instant)>,
    /// Where the last batch without a partition went, until the next choice.
    pub(super) sticky: Option<Sticky>,
    /// What its partitions were given of batches without one.
    pub(super) given: Given,
    /// Why things do not move, for the message of a timeout.
    pub(super) trouble: Option<Error>,
}

/// A choice that is kept for a batch's worth of bytes, or for a while: one that sends a record a
/// second would stay for an hour, and a broker that came back would be without work for so long.
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

    /// The line of what goes to a partition that is named, or to any.
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

    /// Says who leads the partition of a slot: whoever leads many that take nothing must not fill the
    /// buffer with what is for them.
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

    /// A batch that came back from a partition, to where it came from.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.line(batch.partition).put_back(batch);
    }

    /// Keeps the choice for a batch's worth of bytes. What goes elsewhere because the leader of one
    /// that is kept is busy changes nothing.
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
