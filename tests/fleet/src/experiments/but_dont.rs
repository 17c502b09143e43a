//! Experiment 17: ten million messages a second, of 10,000 clients that send 1,000 each, on twenty
//! brokers. How many requests that is, what they cost, and how long records take; beside the same
//! clients that gather for a fixed time.

use std::time::Duration;

use ottla_test_broker::Price;

use super::Options;
use super::priced::{CLIENTS, Fleet, RATE, Seen, each, scaled, size};
use crate::lab::virtual_time;
use crate::report::{Report, Target};

/// Until what brokers felt while clients started is forgotten.
const WARM: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(5);

/// What one fleet came to.
struct Outcome {
    seen: Seen,
    p50: f64,
    p99: f64,
    records: f64,
    failed: f64,
    unresolved: f64,
    plot: crate::plot::Plot,
}

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    compared(size(options), WATCHED, options.seed)
}

/// All fleets, watched for so long.
pub fn compared(clients: u32, watched: Duration, seed: u64) -> Vec<Report> {
    let mut outcomes = each(|fleet| of(fleet, clients, watched, seed));
    let best =
        |what: fn(&Outcome) -> f64| outcomes[1..].iter().map(what).fold(f64::INFINITY, f64::min);
    let (p99, five) = (best(|o| o.p99), outcomes[2].seen.requests);
    let all = CLIENTS / f64::from(clients);
    Fleet::ALL
        .iter()
        .zip(&mut outcomes)
        .map(|(fleet, of)| {
            let ours = *fleet == Fleet::Ours;
            let judged = |target: Target| if ours { target } else { Target::Told };
            let mut report = Report::new(
                format!("17 {}", fleet.name()),
                format!(
                    "10,000 producers x {RATE} messages/s on 20 brokers of {} request threads, by \
                     {clients} of them",
                    Price::MEASURED.threads
                ),
            );
            let requests = of.seen.requests;
            let at_most = judged(Target::AtMost(five * all));
            report.figure("Produce requests/s, all brokers", requests * all, at_most);
            let a_thousand = requests / of.records * 1000.0;
            report.figure("requests per 1,000 messages", a_thousand, Target::Told);
            report.figure("used of all brokers' time, %", of.seen.used * 100.0, Target::Told);
            report.figure("the busiest broker's, %", of.seen.busiest * 100.0, Target::Told);
            report.figure("ack p50, ms", of.p50, Target::Told);
            report.figure("ack p99, ms", of.p99, judged(Target::AtMost(p99)));
            report.figure("records that failed", of.failed, judged(Target::AtMost(0.0)));
            report.figure("records never resolved", of.unresolved, judged(Target::AtMost(0.0)));
            report.plot = Some(std::mem::take(&mut of.plot));
            report
        })
        .collect()
}

fn of(fleet: Fleet, clients: u32, watched: Duration, seed: u64) -> Outcome {
    virtual_time(async {
        let mut lab = fleet.open(clients, scaled(Price::MEASURED, clients), seed).await;
        lab.pass(WARM).await;
        let seen = Seen::of(&mut lab, "steady", watched).await;
        lab.phase("end");
        lab.drain(Duration::from_secs(150)).await;
        let total = lab.ledger.total();
        Outcome {
            p50: seen.quantile(&lab, 0.5),
            p99: seen.quantile(&lab, 0.99),
            records: lab.ledger.of("steady").sent as f64 / watched.as_secs_f64(),
            seen,
            failed: total.failed as f64,
            unresolved: total.unresolved() as f64,
            plot: lab.plot(),
        }
    })
}
