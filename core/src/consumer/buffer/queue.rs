//! A queue for each partition, and whose turn it is to be handed out: topics take turns, and partitions within
//! their topic. So a topic that always has something leaves the others their share, however many partitions
//! each has. No lock and no clock.
//!
//! Each entry knows where the position is once it is taken. What is passed over without being handed out (control
//! batches, batches that compaction has emptied) moves the place behind the last entry; behind none, the
//! position itself. Entries of an earlier incarnation are still handed out and move nothing.

mod shelf;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Key;
use super::parts::{Back, Taker};
use super::ring::{QUANTUM, Ring};
use crate::consumer::StreamEnd;
use crate::consumer::claim::Claim;
use crate::consumer::marks::{Attention, Marks, Span};
use crate::consumer::slot::SlotId;
use crate::protocol::NO_EPOCH;

pub(in crate::consumer) use shelf::{ENTRY_BYTES, Fetched, Then};
use shelf::{Entry, KEPT_ENTRIES};
pub(super) use shelf::{Notice, Shelf, What};

/// What is dropped: without the lock, as it may be much.
#[derive(Default)]
pub(super) struct Dropped(
    #[cfg_attr(not(test), expect(dead_code, reason = "kept to be dropped later"))] Vec<Entry>,
);

/// The partitions of one topic.
struct Row {
    topic: Arc<str>,
    partitions: BTreeMap<i32, SlotId>,
    /// Of these and of those that are gone.
    shelves: usize,
    /// Partitions that have something, with their first incarnation: what has left since, or is paused, is
    /// taken out at its turn.
    ring: Ring<(SlotId, u64)>,
    in_ring: bool,
}

/// An entry that was taken.
pub(super) struct Taken {
    pub(super) key: Key,
    pub(super) what: What,
    pub(super) end: i64,
    pub(super) claim: Arc<Claim>,
    pub(super) span: Option<Span>,
    pub(super) bytes: usize,
    /// Its partition is full by that, which the fetcher is to hear of.
    pub(super) fills: Option<SlotId>,
    /// The broker that its partition is read from.
    pub(super) source: i32,
    /// Bytes that are queued behind it, of all partitions.
    pub(super) queued: usize,
}

/// A partition that is read from no broker now.
pub(super) const NOBODY: i32 = -1;

/// How much is queued of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) struct Amount {
    pub(in crate::consumer) slot: SlotId,
    pub(in crate::consumer) bytes: usize,
    /// The largest batch that came of late.
    pub(in crate::consumer) largest: usize,
    /// Bytes that were taken since the last time.
    pub(in crate::consumer) drained: usize,
}

/// The partitions of one consumer.
#[derive(Default)]
pub(super) struct Shelves {
    shelves: Vec<Option<Shelf>>,
    free: Vec<SlotId>,
    rows: Vec<Option<Row>>,
    free_rows: Vec<u32>,
    by_topic: BTreeMap<Arc<str>, u32>,
    ring: Ring<u32>,
    pub(super) bytes: usize,
    /// Of these, the bytes of partitions that are paused, or that somebody else takes than the consumer.
    pub(super) held: usize,
    /// Partitions of which something came or was taken since the fetcher looked.
    amounts: Vec<SlotId>,
    /// Those that somebody takes who takes nothing else.
    own: BTreeSet<SlotId>,
    incarnations: u64,
    /// Of a group's consumer: what is done of each partition is kept.
    pub(super) attention: Option<Arc<Attention>>,
}

impl Shelves {
    fn claim(&self, paused: bool) -> Arc<Claim> {
        Claim::marked(paused, self.attention.as_ref().map(Marks::new))
    }

    fn next_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    /// Something of it came, or was taken.
    fn count(&mut self, slot: SlotId) {
        if let Some(shelf) = self.get_mut(slot)
            && !std::mem::replace(&mut shelf.counted, true)
        {
            self.amounts.push(slot);
        }
    }

    /// Of which partitions something came or was taken since the last call.
    pub(super) fn take_amounts(&mut self) -> Vec<Amount> {
        let slots = std::mem::take(&mut self.amounts);
        let mut amounts = Vec::with_capacity(slots.len());
        for slot in slots {
            let Some(shelf) = self.get_mut(slot).filter(|shelf| shelf.counted) else { continue };
            shelf.counted = false;
            let (bytes, largest) = (shelf.bytes, shelf.largest);
            let drained = std::mem::take(&mut shelf.drained);
            amounts.push(Amount { slot, bytes, largest, drained });
        }
        amounts
    }

