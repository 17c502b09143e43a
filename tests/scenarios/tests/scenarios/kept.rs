//! What an application keeps of what it read: it counts against the consumer's memory, and no more of it is kept than the
//! application means to.

use allocation_counter::measure;
use ottla::testing::Cluster;
use ottla::{Batch, Client, Compression, Consumer, OwnedRecord, Record};
use ottla_scenarios::seeds::runtime;
use ottla_scenarios::steps::{acks, cluster};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::runtime::Runtime;

const MIB: usize = 1 << 20;
const BATCHES: usize = 60;
const MEMORY: usize = 8 * MIB;

/// A topic with so many batches of a mebibyte, in a hundred records each, and a consumer with 8 MiB for them.
fn set() -> (Runtime, Cluster, Client, Consumer) {
    let runtime = runtime();
    let (cluster, client, consumer) = runtime.block_on(async {
        let cluster = cluster(1, 1);
        let client = virtual_cluster::client(&cluster, 1).connect().await.unwrap();
        let producer = client.producer().compression(Compression::None).build().unwrap();
        let value = vec![7; MIB / 100];
        for _ in 0..BATCHES {
            let sent = (0..100).map(|_| {
                producer.try_send(Record::to("t").partition(0).value(&value[..])).unwrap()
            });
            acks(sent.collect()).await;
        }
        let reader = client.consumer().topics(["t"]).buffer_memory(MEMORY);
        (cluster, client.clone(), reader.build().unwrap())
    });
    (runtime, cluster, client, consumer)
}

/// All batches, each handed to `keep`.
fn read(runtime: &Runtime, consumer: &mut Consumer, mut keep: impl FnMut(Batch)) {
    runtime.block_on(async {
        let mut records = 0;
        while records < 100 * BATCHES {
            let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
            records += batch.len();
            keep(batch);
        }
    });
}

#[test]
fn s28_one_record_of_each_batch_keeps_a_record() {
    let (runtime, _cluster, _client, mut consumer) = set();
    let mut kept: Vec<OwnedRecord> = Vec::new();
    let measured = measure(|| {
        read(&runtime, &mut consumer, |batch| kept.extend(batch.get(1).map(|r| r.detach())));
    });
    let bytes: usize = kept.iter().filter_map(|record| Some(record.value()?.len())).sum();
    assert!(kept.len() >= BATCHES && bytes >= BATCHES * (MIB / 100));
    // Besides those, what is fetched ahead, and buffers that lie idle.
    let bound = (bytes + MEMORY + 17 * MIB) as i64;
    assert!(measured.bytes_current < bound, "{} of {bound}", measured.bytes_current);
    assert!((measured.bytes_max as i64) < bound + 10 * MIB as i64, "{}", measured.bytes_max);
}

/// It is the application's memory, and the consumer does not stop because of it. What is fetched is little, then.
#[test]
fn s28_who_keeps_all_batches_reads_all_batches() {
    let (runtime, _cluster, client, mut consumer) = set();
    let mut kept: Vec<Batch> = Vec::new();
    read(&runtime, &mut consumer, |batch| kept.push(batch));
    let values = kept.iter().flatten().filter_map(|record| record.value());
    assert_eq!(values.filter(|value| value.len() == MIB / 100).count(), 100 * BATCHES);
    // One for each batch, where there is no room for more.
    let requests = client.stats().fetch_requests;
    assert!(requests < 10 * BATCHES as u64, "{requests}");
}

/// A batch that is detached keeps its own bytes and no response.
#[test]
fn s28_batches_that_are_detached_leave_the_consumer_its_memory() {
    let (runtime, _cluster, client, mut consumer) = set();
    let mut kept: Vec<Batch> = Vec::new();
    read(&runtime, &mut consumer, |batch| kept.push(batch.detach()));
    let records: usize = kept.iter().map(Batch::len).sum();
    assert_eq!(records, 100 * BATCHES);
    // Of 1 MiB each, as of one partition.
    let requests = client.stats().fetch_requests;
    assert!(requests < 2 * BATCHES as u64, "{requests}");
}
