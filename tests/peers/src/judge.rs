//! Whether a group did what groups promise: each record is handled, no partition has two owners, and what is handled twice
//! has a lost commit behind it. Pure: of a [`History`](crate::history::History), whoever took part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::events::Event;
use crate::history::{Entry, What};

/// Offsets of each partition that were handled, as ranges that do not touch.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<i64, i64>);

impl Ranges {
    /// Adds `first..next`; gives the parts that were there.
    fn add(&mut self, first: i64, next: i64) -> Vec<(i64, i64)> {
        let (mut low, mut high, mut there) = (first, next, Vec::new());
        let touching: Vec<_> = self
            .0
            .range(..=next)
            .rev()
            .take_while(|(_, end)| **end >= first)
            .map(|(start, end)| (*start, *end))
            .collect();
        for (start, end) in touching {
            let (from, to) = (start.max(first), end.min(next));
            if from < to {
                there.push((from, to));
            }
            (low, high) = (low.min(start), high.max(end));
            self.0.remove(&start);
        }
        self.0.insert(low, high);
        there
    }
}

/// Offsets that nobody handled, as `first..next` of each partition, of all before these ends.
pub fn missing(entries: &[Entry], ends: &BTreeMap<i32, i64>) -> Vec<(i32, i64, i64)> {
    let mut handled: BTreeMap<i32, Ranges> = BTreeMap::new();
    for entry in entries {
        if let What::Said(Event::RecordsConsumed { partitions, .. }) = &entry.what {
            for part in partitions {
                let ranges = handled.entry(part.partition).or_default();
                ranges.add(part.min_offset, part.max_offset + 1);
            }
        }
    }
    let mut missing = Vec::new();
    for (partition, end) in ends {
        let mut next = 0;
        for (first, behind) in handled.get(partition).map(|r| &r.0).into_iter().flatten() {
            if next < *end && *first > next {
                missing.push((*partition, next, (*first).min(*end)));
            }
            next = next.max(*behind);
        }
        if next < *end {
            missing.push((*partition, next, *end));
        }
    }
    missing
}

/// Moments in which a partition was given to a member while another one had it.
///
/// A member whose session ended without its knowing, because brokers or the machine were away, hears of it later: it had nothing
/// if it says that it has lost the partition before it reads of it again. Those are told apart.
pub fn owned_twice(entries: &[Entry]) -> (Vec<String>, Vec<String>) {
    let mut owners = Owners::default();
    let (mut twice, mut lapsed) = (Vec::new(), Vec::new());
    for (at, entry) in entries.iter().enumerate() {
        for (partition, other) in owners.follow(entry) {
            let member = &entry.member;
            let words = format!("{}: {member} gets {partition}, which {other} has", entry.at);
            let said = entries[at..].iter().filter(|later| later.member == other);
            let next = said.filter_map(|later| goes_on(later, partition)).next();
            if next == Some(false) { lapsed.push(words) } else { twice.push(words) }
        }
    }
    (twice, lapsed)
}

/// Whether its member takes a partition for its own, if it says anything of it.
fn goes_on(entry: &Entry, partition: i32) -> Option<bool> {
    match &entry.what {
        What::Said(Event::PartitionsRevoked { partitions }) => {
            partitions.iter().any(|part| part.partition == partition).then_some(false)
        }
        What::Said(Event::RecordsConsumed { partitions, .. }) => {
            partitions.iter().any(|part| part.partition == partition).then_some(true)
        }
        What::Killed => Some(false),
        _ => None,
    }
}

/// Who has which partition. A member that was killed has nothing, and one that is frozen, or has not been given anything
/// since, nothing either.
#[derive(Debug, Default)]
pub struct Owners {
    of: BTreeMap<i32, BTreeSet<Arc<str>>>,
}

impl Owners {
    /// The owners of each partition.
    pub fn all(&self) -> &BTreeMap<i32, BTreeSet<Arc<str>>> {
        &self.of
    }

