//! Whether what was read is still in the log of a new leader, where Fetch does not say it: brokers whose Fetch is older
//! than version 12 do not compare the epoch of a position with their log. So they are asked where that epoch ends, before
//! anything more is read of them (KIP-320), after each change of the leader epoch.
//!
//! Of a leader that does not know the epoch either the offset alone is what there is to go by.

use std::collections::{BTreeSet, HashMap};

use kafka_protocol::messages::fetch_response::EpochEndOffset;
use tokio::time::Instant;

use super::exchange::TELLS_EPOCHS;
use super::silence::Kind;
use super::{Asked, Event, Fetcher, What, leave};
use crate::caught::caught;
use crate::cluster::epoch_ends::{self, EpochEnd, Wanted};
use crate::consumer::buffer::Key;
use crate::consumer::position::Position;
use crate::consumer::reading::{Reading, Waits};
use crate::consumer::slot::SlotId;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::metadata_refresh::RefreshReason;
use crate::protocol::NO_EPOCH;

/// Where the epochs of partitions end, as one leader told it.
pub(super) type Ends = Result<Vec<(Key, Result<EpochEnd>)>>;

impl Fetcher {
    /// Whether a leader has to be asked before a partition is read on there.
    pub(super) fn is_unchecked(&self, reading: &Reading, (leader, epoch): (i32, i32)) -> bool {
        let version = self.sources.get(&leader).and_then(|source| source.version);
        version.is_some_and(|version| version < TELLS_EPOCHS) && has_to_be_checked(reading, epoch)
    }

    /// Asks where the epochs of positions end. Each leader is asked on its own, as for starts.
    pub(super) fn check_epochs(&mut self, now: Instant) {
        let checking: Vec<(i32, BTreeSet<SlotId>)> = self
            .sources
            .iter_mut()
            .filter(|(_, source)| !source.checking.is_empty())
            .map(|(leader, source)| (*leader, std::mem::take(&mut source.checking)))
            .collect();
        for (leader, slots) in checking {
            let (mut wanted, mut asked) = (Vec::new(), Vec::new());
            for slot in slots {
                self.reading.waits_for(slot, Waits::Nothing);
                let Some(reading) = self.reading.get(slot) else { continue };
                let Some((_, leader_epoch)) = self.leader(&reading.key) else { continue };
                let Some(reading) = self.reading.get_mut(slot) else { continue };
                let Some(Position { offset, epoch, .. }) = reading.next else { continue };
                reading.looking = true;
                wanted.push(Wanted { key: reading.key.clone(), epoch, leader_epoch });
                asked.push((
                    Asked::of(slot, reading, What::Records { offset, epoch }),
                    leader_epoch,
                ));
            }
            if wanted.is_empty() {
                continue;
            }
            self.troubles.wait_for(Some(leader));
            let (pool, tx, lane) = (self.pool.clone(), self.tx.clone(), self.lane);
            self.env.spawn(async move {
                let found = caught(async {
                    pool.env().mishap("epochs");
                    epoch_ends::ask(&pool, lane, leader, &wanted).await
                });
                let ends = found.await.and_then(|found| found);
                if tx.send(Event::Epochs { leader, asked, sent: now, ends }).is_err() {
                    leave(&pool, lane);
                }
            });
        }
    }

    /// A leader has told where epochs end, or has not.
    pub(super) fn checked(
        &mut self,
        leader: i32,
        asked: &[(Asked, i32)],
        sent: Instant,
        ends: Ends,
        now: Instant,
    ) {
        for (part, _) in asked {
            if let Some(reading) = self.reading.get_mut(part.slot)
                && part.incarnation == reading.incarnation
                && reading.next.is_some()
            {
                // Also if a late Fetch has moved it meanwhile: it is looked at anew then.
                reading.looking = false;
            }
        }
        let ends = match ends {
            Ok(ends) => ends,
            // Nobody can be asked there.
            Err(error) if error.kind() == ErrorKind::UnsupportedVersion => {
                asked.iter().for_each(|(part, epoch)| self.is_checked(part, *epoch));
                return;
            }
            Err(error) => {
                self.request_failed(leader, asked.iter().map(|(part, _)| part), &error, now);
                self.failed_unanswered(leader, Kind::ListOffsets, sent, &error, now);
                return;
            }
        };
        let source = self.sources.entry(leader).or_default();
        source.spell.ended();
        source.starts_silence.answered();
        let mut left: HashMap<Key, &(Asked, i32)> =
            asked.iter().map(|one| (one.0.key.clone(), one)).collect();
        let mut again = None;
        for (key, end) in ends {
            let Some((part, epoch)) = left.remove(&key) else { continue };
            let error = match end {
                Ok(end) => self.ends_at(part, *epoch, end).err(),
                Err(error) => Some(error),
            };
            let Some(error) = error.filter(|_| self.is_asked_of(leader, part)) else { continue };
            self.pool.metadata().want(&key.0, RefreshReason::Stale);
            self.partition_failed(part.slot, &error, now, &mut again);
        }
        for (part, _) in left.into_values() {
            if self.is_asked_of(leader, part) {
                let error = super::responses::left_out(&part.key);
                self.partition_failed(part.slot, &error, now, &mut again);
            }
        }
    }

    /// The leader's log has the epoch up to here.
    fn ends_at(&mut self, part: &Asked, leader_epoch: i32, told: EpochEnd) -> Result<(), Error> {
        let Some((reading, from)) = part.current(&mut self.reading) else { return Ok(()) };
        let is_known = told.epoch >= 0 && told.end >= 0;
        if !is_known {
            // The next Fetch goes by the offset alone: if the log has less than that, it is out of range.
            reading.next = Some(Position::at(from.offset, NO_EPOCH));
        }
        let parts = is_known && (told.epoch < from.epoch || told.end < from.offset);
        if parts {
            let end = EpochEndOffset::default().with_epoch(told.epoch).with_end_offset(told.end);
            self.parted(part, &end)?;
        }
        if let Some(reading) = self.reading.get_mut(part.slot)
            && reading.incarnation == part.incarnation
        {
            reading.checked = leader_epoch;
        }
        self.partition_is_well(part.slot);
        Ok(())
    }

    fn is_checked(&mut self, part: &Asked, leader_epoch: i32) {
        if let Some((reading, _)) = part.current(&mut self.reading) {
            reading.checked = leader_epoch;
        }
    }
}

/// Whether the position was read under another leader than the one of this epoch, as far as is known.
pub(super) fn has_to_be_checked(reading: &Reading, leader_epoch: i32) -> bool {
    let known = leader_epoch >= 0 && reading.next.is_some_and(|at| at.epoch >= 0);
    known && reading.checked != leader_epoch
}
