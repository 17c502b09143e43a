//! Steps that many scenarios in virtual time share.

use std::ops::Range;
use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Record as Stored};
use ottla::{
    Acked, Batch, BrokerStats, Client, ClientBuilder, Compression, Consumer, Delivery, Producer,
    ProducerBuilder, Record, RequestStats,
};

use crate::wait::within;

/// So many seconds.
pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many milliseconds.
pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Brokers reached through memory, with one topic, "t", whose every replica is everywhere.
///
/// # Panics
/// Outside of a runtime.
pub fn cluster(brokers: i32, partitions: i32) -> Cluster {
    Cluster::builder()
        .brokers(brokers)
        .tcp(false)
        .topic("t", partitions, brokers.min(3))
        .start_on_current_runtime()
        .expect("a cluster in memory starts")
}

/// The client, once it has reached its cluster.
///
/// # Panics
/// If it has not [soon](crate::wait::SOON).
pub async fn connect(client: ClientBuilder) -> Client {
    within("connect", client.connect()).await.expect("the cluster is there")
}

/// A small record for any partition of "t".
pub fn free() -> Record<'static> {
    Record::to("t").value("x")
}

/// A small record for this partition of "t".
pub fn pinned(partition: i32) -> Record<'static> {
    free().partition(partition)
}

/// Flushes; how many records have failed that nobody had looked at.
///
/// # Panics
/// If that takes [longer](crate::wait::SOON), or for any other error.
pub async fn flushed(producer: &Producer) -> usize {
    match within("a flush", producer.flush()).await {
        Ok(()) => 0,
        Err(e) => e.undelivered().unwrap_or_else(|| panic!("{e}")).records(),
    }
}

/// Sends a record; where it is acknowledged.
///
/// # Panics
/// If it is not [soon](crate::wait::SOON).
pub async fn acked(producer: &Producer, record: Record<'_>) -> Acked {
    let delivery = within("space", producer.send(record)).await.expect("a valid record");
    within("an ack", delivery).await.expect("an ack")
}

/// A producer whose every record of 900 bytes is a batch of its own.
pub fn small_batches(client: &Client) -> ProducerBuilder {
    client.producer().batch_size(1 << 10).compression(Compression::None)
}

/// 900 bytes that tell the number.
pub fn value(number: usize) -> Vec<u8> {
    format!("{number:0900}").into_bytes()
}

/// Sends a record with each of the numbers to partition 0 of "t".
///
/// # Panics
/// If one is refused.
pub async fn send_pinned(producer: &Producer, numbers: Range<usize>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let value = value(number);
        let record = Record::to("t").partition(0).value(&value);
        deliveries.push(producer.send(record).await.expect("a valid record"));
    }
    deliveries
}

/// Where records are acknowledged.
///
/// # Panics
/// If one is not [soon](crate::wait::SOON).
pub async fn acks(deliveries: Vec<Delivery>) -> Vec<Acked> {
    let mut acks = Vec::new();
    for delivery in deliveries {
        acks.push(within("an ack", delivery).await.expect("an ack"));
    }
    acks
}

/// Three records acknowledged, so that partition 0 has five batches in flight from then on.
///
/// # Panics
/// If one is not [soon](crate::wait::SOON).
pub async fn warm(producer: &Producer) -> Vec<Acked> {
    acks(send_pinned(producer, 0..3).await).await
}

/// What a partition of "t" holds.
///
/// # Panics
/// If there is no such partition.
pub fn stored(cluster: &Cluster, partition: i32) -> Vec<Stored> {
    cluster.records("t", partition).expect("a partition of the topic")
}

/// What the client has counted of one broker.
pub fn broker(client: &Client, id: i32) -> BrokerStats {
    client.stats().brokers.get(&id).cloned().unwrap_or_default()
}

/// The same of one kind of request, by its name in the protocol.
pub fn requests(client: &Client, id: i32, name: &str) -> RequestStats {
    broker(client, id).requests.get(name).copied().unwrap_or_default()
}

/// Requests of one kind that a broker has read.
pub fn seen(cluster: &Cluster, broker: i32, api: ApiKey) -> u64 {
    cluster.stats().broker(broker).map_or(0, |b| b.requests_of(api))
}

/// Brokers that the client has a connection to.
pub fn connected(client: &Client) -> Vec<i32> {
    let brokers = client.cluster().brokers;
    brokers.into_iter().filter(|(_, b)| b.connections > 0).map(|(id, _)| id).collect()
}

/// The next batch of a consumer that is told meanwhile what stands in its way.
///
/// # Panics
/// If none comes [soon](crate::wait::SOON), and on an error that does not pass.
pub async fn batch(consumer: &mut Consumer) -> Batch {
    let batch = async {
        loop {
            match consumer.next().await.expect("the consumer is open") {
                Ok(batch) => return batch,
                Err(error) => assert!(error.is_retriable(), "{error:?}"),
            }
        }
    };
    within("a batch", batch).await
}
