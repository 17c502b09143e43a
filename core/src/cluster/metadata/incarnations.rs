//! The ids of the topics that had one name, one after the other. Brokers learn of a new topic at different times,
//! and a broker that is cut off goes on naming the old one: its word does not bring an old topic back.

use std::collections::VecDeque;

use uuid::Uuid;

/// How many former ids are remembered: no broker is behind by more topics of one name for long.
const REMEMBERED: usize = 8;

/// The topic ids that one name has had.
#[derive(Debug, Default)]
pub(super) struct Incarnations {
    /// The id that was believed last; nil before the first, and with brokers that are too old to tell ids.
    last: Uuid,
    /// The ids before it, newest last; at most [`REMEMBERED`].
    former: VecDeque<Uuid>,
    /// It was deleted, as far as is known, and nothing has come after it.
    gone: bool,
}

impl Incarnations {
    /// Whether it is the id of an earlier topic.
    pub(super) fn is_former(&self, id: Uuid) -> bool {
        self.former.contains(&id)
    }

    /// Whether this id was found missing.
    pub(super) fn is_gone(&self, id: Uuid) -> bool {
        self.gone && id == self.last && !id.is_nil()
    }

    /// The topic is gone, as far as is known.
    pub(super) fn is_missing(&mut self) {
        self.gone = true;
    }

    /// The name belongs to the topic with this id now.
    pub(super) fn is_now(&mut self, id: Uuid) {
        self.gone = false;
        if id == self.last || id.is_nil() {
            return;
        }
        self.former.retain(|former| *former != id);
        let before = std::mem::replace(&mut self.last, id);
        if before.is_nil() {
            return;
        }
        if self.former.len() == REMEMBERED {
            self.former.pop_front();
        }
        self.former.push_back(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut ids = Incarnations::default();
        for id in 0..100 {
            ids.is_now(Uuid::from_u128(id));
            // A response of a broker that is too old to tell is about none of them.
            ids.is_now(Uuid::nil());
        }
        assert_eq!(ids.former.len(), REMEMBERED);
        for id in 0..100 {
            assert_eq!(ids.is_former(Uuid::from_u128(id)), (91..99).contains(&id), "{id}");
        }
    }

    #[test]
    fn one_that_is_missing_is_gone_until_it_is_believed_again() {
        let mut ids = Incarnations::default();
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        ids.is_missing();
        assert!(!ids.is_gone(Uuid::nil()), "nobody knows which");
        ids.is_now(first);
        assert!(!ids.is_gone(first));
        ids.is_missing();
        assert!(ids.is_gone(first) && !ids.is_gone(second) && !ids.is_gone(Uuid::nil()));
        ids.is_now(first);
        assert!(!ids.is_gone(first));
    }

    #[test]
    fn one_that_is_back_is_no_former_one() {
        let mut ids = Incarnations::default();
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for id in [first, second, first, first] {
            ids.is_now(id);
        }
        assert!(!ids.is_former(first) && ids.is_former(second) && !ids.is_former(Uuid::nil()));
    }
}
