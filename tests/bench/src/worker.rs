//! One measurement, in a process of its own: no thread and no memory is left of the one before.

mod ottla_client;
#[cfg(feature = "rdkafka")]
mod rdkafka_client;
mod sparse;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ottla_bench::machine;
use serde::{Deserialize, Serialize};

/// The core of a client; the brokers have the other.
const CORE: usize = 0;

/// Which way records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Produce,
    Consume,
}

/// How records are given to a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A send and a handle for each.
    Each,
    /// Many in one call, where a client has such a call.
    Batch,
    /// A send for each, to one of [`TAIL_TOPICS`](ottla_bench::TAIL_TOPICS) topics after the other.
    LongTail,
    /// The same, to one named partition of them after the other.
    LongTailPinned,
    /// A send for each, from so many threads that share the producer.
    Threads(usize),
    /// As a member of a group, which commits.
    Group,
    /// Few records, and then as many as go, with settings that nobody has touched.
    Sparse,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) direction: Direction,
    pub(crate) lz4: bool,
    pub(crate) shape: Shape,
}

/// All figures, those of one codec next to each other: they share a broker process.
pub(crate) const FIGURES: [Figure; 12] = {
    const fn figure(name: &'static str, about: &'static str, lz4: bool, shape: Shape) -> Figure {
        let direction =
            if name.as_bytes()[0] == b'p' { Direction::Produce } else { Direction::Consume };
        Figure { name, about, direction, lz4, shape }
    }
    const TAIL: &str = "produce, 1,000 topics in turn";
    const PINNED: &str = "produce, 1,000 topics x 4 partitions in turn";
    [
        figure("produce_plain", "produce, a send and a handle per record", false, Shape::Each),
        figure("produce_batch", "produce, send_batch of 1,000", false, Shape::Batch),
        figure("produce_threads_2", "produce, from 2 threads", false, Shape::Threads(2)),
        figure("produce_threads_8", "produce, from 8 threads", false, Shape::Threads(8)),
        figure("produce_longtail", TAIL, false, Shape::LongTail),
        figure("produce_longtail_pinned", PINNED, false, Shape::LongTailPinned),
        figure("produce_sparse", "produce, 1 and 1,000 records/s", false, Shape::Sparse),
        figure("consume_plain", "consume", false, Shape::Each),
        figure("consume_group", "consume, in a group", false, Shape::Group),
        figure("produce_lz4", "produce lz4, a send and a handle per record", true, Shape::Each),
        figure("produce_batch_lz4", "produce lz4, send_batch of 1,000", true, Shape::Batch),
        figure("consume_lz4", "consume lz4", true, Shape::Each),
    ]
};

impl Figure {
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let found = FIGURES.iter().find(|figure| figure.name == name);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
            format!("no figure is named '{name}'; there are {}", names.join(", "))
        })
    }

    /// Whether there is anything to measure for this client: librdkafka's batched call is not in its
    /// Rust binding, and its threads are its own.
    pub(crate) fn has(&self, client: Client) -> bool {
        let alone = matches!(
            self.shape,
            Shape::Batch | Shape::Threads(_) | Shape::Sparse | Shape::Group
        );
        client == Client::Ottla || !alone
    }

    /// One of the clock takes as long each time, and tells a percentile itself.
    pub(crate) fn rounds(&self, asked: usize) -> usize {
        if self.shape == Shape::Sparse { 1 } else { asked }
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

/// How long a measurement takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Records(usize),
    /// Records go on until so much time has passed: for looking at memory.
    Seconds(u64),
}

impl Length {
    /// As the command line has it.
    fn arg(self) -> String {
        match self {
            Self::Records(n) => n.to_string(),
            Self::Seconds(n) => format!("{n}s"),
        }
    }

    pub(crate) fn parse(arg: &str) -> Option<Self> {
        match arg.strip_suffix('s') {
            Some(seconds) => seconds.parse().ok().map(Self::Seconds),
            None => arg.parse().ok().map(Self::Records),
        }
    }

