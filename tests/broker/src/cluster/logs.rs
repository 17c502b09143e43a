//! The logs of a cluster: what is in them, and what is taken out of them.

use std::collections::BTreeSet;
use std::io;

use super::{Cluster, refused};
use crate::batch::{self, Record};
use crate::compression::Codec;
use crate::state::unknown_topic;

/// What [`Cluster::partition`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// Leading broker, if any can lead.
    pub leader: Option<i32>,
    /// How often the leader changed.
    pub leader_epoch: i32,
    /// Assigned brokers.
    pub replicas: Vec<i32>,
    /// In-sync brokers.
    pub isr: Vec<i32>,
    /// First offset kept.
    pub log_start: i64,
    /// First offset that consumers cannot read yet.
    pub high_watermark: i64,
    /// Offset of the next record appended.
    pub log_end: i64,
}

impl Cluster {
    /// Deletes records below `offset`; the log start moves there.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> io::Result<i64> {
        self.shared
            .state()
            .delete_records(topic, partition, offset)
            .ok_or_else(|| refused(unknown_topic(topic)))
    }

    /// Forgets all but the last batch of each of a partition's producers, as a broker does that is
    /// shut down and started again: an older batch that is sent again is out of order then, and no
    /// duplicate.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown.
    pub fn forget_older_batches(&self, topic: &str, partition: i32) -> io::Result<()> {
        self.with_partition(topic, partition, |partition, _| {
            partition.producers.forget_all_but_the_last();
        })
    }

    /// Forgets a partition's producers, as a broker does when they expire: the next batch of each
    /// is accepted with any sequence number.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown.
    pub fn forget_producers(&self, topic: &str, partition: i32) -> io::Result<()> {
        self.with_partition(topic, partition, |partition, _| partition.producers.forget())
    }

    /// Leader, replicas and offsets of a partition.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown.
    pub fn partition(&self, topic: &str, partition: i32) -> io::Result<PartitionInfo> {
        let now = self.shared.now();
        self.with_partition(topic, partition, |partition, delay| PartitionInfo {
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas.clone(),
            isr: partition.isr.clone(),
            log_start: partition.log.start(),
            high_watermark: partition.high_watermark(now, delay),
            log_end: partition.log.end(),
        })
    }

    /// Number of partitions of a topic.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such topic.
    pub fn partitions(&self, topic: &str) -> io::Result<i32> {
        let state = self.shared.state();
        let topic = state.topics.get(topic).ok_or_else(|| refused(unknown_topic(topic)))?;
        Ok(topic.partitions.len() as i32)
    }

    /// Every record kept in a partition, replicated or not, read by the broker's own reader.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown; `InvalidData` if a batch cannot be read,
    /// which the checks at append rule out unless they are switched off.
    pub fn records(&self, topic: &str, partition: i32) -> io::Result<Vec<Record>> {
        let (start, batches) = self.with_partition(topic, partition, |partition, _| {
            (partition.log.start(), partition.log.batches().cloned().collect::<Vec<_>>())
        })?;
        let mut records = Vec::new();
        for stored in batches {
            let decoded = batch::decode(&stored.data, stored.base_offset, stored.leader_epoch)
                .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal.message))?;
            records.extend(decoded.into_iter().filter(|record| record.offset >= start));
        }
        Ok(records)
    }

    /// How the batches kept in a topic are compressed: every way that occurs.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such topic; `InvalidData` as for [`Cluster::records`].
    pub fn codecs(&self, topic: &str) -> io::Result<BTreeSet<Codec>> {
        let state = self.shared.state();
        let found = state.topics.get(topic).ok_or_else(|| refused(unknown_topic(topic)))?;
        let batches = found.partitions.iter().flat_map(|partition| partition.log.batches());
        batches
            .map(|stored| {
                batch::codec(&stored.data)
                    .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal.message))
            })
            .collect()
    }

    /// Bytes of all batches kept now.
    pub fn retained_bytes(&self) -> usize {
        self.shared.state().retained_bytes()
    }
}
