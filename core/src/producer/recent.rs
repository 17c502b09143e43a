//! Where a thread's records went of late. Most threads send to the topic that they sent to before:
//! comparing a name costs a tenth of locking and hashing. One that sends to many topics in turn gets
//! a table of them.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::accumulator::{Accumulator, SHARDS, TopicBatches};
use super::slot::Slot;
use crate::error::Error;

/// Most topics that a thread remembers.
const MOST: usize = 1 << 10;

struct Recent {
    home: u64,
    topic: Arc<TopicBatches>,
    /// This thread's own of the topic's open batches: one thread fills one batch.
    slot: Arc<Slot>,
}

/// By a hash of the name, at its only place.
struct Table {
    /// A power of two of them, or none.
    entries: Vec<Option<Recent>>,
    /// Where the last record's topic was found.
    last: Cell<usize>,
}

thread_local! {
    static RECENT: RefCell<Table> =
        const { RefCell::new(Table { entries: Vec::new(), last: Cell::new(0) }) };
}

/// Calls `then` with a topic's batches, made if need be, and this thread's slot among them.
#[inline]
pub(super) fn with<T>(
    home: &Accumulator,
    name: &str,
    then: impl FnOnce(&Arc<TopicBatches>, &Arc<Slot>) -> Result<T, Error>,
) -> Result<T, Error> {
    // Borrowed by none but this function; it may be within itself, when `then` wakes somebody who
    // sends at once, or within the thread's end. Then there is nothing to compare with.
    let mut then = Some(then);
    let found = RECENT.try_with(|recent| match recent.try_borrow().as_deref() {
        Ok(table) => table
            .find(home.id, name)
            .and_then(|recent| then.take().map(|then| then(&recent.topic, &recent.slot))),
        Err(_) => None,
    });
    match (found, then) {
        (Ok(Some(result)), _) => result,
        (_, Some(then)) => {
            let (topic, slot) = remember(home, name)?;
            then(&topic, &slot)
        }
        (_, None) => unreachable!("it was called, and so gave a result"),
    }
}

/// The same for a topic that this thread remembers. `None` if it does not, or if `then` says so; in
/// that case `then` has done nothing.
#[inline]
pub(super) fn known<T>(
    home: &Accumulator,
    name: &str,
    then: impl FnOnce(&TopicBatches, &Slot) -> Option<T>,
) -> Option<T> {
    let found = RECENT.try_with(|recent| {
        let table = recent.try_borrow().ok()?;
        table.find(home.id, name).and_then(|recent| then(&recent.topic, &recent.slot))
    });
    found.ok().flatten()
}

#[cold]
fn remember(home: &Accumulator, name: &str) -> Result<(Arc<TopicBatches>, Arc<Slot>), Error> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    let topic = home.topic(name)?;
    let shard = SHARD.try_with(|shard| *shard).unwrap_or(0);
    let slot = Arc::clone(&topic.shards[shard]);
    let _ = RECENT.try_with(|recent| {
        if let Ok(mut table) = recent.try_borrow_mut() {
            let (topic, slot) = (Arc::clone(&topic), Arc::clone(&slot));
            table.insert(Recent { home: home.id, topic, slot });
        }
    });
    Ok((topic, slot))
}

impl Recent {
    #[inline]
    fn is(&self, home: u64, name: &str) -> bool {
        self.home == home && same(&self.topic.name, name)
    }
}

impl Table {
    #[inline]
    fn find(&self, home: u64, name: &str) -> Option<&Recent> {
        match self.entries.get(self.last.get()) {
            Some(Some(recent)) if recent.is(home, name) => Some(recent),
            _ => self.find_other(home, name),
        }
    }

    fn find_other(&self, home: u64, name: &str) -> Option<&Recent> {
        let place = place(name, self.entries.len());
        self.last.set(place);
        self.entries.get(place)?.as_ref().filter(|recent| recent.is(home, name))
    }

    fn insert(&mut self, recent: Recent) {
        let name = &recent.topic.name;
        let taken = match self.entries.get(place(name, self.entries.len())) {
            None => true,
            Some(None) => false,
            // The same name at another home takes its place: few programs have two producers with
            // different settings in one thread.
            Some(Some(old)) => old.topic.name != *name,
        };
        if taken && self.entries.len() < MOST {
            let size = (self.entries.len() * 2).max(1);
            let old = std::mem::take(&mut self.entries);
            self.entries.resize_with(size, || None);
            old.into_iter().flatten().for_each(|recent| self.put(recent));
        }
        self.put(recent);
    }

    fn put(&mut self, recent: Recent) {
        let place = place(&recent.topic.name, self.entries.len());
        self.entries[place] = Some(recent);
        self.last.set(place);
    }
}

/// Both ends of a name in a word each; they overlap in a short one.
#[inline]
fn ends(name: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        return (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    }
    if let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        return (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into());
    }
    let word = name.iter().fold(1, |word, byte| word << 8 | u64::from(*byte));
    (word, word)
}

/// The place of a name in a table of so many, which is a power of two.
#[inline]
fn place(name: &str, size: usize) -> usize {
    let (first, last) = ends(name.as_bytes());
    // What tells names apart is most often in the last bytes, which are the highest of their word:
    // the whole product is folded, so that every bit of it counts.
    let product = u128::from(first.rotate_left(29) ^ last) * 0x9e37_79b9_7f4a_7c15;
    (product ^ product >> 64) as usize & size.wrapping_sub(1)
}

/// Compares names without a call: they are short.
#[inline]
fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // Both ends are all of a name of 16 bytes at most.
    a.len() == b.len() && ends(a) == ends(b) && (a.len() <= 16 || a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length() {
        let long = "abcdefghijklmnopqrstuvwxyz";
        for n in 0..=long.len() {
            assert!(same(&long[..n], &long.to_owned()[..n]));
            for at in 0..n {
                let mut other = long[..n].to_owned();
                other.replace_range(at..=at, "-");
                assert!(!same(&long[..n], &other), "{n}, {at}");
            }
            assert!(n == 0 || !same(&long[..n], &long[..n - 1]));
        }
        assert!(!same("\0", "\0\0") && !same("", "\0"));
    }

    #[test]
    fn places_are_spread() {
        let names: Vec<String> = (0..1000).map(|i| format!("team.events-{i}")).collect();
        let taken: std::collections::HashSet<_> = names.iter().map(|n| place(n, MOST)).collect();
        // At random it would be 638.
        assert!(taken.len() > 550, "{} places for 1,000 names", taken.len());
        assert!(names.iter().all(|name| place(name, 1) == 0));
    }
}
