//! `cargo xtask coverage`: which lines of the library no test runs. A list to read, not a gate: a line
//! that runs is not yet a line that is tested, which is what `tests/faults` is for.
//!
//! The stages run once more in a target folder of their own, where every function counts its runs;
//! those counts are merged and laid over the sources. Lines of Python are noted by its interpreters
//! (`count_lines.py`), Go's are counted by its compiler.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ottla_test_kafka::python::Python;

use crate::fetch;
use crate::stage::Need;

/// What users run, and nothing that is there for tests.
const PARTS: [&str; 5] =
    ["core/src/", "c-api/src/", "c-api/atfork/src/", "python/src/", "python/ottla/"];
const NOT_COUNTED: [&str; 2] = ["/tests.rs", "core/src/fuzz/"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Count these languages alone: rust, c, python, go
    #[arg(long, value_delimiter = ',', value_name = "LANGUAGE")]
    only: Vec<String>,
    /// Do not run anything: show what was counted last
    #[arg(long)]
    last: bool,
}

/// What lines of Python ran, in the place where all is counted.
const PYTHON_NOTES: &str = "python.lcov";

/// How often each line ran, by file.
type Lines = BTreeMap<String, BTreeMap<u32, u64>>;

/// Counts and shows. Tests that fail are told by their own table; lines are shown all the same.
pub(crate) fn run(args: &Args, root: &Path, target: &Path) -> Result<bool, String> {
    let place = target.join("coverage");
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    if let Some(unknown) =
        args.only.iter().find(|n| !["rust", "c", "python", "go"].contains(&n.as_str()))
    {
        return Err(format!("no language '{unknown}'; there are rust, c, python, go"));
    }
    let (profdata, cov) = (llvm_tool("llvm-profdata")?, llvm_tool("llvm-cov")?);
    let raw = place.join("raw");
    let mut passed = true;
    if !args.last {
        match fs::remove_dir_all(&raw) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("{}: {e}", raw.display()));
            }
            _ => fs::create_dir_all(&raw).map_err(|e| format!("{}: {e}", raw.display()))?,
        }
        for stage in ["rust", "c"].into_iter().filter(|name| wanted(name)) {
            passed &= itself(Some(&place), &["test", "--only", stage])?;
        }
        if wanted("python") {
            passed &= count_python(root, &place)?;
        }
        if wanted("go") {
            // Linked with what is laid out in the tree itself, whatever else is named: Go's own lines
            // are counted here, and no others.
            passed &= itself(None, &["dist"])? && count_go(root, target, &place)?;
        }
    }

    let merged = place.join("merged.profdata");
    let inputs = files(&raw, &|path| path.extension().is_some_and(|e| e == "profraw"));
    let mut lines = Lines::new();
    if !inputs.is_empty() {
        let mut merge = Command::new(profdata);
        merge.args(["merge", "-sparse", "-failure-mode=warn", "-o"]).arg(&merged).args(&inputs);
        output(merge)?;
        for object in objects(&place) {
            let mut export = Command::new(&cov);
            export.args(["export", "-format=lcov", "-instr-profile"]).arg(&merged).arg(&object);
            // Build scripts and what they make have no counts of ours.
            if let Ok(text) = output(export) {
                add_lcov(&mut lines, root, &text);
            }
        }
    }
    if let Ok(notes) = fs::read_to_string(place.join(PYTHON_NOTES)) {
        add_lcov(&mut lines, root, &notes);
    }
    if let Ok(profile) = fs::read_to_string(place.join("go.cover")) {
        add_go(&mut lines, &profile);
    }
    print!("{}", table(&lines));
    Ok(passed)
}

/// This program once more; with a place for counts, everything that it builds counts.
fn itself(place: Option<&Path>, args: &[&str]) -> Result<bool, String> {
    let program = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let mut command = Command::new(program);
    if let Some(place) = place {
        counting(&mut command, place);
    }
    let status = command.args(args).status().map_err(|e| format!("cannot start xtask: {e}"))?;
    Ok(status.success())
}

