//! What a rebalance costs: for how long partitions are not read when a member of a large group comes, goes or is killed,
//! client by client.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::events::{Event, now_ms};
use crate::group::{Group, Setting};
use crate::history::{Entry, What};
use crate::programs::{Kind, Programs};

/// A record that waits for less is no sign of anything: it is written, read and told of by processes that share a machine.
pub const WAITS_MS: u64 = 500;

/// For how long a group is looked at after it has come to rest.
const AFTER: Duration = Duration::from_secs(1);

/// What happens to the group.
pub const EVENTS: [&str; 3] = ["one joins", "one leaves", "one is killed"];

/// Figures of one event.
#[derive(Clone, Debug)]
pub struct Cost {
    /// What happened.
    pub event: &'static str,
    /// Seconds in which a partition's records waited for longer than [`WAITS_MS`], of all partitions together.
    pub partition_seconds: f64,
    /// The longest that one partition was not read.
    pub longest: f64,
    /// Seconds until all was well again.
    pub rest: f64,
    /// Partitions that changed hands.
    pub moved: usize,
    /// The fewest that do.
    pub fewest: usize,
}

/// One client's group of so many members, through all events.
///
/// # Errors
/// The group does not come to rest, or one of its members fails.
pub fn measure(
    setting: Setting,
    programs: Programs,
    kind: Kind,
    members: usize,
) -> Result<Vec<Cost>, String> {
    let mut group = Group::start(setting, programs)?;
    for _ in 0..members {
        group.begin(kind, None)?;
    }
    group.settle("all join")?;
    std::thread::sleep(AFTER);
    let mut costs = Vec::new();
    for (at, event) in EVENTS.into_iter().enumerate() {
        let begun = now_ms();
        // Neither the oldest, who leads, nor the newest.
        let some = group.members()[members / 2].1.clone();
        match at {
            0 => drop(group.begin(kind, None)?),
            1 => group.dismiss(&some)?,
            _ => group.kill(&some)?,
        }
        let (moved, fewest) = group.settle(event)?;
        let rest = (now_ms() - begun) as f64 / 1e3;
        std::thread::sleep(AFTER);
        let gaps = waiting(&group.written(), &group.history().sorted(), begun, now_ms() - WAITS_MS);
        let partition_seconds = gaps.values().sum::<u64>() as f64 / 1e3;
        let longest = gaps.values().max().map_or(0.0, |ms| *ms as f64 / 1e3);
        costs.push(Cost { event, partition_seconds, longest, rest, moved, fewest });
    }
    group.abandon();
    Ok(costs)
}

/// Milliseconds between two times in which each partition had a record that waited for longer than [`WAITS_MS`]: from when it was
/// acknowledged to when it was handed out, whatever came in between counted once.
fn waiting(written: &[Entry], read: &[Entry], from: u64, to: u64) -> BTreeMap<i32, u64> {
    let mut records: BTreeMap<(i32, i64), u64> = BTreeMap::new();
    for entry in written {
        if let What::Said(Event::ProducerSendSuccess { partition, offset, .. }) = &entry.what {
            records.insert((*partition, *offset), entry.at);
        }
    }
    let mut first_read: BTreeMap<(i32, i64), u64> = BTreeMap::new();
    for entry in read {
        if let What::Said(Event::RecordsConsumed { partitions, .. }) = &entry.what {
            for part in partitions {
                for offset in part.min_offset..=part.max_offset {
                    first_read.entry((part.partition, offset)).or_insert(entry.at);
                }
            }
        }
    }
    let mut sums = BTreeMap::new();
    // Up to when the partition's waiting is counted.
    let mut counted: BTreeMap<i32, u64> = BTreeMap::new();
    for ((partition, offset), since) in records {
        let until = first_read.get(&(partition, offset)).copied().unwrap_or(to).min(to);
        if until.saturating_sub(since) <= WAITS_MS {
            continue;
        }
        let counted = counted.entry(partition).or_insert(from);
        let begin = since.max(*counted);
        if until > begin {
            *sums.entry(partition).or_insert(0) += until - begin;
            *counted = until;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::Consumed;

    #[test]
    fn what_waits_is_counted_once_and_within_its_time() {
        let at = |at, what| Entry { at, member: Arc::from("m"), what: What::Said(what) };
        let wrote = |ms, offset| {
            let (key, value, topic) = (None, String::new(), "t".to_owned());
            at(ms, Event::ProducerSendSuccess { key, value, topic, partition: 0, offset })
        };
        let read = |ms, min_offset, max_offset| {
            let topic = "t".to_owned();
            let one = Consumed { topic, partition: 0, count: 1, min_offset, max_offset };
            at(ms, Event::RecordsConsumed { count: 1, partitions: vec![one] })
        };
        let written = [wrote(1_000, 0), wrote(2_000, 1), wrote(3_000, 2), wrote(9_000, 3)];
        let quick = [read(1_100, 0, 0), read(2_100, 1, 1), read(3_100, 2, 2), read(9_400, 3, 3)];
        assert_eq!(waiting(&written, &quick, 0, 20_000), [].into());
        // Two overlap, and a second reading changes nothing.
        let slow = [read(5_000, 0, 2), read(9_400, 3, 3), read(12_000, 0, 3)];
        assert_eq!(waiting(&written, &slow, 0, 20_000), [(0, 4_000)].into());
        assert_eq!(waiting(&written, &slow, 2_500, 20_000), [(0, 2_500)].into());
        // Not read at all until the end.
        assert_eq!(waiting(&written, &slow[..1], 6_000, 12_000), [(0, 3_000)].into());
    }
}
