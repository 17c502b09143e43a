//! C programs of the tree, compiled as users compile theirs: against what `dist` laid out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::count::{Count, Counts};
use crate::log::Log;
use crate::machine;
use crate::place::Place;

const WARNINGS: [&str; 7] =
    ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"];
const SANITIZERS: [&str; 3] =
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"];
const UNDEFINED: [&str; 2] = ["-fsanitize=undefined", "-fno-sanitize-recover=undefined"];

/// What a static library written in Rust needs of the system.
pub(crate) const PRIVATE_LIBS: &str =
    if cfg!(target_os = "linux") { "-lpthread -ldl -lm -lrt -lutil" } else { "-lpthread -lm" };

/// A compilation takes seconds, a test program less than this.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// Names of tests begin with one of these; other programs in their folder are no tests.
const TEST: &str = "test_";
const REAL: &str = "real_";
/// What forks beside threads. AddressSanitizer's allocator, as gcc 12 has it, does not hold its locks over
/// a fork, as the C library does: a child now and then waits for one for ever.
const FORKS: &str = "test_forks";

/// The header alone and what it defines, in the standards of C that there are, and as C++.
pub(crate) fn check_header(place: &mut Place, log: &mut Log) -> Result<Counts, String> {
    let mut all = Counts::default();
    let standards = [("c", "c99"), ("c", "c11"), ("c", "c2x"), ("c++", "c++11"), ("c++", "c++17")];
    for (language, standard) in standards {
        for file in ["c-api/include/ottla.h", "c-api/tests/macros.c"] {
            let mut command = place.command(machine::cc());
            command.args(["-x", language]).arg(format!("-std={standard}"));
            command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"]);
            command.arg(place.root().join("c-api/include")).arg(place.root().join(file));
            log.prepare(command, LIMIT)?;
            all += Counts::PASS;
        }
    }
    Ok(all)
}

/// Every test program in `c-api/tests/c` that needs no cluster.
pub(crate) fn run_c_tests(place: &mut Place, log: &mut Log) -> Result<Counts, String> {
    run_tests(place, log, TEST)
}

/// Those that need one, which the environment names.
pub(crate) fn run_real_c_tests(place: &mut Place, log: &mut Log) -> Result<Counts, String> {
    run_tests(place, log, REAL)
}

fn run_tests(place: &mut Place, log: &mut Log, prefix: &str) -> Result<Counts, String> {
    let mut all = Counts::default();
    for source in sources(&place.root().join("c-api/tests/c"))? {
        if !stem(&source).starts_with(prefix) {
            continue;
        }
        let link = if stem(&source) == FORKS { Link::Forks } else { Link::Shared };
        let program = compile(place, log, &source, link)?;
        let (success, output) = log.run(place.command(&program), LIMIT)?;
        let counts = Count::Words.read(success, &output);
        all += counts.map_err(|why| format!("{}: {why}", source.display()))?;
    }
    if all == Counts::default() {
        return Err(format!("no program in c-api/tests/c begins with {prefix}"));
    }
    Ok(all)
}

/// Every program in `examples/c`, with the shared and with the static library.
pub(crate) fn compile_examples(place: &mut Place, log: &mut Log) -> Result<Counts, String> {
    let mut all = Counts::default();
    for source in sources(&place.root().join("examples/c"))? {
        compile(place, log, &source, Link::Shared)?;
        compile(place, log, &source, Link::Static)?;
        all += Counts::PASS;
    }
    Ok(all)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Shared,
    /// Shared, and without AddressSanitizer.
    Forks,
    Static,
    /// Static and without sanitizers: for what must be quick.
    Plain,
}

pub(crate) fn compile(
    place: &mut Place,
    log: &mut Log,
    source: &Path,
    link: Link,
) -> Result<PathBuf, String> {
    let dist = PathBuf::from(place.fill("{dist}", log)?);
    let folder = place.folder().join("c");
    fs::create_dir_all(&folder).map_err(|e| format!("creating {}: {e}", folder.display()))?;
    let program = folder.join(format!("{}-{link:?}", stem(source)));
    let lib = dist.join("lib");
    let mut command: Command = place.command(machine::cc());
    command.args(WARNINGS);
    match link {
        Link::Plain => command.arg("-O2"),
        Link::Forks => command.args(UNDEFINED),
        Link::Shared | Link::Static => command.args(SANITIZERS),
    };
    command.arg("-I").arg(dist.join("include"));
    command.arg(source).arg("-o").arg(&program);
    match link {
        Link::Shared | Link::Forks => {
            command.arg("-L").arg(&lib).arg("-lottla");
            command.arg(format!("-Wl,-rpath,{}", lib.display()));
        }
        Link::Static | Link::Plain => {
            command.arg(lib.join("libottla.a")).args(PRIVATE_LIBS.split(' '));
        }
    }
    log.prepare(command, LIMIT)?;
    Ok(program)
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("reading {}: {e}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    files.sort();
    if files.is_empty() { Err(format!("no program in {}", folder.display())) } else { Ok(files) }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use ottla_test_kafka::python::Python;

    use super::*;

    #[test]
    fn programs_that_are_not_there_are_no_tests_that_pass() {
        let root = std::env::temp_dir().join(format!("ottla-xtask-c-{}", std::process::id()));
        let folder = root.join("c-api/tests/c");
        fs::create_dir_all(&folder).unwrap();
        let python = Python { path: "/nonexistent/python3".into(), version: (3, 11) };
        let mut place = Place::new(root.clone(), root.join("target"), false, python);
        let mut log = Log::create(&place.folder(), "c").unwrap();
        assert!(sources(&folder).unwrap_err().starts_with("no program in"));
        for name in ["b.c", "a.c", "a.h"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let names: Vec<_> = sources(&folder).unwrap().iter().map(|path| stem(path)).collect();
        assert_eq!(names, ["a", "b"]);
        for run in [run_c_tests, run_real_c_tests] {
            let error = run(&mut place, &mut log).unwrap_err();
            assert!(error.starts_with("no program in c-api/tests/c begins with"), "{error}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
