//! `verifiable-consumer`: a member of a group that says what it does, with the arguments and the lines of
//! Kafka's `org.apache.kafka.tools.VerifiableConsumer`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ottla::{Batch, Client, Commit, Consumer, TopicPartition};
use ottla_peers::events::{Committed, Consumed, Event, Partition, print, text};
use ottla_peers::{properties, stop::Stop};

/// Records that are handled together, as with Java's `max.poll.records`.
const POLL: usize = 500;

/// Consumes a topic in a group, and prints what happens as JSON, one object a line.
#[derive(Debug, Parser)]
#[command(name = "verifiable-consumer")]
struct Args {
    /// HOST:PORT, with commas.
    #[arg(long, alias = "broker-list")]
    bootstrap_server: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    group_id: String,
    /// classic or consumer.
    #[arg(long, default_value = "classic", ignore_case = true, value_parser = ["classic", "consumer"])]
    group_protocol: String,
    /// With `--group-protocol consumer`: the assignor of the brokers.
    #[arg(long)]
    group_remote_assignor: Option<String>,
    /// Makes it a static member.
    #[arg(long)]
    group_instance_id: Option<String>,
    /// Ends after so many records; -1: never.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    max_messages: i64,
    /// With `--group-protocol classic`, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    session_timeout: u64,
    /// Print each record.
    #[arg(long)]
    verbose: bool,
    /// Commit now and then instead of behind each batch.
    #[arg(long)]
    enable_autocommit: bool,
    /// earliest or latest.
    #[arg(long, default_value = "earliest")]
    reset_policy: String,
    /// With `--group-protocol classic`: names of assignors, or Java's classes of them, with commas.
    #[arg(long, default_value = "org.apache.kafka.clients.consumer.RangeAssignor")]
    assignment_strategy: String,
    /// A file of properties; what is named on the command line wins.
    #[arg(long = "command-config", alias = "consumer.config")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = made.map_err(|e| e.to_string()).and_then(|runtime| runtime.block_on(run(args)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("verifiable-consumer: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), String> {
    // Before anything is opened: a signal from now on is a clean end.
    let stop = Stop::on_signals().map_err(|e| e.to_string())?;
    let consumer = build(&args)?;
    let is_wrong = |e: std::io::Error| format!("nobody reads what is printed: {e}");
    print(Event::StartupComplete).map_err(is_wrong)?;
    let mut member = Member { args, consumer, held: Vec::new(), consumed: 0, has_ended: false };
    let ended = member.read(stop).await;
    member.leave().await?;
    print(Event::ShutdownComplete).map_err(is_wrong)?;
    ended
}

fn build(args: &Args) -> Result<Consumer, String> {
    let mut properties = match &args.config {
        None => Vec::new(),
        Some(path) => properties::load(path)?,
    };
    let mut set = |name: &str, value: &str| {
        properties.retain(|(known, _)| known != name);
        properties.push((name.to_owned(), value.to_owned()));
    };
    set("bootstrap.servers", &args.bootstrap_server);
    set("group.id", &args.group_id);
    set("auto.offset.reset", &args.reset_policy);
    set("group.protocol", &args.group_protocol.to_lowercase());
    if let Some(id) = &args.group_instance_id {
        set("group.instance.id", id);
    }
    let is_next = args.group_protocol.eq_ignore_ascii_case("consumer");
    if is_next {
        if let Some(assignor) = &args.group_remote_assignor {
            set("group.remote.assignor", assignor);
        }
    } else {
        set("partition.assignment.strategy", &args.assignment_strategy);
        set("session.timeout.ms", &args.session_timeout.to_string());
    }
    // Who commits is what the command line says.
    let commits = ["enable.auto.commit", "enable.auto.offset.store"];
    properties.retain(|(name, _)| !commits.contains(&name.as_str()));
    let commit = if args.enable_autocommit { Commit::Marks } else { Commit::ManualAcked };
    let client = Client::builder().from_properties(properties.clone()).build();
    let consumer = client.and_then(|client| {
        let consumer = client.consumer().from_properties(properties).commit(commit);
        consumer.topics([&args.topic]).build()
    });
    consumer.map_err(|e| e.to_string())
}

struct Member {
    args: Args,
    consumer: Consumer,
    held: Vec<TopicPartition>,
    consumed: i64,
    has_ended: bool,
}

fn named(partitions: &[TopicPartition]) -> Vec<Partition> {
    let one = |p: &TopicPartition| Partition { topic: p.topic.to_string(), partition: p.partition };
    partitions.iter().map(one).collect()
}

impl Member {
    fn is_finished(&self) -> bool {
        self.args.max_messages >= 0 && self.consumed >= self.args.max_messages
    }

