//! Experiment 13: a group whose members are killed and rolled, and many groups that start, are rolled and lose a
//! coordinator. Under each of the two protocols.

use std::time::Duration;

use ottla::GroupProtocol;

use super::{Options, requests_by_client, since};
use crate::client::Joining;
use crate::holdings::Holdings;
use crate::lab::{Lab, SESSION_TIMEOUT, Setup, TOPIC, virtual_time};
use crate::net::Api;
use crate::report::{Report, Target};

const PROTOCOLS: [(GroupProtocol, &str); 2] =
    [(GroupProtocol::Classic, "cooperative"), (GroupProtocol::Next, "next")];

/// Of one group; each member has two of its partitions.
const MEMBERS: u32 = 200;
const EACH: i32 = 2;

/// A member that says nothing more is out after this (`session.timeout.ms`, and its like on brokers).
const SESSION: Duration = Duration::from_secs(45);
/// Until the others have its partitions: heartbeats, a rebalance, lookups.
const TAKEN_OVER: Duration = Duration::from_secs(15);

const MANY: u32 = 50;

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    let few = MEMBERS.min(options.clients);
    let one = PROTOCOLS.iter().map(|(protocol, name)| one(options, few, *protocol, name));
    let many = PROTOCOLS.iter().map(|(protocol, name)| many(options, *protocol, name));
    one.chain(many).collect()
}

/// Until every partition is somebody's, and everybody has his share. Gives how long that took; nothing if it
/// never came about.
async fn settled(lab: &mut Lab, groups: &[(Holdings, Vec<u32>)], limit: Duration) -> f64 {
    let from = lab.now_ms();
    let is_settled = |(holdings, members): &(Holdings, Vec<u32>)| {
        let (most, fewest) = holdings.spread(members);
        holdings.free() == 0 && most - fewest <= 1
    };
    while !groups.iter().all(is_settled) {
        if lab.now_ms() - from > limit.as_millis() as u64 {
            return f64::NAN;
        }
        lab.pass(Duration::from_millis(100)).await;
    }
    (lab.now_ms() - from) as f64 / 1000.0
}

fn one(options: &Options, count: u32, protocol: GroupProtocol, name: &str) -> Report {
    let partitions = count as i32 * EACH;
    virtual_time(async {
        let setup = Setup { partitions, ..Setup::new(options.seed) };
        let mut lab = Lab::open(&setup);
        let holdings = Holdings::new(partitions, lab.now_ms());
        let joining = Joining {
            group: "one".to_owned(),
            topic: TOPIC.to_owned(),
            protocol,
            holdings: holdings.clone(),
        };
        let members =
            (0..count).map(|_| lab.add_member(Duration::from_secs(10), &joining)).collect();
        let mut groups = [(holdings.clone(), members)];
        let about = format!("{count} members of one group, {partitions} partitions");
        let mut report = Report::new(format!("13 groups, {name}"), about);
        let started = settled(&mut lab, &groups, Duration::from_secs(600)).await;
        report.figure("started and even after, s", started, Target::AtMost(60.0));
        lab.pass(Duration::from_secs(60)).await;
        let now = lab.now_ms();
        let before = holdings.told(now);

        lab.phase("one is killed");
        let dead = groups[0].1.remove(count as usize / 2);
        let had = holdings.of(dead);
        lab.kill_member(dead, &holdings);
        lab.pass(SESSION + TAKEN_OVER).await;
        let told = holdings.told(lab.now_ms()).since(&before);
        let of_dead: u64 = had.iter().map(|of| told.free_ms[*of as usize]).sum();
        let others = told.free_seconds() - of_dead as f64 / 1000.0;
        report.figure(
            "killed: partition-seconds without a reader, its own, s",
            of_dead as f64 / 1000.0,
            Target::Told,
        );
        report.figure("killed: the same of others' partitions, s", others, Target::AtMost(0.0));
        let least = had.len() as f64;
        report.figure("killed: moves / least", told.moves as f64 / least, Target::AtMost(1.1));
        report.figure(
            "killed: partitions left without a reader",
            holdings.free() as f64,
            Target::AtMost(0.0),
        );
        groups[0].1.push(lab.add_member(Duration::ZERO, &joining));
        settled(&mut lab, &groups, Duration::from_secs(120)).await;
        lab.pass(Duration::from_secs(30)).await;

        // Each is closed, and another comes in its place.
        lab.phase("rolled");
        let before = holdings.told(lab.now_ms());
        let from = lab.now_ms();
        for which in 0..groups[0].1.len() {
            let old = groups[0].1[which];
            lab.members[old as usize].stop();
            lab.pass(Duration::from_secs(2)).await;
            groups[0].1[which] = lab.add_member(Duration::ZERO, &joining);
            lab.pass(Duration::from_secs(8)).await;
        }
        let even = settled(&mut lab, &groups, Duration::from_secs(120)).await;
        let took = (lab.now_ms() - from) as f64 / 1000.0;
        let told = holdings.told(lab.now_ms()).since(&before);
        let rolled = f64::from(count);
        report.figure("rolled: even after the last, s", even, Target::AtMost(60.0));
        report.figure(
            "rolled: partition-seconds without a reader, each, s",
            told.free_seconds() / rolled,
            Target::Told,
        );
        report.figure(
            "rolled: share of all partition-seconds, %",
            100.0 * told.free_seconds() / (took * f64::from(partitions)),
            Target::AtMost(1.0),
        );
        // Its partitions go, and as many come back.
        let least = rolled * 2.0 * f64::from(EACH);
        report.figure("rolled: moves / least", told.moves as f64 / least, Target::AtMost(1.1));
        report.figure(
            "partitions given to two at a time",
            holdings.told(lab.now_ms()).twice as f64,
            Target::AtMost(0.0),
        );
        report
    })
}

