//! Which member of a group has which partition, from event to event: how long nobody had one, and how often one moved.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Holdings(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    partitions: BTreeMap<i32, Partition>,
    moves: u64,
    /// Somebody was given what another one had.
    twice: u64,
}

#[derive(Debug, Default)]
struct Partition {
    /// Who has it.
    by: Option<u32>,
    /// Who had it last.
    last: Option<u32>,
    /// Since when nobody has it.
    free_since: u64,
    /// How long nobody had it, in ms.
    free: u64,
}

/// What happened until now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// How often a partition came to somebody who had not had it last.
    pub moves: u64,
    /// How often one was given to somebody while another had it.
    pub twice: u64,
    /// For how long nobody had each partition, in ms, in their order.
    pub free_ms: Vec<u64>,
}

impl Told {
    /// What came on top of an earlier look.
    pub fn since(&self, then: &Self) -> Self {
        let free_ms = self.free_ms.iter().zip(&then.free_ms).map(|(now, then)| now - then);
        Self {
            moves: self.moves - then.moves,
            twice: self.twice - then.twice,
            free_ms: free_ms.collect(),
        }
    }

    /// Seconds that nobody had a partition, of all of them together.
    pub fn free_seconds(&self) -> f64 {
        self.free_ms.iter().sum::<u64>() as f64 / 1000.0
    }
}

impl Holdings {
    /// Of a topic with so many partitions, which nobody has at `now_ms`.
    pub fn new(partitions: i32, now_ms: u64) -> Self {
        let free = |of| (of, Partition { free_since: now_ms, ..Partition::default() });
        let partitions = (0..partitions).map(free).collect();
        Self(Arc::new(Mutex::new(State { partitions, ..State::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn takes(&self, member: u32, partitions: impl Iterator<Item = i32>, now_ms: u64) {
        let mut state = self.lock();
        let state = &mut *state;
        for number in partitions {
            let partition = state.partitions.entry(number).or_default();
            match partition.by.replace(member) {
                None => partition.free += now_ms - partition.free_since,
                Some(other) => state.twice += u64::from(other != member),
            }
            if partition.last.replace(member) != Some(member) {
                state.moves += 1;
            }
        }
    }

    pub(crate) fn gives(&self, member: u32, partitions: impl Iterator<Item = i32>, now_ms: u64) {
        let mut state = self.lock();
        for number in partitions {
            let partition = state.partitions.entry(number).or_default();
            if partition.by == Some(member) {
                (partition.by, partition.free_since) = (None, now_ms);
            }
        }
    }

    /// Whatever it had.
    pub fn leaves(&self, member: u32, now_ms: u64) {
        for partition in self.lock().partitions.values_mut() {
            if partition.by == Some(member) {
                (partition.by, partition.free_since) = (None, now_ms);
            }
        }
    }

    /// What a member has.
    pub fn of(&self, member: u32) -> Vec<i32> {
        let state = self.lock();
        let of = state.partitions.iter().filter(|(_, partition)| partition.by == Some(member));
        of.map(|(number, _)| *number).collect()
    }

    /// Partitions that nobody has.
    pub fn free(&self) -> usize {
        self.lock().partitions.values().filter(|partition| partition.by.is_none()).count()
    }

    /// The most and the fewest that one of these members has.
    pub fn spread(&self, members: &[u32]) -> (usize, usize) {
        let mut counts: BTreeMap<u32, usize> = members.iter().map(|member| (*member, 0)).collect();
        for by in self.lock().partitions.values().filter_map(|partition| partition.by) {
            *counts.entry(by).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        (most, counts.values().min().copied().unwrap_or(0))
    }

    /// What happened until now.
    pub fn told(&self, now_ms: u64) -> Told {
        let state = self.lock();
        let free = |partition: &Partition| match partition.by {
            Some(_) => partition.free,
            None => partition.free + (now_ms - partition.free_since),
        };
        Told {
            moves: state.moves,
            twice: state.twice,
            free_ms: state.partitions.values().map(free).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_moves_and_what_two_have_are_counted() {
        let holdings = Holdings::new(3, 1_000);
        holdings.takes(1, 0..3, 1_500);
        let first = holdings.told(2_000);
        assert_eq!(first, Told { moves: 3, twice: 0, free_ms: vec![500; 3] });
        holdings.gives(1, [2].into_iter(), 2_000);
        // Not its own: nothing happens.
        holdings.gives(2, [1].into_iter(), 2_000);
        assert_eq!((holdings.free(), holdings.of(1)), (1, vec![0, 1]));
        holdings.takes(1, [2].into_iter(), 2_100);
        let back = holdings.told(2_200).since(&first);
        assert_eq!(back, Told { moves: 0, twice: 0, free_ms: vec![0, 0, 100] });
        holdings.takes(2, [0].into_iter(), 3_000);
        assert_eq!(holdings.told(3_000).twice, 1);
        assert_eq!(holdings.spread(&[1, 2, 3]), (2, 0));
        holdings.leaves(1, 4_000);
        let end = holdings.told(5_000).since(&first);
        assert_eq!(end, Told { moves: 1, twice: 1, free_ms: vec![0, 1_000, 1_100] });
        assert_eq!(end.free_seconds(), 2.1);
    }
}
