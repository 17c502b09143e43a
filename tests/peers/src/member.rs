//! A member in a process of its own: told by signals, heard by its lines.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::events::{Event, Line};
use crate::history::{History, What};

/// How long a member that is told to end may take: a commit and a leave.
const LEAVE: Duration = Duration::from_secs(40);

/// A process that prints lines. Killed when it is dropped.
#[derive(Debug)]
pub struct Member {
    name: Arc<str>,
    child: Child,
    history: History,
    readers: Vec<JoinHandle<String>>,
}

impl Member {
    /// Starts it. All that it prints is in the history, under this name.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, mut command: Command, history: &History) -> Result<Self, String> {
        let name: Arc<str> = Arc::from(name);
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(|e| format!("starting {name}, {command:?}: {e}"))?;
        let (Some(out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(format!("{name} has no output"));
        };
        let (into, of) = (history.clone(), Arc::clone(&name));
        let lines = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // Libraries that say something on standard output: no event.
                if let Ok(Line { timestamp, event }) = serde_json::from_str(&line) {
                    into.said(&of, timestamp, event);
                }
            }
            String::new()
        });
        let words = std::thread::spawn(move || {
            let mut text = String::new();
            let _whatever = err.read_to_string(&mut text);
            text
        });
        Ok(Self { name, child, history: history.clone(), readers: vec![lines, words] })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| format!("{} has no process id", self.name))?;
        kill_process(pid, signal).map_err(|e| format!("{}: {e}", self.name))
    }

    /// SIGKILL: it is gone at once, without a word to its group. What it printed before has been read when this returns.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(mut self) -> Result<(), String> {
        self.child.kill().map_err(|e| format!("{}: {e}", self.name))?;
        self.child.wait().map_err(|e| format!("{}: {e}", self.name))?;
        self.words();
        self.history.done_to(&self.name, What::Killed);
        Ok(())
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// The system's.
    pub fn freeze(&self) -> Result<(), String> {
        self.signal(Signal::STOP)?;
        self.history.done_to(&self.name, What::Frozen);
        Ok(())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// The system's.
    pub fn thaw(&self) -> Result<(), String> {
        self.history.done_to(&self.name, What::Thawed);
        self.signal(Signal::CONT)
    }

    /// SIGTERM, and no waiting: see [`Self::wait`].
    ///
    /// # Errors
    /// The system's.
    pub fn tell_to_leave(&self) -> Result<(), String> {
        self.signal(Signal::TERM)
    }

    /// Waits for its end, which has to be a good one: after its last line.
    ///
    /// # Errors
    /// It goes on, or has failed; with what it said.
    pub fn wait(mut self) -> Result<(), String> {
        let deadline = Instant::now() + LEAVE;
        let status = loop {
            match self.child.try_wait().map_err(|e| format!("{}: {e}", self.name))? {
                Some(status) => break status,
                None if Instant::now() >= deadline => {
                    let _killed = self.child.kill();
                    let words = self.words();
                    return Err(format!("{} goes on after it was told to end: {words}", self.name));
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let words = self.words();
        let is_last = |name: &Arc<str>| {
            self.history.with(|all| {
                let mut own = all.iter().rev().filter(|entry| entry.member == *name);
                let is_end = |what: &What| {
                    matches!(what, What::Said(Event::ShutdownComplete | Event::ToolData { .. }))
                };
                own.next().is_some_and(|entry| is_end(&entry.what))
            })
        };
        if is_good(status) && is_last(&self.name) {
            return Ok(());
        }
        Err(format!("{} ended with {status}: {words}", self.name))
    }

    /// Whether it runs no more, though nobody told it to.
    pub fn has_ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        let words = self.words();
        Some(format!("{} ended with {status}: {words}", self.name))
    }

    /// The end of what it said besides its lines, once it has ended.
    fn words(&mut self) -> String {
        let said = self.readers.drain(..).filter_map(|reader| reader.join().ok());
        let said: String = said.collect();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Java's end by SIGTERM is 143, whatever it did before.
fn is_good(status: ExitStatus) -> bool {
    status.success() || status.code() == Some(143)
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
