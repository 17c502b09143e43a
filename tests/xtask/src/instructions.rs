//! Instructions of the hot paths: they repeat exactly where seconds do not.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::count::{Count, Counts};
use crate::log::Log;
use crate::place::Place;
use crate::stages::PACKAGES;

/// Building the counting tool and the benchmark, on two busy cores.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// Counts and compares with what is recorded. Without valgrind it is skipped, and says so; where
/// continuous integration runs, that is a failure instead.
pub(crate) fn count_instructions(place: &mut Place, log: &mut Log) -> Result<Counts, String> {
    if !has_valgrind() {
        let why = "valgrind is not on this machine, and instructions are counted with it; install \
                   it (Debian and Ubuntu: apt-get install valgrind; Fedora: dnf install valgrind)";
        if std::env::var_os("CI").is_some() {
            return Err(why.into());
        }
        log.line(&format!("skipped: {why}"));
        return Ok(Counts { skipped: 1, ..Counts::default() });
    }
    // Of the workspace: by itself it would have the library built once more, with other features.
    let mut build = place.command("cargo");
    build.args(["build", "--locked"]).args(PACKAGES).args(["--bin", "instructions"]);
    log.prepare(build, LIMIT)?;
    let mut command = place.command(place.target().join("debug/instructions"));
    command.arg("--check");
    let (success, output) = log.run(command, LIMIT)?;
    Count::Words.read(success, &output)
}

fn has_valgrind() -> bool {
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    valgrind.status().is_ok_and(|status| status.success())
}
