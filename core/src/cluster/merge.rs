//! Merges a Metadata response with what is known: finds out what of it is newer.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;

use super::metadata::{BrokerAddress, Brokers, PartitionMeta, TopicMeta};
use crate::config::Endpoint;

/// A topic after a response.
pub(super) struct Merge {
    pub(super) meta: Arc<TopicMeta>,
    pub(super) changed: bool,
    /// Leaders that a newer leader epoch than the known one names.
    pub(super) named: BTreeSet<i32>,
}

/// The brokers of a response. A broker without a valid address is left out, and one with a negative id: here
/// these ids are those of bootstrap addresses.
pub(super) fn brokers(response: &MetadataResponse) -> Brokers {
    response
        .brokers
        .iter()
        .filter(|b| b.node_id.0 >= 0)
        .filter_map(|b| {
            let endpoint = Endpoint::of_broker(&b.host, b.port)?;
            let rack = b.rack.as_ref().map(ToString::to_string);
            Some((b.node_id.0, BrokerAddress { endpoint, rack }))
        })
        .collect()
}

/// Whether a response about the same topic has an older epoch than is known for any partition.
pub(super) fn is_behind(known: &TopicMeta, topic: &MetadataResponseTopic) -> bool {
    known.id == topic.topic_id
        && partitions(topic)
            .iter()
            .zip(&known.partitions)
            .any(|(new, old)| new.epoch >= 0 && new.epoch < old.epoch)
}

/// The newer of both for each partition; partitions are never lost while the topic id stays.
pub(super) fn topic(
    known: Option<&Arc<TopicMeta>>,
    name: &str,
    topic: &MetadataResponseTopic,
) -> Merge {
    let mut fresh = partitions(topic);
    let mut named = BTreeSet::new();
    let known = known.filter(|known| known.id == topic.topic_id);
    if let Some(known) = known {
        if fresh.len() < known.partitions.len() {
            fresh.extend_from_slice(&known.partitions[fresh.len()..]);
        }
        for (new, old) in fresh.iter_mut().zip(&known.partitions) {
            // Brokers that know no leader epochs tell -1: then the last response counts.
            if old.epoch > new.epoch && new.epoch >= 0 {
                *new = *old;
            } else if new.epoch > old.epoch && new.leader >= 0 {
                named.insert(new.leader);
            }
        }
        if fresh == known.partitions {
            return Merge { meta: Arc::clone(known), changed: false, named };
        }
    }
    let meta = TopicMeta { name: Arc::from(name), id: topic.topic_id, partitions: fresh };
    Merge { meta: Arc::new(meta), changed: true, named }
}

fn partitions(topic: &MetadataResponseTopic) -> Vec<PartitionMeta> {
    let mut out = Vec::with_capacity(topic.partitions.len());
    for p in &topic.partitions {
        let Ok(index) = usize::try_from(p.partition_index) else { continue };
        // Partitions are numbered without gaps; a response that names a far one is damaged, and must
        // not make this table large.
        if index >= topic.partitions.len() {
            continue;
        }
        if out.len() <= index {
            out.resize(index + 1, PartitionMeta { leader: -1, epoch: -1 });
        }
        out[index] = PartitionMeta { leader: p.leader_id.0.max(-1), epoch: p.leader_epoch };
    }
    out
}
