//! Where the output of a stage goes: all of it to `target/xtask/STAGE.log`, its last line to the
//! terminal while it runs.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process;

/// A step that prints more than this prints without end.
const MOST_OUTPUT: usize = 64 << 20;

/// The status line is drawn at most this often.
const REDRAW: Duration = Duration::from_millis(80);

/// Columns of the status line: more would wrap in a common terminal.
const WIDTH: usize = 100;

/// The log of one stage.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    stage: &'static str,
    drawn: Option<Instant>,
    terminal: bool,
    /// What was written since the step began.
    step: String,
    /// A command that prints more than this is ended.
    most_output: usize,
}

impl Log {
    pub(crate) fn create(folder: &Path, stage: &'static str) -> Result<Self, String> {
        let path = folder.join(format!("{stage}.log"));
        let file = fs::create_dir_all(folder)
            .and_then(|()| File::create(&path))
            .map_err(|e| format!("creating {}: {e}", path.display()))?;
        let terminal = std::io::stdout().is_terminal();
        Ok(Self {
            path,
            file,
            stage,
            drawn: None,
            terminal,
            step: String::new(),
            most_output: MOST_OUTPUT,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a step: what follows is its output.
    pub(crate) fn begin(&mut self, step: &str) {
        self.line(&format!("--- {step}"));
        self.step.clear();
    }

    /// What the step has written.
    pub(crate) fn step_output(&self) -> &str {
        &self.step
    }

    /// The last `lines` of the step, without those that only say that a test began or passed: hundreds of them come behind the
    /// one that failed.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let all: Vec<&str> = self.step.lines().filter(|line| !is_good_news(line)).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The lines of the step that name a test which failed, each once, at most `most` of them.
    pub(crate) fn failures(&self, most: usize) -> Vec<String> {
        let mut named: Vec<String> = Vec::new();
        for line in self.step.lines().map(str::trim).filter(|line| is_failure(line)) {
            if named.len() < most && !named.iter().any(|name| name == line) {
                named.push(line.to_owned());
            }
        }
        named
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, line: &str) {
        // A full disk must not hide the result of the tests: the terminal still shows it.
        let _kept = writeln!(self.file, "{line}");
        self.step.push_str(line);
        self.step.push('\n');
        self.draw(line);
    }

    /// Runs a command to its end, or until `limit`; returns whether it succeeded, and its output.
    pub(crate) fn run(
        &mut self,
        command: Command,
        limit: Duration,
    ) -> Result<(bool, String), String> {
        self.run_shown(command, limit, |line| Some(line.to_owned()))
    }

    /// The same for a program whose lines are made readable by `text`; output is as it came.
    pub(crate) fn run_shown(
        &mut self,
        command: Command,
        limit: Duration,
        text: impl Fn(&str) -> Option<String>,
    ) -> Result<(bool, String), String> {
        self.line(&format!("$ {}", process::shown(&command)));
        let mut output = String::new();
        let most_output = self.most_output;
        let success = process::run(command, limit, |line| {
            output.push_str(line);
            output.push('\n');
            if let Some(text) = text(line) {
                self.line(&text);
            }
            output.len() < most_output
        })?;
        Ok((success, output))
    }

    /// Runs a command that only prepares what a step needs.
    pub(crate) fn prepare(&mut self, command: Command, limit: Duration) -> Result<(), String> {
        let what = process::shown(&command);
        match self.run(command, limit)? {
            (true, _) => Ok(()),
            (false, _) => Err(format!("{what} failed")),
        }
    }

    fn draw(&mut self, line: &str) {
        if self.terminal && self.drawn.is_none_or(|at| at.elapsed() >= REDRAW) {
            self.drawn = Some(Instant::now());
            let text = format!("  {}: {}", self.stage, plain(line));
            let cut: String = text.chars().take(WIDTH).collect();
            print!("\r\x1b[2K{cut}");
            let _drawn = std::io::stdout().flush();
        }
    }

    /// Takes the status line away.
    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            print!("\r\x1b[2K");
            let _drawn = std::io::stdout().flush();
        }
    }
}

/// Go's and nextest's words for a test that is under way or passed.
fn is_good_news(line: &str) -> bool {
    let line = line.trim_start();
    ["=== RUN ", "=== PAUSE ", "=== CONT ", "--- PASS:", "PASS ["]
        .iter()
        .any(|word| line.starts_with(word))
}

/// How Go, nextest, pytest, libtest and the C tests name a test that failed.
fn is_failure(line: &str) -> bool {
    let begins =
        ["--- FAIL:", "FAIL [", "TIMEOUT [", "SIGABRT [", "SIGSEGV [", "FAILED ", "ERROR "];
    begins.iter().any(|word| line.starts_with(word))
        || (line.starts_with("test ") && line.ends_with("... FAILED"))
        || line.contains(": failed: ")
}

/// Control characters would move the cursor out of the status line.
fn plain(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_all_and_gives_the_end_of_the_step() {
        let folder = std::env::temp_dir().join(format!("ottla-xtask-log-{}", std::process::id()));
        let mut log = Log::create(&folder, "demo").unwrap();
        log.line("before");
        log.begin("step");
        for i in 0..5 {
            log.line(&format!("line {i}"));
        }
        assert_eq!(log.tail(2), "line 3\nline 4");
        assert!(!log.step_output().contains("before"));
        assert!(fs::read_to_string(log.path()).unwrap().starts_with("before\n--- step\nline 0"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_failed_is_found_among_what_passed() {
        let folder = std::env::temp_dir().join(format!("ottla-xtask-bad-{}", std::process::id()));
        let mut log = Log::create(&folder, "demo").unwrap();
        log.begin("step");
        for line in ["=== RUN   TestA", "    a_test.go:3: 2 is not 1", "--- FAIL: TestA (0.1s)"] {
            log.line(line);
        }
        for i in 0..9 {
            log.line(&format!("=== RUN   TestB{i}"));
            log.line(&format!("    --- PASS: TestB{i} (0.00s)"));
            log.line(&format!("        PASS [   0.013s] ottla b::{i}"));
        }
        for line in [
            "FAIL [ 1.0s] ottla c",
            "FAIL [ 1.0s] ottla c",
            "test d ... FAILED",
            "x.c:3: failed: a",
        ] {
            log.line(line);
        }
        let names = [
            "--- FAIL: TestA (0.1s)",
            "FAIL [ 1.0s] ottla c",
            "test d ... FAILED",
            "x.c:3: failed: a",
        ];
        assert_eq!(log.failures(9), names);
        assert_eq!(log.failures(2), names[..2]);
        assert!(
            log.tail(6).starts_with("    a_test.go:3: 2 is not 1\n--- FAIL: TestA"),
            "{}",
            log.tail(6)
        );
        fs::remove_dir_all(&folder).unwrap();
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_preparation_that_fails_is_no_preparation() {
        let folder = std::env::temp_dir().join(format!("ottla-xtask-prep-{}", std::process::id()));
        let mut log = Log::create(&folder, "demo").unwrap();
        let limit = Duration::from_secs(60);
        assert_eq!(log.prepare(sh("echo fine"), limit), Ok(()));
        assert!(log.prepare(sh("echo bad >&2; exit 1"), limit).unwrap_err().ends_with("failed"));
        assert!(log.step_output().contains("\nbad\n"), "{}", log.step_output());
        // Lines are shown as a reader wants them, and counted as they came.
        let shown = log.run_shown(sh("echo a; echo b"), limit, |l| (l == "b").then(|| "B".into()));
        assert_eq!(shown, Ok((true, "a\nb\n".to_owned())));
        assert!(log.step_output().ends_with("\nB\n"), "{}", log.step_output());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn output_without_end_is_cut() {
        let folder = std::env::temp_dir().join(format!("ottla-xtask-end-{}", std::process::id()));
        let mut log = Log::create(&folder, "demo").unwrap();
        log.most_output = 1 << 20;
        let script = sh("x=$(printf '%0100000d' 0); while :; do echo $x; done");
        let cut = log.run_shown(script, Duration::from_secs(30), |_| None).unwrap_err();
        assert!(cut.contains("prints without end"), "{cut}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_status_line_holds_no_control_characters() {
        assert_eq!(plain("a\x1b[2Kb\tc"), "a [2Kb c");
    }
}
