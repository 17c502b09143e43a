//! How many clients behave together on a real cluster whose paths break: connections, requests and
//! acknowledgements, counted by a relay that the brokers advertise.
//!
//! 1. [`figures`] says what is measured and what it may be.
//! 2. [`lab`] has the cluster and starts a [`fleet`] of clients for each experiment.
//! 3. [`experiments`] break something and look.
//! 4. [`report`] prints.

mod experiments;
mod figures;
mod fleet;
mod lab;
mod report;

use std::process::ExitCode;

use ottla_relay::RelayedCluster;
use ottla_test_kafka::Options;

use figures::EXPERIMENTS;
use fleet::Library;
use lab::Lab;

const USAGE: &str = "usage: behaviour [EXPERIMENT…] [--peer rdkafka] [--clients N] [--json]

  --peer rdkafka  librdkafka in the same run, beside
  --clients N     clients of each experiment (default 40; other numbers compare with nothing)
  --json          one object per figure and line instead of a table";

struct Args {
    experiments: Vec<String>,
    libraries: Vec<Library>,
    clients: usize,
    json: bool,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self {
            experiments: Vec::new(),
            libraries: vec![Library::Ottla],
            clients: 40,
            json: false,
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--json" => parsed.json = true,
                "--clients" => {
                    let count = args.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                    parsed.clients = count.ok_or("--clients needs a number above 0")?;
                }
                "--peer" => parsed.libraries.push(peer(args.next().as_deref())?),
                name if EXPERIMENTS.iter().any(|(word, _)| *word == name) => {
                    parsed.experiments.push(arg);
                }
                _ => {
                    let names: Vec<_> = EXPERIMENTS
                        .iter()
                        .map(|(word, about)| format!("  {word:<12} {about}"))
                        .collect();
                    let names = names.join("\n");
                    return Err(format!("unknown argument '{arg}'\n{USAGE}\n\n{names}"));
                }
            }
        }
        Ok(parsed)
    }

    fn wants(&self, experiment: &str) -> bool {
        self.experiments.is_empty() || self.experiments.iter().any(|name| name == experiment)
    }
}

#[cfg(feature = "rdkafka")]
fn peer(name: Option<&str>) -> Result<Library, String> {
    match name {
        Some("rdkafka") => Ok(Library::Rdkafka),
        _ => Err("--peer knows rdkafka alone".into()),
    }
}

#[cfg(not(feature = "rdkafka"))]
fn peer(_: Option<&str>) -> Result<Library, String> {
    Err("built without librdkafka: build with --features rdkafka".into())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("behaviour: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let args = Args::parse(std::env::args().skip(1))?;
    // All clients on one thread, as each would be in a process of its own: what is sent from several
    // threads has no order that could be looked at.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    for library in &args.libraries {
        // A cluster of its own for each: none meets what another has left there.
        let cluster = RelayedCluster::start(Options::default()).map_err(|e| e.to_string())?;
        let found = runtime.block_on(measure(cluster, *library, &args))?;
        all.push((library.name(), found));
    }
    if args.json {
        report::json(&all)?;
    } else {
        report::table(&all)?;
    }
    let missed = all[0].1.missed();
    if !missed.is_empty() {
        eprintln!("behaviour: {} figures missed: {}", missed.len(), missed.join(", "));
    }
    Ok(())
}

async fn measure(
    cluster: RelayedCluster,
    library: Library,
    args: &Args,
) -> Result<report::Found, String> {
    let mut lab = Lab::new(cluster, library, args.clients).await?;
    experiments::all_closed(&lab).await?;
    for (name, about) in EXPERIMENTS.into_iter().filter(|(name, _)| args.wants(name)) {
        eprintln!("{}: {name}: {about}", library.name());
        match name {
            "steady" => experiments::steady(&mut lab).await,
            "reset" => experiments::reset(&mut lab).await,
            "unreachable" => experiments::unreachable(&mut lab).await,
            "hole" => experiments::hole(&mut lab).await,
            "throttled" => experiments::throttled(&mut lab).await,
            "topics" => experiments::topics(&mut lab).await,
            "process" => experiments::process(&mut lab).await,
            "lost" => experiments::lost(&mut lab).await,
            other => Err(format!("nothing runs '{other}'")),
        }?;
        experiments::all_closed(&lab).await?;
    }
    lab.compare().await?;
    Ok(lab.found)
}
