//! Random faults against the producer, in virtual time: whatever happens, a record that was
//! acknowledged is in the log once and in place, one that failed for certain is not there, and none
//! waits for ever. A failing run names its seed. Among the faults are answers that are nonsense or leave
//! something out, and panics of the engine itself.

use std::collections::HashMap;
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Acked, Client, Compression, Error, ErrorKind, InDoubt, Producer, Record};
use ottla_scenarios::hostile::{Damage, Hostile};
use ottla_scenarios::mishaps::{HARMLESS, Mishaps, OF_RECORDS};
use ottla_scenarios::seeds;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const TOPIC: &str = "t";
const PARTITIONS: i32 = 6;
const BROKERS: i32 = 3;
const RECORDS: usize = 250;
/// Virtual time by which everything must be over.
const END: Duration = Duration::from_secs(3600);

/// Whether records have time enough to arrive whatever happens, and what they do in doubt.
#[derive(Clone, Copy)]
struct Kind {
    patient: bool,
    in_doubt: InDoubt,
}

impl Kind {
    fn of(seed: u64) -> Self {
        let in_doubt = if seed >= 20_000 { InDoubt::Reroute } else { InDoubt::Wait };
        Self { patient: seed % 20_000 < 10_000, in_doubt }
    }

    fn delivery_timeout(self) -> Duration {
        Duration::from_secs(if self.patient { 600 } else { 2 })
    }
}

/// Seeds where each record has time enough to arrive whatever happens.
#[test]
fn patient_producers_deliver_everything_once_and_in_order() {
    run_all(0..60);
}

/// Seeds where records time out in the middle of faults: then the error tells the truth.
#[test]
fn hasty_producers_tell_the_truth() {
    run_all(10_000..10_060);
}

/// What would rather be written twice than wait is lost no more than the rest, and only what names no
/// partition is written twice.
#[test]
fn rerouting_producers_lose_nothing() {
    run_all(20_000..20_030);
    run_all(30_000..30_030);
}

/// See [`seeds::chosen`]. From 10,000 on records are hasty, from 20,000 on they are rerouted in doubt,
/// from 30,000 on both.
#[test]
fn chosen_seeds() {
    run_all(seeds::chosen());
}

fn run_all(seeds: std::ops::Range<u64>) {
    seeds::run_all(seeds, |seed| run(seed, Kind::of(seed)));
}

fn run(seed: u64, kind: Kind) -> Result<(), String> {
    seeds::runtime().block_on(async {
        match tokio::time::timeout(END, scenario(seed, kind)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("something waits for ever".to_owned()),
        }
    })
}

struct Sent {
    value: String,
    partition: Option<i32>,
    outcome: Result<Acked, Error>,
}

async fn scenario(seed: u64, kind: Kind) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::builder()
        .brokers(BROKERS)
        .tcp(false)
        .topic(TOPIC, PARTITIONS, BROKERS)
        .start_on_current_runtime()
        .map_err(|e| e.to_string())?;
    let (hostile, mishaps) = (Hostile::new(&cluster), Mishaps::default());
    let client = Client::builder()
        .bootstrap(cluster.bootstrap())
        .environment(mishaps.at(hostile.environment(seed)))
        .request_timeout(Duration::from_secs(5))
        .connect()
        .await
        .map_err(|e| e.to_string())?;
    // Two producers whose settings differ have batches of their own, and share the sender.
    let linger = Duration::from_millis(rng.random_range(0..20));
    let producer = |batch_size| {
        client
            .producer()
            .linger(linger)
            .batch_size(batch_size)
            .compression(Compression::None)
            .delivery_timeout(kind.delivery_timeout())
            .in_doubt(kind.in_doubt)
            .build()
            .map_err(|e| e.to_string())
    };
    let producers = [producer(1 << 10)?, producer(2 << 10)?];
    let mut senders = Vec::new();
    for sender in 0..4 {
        let partition = (sender % 2 == 1).then_some(sender);
        let rng = StdRng::seed_from_u64(rng.random());
        let producer = producers[sender as usize / 2].clone();
        senders.push(tokio::spawn(send(producer, sender, partition, rng)));
    }
    let happened = chaos(&cluster, &hostile, &mishaps, &mut rng).await;
    let mut sent = Vec::new();
    for sender in senders {
        sent.push(sender.await.map_err(|e| e.to_string())?);
    }
    let total: usize = sent.iter().map(Vec::len).sum();
    verify(&cluster, &sent, kind, happened)
        .map_err(|words| format!("{words}; {total} records, {:?}", client.stats()))
}

