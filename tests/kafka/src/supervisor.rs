//! The process between a test run and its brokers.
//!
//! A broker is a process of its own: without care it outlives a test that is killed. So each cluster
//! has a supervisor, a short script, that leads the process group its brokers live in and reads a
//! pipe of which only the run holds the other end. However the run dies, the kernel closes the
//! pipe; the supervisor reads end of file and kills the group.
//!
//! It speaks one JSON object a line: `start`, `signal`, `wait`, `detach`, `shutdown`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::python::Python;

const SCRIPT: &str = include_str!("../scripts/supervisor.py");

/// How long a supervisor may take to end after its pipe closed: it waits for processes it killed.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// A running supervisor. Dropping it ends its processes.
#[derive(Debug)]
pub struct Supervisor {
    child: Child,
    // None once closed. One ask and its answer at a time: tests call from several threads.
    pipes: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    detached: bool,
}

impl Supervisor {
    /// Starts one that owns `folder`: it is removed with the processes, unless `OTTLA_KEEP` is set.
    pub fn start(python: &Python, folder: &Path) -> Result<Self> {
        let log = folder.join("supervisor.log");
        // Not our standard error: a test runner waits until every holder of that has closed it.
        let errors = File::create(&log).context(format!("creating {}", log.display()))?;
        let mut child = Command::new(&python.path)
            .args(["-I", "-c", SCRIPT])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .context("starting the supervisor")?;
        let pipes = child.stdin.take().zip(child.stdout.take().map(BufReader::new));
        Ok(Self { child, pipes: Mutex::new(pipes), detached: false })
    }

    /// Process id of the supervisor, which is also its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts process number `node`; its output goes to the end of `log`. Returns its process id.
    pub fn spawn(&self, node: u32, argv: &[String], log: &Path) -> Result<u32> {
        let answer = self.ask(&json!({"op": "start", "node": node, "argv": argv, "log": log}))?;
        let pid = answer["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.ok_or_else(|| Error::new(format!("the supervisor named no process: {answer}")))
    }

    /// Sends a signal by name, such as `SIGKILL`.
    pub fn signal(&self, node: u32, name: &str) -> Result<()> {
        self.ask(&json!({"op": "signal", "node": node, "name": name})).map(drop)
    }

    /// Waits for a process to end. `None` when it still runs after `limit`.
    pub fn wait(&self, node: u32, limit: Duration) -> Result<Option<i64>> {
        let answer =
            self.ask(&json!({"op": "wait", "node": node, "seconds": limit.as_secs_f64()}))?;
        Ok(answer["exit"].as_i64())
    }

    /// Lets the processes live until [`shutdown`] is called with the same `socket`.
    pub fn detach(mut self, socket: &Path) -> Result<()> {
        self.ask(&json!({"op": "detach", "path": socket}))?;
        self.detached = true;
        Ok(())
    }

    fn ask(&self, ask: &Value) -> Result<Value> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((to, from)) = pipes.as_mut() else {
            return Err(Error::new("the cluster is closed"));
        };
        exchange(to, from, ask)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.pipes.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.detached {
            return;
        }
        let deadline = Instant::now() + END_DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Only if it hangs; its brokers ask the kernel to die with it.
        let _already_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Ends a detached supervisor and its processes. `false` when there is none any more.
pub fn shutdown(socket: &Path) -> Result<bool> {
    let Ok(stream) = UnixStream::connect(socket) else { return Ok(false) };
    stream.set_read_timeout(Some(END_DEADLINE)).context("setting a timeout")?;
    let mut from = BufReader::new(stream.try_clone().context("sharing a socket")?);
    exchange(&mut &stream, &mut from, &json!({"op": "shutdown"})).map(|_| true)
}

fn exchange(to: &mut impl Write, from: &mut impl BufRead, ask: &Value) -> Result<Value> {
    let mut line = String::new();
    writeln!(to, "{ask}").and_then(|()| to.flush()).context("asking the supervisor")?;
    from.read_line(&mut line).context("hearing from the supervisor")?;
    let answer: Value = serde_json::from_str(&line).context("the supervisor ended")?;
    match answer["ok"].as_bool() {
        Some(true) => Ok(answer),
        _ => Err(Error::new(format!("{ask}: {}", answer["error"].as_str().unwrap_or("refused")))),
    }
}
