//! What is counted for one broker, and logged where it should not happen. Whoever talks to it holds
//! the `Arc` and touches nothing but atomics; counters of a request exist once the first of its
//! kind is sent.
//!
//! Things that begin and must end are tokens: [`Dialing`], [`ConnectionMetrics`] and [`Sent`]. Each
//! is counted under exactly one outcome, and a future that is dropped half-way leaves no gauge
//! behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::api::Api;
use super::histogram::Histogram;
use super::logs::{Logs, limited};
use super::stats::{BrokerStats, RequestStats};
use crate::config::Endpoint;
use crate::error::Error;

/// A number that grows. Counters say nothing about each other's order.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

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

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// None came within the request timeout.
    Timeout,
    /// The connection ended first.
    Disconnected,
}

/// See the module.
pub(crate) struct BrokerMetrics {
    id: i32,
    logs: Arc<Logs>,
    counts: Counts,
    set_up: Histogram,
    requests: [OnceLock<Arc<RequestMetrics>>; Api::ALL.len()],
}

#[derive(Default)]
struct Counts {
    dials: Counter,
    connects: Counter,
    reconnects: Counter,
    refused: Counter,
    dial_timeouts: Counter,
    dial_failures: Counter,
    /// Connections that ended, however.
    ends: Counter,
    losses: Counter,
    idle_closes: Counter,
    /// Connections that came from a bootstrap address, less those that left one.
    adopted_in: Counter,
    adopted_out: Counter,
    ejections: Counter,
    probes: Counter,
    late: Counter,
    throttled: Counter,
    throttle_us: Counter,
    acknowledged: Counter,
}

impl BrokerMetrics {
    pub(super) fn new(id: i32, logs: Arc<Logs>) -> Self {
        Self {
            id,
            logs,
            counts: Counts::default(),
            set_up: Histogram::default(),
            requests: Default::default(),
        }
    }

    /// The span of one connection's set-up.
    pub(crate) fn connect_span(&self, address: &Endpoint) -> tracing::Span {
        tracing::debug_span!(parent: self.logs.span(), "connect", broker = self.id, %address)
    }

    /// An attempt to connect begins.
    pub(crate) fn dialed(self: &Arc<Self>, now: Instant) -> Dialing {
        self.counts.dials.one();
        Dialing { broker: Arc::clone(self), since: now, over: false }
    }

    /// A request is handed to a connection. `retry`: it exists only because an earlier one failed.
    pub(crate) fn sent(&self, api: Api, bytes: usize, retry: bool, now: Instant) -> Sent {
        let request = self.request(api);
        request.sent.one();
        request.bytes_out.add(bytes as u64);
        if retry {
            request.retries.one();
        }
        Sent { request: Arc::clone(request), at: now, over: false }
    }

    /// An answer, counted as one already, says that the request (or a part of it) failed.
    pub(crate) fn error_answer(&self, api: Api) {
        self.request(api).errors.one();
    }

