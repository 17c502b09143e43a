//! What is counted for one broker, and logged where it should not happen. Whoever talks to it holds
//! the `Arc` and touches nothing but atomics; counters of a request exist once the first of its
//! kind is sent. What begins and must end is a token ([`tokens`]).

mod tokens;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::api::Api;
use super::histogram::Histogram;
use super::logs::{Logs, event, limited};
use super::stats::{BrokerStats, RequestStats};
use crate::config::Endpoint;

pub(crate) use tokens::{ConnectionMetrics, DialFailure, Dialing, Failure, Sent};

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

/// The counters of one broker.
pub(crate) struct BrokerMetrics {
    id: i32,
    logs: Arc<Logs>,
    counts: Counts,
    set_up: Histogram,
    /// A bit for each kind of request whose response has had bytes behind its end.
    left_over: AtomicU64,
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
    /// Connections that ended, for whatever reason.
    ends: Counter,
    losses: Counter,
    idle_closes: Counter,
    /// Connections that were taken over from a bootstrap address, and those that were given away by one.
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
            left_over: AtomicU64::new(0),
            requests: Default::default(),
        }
    }

    /// The span of one connection's set-up.
    pub(crate) fn connect_span(&self, address: &Endpoint) -> tracing::Span {
        tracing::debug_span!(target: "ottla::net", parent: self.logs.span(), "connect", broker = self.id, %address)
    }

    /// An attempt to connect begins.
    pub(crate) fn dialed(self: &Arc<Self>, now: Instant) -> Dialing {
        self.counts.dials.one();
        Dialing::new(Arc::clone(self), now)
    }

    /// A request is handed to a connection. `retry`: it exists only because an earlier one failed.
    pub(crate) fn sent(&self, api: Api, bytes: usize, retry: bool, now: Instant) -> Sent {
        let request = self.request(api);
        request.sent.one();
        request.bytes_out.add(bytes as u64);
        if retry {
            request.retries.one();
        }
        Sent::new(Arc::clone(request), now)
    }

    /// A response, which was counted already, carries an error for the request or a part of it.
    pub(crate) fn error_response(&self, api: Api) {
        self.request(api).errors.one();
    }

    /// A response asked for a pause.
    pub(crate) fn throttled(&self, api: Api, pause: Duration) {
        self.counts.throttled.one();
        self.counts.throttle_us.add(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
        limited!(
            &self.logs,
            "ottla::cluster",
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
        limited!(&self.logs, "ottla::cluster", WARN, broker = self.id, ?pause, "broker ejected");
    }

    /// Tried again while ejected.
    pub(crate) fn probe(&self) {
        self.counts.probes.one();
        limited!(&self.logs, "ottla::cluster", DEBUG, broker = self.id, "ejected broker probed");
    }

    /// A connection became late: nothing came for so long. Once per episode.
    pub(crate) fn late(&self, silent: Duration) {
        self.counts.late.one();
        limited!(&self.logs, "ottla::net", WARN, broker = self.id, ?silent, "broker late");
    }

    /// A response had unknown bytes behind its end. Logged once for each kind of request, since such a broker does it each
    /// time.
    pub(crate) fn left_over(&self, api_key: i16, version: i16, bytes: usize) {
        let bit = 1u64 << u32::try_from(api_key).unwrap_or(63).min(63);
        if self.left_over.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            event!(
                &self.logs,
                "ottla::net",
                WARN,
                broker = self.id,
                api_key,
                version,
                bytes,
                "bytes are left over behind an answer; they are passed over"
            );
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    /// A fleet of 10,000 clients and 20 brokers in one process has 200,000 of them.
    #[test]
    fn what_is_not_used_weighs_little() {
        assert!(size_of::<BrokerMetrics>() <= 640, "{}", size_of::<BrokerMetrics>());
        assert!(size_of::<RequestMetrics>() <= 256, "{}", size_of::<RequestMetrics>());
        let metrics = Metrics::default();
        let broker = metrics.broker(7);
        broker.sent(Api::Produce, 1, false, Instant::now()).answered(1, Instant::now());
        let used = broker.requests.iter().filter(|r| r.get().is_some()).count();
        assert_eq!(used, 1);
    }
}
