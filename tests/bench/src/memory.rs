//! What a consumer takes of memory in its default settings: `ottla-bench memory`. Its budget (`buffer_memory`) bounds the
//! records; what the whole process has at its peak may be no more than 30 MB above that, whatever the codec and however
//! many partitions there are.
//!
//! One process writes, another reads: as fast as it can, then not at all, so that all is fetched that may be, then
//! on to the end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ottla::{Client, Compression, Record, Start};
use ottla_bench::{TAIL_PARTITIONS, TOPIC, VALUE_LEN, machine, tail_topic, values};

use crate::broker::{Broker, Kind};

/// The default of `buffer_memory`, and what may be there besides.
const BUDGET: u64 = 64 << 20;
const BESIDES: u64 = 30_000_000;

/// Bytes that are written, before compression.
const BYTES: usize = 400 << 20;
/// Records of a batch, of 100 bytes each.
const BATCH: usize = 1_000;
/// For how long nothing is read, once a third is.
const PAUSE: Duration = Duration::from_secs(3);

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    codec: String,
    partitions: usize,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let codecs = ["none", "lz4", "snappy", "gzip", "zstd"];
        codecs.into_iter().flat_map(|codec| {
            [1, 1_000].map(|partitions| Self { codec: codec.to_owned(), partitions })
        })
    }

    pub(crate) fn parse(codec: &str, partitions: &str) -> Option<Self> {
        let partitions = partitions.parse().ok().filter(|n| [1, 1_000].contains(n))?;
        Some(Self { codec: codec.to_owned(), partitions })
    }

    /// The partitions.
    fn parts(&self) -> Vec<(String, i32)> {
        if self.partitions == 1 {
            return vec![(TOPIC.to_owned(), 0)];
        }
        let topics = 0..self.partitions / TAIL_PARTITIONS as usize;
        topics.flat_map(|topic| (0..TAIL_PARTITIONS).map(move |p| (tail_topic(topic), p))).collect()
    }
}

/// What a process of a case does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Write,
    Read,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Write, Self::Read].into_iter().find(|role| role.name() == name)
    }
}

/// Prints the table; an error if anything is above its bound.
pub(crate) fn measure() -> Result<(), String> {
    println!(
        "{:<8} {:>10} {:>10} {:>10} {:>9}",
        "codec", "partitions", "peak MB", "bound MB", "M/s"
    );
    let bound = (BUDGET + BESIDES) as f64 / 1e6;
    let mut above = 0;
    for case in Case::all() {
        let broker = Broker::spawn(Kind::Keeps)?;
        spawn(&case, Role::Write, broker.bootstrap())?;
        let said = spawn(&case, Role::Read, broker.bootstrap())?;
        let read = |said: &str| {
            let (peak, rate) = said.trim().split_once(' ')?;
            Some((peak.parse::<f64>().ok()? / 1e6, rate.parse::<f64>().ok()?))
        };
        let (peak, rate) = read(&said).ok_or_else(|| format!("the reader said '{said}'"))?;
        let Case { codec, partitions } = case;
        above += usize::from(peak > bound);
        println!("{codec:<8} {partitions:>10} {peak:>10.1} {bound:>10.1} {rate:>9.2}");
    }
    if above > 0 { Err(format!("{above} above the bound")) } else { Ok(()) }
}

fn spawn(case: &Case, role: Role, bootstrap: &str) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find itself: {e}"))?;
    let partitions = case.partitions.to_string();
    let output = Command::new(program)
        .args(["memory-of", role.name(), &case.codec, &partitions, bootstrap])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot start a process: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{case:?}, {}: it failed", role.name())),
    }
}

/// Is one of these processes.
pub(crate) fn run(case: &Case, role: Role, bootstrap: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
    let done = runtime.block_on(async {
        match role {
            Role::Write => write(case, bootstrap).await,
            Role::Read => read(case, bootstrap).await,
        }
    });
    done.map_err(|e| e.to_string())
}

async fn write(case: &Case, bootstrap: &str) -> ottla::Result<()> {
    let client = Client::connect(bootstrap).await?;
    let codec = Compression::named(&case.codec, None)?;
    let producer = client.producer().compression(codec).batch_size(BATCH * 120).build()?;
    let (values, parts) = (values(BATCH), case.parts());
    for batch in 0..BYTES / VALUE_LEN / BATCH {
        let (topic, partition) = &parts[batch % parts.len()];
        for value in &values {
            // What is refused later is told by the flush.
            drop(producer.send(Record::to(topic).partition(*partition).value(value)).await?);
        }
    }
    producer.flush().await
}

async fn read(case: &Case, bootstrap: &str) -> ottla::Result<()> {
    let client = Client::connect(bootstrap).await?;
    let parts = case.parts();
    let assigned = parts.iter().map(|(topic, partition)| (topic, *partition, Start::Earliest));
    let mut consumer = client.consumer().assign(assigned).build()?;
    let (begun, mut read, mut paused) = (Instant::now(), 0, false);
    while read < BYTES / VALUE_LEN / BATCH * BATCH {
        let Some(batch) = consumer.next().await.transpose()? else { break };
        read += batch.len();
        if !paused && read > BYTES / VALUE_LEN / 3 {
            paused = true;
            tokio::time::sleep(PAUSE).await;
        }
    }
    let took = begun.elapsed().saturating_sub(PAUSE).as_secs_f64();
    println!("{} {}", machine::peak_memory(), read as f64 / took / 1e6);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_found_by_what_they_are_called() {
        let cases: Vec<Case> = Case::all().collect();
        assert_eq!(cases.len(), 10);
        for case in cases {
            assert_eq!(Case::parse(&case.codec, &case.partitions.to_string()), Some(case.clone()));
            let mut parts = case.parts();
            parts.dedup();
            assert_eq!(parts.len(), case.partitions);
        }
        assert_eq!(Case::parse("none", "7"), None);
        for role in [Role::Write, Role::Read] {
            assert_eq!(Role::named(role.name()), Some(role));
        }
    }
}
