//! Reports a broker that cannot be reached to the application: one error (that may pass) for each spell, while
//! the fetcher goes on trying. If the broker was reached before, this is an outage, which is only logged: a
//! consumer that has read for months must not stop because a broker restarts.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::Fetcher;
use crate::environment::earlier;
use crate::error::ErrorKind;

/// By broker id; `None`: any broker, which is asked for metadata.
#[derive(Default)]
pub(super) struct Troubles {
    /// Brokers that were asked, or are being dialled, and have not answered.
    waited_for: BTreeSet<Option<i32>>,
    /// The spells that were reported, by the time at which they began. At most one for each broker.
    told: BTreeMap<Option<i32>, Instant>,
}

impl Troubles {
    pub(super) fn wait_for(&mut self, whom: Option<i32>) {
        self.waited_for.insert(whom);
    }

    /// A response, or an error, has come. `wait_for` is called again with the next request.
    pub(super) fn waited_for(&mut self, whom: Option<i32>) {
        self.waited_for.remove(&whom);
    }

    /// Forgets brokers that are no longer part of the cluster, unless their responses are still to come.
    pub(super) fn forget(&mut self, is_there: impl Fn(i32) -> bool) {
        let waited_for = &self.waited_for;
        self.told.retain(|whom, _| waited_for.contains(whom) || whom.is_none_or(&is_there));
    }
}

impl Fetcher {
    /// Reports troubles that have lasted long enough, and sets when to look at the others again.
    pub(super) fn tell_troubles(&mut self, now: Instant) {
        let pool = &self.pool;
        for whom in &self.troubles.waited_for {
            let trouble = match whom {
                Some(id) => pool.trouble_with(*id, now),
                None => pool.trouble_with_all(now),
            };
            let Some(trouble) = trouble else {
                self.troubles.told.remove(whom);
                // The dial starts only after this look, so its trouble can begin later: look again when it
                // could be reported.
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
            // These errors, of a peer that is no usable broker, are reported by `spells` after the second time.
            let told_elsewhere = matches!(
                trouble.error.kind(),
                ErrorKind::NotKafka
                    | ErrorKind::UnsupportedVersion
                    | ErrorKind::Authentication
                    | ErrorKind::Tls
                    | ErrorKind::Credentials
            );
            if !trouble.is_outage && (whom.is_none() || !told_elsewhere) {
                if let Some(source) = whom.and_then(|id| self.sources.get_mut(&id)) {
                    source.silence.told_otherwise();
                    source.starts_silence.told_otherwise();
                }
                self.buffer.fail(trouble.error);
            }
        }
        // `learn` enters it again as long as a topic is pending.
        self.troubles.waited_for.remove(&None);
    }
}
