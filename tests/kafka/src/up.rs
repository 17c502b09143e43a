//! A cluster that stays: `up` leaves it running, `down` ends it, from any process of the user.

use std::fs;
use std::path::PathBuf;

use crate::cache;
use crate::cluster::{Cluster, Options};
use crate::error::{Context, Error, Result};
use crate::state::State;
use crate::supervisor;

/// Environment variable with the path of the file that remembers the cluster of [`up`], for those
/// who want several. Default: `up.json` in the cache folder.
pub const UP_VAR: &str = "OTTLA_KAFKA_UP";

fn state_path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(UP_VAR) {
        return Ok(PathBuf::from(path));
    }
    Ok(cache::root()?.join("up.json"))
}

/// Starts a cluster that lives until [`down`]. Refused while there is one.
pub fn up(options: Options) -> Result<State> {
    let path = state_path()?;
    if let Ok(state) = State::read(&path) {
        // The folder goes with the brokers.
        if state.dir.exists() {
            return Err(Error::new(format!(
                "a cluster is up already, at {}. Type: cargo xtask kafka down",
                state.bootstrap
            )));
        }
    }
    let cluster = Cluster::start(options)?;
    // Written before the pipe is let go: what is up can always be brought down.
    cluster.state().write(&path)?;
    let socket = cluster.state().dir.join("control.sock");
    cluster.detach(&socket)
}

/// Ends the cluster that [`up`] left. `None` when there was none.
pub fn down() -> Result<Option<State>> {
    let path = state_path()?;
    let Ok(state) = State::read(&path) else { return Ok(None) };
    let was_up = supervisor::shutdown(&state.dir.join("control.sock"))?;
    fs::remove_file(&path).context(format!("removing {}", path.display()))?;
    Ok(was_up.then_some(state))
}
