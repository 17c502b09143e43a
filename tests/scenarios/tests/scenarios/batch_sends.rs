//! Many values under one handle: more than the buffer holds, given up half-way, or refused in the
//! middle. In virtual time.

use ottla::testing::{Cluster, Leaders};
use ottla::{Client, Compression, ErrorKind, Producer, ProducerBuilder};
use ottla_scenarios::steps::{acked, cluster, connect, free, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

const VALUE: usize = 50_000;

fn small(client: &Client) -> ProducerBuilder {
    client.producer().buffer_memory(1 << 20).max_block(secs(2)).compression(Compression::None)
}

async fn start() -> (Cluster, Producer) {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = small(&client).build().unwrap();
    acked(&producer, free()).await;
    (cluster, producer)
}

fn values(count: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|i| [&(i as u64).to_be_bytes()[..], &[7; VALUE]].concat())
}

/// The numbers in the log, in its order.
fn numbers(cluster: &Cluster) -> Vec<usize> {
    let number = |value: &[u8]| u64::from_be_bytes(value[..8].try_into().unwrap()) as usize;
    let stored = cluster.records("t", 0).unwrap();
    stored.iter().skip(1).map(|record| number(record.value.as_deref().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn s05_ten_times_what_the_buffer_holds() {
    let (cluster, producer) = start().await;
    let all = within("space", producer.send_batch("t", values(200))).await.unwrap();
    assert_eq!(all.len(), 200);
    assert_eq!(within("acks", all).await.unwrap().records, 200);
    assert_eq!(numbers(&cluster), (0..200).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn s05_what_did_not_fit_in_time_is_said_and_the_rest_is_on_its_way() {
    let (cluster, producer) = start().await;
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    let begun = Instant::now();
    let refused = within("a refusal", producer.send_batch("t", values(200))).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::BufferFull);
    assert!((secs(2)..secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    cluster.start_broker(1).unwrap();
    within("flush", producer.flush()).await.unwrap();
    let sent = numbers(&cluster);
    assert!((5..25).contains(&sent.len()), "{} values taken", sent.len());
    assert_eq!(sent, (0..sent.len()).collect::<Vec<_>>());
    // The line is free again.
    acked(&producer, free()).await;
}

#[tokio::test(start_paused = true)]
async fn given_up_half_way_it_leaves_the_line() {
    let (cluster, producer) = start().await;
    cluster.stop_broker(1, Leaders::Keep).unwrap();
    for _ in 0..3 {
        let sending = producer.send_batch("t", values(200));
        assert!(tokio::time::timeout(secs(1), sending).await.is_err(), "there is no space");
    }
    cluster.start_broker(1).unwrap();
    within("flush", producer.flush()).await.unwrap();
    acked(&producer, free()).await;
    within("close", producer.close(secs(5))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_is_too_large_ends_it_and_those_before_are_sent() {
    let (cluster, producer) = start().await;
    let mut values: Vec<_> = values(40).collect();
    values[35] = vec![0; (1 << 20) + 1];
    let error = within("a refusal", producer.send_batch("t", &values)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
    within("flush", producer.flush()).await.unwrap();
    assert_eq!(numbers(&cluster), (0..35).collect::<Vec<_>>());
    let none = producer.send_batch("t", Vec::<Vec<u8>>::new()).await.unwrap();
    assert!(none.is_empty() && none.is_done());
    assert_eq!(within("nothing", none).await.unwrap().records, 0);
}
