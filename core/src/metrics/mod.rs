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
mod stats;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

pub(crate) use api::Api;
pub use bad_stuff::BadStuff;
pub(crate) use broker::{BrokerMetrics, ConnectionMetrics, DialFailure, Failure, Sent};
pub use stats::{
    BrokerStats, LatencyStats, MetadataReasons, RequestStats, RetryBudgetStats, RetryBudgets, Stats,
};

use broker::Counter;

/// Why metadata is asked for.
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

#[derive(Default)]
struct Budget {
    /// Bits of an `f64`, NaN at first.
    level: AtomicU64,
    delayed: Counter,
}

impl Budget {
    fn snapshot(&self) -> RetryBudgetStats {
        let level = f64::from_bits(self.level.load(Ordering::Relaxed));
        RetryBudgetStats { level: (!level.is_nan()).then_some(level), delayed: self.delayed.get() }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Metrics {
    brokers: RwLock<BTreeMap<i32, Arc<BrokerMetrics>>>,
    metadata: [Counter; 5],
    budgets: [Budget; 2],
    produce_batches: Counter,
    records_failed: Counter,
    records_rerouted: Counter,
    records_consumed: Counter,
    fetch_bytes: Counter,
    hints_applied: Counter,
    panic_entries: Counter,
}

#[allow(dead_code, reason = "retry budgets, spreading and panic mode call the rest")]
impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self::default();
        for budget in &metrics.budgets {
            budget.level.store(f64::NAN.to_bits(), Ordering::Relaxed);
        }
        metrics
    }

    /// What is counted for a broker, from the first call with its id on. To be kept by the caller:
    /// the map is behind a lock.
    pub(crate) fn broker(&self, id: i32) -> Arc<BrokerMetrics> {
        let known = self.brokers.read().unwrap_or_else(|e| e.into_inner()).get(&id).cloned();
        known.unwrap_or_else(|| {
            let mut brokers = self.brokers.write().unwrap_or_else(|e| e.into_inner());
            Arc::clone(brokers.entry(id).or_default())
        })
    }

    /// A Metadata request is about to be sent.
    pub(crate) fn metadata_asked(&self, why: MetadataReason) {
        self.metadata[why as usize].one();
    }

    /// What a retry budget holds now, in requests.
    pub(crate) fn budget_level(&self, which: RetryBudget, requests: f64) {
        self.budgets[which as usize].level.store(requests.to_bits(), Ordering::Relaxed);
    }

    /// A request has to wait for a retry budget. Once per request.
    pub(crate) fn budget_delayed(&self, which: RetryBudget) {
        self.budgets[which as usize].delayed.one();
    }

    /// A Produce request carries so many batches.
    pub(crate) fn batches_sent(&self, batches: usize) {
        self.produce_batches.add(batches as u64);
    }

    pub(crate) fn records_failed(&self, records: usize) {
        self.records_failed.add(records as u64);
    }

    /// Records that were bound to a partition go to another one.
    pub(crate) fn records_rerouted(&self, records: usize) {
        self.records_rerouted.add(records as u64);
    }

    /// Records in the hands of the application.
    pub(crate) fn records_consumed(&self, records: usize) {
        self.records_consumed.add(records as u64);
    }

    /// Bytes of records in a Fetch answer.
    pub(crate) fn records_fetched(&self, bytes: usize) {
        self.fetch_bytes.add(bytes as u64);
    }

    /// An answer named a leader that was news.
    pub(crate) fn hint_applied(&self) {
        self.hints_applied.one();
    }

    /// More than half of the brokers are bad from now on.
    pub(crate) fn panic_entered(&self) {
        self.panic_entries.one();
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let brokers: BTreeMap<i32, BrokerStats> = {
            let brokers = self.brokers.read().unwrap_or_else(|e| e.into_inner());
            brokers.iter().map(|(id, broker)| (*id, broker.snapshot())).collect()
        };
        let sum = |count: fn(&BrokerStats) -> u64| brokers.values().map(count).sum();
        let requests = |api: Api, count: fn(&RequestStats) -> u64| {
            brokers.values().filter_map(|b| b.requests.get(api.name())).map(count).sum()
        };
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
            hints_applied: self.hints_applied.get(),
            produce_requests: requests(Api::Produce, |r| r.sent),
            produce_retries: requests(Api::Produce, |r| r.retries),
            produce_bytes: requests(Api::Produce, |r| r.bytes_out),
            produce_batches: self.produce_batches.get(),
            records_acknowledged: sum(|b| b.records_acknowledged),
            records_failed: self.records_failed.get(),
            records_rerouted: self.records_rerouted.get(),
            fetch_requests: requests(Api::Fetch, |r| r.sent),
            fetch_bytes: self.fetch_bytes.get(),
            records_consumed: self.records_consumed.get(),
            acknowledged_by_broker: brokers
                .iter()
                .filter(|(_, b)| b.records_acknowledged > 0)
                .map(|(id, b)| (*id, b.records_acknowledged))
                .collect(),
            retry_budget: RetryBudgets {
                produce: self.budgets[RetryBudget::Produce as usize].snapshot(),
                fetch: self.budgets[RetryBudget::Fetch as usize].snapshot(),
            },
            panic_entries: self.panic_entries.get(),
            brokers,
        };
        stats.bad_stuff = BadStuff::of(&stats);
        stats
    }
}
