//! Random use in random trouble, in virtual time: whatever is done and whatever happens meanwhile,
//! every wait ends when it has to. A failing run names its seed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Acks, Client, ClusterChange, Compression, InDoubt, Partitioner, Producer, Record};
use ottla_scenarios::hostile::{Damage, Hostile};
use ottla_scenarios::mishaps::{HARMLESS, Mishaps, OF_RECORDS};
use ottla_scenarios::seeds;
use ottla_scenarios::steps::{ms, secs};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

const BROKERS: i32 = 3;
/// One that is made anew, one that stays, one that comes and goes, and one that is missing.
const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
/// What an end may come late by.
const LATE: Duration = Duration::from_millis(100);

/// What did not end in time.
type Late = Arc<Mutex<Vec<String>>>;

#[test]
fn every_wait_ends() {
    run_all(0..60);
}

/// See [`seeds::chosen`].
#[test]
fn chosen_seeds() {
    run_all(seeds::chosen());
}

fn run_all(seeds: std::ops::Range<u64>) {
    seeds::run_all(seeds, |seed| {
        let late = seeds::runtime().block_on(scenario(seed));
        if late.is_empty() { Ok(()) } else { Err(late.join("; ")) }
    });
}

/// Waits for what has to end within `most`, and notes it if it does not.
async fn ends<T>(late: &Late, what: &str, most: Duration, wait: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let within = most + LATE;
    tokio::pin!(wait);
    match tokio::time::timeout(within, &mut wait).await {
        Ok(output) if begun.elapsed() <= within => output,
        Ok(output) => {
            late.lock().unwrap().push(format!("{what} after {:?}", begun.elapsed()));
            output
        }
        Err(_) => {
            late.lock().unwrap().push(format!("{what}: not within {most:?}"));
            std::future::pending().await
        }
    }
}

#[derive(Clone)]
struct User {
    producer: Producer,
    delivery_timeout: Duration,
    max_block: Duration,
    late: Late,
}

async fn scenario(seed: u64) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::builder()
        .brokers(BROKERS)
        .tcp(false)
        .topic("a", 3, BROKERS)
        .topic("b", 1, BROKERS)
        .start_on_current_runtime()
        .unwrap();
    let (hostile, mishaps) = (Hostile::new(&cluster), Mishaps::default());
    let client = Client::builder()
        .bootstrap(cluster.bootstrap())
        .environment(mishaps.at(hostile.environment(seed)))
        .on_cluster_change([ClusterChange::Fail, ClusterChange::Accept][rng.random_range(0..2)])
        .request_timeout(secs(5));
    let client = client.connect().await.unwrap();
    let late = Late::default();
    let mut users = Vec::new();
    for _ in 0..2 {
        let delivery_timeout = ms(rng.random_range(500..8_000));
        let max_block = ms(rng.random_range(0..3_000));
        let producer = client
            .producer()
            .linger(ms(rng.random_range(0..500)))
            .batch_size(1 << rng.random_range(10..15))
            .buffer_memory(1 << 20)
            .compression(Compression::None)
            .partitioner([Partitioner::Spread, Partitioner::KeyHash][rng.random_range(0..2)])
            .acks([Acks::All, Acks::All, Acks::Leader, Acks::None][rng.random_range(0..4)])
            .in_doubt([InDoubt::Wait, InDoubt::Reroute][rng.random_range(0..2)])
            .delivery_timeout(delivery_timeout)
            .max_block(max_block)
            .build()
            .unwrap();
        users.push(User { producer, delivery_timeout, max_block, late: Arc::clone(&late) });
    }
    let mut tasks = Vec::new();
    for number in 0..4 {
        let rng = StdRng::seed_from_u64(rng.random());
        tasks.push(tokio::spawn(use_it(users[number % 2].clone(), rng)));
    }
    chaos(&cluster, &hostile, &mishaps, &mut rng).await;
    for task in tasks {
        let done = tokio::time::timeout(secs(600), task).await;
        if done.is_err() {
            break;
        }
    }
    for user in users {
        let most = ms(rng.random_range(0..3_000));
        let closing =
            tokio::time::timeout(secs(60), ends(&late, "close", most, user.producer.close(most)));
        drop(closing.await);
    }
    std::mem::take(&mut *late.lock().unwrap())
}

