//! The number under which a consumer keeps a partition: an index of its tables, which is given again
//! once nobody has it. So whoever comes back with one (a response, a command) also names the
//! *incarnation* that it is about, a number that is never given again: a partition has a new one after
//! each seek, each assignment, and whenever its topic is another one.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SlotId(pub(crate) u32);

impl SlotId {
    /// Its place in a table.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
