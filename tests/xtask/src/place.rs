//! What a run provides to its steps, made when first asked for.
//!
//! | word | is |
//! |---|---|
//! | `{python}` | the machine's Python |
//! | `{cargo-tools}`, `{python-tools}`, `{foreign}` | `bin` of a cached environment |
//! | `{wheel}` | `bin` of a fresh environment with the wheel of this tree and the test tools |
//! | `{go}`, `{gofmt}` | the Go toolchain |
//! | `{dist}` | the C library as installed |
//! | `{broker}` | bootstrap string of a running embedded cluster |
//! | `{interop-python}`, `{interop-go}`, `{interop-c}` | how to start the interop tool of a language; nothing where the tree has none |
//! | `{peer-librdkafka}`, `{peer-franz-go}`, `{peer-sarama}` | how to start a member of a group through another client |
//! | `{tmp}` | `target/xtask` |

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ottla_test_kafka::python::Python;
use ottla_test_kafka::{Cluster, HERMETIC_VAR};

use crate::log::Log;
use crate::stage::Need;
use crate::stages::{GO_ENV, PACKAGES};
use crate::{c, dist, fetch, wheel};

/// The interop tools.
const PYTHON_INTEROP: &str = "python/tests/interop.py";
const GO_INTEROP: &str = "go-bindings/internal/interop";
const C_INTEROP: &str = "c-api/tests/c/interop.c";

/// Building a wheel or a broker, on two busy cores.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// One run of the runner.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    target: PathBuf,
    hermetic: bool,
    python: Python,
    // A thing that could not be made is not tried again: the reason stays.
    made: HashMap<String, Result<String, String>>,
    cluster_env: Vec<(&'static str, String)>,
    /// How many a real cluster has.
    brokers: u32,
    cluster: Option<Cluster>,
    broker: Option<Child>,
}

impl Place {
    pub(crate) fn new(root: PathBuf, target: PathBuf, hermetic: bool, python: Python) -> Self {
        Self {
            root,
            target,
            hermetic,
            python,
            made: HashMap::new(),
            cluster_env: Vec::new(),
            brokers: 3,
            cluster: None,
            broker: None,
        }
    }

    /// The root of the tree.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The Python that was found.
    pub(crate) fn python(&self) -> &Python {
        &self.python
    }

    /// cargo's target folder.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Where logs and everything made for tests go.
    pub(crate) fn folder(&self) -> PathBuf {
        self.target.join("xtask")
    }

