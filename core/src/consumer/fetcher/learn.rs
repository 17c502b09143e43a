//! What there is to read: partitions that are found, now and later; topics that were deleted and created again
//! under the same name; and seeks of the application.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Fetcher;
use crate::cluster::{Lookup, TopicMeta};
use crate::config::Start;
use crate::consumer::buffer::{Key, Moved};
use crate::consumer::reading::{Reading, Topic};
use crate::environment::earlier;
use crate::error::{Error, ErrorKind};
use crate::metrics::limited;
use crate::policy::metadata_refresh::RefreshReason;

/// A topic that is missing or forbidden is looked up again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Fetcher {
    /// Takes over what metadata says of the consumer's topics, and the seeks of the application.
    pub(super) fn learn(&mut self, now: Instant) {
        let metadata = Arc::clone(self.pool.metadata());
        let mut topics = std::mem::take(&mut self.topics);
        for (name, topic) in &mut topics {
            match metadata.lookup(name) {
                Lookup::Pending => {
                    topic.meta = None;
                    self.troubles.wait_for(None);
                }
                Lookup::Failed(e) => {
                    topic.meta = None;
                    // A topic that is created from now on is read from its first record, whatever `start` says:
                    // `start` is for what existed before.
                    topic.looked_for |= e.kind() == ErrorKind::UnknownTopic;
                    if topic.told.replace(e.kind()) != Some(e.kind()) {
                        self.buffer.fail(e);
                    }
                    self.wake_at = earlier(self.wake_at, Some(now + LOOK_AGAIN));
                }
                // The metadata names an id that the topic had before, so its broker is behind. The present
                // topic is read on.
                Lookup::Known(meta) if topic.was.contains(&meta.id) => {
                    if topic.behind.replace(meta.id) != Some(meta.id) {
                        metadata.want(name, RefreshReason::Stale);
                    }
                }
                Lookup::Known(meta) => {
                    topic.behind = None;
                    if !topic.meta.as_ref().is_some_and(|known| Arc::ptr_eq(known, &meta)) {
                        self.add(topic, &meta);
                        topic.meta = Some(meta);
                    }
                }
            }
        }
        self.topics = topics;
        for seek in self.buffer.take_seeks() {
            let Some(reading) = self.reading.get_mut(&seek.key) else { continue };
            reading.seek(seek.to, seek.generation);
            if let Some((leader, _)) = self.leader(&seek.key)
                && let Some(source) = self.sources.get_mut(&leader)
            {
                source.pacing.reset();
            }
        }
    }

    /// Reads what metadata says of a topic.
    fn add(&mut self, topic: &mut Topic, meta: &Arc<TopicMeta>) {
        let name = &meta.name;
        let count = i32::try_from(meta.partitions.len()).unwrap_or(i32::MAX);
        topic.told = None;
        // If brokers are too old to tell topic ids, a new topic cannot be told from the old one.
        if topic.id != meta.id && !topic.id.is_nil() && !meta.id.is_nil() {
            self.made_anew(topic, meta, count);
            topic.leave();
        }
        // After a change of clusters the ids were reset: partitions get the id of the new cluster's topic.
        if topic.id.is_nil() && !meta.id.is_nil() {
            let of_it = self.reading.iter_mut().filter(|((of, _), r)| of == name && r.id.is_nil());
            of_it.for_each(|(_, reading)| reading.id = meta.id);
        }
        // A broker that is too old to tell topic ids does not change the id that is known.
        if !meta.id.is_nil() {
            topic.id = meta.id;
        }
        if let Some(start) = topic.whole {
            // A partition that is younger than the consumer holds only records that were written since the
            // consumer was made: none of them may be left out.
            let first = if topic.looked_for { Start::Earliest } else { start };
            for partition in 0..count {
                let key = (Arc::clone(name), partition);
                if !self.reading.contains_key(&key) {
                    self.buffer.add_partition(&key);
                    self.reading.insert(key, Reading::new(meta.id, first, start));
                }
            }
        }
        topic.looked_for = true;
        for (partition, start) in std::mem::take(&mut topic.assigned) {
            if partition >= count {
                // The broker that answered may be behind, or the partition may be created later.
                if !topic.missing.contains(&partition) {
                    topic.missing.push(partition);
                    self.pool.metadata().want(name, RefreshReason::Stale);
                    self.buffer.fail(Error::new(
                        ErrorKind::UnknownPartition,
                        format!("topic '{name}' has no partition {partition}, it has {count}"),
                    ));
                }
                topic.assigned.push((partition, start));
                continue;
            }
            let key = (Arc::clone(name), partition);
            self.buffer.add_partition(&key);
            self.reading.insert(key, Reading::new(meta.id, start, start));
        }
    }

    /// The topic was deleted and another one of its name made: offsets of the old one mean nothing in it. All
    /// its records were written since, so it is read from its first record, or from the same timestamp. A
    /// partition that began at an offset of the application stops until a seek. The application is told once,
    /// with where reading stood.
    fn made_anew(&mut self, topic: &Topic, meta: &TopicMeta, count: i32) {
        let name = &meta.name;
        let keys: Vec<Key> =
            self.reading.keys().filter(|(topic, _)| topic == name).cloned().collect();
        let (mut stood, mut stopped, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            let Some(reading) = self.reading.get_mut(&key) else { continue };
            stood.extend(reading.next.map(|at| (key.1, at.offset)));
            // A partition of `assign` is kept, and is read again once the new topic has it.
            if key.1 >= count && topic.whole.is_some() {
                self.reading.remove(&key);
                self.buffer.remove_partition(&key);
                continue;
            }
            let start = match reading.start {
                _ if topic.whole.is_some() => Some(Start::Earliest),
                Start::Earliest | Start::Latest => Some(Start::Earliest),
                Start::Timestamp(ms) => Some(Start::Timestamp(ms)),
                Start::Offset(_) => None,
            };
            reading.made_anew(meta.id, start);
            if start.is_none() {
                stopped.push(key.1);
            }
            moved.push(Moved { key, next: None, generation: reading.generation });
        }
        // No partition had a position yet: there is nothing to report.
        let Some((partition, offset)) = stood.first() else { return };
        let more = match stood.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let on = match stopped.first() {
            None => "it is read from its beginning".to_owned(),
            Some(first) => format!("partition {first} is read again after a seek"),
        };
        limited!(self.pool.metrics().logs(), "ottla::consumer", WARN, topic = %name, was = %topic.id, is = %meta.id, "the topic was made anew");
        self.buffer.moved(
            Error::new(
                ErrorKind::Truncated,
                format!(
                    "topic '{name}' was deleted and made anew while partition {partition} was read \
                     up to offset {offset}{more}; {on}"
                ),
            ),
            moved,
        );
    }
}
