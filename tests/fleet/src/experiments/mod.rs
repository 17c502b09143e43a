//! The experiments: each a set-up, a script and what is measured, beside what is wanted of it.
//!
//! Numbers are those of the table in the design notes; 6, 11, 13, 14 and 15 need real brokers,
//! groups or real time and are measured elsewhere. 16 is none of the table's: the paths to brokers
//! break as in the measurements of other clients.

pub mod connections;
pub mod errors;
pub mod idle;
pub mod moved_leaders;
pub mod outage;
pub mod paths;
pub mod reset;
pub mod rolling;
pub mod slow_broker;
pub mod spread;

use crate::lab::Lab;
use crate::net::Api;
use crate::report::Report;

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
pub const ALL: [Experiment; 11] = [
    Experiment { number: 1, name: "outage", run: outage::killed },
    Experiment { number: 2, name: "reset", run: reset::run },
    Experiment { number: 3, name: "moved-leaders", run: moved_leaders::run },
    Experiment { number: 4, name: "idle", run: idle::run },
    Experiment { number: 5, name: "errors", run: errors::run },
    Experiment { number: 7, name: "spread", run: spread::run },
    Experiment { number: 8, name: "slow-broker", run: slow_broker::run },
    Experiment { number: 9, name: "broker-down", run: outage::down },
    Experiment { number: 10, name: "connections", run: connections::run },
    Experiment { number: 12, name: "rolling-restart", run: rolling::run },
    Experiment { number: 16, name: "broken-paths", run: paths::run },
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
