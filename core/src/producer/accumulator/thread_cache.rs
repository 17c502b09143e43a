//! The topics that this thread has sent to lately, so that a record finds its queue without a shared lock.
//! Most threads send to the same topic again: to compare a name costs a tenth of locking and hashing. A
//! thread that sends to many topics in turn gets a table of them, with the queues of the partitions that it
//! names.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::Accumulator;
use super::batch_queue::BatchQueue;
use super::shard::Shard;
use super::topic::TopicBatches;
use crate::error::Error;

/// Most topics that a thread remembers, forgotten ones included.
const MOST: usize = 1 << 11;
/// Associativity of the table: the number of places that a topic may be at. With 1,000 topics in 2,048 places
/// and 4 ways hardly one is displaced; with 1 way it would be about 200.
const WAYS: usize = 4;
/// Partitions with higher numbers are not remembered here, but looked up in the shared map.
const MOST_PINNED: usize = 1 << 10;

struct Recent {
    accumulator_id: u64,
    topic: Arc<TopicBatches>,
    /// The shard of the handle that this thread used first, and its queue: most threads use one handle.
    shard: Shard,
    batch_queue: Option<Arc<BatchQueue>>,
    /// By partition: the queues of partitions that records of this thread named.
    pinned: Vec<Option<Arc<BatchQueue>>>,
}

/// By a hash of the name, at one of [`WAYS`] places.
struct Table {
    /// A power of two of them, or none.
    entries: Vec<Option<Recent>>,
    /// Which of the ways is replaced next.
    next_out: usize,
    /// Where the last record's topic was found.
    last: Cell<usize>,
}

thread_local! {
    static RECENT: RefCell<Table> =
        const { RefCell::new(Table { entries: Vec::new(), next_out: 0, last: Cell::new(0) }) };
}

/// Calls `then` with a topic's batches and the queue of a shard; both are made if they do not exist.
#[inline]
pub(in crate::producer) fn with<T>(
    accumulator: &Accumulator,
    shard: Shard,
    name: &str,
    then: impl FnOnce(&Arc<TopicBatches>, &Arc<BatchQueue>) -> Result<T, Error>,
) -> Result<T, Error> {
    // The table may be borrowed already: `then` may have woken a task that sends at once (this function within
    // itself), or the thread is ending. Then the topic is looked up in the shared map.
    let mut then = Some(then);
    let found = RECENT.try_with(|recent| match recent.try_borrow().as_deref() {
        Ok(table) => table.find(accumulator.id, name).and_then(|recent| {
            // A topic that was forgotten is looked up in the shared map.
            if recent.topic.is_retired() {
                return None;
            }
            then.take().map(|then| then(&recent.topic, recent.topic.shard(shard)))
        }),
        Err(_) => None,
    });
    match (found, then) {
        (Ok(Some(result)), _) => result,
        (_, Some(then)) => {
            let topic = accumulator.topic(name)?;
            // The queue is made before it is remembered.
            let batch_queue = topic.shard(shard);
            remember(accumulator, shard, name)?;
            then(&topic, batch_queue)
        }
        (_, None) => unreachable!("it was called, and so gave a result"),
    }
}

/// The same, but only if this thread remembers the topic and the queue of the partition that `partition`
/// chooses. `None` if it does not, or if `then` gives `None`, which then has done nothing.
#[inline(always)]
pub(in crate::producer) fn with_known<T>(
    accumulator: &Accumulator,
    shard: Shard,
    name: &str,
    partition: impl FnOnce(&TopicBatches) -> Option<i32>,
    then: impl FnOnce(&TopicBatches, &BatchQueue) -> Option<T>,
) -> Option<T> {
    let found = RECENT.try_with(|recent| {
        let table = recent.try_borrow().ok()?;
        let recent = table.find(accumulator.id, name)?;
        let batch_queue = match partition(&recent.topic) {
            None => recent.open_at(shard)?,
            Some(partition) => recent.pinned.get(usize::try_from(partition).ok()?)?.as_ref()?,
        };
        then(&recent.topic, batch_queue)
    });
    found.ok().flatten()
}

