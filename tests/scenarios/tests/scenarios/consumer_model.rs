//! Random faults against the consumer, in virtual time: whatever happens, every record of a topic that
//! stays is handed out once and in order, and of one that is made anew, or of another cluster that takes
//! the addresses over, all that the last incarnation holds. A failing run names its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{Batch, Client, ClusterChange, Compression, Consumer, Producer, Record};
use ottla_scenarios::hostile::{Damage, Hostile};
use ottla_scenarios::mishaps::{HARMLESS, Mishaps};
use ottla_scenarios::seeds;
use ottla_scenarios::steps::{ms, secs};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const BROKERS: i32 = 3;
/// Stays as long as the run, and grows.
const STAYS: &str = "stays";
/// Is deleted and made again under its name.
const ANEW: &str = "anew";
/// Virtual time by which everything must have been read, once nothing is wrong any more: longer than
/// the longest period of metadata.
const END: Duration = Duration::from_secs(3600);

#[test]
fn everything_is_read_once_and_in_order() {
    run_all(0..40);
}

/// From 10,000 on another cluster takes the addresses over, and that is accepted.
#[test]
fn another_cluster_is_read_from_its_beginning() {
    run_all(10_000..10_020);
}

/// See [`seeds::chosen`].
#[test]
fn chosen_seeds() {
    run_all(seeds::chosen());
}

fn run_all(seeds: std::ops::Range<u64>) {
    seeds::run_all(seeds, |seed| seeds::runtime().block_on(scenario(seed)));
}

/// What was handed out, in order, by partition: offset and value.
type Read = Arc<Mutex<BTreeMap<(String, i32), Vec<(i64, String)>>>>;

async fn scenario(seed: u64) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::builder()
        .brokers(BROKERS)
        .tcp(false)
        .topic(STAYS, rng.random_range(1..5), BROKERS)
        .topic(ANEW, 2, BROKERS)
        .start_on_current_runtime()
        .map_err(|e| e.to_string())?;
    // What writes has a client of its own, which nothing happens to but what happens to brokers.
    let hostile = Hostile::new(&cluster);
    let mishaps = Mishaps::default();
    let reader = Client::builder()
        .bootstrap(cluster.bootstrap())
        .environment(mishaps.at(hostile.environment(seed)))
        .on_cluster_change(ClusterChange::Accept)
        .request_timeout(secs(5));
    let reader = reader.connect().await.map_err(|e| e.to_string())?;
    let writer = ottla_scenarios::virtual_cluster::client(&cluster, seed);
    let writer = writer
        .on_cluster_change(ClusterChange::Accept)
        .connect()
        .await
        .map_err(|e| e.to_string())?;
    let producer = writer
        .producer()
        .compression(Compression::None)
        .batch_size(1 << rng.random_range(10..14))
        .delivery_timeout(secs(600))
        .build()
        .map_err(|e| e.to_string())?;
    let consumer = reader
        .consumer()
        .topics([STAYS, ANEW])
        .max_wait(ms(rng.random_range(0..1_000)))
        .max_bytes(1 << rng.random_range(10..20))
        .max_partition_bytes(1 << rng.random_range(10..16))
        .buffer_memory(1 << rng.random_range(16..20))
        .build()
        .map_err(|e| e.to_string())?;
    let read = Read::default();
    let reading =
        tokio::spawn(consume(consumer, Arc::clone(&read), StdRng::seed_from_u64(rng.random())));
    let writing = tokio::spawn(write(producer, StdRng::seed_from_u64(rng.random())));
    chaos(&cluster, &hostile, &mishaps, &mut rng).await;
    let replaced = seed >= 10_000;
    if replaced {
        cluster.replace("another").map_err(|e| e.to_string())?;
        chaos(&cluster, &hostile, &mishaps, &mut rng).await;
    }
    let writing = tokio::time::timeout(END, writing).await;
    writing.map_err(|_| "the writer waits for ever")?.map_err(|e| e.to_string())?;
    let all = async {
        while missing(&cluster, &read)?.is_some() {
            tokio::time::sleep(secs(1)).await;
        }
        Ok::<_, String>(())
    };
    match tokio::time::timeout(END, all).await {
        Ok(done) => done?,
        Err(_) => {
            let what = missing(&cluster, &read)?.unwrap_or_default();
            return Err(format!("{what} was not read; {:?}", reader.stats()));
        }
    }
    reading.abort();
    verify(&cluster, &read, replaced)
}

