//! One measurement, in a process of its own: no thread and no memory is left of the one before.

mod ottla_client;
#[cfg(feature = "rdkafka")]
mod rdkafka_client;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ottla_bench::machine;

/// The core of a client; the brokers have the other.
const CORE: usize = 0;

/// Which way records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Produce,
    Consume,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) direction: Direction,
    pub(crate) lz4: bool,
    /// Many records in one call, where a client has such a call.
    pub(crate) batched: bool,
}

/// All figures, those of one codec next to each other: they share a broker process.
pub(crate) const FIGURES: [Figure; 6] = {
    const fn figure(name: &'static str, about: &'static str, lz4: bool, batched: bool) -> Figure {
        let direction =
            if name.as_bytes()[0] == b'p' { Direction::Produce } else { Direction::Consume };
        Figure { name, about, direction, lz4, batched }
    }
    [
        figure("produce_plain", "produce, a send and a handle per record", false, false),
        figure("produce_batch_plain", "produce, send_batch of 1,000", false, true),
        figure("consume_plain", "consume", false, false),
        figure("produce_lz4", "produce lz4, a send and a handle per record", true, false),
        figure("produce_batch_lz4", "produce lz4, send_batch of 1,000", true, true),
        figure("consume_lz4", "consume lz4", true, false),
    ]
};

impl Figure {
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let found = FIGURES.iter().find(|figure| figure.name == name);
        found.copied().ok_or_else(|| format!("no figure is named '{name}'"))
    }

    /// Whether there is anything to measure for this client: librdkafka's batched call is not in its
    /// Rust binding.
    pub(crate) fn has(&self, client: Client) -> bool {
        client == Client::Ottla || !self.batched
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Ottla,
    Rdkafka,
}

impl Client {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ottla => "ottla",
            Self::Rdkafka => "rdkafka",
        }
    }

    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let mut all = [Self::Ottla, Self::Rdkafka].into_iter();
        all.find(|client| client.name() == name).ok_or_else(|| format!("no client '{name}'"))
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) figure: Figure,
    pub(crate) client: Client,
    pub(crate) records: usize,
}

/// What it yielded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Processor time of the client process for a record, in nanoseconds.
    pub(crate) cpu_ns: f64,
    pub(crate) per_second: f64,
}

/// Measures in a new process.
pub(crate) fn spawn(job: Job, bootstrap: &str) -> Result<Measured, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find itself: {e}"))?;
    let name = format!("{} of {}", job.figure.name, job.client.name());
    let output = Command::new(program)
        .args(["worker", job.figure.name, job.client.name(), &job.records.to_string(), bootstrap])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{name}: cannot start its process: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
    match numbers[..] {
        [cpu_ns, per_second] => Ok(Measured { cpu_ns, per_second }),
        _ => Err(format!("{name}: its process printed '{}'", text.trim())),
    }
}

/// Is the process of one measurement.
pub(crate) fn run(job: Job, bootstrap: &str) -> Result<(), String> {
    machine::pin(CORE);
    let meter = match job.client {
        Client::Ottla => ottla_client::run(job, bootstrap)?,
        #[cfg(feature = "rdkafka")]
        Client::Rdkafka => rdkafka_client::run(job, bootstrap)?,
        #[cfg(not(feature = "rdkafka"))]
        Client::Rdkafka => return Err("built without the feature 'rdkafka'".to_owned()),
    };
    println!("{} {}", meter.cpu_ns, meter.per_second);
    Ok(())
}

/// Reads the clocks before and after.
#[derive(Debug)]
struct Meter {
    cpu: Duration,
    started: Instant,
}

impl Meter {
    fn start() -> Self {
        Self { cpu: machine::cpu_time(), started: Instant::now() }
    }

    fn stop(self, records: usize) -> Measured {
        let cpu = machine::cpu_time() - self.cpu;
        let records = records as f64;
        Measured {
            cpu_ns: cpu.as_nanos() as f64 / records,
            per_second: records / self.started.elapsed().as_secs_f64(),
        }
    }
}

/// Records moved before the clock runs: connections, metadata and warm buffers are not what is
/// measured.
fn warm_up(records: usize) -> usize {
    (records / 10).clamp(10_000, 400_000)
}
