//! `cargo xtask test`: runs the stages one after the other and closes with a table.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::count::{self, Count, Counts};
use crate::log::Log;
use crate::place::Place;
use crate::stage::{self, Need, Run, Stage, Step};
use crate::stages::{self, PACKAGES, STAGES};
use crate::{fetch, machine};

/// How much of a failed step is printed; the whole is in its log.
const TAIL: usize = 60;
/// In CI the log is what people have.
const TAIL_IN_CI: usize = 300;
/// How many failed tests of a step are named once more below the table: of a long output the end is what people see.
const NAMED: usize = 20;

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Use Java and Go from package registries, also where the machine has its own
    #[arg(long)]
    hermetic: bool,
    /// Run these stages alone
    #[arg(long, value_delimiter = ',', value_name = "STAGE")]
    only: Vec<String>,
    /// Leave these stages out
    #[arg(long, value_delimiter = ',', value_name = "STAGE")]
    skip: Vec<String>,
    /// Say which stages there are
    #[arg(long)]
    list: bool,
}

/// A row of the closing table.
#[derive(Debug)]
struct Row {
    stage: &'static str,
    counts: Counts,
    time: Duration,
    /// What failed, by step.
    failed: Vec<String>,
}

/// Runs; whether everything passed.
pub(crate) fn run(args: &Args, root: PathBuf, target: PathBuf) -> Result<bool, String> {
    if args.list {
        for stage in STAGES {
            let absent = stage::absent(&root, stage.present);
            let note = absent.map(|path| format!(" (not in this tree: {path})"));
            println!("{:<12} {}{}", stage.name, stage.about, note.unwrap_or_default());
        }
        return Ok(true);
    }
    let chosen = stages::select(&root, &args.only, &args.skip)?;
    let needs = all_needs(&chosen, &root);
    let python = machine::check(&needs)?;
    let mut missing = fetch::missing(&root, &python, args.hermetic, &needs);
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    missing.extend(fetch::missing_crates(&lock, &fetch::cargo_home()));
    if !missing.is_empty() {
        println!("To be fetched, checked against committed checksums, and kept for later runs:");
        missing.iter().for_each(|thing| println!("  {thing}"));
        fetch::all(&python, args.hermetic, &needs);
    }

    run_all(&mut Place::new(root, target, args.hermetic, python), &chosen)
}

