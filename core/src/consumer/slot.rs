//! What a partition is called inside one consumer.

/// The number of a partition that a consumer reads: small, so that queues and sessions are found without comparing
/// names, and the index of the consumer's tables. A number is given again once nobody has it. So whoever comes back
/// with one (a response, a command) also names the *incarnation* that it is about, a number of the consumer's that is
/// never given again: a partition has a new one after each seek, each assignment, and whenever its topic is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId(pub(crate) u32);

impl SlotId {
    /// Its place in a table.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
