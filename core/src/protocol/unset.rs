//! What stands in a field that says nothing.

/// Nobody leads the partition, or nobody has told who does.
pub(crate) const NO_LEADER: i32 = -1;
/// The epoch of a leader that is not known.
pub(crate) const NO_EPOCH: i32 = -1;
/// Where a batch is that was appended at an offset nobody told, or not at all.
pub(crate) const NO_OFFSET: i64 = -1;
/// A producer that is not idempotent, or has no id yet.
pub(crate) const NO_PRODUCER_ID: i64 = -1;
pub(crate) const NO_PRODUCER_EPOCH: i16 = -1;
pub(crate) const NO_SEQUENCE: i32 = -1;
