//! What the application wants of the records that it was handed. Who walks a batch record by record still holds some of
//! it when a seek leaves the partition, or a pause halts it: the batch tells, without a lock, since it is asked before
//! each record. An incarnation does not say it: that changes also when a topic is made anew, whose last records are
//! wanted all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::marks::Marks;

const PAUSED: u32 = 1;
const LEFT: u32 = 2;

/// Whether what is not worked on yet of a [`Batch`](super::Batch) is still wanted. For those who take a batch apart and
/// hand its records on one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It is wanted.
    Current,
    /// Its partition is paused: wanted once it is resumed, at the place where it was.
    Paused,
    /// The application went elsewhere since (a seek, an assignment anew, the end of one): not wanted any more.
    Left,
}

/// What is wanted of one partition, from its assignment or a seek on until the next.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    wanted: AtomicU32,
    /// What is done of it, for a group.
    marks: Option<Marks>,
}

impl Claim {
    pub(crate) fn new(paused: bool) -> Arc<Self> {
        Self::marked(paused, None)
    }

    pub(crate) fn marked(paused: bool, marks: Option<Marks>) -> Arc<Self> {
        Arc::new(Self { wanted: AtomicU32::new(if paused { PAUSED } else { 0 }), marks })
    }

    pub(crate) fn marks(&self) -> Option<&Marks> {
        self.marks.as_ref()
    }

    pub(crate) fn pause(&self, pause: bool) {
        if pause {
            self.wanted.fetch_or(PAUSED, Ordering::AcqRel);
        } else {
            self.wanted.fetch_and(!PAUSED, Ordering::AcqRel);
        }
    }

    pub(crate) fn leave(&self) {
        self.wanted.fetch_or(LEFT, Ordering::AcqRel);
        if let Some(marks) = &self.marks {
            marks.leave();
        }
    }

    /// What [`Self::standing`] is read from, for hosts that may not call for each record.
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.wanted
    }

    #[inline]
    pub(crate) fn standing(&self) -> Standing {
        match self.wanted.load(Ordering::Acquire) {
            0 => Standing::Current,
            PAUSED => Standing::Paused,
            _ => Standing::Left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_stays_left() {
        let claim = Claim::new(false);
        assert_eq!(claim.standing(), Standing::Current);
        claim.pause(true);
        assert_eq!(claim.standing(), Standing::Paused);
        claim.pause(false);
        assert_eq!(claim.standing(), Standing::Current);
        claim.leave();
        for pause in [true, false] {
            claim.pause(pause);
            assert_eq!(claim.standing(), Standing::Left);
        }
        assert_eq!(Claim::new(true).standing(), Standing::Paused);
    }
}
