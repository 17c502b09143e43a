//! Experiment 10: a thousand topics and eight processes that send little, then one that sends much. How
//! many brokers each process keeps connections to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Options, highest, mean};
use crate::client::Load;
use crate::lab::{Lab, Setup, virtual_time};
use crate::report::{Report, Target};

const TOPICS: i32 = 1000;
const WORKERS: u32 = 8;
/// Brokers that a client sending little uses where every one would do.
const SUBSET: f64 = 6.0;
/// A process that sends 1 MB/s for each broker there is needs them all; this is beyond doubt.
const HEAVY: usize = 1_500_000;
const WATCHED: Duration = Duration::from_secs(120);

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    let mut reports = Vec::new();
    for brokers in [20, 100] {
        reports.push(light(brokers, brokers, options.seed));
        reports.push(light(brokers, 4, options.seed));
        reports.push(heavy(brokers, options.seed));
    }
    reports
}

fn topics() -> Arc<[String]> {
    (0..TOPICS).map(|topic| format!("topic-{topic}")).collect()
}

/// Creates the topics; gives the brokers that lead something of each. With as many partitions as
/// brokers that is every one; with fewer, they are drawn.
fn create(lab: &Lab, brokers: i32, partitions: i32, seed: u64) -> Vec<BTreeSet<i32>> {
    let mut rng = StdRng::seed_from_u64(seed);
    topics()
        .iter()
        .map(|topic| {
            lab.cluster.create_topic(topic, partitions, 1).expect("a new topic");
            let mut leaders = BTreeSet::new();
            for partition in 0..partitions {
                let leader = loop {
                    let leader = match partitions == brokers {
                        true => partition + 1,
                        false => rng.random_range(1..=brokers),
                    };
                    if !leaders.contains(&leader) {
                        break leader;
                    }
                };
                lab.cluster.move_leader(topic, partition, leader).expect("both exist");
                leaders.insert(leader);
            }
            leaders
        })
        .collect()
}

/// How many brokers a greedy cover of all topics takes: each time the one that leads something of most
/// topics that are not covered yet.
fn greedy_cover(leaders: &[BTreeSet<i32>], brokers: i32) -> usize {
    let mut left: Vec<&BTreeSet<i32>> = leaders.iter().collect();
    let mut chosen = 0;
    while !left.is_empty() {
        let covers = |broker: &i32| left.iter().filter(|topic| topic.contains(broker)).count();
        let best = (1..=brokers).max_by_key(covers).expect("there are brokers");
        left.retain(|topic| !topic.contains(&best));
        chosen += 1;
    }
    chosen
}

/// Processes that send little, over this many brokers and partitions of each topic.
pub fn light(brokers: i32, partitions: i32, seed: u64) -> Report {
    virtual_time(async {
        let setup = Setup { brokers, partitions: 0, ..Setup::new(seed) };
        let mut lab = Lab::open(&setup);
        let leaders = create(&lab, brokers, partitions, seed);
        // Every topic gets a record in ten seconds from every worker.
        let every = Some(Duration::from_secs(1));
        let load = Load { topics: topics(), every, burst: TOPICS as usize / 10, ..Load::of("") };
        lab.add_producers(WORKERS, Duration::from_secs(5), &load);
        lab.all_connected().await;
        lab.phase("steady");
        lab.pass(WATCHED).await;

        let everywhere = partitions == brokers;
        let mut report = Report::new(
            format!("10 light, {brokers} brokers, {partitions} partitions a topic"),
            format!("{WORKERS} processes send 100 records/s each to {TOPICS} topics in turn"),
        );
        let open: Vec<Vec<i32>> = (0..WORKERS).map(|worker| lab.network.open_of(worker)).collect();
        let counts: Vec<u64> = open.iter().map(|of| of.len() as u64).collect();
        let most = if everywhere {
            SUBSET + 1.0
        } else {
            // The control connection may be one of those.
            (1.2 * greedy_cover(&leaders, brokers) as f64).ceil() + 1.0
        };
        report.figure("connections of the busiest process", highest(&counts), Target::AtMost(most));
        report.figure("connections per process", mean(&counts), Target::Told);
        if !everywhere {
            let cover = greedy_cover(&leaders, brokers);
            report.figure("brokers of a greedy cover", cover as f64, Target::Told);
        }
        used(&mut report, &lab, brokers, &open);
        report.plot = Some(lab.plot());
        report
    })
}

/// One process that sends much.
pub fn heavy(brokers: i32, seed: u64) -> Report {
    virtual_time(async {
        let setup = Setup { brokers, partitions: 0, ..Setup::new(seed) };
        let mut lab = Lab::open(&setup);
        create(&lab, brokers, 4, seed);
        let value = 10_000;
        let a_second = HEAVY * brokers.unsigned_abs() as usize / value;
        let load = Load {
            topics: topics(),
            every: Some(Duration::from_millis(100)),
            burst: a_second / 10,
            value,
            ..Load::of("")
        };
        lab.add_producers(1, Duration::ZERO, &load);
        lab.all_connected().await;
        lab.phase("steady");
        lab.pass(WATCHED).await;
        let mut report = Report::new(
            format!("10 heavy, {brokers} brokers, 4 partitions a topic"),
            format!("one process sends {} MB/s to {TOPICS} topics", a_second * value / 1_000_000),
        );
        let open = vec![lab.network.open_of(0)];
        let all: BTreeSet<i32> = open[0].iter().copied().collect();
        report.figure(
            "share of the brokers it uses, %",
            all.len() as f64 / f64::from(brokers) * 100.0,
            Target::AtLeast(100.0),
        );
        report.figure("connections of the process", open[0].len() as f64, Target::Told);
        let bytes: u64 = lab.network.log(|log| log.bytes_to_broker().iter().sum());
        let seconds = WATCHED.as_secs_f64();
        report.figure("MB/s on the wire", bytes as f64 / seconds / 1e6, Target::Told);
        used(&mut report, &lab, brokers, &open);
        report.plot = Some(lab.plot());
        report
    })
}

fn used(report: &mut Report, lab: &Lab, brokers: i32, open: &[Vec<i32>]) {
    let at: Vec<u64> = (1..=brokers).map(|broker| lab.network.open_at(broker) as u64).collect();
    report.figure("connections of the busiest broker", highest(&at), Target::Told);
    report.figure("connections per broker", mean(&at), Target::Told);
    let all: BTreeSet<i32> = open.iter().flatten().copied().collect();
    let share = all.len() as f64 / f64::from(brokers);
    report.figure("share of the brokers that any process uses, %", share * 100.0, Target::Told);
    let pairs: usize = lab.members.iter().map(|member| member.written().len()).sum();
    report.figure("producer id x partition pairs", pairs as f64, Target::Told);
    let phase = lab.ledger.of("steady");
    report.figure("ack p99, ms", phase.quantile(0.99), Target::Told);
    report.figure("records that failed", phase.failed as f64, Target::AtMost(0.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cover_takes_the_most_useful_broker_first() {
        let topics = [[1, 2], [2, 3], [2, 4], [5, 6]].map(BTreeSet::from);
        assert_eq!(greedy_cover(&topics, 6), 2);
    }
}
