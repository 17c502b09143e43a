//! What was found, as a table for people or an object per figure and line for programs.

use std::collections::HashMap;
use std::fmt::Write as _;

use ottla_report::{Line, Target, print};

use crate::figures::{EXPERIMENTS, FIGURES, Figure, Limit, named};

/// Values by the name of their figure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    values: HashMap<&'static str, Value>,
}

#[derive(Clone, Copy, Debug)]
struct Value {
    value: f64,
    /// The largest it may be; infinite where there is no limit.
    limit: f64,
}

impl Found {
    /// Writes a figure down whose limit is absolute, if any.
    pub(crate) fn put(&mut self, name: &str, value: f64) {
        self.put_beside(name, value, f64::INFINITY);
    }

    /// Writes a figure down beside what it was before the disturbance.
    pub(crate) fn put_beside(&mut self, name: &str, value: f64, steady: f64) {
        let figure = named(name);
        let limit = match figure.limit {
            Limit::AtMost(limit) => limit,
            Limit::TimesSteady(times) => times * steady,
            Limit::None => f64::INFINITY,
        };
        self.values.insert(figure.name, Value { value, limit });
    }

    /// Names of figures that are larger than they may be.
    pub(crate) fn missed(&self) -> Vec<&'static str> {
        let over = |f: &&Figure| self.values.get(f.name).is_some_and(|v| v.value > v.limit);
        FIGURES.iter().filter(over).map(|figure| figure.name).collect()
    }
}

/// Of each client in the order they were measured; the first is ours, and it alone has targets. The best of others has
/// its lines too.
pub(crate) fn json(all: &[(&'static str, Found)]) -> Result<(), String> {
    let line = |figure: &Figure, client, value: f64, target| {
        let name = format!("behaviour_{}", figure.name);
        Line { name, client, value, unit: figure.unit, target }.json()
    };
    let mut text = String::new();
    for (at, (client, found)) in all.iter().enumerate() {
        for figure in FIGURES {
            let Some(Value { value, limit }) = found.values.get(figure.name).copied() else {
                continue;
            };
            let judged = at == 0 && limit.is_finite();
            let target = if judged { Target::AtMost(limit) } else { Target::Told };
            text += &line(figure, client, value, target);
        }
    }
    for figure in FIGURES {
        if let (Some(best), true) = (figure.best_peer, all[0].1.values.contains_key(figure.name)) {
            text += &line(figure, "best peer", best, Target::Told);
        }
    }
    print(&text)
}

/// See [`json`].
pub(crate) fn table(all: &[(&'static str, Found)]) -> Result<(), String> {
    let mut text = format!("{:<44}", "");
    for (client, _) in all {
        let _infallible = write!(text, "{client:>12}");
    }
    text += &format!("{:>12}{:>12}\n", "at most", "best peer");
    for (word, about) in EXPERIMENTS {
        let of = |f: &&Figure| {
            let (first, _) = f.name.split_once('_').unwrap_or_default();
            first == word || word == "steady" && first == "start"
        };
        section(&mut text, about, FIGURES.iter().filter(of), all);
        if word == "lost" {
            let of = |f: &&Figure| f.name.starts_with("all_");
            section(&mut text, "everything, read back", FIGURES.iter().filter(of), all);
        }
    }
    print(&text)
}

fn section<'a>(
    text: &mut String,
    about: &str,
    figures: impl Iterator<Item = &'a Figure>,
    all: &[(&'static str, Found)],
) {
    let mut lines = String::new();
    for figure in figures {
        let values: Vec<_> = all.iter().map(|(_, found)| found.values.get(figure.name)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let _infallible = write!(lines, "  {:<42}", figure.about);
        for value in &values {
            let shown = value.map_or_else(|| "-".into(), |v| number(v.value, figure.unit));
            let _infallible = write!(lines, "{shown:>12}");
        }
        let ours = values[0];
        let limit = ours.filter(|v| v.limit.is_finite());
        let limit = limit.map_or_else(String::new, |v| number(v.limit, figure.unit));
        let best = figure.best_peer.map_or_else(String::new, |v| number(v, figure.unit));
        let missed = ours.is_some_and(|v| v.value > v.limit);
        let mark = if missed { "  MISSED" } else { "" };
        let _infallible = writeln!(lines, "{limit:>12}{best:>12}{mark}");
    }
    if !lines.is_empty() {
        let _infallible = write!(text, "{about}\n{lines}");
    }
}

fn number(value: f64, unit: &str) -> String {
    let digits = if unit == "s" { 3 } else { usize::from(value.fract() != 0.0) };
    match unit {
        "" => format!("{value:.digits$}"),
        unit => format!("{value:.digits$} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_absolute_or_relative_to_the_undisturbed_state() {
        let mut found = Found::default();
        found.put("hole_ack_p99", 1.0);
        found.put_beside("unreachable_ack_p99", 0.02, 0.01);
        found.put("steady_ack_p99", 99.0);
        assert!(found.missed().is_empty());
        found.put("hole_ack_p99", 1.1);
        found.put_beside("unreachable_ack_p99", 0.021, 0.01);
        assert_eq!(found.missed(), ["unreachable_ack_p99", "hole_ack_p99"]);
    }
}