    /// Bytes that were taken of one broker's partitions since the fetcher looked.
    pub(super) fn drained(&self, source: i32) -> usize {
        let shelves = self.amounts.iter().filter_map(|slot| self.get(*slot));
        shelves.filter(|shelf| shelf.source == source).map(|shelf| shelf.drained).sum()
    }

    pub(super) fn get(&self, slot: SlotId) -> Option<&Shelf> {
        self.shelves.get(slot.index())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: SlotId) -> Option<&mut Shelf> {
        self.shelves.get_mut(slot.index())?.as_mut()
    }

    pub(super) fn find(&self, topic: &str, partition: i32) -> Option<SlotId> {
        let row = self.rows.get(*self.by_topic.get(topic)? as usize)?.as_ref()?;
        row.partitions.get(&partition).copied()
    }

    /// All that are read, by topic and number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, SlotId)> {
        let rows = self.by_topic.values().filter_map(|at| self.rows.get(*at as usize)?.as_ref());
        rows.flat_map(|row| row.partitions.values())
            .filter_map(|slot| self.get(*slot).map(|shelf| (&shelf.key, *slot)))
    }

    /// A partition that was not read, with its incarnation.
    pub(super) fn add(&mut self, key: &Key) -> (SlotId, u64) {
        let at = self.row(&key.0);
        let (incarnation, claim) = (self.next_incarnation(), self.claim(false));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.shelves.push(None);
            SlotId(u32::try_from(self.shelves.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(row) = self.rows.get_mut(at as usize).and_then(Option::as_mut) {
            row.partitions.insert(key.1, slot);
            row.shelves += 1;
        }
        if let Some(place) = self.shelves.get_mut(slot.index()) {
            *place = Some(Shelf {
                key: key.clone(),
                row: at,
                born: incarnation,
                incarnation,
                claim,
                position: None,
                epoch: NO_EPOCH,
                end: None,
                queue: VecDeque::new(),
                bytes: 0,
                paused: false,
                withheld: false,
                full: false,
                doubted: None,
                busy: false,
                taker: None,
                in_ring: false,
                gone: false,
                drained: 0,
                source: NOBODY,
                largest: 0,
                counted: false,
                sought: None,
                changed: false,
            });
        }
        (slot, incarnation)
    }

    fn row(&mut self, topic: &Arc<str>) -> u32 {
        if let Some(at) = self.by_topic.get(topic) {
            return *at;
        }
        let row = Row {
            topic: Arc::clone(topic),
            partitions: BTreeMap::new(),
            shelves: 0,
            ring: Ring::default(),
            in_ring: false,
        };
        let at = self.free_rows.pop().unwrap_or_else(|| {
            self.rows.push(None);
            u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.rows.get_mut(at as usize) {
            *place = Some(row);
        }
        self.by_topic.insert(Arc::clone(topic), at);
        at
    }

    /// It is read no more. What is there of it is still handed out, also if it was paused, after which its number is
    /// free. Gives whether there is something to hand out now.
    pub(super) fn retire(&mut self, slot: SlotId) -> bool {
        self.forget_name(slot);
        self.pause(slot, false);
        let Some(shelf) = self.get_mut(slot) else { return false };
        shelf.gone = true;
        if shelf.queue.is_empty() {
            self.remove(slot, StreamEnd::Left);
            self.release(slot);
            return false;
        }
        self.ready(slot)
    }

    /// Nothing of it is handed out, or it is again. Gives whether that is news.
    pub(super) fn pause(&mut self, slot: SlotId, pause: bool) -> bool {
        let shelf = self.get_mut(slot).filter(|shelf| shelf.paused != pause);
        let Some(shelf) = shelf else { return false };
        let was_apart = shelf.is_apart();
        shelf.paused = pause;
        shelf.claim.pause(pause);
        self.count_apart(slot, was_apart);
        true
    }

    /// The group takes it away: what the application has of it may be finished, and no more comes.
    pub(super) fn withhold(&mut self, slot: SlotId) {
        let Some(shelf) = self.get_mut(slot) else { return };
        let was_apart = shelf.is_apart();
        shelf.withheld = true;
        self.count_apart(slot, was_apart);
    }

    /// Whether too much of it is in hand. Gives whether that is news.
    pub(super) fn see_full(&mut self, slot: SlotId) -> bool {
        let Some(shelf) = self.get_mut(slot) else { return false };
        let (is_full, was_apart) = (shelf.is_full(), shelf.is_apart());
        let is_news = std::mem::replace(&mut shelf.full, is_full) != is_full;
        if is_news {
            self.count_apart(slot, was_apart);
        }
        is_news
    }

    /// Somebody takes it from now on who takes nothing else, or nobody does any more.
    pub(super) fn give_to(&mut self, slot: SlotId, taker: Option<Taker>) {
        let Some(shelf) = self.get_mut(slot) else { return };
        let was_apart = shelf.is_apart();
        let is_own = taker.is_some();
        shelf.taker = taker;
        self.count_apart(slot, was_apart);
        if is_own {
            self.own.insert(slot)
        } else {
            self.own.remove(&slot)
        };
    }

    /// Who takes single partitions.
    pub(super) fn takers(&self) -> impl Iterator<Item = (SlotId, &Taker)> {
        self.own.iter().filter_map(|slot| Some((*slot, self.get(*slot)?.taker.as_ref()?)))
    }

    /// How many they are.
    pub(super) fn own_count(&self) -> usize {
        self.own.len()
    }

    /// What was handed out of it is not finished: it comes again, before all others.
    pub(super) fn return_to(&mut self, slot: SlotId, back: Back) {
        let Some(shelf) = self.get_mut(slot) else { return };
        let (incarnation, end) = (shelf.incarnation, shelf.end.unwrap_or(-1));
        let what = What::Returned(back);
        shelf.queue.push_front(Entry { incarnation, what, then: Then::Stays, end });
    }

    fn count_apart(&mut self, slot: SlotId, was_apart: bool) {
        let counted = self.get(slot).map(|shelf| (shelf.is_apart(), shelf.bytes));
        let Some((is_apart, bytes)) = counted else { return };
        match (was_apart, is_apart) {
            (false, true) => self.held += bytes,
            (true, false) => self.held -= bytes,
            _ => {}
        }
    }

    /// It is read no more, and nothing of it handed out. Its number is given again after [`Self::release`].
    pub(super) fn take_out(&mut self, slot: SlotId, why: StreamEnd) -> Dropped {
        self.forget_name(slot);
        let Some(shelf) = self.remove(slot, why) else { return Dropped::default() };
        shelf.claim.leave();
        self.bytes -= shelf.bytes;
        self.held -= if shelf.is_apart() { shelf.bytes } else { 0 };
        Dropped(shelf.queue.into())
    }

    /// Nobody knows a partition by this number any more.
    pub(super) fn release(&mut self, slot: SlotId) {
        self.free.push(slot);
    }

    fn forget_name(&mut self, slot: SlotId) {
        let Some(Some(shelf)) = self.shelves.get(slot.index()) else { return };
        let row = self.rows.get_mut(shelf.row as usize).and_then(Option::as_mut);
        if let Some(row) = row
            && !shelf.gone
        {
            row.partitions.remove(&shelf.key.1);
        }
    }

    /// Whoever takes it alone is told why there is no more.
    fn remove(&mut self, slot: SlotId, why: StreamEnd) -> Option<Shelf> {
        let shelf = self.shelves.get_mut(slot.index())?.take()?;
        self.own.remove(&slot);
        if let Some(taker) = &shelf.taker {
            let _ = taker.end.set(why);
        }
        let place = self.rows.get_mut(shelf.row as usize)?;
        if let Some(row) = place {
            row.shelves -= 1;
            if row.shelves == 0 {
                if row.in_ring {
                    self.ring.remove(shelf.row);
                }
                self.by_topic.remove(&row.topic);
                self.free_rows.push(shelf.row);
                *place = None;
            }
        }
        Some(shelf)
    }

    /// Another incarnation: nothing that is under way for it counts, and its position is not known.
    pub(super) fn renew(&mut self, slot: SlotId) -> Option<u64> {
        let incarnation = self.next_incarnation();
        let shelf = self.get_mut(slot)?;
        shelf.incarnation = incarnation;
        shelf.goes_to(None);
        (shelf.end, shelf.doubted) = (None, None);
        Some(incarnation)
    }

    /// The same, and what is there of it is not wanted: only notices stay.
    pub(super) fn clear(&mut self, slot: SlotId) -> Option<(u64, Dropped)> {
        let end = self.get(slot)?.end;
        let incarnation = self.renew(slot)?;
        let attention = self.attention.clone();
        let shelf = self.get_mut(slot)?;
        // The partition is the same one.
        shelf.end = end;
        let claim = attention.as_ref().map(Marks::new);
        std::mem::replace(&mut shelf.claim, Claim::marked(shelf.paused, claim)).leave();
        let bytes = std::mem::take(&mut shelf.bytes);
        let (batches, notices) = std::mem::take(&mut shelf.queue)
            .into_iter()
            .partition::<Vec<_>, _>(|entry| !matches!(entry.what, What::Notice(_)));
        shelf.queue = notices.into();
        let held = if shelf.is_apart() { bytes } else { 0 };
        // What is in hand of it is left.
        shelf.full = false;
        self.bytes -= bytes;
        self.held -= held;
        self.count(slot);
        Some((incarnation, Dropped(batches)))
    }

    /// Nothing is wanted any more.
    pub(super) fn clear_all(&mut self) -> Dropped {
        (self.bytes, self.held) = (0, 0);
        let mut dropped = Vec::new();
        for shelf in self.shelves.iter_mut().flatten() {
            shelf.bytes = 0;
            dropped.extend(std::mem::take(&mut shelf.queue));
        }
        Dropped(dropped)
    }

    /// Batches of one incarnation that were fetched, each behind the last; `next`: the position behind them and
    /// behind what follows them and is not handed out; `end`: the partition's end. Gives whether there is something to hand out now,
    /// and whether the position has moved without it; or the batches, if that incarnation is not read.
    pub(super) fn push(
        &mut self,
        slot: SlotId,
        incarnation: u64,
        fetched: Vec<Fetched>,
        ((next, epoch), end): ((i64, i32), i64),
    ) -> Result<(bool, bool), Vec<Fetched>> {
        let shelf = self.get_mut(slot);
        let Some(shelf) = shelf.filter(|shelf| shelf.incarnation == incarnation && !shelf.gone)
        else {
            return Err(fetched);
        };
        shelf.end = Some(end);
        let mut pushed = 0;
        for fetched in fetched {
            let then = Then::At(fetched.raw.last_offset + 1, fetched.raw.leader_epoch);
            let entry = Entry { incarnation, what: What::Batch(fetched), then, end };
            // One large batch is not waited for for ever.
            shelf.largest = entry.bytes().max(shelf.largest - shelf.largest / 16);
            pushed += entry.bytes();
            shelf.queue.push_back(entry);
        }
        shelf.bytes += pushed;
        let held = if shelf.is_apart() { pushed } else { 0 };
        let moved = shelf.goes_on(Then::At(next, epoch));
        self.bytes += pushed;
        self.held += held;
        if pushed > 0 {
            self.count(slot);
        }
        Ok((self.ready(slot), moved))
    }

    /// The position, behind what is there. Gives whether it has moved at once.
    pub(super) fn pass(&mut self, slot: SlotId, incarnation: u64, next: (i64, i32)) -> bool {
        let shelf = self.get_mut(slot).filter(|shelf| shelf.incarnation == incarnation);
        shelf.is_some_and(|shelf| shelf.goes_on(Then::At(next.0, next.1)))
    }

    /// An error that counts from here on. One of the same kind that nobody got to yet, with no batch behind it, makes
    /// room for it. Gives whether there is something to hand out now.
    pub(super) fn tell(
        &mut self,
        slot: SlotId,
        incarnation: u64,
        notice: &Arc<Notice>,
        then: Then,
    ) -> (bool, Dropped) {
        let Some(shelf) = self.get_mut(slot) else { return (false, Dropped::default()) };
        // News of a place that was left moves nothing.
        let then = if shelf.incarnation == incarnation { then } else { Then::Stays };
        let notices = |entry: &&Entry| matches!(entry.what, What::Notice(_));
        let count = shelf.queue.iter().rev().take_while(notices).count();
        let first = shelf.queue.len() - count;
        let same = shelf.queue.iter().skip(first).position(
            |entry| matches!(&entry.what, What::Notice(known) if known.kind() == notice.kind()),
        );
        let was_last = same.is_some_and(|at| first + at + 1 == shelf.queue.len());
        let old = same.and_then(|at| shelf.queue.remove(first + at));
        // The one right before it leaves its place to it, if it does not say where to go on.
        let old_then = old.as_ref().filter(|old| was_last && old.incarnation == shelf.incarnation);
        let then = match (then, old_then) {
            (Then::Stays, Some(old)) => old.then,
            _ => then,
        };
        let (what, incarnation) = (What::Notice(Arc::clone(notice)), shelf.incarnation);
        shelf.queue.push_back(Entry { incarnation, what, then, end: -1 });
        (self.ready(slot), Dropped(old.into_iter().collect()))
    }

    /// A batch of it is worked on, or is no more. Gives whether there is something to hand out now.
    pub(super) fn is_worked_on(&mut self, slot: SlotId, busy: bool) -> bool {
        let Some(shelf) = self.get_mut(slot) else { return false };
        shelf.busy = busy;
        !busy && self.ready(slot)
    }

    /// It has something, or is to be handed out again: it takes turns. Gives whether there is something to hand
    /// out.
    pub(super) fn ready(&mut self, slot: SlotId) -> bool {
        let Some(Some(shelf)) = self.shelves.get_mut(slot.index()) else { return false };
        if !shelf.is_ready() {
            return false;
        }
        // Whoever takes it waits for no turn.
        if shelf.taker.is_some() {
            return true;
        }
        let row = self.rows.get_mut(shelf.row as usize).and_then(Option::as_mut);
        if let Some(row) = row
            && !std::mem::replace(&mut shelf.in_ring, true)
        {
            row.ring.join((slot, shelf.born));
            if !std::mem::replace(&mut row.in_ring, true) {
                self.ring.join(shelf.row);
            }
        }
        true
    }

    /// Takes the next entry, if there is one; the position moves on.
    pub(super) fn pop(&mut self) -> Option<Taken> {
        loop {
            let at = self.ring.first()?;
            let Some(Some(row)) = self.rows.get_mut(at as usize) else {
                self.ring.leave();
                continue;
            };
            let Some((slot, born)) = row.ring.first() else {
                row.in_ring = false;
                self.ring.leave();
                continue;
            };
            let shelf = self.shelves.get_mut(slot.index()).and_then(Option::as_mut);
            let Some(shelf) = shelf.filter(|shelf| shelf.born == born) else {
                row.ring.leave();
                continue;
            };
            let is_apart = shelf.is_apart();
            let waits = is_apart || shelf.busy || shelf.is_full();
            let entry = if waits { None } else { shelf.queue.pop_front() };
            let Some(entry) = entry else {
                shelf.in_ring = false;
                row.ring.leave();
                continue;
            };
            let bytes = entry.bytes();
            // An error ends the turn: many of one partition are in nobody's way.
            let turn = if let What::Notice(_) = entry.what { QUANTUM } else { bytes };
            row.ring.took(turn);
            self.ring.took(turn);
            if shelf.queue.is_empty() {
                shelf.in_ring = false;
                row.ring.leave();
                if row.ring.is_empty() {
                    row.in_ring = false;
                    self.ring.leave();
                }
            }
            return self.took(slot, entry);
        }
    }

    /// Takes the next entry of one partition, for who takes nothing else.
    pub(super) fn pop_of(&mut self, slot: SlotId) -> Option<Taken> {
        let entry = self.get_mut(slot).filter(|shelf| shelf.is_ready())?.queue.pop_front()?;
        self.took(slot, entry)
    }

    /// An entry was taken off its queue.
    fn took(&mut self, slot: SlotId, entry: Entry) -> Option<Taken> {
        let bytes = entry.bytes();
        let apart = if self.get(slot)?.is_apart() { bytes } else { 0 };
        self.bytes -= bytes;
        self.held -= apart;
        let queued = self.bytes;
        let shelf = self.get_mut(slot)?;
        shelf.bytes -= bytes;
        shelf.drained += bytes;
        let mut span = None;
        if entry.incarnation == shelf.incarnation {
            let from = shelf.position.map(|at| (at, shelf.epoch));
            if let (What::Batch(fetched), Then::At(to, epoch)) = (&entry.what, entry.then) {
                let from = from.unwrap_or((fetched.from, NO_EPOCH));
                let marks = shelf.claim.marks();
                span = marks.map(|marks| marks.handed(shelf.incarnation, from, (to, epoch)));
            }
            shelf.moves(entry.then);
        }
        let taken = Taken {
            key: shelf.key.clone(),
            what: entry.what,
            end: entry.end,
            claim: Arc::clone(&shelf.claim),
            span,
            bytes,
            fills: None,
            source: shelf.source,
            queued,
        };
        let is_empty = shelf.queue.is_empty();
        if is_empty && shelf.queue.capacity() > KEPT_ENTRIES {
            shelf.queue = VecDeque::new();
        }
        if is_empty && shelf.gone {
            self.remove(slot, StreamEnd::Left);
            self.release(slot);
        } else if bytes > 0 {
            self.count(slot);
        }
        let fills = self.see_full(slot).then_some(slot);
        Some(Taken { fills, ..taken })
    }
}
