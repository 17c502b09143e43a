//! What a record costs through a binding: programs in Go and C (`tests/bench/go`, `tests/bench/c`), each a measurement in a process
//! of its own, with the same brokers as the Rust client and beside other clients of the language.

use std::process::{Command, Stdio};

use ottla_report::{Line, Target, print};
use serde::Deserialize;

use crate::args::Bindings;
use crate::broker::{Broker, Kind};

/// What is measured in a language.
struct Figure {
    language: &'static str,
    name: &'static str,
    about: &'static str,
    kind: Kind,
    /// Only Ottla has such a call.
    alone: bool,
    /// Nanoseconds of processor time for a record of 100 bytes, on the machines this project is developed on.
    most_ns: Option<f64>,
    /// Allocations for a record, the program's own closure included.
    most_allocations: Option<f64>,
}

const FIGURES: [Figure; 7] = {
    const fn figure(language: &'static str, name: &'static str, about: &'static str) -> Figure {
        let (kind, alone) = (Kind::Plain, false);
        Figure { language, name, about, kind, alone, most_ns: None, most_allocations: None }
    }
    [
        Figure {
            most_ns: Some(170.0),
            most_allocations: Some(1.05),
            ..figure("go", "produce", "Go: produce, a callback that captures per record")
        },
        Figure {
            alone: true,
            most_allocations: Some(0.05),
            ..figure("go", "produce_quiet", "Go: produce, without callbacks")
        },
        Figure {
            alone: true,
            most_ns: Some(70.0),
            most_allocations: Some(0.05),
            ..figure("go", "produce_many", "Go: ProduceMany of 1,000 values")
        },
        figure("c", "produce", "C: ottla_producer_send_batch of 1,000"),
        Figure {
            most_ns: Some(90.0),
            most_allocations: Some(0.05),
            ..figure("go", "consume", "Go: consume, record by record")
        },
        figure("c", "consume", "C: consume, record by record"),
        Figure { kind: Kind::Lz4, ..figure("go", "consume_lz4", "Go: consume lz4") },
    ]
};

/// What a program prints.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Measured {
    cpu_ns: f64,
    allocations: f64,
    per_second: f64,
    peak_mb: f64,
    rss_mb: f64,
}

/// The measurements of a figure and a client.
struct Row<'a> {
    figure: &'static Figure,
    client: &'a str,
    rounds: Vec<Measured>,
}

impl Row<'_> {
    fn median(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        // One measurement at least is what makes a row.
        values[(values.len() - 1) / 2]
    }

    /// A binding's targets are Ottla's alone.
    fn target(&self, most: Option<f64>) -> Target {
        most.filter(|_| self.client == "ottla").map_or(Target::Told, Target::AtMost)
    }

    fn json(&self) -> String {
        let is = self.figure;
        let rounded = |value: f64| (value * 100.0).round() / 100.0;
        [
            ("cpu_ns", self.median(|m| m.cpu_ns), "ns", self.target(is.most_ns)),
            ("allocations", self.median(|m| m.allocations), "", self.target(is.most_allocations)),
            ("records_per_s", self.median(|m| m.per_second.round()), "1/s", Target::Told),
            ("peak_mb", self.median(|m| m.peak_mb), "MB", Target::Told),
            ("rss_mb", self.median(|m| m.rss_mb), "MB", Target::Told),
        ]
        .into_iter()
        // Who counts no allocations is not said to make none.
        .filter(|(what, ..)| *what != "allocations" || is.language == "go")
        .map(|(what, value, unit, target)| {
            let name = format!("{}_{}_{what}", is.language, is.name);
            Line { name, client: self.client, value: rounded(value), unit, target }.json()
        })
        .collect()
    }
}

/// Measures what is asked for with the programs there are.
pub(crate) fn measure(args: &Bindings) -> Result<(), String> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut last: Option<Broker> = None;
    let wanted = |figure: &Figure| {
        let name = format!("{}_{}", figure.language, figure.name);
        args.only.is_empty() || args.only.contains(&name)
    };
    for figure in FIGURES.iter().filter(|figure| wanted(figure)) {
        // What the clients of one figure share is one broker process, so that it cannot favour one.
        let broker = match last.take() {
            Some(broker) if broker.kind() == figure.kind => broker,
            _ => Broker::spawn(figure.kind)?,
        };
        // Client by client within a round: what disturbs the machine for a while meets both.
        for _ in 0..args.rounds {
            let clients = args.programs.iter().filter(|program| {
                program.language == figure.language && (!figure.alone || program.client == "ottla")
            });
            for program in clients {
                let measured = run(&program.path, figure.name, args.records, broker.bootstrap())
                    .map_err(|why| format!("{} of {}: {why}", figure.about, program.client))?;
                let client = program.client.as_str();
                match rows
                    .iter_mut()
                    .find(|row| std::ptr::eq(row.figure, figure) && row.client == client)
                {
                    Some(row) => row.rounds.push(measured),
                    None => rows.push(Row { figure, client, rounds: vec![measured] }),
                }
            }
        }
        last = Some(broker);
    }
    if rows.is_empty() {
        let names = FIGURES.iter().map(|figure| format!("{}_{}", figure.language, figure.name));
        let names: Vec<_> = names.collect();
        return Err(format!(
            "nothing was measured; there are {}, of the programs that are given",
            names.join(", ")
        ));
    }
    if args.json { print(&rows.iter().map(Row::json).collect::<String>()) } else { table(&rows) }
}

fn run(program: &str, figure: &str, records: usize, bootstrap: &str) -> Result<Measured, String> {
    let output = Command::new(program)
        .args([figure, &records.to_string(), bootstrap])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot start {program}: {e}"))?;
    if !output.status.success() {
        return Err(output.status.to_string());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).map_err(|_| format!("it printed '{}'", text.trim()))
}

fn table(rows: &[Row<'_>]) -> Result<(), String> {
    let mut text = format!(
        "{:<50}{:<22}{:>8}{:>8}{:>14}{:>9}{:>9}\n",
        "100-byte records", "", "ns CPU", "M/s", "allocations", "peak MB", "MB"
    );
    for row in rows {
        let is = row.figure;
        let allocations = match is.language {
            "go" => format!("{:.2}", row.median(|m| m.allocations)),
            _ => "-".to_owned(),
        };
        text += &format!(
            "{:<50}{:<22}{:>8.1}{:>8.2}{:>14}{:>9.0}{:>9.0}\n",
            is.about,
            row.client,
            row.median(|m| m.cpu_ns),
            row.median(|m| m.per_second) / 1e6,
            allocations,
            row.median(|m| m.peak_mb),
            row.median(|m| m.rss_mb),
        );
    }
    print(&text)
}
