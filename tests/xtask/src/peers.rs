//! `cargo xtask peers`: builds the members of all clients, and hands them to the program that makes groups of them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::log::Log;
use crate::machine;
use crate::place::Place;
use crate::stages::{PACKAGES, PEERS_ENV};

/// Building on two busy cores.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// Builds what tests run, not for release: what is told is how long members wait, not what they cost.
pub(crate) fn run(root: &Path, target: &Path, args: &[String]) -> Result<bool, String> {
    let python = machine::check(&[])?;
    let mut place = Place::new(root.to_owned(), target.to_owned(), false, python);
    let mut log = Log::create(&place.folder(), "peers")?;
    let mut cargo = place.command("cargo");
    cargo.args(["build", "--locked"]).args(PACKAGES);
    for name in ["peers", "verifiable-consumer", "verifiable-producer"] {
        cargo.args(["--bin", name]);
    }
    let built = log.prepare(cargo, LIMIT);
    let env = built.and_then(|()| {
        let fill = |(name, value): &(&'static str, &str)| Ok((*name, place.fill(value, &mut log)?));
        PEERS_ENV.iter().map(fill).collect::<Result<Vec<_>, String>>()
    });
    log.clear();
    let env = env.map_err(|why| format!("{}\n{why}", log.tail(40)))?;
    let status = Command::new(target.join("debug/peers")).args(args).envs(env).status();
    Ok(status.map_err(|e| format!("cannot start peers: {e}"))?.success())
}
