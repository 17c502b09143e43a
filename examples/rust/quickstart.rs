//! The main job in one program: a million records to 12 partitions of a three-broker cluster while
//! they are read back, each checked to come exactly once.
//!
//! Without arguments the cluster is the embedded one, in this process. `--bootstrap HOST:PORT` runs
//! the same on a real one, in a topic of its own. `--group 3` has them read by three members of a group, one of
//! which leaves half way, with another in its place.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ottla::testing::Cluster;
use ottla::{Batch, Client, Consumer, NewTopic, Producer, Record};
use tokio::sync::watch;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Produces and consumes a million records, and shows how it went.")]
struct Args {
    /// Records to send.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 12)]
    partitions: i32,
    /// Bytes of each value (16 at least).
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// A cluster to run on instead of the embedded one: "host:port,host:port".
    #[arg(long)]
    bootstrap: Option<String>,
    /// Copies of each partition on that cluster.
    #[arg(long, default_value_t = -1)]
    replication: i16,
    /// Read by so many members of a group, 1 to 100, instead of by one consumer of its own.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    group: Option<u32>,
    /// Give up if the records have not all come back by then, in seconds.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

/// One record in so many has its acknowledgement timed.
const SAMPLE: u64 = 16;

fn main() -> Result<(), AnyError> {
    let args = Args::parse();
    if args.size < 16 {
        return Err("--size must be 16 at least: each value carries its number".into());
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> Result<(), AnyError> {
    let embedded = match &args.bootstrap {
        Some(_) => None,
        None => Some(Cluster::builder().brokers(3).max_bytes_retained(1 << 30).start()?),
    };
    let bootstrap = match (&args.bootstrap, &embedded) {
        (Some(given), _) => given.clone(),
        (None, Some(cluster)) => cluster.bootstrap(),
        (None, None) => unreachable!("one of both is there"),
    };
    let client = Client::connect(&bootstrap).await?;
    let topic = match embedded {
        Some(_) => "quickstart".to_owned(),
        None => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            format!("ottla-quickstart-{}", now.as_millis())
        }
    };
    let replication = if embedded.is_some() { 3 } else { args.replication };
    client.admin().create_topic(NewTopic::new(&topic, args.partitions, replication)).await?;
    println!(
        "{} records of {} bytes, {} partitions, {}",
        grouped(args.records),
        args.size,
        args.partitions,
        if embedded.is_some() { "3 embedded brokers" } else { &bootstrap }
    );

    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(args.records), target).with_style(
        ProgressStyle::with_template(
            "{bar:40} {percent:>3} %  read {human_pos} of {human_len}  {per_sec}",
        )?,
    );
    let reader = match args.group {
        Some(members) => {
            let group = Group::new(&client, &topic, args.records, bar);
            tokio::spawn(group.read(members))
        }
        None => {
            let consumer = client.consumer().topics([topic.as_str()]).build()?;
            tokio::spawn(read(consumer, args.records, bar))
        }
    };
    let producer = client.producer().build()?;
    let sent = send(&producer, &topic, args).await?;
    let limit = Duration::from_secs(args.timeout);
    let read = tokio::time::timeout(limit, reader)
        .await
        .map_err(|_| format!("not every record came back within {limit:?}"))???;

    summary(args, &client, &sent, &read);
    let missing = read.seen.iter().filter(|n| **n == 0).count();
    let doubled = read.seen.iter().filter(|n| **n > 1).count();
    if missing + doubled > 0 {
        return Err(format!("{missing} records are missing, {doubled} came more than once").into());
    }
    println!("every record came back exactly once");
    Ok(())
}

struct Sent {
    took: Duration,
    acks: Histogram<u64>,
}

async fn send(producer: &Producer, topic: &str, args: &Args) -> Result<Sent, AnyError> {
    let begin = Instant::now();
    let (times_tx, mut times) = tokio::sync::mpsc::unbounded_channel();
    let failed = Arc::new(AtomicU64::new(0));
    // Acknowledgements are awaited beside the sending, as a service would.
    let watch = {
        let failed = Arc::clone(&failed);
        tokio::spawn(async move {
            let mut acks = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3)
                .expect("a microsecond to an hour in 3 digits");
            let mut first_error = None;
            while let Some((at, delivery)) = times.recv().await {
                let (at, delivery): (Instant, ottla::Delivery) = (at, delivery);
                match delivery.await {
                    Ok(_) => acks.saturating_record(at.elapsed().as_micros() as u64),
                    Err(e) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        first_error.get_or_insert(e);
                    }
                }
            }
            (acks, first_error)
        })
    };
    let mut value = vec![b'.'; args.size];
    for i in 0..args.records {
        value[..16].copy_from_slice(format!("{i:016}").as_bytes());
        let delivery = producer.send(Record::to(topic).value(&value)).await?;
        if i % SAMPLE == 0 {
            times_tx.send((Instant::now(), delivery))?;
        }
    }
    producer.flush().await?;
    let took = begin.elapsed();
    drop(times_tx);
    let (acks, first_error) = watch.await?;
    match first_error {
        Some(e) => Err(e.into()),
        None => Ok(Sent { took, acks }),
    }
}

struct Read {
    took: Duration,
    seen: Vec<u8>,
    by_partition: BTreeMap<i32, u64>,
    /// Of each member of a group, how many it has read.
    by_member: Vec<u64>,
}

