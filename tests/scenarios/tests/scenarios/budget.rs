//! The retry budget: what moves or rides along is free, what repeats is bounded, and nobody starves.
//! In virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, Compression, Delivery, Producer, Record, Start, Stats};
use ottla_scenarios::steps::{acked, cluster, connect, free, ms, pinned, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::{Duration, Instant};

const NOT_LEADER: i16 = 6;
const NOT_ENOUGH_REPLICAS: i16 = 19;

async fn start(brokers: i32, partitions: i32) -> (Cluster, Client, Producer) {
    let cluster = cluster(brokers, partitions);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    (cluster, client, producer)
}

/// A record to every partition.
async fn to_each(producer: &Producer, partitions: i32) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for partition in 0..partitions {
        // Together: the engine is on this thread, and would have turns in between.
        deliveries.push(producer.try_send(pinned(partition)).unwrap());
    }
    deliveries
}

async fn all(deliveries: Vec<Delivery>) -> Duration {
    let begun = Instant::now();
    for delivery in deliveries {
        within("an ack", delivery).await.unwrap();
    }
    begun.elapsed()
}

fn level(client: &Client) -> f64 {
    client.stats().retry_budget.produce.level.expect("something was sent")
}

#[tokio::test(start_paused = true)]
async fn leaders_of_a_thousand_partitions_move_and_nothing_is_delayed() {
    let (cluster, client, producer) = start(3, 1_000).await;
    all(to_each(&producer, 1_000).await).await;
    // Three times over, so that a budget that paid for it would be empty.
    for round in 1..=3 {
        for partition in 0..1_000 {
            cluster.move_leader("t", partition, (partition + round) % 3 + 1).unwrap();
        }
        let before = client.stats();
        let took = all(to_each(&producer, 1_000).await).await;
        assert!(took < ms(300), "round {round}: {took:?}");
        let after = client.stats();
        assert_eq!(after.produce_retries, before.produce_retries, "a move is no retry");
        assert_eq!(after.metadata_requests, before.metadata_requests, "the answers name leaders");
    }
    assert_eq!(client.stats().retry_budget.produce.delayed, 0);
    assert!(level(&client) > 19.0, "{}", level(&client));
}

/// As before, where brokers are too old to name the new leader.
#[tokio::test(start_paused = true)]
async fn leaders_of_a_thousand_partitions_move_without_a_hint() {
    let cluster = Cluster::builder()
        .brokers(3)
        .tcp(false)
        .topic("t", 1_000, 3)
        .max_version(ApiKey::PRODUCE, 9)
        .start_on_current_runtime()
        .unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    all(to_each(&producer, 1_000).await).await;
    tokio::time::sleep(secs(1)).await;
    let before = client.stats();
    for partition in 0..1_000 {
        cluster.move_leader("t", partition, (partition + 1) % 3 + 1).unwrap();
    }
    let took = all(to_each(&producer, 1_000).await).await;
    assert!(took < secs(1), "{took:?}");
    let stats = client.stats();
    assert_eq!(stats.retry_budget.produce.delayed, 0, "{stats:?}");
    let asked = stats.metadata_requests - before.metadata_requests;
    assert!(asked <= 2, "{asked} metadata requests for 1,000 partitions");
}

#[tokio::test(start_paused = true)]
async fn a_third_of_the_batches_is_refused_once_and_nobody_starves() {
    let (cluster, client, producer) = start(3, 300).await;
    all(to_each(&producer, 300).await).await;
    for round in 0..5 {
        for partition in (0..300).step_by(3) {
            let refused = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
            cluster.faults().inject(refused.topic("t").partition(partition));
        }
        let fired = cluster.faults().fired();
        let took = all(to_each(&producer, 300).await).await;
        assert_eq!(cluster.faults().fired() - fired, 100);
        assert!(took < ms(300), "round {round}: {took:?}");
        tokio::time::sleep(secs(1)).await;
    }
    let stats = client.stats();
    assert_eq!(stats.records_acknowledged, 6 * 300);
    assert_eq!(stats.retry_budget.produce.delayed, 0);
    assert_eq!(stats.bad_stuff.records_failed, 0);
}

/// Retries are at most what the budget holds in the beginning, a fifth of the first requests, and
/// one each second.
fn assert_within_budget(stats: &Stats, time: Duration) {
    let first = stats.produce_requests - stats.produce_retries;
    let most = 20.0 + 0.2 * first as f64 + time.as_secs_f64();
    let retries = stats.produce_retries as f64;
    assert!(retries <= most, "{retries} retries for {first} first requests in {time:?}");
    assert!(retries > 0.5 * most, "{retries} of {most}: this does not ask much of the budget");
}

