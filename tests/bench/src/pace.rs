//! What a client makes of few records and of many, in its default settings: `cargo xtask bench pace`. How many
//! requests a second, what an acknowledgement takes, and what a record costs the client's process, at one rate
//! after the other; what programs pay that wait for each record; and the same of reading a trickle. In the
//! steady state: what a client saves up while it is idle is used up before anything is measured.
//!
//! Requests are counted by the brokers, so that it does not matter what a client tells. Each client and task
//! has a process of its own, on the other core than the brokers', and they take turns.

mod ottla_client;
#[cfg(feature = "rdkafka")]
mod rdkafka_client;
pub(crate) mod real;
mod report;
mod steady;
mod trickle;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ottla_bench::machine;
use serde::{Deserialize, Serialize};

use crate::args::Args;
use crate::broker::{Broker, Kind};
use crate::worker::Client;
use report::Report;
use trickle::Feeder;

/// Records a second.
pub(crate) const RATES: [u64; 5] = [10, 100, 1_000, 10_000, 100_000];

/// How long a client is given to come to its steady state, and how long it is looked at.
const WARM_UP: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(10);

/// Records of a program that waits for each.
const LOOP: usize = 1_000;
/// So many more are what it comes to in the long run.
const LOOP_STEADY: usize = 500;

/// The core of a client; the brokers have the other.
const CORE: usize = 0;

/// What one process measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// So many records a second, whatever comes of those before.
    Rate(u64),
    /// A record, its acknowledgement, and the next.
    Each,
    /// A record, a flush, and the next.
    Flush,
    /// The first of these with `linger(0)`, or what the client calls it.
    EachAtOnce,
    /// Reads so many records a second that somebody writes in default settings, or, if `at_once`, each as a
    /// batch of its own.
    Fetch { rate: u64, at_once: bool },
}

impl Task {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let fetch = |rate, at_once| Self::Fetch { rate, at_once };
        let others = [Self::Each, Self::Flush, Self::EachAtOnce];
        let fetches = [fetch(100, false), fetch(1_000, false), fetch(1_000, true)];
        RATES.into_iter().map(Self::Rate).chain(others).chain(fetches)
    }

    /// Whether there is anything to measure: the flush of librdkafka's Rust binding waits in steps of 100 ms.
    fn is_of(self, client: Client) -> bool {
        self != Self::Flush || client == Client::Ottla
    }

    /// As the command line has it.
    fn arg(self) -> String {
        match self {
            Self::Rate(rate) => rate.to_string(),
            Self::Each => "each".to_owned(),
            Self::Flush => "flush".to_owned(),
            Self::EachAtOnce => "each-at-once".to_owned(),
            Self::Fetch { rate, at_once: false } => format!("fetch-{rate}"),
            Self::Fetch { rate, at_once: true } => format!("fetch-at-once-{rate}"),
        }
    }

    pub(crate) fn parse(arg: &str) -> Option<Self> {
        Self::all().find(|task| task.arg() == arg)
    }

    /// Records a second, if that is settled.
    fn rate(self) -> Option<u64> {
        match self {
            Self::Rate(rate) | Self::Fetch { rate, .. } => Some(rate),
            Self::Each | Self::Flush | Self::EachAtOnce => None,
        }
    }
}

/// What a process yielded.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Paced {
    /// Produce requests a second, or Fetch requests if that is what is measured, as the brokers have it.
    pub(crate) requests_per_s: f64,
    /// From handing a record over to its acknowledgement (or to whoever reads it), in microseconds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Processor time of the client's process for a record, in microseconds.
    pub(crate) cpu_us: f64,
    /// Of that, what threads took that the client has started: the rest is the program's, which waits for
    /// the next record to be due and for acknowledgements, whatever client it has.
    pub(crate) own_us: f64,
    /// The same of the brokers'.
    pub(crate) broker_us: f64,
    /// Seconds that the first [`LOOP`] records took, and records a second after those.
    pub(crate) first_s: f64,
    pub(crate) per_s: f64,
}

impl Paced {
    /// The median of each figure.
    fn median(all: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut values: Vec<f64> = all.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        Self {
            requests_per_s: of(|p| p.requests_per_s),
            p50_us: of(|p| p.p50_us),
            p99_us: of(|p| p.p99_us),
            cpu_us: of(|p| p.cpu_us),
            own_us: of(|p| p.own_us),
            broker_us: of(|p| p.broker_us),
            first_s: of(|p| p.first_s),
            per_s: of(|p| p.per_s),
        }
    }
}

/// What a client is made to do.
pub(crate) trait Driven {
    type Handle: Send + 'static;

    /// Hands a record over.
    fn send(&self, value: &[u8]) -> Result<Self::Handle, String>;

    /// Waits for its acknowledgement.
    fn wait(handle: Self::Handle) -> Result<(), String>;

    fn flush(&self) -> Result<(), String>;
}

/// What a client is made to read: everything that is written from now on.
pub(crate) trait Reads {
    /// Waits for what comes next, for a moment at most, and shows each value of it.
    fn next(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), String>;
}