impl Read {
    fn new(records: u64) -> Self {
        Self {
            took: Duration::ZERO,
            seen: vec![0; records as usize],
            by_partition: BTreeMap::new(),
            by_member: Vec::new(),
        }
    }

    fn note(&mut self, batch: &Batch) -> Result<(), AnyError> {
        for record in batch {
            let number = record
                .value()
                .and_then(|v| std::str::from_utf8(v.get(..16)?).ok()?.parse::<usize>().ok())
                .filter(|n| *n < self.seen.len())
                .ok_or("a record that was never sent")?;
            self.seen[number] = self.seen[number].saturating_add(1);
        }
        *self.by_partition.entry(batch.partition()).or_default() += batch.len() as u64;
        Ok(())
    }
}

async fn read(mut consumer: Consumer, records: u64, bar: ProgressBar) -> Result<Read, AnyError> {
    let begin = Instant::now();
    let mut read = Read::new(records);
    let mut left = records;
    while left > 0 {
        let Some(batch) = consumer.next().await.transpose()? else { break };
        read.note(&batch)?;
        let n = batch.len() as u64;
        left = left.saturating_sub(n);
        bar.inc(n);
    }
    bar.finish_and_clear();
    read.took = begin.elapsed();
    Ok(read)
}

/// Members of a group, who read together.
#[derive(Clone)]
struct Group {
    client: Client,
    topic: String,
    records: u64,
    read: Arc<Mutex<Read>>,
    /// How many are still to come; whoever reads the last of them tells the others.
    left: Arc<watch::Sender<u64>>,
    bar: ProgressBar,
}

impl Group {
    fn new(client: &Client, topic: &str, records: u64, bar: ProgressBar) -> Self {
        let read = Arc::new(Mutex::new(Read::new(records)));
        let left = Arc::new(watch::Sender::new(records));
        Self { client: client.clone(), topic: topic.to_owned(), records, read, left, bar }
    }

    async fn read(self, members: u32) -> Result<Read, AnyError> {
        let begin = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for _ in 1..members {
            all.spawn(self.clone().member(0));
        }
        // One leaves half way, in order, and another comes.
        let me = self.clone();
        all.spawn(async move {
            me.clone().member(me.records / 2).await?;
            me.member(0).await
        });
        while let Some(ended) = all.join_next().await {
            ended??;
        }
        self.bar.finish_and_clear();
        let mut read = self.read.lock().expect("nobody panics with it");
        read.took = begin.elapsed();
        Ok(std::mem::replace(&mut read, Read::new(0)))
    }

    /// Reads until no more than so many are to come.
    async fn member(self, until: u64) -> Result<(), AnyError> {
        let consumer = self.client.consumer().group(&self.topic).topics([&self.topic]);
        let mut consumer = consumer.build()?;
        let mut left = self.left.subscribe();
        let mut count = 0;
        loop {
            let batch = tokio::select! {
                batch = consumer.next() => batch,
                _ = left.wait_for(|left| *left <= until) => break,
            };
            let Some(batch) = batch.transpose()? else { break };
            let n = batch.len() as u64;
            self.read.lock().expect("nobody panics with it").note(&batch)?;
            count += n;
            self.bar.inc(n);
            // All of it is done, though the next is not asked for yet.
            batch.ack();
            self.left.send_modify(|left| *left = left.saturating_sub(n));
        }
        // Commits what is done, and leaves: the others go on behind it.
        consumer.close().await?;
        self.read.lock().expect("nobody panics with it").by_member.push(count);
        Ok(())
    }
}

fn summary(args: &Args, client: &Client, sent: &Sent, read: &Read) {
    let stats = client.stats();
    let rate = |took: Duration| grouped((args.records as f64 / took.as_secs_f64()) as u64);
    let ms = |q: f64| sent.acks.value_at_quantile(q) as f64 / 1000.0;
    println!();
    println!("  produced        {:>12} messages/s", rate(sent.took));
    println!("  consumed        {:>12} messages/s", rate(read.took));
    println!("  acknowledged    p50 {:.2} ms, p99 {:.2} ms", ms(0.5), ms(0.99));
    println!(
        "  requests        {} produce ({} records each), {} fetch, {} metadata",
        stats.produce_requests,
        grouped(args.records / stats.produce_requests.max(1)),
        stats.fetch_requests,
        stats.metadata_requests
    );
    println!("  per 1,000       {:.1} requests of all kinds", stats.requests_per_1000_messages);
    println!("  connections     {} opened, {} failed", stats.connects, stats.connect_failures);
    println!("  bad stuff       {}", stats.bad_stuff);
    let share = |n: u64| 100.0 * n as f64 / args.records as f64;
    let brokers: Vec<_> = stats
        .acknowledged_by_broker
        .iter()
        .map(|(broker, n)| format!("{broker}: {:.1} %", share(*n)))
        .collect();
    println!("  by broker       {}", brokers.join("   "));
    if !read.by_member.is_empty() {
        let members: Vec<_> =
            read.by_member.iter().map(|n| format!("{:.1} %", share(*n))).collect();
        println!("  by member       {}", members.join("   "));
    }
    println!("  by partition");
    for partition in 0..args.partitions {
        let n = read.by_partition.get(&partition).copied().unwrap_or(0);
        let width = (share(n) * 2.0).round() as usize;
        println!("    {partition:>4}  {:>5.1} %  {}", share(n), "#".repeat(width.min(60)));
    }
    println!();
}

/// 1234567 as 1,234,567.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
