//! What is told of a cluster to processes that did not start it, and what they can do with that: run
//! Kafka's tools against it, and wait until it is gone.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::node;

/// What others need to know to use a cluster they did not start. Written as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// `host:port` of each broker, with commas.
    pub bootstrap: String,
    /// The Kafka release.
    pub version: String,
    /// The `java` that runs it.
    pub java: PathBuf,
    /// The folder of its jars.
    pub libs: PathBuf,
    /// Folder of the cluster: `node-N/` with properties, log and data.
    pub dir: PathBuf,
    /// Process id of each broker.
    pub pids: BTreeMap<u32, u32>,
    /// Process id of the supervisor, which is the process group of all of them.
    pub supervisor: u32,
}

impl State {
    /// Reads what [`State::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).context(format!("reading {}", path.display()))?;
        serde_json::from_str(&text).context(format!("reading {}", path.display()))
    }

    /// Writes this as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("writing a state")?;
        fs::write(path, text).context(format!("writing {}", path.display()))
    }

    /// A command that runs a class of Kafka's tools.
    pub fn tool(&self, class: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.java);
        command.args(node::java_flags(&self.version, 256, false));
        command.arg("-cp").arg(self.class_path()).arg(class).args(args).stdin(Stdio::null());
        command
    }

    /// Waits until no broker accepts a connection and the cluster's folder is removed.
    pub fn wait_gone(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let alive = self.bootstrap.split(',').find(|a| TcpStream::connect(a).is_ok());
            match alive {
                None if !self.dir.exists() => return Ok(()),
                _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Some(address) => {
                    return Err(Error::new(format!("a broker still answers at {address}")));
                }
                None => return Err(Error::new(format!("{} is still there", self.dir.display()))),
            }
        }
    }

    pub(crate) fn class_path(&self) -> String {
        format!("{}:{}/*", self.dir.display(), self.libs.display())
    }
}
