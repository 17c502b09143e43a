//! Ottla, as an application would use it, on tokio.

use std::collections::VecDeque;
use std::hint::black_box;

use ottla::{BatchDelivery, Compression, Consumer, Delivery, Producer, Record, Start};
use ottla_bench::{TOPIC, values};

use super::{Direction, Job, Measured, Meter, warm_up};

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
    runtime
        .block_on(async {
            let client = ottla::Client::connect(bootstrap).await?;
            match job.figure.direction {
                Direction::Produce => {
                    let codec = if job.figure.lz4 { Compression::Lz4 } else { Compression::None };
                    let producer = client.producer().compression(codec).build()?;
                    let send = async |records| match job.figure.batched {
                        true => send_batches(&producer, records).await,
                        false => send_each(&producer, records).await,
                    };
                    send(warm_up(job.records)).await?;
                    let meter = Meter::start();
                    send(job.records).await?;
                    Ok(meter.stop(job.records))
                }
                Direction::Consume => {
                    let mut consumer =
                        client.consumer().topics([TOPIC]).start(Start::Earliest).build()?;
                    consume(&mut consumer, warm_up(job.records)).await?;
                    let meter = Meter::start();
                    let read = consume(&mut consumer, job.records).await?;
                    Ok(meter.stop(read))
                }
            }
        })
        .map_err(|e: ottla::Error| format!("{}: {e}", job.figure.name))
}

/// A send for each record, its handle kept, and checked once.
async fn send_each(producer: &Producer, records: usize) -> ottla::Result<()> {
    let values = values(VALUES);
    let mut kept: VecDeque<Delivery> = VecDeque::with_capacity(OUTSTANDING);
    for i in 0..records {
        if kept.len() == OUTSTANDING
            && let Some(oldest) = kept.pop_front()
        {
            black_box(oldest.await?);
        }
        kept.push_back(producer.send(Record::to(TOPIC).value(&values[i % VALUES])).await?);
    }
    producer.flush().await?;
    for handle in kept {
        black_box(handle.await?);
    }
    Ok(())
}

async fn send_batches(producer: &Producer, records: usize) -> ottla::Result<()> {
    let values = values(VALUES);
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

/// Looks at every record's value; gives how many there were, at least as many as asked for.
async fn consume(consumer: &mut Consumer, records: usize) -> ottla::Result<usize> {
    let mut read = 0;
    while read < records {
        let Some(batch) = consumer.next().await.transpose()? else { break };
        for record in &batch {
            black_box(record.value());
            read += 1;
        }
    }
    Ok(read)
}