    /// Goes on by one entry; gives what is somebody else's as well now.
    pub fn follow(&mut self, entry: &Entry) -> Vec<(i32, Arc<str>)> {
        let member = &entry.member;
        let mut doubly = Vec::new();
        match &entry.what {
            What::Said(Event::PartitionsAssigned { partitions }) => {
                for part in partitions {
                    let of = self.of.entry(part.partition).or_default();
                    of.insert(Arc::clone(member));
                    let others = of.iter().filter(|other| *other != member);
                    doubly.extend(others.map(|other| (part.partition, Arc::clone(other))));
                }
            }
            What::Said(Event::PartitionsRevoked { partitions }) => {
                for part in partitions {
                    self.of.entry(part.partition).or_default().remove(member);
                }
            }
            // A frozen one cannot say that it has lost them; what it does when it wakes up is for `read_asleep`.
            What::Said(Event::ShutdownComplete) | What::Killed | What::Frozen => {
                for of in self.of.values_mut() {
                    of.remove(member);
                }
            }
            What::Said(_) | What::Thawed => {}
        }
        doubly
    }
}

/// Records that were handled twice without a reason: the first to handle them had them committed before the second was given
/// the partition, or nothing happened to it that loses a commit.
pub fn twice_without_reason(entries: &[Entry]) -> Vec<String> {
    #[derive(Default)]
    struct Past {
        ranges: Ranges,
        /// Who handled what, the last first.
        by: Vec<(i64, i64, Arc<str>)>,
        /// Up to where it is committed, as somebody was told.
        committed: i64,
        /// The same when its owner was given it.
        begins: i64,
        /// Of whom a commit was refused.
        refused: BTreeSet<Arc<str>>,
    }
    let mut of: BTreeMap<i32, Past> = BTreeMap::new();
    // Whose commits may be lost without a word.
    let mut hurt: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut wrong = Vec::new();
    for entry in entries {
        let member = &entry.member;
        match &entry.what {
            What::Killed | What::Frozen => {
                hurt.insert(Arc::clone(member));
            }
            What::Said(Event::PartitionsAssigned { partitions }) => {
                for part in partitions {
                    let past = of.entry(part.partition).or_default();
                    past.begins = past.committed;
                }
            }
            What::Said(Event::OffsetsCommitted { offsets, success, .. }) => {
                for one in offsets {
                    let past = of.entry(one.partition).or_default();
                    if *success {
                        past.committed = past.committed.max(one.offset);
                    } else {
                        past.refused.insert(Arc::clone(member));
                    }
                }
            }
            What::Said(Event::RecordsConsumed { partitions, .. }) => {
                for part in partitions {
                    let past = of.entry(part.partition).or_default();
                    let (first, next) = (part.min_offset, part.max_offset + 1);
                    for (from, to) in past.ranges.add(first, next) {
                        let at =
                            format!("{}: {member} reads {}@{from}..{to}", entry.at, part.partition);
                        // Who wakes up hands out what it had in hand.
                        if hurt.contains(member) {
                            continue;
                        }
                        if from < past.begins {
                            wrong.push(format!("{at}, and {} was committed", past.begins));
                            continue;
                        }
                        let before = past.by.iter().rev().find(|(f, n, _)| *f < to && *n > from);
                        if let Some((_, _, before)) = before
                            && !hurt.contains(before)
                            && !past.refused.contains(before)
                        {
                            wrong.push(format!("{at}, which {before} had handled, unharmed"));
                        }
                    }
                    past.by.push((first, next, Arc::clone(member)));
                }
            }
            What::Said(_) | What::Thawed => {}
        }
    }
    wrong
}

/// How often a member that was frozen handed out records after it woke up, before it was given their partition again or
/// said that it has lost it: of partitions that are somebody else's.
pub fn read_asleep(entries: &[Entry]) -> BTreeMap<Arc<str>, usize> {
    let mut has: BTreeMap<Arc<str>, BTreeSet<i32>> = BTreeMap::new();
    let mut asleep: BTreeMap<Arc<str>, BTreeSet<i32>> = BTreeMap::new();
    let mut times = BTreeMap::new();
    for entry in entries {
        let member = &entry.member;
        match &entry.what {
            What::Frozen => {
                asleep.insert(Arc::clone(member), has.get(member).cloned().unwrap_or_default());
            }
            What::Said(Event::PartitionsAssigned { partitions }) => {
                for part in partitions {
                    has.entry(Arc::clone(member)).or_default().insert(part.partition);
                    asleep.entry(Arc::clone(member)).or_default().remove(&part.partition);
                }
            }
            What::Said(Event::PartitionsRevoked { partitions }) => {
                for part in partitions {
                    has.entry(Arc::clone(member)).or_default().remove(&part.partition);
                    asleep.entry(Arc::clone(member)).or_default().remove(&part.partition);
                }
            }
            What::Said(Event::RecordsConsumed { partitions, .. }) => {
                let stale = asleep.get(member);
                let reads = |p: &i32| partitions.iter().any(|part| part.partition == *p);
                if stale.is_some_and(|stale| stale.iter().any(reads)) {
                    *times.entry(Arc::clone(member)).or_insert(0) += 1;
                }
            }
            _ => {}
        }
    }
    times
}

