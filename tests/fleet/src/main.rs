//! Runs experiments: `cargo xtask fleet`.
//!
//! Each runs in a process of its own: its peak of memory is its own, and no experiment inherits a heap.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use ottla_fleet::experiments::{self, Experiment, Options};
use ottla_fleet::plot;
use ottla_fleet::report::{self, Report};

const USAGE: &str = "usage: ottla-fleet [all | EXPERIMENT...] [--clients N] [--seed S] [--json]

  EXPERIMENT   a number or a name: 1 outage, 2 reset, 3 moved-leaders, 4 idle, 5 errors,
               6 overload, 7 spread, 8 slow-broker, 9 broker-down, 10 connections, 12 rolling-restart,
               13 groups, 16 broken-paths, 17 but-dont, 18 load-curve (default: all)
  --clients N  size of the fleet (default 10000; 5 and 8 use a hundredth, 16 a tenth,
               6, 17 and 18 a fortieth, and 50 at least)
  --seed S     what every draw follows from (default 1)
  --json       one object per figure and line instead of tables
  --pages DIR  where pages with plots are written (default target/fleet)";

struct Args {
    experiments: Vec<&'static Experiment>,
    options: Options,
    json: bool,
    pages: PathBuf,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|args| run(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("ottla-fleet: {message}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut parsed = Args {
        experiments: Vec::new(),
        options: Options { clients: 10_000, seed: 1 },
        json: false,
        pages: PathBuf::from("target/fleet"),
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
        let number = |value: String| {
            value.parse::<u64>().map_err(|_| format!("{arg}: '{value}' is no number\n{USAGE}"))
        };
        match arg.as_str() {
            "--clients" => {
                parsed.options.clients = u32::try_from(number(value()?)?)
                    .ok()
                    .filter(|n| (1..=1_000_000).contains(n))
                    .ok_or_else(|| format!("--clients is 1 to 1000000\n{USAGE}"))?;
            }
            "--seed" => parsed.options.seed = number(value()?)?,
            "--json" => parsed.json = true,
            "--pages" => parsed.pages = value()?.into(),
            "--help" | "-h" => return Err(USAGE.to_owned()),
            "all" => parsed.experiments.extend(&experiments::ALL),
            word => match experiments::find(word) {
                Some(found) => parsed.experiments.push(found),
                None => return Err(format!("there is no experiment '{word}'\n{USAGE}")),
            },
        }
    }
    if parsed.experiments.is_empty() {
        parsed.experiments.extend(&experiments::ALL);
    }
    Ok(parsed)
}

/// Gives whether every target was met.
fn run(args: &Args) -> Result<bool, String> {
    if let [one] = args.experiments[..] {
        return experiment(args, one);
    }
    let me = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let mut met = true;
    for experiment in &args.experiments {
        let mut child = Command::new(&me);
        child.arg(experiment.name).arg("--pages").arg(&args.pages);
        child.args(["--clients", &args.options.clients.to_string()]);
        child.args(["--seed", &args.options.seed.to_string()]).args(args.json.then_some("--json"));
        let status = child.status().map_err(|e| format!("cannot start {}: {e}", me.display()))?;
        match status.code() {
            Some(0) => {}
            Some(1) => met = false,
            _ => return Err(format!("experiment {} ended with {status}", experiment.name)),
        }
    }
    Ok(met)
}

fn experiment(args: &Args, experiment: &Experiment) -> Result<bool, String> {
    let Options { clients, seed } = args.options;
    if cfg!(debug_assertions) {
        eprintln!("ottla-fleet: a debug build; it takes many times as long");
    }
    // Before the run: a panic in it must leave behind what repeats it.
    eprintln!("ottla-fleet: {} with --clients {clients} --seed {seed}", experiment.name);
    let began = Instant::now();
    let reports = (experiment.run)(&args.options);
    let took = began.elapsed();
    for report in &reports {
        report::print(&if args.json { report.json() } else { report.table() + "\n" })?;
    }
    let page = write_page(&args.pages, experiment, &reports)?;
    let memory = peak_memory().map_or(String::new(), |mb| format!(", {mb} MB at most"));
    // What a busy machine takes says little: the processor's time is the weight of a fleet.
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (name, cpu, page) = (experiment.name, cpu.tv_sec, page.display());
    eprintln!("ottla-fleet: {name} took {took:.1?}, {cpu} s of CPU{memory}; {page}");
    let missed: Vec<String> = reports
        .iter()
        .flat_map(|report| {
            report.missed().into_iter().map(|f| format!("{}: {}", report.name, f.name))
        })
        .collect();
    if !missed.is_empty() {
        eprintln!("ottla-fleet: missed with --seed {seed}: {}", missed.join("; "));
    }
    Ok(missed.is_empty())
}

fn write_page(dir: &Path, experiment: &Experiment, reports: &[Report]) -> Result<PathBuf, String> {
    let path = dir.join(format!("{}.html", experiment.name));
    let title = format!("Experiment {}: {}", experiment.number, experiment.name);
    std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&path, plot::page(&title, reports)))
        .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    Ok(path)
}

/// The most memory this process has held, in MB, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb / 1024)
}
