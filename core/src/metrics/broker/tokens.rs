//! Things that begin and must end: [`Dialing`], [`ConnectionMetrics`] and [`Sent`]. Each is counted
//! under exactly one outcome, and a future that is dropped half-way leaves no gauge behind.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use tokio::time::Instant;

use super::{BrokerMetrics, RequestMetrics};
use crate::error::Error;
use crate::metrics::limited;

/// Why a dial did not become a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialFailure {
    /// Nobody listens there, or the listener's queue is full.
    Refused,
    /// No connection within the set-up timeout, or given up before.
    TimedOut,
    /// No such host, no route, TLS, versions, authentication.
    Other,
}

impl DialFailure {
    pub(crate) fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused | Kind::ConnectionReset => Self::Refused,
            Kind::TimedOut => Self::TimedOut,
            _ => Self::Other,
        }
    }
}

/// Why a request has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// None came within the request timeout.
    Timeout,
    /// The connection ended first.
    Disconnected,
}

/// An attempt to connect. Dropped without an outcome, it was given up: timed out.
pub(crate) struct Dialing {
    broker: Arc<BrokerMetrics>,
    since: Instant,
    over: bool,
}

impl Dialing {
    pub(super) fn new(broker: Arc<BrokerMetrics>, now: Instant) -> Self {
        Self { broker, since: now, over: false }
    }

    /// Ready for requests. `reconnect`: in the place of a connection that was lost.
    pub(crate) fn connected(mut self, reconnect: bool, now: Instant) -> ConnectionMetrics {
        self.over = true;
        self.broker.counts.connects.one();
        if reconnect {
            self.broker.counts.reconnects.one();
        }
        self.broker.set_up.record(now.saturating_duration_since(self.since));
        ConnectionMetrics {
            first: Arc::clone(&self.broker),
            adopted: OnceLock::new(),
            open: Mutex::new(true),
        }
    }

    pub(crate) fn failed(mut self, why: DialFailure, error: &Error) {
        self.count(why);
        let broker = &self.broker;
        // Once a spell, whoever knows the spell says it louder.
        limited!(
            &broker.logs, "ottla::net", DEBUG, broker = broker.id, error = %error.message(), "dial failed"
        );
    }

    fn count(&mut self, why: DialFailure) {
        self.over = true;
        match why {
            DialFailure::Refused => self.broker.counts.refused.one(),
            DialFailure::TimedOut => self.broker.counts.dial_timeouts.one(),
            DialFailure::Other => self.broker.counts.dial_failures.one(),
        }
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        if !self.over {
            self.count(DialFailure::TimedOut);
        }
    }
}

/// An open connection. The first of [`lost`](Self::lost), [`closed_idle`](Self::closed_idle) and
/// [`closed`](Self::closed) counts; dropped without one, it was closed.
pub(crate) struct ConnectionMetrics {
    first: Arc<BrokerMetrics>,
    adopted: OnceLock<Arc<BrokerMetrics>>,
    /// Held while the connection ends or changes its broker: it must not end at one and be open
    /// at the other.
    open: Mutex<bool>,
}

impl ConnectionMetrics {
    /// Where to count now.
    pub(crate) fn broker(&self) -> &Arc<BrokerMetrics> {
        self.adopted.get().unwrap_or(&self.first)
    }

    /// The connection to a bootstrap address turns out to be this broker's: it, and what is sent
    /// from now on, count there. What is in flight is answered where it was sent.
    pub(crate) fn adopted(&self, broker: &Arc<BrokerMetrics>) {
        let open = self.open();
        if *open && self.adopted.set(Arc::clone(broker)).is_ok() {
            broker.counts.adopted_in.one();
            self.first.counts.adopted_out.one();
        }
    }

    /// The peer closed it, or it had to be given up: a response that did not come or was wrong.
    pub(crate) fn lost(&self, error: &Error) {
        if self.over() {
            let broker = self.broker();
            broker.counts.losses.one();
            limited!(
                &broker.logs, "ottla::net", INFO, broker = broker.id, error = %error.message(),
                "connection lost"
            );
        }
    }

