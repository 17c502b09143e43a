//! How many Fetch requests a consumer makes behind producers that write little at a time, and that what there
//! is to catch up with waits for nothing. In virtual time.

use ottla::testing::{ApiKey, Cluster};
use ottla::{Client, Compression, Consumer, Producer, Start};
use ottla_scenarios::steps::{acked, batch, cluster, connect, ms, pinned};
use ottla_scenarios::virtual_cluster;
use tokio::time::{Duration, Instant};

/// A producer whose records have a batch each.
async fn producer(cluster: &Cluster) -> (Client, Producer) {
    let client = connect(virtual_cluster::client(cluster, 1)).await;
    let settings = client.producer().linger(Duration::ZERO).compression(Compression::None);
    let producer = settings.build().unwrap();
    (client, producer)
}

async fn consumer(cluster: &Cluster, start: Start) -> (Client, Consumer) {
    let client = connect(virtual_cluster::client(cluster, 2)).await;
    let consumer = client.consumer().topics(["t"]).start(start).build().unwrap();
    (client, consumer)
}

fn fetches(cluster: &Cluster) -> u64 {
    cluster.stats().requests_of(ApiKey::FETCH)
}

/// Writes so many records, so far apart, and reads them. Gives the Fetch requests a second that makes, and
/// the longest that one was on its way.
async fn follow(
    cluster: &Cluster,
    producer: &Producer,
    consumer: &mut Consumer,
    records: u32,
    apart: Duration,
) -> (f64, Duration) {
    let (before, begun) = (fetches(cluster), Instant::now());
    let mut longest = Duration::ZERO;
    let write = async {
        for _ in 0..records {
            acked(producer, pinned(0)).await;
            tokio::time::sleep(apart).await;
        }
    };
    let read = async {
        let mut read = 0;
        while read < records {
            for _ in 0..batch(consumer).await.len() {
                // Written in time, whatever happened to others.
                longest = longest.max(begun.elapsed().saturating_sub(apart * read));
                read += 1;
            }
        }
    };
    tokio::join!(write, read);
    let requests = fetches(cluster) - before;
    (requests as f64 / begun.elapsed().as_secs_f64(), longest)
}

/// A record each few milliseconds has a Fetch each, and comes in a round trip. Many times as many have hardly
/// more, and each waits for five milliseconds at most.
#[tokio::test(start_paused = true)]
async fn a_trickle_is_read_with_few_requests() {
    let cluster = cluster(1, 1);
    let (_writes, producer) = producer(&cluster).await;
    let (_reads, mut consumer) = consumer(&cluster, Start::Earliest).await;
    acked(&producer, pinned(0)).await;
    assert_eq!(batch(&mut consumer).await.len(), 1);
    let (per_second, longest) = follow(&cluster, &producer, &mut consumer, 500, ms(11)).await;
    assert!((85.0..95.0).contains(&per_second), "{per_second} a second");
    assert!(longest <= ms(1), "{longest:?}");
    let (per_second, longest) = follow(&cluster, &producer, &mut consumer, 5_000, ms(1)).await;
    assert!((180.0..208.0).contains(&per_second), "{per_second} a second");
    assert!(longest <= ms(7), "{longest:?}");
}

/// Also while the bucket is empty: whoever lags is answered as quickly as the broker can, however little a
/// request may bring.
#[tokio::test(start_paused = true)]
async fn who_lags_waits_for_nothing() {
    let cluster = cluster(1, 1);
    let (_writes, producer) = producer(&cluster).await;
    let value = [7; 500];
    for _ in 0..300 {
        acked(&producer, pinned(0).value(&value)).await;
    }
    let client = connect(virtual_cluster::client(&cluster, 2)).await;
    let settings = client.consumer().topics(["t"]).start(Start::Earliest);
    let mut consumer = settings.max_bytes(1 << 10).build().unwrap();
    assert_ne!(batch(&mut consumer).await.len(), 0);
    let (before, begun, mut read) = (fetches(&cluster), Instant::now(), 1);
    while read < 300 {
        read += batch(&mut consumer).await.len();
    }
    assert!(fetches(&cluster) - before > 100, "{}", fetches(&cluster) - before);
    assert!(begun.elapsed() < ms(20), "{:?}", begun.elapsed());
}
