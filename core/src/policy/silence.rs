//! Requests of one kind that a broker leaves without a response, although a connection to it is there:
//! from the first of them to the next response is a spell. It is told once it is overdue: a request was
//! unanswered for [`patience`] beyond the time that the broker was given for it, or until its deadline;
//! or it has been so for as long that connections end on it.
//!
//! A broker that never gave a response has something to be put right. One that did is waited for, as any
//! outage is, and only logged, until a second request shows that it is there, and still does not answer.

use std::time::Duration;

use tokio::time::Instant;

/// Trouble that passes by itself is usually over after so long.
const TOLD_AFTER: Duration = Duration::from_secs(10);

/// How long a request may be unanswered if the broker may hold its response back for `held`.
pub(crate) fn patience(held: Duration) -> Duration {
    held + TOLD_AFTER
}

/// What the caller has to do about a request without a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Says {
    /// Log it.
    pub(crate) log: bool,
    /// Tell the application.
    pub(crate) tell: bool,
}

/// The requests of one kind that one broker leaves unanswered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silence {
    /// There were responses before.
    answered: bool,
    /// When the first request of the spell was sent.
    since: Option<Instant>,
    /// The last request without a response, by when it was sent, and how many there were.
    last: Option<Instant>,
    requests: u32,
    said: Says,
}

impl Silence {
    /// The request sent then has no response. `overdue`: it was waited for long enough, not lost with its
    /// connection.
    pub(crate) fn unanswered(&mut self, sent: Instant, overdue: bool, now: Instant) -> Says {
        let since = *self.since.get_or_insert(sent);
        if self.last.replace(sent) != Some(sent) {
            self.requests = self.requests.saturating_add(1);
        }
        let due = overdue || now.saturating_duration_since(since) >= TOLD_AFTER;
        let tell = due && (!self.answered || self.requests > 1);
        Says {
            log: due && !std::mem::replace(&mut self.said.log, true),
            tell: tell && !std::mem::replace(&mut self.said.tell, true),
        }
    }

    /// The application was told of this trouble by another error.
    pub(crate) fn told_otherwise(&mut self) {
        self.said.tell = true;
    }

    /// There is a response, also if it carries an error: the spell is over.
    pub(crate) fn answered(&mut self) {
        *self = Self { answered: true, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Says = Says { log: true, tell: true };
    const LOG: Says = Says { log: true, tell: false };
    const TELL: Says = Says { log: false, tell: true };
    const NOTHING: Says = Says { log: false, tell: false };

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn who_never_answered_is_told_of_at_once_and_once() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        assert_eq!(silence.unanswered(start, true, start + secs(10)), BOTH);
        for n in 1..10 {
            let sent = start + secs(30 * n);
            assert_eq!(silence.unanswered(sent, true, sent + secs(10)), NOTHING);
            assert_eq!(silence.unanswered(sent, true, sent + secs(30)), NOTHING);
        }
    }

    #[test]
    fn who_answered_before_is_told_of_at_the_second_request() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        for spell in 0..3 {
            silence.answered();
            let sent = start + secs(1000 * spell);
            assert_eq!(silence.unanswered(sent, true, sent + secs(10)), LOG);
            assert_eq!(
                silence.unanswered(sent, true, sent + secs(30)),
                NOTHING,
                "the same request"
            );
            let again = sent + secs(31);
            assert_eq!(silence.unanswered(again, true, again + secs(10)), TELL);
            assert_eq!(silence.unanswered(again, true, again + secs(30)), NOTHING);
        }
    }

    #[test]
    fn what_was_told_in_other_words_is_not_told_again() {
        let (start, mut silence) = (Instant::now(), Silence::default());
        silence.told_otherwise();
        assert_eq!(silence.unanswered(start, true, start + secs(10)), LOG);
        silence.answered();
        assert_eq!(silence.unanswered(start, true, start + secs(50)), LOG);
        assert_eq!(silence.unanswered(start + secs(51), true, start + secs(61)), TELL);
    }

    #[test]
    fn lost_connections_are_told_of_once_they_have_lasted() {
        for answered in [false, true] {
            let (start, mut silence) = (Instant::now(), Silence::default());
            if answered {
                silence.answered();
            }
            let said: Vec<u64> = (0..100)
                .filter(|n| {
                    let sent = start + secs(*n);
                    silence.unanswered(sent, false, sent) == BOTH
                })
                .collect();
            assert_eq!(said, [10]);
            silence.answered();
            // One that is long behind the others is no spell.
            assert_eq!(silence.unanswered(start + secs(1000), false, start + secs(1001)), NOTHING);
        }
    }
}
