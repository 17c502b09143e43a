//! What brokers say against a topic, and when they are believed. Brokers learn of topics and rights
//! one by one, a broker may be cut off, and one may simply be broken: what one of them says alone
//! condemns nothing that others know better.
//!
//! - A topic is missing if two brokers do not know it, at least a second apart; where only one can be
//!   asked, if it does not know it for three seconds.
//! - Who asks for a topic that nobody has told it anything of is refused at once by a broker that knows
//!   the topic's rules: a name that is none, a right that is missing. What is in use already is
//!   refused by two brokers, or twice with a second in between.
//! - A topic that another one of its name had come after is back only if nobody has told of the other
//!   one for a while, in which two brokers, or the only one, told of this.
//! - A topic that was found missing is back if two brokers, or the only one, tell of it, or one does for a
//!   while in which nobody says otherwise: one that is cut off goes on telling of it.
//! - A broker that names no brokers has just started, and knows nothing of the cluster yet: nothing
//!   that it says counts. Neither does a response that says that the broker itself is in trouble.

use tokio::time::Instant;

use crate::config::{
    FORMER_TOPIC_SPACING, OBJECTION_FORGOTTEN, UNKNOWN_TOPIC_SPACING,
    UNKNOWN_TOPIC_SPACING_ONE_BROKER,
};

/// What a broker says against a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It does not know the topic.
    Missing,
    /// It may not be used: a right is missing, or the name is not a topic name.
    Refused,
    /// Another error that is not known to pass.
    Odd,
    /// It names the id of an earlier topic of this name.
    Former,
    /// It tells of one that others had found missing, and that nothing has come after.
    Back,
}

/// The broker that says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Witness {
    /// Negative for a bootstrap address, which may be any of the brokers.
    pub(crate) broker: i32,
    /// The cluster has more than one broker.
    pub(crate) several: bool,
    /// The topic was known before.
    pub(crate) known: bool,
}

/// An error that brokers gave for a topic and that is not believed yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Objection {
    word: Word,
    broker: i32,
    first: Instant,
    last: Instant,
}

