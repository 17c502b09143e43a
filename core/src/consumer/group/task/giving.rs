//! Partitions that are given up: once the application has finished what it has of them, and the group has what is done.

use std::time::Duration;

use tokio::time::Instant;

use super::{Member, NAMELESS};
use crate::consumer::buffer::Key;
use crate::consumer::group::events::{self, Commits, Round};

/// Partitions that are being given up.
pub(super) struct Giving {
    pub(super) round: Round,
    pub(super) keys: Vec<Key>,
    pub(super) event: u64,
    /// All is finished; what is done is being committed.
    pub(super) finished: bool,
    /// How often the application had asked for the next when it was finished: who commits by hand may do so until it asks again.
    pub(super) asks: u64,
    /// The last order of the application's that is waited for.
    pub(super) orders: Option<u64>,
    /// Before the deadline what is finished until then is committed.
    pub(super) last_call: Option<Instant>,
}

/// Before the deadline of what is to be given up: for the last commit.
const LAST_CALL: Duration = Duration::from_secs(2);

impl Giving {
    pub(super) fn new(
        round: Round,
        keys: Vec<Key>,
        event: u64,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        let left = deadline.saturating_duration_since(now);
        Self {
            round,
            keys,
            event,
            finished: false,
            asks: 0,
            orders: None,
            last_call: Some(deadline - LAST_CALL.min(left / 4)),
        }
    }
}

impl Member {
    /// Gives up what the application has finished.
    pub(super) fn give(&mut self, now: Instant) {
        if self.givings.is_empty() {
            return;
        }
        let finished: Vec<bool> =
            self.givings.iter().map(|giving| giving.finished || self.is_finished(giving)).collect();
        // Looked at behind that: what was finished until then is in it.
        let committable = self.committable(now);
        let none = matches!(self.machine.commits(), Commits::Never);
        let mut done = Vec::new();
        let mut rest = Vec::with_capacity(self.givings.len());
        for (mut giving, finished) in std::mem::take(&mut self.givings).into_iter().zip(finished) {
            if finished && !giving.finished {
                (giving.finished, giving.asks) = (true, self.presence.asks);
            }
            let has = self.offsets.has(&committable, &giving.keys);
            // Whether it is to be committed is known once the names are.
            if self.is_nameless(now) || self.is_doubted(Some(&giving.keys), now) {
                rest.push(giving);
                continue;
            }
            if finished && (none || self.may_give(&mut giving, has)) {
                done.push(giving.round);
                continue;
            }
            let last_call = giving.last_call.take_if(|at| *at <= now).is_some();
            if (finished || last_call) && !has {
                self.offsets.hurry();
            }
            rest.push(giving);
        }
        self.givings = rest;
        for round in done {
            self.tell(events::Event::GaveUp { round });
        }
    }

    /// Whether what is given up may be of a topic that is gone, and one that has come has its name: it is assigned here, and
    /// its name is being looked up.
    pub(super) fn is_nameless(&self, now: Instant) -> bool {
        self.nameless_until.is_some_and(|until| now < until) && self.machine.has_nameless()
    }

    /// The same, where it is the brokers who do not know the topics.
    pub(super) fn is_doubted(&self, of: Option<&[Key]>, now: Instant) -> bool {
        self.buffer.doubted(of).is_some_and(|since| now < since + NAMELESS)
    }

    /// Whether what is finished is given up now. `has`: the group has all that is done of it.
    fn may_give(&self, giving: &mut Giving, has: bool) -> bool {
        let by_hand = self.offsets.is_by_hand();
        if !has && !by_hand {
            return false;
        }
        // It may commit what it has just finished. Whoever asks for the next instead does not.
        // A stream of its own has time for that until it is dropped, whatever others ask for.
        let is_taken = self.buffer.is_taken(&giving.keys);
        let goes_on = !is_taken && (self.presence.waits || self.presence.asks != giving.asks);
        if !has && !goes_on && !self.closing {
            return false;
        }
        // Those that come later are not waited for: there may be no end of them.
        let last = *giving.orders.get_or_insert(self.offsets.last_order());
        !self.offsets.owes(&giving.keys, last)
    }

    /// Whether the application has nothing in hand of what is to be given up.
    pub(super) fn is_finished(&self, giving: &Giving) -> bool {
        let waits = !self.closing || self.buffer.waits_for_hand();
        let open = waits && self.buffer.is_open(&giving.keys);
        !open && (self.closing || self.buffer.has_done(giving.event))
    }
}
