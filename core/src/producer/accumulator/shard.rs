//! Which of a topic's open batches a handle fills. All records of one handle go through one queue, so they
//! stay in the order of the calls, on whichever threads those are made. A clone is another handle and takes
//! the shard that the fewest handles have, so that threads with a clone each do not meet at one lock.
//! Producers that are built with equal settings begin with the same shard: eight of them are not eight
//! queues.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Open batches per topic: enough that a few threads rarely meet, few enough that records still
/// share batches.
pub(super) const SHARDS: usize = 8;

/// The number of one of these open batches. If there are more handles than shards, some share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shard(u8);

impl Shard {
    #[inline]
    pub(in crate::producer) fn index(self) -> usize {
        usize::from(self.0) % SHARDS
    }
}

/// How many handles of one accumulator each shard has.
#[derive(Debug, Default)]
pub(in crate::producer) struct Shards([AtomicUsize; SHARDS]);

impl Shards {
    /// The shard of a producer that is built: producers with equal settings share their batches.
    pub(in crate::producer) fn first(&self) -> Shard {
        self.0[0].fetch_add(1, Ordering::Relaxed);
        Shard(0)
    }

    /// The shard of a clone: the first of those with the fewest handles, so that a clone that is made for each
    /// call gets the same shard each time.
    pub(in crate::producer) fn take(&self) -> Shard {
        let handles = |shard: &usize| self.0[*shard].load(Ordering::Relaxed);
        let index = (0..SHARDS).min_by_key(handles).unwrap_or_default();
        self.0[index].fetch_add(1, Ordering::Relaxed);
        Shard(index as u8)
    }

    pub(in crate::producer) fn give_back(&self, shard: Shard) {
        self.0[shard.index()].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_handle_has_one_of_its_own_until_they_are_used_up() {
        let shards = Shards::default();
        let taken: Vec<_> = (0..SHARDS + 2).map(|_| shards.take().index()).collect();
        assert_eq!(taken, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]);
        // A clone for each call is the same each time.
        shards.give_back(Shard(3));
        for _ in 0..10 {
            let shard = shards.take();
            assert_eq!(shard.index(), 3);
            shards.give_back(shard);
        }
    }
}
