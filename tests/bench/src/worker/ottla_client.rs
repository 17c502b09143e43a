//! Ottla, as an application would use it, on tokio.

use std::collections::VecDeque;
use std::hint::black_box;

use std::sync::OnceLock;

use ottla::{
    Acked, BatchDelivery, Client, Compression, Consumer, Delivery, Producer, Record, Start,
};
use ottla_bench::{TAIL_PARTITIONS, TAIL_TOPICS, TOPIC, VALUE_LEN, sum, tail_topic, values};
use tokio::runtime::Runtime;

use super::{Direction, Job, Measured, Meter, Shape, sparse};

/// Handles kept before the oldest is waited for: somewhat more than the batches in flight to all
/// partitions hold.
const OUTSTANDING: usize = 50_000;
/// Records in one `send_batch`.
const BATCH: usize = 1000;
/// Distinct values, sent again and again; a power of two.
const VALUES: usize = 1 << 12;

pub(super) fn run(job: Job, bootstrap: &str) -> Result<Measured, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start a runtime: {e}"))?;
    if job.figure.shape == Shape::Sparse {
        let measured = runtime.block_on(sparse::measure(bootstrap));
        return measured.map_err(|e| format!("{}: {e}", job.figure.name));
    }
    let measure = || {
        let client = runtime.block_on(Client::connect(bootstrap))?;
        match job.figure.direction {
            Direction::Produce => produce(&runtime, &client, job),
            Direction::Consume => {
                let consumer = client.consumer().topics([TOPIC]).start(Start::Earliest);
                let consumer = match job.figure.shape {
                    // Of its own: it begins where it never was.
                    Shape::Group => consumer.group(format!("bench-{}", std::process::id())),
                    _ => consumer,
                };
                let mut consumer = consumer.build()?;
                let mut step = |records| runtime.block_on(consume(&mut consumer, records));
                step(job.length.warm_up())?;
                let mut meter = Meter::start(job);
                let read = meter.run(job.length, step)?;
                Ok(meter.stop(read))
            }
        }
    };
    measure().map_err(|e: ottla::Error| format!("{}: {e}", job.figure.name))
}

fn produce(runtime: &Runtime, client: &Client, job: Job) -> ottla::Result<Measured> {
    let codec = if job.figure.lz4 { Compression::Lz4 } else { Compression::None };
    let producer = client.producer().compression(codec).build()?;
    let tail: Vec<String> = (0..TAIL_TOPICS).map(tail_topic).collect();
    let one = |values| Record::to(TOPIC).value(values);
    let step = |records| -> ottla::Result<usize> {
        match job.figure.shape {
            Shape::Each => runtime.block_on(send_each(&producer, records, |_, v| one(v)))?,
            Shape::Batch => runtime.block_on(send_batches(&producer, records))?,
            Shape::LongTail => {
                let in_turn = |i: usize, value| Record::to(&tail[i % TAIL_TOPICS]).value(value);
                runtime.block_on(send_each(&producer, records, in_turn))?;
            }
            Shape::LongTailPinned => {
                let in_turn = |i: usize, value| {
                    let partition = (i / TAIL_TOPICS) as i32 % TAIL_PARTITIONS;
                    Record::to(&tail[i % TAIL_TOPICS]).partition(partition).value(value)
                };
                runtime.block_on(send_each(&producer, records, in_turn))?;
            }
            Shape::Sparse | Shape::Group => unreachable!("is measured by its own function"),
            Shape::Threads(threads) => std::thread::scope(|scope| {
                // A handle each: what comes through one stays in its order, and so meets at one lock.
                let running: Vec<_> = (0..threads)
                    .map(|_| {
                        let own = producer.clone();
                        scope.spawn(move || {
                            block_on(send_each(&own, records / threads, |_, v| one(v)))
                        })
                    })
                    .collect();
                running.into_iter().try_for_each(|thread| thread.join().expect("a sender panicked"))
            })?,
        }
        Ok(records)
    };
    step(job.length.warm_up())?;
    let before = client.stats();
    let mut meter = Meter::start(job);
    let sent = meter.run(job.length, step)?;
    let measured = meter.stop(sent);
    let after = client.stats();
    let requests = after.produce_requests - before.produce_requests;
    let bytes = after.produce_bytes - before.produce_bytes;
    let per_request = |n: u64| Some(n as f64 / requests as f64);
    Ok(Measured {
        request_kb: per_request(bytes).map(|bytes| bytes / 1e3),
        request_records: per_request(sent as u64),
        ..measured
    })
}

/// Drives a future on a thread without a runtime: the client needs none.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without I/O needs nothing of the system").block_on(future)
}

/// A send for each record, its handle kept, and checked once.
async fn send_each<'a>(
    producer: &Producer,
    records: usize,
    record: impl Fn(usize, &'static [u8]) -> Record<'a>,
) -> ottla::Result<()> {
    let values = kept_values();
    let mut kept: VecDeque<Delivery> = VecDeque::with_capacity(OUTSTANDING);
    for i in 0..records {
        if kept.len() == OUTSTANDING
            && let Some(oldest) = kept.pop_front()
        {
            look_at(oldest.await?);
        }
        kept.push_back(producer.send(record(i, &values[i % VALUES])).await?);
    }
    producer.flush().await?;
    for handle in kept {
        look_at(handle.await?);
    }
    Ok(())
}

/// What an application does with a place: it reads it.
fn look_at(at: Acked) {
    black_box(at.partition);
    black_box(at.offset);
}

fn kept_values() -> &'static [[u8; VALUE_LEN]] {
    static MADE: OnceLock<Vec<[u8; VALUE_LEN]>> = OnceLock::new();
    MADE.get_or_init(|| values(VALUES))
}

async fn send_batches(producer: &Producer, records: usize) -> ottla::Result<()> {
    let values = kept_values();
    let mut kept: VecDeque<BatchDelivery> = VecDeque::new();
    let mut sent = 0;
    while sent < records {
        if kept.len() == OUTSTANDING / BATCH
            && let Some(oldest) = kept.pop_front()
        {
            black_box(oldest.await?);
        }
        let first = sent % (VALUES - BATCH);
        let count = BATCH.min(records - sent);
        kept.push_back(producer.send_batch(TOPIC, &values[first..first + count]).await?);
        sent += count;
    }
    producer.flush().await?;
    for handle in kept {
        black_box(handle.await?);
    }
    Ok(())
}

/// Looks at every byte of every value; gives how many records there were, at least as many as asked for.
async fn consume(consumer: &mut Consumer, records: usize) -> ottla::Result<usize> {
    let mut read = 0;
    let mut bytes = 0;
    while read < records {
        let Some(batch) = consumer.next().await.transpose()? else { break };
        for record in &batch {
            bytes += record.value().map_or(0, sum);
            read += 1;
        }
    }
    black_box(bytes);
    Ok(read)
}
