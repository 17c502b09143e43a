//! What a record costs the client: `cargo xtask bench`.
//!
//! Brokers that store nothing run in a process of their own on one core, and every measurement in a
//! process of its own on the other, over real sockets: processor time (user and system) of the whole
//! client process divided by the records it moved. Beside every figure of ottla stands librdkafka's
//! from the same run, since a machine that other work shares gives ratios and not absolute values.

mod args;
mod bindings;
mod broker;
mod memory;
mod pace;
mod report;
mod worker;

use std::process::ExitCode;

use args::{Args, Mode};
use broker::{Broker, Kind};
use report::Report;
use worker::{Client, Job};

fn main() -> ExitCode {
    let run = || match Args::parse(std::env::args().skip(1))? {
        Mode::Broker { kind } => broker::serve(kind),
        Mode::Worker { job, bootstrap } => worker::run(job, &bootstrap),
        Mode::Paced { task, client, bootstrap } => pace::run(task, client, &bootstrap),
        Mode::Memory => memory::measure(),
        Mode::MemoryOf { case, role, bootstrap } => memory::run(&case, role, &bootstrap),
        Mode::Measure(args) => measure(&args),
        Mode::Bindings(args) => bindings::measure(&args),
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ottla-bench: {message}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<(), String> {
    if cfg!(debug_assertions) {
        eprintln!("ottla-bench: a debug build; its figures mean nothing");
    }
    let clients: &[Client] = if cfg!(feature = "rdkafka") {
        &[Client::Ottla, Client::Rdkafka]
    } else {
        eprintln!("ottla-bench: built without the feature 'rdkafka': nothing to compare with");
        &[Client::Ottla]
    };
    if args.real {
        return pace::real::measure(args, clients);
    }
    if let Some(tasks) = &args.pace {
        return pace::measure(args, tasks, clients);
    }
    let mut report = Report::new(args.length);
    let mut last: Option<Broker> = None;
    for figure in worker::FIGURES.iter().filter(|figure| args.wants(figure)) {
        let kind = if figure.lz4 { Kind::Lz4 } else { Kind::Plain };
        // What the clients of one figure share is one broker process, so that it cannot favour one.
        let broker = match last.take() {
            Some(broker) if broker.kind() == kind => broker,
            _ => Broker::spawn(kind)?,
        };
        // Client by client within a round: what disturbs the machine for a while meets both.
        for _ in 0..figure.rounds(args.rounds()) {
            for &client in clients.iter().filter(|client| figure.has(**client)) {
                let job =
                    Job { figure: *figure, client, length: args.length, sink: broker.process() };
                report.add(figure, client, worker::spawn(job, broker.bootstrap())?);
            }
        }
        last = Some(broker);
    }
    if args.json { report.print_json() } else { report.print_table() }
}