    /// Records moved before the clock runs: connections, metadata and warm buffers are not what is
    /// measured.
    fn warm_up(self) -> usize {
        match self {
            Self::Records(records) => (records / 10).clamp(10_000, 400_000),
            Self::Seconds(_) => 400_000,
        }
    }

    /// Records of one go; a measurement by time is several of them.
    fn step(self) -> usize {
        match self {
            Self::Records(records) => records,
            Self::Seconds(_) => 1_000_000,
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) figure: Figure,
    pub(crate) client: Client,
    pub(crate) length: Length,
    /// The process of the brokers.
    pub(crate) sink: u32,
}

/// What it yielded.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Processor time of the client process for a record, in nanoseconds.
    pub(crate) cpu_ns: f64,
    pub(crate) per_second: f64,
    /// How much of a core the client's process used, and the brokers'.
    pub(crate) client_share: f64,
    pub(crate) sink_share: f64,
    /// Most memory the process had at one time, in megabytes.
    pub(crate) peak_mb: f64,
    /// What it had before, after a tenth of the time, and at the end.
    pub(crate) memory_mb: [f64; 3],
    /// Bytes of a Produce request on average, where the client tells.
    pub(crate) request_kb: Option<f64>,
    /// And records.
    pub(crate) request_records: Option<f64>,
    pub(crate) sparse: Option<sparse::Sparse>,
}

/// Measures in a new process.
pub(crate) fn spawn(job: Job, bootstrap: &str) -> Result<Measured, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find itself: {e}"))?;
    let name = format!("{} of {}", job.figure.name, job.client.name());
    let output = Command::new(program)
        .args(["worker", job.figure.name, job.client.name(), &job.length.arg()])
        .args([&job.sink.to_string(), bootstrap])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{name}: cannot start its process: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .map_err(|_| format!("{name}: its process printed '{}'", text.trim()))
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
    println!("{}", serde_json::to_string(&meter).map_err(|e| e.to_string())?);
    Ok(())
}

/// Reads the clocks before and after.
#[derive(Debug)]
struct Meter {
    cpu: Duration,
    sink: u32,
    sink_cpu: Duration,
    started: Instant,
    memory: [u64; 2],
}

impl Meter {
    fn start(job: Job) -> Self {
        Self {
            sink: job.sink,
            sink_cpu: machine::cpu_time_of(job.sink),
            memory: [machine::memory(), 0],
            cpu: machine::cpu_time(),
            started: Instant::now(),
        }
    }

    /// Moves records by `step`, which is told how many and gives how many it moved, for as long as
    /// the measurement takes; gives how many there were.
    fn run<E>(
        &mut self,
        length: Length,
        mut step: impl FnMut(usize) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let mut moved = step(length.step())?;
        self.memory[1] = machine::memory();
        while let Length::Seconds(n) = length
            && self.started.elapsed() < Duration::from_secs(n)
        {
            moved += step(length.step())?;
            if self.started.elapsed() < Duration::from_secs(n) / 10 {
                self.memory[1] = machine::memory();
            }
        }
        Ok(moved)
    }

    fn stop(self, records: usize) -> Measured {
        let cpu = machine::cpu_time() - self.cpu;
        let sink = machine::cpu_time_of(self.sink).saturating_sub(self.sink_cpu);
        let seconds = self.started.elapsed().as_secs_f64();
        let records = records as f64;
        let [before, tenth] = self.memory.map(|bytes| bytes as f64 / 1e6);
        Measured {
            cpu_ns: cpu.as_nanos() as f64 / records,
            per_second: records / seconds,
            client_share: cpu.as_secs_f64() / seconds,
            sink_share: sink.as_secs_f64() / seconds,
            peak_mb: machine::peak_memory() as f64 / 1e6,
            memory_mb: [before, tenth, machine::memory() as f64 / 1e6],
            ..Measured::default()
        }
    }
}
