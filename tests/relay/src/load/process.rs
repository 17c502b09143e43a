//! Clients in a process of their own: what the process is told, and what it tells at its end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Client, Dials, Load, OttlaClient};

/// What a process of clients does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Where the brokers are.
    pub bootstrap: String,
    /// Where records go.
    pub topic: String,
    /// Begins the name of each client and of each record.
    pub name: String,
    /// How many clients.
    pub clients: usize,
    /// Between two records of one client. `None`: each sends one record and is idle from then on.
    pub every_ms: Option<u64>,
    /// Records every client has acknowledged before the process says that it is ready.
    pub ready_after: usize,
}

/// What became of it. Everything but the records is counted from the moment it was ready.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Records acknowledged.
    pub acked: usize,
    /// Records that failed.
    pub failed: usize,
    /// What the first of those failed of.
    pub failure: Option<String>,
    /// Connections that a client opened.
    pub connects: u64,
    /// Attempts to connect by port, in milliseconds since the process was ready.
    pub dials: BTreeMap<u16, Vec<u64>>,
    /// Metadata requests.
    pub metadata_requests: u64,
    /// Processor time, user and system, in microseconds.
    pub cpu_us: u64,
    /// Time, in microseconds.
    pub elapsed_us: u64,
}

/// A running process of clients. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `program`, which calls [`serve`].
    ///
    /// # Errors
    /// In words.
    pub fn start(program: &str, job: &Job) -> Result<Self, String> {
        let job = serde_json::to_string(job).map_err(|e| e.to_string())?;
        let mut child = Command::new(program)
            .arg(job)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start {program}: {e}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("the process has no output")?;
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// Waits until every client has had its first records acknowledged.
    ///
    /// # Errors
    /// In words, if it ends before.
    pub fn ready(&mut self) -> Result<(), String> {
        match self.line()?.as_str() {
            "ready" => Ok(()),
            other => Err(format!("a process of clients said '{other}'")),
        }
    }

    /// Lets it send no more, and waits until the fate of every record is known.
    ///
    /// # Errors
    /// In words, if it fails.
    pub fn end(mut self) -> Result<Report, String> {
        drop(self.input.take());
        let line = self.line()?;
        serde_json::from_str(&line).map_err(|e| format!("a process of clients: {e}: {line}"))
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(n) if n > 0 => Ok(line.trim_end().to_owned()),
            _ => Err("a process of clients ended early; what it said is above".into()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is the process: does what its argument says until standard input ends.
///
/// # Errors
/// In words.
pub fn serve(job: &str) -> Result<(), String> {
    let job: Job = serde_json::from_str(job).map_err(|e| format!("no job: {e}"))?;
    // One thread, like that of the engine in an application's process.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let report = runtime.block_on(work(&job))?;
    say(&serde_json::to_string(&report).map_err(|e| e.to_string())?)
}

async fn work(job: &Job) -> Result<Report, String> {
    let dials = Dials::default();
    let prefix = format!("{}-", job.name);
    let clients = OttlaClient::connect_many(&job.bootstrap, &prefix, job.clients, &dials).await?;
    let clients: Vec<Arc<OttlaClient>> = clients.into_iter().map(Arc::new).collect();
    let senders: Vec<_> = clients.iter().map(|c| Arc::clone(c) as Arc<dyn Client>).collect();
    let every = job.every_ms.map(Duration::from_millis);
    // A first round alone is what an idle client sends.
    let load = Load::start(&senders, &job.name, &job.topic, every.unwrap_or(IDLE));
    load.reached(job.ready_after).await;

    let (cpu, started, before) = (cpu_time(), Instant::now(), counted(&clients));
    say("ready")?;
    // Reading blocks, and this thread has clients to run.
    let (tx, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = tx.send(());
    });
    let _ = told.await;

    let (cpu, elapsed, after) = (cpu_time() - cpu, started.elapsed(), counted(&clients));
    let outcomes = load.stop().await;
    let failures: Vec<_> = outcomes.iter().filter_map(|o| o.fate.as_ref().err()).collect();
    let mut report = Report {
        acked: outcomes.len() - failures.len(),
        failed: failures.len(),
        failure: failures.first().map(ToString::to_string),
        connects: after.0 - before.0,
        metadata_requests: after.1 - before.1,
        cpu_us: u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX),
        elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        ..Report::default()
    };
    for dial in dials.all().iter().filter(|dial| dial.at >= started) {
        let at = u64::try_from((dial.at - started).as_millis()).unwrap_or(u64::MAX);
        report.dials.entry(dial.port).or_default().push(at);
    }
    report.dials.values_mut().for_each(|times| times.sort_unstable());
    Ok(report)
}

/// Longer than any test: the second record of an idle client is never sent.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Connects and metadata requests of all.
fn counted(clients: &[Arc<OttlaClient>]) -> (u64, u64) {
    let all = clients.iter().map(|client| client.client.stats());
    all.fold((0, 0), |(connects, asked), s| (connects + s.connects, asked + s.metadata_requests))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| format!("cannot print: {e}"))
}
