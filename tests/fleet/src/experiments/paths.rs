//! Broken paths: what the behaviour of many clients on a real cluster is measured by (`cargo xtask bench
//! behaviour`), for a thousand clients and exactly. The path to one of three brokers breaks, and the
//! cluster does not notice: the broker stays the leader of its partitions. Records without a partition
//! have somewhere else to go.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_test_broker::{ApiKey, Fault, FaultRule};

use super::{Options, dials_by_second};
use crate::client::Load;
use crate::lab::{Lab, Setup, TOPIC, virtual_time};
use crate::ledger::Phase;
use crate::net::BACKLOG;
use crate::report::{Report, Target};

const BROKER: i32 = 1;
/// What clients send is read back: a tenth of other experiments' will do.
const SHARE: u32 = 10;
const EVERY: Duration = Duration::from_millis(100);
const WARM: Duration = Duration::from_secs(20);
const STEADY: Duration = Duration::from_secs(10);
const OUTAGE: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(5);
const AFTERMATH: Duration = Duration::from_secs(2);
const AFTERWARDS: Duration = Duration::from_secs(10);
/// The best peer's, of the records sent in the two seconds after a reset, in milliseconds.
const RESET_P99: f64 = 130.0;

/// How the path breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Connections are reset, dials refused.
    Unreachable,
    /// Nothing comes through, and nobody is told.
    BlackHole,
    /// The broker asks for silence in its next responses.
    Throttled,
    /// All connections to all brokers are reset, once.
    Reset,
}

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    let clients = (options.clients / SHARE).max(20);
    let all = [How::Unreachable, How::BlackHole, How::Throttled, How::Reset];
    all.map(|how| broken(how, clients, options.seed)).into()
}

/// One run.
pub fn broken(how: How, clients: u32, seed: u64) -> Report {
    virtual_time(async {
        let setup = Setup { brokers: 3, keep: true, ..Setup::new(seed) };
        let mut lab = Lab::open(&setup);
        let load = Load { every: Some(EVERY), numbered: true, ..Load::of(TOPIC) };
        lab.add_producers(clients, Duration::from_secs(5), &load);
        lab.all_connected().await;
        lab.pass(WARM).await;
        lab.phase("steady");
        lab.pass(STEADY).await;

        let (name, about) = how.words();
        let about = format!("{about}; {clients} producers, 10 records/s each, three brokers");
        let mut report = Report::new(format!("16 {name}"), about);
        let from = lab.phase("broken");
        match how {
            How::Unreachable => {
                lab.kill(BROKER);
                lab.pass(OUTAGE).await;
                lab.phase("after");
                lab.restart(BROKER);
            }
            How::BlackHole => {
                lab.network.black_hole(BROKER);
                lab.pass(OUTAGE).await;
                lab.phase("after");
                lab.network.heal(BROKER);
            }
            How::Throttled => {
                let fault = Fault::Throttle(SILENCE);
                let rule = FaultRule::new(fault).broker(BROKER).api(ApiKey::PRODUCE).always();
                let rule = lab.cluster.faults().inject(rule);
                lab.network.watch(BROKER);
                lab.pass(SILENCE).await;
                lab.cluster.faults().remove(rule);
                let (told, sent) = lab.network.log(|log| while_silent(log.seen()));
                lab.phase("after");
                report.figure("clients asked for silence", told as f64, Target::Told);
                report.figure("Produce requests on muted lanes", sent as f64, Target::AtMost(0.0));
            }
            How::Reset => {
                let all: Vec<i32> = (1..=setup.brokers).collect();
                let cut = lab.network.reset(&all);
                report.figure("connections reset", cut as f64, Target::Told);
                lab.pass(AFTERMATH).await;
                lab.phase("after");
            }
        }
        let until = lab.now_ms();
        lab.pass(AFTERWARDS).await;
        lab.drain(Duration::from_secs(150)).await;
        waits(&mut report, how, &lab.ledger.of("steady"), &lab.ledger.of("broken"));
        let n = f64::from(clients);
        let dials: u64 = dials_by_second(&lab, from, until).iter().sum();
        report.figure("dials per client meanwhile", dials as f64 / n, Target::Told);
        let peak = lab.network.log(|log| log.peak_per_10ms(from, lab.now_ms()));
        report.figure("peak of SYNs per 10 ms and broker", peak.into(), how.peak());
        let total = lab.ledger.total();
        let read = lab.read_back();
        report.figure("records acknowledged", total.acked as f64, Target::Told);
        report.figure("records that failed", total.failed as f64, Target::AtMost(0.0));
        report.figure("records never resolved", total.unresolved() as f64, Target::AtMost(0.0));
        report.figure("acknowledged records lost", read.lost as f64, Target::AtMost(0.0));
        report.figure("records there twice", read.doubled as f64, Target::AtMost(0.0));
        report.plot = Some(lab.plot());
        report
    })
}

/// A round trip, and what else was under way as the first response came.
const ANSWERED_MS: u64 = 5;

/// How many clients sent something to a broker that asks everybody for silence, and how many requests
/// came when the answer to a client's first had told it so.
fn while_silent(seen: &[(u64, u32)]) -> (usize, usize) {
    let mut first = BTreeMap::new();
    let late = seen.iter().filter(|(at, client)| {
        let first = *first.entry(*client).or_insert(*at);
        *at > first + ANSWERED_MS
    });
    let late = late.count();
    (first.len(), late)
}

fn waits(report: &mut Report, how: How, steady: &Phase, broken: &Phase) {
    let before = steady.quantile(0.99);
    report.figure("ack p99 before, ms", before, Target::Told);
    let p99 = match how {
        How::Unreachable | How::Throttled => Target::AtMost(2.0 * before),
        How::BlackHole => Target::AtMost(1000.0),
        How::Reset => Target::AtMost(RESET_P99),
    };
    report.figure("ack p99 meanwhile, ms", broken.quantile(0.99), p99);
    report.figure("ack longest, ms", broken.latency.max() as f64, Target::Told);
    let over = match how {
        How::BlackHole => Target::AtMost(1.0),
        How::Unreachable | How::Throttled | How::Reset => Target::Told,
    };
    report.figure("records that waited over 1 s, %", broken.share_over(1000) * 100.0, over);
}

impl How {
    fn words(self) -> (&'static str, String) {
        let seconds = OUTAGE.as_secs();
        match self {
            Self::Unreachable => {
                ("unreachable", format!("one broker refuses everybody for {seconds} s"))
            }
            Self::BlackHole => ("black hole", format!("one broker black-holed for {seconds} s")),
            Self::Throttled => {
                ("throttled", format!("one broker asks for {} s of silence", SILENCE.as_secs()))
            }
            Self::Reset => ("reset", "all connections are reset at once".to_owned()),
        }
    }

    fn peak(self) -> Target {
        match self {
            Self::Reset => Target::AtMost(BACKLOG as f64),
            Self::Unreachable | Self::BlackHole | Self::Throttled => Target::Told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sends_after_its_first_response_is_counted() {
        let seen = [(100, 1), (101, 1), (103, 2), (105, 1), (106, 1), (900, 2)];
        assert_eq!(while_silent(&seen), (2, 2));
    }
}