/// Remembers the queue of a partition that this thread has looked up.
pub(super) fn remember_pinned(
    accumulator: &Accumulator,
    topic: &Arc<TopicBatches>,
    batch_queue: &Arc<BatchQueue>,
) {
    let Some(index) = batch_queue.partition.and_then(|p| usize::try_from(p).ok()) else { return };
    if index >= MOST_PINNED {
        return;
    }
    let note = || {
        let noted = RECENT.try_with(|recent| {
            let Ok(mut table) = recent.try_borrow_mut() else { return false };
            let Some(recent) = table.find_mut(accumulator.id, &topic.name) else { return false };
            recent.refresh(topic);
            if recent.pinned.len() <= index {
                recent.pinned.resize(index + 1, None);
            }
            recent.pinned[index].get_or_insert_with(|| Arc::clone(batch_queue));
            true
        });
        noted.unwrap_or_default()
    };
    if !note() && remember(accumulator, Shard::default(), &topic.name).is_ok() {
        note();
    }
}

/// In a forked child: forgets everything, since it is the parent's. The next record then takes the long way,
/// which refuses it.
pub(crate) fn forget() {
    let _ = RECENT.try_with(|recent| {
        if let Ok(mut table) = recent.try_borrow_mut() {
            std::mem::forget(std::mem::take(&mut table.entries));
        }
    });
}

#[cold]
fn remember(
    accumulator: &Accumulator,
    shard: Shard,
    name: &str,
) -> Result<Arc<TopicBatches>, Error> {
    let topic = accumulator.topic(name)?;
    let _ = RECENT.try_with(|recent| {
        if let Ok(mut table) = recent.try_borrow_mut() {
            if let Some(recent) = table.find_mut(accumulator.id, name) {
                recent.refresh(&topic);
                return;
            }
            table.insert(Recent::new(accumulator.id, &topic, shard));
        }
    });
    Ok(topic)
}

impl Recent {
    fn new(accumulator_id: u64, topic: &Arc<TopicBatches>, shard: Shard) -> Self {
        let batch_queue = topic.open_at(shard).cloned();
        Self { accumulator_id, topic: Arc::clone(topic), shard, batch_queue, pinned: Vec::new() }
    }

    /// The queue of this shard's records without a partition, if there were any.
    #[inline]
    fn open_at(&self, shard: Shard) -> Option<&Arc<BatchQueue>> {
        match &self.batch_queue {
            Some(batch_queue) if self.shard == shard => Some(batch_queue),
            _ => self.topic.open_at(shard),
        }
    }

    /// The topic may have been forgotten and made again since.
    fn refresh(&mut self, topic: &Arc<TopicBatches>) {
        if !Arc::ptr_eq(&self.topic, topic) {
            *self = Self::new(self.accumulator_id, topic, self.shard);
        }
    }

    #[inline]
    fn is(&self, accumulator_id: u64, name: &str) -> bool {
        self.accumulator_id == accumulator_id && same(&self.topic.name, name)
    }
}

impl Table {
    #[inline(always)]
    fn find(&self, accumulator_id: u64, name: &str) -> Option<&Recent> {
        match self.entries.get(self.last.get()) {
            Some(Some(recent)) if recent.is(accumulator_id, name) => Some(recent),
            _ => self.find_other(accumulator_id, name),
        }
    }

    fn find_other(&self, accumulator_id: u64, name: &str) -> Option<&Recent> {
        let first = bucket(name, self.entries.len());
        let ways = self.entries.get(first..first + WAYS)?;
        let here =
            |entry: &Option<Recent>| entry.as_ref().is_some_and(|r| r.is(accumulator_id, name));
        let way = ways.iter().position(here)?;
        self.last.set(first + way);
        ways[way].as_ref()
    }

