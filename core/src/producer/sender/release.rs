//! Topics that are not sent to any more are let go, with the sequences of their partitions: the sender's
//! part.

use std::time::Duration;

use tokio::time::Instant;

use super::Sender;
use super::topic::Topic;
use crate::environment::earlier;

/// A topic that nothing was sent to for this time is forgotten.
pub(in crate::producer) const UNUSED_AFTER: Duration = Duration::from_secs(5 * 60);

/// With this many topics, unused ones are looked for whenever a topic is added, and not only when the first
/// of them is due: a service may name a new topic with every record.
pub(in crate::producer) const MANY_TOPICS: usize = 1 << 10;

impl Sender {
    /// Forgets topics that were not used for long. Looks at every topic, so it does this once in a while.
    pub(super) fn release_unused(&mut self, now: Instant) {
        let many = self.topics.len() >= self.release_at_len;
        if !many && self.release_at.is_none_or(|at| at > now) {
            return;
        }
        let mut next = None;
        let Self { topics, id_state, .. } = self;
        topics.retain(|_, topic| {
            let at = topic.used + UNUSED_AFTER;
            if at <= now && topic.let_go() {
                topic
                    .partitions
                    .iter()
                    .filter_map(|p| p.begun())
                    .for_each(|name| id_state.forgotten(name));
                return false;
            }
            if at <= now {
                // `used` is set by announcements only. A topic whose queues never become empty makes none,
                // but is in use.
                topic.used = now;
            }
            next = earlier(next, Some(topic.used + UNUSED_AFTER));
            true
        });
        self.release_at_len = (2 * self.topics.len()).max(MANY_TOPICS);
        // Topics that fall due within a minute are forgotten together.
        self.release_at = next.map(|at| at.max(now + UNUSED_AFTER / 5));
    }
}

impl Topic {
    /// Forgets it in its accumulators, unless a batch of it is open or under way. `true` if it is in none of them
    /// any more.
    fn let_go(&mut self) -> bool {
        if self.has_work() || !self.partitions.iter().all(|p| p.is_empty()) {
            return false;
        }
        self.topic_batches.retain(|(accumulator, batches)| match accumulator.upgrade() {
            Some(accumulator) => !accumulator.let_go(batches),
            None => false,
        });
        self.topic_batches.is_empty()
    }
}
