//! A topic as the sender sees it: where its batches wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::accumulator::{Accumulator, Batch, Peek, Slot};
use super::partition::Partition;
use super::sender::{Item, earlier};
use super::topic_batches::TopicBatches;
use crate::cluster::TopicMeta;
use crate::error::{Error, ErrorKind};

pub(super) struct Topic {
    pub(super) name: Arc<str>,
    /// The topic's entry in each home, to tell it what is known.
    pub(super) homes: Vec<Arc<TopicBatches>>,
    pub(super) slots: VecDeque<(Arc<Accumulator>, Arc<Slot>)>,
    /// Batches without a partition that came back.
    pub(super) unbound: VecDeque<Batch>,
    /// Batches with a named partition that came back.
    pub(super) pinned: BTreeMap<i32, VecDeque<Batch>>,
    pub(super) partitions: Vec<Partition>,
    /// Partitions with something that is sent again in place.
    pub(super) resend: BTreeSet<usize>,
    /// On the sender's list of topics with something to send.
    pub(super) active: bool,
    pub(super) meta: Option<Arc<TopicMeta>>,
    /// Where the last batch without a partition went, until the next choice.
    pub(super) sticky: Option<Sticky>,
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

/// What of a topic's batches without a partition comes next.
pub(super) enum Next {
    Nothing,
    /// Only batches that were refused and have to wait until then.
    Later(Instant),
    Full,
    /// Open ones: due at the latest then. Others are not to be taken before `later`.
    Open {
        due: Instant,
        later: Option<Instant>,
    },
}

impl Topic {
    pub(super) fn new(name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            homes: Vec::new(),
            slots: VecDeque::new(),
            unbound: VecDeque::new(),
            pinned: BTreeMap::new(),
            partitions: Vec::new(),
            resend: BTreeSet::new(),
            active: false,
            meta: None,
            sticky: None,
            trouble: None,
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.slots.is_empty()
            || !self.unbound.is_empty()
            || self.pinned.values().any(|q| !q.is_empty())
            || !self.resend.is_empty()
    }

    /// Puts it on the list of topics with something to send, if it has and is not there.
    pub(super) fn activate(&mut self, list: &mut VecDeque<Arc<str>>) {
        if !self.active && self.has_work() {
            self.active = true;
            list.push_back(Arc::clone(&self.name));
        }
    }

    /// Records that are not resolved.
    pub(super) fn records(&self) -> usize {
        let waiting = self.unbound.iter().chain(self.pinned.values().flatten());
        let waiting: usize = waiting.map(Batch::records).sum();
        let open: usize = self.slots.iter().map(|(_, slot)| slot.records()).sum();
        waiting + open + self.partitions.iter().map(Partition::records).sum::<usize>()
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
        for (home, slot) in &self.slots {
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

    pub(super) fn next_unbound(&mut self, now: Instant) -> Next {
        let mut later = None;
        for batch in &self.unbound {
            match batch.tries.not_before(now) {
                None => return Next::Full,
                at => later = earlier(later, at),
            }
        }
        let mut earliest = None;
        let mut full = false;
        self.slots.retain(|(home, slot)| {
            if slot.partition.is_some() {
                return true;
            }
            match slot.peek(home) {
                Peek::Empty => return false,
                Peek::Full => full = true,
                Peek::Open { early, .. } if early > now => later = earlier(later, Some(early)),
                Peek::Open { at, .. } => earliest = earlier(earliest, Some(at)),
            }
            true
        });
        match (full, earliest) {
            (true, _) => Next::Full,
            (false, Some(due)) => Next::Open { due, later },
            (false, None) => later.map_or(Next::Nothing, Next::Later),
        }
    }

    /// The first batch that came back and may go on.
    pub(super) fn pop_unbound(&mut self, now: Instant) -> Option<Batch> {
        let first = self.unbound.iter().position(|b| b.tries.not_before(now).is_none())?;
        self.unbound.remove(first)
    }

    /// A batch that came back from a partition, to where it came from.
    pub(super) fn put_back(&mut self, batch: Batch) {
        match batch.partition {
            None => self.unbound.push_front(batch),
            Some(p) => self.pinned.entry(p).or_default().push_front(batch),
        }
    }

    /// Takes the first batch among the slots that `of` picks: full ones, overdue ones, and open
    /// ones if `idle`. Else gives when the next one is due.
    pub(super) fn take(
        &mut self,
        of: impl Fn(&Slot) -> bool,
        now: Instant,
        idle: bool,
    ) -> (Option<Batch>, Option<Instant>) {
        let mut wake = None;
        for pass in 0..2 {
            let mut i = 0;
            while i < self.slots.len() {
                let (home, slot) = &self.slots[i];
                if !of(slot) {
                    i += 1;
                    continue;
                }
                let take = match slot.peek(home) {
                    Peek::Empty => {
                        self.slots.remove(i);
                        continue;
                    }
                    Peek::Full => true,
                    // Full ones of other slots first.
                    Peek::Open { .. } if pass == 0 => false,
                    Peek::Open { early, at } => {
                        wake = earlier(wake, Some(if idle { early } else { at }));
                        if idle { early <= now } else { at <= now }
                    }
                };
                if take && let Some(batch) = slot.take(home) {
                    return (Some(batch), None);
                }
                i += 1;
            }
        }
        (None, wake)
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
        self.sticky = (sticky.left > 0).then_some(sticky);
    }

    pub(super) fn refuse_partition(&mut self, partition: i32, known: usize) {
        let error = Error::new(
            ErrorKind::UnknownPartition,
            format!("topic '{}' has no partition {partition}, it has {known}", self.name),
        );
        let mut gone: Vec<Batch> = self.pinned.remove(&partition).into_iter().flatten().collect();
        self.slots.retain(|(home, slot)| {
            if slot.partition != Some(partition) {
                return true;
            }
            while let Some(batch) = slot.take(home) {
                gone.push(batch);
            }
            slot.peek(home) != Peek::Empty
        });
        for batch in gone {
            batch.resolve(Err(error.clone()));
        }
    }
}

fn leader_of(meta: &TopicMeta, partition: i32) -> i32 {
    let index = usize::try_from(partition).ok();
    index.and_then(|index| meta.partitions.get(index)).map_or(-1, |p| p.leader)
}

pub(super) fn take_where(queue: &mut VecDeque<Batch>, of: impl Fn(&Batch) -> bool) -> Vec<Batch> {
    let (gone, stay): (Vec<Batch>, Vec<Batch>) =
        std::mem::take(queue).into_iter().partition(|b| of(b));
    *queue = stay.into();
    gone
}
