//! What each event changes in the statistics, and how that reads.

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
        (|m| m.broker(1).ejected(Duration::from_secs(30)), |b| b.ejections as f64, "ejections 1"),
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
    for why in [MetadataReason::FirstContact, MetadataReason::NewTopic, MetadataReason::Periodic] {
        metrics.metadata_asked(why);
    }
    let broker = metrics.broker(1);
    let connection = broker.dialed(Instant::now()).connected(false, Instant::now());
    broker.sent(Api::Produce, 10, false, Instant::now()).answered(10, Instant::now());
    broker.acknowledged(5);
    broker.late(Duration::from_millis(300));
    metrics.hint_applied();
    (0..3).for_each(|_| metrics.replica_chosen());
    (0..2).for_each(|_| metrics.replica_left());
    metrics.records_rerouted(3);
    metrics.batches_sent(2);
    metrics.records_fetched(100);
    connection.closed_idle();
    let stats = metrics.snapshot();
    assert!(stats.bad_stuff.is_zero(), "{}", stats.bad_stuff);
    assert_eq!(stats.bad_stuff.to_string(), "none");
    assert_eq!((stats.produce_requests, stats.produce_bytes, stats.produce_batches), (1, 10, 2));
    assert_eq!((stats.hints_applied, stats.records_rerouted, stats.fetch_bytes), (1, 3, 100));
    assert_eq!((stats.replicas_chosen, stats.replicas_left), (3, 2));
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