async fn use_it(user: User, mut rng: StdRng) {
    let User { producer, delivery_timeout, max_block, late } = user;
    let value = vec![7; 40_000];
    for _ in 0..120 {
        let topic = TOPICS[rng.random_range(0..TOPICS.len())];
        let size = if rng.random_bool(0.1) { 40_000 } else { rng.random_range(0..200) };
        let key = [rng.random::<u8>()];
        let mut record = Record::to(topic).value(&value[..size]);
        match rng.random_range(0..3) {
            0 => record = record.partition(rng.random_range(0..3)),
            1 => record = record.key(&key),
            _ => {}
        }
        let what = format!("a record of {record:.0?}").chars().take(90).collect::<String>();
        match rng.random_range(0..20) {
            0 => {
                drop(ends(&late, "flush", delivery_timeout, producer.flush()).await);
            }
            1 => drop(tokio::time::timeout(ms(rng.random_range(0..100)), producer.flush()).await),
            2 => {
                drop(tokio::time::timeout(ms(rng.random_range(0..50)), producer.send(record)).await)
            }
            3 => {
                let values = vec![&value[..size]; rng.random_range(0..40)];
                let sending = producer.send_batch(topic, &values);
                if let Ok(all) = sending.await {
                    watch(&late, "a batch of values", delivery_timeout, all);
                }
            }
            4 => {
                if let Ok(delivery) = producer.try_send(record) {
                    watch(&late, &what, delivery_timeout, delivery);
                }
            }
            _ => {
                let sent = ends(&late, "space", max_block, producer.send(record)).await;
                if let Ok(delivery) = sent {
                    watch(&late, &what, delivery_timeout, delivery);
                }
            }
        }
        if rng.random_bool(0.4) {
            tokio::time::sleep(ms(rng.random_range(0..400))).await;
        }
        if rng.random_bool(0.02) {
            // Long enough for everything that was sent to have ended.
            tokio::time::sleep(secs(10)).await;
        }
    }
}

/// Waits for an acknowledgement, or a failure, beside the rest.
fn watch<T: Send + 'static>(
    late: &Late,
    what: &str,
    most: Duration,
    wait: impl Future<Output = T> + Send + 'static,
) {
    let (late, what) = (Arc::clone(late), what.to_owned());
    drop(tokio::spawn(async move { drop(ends(&late, &what, most, wait).await) }));
}

async fn chaos(cluster: &Cluster, hostile: &Hostile, mishaps: &Mishaps, rng: &mut StdRng) {
    for _ in 0..rng.random_range(5..40) {
        let broker = rng.random_range(1..=BROKERS);
        match rng.random_range(0..15) {
            0..4 => fault(cluster, rng),
            4 => cluster.move_leader("a", rng.random_range(0..3), broker).unwrap(),
            5 => cluster.cut_connections(broker).unwrap(),
            10 | 11 => {
                let api = [ApiKey::PRODUCE, ApiKey::METADATA];
                hostile.next(api[rng.random_range(0..api.len())], Damage::draw(rng));
            }
            12 => mishaps.draw(if rng.random_bool(0.7) { &HARMLESS } else { &OF_RECORDS }, rng),
            13 => {
                cluster.delete_topic("a").unwrap();
                tokio::time::sleep(ms(rng.random_range(0..6_000))).await;
                cluster.create_topic("a", 3, BROKERS).map(drop).unwrap();
            }
            14 if rng.random_bool(0.3) => cluster.replace(rng.random::<u64>().to_string()).unwrap(),
            6 => {
                // Fails if it is there (or not) already.
                let _ = match rng.random_bool(0.5) {
                    true => cluster.create_topic("c", rng.random_range(1..5), BROKERS).map(drop),
                    false => cluster.delete_topic("c"),
                };
            }
            7 => {
                cluster.remove_leader("b", 0).unwrap();
                tokio::time::sleep(ms(rng.random_range(0..9_000))).await;
                cluster.move_leader("b", 0, broker).unwrap();
            }
            8 => {
                for id in 1..=BROKERS {
                    cluster.stop_broker(id, Leaders::Keep).unwrap();
                }
                tokio::time::sleep(ms(rng.random_range(0..25_000))).await;
                for id in 1..=BROKERS {
                    cluster.start_broker(id).unwrap();
                }
            }
            _ => {
                cluster.stop_broker(broker, Leaders::Move).unwrap();
                tokio::time::sleep(ms(rng.random_range(0..3_000))).await;
                cluster.start_broker(broker).unwrap();
            }
        }
        tokio::time::sleep(ms(rng.random_range(0..2_000))).await;
    }
    // What is broken stays broken in some runs, to the end.
    if rng.random_bool(0.5) {
        cluster.faults().clear();
    }
}

fn fault(cluster: &Cluster, rng: &mut StdRng) {
    let time = ms(rng.random_range(1..12_000));
    let faults = [
        Fault::CutBeforeAppend,
        Fault::CutAfterAppend,
        Fault::Delay(time),
        Fault::DelayResponse(time),
        Fault::BlackHole,
        Fault::BlackHoleAfterAppend,
        Fault::Throttle(time),
        Fault::Refuse,
        Fault::Error(-1),
        Fault::Error(6),
        Fault::Error(3),
        Fault::Error(29),
        Fault::Error(45),
        Fault::Error(10),
        Fault::ErrorAfterAppend(6),
        Fault::ErrorAfterAppend(7),
    ];
    let apis = [
        ApiKey::PRODUCE,
        ApiKey::PRODUCE,
        ApiKey::METADATA,
        ApiKey::INIT_PRODUCER_ID,
        ApiKey::API_VERSIONS,
    ];
    let fault = faults[rng.random_range(0..faults.len())];
    let mut rule = FaultRule::new(fault).api(apis[rng.random_range(0..apis.len())]);
    if rng.random_bool(0.3) {
        rule = rule.broker(rng.random_range(1..=BROKERS));
    }
    cluster.faults().inject(rule.times(rng.random_range(1..12)));
}
