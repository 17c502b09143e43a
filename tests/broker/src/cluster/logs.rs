//! The logs of a cluster: what is in them, and what is taken out of them.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Cluster, refused};
use crate::batch::{self, BatchHeader, Record, Refusal};
use crate::compression::Codec;
use crate::log::StoredBatch;
use crate::state::unknown_topic;
use crate::topic::Partition;
use crate::transactions::TransactionEnd;
use crate::writer::SourceBatch;

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
    /// First offset that consumers of committed records cannot read yet.
    pub last_stable_offset: i64,
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
            last_stable_offset: partition.last_stable(now, delay),
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

    /// Every record kept in a partition, replicated or not, committed, open or aborted, read by the
    /// broker's own reader. Markers of transactions are no records.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown; `InvalidData` if a batch cannot be read,
    /// which the checks at append rule out unless they are switched off.
    pub fn records(&self, topic: &str, partition: i32) -> io::Result<Vec<Record>> {
        let (start, batches) = self.with_partition(topic, partition, |partition, _| {
            (partition.log.start(), partition.log.batches().cloned().collect::<Vec<_>>())
        })?;
        decoded(start, batches)
    }

    /// What a reader of committed records gets of a partition, from its beginning to its last stable
    /// offset: the records of [`Cluster::records`] without those of aborted transactions.
    ///
    /// # Errors
    /// As [`Cluster::records`].
    pub fn committed_records(&self, topic: &str, partition: i32) -> io::Result<Vec<Record>> {
        let now = self.shared.now();
        let (start, batches) = self.with_partition(topic, partition, |partition, delay| {
            let stable = partition.last_stable(now, delay);
            let batches = partition.log.batches().filter(|stored| {
                let aborted = |header: BatchHeader| {
                    header.is_transactional()
                        && partition.transactions.is_aborted(header.producer_id, stored.base_offset)
                };
                stored.last_offset < stable && !batch::read_header(&stored.data).is_ok_and(aborted)
            });
            (partition.log.start(), batches.cloned().collect::<Vec<_>>())
        })?;
        decoded(start, batches)
    }

    /// Appends a batch, as if a client had produced it; returns the offset of its first record. A batch
    /// that its producer sent before has the offset that it has. It is no broker's request: no counter
    /// has it, and no fault happens to it.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown, or the producer's epoch or sequence is not
    /// what is expected.
    pub fn append(&self, topic: &str, partition: i32, batch: &SourceBatch) -> io::Result<i64> {
        let header = batch::read_header(&batch.bytes).map_err(refused)?;
        self.append_with(topic, partition, |partition, now, delay| {
            let stores = partition.log.stores();
            let data = if stores { batch.bytes.clone() } else { Bytes::new() };
            let appended = partition.append(&header, data, now, delay)?;
            let kept = stores && !appended.duplicate;
            Ok((appended.base_offset, kept.then_some(batch.len())))
        })
    }

    /// Ends a producer's transaction in a partition, as a coordinator does: appends the marker, which
    /// takes an offset, and returns that. Without an open transaction the marker means nothing, which
    /// Kafka has as well.
    ///
    /// # Errors
    /// `InvalidInput` if topic or partition is unknown, or the producer has a newer epoch.
    pub fn end_transaction(
        &self,
        topic: &str,
        partition: i32,
        producer_id: i64,
        epoch: i16,
        end: TransactionEnd,
    ) -> io::Result<i64> {
        self.append_with(topic, partition, |partition, now, delay| {
            let producer = (producer_id, epoch);
            let (offset, bytes) = partition.end_transaction(producer, end, now, delay)?;
            Ok((offset, partition.log.stores().then_some(bytes)))
        })
    }

    /// `append` returns an offset, and the size of the batch if it was kept.
    fn append_with(
        &self,
        topic: &str,
        partition: i32,
        append: impl FnOnce(&mut Partition, Instant, Duration) -> Result<(i64, Option<usize>), Refusal>,
    ) -> io::Result<i64> {
        let now = self.shared.now();
        let mut state = self.shared.state();
        let delay = state.replica_delay;
        let unknown = || refused(unknown_topic(&format!("{topic}[{partition}]")));
        let found = state.topics.get_mut(topic).ok_or_else(unknown)?;
        let id = found.id;
        let log = found.partition_mut(partition).ok_or_else(unknown)?;
        let (offset, kept) = append(log, now, delay).map_err(refused)?;
        if let Some(bytes) = kept {
            state.retain(id, partition, bytes);
        }
        Ok(offset)
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

fn decoded(start: i64, batches: Vec<StoredBatch>) -> io::Result<Vec<Record>> {
    let invalid = |refusal: Refusal| io::Error::new(io::ErrorKind::InvalidData, refusal.message);
    let mut records = Vec::new();
    for stored in batches {
        if batch::read_header(&stored.data).map_err(invalid)?.is_control() {
            continue;
        }
        let decoded = batch::decode(&stored.data, stored.base_offset, stored.leader_epoch);
        let decoded = decoded.map_err(invalid)?.into_iter();
        records.extend(decoded.filter(|record| record.offset >= start));
    }
    Ok(records)
}
