//! What a pool counts, and how often it may log.
//!
//! ```text
//! Metrics (one per pool)
//!  ├─ pool-wide: records, batches, metadata by reason, retry budgets, hints, panic
//!  └─ broker(id): BrokerMetrics, held by whoever talks to it
//!      ├─ dialed(now) ─> Dialing ─┬─ connected(reconnect, now) ─> ConnectionMetrics ─ lost() | closed_idle()
//!      │                          └─ failed(why)                                      | closed() | adopted(broker)
//!      └─ sent(api, bytes, retry, now) ─> Sent ── answered(bytes, now) | failed(why)
//! ```
//!
//! What can be added up from the brokers is not counted a second time.

mod api;
mod bad_stuff;
mod broker;
mod histogram;
mod logs;
mod stats;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

pub(crate) use api::Api;
pub use bad_stuff::BadStuff;
pub(crate) use broker::{BrokerMetrics, ConnectionMetrics, DialFailure, Failure, Sent};
pub(crate) use logs::{
    Logs, event, limited, log_level, loudly, put_together, say_aloud, somebody_listens,
};
pub use stats::{
    BrokerStats, LatencyStats, MetadataReasons, RequestStats, RetryBudgetStats, RetryBudgets, Stats,
};

use broker::Counter;
use tokio::time::Instant;

use crate::policy::chatter::Chatter;

/// Why a Metadata request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetadataReason {
    FirstContact,
    NewTopic,
    Periodic,
    /// A leader is missing, or refused without naming another; a broker was lost or is silent.
    Trouble,
    Rebootstrap,
}

/// Which retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryBudget {
    Produce,
    /// Fetch and lookups.
    Fetch,
}

struct Budget {
    /// The bits of an `f64`; NaN before the first request.
    level: AtomicU64,
    delayed: Counter,
}

impl Default for Budget {
    fn default() -> Self {
        Self { level: AtomicU64::new(f64::NAN.to_bits()), delayed: Counter::default() }
    }
}

impl Budget {
    fn snapshot(&self) -> RetryBudgetStats {
        let level = f64::from_bits(self.level.load(Ordering::Relaxed));
        RetryBudgetStats { level: (!level.is_nan()).then_some(level), delayed: self.delayed.get() }
    }
}

/// The counters of one pool.
pub(crate) struct Metrics {
    logs: Arc<Logs>,
    /// By broker id. Bounded by the brokers that the pool remembers: see [`departed`](Self::departed).
    brokers: RwLock<BTreeMap<i32, Arc<BrokerMetrics>>>,
    departed: Mutex<Departed>,
    metadata: [Counter; 5],
    budgets: [Budget; 2],
    counts: Counts,
    chatter: Mutex<Chatter>,
    /// Certificates of brokers are not verified.
    unverified: AtomicBool,
    since: Instant,
}

#[derive(Default)]
struct Counts {
    produce_batches: Counter,
    records_failed: Counter,
    records_rerouted: Counter,
    records_consumed: Counter,
    fetch_bytes: Counter,
    hints_applied: Counter,
    replicas_chosen: Counter,
    replicas_left: Counter,
    panic_entries: Counter,
}

/// Brokers that the pool has forgotten: what was counted for them, added up.
#[derive(Default)]
struct Departed {
    sum: BrokerStats,
    /// Brokers that are forgotten, but still counted for by somebody who holds them. Added to the sum when nobody does.
    leaving: Vec<Arc<BrokerMetrics>>,
}

impl Departed {
    /// Adds those that nobody counts for any more to the sum.
    fn add_up(&mut self) {
        for i in (0..self.leaving.len()).rev() {
            if Arc::strong_count(&self.leaving[i]) == 1 {
                self.sum.add(&self.leaving.swap_remove(i).snapshot());
            }
        }
    }
}

/// The statistics of a pool, to be read at any time, also when the pool is gone: holding this
/// keeps nothing else alive. For exporters and other languages; programs have
/// [`Client::stats`](crate::Client::stats).
#[derive(Clone)]
pub struct StatsHandle(Arc<Metrics>);

impl StatsHandle {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        Self(Arc::clone(metrics))
    }

    /// What the pool has done so far.
    pub fn stats(&self) -> Stats {
        self.0.snapshot()
    }
}

