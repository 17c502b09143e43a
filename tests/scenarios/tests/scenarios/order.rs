//! Order: what one handle is given one after the other is in that order in the log of its partition,
//! whichever threads give it, and whatever goes wrong meanwhile.

use std::sync::mpsc;
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Client, Compression, InDoubt, Partitioner, Producer, ProducerBuilder, Record};
use ottla_scenarios::hostile::{Damage, Hostile};
use ottla_scenarios::mishaps::{HARMLESS, Mishaps};
use ottla_scenarios::seeds;
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const RECORDS: usize = 20_000;

/// One broker on real sockets, with a topic of one partition.
fn tcp_cluster() -> Cluster {
    Cluster::builder().topic("t", 1, 1).start().unwrap()
}

/// Many small batches, some compressed by other threads.
fn many_batches(client: &Client) -> ProducerBuilder {
    client.producer().batch_size(2 << 10)
}

/// The numbers in the log of a partition.
fn numbers(cluster: &Cluster, topic: &str, partition: i32) -> Vec<usize> {
    let records = cluster.records(topic, partition).unwrap();
    let number = |value: bytes::Bytes| {
        let text = std::str::from_utf8(&value).unwrap();
        text.split('/').next().unwrap().parse().unwrap()
    };
    records.into_iter().map(|record| number(record.value.unwrap())).collect()
}

fn in_order(numbers: &[usize]) {
    let wrong = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(wrong, None, "of {} records", numbers.len());
}

/// The caller is one task; each of its calls is made on whichever thread the runtime has for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_task_that_hops_between_threads_keeps_its_order() {
    for compression in [Compression::None, Compression::Lz4] {
        let cluster = tcp_cluster();
        let client = Client::connect(&cluster.bootstrap()).await.unwrap();
        let mut producer = many_batches(&client).compression(compression).build().unwrap();
        for number in 0..RECORDS {
            let call = tokio::spawn(async move {
                let value = format!("{number}/{:0100}", 0);
                drop(producer.send(Record::to("t").value(&value)).await.unwrap());
                producer
            });
            producer = call.await.unwrap();
        }
        within("flush", producer.flush()).await.unwrap();
        let all = numbers(&cluster, "t", 0);
        assert_eq!(all.len(), RECORDS);
        in_order(&all);
    }
}

/// Threads that hand a handle on, each after one call: as a pool does whose caller runs on all of them.
#[test]
fn threads_that_hand_over_a_handle_keep_its_order() {
    const THREADS: usize = 8;
    let cluster = tcp_cluster();
    let client = ottla::blocking::Client::connect(cluster.bootstrap()).unwrap();
    let producer = client.producer(|p| p.batch_size(2 << 10)).unwrap();
    let (first, mut next) = mpsc::channel::<(usize, Producer)>();
    let (done, ended) = mpsc::channel();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (hand, on) = mpsc::channel();
            let from = std::mem::replace(&mut next, on);
            let hand = if thread == THREADS - 1 { first.clone() } else { hand };
            let done = done.clone();
            scope.spawn(move || {
                while let Ok((number, producer)) = from.recv() {
                    if number == RECORDS {
                        let _ = done.send(producer);
                        return;
                    }
                    let value = format!("{number}/{:0100}", 0);
                    drop(producer.try_send(Record::to("t").value(&value)).unwrap());
                    if hand.send((number + 1, producer)).is_err() {
                        return;
                    }
                }
            });
        }
        first.send((0, producer.inner().clone())).unwrap();
        drop(first);
        drop(ended.recv().unwrap());
    });
    producer.flush(Some(Duration::from_secs(60))).unwrap();
    let all = numbers(&cluster, "t", 0);
    assert_eq!(all.len(), RECORDS);
    in_order(&all);
}

/// A clone for each call, one at a time, is as good as one.
#[tokio::test(start_paused = true)]
async fn a_clone_for_each_call_keeps_the_order() {
    let cluster = ottla_scenarios::steps::cluster(1, 1);
    let client = virtual_cluster::client(&cluster, 1).connect().await.unwrap();
    let producer = many_batches(&client).build().unwrap();
    for number in 0..2_000 {
        let clone = producer.clone();
        let value = format!("{number}/{:0100}", 0);
        drop(clone.send(Record::to("t").value(&value)).await.unwrap());
    }
    within("flush", producer.flush()).await.unwrap();
    in_order(&numbers(&cluster, "t", 0));
}

const BROKERS: i32 = 3;
/// A topic of one partition, whose records name none; partitions that are named; keys that are hashed.
const ONE: &str = "one";
const NAMED: &str = "named";
const KEYED: &str = "keyed";
const PARTITIONS: i32 = 3;

#[test]
fn order_outlasts_every_fault() {
    seeds::run_all(0..40, run);
}

/// See [`seeds::chosen`].
#[test]
fn chosen_seeds() {
    seeds::run_all(seeds::chosen(), run);
}

