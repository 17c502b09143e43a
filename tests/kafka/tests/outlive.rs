//! No broker outlives the test process that started it, however that ends.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ottla_test_kafka::{Cluster, Options, State};

/// Set in the process that is killed: the same test, started once more.
const VICTIM_VAR: &str = "OTTLA_TEST_VICTIM";

const END_DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn real_brokers_end_with_a_killed_test_process() {
    if let Some(path) = std::env::var_os(VICTIM_VAR) {
        hold(Path::new(&path));
        return;
    }
    let path = std::env::temp_dir().join(format!("ottla-victim-{}.json", std::process::id()));
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "real_brokers_end_with_a_killed_test_process", "--nocapture"])
        .env(VICTIM_VAR, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    for line in lines {
        seen.push(line.unwrap());
        if seen.last().is_some_and(|line| line.ends_with("holding")) {
            break;
        }
    }
    assert!(path.exists(), "no cluster: {seen:?}");
    let state = State::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(state.wait_gone(Duration::ZERO).is_err(), "it should be there before the kill");
    assert_eq!(state.pids.len(), 2);

    // SIGKILL: nothing of that process runs any more.
    victim.kill().unwrap();
    victim.wait().unwrap();
    state.wait_gone(END_DEADLINE).unwrap();
}

fn hold(path: &Path) {
    let cluster = Cluster::start(Options { brokers: 2, ..Options::default() }).unwrap();
    cluster.state().write(path).unwrap();
    println!("holding");
    // Until it is killed; if its parent ends first, until that closes the pipe.
    let _end = std::io::stdin().read(&mut [0]);
}

#[test]
fn real_brokers_end_with_the_cluster() {
    let cluster = Cluster::start(Options { brokers: 1, ..Options::default() }).unwrap();
    let state = cluster.state().clone();
    drop(cluster);
    state.wait_gone(END_DEADLINE).unwrap();
}
