//! Experiment 7: how evenly a fleet fills the partitions of a topic, at one instant and over the
//! turns of the subsets, and how soon new partitions get their share.
//!
//! Every record is a choice of its own here (it fills a batch), so that what is left of chance after
//! some minutes is the subsets': which brokers each client uses. Quiet clients, whose choices last
//! for minutes, are looked at apart: they have to find new partitions as soon.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Options, highest, mean, requests_by_client, since};
use crate::client::Load;
use crate::lab::{Lab, Setup, TOPIC, virtual_time};
use crate::net::Api;
use crate::report::{Report, Target};

/// Brokers that a client sending little uses where every one would do.
const SUBSET: f64 = 6.0;
/// The subset turns once in this time, at another moment for each client.
const ROTATION: Duration = Duration::from_secs(4 * 3600);
const ROTATIONS: u32 = 12;
/// Records a second of the whole fleet.
const RATE: u32 = 10_000;
/// A lane more is opened for each 256 KiB: by then every client uses its whole subset.
const WARM: Duration = Duration::from_secs(120);
const WATCHED: Duration = Duration::from_secs(60);
/// Between a client's first refresh and its next there are four minutes at least.
const WATCHED_AFTER: Duration = Duration::from_secs(120);
/// Choices of quiet clients end within minutes anyway: they are looked at before.
const WATCHED_QUIET: Duration = Duration::from_secs(20);
/// Every client asks again within this: the longest period there is, and its jitter.
const REFRESHED: Duration = Duration::from_secs(18 * 60);
/// Who is not looked at sends so much less.
const SLOWER: u32 = 10;

/// A cluster and who uses it.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Number of brokers.
    pub brokers: i32,
    /// Partitions at first; then there are twice as many.
    pub partitions: i32,
    /// Whether clients know their number among their equals.
    pub ordinals: bool,
    /// A choice lasts for minutes instead of a record.
    pub quiet: bool,
    /// Number of clients.
    pub clients: u32,
    /// Records a second of all of them.
    pub rate: u32,
    /// What every draw follows from.
    pub seed: u64,
}

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    let Options { clients, seed } = *options;
    let case = Case {
        brokers: 10,
        partitions: 20,
        ordinals: false,
        quiet: false,
        clients,
        rate: RATE,
        seed,
    };
    vec![
        doubled(&case),
        doubled(&Case { brokers: 20, ..case }),
        doubled(&Case { brokers: 20, ordinals: true, ..case }),
        doubled(&Case { brokers: 20, quiet: true, rate: clients, ..case }),
        rotations(&Case { brokers: 20, ..case }),
    ]
}

impl Case {
    /// The highest that max / mean may be at one instant, or over so many rotations: the subsets of
    /// clients without ordinals are draws, whose sum has a standard deviation of sqrt(B / 6N) of its
    /// mean. What ten thousand clients draw from ten brokers, or twelve times, is within the rest.
    fn bound(&self, rotations: u32) -> f64 {
        let brokers = f64::from(self.brokers);
        let draws = SUBSET * f64::from(self.clients) * f64::from(rotations);
        match self.ordinals || brokers <= SUBSET || brokers / draws <= 10.0 / (SUBSET * 10_000.0) {
            true => 1.03,
            false => 1.03 + 3.0 * (brokers / draws).sqrt(),
        }
    }

    fn open(&self) -> Lab {
        Lab::open(&Setup {
            brokers: self.brokers,
            partitions: self.partitions,
            ordinals: self.ordinals.then_some(self.clients),
            ..Setup::new(self.seed)
        })
    }

    fn about(&self, what: &str) -> String {
        let Self { brokers, partitions, clients, rate, .. } = self;
        let who = if self.ordinals { "producers with ordinals" } else { "producers" };
        format!(
            "{clients} {who}, {rate} records/s together, {partitions} partitions on {brokers} brokers; {what}"
        )
    }
}

/// Records by partition.
type Written = BTreeMap<i32, u64>;
/// The same by topic and partition.
type ByTopic = BTreeMap<(u32, i32), u64>;

/// Of one client, or what it wrote between two counts.
fn add(to: &mut Written, now: &BTreeMap<(u32, i32), u64>, then: &BTreeMap<(u32, i32), u64>) {
    for (at, count) in now {
        *to.entry(at.1).or_default() += count - then.get(at).copied().unwrap_or(0);
    }
}

