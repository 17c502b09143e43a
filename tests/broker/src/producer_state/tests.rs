//! Each test is a table: what a producer sends to one partition, and what becomes of it.

use super::*;

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    At(i64),
    DuplicateOf(i64),
    Refused(i16),
}
use Then::{At, DuplicateOf, Refused};

const OUT_OF_ORDER: i16 = code::OUT_OF_ORDER_SEQUENCE_NUMBER;

struct Table {
    states: ProducerStates,
    end: i64,
}

impl Table {
    fn new() -> Self {
        Self { states: ProducerStates::default(), end: 0 }
    }

    /// Sends `records` records of a producer and epoch from a sequence on.
    fn send(&mut self, (id, epoch): (i64, i16), sequence: i32, records: i32) -> Then {
        let batch = BatchHeader {
            base_offset: 0,
            length: 0,
            leader_epoch: 0,
            crc: 0,
            attributes: 0,
            last_offset_delta: records - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: id,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: records,
        };
        match self.states.judge(&batch) {
            Ok(Verdict::Append) => {
                let at = self.end;
                self.end += i64::from(records);
                self.states.appended(&batch, at);
                At(at)
            }
            Ok(Verdict::Duplicate { base_offset, last_offset }) => {
                assert_eq!(last_offset - base_offset, i64::from(records) - 1);
                DuplicateOf(base_offset)
            }
            Err(refusal) => Refused(refusal.code),
        }
    }
}

const P: (i64, i16) = (7, 0);

#[test]
fn sequences_continue_where_the_last_batch_ended() {
    let mut table = Table::new();
    assert_eq!(table.send(P, 0, 10), At(0));
    assert_eq!(table.send(P, 10, 1), At(10));
    assert_eq!(table.send(P, 11, 5), At(11));
    assert_eq!(table.send(P, 17, 1), Refused(OUT_OF_ORDER), "a gap");
    assert_eq!(table.send(P, 15, 2), Refused(OUT_OF_ORDER), "an overlap");
    assert_eq!(table.send(P, 16, 1), At(16), "a refusal changes nothing");
}

#[test]
fn five_batches_are_remembered() {
    let mut table = Table::new();
    for batch in 0..6 {
        assert_eq!(table.send(P, batch * 10, 10), At(i64::from(batch) * 10));
    }
    for batch in 1..6 {
        assert_eq!(table.send(P, batch * 10, 10), DuplicateOf(i64::from(batch) * 10));
    }
    assert_eq!(table.send(P, 0, 10), Refused(OUT_OF_ORDER), "the sixth to last is forgotten");
    assert_eq!(table.send(P, 60, 10), At(60), "duplicates push nothing out");
}

#[test]
fn only_a_batch_equal_in_both_sequences_is_a_duplicate() {
    let mut table = Table::new();
    assert_eq!(table.send(P, 0, 10), At(0));
    assert_eq!(table.send(P, 10, 10), At(10));
    assert_eq!(table.send(P, 0, 9), Refused(OUT_OF_ORDER));
    assert_eq!(table.send(P, 0, 20), Refused(OUT_OF_ORDER));
    assert_eq!(table.send(P, 10, 10), DuplicateOf(10));
}

#[test]
fn a_new_epoch_starts_at_zero_and_ends_the_old_one() {
    let mut table = Table::new();
    assert_eq!(table.send(P, 0, 3), At(0));
    assert_eq!(table.send((7, 1), 3, 1), Refused(OUT_OF_ORDER), "a new epoch in the middle");
    assert_eq!(table.send(P, 3, 1), At(3), "which leaves the old one in force");
    assert_eq!(
        table.send((7, 1), 0, 3),
        At(4),
        "equal sequences of another epoch are no duplicate"
    );
    assert_eq!(table.send(P, 4, 1), Refused(code::INVALID_PRODUCER_EPOCH));
    assert_eq!(table.send(P, 0, 3), Refused(code::INVALID_PRODUCER_EPOCH), "nor a duplicate");
    assert_eq!(table.send((7, 1), 0, 3), DuplicateOf(4));
    assert_eq!(table.send((7, 3), 0, 1), At(7), "epochs may be skipped");
}

#[test]
fn a_partition_without_state_accepts_any_first_sequence() {
    let mut table = Table::new();
    assert_eq!(table.send((7, 5), 123, 2), At(0));
    assert_eq!(table.send((7, 5), 125, 1), At(2));
    table.states.forget();
    assert_eq!(table.send((7, 5), 9, 1), At(3), "also after its state expired");
    assert_eq!(table.send((7, 5), 125, 1), Refused(OUT_OF_ORDER));
}

#[test]
fn sequences_start_over_after_the_largest() {
    let mut table = Table::new();
    assert_eq!(table.send(P, i32::MAX - 1, 2), At(0));
    assert_eq!(table.send(P, 0, 1), At(2));
    assert_eq!(table.send(P, i32::MAX - 1, 2), DuplicateOf(0));
    let mut table = Table::new();
    assert_eq!(table.send(P, i32::MAX, 3), At(0), "a batch across the end");
    assert_eq!(table.send(P, 2, 1), At(3));
    assert_eq!(table.send(P, i32::MAX, 3), DuplicateOf(0));
}

#[test]
fn producers_do_not_disturb_each_other() {
    let mut table = Table::new();
    assert_eq!(table.send((1, 0), 0, 5), At(0));
    assert_eq!(table.send((2, 9), 0, 5), At(5));
    assert_eq!(table.send((1, 0), 5, 1), At(10));
    assert_eq!(table.send((2, 9), 5, 1), At(11));
    assert_eq!(table.send((1, 0), 0, 5), DuplicateOf(0));
}

#[test]
fn without_a_producer_id_nothing_is_judged() {
    let mut table = Table::new();
    for offset in 0..3 {
        assert_eq!(table.send((-1, -1), -1, 1), At(offset));
    }
}

#[test]
fn the_number_of_producers_is_bounded() {
    let mut table = Table::new();
    for id in 0..=MAX_PRODUCERS as i64 {
        assert_eq!(table.send((id, 0), 0, 1), At(id));
        assert!(table.states.producers.len() <= MAX_PRODUCERS);
    }
}
