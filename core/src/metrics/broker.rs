//! What is counted for one broker. Whoever talks to it holds the `Arc` and touches nothing but
//! atomics; counters of a request exist once the first of its kind is sent.
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
use super::stats::{BrokerStats, RequestStats};

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
#[derive(Default)]
pub(crate) struct BrokerMetrics {
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
    set_up: Histogram,
    requests: [OnceLock<Arc<RequestMetrics>>; Api::ALL.len()],
}

#[allow(dead_code, reason = "broker health calls the rest")]
impl BrokerMetrics {
    /// An attempt to connect begins.
    pub(crate) fn dialed(self: &Arc<Self>, now: Instant) -> Dialing {
        self.dials.one();
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
    pub(crate) fn throttled(&self, pause: Duration) {
        self.throttled.one();
        self.throttle_us.add(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
    }

    /// Taken out of use for a while.
    pub(crate) fn ejected(&self) {
        self.ejections.one();
    }

    /// Tried again while ejected.
    pub(crate) fn probe(&self) {
        self.probes.one();
    }

    /// A connection became late. Once per episode.
    pub(crate) fn late(&self) {
        self.late.one();
    }

    /// Once per acknowledged batch.
    pub(crate) fn acknowledged(&self, records: u64) {
        self.acknowledged.add(records);
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
        // What ends is read before what begins: else a gauge could be negative for a moment.
        let gone = self.ends.get() + self.adopted_out.get();
        let came = self.connects.get() + self.adopted_in.get();
        BrokerStats {
            dials: self.dials.get(),
            connects: self.connects.get(),
            reconnects: self.reconnects.get(),
            refused: self.refused.get(),
            dial_timeouts: self.dial_timeouts.get(),
            dial_failures: self.dial_failures.get(),
            losses: self.losses.get(),
            idle_closes: self.idle_closes.get(),
            connections_open: came.saturating_sub(gone),
            ejections: self.ejections.get(),
            probes: self.probes.get(),
            late: self.late.get(),
            throttled: self.throttled.get(),
            throttle_time: Duration::from_micros(self.throttle_us.get()),
            records_acknowledged: self.acknowledged.get(),
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
        self.broker.connects.one();
        if reconnect {
            self.broker.reconnects.one();
        }
        self.broker.set_up.record(now.saturating_duration_since(self.since));
        ConnectionMetrics {
            first: Arc::clone(&self.broker),
            adopted: OnceLock::new(),
            state: Mutex::new(State::Open),
        }
    }

    pub(crate) fn failed(mut self, why: DialFailure) {
        self.count(why);
    }

    fn count(&mut self, why: DialFailure) {
        self.over = true;
        match why {
            DialFailure::Refused => self.broker.refused.one(),
            DialFailure::TimedOut => self.broker.dial_timeouts.one(),
            DialFailure::Other => self.broker.dial_failures.one(),
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Lost,
    Closed,
}

/// An open connection. The first of [`lost`](Self::lost), [`closed_idle`](Self::closed_idle) and
/// [`closed`](Self::closed) counts; dropped without one, it was closed.
pub(crate) struct ConnectionMetrics {
    first: Arc<BrokerMetrics>,
    adopted: OnceLock<Arc<BrokerMetrics>>,
    /// Held while the connection ends or changes its broker: it must not end at one and be open
    /// at the other.
    state: Mutex<State>,
}

#[allow(dead_code, reason = "the pool's idle close calls the rest")]
impl ConnectionMetrics {
    /// Where to count now.
    pub(crate) fn broker(&self) -> &Arc<BrokerMetrics> {
        self.adopted.get().unwrap_or(&self.first)
    }

    /// The connection to a bootstrap address turns out to be this broker's: it, and what is sent
    /// from now on, count there. What is in flight is answered where it was sent.
    pub(crate) fn adopted(&self, broker: &Arc<BrokerMetrics>) {
        let state = self.state();
        if *state == State::Open && self.adopted.set(Arc::clone(broker)).is_ok() {
            broker.adopted_in.one();
            self.first.adopted_out.one();
        }
    }

    /// The peer closed it, or it had to be given up: an answer that did not come or was wrong.
    pub(crate) fn lost(&self) {
        if self.over(State::Lost) {
            self.broker().losses.one();
        }
    }

    /// Nothing used it for a while.
    pub(crate) fn closed_idle(&self) {
        if self.over(State::Closed) {
            self.broker().idle_closes.one();
        }
    }

    /// Nobody needs it any more.
    pub(crate) fn closed(&self) {
        self.over(State::Closed);
    }

    /// Whether it ended as [`lost`](Self::lost): then the next one in its place is a reconnect.
    pub(crate) fn was_lost(&self) -> bool {
        *self.state() == State::Lost
    }

    fn over(&self, how: State) -> bool {
        let mut state = self.state();
        let first = *state == State::Open;
        if first {
            *state = how;
            self.broker().ends.one();
        }
        first
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
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
