//! Runs a test cluster until standard input ends.
//!
//! `ottla-test-broker [--brokers N] [--topic NAME:PARTITIONS[:REPLICATION]]... [--sink]
//! [--auto-create PARTITIONS] [--no-record-checks] [--source RECORDSxBYTES]`
//!
//! The first line on standard output is the bootstrap string. Whoever starts it keeps its standard
//! input open: end of file ends it, so that it never outlives its parent.

use std::io::{Read, Write};
use std::process::ExitCode;

use ottla_test_broker::{Builder, Cluster, SourceBatch, Storage};

const USAGE: &str = "usage: ottla-test-broker [--brokers N] \
    [--topic NAME:PARTITIONS[:REPLICATION]]... [--sink | --source RECORDSxBYTES] \
    [--auto-create PARTITIONS] [--no-record-checks]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ottla-test-broker: {message}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let cluster =
        configure(std::env::args().skip(1))?.start().map_err(|error| error.to_string())?;
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
