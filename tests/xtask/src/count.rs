//! How many tests a step ran, read from what its program printed.
//!
//! A number that cannot be read is an error, never a zero: a step whose tests silently stopped
//! running must not look like one that passed.

use std::ops::AddAssign;

use serde_json::Value;

/// How the result of a step is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// One check: its exit status.
    Exit,
    /// One check: exit status, and that nothing at all was printed (`gofmt -l` lists and exits 0).
    Silent,
    /// The `Summary` line of `cargo nextest run`.
    Nextest,
    /// The `test result:` lines of `cargo test`.
    Libtest,
    /// The last line of pytest.
    Pytest,
    /// The events of `go test -json`.
    GoJson,
    /// The last line that says `N passed, N failed`.
    Words,
}

/// Numbers of one step, one stage, or all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Counts {
    pub(crate) const PASS: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAIL: Self = Self { passed: 0, failed: 1, skipped: 0 };

    /// The line that a run ends with.
    pub(crate) fn closing_line(self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

impl Count {
    /// What `output` says. `success` is the exit status.
    ///
    /// A failed exit always counts as at least one failure, and output without numbers is one too.
    pub(crate) fn read(self, success: bool, output: &str) -> Result<Counts, String> {
        let counts = match self {
            Self::Exit => Some(Counts::PASS),
            Self::Silent if output.trim().is_empty() => Some(Counts::PASS),
            Self::Silent => return Err("it listed something".into()),
            Self::Nextest => nextest(output),
            Self::Libtest => libtest(output),
            Self::Pytest => pytest(output),
            Self::GoJson => go(output),
            Self::Words => words(output),
        };
        match counts {
            // The numbers of a run that was cut short are no result.
            Some(counts) if !success && counts.failed == 0 => Err("it failed".into()),
            Some(counts) if counts.passed + counts.failed == 0 => Err("it ran no test".into()),
            Some(counts) => Ok(counts),
            None if success => Err("its output names no number of tests".into()),
            None => Err("it failed before any test ran".into()),
        }
    }
}

/// `Summary [ 1.2s] 3/4 tests run: 2 passed (1 slow), 1 failed, 1 timed out, 9 skipped`.
///
/// What nextest calls skipped here are mostly tests of other stages, left out by the filter; tests
/// that are ignored are asked for with a command of their own.
fn nextest(output: &str) -> Option<Counts> {
    let line = output.lines().rev().find(|l| l.trim_start().starts_with("Summary ["))?;
    let (_, results) = line.split_once("run:")?;
    let mut counts = Counts::default();
    for (number, word) in pairs(results) {
        match word {
            "passed" => counts.passed += number,
            "skipped" => {}
            _ => counts.failed += number,
        }
    }
    Some(counts)
}

fn libtest(output: &str) -> Option<Counts> {
    let mut all = None;
    for line in output.lines().filter(|l| l.starts_with("test result:")) {
        let counts = all.get_or_insert(Counts::default());
        let (_, results) = line.split_once(". ")?;
        for part in results.split(';') {
            match pair(part) {
                Some((number, "passed")) => counts.passed += number,
                Some((number, "failed")) => counts.failed += number,
                Some((number, "ignored")) => counts.skipped += number,
                _ => {}
            }
        }
    }
    all
}

fn pytest(output: &str) -> Option<Counts> {
    // `==== 3 failed, 2 passed in 1.2s ====`, and without the signs under `-q`.
    let line = output.lines().rev().find(|l| l.contains(" in ") && pairs(l).next().is_some())?;
    let (results, _) = line.trim_matches(['=', ' ']).rsplit_once(" in ")?;
    let mut counts = Counts::default();
    for (number, word) in pairs(results) {
        match word {
            "passed" | "xpassed" => counts.passed += number,
            "failed" | "error" | "errors" => counts.failed += number,
            "skipped" | "xfailed" => counts.skipped += number,
            _ => {}
        }
    }
    Some(counts)
}

fn words(output: &str) -> Option<Counts> {
    let is_result = |line: &&str| pairs(line).map(|(_, word)| word).eq(["passed", "failed"]);
    let mut numbers = pairs(output.lines().rev().find(is_result)?).map(|(number, _)| number);
    Some(Counts { passed: numbers.next()?, failed: numbers.next()?, skipped: 0 })
}

fn go(output: &str) -> Option<Counts> {
    let mut all = None;
    for line in output.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let counts = all.get_or_insert(Counts::default());
        // Events without a test are of a whole package: its failure shows in the exit status.
        if event["Test"].is_null() {
            continue;
        }
        match event["Action"].as_str() {
            Some("pass") => counts.passed += 1,
            Some("fail") => counts.failed += 1,
            Some("skip") => counts.skipped += 1,
            _ => {}
        }
    }
    all
}

/// How many tests `cargo nextest list --run-ignored only --message-format json` names.
pub(crate) fn ignored(output: &str) -> Option<usize> {
    let list: Value = serde_json::from_str(output.lines().find(|l| l.starts_with('{'))?).ok()?;
    let suites = list["rust-suites"].as_object()?;
    let cases = suites.values().filter_map(|suite| suite["testcases"].as_object());
    Some(
        cases.flat_map(|c| c.values()).filter(|t| t["filter-match"]["status"] == "matches").count(),
    )
}

/// What a line of `go test -json` says to a reader.
pub(crate) fn go_text(line: &str) -> Option<String> {
    let event = serde_json::from_str::<Value>(line).ok()?;
    event["Action"].as_str()?;
    Some(event["Output"].as_str().unwrap_or_default().trim_end_matches('\n').to_owned())
}

