//! Experiment 12: every broker restarts, one after the other, in order: its leaders move first.

use std::time::Duration;

use super::{Options, dials_by_client, highest, mean, open_by_client, requests_by_client, since};
use crate::client::Load;
use crate::lab::{Lab, Setup, TOPIC, virtual_time};
use crate::net::Api;
use crate::report::{Report, Target};

const DOWN: Duration = Duration::from_secs(10);
const UP: Duration = Duration::from_secs(10);

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    let report = virtual_time(async {
        let setup = Setup::new(options.seed);
        let mut lab = Lab::open(&setup);
        lab.add_producers(options.clients, Duration::from_secs(10), &Load::of(TOPIC));
        lab.all_connected().await;
        lab.pass(Duration::from_secs(30)).await;
        lab.phase("steady");
        lab.pass(Duration::from_secs(10)).await;

        let subset = mean(&open_by_client(&lab));
        let metadata = requests_by_client(&lab, Api::Metadata);
        let from = lab.phase("rolling");
        for broker in 1..=setup.brokers {
            lab.shut_down(broker);
            lab.pass(DOWN).await;
            lab.restart(broker);
            lab.pass(UP / 2).await;
            lab.cluster.elect_preferred_leaders();
            lab.pass(UP / 2).await;
        }
        let end = lab.phase("after");
        let metadata = since(&requests_by_client(&lab, Api::Metadata), &metadata);
        lab.pass(Duration::from_secs(30)).await;
        lab.drain(Duration::from_secs(150)).await;

        let mut report = Report::new(
            "12 rolling restart",
            format!(
                "{} brokers restart in turn, {} s each; {} producers, 1 record/s each",
                setup.brokers,
                DOWN.as_secs(),
                lab.clients()
            ),
        );
        let total = lab.ledger.total();
        report.figure("records that failed", total.failed as f64, Target::AtMost(0.0));
        report.figure("records never resolved", total.unresolved() as f64, Target::AtMost(0.0));
        let dials = dials_by_client(&lab, from, end);
        report.figure("open connections per client before", subset, Target::Told);
        report.figure("dials per client", mean(&dials), Target::Told);
        report.figure("dials of the busiest client", highest(&dials), Target::Told);
        let per_broker = mean(&dials) / subset;
        report.figure("dials per client and broker it uses", per_broker, Target::AtMost(1.2));
        report.figure("Metadata requests per client", mean(&metadata), Target::Told);
        let steady = lab.ledger.of("steady").quantile(0.99);
        let rolling = lab.ledger.of("rolling");
        report.figure("ack p99 before, ms", steady, Target::Told);
        report.figure(
            "ack p99 meanwhile, ms",
            rolling.quantile(0.99),
            Target::AtMost(2.0 * steady),
        );
        report.figure("ack longest, ms", rolling.latency.max() as f64, Target::Told);
        report.plot = Some(lab.plot());
        report
    });
    vec![report]
}
