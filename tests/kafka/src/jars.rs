//! Kafka's own jars, by version.
//!
//! `locks/VERSION/jgo.lock.toml` lists each file with its sha256; `jgo lock` in that folder makes it
//! anew from `jgo.toml`. What does not match is refused and nothing of it is kept.

use std::path::PathBuf;
use std::process::Command;

use crate::cache;
use crate::error::{Context, Error, Result};
use crate::python::{Python, run};

const REQUIREMENTS: &str = include_str!("../requirements/kafka.txt");
const SCRIPT: &str = include_str!("../scripts/fetch_jars.py");

/// Releases with a lock file, oldest first.
const LOCKS: [(&str, &str); 4] = [
    ("3.9.2", include_str!("../locks/3.9.2/jgo.lock.toml")),
    ("4.1.2", include_str!("../locks/4.1.2/jgo.lock.toml")),
    ("4.2.1", include_str!("../locks/4.2.1/jgo.lock.toml")),
    ("4.3.0", include_str!("../locks/4.3.0/jgo.lock.toml")),
];

/// The releases that can be started, oldest first.
pub fn versions() -> impl Iterator<Item = &'static str> {
    LOCKS.iter().map(|(version, _)| *version)
}

/// The folder with the jars of `version`, fetched if it is not there yet.
pub fn provide(python: &Python, version: &str) -> Result<PathBuf> {
    let lock = lock_of(version)?;
    let name = entry_name(version, lock);
    let dir = cache::entry("kafka", &name, |dir| {
        let venv = python.venv("jgo", REQUIREMENTS, "3 MB")?;
        eprintln!("fetching Kafka {version} from Maven Central (56 MB), kept in {}", dir.display());
        let path = dir.join("jgo.lock.toml");
        std::fs::write(&path, lock).context("writing the lock file")?;
        run(Command::new(venv.python()).args(["-I", "-c", SCRIPT]).arg(path).arg(dir.join("libs")))
    })?;
    Ok(dir.join("libs"))
}

/// Whether [`provide`] would fetch nothing.
pub fn has(version: &str) -> bool {
    lock_of(version).is_ok_and(|lock| cache::has("kafka", &entry_name(version, lock)))
}

fn entry_name(version: &str, lock: &str) -> String {
    format!("{version}-{}", cache::fingerprint(lock))
}

fn lock_of(version: &str) -> Result<&'static str> {
    LOCKS.iter().find(|(known, _)| *known == version).map(|(_, lock)| *lock).ok_or_else(|| {
        let known: Vec<_> = versions().collect();
        Error::new(format!(
            "no lock file for Kafka {version}; there is one for {}",
            known.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_every_release_has_a_checksum() {
        for (version, lock) in LOCKS {
            let files = lock.matches("[[dependencies]]").count();
            assert!(files > 80, "{version}: {files} files");
            assert_eq!(files, lock.matches("\nsha256 = \"").count(), "{version}");
            assert!(
                lock.contains(&format!("artifactId = \"kafka-tools\"\nversion = \"{version}\""))
            );
        }
    }

    #[test]
    fn an_unknown_release_lists_the_known_ones() {
        let error = lock_of("2.8.0").unwrap_err().to_string();
        assert!(error.contains("3.9.2, 4.1.2, 4.2.1, 4.3.0"), "{error}");
    }
}
