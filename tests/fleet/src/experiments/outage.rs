//! Experiments 1 and 9: one broker is down for a minute. How often the fleet knocks at its door, and
//! how long records wait meanwhile, from one and the same run: either alone can be gamed. What is paid
//! for it is told too: how long the broker, once back, waits for its share of the work.

use std::time::Duration;

use super::{
    Options, dials_by_client, dials_by_second, highest, mean, open_by_client, requests_by_client,
    since,
};
use crate::client::{Load, To};
use crate::lab::{Lab, SESSION_TIMEOUT, Setup, TOPIC, virtual_time};
use crate::net::Api;
use crate::report::{Report, Target};

const BROKER: i32 = 1;
const OUTAGE: Duration = Duration::from_secs(60);
/// The first seconds are looked at by themselves: over a whole minute they vanish in the rest.
const FIRST: Duration = Duration::from_secs(2);
const AFTERWARDS: Duration = Duration::from_secs(120);

/// What becomes of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Its process is killed: connections close, dials are refused.
    Killed,
    /// Nothing reaches it or leaves it, and nobody is told.
    BlackHole,
}

/// Who the clients are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Records that may go anywhere.
    Unkeyed,
    /// Records of one partition per client.
    Pinned,
    /// Consumers of all partitions, and as many producers.
    Consumers,
}

/// Experiment 1.
pub fn killed(options: &Options) -> Vec<Report> {
    let (n, seed) = (options.clients, options.seed);
    vec![
        run("1 killed", How::Killed, Who::Unkeyed, n, seed),
        run("1 killed, pinned", How::Killed, Who::Pinned, (n / 10).max(20), seed),
        run("1 killed, consumers", How::Killed, Who::Consumers, options.few(), seed),
    ]
}

/// Experiment 9.
pub fn down(options: &Options) -> Vec<Report> {
    let (n, seed) = (options.clients, options.seed);
    vec![
        run("9 killed", How::Killed, Who::Unkeyed, n, seed),
        run("9 black hole", How::BlackHole, Who::Unkeyed, n, seed),
    ]
}

/// One run; `clients` producers, and as many consumers if those are looked at.
pub fn run(name: &str, how: How, who: Who, clients: u32, seed: u64) -> Report {
    virtual_time(async {
        let setup = Setup { keep: who == Who::Consumers, ..Setup::new(seed) };
        let mut lab = Lab::open(&setup);
        let start = Duration::from_secs(10);
        let load = Load::of(TOPIC);
        match who {
            Who::Unkeyed => lab.add_producers(clients, start, &load),
            Who::Pinned => {
                let to = To::OneOf(setup.partitions);
                lab.add_producers(clients, start, &Load { to, ..load });
            }
            Who::Consumers => {
                lab.add_producers(clients, start, &load);
                lab.add_consumers(clients, start);
            }
        }
        lab.all_connected().await;
        // Until connections are where they stay: a client may try a broker per record.
        lab.pass(Duration::from_secs(30)).await;
        lab.phase("steady");
        lab.pass(Duration::from_secs(10)).await;

        let open = open_by_client(&lab);
        let metadata = requests_by_client(&lab, Api::Metadata);
        let retries = lab.produce_retries();
        let from = lab.phase("down");
        match how {
            How::Killed => lab.kill(BROKER),
            How::BlackHole => lab.network.black_hole(BROKER),
        }
        lab.pass(FIRST).await;
        lab.phase("still down");
        lab.pass(SESSION_TIMEOUT - FIRST).await;
        lab.fence(BROKER);
        lab.pass(OUTAGE - SESSION_TIMEOUT).await;
        let back = lab.phase("back");
        match how {
            How::Killed => lab.restart(BROKER),
            How::BlackHole => {
                lab.network.heal(BROKER);
                lab.cluster.unfence_broker(BROKER).expect("a broker of this cluster");
            }
        }
        lab.pass(Duration::from_secs(10)).await;
        lab.cluster.elect_preferred_leaders();
        lab.pass(AFTERWARDS - Duration::from_secs(10)).await;
        let end = lab.now_ms();
        let metadata = since(&requests_by_client(&lab, Api::Metadata), &metadata);
        let retries = lab.produce_retries() - retries;
        lab.drain(Duration::from_secs(150)).await;

        let n = f64::from(lab.clients());
        let mut report = Report::new(name, about(how, who, &lab));
        let wanted = |target: Target| if who == Who::Unkeyed { target } else { Target::Told };

        let by_client = dials_by_client(&lab, from, end);
        let by_second = dials_by_second(&lab, from, end);
        let to_it = lab.network.log(|log| {
            let dials = log.dials_in(from, back).iter();
            dials.filter(|dial| dial.broker == BROKER).count()
        });
        let during = &by_second[..OUTAGE.as_secs() as usize];
        report.figure("open connections per client before", mean(&open), Target::Told);
        report.figure("dials per client", mean(&by_client), wanted(Target::AtMost(3.0)));
        report.figure("dials of the busiest client", highest(&by_client), Target::Told);
        let peak = highest(&by_second);
        report.figure("peak of dials per second", peak, wanted(Target::AtMost(n / 30.0)));
        // Below that, the highest of 60 draws is beyond 1.7 by chance alone, in step or not.
        let enough = mean(during) >= 30.0;
        report.figure(
            "peak / mean of dials per second while it is down",
            highest(during) / mean(during),
            if enough { wanted(Target::AtMost(1.7)) } else { Target::Told },
        );
        report.figure("dials to it per client while it is down", to_it as f64 / n, Target::Told);
        report.figure("Metadata requests per client", mean(&metadata), Target::Told);
        report.figure("Metadata requests of the busiest client", highest(&metadata), Target::Told);
        report.figure("repeated Produce requests per client", retries as f64 / n, Target::Told);
        waits(&mut report, &lab, how, &wanted);
        capacity(&mut report, &lab, setup.brokers, back / 1000);
        report.plot = Some(lab.plot());
        report
    })
}

