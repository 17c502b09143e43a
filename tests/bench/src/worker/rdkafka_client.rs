//! librdkafka through its Rust binding, set for throughput: the calls that cost it least (the base
//! producer and consumer, no future and no allocation for a record on the binding's side).

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ottla_bench::{TAIL_PARTITIONS, TAIL_TOPICS, TOPIC, sum, tail_topic, values};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};

use super::{Direction, Job, Measured, Meter, Shape};
use crate::broker::PARTITIONS;

/// Sends between two calls of poll, which delivers what is acknowledged.
const POLL_EVERY: usize = 1000;
const VALUES: usize = 1 << 12;

/// Counts what became of records: the least that checking every one can cost.
#[derive(Clone, Debug, Default)]
struct Count(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    acked: AtomicUsize,
    failed: AtomicUsize,
}

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.0.acked } else { &self.0.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn run(job: Job, bootstrap: &str) -> Result<Measured, String> {
    let measured = match job.figure.direction {
        Direction::Produce => produce(job, bootstrap),
        Direction::Consume => consume(job, bootstrap),
    };
    measured.map_err(|e| format!("{}: {e}", job.figure.name))
}

fn produce(job: Job, bootstrap: &str) -> Result<Measured, KafkaError> {
    let count = Count::default();
    let producer: BaseProducer<Count> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.messages", "1000000")
        .set("compression.codec", if job.figure.lz4 { "lz4" } else { "none" })
        .create_with_context(count.clone())?;
    let tail: Vec<String> = match job.figure.shape {
        Shape::LongTail | Shape::LongTailPinned => (0..TAIL_TOPICS).map(tail_topic).collect(),
        _ => Vec::new(),
    };
    let warm = job.length.warm_up();
    let pinned = job.figure.shape == Shape::LongTailPinned;
    send(&producer, warm, &tail, pinned)?;
    let mut meter = Meter::start(job);
    let sent = meter
        .run(job.length, |records| send(&producer, records, &tail, pinned).map(|()| records))?;
    let measured = meter.stop(sent);
    let (acked, failed) =
        (count.0.acked.load(Ordering::Relaxed), count.0.failed.load(Ordering::Relaxed));
    if failed > 0 || acked != sent + warm {
        return Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut));
    }
    Ok(measured)
}

/// To the one topic, or to one topic or partition after the other of `tail`.
fn send(
    producer: &BaseProducer<Count>,
    records: usize,
    tail: &[String],
    pinned: bool,
) -> Result<(), KafkaError> {
    let values = values(VALUES);
    for i in 0..records {
        let mut record = match tail.get(i % tail.len().max(1)) {
            None => BaseRecord::<(), _>::to(TOPIC),
            Some(topic) if !pinned => BaseRecord::to(topic),
            Some(topic) => {
                let partition = (i / tail.len()) as i32 % TAIL_PARTITIONS;
                BaseRecord::to(topic).partition(partition)
            }
        }
        .payload(&values[i % VALUES]);
        while let Err((e, back)) = producer.send(record) {
            if e.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(e);
            }
            producer.poll(Duration::from_millis(10));
            record = back;
        }
        if i % POLL_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60))
}

fn consume(job: Job, bootstrap: &str) -> Result<Measured, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    let mut assigned = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assigned.add_partition_offset(TOPIC, partition, Offset::Offset(0))?;
    }
    consumer.assign(&assigned)?;
    read(&consumer, job.length.warm_up())?;
    let mut meter = Meter::start(job);
    let moved = meter.run(job.length, |records| read(&consumer, records).map(|()| records))?;
    Ok(meter.stop(moved))
}

fn read(consumer: &BaseConsumer, records: usize) -> Result<(), KafkaError> {
    let mut read = 0;
    let mut bytes = 0;
    while read < records {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
        bytes += message?.payload().map_or(0, sum);
        read += 1;
    }
    black_box(bytes);
    Ok(())
}
