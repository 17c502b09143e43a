//! What Produce requests cost a real broker, in time of its processor: what the price of the
//! embedded broker ([`ottla_test_broker::Price`]) is taken from.
//!
//! ```console
//! cargo xtask bench broker-price [--json] [--seconds N] [--connections N]
//! ```
//!
//! One broker with Java as in production. Connections of an idempotent producer's kind (acks=all, at
//! most five requests in flight) ask at steady times; what the broker's process takes is read from
//! `/proc` around each stretch, and what it takes when nobody asks is taken off. First small requests
//! at rising rates, then as many as it can of other shapes, whose differences are what a record, a byte and a
//! batch more cost.

use std::collections::VecDeque;
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ottla_test_broker::SourceBatch;
use ottla_test_kafka::{Cluster, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

type Result<T> = std::result::Result<T, String>;

const TOPIC: &str = "priced";
/// What a client may have under way at once.
const IN_FLIGHT: usize = 5;
/// Before a stretch is measured.
const SETTLE: Duration = Duration::from_secs(3);
/// Until Java has compiled what matters.
const WARM: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Requests a second, all connections together.
    rate: u64,
    /// Batches in each, of as many partitions.
    batches: usize,
    /// Records in each batch.
    records: usize,
    /// Bytes of each record's value.
    value: usize,
}

const SMALL: Load = Load { rate: 0, batches: 1, records: 1, value: 100 };
/// More than a broker on a small machine can answer: the more there is to do, the less of it goes into
/// waking threads up, and what is left is what a broker that is busy pays.
const RATE: u64 = 50_000;

struct Row {
    load: Load,
    answered: f64,
    cpu: f64,
    p50_us: u64,
    p99_us: u64,
}

struct Args {
    json: bool,
    seconds: u64,
    connections: usize,
}

fn main() -> ExitCode {
    match args(std::env::args().skip(1)).and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("broker_price: {why}");
            ExitCode::FAILURE
        }
    }
}

fn args(mut words: impl Iterator<Item = String>) -> Result<Args> {
    let mut args = Args { json: false, seconds: 10, connections: 40 };
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|value| value.parse::<u32>().ok());
            value.filter(|n| *n > 0).ok_or_else(|| format!("{word} needs a number from 1"))
        };
        match word.as_str() {
            "--json" => args.json = true,
            "--seconds" => args.seconds = number()?.into(),
            "--connections" => args.connections = number()? as usize,
            _ => return Err("usage: [--json] [--seconds N] [--connections N]".to_owned()),
        }
    }
    Ok(args)
}

fn run(args: &Args) -> Result<()> {
    let properties = [
        // Kafka's defaults.
        ("num.network.threads", "3"),
        ("num.io.threads", "8"),
        // What is written here would fill a small disk.
        ("log.segment.bytes", "67108864"),
        ("log.retention.bytes", "67108864"),
        ("log.retention.ms", "-1"),
        ("log.retention.check.interval.ms", "2000"),
        ("log.segment.delete.delay.ms", "1000"),
    ];
    let properties =
        properties.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let options =
        Options { brokers: 1, heap_mib: 1024, measured: true, properties, ..Options::default() };
    let cluster = Cluster::start(options).map_err(|e| e.to_string())?;
    let partitions = args.connections * 6;
    create_topic(&cluster, partitions)?;
    let pid = cluster.broker_pid(1).map_err(|e| e.to_string())?;
    let address = cluster.bootstrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let measure = |load: Load, settle: Duration, seconds: u64| {
        runtime.block_on(stretch(&address, pid, args.connections, load, settle, seconds))
    };
    eprintln!("broker_price: {} s until it is warm", WARM.as_secs());
    measure(Load { rate: 10_000, ..SMALL }, WARM, 1)?;

    let mut rows = Vec::new();
    let shapes = [
        SMALL,
        Load { rate: 1_000, ..SMALL },
        Load { rate: 10_000, ..SMALL },
        Load { rate: RATE, ..SMALL },
        Load { rate: RATE, batches: 6, ..SMALL },
        Load { rate: RATE, value: 10_000, ..SMALL },
        Load { rate: RATE, value: 100, records: 93, ..SMALL },
    ];
    for load in shapes {
        eprintln!("broker_price: {load:?}");
        rows.push(measure(load, SETTLE, args.seconds)?);
    }
    print(args, &rows);
    Ok(())
}

