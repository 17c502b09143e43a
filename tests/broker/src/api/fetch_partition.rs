//! What a Fetch answer says of one partition.

use std::time::Duration;

use tokio::time::Instant;

use super::fetch_response::PartResponse;
use super::list_offsets::leadership;
use crate::error_code as code;
use crate::log::{PartitionLog, Slice};
use crate::sessions::{TopicKey, Wanted};
use crate::topic::{Partition, Topic};

/// First version that tells the epoch of what was fetched last (KIP-595).
const EPOCHS: i16 = 12;

/// Reads partitions for one look at the log.
pub(crate) struct Reader {
    pub(crate) broker: i32,
    pub(crate) version: i16,
    /// Only what is committed is wanted (isolation level 1).
    pub(crate) committed: bool,
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
        match leadership(partition, self.broker, ask.leader_epoch) {
            code::NONE => {}
            error => return Err(error),
        }
        let high_watermark = partition.high_watermark(self.now, self.delay);
        let last_stable = partition.last_stable(self.now, self.delay);
        let log = &partition.log;
        let mut part = PartResponse::new(wanted.key.partition);
        part.high_watermark = high_watermark;
        part.last_stable = last_stable;
        part.log_start = log.start();
        // The epoch is looked at before the offset: where both are wrong, the client
        // learns where its records part from the log (Partition.fetchRecords).
        if self.version >= EPOCHS {
            part.diverging = diverges(log, ask.offset, ask.fetched_epoch)?;
            if part.diverging.is_some() {
                return Ok(part);
            }
        }
        let range = log.start()..=log.end();
        if !range.contains(&ask.offset) {
            return Err(code::OFFSET_OUT_OF_RANGE);
        }
        let most = usize::try_from(ask.max_bytes).unwrap_or(0).min(room);
        // The first batch of a response always goes, or a consumer with small
        // limits would never get past a large one (KIP-74).
        let limit = if self.committed { last_stable } else { high_watermark };
        let reads = ask.offset < limit;
        let slice = match reads {
            true => log.read(ask.offset, limit, most, first, self.partial),
            false => Slice::default(),
        };
        if self.committed {
            let aborted = |end| {
                let to = log.index_bound(end);
                partition.transactions.aborted(ask.offset, to, log.end())
            };
            part.aborted = Some(if reads { aborted(slice.end) } else { Vec::new() });
        }
        part.batches = slice.batches;
        Ok(part)
    }
}

/// Where a client that has read up to `offset`, last under `epoch`, and the log part; `None`: nowhere.
fn diverges(log: &PartitionLog, offset: i64, epoch: i32) -> Result<Option<(i32, i64)>, i16> {
    if epoch < 0 {
        return Ok(None);
    }
    let (known, end) = log.end_of_epoch(epoch).ok_or(code::OFFSET_OUT_OF_RANGE)?;
    if offset < log.start() {
        return Err(code::OFFSET_OUT_OF_RANGE);
    }
    Ok((known < epoch || end < offset).then_some((known, end)))
}
