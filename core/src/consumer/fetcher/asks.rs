//! Whom to ask now, and for what: one Fetch for each broker that has none in flight, if there is room for what it
//! may bring, and none of the policies has it wait.
//!
//! A partition that somebody reads alone (a stream) is fetched ahead within its share of the memory, whatever is queued of the
//! others. Where memory is full, only for those is anything fetched who wait, and have nothing: else what nobody takes
//! would grow beyond all bounds, a response for each of them.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::Fetcher;
use super::nearer::REST;
use crate::cluster::BudgetKind;
use crate::consumer::buffer::Marks;
use crate::consumer::reading::{Source, Waits};
use crate::consumer::slot::SlotId;
use crate::environment::earlier;
use crate::metrics::limited;
use crate::policy::read_ahead::{Came, LEAST, Limits, Plan, Queued, Reader, SHORT, View};
use crate::policy::retry_budget::Cost;

/// The memory that all brokers share.
#[derive(Clone, Copy)]
struct Room {
    /// Bytes that may come, besides those that requests in flight may bring.
    bytes: usize,
    /// The most that one broker may bring.
    share: usize,
    /// Who reads what no stream has, has nothing to take.
    dry: bool,
    /// Nothing is on its way.
    quiet: bool,
}

impl Fetcher {
    /// Sends one Fetch to each leader that has none in flight.
    pub(super) fn fetch(&mut self, now: Instant) {
        self.settle(now);
        self.close_emptied(now);
        let (free, dry) = self.survey(now);
        if dry && free == 0 {
            let kept = self.buffer.budget.held();
            limited!(
                self.pool.metrics().logs(),
                "ottla::consumer",
                WARN,
                kept,
                "the application keeps all of buffer_memory in batches: reading goes on slowly; detach what is kept, or raise buffer_memory"
            );
        }
        // Bytes that requests in flight may bring count: all responses together must fit the buffer. Each may
        // bring one batch that is larger than asked for, since brokers never cut the first.
        let reserved =
            |fetcher: &Self| fetcher.sources.values().map(|s| s.in_flight).sum::<usize>();
        let in_flight = reserved(self);
        let is_free = |source: &Source| source.in_flight == 0 && !source.wanted.is_empty();
        let ready = self.sources.iter().filter(|(_, source)| is_free(source));
        let mut ready: Vec<i32> = ready.map(|(leader, _)| *leader).collect();
        // If the buffer has no room for a response of every broker, brokers take turns, and each Fetch asks for
        // at most its share of the buffer. Otherwise a broker without new records, which holds its Fetch back,
        // would reserve memory that the others need.
        ready.sort_by_key(|leader| self.sources.get(leader).map_or(0, |source| source.asked));
        let bytes = free.saturating_sub(in_flight);
        let mut room = Room { bytes, share: self.share(), dry, quiet: in_flight == 0 };
        // Nothing that could be taken is no news then.
        let mut marks = Marks { dry: !dry, ..Marks::default() };
        for leader in ready {
            let Some(asked) = self.ask(leader, room, &mut marks, now) else { continue };
            room.bytes = room.bytes.saturating_sub(asked);
            room.quiet = false;
        }
        let in_flight = reserved(self);
        marks.free = marks.free.map(|free| free.saturating_add(in_flight));
        self.buffer.mark(marks);
    }

    /// Sees what is queued, and what was taken. Gives how many bytes are free, and whether a reader has nothing to
    /// take.
    fn survey(&mut self, now: Instant) -> (usize, bool) {
        let survey = self.buffer.survey(&std::mem::take(&mut self.moves));
        self.see_streams(survey.own, survey.own_share);
        for amount in survey.amounts {
            let slot = amount.slot;
            self.reading.holds(&amount, now);
            let broker = self.broker_of(slot);
            let Some(source) = broker.and_then(|broker| self.sources.get_mut(&broker)) else {
                continue;
            };
            source.taken += amount.drained;
            source.largest = source.largest.max(amount.largest);
            if amount.bytes > 0 && source.wanted.contains(&slot) {
                source.holding.insert(slot);
            } else {
                source.holding.remove(&slot);
            }
        }
        (survey.free, survey.dry)
    }

