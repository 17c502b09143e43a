//! Random changes of what names stand for, in virtual time: topics made anew, another cluster behind the
//! same addresses, brokers whose responses are nonsense, and panics of the engine itself. What was acknowledged is in the log it was
//! acknowledged for, what failed for certain is in none, nothing is there twice unless nobody could
//! know, and nothing waits for ever. A failing run names its seed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Acked, Client, Compression, Error, Producer, Record};
use ottla_scenarios::hostile::{Damage, Hostile};
use ottla_scenarios::mishaps::{HARMLESS, Mishaps, OF_RECORDS};
use ottla_scenarios::seeds;
use ottla_scenarios::steps::{ms, secs};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const BROKERS: i32 = 3;
const PARTITIONS: i32 = 3;
/// Stays while its cluster does.
const STAYS: &str = "stays";
/// Is deleted and made again under its name.
const ANEW: &str = "anew";
/// Virtual time by which everything must be over.
const END: Duration = Duration::from_secs(3600);

#[test]
fn what_is_acknowledged_is_in_the_log_it_was_acknowledged_for() {
    run_all(0..60);
}

/// From 10,000 on, another cluster takes the addresses over.
#[test]
fn another_cluster_is_never_taken_for_the_first() {
    run_all(10_000..10_060);
}

/// See [`seeds::chosen`].
#[test]
fn chosen_seeds() {
    run_all(seeds::chosen());
}

fn run_all(seeds: std::ops::Range<u64>) {
    seeds::run_all(seeds, |seed| {
        seeds::runtime().block_on(async {
            match tokio::time::timeout(END, scenario(seed)).await {
                Ok(outcome) => outcome,
                Err(_) => Err("something waits for ever".to_owned()),
            }
        })
    });
}

struct Sent {
    value: String,
    topic: &'static str,
    outcome: Result<Acked, Error>,
}

/// A record of a log that is there, or was there until its topic was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// Counts the incarnations of all topics.
    log: usize,
    partition: i32,
    offset: i64,
}

type Logs = HashMap<String, Vec<Found>>;

fn cluster(id: &str) -> Result<Cluster, String> {
    Cluster::builder()
        .brokers(BROKERS)
        .tcp(false)
        .cluster_id(id)
        .topic(STAYS, PARTITIONS, BROKERS)
        .topic(ANEW, PARTITIONS, BROKERS)
        .start_on_current_runtime()
        .map_err(|e| e.to_string())
}

async fn scenario(seed: u64) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let first = cluster("first")?;
    let troubles = Troubles { hostile: Hostile::new(&first), mishaps: Mishaps::default() };
    let environment = troubles.mishaps.at(troubles.hostile.environment(seed));
    let client = Client::builder().bootstrap(first.bootstrap()).environment(environment);
    let client = client.request_timeout(secs(5));
    let client = client.connect().await.map_err(|e| e.to_string())?;
    let mut senders = Vec::new();
    for sender in 0..4 {
        let producer = client
            .producer()
            .linger(ms(rng.random_range(0..20)))
            .batch_size(1 << rng.random_range(10..13))
            .compression(Compression::None)
            .delivery_timeout(secs(if sender % 2 == 0 { 60 } else { 4 }))
            .build()
            .map_err(|e| e.to_string())?;
        senders.push(tokio::spawn(send(producer, sender, StdRng::seed_from_u64(rng.random()))));
    }
    let mut logs = Logs::new();
    let mut number = 0;
    let clusters = if seed >= 10_000 {
        let second = cluster("second")?;
        // Its own users have the ids that it gives out first.
        let others = ottla_scenarios::virtual_cluster::client(&second, seed + 1);
        let others = others.connect().await.map_err(|e| e.to_string())?;
        let others = others.producer().build().map_err(|e| e.to_string())?;
        for partition in 0..PARTITIONS {
            for _ in 0..rng.random_range(0..30) {
                let record = Record::to(STAYS).partition(partition).value("another's");
                drop(others.send(record).await.map_err(|e| e.to_string())?.await);
            }
        }
        chaos(&first, &troubles, &mut rng, &mut logs, &mut number).await;
        troubles.hostile.leads_to(&second);
        for broker in first.broker_ids() {
            first.cut_connections(broker).unwrap();
        }
        chaos(&second, &troubles, &mut rng, &mut logs, &mut number).await;
        vec![first, second]
    } else {
        chaos(&first, &troubles, &mut rng, &mut logs, &mut number).await;
        vec![first]
    };
    let mut sent = Vec::new();
    for sender in senders {
        sent.extend(sender.await.map_err(|e| e.to_string())?);
    }
    for cluster in &clusters {
        for topic in [STAYS, ANEW] {
            keep(cluster, topic, &mut logs, &mut number);
        }
    }
    verify(&logs, &sent, seed >= 10_000)
        .map_err(|words| format!("{words}; {} records, {:?}", sent.len(), client.stats()))
}

