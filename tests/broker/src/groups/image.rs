//! What groups see of the cluster's topics.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::topic::Topic;

pub(crate) struct Image<'a> {
    pub(crate) topics: &'a BTreeMap<String, Topic>,
    pub(crate) names: &'a HashMap<Uuid, String>,
}

impl Image<'_> {
    /// Id and number of partitions.
    pub(crate) fn topic(&self, name: &str) -> Option<(Uuid, i32)> {
        let topic = self.topics.get(name)?;
        i32::try_from(topic.partitions.len()).ok().map(|partitions| (topic.id, partitions))
    }

    pub(crate) fn name(&self, id: Uuid) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }
}
