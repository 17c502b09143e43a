//! Fuzzing what reads bytes from the network. Each target of `core/fuzz` begins with what is in its
//! corpus, a file of one input in hexadecimal digits a line; what covers more than the old inputs did is
//! kept there, so that the tests of every run go over it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A target and the longest input that tells something new about it.
const TARGETS: [(&str, u32); 5] = [
    ("responses", 4096),
    ("frames", 70_000),
    ("records", 8192),
    ("membership", 4096),
    ("logins", 2048),
];

/// One allocation larger than this is a finding. The largest that is right is a piece of a frame
/// and what there is of it, 16 MiB.
const MALLOC_LIMIT: &str = "-malloc_limit_mb=64";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Targets: responses, frames, records, membership, logins [default: all]
    targets: Vec<String>,
    /// How long to look for new inputs, for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Fuzzes one target after the other, until the first finding.
pub(crate) fn run(args: &Args, root: &Path, target_dir: &Path) -> Result<bool, String> {
    if let Some(unknown) = args.targets.iter().find(|n| TARGETS.iter().all(|(t, _)| t != n)) {
        let known: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        return Err(format!("no target '{unknown}'; there are {}", known.join(", ")));
    }
    if !fuzz(root, &["--version"]).stdout(Stdio::null()).status().is_ok_and(|s| s.success()) {
        return Err(
            "this needs a nightly compiler and cargo-fuzz: rustup toolchain install nightly, \
                    then cargo install cargo-fuzz"
                .into(),
        );
    }
    for (name, max_len) in TARGETS {
        if !args.targets.is_empty() && !args.targets.iter().any(|wanted| wanted == name) {
            continue;
        }
        let corpus = root.join(format!("core/fuzz/corpus/{name}.hex"));
        let folder = target_dir.join("fuzz").join(name);
        let before = unpack(&corpus, &folder)?;
        let input = folder.to_string_lossy().into_owned();
        let time = format!("-max_total_time={}", args.seconds);
        let len = format!("-max_len={max_len}");
        let built = fuzz(root, &["build", name]).status();
        if !built.map_err(|e| format!("cannot start cargo: {e}"))?.success() {
            return Err(format!("the target {name} does not compile"));
        }
        let found = fuzz(root, &["run", name, &input, "--", &time, &len])
            .args([MALLOC_LIMIT, "-rss_limit_mb=1024", "-timeout=10"])
            .status();
        if !found.map_err(|e| format!("cannot start cargo: {e}"))?.success() {
            println!(
                "xtask: once it is mended, add the input above to {} so that it stays so",
                corpus.display()
            );
            return Ok(false);
        }
        // By edges alone: by how often each is taken there would be ten times as many.
        let less = fuzz(root, &["cmin", name, &input, "--", "-use_counters=0", &len]).status();
        if !less.map_err(|e| format!("cannot start cargo: {e}"))?.success() {
            return Ok(false);
        }
        let after = pack(&folder, &corpus)?;
        println!("xtask: {name}: {before} inputs, now {after}");
    }
    Ok(true)
}

fn fuzz(root: &Path, args: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root.join("core")).args(["+nightly", "fuzz"]).args(args);
    // It was set for the compiler this was built with.
    cargo.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
    cargo
}

/// One file for each line, in a folder with nothing else; how many.
fn unpack(corpus: &Path, folder: &Path) -> Result<usize, String> {
    let failed = |what: &Path, e: std::io::Error| format!("{}: {e}", what.display());
    let lines = fs::read_to_string(corpus).map_err(|e| failed(corpus, e))?;
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(folder, e)),
        _ => fs::create_dir_all(folder).map_err(|e| failed(folder, e))?,
    }
    for (i, line) in lines.lines().enumerate() {
        let bytes = bytes(line).ok_or_else(|| {
            format!("{} line {}: not pairs of hexadecimal digits", corpus.display(), i + 1)
        })?;
        let file = folder.join(i.to_string());
        fs::write(&file, bytes).map_err(|e| failed(&file, e))?;
    }
    Ok(lines.lines().count())
}

/// Short ones first, so that a change of the corpus is small in version control; how many.
fn pack(folder: &Path, corpus: &Path) -> Result<usize, String> {
    let failed = |what: &Path, e: std::io::Error| format!("{}: {e}", what.display());
    let entries = fs::read_dir(folder).map_err(|e| failed(folder, e))?;
    let files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(|e| failed(folder, e)))
        .collect::<Result<_, _>>()?;
    let mut inputs: Vec<Vec<u8>> = files
        .iter()
        .map(|file| fs::read(file).map_err(|e| failed(file, e)))
        .collect::<Result<_, _>>()?;
    inputs.retain(|input| !input.is_empty());
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    inputs.dedup();
    let lines: String = inputs
        .iter()
        .map(|input| input.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
        .collect();
    fs::write(corpus, lines).map_err(|e| failed(corpus, e))?;
    Ok(inputs.len())
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().as_chunks::<2>();
    if !digits.1.is_empty() {
        return None;
    }
    digits.0.iter().map(|two| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_there_and_back() {
        let root = std::env::temp_dir().join(format!("ottla-xtask-fuzz-{}", std::process::id()));
        let (corpus, folder) = (root.join("a.hex"), root.join("a"));
        fs::create_dir_all(&root).unwrap();
        fs::write(&corpus, "00ff\n0a\n00ff\n").unwrap();
        assert_eq!(unpack(&corpus, &folder), Ok(3));
        assert_eq!(pack(&folder, &corpus), Ok(2));
        assert_eq!(fs::read_to_string(&corpus).unwrap(), "0a\n00ff\n");
        fs::write(&corpus, "0a\n0\n").unwrap();
        assert!(unpack(&corpus, &folder).unwrap_err().contains("line 2"));
        fs::remove_dir_all(&root).unwrap();
    }
}
