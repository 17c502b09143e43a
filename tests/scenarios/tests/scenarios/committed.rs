//! Which records of transactions are read: all, or what is committed. In virtual time.

use std::collections::BTreeSet;

use ottla::testing::{Cluster, SourceBatch, TransactionEnd};
use ottla::{Client, Consumer, Isolation, OffsetSpec, Start, TopicPartition};
use ottla_scenarios::steps::{cluster, connect, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

async fn client(cluster: &Cluster) -> Client {
    connect(virtual_cluster::client(cluster, 1)).await
}

fn reader(client: &Client, isolation: Isolation) -> Consumer {
    client.consumer().topics(["t"]).isolation(isolation).build().unwrap()
}

/// Producers of transactions in partition 0, and what of it is to be read.
struct Log<'a> {
    cluster: &'a Cluster,
    sequences: [i32; 4],
    /// The values of each producer's open transaction.
    open: [Option<Vec<String>>; 4],
    /// All values, and those that were aborted.
    all: Vec<String>,
    aborted: BTreeSet<String>,
}

impl<'a> Log<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let (sequences, open) = ([0; 4], [const { None }; 4]);
        Self { cluster, sequences, open, all: Vec::new(), aborted: BTreeSet::new() }
    }

    /// A batch of some records in a producer's transaction.
    fn write(&mut self, producer: usize, records: usize, lz4: bool) {
        let first = self.all.len();
        let values: Vec<String> = (first..first + records).map(|n| n.to_string()).collect();
        let batch = SourceBatch::new(&values);
        let batch = if lz4 { batch.lz4() } else { batch };
        let batch = batch.with_producer(producer as i64, 0, self.sequences[producer]);
        self.cluster.append("t", 0, &batch.transactional()).unwrap();
        self.sequences[producer] += records as i32;
        self.all.extend(values.iter().cloned());
        self.open[producer].get_or_insert_default().extend(values);
    }

    fn end(&mut self, producer: usize, end: TransactionEnd) {
        let values = self.open[producer].take().unwrap_or_default();
        if end == TransactionEnd::Abort {
            self.aborted.extend(values);
        }
        self.cluster.end_transaction("t", 0, producer as i64, 0, end).unwrap();
    }

    /// A batch of one record of nobody's transaction.
    fn plain(&mut self) {
        let value = self.all.len().to_string();
        self.cluster.append("t", 0, &SourceBatch::new([&value])).unwrap();
        self.all.push(value);
    }

    fn committed(&self) -> Vec<String> {
        self.all.iter().filter(|value| !self.aborted.contains(*value)).cloned().collect()
    }
}

/// All values up to the partition's end.
async fn read_all(client: &Client, consumer: &mut Consumer, isolation: Isolation) -> Vec<String> {
    let ends = client.admin().list_offsets([("t", 0, OffsetSpec::Latest)]).await.unwrap();
    let ends: Vec<(TopicPartition, i64)> =
        ends.into_iter().map(|(part, end)| (part, end.unwrap())).collect();
    let mut values = Vec::new();
    while let Some(batch) = within("a batch or the end", consumer.next_until(&ends)).await {
        let batch = batch.unwrap();
        let value = |record: ottla::RecordRef<'_>| {
            String::from_utf8(record.value().unwrap().to_vec()).unwrap()
        };
        values.extend(batch.iter().map(value));
    }
    assert_eq!(consumer.position("t", 0), Some(ends[0].1), "{isolation:?}: behind all markers");
    assert_eq!(consumer.lag("t", 0), Some(0), "{isolation:?}");
    values
}

/// Transactions of four producers at once, plain records between them: whatever is aborted is read by one kind of reader
/// and not by the other, in order and once, and both come to the end, which is a marker.
#[tokio::test(start_paused = true)]
async fn s17_read_committed_shows_nothing_aborted() {
    for seed in 0..20 {
        let (cluster, mut rng) = (cluster(1, 1), StdRng::seed_from_u64(seed));
        let mut log = Log::new(&cluster);
        for _ in 0..100 {
            let producer = rng.random_range(0..4);
            match rng.random_range(0..6) {
                0 => log.plain(),
                1 => log.end(producer, TransactionEnd::Abort),
                2 => log.end(producer, TransactionEnd::Commit),
                _ => log.write(producer, rng.random_range(1..5), rng.random()),
            }
        }
        for producer in 0..4 {
            let end = if rng.random() { TransactionEnd::Abort } else { TransactionEnd::Commit };
            log.end(producer, end);
        }
        let client = client(&cluster).await;
        for (isolation, wanted) in [
            (Isolation::ReadUncommitted, log.all.clone()),
            (Isolation::ReadCommitted, log.committed()),
        ] {
            // In small pieces: the broker lists what is aborted for each response.
            let reader = client.consumer().topics(["t"]).isolation(isolation);
            let mut consumer = reader.max_partition_bytes(1 << 10).build().unwrap();
            assert_eq!(read_all(&client, &mut consumer, isolation).await, wanted, "seed {seed}");
        }
    }
}

/// Nothing beyond a transaction that is open is read, or counts; the end is where that begins.
#[tokio::test(start_paused = true)]
async fn an_open_transaction_is_the_end_of_what_is_committed() {
    let cluster = cluster(1, 1);
    let mut log = Log::new(&cluster);
    log.plain();
    log.write(1, 2, false);
    log.plain();
    let client = client(&cluster).await;
    let (mut committed, mut all) =
        (reader(&client, Isolation::ReadCommitted), reader(&client, Isolation::ReadUncommitted));
    for _ in 0..3 {
        within("a batch", all.next()).await.unwrap().unwrap();
    }
    assert_eq!(within("a batch", committed.next()).await.unwrap().unwrap().len(), 1);
    assert!(tokio::time::timeout(secs(5), committed.next()).await.is_err());
    assert_eq!((committed.position("t", 0), committed.lag("t", 0)), (Some(1), Some(0)));
    assert_eq!((all.position("t", 0), all.lag("t", 0)), (Some(4), Some(0)));
    // Who begins at the end begins there, each at its own.
    let end = |isolation| {
        let reader = client.consumer().topics(["t"]).isolation(isolation);
        reader.start(Start::Latest).build().unwrap()
    };
    let (last, late) = (end(Isolation::ReadCommitted), end(Isolation::ReadUncommitted));
    until("where they begin", || {
        last.position("t", 0).is_some() && late.position("t", 0).is_some()
    })
    .await;
    assert_eq!((last.position("t", 0), late.position("t", 0)), (Some(1), Some(4)));
    // The transaction ends, and all that waited for it is there at once.
    let begun = tokio::time::Instant::now();
    log.end(1, TransactionEnd::Abort);
    let batch = within("a batch", committed.next()).await.unwrap().unwrap();
    assert_eq!((batch.base_offset(), batch.len()), (3, 1));
    assert!(begun.elapsed() < ms(600));
    until("the marker is passed", || committed.position("t", 0) == Some(5)).await;
    until("by the others, too", || all.position("t", 0) == Some(5)).await;
}
