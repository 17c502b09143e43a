//! The other side, in a process of its own: three brokers that forget what they are sent and give
//! the same batch for ever, or that keep what they are sent.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ottla_bench::{TAIL_PARTITIONS, TAIL_TOPICS, TOPIC, machine, tail_topic, values};
use ottla_test_broker::{ApiKey, Cluster, SourceBatch, Storage};

/// Partitions of the topic, two for each broker.
pub(crate) const PARTITIONS: i32 = 6;
const BROKERS: i32 = 3;
/// The core of the brokers; clients have 0.
pub(crate) const CORE: usize = 1;
/// Records of the batch that consumers get: about 256 KiB before compression.
const BATCH_RECORDS: usize = 2400;

/// What the brokers do with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They give consumers the same batch for ever, as it is or compressed.
    Plain,
    Lz4,
    /// They keep what they are sent, and give that.
    Keeps,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Lz4 => "lz4",
            Self::Keeps => "keeps",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::Lz4, Self::Keeps].into_iter().find(|kind| kind.name() == name)
    }
}

/// Requests that brokers have read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Requests {
    pub(crate) produce: u64,
    pub(crate) fetch: u64,
}

/// A running broker process; ends with this value, and with the process that holds it.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    bootstrap: String,
    kind: Kind,
}

impl Broker {
    pub(crate) fn spawn(kind: Kind) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| format!("cannot find itself: {e}"))?;
        let mut child = Command::new(program)
            .args(["broker", kind.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start the broker process: {e}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("the broker process has no output")?;
        let mut broker =
            Self { child, input, output: BufReader::new(output), bootstrap: String::new(), kind };
        let read = broker.output.read_line(&mut broker.bootstrap);
        broker.bootstrap.truncate(broker.bootstrap.trim_end().len());
        match read {
            Ok(n) if n > 0 => Ok(broker),
            _ => Err("the broker process ended before it said where it listens".to_owned()),
        }
    }

    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// What its brokers have read so far.
    pub(crate) fn requests(&mut self) -> Result<Requests, String> {
        let ask = |input: &mut ChildStdin| input.write_all(b"\n").and_then(|()| input.flush());
        let asked = self.input.as_mut().map_or(Ok(()), ask);
        let mut answer = String::new();
        let told = asked.and_then(|()| self.output.read_line(&mut answer));
        let read = |answer: &str| {
            let (produce, fetch) = answer.trim().split_once(' ')?;
            Some(Requests { produce: produce.parse().ok()?, fetch: fetch.parse().ok()? })
        };
        told.map_err(|e| e.to_string())
            .and_then(|_| read(&answer).ok_or_else(|| format!("it said '{answer}'")))
            .map_err(|e| format!("the broker process does not tell its requests: {e}"))
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Is the broker process: prints the bootstrap string, and for each line of standard input how many Produce
/// and Fetch requests there were, until that ends.
pub(crate) fn serve(kind: Kind) -> Result<(), String> {
    machine::pin(CORE);
    let batch = || SourceBatch::new(values(BATCH_RECORDS));
    let storage = match kind {
        Kind::Plain => Storage::Source(batch()),
        Kind::Lz4 => Storage::Source(batch().lz4()),
        Kind::Keeps => Storage::Keep,
    };
    let mut builder = Cluster::builder()
        .brokers(BROKERS)
        .storage(storage)
        // What clients are told to fill, 1 MB of records, and its framing.
        .max_message_bytes(2 << 20)
        .check_records(false)
        .topic(TOPIC, PARTITIONS, 1);
    for topic in 0..TAIL_TOPICS {
        builder = builder.topic(tail_topic(topic), TAIL_PARTITIONS, 1);
    }
    let cluster = builder.start().map_err(|e| format!("cannot start brokers: {e}"))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", cluster.bootstrap())
        .and_then(|()| out.flush())
        .map_err(|e| format!("cannot print the bootstrap string: {e}"))?;
    for line in std::io::stdin().lock().lines() {
        line.map_err(|e| format!("cannot read standard input: {e}"))?;
        let stats = cluster.stats();
        let of = |api| stats.requests_of(api);
        writeln!(out, "{} {}", of(ApiKey::PRODUCE), of(ApiKey::FETCH))
            .and_then(|()| out.flush())
            .map_err(|e| format!("cannot print how many requests there were: {e}"))?;
    }
    Ok(())
}
