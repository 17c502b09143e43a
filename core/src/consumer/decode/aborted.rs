//! What of a response was written in transactions that were aborted (KIP-98), where only committed records are to be read.
//!
//! The broker reads up to the first transaction that is still open, and lists for each response the aborted ones that
//! overlap it: whose they are, and where they begin. Where they end is in the log, in the *marker* that the coordinator wrote.
//! Both are told from the headers of batches, so that nothing has to be decompressed:
//!
//! - From the first batch on that reaches to where a listed transaction begins, its producer's transactional batches are not
//!   handed out, until its marker of an abort. The same producer may commit or abort another one behind it.
//! - Nothing but a marker of an abort ends it: any other control batch is only passed over, as all of them are.
//! - What a producer writes outside of transactions is nobody's to abort.
//!
//! What is left out is passed all the same: the position is behind it.

use std::collections::HashSet;

/// The type in the key of a control record that ends a transaction by an abort. (1 is a commit; Kafka has others, which
/// are for its own logs, and more may come.)
const ABORT: i16 = 0;

/// What the header of a batch says, in the order in which a response has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) last_offset: i64,
    pub(crate) producer_id: i64,
    pub(crate) transactional: bool,
    /// A control batch, with the key of its first record; empty if it has none, as where the log was compacted.
    pub(crate) control: Option<&'a [u8]>,
}

/// The aborted transactions of a response, of one partition. Without any it lets all through but control batches.
#[derive(Debug, Default)]
pub(crate) struct Aborted {
    /// Where they begin, and whose they are; the first one last.
    ahead: Vec<(i64, i64)>,
    /// The producers whose transactional batches are left out now.
    under_way: HashSet<i64, foldhash::fast::RandomState>,
}

impl Aborted {
    /// `listed`: producer ids and first offsets, as a response has them, in any order.
    pub(crate) fn new(listed: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut ahead: Vec<(i64, i64)> =
            listed.into_iter().map(|(producer_id, first)| (first, producer_id)).collect();
        ahead.sort_unstable_by(|a, b| b.cmp(a));
        Self { ahead, under_way: HashSet::default() }
    }

    /// Whether the batch is handed out. To be asked of every batch of the response in its order, also of one that ends before
    /// the position.
    pub(crate) fn shows(&mut self, batch: &Seen<'_>) -> bool {
        while let Some((_, producer_id)) =
            self.ahead.pop_if(|(first, _)| *first <= batch.last_offset)
        {
            self.under_way.insert(producer_id);
        }
        if let Some(key) = batch.control {
            if is_abort(key) {
                self.under_way.remove(&batch.producer_id);
            }
            return false;
        }
        !(batch.transactional && self.under_way.contains(&batch.producer_id))
    }
}

