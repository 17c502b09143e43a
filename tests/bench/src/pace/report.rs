//! What is printed: a table for people, or an object per figure and line for programs.

use ottla_report::print;

use crate::report::{hundredths, told};
use crate::worker::Client;

use super::{LOOP, Paced, Task};

#[derive(Debug, Default)]
pub(super) struct Report(Vec<(Task, Client, Paced)>);

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Seconds that a hundred thousand records take one by one, at the pace that they have come to.
fn hundred_thousand(paced: &Paced) -> f64 {
    paced.first_s + (100_000 - LOOP) as f64 / paced.per_s
}

impl Report {
    pub(super) fn add(&mut self, task: Task, client: Client, paced: Paced) {
        self.0.push((task, client, paced));
    }

    pub(super) fn print_json(&self) -> Result<(), String> {
        let mut text = String::new();
        for (task, client, paced) in &self.0 {
            let figures: Vec<(String, f64, &str)> = match task {
                Task::Rate(rate) => [
                    ("requests_per_s", tenths(paced.requests_per_s), "1/s"),
                    ("ack_p50_us", paced.p50_us.round(), "us"),
                    ("ack_p99_us", paced.p99_us.round(), "us"),
                    ("cpu_us", tenths(paced.cpu_us), "us"),
                    ("own_threads_cpu_us", tenths(paced.own_us), "us"),
                    ("broker_us", tenths(paced.broker_us), "us"),
                ]
                .map(|(name, value, unit)| (format!("{name}_at_{rate}"), value, unit))
                .into(),
                Task::Fetch { rate, at_once } => {
                    let at = if *at_once { format!("{rate}_linger_0") } else { rate.to_string() };
                    [
                        ("fetches_per_s", tenths(paced.requests_per_s), "1/s"),
                        ("end_to_end_p50_us", paced.p50_us.round(), "us"),
                        ("end_to_end_p99_us", paced.p99_us.round(), "us"),
                        ("fetch_cpu_us", tenths(paced.cpu_us), "us"),
                        ("fetch_own_threads_cpu_us", tenths(paced.own_us), "us"),
                        ("fetch_broker_us", tenths(paced.broker_us), "us"),
                    ]
                    .map(|(name, value, unit)| (format!("{name}_at_{at}"), value, unit))
                    .into()
                }
                Task::Each | Task::Flush | Task::EachAtOnce => {
                    let name = match task {
                        Task::Each => "await_each",
                        Task::Flush => "flush_each",
                        _ => "await_each_linger_0",
                    };
                    vec![
                        (format!("{name}_first_{LOOP}_s"), hundredths(paced.first_s), "s"),
                        (format!("{name}_then_per_s"), paced.per_s.round(), "1/s"),
                        (
                            format!("{name}_first_100000_s"),
                            hundredths(hundred_thousand(paced)),
                            "s",
                        ),
                    ]
                }
            };
            for (name, value, unit) in figures {
                text += &told(name, *client, value, unit);
            }
        }
        print(&text)
    }

    pub(super) fn print_table(&self) -> Result<(), String> {
        let mut text = format!(
            "{:<34}{:<10}{:>12}{:>12}{:>12}{:>16}{:>14}{:>14}\n",
            "100-byte records, defaults",
            "",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "process us/rec",
            "client us/rec",
            "broker us/rec"
        );
        for (task, client, paced) in &self.0 {
            let what = match task {
                Task::Rate(rate) => format!("{rate} records/s"),
                Task::Fetch { rate, at_once: false } => format!("reading {rate} records/s"),
                Task::Fetch { rate, .. } => format!("reading {rate} batches/s of one"),
                Task::Each | Task::Flush | Task::EachAtOnce => continue,
            };
            text += &format!(
                "{what:<34}{:<10}{:>12.1}{:>12.2}{:>12.2}{:>16.1}{:>14.1}{:>14.1}\n",
                client.name(),
                paced.requests_per_s,
                paced.p50_us / 1e3,
                paced.p99_us / 1e3,
                paced.cpu_us,
                paced.own_us,
                paced.broker_us
            );
        }
        for (task, client, paced) in &self.0 {
            let what = match task {
                Task::Rate(_) | Task::Fetch { .. } => continue,
                Task::Each => "each awaited",
                Task::Flush => "each flushed",
                Task::EachAtOnce => "each awaited, linger 0",
            };
            text += &format!(
                "{what:<34}{:<10} the first {LOOP} in {:.2} s, then {:.0} a second: 100,000 in {:.0} s\n",
                client.name(),
                paced.first_s,
                paced.per_s,
                hundred_thousand(paced)
            );
        }
        print(&text)
    }
}