async fn send(
    producer: Producer,
    sender: i32,
    partition: Option<i32>,
    mut rng: StdRng,
) -> Vec<Sent> {
    let mut open = Vec::new();
    for number in 0..RECORDS {
        // A few records a batch.
        let value = format!("s{sender}/{number}/{:0width$}", 0, width = rng.random_range(1..400));
        let mut record = Record::to(TOPIC).value(&value);
        if let Some(partition) = partition {
            record = record.partition(partition);
        }
        let delivery = producer.send(record).await;
        open.push((value, delivery));
        if rng.random_bool(0.2) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        }
    }
    let mut sent = Vec::new();
    for (value, delivery) in open {
        let outcome = match delivery {
            Ok(delivery) => delivery.await,
            Err(e) => Err(e),
        };
        sent.push(Sent { value, partition, outcome });
    }
    sent
}

/// What happened that may fail records which have time enough.
#[derive(Clone, Copy, Default)]
struct Happened {
    /// Faults that leave holes in a partition's sequence.
    holes: bool,
    /// Panics where the records are.
    panics: bool,
}

async fn chaos(
    cluster: &Cluster,
    hostile: &Hostile,
    mishaps: &Mishaps,
    rng: &mut StdRng,
) -> Happened {
    let mut happened = Happened::default();
    for _ in 0..rng.random_range(10..60) {
        let broker = rng.random_range(1..=BROKERS);
        let partition = rng.random_range(0..PARTITIONS);
        let other = rng.random_range(1..=BROKERS);
        match rng.random_range(0..17) {
            0..5 => happened.holes |= fault(cluster, rng),
            5..7 => cluster.move_leader(TOPIC, partition, other).unwrap(),
            7 => cluster.remove_leader(TOPIC, partition).unwrap(),
            8 => cluster.cut_connections(broker).unwrap(),
            9 => {
                let leaders = if rng.random_bool(0.5) { Leaders::Move } else { Leaders::Keep };
                cluster.stop_broker(broker, leaders).unwrap();
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
                cluster.start_broker(broker).unwrap();
            }
            // As after a clean restart.
            11 => cluster.forget_older_batches(TOPIC, partition).unwrap(),
            13 | 14 => {
                let api = [ApiKey::PRODUCE, ApiKey::PRODUCE, ApiKey::METADATA];
                hostile.next(api[rng.random_range(0..api.len())], Damage::draw(rng));
            }
            15 => mishaps.draw(&HARMLESS, rng),
            16 if rng.random_bool(0.2) => {
                mishaps.draw(&OF_RECORDS, rng);
                happened.panics = true;
            }
            10 => cluster.set_replica_delay(Duration::from_millis(rng.random_range(0..500))),
            _ => heal(cluster, rng),
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
    }
    cluster.faults().clear();
    cluster.set_replica_delay(Duration::ZERO);
    heal(cluster, rng);
    happened
}

/// Every partition has a leader again.
fn heal(cluster: &Cluster, rng: &mut StdRng) {
    for partition in 0..PARTITIONS {
        if cluster.partition(TOPIC, partition).unwrap().leader.is_none() {
            cluster.move_leader(TOPIC, partition, rng.random_range(1..=BROKERS)).unwrap();
        }
    }
}

fn fault(cluster: &Cluster, rng: &mut StdRng) -> bool {
    let time = Duration::from_millis(rng.random_range(1..8_000));
    let connection = [
        Fault::CutBeforeAppend,
        Fault::CutAfterAppend,
        Fault::CutAfterAppend,
        Fault::Delay(time),
        Fault::DelayResponse(time),
        Fault::BlackHole,
        Fault::BlackHoleAfterAppend,
        Fault::Throttle(time / 4),
        Fault::Refuse,
    ];
    // UNKNOWN_SERVER_ERROR, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS and the same after the append,
    // KAFKA_STORAGE_ERROR, UNKNOWN_TOPIC_ID, LEADER_NOT_AVAILABLE; MESSAGE_TOO_LARGE, INVALID_RECORD and
    // INVALID_TIMESTAMP, for which a batch is taken apart and perhaps a culprit is found; OUT_OF_ORDER_SEQUENCE_NUMBER,
    // INVALID_PRODUCER_EPOCH and UNKNOWN_PRODUCER_ID.
    let before = [-1, 6, 6, 19, 56, 100, 3, 10, 87, 32, 45, 47, 59];
    let mut holes = false;
    let after = [-1, 6, 6, 7, 20, 56];
    let mut rule = match rng.random_range(0..4) {
        0 => {
            let at = rng.random_range(0..before.len());
            let code = before[at];
            holes = code == -1 || at >= 7;
            FaultRule::new(Fault::Error(code)).api(ApiKey::PRODUCE)
        }
        1 => {
            let code = after[rng.random_range(0..after.len())];
            holes = code == -1;
            FaultRule::new(Fault::ErrorAfterAppend(code)).api(ApiKey::PRODUCE)
        }
        2 => {
            let apis = [ApiKey::METADATA, ApiKey::INIT_PRODUCER_ID, ApiKey::DESCRIBE_PRODUCERS];
            FaultRule::new(Fault::Error(-1)).api(apis[rng.random_range(0..apis.len())])
        }
        _ => {
            let rule = FaultRule::new(connection[rng.random_range(0..connection.len())]);
            let apis = [ApiKey::PRODUCE, ApiKey::METADATA, ApiKey::API_VERSIONS];
            match rng.random_range(0..8) {
                0 => rule.api(apis[1]),
                1 => rule.api(apis[2]),
                _ => rule.api(apis[0]),
            }
        }
    };
    if rng.random_bool(0.5) {
        rule = rule.broker(rng.random_range(1..=BROKERS));
    }
    cluster.faults().inject(rule.after(rng.random_range(0..3)).times(rng.random_range(1..4)));
    holes
}

fn verify(
    cluster: &Cluster,
    sent: &[Vec<Sent>],
    kind: Kind,
    happened: Happened,
) -> Result<(), String> {
    let mut found: HashMap<String, Vec<(i32, i64)>> = HashMap::new();
    for partition in 0..PARTITIONS {
        for record in cluster.records(TOPIC, partition).map_err(|e| e.to_string())? {
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
            let here = (partition, record.offset);
            found.entry(value).or_default().push(here);
        }
    }
    // A broker that does not know what happened to it may not know it of the next attempt either.
    let refused = |e: &Error| {
        matches!(e.kind(), ErrorKind::RecordTooLarge | ErrorKind::InvalidRecord)
            || (e.broker_code() == Some(-1) && e.maybe_written())
    };
    // What is in doubt behind one stays so: the broker refuses its place, and no code of a broker's tells
    // whether it is there. What is rerouted leaves one, too, and is in doubt nowhere itself.
    let Happened { holes, panics } = happened;
    let reroutes = kind.in_doubt == InDoubt::Reroute;
    let behind_a_hole = |e: &Error, named: bool| {
        let nobody_knows = e.kind() == ErrorKind::Broker && e.broker_code().is_none();
        nobody_knows && e.maybe_written() && if reroutes { named } else { holes }
    };
    let panicked = |e: &Error| panics && e.kind() == ErrorKind::Internal;
    for log in sent {
        let mut last = -1;
        for Sent { value, partition, outcome } in log {
            let places = found.remove(value).unwrap_or_default();
            let name = brief(value);
            if places.len() > 1 && (partition.is_some() || kind.in_doubt == InDoubt::Wait) {
                return Err(format!("{name} is at {places:?}"));
            }
            // Where it is said to be, if it is there.
            let told = |at: &&(i32, i64)| match outcome {
                Ok(acked) => acked.partition == at.0 && (acked.offset < 0 || acked.offset == at.1),
                Err(_) => true,
            };
            let at = places.iter().find(told).or(places.first()).copied();
            match (outcome, at) {
                (Ok(acked), None) => {
                    return Err(format!("{name} was acknowledged at {acked:?} and is lost"));
                }
                (Ok(acked), Some(at)) => {
                    if acked.partition != at.0 || (acked.offset >= 0 && acked.offset != at.1) {
                        return Err(format!("{name} is at {at:?}, told was {acked:?}"));
                    }
                    if partition.is_some_and(|p| p != at.0) {
                        return Err(format!("{name} is at {at:?}, asked for was {partition:?}"));
                    }
                    if partition.is_some() && at.1 <= last {
                        return Err(format!("{name} at {at:?} is before its elders at {last}"));
                    }
                    last = at.1;
                }
                (Err(e), _)
                    if kind.patient
                        && !refused(e)
                        && !panicked(e)
                        && !behind_a_hole(e, partition.is_some()) =>
                {
                    return Err(format!("{name} failed: {e}"));
                }
                (Err(e), Some(at)) if !e.maybe_written() => {
                    return Err(format!("{name} is at {at:?}, but surely unwritten: {e}"));
                }
                (Err(_), _) => {}
            }
        }
    }
    Ok(())
}

fn brief(value: &str) -> &str {
    value.rsplit_once('/').map_or(value, |(name, _)| name)
}
