//! Runs one program: both of its streams line by line, within a time limit.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a silent program is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A program may leave something behind that holds its output open: it is waited for this long.
const AFTER_EXIT: Duration = Duration::from_secs(5);

/// Lines read ahead of the reader of this process.
const AHEAD: usize = 1024;

/// Runs `command` and hands each line to `line`, which returns whether it wants more.
///
/// Ends with the exit status' success, or an error that says why there is none. The program stays
/// in our process group: Ctrl-C on the terminal reaches it too.
pub(crate) fn run(
    command: Command,
    limit: Duration,
    line: impl FnMut(&str) -> bool,
) -> Result<bool, String> {
    run_and_wait(command, limit, AFTER_EXIT, line)
}

/// The same, with how long what it left behind may hold its output open.
fn run_and_wait(
    mut command: Command,
    limit: Duration,
    after_exit: Duration,
    mut line: impl FnMut(&str) -> bool,
) -> Result<bool, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = std::io::pipe().map_err(|e| format!("making a pipe: {e}"))?;
    let second = writer.try_clone().map_err(|e| format!("making a pipe: {e}"))?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second);
    let started = Instant::now();
    let mut child = command.spawn().map_err(|e| format!("cannot start {name}: {e}"))?;
    // It holds our ends of the pipe: without this the reader never sees the end.
    drop(command);

    let (to, from) = mpsc::sync_channel(AHEAD);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
            if to.send(text).is_err() {
                break;
            }
            bytes.clear();
        }
    });

    let mut exited: Option<(Instant, bool)> = None;
    let mut why = None;
    loop {
        match from.recv_timeout(LOOK) {
            Ok(text) => {
                if !line(&text) {
                    why = Some(format!("{name} prints without end; it was ended"));
                    break;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if exited.is_some_and(|(at, _)| at.elapsed() >= after_exit) {
                    break;
                }
            }
        }
        if exited.is_none()
            && let Ok(Some(status)) = child.try_wait()
        {
            exited = Some((Instant::now(), status.success()));
        }
        if exited.is_none() && started.elapsed() >= limit {
            why = Some(format!("{name} still ran after {} s; it was ended", limit.as_secs()));
            break;
        }
    }
    // It may close its output and go on: the limit holds for that too.
    while why.is_none() && exited.is_none() {
        match child.try_wait() {
            Ok(Some(status)) => exited = Some((Instant::now(), status.success())),
            _ if started.elapsed() >= limit => {
                why = Some(format!("{name} still ran after {} s; it was ended", limit.as_secs()));
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    match (why, exited) {
        (None, Some((_, success))) => Ok(success),
        (why, _) => {
            end_with_descendants(child.id());
            let _reaped = child.wait();
            Err(why.unwrap_or_default())
        }
    }
}

/// SIGKILL to a process and all that descend from it, where the system tells who they are.
fn end_with_descendants(pid: u32) {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = fs::read_to_string(entry.path().join("stat")).ok().and_then(parent) {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        all.extend(children.remove(&parent).unwrap_or_default());
        next += 1;
    }
    let list: Vec<String> = all.iter().map(u32::to_string).collect();
    // The shell's own kill: not every machine has a program of that name.
    let script = format!("kill -9 {}", list.join(" "));
    let _some_may_be_gone = Command::new("sh").args(["-c", &script]).output();
}

/// `12 (a) b) S 7 …`: the name may hold anything, what follows its last parenthesis is fixed.
fn parent(stat: String) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_arrive_and_the_status_too() {
        let mut lines = Vec::new();
        let script = "echo one; echo two >&2; printf three; exit 3";
        let success = run(sh(script), LONG, |line| {
            lines.push(line.to_owned());
            true
        });
        assert_eq!(success, Ok(false));
        assert_eq!(lines, ["one", "two", "three"]);
    }

    #[test]
    fn what_takes_too_long_is_ended_with_its_children() {
        let mut child = None;
        let error = run(sh("sleep 600 & echo $!; wait"), Duration::from_millis(300), |line| {
            child = line.parse::<u32>().ok();
            true
        });
        assert!(error.unwrap_err().contains("it was ended"));
        let gone = || {
            let state = fs::read_to_string(format!("/proc/{}/stat", child.unwrap()));
            // A zombie has ended; who reaps it is not ours to say.
            state.map_or(true, |stat| stat.contains(") Z"))
        };
        let deadline = Instant::now() + LONG;
        while !gone() {
            assert!(Instant::now() < deadline, "the child still runs");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_left_behind_does_not_hold_the_run_up() {
        let mut left = String::new();
        let soon = Duration::from_millis(50);
        let success = run_and_wait(sh("sleep 600 & echo $!"), LONG, soon, |line| {
            left = line.to_owned();
            true
        });
        assert_eq!(success, Ok(true));
        let ended = sh(&format!("kill -9 {left}")).status().unwrap();
        assert!(ended.success(), "it should have been alive");
    }

    #[test]
    fn what_goes_on_without_an_output_is_ended_too() {
        let (told, result) = mpsc::channel();
        std::thread::spawn(move || {
            let script = sh("exec >&- 2>&-; exec sleep 600");
            let _ = told.send(run(script, Duration::from_millis(200), |_| true));
        });
        let error = result.recv_timeout(LONG).expect("the limit holds").unwrap_err();
        assert!(error.contains("it was ended"), "{error}");
        // Within the limit its end is waited for, and how it ended is told.
        assert_eq!(run(sh("exec >&- 2>&-; exit 3"), LONG, |_| true), Ok(false));
    }

    #[test]
    fn what_prints_without_end_is_ended() {
        let mut lines = 0;
        let error = run(sh("while :; do echo x; done"), LONG, |_| {
            lines += 1;
            lines < 100
        });
        assert!(error.unwrap_err().contains("without end"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(Command::new("ottla-no-such-program"), LONG, |_| true).unwrap_err();
        assert!(error.starts_with("cannot start ottla-no-such-program"), "{error}");
    }

    #[test]
    fn the_parent_is_read_past_any_name() {
        assert_eq!(parent("12 (a) b) S 7 12".into()), Some(7));
    }
}
