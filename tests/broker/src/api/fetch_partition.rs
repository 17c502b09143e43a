//! What a Fetch answer says of one partition.

use std::time::Duration;

use tokio::time::Instant;

use super::fetch_response::PartResponse;
use crate::error_code as code;
use crate::followers::Replica;
use crate::log::{PartitionLog, Slice};
use crate::sessions::{TopicKey, Wanted};
use crate::topic::{Partition, Topic};

/// First version whose clients may read from followers (KIP-392).
pub(crate) const FOLLOWERS: i16 = 11;

/// First version that tells the epoch of what was fetched last (KIP-595).
const EPOCHS: i16 = 12;

/// What a client says that knows no epoch.
pub(crate) const NO_EPOCH: i32 = -1;

/// Reads partitions for one look at the log.
pub(crate) struct Reader {
    pub(crate) broker: i32,
    pub(crate) version: i16,
    /// Only what is committed is wanted (isolation level 1).
    pub(crate) committed: bool,
    /// Brokers that are up and in the client's rack.
    pub(crate) near: Vec<i32>,
    pub(crate) now: Instant,
    pub(crate) delay: Duration,
    /// Whether the last batch may be cut anywhere.
    pub(crate) partial: bool,
}

impl Reader {
    /// `room`: bytes that are left for it in the answer. `first`: the answer has no records yet.
    pub(crate) fn read(
        &self,
        topic: &mut Topic,
        wanted: &Wanted,
        injected: Option<i16>,
        room: usize,
        first: bool,
    ) -> PartResponse {
        let index = wanted.key.partition;
        // Its name belongs to another topic by now: a session keeps the name that it found first.
        let other = matches!(&wanted.key.topic, TopicKey::Id(id) if *id != topic.id);
        let Some(partition) = topic.partition_mut(index) else {
            return PartResponse::error(index, code::UNKNOWN_TOPIC_OR_PARTITION);
        };
        let refused = match injected {
            Some(error) => Err(error),
            None if other => Err(code::INCONSISTENT_TOPIC_ID),
            None => self.records(partition, wanted, room, first),
        };
        refused.unwrap_or_else(|error| {
            let mut part = PartResponse::error(index, error);
            if error == code::NOT_LEADER_OR_FOLLOWER || error == code::FENCED_LEADER_EPOCH {
                part.leader = partition.leader.map(|leader| (leader, partition.leader_epoch));
            }
            part
        })
    }

    fn records(
        &self,
        partition: &mut Partition,
        wanted: &Wanted,
        room: usize,
        first: bool,
    ) -> Result<PartResponse, i16> {
        let ask = wanted.ask;
        let delay = self.delay;
        let Some(replica) = partition.replica(self.broker, self.now, delay) else {
            return Err(code::NOT_LEADER_OR_FOLLOWER);
        };
        let mut part = PartResponse::new(wanted.key.partition);
        part.high_watermark = replica.high_watermark;
        part.log_start = replica.start;
        part.last_stable = partition.transactions.stable(replica.start, replica.high_watermark);
        if replica.leads {
            part.preferred = partition.preferred(&self.near, ask.offset, self.now, delay);
        }
        epoch(partition, ask.leader_epoch)?;
        if part.preferred.is_some() {
            // Whoever is sent elsewhere gets nothing here, and is not told whether its offset is right.
            return Ok(part);
        }
        if !replica.leads && self.version < FOLLOWERS {
            return Err(code::NOT_LEADER_OR_FOLLOWER);
        }
        let log = &partition.log;
        // The epoch is looked at before the offset: where both are wrong, the client
        // learns where its records part from the log (Partition.fetchRecords). A follower that is
        // behind takes those for wrong that have read more than it has.
        if self.version >= EPOCHS {
            part.diverging = diverges(log, replica, ask.offset, ask.fetched_epoch)?;
            if part.diverging.is_some() {
                return Ok(part);
            }
        }
        let range = replica.start..=replica.end;
        if !range.contains(&ask.offset) {
            return Err(code::OFFSET_OUT_OF_RANGE);
        }
        let most = usize::try_from(ask.max_bytes).unwrap_or(0).min(room);
        // The first batch of a response always goes, or a consumer with small
        // limits would never get past a large one (KIP-74).
        let limit = if self.committed { part.last_stable } else { part.high_watermark };
        let reads = ask.offset < limit;
        let slice = match reads {
            true => log.read(ask.offset, limit, most, first, self.partial),
            false => Slice::default(),
        };
        if self.committed {
            let aborted = |end| {
                let to = log.index_bound(end).min(replica.end);
                partition.transactions.aborted(ask.offset, to, replica.end)
            };
            part.aborted = Some(if reads { aborted(slice.end) } else { Vec::new() });
        }
        part.batches = slice.batches;
        Ok(part)
    }
}

/// Whether the leader epoch that a client knows is the current one (KIP-320).
pub(crate) fn epoch(partition: &Partition, client_epoch: i32) -> Result<(), i16> {
    if client_epoch == NO_EPOCH {
        Ok(())
    } else if client_epoch < partition.leader_epoch {
        Err(code::FENCED_LEADER_EPOCH)
    } else if client_epoch > partition.leader_epoch {
        Err(code::UNKNOWN_LEADER_EPOCH)
    } else {
        Ok(())
    }
}

/// Where a client that has read up to `offset`, last under `epoch`, and a replica's log part; `None`:
/// nowhere.
fn diverges(
    log: &PartitionLog,
    replica: Replica,
    offset: i64,
    epoch: i32,
) -> Result<Option<(i32, i64)>, i16> {
    if epoch == NO_EPOCH {
        return Ok(None);
    }
    let found = match replica.leads {
        true => log.end_of_epoch(epoch),
        false => log.end_of_epoch_before(epoch, replica.end),
    };
    let (known, end) = found.ok_or(code::OFFSET_OUT_OF_RANGE)?;
    if offset < replica.start {
        return Err(code::OFFSET_OUT_OF_RANGE);
    }
    Ok((known < epoch || end < offset).then_some((known, end)))
}
