//! Experiment 8, the side of broker health: one broker is ten times slower than the others. It should
//! get what it can carry, and nobody should wait for it.
//!
//! Its share is half a per cent of the choices. So that a minute holds enough of them to tell a fifth
//! more from a fifth less, a choice lasts for a few records only, and ordinals leave no chance in how
//! many clients have the broker in their subsets.

use std::time::Duration;

use super::{Options, since};
use crate::client::Load;
use crate::lab::{Lab, Setup, TOPIC, virtual_time};
use crate::net::Link;
use crate::report::{Report, Target};

const SLOW: i32 = 1;
/// Bytes of records that a client sends in a second.
const RATE: u64 = 100 * 1000;
/// The load is this share of what all links carry together.
const USED: f64 = 0.5;
/// Bytes that a choice lasts for.
const BATCH: usize = 8 << 10;
const WATCHED: Duration = Duration::from_secs(60);

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    vec![of(20, options.few(), options.seed)]
}

/// One of so many brokers is slow.
pub fn of(brokers: i32, clients: u32, seed: u64) -> Report {
    virtual_time(async {
        let carried = RATE as f64 * f64::from(clients) / USED / f64::from(brokers);
        let link = Link { bandwidth: Some(carried as u64), ..Link::default() };
        let ordinals = Some(clients);
        let mut lab = Lab::open(&Setup { brokers, link, ordinals, ..Setup::new(seed) });
        let every = Some(Duration::from_millis(10));
        let value = (RATE / 100) as usize;
        let load = Load { every, value, batch: Some(BATCH), ..Load::of(TOPIC) };
        lab.add_producers(clients, Duration::from_secs(5), &load);
        lab.all_connected().await;
        lab.pass(Duration::from_secs(30)).await;
        lab.phase("steady");
        lab.pass(Duration::from_secs(20)).await;
        lab.phase("slow");
        let slow = Link { bandwidth: Some(carried as u64 / 10), ..link };
        lab.network.set_link(SLOW, slow);
        // How it finds out is not the question here.
        lab.pass(Duration::from_secs(20)).await;
        lab.phase("known");
        let bytes = |lab: &Lab| lab.network.log(|log| log.bytes_to_broker().to_vec());
        let before = bytes(&lab);
        lab.pass(WATCHED).await;
        let bytes = since(&bytes(&lab), &before);
        lab.drain(Duration::from_secs(150)).await;

        let mut report = Report::new(
            "8 slow broker",
            format!(
                "one of {brokers} brokers carries a tenth of the others, {:.0} % of all is used; {} \
                 producers, 100 kB/s each",
                USED * 100.0,
                lab.clients()
            ),
        );
        let share = bytes[SLOW as usize - 1] as f64 / bytes.iter().sum::<u64>() as f64;
        let fair = 0.1 / (f64::from(brokers) - 0.9);
        report.figure(
            "its bytes / its share of the capacity",
            share / fair,
            Target::Near(1.0, 0.2),
        );
        let carries = carried / 10.0 * WATCHED.as_secs_f64();
        let used = bytes[SLOW as usize - 1] as f64 / carries;
        report.figure("its bytes / what its link carries", used, Target::Told);
        let steady = lab.ledger.of("steady");
        let (found, known) = (lab.ledger.of("slow"), lab.ledger.of("known"));
        report.figure("ack p99 before, ms", steady.quantile(0.99), Target::Told);
        report.figure("ack p99 of its first 20 s, ms", found.quantile(0.99), Target::Told);
        report.figure(
            "ack p99 after that / before",
            known.quantile(0.99) / steady.quantile(0.99),
            Target::AtMost(1.5),
        );
        let total = lab.ledger.total();
        report.figure("records that failed", total.failed as f64, Target::AtMost(0.0));
        report.figure("records never resolved", total.unresolved() as f64, Target::AtMost(0.0));
        report.plot = Some(lab.plot());
        report
    })
}
