//! The experiments: each a set-up, a script and what is measured, beside what is wanted of it.
//!
//! Numbers are those of the table in the design notes; 11, 14 and 15 need real brokers
//! or real time and are measured elsewhere. 16 is none of the table's: the paths to brokers
//! break as in the measurements of other clients.

pub mod but_dont;
pub mod connections;
pub mod errors;
pub mod groups;
pub mod idle;
pub mod load_curve;
pub mod moved_leaders;
pub mod outage;
pub mod overload;
pub mod paths;
pub mod priced;
pub mod reset;
pub mod rolling;
pub mod slow_broker;
pub mod spread;

use crate::lab::Lab;
use crate::net::Api;
use crate::report::{Report, Target};

/// What the command line may say.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Size of the fleet; experiments of heavy clients use a hundredth.
    pub clients: u32,
    /// Every draw follows from it.
    pub seed: u64,
}

impl Options {
    /// A hundredth of the fleet, and enough to be a fleet: for clients that send a hundred times as
    /// much.
    fn few(&self) -> u32 {
        (self.clients / 100).max(20)
    }
}

/// An experiment.
pub struct Experiment {
    /// Number in the table.
    pub number: u32,
    /// A word for it.
    pub name: &'static str,
    /// Runs it. Each report is a run of its own.
    pub run: fn(&Options) -> Vec<Report>,
}

/// All of them.
pub const ALL: [Experiment; 15] = [
    Experiment { number: 1, name: "outage", run: outage::killed },
    Experiment { number: 2, name: "reset", run: reset::run },
    Experiment { number: 3, name: "moved-leaders", run: moved_leaders::run },
    Experiment { number: 4, name: "idle", run: idle::run },
    Experiment { number: 5, name: "errors", run: errors::run },
    Experiment { number: 6, name: "overload", run: overload::run },
    Experiment { number: 7, name: "spread", run: spread::run },
    Experiment { number: 8, name: "slow-broker", run: slow_broker::run },
    Experiment { number: 9, name: "broker-down", run: outage::down },
    Experiment { number: 10, name: "connections", run: connections::run },
    Experiment { number: 12, name: "rolling-restart", run: rolling::run },
    Experiment { number: 13, name: "groups", run: groups::run },
    Experiment { number: 16, name: "broken-paths", run: paths::run },
    Experiment { number: 17, name: "but-dont", run: but_dont::run },
    Experiment { number: 18, name: "load-curve", run: load_curve::run },
];

/// Finds an experiment by number or name.
pub fn find(word: &str) -> Option<&'static Experiment> {
    ALL.iter().find(|experiment| experiment.name == word || experiment.number.to_string() == word)
}

/// Dials in each second of a stretch of time, from its start.
fn dials_by_second(lab: &Lab, from_ms: u64, to_ms: u64) -> Vec<u64> {
    let mut seconds = vec![0; (to_ms - from_ms).div_ceil(1000) as usize];
    lab.network.log(|log| {
        for dial in log.dials_in(from_ms, to_ms) {
            seconds[((dial.at_ms - from_ms) / 1000) as usize] += 1;
        }
    });
    seconds
}

/// Dials of each client in a stretch of time.
fn dials_by_client(lab: &Lab, from_ms: u64, to_ms: u64) -> Vec<u64> {
    let mut clients = vec![0; lab.members.len()];
    lab.network.log(|log| {
        for dial in log.dials_in(from_ms, to_ms) {
            clients[dial.client as usize] += 1;
        }
    });
    clients
}

/// Requests of one kind by client, so far.
fn requests_by_client(lab: &Lab, api: Api) -> Vec<u64> {
    let mut counts: Vec<u64> = lab.network.log(|log| {
        log.by_client().iter().map(|requests| u64::from(requests[api as usize])).collect()
    });
    counts.resize(lab.members.len(), 0);
    counts
}

/// What came on top of an earlier count.
fn since(now: &[u64], then: &[u64]) -> Vec<u64> {
    now.iter().zip(then).map(|(now, then)| now - then).collect()
}

fn mean(values: &[u64]) -> f64 {
    values.iter().sum::<u64>() as f64 / values.len().max(1) as f64
}

fn highest(values: &[u64]) -> f64 {
    values.iter().copied().max().unwrap_or(0) as f64
}

/// Connections open now, by client.
fn open_by_client(lab: &Lab) -> Vec<u64> {
    (0..lab.clients()).map(|client| lab.network.open_of(client).len() as u64).collect()
}

/// What became of all records: none has failed or is unresolved, and what was acknowledged was appended. Gives how
/// many were acknowledged, and how many the brokers have appended.
fn all_are_there(report: &mut Report, lab: &Lab) -> (u64, u64) {
    let total = lab.ledger.total();
    report.figure("records that failed", total.failed as f64, Target::AtMost(0.0));
    report.figure("records never resolved", total.unresolved() as f64, Target::AtMost(0.0));
    let appended: u64 = lab.cluster.stats().brokers.iter().map(|b| b.produce_records).sum();
    let lost = total.acked.saturating_sub(appended);
    report.figure("acknowledged records lost", lost as f64, Target::AtMost(0.0));
    (total.acked, appended)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::Load;
    use crate::lab::{Setup, TOPIC, virtual_time};

    #[test]
    fn figures_of_many_clients() {
        assert_eq!(mean(&[0, 0, 6]), 2.0);
        assert_eq!(mean(&[]), 0.0);
        assert_eq!(highest(&[3, 7, 1]), 7.0);
        assert_eq!(highest(&[]), 0.0);
        assert_eq!(since(&[5, 7], &[5, 3]), [0, 4]);
    }

    #[test]
    fn an_experiment_is_found_by_number_and_by_name() {
        let number = |word| find(word).map(|experiment| experiment.number);
        assert_eq!(
            ["1", "idle", "16", "11", "id"].map(number),
            [Some(1), Some(4), Some(16), None, None]
        );
    }

    #[test]
    fn dials_and_requests_are_each_clients_own() {
        virtual_time(async {
            let mut lab = Lab::open(&Setup { brokers: 3, partitions: 3, ..Setup::new(1) });
            lab.add_producers(2, Duration::ZERO, &Load { every: None, ..Load::of(TOPIC) });
            lab.all_connected().await;
            lab.pass(Duration::from_secs(5)).await;
            let from = lab.phase("later");
            // The first and the last.
            let (all, first) = (open_by_client(&lab), dials_by_client(&lab, 0, from));
            assert!(first.iter().all(|dials| *dials > 0), "{first:?}");
            let at_brokers: usize = (1..=3).map(|broker| lab.network.open_at(broker)).sum();
            assert_eq!(all.iter().sum::<u64>(), at_brokers as u64);
            let asked = requests_by_client(&lab, Api::Metadata);
            assert!(asked.iter().all(|n| *n > 0) && asked.len() == 2, "{asked:?}");
            lab.network.reset(&[1, 2, 3]);
            assert_eq!(open_by_client(&lab), [0, 0]);
            lab.pass(Duration::from_secs(5)).await;
            let end = lab.now_ms();
            let by_second = dials_by_second(&lab, from, end);
            let later: u64 = dials_by_client(&lab, from, end).iter().sum();
            assert_eq!((by_second.len(), by_second.iter().sum::<u64>()), (5, later));
            let before: u64 = first.iter().sum();
            let total = lab.network.log(|log| log.dials().len() as u64);
            assert_eq!(before + later, total);
        });
    }
}
