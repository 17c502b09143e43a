//! The committed counts: a TOML table of a name and a number per line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Instructions by path.
pub(crate) type Counts = BTreeMap<String, u64>;

const HEAD: &str = "\
# Instructions of the hot paths under callgrind, for 2,400 records of 100 bytes (the header: for one).
# Written by `cargo run -p ottla-bench --bin instructions -- --record`.
";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

pub(crate) fn read() -> Result<Counts, String> {
    let path = path();
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("cannot read {}: {e}; --record writes it", path.display()))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Counts, String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, count) = line.split_once('=').ok_or(format!("'{line}' is no count"))?;
            let count = count.trim().replace('_', "");
            let count = count.parse().map_err(|_| format!("'{count}' of {name}is no number"))?;
            Ok((name.trim().to_owned(), count))
        })
        .collect()
}

pub(crate) fn write(counts: &Counts) -> Result<(), String> {
    let path = path();
    std::fs::write(&path, format(counts))
        .map_err(|e| format!("cannot write {}: {e}", path.display()))
}

fn format(counts: &Counts) -> String {
    let mut text = HEAD.to_owned();
    for (name, count) in counts {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} = {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let counts = Counts::from([("send_plain".to_owned(), 123_456), ("header".to_owned(), 7)]);
        assert_eq!(parse(&format(&counts)), Ok(counts));
        assert!(parse("send_plain 12").is_err());
        assert!(parse("send_plain = many").is_err());
    }
}
