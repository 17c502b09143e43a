//! All three brokers are restarted, one after the other, under clients in many processes: no record
//! fails, none is lost or doubled, and nobody connects more often than he must. In order first, then as
//! by power cuts: batches that were on their way are in doubt, and are settled by their sequences.

use std::collections::HashSet;

use ottla::{Client, NewTopic};
use ottla_relay::load::process::{Job, Process};
use ottla_relay::load::read_back;
use ottla_test_kafka::{Cluster, Options, Result};

const TOPIC: &str = "rolling";

/// Connects that a client may need for each broker that was away.
const RECONNECTS: f64 = 1.2;

/// What all processes saw together.
struct Seen {
    acked: usize,
    connects_per_client_and_broker: f64,
}

/// Restarts each broker, once `end` has ended it, under as many clients of each process as `sizes`
/// says; every record is acknowledged, and there once.
fn rolled(sizes: &[usize], every_ms: u64, end: fn(&Cluster, u32) -> Result<()>) -> Seen {
    let cluster = Cluster::start(Options::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(cluster.bootstrap()).await.unwrap();
        let topic = NewTopic::new(TOPIC, 12, 3).config("min.insync.replicas", "2");
        client.admin().create_topic(topic).await.unwrap();
    });
    cluster.wait_in_sync(&[TOPIC]).unwrap();

    let start = |(i, clients): (usize, &usize)| {
        let job = Job {
            bootstrap: cluster.bootstrap().to_owned(),
            topic: TOPIC.to_owned(),
            name: format!("p{i}"),
            clients: *clients,
            every_ms: Some(every_ms),
            ready_after: 3,
        };
        Process::start(env!("CARGO_BIN_EXE_clients"), &job).unwrap()
    };
    let mut processes: Vec<_> = sizes.iter().enumerate().map(start).collect();
    for process in &mut processes {
        process.ready().unwrap();
    }

    for id in cluster.ids() {
        end(&cluster, id).unwrap();
        cluster.restart(id).unwrap();
        cluster.wait_in_sync(&[TOPIC]).unwrap();
    }

    let reports: Vec<_> = processes.into_iter().map(|p| p.end().unwrap()).collect();
    let failures: Vec<_> = reports.iter().filter_map(|r| r.failure.as_ref()).collect();
    assert!(failures.is_empty(), "{failures:?}\n{}", cluster.logs_tail(20));
    let connects: u64 = reports.iter().map(|r| r.connects).sum();
    assert!(connects > 0, "nobody noticed that brokers were away");
    let clients: usize = sizes.iter().sum();
    let connects_per_client_and_broker = connects as f64 / (clients as f64 * 3.0);
    let acked: usize = reports.iter().map(|r| r.acked).sum();
    println!(
        "{acked} records acknowledged, {connects_per_client_and_broker:.2} connects per client and broker"
    );
    let rows = runtime.block_on(read_back(cluster.bootstrap(), TOPIC)).unwrap();
    let different: HashSet<_> = rows.iter().map(|row| &row.value).collect();
    assert_eq!((rows.len(), different.len()), (acked, acked), "lost or doubled");
    Seen { acked, connects_per_client_and_broker }
}

#[test]
fn real_s01_clean_rolling_restart_under_400_clients_in_21_processes() {
    // One large process, and twenty small ones.
    let sizes = [&[200][..], &[10; 20]].concat();
    let seen = rolled(&sizes, 1_000, |cluster, id| cluster.stop(id));
    let connects = seen.connects_per_client_and_broker;
    assert!(connects <= RECONNECTS, "{connects}");
}

#[test]
fn real_s01_hard_rolling_restart_loses_and_doubles_nothing() {
    let seen = rolled(&[20, 20], 20, |cluster, id| cluster.kill(id));
    assert!(seen.acked > 20_000, "{} records are no load", seen.acked);
}
