//! What lies in the queue of one partition, and how that partition stands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use super::super::Key;
use super::super::parts::{Back, Taker};
use crate::config::Start;
use crate::consumer::claim::Claim;
use crate::consumer::marks::{Marks, Place};
use crate::error::{Error, ErrorKind};
use crate::protocol::NO_EPOCH;
use crate::record::reader::RawBatch;

/// A batch as it was fetched: not checked and not decompressed.
pub(in crate::consumer) struct Fetched {
    pub(in crate::consumer) raw: RawBatch,
    /// Records with a smaller offset are not handed out.
    pub(in crate::consumer) from: i64,
    /// Bytes of the response that it came in, all of which it keeps.
    pub(in crate::consumer) frame: usize,
}

/// An error about one or more partitions, told at the place in their queues from which it counts; once, by the
/// first that gets there.
pub(in crate::consumer::buffer) struct Notice {
    error: Error,
    told: AtomicBool,
}

impl Notice {
    pub(in crate::consumer::buffer) fn new(error: Error) -> Arc<Self> {
        Arc::new(Self { error, told: AtomicBool::new(false) })
    }

    pub(super) fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The error, if it was not told before.
    pub(in crate::consumer::buffer) fn tell(&self) -> Option<Error> {
        (!self.told.swap(true, Ordering::Relaxed)).then(|| self.error.clone())
    }
}

pub(in crate::consumer::buffer) enum What {
    Batch(Fetched),
    /// What was handed out and comes back: nobody has finished it.
    Returned(Back),
    Notice(Arc<Notice>),
}

/// Where the position is once an entry is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Then {
    /// Where it was.
    Stays,
    /// Nowhere that is known yet.
    Unknown,
    /// At this offset, and the leader epoch of what lies before it; -1: that is not known.
    At(i64, i32),
}

pub(super) struct Entry {
    pub(super) incarnation: u64,
    pub(super) what: What,
    pub(super) then: Then,
    /// Where the partition ended when it came.
    pub(super) end: i64,
}

/// What an entry takes besides its bytes. A queue that grows has room for twice as many.
pub(in crate::consumer) const ENTRY_BYTES: usize = 2 * size_of::<Entry>();

/// An empty queue keeps room for so many, and no more: thousands of partitions have had their backlog at some time.
pub(super) const KEPT_ENTRIES: usize = 64;

/// What a batch counts at least: even one without records takes memory.
pub(super) const LEAST_BYTES: usize = 64;

impl Entry {
    pub(super) fn bytes(&self) -> usize {
        match &self.what {
            What::Batch(fetched) => fetched.raw.payload().len().max(LEAST_BYTES),
            What::Returned(_) | What::Notice(_) => 0,
        }
    }
}

/// One partition.
pub(in crate::consumer::buffer) struct Shelf {
    pub(super) key: Key,
    pub(super) row: u32,
    /// Its first incarnation.
    pub(in crate::consumer::buffer) born: u64,
    pub(in crate::consumer::buffer) incarnation: u64,
    /// What the application wants of what it was handed.
    pub(super) claim: Arc<Claim>,
    /// The offset after all that was handed out, or passed over, of this incarnation; before the first where it
    /// begins. `None`: that is not known.
    pub(in crate::consumer::buffer) position: Option<i64>,
    /// The leader epoch of what lies before the position; -1: it is not known.
    pub(in crate::consumer::buffer) epoch: i32,
    /// Where the partition ends, as its leader told last.
    pub(in crate::consumer::buffer) end: Option<i64>,
    pub(super) queue: VecDeque<Entry>,
    /// Of the queue.
    pub(in crate::consumer::buffer) bytes: usize,
    pub(in crate::consumer::buffer) paused: bool,
    /// The group takes it away: nothing more of it is handed out.
    pub(in crate::consumer::buffer) withheld: bool,
    /// Too much of it is in hand, as the fetcher knows: what is there is nothing that anybody could take.
    pub(in crate::consumer::buffer) full: bool,
    /// Since when its broker does not know the topic.
    pub(in crate::consumer::buffer) doubted: Option<Instant>,
    /// A batch of it is worked on, and none is to be taken as long as that is so.
    pub(super) busy: bool,
    /// Who takes it, if that is not the consumer itself.
    pub(in crate::consumer::buffer) taker: Option<Taker>,
    pub(super) in_ring: bool,
    /// It exists no more: what is left is handed out.
    pub(super) gone: bool,
    /// Bytes that were taken since the fetcher looked; and the broker that it is read from.
    pub(super) drained: usize,
    pub(in crate::consumer::buffer) source: i32,
    /// The largest batch of late.
    pub(super) largest: usize,
    /// In `Shelves::amounts`.
    pub(super) counted: bool,
    /// A seek that the fetcher has not heard of.
    pub(in crate::consumer::buffer) sought: Option<Start>,
    /// The fetcher is to be told of a seek, a pause or their end.
    pub(in crate::consumer::buffer) changed: bool,
}

