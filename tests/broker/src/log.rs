//! One partition's log: whole batches, in memory, oldest first.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::batch::{BatchHeader, HEADER_LEN, REWRITTEN_LEN};

/// A batch as it was sent, and what the log decided about it.
#[derive(Debug, Clone)]
pub(crate) struct StoredBatch {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) leader_epoch: i32,
    /// A slice of the request's frame. Its base offset and leader epoch are still the producer's;
    /// the log's are put in front of it when it is served, so that a frame is never copied.
    pub(crate) data: Bytes,
}

/// A batch on its way to a consumer: the rewritten first bytes, and the rest as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct ServedBatch {
    pub(crate) head: [u8; REWRITTEN_LEN],
    pub(crate) rest: Bytes,
}

impl ServedBatch {
    pub(crate) fn new(base_offset: i64, leader_epoch: i32, data: &Bytes) -> Self {
        let mut head = [0; REWRITTEN_LEN];
        head[..8].copy_from_slice(&base_offset.to_be_bytes());
        head[8..12].copy_from_slice(&data[8..12]);
        head[12..].copy_from_slice(&leader_epoch.to_be_bytes());
        Self { head, rest: data.slice(REWRITTEN_LEN..) }
    }

    pub(crate) fn len(&self) -> usize {
        REWRITTEN_LEN + self.rest.len()
    }

    /// Cuts the batch after `len` bytes, which are at least a header's.
    fn truncate(&mut self, len: usize) {
        self.rest.truncate(len - REWRITTEN_LEN);
    }
}

/// What a log keeps.
#[derive(Debug, Clone)]
pub(crate) enum Keeps {
    /// Everything, until retention takes it.
    Batches,
    /// Nothing: offsets move on and the log start with them.
    Nothing,
    /// One batch, served again and again at every offset.
    Endless { batch: Bytes, records: i64 },
}

#[derive(Debug)]
pub(crate) struct PartitionLog {
    keeps: Keeps,
    batches: VecDeque<StoredBatch>,
    start: i64,
    end: i64,
    high_watermark: i64,
    /// Leader epochs and the offsets they began at, as Kafka's `LeaderEpochFileCache` keeps them.
    epochs: Vec<(i32, i64)>,
    /// Ends of batches that the followers do not have yet, and when each was appended.
    unreplicated: VecDeque<(i64, Instant)>,
}

/// What [`PartitionLog::read`] found.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) batches: Vec<ServedBatch>,
    pub(crate) bytes: usize,
    /// Offset behind the last of them.
    pub(crate) end: i64,
}

/// Kafka has an index entry for so many bytes of a log (`index.interval.bytes`).
const INDEX_INTERVAL: usize = 4096;

impl PartitionLog {
    pub(crate) fn new(keeps: Keeps) -> Self {
        // An endless log has an end that no test reaches, and that leaves room to count on.
        let end = match keeps {
            Keeps::Endless { .. } => i64::MAX >> 8,
            _ => 0,
        };
        Self {
            keeps,
            batches: VecDeque::new(),
            start: 0,
            end,
            high_watermark: end,
            epochs: vec![(0, 0)],
            unreplicated: VecDeque::new(),
        }
    }

    /// A leader takes over under a new epoch. One that wrote nothing is forgotten, as in Kafka.
    pub(crate) fn begin_epoch(&mut self, epoch: i32) {
        self.epochs.retain(|(_, start)| *start < self.end);
        self.epochs.push((epoch, self.end));
    }