/// Experiment 9's figures.
fn waits(report: &mut Report, lab: &Lab, how: How, wanted: &dyn Fn(Target) -> Target) {
    let steady = lab.ledger.of("steady");
    let first = lab.ledger.of("down");
    let down = lab.ledger.from_to("down", "still down");
    report.figure("ack p99 before, ms", steady.quantile(0.99), Target::Told);
    report.figure("ack p99 of the first 2 s, ms", first.quantile(0.99), Target::Told);
    let two_round_trips = 4.0;
    let (p99, p999) = match how {
        How::Killed => (Target::AtMost(steady.quantile(0.99) + two_round_trips), Target::Told),
        How::BlackHole => (Target::AtMost(1000.0), Target::AtMost(OUTAGE.as_millis() as f64)),
    };
    report.figure("ack p99 while it is down, ms", down.quantile(0.99), wanted(p99));
    report.figure("ack p99.9 while it is down, ms", down.quantile(0.999), wanted(p999));
    report.figure("ack longest, ms", down.latency.max() as f64, Target::Told);
    let over = match how {
        How::Killed => Target::Told,
        How::BlackHole => Target::AtMost(1.0),
    };
    report.figure("records that waited over 1 s, %", down.share_over(1000) * 100.0, wanted(over));
    let (acked, appended) = super::all_are_there(report, lab);
    let more = appended.saturating_sub(acked);
    report.figure("records appended beyond the acknowledged", more as f64, Target::Told);
}

/// How soon the broker works again, by what it gets of Produce requests.
fn capacity(report: &mut Report, lab: &Lab, brokers: i32, back: u64) {
    let share = |from: u64, to: u64| {
        lab.network.log(|log| {
            let all: u64 = (1..=brokers).map(|broker| log.produce_to(broker, from, to)).sum();
            let fair = all as f64 / f64::from(brokers);
            log.produce_to(BROKER, from, to) as f64 / fair.max(1.0)
        })
    };
    for (name, from) in [("30", 20), ("60", 50), ("120", 110)] {
        let name = format!("its share of the work {name} s after it is back, % of fair");
        report.figure(name, share(back + from, back + from + 10) * 100.0, Target::Told);
    }
}

fn about(how: How, who: Who, lab: &Lab) -> String {
    let n = lab.clients();
    let how = match how {
        How::Killed => "killed",
        How::BlackHole => "black-holed",
    };
    let who = match who {
        Who::Unkeyed => format!("{n} producers, 1 record/s each, no partition named"),
        Who::Pinned => format!("{n} producers, 1 record/s each, to one partition each"),
        Who::Consumers => format!("{} consumers of all partitions, as many producers", n / 2),
    };
    format!(
        "one of 20 brokers {how} for {} s, other leaders after {} s; {who}",
        OUTAGE.as_secs(),
        SESSION_TIMEOUT.as_secs()
    )
}
