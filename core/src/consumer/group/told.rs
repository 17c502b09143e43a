//! When the application is told of trouble that goes on: what somebody has to put right at once, what may pass by itself
//! once it has lasted, and both again each minute, so that a log that is read later has it.

use std::time::Duration;

use tokio::time::Instant;

use super::codes::{Meaning, meaning};
use super::events::Trouble;

const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Trouble that passes by itself is usually over after so long.
const LASTED: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(in crate::consumer) struct Told {
    /// When the trouble that there is began.
    since: Option<Instant>,
    /// When each code was told last.
    last: Vec<(i16, Instant)>,
}

impl Told {
    /// Whether to tell of a code, now.
    pub(in crate::consumer) fn trouble(&mut self, trouble: Trouble, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        // Who says the latter has waited for it already.
        let soon = matches!(meaning(trouble.code), Meaning::Told | Meaning::Unreleased);
        if !soon && now.saturating_duration_since(since) < LASTED {
            return false;
        }
        self.last.retain(|(_, at)| now < *at + AGAIN_AFTER);
        if self.last.iter().any(|(code, _)| *code == trouble.code) {
            return false;
        }
        self.last.push((trouble.code, now));
        true
    }

    /// All is well.
    pub(in crate::consumer) fn over(&mut self) {
        self.since = None;
    }
}
