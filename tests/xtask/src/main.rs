//! The task runner: `cargo xtask test`, `kafka`, `bench`, `peers`, `fleet`, `fuzz`, `coverage`, `dist`.
//!
//! A test run goes through the modules below in this order:
//!
//! 1. [`stages`] says what there is to run, as data; [`stage`] what such a thing is.
//! 2. [`machine`] looks for what the machine must have and names all that is missing.
//! 3. [`fetch`] gets the rest from package registries, pinned by checksum.
//! 4. [`place`] makes what steps ask for: the installed C library ([`dist`]), the wheel ([`wheel`]), brokers.
//! 5. [`test`] runs each step by [`process`] into its [`log`], with the [`signals`] that a terminal
//!    gives; [`c`] compiles programs in C.
//! 6. [`count`] reads how many tests that were; [`test`] closes with the table.

mod bindings;
mod c;
mod count;
mod coverage;
mod dist;
mod fetch;
mod fuzz;
mod go_modules;
mod go_programs;
mod instructions;
mod kafka;
mod log;
mod machine;
mod peers;
mod place;
mod process;
#[cfg(test)]
mod rules;
mod signals;
mod stage;
mod stages;
mod test;
mod wheel;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", about = "Builds, tests and measures Ottla")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every check there is, or some
    Test(test::Args),
    /// Real Kafka brokers, without Docker
    #[command(subcommand)]
    Kafka(kafka::Action),
    /// Measure, on a release build: CPU per message against the embedded broker; with
    /// `behaviour`, how many clients behave together on a real cluster whose paths break; with
    /// `broker-price`, what Produce requests cost a real broker; with `go`, what a record costs through the
    /// bindings for Go and C, beside other clients for Go
    Bench {
        /// Print one JSON object per figure and line
        #[arg(long)]
        json: bool,
        /// Handed to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Groups with members of several clients on real brokers: `mixed` for as long as one likes, `rebalance` for what one costs
    Peers {
        /// Handed to the program: --help tells what it takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure thousands of clients in virtual time, on a release build: figures beside their targets,
    /// pages with plots in target/fleet
    Fleet {
        /// Handed to the laboratory: experiments by number or name, --clients N, --seed S, --json
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Look for input from the network that is not dealt with, and keep what is new in the corpus
    Fuzz(fuzz::Args),
    /// Which lines of the library no test runs, in each language
    Coverage(coverage::Args),
    /// Build the C library and lay it out in target/ottla-dist; with `go`, the Go modules with a C library for each platform
    /// that this machine can build for, in target/ottla-go
    Dist {
        /// Nothing: the C library
        #[arg(value_enum)]
        what: Option<What>,
    },
}

/// What is built to be given away.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Go modules, and a module proxy of files that has them
    Go,
}

fn main() -> ExitCode {
    if let Err(why) = signals::hand_down_defaults() {
        eprintln!("xtask: what is run may ignore Ctrl-C: {why}");
    }
    match run(Cli::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<bool, String> {
    let root = root();
    let target = target(&root);
    match task {
        Task::Test(args) => test::run(&args, root, target),
        Task::Kafka(action) => kafka::run(action),
        Task::Bench { json, args } => match args.split_first() {
            Some((first, rest)) if first == "go" => bindings::bench(&root, &target, json, rest),
            _ => bench(&root, json, &args),
        },
        Task::Peers { args } => peers::run(&root, &target, &args),
        Task::Fleet { args } => fleet(&root, &target, &args),
        Task::Fuzz(args) => fuzz::run(&args, &root, &target),
        Task::Coverage(args) => coverage::run(&args, &root, &target),
        Task::Dist { what } => {
            let python = machine::check(&[stage::Need::Cc])?;
            let place = place::Place::new(root, target, false, python);
            let mut log = log::Log::create(&place.folder(), "dist")?;
            let made = match what {
                None => dist::build(&place, &mut log).map(|folder| folder.display().to_string()),
                Some(What::Go) => {
                    let terminal = std::io::stdout().is_terminal();
                    let made = go_modules::build(&place, &mut log, &|line| {
                        // On a terminal over the line that shows what runs.
                        println!("{}{line}", if terminal { "\r\x1b[2K" } else { "" });
                    });
                    made.map(|made| format!("GOPROXY=file://{}", made.proxy.display()))
                }
            };
            log.clear();
            match made {
                Ok(told) => println!("{told}"),
                Err(why) => return Err(format!("{}\n{why}", log.tail(40))),
            }
            Ok(true)
        }
    }
}

/// Figures of a debug build mean nothing: the benchmark is always built for release.
fn bench(root: &Path, json: bool, args: &[String]) -> Result<bool, String> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(["run", "--locked", "--release", "--quiet", "-p"]);
    let args = match args {
        [first, rest @ ..] if first == "behaviour" => {
            cargo.args(["ottla-relay", "--bin", "behaviour"]);
            // Built from source, so only where it takes part.
            let peer = rest.iter().any(|arg| arg == "rdkafka");
            cargo.args(peer.then_some(["--features", "rdkafka"]).into_iter().flatten());
            rest
        }
        [first, rest @ ..] if first == "broker-price" => {
            cargo.args(["ottla-test-kafka", "--example", "broker_price"]);
            rest
        }
        all => {
            cargo.args(["ottla-bench", "--features", "rdkafka"]);
            all
        }
    };
    cargo.arg("--").args(json.then_some("--json")).args(args);
    let status = cargo.status().map_err(|e| format!("cannot start cargo: {e}"))?;
    Ok(status.success())
}

/// Thousands of clients in a debug build take a quarter of an hour.
fn fleet(root: &Path, target: &Path, args: &[String]) -> Result<bool, String> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(["run", "--locked", "--release", "--quiet", "-p", "ottla-fleet"]);
    cargo.arg("--").arg("--pages").arg(target.join("fleet")).args(args);
    let status = cargo.status().map_err(|e| format!("cannot start cargo: {e}"))?;
    Ok(status.success())
}

/// The root of the tree this was built from, which is the one it is run in.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}

fn target(root: &Path) -> PathBuf {
    // Relative to where cargo is run, as cargo reads it.
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |own| root.join(own))
}
