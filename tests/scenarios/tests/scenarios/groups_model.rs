//! Random events against the members of a group, in virtual time: whatever happens, every record is handled, and
//! nothing counts as done that nobody has finished. A failing run names its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Assignor, Consumer, GroupProtocol, Record};
use ottla_scenarios::seeds;
use ottla_scenarios::steps::{ms, secs, small_batches};
use ottla_scenarios::virtual_cluster;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const BROKERS: i32 = 3;
const GROUP: &str = "g";

/// Requests of members, whose answers are lost, late or odd.
const CLASSIC: [ApiKey; 8] = [
    ApiKey::FIND_COORDINATOR,
    ApiKey::JOIN_GROUP,
    ApiKey::SYNC_GROUP,
    ApiKey::HEARTBEAT,
    ApiKey::LEAVE_GROUP,
    ApiKey::OFFSET_COMMIT,
    ApiKey::OFFSET_FETCH,
    ApiKey::FETCH,
];
const NEXT: [ApiKey; 6] = [
    ApiKey::FIND_COORDINATOR,
    ApiKey::DESCRIBE_GROUPS,
    ApiKey::CONSUMER_GROUP_HEARTBEAT,
    ApiKey::OFFSET_COMMIT,
    ApiKey::OFFSET_FETCH,
    ApiKey::FETCH,
];

#[test]
fn every_record_is_handled_and_nothing_is_done_that_nobody_has_finished() {
    run_all(0..60, GroupProtocol::Classic);
}

#[test]
fn the_same_of_the_next_generation() {
    run_all(0..60, GroupProtocol::Auto);
}

/// See [`seeds::chosen`].
#[test]
fn chosen_seeds() {
    run_all(seeds::chosen(), GroupProtocol::Classic);
    run_all(seeds::chosen(), GroupProtocol::Auto);
}

fn run_all(seeds: std::ops::Range<u64>, protocol: GroupProtocol) {
    seeds::run_all(seeds, |seed| seeds::runtime().block_on(scenario(seed, protocol)));
}

/// What was handed out of each partition, and what of it was finished.
#[derive(Default)]
struct Work {
    handled: BTreeSet<(i32, i64)>,
    finished: BTreeSet<(i32, i64)>,
    /// Nobody takes too long any more.
    calm: bool,
}

type Shared = Arc<Mutex<Work>>;

enum Stop {
    Close,
    Drop,
}

struct Member {
    stop: Option<oneshot::Sender<Stop>>,
    task: JoinHandle<Result<(), String>>,
}

impl Member {
    fn start(mut consumer: Consumer, seed: u64, work: &Shared) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let work = Arc::clone(work);
        let task = tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            loop {
                // It asks before it is stopped: what it has finished is done then.
                let next = tokio::select! {
                    biased;
                    next = consumer.next() => next,
                    how = &mut stopped => match how {
                        Ok(Stop::Close) => return consumer.close().await.map_err(|e| e.to_string()),
                        _ => return Ok(()),
                    },
                };
                let batch = match next {
                    None => return Err("it has ended".to_owned()),
                    // Trouble is told; reading goes on.
                    Some(Err(e)) if !e.is_fatal() => continue,
                    Some(Err(e)) => return Err(e.to_string()),
                    Some(Ok(batch)) => batch,
                };
                let records: Vec<(i32, i64)> =
                    batch.iter().map(|record| (batch.partition(), record.offset())).collect();
                {
                    let mut work = work.lock().unwrap();
                    work.handled.extend(&records);
                }
                // Some take long, a few too long.
                let slow = rng.random_bool(0.02) && !work.lock().unwrap().calm;
                let takes = if slow { secs(40) } else { ms(rng.random_range(0..40)) };
                let how = tokio::select! {
                    () = tokio::time::sleep(takes) => None,
                    how = &mut stopped => Some(how),
                };
                match how {
                    None => work.lock().unwrap().finished.extend(&records),
                    Some(Ok(Stop::Close)) => {
                        return consumer.close().await.map_err(|e| e.to_string());
                    }
                    Some(_) => return Ok(()),
                }
            }
        });
        Self { stop: Some(stop), task }
    }

    async fn end(mut self, how: Stop) -> Result<(), String> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(how);
        }
        match tokio::time::timeout(secs(120), self.task).await {
            Ok(ended) => ended.map_err(|e| e.to_string())?,
            Err(_) => Err("a close has no end".to_owned()),
        }
    }
}

