//! Python: the one tool besides Rust and a C compiler that a machine must have.
//!
//! Everything else arrives as wheels, installed into virtual environments from requirements whose
//! every file is pinned by its sha256.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache;
use crate::error::{Context, Error, Result};

/// Oldest Python the wheels and scripts are made for.
pub const OLDEST: (u32, u32) = (3, 11);

/// Tried in this order after `OTTLA_PYTHON`.
const NAMES: [&str; 6] =
    ["python3", "python3.11", "python3.12", "python3.13", "python3.14", "python"];

/// A Python interpreter that is new enough.
#[derive(Debug, Clone)]
pub struct Python {
    /// The interpreter itself.
    pub path: PathBuf,
    /// Major and minor version.
    pub version: (u32, u32),
}

impl Python {
    /// Finds the first interpreter of at least [`OLDEST`] that has `venv` and `ensurepip`.
    pub fn find() -> Result<Self> {
        let own = std::env::var("OTTLA_PYTHON").ok();
        let names: Vec<&str> = match &own {
            Some(path) => vec![path],
            None => NAMES.to_vec(),
        };
        let mut seen = Vec::new();
        for name in names {
            match Self::try_name(name) {
                Ok(found) => return Ok(found),
                Err(Some(why)) => seen.push(format!("{name}: {why}")),
                Err(None) => {}
            }
        }
        Err(missing(&seen))
    }

    /// `Err(None)`: no such program. `Err(Some)`: one that does not do, and why.
    fn try_name(name: &str) -> std::result::Result<Self, Option<String>> {
        const ASK: &str = "import sys; print(*sys.version_info[:2], sys.executable)\n\
                           import venv, ensurepip";
        let out =
            Command::new(name).args(["-c", ASK]).stdin(Stdio::null()).output().map_err(|_| None)?;
        let stdout = String::from_utf8_lossy(&out.stdout);
        let Some((version, path)) = parse_answer(&stdout) else { return Err(None) };
        if version < OLDEST {
            return Err(Some(format!("is {}.{}", version.0, version.1)));
        }
        if !out.status.success() {
            return Err(Some(format!("is {}.{}, without venv", version.0, version.1)));
        }
        Ok(Self { path, version })
    }

    /// A cached virtual environment holding exactly `requirements`.
    ///
    /// `requirements` is the text of a requirements file with a hash for each distribution;
    /// `download` says how much a first call fetches. Nothing is built: wheels only.
    pub fn venv(&self, name: &str, requirements: &str, download: &str) -> Result<Venv> {
        let entry = self.entry_name(name, requirements);
        let dir = cache::entry("venvs", &entry, |dir| {
            eprintln!("fetching {name} from PyPI ({download}), kept in {}", dir.display());
            let list = dir.join("requirements.txt");
            std::fs::write(&list, requirements).context("writing requirements")?;
            run(Command::new(&self.path).args(["-m", "venv"]).arg(dir))?;
            run(Command::new(dir.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(["--require-hashes", "--only-binary", ":all:", "-r"])
                .arg(&list))
        })?;
        Ok(Venv { dir })
    }

    /// Whether [`Self::venv`] would fetch nothing.
    pub fn has_venv(&self, name: &str, requirements: &str) -> bool {
        cache::has("venvs", &self.entry_name(name, requirements))
    }

    fn entry_name(&self, name: &str, requirements: &str) -> String {
        let made_from = format!("{} {:?}\n{requirements}", self.path.display(), self.version);
        format!("{name}-{}", cache::fingerprint(&made_from))
    }
}

/// A virtual environment in the cache. Shared: nothing is installed into it afterwards.
#[derive(Debug, Clone)]
pub struct Venv {
    dir: PathBuf,
}

impl Venv {
    /// Its interpreter.
    pub fn python(&self) -> PathBuf {
        self.bin("python")
    }

    /// One of its programs.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Runs a command to its end; when it fails, the error holds what it said.
pub fn run(command: &mut Command) -> Result<()> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .context(format!("running {}", command.get_program().to_string_lossy()))?;
    if out.status.success() {
        return Ok(());
    }
    let said =
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(20)..].join("\n");
    Err(Error::new(format!("{command:?} ended with {}:\n{tail}", out.status)))
}

fn parse_answer(stdout: &str) -> Option<((u32, u32), PathBuf)> {
    let mut words = stdout.trim().splitn(3, ' ');
    let version = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((version, PathBuf::from(words.next()?)))
}

fn missing(seen: &[String]) -> Error {
    let found = match seen {
        [] => "none found".to_owned(),
        _ => format!("found {}", seen.join("; ")),
    };
    Error::new(format!(
        "needs Python {}.{} or newer with its venv module ({found}). \
         On Debian or Ubuntu type: apt-get install python3 python3-venv   \
         or name one: export OTTLA_PYTHON=/path/to/python3",
        OLDEST.0, OLDEST.1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_a_version_and_a_path_that_may_hold_spaces() {
        let (version, path) = parse_answer("3 12 /opt/my python/bin/python3\n").unwrap();
        assert_eq!((version, path.to_str().unwrap()), ((3, 12), "/opt/my python/bin/python3"));
        assert!(parse_answer("pyenv: python3.12: command not found").is_none());
    }

    #[test]
    fn a_missing_python_says_what_was_seen_and_what_to_type() {
        let text = missing(&["python3: is 3.9".into()]).to_string();
        assert!(text.contains("3.11 or newer") && text.contains("python3: is 3.9"), "{text}");
        assert!(text.contains("apt-get install python3 python3-venv"), "{text}");
    }

    #[test]
    fn a_failed_command_shows_its_last_words() {
        let error = run(Command::new("python3").args(["-c", "raise SystemExit('no luck')"]));
        assert!(error.unwrap_err().to_string().contains("no luck"));
    }
}