    /// Which partitions have a stream, and which of those waits and has nothing. What may come of one at once is its share of
    /// the memory, of which the broker is to hear.
    fn see_streams(&mut self, own: BTreeMap<SlotId, bool>, share: usize) {
        let other_share = std::mem::replace(&mut self.own_share, share) != share;
        let before = std::mem::replace(&mut self.own, own);
        let now = &self.own;
        let gone = before.keys().filter(|slot| !now.contains_key(*slot));
        let come = now.keys().filter(|slot| other_share || !before.contains_key(*slot));
        let changed: Vec<SlotId> = gone.chain(come).copied().collect();
        for slot in changed {
            let waits = self.reading.get(slot).map(|reading| reading.waits);
            if let Some(Waits::Fetch(leader)) = waits {
                self.tell(slot, leader);
            }
        }
    }

    /// How much of a partition one response may bring.
    pub(super) fn most_of(&self, slot: SlotId) -> usize {
        let most = self.buffer.config.max_partition_bytes;
        if self.own.contains_key(&slot) { most.min(self.own_share) } else { most }
    }

    /// Asks one broker, if it is time. Gives how many bytes it may bring.
    fn ask(&mut self, leader: i32, room: Room, marks: &mut Marks, now: Instant) -> Option<usize> {
        let limits = self.limits(room.share);
        let source = self.sources.get_mut(&leader)?;
        if let Some(at) = source.pacing.not_before(now) {
            self.wake_at = earlier(self.wake_at, Some(at));
            return None;
        }
        let (reading, streams, own_share) = (&self.reading, &self.own, self.own_share);
        let queue = |slot: &SlotId| {
            let reading = reading.get(*slot)?;
            let is_own = streams.contains_key(slot);
            let reader = if is_own { Reader::Own } else { Reader::Shared };
            let (bytes, largest, lags) =
                (reading.queued.bytes, reading.queued.largest, reading.lags);
            let moved = reading.queued.moved.unwrap_or(now);
            Some(Queued {
                bytes,
                largest,
                reader,
                is_over: is_own && bytes >= own_share
                    || source.ahead.is_over(bytes, largest, &limits),
                lags,
                moved,
            })
        };
        let queues: Vec<Queued> = source.holding.iter().filter_map(queue).collect();
        let shared = queues.iter().filter(|queued| queued.reader == Reader::Shared);
        let queued: usize = shared.map(|queued| queued.bytes).sum();
        let is_over = |slot: &&SlotId| queue(slot).is_some_and(|queued| queued.is_over);
        let mut out: BTreeSet<SlotId> = source.holding.iter().filter(is_over).copied().collect();
        let least = source.ahead.least(source.largest, &limits);
        let (mut dry, mut leaves_out_lagging) = (room.quiet && room.dry, false);
        if !streams.is_empty() && room.quiet && room.bytes < least {
            let waits = |slot: &&SlotId| streams.get(slot).copied().unwrap_or(room.dry);
            out.extend(source.wanted.iter().filter(|slot| !waits(slot)));
            dry = out.len() < source.wanted.len();
            leaves_out_lagging = !out.is_disjoint(&source.lagging);
        }
        let over_and_lagging = out.intersection(&source.lagging).count();
        let is_asked_for = |slot: &&SlotId| source.lagging.contains(slot) && !out.contains(slot);
        let own: Vec<SlotId> = streams.keys().filter(is_asked_for).copied().collect();
        let lagging = source.lagging.len() - over_and_lagging - own.len();
        let idle = source.wanted.len() - out.len() - lagging - own.len();
        let view = View {
            queues: &queues,
            lagging,
            idle,
            own: own.len(),
            taken: source.taken,
            room: room.bytes.min(room.share.max(least)),
            dry,
            largest: source.largest,
        };
        let low = source.ahead.low(source.largest, &limits);
        // What has to be taken, or free, before anything else can be decided.
        let look_again = |marks: &mut Marks| {
            match queued.checked_sub(low).filter(|to_take| *to_take > 0) {
                Some(to_take) => marks.taken.push((leader, to_take)),
                None if queued > 0 => marks.taken.push((leader, queued.div_ceil(2))),
                None => {}
            }
            if room.bytes < least {
                marks.free = Some(marks.free.map_or(least, |free| free.min(least)));
            }
        };
        let (max_bytes, max_wait, idle_only) = match source.ahead.plan(&view, &limits, now) {
            // Those that are left out for memory alone may be read to in a moment, and nothing else goes out until then.
            Plan::Ask { max_bytes, max_wait, idle_only } if leaves_out_lagging => {
                (max_bytes, max_wait.min(SHORT), idle_only)
            }
            Plan::Ask { max_bytes, max_wait, idle_only } => (max_bytes, max_wait, idle_only),
            Plan::Wait(until) => {
                self.wake_at = earlier(self.wake_at, until);
                look_again(marks);
                return None;
            }
        };
        // Where there is something in what is named the broker answers at once.
        let waits = (lagging == 0 || idle_only) && own.is_empty();
        if let Some(at) = source.trickle.not_before(now).filter(|_| waits) {
            self.wake_at = earlier(self.wake_at, Some(at));
            return None;
        }
        if idle_only {
            out.extend(source.lagging.iter().filter(|slot| !streams.contains_key(slot)));
        }
        let retry = match self.pay(leader, &out, now) {
            Ok(retry) => retry,
            Err(at) => {
                self.wake_at = earlier(self.wake_at, Some(at));
                look_again(marks);
                return None;
            }
        };
        self.leave_out(leader, out, now);
        if self.sources.get_mut(&leader)?.rests.take().is_some_and(|since| now >= since + REST) {
            self.has_rested(leader, now);
        }
        let source = self.sources.get_mut(&leader)?;
        source.ahead.sent(now);
        source.taken = 0;
        // It is not waited for for ever that there is as large a one again.
        source.largest -= source.largest / 16;
        self.send(leader, (max_bytes, max_wait), retry, now).then_some(max_bytes)
    }