    /// An answer asked for a pause.
    pub(crate) fn throttled(&self, api: Api, pause: Duration) {
        self.counts.throttled.one();
        self.counts.throttle_us.add(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
        limited!(
            &self.logs,
            WARN,
            broker = self.id,
            request = api.name(),
            ?pause,
            "throttled by the broker's quota"
        );
    }

    /// Taken out of use for a while.
    pub(crate) fn ejected(&self, pause: Duration) {
        self.counts.ejections.one();
        limited!(&self.logs, WARN, broker = self.id, ?pause, "broker ejected");
    }

    /// Tried again while ejected.
    pub(crate) fn probe(&self) {
        self.counts.probes.one();
        limited!(&self.logs, DEBUG, broker = self.id, "ejected broker probed");
    }

    /// A connection became late: nothing came for so long. Once per episode.
    pub(crate) fn late(&self, silent: Duration) {
        self.counts.late.one();
        limited!(&self.logs, WARN, broker = self.id, ?silent, "broker late");
    }

    /// Once per acknowledged batch.
    pub(crate) fn acknowledged(&self, records: u64) {
        self.counts.acknowledged.add(records);
    }

    fn request(&self, api: Api) -> &Arc<RequestMetrics> {
        self.requests[api as usize].get_or_init(Arc::default)
    }

    pub(super) fn snapshot(&self) -> BrokerStats {
        let requests = Api::ALL
            .into_iter()
            .filter_map(|api| {
                let request = self.requests[api as usize].get()?;
                Some((api.name(), request.snapshot()))
            })
            .collect();
        let counts = &self.counts;
        // What ends is read before what begins: else a gauge could be negative for a moment.
        let gone = counts.ends.get() + counts.adopted_out.get();
        let came = counts.connects.get() + counts.adopted_in.get();
        BrokerStats {
            dials: counts.dials.get(),
            connects: counts.connects.get(),
            reconnects: counts.reconnects.get(),
            refused: counts.refused.get(),
            dial_timeouts: counts.dial_timeouts.get(),
            dial_failures: counts.dial_failures.get(),
            losses: counts.losses.get(),
            idle_closes: counts.idle_closes.get(),
            connections_open: came.saturating_sub(gone),
            ejections: counts.ejections.get(),
            probes: counts.probes.get(),
            late: counts.late.get(),
            throttled: counts.throttled.get(),
            throttle_time: Duration::from_micros(counts.throttle_us.get()),
            records_acknowledged: counts.acknowledged.get(),
            set_up: self.set_up.snapshot(),
            requests,
        }
    }
}

/// An attempt to connect. Dropped without an outcome, it was given up: timed out.
pub(crate) struct Dialing {
    broker: Arc<BrokerMetrics>,
    since: Instant,
    over: bool,
}

impl Dialing {
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
        limited!(
            &broker.logs, WARN, broker = broker.id, error = %error.message(), "dial failed"
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

    /// The peer closed it, or it had to be given up: an answer that did not come or was wrong.
    pub(crate) fn lost(&self, error: &Error) {
        if self.over() {
            let broker = self.broker();
            broker.counts.losses.one();
            limited!(
                &broker.logs, INFO, broker = broker.id, error = %error.message(),
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

/// Counters of one request at one broker.
#[derive(Default)]
struct RequestMetrics {
    sent: Counter,
    answered: Counter,
    errors: Counter,
    timeouts: Counter,
    disconnected: Counter,
    retries: Counter,
    bytes_out: Counter,
    bytes_in: Counter,
    latency: Histogram,
}

impl RequestMetrics {
    fn snapshot(&self) -> RequestStats {
        // What ends is read before what begins.
        let (answered, errors) = (self.answered.get(), self.errors.get());
        let (timeouts, disconnected) = (self.timeouts.get(), self.disconnected.get());
        let sent = self.sent.get();
        RequestStats {
            sent,
            answered,
            errors,
            timeouts,
            disconnected,
            retries: self.retries.get(),
            bytes_out: self.bytes_out.get(),
            bytes_in: self.bytes_in.get(),
            in_flight: sent.saturating_sub(answered + timeouts + disconnected),
            latency: self.latency.snapshot(),
        }
    }
}

/// A request on its way. Dropped without an answer, its connection ended first.
pub(crate) struct Sent {
    request: Arc<RequestMetrics>,
    at: Instant,
    over: bool,
}

impl Sent {
    /// The answer came, whatever it says.
    pub(crate) fn answered(mut self, bytes: usize, now: Instant) {
        self.over = true;
        self.request.bytes_in.add(bytes as u64);
        self.request.latency.record(now.saturating_duration_since(self.at));
        self.request.answered.one();
    }

    /// There will be no answer.
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
    use super::*;
    use crate::error::ErrorKind;
    use crate::metrics::Metrics;

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

    /// A fleet of 10,000 clients and 20 brokers in one process has 200,000 of them.
    #[test]
    fn what_is_not_used_weighs_little() {
        assert!(size_of::<BrokerMetrics>() <= 512, "{}", size_of::<BrokerMetrics>());
        assert!(size_of::<RequestMetrics>() <= 256, "{}", size_of::<RequestMetrics>());
        let (_metrics, broker) = broker();
        broker.sent(Api::Produce, 1, false, Instant::now()).answered(1, Instant::now());
        let used = broker.requests.iter().filter(|r| r.get().is_some()).count();
        assert_eq!(used, 1);
    }
}
