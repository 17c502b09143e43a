//! Why a client does not reach its brokers, for the errors of calls that wait: which address was tried, where it
//! came from, and what the peer did. As long as a trouble lasts it is one spell: it is logged once, and told
//! once to each consumer that waits. If all went well before, it is an outage, and consumers are not told:
//! they wait until it is over.

use std::time::Duration;

use tokio::time::Instant;

use super::broker::Broker;
use super::pool::Pool;
use crate::config::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::metrics::event;

/// A trouble that has lasted for this time is reported to consumers: half of the time that `connect` takes by
/// default, and longer than a restart of a broker that hands its leaders over.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// Addresses named in one message.
const NAMED: usize = 8;

const ADVERTISED: &str = "let the brokers advertise an address that this machine can reach \
                          (advertised.listeners), or let this machine reach that one";

/// Attempts to reach a broker since the last one that succeeded.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) since: Instant,
    pub(super) dials: u32,
    /// The error of the last attempt that has ended.
    pub(super) last: Option<Error>,
}

impl Attempts {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, dials: 0, last: None }
    }

    /// An attempt failed. `true` if it is the first failure of the spell.
    pub(super) fn failed(&mut self, error: &Error) -> bool {
        self.last.replace(error.clone()).is_none()
    }
}

/// A trouble that a waiting caller should know of.
pub(crate) struct Trouble {
    /// When it began, which identifies the spell.
    pub(crate) since: Instant,
    pub(crate) error: Error,
    /// The broker was reached at this address before: an outage, which everybody waits out. Otherwise something
    /// has to be put right.
    pub(crate) is_outage: bool,
}

impl Trouble {
    /// When it will have lasted long enough to be told to consumers.
    pub(crate) fn told_at(&self) -> Instant {
        self.since + TOLD_AFTER
    }
}

impl Pool {
    /// When to look again whether a wait that begins now has come into trouble.
    pub(crate) fn trouble_may_be_told_at(&self, now: Instant) -> Instant {
        now + TOLD_AFTER
    }

    /// Why this broker cannot be reached; `None` if it can.
    pub(crate) fn trouble_with(&self, id: i32, now: Instant) -> Option<Trouble> {
        let broker = self.broker(id)?;
        let (since, error) = broker.trouble()?;
        let error = error.unwrap_or_else(|| self.no_connection_yet(&broker, since, now));
        Some(Trouble { since, error, is_outage: broker.was_reached() })
    }

    /// Why no broker can be reached, or none answers; `None` if one does.
    pub(crate) fn trouble_with_all(&self, now: Instant) -> Option<Trouble> {
        let is_outage = self.metadata().knows_brokers();
        if let Some((since, error)) = self.metadata().trouble() {
            return Some(Trouble { since, error, is_outage });
        }
        if self.is_connected(None) {
            return None;
        }
        let brokers: Vec<_> = self.lock().values().filter(|b| b.is_member()).cloned().collect();
        let troubles = brokers.iter().filter_map(|b| Some((b, b.trouble()?)));
        let (broker, (since, error)) = troubles.min_by_key(|(_, (since, _))| *since)?;
        let error = error.unwrap_or_else(|| self.no_connection_yet(broker, since, now));
        Some(Trouble { since, error, is_outage })
    }

    /// Adds to the error of a wait that has failed why brokers are not reached: those that it waited for, and the
    /// cluster as a whole.
    pub(crate) fn explain(&self, error: Error, waited_for: impl IntoIterator<Item = i32>) -> Error {
        let now = self.env().now();
        let mut told = error;
        let troubles = waited_for.into_iter().filter_map(|id| self.trouble_with(id, now));
        for trouble in troubles.chain(self.trouble_with_all(now)).take(NAMED) {
            if !told.message().contains(trouble.error.message()) {
                told = told.and(trouble.error.message());
            }
        }
        told
    }

    /// The same in words alone, of all brokers; `None` if nothing is in the way that is known.
    pub(crate) fn in_the_way(&self) -> Option<String> {
        let now = self.env().now();
        let mut words: Vec<String> = Vec::new();
        let members = self.members();
        let troubles = members.iter().filter_map(|broker| self.trouble_with(broker.id, now));
        for trouble in troubles.chain(self.trouble_with_all(now)).take(NAMED) {
            let one = trouble.error.message();
            if !words.iter().any(|before| before == one) {
                words.push(one.to_owned());
            }
        }
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// The same for a wait that may have been for any broker.
    pub(crate) fn explain_by_any(&self, error: Error) -> Error {
        let ids: Vec<i32> = self.members().iter().map(|broker| broker.id).collect();
        self.explain(error, ids)
    }

    /// The same for the error of a wait, but only if its time was over.
    pub(crate) fn explain_wait(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Timeout { self.explain_by_any(error) } else { error }
    }

    fn no_connection_yet(&self, broker: &Broker, since: Instant, now: Instant) -> Error {
        let after = now.saturating_duration_since(since);
        let words = format!("{}: no connection yet, after {after:.1?}", broker.name());
        self.of_address(broker, &broker.endpoint(), Error::new(ErrorKind::Connect, words))
    }

    /// Adds to the error of a dial that the brokers advertise its address, if the bootstrap list does not have
    /// it.
    pub(super) fn of_address(&self, broker: &Broker, endpoint: &Endpoint, error: Error) -> Error {
        let listed =
            broker.id < 0 || self.lock().values().any(|b| b.id < 0 && b.endpoint() == *endpoint);
        if listed {
            return error;
        }
        let told = error.and("the brokers advertise this address, it is not of the bootstrap list");
        match told.kind() {
            ErrorKind::Connect | ErrorKind::Resolve => told.advise(ADVERTISED),
            _ => told,
        }
    }

    /// Logs the first failure of a spell. Called with no lock held.
    pub(super) fn spell_began(&self, broker: &Broker, error: &Error) {
        event!(
            self.metrics().logs(), "ottla::net", WARN, broker = broker.id,
            error = %error.message(), "broker cannot be reached"
        );
    }

    /// The bootstrap addresses that were tried, and how each attempt ended.
    pub(super) fn tried(&self) -> String {
        let now = self.env().now();
        let brokers: Vec<_> = self.lock().values().rev().filter(|b| b.id < 0).cloned().collect();
        let tried = brokers.iter().map(|broker| match broker.attempts() {
            None => format!("{}: not tried yet", broker.name()),
            Some((_, dials, Some(error))) => format!("{} ({})", error.message(), times(dials)),
            Some((since, dials, None)) => {
                let error = self.no_connection_yet(broker, since, now);
                format!("{} ({})", error.message(), times(dials))
            }
        });
        listed(tried)
    }
}

fn times(n: u32) -> String {
    if n == 1 { "1 dial".into() } else { format!("{n} dials") }
}

/// The first [`NAMED`] of many, in one line.
pub(super) fn listed(words: impl Iterator<Item = String>) -> String {
    let mut words: Vec<_> = words.collect();
    let more = words.len().saturating_sub(NAMED);
    words.truncate(NAMED);
    let mut line = words.join("; ");
    if more > 0 {
        line.push_str(&format!("; and {more} more"));
    }
    line
}
