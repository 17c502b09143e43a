//! What each partition waits for: the next Fetch of the broker that it is read from, to have its start looked up or its
//! position compared with the leader's log, or a time. Only partitions that something has changed for are looked at (see [`Readings`]), so that ten thousand
//! idle ones cost nothing.
//!
//! [`Readings`]: crate::consumer::reading::Readings

use std::sync::Arc;

use tokio::time::Instant;

use super::exchange::int;
use super::{Asked, Fetcher};
use crate::consumer::fetch::known::PartitionRef;
use crate::consumer::fetch::session::Told;
use crate::consumer::reading::{Source, Waits};
use crate::consumer::slot::SlotId;
use crate::environment::earlier;

impl Fetcher {
    /// Puts each partition that was touched, or whose time has come, where it belongs.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some((at, slot)) = self.retries.first().copied()
            && at <= now
        {
            self.retries.pop_first();
            self.reading.waits_for(slot, Waits::Nothing);
            self.reading.touch(slot);
        }
        self.look_at_leases(now);
        let mut without_leader = Vec::new();
        loop {
            for slot in self.reading.take_touched() {
                let (waits, leaderless) = self.look(slot, now);
                self.place(slot, waits);
                if leaderless {
                    without_leader.push(slot);
                }
            }
            if without_leader.is_empty() {
                break;
            }
            // These are touched: they are to be tried again at some time.
            self.without_leader(&std::mem::take(&mut without_leader), now);
        }
        self.wake_at = earlier(self.wake_at, self.retries.first().map(|(at, _)| *at));
    }

    /// What a partition waits for; and whether nobody leads it, which is nothing to wait for.
    fn look(&self, slot: SlotId, now: Instant) -> (Waits, bool) {
        let Some(reading) = self.reading.get(slot) else { return (Waits::Nothing, false) };
        let unwanted = reading.looking || reading.paused && reading.next.is_some();
        if reading.stopped || unwanted {
            return (Waits::Nothing, false);
        }
        if let Some(at) = reading.retry_at.filter(|at| *at > now) {
            return (Waits::Retry(at), false);
        }
        match self.leader(&reading.key) {
            // The topic is not known now. A change of the metadata tells when it is.
            None => (Waits::Nothing, false),
            Some((..0, _)) => (Waits::Nothing, true),
            Some(leader) if self.is_unchecked(reading, leader) => (Waits::Epoch(leader.0), false),
            Some(leader) if reading.next.is_some() => {
                (Waits::Fetch(self.source(reading, leader, now)), false)
            }
            Some((leader, _)) => (Waits::Start(leader), false),
        }
    }

    /// It waits for something else than before.
    pub(super) fn place(&mut self, slot: SlotId, waits: Waits) {
        let before = self.reading.waits_for(slot, waits);
        if before != waits {
            self.leave(slot, before);
            match waits {
                Waits::Nothing => {}
                Waits::Retry(at) => _ = self.retries.insert((at, slot)),
                Waits::Start(leader) => {
                    _ = self.sources.entry(leader).or_default().starting.insert(slot);
                }
                Waits::Epoch(leader) => {
                    _ = self.sources.entry(leader).or_default().checking.insert(slot);
                }
                Waits::Fetch(leader) => {
                    self.sources.entry(leader).or_default().wanted.insert(slot);
                    self.moves.push((slot, leader));
                }
            }
        }
        if let Waits::Fetch(leader) = waits {
            self.tell(slot, leader);
        }
    }

    /// The next Fetch to this broker says what is wanted of a partition now, unless it is left out.
    pub(super) fn tell(&mut self, slot: SlotId, leader: i32) {
        let Some(reading) = self.reading.get(slot) else { return };
        let (Some(from), Some((_, epoch))) = (reading.next, self.leader(&reading.key)) else {
            return;
        };
        let (topic, partition) = &reading.key;
        let of = PartitionRef { topic: Arc::clone(topic), id: reading.id, partition: *partition };
        let told = Told {
            of,
            incarnation: reading.incarnation,
            offset: from.offset,
            fetched_epoch: from.epoch,
            leader_epoch: epoch,
            max_bytes: int(self.most_of(slot)),
        };
        let source = self.sources.entry(leader).or_default();
        for (set, is_in) in [
            (&mut source.holding, reading.queued.bytes > 0),
            (&mut source.lagging, reading.lags),
            (&mut source.retrying, reading.backoff.attempts() > 0),
            (&mut source.nameless, reading.id.is_nil()),
        ] {
            if is_in {
                set.insert(slot)
            } else {
                set.remove(&slot)
            };
        }
        if !source.out.contains(&slot) {
            source.session.want(slot, told);
        }
    }

    /// Whether what a broker says of a partition that it was asked for counts: it is still the same one, and nobody
    /// else is asked by now.
    pub(super) fn is_asked_of(&self, leader: i32, part: &Asked) -> bool {
        let Some(reading) = self.reading.get(part.slot) else { return false };
        let elsewhere = match reading.waits {
            Waits::Start(of) | Waits::Epoch(of) | Waits::Fetch(of) => of != leader,
            Waits::Nothing | Waits::Retry(_) => false,
        };
        reading.incarnation == part.incarnation && !elsewhere
    }

    /// It waits for this no more.
    pub(super) fn leave(&mut self, slot: SlotId, waits: Waits) {
        match waits {
            Waits::Nothing => {}
            Waits::Retry(at) => _ = self.retries.remove(&(at, slot)),
            Waits::Start(leader) => {
                if let Some(source) = self.sources.get_mut(&leader) {
                    source.starting.remove(&slot);
                }
            }
            Waits::Epoch(leader) => {
                if let Some(source) = self.sources.get_mut(&leader) {
                    source.checking.remove(&slot);
                }
            }
            Waits::Fetch(leader) => {
                let Some(source) = self.sources.get_mut(&leader) else { return };
                let Source { wanted, lagging, retrying, nameless, out, holding, session, .. } =
                    source;
                for set in [wanted, lagging, retrying, nameless, out, holding] {
                    set.remove(&slot);
                }
                session.unwant(slot);
            }
        }
    }
}