impl Shelf {
    pub(super) fn is_ready(&self) -> bool {
        !self.queue.is_empty() && !self.is_held() && !self.busy && !self.is_full()
    }

    #[cfg(test)]
    pub(in crate::consumer::buffer) fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// Too much of it is in hand.
    pub(in crate::consumer::buffer) fn is_full(&self) -> bool {
        self.claim.marks().is_some_and(Marks::is_full)
    }

    /// The application, or the group, wants nothing of it now.
    pub(in crate::consumer::buffer) fn is_unwanted(&self) -> bool {
        self.paused || self.withheld
    }

    /// Nothing of it is handed out now.
    pub(in crate::consumer::buffer) fn is_held(&self) -> bool {
        self.is_unwanted() || self.full
    }

    pub(in crate::consumer::buffer) fn has_nothing(&self) -> bool {
        self.queue.is_empty()
    }

    /// The consumer itself is handed nothing of it: the bytes of such ones are counted apart.
    pub(super) fn is_apart(&self) -> bool {
        self.is_held() || self.taker.is_some()
    }

    /// From where the next member of the group is to go on; `None`: nothing is known that is not known there.
    pub(in crate::consumer::buffer) fn committable(&self) -> Option<Place> {
        let place = (self.position?, self.epoch);
        // A commit names the topic: by now that may be another one, in which this place would pass over records.
        if self.doubted.is_some() {
            return None;
        }
        Some(self.claim.marks()?.committable(self.incarnation, place))
    }

    /// Up to where the application has worked on it, or does still; `None`: it was given nothing.
    pub(in crate::consumer::buffer) fn worked(&self) -> Option<i64> {
        self.claim.marks()?.worked(self.incarnation)
    }

    /// Whether records of it were handed on one by one since the last look.
    pub(in crate::consumer::buffer) fn has_moved(&self) -> bool {
        self.claim.marks().is_some_and(Marks::has_moved)
    }

    /// Whether the application has something of it that it did not finish.
    pub(in crate::consumer::buffer) fn is_open(&self) -> bool {
        self.claim.marks().is_some_and(Marks::is_open)
    }

    /// The position is here, once all that is there of this incarnation is taken. Gives whether it is here
    /// already.
    pub(super) fn goes_on(&mut self, then: Then) -> bool {
        match self.queue.back_mut() {
            Some(last) if last.incarnation == self.incarnation => last.then = then,
            _ => return self.moves(then),
        }
        false
    }

    /// The application goes elsewhere: nobody has read what lies before.
    pub(in crate::consumer::buffer) fn goes_to(&mut self, at: Option<i64>) {
        (self.position, self.epoch) = (at, NO_EPOCH);
    }

    pub(super) fn moves(&mut self, then: Then) -> bool {
        let position = match then {
            Then::Stays => return false,
            Then::Unknown => None,
            Then::At(at, epoch) => {
                self.epoch = epoch;
                Some(at)
            }
        };
        std::mem::replace(&mut self.position, position) != position
    }
}
