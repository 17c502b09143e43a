//! What falls due in a group, and when.
//!
//! Nothing runs of itself: a group is brought up to date before it is looked at, one timer after the
//! other and each at its own time, and requests that wait in a group look at it again when the next
//! one falls due. So a group that nobody asks about costs nothing, and virtual time is enough.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

/// At most one time for each key: a key that is scheduled again has its new time only.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    times: BTreeMap<K, Instant>,
    line: BTreeSet<(Instant, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { times: BTreeMap::new(), line: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    pub(crate) fn schedule(&mut self, key: K, at: Instant) {
        if let Some(before) = self.times.insert(key.clone(), at) {
            self.line.remove(&(before, key.clone()));
        }
        self.line.insert((at, key));
    }

    pub(crate) fn cancel(&mut self, key: &K) {
        if let Some(at) = self.times.remove(key) {
            self.line.remove(&(at, key.clone()));
        }
    }

    pub(crate) fn is_scheduled(&self, key: &K) -> bool {
        self.times.contains_key(key)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.line.first().map(|(at, _)| *at)
    }

    /// Takes the earliest of those that are due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(Instant, K)> {
        if self.next()? > now {
            return None;
        }
        let (at, key) = self.line.pop_first()?;
        self.times.remove(&key);
        Some((at, key))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_has_one_time_and_comes_in_turn() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        timers.schedule("b", at(2));
        timers.schedule("a", at(3));
        timers.schedule("c", at(1));
        timers.schedule("c", at(4));
        timers.cancel(&"x");
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.due(at(1)), None);
        assert_eq!(timers.due(at(9)), Some((at(2), "b")));
        assert!(!timers.is_scheduled(&"b") && timers.is_scheduled(&"a"));
        timers.cancel(&"a");
        assert_eq!(timers.due(at(9)), Some((at(4), "c")));
        assert_eq!((timers.due(at(9)), timers.next()), (None, None));
    }
}
