//! Model tests: one run for each seed, in virtual time, and the seeds that failed by name.

use std::ops::Range;

use tokio::runtime::Runtime;

/// Other seeds than the usual ones, for looking into one or for a long search:
/// `OTTLA_SEEDS=1000..1500`.
///
/// # Panics
/// If the variable is no range.
pub fn chosen() -> Range<u64> {
    let chosen = std::env::var("OTTLA_SEEDS").unwrap_or_else(|_| "60..62".to_owned());
    let (first, end) = chosen.split_once("..").expect("OTTLA_SEEDS is FIRST..END");
    let number = |text: &str| text.parse().expect("OTTLA_SEEDS is FIRST..END, in numbers");
    number(first)..number(end)
}

/// Runs each seed.
///
/// # Panics
/// With what each of the seeds that failed says.
pub fn run_all(seeds: Range<u64>, run: impl Fn(u64) -> Result<(), String>) {
    let failed: Vec<String> =
        seeds.filter_map(|seed| Some(format!("seed {seed}: {}", run(seed).err()?))).collect();
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), failed.join("\n"));
}

/// A runtime whose clock stands still while anybody works.
///
/// # Panics
/// If the system has no room for one.
pub fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime without I/O")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_runs_and_each_that_failed_is_named() {
        let ran = std::cell::Cell::new(0);
        run_all(3..6, |_| {
            ran.set(ran.get() + 1);
            Ok(())
        });
        assert_eq!(ran.get(), 3);
        let odd = |seed| if seed % 2 == 1 { Err(format!("odd {seed}")) } else { Ok(()) };
        let panic = std::panic::catch_unwind(|| run_all(3..6, odd)).expect_err("two are odd");
        let words = panic.downcast_ref::<String>().expect("words");
        assert!(words.contains("2 seeds failed"), "{words}");
        assert!(words.contains("seed 3: odd 3") && words.contains("seed 5: odd 5"), "{words}");
    }
}
