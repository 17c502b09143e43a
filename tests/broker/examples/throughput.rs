//! How many 100-byte records a broker takes and gives on one core, over real loopback sockets.
//!
//! A client without any client work (prebuilt requests, answers read and counted) keeps a broker
//! busy; the broker has one thread, so records divided by its processor seconds is what one core
//! carries. Run it with `cargo run --release -p ottla-test-broker --example throughput`.
//! Exits with failure if a line stays under the target.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, ProduceRequest, RequestHeader, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use ottla_test_broker::{Cluster, SourceBatch, Storage};

const TOPIC: &str = "throughput";
const RECORD: [u8; 100] = [b'x'; 100];
/// Records moved per line: a few seconds at the target, well under one at what is usual.
const RECORDS: usize = 10_000_000;
/// Records a second and core that a test broker has to carry, so that it is not what a benchmark
/// of a client measures.
const TARGET: f64 = 2_000_000.0;
/// Bytes of an uncompressed record of 100 bytes in a batch, about.
const RECORD_ON_WIRE: usize = 110;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("throughput: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<bool> {
    println!("{:<46} {:>12} {:>14} {:>14}", "", "records/s", "broker ns/rec", "records/s/core");
    let mut good = true;
    for size in [16 << 10, 256 << 10, 1 << 20] {
        let records = size / RECORD_ON_WIRE;
        let batch = SourceBatch::new((0..records).map(|_| RECORD));
        let lz4 = batch.lz4();
        let named = |what: &str| format!("{what}, {} KiB batches", size >> 10);
        let keep = || Cluster::builder().max_bytes_retained(256 << 20);
        good &= produce(&named("produce to sink"), sink(), &batch)?;
        good &= produce(&named("produce to sink, lz4"), sink(), &lz4)?;
        good &= produce(&named("produce to sink, no checks"), sink().check_records(false), &batch)?;
        good &= produce(&named("produce, kept"), keep(), &batch)?;
        good &= produce(&named("produce, kept, lz4"), keep(), &lz4)?;
        good &= fetch(&named("fetch from source"), &batch)?;
    }
    Ok(good)
}

fn sink() -> ottla_test_broker::Builder {
    Cluster::builder().storage(Storage::Sink)
}

fn produce(
    name: &str,
    builder: ottla_test_broker::Builder,
    batch: &SourceBatch,
) -> io::Result<bool> {
    let cluster = builder.max_message_bytes(2 << 20).topic(TOPIC, 1, 1).start()?;
    let data = PartitionProduceData::default().with_records(Some(batch.bytes().clone()));
    let request = ProduceRequest::default()
        .with_transactional_id(None::<TransactionalId>)
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![
            TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]),
        ]);
    let frame = frame(ApiKey::Produce, 9, &request)?;
    let good = measure(name, &cluster, &frame, batch.records())?;
    let produced: u64 = cluster.stats().brokers.iter().map(|broker| broker.produce_records).sum();
    if produced < RECORDS as u64 {
        return Err(io::Error::other(format!("the broker accepted {produced} records only")));
    }
    Ok(good)
}

fn fetch(name: &str, batch: &SourceBatch) -> io::Result<bool> {
    let cluster =
        Cluster::builder().storage(Storage::Source(batch.clone())).topic(TOPIC, 1, 1).start()?;
    let per_response = (1 << 20) / batch.len().min(1 << 20);
    let partition =
        FetchPartition::default().with_partition_max_bytes((per_response * batch.len()) as i32);
    let request = FetchRequest::default()
        .with_max_wait_ms(1000)
        .with_min_bytes(1)
        .with_max_bytes(i32::MAX)
        .with_topics(vec![
            FetchTopic::default().with_topic(topic()).with_partitions(vec![partition]),
        ]);
    let frame = frame(ApiKey::Fetch, 12, &request)?;
    let good = measure(name, &cluster, &frame, batch.records() * per_response)?;
    let fetched: u64 = cluster.stats().brokers.iter().map(|broker| broker.fetch_bytes).sum();
    if fetched < (RECORDS / batch.records() * batch.len()) as u64 {
        return Err(io::Error::other(format!("the broker sent {fetched} bytes only")));
    }
    Ok(good)
}

/// Sends `frame` as often as `RECORDS` takes, reads as many responses, and prints a line.
fn measure(name: &str, cluster: &Cluster, frame: &[u8], per_request: usize) -> io::Result<bool> {
    let requests = RECORDS.div_ceil(per_request);
    let records = (requests * per_request) as f64;
    let mut stream = TcpStream::connect(cluster.bootstrap())?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let mut responses = stream.try_clone()?;
    // Once through everything before the clock runs.
    stream.write_all(frame)?;
    skip_responses(&mut responses, 1)?;

    let busy_before = broker_busy();
    let started = Instant::now();
    let reader = std::thread::spawn(move || skip_responses(&mut responses, requests));
    for _ in 0..requests {
        stream.write_all(frame)?;
    }
    reader.join().map_err(|_| io::Error::other("the reading thread panicked"))??;
    let elapsed = started.elapsed();
    // Without the thread's own clock the wall's stands for it: an upper bound.
    let busy = match (busy_before, broker_busy()) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => elapsed,
    };
    let per_core = records / busy.as_secs_f64();
    let verdict = if per_core >= TARGET { "" } else { "  UNDER TARGET" };
    println!(
        "{name:<46} {:>12.0} {:>14.1} {:>14.0}{verdict}",
        records / elapsed.as_secs_f64(),
        busy.as_secs_f64() * 1e9 / records,
        per_core,
    );
    Ok(per_core >= TARGET)
}

fn skip_responses(stream: &mut TcpStream, responses: usize) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..responses {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let mut left = u32::from_be_bytes(len) as usize;
        while left > 0 {
            let room = left.min(buffer.len());
            let read = stream.read(&mut buffer[..room])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read;
        }
    }
    Ok(())
}

/// Processor time of the broker's thread so far; Linux only.
fn broker_busy() -> Option<Duration> {
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        // The kernel keeps the first 15 bytes of a thread's name.
        if name.trim_end() == "ottla-test-brok" {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            return stat.split(' ').next()?.parse().ok().map(Duration::from_nanos);
        }
    }
    None
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

fn frame<T: Encodable + HeaderVersion>(
    api: ApiKey,
    version: i16,
    body: &T,
) -> io::Result<BytesMut> {
    let mut buf = BytesMut::new();
    buf.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("throughput")))
        .encode(&mut buf, T::header_version(version))
        .map_err(io::Error::other)?;
    body.encode(&mut buf, version).map_err(io::Error::other)?;
    let len = buf.len() as i32 - 4;
    buf[..4].copy_from_slice(&len.to_be_bytes());
    Ok(buf)
}
