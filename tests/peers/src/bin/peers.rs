//! `cargo xtask peers`: groups with members of several clients on real brokers, for as long as one likes, and what a rebalance
//! costs, client by client.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ottla_peers::group::Setting;
use ottla_peers::programs::{Kind, Programs, Protocol};
use ottla_peers::rebalance::{self, WAITS_MS};
use ottla_peers::script;
use ottla_report::{Line, Target, number, print};
use ottla_test_kafka::{Cluster, DEFAULT_VERSION, Options};

#[derive(Debug, Parser)]
#[command(name = "peers", bin_name = "cargo xtask peers", about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

/// Members of several clients in one group.
#[derive(Debug, Subcommand)]
enum Task {
    /// Members of all clients come, go, are killed and frozen, and brokers with them; each client leads once
    Mixed {
        /// For how long, of each protocol
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// Which protocols, with commas: range, cooperative-sticky, next. Default: those that the brokers have
        #[arg(long, value_delimiter = ',', value_parser = protocol)]
        protocols: Vec<Protocol>,
        /// Kafka's version; before 4.0 there is no next
        #[arg(long, default_value = DEFAULT_VERSION)]
        version: String,
        /// Of what is drawn; printed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Leave the brokers alone
        #[arg(long)]
        steady_brokers: bool,
    },
    /// For how long partitions are not read when a member of a large group comes, goes or is killed
    Rebalance {
        /// Of each group
        #[arg(long, default_value_t = 20)]
        members: usize,
        /// Of the topic
        #[arg(long, default_value_t = 40)]
        partitions: i32,
        /// Records a second
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// Which clients, with commas: ours, librdkafka, franz-go, java
        #[arg(long, value_delimiter = ',', default_value = "ours,librdkafka,franz-go", value_parser = kind)]
        clients: Vec<Kind>,
        /// Print one JSON object per figure and line
        #[arg(long)]
        json: bool,
    },
}

fn protocol(name: &str) -> Result<Protocol, String> {
    let names = Protocol::ALL.map(Protocol::name).join(", ");
    Protocol::from_name(name).ok_or_else(|| format!("there are {names}"))
}

fn kind(name: &str) -> Result<Kind, String> {
    let names = Kind::ALL.map(Kind::name).join(", ");
    Kind::from_name(name).ok_or_else(|| format!("there are {names}"))
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Mixed { seconds, protocols, version, seed, steady_brokers } => {
            mixed(Duration::from_secs(seconds), &protocols, version, seed, steady_brokers)
        }
        Task::Rebalance { members, partitions, rate, clients, json } => {
            costs(members, partitions, rate, &clients, json)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("peers: {why}");
            ExitCode::FAILURE
        }
    }
}

fn programs(cluster: &Cluster) -> Result<Programs, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    Ok(Programs::beside(&own, Some(cluster.state().clone())))
}

fn mixed(
    time: Duration,
    protocols: &[Protocol],
    version: String,
    seed: u64,
    steady_brokers: bool,
) -> Result<(), String> {
    let has_next = !version.starts_with("3.");
    let all: Vec<_> =
        Protocol::ALL.into_iter().filter(|p| has_next || *p != Protocol::Next).collect();
    let protocols = if protocols.is_empty() { &all[..] } else { protocols };
    let cluster = Cluster::start(Options { version: version.clone(), ..Options::default() });
    let cluster = cluster.map_err(|e| e.to_string())?;
    let programs = programs(&cluster)?;
    let kinds: Vec<_> = programs.kinds().into_iter().map(Kind::name).collect();
    println!("Kafka {version}, seed {seed}, members of {}", kinds.join(", "));
    let mut wrong = 0;
    for protocol in protocols {
        let setting = Setting {
            bootstrap: cluster.bootstrap().to_owned(),
            name: format!("mixed-{}", protocol.name()),
            protocol: *protocol,
            partitions: 12,
            replicas: 3,
            rate: 120,
        };
        let brokers = (!steady_brokers).then_some(&cluster);
        match script::long(setting, programs.clone(), brokers, time, seed) {
            Ok(verdict) => println!("{}: ok\n{verdict}", protocol.name()),
            Err(why) => {
                println!("{}: WRONG\n{why}", protocol.name());
                wrong += 1;
            }
        }
    }
    if wrong == 0 {
        Ok(())
    } else {
        Err(format!("{wrong} of {} groups went wrong", protocols.len()))
    }
}

fn costs(
    members: usize,
    partitions: i32,
    rate: u32,
    clients: &[Kind],
    json: bool,
) -> Result<(), String> {
    let cluster = Cluster::start(Options::default()).map_err(|e| e.to_string())?;
    let programs = programs(&cluster)?;
    if !json {
        let session = ottla_peers::programs::SESSION.as_secs();
        println!(
            "{members} members, {partitions} partitions, {rate} records a second; sessions of {session} s, heartbeats \
             of classic members each 2 s, of others each 0.5 s.\nPartition-seconds: in which records waited for \
             longer than {WAITS_MS} ms.\n\n{:<20} {:<12} {:<14} {:>18} {:>10} {:>10} {:>10}",
            "protocol", "client", "event", "partition-seconds", "longest", "at rest", "moved"
        );
    }
    for protocol in [Protocol::Cooperative, Protocol::Next] {
        for client in clients {
            let setting = Setting {
                bootstrap: cluster.bootstrap().to_owned(),
                name: format!("rebalance-{}-{}", protocol.name(), client.name()),
                protocol,
                partitions,
                replicas: 3,
                rate,
            };
            let who = client.name();
            let costs = rebalance::measure(setting, programs.clone(), *client, members);
            for cost in costs.map_err(|why| format!("{who}, {}: {why}", protocol.name()))? {
                if json {
                    let name = |what: &str| {
                        format!("{}_{}_{what}", protocol.name(), cost.event.replace(' ', "_"))
                    };
                    let figures = [
                        ("partition_seconds", cost.partition_seconds, "s"),
                        ("longest", cost.longest, "s"),
                        ("rest", cost.rest, "s"),
                        ("moved", cost.moved as f64, ""),
                    ];
                    for (what, value, unit) in figures {
                        let name = name(what);
                        print(
                            &Line { name, client: who, value, unit, target: Target::Told }.json(),
                        )?;
                    }
                    continue;
                }
                println!(
                    "{:<20} {who:<12} {:<14} {:>18} {:>8} s {:>8} s {:>7}/{}",
                    protocol.name(),
                    cost.event,
                    number(cost.partition_seconds),
                    number(cost.longest),
                    number(cost.rest),
                    cost.moved,
                    cost.fewest
                );
            }
        }
    }
    Ok(())
}
