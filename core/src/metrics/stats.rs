//! The snapshot: plain numbers, for people, tests and other languages.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::bad_stuff::BadStuff;

fn seconds<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(duration.as_secs_f64())
}

/// A snapshot of what a pool has done since it exists. All handles of a process on one cluster
/// share a pool, so they count together.
///
/// Serialised, durations are seconds, as floating point numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Counts of what should not happen: all zero when all is well.
    pub bad_stuff: BadStuff,
    /// Connections opened.
    pub connects: u64,
    /// Dials that did not become a connection.
    pub connect_failures: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Metadata requests sent.
    pub metadata_requests: u64,
    /// Of those, how many for which reason.
    pub metadata_reasons: MetadataReasons,
    /// Leaders learnt from Produce and Fetch responses (KIP-951), without a Metadata request.
    pub hints_applied: u64,
    /// How often a partition came to be read from a replica in this client's rack, which its leader had named (KIP-392).
    pub replicas_chosen: u64,
    /// How often such a replica was left for the leader because of trouble: it could not be reached, answered with an error, or was
    /// behind.
    pub replicas_left: u64,
    /// Produce requests sent.
    pub produce_requests: u64,
    /// Of those, requests that exist only because of a retry.
    pub produce_retries: u64,
    /// Bytes of Produce requests sent.
    pub produce_bytes: u64,
    /// Batches sent, each attempt counted.
    pub produce_batches: u64,
    /// Records acknowledged.
    pub records_acknowledged: u64,
    /// Records that resolved with an error.
    pub records_failed: u64,
    /// Records that were bound to a partition and taken to another one, unsent.
    pub records_rerouted: u64,
    /// Fetch requests sent.
    pub fetch_requests: u64,
    /// Bytes of records fetched, as they came.
    pub fetch_bytes: u64,
    /// Records handed to the application.
    pub records_consumed: u64,
    /// Records acknowledged by broker id.
    pub acknowledged_by_broker: BTreeMap<i32, u64>,
    /// Requests sent, of all brokers, by name of the request ("Produce", "Metadata", ...); those of which there
    /// were any.
    pub requests: BTreeMap<&'static str, u64>,
    /// All of these for each 1,000 records acknowledged or consumed; 0 before there is a record.
    pub requests_per_1000_messages: f64,
    /// Requests an hour that move no records: metadata, producer ids, offsets, and so on; all but Produce and
    /// Fetch, by name. Of a pool that is younger than an hour, as many as there were.
    pub other_requests_per_hour: BTreeMap<&'static str, f64>,
    /// How many retries may be sent now.
    pub retry_budget: RetryBudgets,
    /// How often more than half of the brokers were bad at once, so that none was avoided.
    pub panic_entries: u64,
    /// By broker id. Negative: a bootstrap address whose broker is not known.
    pub brokers: BTreeMap<i32, BrokerStats>,
    /// Brokers that the cluster had once and that are forgotten since, added up (without latencies).
    pub departed: BrokerStats,
}

/// Metadata requests by what made them necessary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MetadataReasons {
    /// To reach the cluster for the first time.
    pub first_contact: u64,
    /// A topic was used for the first time.
    pub new_topic: u64,
    /// The refresh that comes every few minutes.
    pub periodic: u64,
    /// A leader is missing, or refused and named no other; a broker was lost or did not answer.
    pub trouble: u64,
    /// No known broker could be reached, and the bootstrap list was asked again (KIP-899).
    pub rebootstrap: u64,
}

/// Retries may take no more than their share: an empty budget delays them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RetryBudgets {
    /// For Produce.
    pub produce: RetryBudgetStats,
    /// For Fetch and the lookup of offsets.
    pub fetch: RetryBudgetStats,
}

/// One retry budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RetryBudgetStats {
    /// Requests that may be retried at once now. `None` before the first request.
    pub level: Option<f64>,
    /// Requests that had to wait because it was empty.
    pub delayed: u64,
}

/// One broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Attempts to connect.
    pub dials: u64,
    /// Attempts that became a connection.
    pub connects: u64,
    /// Of those, in the place of a connection that was lost (and not just closed as idle).
    pub reconnects: u64,
    /// Attempts that were refused.
    pub refused: u64,
    /// Attempts that took too long.
    pub dial_timeouts: u64,
    /// Attempts that failed in another way: no such host, TLS, authentication.
    pub dial_failures: u64,
    /// Connections that the broker closed, or that had to be given up.
    pub losses: u64,
    /// Connections closed because nothing used them.
    pub idle_closes: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// How often the broker was taken out of use for a while.
    pub ejections: u64,
    /// Attempts to use it again.
    pub probes: u64,
    /// How often a connection became late: its oldest request unanswered for unusually long.
    pub late: u64,
    /// Responses that asked for a pause.
    pub throttled: u64,
    /// The pauses asked for, in total.
    #[serde(serialize_with = "seconds")]
    pub throttle_time: Duration,
    /// Records it acknowledged.
    pub records_acknowledged: u64,
    /// From the dial to a connection that is ready, authentication included.
    pub set_up: LatencyStats,
    /// By name of the request ("Produce", "Fetch", ...); those that were sent.
    pub requests: BTreeMap<&'static str, RequestStats>,
}

