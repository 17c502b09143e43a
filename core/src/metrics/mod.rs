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
use std::sync::atomic::{AtomicU64, Ordering};
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
            since: Instant::now(),
        }
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
        stats.bad_stuff = BadStuff::of(&stats, chatter);
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::error::{Error, ErrorKind};

    /// Everything that may happen, what it changes in the view, and how that reads.
    #[test]
    fn each_trouble_shows_in_its_field() {
        type Trouble = fn(&Metrics);
        type Field = fn(&BadStuff) -> f64;
        fn error() -> Error {
            Error::new(ErrorKind::Connect, "no")
        }
        let table: [(Trouble, Field, &str); 13] = [
            (
                |m| drop(m.broker(1).sent(Api::Fetch, 1, true, Instant::now())),
                |b| b.retries as f64,
                "retries 1",
            ),
            (
                |m| m.broker(1).dialed(Instant::now()).failed(DialFailure::Refused, &error()),
                |b| b.refused as f64,
                "refused 1",
            ),
            (
                |m| m.broker(1).dialed(Instant::now()).failed(DialFailure::TimedOut, &error()),
                |b| b.timeouts as f64,
                "timeouts 1",
            ),
            (
                |m| {
                    let sent = m.broker(1).sent(Api::Other, 1, false, Instant::now());
                    sent.failed(Failure::Timeout);
                },
                |b| b.timeouts as f64,
                "timeouts 1",
            ),
            (
                |m| m.broker(1).dialed(Instant::now()).failed(DialFailure::Other, &error()),
                |b| b.dial_failures as f64,
                "dial failures 1",
            ),
            (
                |m| {
                    let dialing = m.broker(1).dialed(Instant::now());
                    dialing.connected(false, Instant::now()).lost(&error());
                },
                |b| b.losses as f64,
                "losses 1",
            ),
            (
                |m| drop(m.broker(1).dialed(Instant::now()).connected(true, Instant::now())),
                |b| b.reconnects as f64,
                "reconnects 1",
            ),
            (|m| m.broker(1).error_response(Api::Produce), |b| b.errors as f64, "errors 1"),
            (
                |m| m.broker(1).throttled(Api::Produce, Duration::from_secs(1)),
                |b| b.throttled as f64,
                "throttled 1",
            ),
            (
                |m| m.broker(1).ejected(Duration::from_secs(30)),
                |b| b.ejections as f64,
                "ejections 1",
            ),
            (|m| m.records_failed(1), |b| b.records_failed as f64, "records failed 1"),
            (
                |m| {
                    m.metadata_asked(MetadataReason::Trouble);
                    m.metadata_asked(MetadataReason::Rebootstrap);
                    m.broker(1).acknowledged(1_500);
                    m.records_consumed(500);
                },
                |b| b.metadata_per_1000_messages,
                "metadata per 1,000 messages 1.000",
            ),
            (
                |m| {
                    // A request for each of 250 records a second.
                    let now = Instant::now();
                    let at = |n: u64| now + Duration::from_millis(4 * n);
                    (0..10_000).for_each(|n| m.produce_answered(1, true, at(n)));
                },
                |b| b.requests_per_1000_messages / 1_000.0,
                "requests per 1,000 messages 1000",
            ),
        ];
        for (trouble, field, words) in table {
            let metrics = Metrics::default();
            trouble(&metrics);
            let bad = metrics.snapshot().bad_stuff;
            assert!(!bad.is_zero(), "{words}");
            assert_eq!(field(&bad), 1.0, "{words}");
            assert_eq!(bad.to_string(), words);
        }
        let metrics = Metrics::default();
        for (trouble, ..) in table {
            trouble(&metrics);
        }
        assert_eq!(
            metrics.snapshot().bad_stuff.to_string(),
            "retries 1, refused 1, timeouts 2, dial failures 1, losses 1, reconnects 1, errors 1, \
             throttled 1, ejections 1, records failed 1, metadata per 1,000 messages 1.000, \
             requests per 1,000 messages 1000"
        );
    }

    #[test]
    fn everyday_work_is_not_bad() {
        let metrics = Metrics::default();
        for why in
            [MetadataReason::FirstContact, MetadataReason::NewTopic, MetadataReason::Periodic]
        {
            metrics.metadata_asked(why);
        }
        let broker = metrics.broker(1);
        let connection = broker.dialed(Instant::now()).connected(false, Instant::now());
        broker.sent(Api::Produce, 10, false, Instant::now()).answered(10, Instant::now());
        broker.acknowledged(5);
        broker.late(Duration::from_millis(300));
        metrics.hint_applied();
        metrics.records_rerouted(3);
        metrics.batches_sent(2);
        metrics.records_fetched(100);
        connection.closed_idle();
        let stats = metrics.snapshot();
        assert!(stats.bad_stuff.is_zero(), "{}", stats.bad_stuff);
        assert_eq!(stats.bad_stuff.to_string(), "none");
        assert_eq!(
            (stats.produce_requests, stats.produce_bytes, stats.produce_batches),
            (1, 10, 2)
        );
        assert_eq!((stats.hints_applied, stats.records_rerouted, stats.fetch_bytes), (1, 3, 100));
        assert_eq!(stats.acknowledged_by_broker, BTreeMap::from([(1, 5)]));
        assert_eq!(stats.requests, BTreeMap::from([("Produce", 1)]));
        assert!(stats.other_requests_per_hour.is_empty());
        assert_eq!(stats.requests_per_1000_messages, 200.0);
    }

    #[test]
    fn what_was_counted_for_a_broker_that_is_gone_stays_in_the_sums() {
        let metrics = Metrics::default();
        let work = |id| {
            let broker = metrics.broker(id);
            let connection = broker.dialed(Instant::now()).connected(true, Instant::now());
            broker.sent(Api::Produce, 10, true, Instant::now()).answered(10, Instant::now());
            broker.acknowledged(5);
            (broker, connection)
        };
        let held: Vec<_> = (1..=3).map(work).collect();
        let before = metrics.snapshot();
        metrics.departed(1);
        metrics.departed(7);
        let mut during = metrics.snapshot();
        assert_eq!(during.brokers.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(during.departed.connections_open, 1, "somebody has it still");
        assert_eq!((during.connections_open, during.bad_stuff), (3, before.bad_stuff));
        drop(held);
        metrics.departed(2);
        during = metrics.snapshot();
        assert_eq!(during.brokers.len(), 1);
        assert_eq!((during.connects, during.connections_open), (3, 0));
        assert_eq!((during.records_acknowledged, during.produce_requests), (15, 3));
        assert_eq!((during.requests["Produce"], during.requests_per_1000_messages), (3, 200.0));
        assert_eq!(during.departed.requests["Produce"].retries, 2);
        assert!(metrics.departed.lock().unwrap().leaving.is_empty());
    }

    #[test]
    fn the_budgets() {
        let metrics = Metrics::default();
        assert_eq!(metrics.snapshot().retry_budget, RetryBudgets::default());
        metrics.budget_level(RetryBudget::Produce, 19.4);
        metrics.budget_level(RetryBudget::Fetch, 0.0);
        metrics.budget_delayed(RetryBudget::Fetch);
        let budgets = metrics.snapshot().retry_budget;
        assert_eq!((budgets.produce.level, budgets.produce.delayed), (Some(19.4), 0));
        assert_eq!((budgets.fetch.level, budgets.fetch.delayed), (Some(0.0), 1));
    }

    /// A young client has made as many as it has; what an old one made at its start fades.
    #[tokio::test(start_paused = true)]
    async fn what_moves_no_records_is_told_by_the_hour() {
        let metrics = Metrics::default();
        let broker = metrics.broker(1);
        let mut at = Vec::new();
        for hours in [0, 1, 9] {
            tokio::time::advance(Duration::from_secs(3_600 * hours)).await;
            for api in [Api::Metadata, Api::Produce, Api::Fetch] {
                (0..5).for_each(|_| drop(broker.sent(api, 1, false, Instant::now())));
            }
            at.push(metrics.snapshot().other_requests_per_hour);
        }
        assert_eq!(at, [5.0, 10.0, 1.5].map(|n| BTreeMap::from([("Metadata", n)])));
    }
}
