//! Runs the counting: valgrind must be on the machine, the rest comes through cargo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::recorded::Counts;

/// The runner's version is the crate's: they speak a private format with each other.
const RUNNER: &str = "gungraun-runner";
const RUNNER_VERSION: &str = "=0.20.0";

/// Builds and runs `benches/hot_paths.rs`.
pub(crate) fn count() -> Result<Counts, String> {
    check_valgrind()?;
    let tools = target()?.join("gungraun-runner");
    install_runner(&tools)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(tools.join("bin")).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).map_err(|e| format!("PATH: {e}"))?;
    let mut command = cargo();
    command.args(["bench", "--locked", "--quiet", "-p", "ottla-bench"]);
    command.args(["--features", "instructions", "--bench", "hot_paths", "--"]);
    command.args(["--output-format=json"]).env("PATH", path);
    let output = run(command.stdout(Stdio::piped()), "cargo bench")?;
    let counts = parse(&output)?;
    if counts.is_empty() {
        return Err(format!("cargo bench counted nothing; it printed:\n{output}"));
    }
    Ok(counts)
}

fn check_valgrind() -> Result<(), String> {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(()),
        _ => Err("valgrind is not on this machine, and instructions are counted with it: install \
                  it (Debian and Ubuntu: apt-get install valgrind; Fedora: dnf install valgrind)"
            .to_owned()),
    }
}

fn install_runner(tools: &Path) -> Result<(), String> {
    let list = cargo().args(["install", "--list", "--root"]).arg(tools).output();
    let list = list.map_err(|e| format!("cannot start cargo: {e}"))?;
    let wanted = format!("{RUNNER} v{}:", RUNNER_VERSION.trim_start_matches('='));
    if String::from_utf8_lossy(&list.stdout).contains(&wanted) {
        return Ok(());
    }
    eprintln!("instructions: building {RUNNER} {RUNNER_VERSION}, once");
    let mut command = cargo();
    command.args(["install", "--locked", "--quiet", RUNNER, "--version", RUNNER_VERSION]);
    run(command.arg("--root").arg(tools), "cargo install").map(drop)
}

/// Runs a command whose errors the user sees as they come; gives its standard output if that is
/// piped.
fn run(command: &mut Command, name: &str) -> Result<String, String> {
    let child = command.stdin(Stdio::null()).stderr(Stdio::inherit()).spawn();
    let output = child.and_then(std::process::Child::wait_with_output);
    let output = output.map_err(|e| format!("cannot start {name}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
}

/// The target folder this program was built into.
fn target() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("cannot find itself: {e}"))?;
    let target = own.ancestors().nth(2).ok_or("this program is not in a target folder")?;
    Ok(target.to_owned())
}

/// One JSON object per benchmark and line.
fn parse(output: &str) -> Result<Counts, String> {
    let mut counts = Counts::new();
    for line in output.lines().filter(|line| line.starts_with('{')) {
        let summary: Value = serde_json::from_str(line).map_err(|e| format!("'{line}': {e}"))?;
        let text = |field: &str| summary[field].as_str().unwrap_or_default();
        let name = match text("id") {
            "once" | "" => text("function_name").to_owned(),
            id => format!("{}_{id}", text("function_name")),
        };
        let count = instructions(&summary).ok_or(format!("no instructions in '{line}'"))?;
        counts.insert(name, count);
    }
    Ok(counts)
}

fn instructions(summary: &Value) -> Option<u64> {
    summary.pointer("/profiles/0/data/total/metrics/Ir/values/new")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_summaries() {
        let summary = |name: &str, id: &str, count: u64| {
            let values = serde_json::json!({ "Ir": { "values": { "new": count, "old": 1 } } });
            let data = serde_json::json!({ "total": { "metrics": values } });
            serde_json::json!({
                "function_name": name, "id": id, "profiles": [{ "data": data }],
            })
        };
        let (a, b) = (summary("send", "lz4", 12), summary("header", "once", 3));
        let want = Counts::from([("send_lz4".to_owned(), 12), ("header".to_owned(), 3)]);
        assert_eq!(parse(&format!("noise\n{a}\n{b}\n")), Ok(want));
        assert!(parse("{\"function_name\": \"send\"}").is_err());
    }
}