    /// The memory that each broker has which is read from.
    fn share(&self) -> usize {
        let is_read = |source: &&Source| source.in_flight > 0 || !source.wanted.is_empty();
        let brokers = self.sources.values().filter(is_read).count();
        (self.buffer.config.buffer_memory / brokers.max(1)).max(1)
    }

    /// With two and a half responses for each broker, in flight and queued, there is memory left for one that brings
    /// more than it was asked for.
    fn limits(&self, share: usize) -> Limits {
        let config = &self.buffer.config;
        let max_bytes = config.max_bytes.min(share / 4).max(1);
        Limits { max_bytes, max_wait: config.max_wait, least: LEAST.min(max_bytes) }
    }

    /// A response has come: how fast, and whether it was waited for.
    pub(super) fn came(&mut self, leader: i32, bytes: usize, sent: Instant, now: Instant) {
        self.survey(now);
        let limits = self.limits(self.share());
        let Some(source) = self.sources.get_mut(&leader) else { return };
        // What lies in a stream's queue says nothing of the others, nor of how it is read.
        let waits = |slot: &SlotId| self.own.get(slot).copied().unwrap_or(false);
        let waited = source.holding.iter().all(|slot| self.own.contains_key(slot))
            && (self.own.is_empty() || source.wanted.iter().any(waits));
        let (asked, taken) = (source.in_flight, source.taken);
        let took = now.saturating_duration_since(sent);
        source.ahead.answered(&Came { bytes, asked, took, taken, waited }, &limits);
    }

    /// Of what is wanted of a broker, these are left out of the next Fetch, and no others.
    fn leave_out(&mut self, leader: i32, out: BTreeSet<SlotId>, now: Instant) {
        let Some(source) = self.sources.get_mut(&leader) else { return };
        out.difference(&source.out).for_each(|slot| source.session.unwant(*slot));
        let again: Vec<SlotId> = source.out.difference(&out).copied().collect();
        source.out = out;
        for slot in again {
            self.tell(slot, leader);
            self.is_asked_again(slot, now);
        }
    }

    /// A request in which every partition is tried again is paid from the retry budget. Gives whether it is
    /// such a request, or as an error the time at which the budget can pay.
    pub(super) fn pay(
        &mut self,
        leader: i32,
        out: &BTreeSet<SlotId>,
        now: Instant,
    ) -> Result<bool, Instant> {
        let again =
            |slot: &SlotId| self.reading.get(*slot).is_some_and(|r| r.backoff.attempts() > 0);
        let budgets = self.pool.budgets();
        let source = self.sources.entry(leader).or_default();
        let retry = source.wanted.difference(out).all(again);
        if !retry {
            budgets.first_request(BudgetKind::Fetch, now);
        } else if let Err(at) = budgets.retry(BudgetKind::Fetch, Cost::Definite, now) {
            if !std::mem::replace(&mut source.unpaid, true) {
                budgets.delayed(BudgetKind::Fetch);
            }
            return Err(at);
        }
        source.unpaid = false;
        Ok(retry)
    }
}