async fn send(producer: Producer, sender: i32, mut rng: StdRng) -> Vec<Sent> {
    let mut open = Vec::new();
    for number in 0..200 {
        let value = format!("s{sender}/{number}/{:0width$}", 0, width = rng.random_range(1..400));
        let topic = if rng.random_bool(0.5) { STAYS } else { ANEW };
        let mut record = Record::to(topic).value(&value);
        if sender >= 2 {
            record = record.partition(rng.random_range(0..PARTITIONS));
        }
        let delivery = producer.send(record).await;
        open.push((value, topic, delivery));
        if rng.random_bool(0.2) {
            tokio::time::sleep(ms(rng.random_range(0..400))).await;
        }
    }
    let mut sent = Vec::new();
    for (value, topic, delivery) in open {
        let outcome = match delivery {
            Ok(delivery) => delivery.await,
            Err(e) => Err(e),
        };
        sent.push(Sent { value, topic, outcome });
    }
    sent
}

/// Notes what a topic holds, before it is gone or at the end.
fn keep(cluster: &Cluster, topic: &str, logs: &mut Logs, number: &mut usize) {
    *number += 1;
    for partition in 0..cluster.partitions(topic).unwrap() {
        for record in cluster.records(topic, partition).unwrap() {
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
            let found = Found { log: *number, partition, offset: record.offset };
            logs.entry(value).or_default().push(found);
        }
    }
}

/// What happens elsewhere than at brokers.
struct Troubles {
    hostile: Hostile,
    mishaps: Mishaps,
}

async fn chaos(
    cluster: &Cluster,
    troubles: &Troubles,
    rng: &mut StdRng,
    logs: &mut Logs,
    number: &mut usize,
) {
    for _ in 0..rng.random_range(5..30) {
        let broker = rng.random_range(1..=BROKERS);
        let partition = rng.random_range(0..PARTITIONS);
        match rng.random_range(0..14) {
            0..3 => fault(cluster, rng),
            3..6 => {
                let apis = [ApiKey::PRODUCE, ApiKey::PRODUCE, ApiKey::METADATA];
                let api = apis[rng.random_range(0..apis.len())];
                troubles.hostile.next(api, Damage::draw(rng));
            }
            11 => troubles.mishaps.draw(&HARMLESS, rng),
            12 if rng.random_bool(0.3) => troubles.mishaps.draw(&OF_RECORDS, rng),
            6 => cluster.move_leader(STAYS, partition, broker).unwrap(),
            7 => cluster.cut_connections(broker).unwrap(),
            8 | 9 => {
                keep(cluster, ANEW, logs, number);
                cluster.delete_topic(ANEW).unwrap();
                if rng.random_bool(0.5) {
                    tokio::time::sleep(ms(rng.random_range(0..5_000))).await;
                }
                cluster.create_topic(ANEW, PARTITIONS, BROKERS).map(drop).unwrap();
            }
            10 => cluster.move_leader(ANEW, partition, broker).unwrap(),
            _ => {
                let leaders = if rng.random_bool(0.5) { Leaders::Move } else { Leaders::Keep };
                cluster.stop_broker(broker, leaders).unwrap();
                tokio::time::sleep(ms(rng.random_range(0..3_000))).await;
                cluster.start_broker(broker).unwrap();
            }
        }
        tokio::time::sleep(ms(rng.random_range(0..1_500))).await;
    }
    cluster.faults().clear();
}

fn fault(cluster: &Cluster, rng: &mut StdRng) {
    let time = ms(rng.random_range(1..8_000));
    let faults = [
        Fault::CutBeforeAppend,
        Fault::CutAfterAppend,
        Fault::DelayResponse(time),
        Fault::BlackHoleAfterAppend,
        Fault::Error(-1),
        Fault::Error(6),
        Fault::ErrorAfterAppend(6),
        Fault::ErrorAfterAppend(7),
    ];
    let apis = [ApiKey::PRODUCE, ApiKey::PRODUCE, ApiKey::METADATA, ApiKey::INIT_PRODUCER_ID];
    let fault = faults[rng.random_range(0..faults.len())];
    let mut rule = FaultRule::new(fault).api(apis[rng.random_range(0..apis.len())]);
    if rng.random_bool(0.5) {
        rule = rule.broker(rng.random_range(1..=BROKERS));
    }
    cluster.faults().inject(rule.after(rng.random_range(0..3)).times(rng.random_range(1..4)));
}

fn verify(logs: &Logs, sent: &[Sent], replaced: bool) -> Result<(), String> {
    for Sent { value, topic, outcome } in sent {
        let places = logs.get(value).cloned().unwrap_or_default();
        let name = format!("{} of '{topic}'", value.rsplit_once('/').map_or(&**value, |v| v.0));
        // One that nobody knows to be written or not may be in the log that is gone as well.
        let mut by_log: BTreeMap<usize, usize> = BTreeMap::new();
        places.iter().for_each(|at| *by_log.entry(at.log).or_default() += 1);
        if by_log.values().any(|times| *times > 1)
            || (replaced && *topic == STAYS && places.len() > 1)
        {
            return Err(format!("{name} is at {places:?}, told was {outcome:?}"));
        }
        match outcome {
            Ok(acked) => {
                let told = |at: &Found| {
                    at.partition == acked.partition && [-1, at.offset].contains(&acked.offset)
                };
                if !places.iter().any(told) {
                    return Err(format!("{name} was acknowledged at {acked:?}, is at {places:?}"));
                }
            }
            Err(e) if !e.maybe_written() && !places.is_empty() => {
                return Err(format!("{name} is at {places:?}, but surely unwritten: {e}"));
            }
            Err(_) => {}
        }
    }
    Ok(())
}