    /// A command that runs in the root, in the environment of this run.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        scrub(&mut command, &self.target);
        command.env(HERMETIC_VAR, if self.hermetic { "1" } else { "0" });
        // The one that was found and checked, for tests that start brokers themselves.
        command.env("OTTLA_PYTHON", &self.python.path);
        command.envs(self.cluster_env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Replaces each word in braces.
    pub(crate) fn fill(&mut self, text: &str, log: &mut Log) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (word, after) =
                after.split_once('}').ok_or_else(|| format!("no end of a word in '{text}'"))?;
            filled.push_str(before);
            filled.push_str(&self.get(word, log)?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn get(&mut self, word: &str, log: &mut Log) -> Result<String, String> {
        if let Some(made) = self.made.get(word) {
            return made.clone();
        }
        let made = self.make(word, log);
        self.made.insert(word.to_owned(), made.clone());
        made
    }

    fn make(&mut self, word: &str, log: &mut Log) -> Result<String, String> {
        let bin = |need| fetch::venv(&self.python, need).map(|venv| venv.dir().join("bin"));
        let path = match word {
            "python" => self.python.path.clone(),
            "tmp" => self.folder(),
            "cargo-tools" => bin(Need::CargoTools)?,
            "python-tools" => bin(Need::PythonTools)?,
            "foreign" => bin(Need::Foreign)?,
            "go" | "gofmt" => match fetch::go(&self.python, self.hermetic)? {
                Some(folder) => folder.join(word),
                None => PathBuf::from(word),
            },
            "dist" => dist::build(self, log)?,
            "wheel" => self.wheel(log)?,
            "broker" => return self.broker(log),
            "interop-python" | "interop-go" | "interop-c" => return self.interop(word, log),
            "peer-librdkafka" => {
                let script = self.root.join("tests/interop/verifiable.py");
                let python = bin(Need::Foreign)?.join("python");
                return Ok(format!("{} {}", python.display(), script.display()));
            }
            "peer-franz-go" => self.peer(word, "tests/interop/franz-go", "./verifiable", log)?,
            "peer-sarama" => self.peer(word, "tests/interop/sarama", ".", log)?,
            _ => return Err(format!("nothing is called '{{{word}}}'")),
        };
        Ok(path.display().to_string())
    }

    /// The wheel of this tree in an environment made anew. Test tools are seen through a path file:
    /// they are fetched once, and what is tested is the wheel, not the folder of its sources.
    fn wheel(&mut self, log: &mut Log) -> Result<PathBuf, String> {
        let tools = fetch::venv(&self.python, Need::PythonTools)?;
        let venv = self.folder().join("wheel-venv");
        if venv.exists() {
            fs::remove_dir_all(&venv).map_err(|e| format!("{}: {e}", venv.display()))?;
        }
        let mut make = self.command(&self.python.path);
        make.args(["-m", "venv"]).arg(&venv);
        log.prepare(make, LIMIT)?;
        wheel::install(self, &tools, &venv, log)?;

        let (major, minor) = self.python.version;
        let packages = format!("lib/python{major}.{minor}/site-packages");
        let link = venv.join(&packages).join("test-tools.pth");
        fs::write(&link, format!("{}\n", tools.dir().join(packages).display()))
            .map_err(|e| format!("writing {}: {e}", link.display()))?;
        Ok(venv.join("bin"))
    }

    /// An embedded cluster in a process of its own, which ends when its standard input does: with
    /// this run, however that ends.
    fn broker(&mut self, log: &mut Log) -> Result<String, String> {
        let mut build = self.command("cargo");
        build.args(["build", "--locked"]).args(PACKAGES).args(["--bin", "ottla-test-broker"]);
        log.prepare(build, LIMIT)?;
        let program = self.target.join("debug/ottla-test-broker");
        let mut child = self
            .command(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("starting {}: {e}", program.display()))?;
        let mut bootstrap = String::new();
        let stdout = child.stdout.take().ok_or("the broker has no output")?;
        BufReader::new(stdout)
            .read_line(&mut bootstrap)
            .map_err(|e| format!("reading from the broker: {e}"))?;
        self.broker = Some(child);
        let bootstrap = bootstrap.trim().to_owned();
        if bootstrap.is_empty() { Err("the broker did not start".into()) } else { Ok(bootstrap) }
    }

    /// A program in Go without anything of ours in it.
    fn peer(
        &mut self,
        word: &str,
        folder: &str,
        package: &str,
        log: &mut Log,
    ) -> Result<PathBuf, String> {
        let program = self.folder().join(word);
        let compiler = self.get("go", log)?;
        let mut go = self.command(compiler);
        go.current_dir(self.root.join(folder));
        go.arg("build").arg("-o").arg(&program).arg(package);
        go.envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "-mod=readonly")]);
        log.prepare(go, LIMIT)?;
        Ok(program)
    }

    fn interop(&mut self, word: &str, log: &mut Log) -> Result<String, String> {
        let (part, source) = match word {
            "interop-python" => ("python/pyproject.toml", PYTHON_INTEROP),
            "interop-go" => ("go-bindings/go.mod", GO_INTEROP),
            _ => ("c-api/include/ottla.h", C_INTEROP),
        };
        if !self.root.join(part).exists() {
            return Ok(String::new());
        }
        let source = self.root.join(source).display().to_string();
        match word {
            "interop-python" => Ok(format!("{} {source}", self.fill("{wheel}/python", log)?)),
            "interop-go" => {
                let program = self.folder().join("interop-go").display().to_string();
                let compiler = self.get("go", log)?;
                let mut go = self.command(compiler);
                go.current_dir(self.root.join("go-bindings"));
                go.args(["build", "-o", &program, &source]);
                for (name, value) in GO_ENV {
                    go.env(name, self.fill(value, log)?);
                }
                log.prepare(go, LIMIT)?;
                Ok(program)
            }
            _ => {
                Ok(c::compile(self, log, Path::new(&source), c::Link::Plain)?.display().to_string())
            }
        }
    }

    /// Starts real brokers whose address all later commands see.
    pub(crate) fn start_cluster(&mut self, log: &mut Log) -> Result<(), String> {
        log.line("starting three brokers");
        let options = ottla_test_kafka::Options {
            brokers: self.brokers,
            hermetic: self.hermetic,
            ..ottla_test_kafka::Options::default()
        };
        let cluster = Cluster::start(options).map_err(|e| e.to_string())?;
        let path = self.folder().join("kafka.json");
        cluster.state().write(&path).map_err(|e| e.to_string())?;
        log.line(&format!("Kafka {} at {}", cluster.state().version, cluster.bootstrap()));
        self.cluster_env = vec![
            (ottla_test_kafka::BOOTSTRAP_VAR, cluster.bootstrap().to_owned()),
            (ottla_test_kafka::STATE_VAR, path.display().to_string()),
        ];
        self.cluster = Some(cluster);
        Ok(())
    }

    /// Ends them; returns the end of their logs.
    pub(crate) fn end_cluster(&mut self) -> String {
        self.cluster_env.clear();
        self.cluster.take().map(|cluster| cluster.logs_tail(25)).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            drop(broker.stdin.take());
            // It ends by itself; killing only matters if it hangs.
            let _ended = broker.kill();
            let _reaped = broker.wait();
        }
    }
}

