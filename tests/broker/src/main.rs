//! Runs a test cluster until standard input ends, or for as long as a command runs.
//!
//! `ottla-test-broker [--brokers N] [--topic NAME:PARTITIONS[:REPLICATION]]... [--sink]
//! [--auto-create PARTITIONS] [--no-record-checks] [--source RECORDSxBYTES] [-- COMMAND...]`
//!
//! With a command, that is run with the bootstrap string in its environment as `BOOTSTRAP`, and its
//! exit status is this program's. Without, the first line on standard output is the bootstrap
//! string. Whoever starts it keeps its standard input open: end of file ends it, so that it never
//! outlives its parent.

use std::io::{Read, Write};
use std::process::{Command, ExitCode};

use ottla_test_broker::{Builder, Cluster, SourceBatch, Storage};

const USAGE: &str = "usage: ottla-test-broker [--brokers N] \
    [--topic NAME:PARTITIONS[:REPLICATION]]... [--sink | --source RECORDSxBYTES] \
    [--auto-create PARTITIONS] [--no-record-checks] [-- COMMAND...]";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(message) => {
            eprintln!("ottla-test-broker: {message}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let command = args.iter().position(|arg| arg == "--").map(|at| args.split_off(at));
    let cluster = configure(args.into_iter())?.start().map_err(|error| error.to_string())?;
    match command.as_deref() {
        Some([_, program, args @ ..]) => run_command(&cluster, program, args),
        Some(_) => Err("a command follows '--'".to_owned()),
        None => run_until_input_ends(&cluster).map(|()| ExitCode::SUCCESS),
    }
}

fn run_command(cluster: &Cluster, program: &str, args: &[String]) -> Result<ExitCode, String> {
    let status = Command::new(program)
        .args(args)
        .env("BOOTSTRAP", cluster.bootstrap())
        .status()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    // Without a code it was ended by a signal.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn run_until_input_ends(cluster: &Cluster) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", cluster.bootstrap())
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot print the bootstrap string: {error}"))?;
    let mut ignored = [0; 4096];
    let mut input = std::io::stdin().lock();
    while input
        .read(&mut ignored)
        .map_err(|error| format!("cannot read standard input: {error}"))?
        > 0
    {}
    for broker in cluster.stats().brokers {
        eprintln!("{broker:?}");
    }
    Ok(())
}

fn configure(mut args: impl Iterator<Item = String>) -> Result<Builder, String> {
    let mut builder = Cluster::builder().brokers(3);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        builder = match arg.as_str() {
            "--brokers" => builder.brokers(number(&value()?)?),
            "--auto-create" => builder.auto_create_topics(number(&value()?)?),
            "--sink" => builder.storage(Storage::Sink),
            "--no-record-checks" => builder.check_records(false),
            "--source" => {
                let value = value()?;
                let (records, bytes) = value
                    .split_once('x')
                    .ok_or_else(|| format!("'{value}' is not RECORDSxBYTES"))?;
                let (records, bytes): (usize, usize) = (number(records)?, number(bytes)?);
                if records == 0 || records.saturating_mul(bytes) > 64 << 20 {
                    return Err(format!("'{value}' is no batch of 1 record to 64 MiB"));
                }
                let one = vec![b'x'; bytes];
                builder.storage(Storage::Source(SourceBatch::new((0..records).map(|_| &one))))
            }
            "--topic" => {
                let value = value()?;
                let mut parts = value.split(':');
                let name = parts.next().unwrap_or_default();
                let partitions = number(parts.next().unwrap_or("1"))?;
                let replication = number(parts.next().unwrap_or("1"))?;
                builder.topic(name, partitions, replication)
            }
            _ => return Err(format!("unknown argument '{arg}'")),
        };
    }
    Ok(builder)
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("'{text}' is no number in range"))
}