/// Counters that belong to no pool, for tests.
impl Default for Metrics {
    fn default() -> Self {
        Self::new(tracing::Span::none(), String::new())
    }
}

impl Metrics {
    /// `span`: the span of the pool's events; `bootstrap`: the bootstrap addresses, for those who see no spans.
    pub(crate) fn new(span: tracing::Span, bootstrap: String) -> Self {
        Self {
            logs: Arc::new(Logs::new(span, bootstrap)),
            brokers: RwLock::default(),
            departed: Mutex::default(),
            metadata: Default::default(),
            budgets: Default::default(),
            counts: Counts::default(),
            chatter: Mutex::default(),
            unverified: AtomicBool::new(false),
            since: Instant::now(),
        }
    }

    /// Certificates of brokers are not verified.
    pub(crate) fn tls_unverified(&self) {
        self.unverified.store(true, Ordering::Relaxed);
    }

    /// For [`limited!`].
    pub(crate) fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The counters of a broker, made with the first call for its id. The map is behind a lock: callers that
    /// count for each record or request keep the result.
    pub(crate) fn broker(&self, id: i32) -> Arc<BrokerMetrics> {
        let known = self.brokers.read().unwrap_or_else(|e| e.into_inner()).get(&id).cloned();
        known.unwrap_or_else(|| {
            let mut brokers = self.brokers.write().unwrap_or_else(|e| e.into_inner());
            let new = || Arc::new(BrokerMetrics::new(id, Arc::clone(&self.logs)));
            Arc::clone(brokers.entry(id).or_insert_with(new))
        })
    }

    /// The pool forgets a broker. Its counts stay part of the sums.
    pub(crate) fn departed(&self, id: i32) {
        let gone = self.brokers.write().unwrap_or_else(|e| e.into_inner()).remove(&id);
        let mut departed = self.departed.lock().unwrap_or_else(|e| e.into_inner());
        departed.leaving.extend(gone);
        departed.add_up();
    }

    /// A Metadata request is about to be sent.
    pub(crate) fn metadata_asked(&self, why: MetadataReason) {
        self.metadata[why as usize].one();
    }

    /// A retry budget holds enough for so many requests now.
    pub(crate) fn budget_level(&self, which: RetryBudget, requests: f64) {
        self.budgets[which as usize].level.store(requests.to_bits(), Ordering::Relaxed);
    }

    /// A request has to wait for a retry budget. Called once per request.
    pub(crate) fn budget_delayed(&self, which: RetryBudget) {
        self.budgets[which as usize].delayed.one();
    }

    /// A Produce request with so many batches is sent.
    pub(crate) fn batches_sent(&self, batches: usize) {
        self.counts.produce_batches.add(batches as u64);
    }

    /// A Produce request with so many records is answered. `hasty`: nobody let any of them gather.
    pub(crate) fn produce_answered(&self, records: usize, hasty: bool, now: Instant) {
        let mut chatter = self.chatter.lock().unwrap_or_else(|e| e.into_inner());
        chatter.answered(records as u64, hasty, now);
    }

    pub(crate) fn records_failed(&self, records: usize) {
        self.counts.records_failed.add(records as u64);
    }

    /// So many records that had a partition go to another one.
    pub(crate) fn records_rerouted(&self, records: usize) {
        self.counts.records_rerouted.add(records as u64);
    }

    /// So many records were handed to the application.
    pub(crate) fn records_consumed(&self, records: usize) {
        self.counts.records_consumed.add(records as u64);
    }

    /// A Fetch response brought so many bytes of records.
    pub(crate) fn records_fetched(&self, bytes: usize) {
        self.counts.fetch_bytes.add(bytes as u64);
    }

    /// A response named a leader that was not known yet.
    pub(crate) fn hint_applied(&self) {
        self.counts.hints_applied.one();
    }

    /// A partition is read from a nearer replica from now on.
    pub(crate) fn replica_chosen(&self) {
        self.counts.replicas_chosen.one();
    }

    /// A partition is read from its leader again, as such a replica made trouble.
    pub(crate) fn replica_left(&self) {
        self.counts.replicas_left.one();
    }