impl Objection {
    /// One more response says this. Gives whether it is believed now; then the objection is cleared, so that the next one
    /// begins anew.
    pub(crate) fn hear(
        before: &mut Option<Self>,
        word: Word,
        witness: Witness,
        now: Instant,
    ) -> bool {
        let same = |o: &Self| {
            o.word == word && now.saturating_duration_since(o.last) < OBJECTION_FORGOTTEN
        };
        let told_before = before.filter(same);
        let mut objection =
            told_before.unwrap_or(Self { word, broker: witness.broker, first: now, last: now });
        objection.last = now;
        let age = now.saturating_duration_since(objection.first);
        let another = witness.several
            && objection.broker.min(witness.broker) >= 0
            && objection.broker != witness.broker;
        let believed = match word {
            Word::Missing => {
                (another && age >= UNKNOWN_TOPIC_SPACING) || age >= UNKNOWN_TOPIC_SPACING_ONE_BROKER
            }
            Word::Former => (another || !witness.several) && age >= FORMER_TOPIC_SPACING,
            Word::Back => another || !witness.several || age >= FORMER_TOPIC_SPACING,
            Word::Refused if !witness.known || !witness.several => true,
            Word::Refused | Word::Odd => another || age >= UNKNOWN_TOPIC_SPACING,
        };
        *before = (!believed).then_some(objection);
        believed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Answers as (milliseconds, broker); whether each is believed.
    fn run(word: Word, several: bool, known: bool, responses: &[(u64, i32)]) -> Vec<bool> {
        let start = Instant::now();
        let mut objection = None;
        let hear = |&(ms, broker): &(u64, i32)| {
            let witness = Witness { broker, several, known };
            Objection::hear(&mut objection, word, witness, start + Duration::from_millis(ms))
        };
        responses.iter().map(hear).collect()
    }

    #[test]
    fn a_topic_is_missing_by_two_brokers_a_second_apart() {
        use Word::Missing;
        type Case = (bool, &'static [(u64, i32)], &'static [bool]);
        let table: [Case; 8] = [
            (true, &[(0, 1), (500, 2), (1_000, 2)], &[false, false, true]),
            (true, &[(0, 1), (1_000, 1), (2_999, 1), (3_000, 1)], &[false, false, false, true]),
            // A bootstrap address may be the broker that was asked before.
            (true, &[(0, 1), (1_000, -1), (3_000, -1)], &[false, false, true]),
            (true, &[(0, -1), (1_000, 1), (3_000, 1)], &[false, false, true]),
            (false, &[(0, 1), (1_000, 2), (3_000, 1)], &[false, false, true]),
            // What was believed is not believed at once the next time.
            (true, &[(0, 1), (1_000, 2), (1_001, 1), (2_001, 2)], &[false, true, false, true]),
            // Nor does the word of another hour count.
            (true, &[(0, 1), (60_000, 2), (61_000, 1)], &[false, false, true]),
            (false, &[(0, 1), (60_000, 1), (63_000, 1)], &[false, false, true]),
        ];
        for (i, (several, responses, believed)) in table.into_iter().enumerate() {
            for known in [false, true] {
                assert_eq!(run(Missing, several, known, responses), believed, "line {i}");
            }
        }
    }

    #[test]
    fn what_is_in_use_is_refused_by_two_and_the_unknown_at_once() {
        use Word::{Odd, Refused};
        assert_eq!(run(Refused, true, false, &[(0, 1)]), [true]);
        assert_eq!(run(Refused, false, true, &[(0, 1)]), [true]);
        assert_eq!(run(Refused, true, true, &[(0, 1), (300, 1), (300, 2)]), [false, false, true]);
        assert_eq!(run(Refused, true, true, &[(0, 1), (1_000, 1)]), [false, true]);
        assert_eq!(run(Odd, true, false, &[(0, 1), (10, 2)]), [false, true]);
        assert_eq!(run(Odd, false, false, &[(0, 1), (10, 1), (1_000, 1)]), [false, false, true]);
    }

    #[test]
    fn a_topic_that_was_is_back_if_nobody_says_otherwise() {
        use Word::Former;
        let alone = [(0, 1), (19_999, 1), (40_000, 1), (60_000, -1), (80_000, 1)];
        assert_eq!(run(Former, true, true, &alone), [false; 5]);
        assert_eq!(
            run(Former, true, true, &[(0, 1), (19_999, 2), (20_000, 2)]),
            [false, false, true]
        );
        assert_eq!(
            run(Former, true, true, &[(0, 1), (40_000, 2), (60_000, 1)]),
            [false, false, true]
        );
        assert_eq!(
            run(Former, false, true, &[(0, 1), (10_000, 1), (20_000, 1)]),
            [false, false, true]
        );
    }

    #[test]
    fn a_topic_that_was_missing_is_back_by_two_or_if_nobody_says_otherwise() {
        use Word::Back;
        assert_eq!(run(Back, true, false, &[(0, 1), (10, 1), (20, 2)]), [false, false, true]);
        assert_eq!(
            run(Back, true, false, &[(0, 1), (19_999, 1), (20_000, 1)]),
            [false, false, true]
        );
        assert_eq!(run(Back, false, false, &[(0, 1)]), [true]);
    }

    #[test]
    fn one_word_is_not_another() {
        let now = Instant::now();
        let witness = |broker| Witness { broker, several: true, known: true };
        let mut objection = None;
        assert!(!Objection::hear(&mut objection, Word::Refused, witness(1), now));
        assert!(!Objection::hear(&mut objection, Word::Odd, witness(2), now));
        assert!(!Objection::hear(&mut objection, Word::Refused, witness(2), now));
        assert!(Objection::hear(&mut objection, Word::Refused, witness(1), now));
    }
}
