//! Counts the instructions of the hot paths and compares them with what is recorded.
//!
//! `cargo run -p ottla-bench --bin instructions -- --check` fails if a path takes more than 3 %
//! above its count in `instructions.toml`; `--record` writes that file. Both need valgrind; the
//! runner of the counting crate is installed into the target folder through cargo when it is not
//! there.

mod recorded;
mod tools;

use std::process::ExitCode;

use recorded::Counts;

/// By how many percent of the recorded count a path may grow before it is a failure: another compiler lays
/// out a loop differently, a record's work does not change by so much unnoticed.
const TOLERANCE: u64 = 3;

const USAGE: &str = "usage: instructions --check | --record";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--check"] => check(),
        ["--record"] => record(),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("instructions: {message}");
            ExitCode::FAILURE
        }
    }
}

fn record() -> Result<bool, String> {
    let counts = tools::count()?;
    for (name, count) in &counts {
        println!("{name:<24}{count:>12}");
    }
    recorded::write(&counts)?;
    Ok(true)
}

fn check() -> Result<bool, String> {
    let (recorded, counted) = (recorded::read()?, tools::count()?);
    let (lines, failed) = compare(&recorded, &counted);
    for line in &lines {
        println!("{line}");
    }
    println!("{} passed, {failed} failed", lines.len() - failed);
    Ok(failed == 0)
}

/// A line for every path that is recorded or counted, and how many of them fail.
fn compare(recorded: &Counts, counted: &Counts) -> (Vec<String>, usize) {
    let mut failed = 0;
    let mut lines = Vec::new();
    for (name, &was) in recorded {
        let verdict = match counted.get(name) {
            None => Err("is recorded but was not counted; --record if it is gone".to_owned()),
            Some(&now) => {
                let change = now as f64 / was.max(1) as f64 - 1.0;
                let said = format!("{now:>12} instructions, {:+.2} %", change * 100.0);
                if now * 100 > was * (100 + TOLERANCE) {
                    Err(format!("{said}; recorded are {was}. If that is meant: --record"))
                } else {
                    Ok(said)
                }
            }
        };
        failed += usize::from(verdict.is_err());
        lines.push(match verdict {
            Ok(said) => format!("ok    {name:<20}{said}"),
            Err(said) => format!("FAIL  {name:<20}{said}"),
        });
    }
    for (name, now) in counted.iter().filter(|(name, _)| !recorded.contains_key(*name)) {
        failed += 1;
        lines.push(format!("FAIL  {name:<20}{now:>12} instructions, not recorded: --record"));
    }
    (lines, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> Counts {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn growth_beyond_the_tolerance_fails_and_less_does_not() {
        let recorded = counts(&[("a", 1000), ("b", 1000), ("c", 1000)]);
        let counted = counts(&[("a", 1030), ("b", 1031), ("c", 10)]);
        let (lines, failed) = compare(&recorded, &counted);
        assert_eq!(failed, 1, "{lines:?}");
        assert!(lines[1].starts_with("FAIL  b"), "{lines:?}");
    }

    #[test]
    fn a_path_that_is_missing_on_either_side_fails() {
        let (lines, failed) = compare(&counts(&[("gone", 5)]), &counts(&[("new", 5)]));
        assert_eq!((lines.len(), failed), (2, 2), "{lines:?}");
    }
}