fn run(seed: u64) -> Result<(), String> {
    seeds::runtime().block_on(async {
        match tokio::time::timeout(Duration::from_secs(3_600), scenario(seed)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("something waits for ever".to_owned()),
        }
    })
}

async fn scenario(seed: u64) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::builder()
        .brokers(BROKERS)
        .tcp(false)
        .topic(ONE, 1, BROKERS)
        .topic(NAMED, PARTITIONS, BROKERS)
        .topic(KEYED, PARTITIONS, BROKERS)
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
    let build = |partitioner| {
        let linger = Duration::from_millis(seed % 10);
        // Where there is one partition, a batch in doubt has nowhere else to go.
        let in_doubt = if seed.is_multiple_of(3) { InDoubt::Reroute } else { InDoubt::Wait };
        let producer =
            client.producer().linger(linger).batch_size(1 << 10).partitioner(partitioner);
        let producer = producer.in_doubt(in_doubt).compression(Compression::None);
        producer.delivery_timeout(Duration::from_secs(600)).build().map_err(|e| e.to_string())
    };
    let (spread, hashed) = (build(Partitioner::Spread)?, build(Partitioner::KeyHash)?);
    let sender = StdRng::seed_from_u64(rng.random());
    let sending = tokio::spawn(send(spread, hashed, sender));
    chaos(&cluster, &hostile, &mishaps, &mut rng).await;
    sending.await.map_err(|e| e.to_string())??;
    for (topic, partitions) in [(ONE, 1), (NAMED, PARTITIONS), (KEYED, PARTITIONS)] {
        for partition in 0..partitions {
            let all = numbers(&cluster, topic, partition);
            if let Some(wrong) = all.windows(2).find(|pair| pair[0] >= pair[1]) {
                return Err(format!("{topic} {partition}: {wrong:?}"));
            }
        }
    }
    Ok(())
}

async fn send(spread: Producer, hashed: Producer, mut rng: StdRng) -> Result<(), String> {
    let mut open = Vec::new();
    for number in 0..300 {
        let value = format!("{number}/{:0width$}", 0, width = rng.random_range(1..600));
        let (key, partition) = ([rng.random_range(0..5u8)], number % PARTITIONS);
        let one = spread.send(Record::to(ONE).value(&value)).await;
        let named = spread.send(Record::to(NAMED).partition(partition).value(&value)).await;
        let keyed = hashed.send(Record::to(KEYED).key(&key).value(&value)).await;
        open.extend([one, named, keyed]);
        if rng.random_bool(0.2) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
        }
    }
    for delivery in open {
        delivery.map_err(|e| e.to_string())?.await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

async fn chaos(cluster: &Cluster, hostile: &Hostile, mishaps: &Mishaps, rng: &mut StdRng) {
    for _ in 0..rng.random_range(10..50) {
        let broker = rng.random_range(1..=BROKERS);
        match rng.random_range(0..13) {
            0..6 => fault(cluster, rng),
            6..8 => {
                for (topic, partitions) in [(ONE, 1), (NAMED, PARTITIONS), (KEYED, PARTITIONS)] {
                    let partition = rng.random_range(0..partitions);
                    cluster.move_leader(topic, partition, broker).unwrap();
                }
            }
            8 => cluster.cut_connections(broker).unwrap(),
            9 | 10 => {
                let api = [ApiKey::PRODUCE, ApiKey::PRODUCE, ApiKey::METADATA];
                hostile.next(api[rng.random_range(0..api.len())], Damage::draw(rng));
            }
            11 => mishaps.draw(&HARMLESS, rng),
            _ => {
                cluster.stop_broker(broker, Leaders::Move).unwrap();
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..2_000))).await;
                cluster.start_broker(broker).unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..400))).await;
    }
    cluster.faults().clear();
}

fn fault(cluster: &Cluster, rng: &mut StdRng) {
    let time = Duration::from_millis(rng.random_range(1..6_000));
    // NOT_LEADER_OR_FOLLOWER, NOT_ENOUGH_REPLICAS, KAFKA_STORAGE_ERROR, MESSAGE_TOO_LARGE.
    let faults = [
        Fault::CutBeforeAppend,
        Fault::CutAfterAppend,
        Fault::BlackHole,
        Fault::BlackHoleAfterAppend,
        Fault::DelayResponse(time),
        Fault::Error(6),
        Fault::Error(19),
        Fault::Error(19),
        Fault::Error(56),
        Fault::ErrorAfterAppend(7),
        Fault::ErrorAfterAppend(20),
    ];
    let rule = match rng.random_range(0..8) {
        0 => FaultRule::new(Fault::Error(-1)).api(ApiKey::METADATA),
        1 => FaultRule::new(Fault::Error(-1)).api(ApiKey::INIT_PRODUCER_ID),
        _ => FaultRule::new(faults[rng.random_range(0..faults.len())]).api(ApiKey::PRODUCE),
    };
    let rule = rule.after(rng.random_range(0..3)).times(rng.random_range(1..6));
    cluster.faults().inject(rule);
}
