//! What the machine itself must have: Rust with its components, a C compiler, Python.
//!
//! All that is missing is said at once, each with what to type, before anything is built.

use std::env;
use std::process::{Command, Stdio};

use ottla_test_kafka::python::Python;

use crate::stage::Need;

/// The oldest Go that go-bindings are written for.
const OLDEST_GO: (u32, u32) = (1, 24);

/// Finds Python and looks for everything else of `needs` that cannot be fetched.
pub(crate) fn check(needs: &[Need]) -> Result<Python, String> {
    let mut missing = Vec::new();
    for need in needs {
        let problem = match need {
            Need::Component(name) => component(name),
            Need::Cc => compiler(&cc()),
            _ => None,
        };
        missing.extend(problem);
    }
    missing.dedup();
    match Python::find() {
        Ok(python) if missing.is_empty() => Ok(python),
        Ok(_) => Err(missing.join("\n")),
        Err(error) => {
            missing.push(error.to_string());
            Err(missing.join("\n"))
        }
    }
}

/// The C compiler: `CC`, else `cc`.
pub(crate) fn cc() -> String {
    env::var("CC").ok().filter(|cc| !cc.is_empty()).unwrap_or_else(|| "cc".into())
}

fn compiler(cc: &str) -> Option<String> {
    (!answers(cc, &["--version"])).then(|| {
        format!(
            "needs a C compiler ('{cc}' does not run). \
             On Debian or Ubuntu type: apt-get install gcc libc6-dev   \
             or name one: export CC=/path/to/cc"
        )
    })
}

fn component(name: &str) -> Option<String> {
    let component = if name == "fmt" { "rustfmt" } else { name };
    (!answers("cargo", &[name, "--version"])).then(|| {
        format!(
            "needs {component} ('cargo {name}' does not run). \
             Type: rustup component add {component}"
        )
    })
}

fn answers(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether the machine has a Go that is new enough.
pub(crate) fn has_go() -> bool {
    let Ok(out) = Command::new("go").args(["env", "GOVERSION"]).output() else { return false };
    is_new_enough(&String::from_utf8_lossy(&out.stdout))
}

fn is_new_enough(answer: &str) -> bool {
    go_version(answer).is_some_and(|version| version >= OLDEST_GO)
}

/// `go1.27.3` is 1.27.
fn go_version(answer: &str) -> Option<(u32, u32)> {
    let mut numbers = answer.trim().strip_prefix("go")?.split(['.', 'r', 'b']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_compiler_is_named_with_what_to_type() {
        let text = compiler("ottla-no-such-cc").unwrap();
        assert!(text.contains("needs a C compiler ('ottla-no-such-cc'"), "{text}");
        assert!(text.contains("apt-get install gcc"), "{text}");
    }

    #[test]
    fn a_missing_component_is_named_with_what_to_type() {
        let text = component("no-such-command").unwrap();
        assert!(text.contains("rustup component add no-such-command"), "{text}");
    }

    #[test]
    fn only_a_program_that_succeeds_is_there() {
        assert!(answers("sh", &["-c", "exit 0"]));
        assert!(!answers("sh", &["-c", "exit 1"]));
    }

    #[test]
    fn versions_of_go_are_read() {
        assert_eq!(go_version("go1.27.3\n"), Some((1, 27)));
        assert_eq!(go_version("go1.25rc1"), Some((1, 25)));
        assert_eq!(go_version("devel +abc"), None);
        let enough = ["go1.9", "go1.23.9", "go1.24", "go2.0", "devel"].map(is_new_enough);
        assert_eq!(enough, [false, false, true, true, false]);
    }

    #[test]
    fn all_that_is_missing_is_said_at_once() {
        let needs =
            [Need::Component("ottla-no-such-a"), Need::Go, Need::Component("ottla-no-such-b")];
        let all = check(&needs).unwrap_err();
        assert!(all.contains("ottla-no-such-a") && all.contains("ottla-no-such-b"), "{all}");
    }
}
