//! What the members of a group said and what was done to them, in the order of their clocks, which is one clock: all run
//! on one machine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::events::{Event, now_ms};

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Milliseconds since 1970.
    pub at: u64,
    /// To whom.
    pub member: Arc<str>,
    /// What.
    pub what: What,
}

/// What happened to a member.
#[derive(Clone, Debug)]
pub enum What {
    /// It said so.
    Said(Event),
    /// SIGKILL.
    Killed,
    /// SIGSTOP, for longer than a session lasts.
    Frozen,
    /// SIGCONT.
    Thawed,
}

/// All of it. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Vec<Entry>>>);

impl History {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a member printed.
    pub fn said(&self, member: &Arc<str>, at: u64, event: Event) {
        self.push(member, at, What::Said(event));
    }

    /// What was done to a member, now.
    pub fn done_to(&self, member: &Arc<str>, what: What) {
        self.push(member, now_ms(), what);
    }

    /// Adds an entry.
    pub fn push(&self, member: &Arc<str>, at: u64, what: What) {
        self.lock().push(Entry { at, member: Arc::clone(member), what });
    }

    /// All entries, sorted by their times; of one time in the order in which somebody who gives something up comes before
    /// who gets it.
    pub fn sorted(&self) -> Vec<Entry> {
        let mut all = self.lock().clone();
        let gets =
            |entry: &Entry| matches!(entry.what, What::Said(Event::PartitionsAssigned { .. }));
        all.sort_by_key(|entry| (entry.at, gets(entry)));
        all
    }

    /// Reads those that have come so far.
    pub fn with<T>(&self, read: impl FnOnce(&[Entry]) -> T) -> T {
        read(&self.lock())
    }
}
