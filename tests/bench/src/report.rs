//! What is printed: a table for people, or an object per figure and line for programs.

use std::io::Write;

use serde::Serialize;

use crate::worker::{Client, Figure, Measured};

/// The measurements of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    figure: Figure,
    client: Client,
    rounds: Vec<Measured>,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    client: &'static str,
    value: f64,
    unit: &'static str,
}

impl Row {
    fn median(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        // One measurement at least is what makes a row; of an even number the better half's worst.
        values[(values.len() - 1) / 2]
    }

    fn cpu_ns(&self) -> f64 {
        self.median(|round| round.cpu_ns)
    }

    fn per_second(&self) -> f64 {
        self.median(|round| round.per_second)
    }
}

impl Report {
    pub(crate) fn add(&mut self, figure: &Figure, client: Client, measured: Measured) {
        match self.rows.iter_mut().find(|row| row.figure == *figure && row.client == client) {
            Some(row) => row.rounds.push(measured),
            None => self.rows.push(Row { figure: *figure, client, rounds: vec![measured] }),
        }
    }

    fn row(&self, figure: &Figure, client: Client) -> Option<&Row> {
        self.rows.iter().find(|row| row.figure == *figure && row.client == client)
    }

    pub(crate) fn print_json(&self) -> Result<(), String> {
        let mut text = String::new();
        for row in &self.rows {
            let figures = [
                ("cpu_ns", (row.cpu_ns() * 10.0).round() / 10.0, "ns"),
                ("records_per_s", row.per_second().round(), "1/s"),
                ("peak_mb", row.median(|round| round.peak_mb).round(), "MB"),
            ];
            for (what, value, unit) in figures {
                let name = format!("{}_{what}", row.figure.name);
                let line = Line { name, client: row.client.name(), value, unit };
                text += &serde_json::to_string(&line).map_err(|e| e.to_string())?;
                text.push('\n');
            }
        }
        print(&text)
    }

    pub(crate) fn print_table(&self) -> Result<(), String> {
        let mut text = format!(
            "{:<46}{:>12}{:>14}{:>8}{:>12}{:>12}{:>12}{:>12}\n",
            "100-byte records", "ottla", "rdkafka", "ratio", "ottla", "rdkafka", "ottla", "ottla"
        );
        text += &format!(
            "{:<46}{:>12}{:>14}{:>8}{:>12}{:>12}{:>12}{:>12}\n",
            "", "ns CPU", "ns CPU", "", "M/s", "M/s", "KB/request", "peak MB"
        );
        for row in self.rows.iter().filter(|row| row.client == Client::Ottla) {
            // A batched call is compared with what the other client has.
            let other = self.row(&row.figure, Client::Rdkafka).or_else(|| {
                self.rows.iter().find(|other| {
                    other.client == Client::Rdkafka
                        && other.figure.direction == row.figure.direction
                        && other.figure.lz4 == row.figure.lz4
                })
            });
            let cell = |value: Option<f64>, digits: usize| {
                value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
            };
            text += &format!(
                "{:<46}{:>12.1}{:>14}{:>8}{:>12.2}{:>12}{:>12}{:>12.0}\n",
                row.figure.about,
                row.cpu_ns(),
                cell(other.map(Row::cpu_ns), 1),
                cell(other.map(|other| other.cpu_ns() / row.cpu_ns()), 1),
                row.per_second() / 1e6,
                cell(other.map(|other| other.per_second() / 1e6), 2),
                cell(row.rounds[0].request_kb, 0),
                row.median(|round| round.peak_mb),
            );
        }
        print(&text)
    }
}

fn print(text: &str) -> Result<(), String> {
    // A reader that has seen enough (head) is no failure of the measurement.
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("cannot print: {e}")),
        _ => Ok(()),
    }
}