fn by_partition(written: &Written, partitions: i32) -> Vec<u64> {
    (0..partitions).map(|partition| written.get(&partition).copied().unwrap_or(0)).collect()
}

/// 0: all have the same; near 1: one has all.
fn gini(counts: &[u64]) -> f64 {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    let n = sorted.len() as f64;
    let total: u64 = sorted.iter().sum();
    let ranked: f64 =
        sorted.iter().enumerate().map(|(rank, count)| (rank + 1) as f64 * *count as f64).sum();
    2.0 * ranked / (n * total.max(1) as f64) - (n + 1.0) / n
}

/// How evenly records (all of one size) lie.
fn figures(report: &mut Report, when: &str, counts: &[u64], target: Target) {
    let most = highest(counts) / mean(counts);
    report.figure(format!("max / mean of bytes per partition {when}"), most, target);
    report.figure(format!("Gini {when}"), gini(counts), Target::Told);
}

/// Steady spread; then there are twice as many partitions, and each client is looked at from its
/// first refresh on.
pub fn doubled(case: &Case) -> Report {
    virtual_time(async {
        let mut lab = case.open();
        let every = Duration::from_secs(1).mul_f64(f64::from(case.clients) / f64::from(case.rate));
        let mut load = Load { every: Some(every), ..Load::of(TOPIC) };
        if !case.quiet {
            // As much as opens the lanes of a subset while it warms up.
            load.value = (16.0 * 1024.0 * every.as_secs_f64()).max(1024.0) as usize;
            load.batch = Some(load.value);
        }
        lab.add_producers(case.clients, Duration::from_secs(10), &load);
        lab.all_connected().await;
        lab.pass(WARM).await;
        let written = |lab: &Lab| lab.members.iter().map(|m| m.written()).collect::<Vec<_>>();
        let before = written(&lab);
        lab.phase("steady");
        lab.pass(WATCHED).await;
        let mut steady = Written::new();
        for (now, then) in written(&lab).iter().zip(&before) {
            add(&mut steady, now, then);
        }

        lab.members.iter().for_each(|member| member.slow_down(SLOWER));
        lab.phase("doubled");
        lab.cluster.create_partitions(TOPIC, 2 * case.partitions).expect("more than there were");
        let asked = requests_by_client(&lab, Api::Metadata);
        let watched = if case.quiet { WATCHED_QUIET } else { WATCHED_AFTER };
        let (fair, refreshes) = after_refresh(&mut lab, &asked, watched).await;
        lab.drain(Duration::from_secs(150)).await;

        let variant = match (case.ordinals, case.quiet) {
            (true, _) => ", ordinals",
            (false, true) => ", quiet",
            (false, false) => "",
        };
        let mut report = Report::new(
            format!("7 spread, {} brokers{variant}", case.brokers),
            case.about(&format!("then {}", 2 * case.partitions)),
        );
        let target = match case.quiet {
            true => Target::Told,
            false => Target::AtMost(case.bound(1)),
        };
        figures(&mut report, "before", &by_partition(&steady, case.partitions), target);
        let fair = by_partition(&fair, 2 * case.partitions);
        figures(&mut report, "after one refresh", &fair, target);
        let new: u64 = fair[case.partitions as usize..].iter().sum();
        let share = new as f64 / fair.iter().sum::<u64>().max(1) as f64 * 100.0;
        // Half, and five standard deviations of the draws that were made at least.
        let off = (250.0 / f64::from(case.clients).sqrt()).max(3.0);
        let name = "share of the new partitions after one refresh, %";
        report.figure(name, share, Target::Near(50.0, off));
        let most = highest(&refreshes);
        report.figure("refreshes of the busiest client until then", most, Target::AtMost(1.0));
        let open: Vec<u64> =
            (0..case.clients).map(|client| lab.network.open_of(client).len() as u64).collect();
        report.figure("open connections per client", mean(&open), Target::Told);
        let total = lab.ledger.total();
        report.figure("records that failed", total.failed as f64, Target::AtMost(0.0));
        report.figure("records never resolved", total.unresolved() as f64, Target::AtMost(0.0));
        report.plot = Some(lab.plot());
        report
    })
}

