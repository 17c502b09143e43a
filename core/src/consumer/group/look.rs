//! Which topics match a member's pattern, by what one broker after the other sees. A broker may be behind: a topic that was
//! there is believed to be gone once two looks in a row have left it out.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::wish::{Pattern, Wish};
use crate::cluster::survey::Seen;

/// What earlier looks have shown.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Topics were looked at before.
    pub(super) done: bool,
    /// Who was asked last.
    by: Option<i32>,
    /// What it left out.
    missing: BTreeSet<Arc<str>>,
}

/// What a look has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What is subscribed to now, in the order of the names: coordinators take another order for another subscription.
    pub(super) topics: Vec<Arc<str>>,
    /// Younger than the subscription.
    pub(super) new: Vec<Arc<str>>,
    /// The first look, or there is more or less than before.
    pub(super) changed: bool,
    /// Something is to be looked for once more, soon, at another broker.
    pub(super) in_doubt: bool,
}

impl Look {
    /// Who is not to be asked next: who left something out, if another one can be had.
    pub(super) fn not(&self) -> Option<i32> {
        self.by.filter(|_| !self.missing.is_empty())
    }

    /// `before` was subscribed to; broker `by` has seen `seen`.
    pub(super) fn at(
        &mut self,
        wish: &Wish,
        pattern: &Pattern,
        before: &[Arc<str>],
        by: i32,
        seen: Vec<Seen>,
    ) -> Found {
        let matching =
            seen.into_iter().filter(|seen| !seen.internal && pattern.matches(&seen.name));
        let mut topics: BTreeSet<Arc<str>> = matching.map(|seen| seen.name).collect();
        topics.extend(wish.names.iter().cloned());
        let before: BTreeSet<Arc<str>> = before.iter().cloned().collect();
        let later = std::mem::replace(&mut self.done, true);
        let new = topics.difference(&before).filter(|_| later).cloned().collect();
        let left_out = before.difference(&topics).filter(|topic| pattern.matches(topic));
        let doubtful: BTreeSet<Arc<str>> =
            left_out.filter(|topic| !self.missing.contains(*topic)).cloned().collect();
        topics.extend(doubtful.iter().cloned());
        let found = Found {
            new,
            changed: !later || topics != before,
            in_doubt: !doubtful.is_empty(),
            topics: topics.into_iter().collect(),
        };
        (self.by, self.missing) = (Some(by), doubtful);
        found
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn seen(names: &[&str]) -> Vec<Seen> {
        let one = |name: &&str| Seen {
            name: Arc::from(*name),
            id: Uuid::nil(),
            internal: name.starts_with("p__"),
            racks: Vec::new(),
        };
        names.iter().map(one).collect()
    }

    fn names(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    struct Rig {
        wish: Wish,
        look: Look,
        topics: Vec<Arc<str>>,
    }

    impl Rig {
        fn new(topics: &[&str]) -> Self {
            let wish = Wish::new(topics).unwrap();
            Self { topics: wish.names.clone(), wish, look: Look::default() }
        }

        fn look(&mut self, by: i32, there: &[&str]) -> Found {
            let pattern = self.wish.pattern.clone().unwrap();
            let found = self.look.at(&self.wish, &pattern, &self.topics, by, seen(there));
            self.topics.clone_from(&found.topics);
            found
        }
    }

    #[test]
    fn names_are_in_one_order_whatever_a_broker_lists_first() {
        let mut rig = Rig::new(&["z", "a", "^p.*"]);
        let found = rig.look(1, &["p2", "q", "p1", "p__offsets"]);
        assert_eq!(found.topics, names(&["a", "p1", "p2", "z"]));
        assert!(found.changed && !found.in_doubt && found.new.is_empty(), "{found:?}");
        let again = rig.look(2, &["p1", "p__offsets", "p2", "q"]);
        assert_eq!(again.topics, found.topics);
        assert!(!again.changed && !again.in_doubt && again.new.is_empty(), "{again:?}");
    }

    #[test]
    fn the_first_look_is_told_even_if_nothing_matches() {
        let mut rig = Rig::new(&["^p.*"]);
        assert_eq!(rig.look(1, &["q"]), Found { changed: true, ..Found::default() });
        assert_eq!(rig.look(1, &["q"]), Found::default());
    }

    #[test]
    fn what_comes_to_match_is_new_but_for_the_first_look() {
        let mut rig = Rig::new(&["^p.*"]);
        assert!(rig.look(1, &["p1"]).new.is_empty());
        let found = rig.look(1, &["p1", "p2"]);
        assert_eq!((found.new, found.changed), (names(&["p2"]), true));
    }

    #[test]
    fn one_brokers_silence_takes_nothing_away_and_another_one_is_asked() {
        let mut rig = Rig::new(&["a", "^p.*"]);
        rig.look(1, &["p1", "p2"]);
        assert_eq!(rig.look.not(), None);
        let found = rig.look(1, &["p2"]);
        assert!(!found.changed && found.in_doubt, "{found:?}");
        assert_eq!(found.topics, names(&["a", "p1", "p2"]));
        assert_eq!(rig.look.not(), Some(1));
        // The other one has it: nothing was amiss, and the next silence is a first one again.
        let found = rig.look(2, &["p1", "p2"]);
        assert!(!found.changed && !found.in_doubt, "{found:?}");
        assert_eq!(rig.look.not(), None);
        assert!(!rig.look(1, &["p2"]).changed);
    }

    #[test]
    fn what_two_leave_out_is_gone_and_what_is_named_never_is() {
        let mut rig = Rig::new(&["a", "^p.*"]);
        rig.look(1, &["p1", "p2"]);
        rig.look(1, &["p2"]);
        // Another one in doubt meanwhile: each has its own two.
        let found = rig.look(2, &[]);
        assert_eq!(found.topics, names(&["a", "p2"]));
        assert!(found.changed && found.in_doubt, "{found:?}");
        let found = rig.look(3, &[]);
        assert_eq!((found.topics, found.changed), (names(&["a"]), true));
        assert!(!found.in_doubt);
        // And is new when it is back.
        assert_eq!(rig.look(1, &["p1"]).new, names(&["p1"]));
    }

    /// Those of a former subscription are not this pattern's to take away or to doubt.
    #[test]
    fn what_does_not_match_goes_at_once() {
        let mut rig = Rig::new(&["^p.*"]);
        rig.topics = names(&["other", "p1"]);
        let found = rig.look(1, &["p1", "other"]);
        assert_eq!((found.topics, found.in_doubt), (names(&["p1"]), false));
    }
}