fn pairs(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(',').filter_map(pair)
}

/// `" 12 passed (1 slow)"` is 12 and `passed`.
fn pair(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.trim_matches(['=', ' ']).split_once(' ')?;
    Some((number.parse().ok()?, rest.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: usize, failed: usize, skipped: usize) -> Counts {
        Counts { passed, failed, skipped }
    }

    #[test]
    fn nextest_counts_what_ended_badly_as_failed_and_leaves_filtered_tests_out() {
        let text = "   Running 4 tests\n     Summary [   1.204s] 4 tests run: 4 passed (1 slow), \
                    7 skipped\n";
        assert_eq!(Count::Nextest.read(true, text), Ok(counts(4, 0, 0)));
        let text = "Summary [ 9.1s] 5/6 tests run: 2 passed, 1 failed, 2 timed out, 0 skipped";
        assert_eq!(Count::Nextest.read(false, text), Ok(counts(2, 3, 0)));
        // A test may print what a summary looks like.
        let text = "Summary [ 1s] 1 tests run: 9 passed\nSummary [ 9.1s] 2 tests run: 2 passed";
        assert_eq!(Count::Nextest.read(true, text), Ok(counts(2, 0, 0)));
    }

    #[test]
    fn libtest_adds_its_binaries_up() {
        let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                    test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out";
        assert_eq!(Count::Libtest.read(false, text), Ok(counts(4, 2, 1)));
    }

    #[test]
    fn pytest_counts_errors_as_failures() {
        let text = "x\n=== 1 failed, 12 passed, 2 skipped, 3 deselected, 1 error in 3.10s ===\n";
        assert_eq!(Count::Pytest.read(false, text), Ok(counts(12, 2, 2)));
        let text = "12 passed in 61.20s (0:01:01)";
        assert_eq!(Count::Pytest.read(true, text), Ok(counts(12, 0, 0)));
        let none = "===== no tests ran in 0.01s =====";
        assert!(Count::Pytest.read(true, none).is_err());
    }

    #[test]
    fn go_counts_tests_and_not_packages() {
        let text = "{\"Action\":\"run\",\"Package\":\"p\",\"Test\":\"TestA\"}\n\
                    {\"Action\":\"pass\",\"Package\":\"p\",\"Test\":\"TestA\"}\n\
                    {\"Action\":\"skip\",\"Package\":\"p\",\"Test\":\"TestB\"}\n\
                    go: downloading x\n\
                    {\"Action\":\"pass\",\"Package\":\"p\",\"Elapsed\":1}";
        assert_eq!(Count::GoJson.read(true, text), Ok(counts(1, 0, 1)));
        let text =
            "{\"Action\":\"fail\",\"Test\":\"TestA\"}\n{\"Action\":\"pass\",\"Test\":\"TestB\"}";
        assert_eq!(Count::GoJson.read(false, text), Ok(counts(1, 1, 0)));
        let line = "{\"Action\":\"output\",\"Output\":\"--- PASS: TestA\\n\"}";
        assert_eq!(go_text(line).as_deref(), Some("--- PASS: TestA"));
        assert_eq!(go_text("go: downloading x"), None);
    }

    #[test]
    fn the_words_of_c_programs_are_read() {
        let text = "x.c:3: failed: a == b\n12 passed, 1 failed\n";
        assert_eq!(Count::Words.read(false, text), Ok(counts(12, 1, 0)));
        assert!(Count::Words.read(true, "12 passed").is_err());
    }

    #[test]
    fn no_number_is_never_a_pass() {
        for count in [Count::Nextest, Count::Libtest, Count::Pytest, Count::GoJson, Count::Words] {
            assert!(count.read(true, "").is_err(), "{count:?}");
            assert!(count.read(false, "").is_err(), "{count:?}");
        }
        let none = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out";
        assert_eq!(Count::Libtest.read(true, none), Err("it ran no test".into()));
    }

    #[test]
    fn a_failed_exit_is_a_failure_whatever_the_numbers_say() {
        let text = "Summary [ 1s] 4 tests run: 4 passed, 0 skipped";
        assert_eq!(Count::Nextest.read(false, text), Err("it failed".into()));
        assert_eq!(Count::Exit.read(false, ""), Err("it failed".into()));
        assert_eq!(Count::Exit.read(true, "whatever"), Ok(Counts::PASS));
    }

    #[test]
    fn a_silent_check_may_print_nothing() {
        assert_eq!(Count::Silent.read(true, "\n"), Ok(Counts::PASS));
        assert!(Count::Silent.read(true, "client.go\n").is_err());
    }

    #[test]
    fn ignored_tests_are_counted_from_the_list() {
        let text = "{\"rust-suites\":{\"a\":{\"testcases\":{\
                    \"one\":{\"ignored\":true,\"filter-match\":{\"status\":\"matches\"}},\
                    \"two\":{\"ignored\":false,\"filter-match\":{\"status\":\"mismatch\"}}}},\
                    \"b\":{\"testcases\":{}}}}";
        assert_eq!(ignored(text), Some(1));
        assert_eq!(ignored("error: no such command"), None);
    }

    #[test]
    fn the_closing_line_has_three_numbers() {
        let mut all = counts(1, 0, 2);
        all += counts(3, 4, 5);
        assert_eq!(all.closing_line(), "4 passed, 4 failed, 7 skipped");
    }
}
