//! `verifiable-producer`: writes growing numbers and says what became of each, with the arguments and the lines of
//! Kafka's `org.apache.kafka.tools.VerifiableProducer`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use ottla::{Client, Delivery, Partitioner, Producer, Record};
use ottla_peers::events::{Event, now_ms, print};
use ottla_peers::{properties, stop::Stop};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Records whose fate is waited for at one time, at most.
const IN_FLIGHT: usize = 10_000;

/// As long as a record may take until it has failed, and some more.
const CLOSE: Duration = Duration::from_secs(150);

/// Produces growing numbers, and prints as JSON what became of each, one object a line.
#[derive(Debug, Parser)]
#[command(name = "verifiable-producer")]
struct Args {
    #[arg(long)]
    topic: String,
    /// HOST:PORT, with commas.
    #[arg(long, alias = "broker-list")]
    bootstrap_server: String,
    /// How many; -1: until it is told to end.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    max_messages: i64,
    /// Records a second, about; -1: as many as go.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    throughput: i64,
    /// Who must have a record: 0, 1, or -1 for all in-sync replicas.
    #[arg(long, default_value = "-1", allow_hyphen_values = true, value_parser = ["0", "1", "-1"])]
    acks: String,
    /// Time of the first record in milliseconds since 1970; -1: now.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    message_create_time: i64,
    /// Values are this, a dot and the number.
    #[arg(long)]
    value_prefix: Option<i64>,
    /// Keys are 0 to this, over and over. Records of one key go to one partition, as Java's do.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    repeating_keys: Option<u64>,
    /// A file of properties, which win over the command line.
    #[arg(long = "command-config", alias = "producer.config")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = made.map_err(|e| e.to_string()).and_then(|runtime| runtime.block_on(run(args)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("verifiable-producer: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), String> {
    let stop = Stop::on_signals().map_err(|e| e.to_string())?;
    let producer = build(&args)?;
    let is_wrong = |e: std::io::Error| format!("nobody reads what is printed: {e}");
    print(Event::StartupComplete).map_err(is_wrong)?;
    let begun = Instant::now();
    let (sent, acked) = send(&args, &producer, stop).await?;
    print(Event::ShutdownComplete).map_err(is_wrong)?;
    let seconds = begun.elapsed().as_secs_f64();
    let avg_throughput = if seconds > 0.0 { acked as f64 / seconds } else { 0.0 };
    let target_throughput = args.throughput;
    print(Event::ToolData { sent, acked, target_throughput, avg_throughput }).map_err(is_wrong)
}

fn build(args: &Args) -> Result<Producer, String> {
    let mut properties = vec![
        ("bootstrap.servers".to_owned(), args.bootstrap_server.clone()),
        ("acks".to_owned(), args.acks.clone()),
    ];
    for (name, value) in
        args.config.as_deref().map(properties::load).transpose()?.into_iter().flatten()
    {
        properties.retain(|(known, _)| *known != name);
        properties.push((name, value));
    }
    let client = Client::builder().from_properties(properties.clone()).build();
    let producer = client.and_then(|client| {
        let producer = client.producer();
        // Said first: a property may say otherwise.
        let producer = match args.repeating_keys {
            Some(_) => producer.partitioner(Partitioner::KeyHash),
            None => producer,
        };
        producer.from_properties(properties).build()
    });
    producer.map_err(|e| e.to_string())
}

/// How many were sent, and acknowledged.
async fn send(args: &Args, producer: &Producer, mut stop: Stop) -> Result<(u64, u64), String> {
    let most = u64::try_from(args.max_messages).unwrap_or(u64::MAX);
    let begun = (Instant::now(), i64::try_from(now_ms()).unwrap_or(0));
    let acked = Arc::new(AtomicU64::new(0));
    let mut waiting: JoinSet<std::io::Result<()>> = JoinSet::new();
    let is_wrong = |e: &dyn std::fmt::Display| format!("nobody reads what is printed: {e}");
    let mut sent = 0;
    while sent < most && !stop.is_told() {
        if let Ok(rate @ 0..) = u32::try_from(args.throughput) {
            // None at all is written at 0, which is what was asked for.
            let due = if rate == 0 {
                None
            } else {
                Some(begun.0 + Duration::from_secs_f64(sent as f64 / f64::from(rate)))
            };
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.told() => break,
                () = due => {}
            }
        }
        let key = args.repeating_keys.map(|keys| (sent % keys).to_string());
        let value = match args.value_prefix {
            Some(prefix) => format!("{prefix}.{sent}"),
            None => sent.to_string(),
        };
        let mut record =
            Record::to(&args.topic).key_opt(key.as_ref().map(|key| key.as_bytes())).value(&value);
        if args.message_create_time >= 0 {
            let since = i64::try_from(now_ms()).unwrap_or(0) - begun.1;
            record = record.timestamp_ms(args.message_create_time + since);
        }
        let taken = producer.send(record).await;
        sent += 1;
        let (topic, acked) = (args.topic.clone(), Arc::clone(&acked));
        waiting.spawn(tell(topic, key, value, taken, acked));
        while let Some(ended) = match waiting.len() {
            IN_FLIGHT.. => waiting.join_next().await,
            _ => waiting.try_join_next(),
        } {
            ended.map_err(|e| is_wrong(&e))?.map_err(|e| is_wrong(&e))?;
        }
    }
    let closed = producer.close(CLOSE).await;
    while let Some(ended) = waiting.join_next().await {
        ended.map_err(|e| is_wrong(&e))?.map_err(|e| is_wrong(&e))?;
    }
    if let Err(error) = closed {
        eprintln!("verifiable-producer: {error}");
    }
    Ok((sent, acked.load(Ordering::Relaxed)))
}

/// Prints what becomes of a record.
async fn tell(
    topic: String,
    key: Option<String>,
    value: String,
    taken: ottla::Result<Delivery>,
    acked: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let outcome = match taken {
        Ok(delivery) => delivery.await,
        Err(error) => Err(error),
    };
    print(match outcome {
        Ok(at) => {
            acked.fetch_add(1, Ordering::Relaxed);
            Event::ProducerSendSuccess {
                key,
                value,
                topic,
                partition: at.partition,
                offset: at.offset,
            }
        }
        Err(error) => {
            let exception = format!("ottla::ErrorKind::{:?}", error.kind());
            Event::ProducerSendError { topic, key, value, exception, message: error.to_string() }
        }
    })
}
