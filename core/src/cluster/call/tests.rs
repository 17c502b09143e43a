use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kafka_protocol::messages::InitProducerIdRequest;
use ottla_test_broker::{ApiKey, Cluster, Fault};

use super::*;
use crate::cluster::broker::Lane;
use crate::cluster::refresh::VERSIONS;
use crate::cluster::testbed::{Bed, Way, bed, bed_of, ms, secs};

/// Two brokers, both connected.
async fn both(seed: u64) -> Bed {
    let bed = bed(2, seed).known().await;
    for id in 1..=2 {
        bed.lane(id, Lane::Control).await;
    }
    bed
}

/// A question that the first so many responses to are no good.
async fn ask(bed: &Bed, bad: usize) -> Result<i32> {
    let (pool, responses) = (&bed.pool, AtomicUsize::new(0));
    let check =
        |_: i32, _: &Connection, _: &_| match responses.fetch_add(1, Ordering::Relaxed) < bad {
            true => Err(Error::broker(-1, "Metadata", None)),
            false => Ok(()),
        };
    let question = MetadataRequest::default().with_topics(Some(Vec::new()));
    let response = pool.call_anybody(pool.caller(), &question, VERSIONS, None, check, |_| {});
    Ok(response.await?.0)
}

fn asked(bed: &Bed) -> u64 {
    (1..=2).map(|id| bed.seen(id, ApiKey::METADATA)).sum()
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_again_or_of_two_is_paid_for() {
    let bed = both(1).await;
    ask(&bed, 0).await.unwrap();
    assert_eq!(bed.tokens(), 20.0, "the first is free");
    ask(&bed, 1).await.unwrap();
    assert!((18.9..19.5).contains(&bed.tokens()), "{}", bed.tokens());
    tokio::time::sleep(secs(10)).await;
    bed.spoil(Fault::DelayResponse(secs(4)), ApiKey::METADATA, 1);
    let before = asked(&bed);
    ask(&bed, 0).await.unwrap();
    assert_eq!(asked(&bed) - before, 2);
    assert!((18.9..19.5).contains(&bed.tokens()), "{}", bed.tokens());
}

/// That others are not to be had says less than what a broker has said.
#[tokio::test(start_paused = true)]
async fn what_a_broker_has_said_counts_more_than_that_others_are_not_there() {
    for seed in 0..4 {
        let bed = bed(2, seed).known().await;
        let (_, stranger) = bed.friend_and_stranger();
        bed.net.set(&bed.host(stranger), Way::Refused);
        let error = ask(&bed, usize::MAX).await.unwrap_err();
        assert_eq!((error.kind(), error.broker_code()), (ErrorKind::Broker, Some(-1)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_looked_up_for_the_first_time_brings_a_fifth_of_a_token() {
    let bed = both(1).await;
    ask(&bed, 0).await.unwrap();
    while bed.pool.budgets().retry(BudgetKind::Fetch, Cost::Definite, bed.now()).is_ok() {}
    let (before, begun) = (bed.tokens(), bed.now());
    ask(&bed, 0).await.unwrap();
    let brought = bed.tokens() - before - begun.elapsed().as_secs_f64();
    assert!((0.15..0.25).contains(&brought), "{brought}");
}

/// The first is lost while the second is being waited for: that one answers.
#[tokio::test(start_paused = true)]
async fn the_second_answers_though_the_first_is_lost() {
    let bed = both(1).await;
    let before: Vec<u64> = (1..=2).map(|id| bed.seen(id, ApiKey::METADATA)).collect();
    bed.spoil(Fault::BlackHole, ApiKey::METADATA, 1);
    let losing = async {
        tokio::time::sleep(ms(500)).await;
        let silent = (1..=2).find(|id| bed.seen(*id, ApiKey::METADATA) > before[*id as usize - 1]);
        bed.spoil(Fault::DelayResponse(secs(2)), ApiKey::METADATA, 1);
        tokio::time::sleep(ms(1_500)).await;
        bed.cluster.cut_connections(silent.unwrap()).unwrap();
        silent.unwrap()
    };
    let begun = bed.now();
    let (answered, silent) = tokio::join!(ask(&bed, 0), losing);
    assert_eq!(answered.unwrap(), 3 - silent);
    assert_eq!(asked(&bed) - before.iter().sum::<u64>(), 2, "nobody was asked once more");
    assert!((secs(3)..secs(4)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_is_always_slow_is_given_longer() {
    let bed = both(1).await;
    assert_eq!(bed.pool.call_patience(), Duration::from_secs(1));
    bed.spoil(Fault::DelayResponse(ms(800)), ApiKey::METADATA, 1);
    ask(&bed, 0).await.unwrap();
    assert!(bed.pool.call_patience() > secs(3), "{:?}", bed.pool.call_patience());
}

/// What rests on what is known of a cluster is not asked of another one.
#[tokio::test(start_paused = true)]
async fn only_metadata_is_asked_of_who_knows_whom() {
    let first = Cluster::builder().brokers(1).cluster_id("first").topic("t", 1, 1);
    let bed = bed_of(first, 1).known().await;
    let id = async || {
        let (pool, check) = (&bed.pool, |_: i32, _: &Connection, _: &_| Ok(()));
        let request = InitProducerIdRequest::default();
        pool.call_anybody(pool.caller(), &request, (0, 4), None, check, |_| {}).await.map(drop)
    };
    id().await.unwrap();
    bed.cluster.replace("second").unwrap();
    tokio::time::sleep(ms(1)).await;
    let asked = bed.seen(1, ApiKey::INIT_PRODUCER_ID);
    assert_eq!(id().await.unwrap_err().kind(), ErrorKind::ClusterChanged);
    assert_eq!(bed.seen(1, ApiKey::INIT_PRODUCER_ID), asked);
}

#[test]
fn what_passes_is_told_before_what_does_not() {
    let passing = || Error::new(ErrorKind::Connect, "refused");
    let forbidden = || Error::broker(31, "Metadata", None);
    let changed = || Error::new(ErrorKind::ClusterChanged, "another one");
    assert!(forbidden().is_final() && changed().is_final() && !passing().is_final());
    for (errors, told) in [
        (vec![forbidden(), passing()], passing()),
        (vec![forbidden(), changed(), passing()], passing()),
        (vec![forbidden(), changed()], changed()),
        (vec![forbidden(), forbidden()], forbidden()),
    ] {
        assert_eq!(verdict(errors).kind(), told.kind());
    }
}