fn create_topic(cluster: &Cluster, partitions: usize) -> Result<()> {
    let partitions = partitions.to_string();
    let args = ["--bootstrap-server", cluster.bootstrap(), "--create", "--topic", TOPIC];
    let more = ["--partitions", &partitions, "--replication-factor", "1"];
    let mut tool: Command =
        cluster.run_tool("org.apache.kafka.tools.TopicCommand", &[&args[..], &more[..]].concat());
    let done = tool.stdout(Stdio::null()).status().map_err(|e| e.to_string())?;
    if !done.success() {
        return Err(format!("creating the topic ended with {done}"));
    }
    cluster.wait_in_sync(&[TOPIC]).map_err(|e| e.to_string())
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    measuring: AtomicBool,
    answered: AtomicU64,
    micros: Mutex<Vec<u32>>,
}

/// One load for a while; what the broker answered and took for it.
async fn stretch(
    address: &str,
    pid: u32,
    connections: usize,
    load: Load,
    settle: Duration,
    seconds: u64,
) -> Result<Row> {
    let shared = Arc::new(Shared::default());
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = (0..connections)
        .filter(|_| load.rate > 0)
        .map(|number| {
            let every = Duration::from_secs_f64(connections as f64 / load.rate as f64);
            let phase = every.mul_f64(number as f64 / connections as f64);
            let asks = ask(address.to_owned(), number, load, (every, phase), Arc::clone(&shared));
            local.spawn_local(asks)
        })
        .collect();
    let taken = local
        .run_until(async {
            tokio::time::sleep(settle).await;
            shared.measuring.store(true, Ordering::Relaxed);
            let (cpu, answered, began) = (cpu_of(pid)?, shared.count(), Instant::now());
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let took = began.elapsed().as_secs_f64();
            let cpu = (cpu_of(pid)? - cpu).as_secs_f64() / took;
            let answered = (shared.count() - answered) as f64 / took;
            shared.stop.store(true, Ordering::Relaxed);
            for task in tasks {
                task.await.map_err(|e| e.to_string())??;
            }
            Ok::<_, String>((cpu, answered))
        })
        .await?;
    let mut micros = std::mem::take(&mut *shared.micros.lock().expect("nobody panicked"));
    micros.sort_unstable();
    let quantile = |share: f64| {
        let rank = (micros.len() as f64 * share) as usize;
        micros.get(rank).copied().unwrap_or(0).into()
    };
    let (cpu, answered) = taken;
    Ok(Row { load, answered, cpu, p50_us: quantile(0.5), p99_us: quantile(0.99) })
}

