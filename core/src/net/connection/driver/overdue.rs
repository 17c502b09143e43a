//! When a response is overdue: the timer of a connection, which looks at the oldest request again and again.
//!
//! Bytes that lie in the socket count before any clock, and before a write that fails. So a response is overdue only
//! after one more look; and a process that was stopped (by a signal, a debugger, a frozen machine) does not count
//! that time against its brokers. It finds out by its own timer. While a request is unanswered, the timer fires 100 ms
//! after the request was sent, then at twice its age, and so on, at most 5 s apart. If it fires more than [`STALL`]
//! late, the process did not run.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::{Driver, Pending};
use crate::environment::{READ_FIRST, STALL};
use crate::error::Error;
use crate::metrics::Failure;
use crate::net::connection::{CallError, CloseReason};

/// The age at which an unanswered request is looked at first: half of the least time after which a connection
/// is late.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// The longest time between two such looks.
const LOOKS_APART: Duration = Duration::from_secs(5);

/// After the process was stopped: how long responses that are on their way are waited for before a request counts
/// as overdue.
const GRACE: Duration = Duration::from_secs(1);

impl Driver {
    /// Ready when the oldest request is unanswered for too long (the broker answers in order, so
    /// every later one is stuck behind it), or when nothing was asked for long.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let look = self.next_look();
            if look < self.timer_at {
                self.arm(look);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = self.shared.env.now();
            self.notice_stall(now);
            self.looked = now;
            if self.some_give_up(now) | self.held_give_up(now) {
                continue;
            }
            if self.renewal_due(now) || self.login_due(now) {
                // The caller finds it due.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(oldest) = self.oldest_pending() else {
                if self.idle_at() <= now {
                    return Poll::Ready(CloseReason::Idle);
                }
                self.arm(self.next_look());
                continue;
            };
            if self.overdue_at(oldest) > now {
                self.last_look = false;
                self.arm(self.next_look());
            } else if self.last_look {
                return Poll::Ready(CloseReason::Lost(Error::timeout(
                    format!("{}: request {}", self.shared.name, oldest.api_key),
                    self.patience,
                )));
            } else {
                // The timer may have come before what the socket has.
                self.last_look = true;
                self.arm(now + READ_FIRST);
            }
        }
    }

    /// When something is to be looked at, if nothing happens before.
    fn next_look(&self) -> Instant {
        let at = self.next_look_at_requests();
        let others = [self.renewal_at(), self.login_at(), self.next_look_at_held()];
        others.into_iter().flatten().fold(at, Instant::min)
    }

    fn next_look_at_requests(&self) -> Instant {
        let Some(oldest) = self.oldest_pending() else { return self.idle_at() };
        if self.last_look {
            return self.timer_at;
        }
        let at = self.look_at(oldest.sent).min(self.overdue_at(oldest));
        self.first_to_give_up().map_or(at, |first| first.min(at))
    }

    /// When nothing was asked for long. What is being renewed does not end for that.
    fn idle_at(&self) -> Instant {
        let at = self.used + self.idle_timeout.mul_f64(self.idle_share);
        if self.is_ready() { at } else { at.max(self.looked + LOOKS_APART) }
    }

    /// When to look next at a request that waits since then.
    pub(super) fn look_at(&self, since: Instant) -> Instant {
        let looked = self.looked.max(since);
        looked + (looked - since).clamp(FIRST_LOOK, LOOKS_APART)
    }

    fn overdue_at(&self, pending: &Pending) -> Instant {
        (pending.sent + self.patience).max(self.grace)
    }

    /// If the timer is late, this process did not run.
    pub(super) fn notice_stall(&mut self, now: Instant) {
        let stalled = now.saturating_duration_since(self.timer_at);
        if stalled > STALL {
            self.stalled(stalled, now);
            // It counts once.
            self.timer_at = now;
        }
    }

    /// This process did nothing for so long: every request counts as if it had been sent so much later.
    fn stalled(&mut self, by: Duration, now: Instant) {
        for pending in self.in_flight.iter_mut().chain(&mut self.unwritten) {
            let by = (pending.sent + by).min(now) - pending.sent;
            pending.sent += by;
            pending.until += by;
        }
        self.stalled_held(by, now);
        self.grace = now + GRACE.min(self.patience);
        self.last_look = false;
        let held = self.held.front().map(|outgoing| outgoing.given);
        self.oldest(self.in_flight.front().map(|pending| pending.sent).or(held));
    }

    fn oldest_pending(&self) -> Option<&Pending> {
        let fronts = [self.in_flight.front(), self.unwritten.front()];
        fronts.into_iter().flatten().min_by_key(|p| p.sent)
    }

    /// When the first request timeout ends that is shorter than the longest.
    fn first_to_give_up(&self) -> Option<Instant> {
        if !self.some_wait_less {
            return None;
        }
        let all = self.in_flight.iter().chain(&self.unwritten);
        let less = |p: &&Pending| p.until < p.sent + self.patience;
        let waiting = all.filter(|p| p.waiting.is_some()).filter(less);
        waiting.map(|p| p.until).min()
    }

    /// Tells callers whose request timeout has passed, while the connection stays for those with a longer one.
    /// `true` if there were any.
    fn some_give_up(&mut self, now: Instant) -> bool {
        if !self.some_wait_less {
            return false;
        }
        if self.oldest_pending().is_none_or(|oldest| oldest.sent + self.patience <= now) {
            return false;
        }
        let mut any = false;
        let patience = self.patience;
        for pending in self.in_flight.iter_mut().chain(&mut self.unwritten) {
            let over = pending.until < pending.sent + patience && pending.until <= now;
            let Some((reply, counted)) = pending.waiting.take_if(|_| over) else { continue };
            any = true;
            counted.failed(Failure::Timeout);
            let what = format!("{}: request {}", self.shared.name, pending.api_key);
            let late = CallError::InDoubt(Error::timeout(what, pending.timeout));
            let _ = reply.send(Err(late));
        }
        any
    }

    fn arm(&mut self, at: Instant) {
        self.timer_at = at;
        self.timer.as_mut().reset(at);
        self.shared.look_us.store(self.shared.env.micros(at), Ordering::Relaxed);
    }
}
