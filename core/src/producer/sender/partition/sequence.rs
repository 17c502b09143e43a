//! The sequence numbers of one partition's batches, under a producer id and an epoch. A broker takes a batch
//! only if its sequence follows the last one of the same id and epoch, and the first of a new epoch only
//! at 0. So a sequence whose batch is in no log is given again, and a gap that cannot be filled ends with the
//! epoch.

use crate::producer::sender::producer_id::ProducerStamp;
use crate::protocol::NO_PRODUCER_ID;

/// Gives out the sequences of one partition.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The position of the next batch.
    next: BatchPosition,
    epoch: i16,
    /// The producer id; `None` until something is sent, and again once its epochs are used up.
    producer_id: Option<i64>,
    /// The last producer id whose epochs were used up, until [`take_used_up`](Self::take_used_up).
    used_up: Option<i64>,
}

/// A batch's place in the sequence.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::producer) struct BatchPosition {
    /// The sequence number of its first record.
    sequence: i32,
    /// Counts batches given a sequence, over all epochs.
    place: u64,
}

impl BatchPosition {
    pub(super) fn is_before(self, other: Self) -> bool {
        self.place < other.place
    }

    /// The sequence number of the batch's last record, if it has `records` of them.
    pub(in crate::producer) fn last_sequence(self, records: usize) -> i32 {
        advance(self.sequence, records - 1)
    }

    /// Whether a log whose last sequence is this one takes the batch next.
    pub(in crate::producer) fn follows(self, last: i32) -> bool {
        advance(last, 1) == self.sequence
    }

    /// The position of the rest of a batch that is cut, after `records` of its records, which are in
    /// `batches` batches.
    pub(in crate::producer) fn behind(self, records: usize, batches: u64) -> Self {
        Self { sequence: advance(self.sequence, records), place: self.place + batches }
    }

    /// A batch before it was cut, which makes this many batches more.
    pub(super) fn moves_on(&mut self, batches: u64) {
        self.place += batches;
    }
}

impl Sequence {
    /// Gives the next position to a batch with this many records.
    pub(in crate::producer) fn give(
        &mut self,
        records: usize,
        begins: (i64, i16),
    ) -> BatchPosition {
        // A partition that has begun stays with its producer id: the broker knows its sequence by it.
        if self.producer_id.is_none() {
            self.producer_id = Some(begins.0);
            self.epoch = begins.1;
        }
        let given = self.next;
        self.next =
            BatchPosition { sequence: advance(given.sequence, records), place: given.place + 1 };
        given
    }

    /// The batch at this position and all behind it are in no log: their sequences are given again.
    pub(super) fn rewind(&mut self, to: BatchPosition) {
        self.next = to;
    }

    /// A batch was cut, which makes `batches` more; they share its sequences.
    pub(super) fn became_more(&mut self, batches: u64) {
        self.next.moves_on(batches);
    }

    /// The producer id that the partition is written under; `None`: nothing was sent.
    pub(in crate::producer) fn producer_id(&self) -> Option<i64> {
        self.producer_id
    }

    pub(in crate::producer) fn epoch(&self) -> i16 {
        self.epoch
    }

    /// The number of positions given since `oldest`, itself included.
    pub(super) fn given_since(&self, oldest: BatchPosition) -> u64 {
        self.next.place - oldest.place
    }

    /// What the header of the batch at this position says.
    pub(in crate::producer::sender) fn stamp(&self, position: BatchPosition) -> ProducerStamp {
        let producer_id = self.producer_id.unwrap_or(NO_PRODUCER_ID);
        ProducerStamp { producer_id, epoch: self.epoch, sequence: position.sequence }
    }

    /// Goes on at sequence 0 under the next epoch.
    pub(super) fn begin_epoch(&mut self) {
        self.next.sequence = 0;
        match self.epoch.checked_add(1) {
            Some(next) => self.epoch = next,
            // There is no next epoch: it goes on under another producer id.
            None => {
                self.epoch = 0;
                self.used_up = self.producer_id.take();
            }
        }
    }

    /// The producer id that was used up since the last call.
    pub(in crate::producer::sender) fn take_used_up(&mut self) -> Option<i64> {
        self.used_up.take()
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, epoch: i16) {
        self.epoch = epoch;
    }
}

/// Sequences wrap from 2^31 - 1 to 0 (`DefaultRecordBatch.incrementSequence`).
fn advance(sequence: i32, records: usize) -> i32 {
    ((i64::from(sequence) + records as i64) % (i64::from(i32::MAX) + 1)) as i32
}

/// Whether a log whose last sequence is `last` has gone beyond `sequence`: they wrap, and no log is ever
/// half of all sequences behind.
pub(super) fn is_beyond(last: i32, sequence: i32) -> bool {
    let ahead = (i64::from(last) - i64::from(sequence)).rem_euclid(i64::from(i32::MAX) + 1);
    ahead > 0 && ahead < i64::from(i32::MAX) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: i64 = 7;

    #[test]
    fn sequences_wrap_as_the_brokers_do() {
        assert_eq!(advance(0, 5), 5);
        assert_eq!(advance(i32::MAX, 1), 0);
        assert_eq!(advance(i32::MAX - 2, 5), 2);
    }

    #[test]
    fn beyond_is_also_behind_the_end() {
        assert!(is_beyond(8, 7) && !is_beyond(7, 7) && !is_beyond(6, 7));
        assert!(is_beyond(2, i32::MAX - 3) && !is_beyond(i32::MAX - 3, 2));
        assert!(!is_beyond(-1, 0) || advance(-1, 1) == 0, "a log that has nothing yet");
    }

    #[test]
    fn what_is_rewound_is_given_again() {
        let mut sequence = Sequence::default();
        let first = sequence.give(3, (ID, 0));
        let second = sequence.give(4, (ID, 0));
        assert_eq!((sequence.stamp(second).sequence, sequence.given_since(first)), (3, 2));
        sequence.rewind(second);
        let again = sequence.give(1, (ID, 0));
        assert_eq!((sequence.stamp(again).sequence, sequence.given_since(first)), (3, 2));
        assert_eq!(sequence.stamp(sequence.next).sequence, 4);
    }

    /// The window of five counts on over a new epoch: it is of batches, not of their numbers.
    #[test]
    fn an_epoch_begins_at_0_and_counts_on() {
        let mut sequence = Sequence::default();
        let old = sequence.give(3, (ID, 0));
        sequence.begin_epoch();
        let new = sequence.give(3, (ID, 0));
        assert_eq!(sequence.stamp(new), ProducerStamp { producer_id: ID, epoch: 1, sequence: 0 });
        assert_eq!(sequence.given_since(old), 2);
    }
}
