//! Experiment 6: for a minute brokers get a fifth more than they can do, and after it a fifth less. What
//! they do is bytes, of which no client can make fewer: records pile up, and go as fast as can be
//! afterwards. Who tries again too soon, or gives up and comes again, makes more of it, and it never ends.

use std::time::Duration;

use ottla_test_broker::Price;

use super::Options;
use super::priced::{BROKERS, Seen, back_after, every};
use crate::client::Load;
use crate::lab::{Lab, Setup, TOPIC, virtual_time};
use crate::report::{Report, Target};

/// Bytes of a value, and of what a client sends in a second of what brokers can do.
const VALUE: usize = 10_000;
const FULL: f64 = 1e6;
const BEFORE: f64 = 0.8;
const OVER: f64 = 1.2;
const STEADY: Duration = Duration::from_secs(20);
const OVERLOAD: Duration = Duration::from_secs(60);
/// Seconds watched after it.
const SECONDS: usize = 150;

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    vec![of(options.few(), options.seed)]
}

fn set(lab: &Lab, load: f64) {
    let rate = load * FULL / VALUE as f64;
    lab.members.iter().for_each(|member| member.send_every(every(rate)));
}

/// With so many producers.
pub fn of(clients: u32, seed: u64) -> Report {
    virtual_time(async {
        let nothing = Duration::ZERO;
        let a_broker = f64::from(clients) * FULL / f64::from(BROKERS);
        let kib = Duration::from_secs_f64(1024.0 / a_broker);
        let price = Price { threads: 1, request: nothing, batch: nothing, record: nothing, kib };
        let setup = Setup { brokers: BROKERS, price: Some(price), ..Setup::new(seed) };
        let mut lab = Lab::open(&setup);
        let rate = BEFORE * FULL / VALUE as f64;
        let load = Load { every: Some(every(rate)), value: VALUE, ..Load::of(TOPIC) };
        lab.add_producers(clients, Duration::from_secs(5), &load);
        lab.all_connected().await;
        lab.pass(STEADY).await;
        let steady = Seen::of(&mut lab, "steady", STEADY).await;
        set(&lab, OVER);
        let over = Seen::of(&mut lab, "over", OVERLOAD).await;
        let retries = lab.produce_retries();
        set(&lab, BEFORE);
        let seconds: Vec<String> = (0..SECONDS).map(|second| format!("after {second} s")).collect();
        for second in &seconds {
            lab.phase(second);
            lab.pass(Duration::from_secs(1)).await;
        }
        let retries = (lab.produce_retries() - retries, retries);
        lab.phase("end");
        lab.drain(Duration::from_secs(150)).await;

        let mut report = Report::new(
            "6 overload",
            format!(
                "brokers get {:.0} % of the bytes they can do for {} s, and {:.0} % before and after; \
                 {clients} producers",
                OVER * 100.0,
                OVERLOAD.as_secs(),
                BEFORE * 100.0
            ),
        );
        // With all that is around records.
        let busy = steady.used;
        let more = busy * OVER / BEFORE - 1.0;
        let ideal = OVERLOAD.as_secs_f64() * more / (1.0 - busy);
        let before = steady.quantile(&lab, 0.99);
        let after: Vec<f64> =
            seconds.iter().map(|second| lab.ledger.of(second).quantile(0.99)).collect();
        let back = back_after(&after, before * 1.25 + 1.0);
        report.figure("brokers busy before, %", busy * 100.0, Target::Told);
        report.figure("brokers busy in the overload, %", over.used * 100.0, Target::Told);
        report.figure("ack p99 before, ms", before, Target::Told);
        let p99 = over.quantile(&lab, 0.99);
        report.figure("ack p99 of records of the overload, ms", p99, Target::Told);
        report.figure("until p99 is what it was, s", back, Target::Told);
        report.figure("what is too much takes at least, s", ideal, Target::Told);
        report.figure("the one / the other", back / ideal, Target::AtMost(1.25));
        report.figure("requests with retries in the overload", retries.1 as f64, Target::Told);
        report.figure("requests with retries after it", retries.0 as f64, Target::Told);
        let total = lab.ledger.total();
        report.figure("records that failed", total.failed as f64, Target::AtMost(0.0));
        report.figure("records never resolved", total.unresolved() as f64, Target::AtMost(0.0));
        let appended: u64 = lab.cluster.stats().brokers.iter().map(|b| b.produce_records).sum();
        let lost = total.acked.saturating_sub(appended);
        report.figure("acknowledged records lost", lost as f64, Target::AtMost(0.0));
        report.plot = Some(lab.plot());
        report
    })
}