/// Whether everything passed.
fn run_all(place: &mut Place, chosen: &[&'static Stage]) -> Result<bool, String> {
    let mut rows = Vec::new();
    for stage in chosen {
        let started = Instant::now();
        let (counts, failed) = run_stage(place, stage)?;
        rows.push(Row { stage: stage.name, counts, time: started.elapsed(), failed });
    }
    let (table, all) = closing(&rows);
    print!("\n{table}\n{}\n", all.closing_line());
    for line in rows.iter().flat_map(|row| &row.failed) {
        println!("  {line}");
    }
    Ok(all.failed == 0)
}

fn all_needs(chosen: &[&Stage], root: &std::path::Path) -> Vec<Need> {
    let mut needs: Vec<Need> = Vec::new();
    for need in chosen.iter().flat_map(|stage| stage.all_needs(root)) {
        if !needs.contains(&need) {
            needs.push(need);
        }
    }
    needs
}

/// What it counted, and what failed.
fn run_stage(place: &mut Place, stage: &Stage) -> Result<(Counts, Vec<String>), String> {
    let mut log = Log::create(&place.folder(), stage.name)?;
    let (mut all, mut named) = (Counts::default(), Vec::new());
    println!("{}: {}", stage.name, stage.about);
    if stage.cluster
        && let Err(why) = place.start_cluster(&mut log)
    {
        log.clear();
        println!("  FAILED: no real cluster: {why}");
        return Ok((Counts::FAIL, vec![format!("{}: no real cluster", stage.name)]));
    }
    let steps: Vec<_> = stage.steps(place.root()).collect();
    for step in steps {
        let started = Instant::now();
        log.begin(step.name);
        let result = run_step(place, &mut log, step);
        log.clear();
        let seconds = started.elapsed().as_secs_f64();
        let counts = result.as_ref().copied().unwrap_or(Counts::FAIL);
        all += counts;
        println!("  {}: {} ({seconds:.1} s)", step.name, counts.closing_line());
        if counts.failed > 0 {
            let why = result.err().unwrap_or_else(|| "tests failed".into());
            println!("  FAILED {}: {}: {why}", stage.name, step.name);
            print_tail(&log);
            named.push(format!("{}: {}: {why}", stage.name, step.name));
            named.extend(log.failures(NAMED).iter().map(|line| format!("  {line}")));
        } else if step.show || counts.skipped > 0 && counts.passed == 0 {
            print!("{}", log.step_output());
        }
    }
    if stage.cluster {
        let logs = place.end_cluster();
        if all.failed > 0 {
            println!("The end of each broker's log:\n{logs}");
        }
    }
    Ok((all, named))
}

fn print_tail(log: &Log) {
    let ci = std::env::var_os("CI").is_some();
    println!("{}", log.tail(if ci { TAIL_IN_CI } else { TAIL }));
    println!("  (all of it: {})", log.path().display());
}

fn run_step(place: &mut Place, log: &mut Log, step: &Step) -> Result<Counts, String> {
    match &step.run {
        Run::Own(code) => code(place, log),
        Run::Command(line) => {
            let (success, output) = command(place, log, step, &stage::words(line))?;
            step.count.read(success, &output)
        }
        Run::Nextest(filter) => nextest(place, log, step, filter),
    }
}

fn nextest(place: &mut Place, log: &mut Log, step: &Step, filter: &str) -> Result<Counts, String> {
    let words = |verb: &str, more: &[&str]| {
        let mut words = vec!["{cargo-tools}/cargo-nextest", "nextest", verb, "--locked"];
        words.extend(PACKAGES);
        words.extend(["-E", filter]);
        words.extend(more);
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let more: &[&str] = &["--no-fail-fast", "--failure-output", "immediate-final"];
    let shown: &[&str] = if step.show { &["--success-output", "final"] } else { &[] };
    let (success, output) = command(place, log, step, &words("run", &[more, shown].concat()))?;
    let mut counts = step.count.read(success, &output)?;
    // Its summary mixes ignored tests with those the filter leaves to other stages.
    let more = ["--run-ignored", "only", "--message-format", "json"];
    let mut list = place.command("");
    let words = words("list", &more);
    build_command(&mut list, place, log, step, &words)?;
    let out = list.output().map_err(|e| format!("listing ignored tests: {e}"))?;
    counts.skipped = count::ignored(&String::from_utf8_lossy(&out.stdout))
        .ok_or_else(|| format!("no list of ignored tests: {}", out.status))?;
    Ok(counts)
}

fn command(
    place: &mut Place,
    log: &mut Log,
    step: &Step,
    words: &[String],
) -> Result<(bool, String), String> {
    let mut command = place.command("");
    build_command(&mut command, place, log, step, words)?;
    if step.count == Count::GoJson {
        return log.run_shown(command, step.limit, |line| {
            // Events without output tell what the lines of others say in words.
            Some(count::go_text(line).unwrap_or_else(|| line.to_owned())).filter(|t| !t.is_empty())
        });
    }
    log.run(command, step.limit)
}

fn build_command(
    command: &mut std::process::Command,
    place: &mut Place,
    log: &mut Log,
    step: &Step,
    words: &[String],
) -> Result<(), String> {
    let (program, args) = words.split_first().ok_or("a step without a command")?;
    let program = place.fill(program, log)?;
    *command = place.command(program);
    for arg in args {
        command.arg(place.fill(arg, log)?);
    }
    for (name, value) in step.env {
        let value = place.fill(value, log)?;
        // Nothing to say: the same as not saying it.
        if !value.is_empty() {
            command.env(name, value);
        }
    }
    let dir = place.fill(step.dir, log)?;
    command.current_dir(place.root().join(dir));
    Ok(())
}

/// The table that a run ends with, and the sum of it.
fn closing(rows: &[Row]) -> (String, Counts) {
    let mut all = Counts::default();
    let mut table = format!(
        "{:<12} {:>7} {:>7} {:>8} {:>8}\n",
        "stage", "passed", "failed", "skipped", "seconds"
    );
    for Row { stage, counts, time, .. } in rows {
        all += *counts;
        let Counts { passed, failed, skipped } = counts;
        let seconds = time.as_secs_f64();
        table += &format!("{stage:<12} {passed:>7} {failed:>7} {skipped:>8} {seconds:>8.1}\n");
    }
    (table, all)
}

#[cfg(test)]
mod tests {
    use ottla_test_kafka::python::Python;

    use super::*;
    use crate::stage::CHECK;

    #[test]
    fn the_table_has_a_row_for_each_stage_and_its_sum_is_the_closing_line() {
        let row = |stage, passed, failed| Row {
            stage,
            counts: Counts { passed, failed, skipped: 1 },
            time: Duration::from_millis(1250),
            failed: Vec::new(),
        };
        let (table, all) = closing(&[row("rust", 120, 0), row("c", 7, 2)]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "stage         passed  failed  skipped  seconds");
        assert_eq!(lines[1], "rust             120       0        1      1.2");
        assert_eq!(lines.len(), 3);
        assert_eq!(all.closing_line(), "127 passed, 2 failed, 2 skipped");
    }

    /// A place in a folder of its own, which goes with it.
    struct Room {
        folder: PathBuf,
        place: Place,
    }

    impl Room {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("ottla-{name}-{}", std::process::id()));
            std::fs::create_dir_all(folder.join("sub")).unwrap();
            let python = Python { path: "/nonexistent/python3".into(), version: (3, 11) };
            let place = Place::new(folder.clone(), folder.join("target"), false, python);
            Self { folder, place }
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }

    const fn sh(name: &'static str, line: &'static str) -> Step {
        Step { name, run: Run::Command(line), ..CHECK }
    }

    const fn stage(name: &'static str, steps: &'static [Step]) -> Stage {
        Stage { name, about: "a test", present: &[], needs: &[], cluster: false, steps }
    }

    static GOOD: Stage = stage("good", &[sh("one", "true"), sh("two", "sh -c 'exit 0'")]);
    static MIXED: Stage = stage(
        "mixed",
        &[
            sh("exit", "sh -c 'exit 3'"),
            Step { run: Run::Own(|_, _| Err("no".into())), ..CHECK },
            Step { run: Run::Own(|_, _| Ok(Counts { passed: 3, failed: 1, skipped: 2 })), ..CHECK },
            sh("not there", "ottla-no-such-program"),
            sh("behind them", "true"),
            Step { present: &["sub", "not there"], ..sh("of a part that is not there", "false") },
        ],
    );

    static ALONE: Stage = Stage { cluster: true, ..stage("real", &[sh("one", "true")]) };

    #[test]
    fn every_step_counts_and_a_failed_one_is_a_failure() {
        let mut room = Room::new("steps");
        let (counts, failed) = run_stage(&mut room.place, &MIXED).unwrap();
        assert_eq!(counts, Counts { passed: 4, failed: 4, skipped: 2 });
        assert_eq!(failed.len(), 4, "{failed:?}");
        assert!(failed[0].starts_with("mixed: exit: "), "{failed:?}");
        let counts = run_stage(&mut room.place, &GOOD);
        assert_eq!(counts, Ok((Counts { passed: 2, failed: 0, skipped: 0 }, Vec::new())));
    }

    #[test]
    fn a_run_passes_only_if_every_stage_does() {
        let mut room = Room::new("run");
        assert_eq!(run_all(&mut room.place, &[&GOOD]), Ok(true));
        assert_eq!(run_all(&mut room.place, &[&GOOD, &MIXED]), Ok(false));
        assert_eq!(run_all(&mut room.place, &[&MIXED, &GOOD]), Ok(false));
    }

    #[test]
    fn a_stage_without_its_cluster_fails() {
        let mut room = Room::new("cluster");
        room.place.have_no_brokers();
        let (counts, failed) = run_stage(&mut room.place, &ALONE).unwrap();
        assert_eq!(counts, Counts::FAIL);
        assert_eq!(failed, ["real: no real cluster"]);
    }

    #[test]
    fn a_step_runs_in_its_folder_and_environment() {
        let mut room = Room::new("step");
        let mut log = Log::create(&room.place.folder(), "step").unwrap();
        let step = Step {
            dir: "sub",
            env: &[("OTTLA_XTASK_SAID", "{python}/x"), ("OTTLA_XTASK_EMPTY", "")],
            ..sh(
                "",
                "sh -c 'pwd; echo $OTTLA_XTASK_SAID; printenv OTTLA_XTASK_EMPTY || echo unset'",
            )
        };
        assert_eq!(run_step(&mut room.place, &mut log, &step), Ok(Counts::PASS));
        let said: Vec<_> = log.step_output().lines().skip(1).collect();
        let sub = room.folder.join("sub").canonicalize().unwrap();
        assert_eq!(said, [sub.to_str().unwrap(), "/nonexistent/python3/x", "unset"]);
        let nobody = Step { dir: "{no-such-word}", ..sh("", "true") };
        assert!(run_step(&mut room.place, &mut log, &nobody).is_err());
    }

    /// A nextest that says what it was asked for: its run has four tests, two are ignored.
    const NEXTEST: &str = r#"#!/bin/sh
case " $* " in
*" nextest run "*)
    case " $* " in *" --no-fail-fast "*) ;; *) exit 9 ;; esac
    case " $* " in *" -E test(x) "*) ;; *) exit 8 ;; esac
    echo "     Summary [ 1.2s] 4 tests run: 4 passed, 9 skipped"
    exit "${NEXTEST_ENDS:-0}" ;;
