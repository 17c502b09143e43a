//! Experiment 4: a fleet that was started in one second and then has nothing to do for an hour. What it
//! still asks, whom, and whether it asks in step.

use std::time::Duration;

use super::{Options, highest, mean, open_by_client, requests_by_client, since};
use crate::client::Load;
use crate::lab::{Lab, Setup, TOPIC, virtual_time};
use crate::net::Api;
use crate::report::{Report, Target};

const HOUR: Duration = Duration::from_secs(3600);

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    let report = virtual_time(async {
        let setup = Setup::new(options.seed);
        let mut lab = Lab::open(&setup);
        let load = Load { every: None, ..Load::of(TOPIC) };
        lab.phase("start");
        lab.add_producers(options.clients, Duration::from_secs(1), &load);
        lab.all_connected().await;
        lab.pass(Duration::from_secs(10)).await;
        let overflows = lab.network.log(|log| log.overflows(0, lab.now_ms()));
        let at_start = requests_by_client(&lab, Api::Metadata);
        let dials_at_start = lab.network.log(|log| log.dials().len());

        let by_broker = |lab: &Lab| {
            lab.network.log(|log| {
                let metadata = log.by_broker().iter().map(|of| of[Api::Metadata as usize]);
                metadata.collect::<Vec<_>>()
            })
        };
        let before = by_broker(&lab);
        let from = lab.phase("idle") / 1000;
        lab.pass(HOUR).await;
        let metadata = since(&requests_by_client(&lab, Api::Metadata), &at_start);
        let brokers = since(&by_broker(&lab), &before);
        let by_second: Vec<u64> = lab.network.log(|log| {
            let seconds = log.by_second().iter().skip(from as usize);
            seconds.map(|of| of[Api::Metadata as usize]).collect()
        });
        let dials = lab.network.log(|log| log.dials().len()) - dials_at_start;

        let n = f64::from(lab.clients());
        let mut report = Report::new(
            "4 idle",
            format!(
                "{} producers start within 1 s, send one record, and idle for 1 h",
                lab.clients()
            ),
        );
        report.figure("Metadata requests per client at the start", mean(&at_start), Target::Told);
        report.figure(
            "SYNs dropped by a full backlog at the start",
            overflows as f64,
            Target::Told,
        );
        report.figure("Metadata requests per client and hour", mean(&metadata), Target::Told);
        report.figure(
            "Metadata requests of the busiest client in the hour",
            highest(&metadata),
            Target::AtMost(12.0),
        );
        report.figure(
            "busiest broker / mean, Metadata requests",
            highest(&brokers) / mean(&brokers),
            Target::AtMost(1.2),
        );
        report.figure(
            "busiest second / mean, Metadata requests",
            highest(&by_second) / mean(&by_second),
            Target::Told,
        );
        report.figure("dials per client in the hour", dials as f64 / n, Target::Told);
        report.figure(
            "open connections per client at the end",
            mean(&open_by_client(&lab)),
            Target::Told,
        );
        report.plot = Some(lab.plot());
        report
    });
    vec![report]
}
