//! The wheel, made and installed by the commands that `python/README.md` tells people.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ottla_test_kafka::python::Venv;

use crate::count::Counts;
use crate::log::Log;
use crate::place::Place;

/// Building the wheel on two busy cores.
const LIMIT: Duration = Duration::from_secs(25 * 60);

const README: &str = "python/README.md";

/// The folder that the commands name; a run has its own.
const FOLDER: &str = "target/wheels";

/// How the module is called in an environment's packages.
const MODULE: &str = "ottla/_ottla.abi3.so";

/// Builds the wheel and installs it into `venv`, which is there. Not for release, as people are told
/// to: that takes minutes more, and checks less.
pub(crate) fn install(
    place: &Place,
    tools: &Venv,
    venv: &Path,
    log: &mut Log,
) -> Result<(), String> {
    let path = place.root().join(README);
    let readme = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let wheels = place.folder().join("wheels");
    if wheels.exists() {
        fs::remove_dir_all(&wheels).map_err(|e| format!("{}: {e}", wheels.display()))?;
    }
    let words = |begin| -> Result<Vec<String>, String> {
        let folder = wheels.display().to_string();
        let words = command(&readme, begin)?.into_iter().skip(1);
        Ok(words.map(|word| if word == FOLDER { folder.clone() } else { word }).collect())
    };
    let mut maturin = place.command(tools.bin("maturin"));
    let words_of_build = words("maturin build")?;
    maturin.args(words_of_build.iter().filter(|word| !left_out(word)));
    maturin.env("PATH", path_with(&tools.dir().join("bin"))?);
    log.prepare(maturin, LIMIT)?;

    let mut pip = place.command(venv.join("bin/python"));
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
    pip.args(words("pip install --no-index")?);
    log.prepare(pip, LIMIT)
}

fn left_out(word: &str) -> bool {
    // Where there is no manylinux there is nothing to be compatible with.
    let linux = ["--zig", "--compatibility", "manylinux_2_28"];
    word == "--release" || !cfg!(target_os = "linux") && linux.contains(&word)
}

/// An active environment is no more than this. maturin asks `python3` for zig.
fn path_with(folder: &Path) -> Result<OsString, String> {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&rest));
    std::env::join_paths(all).map_err(|e| format!("PATH: {e}"))
}

/// The words of the command of a README that begins so.
fn command(readme: &str, begin: &str) -> Result<Vec<String>, String> {
    let line = readme.lines().filter_map(|line| line.strip_prefix("$ "));
    let line = line.map(|line| line.split(" #").next().unwrap_or(line));
    let mut found = line.filter(|line| line.starts_with(begin));
    match (found.next(), found.next()) {
        (Some(line), None) => Ok(line.split_whitespace().map(str::to_owned).collect()),
        _ => Err(format!("{README} should have one command '{begin}'")),
    }
}

/// The wheel runs on what its name promises: no symbol is of a newer glibc than that.
pub(crate) fn check(place: &mut Place, log: &mut Log) -> Result<Counts, String> {
    if !cfg!(target_os = "linux") {
        return Ok(Counts::PASS);
    }
    let bin = PathBuf::from(place.fill("{wheel}", log)?);
    let wheels = place.folder().join("wheels");
    let entries = fs::read_dir(&wheels).map_err(|e| format!("{}: {e}", wheels.display()))?;
    let names: Vec<_> = entries.flatten().map(|e| e.file_name().into_string()).collect();
    let [Ok(name)] = &names[..] else {
        return Err(format!("{} should have one wheel: {names:?}", wheels.display()));
    };
    let promised = promised(name).ok_or_else(|| format!("{name} does not name a glibc"))?;
    if promised > (2, 28) {
        return Err(format!("{name} is too new for RHEL 8 and Debian 11"));
    }
    let (major, minor) = place.python().version;
    let packages = format!("lib/python{major}.{minor}/site-packages");
    let module = bin.join("..").join(packages).join(MODULE);
    let mut readelf = Command::new("readelf");
    readelf.args(["--dyn-syms", "--wide"]).arg(&module);
    let (success, output) = log.run(readelf, LIMIT)?;
    match newest(&output) {
        Some(newest) if success && newest <= promised => Ok(Counts::PASS),
        found => Err(format!("{name}: the newest glibc that a symbol asks for is {found:?}")),
    }
}

/// `manylinux_2_28` in a wheel's name.
fn promised(name: &str) -> Option<(u32, u32)> {
    let tag = name.split_once("manylinux_")?.1;
    let mut numbers = tag.split('_').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The newest version that `readelf --dyn-syms` shows: `memcpy@GLIBC_2.14 (3)`.
fn newest(symbols: &str) -> Option<(u32, u32)> {
    let versions = symbols.split("@GLIBC_").skip(1).filter_map(|rest| {
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readme(path: &str) -> String {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        fs::read_to_string(root.join(path)).unwrap()
    }

    fn commands(readme: &str) -> Vec<&str> {
        let python = readme.split("```console").find(|block| block.contains("maturin"));
        let block = python.unwrap_or_default().split("```").next().unwrap_or_default();
        let lines = block.lines().filter_map(|line| line.strip_prefix("$ "));
        lines.map(|line| line.split(" #").next().unwrap_or(line).trim_end()).collect()
    }

    #[test]
    fn both_readmes_tell_the_commands_that_are_run_here() {
        let text = readme(README);
        let told = commands(&text);
        assert_eq!(told, commands(&readme("README.md")));
        // A fresh environment, the tools, the wheel, and that into the environment.
        let begins =
            ["python3 -m venv .venv", "pip install maturin", "maturin build", "pip install"];
        assert_eq!(told.len(), begins.len(), "{told:?}");
        assert!(told.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{told:?}");
        for begin in &begins[2..] {
            assert!(told.iter().any(|line| line.starts_with(begin) && line.contains(FOLDER)));
        }
        let build = command(&text, "maturin build").unwrap();
        assert!(build.contains(&"--release".to_owned()));
        let zig = build.iter().skip_while(|word| *word != "--zig").take(3);
        assert_eq!(zig.collect::<Vec<_>>(), ["--zig", "--compatibility", "manylinux_2_28"]);
        assert!(command(&text, "pip install --no-index").is_ok());
        // The tools are those that are pinned here.
        let pinned = include_str!("../requirements/python.txt");
        for tool in told[1].split_whitespace().skip(2) {
            assert!(pinned.lines().any(|line| line.starts_with(&format!("{tool}=="))), "{tool}");
        }
    }

    #[test]
    fn a_command_that_is_not_told_once_is_no_command() {
        assert_eq!(command("$ a b # c\n$ d\n", "a").unwrap(), ["a", "b"]);
        assert!(command("$ a\n$ a b\n", "a").is_err());
        assert!(command("a\n", "a").is_err());
    }

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        let name = "ottla-0.1.0-cp311-abi3-manylinux_2_28_x86_64.whl";
        assert_eq!(promised(name), Some((2, 28)));
        assert_eq!(promised("ottla-0.1.0-cp311-abi3-linux_x86_64.whl"), None);
        let symbols = "UND memcpy@GLIBC_2.14 (3)\nUND stat@GLIBC_2.5 (4)\nUND x@GLIBC_2.3.4 (2)\n";
        assert_eq!(newest(symbols), Some((2, 14)));
        assert_eq!(newest("UND PyErr_Print\n"), None);
    }
}
