//! Whether the coordinator still counts us in, and whether the application is still there. Two clocks:
//!
//! - The *session*: the coordinator gives our partitions away when it has heard nothing for the session timeout. It began to
//!   wait no earlier than we sent the last request that it answered, so we know by ourselves when our partitions may be
//!   somebody else's: a member that was stopped, or is cut off, hands nothing out from then on, until a request is answered.
//! - The *application*: while it has something of ours in hand, it must ask again within the max poll interval, else
//!   its partitions go to members that are alive. While it waits for us it is alive.

use std::time::Duration;

use tokio::time::Instant;

/// The session's clock.
#[derive(Debug)]
pub(super) struct Session {
    timeout: Duration,
    /// When the last request was sent that was answered as a member's.
    since: Option<Instant>,
    pub(super) halted: bool,
}

impl Session {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, since: None, halted: false }
    }

    /// A request that was sent then was answered in a way that shows we are a member.
    pub(super) fn answered(&mut self, sent: Instant) {
        self.since = self.since.max(Some(sent));
    }

    /// There is no membership.
    pub(super) fn end(&mut self) {
        self.since = None;
    }

    /// Next: the coordinator's timeout is guessed from the interval it asks for.
    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Until when partitions are ours without doubt.
    pub(super) fn until(&self) -> Option<Instant> {
        Some(self.since? + self.timeout)
    }

    /// Whether it has passed without an answer.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until().is_none_or(|until| until <= now)
    }
}

/// The application's clock.
#[derive(Debug)]
pub(super) struct Application {
    interval: Duration,
    state: Presence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// It has never asked for anything, or not since it was given up.
    Unknown,
    Waits,
    AwaySince(Instant),
}

impl Application {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, state: Presence::Unknown }
    }

    pub(super) fn asks(&mut self) {
        self.state = Presence::Waits;
    }

    pub(super) fn away(&mut self, since: Instant) {
        if self.state == Presence::Waits {
            self.state = Presence::AwaySince(since);
        }
    }

    /// It has not come back: until it asks again there is no clock.
    pub(super) fn give_up(&mut self) {
        self.state = Presence::Unknown;
    }

    /// When it has been away for too long.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.state {
            Presence::AwaySince(since) => Some(since + self.interval),
            Presence::Unknown | Presence::Waits => None,
        }
    }
}
