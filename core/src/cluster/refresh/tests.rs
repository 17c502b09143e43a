use ottla_test_broker::{ApiKey, Cluster};

use super::*;
use crate::cluster::broker::Lane;
use crate::cluster::testbed::{Way, bed, bed_of, secs};

#[tokio::test(start_paused = true)]
async fn buffers_that_nobody_needs_are_given_back_within_the_hour() {
    let bed = bed(1, 1).known().await;
    let buffers = bed.pool.buffers();
    drop([buffers.get(1 << 20), buffers.get(1 << 20)]);
    assert!(buffers.idle_bytes() >= 2 << 20);
    tokio::time::sleep(secs(3_600)).await;
    assert!(buffers.idle_bytes() < 1 << 20, "{}", buffers.idle_bytes());
}

#[tokio::test(start_paused = true)]
async fn what_no_broker_will_ever_answer_is_not_waited_for() {
    let old = Cluster::builder().brokers(2).max_version(ApiKey::METADATA, 8);
    let bed = bed_of(old, 1);
    let begun = bed.now();
    let error = bed.pool.metadata().topic("t", secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{error}");
    assert!(begun.elapsed() < secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn brokers_that_nobody_reaches_for_minutes_are_looked_for_by_the_list() {
    let bed = bed(1, 1).known().await;
    bed.net.set(&bed.host(1), Way::Refused);
    bed.cut().await;
    let silent = bed.now();
    bed.pool.metadata().want("t", crate::policy::metadata_refresh::RefreshReason::Lost);
    tokio::time::sleep(REBOOTSTRAP_AFTER - secs(10)).await;
    assert!(bed.pool.metadata().knows_brokers(), "they may be back");
    tokio::time::sleep(secs(20)).await;
    assert!(!bed.pool.metadata().knows_brokers(), "after {:?}", silent.elapsed());
    bed.net.set(&bed.host(1), Way::Open);
    tokio::time::sleep(secs(20)).await;
    assert!(bed.pool.metadata().knows_brokers());
    assert!(bed.pool.metrics().snapshot().metadata_reasons.rebootstrap > 0);
}

/// Who has not asked for minutes, as nothing was wrong, has not been left without an answer for minutes.
#[tokio::test(start_paused = true)]
async fn the_first_failure_after_a_long_rest_is_no_reason_to_forget_the_brokers() {
    let bed = bed(1, 1).known().await;
    bed.net.set(&bed.host(1), Way::Refused);
    bed.cut().await;
    // It is asked again when its time has come, after some five minutes.
    tokio::time::sleep(secs(400)).await;
    assert!(bed.pool.metadata().knows_brokers());
    tokio::time::sleep(REBOOTSTRAP_AFTER).await;
    assert!(bed.pool.metrics().snapshot().metadata_reasons.rebootstrap > 0);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_know_a_topic_is_not_asked_for_it_twice() {
    let bed = bed(2, 1).known().await;
    for id in 1..=2 {
        bed.lane(id, Lane::Control).await;
    }
    let asked = || [1, 2].map(|id| bed.seen(id, ApiKey::METADATA));
    for n in 0..8 {
        let before = asked();
        let error = bed.pool.metadata().topic(&format!("missing-{n}"), secs(30)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownTopic);
        let now = asked();
        let (one, other) = (now[0] - before[0], now[1] - before[1]);
        assert!(one > 0 && one.abs_diff(other) <= 1, "round {n}: {one} and {other}, not in turn");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_because_it_is_time_is_no_trouble() {
    let bed = bed(1, 1).known().await;
    tokio::time::sleep(secs(400)).await;
    let why = bed.pool.metrics().snapshot().metadata_reasons;
    assert_eq!((why.first_contact, why.periodic, why.trouble), (1, 1, 0), "{why:?}");
}
