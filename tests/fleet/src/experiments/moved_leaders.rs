//! Experiment 3: every leader of one broker moves, as in a controlled shutdown, and every client uses a
//! thousand partitions. The broker that is asked in vain names the new leader (KIP-951), so that nobody
//! has to ask.

use std::time::Duration;

use super::{Options, highest, mean, requests_by_client, since};
use crate::client::{Load, To};
use crate::lab::{Lab, Setup, TOPIC, virtual_time};
use crate::net::Api;
use crate::report::{Report, Target};

const PARTITIONS: i32 = 1000;
const BROKER: i32 = 1;

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    let (n, seed) = (options.clients, options.seed);
    vec![
        moved("3 moved leaders", To::Anywhere, 1, n, seed),
        moved(
            "3 moved leaders, named partitions",
            To::AnyOf(PARTITIONS),
            10,
            (n / 10).max(20),
            seed,
        ),
    ]
}

fn moved(name: &str, to: To, burst: usize, clients: u32, seed: u64) -> Report {
    virtual_time(async {
        let setup = Setup { partitions: PARTITIONS, ..Setup::new(seed) };
        let mut lab = Lab::open(&setup);
        lab.add_producers(clients, Duration::from_secs(10), &Load { to, burst, ..Load::of(TOPIC) });
        lab.all_connected().await;
        lab.pass(Duration::from_secs(30)).await;
        lab.phase("steady");
        lab.pass(Duration::from_secs(10)).await;

        let metadata = requests_by_client(&lab, Api::Metadata);
        let retries = lab.produce_retries();
        lab.phase("moved");
        let mut count = 0;
        for partition in 0..PARTITIONS {
            let led = lab.cluster.partition(TOPIC, partition).expect("it exists").leader;
            if led == Some(BROKER) {
                let to = 2 + partition / setup.brokers % (setup.brokers - 1);
                lab.cluster.move_leader(TOPIC, partition, to).expect("both exist");
                count += 1;
            }
        }
        lab.pass(Duration::from_secs(30)).await;
        let metadata = since(&requests_by_client(&lab, Api::Metadata), &metadata);
        let retries = lab.produce_retries() - retries;
        lab.drain(Duration::from_secs(150)).await;

        let n = f64::from(lab.clients());
        let mut report = Report::new(
            name,
            format!(
                "{count} of {PARTITIONS} partitions get another leader at once; {} producers, {burst} \
                 record/s each, {}",
                lab.clients(),
                if to == To::Anywhere { "no partition named" } else { "to partitions drawn anew" },
            ),
        );
        report.figure("Metadata requests per client", mean(&metadata), Target::AtMost(1.0));
        report.figure("Metadata requests of the busiest client", highest(&metadata), Target::Told);
        report.figure("repeated Produce requests per client", retries as f64 / n, Target::Told);
        let steady = lab.ledger.of("steady").quantile(0.99);
        let moved = lab.ledger.of("moved");
        report.figure("ack p99 before, ms", steady, Target::Told);
        report.figure("ack p99 of the 30 s after, ms", moved.quantile(0.99), Target::Told);
        report.figure("ack longest, ms", moved.latency.max() as f64, Target::Told);
        let total = lab.ledger.total();
        report.figure("records that failed", total.failed as f64, Target::AtMost(0.0));
        report.figure("records never resolved", total.unresolved() as f64, Target::AtMost(0.0));
        report.plot = Some(lab.plot());
        report
    })
}