/// Measures `tasks`, or all if there are none, client by client within each: what disturbs the machine for a
/// while meets all.
pub(crate) fn measure(args: &Args, tasks: &[Task], clients: &[Client]) -> Result<(), String> {
    let mut broker: Option<Broker> = None;
    let mut report = Report::default();
    for task in Task::all().filter(|task| tasks.is_empty() || tasks.contains(task)) {
        let kind = if matches!(task, Task::Fetch { .. }) { Kind::Keeps } else { Kind::Plain };
        if broker.as_ref().is_none_or(|broker| broker.kind() != kind) {
            drop(broker.take());
        }
        let broker = match &mut broker {
            Some(broker) => broker,
            none => none.insert(Broker::spawn(kind)?),
        };
        let clients: Vec<Client> = clients.iter().copied().filter(|c| task.is_of(*c)).collect();
        let mut all = vec![Vec::new(); clients.len()];
        for _ in 0..args.rounds() {
            for (client, all) in clients.iter().zip(&mut all) {
                all.push(spawn(task, *client, broker)?);
            }
        }
        for (client, all) in clients.iter().zip(&all) {
            report.add(task, *client, Paced::median(all));
        }
    }
    if args.json { report.print_json() } else { report.print_table() }
}

fn spawn(task: Task, client: Client, broker: &mut Broker) -> Result<Paced, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find itself: {e}"))?;
    let name = format!("{} of {}", task.arg(), client.name());
    let fail = |what: String| format!("{name}: {what}");
    let mut child = Command::new(program)
        .args(["paced", &task.arg(), client.name(), broker.bootstrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|e| fail(format!("cannot start its process: {e}")))?;
    let feeder = match task {
        Task::Fetch { rate, at_once } => Some(Feeder::start(broker.bootstrap(), rate, at_once)),
        _ => None,
    };
    let lines = BufReader::new(child.stdout.take().ok_or("its process has no output")?).lines();
    let mut begun = None;
    let mut measured = None;
    // It says when what it measures begins, and prints what came of it at its end.
    for line in lines {
        let line = line.map_err(|e| fail(e.to_string()))?;
        let look = (Instant::now(), broker.requests()?);
        let cpu = machine::cpu_time_of(broker.process());
        match begun {
            None => begun = Some((look, cpu)),
            Some(((then, before), cpu_before)) => {
                let requests = match task {
                    Task::Fetch { .. } => look.1.fetch - before.fetch,
                    _ => look.1.produce - before.produce,
                };
                let seconds = (look.0 - then).as_secs_f64();
                let mut paced: Paced =
                    serde_json::from_str(&line).map_err(|_| fail(format!("printed '{line}'")))?;
                paced.requests_per_s = requests as f64 / seconds;
                if let Some(rate) = task.rate() {
                    let used = cpu.saturating_sub(cpu_before).as_secs_f64();
                    paced.broker_us = used * 1e6 / (rate as f64 * seconds);
                }
                measured = Some(paced);
            }
        }
    }
    if let Some(feeder) = feeder {
        feeder.stop().map_err(|e| fail(format!("whoever writes: {e}")))?;
    }
    let status = child.wait().map_err(|e| fail(e.to_string()))?;
    measured.filter(|_| status.success()).ok_or_else(|| fail(status.to_string()))
}

/// Is the process of one measurement.
pub(crate) fn run(task: Task, client: Client, bootstrap: &str) -> Result<(), String> {
    machine::pin(CORE);
    let at_once = task == Task::EachAtOnce;
    let paced = match (client, task) {
        (Client::Ottla, Task::Fetch { rate, .. }) => {
            trickle::run(&mut ottla_client::Reader::connect(bootstrap)?, rate)
        }
        (Client::Ottla, _) => drive(task, ottla_client::Driver::connect(bootstrap, at_once)?),
        #[cfg(feature = "rdkafka")]
        (Client::Rdkafka, Task::Fetch { rate, .. }) => {
            trickle::run(&mut rdkafka_client::Reader::connect(bootstrap)?, rate)
        }
        #[cfg(feature = "rdkafka")]
        (Client::Rdkafka, _) => drive(task, rdkafka_client::Driver::connect(bootstrap, at_once)?),
        #[cfg(not(feature = "rdkafka"))]
        (Client::Rdkafka, _) => Err("built without the feature 'rdkafka'".to_owned()),
    }?;
    println!("{}", serde_json::to_string(&paced).map_err(|e| e.to_string())?);
    Ok(())
}

fn drive(task: Task, driver: impl Driven) -> Result<Paced, String> {
    match task {
        Task::Rate(rate) => steady::run(&driver, rate),
        Task::Each | Task::EachAtOnce => {
            one_by_one(&driver, |driver, value| driver.send(value).and_then(wait(driver)))
        }
        Task::Flush => one_by_one(&driver, |driver, value| {
            let handle = driver.send(value)?;
            driver.flush()?;
            wait(driver)(handle)
        }),
        Task::Fetch { .. } => Err("that is nothing to be sent".to_owned()),
    }
}

fn wait<D: Driven>(_: &D) -> fn(D::Handle) -> Result<(), String> {
    D::wait
}

fn one_by_one<D: Driven>(
    driver: &D,
    one: impl Fn(&D, &[u8]) -> Result<(), String>,
) -> Result<Paced, String> {
    let value = ottla_bench::values(1)[0];
    // Connections and metadata are not what is measured.
    one(driver, &value)?;
    println!("begins");
    let begun = Instant::now();
    (0..LOOP).try_for_each(|_| one(driver, &value))?;
    let first_s = begun.elapsed().as_secs_f64();
    // The last of what was saved up is used up by then.
    (0..LOOP_STEADY).try_for_each(|_| one(driver, &value))?;
    let steady = Instant::now();
    (0..LOOP_STEADY).try_for_each(|_| one(driver, &value))?;
    let per_s = LOOP_STEADY as f64 / steady.elapsed().as_secs_f64();
    Ok(Paced { first_s, per_s, ..Paced::default() })
}
