//! Signals, as what is run from here finds them.
//!
//! A program that is told to ignore a signal hands that down to what it starts: below a shell's `&` or
//! a supervisor, Ctrl-C would be ignored by the very programs whose tests press it, and they would
//! wait for ever. Blocked signals are not handed down: the standard library unblocks them.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};

/// Has everything that is started from now on find these signals as the system has them. This
/// program goes on ignoring those that it was told to ignore.
///
/// SIGHUP is left as it is: who starts a run by `nohup` wants it to outlive the terminal, with all
/// that runs in it.
pub(crate) fn hand_down_defaults() -> io::Result<()> {
    let ignored = fs::read_to_string("/proc/self/status").ok().and_then(|s| ignored(&s));
    for signal in [SIGINT, SIGQUIT, SIGTERM] {
        // Where the system does not tell: a handler would take Ctrl-C from who did not ask for it.
        if ignored.is_some_and(|mask| mask & 1 << (signal - 1) != 0) {
            // A handler that does nothing: the same for this program, and none in the next.
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
    }
    Ok(())
}

/// The signals that a process ignores, a bit each, as `/proc/PID/status` tells them.
fn ignored(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::process;

    /// Set where the test below runs itself, as the program that starts steps.
    #[cfg(target_os = "linux")]
    const STARTS_STEPS: &str = "OTTLA_XTASK_TEST_STARTS_STEPS";

    /// Prints what a program finds that is started the way steps are.
    #[cfg(target_os = "linux")]
    fn what_a_step_finds() {
        hand_down_defaults().unwrap();
        let mut cat = Command::new("cat");
        cat.arg("/proc/self/status");
        let mut status = String::new();
        let limit = Duration::from_secs(60);
        let success = process::run(cat, limit, |line| {
            status += line;
            status.push('\n');
            true
        });
        assert_eq!(success, Ok(true));
        println!("found {:x}", ignored(&status).unwrap());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_step_finds_signals_as_the_system_has_them() {
        if std::env::var_os(STARTS_STEPS).is_some() {
            return what_a_step_finds();
        }
        let script = r#"trap "" HUP INT QUIT TERM; exec "$0" "$@""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(std::env::current_exe().unwrap());
        let name = "signals::tests::a_step_finds_signals_as_the_system_has_them";
        shell.args(["--exact", name, "--nocapture"]).env(STARTS_STEPS, "1");
        let output = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        let found = output.split_once("found ").unwrap_or_else(|| panic!("{output}")).1;
        let found = u64::from_str_radix(found.split_whitespace().next().unwrap(), 16).unwrap();
        let bit = |signal: i32| found >> (signal - 1) & 1;
        assert_eq!([SIGINT, SIGQUIT, SIGTERM].map(bit), [0, 0, 0], "{output}");
        assert_eq!(bit(signal_hook::consts::SIGHUP), 1, "nohup is meant: {output}");
    }

    #[test]
    fn the_mask_is_read() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001006\n"), Some(0x1006));
        assert_eq!(ignored("Name:\tx\n"), None);
    }
}