    fn find_mut(&mut self, accumulator_id: u64, name: &str) -> Option<&mut Recent> {
        self.find(accumulator_id, name)?;
        self.entries[self.last.get()].as_mut()
    }

    /// Adds a topic that is not in the table.
    fn insert(&mut self, recent: Recent) {
        let mut rest = Some(recent);
        while let Some(recent) = rest.take() {
            rest = self.put(recent);
            if rest.is_some() && self.entries.len() == MOST {
                return;
            }
            if rest.is_some() {
                let size = (self.entries.len() * 2).max(WAYS);
                let old = std::mem::take(&mut self.entries);
                self.entries.resize_with(size, || None);
                old.into_iter().flatten().for_each(|old| drop(self.put(old)));
            }
        }
    }

    /// Gives back the topic for which there is no place; if the table cannot grow, that is an older one.
    fn put(&mut self, recent: Recent) -> Option<Recent> {
        let first = bucket(&recent.topic.name, self.entries.len());
        let Some(ways) = self.entries.get_mut(first..first + WAYS) else { return Some(recent) };
        let mut way = ways.iter().position(Option::is_none);
        if way.is_none() && self.entries.len() == MOST {
            self.next_out = (self.next_out + 1) % WAYS;
            way = Some(self.next_out);
        }
        let Some(way) = way else { return Some(recent) };
        self.last.set(first + way);
        self.entries[first + way].replace(recent)
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

/// The first place of a name in a table of so many, which is a power of two.
#[inline]
fn bucket(name: &str, size: usize) -> usize {
    let (first, last) = ends(name.as_bytes());
    // Names differ most often in their last bytes, which are the highest of their word: the whole product is
    // folded, so that every bit of it counts.
    let product = u128::from(first.rotate_left(29) ^ last) * 0x9e37_79b9_7f4a_7c15;
    (product ^ product >> 64) as usize & size.wrapping_sub(1) & !(WAYS - 1)
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
        let mut at = std::collections::HashMap::<usize, usize>::new();
        for name in &names {
            let first = bucket(name, MOST);
            assert!(first.is_multiple_of(WAYS) && first < MOST);
            *at.entry(first).or_default() += 1;
        }
        // At random it would be 27.
        let crowded: usize = at.values().map(|n| n.saturating_sub(WAYS)).sum();
        assert!(crowded < 60, "{crowded} of 1,000 names have no place");
        assert!(names.iter().all(|name| bucket(name, WAYS) == 0));
    }

    /// A table with so many topics, each found after it was put in.
    fn filled(topics: usize) -> (Table, Vec<String>) {
        let mut table = Table { entries: Vec::new(), next_out: 0, last: Cell::new(0) };
        let names: Vec<String> = (0..topics).map(|i| format!("topic-{i}")).collect();
        let config = crate::config::ProducerConfig::default();
        for name in &names {
            let topic = TopicBatches::new(name, &config);
            table.insert(Recent::new(7, &topic, Shard::default()));
            assert!(table.find(7, name).is_some(), "{name}");
        }
        (table, names)
    }

    #[test]
    fn a_topic_is_found_again_and_no_other_is() {
        let (table, names) = filled(300);
        let found = names.iter().filter(|name| {
            let found = table.find(7, name);
            assert!(found.is_none_or(|recent| *recent.topic.name == ***name));
            assert!(table.find(8, name).is_none(), "another home's");
            found.is_some()
        });
        assert!(found.count() > 290);
        assert!(table.find(7, "topic-300").is_none());
    }

    #[test]
    fn a_full_table_does_not_grow() {
        let (table, names) = filled(3 * MOST);
        assert_eq!(table.entries.len(), MOST);
        let found = names.iter().filter(|name| table.find(7, name).is_some()).count();
        assert!(found > MOST / 2 && found <= MOST, "{found}");
    }
}