    /// The largest epoch known up to `epoch`, and where it ends; `None` for one larger than all that
    /// are known. Kafka's `LeaderEpochFileCache.endOffsetFor`.
    pub(crate) fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        end_of_epoch(&self.epochs, epoch, self.end)
    }

    /// The same in a follower's log, which ends at `end`: it hears of an epoch with its first batch.
    pub(crate) fn end_of_epoch_before(&self, epoch: i32, end: i64) -> Option<(i32, i64)> {
        let heard = self.epochs.partition_point(|(_, start)| *start < end);
        end_of_epoch(&self.epochs[..heard], epoch, end)
    }

    /// Cuts the log back to the batches that end before `end`: a leader without the rest took over.
    /// Returns the bytes freed and how many batches they were.
    pub(crate) fn cut_back(&mut self, end: i64) -> (usize, usize) {
        let (mut freed, mut gone) = (0, 0);
        while self.batches.back().is_some_and(|batch| batch.last_offset >= end) {
            let Some(batch) = self.batches.pop_back() else { break };
            freed += batch.data.len();
            gone += 1;
            self.end = batch.base_offset;
        }
        if self.stores() && self.end > end && self.batches.is_empty() {
            // It had none of what is kept, and nothing that was deleted behind its end either.
            self.end = end.max(0);
        }
        let end = self.end;
        self.start = self.start.min(end);
        self.high_watermark = self.high_watermark.min(end);
        self.unreplicated.retain(|(to, _)| *to <= end);
        self.epochs.retain(|(epoch, start)| *start < end || *epoch == 0);
        (freed, gone)
    }

    /// The end of the last batch that does not reach `end`.
    pub(crate) fn whole_batches_before(&self, end: i64) -> i64 {
        let next = self.batches.partition_point(|batch| batch.last_offset < end);
        match self.batches.get(next) {
            Some(batch) => batch.base_offset.min(end),
            None => end.clamp(0, self.end),
        }
    }

    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// The offset up to which every replica has the log, after `delay` of following.
    pub(crate) fn high_watermark(&mut self, now: Instant, delay: Duration) -> i64 {
        while let Some(&(end, appended)) = self.unreplicated.front() {
            if now.saturating_duration_since(appended) < delay {
                break;
            }
            self.high_watermark = end;
            self.unreplicated.pop_front();
        }
        self.high_watermark
    }

    /// When the high watermark moves next without a further append; `None`: not at all.
    pub(crate) fn next_replication(&self, delay: Duration) -> Option<Instant> {
        // A delay beyond the clock's range stands for followers that never catch up.
        self.unreplicated.front().and_then(|(_, appended)| appended.checked_add(delay))
    }

    /// When the high watermark will have reached `offset`.
    pub(crate) fn replicated_at(&self, offset: i64, delay: Duration) -> Option<Instant> {
        self.unreplicated
            .iter()
            .find(|(end, _)| *end >= offset)
            .and_then(|(_, appended)| appended.checked_add(delay))
    }

    /// Appends one checked batch and returns its base offset. `followers`: whether anybody has to
    /// copy it before consumers see it.
    pub(crate) fn append(
        &mut self,
        header: &BatchHeader,
        data: Bytes,
        leader_epoch: i32,
        now: Instant,
        followers: bool,
    ) -> i64 {
        let base_offset = self.end;
        let last_offset = base_offset + i64::from(header.last_offset_delta);
        self.end = last_offset + 1;
        if followers {
            self.unreplicated.push_back((self.end, now));
        } else if self.unreplicated.is_empty() {
            self.high_watermark = self.end;
        } else {
            self.unreplicated.push_back((self.end, now));
        }
        match self.keeps {
            Keeps::Batches => self.batches.push_back(StoredBatch {
                base_offset,
                last_offset,
                max_timestamp: header.max_timestamp,
                leader_epoch,
                data,
            }),
            Keeps::Nothing => self.start = self.end,
            Keeps::Endless { .. } => {}
        }
        base_offset
    }

    pub(crate) fn stores(&self) -> bool {
        matches!(self.keeps, Keeps::Batches)
    }

    /// Deletes the oldest batch and returns its size.
    pub(crate) fn drop_oldest(&mut self) -> Option<usize> {
        let oldest = self.batches.pop_front()?;
        self.start = oldest.last_offset + 1;
        Some(oldest.data.len())
    }

    /// Deletes whole batches below `offset`, as DeleteRecords and retention do; the log start
    /// becomes `offset` even in the middle of a batch. Returns the bytes freed.
    pub(crate) fn delete_before(&mut self, offset: i64) -> usize {
        let mut freed = 0;
        while self.batches.front().is_some_and(|batch| batch.last_offset < offset) {
            freed += self.drop_oldest().unwrap_or(0);
        }
        self.start = self.start.max(offset.min(self.end));
        freed
    }

    pub(crate) fn kept_bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.data.len()).sum()
    }

    /// Batches from the one that holds `offset` up to `limit` (an offset), at most `max_bytes` of
    /// them. `oversized`: the first batch comes even if it alone is larger. `partial`: the last
    /// batch may be cut anywhere, as Kafka cuts it, because it serves byte ranges of a file.
    pub(crate) fn read(
        &self,
        offset: i64,
        limit: i64,
        max_bytes: usize,
        oversized: bool,
        partial: bool,
    ) -> Slice {
        let mut slice = Slice { end: offset, ..Slice::default() };
        if let Keeps::Endless { batch, records } = &self.keeps {
            let mut base = offset / records * records;
            while slice.bytes + batch.len() <= max_bytes || (oversized && slice.bytes == 0) {
                slice.batches.push(ServedBatch::new(base, 0, batch));
                slice.bytes += batch.len();
                base += records;
                slice.end = base;
            }
            return slice;
        }
        let first = self.batches.partition_point(|batch| batch.last_offset < offset);
        for batch in self.batches.range(first..) {
            if batch.last_offset >= limit {
                break;
            }
            let mut served = ServedBatch::new(batch.base_offset, batch.leader_epoch, &batch.data);
            let room = max_bytes.saturating_sub(slice.bytes);
            if served.len() > room && !(oversized && slice.bytes == 0) {
                if partial && room >= HEADER_LEN && slice.bytes > 0 {
                    served.truncate(room);
                    slice.bytes += served.len();
                    slice.end = batch.last_offset + 1;
                    slice.batches.push(served);
                }
                break;
            }
            slice.bytes += served.len();
            slice.end = batch.last_offset + 1;
            slice.batches.push(served);
        }
        slice
    }

    /// An offset that lies behind all that was read up to `end`, as Kafka finds it for the list of
    /// aborted transactions: by an index with an entry for each 4 KiB, so that the list has some that
    /// no batch of the answer is part of.
    pub(crate) fn index_bound(&self, end: i64) -> i64 {
        let first = self.batches.partition_point(|batch| batch.last_offset < end);
        let mut passed = 0;
        for batch in self.batches.range(first..) {
            if passed > INDEX_INTERVAL {
                return batch.base_offset;
            }
            passed += batch.data.len();
        }
        self.end
    }

    pub(crate) fn batches(&self) -> impl Iterator<Item = &StoredBatch> {
        self.batches.iter()
    }
}

fn end_of_epoch(epochs: &[(i32, i64)], epoch: i32, log_end: i64) -> Option<(i32, i64)> {
    if epochs.last().is_some_and(|(latest, _)| *latest == epoch) {
        return Some((epoch, log_end));
    }
    let next = epochs.partition_point(|(known, _)| *known <= epoch);
    let &(_, end) = epochs.get(next)?;
    let floor = next.checked_sub(1).map_or(epoch, |at| epochs[at].0);
    Some((floor, end))
}
