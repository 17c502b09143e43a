//! `cargo xtask kafka`, as people use it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ottla_test_kafka::{State, up::UP_VAR};

const END_DEADLINE: Duration = Duration::from_secs(60);

fn xtask(args: &[&str], up: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    // Not the cluster that the person who runs this may have up.
    command.arg("kafka").args(args).env(UP_VAR, up).stdin(Stdio::null());
    command
}

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn real_up_stays_until_down() {
    let path = std::env::temp_dir().join(format!("ottla-up-{}.json", std::process::id()));
    let started = xtask(&["up", "--brokers", "1"], &path).output().unwrap();
    assert!(started.status.success(), "{}", text(&started));
    let bootstrap = String::from_utf8(started.stdout).unwrap().trim().to_owned();
    // The process that started it has ended, and it is there.
    let state = State::read(&path).unwrap();
    assert_eq!(state.bootstrap, bootstrap);
    assert!(state.wait_gone(Duration::ZERO).is_err());

    let again = xtask(&["up", "--brokers", "1"], &path).output().unwrap();
    assert!(!again.status.success());
    assert!(text(&again).contains("Type: cargo xtask kafka down"), "{}", text(&again));

    let ended = xtask(&["down"], &path).output().unwrap();
    assert!(ended.status.success() && text(&ended).contains(&bootstrap), "{}", text(&ended));
    state.wait_gone(END_DEADLINE).unwrap();
    let ended = xtask(&["down"], &path).output().unwrap();
    assert!(text(&ended).contains("no cluster is up"), "{}", text(&ended));
}

#[test]
fn real_brokers_end_with_a_killed_runner() {
    let script = "echo \"$OTTLA_KAFKA_STATE\"; read line";
    let mut runner = xtask(&["run", "--brokers", "2", "--", "sh", "-c", script], Path::new("/"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(runner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let state = State::read(Path::new(line.trim())).unwrap();
    assert!(state.wait_gone(Duration::ZERO).is_err(), "it should be there before the kill");

    runner.kill().unwrap();
    runner.wait().unwrap();
    state.wait_gone(END_DEADLINE).unwrap();
}

#[test]
fn an_unknown_version_is_refused_with_those_there_are() {
    let out = xtask(&["up", "--version", "0.8.0"], Path::new("/nonexistent/up.json")).output();
    let out = out.unwrap();
    assert!(!out.status.success());
    assert!(text(&out).contains("3.9.2, 4.1.2, 4.2.1, 4.3.0"), "{}", text(&out));
}