/// Writes numbered values into both topics.
async fn write(producer: Producer, mut rng: StdRng) {
    for number in 0..400 {
        let value = format!("{number}/{:0width$}", 0, width = rng.random_range(1..600));
        let topic = if rng.random_bool(0.6) { STAYS } else { ANEW };
        // What fails, because its topic is gone, is in no log or in one that is gone.
        let sent = producer.send(Record::to(topic).value(&value)).await;
        if rng.random_bool(0.5) {
            drop(sent);
        } else if let Ok(delivery) = sent {
            drop(delivery.await);
        }
        if rng.random_bool(0.2) {
            tokio::time::sleep(ms(rng.random_range(0..400))).await;
        }
    }
    drop(producer.flush().await);
}

async fn consume(mut consumer: Consumer, read: Read, mut rng: StdRng) {
    while let Some(next) = consumer.next().await {
        if let Ok(batch) = next {
            note(&read, &batch);
        }
        // Waits that are given up lose nothing.
        if rng.random_bool(0.1) {
            let waited = tokio::time::timeout(ms(rng.random_range(0..20)), consumer.next()).await;
            if let Ok(Some(Ok(batch))) = waited {
                note(&read, &batch);
            }
        }
        if rng.random_bool(0.1) {
            tokio::time::sleep(ms(rng.random_range(0..2_000))).await;
        }
    }
}

fn note(read: &Read, batch: &Batch) {
    let mut read = read.lock().unwrap();
    let seen = read.entry((batch.topic().to_owned(), batch.partition())).or_default();
    for record in batch {
        let value = String::from_utf8(record.value().unwrap().to_vec()).unwrap();
        seen.push((record.offset(), value));
    }
}

/// What the logs hold, by partition: offset and value.
fn written(cluster: &Cluster, topic: &str) -> Result<BTreeMap<i32, Vec<(i64, String)>>, String> {
    let mut logs = BTreeMap::new();
    for partition in 0..cluster.partitions(topic).map_err(|e| e.to_string())? {
        let records = cluster.records(topic, partition).map_err(|e| e.to_string())?;
        let value = |value: Option<bytes::Bytes>| {
            String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
        };
        logs.insert(partition, records.into_iter().map(|r| (r.offset, value(r.value))).collect());
    }
    Ok(logs)
}

/// A record that is in a log and has not been handed out.
fn missing(cluster: &Cluster, read: &Read) -> Result<Option<String>, String> {
    for topic in [STAYS, ANEW] {
        for (partition, log) in written(cluster, topic)? {
            let read = read.lock().unwrap();
            let seen: BTreeSet<_> =
                read.get(&(topic.to_owned(), partition)).into_iter().flatten().collect();
            if let Some((offset, _)) = log.iter().find(|record| !seen.contains(record)) {
                return Ok(Some(format!("{topic}/{partition} offset {offset}")));
            }
        }
    }
    Ok(None)
}

fn verify(cluster: &Cluster, read: &Read, replaced: bool) -> Result<(), String> {
    let read = read.lock().unwrap();
    for (partition, log) in if replaced { BTreeMap::new() } else { written(cluster, STAYS)? } {
        let seen = read.get(&(STAYS.to_owned(), partition)).cloned().unwrap_or_default();
        if seen != log {
            let at = seen.iter().zip(&log).position(|(a, b)| a != b).unwrap_or(log.len());
            return Err(format!(
                "{STAYS}/{partition}: {} records read, {} written, other from number {at} on: {:?}",
                seen.len(),
                log.len(),
                seen.get(at).map(|(offset, _)| offset),
            ));
        }
    }
    let mut anew = vec![(ANEW, written(cluster, ANEW)?)];
    anew.extend(replaced.then(|| Ok::<_, String>((STAYS, written(cluster, STAYS)?))).transpose()?);
    let anew =
        anew.into_iter().flat_map(|(topic, logs)| logs.into_iter().map(move |log| (topic, log)));
    for (topic, (partition, log)) in anew {
        let seen = read.get(&(topic.to_owned(), partition)).cloned().unwrap_or_default();
        // Whatever earlier incarnations held came before, and nothing of the last one twice.
        if !seen.ends_with(&log) {
            return Err(format!(
                "{topic}/{partition}: {} records do not end as the log",
                seen.len()
            ));
        }
        let twice = seen.len() - seen.iter().collect::<BTreeSet<_>>().len();
        if twice > 0 {
            return Err(format!("{topic}/{partition}: {twice} records were handed out twice"));
        }
    }
    Ok(())
}

