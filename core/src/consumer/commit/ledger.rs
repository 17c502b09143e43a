//! What was handed out of a partition and is not done yet. Records are finished in any order, by workers that know nothing
//! of each other, and what is committed may never lie behind one that is not: it would be lost if we end here. So what
//! may be committed is the lowest record that is not done, or, if all are, the position.
//!
//! One ledger belongs to one incarnation of a partition: after a seek, another assignment, a topic made anew, what is
//! still worked on of before says nothing about what is read now.

use std::collections::{BTreeMap, VecDeque};

use super::Spot;

/// Past so many records that are not done nothing more is handed out of a partition: one that is forgotten holds the
/// commits up, and after a crash all that came behind it would be read again.
pub(crate) const MOST_OPEN: u64 = 10_000;

/// A batch that was handed out, by one ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchId(u64);

#[derive(Debug)]
struct Handed {
    id: BatchId,
    records: u32,
    epoch: i32,
    /// Records before this one are done, and the next to be read after them is here.
    low: u32,
    spot: Spot,
    /// Those behind it that are done, with their offsets.
    done: BTreeMap<u32, i64>,
}

impl Handed {
    fn open(&self) -> u64 {
        u64::from(self.records - self.low) - self.done.len() as u64
    }

    /// All before `index` is done, the last of it at `offset`.
    fn raise(&mut self, index: u32, offset: i64) {
        if index >= self.low {
            self.low = index + 1;
            self.spot = Spot { offset: offset + 1, epoch: self.epoch };
            self.done = self.done.split_off(&self.low);
        }
        while let Some(offset) = self.done.remove(&self.low) {
            self.low += 1;
            self.spot = Spot { offset: offset + 1, epoch: self.epoch };
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    incarnation: u64,
    /// Behind all that was handed out or passed over.
    position: Spot,
    /// What is not done, in the order of the log.
    handed: VecDeque<Handed>,
    numbers: u64,
    open: u64,
}

impl Ledger {
    /// Reading begins there.
    pub(crate) fn new(incarnation: u64, start: Spot) -> Self {
        Self { incarnation, position: start, handed: VecDeque::new(), numbers: 0, open: 0 }
    }

    /// A batch of so many records is handed out. `next`: the offset behind it.
    pub(crate) fn handed_out(&mut self, records: u32, next: i64, epoch: i32) -> BatchId {
        let id = BatchId(self.numbers);
        self.numbers += 1;
        if records > 0 {
            let (spot, done) = (self.position, BTreeMap::new());
            self.handed.push_back(Handed { id, records, epoch, low: 0, spot, done });
            self.open += u64::from(records);
        }
        self.passed(Spot { offset: next, epoch });
        id
    }

    /// What lies before this offset is not handed out: markers of transactions, what was aborted, what compaction has
    /// removed.
    pub(crate) fn passed(&mut self, to: Spot) {
        if to.offset > self.position.offset {
            self.position = to;
        }
    }

    /// The whole batch is done.
    pub(crate) fn done(&mut self, incarnation: u64, id: BatchId) {
        self.mark(incarnation, id, |handed| handed.low = handed.records);
    }

    /// One record of it is done: the one with this index, from 0, at this offset.
    pub(crate) fn record_done(&mut self, incarnation: u64, id: BatchId, index: u32, offset: i64) {
        self.mark(incarnation, id, |handed| {
            if index == handed.low {
                handed.raise(index, offset);
            } else if index > handed.low && index < handed.records {
                handed.done.insert(index, offset);
            }
        });
    }

    /// All records of it up to this one are done: the application has asked for the one behind.
    pub(crate) fn done_through(&mut self, incarnation: u64, id: BatchId, index: u32, offset: i64) {
        self.mark(incarnation, id, |handed| {
            if index < handed.records {
                handed.raise(index, offset);
            }
        });
    }

    fn mark(&mut self, incarnation: u64, id: BatchId, how: impl FnOnce(&mut Handed)) {
        if incarnation != self.incarnation {
            return;
        }
        let Ok(at) = self.handed.binary_search_by_key(&id, |handed| handed.id) else { return };
        let handed = &mut self.handed[at];
        let before = handed.open();
        how(handed);
        if handed.low == handed.records {
            handed.done.clear();
        }
        self.open -= before - handed.open();
        while self.handed.front().is_some_and(|handed| handed.low == handed.records) {
            self.handed.pop_front();
        }
    }

    /// What may be committed.
    pub(crate) fn committable(&self) -> Spot {
        self.handed.front().map_or(self.position, |handed| handed.spot)
    }

    /// Whether more may be handed out, within this many records that are not done.
    pub(crate) fn has_room(&self, share: u64) -> bool {
        self.open < share.min(MOST_OPEN)
    }

    /// How many records are not done.
    pub(crate) fn open(&self) -> u64 {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const fn at(offset: i64, epoch: i32) -> Spot {
        Spot { offset, epoch }
    }

    #[test]
    fn the_position_if_all_is_done_and_the_lowest_record_if_not() {
        let mut ledger = Ledger::new(1, at(100, 4));
        assert_eq!(ledger.committable(), at(100, 4));
        let a = ledger.handed_out(10, 110, 5);
        let b = ledger.handed_out(10, 120, 5);
        assert_eq!((ledger.committable(), ledger.open()), (at(100, 4), 20), "the epoch before it");
        ledger.done(1, b);
        assert_eq!((ledger.committable(), ledger.open()), (at(100, 4), 10));
        // Markers of transactions behind the last batch.
        ledger.passed(at(122, 6));
        ledger.done(1, a);
        assert_eq!((ledger.committable(), ledger.open()), (at(122, 6), 0));
        ledger.passed(at(121, 6));
        assert_eq!(ledger.committable(), at(122, 6), "never back");
    }

    #[test]
    fn records_are_done_in_any_order() {
        let mut ledger = Ledger::new(1, at(0, -1));
        // Compaction has left offsets 10, 13, 14, 19.
        let offsets = [10, 13, 14, 19];
        let id = ledger.handed_out(4, 20, 2);
        for (index, committable) in [(2, at(0, -1)), (0, at(11, 2)), (1, at(15, 2)), (3, at(20, 2))]
        {
            ledger.record_done(1, id, index, offsets[index as usize]);
            // Twice is once.
            ledger.record_done(1, id, index, offsets[index as usize]);
            assert_eq!(ledger.committable(), committable, "after record {index}");
        }
        assert_eq!(ledger.open(), 0);
    }

    #[test]
    fn asking_for_the_next_record_marks_those_before_it() {
        let mut ledger = Ledger::new(1, at(0, -1));
        let id = ledger.handed_out(5, 5, 2);
        ledger.record_done(1, id, 3, 3);
        ledger.done_through(1, id, 1, 1);
        assert_eq!((ledger.committable(), ledger.open()), (at(2, 2), 2));
        ledger.done_through(1, id, 2, 2);
        assert_eq!((ledger.committable(), ledger.open()), (at(4, 2), 1));
        ledger.done_through(1, id, 0, 0);
        assert_eq!(ledger.committable(), at(4, 2), "never back");
        ledger.record_done(1, id, 77, 77);
        ledger.done_through(1, id, 77, 77);
        assert_eq!(ledger.committable(), at(4, 2), "no record of this batch");
    }

    #[test]
    fn marks_of_a_former_incarnation_die() {
        let mut before = Ledger::new(1, at(0, -1));
        let old = before.handed_out(5, 5, 2);
        let mut ledger = Ledger::new(2, at(0, -1));
        let id = ledger.handed_out(5, 5, 2);
        assert_eq!(old, id);
        ledger.done(1, old);
        ledger.record_done(1, old, 0, 0);
        ledger.done_through(1, old, 3, 3);
        assert_eq!((ledger.committable(), ledger.open()), (at(0, -1), 5));
    }

    #[test]
    fn one_record_that_is_forgotten_stops_its_partition() {
        let mut ledger = Ledger::new(1, at(0, -1));
        let forgotten = ledger.handed_out(1, 1, 0);
        let mut next = 1;
        while ledger.has_room(u64::MAX) {
            next += 100;
            let id = ledger.handed_out(100, next, 0);
            // All but the last one.
            for index in 0..99 {
                ledger.record_done(1, id, index, next - 100 + i64::from(index));
            }
            assert!(ledger.open() <= MOST_OPEN);
        }
        assert_eq!((ledger.open(), ledger.committable()), (MOST_OPEN, at(0, -1)));
        ledger.done(1, forgotten);
        assert!(ledger.has_room(u64::MAX) && !ledger.has_room(100));
        assert_eq!(ledger.committable(), at(100, 0));
    }

    /// Against a set of all that is not done.
    #[test]
    fn is_never_ahead_of_what_is_not_done() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut ledger = Ledger::new(1, at(0, -1));
            let mut position = 0;
            let mut batches: Vec<(BatchId, Vec<i64>)> = Vec::new();
            let mut open = std::collections::BTreeSet::new();
            for _ in 0..200 {
                match rng.random_range(0..5) {
                    0 => {
                        let mut offsets = Vec::new();
                        for _ in 0..rng.random_range(1..6) {
                            position += rng.random_range(1..3);
                            offsets.push(position);
                        }
                        position += 1;
                        open.extend(offsets.iter().copied());
                        let id = ledger.handed_out(offsets.len() as u32, position, 1);
                        batches.push((id, offsets));
                    }
                    1 => {
                        position += rng.random_range(0..3);
                        ledger.passed(at(position, 1));
                    }
                    kind if !batches.is_empty() => {
                        let (id, offsets) = &batches[rng.random_range(0..batches.len())];
                        let index = rng.random_range(0..offsets.len());
                        let n = index as u32;
                        match kind {
                            2 => {
                                ledger.done(1, *id);
                                open.retain(|offset| !offsets.contains(offset));
                            }
                            3 => {
                                ledger.record_done(1, *id, n, offsets[index]);
                                open.remove(&offsets[index]);
                            }
                            _ => {
                                ledger.done_through(1, *id, n, offsets[index]);
                                open.retain(|offset| !offsets[..=index].contains(offset));
                            }
                        }
                    }
                    _ => {}
                }
                let committable = ledger.committable().offset;
                assert_eq!(ledger.open(), open.len() as u64, "seed {seed}");
                match open.first() {
                    // Nothing that is not done lies before it, and nothing that was done behind it up to that.
                    Some(lowest) => {
                        assert!(committable <= *lowest, "seed {seed}");
                        let done = batches.iter().flat_map(|(_, offsets)| offsets);
                        let last = done.filter(|offset| *offset < lowest).max();
                        assert!(last.is_none_or(|last| committable > *last), "seed {seed}");
                    }
                    None => assert_eq!(committable, position, "seed {seed}"),
                }
            }
        }
    }
}