    /// More than half of the brokers are unreachable or ejected now.
    pub(crate) fn panic_entered(&self) {
        self.counts.panic_entries.one();
        limited!(
            &self.logs,
            "ottla::cluster",
            WARN,
            "more than half of the brokers are bad: none is avoided"
        );
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let brokers: BTreeMap<i32, BrokerStats> = {
            let brokers = self.brokers.read().unwrap_or_else(|e| e.into_inner());
            brokers.iter().map(|(id, broker)| (*id, broker.snapshot())).collect()
        };
        let departed = {
            let mut departed = self.departed.lock().unwrap_or_else(|e| e.into_inner());
            departed.add_up();
            let mut sum = departed.sum.clone();
            departed.leaving.iter().for_each(|broker| sum.add(&broker.snapshot()));
            sum
        };
        let all = || brokers.values().chain([&departed]);
        let sum = |count: fn(&BrokerStats) -> u64| all().map(count).sum();
        let requests = |api: Api, count: fn(&RequestStats) -> u64| {
            all().filter_map(|b| b.requests.get(api.name())).map(count).sum()
        };
        let mut by_name: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (name, request) in all().flat_map(|b| &b.requests) {
            *by_name.entry(name).or_default() += request.sent;
        }
        let reason = |why: MetadataReason| self.metadata[why as usize].get();
        let mut stats = Stats {
            bad_stuff: BadStuff::default(),
            connects: sum(|b| b.connects),
            connect_failures: sum(|b| b.refused + b.dial_timeouts + b.dial_failures),
            connections_open: sum(|b| b.connections_open),
            metadata_requests: requests(Api::Metadata, |r| r.sent),
            metadata_reasons: MetadataReasons {
                first_contact: reason(MetadataReason::FirstContact),
                new_topic: reason(MetadataReason::NewTopic),
                periodic: reason(MetadataReason::Periodic),
                trouble: reason(MetadataReason::Trouble),
                rebootstrap: reason(MetadataReason::Rebootstrap),
            },
            hints_applied: self.counts.hints_applied.get(),
            replicas_chosen: self.counts.replicas_chosen.get(),
            replicas_left: self.counts.replicas_left.get(),
            produce_requests: requests(Api::Produce, |r| r.sent),
            produce_retries: requests(Api::Produce, |r| r.retries),
            produce_bytes: requests(Api::Produce, |r| r.bytes_out),
            produce_batches: self.counts.produce_batches.get(),
            records_acknowledged: sum(|b| b.records_acknowledged),
            records_failed: self.counts.records_failed.get(),
            records_rerouted: self.counts.records_rerouted.get(),
            fetch_requests: requests(Api::Fetch, |r| r.sent),
            fetch_bytes: self.counts.fetch_bytes.get(),
            records_consumed: self.counts.records_consumed.get(),
            acknowledged_by_broker: brokers
                .iter()
                .filter(|(_, b)| b.records_acknowledged > 0)
                .map(|(id, b)| (*id, b.records_acknowledged))
                .collect(),
            requests: by_name,
            requests_per_1000_messages: 0.0,
            other_requests_per_hour: BTreeMap::new(),
            retry_budget: RetryBudgets {
                produce: self.budgets[RetryBudget::Produce as usize].snapshot(),
                fetch: self.budgets[RetryBudget::Fetch as usize].snapshot(),
            },
            panic_entries: self.counts.panic_entries.get(),
            departed,
            brokers,
        };
        let messages = stats.records_acknowledged + stats.records_consumed;
        if messages > 0 {
            let requests: u64 = stats.requests.values().sum();
            stats.requests_per_1000_messages = requests as f64 * 1_000.0 / messages as f64;
        }
        let hours = (self.since.elapsed().as_secs_f64() / 3_600.0).max(1.0);
        let moves = [Api::Produce.name(), Api::Fetch.name()];
        let others = stats.requests.iter().filter(|(name, _)| !moves.contains(name));
        stats.other_requests_per_hour =
            others.map(|(name, n)| (*name, *n as f64 / hours)).collect();
        let chatter = self.chatter.lock().unwrap_or_else(|e| e.into_inner()).says();
        stats.bad_stuff = BadStuff::of(&stats, chatter, self.unverified.load(Ordering::Relaxed));
        stats
    }
}

#[cfg(test)]
mod tests;
