//! What a group has committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Where a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offset {
    pub(crate) offset: i64,
    /// -1: not told.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    pub(crate) committed: Instant,
    /// What a client of before KIP-211 asked for.
    pub(crate) expires: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    topics: BTreeMap<String, BTreeMap<i32, Offset>>,
    /// Partitions that a transaction is about to commit.
    unstable: BTreeSet<(String, i32)>,
}

impl Offsets {
    pub(crate) fn commit(&mut self, topic: &str, partition: i32, offset: Offset) {
        match self.topics.get_mut(topic) {
            Some(partitions) => drop(partitions.insert(partition, offset)),
            None => {
                let partitions = BTreeMap::from([(partition, offset)]);
                self.topics.insert(topic.to_owned(), partitions);
            }
        }
    }

    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Offset> {
        self.topics.get(topic)?.get(&partition)
    }

    pub(crate) fn delete(&mut self, topic: &str, partition: i32) {
        self.unstable.remove(&(topic.to_owned(), partition));
        if let Some(partitions) = self.topics.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    pub(crate) fn delete_topic(&mut self, topic: &str) {
        self.topics.remove(topic);
        self.unstable.retain(|(name, _)| name != topic);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.unstable.is_empty()
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, &BTreeMap<i32, Offset>)> {
        self.topics.iter().map(|(name, partitions)| (name.as_str(), partitions))
    }

    pub(crate) fn set_unstable(&mut self, topic: &str, partition: i32, unstable: bool) {
        let key = (topic.to_owned(), partition);
        match unstable {
            true => drop(self.unstable.insert(key)),
            false => drop(self.unstable.remove(&key)),
        }
    }

    pub(crate) fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        !self.unstable.is_empty() && self.unstable.contains(&(topic.to_owned(), partition))
    }

    /// Forgets what nobody has committed or used for so long; `since`: from when on it counts,
    /// of an offset that does not say itself. What is read stays.
    pub(crate) fn expire(
        &mut self,
        is_read: impl Fn(&str) -> bool,
        since: impl Fn(&Offset) -> Instant,
        retention: Duration,
        now: Instant,
    ) {
        let unstable = &self.unstable;
        self.topics.retain(|topic, partitions| {
            if is_read(topic) {
                return true;
            }
            partitions.retain(|partition, offset| {
                let until = offset.expires.or_else(|| since(offset).checked_add(retention));
                until.is_none_or(|until| now < until)
                    || unstable.contains(&(topic.clone(), *partition))
            });
            !partitions.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(offset: i64, committed: Instant) -> Offset {
        Offset { offset, leader_epoch: -1, metadata: String::new(), committed, expires: None }
    }

    #[test]
    fn offsets_expire_unless_they_are_read_or_undecided() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut offsets = Offsets::default();
        offsets.commit("read", 0, offset(1, start));
        offsets.commit("old", 0, offset(2, start));
        offsets.commit("old", 1, offset(3, start + 5 * second));
        offsets.commit("old", 2, Offset { expires: Some(start + second), ..offset(4, start) });
        offsets.commit("open", 0, offset(5, start));
        offsets.set_unstable("open", 0, true);
        let mut expire = |after| {
            let since = |one: &Offset| one.committed;
            offsets.expire(|topic| topic == "read", since, 3 * second, start + after);
            let left = offsets.topics().flat_map(|(_, partitions)| partitions.values());
            left.map(|one| one.offset).collect::<Vec<_>>()
        };
        assert_eq!(expire(second - Duration::from_nanos(1)), [2, 3, 4, 5, 1]);
        assert_eq!(expire(second), [2, 3, 5, 1]);
        assert_eq!(expire(3 * second), [3, 5, 1]);
        assert_eq!(expire(8 * second), [5, 1]);
        offsets.set_unstable("open", 0, false);
        assert!(offsets.is_unstable("open", 0) || !offsets.is_empty());
        offsets.delete("open", 0);
        offsets.delete_topic("read");
        assert!(offsets.is_empty());
    }

    #[test]
    fn the_last_commit_counts() {
        let start = Instant::now();
        let mut offsets = Offsets::default();
        offsets.commit("topic", 1, offset(7, start));
        offsets.commit("topic", 1, offset(3, start));
        assert_eq!(offsets.get("topic", 1).map(|one| one.offset), Some(3));
        assert_eq!(offsets.get("topic", 0), None);
        assert_eq!(offsets.get("other", 1), None);
    }
}