impl Shared {
    fn count(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// One connection. Who is late catches up, as far as there is room for what is under way.
async fn ask(
    address: String,
    number: usize,
    load: Load,
    (every, phase): (Duration, Duration),
    shared: Arc<Shared>,
) -> Result<()> {
    let words = |e: std::io::Error| format!("connection {number}: {e}");
    let stream = TcpStream::connect(&address).await.map_err(words)?;
    stream.set_nodelay(true).map_err(words)?;
    let (mut from, mut to) = stream.into_split();
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let asked = Arc::new(Mutex::new(VecDeque::new()));

    let reads = {
        let (room, asked, shared) = (Arc::clone(&room), Arc::clone(&asked), Arc::clone(&shared));
        tokio::task::spawn_local(async move {
            let mut frame = Vec::new();
            loop {
                let Ok(len) = from.read_u32().await else { return Ok(()) };
                frame.resize(len as usize, 0);
                from.read_exact(&mut frame).await.map_err(|e| e.to_string())?;
                check(&frame)?;
                room.add_permits(1);
                shared.answered.fetch_add(1, Ordering::Relaxed);
                let at: Instant =
                    asked.lock().expect("nobody panicked").pop_front().ok_or("never asked")?;
                if shared.measuring.load(Ordering::Relaxed) {
                    let took = at.elapsed().as_micros().try_into().unwrap_or(u32::MAX);
                    shared.micros.lock().expect("nobody panicked").push(took);
                }
            }
        })
    };

    // Of this run and connection: a broker knows what an id has sent before.
    let producer = i64::from(std::process::id()) << 20 | started() << 8 | number as i64;
    let batch = SourceBatch::new((0..load.records).map(|_| vec![b'x'; load.value]));
    let mut request = Vec::new();
    let mut next = tokio::time::Instant::now() + phase;
    let mut sequence = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        tokio::time::sleep_until(next).await;
        next += every;
        room.acquire().await.map_err(|e| e.to_string())?.forget();
        encode(&mut request, number, load, &batch.with_producer(producer, 0, sequence));
        sequence += load.records as i32;
        asked.lock().expect("nobody panicked").push_back(Instant::now());
        to.write_all(&request).await.map_err(words)?;
    }
    // Until all is answered.
    let _all = room.acquire_many(IN_FLIGHT as u32).await.map_err(|e| e.to_string())?;
    drop(to);
    reads.await.map_err(|e| e.to_string())?
}

/// A number that no other stretch of this run has.
fn started() -> i64 {
    static STRETCHES: AtomicU64 = AtomicU64::new(0);
    STRETCHES.fetch_add(1, Ordering::Relaxed) as i64
}

/// Produce version 7: before the compact encoding. The same batch for each of the partitions of this
/// connection.
fn encode(request: &mut Vec<u8>, number: usize, load: Load, batch: &SourceBatch) {
    request.clear();
    request.extend([0; 4]);
    // Header v1: key, version, correlation, client id; body: no transactional id, acks, timeout.
    request.extend([0, 0, 0, 7, 0, 0, 0, 1, 0, 5]);
    request.extend(b"price");
    request.extend([0xff, 0xff, 0xff, 0xff]);
    request.extend(30_000_i32.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    request.extend((TOPIC.len() as i16).to_be_bytes());
    request.extend(TOPIC.as_bytes());
    request.extend((load.batches as i32).to_be_bytes());
    for partition in 0..load.batches {
        request.extend((number as i32 * 6 + partition as i32).to_be_bytes());
        request.extend((batch.len() as i32).to_be_bytes());
        request.extend_from_slice(batch.bytes());
    }
    let len = request.len() as u32 - 4;
    request[..4].copy_from_slice(&len.to_be_bytes());
}

/// Whether the first partition of an answer has no error.
fn check(answer: &[u8]) -> Result<()> {
    // Correlation, count of topics, name, count of partitions, partition.
    let at = 4 + 4 + 2 + TOPIC.len() + 4 + 4;
    match answer.get(at..at + 2) {
        Some([0, 0]) => Ok(()),
        Some([a, b]) => Err(format!("refused with {}", i16::from_be_bytes([*a, *b]))),
        _ => Err("not an answer".to_owned()),
    }
}

/// User and system time of a process, in the hundredths of a second that Linux counts for all.
fn cpu_of(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    // "pid (name) state ...", and a name may hold anything.
    let rest = text.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<u64> = rest.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    match fields.get(11..13) {
        Some([user, system]) => Ok(Duration::from_millis((user + system) * 10)),
        _ => Err(format!("{path} says nothing of time")),
    }
}

fn print(args: &Args, rows: &[Row]) {
    let idle = rows[0].cpu;
    let micros = |row: &Row| (row.cpu - idle) / row.answered * 1e6;
    if !args.json {
        println!(
            "{:>10} {:>8} {:>8} {:>7}  {:>10} {:>11} {:>14} {:>8} {:>8}",
            "asked/s",
            "batches",
            "records",
            "value",
            "answered/s",
            "CPU, cores",
            "us a request",
            "p50, us",
            "p99, us"
        );
    }
    for row in rows {
        let Load { rate, batches, records, value } = row.load;
        let each = if rate > 0 { micros(row) } else { 0.0 };
        if args.json {
            println!(
                "{{\"asked_per_s\":{rate},\"batches\":{batches},\"records\":{records},\
                 \"value\":{value},\"answered_per_s\":{:.0},\"cores\":{:.3},\
                 \"us_per_request\":{each:.1},\"ack_p50_us\":{},\"ack_p99_us\":{}}}",
                row.answered, row.cpu, row.p50_us, row.p99_us
            );
        } else {
            println!(
                "{rate:>10} {batches:>8} {records:>8} {value:>7}  {:>10.0} {:>11.3} {each:>14.1} \
                 {:>8} {:>8}",
                row.answered, row.cpu, row.p50_us, row.p99_us
            );
        }
    }
    let [_, _, _, small, batches, large, many] = rows else { return };
    // What the broker takes for one more of each.
    let bytes = (large.load.value - small.load.value) as f64;
    let kib = (micros(large) - micros(small)) / bytes * 1024.0;
    let batch = (micros(batches) - micros(small)) / 5.0;
    let more = (many.load.records - small.load.records) as f64;
    // Each record of the batch brings its value and some bytes around it.
    let size = |load: Load| SourceBatch::new(vec![vec![0; load.value]; load.records]).len() as f64;
    let grown = size(many.load) - size(small.load);
    let record = (micros(many) - micros(small) - grown / 1024.0 * kib) / more;
    let request = micros(small) - batch - record - kib * size(SMALL) / 1024.0;
    if args.json {
        println!(
            "{{\"request_us\":{request:.1},\"batch_us\":{batch:.1},\"record_us\":{record:.3},\
             \"kib_us\":{kib:.3}}}"
        );
    } else {
        println!(
            "a request {request:.1} us, a batch {batch:.1} us, a record {record:.3} us, 1,024 bytes \
             {kib:.3} us; of the request at the highest rate"
        );
    }
}
