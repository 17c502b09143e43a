//! Experiment 2: every connection of the fleet is reset in one instant, as by a firewall that lost its
//! state. Brokers accept what fits in their listen backlogs; the rest waits a second for its next SYN.

use std::time::Duration;

use super::{Options, dials_by_second, highest, mean, open_by_client};
use crate::client::Load;
use crate::lab::{Lab, Setup, TOPIC, virtual_time};
use crate::net::BACKLOG;
use crate::report::{Report, Target};

const WATCHED: Duration = Duration::from_secs(20);

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

        let open = open_by_client(&lab);
        let from = lab.phase("reset");
        let all: Vec<i32> = (1..=setup.brokers).collect();
        let cut = lab.network.reset(&all);
        lab.pass(Duration::from_secs(2)).await;
        lab.phase("after");
        lab.pass(WATCHED - Duration::from_secs(2)).await;
        let end = lab.now_ms();
        lab.drain(Duration::from_secs(150)).await;

        let mut report = Report::new(
            "2 reset",
            format!(
                "all {cut} connections of {} producers (1 record/s each) at 20 brokers reset at once",
                lab.clients()
            ),
        );
        let (peak, overflows) =
            lab.network.log(|log| (log.peak_per_10ms(from, end), log.overflows(from, end)));
        report.figure("open connections per client before", mean(&open), Target::Told);
        let most = BACKLOG as f64;
        report.figure("peak of SYNs per 10 ms and broker", peak.into(), Target::AtMost(most));
        report.figure("SYNs dropped by a full backlog", overflows as f64, Target::AtMost(0.0));
        let by_second = dials_by_second(&lab, from, end);
        report.figure("dials in the first second", by_second[0] as f64, Target::Told);
        report.figure("peak of dials per second", highest(&by_second), Target::Told);
        let dials: u64 = by_second.iter().sum();
        report.figure(
            format!("dials within {} s per connection cut", WATCHED.as_secs()),
            dials as f64 / cut.max(1) as f64,
            Target::Told,
        );
        let both = lab.ledger.from_to("reset", "after");
        let served = both.first_ack_of(0.99, lab.clients()).map_or(f64::NAN, |ms| ms as f64);
        // A client sends once a second: until then it has nothing that could be acknowledged.
        report.figure("until 99 % of the clients had an ack, ms", served, Target::AtMost(1100.0));
        let steady = lab.ledger.of("steady").quantile(0.99);
        let p99 = lab.ledger.of("reset").quantile(0.99);
        report.figure("ack p99 before, ms", steady, Target::Told);
        report.figure("ack p99 of the 2 s after, ms", p99, Target::Told);
        let total = lab.ledger.total();
        report.figure("records that failed", total.failed as f64, Target::AtMost(0.0));
        report.figure("records never resolved", total.unresolved() as f64, Target::AtMost(0.0));
        report.plot = Some(lab.plot());
        report
    });
    vec![report]
}