/// Whether the key of a control record is that of an abort: a version, which may be any as long as it is one, and a type.
fn is_abort(key: &[u8]) -> bool {
    let Some(&[v0, v1, t0, t1]) = key.first_chunk() else { return false };
    i16::from_be_bytes([v0, v1]) >= 0 && i16::from_be_bytes([t0, t1]) == ABORT
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ABORTS: &[u8] = &[0, 0, 0, 0];
    const COMMITS: &[u8] = &[0, 0, 0, 1];

    /// A batch of ten records of a producer's transaction.
    fn batch(first: i64, producer_id: i64) -> Seen<'static> {
        Seen { last_offset: first + 9, producer_id, transactional: true, control: None }
    }

    fn marker(at: i64, producer_id: i64, key: &'static [u8]) -> Seen<'static> {
        Seen { last_offset: at, producer_id, transactional: true, control: Some(key) }
    }

    /// The last offsets of what is handed out.
    fn shown(listed: &[(i64, i64)], batches: &[Seen<'_>]) -> Vec<i64> {
        let mut aborted = Aborted::new(listed.iter().copied());
        let shown = batches.iter().filter(|batch| aborted.shows(batch));
        shown.map(|batch| batch.last_offset).collect()
    }

    #[test]
    fn what_an_abort_ends_is_not_shown() {
        let log = [
            batch(0, 1),
            batch(10, 2),
            batch(20, 1),
            marker(30, 1, ABORTS),
            batch(31, 2),
            marker(41, 2, COMMITS),
            batch(42, 1),
            marker(52, 1, COMMITS),
        ];
        assert_eq!(shown(&[(1, 0)], &log), [19, 40, 51], "of two that write at once");
        assert_eq!(shown(&[], &log), [9, 19, 29, 40, 51], "nothing is listed: markers alone");
        // It begins where the response does, or in a batch that does.
        assert_eq!(shown(&[(2, 12)], &log[1..]), [29, 51]);
        assert_eq!(shown(&[(2, 5)], &log[1..]), [29, 51]);
    }

    #[test]
    fn one_producer_aborts_and_commits_and_aborts() {
        let log = [
            batch(0, 1),
            marker(10, 1, ABORTS),
            batch(11, 1),
            marker(21, 1, COMMITS),
            batch(22, 1),
            marker(32, 1, ABORTS),
            batch(33, 1),
        ];
        // In whatever order they are listed; the last one is still open, or committed later.
        for listed in [[(1, 0), (1, 22)], [(1, 22), (1, 0)]] {
            assert_eq!(shown(&listed, &log), [20, 42]);
        }
        assert_eq!(shown(&[(1, 22)], &log[2..]), [20, 42]);
        // Twice the same.
        assert_eq!(shown(&[(1, 0), (1, 0)], &log[..4]), [20]);
    }

    #[test]
    fn only_an_abort_ends_it() {
        let keys: &[&[u8]] = &[
            COMMITS,
            &[0, 0, 0, 2],
            &[0, 0, 1, 0],
            &[0, 0, 0x7f, 0xff],
            &[0, 0, 0xff, 0xff],
            &[0xff, 0xff, 0, 0],
            &[0, 0, 0],
            &[],
        ];
        for key in keys {
            let log = [batch(0, 1), marker(10, 1, key), batch(11, 1)];
            assert!(shown(&[(1, 0)], &log).is_empty(), "{key:?}");
        }
        // Any version has it at this place, and more behind it.
        for key in [ABORTS, &[0, 1, 0, 0], &[0x7f, 0xff, 0, 0, 9, 9]] {
            let log = [batch(0, 1), marker(10, 1, key), batch(11, 1)];
            assert_eq!(shown(&[(1, 0)], &log), [20], "{key:?}");
        }
        // That of another producer, or of a transaction that is not listed, ends nothing.
        let log = [batch(0, 1), marker(10, 2, ABORTS), batch(11, 1), batch(21, 2)];
        assert_eq!(shown(&[(1, 0)], &log), [30]);
    }

    #[test]
    fn what_is_in_no_transaction_is_shown() {
        let plain = Seen { transactional: false, ..batch(10, 1) };
        let log = [batch(0, 1), plain, Seen { producer_id: -1, ..plain }, batch(20, 1)];
        assert_eq!(shown(&[(1, 0)], &log), [19, 19]);
    }

    /// What is listed far ahead, or makes no sense, does nothing before its time.
    #[test]
    fn it_begins_where_it_is_said_to() {
        assert_eq!(shown(&[(1, 10)], &[batch(0, 1), batch(10, 1)]), [9]);
        assert!(shown(&[(1, 9)], &[batch(0, 1)]).is_empty());
        assert_eq!(shown(&[(1, i64::MAX), (1, i64::MIN)], &[batch(0, 2), batch(10, 1)]), [9]);
    }

    proptest! {
        /// Transactions of some producers at once, read from anywhere in pieces of any size: what is handed out is what was
        /// committed, whatever the broker lists twice in two responses.
        #[test]
        fn what_is_shown_is_what_was_committed(
            steps in prop::collection::vec((0i64..4, 0u8..6), 1..80),
            piece in 1usize..30,
        ) {
            // Each producer's open transaction: where it begins, and its batches.
            let mut open = vec![None::<(i64, Vec<usize>)>; 4];
            let (mut log, mut committed, mut listed): (Vec<Seen<'_>>, Vec<bool>, _) =
                (Vec::new(), Vec::new(), Vec::new());
            for (producer, what) in steps {
                let at = log.last().map_or(0, |batch| batch.last_offset + 1);
                let transaction = open[producer as usize].take();
                match (what, transaction) {
                    (0, Some((_, batches))) => {
                        batches.iter().for_each(|at| committed[*at] = true);
                        log.push(marker(at, producer, COMMITS));
                        committed.push(false);
                    }
                    (1, Some((first, _))) => {
                        listed.push((producer, first, at));
                        log.push(marker(at, producer, ABORTS));
                        committed.push(false);
                    }
                    (2, transaction) => {
                        open[producer as usize] = transaction;
                        log.push(Seen { transactional: false, ..batch(at, producer) });
                        committed.push(true);
                    }
                    (_, transaction) => {
                        let (first, mut batches) = transaction.unwrap_or((at, Vec::new()));
                        batches.push(log.len());
                        open[producer as usize] = Some((first, batches));
                        log.push(batch(at, producer));
                        committed.push(false);
                    }
                }
            }
            // Up to where a transaction is still open.
            let stable = open.iter().flatten().map(|(first, _)| *first).min().unwrap_or(i64::MAX);
            let end = log.iter().position(|batch| batch.last_offset >= stable).unwrap_or(log.len());
            for (n, batches) in log[..end].chunks(piece).enumerate() {
                let last = batches[batches.len() - 1].last_offset;
                let from = n * piece;
                let first = if from == 0 { 0 } else { log[from - 1].last_offset + 1 };
                let overlap = listed.iter().filter(|(_, begins, ends)| *begins <= last && *ends >= first);
                let mut aborted = Aborted::new(overlap.map(|(producer, begins, _)| (*producer, *begins)));
                for (batch, committed) in batches.iter().zip(&committed[from..]) {
                    prop_assert_eq!(aborted.shows(batch), *committed, "{:?}", batch);
                }
            }
        }
    }
}
