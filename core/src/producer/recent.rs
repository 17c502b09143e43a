//! Where a thread's records went last. Most threads send to the topic that they sent to before:
//! comparing a name costs a tenth of locking and hashing.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::accumulator::{Accumulator, SHARDS, TopicBatches};
use super::slot::Slot;
use crate::error::Error;

struct Recent {
    home: u64,
    topic: Arc<TopicBatches>,
    /// This thread's own of the topic's open batches: one thread fills one batch.
    slot: Arc<Slot>,
}

thread_local! {
    static RECENT: RefCell<Option<Recent>> = const { RefCell::new(None) };
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
        Ok(Some(recent)) if recent.home == home.id && same(&recent.topic.name, name) => {
            then.take().map(|then| then(&recent.topic, &recent.slot))
        }
        _ => None,
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
        if let Ok(mut recent) = recent.try_borrow_mut() {
            let (topic, slot) = (Arc::clone(&topic), Arc::clone(&slot));
            *recent = Some(Recent { home: home.id, topic, slot });
        }
    });
    Ok((topic, slot))
}

/// Compares names without a call: they are short.
#[inline]
fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let word = |bytes: &[u8], at: usize| -> Option<[u8; 8]> {
        bytes.get(at..at + 8).and_then(|word| word.try_into().ok())
    };
    match a.len() {
        // Two words that cover all, overlapping if there are fewer than 16.
        n @ 8..=16 => word(a, 0) == word(b, 0) && word(a, n - 8) == word(b, n - 8),
        0..8 => a.iter().zip(b).all(|(a, b)| a == b),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::same;

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
    }
}