/// What each client wrote in this time after its first refresh, and how often each had asked by then.
async fn after_refresh(lab: &mut Lab, asked: &[u64], time: Duration) -> (Written, Vec<u64>) {
    let clients = lab.members.len();
    let end = lab.now_ms() + (REFRESHED + time).as_millis() as u64;
    let mut written = Written::new();
    let mut refreshes = vec![0; clients];
    // Who has refreshed, what it had written by then, and until when it is looked at.
    let mut watched: BTreeMap<usize, (ByTopic, u64)> = BTreeMap::new();
    let mut left: Vec<usize> = (0..clients).collect();
    while (!left.is_empty() || !watched.is_empty()) && lab.now_ms() < end {
        lab.pass(Duration::from_secs(1)).await;
        let now = lab.now_ms();
        let times = since(&requests_by_client(lab, Api::Metadata), asked);
        left.retain(|client| {
            let member = &lab.members[*client];
            if times[*client] == 0 {
                return true;
            }
            member.slow_down(1);
            // Its next record may be due in a while still.
            watched.insert(*client, (member.written(), now + time.as_millis() as u64));
            false
        });
        watched.retain(|client, (before, until)| {
            if *until > now {
                return true;
            }
            let member = &lab.members[*client];
            member.slow_down(SLOWER);
            add(&mut written, &member.written(), before);
            refreshes[*client] = times[*client];
            false
        });
    }
    // Who never asked has not used what it does not know: the busiest would hide it.
    if !left.is_empty() {
        refreshes.fill(u64::MAX);
    }
    (written, refreshes)
}

/// What a fleet writes while its subsets turn twelve times.
pub fn rotations(case: &Case) -> Report {
    virtual_time(async {
        let mut lab = case.open();
        // Few records: each finds its connections closed, and a broker is chosen anew.
        let every = ROTATION / 8;
        let load = Load { every: Some(every), ..Load::of(TOPIC) };
        lab.add_producers(case.clients, Duration::from_secs(10), &load);
        lab.all_connected().await;
        lab.phase("turning");
        lab.pass(ROTATION * ROTATIONS).await;
        lab.drain(Duration::from_secs(150)).await;
        let mut written = Written::new();
        for member in &lab.members {
            add(&mut written, &member.written(), &BTreeMap::new());
        }
        let mut report = Report::new(
            format!("7 spread over {ROTATIONS} rotations"),
            format!(
                "{} producers, a record in {} min each, {} partitions on {} brokers, {} h",
                case.clients,
                every.as_secs() / 60,
                case.partitions,
                case.brokers,
                ROTATION.as_secs() * u64::from(ROTATIONS) / 3600
            ),
        );
        figures(
            &mut report,
            "in all",
            &by_partition(&written, case.partitions),
            Target::AtMost(case.bound(ROTATIONS)),
        );
        let total = lab.ledger.total();
        report.figure("ack p99, ms", total.quantile(0.99), Target::Told);
        report.figure("records that failed", total.failed as f64, Target::AtMost(0.0));
        report.figure("records never resolved", total.unresolved() as f64, Target::AtMost(0.0));
        report.plot = Some(lab.plot());
        report
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gini_knows_equals_and_one_that_has_all() {
        assert!(gini(&[7; 20]).abs() < 1e-9);
        let mut one = [0; 100];
        one[3] = 5;
        assert!((gini(&one) - 0.99).abs() < 1e-9);
        assert!((gini(&[1, 3]) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn the_bound_follows_from_the_number_of_draws() {
        let case = Case {
            brokers: 20,
            partitions: 20,
            ordinals: false,
            quiet: false,
            clients: 10_000,
            rate: 1,
            seed: 1,
        };
        assert!((case.bound(1) - 1.0848).abs() < 1e-4);
        assert_eq!(case.bound(ROTATIONS), 1.03);
        assert_eq!(Case { ordinals: true, ..case }.bound(1), 1.03);
        assert_eq!(Case { brokers: 10, ..case }.bound(1), 1.03);
        assert!((Case { brokers: 10, clients: 1_000, ..case }.bound(1) - 1.1525).abs() < 1e-4);
    }
}
