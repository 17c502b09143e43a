//! Runs a test cluster until standard input ends, or for as long as a command runs.
//!
//! `ottla-test-broker [--brokers N] [--topic NAME:PARTITIONS[:REPLICATION]]... [--sink]
//! [--auto-create PARTITIONS] [--no-record-checks] [--source RECORDSxBYTES]
//! [--tls FOLDER [--client-certificates]] [--sasl MECHANISM]... [--user NAME:PASSWORD]...
//! [--token TOKEN=PRINCIPAL]... [--max-reauth MS] [-- COMMAND...]`
//!
//! With `--tls` brokers speak TLS, and the folder gets what clients need: `ca.pem`, the authority to believe,
//! and `client.pem` with `client.key`, a certificate for `CN=client`.
//!
//! With a command, that is run with the bootstrap string in its environment as `BOOTSTRAP`, and its
//! exit status is this program's. Without, the first line on standard output is the bootstrap
//! string. Whoever starts it keeps its standard input open: end of file ends it, so that it never
//! outlives its parent.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use ottla_test_broker::{Builder, ClientCertificates, Cluster, Sasl, SourceBatch, Storage, Tls};

const USAGE: &str = "usage: ottla-test-broker [--brokers N] \
    [--topic NAME:PARTITIONS[:REPLICATION]]... [--sink | --source RECORDSxBYTES] \
    [--auto-create PARTITIONS] [--no-record-checks] \
    [--tls FOLDER [--client-certificates]] [--sasl MECHANISM]... [--user NAME:PASSWORD]... \
    [--token TOKEN=PRINCIPAL]... [--max-reauth MS] [-- COMMAND...]";

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
    let (builder, folder) = configure(args.into_iter())?;
    let cluster = builder.start().map_err(|error| error.to_string())?;
    if let Some(folder) = folder {
        hand_out(&cluster, &folder)?;
    }
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

/// Writes what clients need for TLS.
fn hand_out(cluster: &Cluster, folder: &Path) -> Result<(), String> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
    };
    let identity = cluster.client_identity("client").map_err(|error| error.to_string())?;
    write("ca.pem", &cluster.ca_pem().unwrap_or_default())?;
    write("client.pem", &identity.certificates)?;
    write("client.key", &identity.key)
}

/// What the arguments describe, and the folder for what clients need.
fn configure(mut args: impl Iterator<Item = String>) -> Result<(Builder, Option<PathBuf>), String> {
    let mut builder = Cluster::builder().brokers(3);
    let mut folder = None;
    let mut clients = ClientCertificates::None;
    let mut sasl: Option<Sasl> = None;
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
            "--tls" => {
                folder = Some(PathBuf::from(value()?));
                builder
            }
            "--client-certificates" => {
                clients = ClientCertificates::Required;
                builder
            }
            "--sasl" | "--user" | "--token" | "--max-reauth" => {
                let described = sasl.take().unwrap_or_default();
                sasl = Some(with(described, &arg, &value()?)?);
                builder
            }
            _ => return Err(format!("unknown argument '{arg}'")),
        };
    }
    if folder.is_some() {
        builder = builder.tls(Tls::new().client_certificates(clients));
    } else if clients != ClientCertificates::None {
        return Err("--client-certificates needs --tls".to_owned());
    }
    if let Some(sasl) = sasl {
        builder = builder.sasl(sasl);
    }
    Ok((builder, folder))
}

/// What one argument says of logins. No value is repeated where it is wrong: it may be a secret.
fn with(sasl: Sasl, arg: &str, value: &str) -> Result<Sasl, String> {
    match arg {
        "--sasl" => sasl.mechanism(value).ok_or_else(|| {
            "--sasl takes PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER".to_owned()
        }),
        "--user" => {
            let pair = value.split_once(':');
            let (name, password) = pair.ok_or("--user takes NAME:PASSWORD")?;
            Ok(sasl.user(name, password))
        }
        "--token" => {
            let pair = value.rsplit_once('=');
            let (token, principal) = pair.ok_or("--token takes TOKEN=PRINCIPAL")?;
            Ok(sasl.token(token, principal, None))
        }
        _ => Ok(sasl.max_reauth(Duration::from_millis(number(value)?))),
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("'{text}' is no number in range"))
}
