//! A spell of trouble: from the first failure to the next success. Whoever reads is told of it once:
//! at once what only people can mend, at the second time what looks like somebody else's port, and
//! what usually passes by itself once it has lasted for [`TOLD_AFTER`]. Trying again never ends.

use std::time::Duration;

use tokio::time::Instant;

/// After so long a trouble is told that usually passes: elections, restarts and moves of partitions are over by then.
const TOLD_AFTER: Duration = Duration::from_secs(10);

/// How sure it is that trouble does not pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// It usually passes.
    Passing,
    /// The peer may be no broker, or one that cannot be spoken with.
    Doubtful,
    /// Somebody has to put something right.
    Certain,
}

/// One spell of trouble.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spell {
    since: Option<Instant>,
    failures: u32,
    told: bool,
}

impl Spell {
    /// One more failure. Gives whether it is to be told now.
    pub(crate) fn failed(&mut self, outlook: Outlook, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        self.failures = self.failures.saturating_add(1);
        let due = match outlook {
            Outlook::Certain => true,
            Outlook::Doubtful => self.failures > 1,
            Outlook::Passing => now.saturating_duration_since(since) >= TOLD_AFTER,
        };
        due && !std::mem::replace(&mut self.told, true)
    }

    /// Success: the spell is over.
    pub(crate) fn ended(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outlook_is_told_once_in_its_time() {
        let start = Instant::now();
        // Failures every four seconds; at which of them it is told.
        for (outlook, at) in [(Outlook::Certain, 0), (Outlook::Doubtful, 1), (Outlook::Passing, 3)]
        {
            let mut spell = Spell::default();
            for _ in 0..3 {
                let told: Vec<u32> = (0..20)
                    .filter(|n| spell.failed(outlook, start + Duration::from_secs(4) * *n))
                    .collect();
                assert_eq!(told, [at], "{outlook:?}");
                spell.ended();
            }
        }
    }

    #[test]
    fn what_turns_certain_is_told_then() {
        let (now, mut spell) = (Instant::now(), Spell::default());
        assert!(!spell.failed(Outlook::Passing, now));
        assert!(spell.failed(Outlook::Certain, now));
        assert!(!spell.failed(Outlook::Certain, now + TOLD_AFTER));
    }
}