impl BrokerStats {
    /// Counts of another one, too; its latencies are left out.
    pub(super) fn add(&mut self, other: &Self) {
        let Self {
            dials,
            connects,
            reconnects,
            refused,
            dial_timeouts,
            dial_failures,
            losses,
            idle_closes,
            connections_open,
            ejections,
            probes,
            late,
            throttled,
            throttle_time,
            records_acknowledged,
            set_up: _,
            requests,
        } = self;
        *dials += other.dials;
        *connects += other.connects;
        *reconnects += other.reconnects;
        *refused += other.refused;
        *dial_timeouts += other.dial_timeouts;
        *dial_failures += other.dial_failures;
        *losses += other.losses;
        *idle_closes += other.idle_closes;
        *connections_open += other.connections_open;
        *ejections += other.ejections;
        *probes += other.probes;
        *late += other.late;
        *throttled += other.throttled;
        *throttle_time += other.throttle_time;
        *records_acknowledged += other.records_acknowledged;
        for (name, more) in &other.requests {
            requests.entry(name).or_default().add(more);
        }
    }
}

/// Requests of one kind to one broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RequestStats {
    /// Requests sent.
    pub sent: u64,
    /// Responses, whatever they say.
    pub answered: u64,
    /// Responses that say that the request, or a part of it, failed.
    pub errors: u64,
    /// Requests without a response within the request timeout.
    pub timeouts: u64,
    /// Requests whose connection ended before the response.
    pub disconnected: u64,
    /// Requests that exist only because an earlier one failed.
    pub retries: u64,
    /// Bytes of the requests.
    pub bytes_out: u64,
    /// Bytes of the responses.
    pub bytes_in: u64,
    /// Requests without a response or another end now.
    pub in_flight: u64,
    /// From the request to its response. A Fetch waits at the broker for data.
    pub latency: LatencyStats,
}

impl RequestStats {
    fn add(&mut self, other: &Self) {
        let Self {
            sent,
            answered,
            errors,
            timeouts,
            disconnected,
            retries,
            bytes_out,
            bytes_in,
            in_flight,
            latency: _,
        } = self;
        *sent += other.sent;
        *answered += other.answered;
        *errors += other.errors;
        *timeouts += other.timeouts;
        *disconnected += other.disconnected;
        *retries += other.retries;
        *bytes_out += other.bytes_out;
        *bytes_in += other.bytes_in;
        *in_flight += other.in_flight;
    }
}

/// How long something took. Quantiles are right within 12.5 %, mean and maximum exact; 1 us at
/// least, 1 h at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LatencyStats {
    /// How many were measured; all else is zero if none was.
    pub count: u64,
    /// The mean.
    #[serde(serialize_with = "seconds")]
    pub mean: Duration,
    /// Half took no longer.
    #[serde(serialize_with = "seconds")]
    pub p50: Duration,
    /// Nine of ten took no longer.
    #[serde(serialize_with = "seconds")]
    pub p90: Duration,
    /// 99 % took no longer.
    #[serde(serialize_with = "seconds")]
    pub p99: Duration,
    /// 99.9 % took no longer.
    #[serde(serialize_with = "seconds")]
    pub p999: Duration,
    /// The longest.
    #[serde(serialize_with = "seconds")]
    pub max: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counters of brokers that have left the cluster are kept, as one sum.
    #[test]
    fn sums_leave_nothing_out() {
        let request = RequestStats { sent: 5, bytes_in: 7, answered: 3, ..Default::default() };
        let broker = BrokerStats {
            ejections: 2,
            requests: [("Fetch", request)].into_iter().collect(),
            ..Default::default()
        };
        let mut sum = BrokerStats::default();
        sum.add(&broker);
        sum.add(&broker);
        assert_eq!(sum.ejections, 4);
        let fetches = sum.requests["Fetch"];
        assert_eq!((fetches.sent, fetches.bytes_in, fetches.answered), (10, 14, 6));
    }
}
