//! Where reading of a partition starts.

use crate::error::{Error, Result};

/// Where reading of a partition starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The oldest record the partition holds.
    Earliest,
    /// Records written from now on: once the partition's leader was asked for its end, soon after the
    /// consumer is made.
    Latest,
    /// This offset, 0 or more. Outside of what the partition holds, or where its log is not the one that
    /// was read any more, reading it stops with an error until a seek.
    Offset(i64),
    /// The first record at or after this time, milliseconds since 1970 (UTC), 0 or more; the end if there
    /// is none.
    Timestamp(i64),
}

impl Start {
    /// Refuses offsets and times below zero: in the protocol they mean something else ("the end", "the beginning"), and
    /// never what the caller meant.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Offset(at) if at < 0 => {
                Err(Error::argument(format!("start offset is {at}; it is 0 or more")))
            }
            Self::Timestamp(ms) => check_time(ms),
            _ => Ok(()),
        }
    }
}

/// Refuses a time before 1970, which in the protocol means something else.
pub(crate) fn check_time(ms: i64) -> Result<()> {
    if ms >= 0 {
        return Ok(());
    }
    Err(Error::argument(format!(
        "{ms} ms as a time to start at is before 1970; start at the earliest record instead"
    )))
}

/// Which records of transactions are read (KIP-98). In the protocol and everywhere else this is the isolation level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// All that was written, also in transactions that were aborted or are still open. As Kafka's own
    /// consumer does by default, and franz-go's; librdkafka's reads what is committed.
    #[default]
    ReadUncommitted,
    /// Nothing of transactions that were aborted, and nothing beyond the first one that is still open: the end of a
    /// partition is there (its last stable offset), for [`lag`](crate::Consumer::lag) and `Start::Latest`, too.
    ReadCommitted,
}

impl Isolation {
    /// Its number in requests.
    pub(crate) fn level(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}