/// Requests of these kinds in the busiest second of a stretch, from second to second.
fn peak(lab: &Lab, from_ms: u64, to_ms: u64, api: Api) -> f64 {
    lab.network.log(|log| {
        let seconds = log.by_second().iter().enumerate();
        let within =
            seconds.filter(|(at, _)| (from_ms / 1000..to_ms / 1000).contains(&(*at as u64)));
        within.map(|(_, of)| of[api as usize]).max().unwrap_or(0) as f64
    })
}

fn many(options: &Options, protocol: GroupProtocol, name: &str) -> Report {
    let size = (options.clients / MANY).max(2);
    let count = size * MANY;
    let partitions = size as i32 * EACH;
    virtual_time(async {
        let mut lab = Lab::open(&Setup { partitions, ..Setup::new(options.seed) });
        let began = lab.now_ms();
        let over = Duration::from_secs(60);
        let mut groups = Vec::new();
        let mut joinings = Vec::new();
        for number in 0..MANY {
            let holdings = Holdings::new(partitions, began);
            let joining = Joining {
                group: format!("group-{number}"),
                topic: TOPIC.to_owned(),
                protocol,
                holdings: holdings.clone(),
            };
            let members: Vec<u32> = (0..size).map(|_| lab.add_member(over, &joining)).collect();
            groups.push((holdings, members));
            joinings.push(joining);
        }
        let about = format!("{count} members in {MANY} groups of {partitions} partitions each");
        let mut report = Report::new(format!("13 many groups, {name}"), about);
        let n = f64::from(count);
        let started = settled(&mut lab, &groups, Duration::from_secs(900)).await;
        report.figure("started and even after, s", started, Target::AtMost(120.0));
        let end = lab.now_ms();
        // What there is to look up comes as the members come, within a minute.
        report.figure(
            "start: lookups in the busiest second / mean",
            peak(&lab, began, end, Api::FindCoordinator) * 60.0 / n,
            Target::AtMost(2.0),
        );
        report.figure(
            "start: joins in the busiest second / members",
            peak(&lab, began, end, Api::JoinGroup) / n,
            Target::Told,
        );

        lab.pass(Duration::from_secs(30)).await;
        let from = lab.phase("steady");
        let kinds = [Api::Heartbeat, Api::OffsetCommit, Api::JoinGroup, Api::FindCoordinator];
        let before = kinds.map(|api| requests_by_client(&lab, api));
        let rebalances = rebalanced(&lab);
        let steady = Duration::from_secs(600);
        lab.pass(steady).await;
        let to = lab.now_ms();
        let per_hour = |lab: &Lab, which: usize| {
            let asked = since(&requests_by_client(lab, kinds[which]), &before[which]);
            asked.iter().sum::<u64>() as f64 / n * 3600.0 / steady.as_secs_f64()
        };
        let heartbeats = per_hour(&lab, 0);
        report.figure(
            "steady: heartbeats per member and hour",
            heartbeats,
            Target::AtMost(3600.0 / 2.4),
        );
        report.figure(
            "steady: heartbeats, busiest second / mean",
            peak(&lab, from, to, Api::Heartbeat) * 3600.0 / (heartbeats * n),
            Target::AtMost(1.3),
        );
        report.figure(
            "steady: commits per member and hour (nothing is read)",
            per_hour(&lab, 1),
            Target::AtMost(0.0),
        );
        report.figure(
            "steady: joins and lookups",
            per_hour(&lab, 2) + per_hour(&lab, 3),
            Target::AtMost(0.0),
        );
        report.figure("steady: rebalances", rebalanced(&lab) - rebalances, Target::AtMost(0.0));

        let from = lab.phase("a coordinator is killed");
        let told: Vec<_> = groups.iter().map(|(holdings, _)| holdings.told(from)).collect();
        let rebalances = rebalanced(&lab);
        lab.kill(1);
        lab.pass(SESSION_TIMEOUT).await;
        lab.shut_down(1);
        lab.pass(Duration::from_secs(120)).await;
        let to = lab.now_ms();
        report.figure(
            "coordinator: lookups in the busiest second / members",
            peak(&lab, from, to, Api::FindCoordinator) / n,
            Target::AtMost(1.0 / 30.0),
        );
        report.figure(
            "coordinator: rebalances",
            rebalanced(&lab) - rebalances,
            Target::AtMost(0.0),
        );
        let free: f64 = groups
            .iter()
            .zip(&told)
            .map(|((holdings, _), then)| holdings.told(to).since(then).free_seconds())
            .sum();
        report.figure(
            "coordinator: partition-seconds without a reader, s",
            free,
            Target::AtMost(0.0),
        );
        lab.restart(1);
        lab.cluster.elect_preferred_leaders();
        lab.pass(Duration::from_secs(60)).await;

        // A tenth of each group is rolled, one after the other, all groups at once.
        let from = lab.phase("rolled");
        let told: Vec<_> = groups.iter().map(|(holdings, _)| holdings.told(from)).collect();
        let rebalances = rebalanced(&lab);
        let rolled = (size / 10).max(1);
        for which in 0..rolled as usize {
            for (_, members) in &groups {
                lab.members[members[which] as usize].stop();
            }
            lab.pass(Duration::from_secs(10)).await;
            for ((_, members), joining) in groups.iter_mut().zip(&joinings) {
                members[which] = lab.add_member(Duration::from_secs(5), joining);
            }
            lab.pass(Duration::from_secs(20)).await;
        }
        let even = settled(&mut lab, &groups, Duration::from_secs(120)).await;
        let to = lab.now_ms();
        report.figure("rolled: even after the last, s", even, Target::AtMost(60.0));
        report.figure(
            "rolled: joins in the busiest second / members",
            peak(&lab, from, to, Api::JoinGroup) / n,
            Target::Told,
        );
        report.figure(
            "rolled: lookups in the busiest second / members",
            peak(&lab, from, to, Api::FindCoordinator) / n,
            Target::AtMost(1.0 / 30.0),
        );
        let each = f64::from(rolled * MANY);
        report.figure(
            "rolled: rebalances for each that was",
            (rebalanced(&lab) - rebalances) / each,
            Target::AtMost(3.0),
        );
        let sums =
            groups.iter().zip(&told).map(|((holdings, _), then)| holdings.told(to).since(then));
        let (moves, free) = sums
            .fold((0, 0.0), |(moves, free), told| (moves + told.moves, free + told.free_seconds()));
        report.figure(
            "rolled: moves / least",
            moves as f64 / (each * 2.0 * f64::from(EACH)),
            Target::AtMost(1.1),
        );
        report.figure(
            "rolled: partition-seconds without a reader, each, s",
            free / each,
            Target::Told,
        );
        let settled_at = rebalanced(&lab);
        lab.pass(Duration::from_secs(120)).await;
        report.figure("afterwards: rebalances", rebalanced(&lab) - settled_at, Target::AtMost(0.0));
        let twice: u64 = groups.iter().map(|(holdings, _)| holdings.told(lab.now_ms()).twice).sum();
        report.figure("partitions given to two at a time", twice as f64, Target::AtMost(0.0));
        report.plot = Some(lab.plot());
        report
    })
}

/// How often any group was assigned anew so far.
fn rebalanced(lab: &Lab) -> f64 {
    let ids = lab.cluster.group_ids();
    let groups = ids.iter().filter_map(|id| lab.cluster.group(id));
    groups.map(|group| group.rebalances).sum::<u64>() as f64
}