/// Takes away what `cargo run` sets for this program alone: build scripts of others would see it
/// change between `cargo xtask` and `cargo`, and run again.
fn scrub(command: &mut Command, target: &Path) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if ours.iter().any(|prefix| text.starts_with(prefix)) || text == "CARGO_PRIMARY_PACKAGE" {
            command.env_remove(name);
        }
    }
    if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
        let kept: Vec<_> = std::env::split_paths(&path)
            .filter(|entry| !entry.starts_with(target) && !entry.ends_with("lib/rustlib"))
            .filter(|entry| !entry.to_string_lossy().contains("/toolchains/"))
            .collect();
        match std::env::join_paths(kept) {
            Ok(kept) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", kept),
            _ => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
}

#[cfg(test)]
impl Place {
    /// What a word is, for a test that makes it itself.
    pub(crate) fn provide(&mut self, word: &str, is: &str) {
        self.made.insert(word.to_owned(), Ok(is.to_owned()));
    }

    /// No real cluster starts.
    pub(crate) fn have_no_brokers(&mut self) {
        self.brokers = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &'static str) -> (PathBuf, Place, Log) {
        let root = std::env::temp_dir().join(format!("ottla-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let python = Python { path: "/nonexistent/python3".into(), version: (3, 11) };
        let place = Place::new(root.clone(), root.join("target"), false, python);
        let log = Log::create(&place.folder(), name).unwrap();
        (root, place, log)
    }

    #[test]
    fn words_are_filled_in_and_unknown_ones_are_no_words() {
        let (root, mut place, mut log) = place("words");
        place.provide("a", "1");
        place.provide("b", "two words");
        assert_eq!(place.fill("x {a}/{b}{a} y", &mut log).unwrap(), "x 1/two words1 y");
        assert_eq!(place.fill("{tmp}", &mut log).unwrap(), place.folder().display().to_string());
        assert_eq!(place.fill("no words", &mut log).unwrap(), "no words");
        let error = place.fill("{c}", &mut log).unwrap_err();
        assert!(error.contains("'{c}'"), "{error}");
        assert!(place.fill("{a", &mut log).is_err());
        // Of a part that this tree does not have: nothing, which is no failure.
        assert_eq!(place.fill("{interop-go}", &mut log).unwrap(), "");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_could_not_be_made_is_not_tried_again() {
        let (root, mut place, mut log) = place("made");
        // There is nothing to build here.
        let why = place.fill("{broker}", &mut log).unwrap_err();
        let tries = |log: &Log| log.step_output().matches("$ cargo build").count();
        assert_eq!(tries(&log), 1);
        assert_eq!(place.fill("{broker}", &mut log), Err(why));
        assert_eq!(tries(&log), 1);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn commands_see_the_cluster_of_their_stage_and_nothing_of_this_program() {
        let (root, mut place, _) = place("environment");
        place.cluster_env = vec![(ottla_test_kafka::BOOTSTRAP_VAR, "here:1".to_owned())];
        let named = |place: &Place, name: &str| {
            let command = place.command("x");
            let found = command.get_envs().find(|(n, _)| *n == name);
            found.map(|(_, value)| value.map(|v| v.to_string_lossy().into_owned()))
        };
        let bootstrap = ottla_test_kafka::BOOTSTRAP_VAR;
        assert_eq!(named(&place, bootstrap), Some(Some("here:1".to_owned())));
        assert_eq!(place.end_cluster(), "");
        assert_eq!(named(&place, bootstrap), None);
        assert_eq!(named(&place, HERMETIC_VAR), Some(Some("0".to_owned())));
        // cargo sets it for this test as it does for the runner.
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        assert_eq!(named(&place, "CARGO_PKG_NAME"), Some(None), "taken away");
        fs::remove_dir_all(root).unwrap();
    }
}
