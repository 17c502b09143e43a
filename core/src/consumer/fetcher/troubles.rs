//! What a consumer that waits in vain is told: which broker it waits for, and what stands in the way.
//! Once while it lasts, as an error that may pass: the fetcher goes on trying. An outage of what went well
//! before is for the log: who reads for months must not stop for the restart of a broker.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::Fetcher;
use crate::environment::earlier;
use crate::error::ErrorKind;

/// By broker; `None`: any of them, to learn where the topics are.
#[derive(Default)]
pub(super) struct Troubles {
    /// Who has been asked, or is being dialled, and has not answered.
    waited_for: BTreeSet<Option<i32>>,
    /// Spells that were told. As many as there are brokers, at most.
    told: BTreeMap<Option<i32>, Instant>,
}

impl Troubles {
    pub(super) fn wait_for(&mut self, whom: Option<i32>) {
        self.waited_for.insert(whom);
    }

    /// The response is here, whatever it is: who is asked again is waited for again.
    pub(super) fn waited_for(&mut self, whom: Option<i32>) {
        self.waited_for.remove(&whom);
    }

    /// Brokers that are no part of the cluster any more, unless their responses are still to come.
    pub(super) fn forget(&mut self, is_there: impl Fn(i32) -> bool) {
        let waited_for = &self.waited_for;
        self.told.retain(|whom, _| waited_for.contains(whom) || whom.is_none_or(&is_there));
    }
}

impl Fetcher {
    /// Tells of what has lasted long enough, and wakes for what will have.
    pub(super) fn tell_troubles(&mut self, now: Instant) {
        let pool = &self.pool;
        for whom in &self.troubles.waited_for {
            let trouble = match whom {
                Some(id) => pool.trouble_with(*id, now),
                None => pool.trouble_with_all(now),
            };
            let Some(trouble) = trouble else {
                self.troubles.told.remove(whom);
                // The dial, or the question to anybody, begins behind this: its trouble may, too.
                if whom.is_none_or(|id| !pool.is_connected_to(id)) {
                    let at = pool.trouble_may_be_told_at(now);
                    self.wake_at = earlier(self.wake_at, Some(at));
                }
                continue;
            };
            if self.troubles.told.get(whom) == Some(&trouble.since) {
                continue;
            }
            if trouble.told_at() > now {
                self.wake_at = earlier(self.wake_at, Some(trouble.told_at()));
                continue;
            }
            self.troubles.told.insert(*whom, trouble.since);
            // What no broker does is told as soon as it was seen twice.
            let told_elsewhere = matches!(
                trouble.error.kind(),
                ErrorKind::NotKafka | ErrorKind::UnsupportedVersion | ErrorKind::Authentication
            );
            if !trouble.is_outage && (whom.is_none() || !told_elsewhere) {
                if let Some(source) = whom.and_then(|id| self.sources.get_mut(&id)) {
                    source.silence.told_otherwise();
                    source.starts_silence.told_otherwise();
                }
                self.buffer.fail(trouble.error);
            }
        }
        // Asked anew with each look at the topics.
        self.troubles.waited_for.remove(&None);
    }
}
