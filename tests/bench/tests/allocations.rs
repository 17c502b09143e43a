//! Nothing is allocated for a record: what the threads that send and receive allocate, counted,
//! must be what batches need and no more.

use std::collections::VecDeque;
use std::time::Duration;

use allocation_counter::measure;
use ottla::{Client, Compression, Delivery, Environment, ErrorKind, Producer, Record, Start};
use ottla_bench::{TOPIC, tail_topic, values};
use ottla_test_broker::{Cluster, SourceBatch, Storage};

/// Records measured, after as many that warm everything up.
const RECORDS: usize = 200_000;
/// Allocations per record: a 256 KiB batch has more than 2,000 records, so this is a hundred for a
/// batch. One for each record would be 1.0.
const LIMIT: f64 = 0.05;
const OUTSTANDING: usize = 20_000;
/// Allocations of a batch, on its way from its first record to its acknowledgement, with its part of
/// the request that carries it.
const BATCH_LIMIT: f64 = 20.0;
const TAIL_TOPICS: usize = 200;
/// Records of the long tail: its batches are small, so that fewer of them make as many batches.
const TAIL_RECORDS: usize = 40_000;

fn cluster() -> Cluster {
    let mut builder = Cluster::builder()
        .brokers(3)
        .topic(TOPIC, 6, 1)
        .storage(Storage::Source(SourceBatch::new(values(2400))));
    for topic in 0..TAIL_TOPICS {
        builder = builder.topic(tail_topic(topic), 4, 1);
    }
    builder.start().expect("brokers start on loopback")
}

/// Runs `work` twice and counts the second time, on this thread alone: the brokers and the engine
/// have threads of their own.
fn allocations_per_record(what: &str, work: impl FnMut()) -> f64 {
    allocations_per_record_of(RECORDS, what, work)
}

fn allocations_per_record_of(records: usize, what: &str, mut work: impl FnMut()) -> f64 {
    work();
    let per_record = measure(work).count_total as f64 / records as f64;
    println!("{what}: {per_record:.5} allocations per record");
    per_record
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

async fn producer(cluster: &Cluster, codec: Compression) -> Producer {
    let client = Client::connect(cluster.bootstrap()).await.expect("the brokers listen");
    client.producer().compression(codec).build().expect("the settings are in range")
}

/// A client whose engine has no thread of its own: what it allocates is counted as well.
async fn all_on_this_thread(cluster: &Cluster) -> Client {
    let here = Environment::builder().runtime(tokio::runtime::Handle::current()).build();
    let client = Client::builder().bootstrap(cluster.bootstrap()).environment(here).connect().await;
    client.expect("the brokers listen")
}

/// Sends a record for each number, and waits for the oldest once there are many.
async fn send_all<'a>(
    producer: &Producer,
    records: usize,
    kept: &mut VecDeque<Delivery>,
    record: impl Fn(usize) -> Record<'a>,
) {
    for i in 0..records {
        if kept.len() == OUTSTANDING
            && let Some(oldest) = kept.pop_front()
        {
            oldest.await.expect("acknowledged");
        }
        // Batches fill while the engine, on this very thread in some tests, has no turn.
        let delivery = match producer.try_send(record(i)) {
            Ok(delivery) => delivery,
            Err(_) => producer.send(record(i)).await.expect("taken"),
        };
        kept.push_back(delivery);
    }
}

fn keep(kept: &mut VecDeque<Delivery>, delivery: Delivery) {
    if kept.len() == OUTSTANDING
        && let Some(mut oldest) = kept.pop_front()
    {
        oldest.wait(Some(Duration::from_secs(60))).expect("acknowledged");
    }
    kept.push_back(delivery);
}

#[test]
fn the_counter_sees_an_allocation() {
    let per_record = allocations_per_record("a box for each record", || {
        for i in 0..RECORDS {
            drop(std::hint::black_box(Box::new(i)));
        }
    });
    assert!(per_record >= 1.0);
}

#[test]
fn send_allocates_nothing_per_record() {
    let cluster = cluster();
    let runtime = runtime();
    let values = values(1000);
    for codec in [Compression::None, Compression::Lz4] {
        let producer = runtime.block_on(producer(&cluster, codec));
        let mut kept = VecDeque::with_capacity(OUTSTANDING + 1);
        let per_record = allocations_per_record(&format!("send, {codec:?}"), || {
            let record = |i| Record::to(TOPIC).value(&values[i % values.len()]);
            runtime.block_on(send_all(&producer, RECORDS, &mut kept, record));
        });
        assert!(per_record < LIMIT, "{codec:?}: {per_record} allocations per record");
    }
}

