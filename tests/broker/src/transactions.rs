//! Transactions in one partition: which are open, which were aborted, and how far readers of
//! committed records may read.
//!
//! The rules are those of Kafka's `ProducerStateManager` and `TransactionIndex`. Nobody coordinates
//! here: a transaction begins with its first batch, and a test ends it.

use std::collections::BTreeMap;

/// Producers with an open transaction in one partition. Ids are the clients' choice and must be
/// bounded.
pub(crate) const MAX_OPEN: usize = 100_000;

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionEnd {
    /// Its records are valid.
    Commit,
    /// Its records are as good as never written.
    Abort,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    producer_id: i64,
    first: i64,
    /// Offset of the control batch that ended it.
    marker: i64,
    aborted: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// By producer: the offset of its first batch.
    open: BTreeMap<i64, i64>,
    /// By their markers.
    ended: Vec<Ended>,
}

impl Transactions {
    /// Offset at which a producer's open transaction begins.
    pub(crate) fn open_since(&self, producer_id: i64) -> Option<i64> {
        self.open.get(&producer_id).copied()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.open.len() < MAX_OPEN
    }

    /// A transactional batch was appended: the first of its producer begins a transaction.
    pub(crate) fn appended(&mut self, producer_id: i64, base_offset: i64) {
        self.open.entry(producer_id).or_insert(base_offset);
    }

    /// A marker was appended. One without a transaction that it could end means nothing.
    pub(crate) fn ended(&mut self, producer_id: i64, marker: i64, end: TransactionEnd) {
        if let Some(first) = self.open.remove(&producer_id) {
            let aborted = end == TransactionEnd::Abort;
            self.ended.push(Ended { producer_id, first, marker, aborted });
        }
    }

    /// The last stable offset of a replica whose log begins at `start`: nothing from there on is
    /// decided. A transaction is so once its marker lies below the high watermark.
    pub(crate) fn stable(&self, start: i64, high_watermark: i64) -> i64 {
        // Whatever began in a part of the log that is not there yet is above the high watermark.
        let open = self.open.values().copied();
        let ended = self.ended.iter().rev().take_while(|one| one.marker >= high_watermark);
        let first = open.chain(ended.map(|one| one.first)).min();
        first.map_or(high_watermark, |first| first.max(start).min(high_watermark))
    }

    /// Producer and first offset of what was aborted and overlaps `from..to`, in a replica whose log
    /// ends at `end`. In the order of the markers, as Kafka's index has them, and not by first offset.
    pub(crate) fn aborted(&self, from: i64, to: i64, end: i64) -> Vec<(i64, i64)> {
        let after = self.ended.partition_point(|one| one.marker < from);
        self.ended[after..]
            .iter()
            .filter(|one| one.aborted && one.first < to && one.marker < end)
            .map(|one| (one.producer_id, one.first))
            .collect()
    }

    /// Whether what a producer wrote at an offset was aborted.
    pub(crate) fn is_aborted(&self, producer_id: i64, offset: i64) -> bool {
        let after = self.ended.partition_point(|one| one.marker < offset);
        let ended = self.ended[after..].iter().find(|one| one.producer_id == producer_id);
        ended.is_some_and(|one| one.aborted && one.first <= offset)
    }

    /// The log ends at `end` now: what ended behind it is open again, what began there is not.
    pub(crate) fn cut_back(&mut self, end: i64) {
        self.open.retain(|_, first| *first < end);
        let kept = self.ended.partition_point(|one| one.marker < end);
        for one in self.ended.drain(kept..).filter(|one| one.first < end) {
            self.open.insert(one.producer_id, one.first);
        }
    }

    /// The log begins at `start` now.
    pub(crate) fn forget_before(&mut self, start: i64) {
        let gone = self.ended.partition_point(|one| one.marker < start);
        self.ended.drain(..gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Producer 1 commits 0..=2, producer 2 aborts 1..=4, producer 1 is open since 3.
    fn three() -> Transactions {
        let mut transactions = Transactions::default();
        transactions.appended(1, 0);
        transactions.appended(2, 1);
        transactions.ended(1, 2, TransactionEnd::Commit);
        transactions.appended(1, 3);
        transactions.ended(2, 4, TransactionEnd::Abort);
        transactions
    }

    #[test]
    fn stable_is_what_is_decided_below_the_high_watermark() {
        let transactions = three();
        for (high_watermark, stable) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 3), (9, 3)] {
            assert_eq!(transactions.stable(0, high_watermark), stable, "{high_watermark}");
        }
        // A transaction whose beginning is deleted holds readers back at the log's start.
        assert_eq!(transactions.stable(5, 9), 5);
        assert_eq!(Transactions::default().stable(0, 7), 7);
    }

    #[test]
    fn a_second_batch_and_a_marker_for_nothing_change_nothing() {
        let mut transactions = Transactions::default();
        transactions.ended(1, 0, TransactionEnd::Abort);
        transactions.appended(1, 1);
        transactions.appended(1, 2);
        assert_eq!(transactions.open_since(1), Some(1));
        assert!(transactions.aborted(0, 9, 9).is_empty());
        transactions.ended(1, 3, TransactionEnd::Abort);
        assert_eq!(transactions.aborted(0, 9, 9), [(1, 1)]);
    }

    #[test]
    fn what_was_aborted_is_told_where_it_overlaps() {
        let mut transactions = three();
        transactions.ended(1, 5, TransactionEnd::Abort);
        for (from, to, end, aborted) in [
            (0, 9, 9, vec![(2, 1), (1, 3)]),
            (4, 9, 9, vec![(2, 1), (1, 3)]),
            (5, 9, 9, vec![(1, 3)]),
            (6, 9, 9, vec![]),
            (0, 1, 9, vec![]),
            (0, 2, 9, vec![(2, 1)]),
            (0, 9, 5, vec![(2, 1)]),
            (0, 9, 4, vec![]),
        ] {
            assert_eq!(transactions.aborted(from, to, end), aborted, "{from}..{to}, end {end}");
        }
        assert!(!transactions.is_aborted(1, 0), "that one was committed");
        assert!(transactions.is_aborted(2, 1));
        assert!(transactions.is_aborted(1, 3));
        assert!(!transactions.is_aborted(1, 6));
        transactions.forget_before(5);
        assert_eq!(transactions.aborted(0, 9, 9), [(1, 3)]);
    }

    #[test]
    fn what_ended_in_a_part_that_is_lost_is_open_again() {
        let mut transactions = three();
        transactions.cut_back(4);
        assert_eq!((transactions.open_since(1), transactions.open_since(2)), (Some(3), Some(1)));
        transactions.cut_back(2);
        assert_eq!((transactions.open_since(1), transactions.open_since(2)), (Some(0), Some(1)));
        transactions.cut_back(1);
        assert_eq!((transactions.open_since(1), transactions.open_since(2)), (Some(0), None));
        assert_eq!(transactions.stable(0, 1), 0);
    }
}
