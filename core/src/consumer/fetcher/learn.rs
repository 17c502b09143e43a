//! What there is to read: what the application wants; partitions that are found, now and later; and topics that
//! were deleted and created again under the same name.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Fetcher;
use crate::cluster::{Lookup, TopicMeta};
use crate::config::Start;
use crate::consumer::buffer::{Begin, Command, Key, Then};
use crate::consumer::position::Position;
use crate::consumer::reading::{Reading, Topic};
use crate::consumer::slot::SlotId;
use crate::environment::earlier;
use crate::error::{Error, ErrorKind};
use crate::metrics::limited;
use crate::policy::metadata_refresh::RefreshReason;

/// A topic that is missing or forbidden is looked up again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Fetcher {
    /// Does what the application told it since the last time.
    pub(super) fn obey(&mut self) {
        for command in self.buffer.take_commands() {
            match command {
                Command::Assign { slot, incarnation, key, begin } => {
                    self.assigned(slot, incarnation, key, begin);
                }
                Command::Unassign { slot, key } => self.unassigned(slot, &key),
                Command::Change { slot, incarnation, seek, paused } => {
                    let Some(reading) = self.reading.get_mut(slot) else { continue };
                    reading.paused = paused;
                    if let Some(to) = seek {
                        reading.seek(to, incarnation);
                    }
                    self.hurry(slot);
                }
            }
        }
    }

    /// Something else is wanted of a partition: its broker is asked without a pause.
    fn hurry(&mut self, slot: SlotId) {
        if let Some(broker) = self.broker_of(slot)
            && let Some(source) = self.sources.get_mut(&broker)
        {
            source.pacing.reset();
        }
    }

    fn assigned(&mut self, slot: SlotId, incarnation: u64, key: Key, begin: Begin) {
        let topic = self.topics.entry(Arc::clone(&key.0)).or_default();
        topic.unwanted.remove(&key.1);
        topic.slots.insert(key.1, slot);
        topic.grown = true;
        let id = topic.id;
        match self.reading.get_mut(slot) {
            // Found as one of a whole topic at the same moment.
            Some(reading) => reading.seek(begin.start, incarnation),
            None => {
                let Begin { start, epoch, reset, id: of } = begin;
                let id = if of.is_nil() { id } else { of };
                let mut reading = Reading::new(key, id, incarnation, start, reset);
                reading.of = of;
                if let Some(next) = &mut reading.next {
                    *next = Position::at(next.offset, epoch);
                }
                self.reading.insert(slot, reading);
            }
        }
        // Another cluster may have been begun with meanwhile, or the start of the whole topic been told.
        self.begun(slot);
        self.hurry(slot);
    }

    fn unassigned(&mut self, slot: SlotId, key: &Key) {
        if let Some(reading) = self.reading.remove(slot) {
            self.leave(slot, reading.waits);
        }
        let Some(topic) = self.topics.get_mut(&key.0) else { return };
        // It may be read again by now, under another number.
        if topic.slots.get(&key.1) == Some(&slot) {
            topic.slots.remove(&key.1);
        }
        topic.missing.remove(&key.1);
        if topic.whole.is_some() {
            topic.unwanted.insert(key.1);
        } else if topic.slots.is_empty() {
            self.topics.remove(&key.0);
        }
    }

    /// Takes over what metadata says of the consumer's topics.
    pub(super) fn learn(&mut self, now: Instant) {
        let metadata = Arc::clone(self.pool.metadata());
        let mut topics = std::mem::take(&mut self.topics);
        for (name, topic) in &mut topics {
            let before = topic.meta.as_ref().map(Arc::as_ptr);
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
                    let known = topic.meta.as_ref().is_some_and(|known| Arc::ptr_eq(known, &meta));
                    if std::mem::take(&mut topic.grown) || !known {
                        self.add(topic, &meta);
                        topic.meta = Some(meta);
                    }
                }
            }
            // A member's partitions are there, as its leader sees it.
            if self.buffer.is_members() && !topic.missing.is_empty() {
                if topic.ask_again.is_none_or(|at| at <= now) {
                    topic.ask_again = Some(now + LOOK_AGAIN);
                    metadata.want(name, RefreshReason::Stale);
                }
                self.wake_at = earlier(self.wake_at, topic.ask_again);
            }
            // Who leads its partitions may have changed.
            if topic.meta.as_ref().map(Arc::as_ptr) != before {
                topic.slots.values().for_each(|slot| self.reading.touch(*slot));
            }
        }
        self.topics = topics;
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
        // A broker that is too old to tell topic ids does not change the id that is known.
        if !meta.id.is_nil() {
            topic.id = meta.id;
        }
        if let Some(start) = topic.whole {
            // A partition that is younger than the consumer holds only records that were written since the
            // consumer was made: none of them may be left out.
            let first = if topic.looked_for { Start::Earliest } else { start };
            for partition in 0..count {
                if !topic.slots.contains_key(&partition) && !topic.unwanted.contains(&partition) {
                    let key = (Arc::clone(name), partition);
                    let (slot, incarnation) = self.buffer.add(&key);
                    let reading = Reading::new(key, meta.id, incarnation, first, start);
                    self.reading.insert(slot, reading);
                    topic.slots.insert(partition, slot);
                    self.begun(slot);
                }
            }
        }
        topic.looked_for = true;
        for (partition, slot) in &topic.slots {
            // Partitions that were assigned before the topic was known, or when its id was not; after a change of
            // clusters that is every partition.
            if !meta.id.is_nil()
                && let Some(reading) = self.reading.get_mut(*slot).filter(|r| r.id.is_nil())
            {
                reading.id = meta.id;
            }
            // The broker that answered may be behind, or the partition may be created later.
            if *partition >= count && topic.missing.insert(*partition) {
                self.pool.metadata().want(name, RefreshReason::Stale);
                // The leader of a group may know of partitions that this broker does not know yet.
                if self.buffer.is_members() {
                    continue;
                }
                self.buffer.fail(Error::new(
                    ErrorKind::UnknownPartition,
                    format!("topic '{name}' has no partition {partition}, it has {count}"),
                ));
            }
        }
    }

    /// The application can be told where reading of a partition begins, if that is known without asking.
    pub(super) fn begun(&self, slot: SlotId) {
        if let Some(reading) = self.reading.get(slot)
            && let Some(at) = reading.next
        {
            self.buffer.starts(slot, reading.incarnation, (at.offset, at.epoch));
        }
    }

    /// The topic was deleted and another one of its name made: offsets of the old one mean nothing in it. All
    /// its records were written since, so it is read from its first record, or from the same timestamp. A
    /// partition that began at an offset of the application stops until a seek. The application is told once,
    /// with where reading stood.
    fn made_anew(&mut self, topic: &mut Topic, meta: &TopicMeta, count: i32) {
        let name = &meta.name;
        let (mut stood, mut stopped, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        let mut members = false;
        for (partition, slot) in topic.slots.clone() {
            let Some(reading) = self.reading.get_mut(slot) else { continue };
            // The group was quicker to hear of it than this.
            if reading.of == meta.id {
                continue;
            }
            stood.extend(reading.next.map(|at| (partition, at.offset)));
            // A partition of `assign` is kept, and is read again once the new topic has it.
            if partition >= count && topic.whole.is_some() {
                let waits = reading.waits;
                self.reading.remove(slot);
                self.leave(slot, waits);
                topic.slots.remove(&partition);
                self.buffer.retire(slot);
                continue;
            }
            // It is read no more, which is about to be heard of.
            let Some(incarnation) = self.buffer.renew(slot) else { continue };
            let start = match reading.start {
                _ if topic.whole.is_some() => Some(Start::Earliest),
                // The group has assigned the old one. The new one's may be another member's.
                _ if !reading.of.is_nil() => None,
                Start::Earliest | Start::Latest => Some(Start::Earliest),
                Start::Timestamp(ms) => Some(Start::Timestamp(ms)),
                // Committed by the group for the old one.
                Start::Offset(_) if !matches!(reading.reset, Start::Offset(_)) => {
                    Some(Start::Earliest)
                }
                Start::Offset(_) => None,
            };
            let id = if reading.of.is_nil() { meta.id } else { reading.of };
            reading.made_anew(id, incarnation, start);
            if !reading.of.is_nil() {
                members = true;
            } else if start.is_none() {
                stopped.push(partition);
            }
            moved.push((slot, incarnation));
        }
        // No partition had a position yet: there is nothing to report.
        let Some((partition, offset)) = stood.first() else { return };
        let more = match stood.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let on = match stopped.first() {
            None if members => "who reads the new one is for its group to say".to_owned(),
            None => "it is read from its beginning".to_owned(),
            Some(first) => format!("partition {first} is read again after a seek"),
        };
        limited!(self.pool.metrics().logs(), "ottla::consumer", WARN, topic = %name, was = %topic.id, is = %meta.id, "the topic was made anew");
        let error = Error::new(
            ErrorKind::Truncated,
            format!(
                "topic '{name}' was deleted and made anew while partition {partition} was read \
                 up to offset {offset}{more}; {on}"
            ),
        );
        if moved.is_empty() {
            self.buffer.fail(error);
        } else {
            self.buffer.tell(error, &moved, Then::Stays);
        }
    }
}