#[test]
fn the_engine_allocates_nothing_per_record_either() {
    let cluster = cluster();
    let runtime = runtime();
    let values = values(1000);
    for codec in [Compression::None, Compression::Lz4] {
        let client = runtime.block_on(all_on_this_thread(&cluster));
        let producer = client.producer().compression(codec).build().expect("in range");
        let mut kept = VecDeque::with_capacity(OUTSTANDING + 1);
        let per_record = allocations_per_record(&format!("send and engine, {codec:?}"), || {
            let record = |i| Record::to(TOPIC).value(&values[i % values.len()]);
            runtime.block_on(send_all(&producer, RECORDS, &mut kept, record));
        });
        assert!(per_record < LIMIT, "{codec:?}: {per_record} allocations per record");
    }
}

/// Batches of the long tail are small, so what counts is what each of them costs.
#[test]
fn the_long_tail_allocates_for_its_batches_alone() {
    let cluster = cluster();
    let runtime = runtime();
    let values = values(1000);
    let topics: Vec<String> = (0..TAIL_TOPICS).map(tail_topic).collect();
    let client = runtime.block_on(all_on_this_thread(&cluster));
    let producer = client.producer().build().expect("in range");
    let mut kept = VecDeque::with_capacity(OUTSTANDING + 1);
    for named in [false, true] {
        let mut batches = 0;
        let what = format!("long tail, named: {named}");
        let per_record = allocations_per_record_of(TAIL_RECORDS, &what, || {
            let before = client.stats().produce_batches;
            runtime.block_on(send_all(&producer, TAIL_RECORDS, &mut kept, |i| {
                let record = Record::to(&topics[i % TAIL_TOPICS]).value(&values[i % values.len()]);
                if named { record.partition((i / TAIL_TOPICS % 4) as i32) } else { record }
            }));
            batches = client.stats().produce_batches - before;
        });
        let per_batch = per_record * TAIL_RECORDS as f64 / batches as f64;
        println!(
            "{:.0} records and {per_batch:.1} allocations per batch",
            TAIL_RECORDS as f64 / batches as f64
        );
        assert!(per_batch < BATCH_LIMIT, "named: {named}: {per_batch} allocations per batch");
    }
}

#[test]
fn blocking_send_allocates_nothing_per_record() {
    let cluster = cluster();
    let client = ottla::blocking::Client::connect(cluster.bootstrap()).expect("the brokers listen");
    let producer = client.producer(|settings| settings).expect("the settings are in range");
    let values = values(1000);
    let mut kept = VecDeque::with_capacity(OUTSTANDING + 1);
    let per_record = allocations_per_record("blocking send", || {
        for i in 0..RECORDS {
            let record = Record::to(TOPIC).value(&values[i % values.len()]);
            keep(&mut kept, producer.send(record).expect("taken"));
        }
    });
    assert!(per_record < LIMIT, "{per_record} allocations per record");
}

#[test]
fn try_send_allocates_nothing_per_record() {
    let cluster = cluster();
    let runtime = runtime();
    let values = values(1000);
    let producer = runtime.block_on(producer(&cluster, Compression::None));
    let mut kept = VecDeque::with_capacity(OUTSTANDING + 1);
    let per_record = allocations_per_record("try_send", || {
        for i in 0..RECORDS {
            let record = Record::to(TOPIC).value(&values[i % values.len()]);
            let delivery = loop {
                match producer.try_send(record) {
                    Ok(delivery) => break delivery,
                    Err(back) => {
                        assert_eq!(back.kind(), ErrorKind::BufferFull, "{back}");
                        let mut oldest: Delivery = kept.pop_front().expect("what fills the buffer");
                        oldest.wait(Some(Duration::from_secs(60))).expect("acknowledged");
                    }
                }
            };
            keep(&mut kept, delivery);
        }
    });
    assert!(per_record < LIMIT, "{per_record} allocations per record");
}

#[test]
fn send_batch_allocates_nothing_per_record() {
    let cluster = cluster();
    let runtime = runtime();
    let values = values(1000);
    for codec in [Compression::None, Compression::Lz4] {
        let producer = runtime.block_on(producer(&cluster, codec));
        let per_record = allocations_per_record(&format!("send_batch of 1,000, {codec:?}"), || {
            runtime.block_on(async {
                for _ in 0..RECORDS / values.len() {
                    let delivery = producer.send_batch(TOPIC, &values).await.expect("taken");
                    assert_eq!(delivery.await.expect("acknowledged").records, values.len());
                }
            });
        });
        assert!(per_record < LIMIT, "{codec:?}: {per_record} allocations per record");
    }
}

#[test]
fn iterating_allocates_nothing_per_record() {
    let cluster = cluster();
    let runtime = runtime();
    let mut consumer = runtime.block_on(async {
        let client = Client::connect(cluster.bootstrap()).await.expect("the brokers listen");
        client.consumer().topics([TOPIC]).start(Start::Earliest).build().expect("a topic is named")
    });
    let per_record = allocations_per_record("consumer", || {
        runtime.block_on(async {
            let mut read = 0;
            while read < RECORDS {
                let batch = consumer.next().await.expect("open").expect("sound");
                read += batch.iter().filter(|record| record.value().is_some()).count();
            }
        });
    });
    assert!(per_record < LIMIT, "{per_record} allocations per record");
}