async fn member(
    cluster: &Cluster,
    seed: u64,
    (protocol, work): (GroupProtocol, &Shared),
) -> Result<Member, String> {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
    let client = virtual_cluster::client(cluster, seed).request_timeout(secs(5));
    // Its cluster may not be there at the moment.
    let client = client.build().map_err(|e| e.to_string())?;
    let assignors: &[Assignor] = match seed / 1_000 % 3 {
        0 => &[Assignor::CooperativeSticky],
        1 => &[Assignor::Range, Assignor::CooperativeSticky],
        _ => &[Assignor::Sticky],
    };
    let consumer = client.consumer().group(GROUP).topics(["t"]).group_protocol(protocol);
    let consumer = match protocol {
        GroupProtocol::Classic => {
            consumer.assignors(assignors.iter().copied()).session_timeout(secs(10))
        }
        _ => consumer,
    };
    let consumer = consumer
        .max_poll_interval(secs(30))
        .commit_interval(ms(rng.random_range(100..5_000)))
        .max_bytes(1 << rng.random_range(10..16))
        .build()
        .map_err(|e| e.to_string())?;
    Ok(Member::start(consumer, seed, work))
}

/// What is committed was finished, all of it.
fn check(cluster: &Cluster, work: &Shared) -> Result<(), String> {
    let Some(group) = cluster.group(GROUP) else { return Ok(()) };
    let work = work.lock().unwrap();
    for committed in &group.offsets {
        let of = committed.partition;
        let open = (0..committed.offset).find(|offset| !work.finished.contains(&(of, *offset)));
        if let Some(open) = open {
            let at = committed.offset;
            return Err(format!("partition {of}: {at} is committed, and {open} is not finished"));
        }
    }
    Ok(())
}

/// Whether so many records of each partition are.
fn is_committed(cluster: &Cluster, written: &BTreeMap<i32, i64>) -> bool {
    let group = cluster.group(GROUP);
    let offset = |of: i32| group.as_ref()?.committed("t", of).map(|at| at.offset);
    written.iter().all(|(partition, count)| offset(*partition).unwrap_or(0) >= *count)
}