*" nextest list "*" --run-ignored only "*)
    test -z "$NEXTEST_LISTS_NOTHING" || exit 1
    match='{"filter-match":{"status":"matches"}}'
    other='{"filter-match":{"status":"mismatch"}}'
    echo '{"rust-suites":{"a":{"testcases":{"one":'$match',"two":'$match',"three":'$other'}}}}' ;;
*) exit 7 ;;
esac
"#;

    #[test]
    fn tests_that_are_ignored_are_counted_beside_those_that_ran() {
        use std::os::unix::fs::PermissionsExt;
        let mut room = Room::new("nextest");
        let program = room.folder.join("cargo-nextest");
        std::fs::write(&program, NEXTEST).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        room.place.provide("cargo-tools", room.folder.to_str().unwrap());
        let mut log = Log::create(&room.place.folder(), "nextest").unwrap();
        let step = Step { run: Run::Nextest("test(x)"), count: Count::Nextest, ..CHECK };
        let counts = run_step(&mut room.place, &mut log, &step);
        assert_eq!(counts, Ok(Counts { passed: 4, failed: 0, skipped: 2 }));
        let failed = Step { env: &[("NEXTEST_ENDS", "100")], ..step };
        assert!(run_step(&mut room.place, &mut log, &failed).is_err());
        let silent = Step { env: &[("NEXTEST_LISTS_NOTHING", "1")], ..failed };
        assert!(run_step(&mut room.place, &mut log, &silent).is_err());
    }
}
