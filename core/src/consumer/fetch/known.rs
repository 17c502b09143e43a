//! What partitions are called in requests and responses.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::consumer::slot::SlotId;

pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A partition, as requests call it: by the topic's id, or by its name where not all ids are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionRef {
    pub(crate) topic: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) partition: i32,
}

impl PartitionRef {
    pub(super) fn is(&self, other: &Self, by_id: bool) -> bool {
        let topic = if by_id { self.id == other.id } else { self.topic == other.topic };
        topic && self.partition == other.partition
    }
}

/// Who is called what, of what the broker was told.
#[derive(Debug, Default)]
pub(super) struct Known {
    ids: Map<(Uuid, i32), SlotId>,
    names: Map<Arc<str>, Map<i32, SlotId>>,
    pub(super) count: usize,
}

impl Known {
    pub(super) fn find(
        &self,
        by_id: bool,
        topic: &str,
        id: Uuid,
        partition: i32,
    ) -> Option<SlotId> {
        if by_id {
            return self.ids.get(&(id, partition)).copied();
        }
        self.names.get(topic)?.get(&partition).copied()
    }

    pub(super) fn add(&mut self, by_id: bool, of: &PartitionRef, slot: SlotId) {
        let before = if by_id {
            self.ids.insert((of.id, of.partition), slot)
        } else {
            self.names.entry(of.topic.clone()).or_default().insert(of.partition, slot)
        };
        self.count += usize::from(before.is_none());
    }

    /// Not if another slot has it by now.
    pub(super) fn remove(&mut self, by_id: bool, of: &PartitionRef, slot: SlotId) {
        if self.find(by_id, &of.topic, of.id, of.partition) != Some(slot) {
            return;
        }
        self.count -= 1;
        if by_id {
            self.ids.remove(&(of.id, of.partition));
        } else if let Some(partitions) = self.names.get_mut(&of.topic) {
            partitions.remove(&of.partition);
            if partitions.is_empty() {
                self.names.remove(&of.topic);
            }
        }
    }
}