/// Who had how many partitions, and who has each now.
pub type Layout = BTreeMap<i32, Arc<str>>;

/// How many partitions changed hands from one layout to the next, and the fewest that a balanced one takes, among these members.
pub fn moves(before: &Layout, after: &Layout, members: &[Arc<str>]) -> (usize, usize) {
    let moved = after.iter().filter(|(p, owner)| before.get(p) != Some(owner)).count();
    let mut had: Vec<usize> = members
        .iter()
        .map(|member| before.values().filter(|owner| *owner == member).count())
        .collect();
    had.sort_unstable_by(|a, b| b.cmp(a));
    if members.is_empty() {
        return (moved, 0);
    }
    let (each, more) = (after.len() / members.len(), after.len() % members.len());
    // Those that had the most are the ones that have one more.
    let kept = had.iter().enumerate().map(|(i, had)| *had.min(&(each + usize::from(i < more))));
    (moved, after.len() - kept.sum::<usize>())
}

/// How many records were handed to somebody, each as often as it was.
pub fn handled(entries: &[Entry]) -> u64 {
    let count = |entry: &Entry| match &entry.what {
        What::Said(Event::RecordsConsumed { count, .. }) => *count,
        _ => 0,
    };
    entries.iter().map(count).sum()
}

/// The last offset of each partition that a group was told to have, by anybody.
pub fn committed(entries: &[Entry]) -> BTreeMap<i32, i64> {
    let mut last = BTreeMap::new();
    for entry in entries {
        if let What::Said(Event::OffsetsCommitted { offsets, success: true, .. }) = &entry.what {
            for one in offsets {
                last.insert(one.partition, one.offset);
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Committed, Consumed, Partition};

    fn list(partitions: &[i32]) -> Vec<Partition> {
        let one = |p: &i32| Partition { topic: "t".into(), partition: *p };
        partitions.iter().map(one).collect()
    }

    fn gets(partitions: &[i32]) -> What {
        What::Said(Event::PartitionsAssigned { partitions: list(partitions) })
    }

    fn gives(partitions: &[i32]) -> What {
        What::Said(Event::PartitionsRevoked { partitions: list(partitions) })
    }

    fn reads(partition: i32, min_offset: i64, max_offset: i64) -> What {
        let (topic, count) = ("t".to_owned(), (max_offset - min_offset + 1).unsigned_abs());
        let one = Consumed { topic, partition, count, min_offset, max_offset };
        What::Said(Event::RecordsConsumed { count, partitions: vec![one] })
    }

    fn commits(partition: i32, offset: i64, success: bool) -> What {
        let offsets = vec![Committed { topic: "t".into(), partition, offset }];
        What::Said(Event::OffsetsCommitted { offsets, error: None, success })
    }

    fn none() -> (Vec<String>, Vec<String>) {
        Default::default()
    }

    fn history(all: &[(&str, What)]) -> Vec<Entry> {
        let entry = |(i, (member, what)): (usize, &(&str, What))| Entry {
            at: i as u64,
            member: Arc::from(*member),
            what: what.clone(),
        };
        all.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn what_nobody_handled_is_missing() {
        let read = history(&[("a", reads(0, 0, 4)), ("b", reads(0, 7, 8)), ("b", reads(0, 3, 5))]);
        assert_eq!(missing(&read, &[(0, 9)].into()), [(0, 6, 7)]);
        assert_eq!(missing(&read, &[(0, 12), (1, 1)].into()), [(0, 6, 7), (0, 9, 12), (1, 0, 1)]);
        assert_eq!(missing(&read, &[(0, 6)].into()), []);
    }

    #[test]
    fn two_owners_at_a_time_are_found() {
        let fine = [("a", gets(&[0, 1])), ("a", gives(&[1])), ("b", gets(&[1]))];
        assert_eq!(owned_twice(&history(&fine)), none());
        let wrong = [("a", gets(&[0, 1])), ("b", gets(&[1])), ("a", reads(1, 0, 0))];
        assert_eq!(owned_twice(&history(&wrong)).0.len(), 1);
        let silent = [("a", gets(&[0, 1])), ("b", gets(&[1]))];
        assert_eq!(owned_twice(&history(&silent)).0.len(), 1);
        // It hears too late that it is out, and reads nothing meanwhile.
        let late =
            [&silent[..], &[("a", reads(0, 0, 0)), ("a", gives(&[1])), ("a", reads(1, 0, 0))]];
        let (twice, lapsed) = owned_twice(&history(&late.concat()));
        assert_eq!((twice.len(), lapsed.len()), (0, 1));
        // Who is dead or frozen longer than its session has nothing.
        for what in [What::Killed, What::Frozen] {
            let all = [("a", gets(&[0])), ("a", what), ("b", gets(&[0]))];
            assert_eq!(owned_twice(&history(&all)), none());
        }
    }

    #[test]
    fn what_was_committed_is_not_read_again() {
        let begun = [("a", gets(&[0])), ("a", reads(0, 0, 4)), ("a", commits(0, 5, true))];
        let again = |more: &[(&'static str, What)]| {
            twice_without_reason(&history(&[&begun[..], more].concat()))
        };
        assert_eq!(again(&[("b", gets(&[0])), ("b", reads(0, 5, 9))]), [""; 0]);
        assert_eq!(again(&[("b", gets(&[0])), ("b", reads(0, 4, 9))]).len(), 1);
        // Whatever happened to the first.
        assert_eq!(
            again(&[("a", What::Killed), ("b", gets(&[0])), ("b", reads(0, 4, 9))]).len(),
            1
        );
    }

    #[test]
    fn what_is_read_twice_has_a_lost_commit_behind_it() {
        let begun = [("a", gets(&[0])), ("a", reads(0, 0, 4))];
        let again = [("b", gets(&[0])), ("b", reads(0, 0, 4))];
        let with = |more: &[(&'static str, What)]| {
            twice_without_reason(&history(&[&begun[..], more, &again[..]].concat()))
        };
        assert_eq!(with(&[]).len(), 1);
        assert_eq!(with(&[("a", gives(&[0]))]).len(), 1);
        assert_eq!(with(&[("a", commits(0, 5, false))]), [""; 0]);
        assert_eq!(with(&[("a", What::Killed)]), [""; 0]);
    }

    #[test]
    fn who_wakes_up_and_goes_on_reading_is_seen() {
        let begun =
            [("a", gets(&[0])), ("a", What::Frozen), ("b", gets(&[0])), ("a", What::Thawed)];
        let times = |more: &[(&'static str, What)]| {
            read_asleep(&history(&[&begun[..], more].concat())).get("a").copied()
        };
        assert_eq!(times(&[("a", reads(0, 5, 6)), ("a", reads(0, 7, 8))]), Some(2));
        assert_eq!(times(&[("a", gives(&[0])), ("a", gets(&[0])), ("a", reads(0, 5, 6))]), None);
        assert_eq!(times(&[("b", reads(0, 5, 6))]), None);
    }

    #[test]
    fn the_fewest_moves_are_counted() {
        let layout = |owners: &[&str]| -> Layout {
            owners.iter().enumerate().map(|(p, o)| (p as i32, Arc::from(*o))).collect()
        };
        let members = |all: &[&str]| all.iter().map(|m| Arc::from(*m)).collect::<Vec<_>>();
        let before = layout(&["a", "a", "a", "b", "b", "b"]);
        let after = layout(&["a", "a", "c", "b", "b", "c"]);
        assert_eq!(moves(&before, &after, &members(&["a", "b", "c"])), (2, 2));
        let worse = layout(&["c", "a", "a", "c", "b", "a"]);
        assert_eq!(moves(&before, &worse, &members(&["a", "b", "c"])), (3, 2));
        // One is gone: its own have to move.
        assert_eq!(moves(&before, &layout(&["a"; 6]), &members(&["a"])), (3, 3));
    }
}