    /// Nothing used it for a while.
    pub(crate) fn closed_idle(&self) {
        if self.over() {
            self.broker().counts.idle_closes.one();
        }
    }

    /// Nobody needs it any more.
    pub(crate) fn closed(&self) {
        self.over();
    }

    /// Whether it was open until now.
    fn over(&self) -> bool {
        let was_open = std::mem::replace(&mut *self.open(), false);
        if was_open {
            self.broker().counts.ends.one();
        }
        was_open
    }

    fn open(&self) -> MutexGuard<'_, bool> {
        self.open.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for ConnectionMetrics {
    fn drop(&mut self) {
        self.closed();
    }
}

/// A request on its way. Dropped without a response, its connection ended first.
pub(crate) struct Sent {
    request: Arc<RequestMetrics>,
    at: Instant,
    over: bool,
}

impl Sent {
    pub(super) fn new(request: Arc<RequestMetrics>, now: Instant) -> Self {
        Self { request, at: now, over: false }
    }

    /// The response came, whatever it says.
    pub(crate) fn answered(mut self, bytes: usize, now: Instant) {
        self.over = true;
        self.request.bytes_in.add(bytes as u64);
        self.request.latency.record(now.saturating_duration_since(self.at));
        self.request.answered.one();
    }

    /// There will be no response.
    pub(crate) fn failed(mut self, why: Failure) {
        self.count(why);
    }