#[tokio::test(start_paused = true)]
async fn all_requests_fail_and_retries_stay_within_the_budget() {
    let (cluster, client, producer) = start(10, 100).await;
    all(to_each(&producer, 100).await).await;
    tokio::time::sleep(secs(30)).await;
    let refused = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
    let fault = cluster.faults().inject(refused.always());
    let begun = Instant::now();
    let stuck = to_each(&producer, 100).await;
    tokio::time::sleep(secs(60)).await;
    let stats = client.stats();
    assert_within_budget(&stats, begun.elapsed());
    let budget = stats.retry_budget.produce;
    assert!(budget.delayed > 0 && budget.level.unwrap() < 2.0, "{budget:?}");
    assert!(cluster.faults().remove(fault));
    assert!(all(stuck).await < secs(30), "an empty budget delays, and fails nothing");
    assert_eq!(client.stats().bad_stuff.records_failed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_produce_storm_does_not_delay_fetching_or_lookups() {
    let (cluster, client, producer) = start(10, 100).await;
    all(to_each(&producer, 100).await).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let mut read = 0;
    while read < 100 {
        read += within("records", consumer.next()).await.unwrap().unwrap().len();
    }
    let refused = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
    let refused = cluster.faults().inject(refused.always());
    let stuck = to_each(&producer, 100).await;
    until("an empty budget", || client.stats().retry_budget.produce.delayed > 0).await;
    let fetched = client.stats().fetch_requests;
    // Fetches fail, and so do lookups: what they retry is paid from another purse.
    cluster.faults().on(None, ApiKey::FETCH, Fault::Error(NOT_LEADER), 10);
    cluster.faults().on(None, ApiKey::METADATA, Fault::CutBeforeAppend, 1);
    cluster.create_topic("u", 3, 1).unwrap();
    let begun = Instant::now();
    within("metadata", client.admin().partitions("u")).await.unwrap();
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    until("fetches again", || client.stats().fetch_requests >= fetched + 30).await;
    assert!(begun.elapsed() < secs(3), "{:?}", begun.elapsed());
    let stats = client.stats();
    assert_eq!(stats.retry_budget.fetch.delayed, 0);
    assert!(stats.retry_budget.fetch.level.unwrap() > 5.0, "{:?}", stats.retry_budget);
    assert!(cluster.faults().remove(refused));
    all(stuck).await;
}

#[tokio::test(start_paused = true)]
async fn doubt_costs_double() {
    let mut paid = Vec::new();
    for doubt in [false, true] {
        let (cluster, client, producer) = start(1, 1).await;
        acked(&producer, pinned(0)).await;
        let before = level(&client);
        // REQUEST_TIMED_OUT leaves open whether it was written, NOT_ENOUGH_REPLICAS does not.
        let code = if doubt { 7 } else { NOT_ENOUGH_REPLICAS };
        cluster.faults().on(1, ApiKey::PRODUCE, Fault::Error(code), 1);
        acked(&producer, pinned(0)).await;
        assert_eq!(client.stats().produce_retries, 1);
        paid.push(before - level(&client));
    }
    // What came in meanwhile is less than a token.
    assert!((0.5..=1.0).contains(&paid[0]) && (1.5..=2.0).contains(&paid[1]), "{paid:?}");
}

/// A refused batch that goes out together with new ones costs nothing.
#[tokio::test(start_paused = true)]
async fn what_rides_with_first_attempts_is_free() {
    let (cluster, client, producer) = start(1, 2).await;
    all(to_each(&producer, 2).await).await;
    let refused = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
    cluster.faults().inject(refused.topic("t").partition(0).always());
    let stuck = producer.send(pinned(0)).await.unwrap();
    let busy = Record::to("t").partition(1).value("x");
    let begun = Instant::now();
    while begun.elapsed() < secs(60) {
        acked(&producer, busy).await;
        tokio::time::sleep(ms(20)).await;
    }
    let stats = client.stats();
    // Some go alone, because the lane happens to be idle when they are due; but nobody waits.
    assert_eq!(stats.retry_budget.produce.delayed, 0, "{stats:?}");
    cluster.faults().clear();
    within("an ack", stuck).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_that_may_go_anywhere_go_on_while_the_budget_is_empty() {
    let (cluster, client, producer) = start(3, 6).await;
    let small = client.producer().batch_size(1 << 10).compression(Compression::None);
    let small = small.build().unwrap();
    all(to_each(&producer, 6).await).await;
    // Broker 1 refuses everything, and its five partitions' worth of pinned records empty the budget.
    let refused = FaultRule::new(Fault::Error(NOT_ENOUGH_REPLICAS)).api(ApiKey::PRODUCE);
    cluster.faults().inject(refused.broker(1).always());
    let mut stuck = Vec::new();
    for _ in 0..3 {
        stuck.push(producer.send(pinned(0)).await.unwrap());
        stuck.push(producer.send(pinned(3)).await.unwrap());
    }
    for _ in 0..60 {
        let begun = Instant::now();
        acked(&small, free()).await;
        assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
        tokio::time::sleep(secs(1)).await;
    }
    cluster.faults().clear();
    all(stuck).await;
}

/// Fetches and lookups of others bring in what retries of theirs are paid from; who waits for it is
/// counted once, however often he looks.
#[tokio::test(start_paused = true)]
async fn what_is_asked_for_the_first_time_brings_income() {
    let (cluster, client, producer) = start(1, 20).await;
    all(to_each(&producer, 20).await).await;
    let assign = |p| client.consumer().assign([("t", p, Start::Offset(0))]).build().unwrap();
    let mut consumers: Vec<_> = (0..20).map(assign).collect();
    for consumer in &mut consumers {
        within("a record", consumer.next()).await.unwrap().unwrap();
    }
    let before = client.stats();
    let refused = FaultRule::new(Fault::Error(NOT_LEADER)).api(ApiKey::FETCH);
    cluster.faults().inject(refused.always());
    tokio::time::sleep(secs(60)).await;
    let stats = client.stats();
    let budget = stats.retry_budget.fetch;
    assert!(budget.level.unwrap() < 2.0, "{budget:?}");
    let sent = stats.fetch_requests - before.fetch_requests;
    assert!(budget.delayed > 5 && budget.delayed <= sent + 20, "{sent} and {budget:?}");
    drop(consumers);
    cluster.faults().clear();

    let level = || client.stats().retry_budget.fetch.level.unwrap();
    let mut consumer = assign(0);
    let (low, begun) = (level(), Instant::now());
    for _ in 0..51 {
        within("a record", consumer.next()).await.unwrap().unwrap();
        acked(&producer, pinned(0)).await;
    }
    let brought = level() - low - begun.elapsed().as_secs_f64();
    assert!((5.0..20.0).contains(&brought), "{brought} of {} s", begun.elapsed().as_secs_f64());
}
