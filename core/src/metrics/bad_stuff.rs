//! The one view to look at first.

use std::fmt;

use serde::Serialize;

use super::stats::{BrokerStats, Stats};

/// Counts of what should not happen, over all brokers, since the pool exists. All zero when all is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BadStuff {
    /// Requests that exist only because an earlier one failed.
    pub retries: u64,
    /// Dials that were refused.
    pub refused: u64,
    /// Dials and requests that took too long.
    pub timeouts: u64,
    /// Dials that failed in another way: no such host, TLS, authentication.
    pub dial_failures: u64,
    /// Connections that the broker closed, or that had to be given up.
    pub losses: u64,
    /// Connections made in the place of a lost one.
    pub reconnects: u64,
    /// Responses that say that the request, or a part of it, failed.
    pub errors: u64,
    /// Responses that asked for a pause.
    pub throttled: u64,
    /// How often a broker was taken out of use for a while.
    pub ejections: u64,
    /// Metadata requests for each 1,000 records acknowledged or consumed. Not counted are first
    /// contact, new topics, and the periodic refresh.
    pub metadata_per_1000_messages: f64,
    /// Records that resolved with an error.
    pub records_failed: u64,
    /// Produce requests of which nobody let anything gather, for each 1,000 records acknowledged, while they are
    /// more than 500 at more than 200 records a second and have been for half a minute: `linger(0)`, or a
    /// flush after each record, makes a request of nearly every one. 0 again once that is over.
    pub requests_per_1000_messages: f64,
    /// 1 if TLS does not verify the certificates of brokers ([`Verify::None`](crate::Verify::None)).
    pub tls_unverified: u64,
}

impl BadStuff {
    /// Whether all is well.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn of(stats: &Stats, chatter: f64, unverified: bool) -> Self {
        let all = || stats.brokers.values().chain([&stats.departed]);
        let brokers = |count: fn(&BrokerStats) -> u64| all().map(count).sum();
        let asked = stats.metadata_reasons.trouble + stats.metadata_reasons.rebootstrap;
        let messages = (stats.records_acknowledged + stats.records_consumed).max(1);
        Self {
            retries: brokers(|b| b.requests.values().map(|r| r.retries).sum()),
            refused: brokers(|b| b.refused),
            timeouts: brokers(|b| {
                b.dial_timeouts + b.requests.values().map(|r| r.timeouts).sum::<u64>()
            }),
            dial_failures: brokers(|b| b.dial_failures),
            losses: brokers(|b| b.losses),
            reconnects: brokers(|b| b.reconnects),
            errors: brokers(|b| b.requests.values().map(|r| r.errors).sum()),
            throttled: brokers(|b| b.throttled),
            ejections: brokers(|b| b.ejections),
            metadata_per_1000_messages: asked as f64 * 1_000.0 / messages as f64,
            records_failed: stats.records_failed,
            requests_per_1000_messages: chatter,
            tls_unverified: u64::from(unverified),
        }
    }
}

/// One line: what is not zero, or "none".
impl fmt::Display for BadStuff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("none");
        }
        let counts = [
            ("retries", self.retries),
            ("refused", self.refused),
            ("timeouts", self.timeouts),
            ("dial failures", self.dial_failures),
            ("losses", self.losses),
            ("reconnects", self.reconnects),
            ("errors", self.errors),
            ("throttled", self.throttled),
            ("ejections", self.ejections),
            ("records failed", self.records_failed),
            ("TLS unverified", self.tls_unverified),
        ];
        let mut comma = "";
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, "{comma}{name} {count}")?;
            comma = ", ";
        }
        if self.metadata_per_1000_messages > 0.0 {
            write!(f, "{comma}metadata per 1,000 messages {:.3}", self.metadata_per_1000_messages)?;
            comma = ", ";
        }
        if self.requests_per_1000_messages > 0.0 {
            write!(f, "{comma}requests per 1,000 messages {:.0}", self.requests_per_1000_messages)?;
        }
        Ok(())
    }
}
