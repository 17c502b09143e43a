//! Whom to ask now, and for what: one Fetch for each broker that has none in flight, if there is room for what it
//! may bring, and none of the policies has it wait.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::Fetcher;
use crate::cluster::BudgetKind;
use crate::consumer::reading::Source;
use crate::consumer::slot::SlotId;
use crate::environment::earlier;
use crate::policy::retry_budget::Cost;

impl Fetcher {
    /// Sends one Fetch to each leader that has none in flight.
    pub(super) fn fetch(&mut self, now: Instant) {
        self.settle(now);
        self.close_emptied(now);
        // Bytes that requests in flight may bring count: all responses together must fit the buffer. Each may
        // bring one batch that is larger than asked for, since brokers never cut the first.
        let in_flight = self.sources.values().map(|source| source.in_flight).sum();
        let mut room = self.buffer.room().saturating_sub(in_flight);
        let free = |source: &Source| source.in_flight == 0 && !source.wanted.is_empty();
        let free: Vec<i32> =
            self.sources.iter().filter(|(_, s)| free(s)).map(|(leader, _)| *leader).collect();
        let mut ready: Vec<(i32, Vec<SlotId>)> = Vec::with_capacity(free.len());
        for leader in free {
            let left_out = self.leave_out(leader);
            let source = self.sources.get(&leader);
            if source.is_some_and(|source| source.out.len() < source.wanted.len()) {
                ready.push((leader, left_out));
            }
        }
        // If the buffer has no room for a response of every broker, brokers take turns, and each Fetch asks for
        // at most its share of the buffer. Otherwise a broker without new records, which holds its Fetch back,
        // would reserve memory that the others need.
        let last = |leader: &i32| self.sources.get(leader).map_or(0, |source| source.asked);
        ready.sort_by_key(|(leader, _)| last(leader));
        let at_work = self.sources.values().filter(|source| source.in_flight > 0).count();
        let share = self.buffer.config.buffer_memory / (at_work + ready.len()).max(1);
        for (leader, mut left_out) in ready {
            let Some(source) = self.sources.get_mut(&leader) else { continue };
            // Where there is something in what is named the broker answers at once.
            let waits = source.lagging.is_subset(&source.out);
            if !waits {
                left_out.clear();
            }
            if left_out.is_empty() {
                source.left_out.nobody();
            } else if let Some(at) = source.left_out.not_before(now) {
                self.wake_at = earlier(self.wake_at, Some(at));
                continue;
            }
            if let Some(at) = source.pacing.not_before(now) {
                self.wake_at = earlier(self.wake_at, Some(at));
                continue;
            }
            let trickle = source.trickle.not_before(now);
            if trickle.is_some() && waits {
                self.wake_at = earlier(self.wake_at, trickle);
                continue;
            }
            let bytes = self.buffer.config.max_bytes.min(share.max(1)).min(room);
            if bytes == 0 {
                break;
            }
            let retry = match self.pay(leader, now) {
                Ok(retry) => retry,
                Err(at) => {
                    self.wake_at = earlier(self.wake_at, Some(at));
                    continue;
                }
            };
            let mut max_wait = self.buffer.config.max_wait;
            if !left_out.is_empty() {
                // What was taken of them counts for this request alone.
                let taken = self.buffer.were_taken(&left_out);
                if let Some(source) = self.sources.get_mut(&leader) {
                    max_wait = source.left_out.max_wait(max_wait, taken);
                }
            }
            room -= bytes;
            self.send(leader, (bytes, max_wait), retry, now);
        }
    }

    /// Of what is wanted of a broker, leaves out what has its share of the buffer. Gives those of them that have records.
    fn leave_out(&mut self, leader: i32) -> Vec<SlotId> {
        let Some(source) = self.sources.get_mut(&leader) else { return Vec::new() };
        let full = self.buffer.are_full(source.wanted.iter().copied());
        let full: BTreeSet<SlotId> = source
            .wanted
            .iter()
            .zip(full)
            .filter(|(_, full)| *full)
            .map(|(slot, _)| *slot)
            .collect();
        full.difference(&source.out).for_each(|slot| source.session.unwant(*slot));
        let again: Vec<SlotId> = source.out.difference(&full).copied().collect();
        source.out = full;
        let left_out = source.out.intersection(&source.lagging).copied().collect();
        again.into_iter().for_each(|slot| self.tell(slot, leader));
        left_out
    }

    /// A request in which every partition is tried again is paid from the retry budget. Gives whether it is
    /// such a request, or as an error the time at which the budget can pay.
    pub(super) fn pay(&mut self, leader: i32, now: Instant) -> Result<bool, Instant> {
        let again =
            |slot: &SlotId| self.reading.get(*slot).is_some_and(|r| r.backoff.attempts() > 0);
        let budgets = self.pool.budgets();
        let source = self.sources.entry(leader).or_default();
        let retry = source.wanted.difference(&source.out).all(again);
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