    fn count(&mut self, why: Failure) {
        self.over = true;
        match why {
            Failure::Timeout => self.request.timeouts.one(),
            Failure::Disconnected => self.request.disconnected.one(),
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.over {
            self.count(Failure::Disconnected);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;
    use crate::metrics::{Api, BrokerStats, Metrics};

    fn broker() -> (Metrics, Arc<BrokerMetrics>) {
        let metrics = Metrics::default();
        let broker = metrics.broker(7);
        (metrics, broker)
    }

    fn error() -> Error {
        Error::new(ErrorKind::Disconnected, "gone")
    }

    #[test]
    fn a_dial_has_one_outcome() {
        type Way = fn(Dialing);
        let table: [(Way, [u64; 4]); 5] = [
            (|d| drop(d.connected(false, Instant::now())), [1, 0, 0, 0]),
            (|d| d.failed(DialFailure::Refused, &error()), [0, 1, 0, 0]),
            (|d| d.failed(DialFailure::TimedOut, &error()), [0, 0, 1, 0]),
            (|d| d.failed(DialFailure::Other, &error()), [0, 0, 0, 1]),
            (drop, [0, 0, 1, 0]),
        ];
        for (i, (way, outcome)) in table.into_iter().enumerate() {
            let (_metrics, broker) = broker();
            way(broker.dialed(Instant::now()));
            let s = broker.snapshot();
            let got = [s.connects, s.refused, s.dial_timeouts, s.dial_failures];
            assert_eq!((got, s.dials), (outcome, 1), "line {i}");
        }
    }

    #[test]
    fn a_connection_ends_once() {
        type Way = fn(&ConnectionMetrics);
        let table: [(Way, [u64; 2]); 5] = [
            (|c| c.lost(&error()), [1, 0]),
            (|c| c.closed_idle(), [0, 1]),
            (|c| c.closed(), [0, 0]),
            (|_| {}, [0, 0]),
            // A driver that is told to close may still see the peer's end of it.
            (
                |c| {
                    c.closed_idle();
                    c.lost(&error());
                },
                [0, 1],
            ),
        ];
        for (i, (way, outcome)) in table.into_iter().enumerate() {
            let (_metrics, broker) = broker();
            let connection = broker.dialed(Instant::now()).connected(false, Instant::now());
            assert_eq!(broker.snapshot().connections_open, 1);
            way(&connection);
            drop(connection);
            let s = broker.snapshot();
            assert_eq!(([s.losses, s.idle_closes], s.connections_open), (outcome, 0), "line {i}");
        }
    }

    #[test]
    fn an_adopted_connection_counts_at_its_broker() {
        let metrics = Metrics::default();
        let (bootstrap, broker) = (metrics.broker(-1), metrics.broker(3));
        let connection = bootstrap.dialed(Instant::now()).connected(false, Instant::now());
        let before = connection.broker().sent(Api::Metadata, 10, false, Instant::now());
        connection.adopted(&broker);
        connection.adopted(&metrics.broker(4));
        let after = connection.broker().sent(Api::Metadata, 20, false, Instant::now());
        let s = metrics.snapshot();
        assert_eq!(s.connections_open, 1);
        assert_eq!((s.brokers[&-1].connections_open, s.brokers[&3].connections_open), (0, 1));
        before.answered(1, Instant::now());
        after.failed(Failure::Timeout);
        connection.lost(&error());
        let s = metrics.snapshot();
        let (there, here) =
            (s.brokers[&-1].requests["Metadata"], s.brokers[&3].requests["Metadata"]);
        assert_eq!((there.answered, there.in_flight, there.bytes_out), (1, 0, 10));
        assert_eq!((here.timeouts, here.in_flight, here.bytes_out), (1, 0, 20));
        assert_eq!((s.brokers[&-1].losses, s.brokers[&3].losses, s.connections_open), (0, 1, 0));
        assert_eq!(s.brokers[&4], BrokerStats::default());
    }

    #[test]
    fn a_request_has_one_outcome() {
        type Way = fn(Sent);
        let later = |sent: Sent| {
            let at = sent.at + Duration::from_millis(40);
            sent.answered(100, at);
        };
        let table: [(Way, [u64; 4]); 4] = [
            (later, [1, 0, 0, 100]),
            (|s| s.failed(Failure::Timeout), [0, 1, 0, 0]),
            (|s| s.failed(Failure::Disconnected), [0, 0, 1, 0]),
            (drop, [0, 0, 1, 0]),
        ];
        for (i, (way, outcome)) in table.into_iter().enumerate() {
            let (metrics, broker) = broker();
            let sent = broker.sent(Api::Fetch, 30, i == 1, Instant::now());
            assert_eq!(broker.snapshot().requests["Fetch"].in_flight, 1);
            way(sent);
            let r = broker.snapshot().requests["Fetch"];
            assert_eq!([r.answered, r.timeouts, r.disconnected, r.bytes_in], outcome, "line {i}");
            assert_eq!((r.sent, r.in_flight, r.bytes_out), (1, 0, 30), "line {i}");
            assert_eq!(r.retries, u64::from(i == 1));
            assert_eq!(r.latency.max, Duration::from_millis(40 * r.answered));
            assert_eq!(metrics.snapshot().fetch_requests, 1);
        }
    }

    /// Who resets a dial listens there as little as who refuses it.
    #[test]
    fn dials_fail_by_what_the_system_says() {
        use std::io::ErrorKind as Kind;
        for (kind, why) in [
            (Kind::ConnectionRefused, DialFailure::Refused),
            (Kind::ConnectionReset, DialFailure::Refused),
            (Kind::TimedOut, DialFailure::TimedOut),
            (Kind::HostUnreachable, DialFailure::Other),
        ] {
            assert_eq!(DialFailure::of(&kind.into()), why, "{kind}");
        }
    }

    #[test]
    fn a_dial_that_succeeds_says_how_long_it_took() {
        let (_metrics, broker) = broker();
        let now = Instant::now();
        drop(broker.dialed(now).connected(false, now + Duration::from_millis(30)));
        let set_up = broker.snapshot().set_up;
        assert_eq!((set_up.count, set_up.max), (1, Duration::from_millis(30)));
    }

    /// It would be open there for ever: its end was counted where it was.
    #[test]
    fn a_connection_that_ended_is_adopted_by_nobody() {
        let metrics = Metrics::default();
        let (bootstrap, broker) = (metrics.broker(-1), metrics.broker(3));
        let connection = bootstrap.dialed(Instant::now()).connected(false, Instant::now());
        connection.lost(&error());
        connection.adopted(&broker);
        let s = metrics.snapshot();
        assert_eq!(s.brokers[&3], BrokerStats::default());
        assert_eq!(s.connections_open, 0);
    }
}