fn counting(command: &mut Command, place: &Path) {
    command.env("CARGO_TARGET_DIR", place);
    command.env("RUSTFLAGS", "-C instrument-coverage");
    // Processes of one program add to the same few files: there are thousands of them.
    command.env("LLVM_PROFILE_FILE", place.join("raw/%8m.profraw"));
    // The library for C is a release build, whose lines would be optimised away.
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
}

/// The tests of the package as it is laid out here: zig, by which wheels are linked, does not link what
/// counts.
fn count_python(root: &Path, place: &Path) -> Result<bool, String> {
    let python = Python::find().map_err(|e| e.to_string())?;
    let tools = fetch::venv(&python, Need::PythonTools)?;
    let mut build = Command::new("cargo");
    counting(&mut build, place);
    build.current_dir(root).env("PYO3_PYTHON", tools.python());
    build.args(["build", "--locked", "-p", "ottla-python"]);
    build.args(["--features", "extension-module,testing"]);
    if !build.status().map_err(|e| format!("cannot start cargo: {e}"))?.success() {
        return Ok(false);
    }
    let folder = place.join("python");
    lay_out(root, place, &folder).map_err(|e| format!("{}: {e}", folder.display()))?;

    let notes = place.join(PYTHON_NOTES);
    let _earlier = fs::remove_file(&notes);
    let mut command = Command::new(tools.python());
    counting(&mut command, place);
    command.env("PYTHONPATH", &folder).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("OTTLA_COVERAGE_NOTES", &notes);
    command.current_dir(root.join("python")).args(["-P", "-m", "pytest", "-q"]);
    command.args(["-p", "no:cacheprovider", "-m", "not kafka"]);
    let status = command.status().map_err(|e| format!("cannot start Python: {e}"))?;
    Ok(status.success())
}

/// Links to the modules, the extension as `maturin` names it, and what notes lines.
fn lay_out(root: &Path, place: &Path, folder: &Path) -> std::io::Result<()> {
    let _earlier = fs::remove_dir_all(folder);
    let package = folder.join("ottla");
    fs::create_dir_all(&package)?;
    fs::write(folder.join("sitecustomize.py"), include_str!("count_lines.py"))?;
    let module = |path: &Path| path.extension().is_some_and(|e| e == "py");
    for source in files(&root.join("python/ottla"), &module) {
        std::os::unix::fs::symlink(&source, package.join(source.file_name().unwrap_or_default()))?;
    }
    let built = if cfg!(target_os = "macos") { "lib_ottla.dylib" } else { "lib_ottla.so" };
    fs::copy(place.join("debug").join(built), package.join("_ottla.abi3.so"))?;
    Ok(())
}

fn count_go(root: &Path, target: &Path, place: &Path) -> Result<bool, String> {
    let dist = target.join("ottla-dist").display().to_string();
    let mut command = Command::new("go");
    command.current_dir(root.join("go-bindings"));
    for (name, value) in crate::stages::GO_ENV {
        command.env(name, value.replace("{dist}", &dist));
    }
    command.args(["test", "-count=1", "-coverpkg=./...", "-skip", "^TestReal"]);
    command.arg(format!("-coverprofile={}", place.join("go.cover").display())).arg("./...");
    let status = command.status().map_err(|e| format!("cannot start go: {e}"))?;
    Ok(status.success())
}

/// A tool of the compiler's own LLVM: another version does not read what it writes.
fn llvm_tool(name: &str) -> Result<PathBuf, String> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir"]);
    let folder = output(rustc)?;
    let tool = Path::new(folder.trim()).parent().map(|p| p.join("bin").join(name));
    tool.filter(|tool| tool.exists()).ok_or_else(|| {
        format!("this needs {name} of the compiler: rustup component add llvm-tools")
    })
}

fn output(mut command: Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(|e| format!("cannot start {name}: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&out.stderr)))
}

/// What was built: programs, test programs and shared libraries.
fn objects(place: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for profile in
        ["debug", "release", "x86_64-unknown-linux-gnu/debug", "aarch64-unknown-linux-gnu/debug"]
    {
        let built = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".so") || !name.contains('.')
        };
        found.extend(files(&place.join(profile).join("deps"), &built));
    }
    found
}

fn files(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(|path| path.is_file() && wanted(path)).collect();
    found.sort();
    found
}

