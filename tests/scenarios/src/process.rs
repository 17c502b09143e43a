//! Other programs, run with a deadline.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a program that reads or writes 100,000 records may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// Runs a program to its end, its output in `out`.
///
/// # Errors
/// A sentence with the end of what it said on stderr: it did not start, failed, or was killed when
/// the deadline passed.
pub fn run(mut command: Command, out: &Path) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let said = out.with_extension("stderr");
    let file = |path: &Path| File::create(path).map_err(|e| format!("{}: {e}", path.display()));
    command.stdin(Stdio::null()).stdout(file(out)?).stderr(file(&said)?);
    let mut child = command.spawn().map_err(|e| format!("starting {program}: {e}"))?;
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        match child.try_wait().map_err(|e| format!("waiting for {program}: {e}"))? {
            Some(status) => break Some(status),
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            None => break None,
        }
    };
    let words = || {
        let text = fs::read(&said).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    };
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{program} ended with {status}:\n{}", words())),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("{program} was killed after {DEADLINE:?}:\n{}", words()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_says_so_in_its_last_words() {
        let out = std::env::temp_dir().join(format!("ottla-program-{}", std::process::id()));
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            run(command, &out)
        };
        assert_eq!(sh("echo written; echo said >&2"), Ok(()));
        assert_eq!(fs::read_to_string(&out).unwrap(), "written\n");
        let error = sh("echo no luck >&2; exit 3").unwrap_err();
        assert!(error.contains("sh ended with") && error.contains("no luck"), "{error}");
        assert!(run(Command::new("ottla-no-such-program"), &out).is_err());
        fs::remove_file(&out).unwrap();
        fs::remove_file(out.with_extension("stderr")).unwrap();
    }
}
