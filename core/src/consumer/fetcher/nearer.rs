//! Reading from a replica that is nearer than the leader (KIP-392), and the way back: when
//! [`policy::replica`](crate::policy::replica) says so. Whatever a replica answers that is no record, or does not
//! answer, is nothing to the application: the leader is asked, from the same position.

use std::time::Duration;

use tokio::time::Instant;

use super::{Asked, Fetcher};
use crate::consumer::reading::{Reading, Source, Waits};
use crate::consumer::slot::SlotId;
use crate::environment::earlier;
use crate::metrics::limited;
use crate::policy::metadata_refresh::RefreshReason;

/// A broker that was not asked for so long was not asked all the time: how far a replica is says nothing then.
pub(super) const REST: Duration = Duration::from_secs(1);

impl Fetcher {
    /// Whom a partition is to be read from.
    pub(super) fn source(&self, reading: &Reading, leader: (i32, i32), now: Instant) -> i32 {
        let near = reading.replica.source(leader, now);
        // One that metadata does not know yet cannot be asked.
        if near == leader.0 || self.pool.broker(near).is_some() { near } else { leader.0 }
    }

    /// The broker that what is queued of a partition came from, as far as it is read now.
    pub(super) fn broker_of(&self, slot: SlotId) -> Option<i32> {
        let reading = self.reading.get(slot)?;
        match reading.waits {
            Waits::Fetch(broker) => Some(broker),
            _ => self.leader(&reading.key).map(|(leader, _)| leader),
        }
    }

    /// A leader's response names a replica to read from; `end`: the partition's end, as the leader has it. Gives whether
    /// the partition is read there from now on.
    pub(super) fn sent_on(
        &mut self,
        part: &Asked,
        (from, named): (i32, i32),
        end: i64,
        now: Instant,
    ) -> bool {
        // Nobody is sent anywhere who did not say where he is.
        if named < 0 || self.pool.settings().rack.is_none() || !self.is_asked_of(from, part) {
            return false;
        }
        let Some(leader) = self.leader(&part.key) else { return false };
        let Some(reading) = self.reading.get_mut(part.slot) else { return false };
        let (topic, partition) = &part.key;
        // Brokers hear of each other before we do: as long as it would name this one, the leader gives nothing itself.
        if self.pool.broker(named).is_none() {
            let is_news = reading.replica.stranger((from, named), leader.0, now, &mut self.rng);
            if is_news {
                limited!(self.pool.metrics().logs(), "ottla::consumer", DEBUG, %topic, partition, leader = from, replica = named, "a nearer replica is named that metadata does not have: read from the leader");
                self.shunned.insert(part.slot);
                self.pool.metadata().want(topic, RefreshReason::Stale);
            }
            return is_news;
        }
        if !reading.replica.told((from, named), leader, now, &mut self.rng) {
            return false;
        }
        let at = reading.next.map_or(i64::MAX, |at| at.offset);
        reading.replica.expects(at, end, now);
        self.leases.extend(reading.replica.until(now).map(|at| (at, part.slot)));
        limited!(self.pool.metrics().logs(), "ottla::consumer", DEBUG, %topic, partition, leader = from, replica = named, "read from a nearer replica");
        self.pool.metrics().replica_chosen();
        true
    }

    /// A broker says where a partition ends. If it leads it, that is expected of a replica that is read from, too.
    pub(super) fn says_end(&mut self, part: &Asked, from: i32, end: i64, now: Instant) {
        let leads = self.leader(&part.key).is_some_and(|(leader, _)| leader == from);
        let Some(reading) = self.reading.get(part.slot).filter(|_| leads) else { return };
        // What it says of a topic that was before counts for nothing; and mostly there is no replica.
        let is_of = (&reading.key, reading.id) == (&part.key, part.id);
        let Some(at) = reading.next.filter(|_| is_of && reading.replica.until(now).is_some())
        else {
            return;
        };
        let Some(reading) = self.reading.get_mut(part.slot) else { return };
        if reading.replica.hears(at.offset, end, now) {
            self.leases.extend(reading.replica.until(now).map(|at| (at, part.slot)));
        }
    }

