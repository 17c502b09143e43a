//! What a partition is called inside one consumer.

/// The number of a partition that a consumer reads: small, so that queues and sessions are found without comparing
/// names. A number is given again once its partition is no longer read. So whatever comes back later also carries
/// the *incarnation* that it was asked for: a number of the consumer's that no two assignments, seeks or topics of one
/// name share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId(pub(crate) u32);
