//! All three brokers are restarted, one after the other, under clients in many processes: no record
//! fails, none is lost or doubled, and nobody connects more often than he must.

use std::collections::HashSet;

use ottla::{Client, NewTopic};
use ottla_relay::load::process::{Job, Process};
use ottla_relay::load::read_back;
use ottla_test_kafka::{Cluster, Options};

const TOPIC: &str = "rolling";

/// Connects that a client may need for each broker that was away.
const RECONNECTS: f64 = 1.2;

#[test]
fn real_rolling_restart_under_400_clients_in_21_processes() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(cluster.bootstrap()).await.unwrap();
        client.admin().create_topic(NewTopic::new(TOPIC, 12, 3)).await.unwrap();
    });
    cluster.wait_in_sync(&[TOPIC]).unwrap();

    // One large process, and twenty small ones.
    let sizes = [200].into_iter().chain([10; 20]);
    let mut processes: Vec<_> = sizes
        .enumerate()
        .map(|(i, clients)| {
            let job = Job {
                bootstrap: cluster.bootstrap().to_owned(),
                topic: TOPIC.to_owned(),
                name: format!("p{i}"),
                clients,
                every_ms: Some(1_000),
                ready_after: 3,
            };
            Process::start(env!("CARGO_BIN_EXE_clients"), &job).unwrap()
        })
        .collect();
    for process in &mut processes {
        process.ready().unwrap();
    }

    for id in cluster.ids() {
        cluster.stop(id).unwrap();
        cluster.restart(id).unwrap();
        cluster.wait_in_sync(&[TOPIC]).unwrap();
    }

    let reports: Vec<_> = processes.into_iter().map(|p| p.end().unwrap()).collect();
    let failures: Vec<_> = reports.iter().filter_map(|r| r.failure.as_ref()).collect();
    assert!(failures.is_empty(), "{failures:?}\n{}", cluster.logs_tail(20));
    let connects: u64 = reports.iter().map(|r| r.connects).sum();
    let per_client_and_broker = connects as f64 / (400.0 * 3.0);
    let acked: usize = reports.iter().map(|r| r.acked).sum();
    println!(
        "{acked} records acknowledged, {per_client_and_broker:.2} connects per client and broker"
    );
    assert!(connects > 0, "nobody noticed that brokers were away");
    assert!(per_client_and_broker <= RECONNECTS, "{per_client_and_broker}");

    let rows = runtime.block_on(read_back(cluster.bootstrap(), TOPIC)).unwrap();
    let different: HashSet<_> = rows.iter().map(|row| &row.value).collect();
    assert_eq!((rows.len(), different.len()), (acked, acked), "lost or doubled");
}
