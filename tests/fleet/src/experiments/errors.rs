//! Experiment 5: a share of all Produce requests is refused with an error that may be tried again. A
//! client without a retry budget sends as often as it likes; the wanted one adds a fifth.

use std::time::Duration;

use ottla_test_broker::{ApiKey, Fault, FaultRule, error_code as code};

use super::Options;
use crate::client::Load;
use crate::lab::{Lab, Setup, TOPIC, virtual_time};
use crate::net::Api;
use crate::report::{Report, Target};

const STEADY: Duration = Duration::from_secs(10);
const FAULTY: Duration = Duration::from_secs(60);
/// Requests for retries that a client may send whatever else it does: one a second.
const FLOOR: f64 = 1.0;
/// And for each first request: a fifth.
const SHARE: f64 = 0.2;

/// What it has saved up when the errors begin, by the first requests it sent a second.
fn saved(rate: f64) -> f64 {
    (10.0 * (FLOOR + SHARE * rate)).max(20.0)
}

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    [0.1, 0.5, 1.0].map(|share| injected(share, options.few(), options.seed)).into()
}

/// One run with this share (0 to 1) of requests refused.
pub fn injected(share: f64, clients: u32, seed: u64) -> Report {
    virtual_time(async {
        let mut lab = Lab::open(&Setup::new(seed));
        let load = Load { every: Some(Duration::from_millis(10)), ..Load::of(TOPIC) };
        lab.add_producers(clients, Duration::from_secs(5), &load);
        lab.all_connected().await;
        lab.pass(Duration::from_secs(20)).await;
        let requests = |lab: &Lab| {
            lab.network.log(|log| {
                let produce = log.by_broker().iter().map(|of| of[Api::Produce as usize]);
                produce.sum::<u64>()
            })
        };
        let batches = |lab: &Lab| -> u64 {
            lab.cluster.stats().brokers.iter().map(|broker| broker.produce_batches).sum()
        };
        lab.phase("steady");
        let before = requests(&lab);
        lab.pass(STEADY).await;
        let (requests_before, batches_before) = (requests(&lab), batches(&lab));
        let rate = (requests_before - before) as f64 / STEADY.as_secs_f64();
        lab.phase("faulty");
        let fault = Fault::Error(code::NOT_ENOUGH_REPLICAS);
        let rule = FaultRule::new(fault).api(ApiKey::PRODUCE).always().share(share, seed);
        let rule = lab.cluster.faults().inject(rule);
        lab.pass(FAULTY).await;
        lab.cluster.faults().remove(rule);
        let requests_during = requests(&lab) - requests_before;
        lab.phase("after");
        // Without further records: what is left are the ones that were refused.
        lab.drain(Duration::from_secs(150)).await;
        let requests = requests(&lab) - requests_before;
        let batches = batches(&lab) - batches_before;

        let n = f64::from(lab.clients());
        let percent = share * 100.0;
        let mut report = Report::new(
            format!("5 errors {percent} %"),
            format!(
                "{percent} % of Produce requests refused (NOT_ENOUGH_REPLICAS) for {} s; {} producers, \
                 100 records/s each",
                FAULTY.as_secs(),
                lab.clients()
            ),
        );
        let floor = n * (FLOOR * FAULTY.as_secs_f64() + saved(rate / n));
        // What is sent after the errors succeeds, and belongs to no minute of the floor.
        let above = (requests_during as f64 - floor).max(0.0);
        report.figure(
            "requests / batches above the floor",
            above / batches.max(1) as f64,
            Target::AtMost(1.2),
        );
        report.figure("requests / batches", requests as f64 / batches.max(1) as f64, Target::Told);
        let per_second = requests_during as f64 / n / FAULTY.as_secs_f64();
        report.figure("Produce requests per client and second", per_second, Target::Told);
        let steady = lab.ledger.of("steady").quantile(0.99);
        let faulty = lab.ledger.of("faulty");
        report.figure("ack p99 before, ms", steady, Target::Told);
        report.figure("ack p99 of records sent meanwhile, ms", faulty.quantile(0.99), Target::Told);
        let total = lab.ledger.total();
        report.figure("records that failed", total.failed as f64, Target::AtMost(0.0));
        report.figure("records never resolved", total.unresolved() as f64, Target::AtMost(0.0));
        report.plot = Some(lab.plot());
        report
    })
}
