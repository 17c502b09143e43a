//! Experiment 6: for a minute brokers get a fifth more than they can do, and after it a fifth less. What
//! they are paid for is records, of which no client can make fewer: those pile up, and go as fast as can be
//! afterwards. Who tries again too soon, or gives up and comes again, makes more of it, and it never ends.
//!
//! Brokers take as much longer for a record as the fleet is smaller; batches are so small that no
//! single one keeps a broker busy for long.

use std::time::Duration;

use ottla_test_broker::Price;

use super::Options;
use super::priced::{BROKERS, Seen, back_after, every, size};
use crate::client::Load;
use crate::lab::{Lab, Setup, TOPIC, virtual_time};
use crate::report::{Report, Target};

/// Records that each client sends in a second where brokers have just enough to do.
const FULL: f64 = 100.0;
const VALUE: usize = 1_000;
const BATCH: usize = 16 << 10;
const BEFORE: f64 = 0.8;
const OVER: f64 = 1.2;
const STEADY: u64 = 20;
const OVERLOAD: Duration = Duration::from_secs(60);
/// Seconds watched after it.
const SECONDS: u64 = 90;

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    vec![of(size(options), options.seed)]
}

/// From each client's next record on.
fn set(lab: &Lab, load: f64) {
    lab.members.iter().for_each(|member| member.send_every(every(load * FULL)));
}

/// Second by second; gives the names of the phases.
async fn seconds(lab: &mut Lab, word: &str, count: u64) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|second| format!("{word} {second} s")).collect();
    for name in &names {
        lab.phase(name);
        lab.pass(Duration::from_secs(1)).await;
    }
    names
}

/// p99 of the records of each.
fn p99s(lab: &Lab, names: &[String]) -> Vec<f64> {
    names.iter().map(|name| lab.ledger.of(name).quantile(0.99)).collect()
}

/// With so many producers.
pub fn of(clients: u32, seed: u64) -> Report {
    virtual_time(async {
        let nothing = Duration::ZERO;
        let record = every(f64::from(clients) * FULL / f64::from(BROKERS));
        let price = Price { threads: 1, request: nothing, batch: nothing, record, kib: nothing };
        let setup = Setup { brokers: BROKERS, price: Some(price), ..Setup::new(seed) };
        let mut lab = Lab::open(&setup);
        let first = Some(every(BEFORE * FULL));
        let load = Load {
            every: first,
            at_random: true,
            value: VALUE,
            batch: Some(BATCH),
            ..Load::of(TOPIC)
        };
        lab.add_producers(clients, Duration::from_secs(5), &load);
        lab.all_connected().await;
        lab.pass(Duration::from_secs(STEADY)).await;
        let steady = Seen::of(&mut lab, "steady", Duration::from_secs(STEADY)).await;
        let before = seconds(&mut lab, "before", STEADY).await;
        set(&lab, OVER);
        let over = Seen::of(&mut lab, "over", OVERLOAD).await;
        let retries = lab.produce_retries();
        set(&lab, BEFORE);
        let after = seconds(&mut lab, "after", SECONDS).await;
        let retries = (lab.produce_retries() - retries, retries);
        lab.phase("end");
        lab.drain(Duration::from_secs(150)).await;

        let mut report = Report::new(
            "6 overload",
            format!(
                "brokers get {:.0} % of the records they can do for {} s, and {:.0} % before and after; \
                 {clients} producers",
                OVER * 100.0,
                OVERLOAD.as_secs(),
                BEFORE * 100.0
            ),
        );
        let ideal = OVERLOAD.as_secs_f64() * (OVER - 1.0) / (1.0 - BEFORE);
        // Seconds differ: as the worst of those before.
        let worst = p99s(&lab, &before).into_iter().fold(0.0, f64::max);
        let back = back_after(&p99s(&lab, &after), worst * 1.25);
        report.figure("brokers busy before, %", steady.used * 100.0, Target::Told);
        report.figure("brokers busy in the overload, %", over.used * 100.0, Target::Told);
        report.figure("ack p99 before, ms", steady.quantile(&lab, 0.99), Target::Told);
        report.figure("ack p99 of the worst second before, ms", worst, Target::Told);
        let p99 = over.quantile(&lab, 0.99);
        report.figure("ack p99 of records of the overload, ms", p99, Target::Told);
        report.figure("until p99 is what it was, s", back, Target::Told);
        report.figure("what is too much takes at least, s", ideal, Target::Told);
        report.figure("the one / the other", back / ideal, Target::AtMost(1.25));
        report.figure("requests with retries in the overload", retries.1 as f64, Target::Told);
        report.figure("requests with retries after it", retries.0 as f64, Target::Told);
        super::all_are_there(&mut report, &lab);
        report.plot = Some(lab.plot());
        report
    })
}