async fn chaos(cluster: &Cluster, hostile: &Hostile, mishaps: &Mishaps, rng: &mut StdRng) {
    for _ in 0..rng.random_range(5..40) {
        let broker = rng.random_range(1..=BROKERS);
        let partitions = cluster.partitions(STAYS).unwrap();
        match rng.random_range(0..16) {
            0..5 => fault(cluster, rng),
            5..7 => {
                let apis = [ApiKey::FETCH, ApiKey::FETCH, ApiKey::METADATA, ApiKey::LIST_OFFSETS];
                hostile.next(apis[rng.random_range(0..apis.len())], Damage::draw(rng));
            }
            13 | 14 => mishaps.draw(&HARMLESS, rng),
            7 => cluster.move_leader(STAYS, rng.random_range(0..partitions), broker).unwrap(),
            8 => cluster.cut_connections(broker).unwrap(),
            9 if partitions < 9 => cluster.create_partitions(STAYS, partitions + 1).unwrap(),
            10 | 11 => {
                cluster.delete_topic(ANEW).unwrap();
                tokio::time::sleep(ms(rng.random_range(0..2_000))).await;
                cluster.create_topic(ANEW, rng.random_range(1..4), BROKERS).map(drop).unwrap();
            }
            12 => {
                cluster.remove_leader(STAYS, 0).unwrap();
                tokio::time::sleep(ms(rng.random_range(0..9_000))).await;
                cluster.move_leader(STAYS, 0, broker).unwrap();
            }
            _ => {
                let leaders = if rng.random_bool(0.5) { Leaders::Move } else { Leaders::Keep };
                cluster.stop_broker(broker, leaders).unwrap();
                tokio::time::sleep(ms(rng.random_range(0..3_000))).await;
                cluster.start_broker(broker).unwrap();
            }
        }
        tokio::time::sleep(ms(rng.random_range(0..2_000))).await;
    }
    cluster.faults().clear();
}

fn fault(cluster: &Cluster, rng: &mut StdRng) {
    let time = ms(rng.random_range(1..8_000));
    let connection = [
        Fault::CutBeforeAppend,
        Fault::CutAfterAppend,
        Fault::Delay(time),
        Fault::DelayResponse(time),
        Fault::BlackHole,
        Fault::Throttle(time / 4),
        Fault::Refuse,
    ];
    // UNKNOWN_SERVER_ERROR, OFFSET_NOT_AVAILABLE and what a broker says of a leader, of an epoch, of a
    // topic's id or of its disk that will pass.
    let codes = [-1, 3, 5, 6, 7, 9, 13, 56, 74, 75, 78, 100, 103];
    let apis = [ApiKey::FETCH, ApiKey::FETCH, ApiKey::LIST_OFFSETS, ApiKey::METADATA];
    let fault = match rng.random_bool(0.5) {
        true => connection[rng.random_range(0..connection.len())],
        false => Fault::Error(codes[rng.random_range(0..codes.len())]),
    };
    let mut rule = FaultRule::new(fault).api(apis[rng.random_range(0..apis.len())]);
    if rng.random_bool(0.5) {
        rule = rule.broker(rng.random_range(1..=BROKERS));
    }
    cluster.faults().inject(rule.after(rng.random_range(0..3)).times(rng.random_range(1..6)));
}
