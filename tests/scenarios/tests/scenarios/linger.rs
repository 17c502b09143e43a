//! How long an open batch waits for company while every broker is busy: for the linger, and no
//! longer; a flush does not wait for it at all, nor does a full buffer (`buffer`). In virtual
//! time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, Compression, Producer, ProducerBuilder};
use ottla_scenarios::steps::{acked, acks, cluster, connect, free, ms, pinned, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::{Duration, Instant};

/// A producer whose only broker is at work on one request for so long, and so is never idle.
async fn busy(
    cluster: &Cluster,
    response: Duration,
    settings: impl FnOnce(ProducerBuilder) -> ProducerBuilder,
) -> (Client, Producer) {
    let client = connect(virtual_cluster::client(cluster, 1)).await;
    let builder = client.producer().compression(Compression::None);
    let producer = settings(builder).build().unwrap();
    for partition in 0..2 {
        acked(&producer, pinned(partition)).await;
    }
    let slow = FaultRule::new(Fault::DelayResponse(response)).api(ApiKey::PRODUCE);
    cluster.faults().inject(slow);
    let before = sent(&client);
    drop(producer.try_send(pinned(1)).unwrap());
    until("the broker is at work", || sent(&client) > before).await;
    (client, producer)
}

/// Produce requests so far.
fn sent(client: &Client) -> u64 {
    client.stats().produce_requests
}

/// How long it takes until there is one more.
async fn until_sent(client: &Client, before: u64) -> Duration {
    let begun = Instant::now();
    until("a request", || sent(client) > before).await;
    begun.elapsed()
}

/// Counted from the first record; those that come meanwhile are in the same batch, and do not put it
/// off.
#[tokio::test(start_paused = true)]
async fn while_the_broker_is_busy_a_batch_waits_for_the_linger_and_no_longer() {
    for record in [pinned(0), free()] {
        let cluster = cluster(1, 2);
        let (client, producer) = busy(&cluster, secs(2), |b| b.linger(ms(100))).await;
        let before = sent(&client);
        let mut deliveries = vec![producer.try_send(record).unwrap()];
        tokio::time::sleep(ms(60)).await;
        assert_eq!(sent(&client), before, "it goes before anybody can join it");
        deliveries.push(producer.try_send(record).unwrap());
        let took = ms(60) + until_sent(&client, before).await;
        assert!((ms(100)..ms(105)).contains(&took), "{took:?}");
        let acked = acks(deliveries).await;
        assert_eq!(acked[0].offset + 1, acked[1].offset);
        assert_eq!(sent(&client), before + 1, "in one batch");
    }
}

/// What the flush waits for goes at once; what comes later has its linger.
#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_no_linger_though_the_broker_is_busy() {
    for record in [pinned(0), free()] {
        let cluster = cluster(1, 2);
        let (client, producer) = busy(&cluster, secs(20), |b| b.linger(secs(30))).await;
        let before = sent(&client);
        let delivery = producer.try_send(record).unwrap();
        tokio::time::sleep(secs(1)).await;
        assert_eq!(sent(&client), before, "it lingers");
        let flush = tokio::spawn({
            let producer = producer.clone();
            async move { producer.flush().await }
        });
        let took = until_sent(&client, before).await;
        assert!(took < ms(5), "{took:?}");
        drop(producer.try_send(record).unwrap());
        tokio::time::sleep(secs(1)).await;
        assert_eq!(sent(&client), before + 1, "nobody flushes what came after");
        within("the flush", flush).await.unwrap().unwrap();
        assert!(delivery.is_done());
    }
}

/// However quickly records came before: a producer that is told not to wait does not.
#[tokio::test(start_paused = true)]
async fn without_a_linger_the_end_of_a_stream_is_not_gathered() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let builder = client.producer().compression(Compression::None).batch_size(16 << 10);
    let producer = builder.linger(Duration::ZERO).build().unwrap();
    acked(&producer, free()).await;
    for record in [free(), pinned(0)] {
        let begun = Instant::now();
        let mut deliveries = Vec::new();
        // Four batches, and a beginning of the next.
        for _ in 0..33 {
            deliveries.push(producer.try_send(record.value(&[7; 2_000])).unwrap());
        }
        acks(deliveries).await;
        assert!(begun.elapsed() < ms(1), "{:?}", begun.elapsed());
    }
}

/// Nothing else fits beside it.
#[tokio::test(start_paused = true)]
async fn what_fills_a_batch_by_itself_does_not_linger() {
    for record in [pinned(0), free()] {
        let cluster = cluster(1, 2);
        let settings = |b: ProducerBuilder| b.linger(secs(30)).batch_size(1 << 10);
        let (client, producer) = busy(&cluster, secs(20), settings).await;
        let before = sent(&client);
        drop(producer.try_send(record.value(&[7; 2_000])).unwrap());
        let took = until_sent(&client, before).await;
        assert!(took < ms(5), "{took:?}");
    }
}

/// A stream that fills batches within a millisecond is given one for the next, though the broker is
/// idle.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_stream_is_gathered_for_a_millisecond() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let builder = client.producer().compression(Compression::None).batch_size(16 << 10);
    let producer = builder.linger(ms(50)).build().unwrap();
    acked(&producer, free()).await;
    for record in [free(), pinned(0)] {
        let begun = Instant::now();
        let mut deliveries = Vec::new();
        for _ in 0..33 {
            deliveries.push(producer.try_send(record.value(&[7; 2_000])).unwrap());
        }
        let last = deliveries.pop().unwrap();
        acks(deliveries).await;
        assert!(begun.elapsed() < ms(1), "{:?}", begun.elapsed());
        within("the last", last).await.unwrap();
        assert!((ms(1)..ms(5)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        tokio::time::sleep(secs(1)).await;
    }
}
