//! Where a reader stands in a log. An offset alone does not say it: after an unclean election the same offset
//! may be another record. So the epoch of the leader that wrote what lies before it belongs to a position
//! (KIP-320), and brokers compare it with their log in every fetch (KIP-595). In this file, *epoch* is the
//! leader epoch.

/// Where a reader stands: an offset, and the leader epoch of what it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The next offset to read.
    pub(super) offset: i64,
    /// The epoch of what lies before it: of the last batch passed, or as told with the offset when
    /// that was looked up. -1: not known.
    pub(super) epoch: i32,
    /// All that was read from this offset on is of this epoch.
    since: i64,
}

impl Position {
    /// A position that was looked up, or chosen by the application (`epoch` -1).
    pub(super) fn at(offset: i64, epoch: i32) -> Self {
        Self { offset, epoch, since: offset }
    }

    /// A batch was read, whether it is handed out or not: the position moves behind it.
    pub(super) fn pass(&mut self, first: i64, last: i64, epoch: i32) {
        if epoch != self.epoch {
            self.since = first.max(self.offset);
            self.epoch = epoch;
        }
        self.offset = last + 1;
    }

    /// The leader's log differs from what was read. `known`: the largest leader epoch, not above this
    /// position's, that the leader's log has; `end`: where that epoch ends in it. Gives the position to go on
    /// from. If its offset is this position's, nothing that was read is missing.
    ///
    /// Leaders that wrote nothing leave no trace in a log, so that an epoch which was looked up may be
    /// unknown there although all is well: then its end is no lower than the position.
    pub(super) fn parted(&self, known: i32, end: i64) -> Self {
        // The log has nothing of the position's epoch, so it lacks what was read under it.
        let reach = if known < self.epoch { self.since } else { self.offset };
        Self::at(end.min(reach).max(0), known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(batches: &[(i64, i64, i32)]) -> Position {
        let mut position = Position::at(0, -1);
        for (first, last, epoch) in batches {
            position.pass(*first, *last, *epoch);
        }
        position
    }

    #[test]
    fn where_a_log_parts_from_what_was_read() {
        // Epoch 3 wrote 0 to 49, epoch 5 the rest.
        let read = passed(&[(0, 49, 3), (50, 79, 5), (80, 99, 5)]);
        assert_eq!((read.offset, read.epoch), (100, 5));
        for (known, end, goes_on) in [
            // The leader has some of epoch 5.
            (5, 90, 90),
            // It has none, but all that came before.
            (3, 50, 50),
            (4, 60, 50),
            // It lacks some of that too.
            (3, 30, 30),
            (2, 0, 0),
            // Another log that is even longer.
            (4, 200, 50),
            (3, -1, 0),
        ] {
            let parted = read.parted(known, end);
            assert_eq!((parted.offset, parted.epoch), (goes_on, known), "{known} ends at {end}");
        }
    }

    #[test]
    fn what_was_looked_up_is_missing_only_where_the_log_is_shorter() {
        let found = Position::at(100, 5);
        // Epoch 5 wrote nothing, as this leader sees it.
        assert_eq!(found.parted(4, 100), Position::at(100, 4));
        assert_eq!(found.parted(4, 120), Position::at(100, 4));
        assert_eq!(found.parted(4, 90), Position::at(90, 4));
        assert_eq!(found.parted(5, 90), Position::at(90, 5));
        // What is passed next makes the epoch its own.
        let mut read = found;
        read.pass(100, 109, 5);
        assert_eq!(read.parted(4, 200).offset, 100);
        read.pass(110, 119, 6);
        assert_eq!(read.parted(5, 200).offset, 110);
    }

    #[test]
    fn a_batch_that_begins_before_the_position() {
        let mut position = Position::at(55, -1);
        position.pass(50, 59, 2);
        assert_eq!(position.parted(1, 200).offset, 55);
    }
}