    /// Something is wrong with what a broker says of a partition, or it says nothing. If it is a replica that the leader
    /// has named, the leader is read from: `true`, and nothing else is to be done about it.
    pub(super) fn leaves_replica(&mut self, part: &Asked, from: i32, now: Instant) -> bool {
        if !self.is_asked_of(from, part) {
            return false;
        }
        let Some(leader) = self.leader(&part.key) else { return false };
        let Some(reading) = self.reading.get(part.slot) else { return false };
        if from == leader.0 || reading.replica.source(leader, now) != from {
            return false;
        }
        self.shuns(part.slot, from, now);
        true
    }

    /// A broker is asked for a partition that was left out until now: if it is a replica, its time begins.
    pub(super) fn is_asked_again(&mut self, slot: SlotId, now: Instant) {
        let is_near = |reading: &Reading| reading.replica.until(now).is_some();
        if self.reading.get(slot).is_some_and(is_near)
            && let Some(reading) = self.reading.get_mut(slot)
        {
            reading.replica.waits(now);
        }
    }

    /// The same where nothing was asked of a broker for some time.
    pub(super) fn has_rested(&mut self, broker: i32, now: Instant) {
        let is_of = |slot: &SlotId| {
            self.reading.get(*slot).is_some_and(|reading| reading.waits == Waits::Fetch(broker))
        };
        let slots: Vec<SlotId> = self.leases.iter().map(|(_, slot)| *slot).filter(is_of).collect();
        slots.into_iter().for_each(|slot| self.is_asked_again(slot, now));
    }

    fn shuns(&mut self, slot: SlotId, replica: i32, now: Instant) {
        let Some(reading) = self.reading.get_mut(slot) else { return };
        reading.replica.trouble(replica, now, &mut self.rng);
        let (topic, partition) = &reading.key;
        limited!(self.pool.metrics().logs(), "ottla::consumer", WARN, %topic, partition, replica, "a nearer replica makes trouble: read from the leader");
        self.pool.metrics().replica_left();
        self.shunned.insert(slot);
    }

    /// Looks at those whose leader's word may count no more, or whose replica may be behind.
    pub(super) fn look_at_leases(&mut self, now: Instant) {
        while let Some((at, slot)) = self.leases.first().copied()
            && at <= now
        {
            self.leases.pop_first();
            let Some(reading) = self.reading.get_mut(slot) else { continue };
            let at = reading.next.map_or(i64::MAX, |at| at.offset);
            let (queued, waits) = (reading.queued.bytes, reading.waits);
            // One that is not asked, as the partition is paused, enough of it or of others is queued, or the next Fetch
            // has to wait, is not behind.
            if let Some(replica) = reading.replica.behind(at, now) {
                let is_asked = |source: &Source| {
                    let between = source.rests.is_some_and(|since| now < since + REST);
                    (source.in_flight > 0 || between) && source.session.asked(slot).is_some()
                };
                let is_asked = self.sources.get(&replica).is_some_and(is_asked);
                if waits == Waits::Fetch(replica) && queued == 0 && is_asked {
                    self.shuns(slot, replica, now);
                    continue;
                }
                reading.replica.waits(now);
            }
            self.leases.extend(reading.replica.until(now).map(|at| (at, slot)));
        }
        self.wake_at = earlier(self.wake_at, self.leases.first().map(|(at, _)| *at));
    }

    /// What a broker is told of where this client is: nothing as long as it would name, for a partition that it leads, a
    /// replica that makes trouble.
    pub(super) fn rack_for(&mut self, broker: i32, now: Instant) -> Option<String> {
        let rack = self.pool.settings().rack.clone()?;
        let Self { shunned, reading, pool, .. } = self;
        shunned.retain(|slot| {
            let Some(reading) = reading.get_mut(*slot) else { return false };
            reading.replica.meets(|id| pool.broker(id).is_some());
            !reading.replica.tells_rack(now)
        });
        let mut led =
            self.shunned.iter().filter_map(|slot| self.leader(&self.reading.get(*slot)?.key));
        (!led.any(|(leader, _)| leader == broker)).then_some(rack)
    }
}
