//! One of three brokers freezes (SIGSTOP): its connections stay open and nothing answers. What is
//! acknowledged by the others is acknowledged as before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ottla::{Client, NewTopic};
use ottla_relay::load::{self, Dials, Load, OttlaClient, Outcome, check, quantile, read_back};
use ottla_test_kafka::{Cluster, Options, probe};

const TOPIC: &str = "frozen";
const CLIENTS: usize = 20;
/// Records of each client before, and of all during the freeze.
const STEADY: usize = 60;
const FROZEN: usize = 1_000;
const VICTIM: i32 = 1;
/// Ends a test that would hang.
const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn real_black_hole_does_not_reach_the_other_brokers() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let done = tokio::time::timeout(DEADLINE, freeze(&cluster)).await;
        assert!(done.is_ok(), "not done within {DEADLINE:?}\n{}", cluster.logs_tail(20));
    });
}

async fn freeze(cluster: &Cluster) {
    let client = Client::connect(cluster.bootstrap()).await.unwrap();
    // One copy each: a second one on the frozen broker would hold up the acknowledgements of the
    // others until it has left the in-sync replicas, and that is Kafka's to do.
    let topic = NewTopic::new(TOPIC, 30, 1).config("min.insync.replicas", "1");
    client.admin().create_topic(topic).await.unwrap();
    cluster.wait_in_sync(&[TOPIC]).unwrap();
    let port = cluster.address(2).unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let leaders = probe::topics(port, &[TOPIC]).unwrap().remove(TOPIC).unwrap();
    let led: HashSet<i32> =
        leaders.iter().filter(|p| p.leader == VICTIM).map(|p| p.index).collect();
    assert_eq!(led.len(), 10, "a third of the partitions");
    let elsewhere = |o: &Outcome| o.fate.as_ref().is_ok_and(|at| !led.contains(&at.partition));

    let dials = Dials::default();
    let clients = OttlaClient::connect_many(cluster.bootstrap(), "frozen-", CLIENTS, &dials);
    let clients: Vec<Arc<dyn load::Client>> =
        clients.await.unwrap().into_iter().map(|c| Arc::new(c) as _).collect();
    let load = Load::start(&clients, "frozen", TOPIC, Duration::from_millis(50));
    load.reached(STEADY).await;
    let frozen = Instant::now();
    cluster.pause(VICTIM as u32).unwrap();
    load.reached_in_total(load.acked() + FROZEN).await;
    cluster.resume(VICTIM as u32).unwrap();
    let thawed = Instant::now();
    let outcomes = load.stop().await;

    let others: Vec<_> = outcomes.iter().filter(|o| elsewhere(o)).cloned().collect();
    let before: Vec<_> =
        others.iter().filter(|o| o.resolved < frozen).map(Outcome::latency).collect();
    let during = load::latencies(&others, frozen, thawed);
    let p = |all: &[Duration], share| quantile(all.iter().copied(), share);
    println!(
        "{} records before: p50 {:?}, p99 {:?}; {} at other brokers during {:?}: p50 {:?}, p99 {:?}, all {:?}",
        before.len(),
        p(&before, 0.5),
        p(&before, 0.99),
        during.len(),
        thawed - frozen,
        p(&during, 0.5),
        p(&during, 0.99),
        p(&during, 1.0),
    );
    let rows = read_back(cluster.bootstrap(), TOPIC).await.unwrap();
    let verdict = check(&outcomes, &rows);
    println!("{verdict:?}");
    assert_eq!((verdict.failed, verdict.lost, verdict.duplicated), (0, 0, 0), "{verdict:?}");
}