async fn scenario(seed: u64, protocol: GroupProtocol) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let partitions = rng.random_range(1..8);
    let cluster = Cluster::builder()
        .brokers(BROKERS)
        .tcp(false)
        .topic("t", partitions, BROKERS)
        .start_on_current_runtime()
        .map_err(|e| e.to_string())?;
    let writer = virtual_cluster::client(&cluster, seed + 1);
    let writer = writer.connect().await.map_err(|e| e.to_string())?;
    let producer = small_batches(&writer).delivery_timeout(secs(600)).build();
    let producer = producer.map_err(|e| e.to_string())?;
    let work = Shared::default();
    let mut members: BTreeMap<u64, Member> = BTreeMap::new();
    // All of one assignor, so that they have one in common.
    let mut number = seed % 3 * 1_000;
    let mut written: BTreeMap<i32, i64> = BTreeMap::new();
    let mut sent = Vec::new();
    let steps = rng.random_range(20..60);
    for _ in 0..steps {
        for _ in 0..rng.random_range(0..10) {
            let partition = rng.random_range(0..partitions);
            *written.entry(partition).or_default() += 1;
            let record = Record::to("t").partition(partition).value(&[7; 300]);
            sent.push(producer.send(record).await.map_err(|e| e.to_string())?);
        }
        match rng.random_range(0..12) {
            0..=2 if members.len() < 5 => {
                number += 1;
                members.insert(number, member(&cluster, number, (protocol, &work)).await?);
            }
            3 if members.len() > 1 => {
                let ids: Vec<u64> = members.keys().copied().collect();
                let which = *ids.choose(&mut rng).expect("some");
                let how = if rng.random_bool(0.5) { Stop::Close } else { Stop::Drop };
                if let Some(member) = members.remove(&which) {
                    member.end(how).await?;
                }
            }
            4 => {
                let _ = cluster.move_coordinator(GROUP, rng.random_range(1..=BROKERS));
            }
            5 => {
                cluster.remove_coordinator(GROUP);
                tokio::time::sleep(ms(rng.random_range(0..8_000))).await;
                let _ = cluster.move_coordinator(GROUP, rng.random_range(1..=BROKERS));
            }
            6 => {
                let group = cluster.group(GROUP);
                let ids = group.map(|group| group.members).unwrap_or_default();
                if let Some(member) = ids.choose(&mut rng) {
                    let _ = cluster.expire_member(GROUP, &member.id);
                }
            }
            7..=9 => {
                let fault = match rng.random_range(0..6) {
                    0 => Fault::CutBeforeAppend,
                    1 | 2 => Fault::CutAfterAppend,
                    3 => Fault::Delay(ms(rng.random_range(0..7_000))),
                    4 => Fault::DelayResponse(ms(rng.random_range(0..7_000))),
                    _ => Fault::BlackHoleAfterAppend,
                };
                let apis =
                    if protocol == GroupProtocol::Classic { &CLASSIC[..] } else { &NEXT[..] };
                let api = *apis.choose(&mut rng).expect("some");
                let times = rng.random_range(1..4);
                cluster.faults().inject(FaultRule::new(fault).api(api).times(times));
            }
            10 => {
                let broker = rng.random_range(1..=BROKERS);
                if cluster.stop_broker(broker, Leaders::Move).is_ok() {
                    tokio::time::sleep(ms(rng.random_range(0..15_000))).await;
                    let _ = cluster.start_broker(broker);
                }
            }
            _ => {}
        }
        tokio::time::sleep(ms(rng.random_range(0..6_000))).await;
        check(&cluster, &work)?;
    }
    cluster.faults().clear();
    cluster.elect_preferred_leaders();
    for ack in sent {
        ack.await.map_err(|e| e.to_string())?;
    }
    if members.is_empty() {
        number += 1;
        members.insert(number, member(&cluster, number, (protocol, &work)).await?);
    }
    let all: usize = written.values().map(|count| *count as usize).sum();
    let is_read = async {
        while work.lock().unwrap().finished.len() < all {
            tokio::time::sleep(ms(100)).await;
        }
    };
    if tokio::time::timeout(secs(600), is_read).await.is_err() {
        let group = cluster.group(GROUP);
        let read = work.lock().unwrap().finished.len();
        return Err(format!("{read} of {all} are finished; {group:#?}"));
    }
    check(&cluster, &work)?;
    // Who took too long was no member any more when it had finished: that is read again, by whoever has it now.
    work.lock().unwrap().calm = true;
    let all_committed = async {
        while !is_committed(&cluster, &written) {
            tokio::time::sleep(ms(100)).await;
        }
    };
    if tokio::time::timeout(secs(600), all_committed).await.is_err() {
        return Err(format!("not all is committed; {:#?}", cluster.group(GROUP)));
    }
    // What is finished right before all are closed is committed by that.
    for partition in 0..partitions {
        *written.entry(partition).or_default() += 1;
        let record = Record::to("t").partition(partition).value(&[7; 300]);
        let sent = producer.send(record).await.map_err(|e| e.to_string())?;
        sent.await.map_err(|e| e.to_string())?;
    }
    let all: usize = written.values().map(|count| *count as usize).sum();
    let is_read = async {
        while work.lock().unwrap().finished.len() < all {
            tokio::time::sleep(ms(1)).await;
        }
    };
    if tokio::time::timeout(secs(60), is_read).await.is_err() {
        return Err(format!("the last are not finished; {:#?}", cluster.group(GROUP)));
    }
    for (_, member) in members {
        member.end(Stop::Close).await?;
    }
    check(&cluster, &work)?;
    if !is_committed(&cluster, &written) {
        return Err(format!("{written:?} is not all committed; {:#?}", cluster.group(GROUP)));
    }
    Ok(())
}
