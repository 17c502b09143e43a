//! What is committed for a group: a [`ledger`] per partition says how far it may be, the [`committer`] sends it, and
//! [`offsets`] asks for what was committed before. No I/O: somebody executes what they want, as for members
//! (`group::events`).

pub(crate) mod committer;
pub(crate) mod ledger;
pub(crate) mod offsets;

/// Where reading goes on, with the epoch of the leader that wrote what lies before it (-1: not known).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) offset: i64,
    pub(crate) epoch: i32,
}
