//! One of three brokers freezes (SIGSTOP): its connections stay open and nothing answers. What is
//! acknowledged by the others is acknowledged as before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ottla::{Client, NewTopic};
use ottla_relay::load::{self, Dials, Load, OttlaClient, Outcome, check, quantile, read_back};
use ottla_test_kafka::{Cluster, Options};

const TOPIC: &str = "frozen";
const CLIENTS: usize = 20;
/// Records of each client until it has settled, and then undisturbed; of all during the freeze.
const SETTLED: usize = 20;
const STEADY: usize = 60;
const FROZEN: usize = 1_200;
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
    let leaders = cluster.partitions(TOPIC).unwrap();
    let led: HashSet<i32> =
        leaders.iter().filter(|p| p.leader == VICTIM).map(|p| p.index).collect();
    assert!((5..=15).contains(&led.len()), "it leads about a third: {leaders:?}");
    let elsewhere = |o: &Outcome| o.fate.as_ref().is_ok_and(|at| !led.contains(&at.partition));

    let dials = Dials::default();
    let clients = OttlaClient::connect_many(cluster.bootstrap(), "frozen-", CLIENTS, &dials);
    let clients: Vec<Arc<dyn load::Client>> =
        clients.await.unwrap().into_iter().map(|c| Arc::new(c) as _).collect();
    let load = Load::start(&clients, "frozen", TOPIC, Duration::from_millis(50));
    load.reached(SETTLED).await;
    let settled = Instant::now();
    load.reached(SETTLED + STEADY).await;
    let frozen = Instant::now();
    cluster.pause(VICTIM as u32).unwrap();
    load.reached_in_total(load.acked() + FROZEN).await;
    cluster.resume(VICTIM as u32).unwrap();
    let thawed = Instant::now();
    let outcomes = load.stop().await;

    let used = outcomes.iter().filter(|o| o.resolved < frozen && !elsewhere(o)).count();
    assert!(used > 0, "nothing was sent to the broker that froze");
    let others: Vec<_> = outcomes.iter().filter(|o| elsewhere(o)).cloned().collect();
    let undisturbed: Vec<_> = others.iter().filter(|o| o.resolved < frozen).cloned().collect();
    let before = load::latencies(&undisturbed, settled, frozen);
    let during = load::latencies(&others, frozen, thawed);
    let freeze = thawed - frozen;
    let p = |all: &[Duration], share| quantile(all.iter().copied(), share);
    println!(
        "at the other brokers: {} records before, p50 {:?}, p99 {:?}; \
         {} during a freeze of {freeze:?}, p50 {:?}, p99 {:?}, the slowest {:?}",
        before.len(),
        p(&before, 0.5),
        p(&before, 0.99),
        during.len(),
        p(&during, 0.5),
        p(&during, 0.99),
        p(&during, 1.0),
    );
    // A busy machine stalls everybody now and then, which a tail shows and a median does not. Who
    // waits for the frozen broker waits for a good part of the freeze.
    assert!(p(&during, 0.5) <= 3 * p(&before, 0.5));
    assert!(p(&during, 0.99) <= (10 * p(&before, 0.99)).max(freeze / 10));
    assert!(p(&during, 1.0) < freeze / 2);
    let rows = read_back(cluster.bootstrap(), TOPIC).await.unwrap();
    let verdict = check(&outcomes, &rows);
    println!("{verdict:?}");
    // Records that name no partition may change places while one of them waits.
    let verdict = load::Verdict { out_of_order: 0, ..verdict };
    assert!(verdict.is_clean(), "{verdict:?}");
}