    /// Until it is told to end, has had enough, or cannot go on.
    async fn read(&mut self, mut stop: Stop) -> Result<(), String> {
        while !self.is_finished() {
            let mut next = tokio::select! {
                biased;
                () = stop.told() => return Ok(()),
                next = self.consumer.next_event() => next,
            };
            // Batches that are there are handled together, as those of one poll of Java's are: one commit for all.
            let mut batches = Vec::new();
            let mut records = 0;
            let other = loop {
                match next {
                    Some(Ok(ottla::Event::Batch(batch))) => {
                        records += batch.len();
                        batches.push(batch);
                    }
                    other => break Some(other),
                }
                if records >= POLL {
                    break None;
                }
                next = tokio::select! {
                    biased;
                    next = self.consumer.next_event() => next,
                    () = std::future::ready(()) => break None,
                };
            };
            let done = self.take(&batches).await;
            // What comes behind them is said behind them.
            done.and_then(|()| other.map_or(Ok(()), |other| self.hear(other)))
                .map_err(|e| format!("nobody reads what is printed: {e}"))?;
            if self.has_ended {
                return Err("the consumer has ended".into());
            }
        }
        Ok(())
    }

    /// What is not records.
    fn hear(&mut self, event: Option<ottla::Result<ottla::Event>>) -> std::io::Result<()> {
        match event {
            None => {
                self.has_ended = true;
                Ok(())
            }
            // The consumer goes on by itself where it can; where it cannot, its end follows.
            Some(Err(error)) => {
                eprintln!("verifiable-consumer: {error}");
                Ok(())
            }
            Some(Ok(ottla::Event::Assigned(partitions))) => {
                self.held.extend_from_slice(&partitions);
                print(Event::PartitionsAssigned { partitions: named(&partitions) })
            }
            Some(Ok(
                ottla::Event::GivingUp { partitions, .. } | ottla::Event::Lost(partitions),
            )) => {
                self.held.retain(|held| !partitions.contains(held));
                print(Event::PartitionsRevoked { partitions: named(&partitions) })
            }
            Some(Ok(_)) => Ok(()),
        }
    }

    async fn take(&mut self, batches: &[Batch]) -> std::io::Result<()> {
        let (mut parts, mut total): (Vec<Consumed>, u64) = (Vec::new(), 0);
        for batch in batches {
            let wanted = match self.args.max_messages {
                most if most >= 0 => usize::try_from(most - self.consumed).unwrap_or(0),
                _ => usize::MAX,
            };
            let count = batch.len().min(wanted);
            let Some(last) = count.checked_sub(1).and_then(|last| batch.get(last)) else {
                continue;
            };
            let max_offset = last.offset();
            if self.args.verbose {
                for record in batch.iter().take(count) {
                    print(Event::RecordData {
                        key: record.key().map(text),
                        value: record.value().map(text),
                        topic: batch.topic().to_owned(),
                        partition: batch.partition(),
                        offset: record.offset(),
                    })?;
                }
            }
            let whole = count == batch.len();
            batch.ack_before(if whole { batch.next_offset() } else { max_offset + 1 });
            self.consumed += i64::try_from(count).unwrap_or(i64::MAX);
            let count = count as u64;
            total += count;
            let of = |part: &&mut Consumed| {
                part.topic == batch.topic() && part.partition == batch.partition()
            };
            if let Some(part) = parts.iter_mut().find(of) {
                (part.count, part.max_offset) = (part.count + count, max_offset);
            } else {
                parts.push(Consumed {
                    topic: batch.topic().to_owned(),
                    partition: batch.partition(),
                    count,
                    min_offset: batch.base_offset(),
                    max_offset,
                });
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        let offsets = parts.iter().map(|part| Committed {
            topic: part.topic.clone(),
            partition: part.partition,
            offset: part.max_offset + 1,
        });
        let offsets = offsets.collect();
        print(Event::RecordsConsumed { count: total, partitions: parts })?;
        if self.args.enable_autocommit {
            return Ok(());
        }
        let committed = self.consumer.commit().await;
        let success = committed.is_ok();
        let error = committed.err().map(|e| e.to_string());
        print(Event::OffsetsCommitted { offsets, error, success })
    }

    /// What it has is told as given up, as Java's does when it is closed.
    async fn leave(self) -> Result<(), String> {
        let Self { mut consumer, held, .. } = self;
        if !held.is_empty() {
            print(Event::PartitionsRevoked { partitions: named(&held) })
                .map_err(|e| e.to_string())?;
        }
        consumer.close().await.map_err(|e| e.to_string())
    }
}
