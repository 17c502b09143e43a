//! What is done to a mixed group: a short script, and a long one that draws.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ottla_test_kafka::Cluster;

use crate::group::{Group, Setting, Verdict};
use crate::programs::{Kind, Programs};

/// The name of the static member.
const INSTANCE: &str = "ours-static";

/// As many members as a long run has at one time.
const MOST: usize = 7;

/// One of each kind beside two of ours; the first leads. One is static and restarts; one is killed while one of ours is frozen
/// for longer than its session; both come back; the leader leaves.
///
/// # Errors
/// What is wrong, in words.
pub fn short(
    setting: Setting,
    programs: Programs,
    leader: Kind,
    killed: Kind,
) -> Result<Verdict, String> {
    // sarama has no next generation, and tells nothing of its commits: its groups are those of `foreign_members`.
    let kinds: Vec<_> = programs.kinds().into_iter().filter(|k| *k != Kind::Sarama).collect();
    let mut group = Group::start(setting, programs)?;
    let first = group.join(leader, None)?;
    // Those of others come together: to come alone is for the first and for ours.
    for kind in kinds.iter().filter(|kind| **kind != leader && **kind != Kind::Ours) {
        group.begin(*kind, None)?;
    }
    group.settle("others join")?;
    let ours = group.begin(Kind::Ours, None)?;
    let fixed = group.join(Kind::Ours, Some(INSTANCE))?;
    group.restart(&fixed, Kind::Ours, INSTANCE)?;
    let is_killed = |(kind, name): &(Kind, Arc<str>)| *kind == killed && *name != first;
    let victim = group.members().into_iter().find(is_killed).ok_or("nobody to kill")?.1;
    group.freeze(&ours)?;
    group.kill(&victim)?;
    group.settle(&format!("{victim} is killed, and {ours} frozen"))?;
    group.thaw(&ours)?;
    group.begin(killed, None)?;
    group.settle(&format!("{ours} wakes up, and {} comes back", killed.name()))?;
    group.leave(&first)?;
    group.finish()
}

/// A broker is killed and restarted under groups of one of each kind.
///
/// # Errors
/// What is wrong, in words.
pub fn broker_restarts(
    settings: Vec<Setting>,
    programs: &Programs,
    cluster: &Cluster,
) -> Result<Vec<Verdict>, String> {
    let mut groups = Vec::new();
    for setting in settings {
        let mut group = Group::start(setting, programs.clone())?;
        for kind in programs.kinds().into_iter().filter(|kind| *kind != Kind::Sarama) {
            group.begin(kind, None)?;
        }
        groups.push(group);
    }
    let settle = |groups: &mut Vec<Group>, what: &str| {
        groups.iter_mut().try_for_each(|group| group.settle(what).map(drop))
    };
    settle(&mut groups, "all join")?;
    let topics: Vec<String> = groups.iter().map(|group| group.topic().to_owned()).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    cluster.kill(1).map_err(|e| e.to_string())?;
    settle(&mut groups, "broker 1 is killed")?;
    cluster.restart(1).map_err(|e| e.to_string())?;
    cluster.wait_in_sync(&topics).map_err(|e| e.to_string())?;
    settle(&mut groups, "broker 1 is back")?;
    groups.into_iter().map(Group::finish).collect()
}

/// A generator of numbers, which are the same for the same seed.
#[derive(Debug)]
struct Draw(u64);

impl Draw {
    /// Below `most` (splitmix64).
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % most.max(1) as u64).unwrap_or(0)
    }
}

/// For so long: members come and go, are killed and frozen, and brokers are killed and stopped, in the order that the seed
/// draws. Each kind leads: the group is emptied, and the next one is alone in it first.
///
/// # Errors
/// What is wrong, in words.
pub fn long(
    setting: Setting,
    programs: Programs,
    cluster: Option<&Cluster>,
    time: Duration,
    seed: u64,
) -> Result<Verdict, String> {
    let kinds: Vec<_> = programs.kinds().into_iter().filter(|k| *k != Kind::Sarama).collect();
    let topic = setting.name.clone();
    let mut draw = Draw(seed);
    let mut group = Group::start(setting, programs)?;
    let each = time / u32::try_from(kinds.len()).unwrap_or(1);
    for (at, leader) in kinds.iter().enumerate() {
        let begun = Instant::now();
        for (_, name) in group.members() {
            group.dismiss(&name)?;
        }
        group.join(*leader, None)?;
        group.join(kinds[(at + 1) % kinds.len()], None)?;
        while begun.elapsed() < each {
            act(&mut group, &kinds, cluster, &topic, &mut draw)?;
        }
    }
    group.finish()
}

fn act(
    group: &mut Group,
    kinds: &[Kind],
    cluster: Option<&Cluster>,
    topic: &str,
    draw: &mut Draw,
) -> Result<(), String> {
    let members = group.members();
    let some = members[draw.below(members.len())].clone();
    let kind = kinds[draw.below(kinds.len())];
    match draw.below(8) {
        0..=2 if members.len() < MOST => group.join(kind, None).map(drop),
        3 if members.len() > 2 => {
            group.kill(&some.1)?;
            group.settle(&format!("{} is killed", some.1)).map(drop)
        }
        4 if members.len() > 2 => group.leave(&some.1),
        5 if members.len() > 1 => {
            group.freeze(&some.1)?;
            group.settle(&format!("{} is frozen", some.1))?;
            group.thaw(&some.1)?;
            group.settle(&format!("{} wakes up", some.1)).map(drop)
        }
        6 if members.len() < MOST => {
            let instance = format!("{}-static-{}", kind.name(), draw.below(1 << 30));
            let name = group.join(kind, Some(&instance))?;
            let name = group.restart(&name, kind, &instance)?;
            // It does not leave: its session ends.
            group.leave(&name)
        }
        7 if let Some(cluster) = cluster => {
            let ids = cluster.ids();
            let id = ids[draw.below(ids.len())];
            let is_clean = draw.below(2) == 0;
            if is_clean { cluster.stop(id) } else { cluster.kill(id) }
                .map_err(|e| e.to_string())?;
            group
                .settle(&format!("broker {id} {}", if is_clean { "stops" } else { "is killed" }))?;
            cluster.restart(id).map_err(|e| e.to_string())?;
            cluster.wait_in_sync(&[topic]).map_err(|e| e.to_string())?;
            group.settle(&format!("broker {id} is back")).map(drop)
        }
        _ => Ok(()),
    }
}