/// `SF:file`, then `DA:line,count` for each of its lines that does something.
fn add_lcov(lines: &mut Lines, root: &Path, text: &str) {
    let mut file = None;
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            let path = Path::new(path);
            let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
            let ours = PARTS.iter().any(|part| name.starts_with(part))
                && !NOT_COUNTED.iter().any(|part| name.contains(part));
            file = ours.then_some(name);
        } else if let Some((file, rest)) = file.as_ref().zip(line.strip_prefix("DA:"))
            && let Some((number, count)) = rest.split_once(',')
            && let (Ok(number), Ok(count)) = (number.parse(), count.parse::<u64>())
        {
            let known = lines.entry(file.clone()).or_default().entry(number).or_default();
            *known = known.saturating_add(count);
        }
    }
}

/// `module/file.go:12.34,15.2 3 1`: from line 12 to 15, three statements, ran once. Packages tell of
/// each other's statements, so one that ran in any of them ran.
fn add_go(lines: &mut Lines, profile: &str) {
    for line in profile.lines() {
        let Some((place, rest)) = line.rsplit_once(".go:") else { continue };
        let mut parts = rest.split([',', '.', ' ']).map(str::parse::<u64>);
        let mut next = || parts.next()?.ok();
        let (Some(from), Some(_), Some(to), Some(_), Some(_), Some(count)) =
            (next(), next(), next(), next(), next(), next())
        else {
            continue;
        };
        let file = place.split_once("/go-bindings/").map_or(place, |(_, file)| file);
        if file.contains("internal/interop") || file.contains("ottlatest") {
            continue;
        }
        let lines = lines.entry(format!("go-bindings/{file}.go")).or_default();
        for number in from..=to {
            *lines.entry(number as u32).or_default() += count;
        }
    }
}

/// A row for each file with lines that did not run, and a sum for each part.
fn table(lines: &Lines) -> String {
    let mut text = String::new();
    let mut sums: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (file, lines) in lines {
        let missing: Vec<u32> =
            lines.iter().filter(|(_, count)| **count == 0).map(|(number, _)| *number).collect();
        let part = file.split('/').next().unwrap_or_default();
        let sum = sums.entry(part).or_default();
        sum.0 += lines.len();
        sum.1 += missing.len();
        if !missing.is_empty() {
            text += &format!("{file}: {}\n", ranges(&missing));
        }
    }
    text += "\npart            lines    not run\n";
    for (part, (all, missing)) in sums {
        let share = 100.0 * missing as f64 / all.max(1) as f64;
        text += &format!("{part:<12} {all:>8} {missing:>10} ({share:.1} %)\n");
    }
    text
}

/// `3, 7-9`.
fn ranges(numbers: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let words = parts
        .iter()
        .map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ran_if_it_ran_in_any_program() {
        let mut lines = Lines::new();
        let root = Path::new("/r");
        let one = "SF:/r/core/src/a.rs\nDA:1,0\nDA:2,0\nDA:3,5\nend_of_record\n";
        add_lcov(&mut lines, root, one);
        add_lcov(&mut lines, root, "SF:/r/core/src/a.rs\nDA:1,2\nDA:2,0\n");
        add_lcov(&mut lines, root, "SF:/r/tests/x.rs\nDA:1,0\nSF:/r/core/src/b/tests.rs\nDA:9,0\n");
        assert_eq!(lines.len(), 1);
        let text = table(&lines);
        assert!(text.starts_with("core/src/a.rs: 2\n"), "{text}");
        assert!(text.contains("core                3          1 (33.3 %)"), "{text}");
    }

    #[test]
    fn go_is_read_as_it_writes() {
        let mut go = Lines::new();
        let package = "mode: set\nexample.com/x/go-bindings/errors.go:3.20,4.2 1 0\n";
        add_go(&mut go, package);
        add_go(&mut go, "example.com/x/go-bindings/errors.go:4.2,5.9 2 1\n");
        let errors = go.remove("go-bindings/errors.go").unwrap();
        assert_eq!(Vec::from_iter(errors), [(3, 0), (4, 1), (5, 1)]);
    }

    #[test]
    fn lines_in_a_row_are_one_range() {
        assert_eq!(ranges(&[3, 7, 8, 9]), "3, 7-9");
        assert_eq!(ranges(&[]), "");
    }
}
