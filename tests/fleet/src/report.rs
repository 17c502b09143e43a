//! Figures beside their targets: a table for people, one object per figure and line for programs.

use std::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;

use crate::plot::Plot;

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// Within this of the first.
    Near(f64, f64),
    /// Nothing: it is told because it belongs to the picture.
    Told,
}

impl Target {
    fn met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(value <= most),
            Self::AtLeast(least) => Some(value >= least),
            Self::Near(wanted, off) => Some((value - wanted).abs() <= off),
            Self::Told => None,
        }
    }

    fn show(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {}", number(most)),
            Self::AtLeast(least) => format!(">= {}", number(least)),
            Self::Near(wanted, off) => format!("{} +-{}", number(wanted), number(off)),
            Self::Told => String::new(),
        }
    }
}

/// One measure of an experiment.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What is measured, with its unit.
    pub name: String,
    /// How much it is. NaN where it could not be measured, which meets no target.
    pub value: f64,
    /// What it has to be.
    pub target: Target,
}

/// What an experiment gives.
pub struct Report {
    /// Number in the table of experiments, and a word for the variant.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// In the order of the table.
    pub figures: Vec<Figure>,
    /// What happened over time.
    pub plot: Option<Plot>,
}

/// A figure as it is shown.
pub(crate) struct Cells {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) target: String,
    pub(crate) verdict: &'static str,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    experiment: &'a str,
    figure: &'a str,
    value: Option<f64>,
    target: String,
    met: Option<bool>,
}

impl Report {
    /// A report without figures yet.
    pub fn new(name: impl Into<String>, about: impl Into<String>) -> Self {
        Self { name: name.into(), about: about.into(), figures: Vec::new(), plot: None }
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: impl Into<String>, value: f64, target: Target) {
        self.figures.push(Figure { name: name.into(), value, target });
    }

    /// The value of a figure.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn value(&self, name: &str) -> f64 {
        let found = self.figures.iter().find(|figure| figure.name == name);
        found.unwrap_or_else(|| panic!("{}: no figure '{name}'", self.name)).value
    }

    /// Figures that miss their targets.
    pub fn missed(&self) -> Vec<&Figure> {
        let missed = |figure: &&Figure| figure.target.met(figure.value) == Some(false);
        self.figures.iter().filter(missed).collect()
    }

    /// The figures as they are shown.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Cells> {
        self.figures.iter().map(|figure| Cells {
            name: figure.name.clone(),
            value: number(figure.value),
            target: figure.target.show(),
            verdict: match figure.target.met(figure.value) {
                Some(true) => "ok",
                Some(false) => "MISSED",
                None => "",
            },
        })
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.about);
        for Cells { name, value, target, verdict } in self.cells() {
            let line = format!("  {name:<58}{value:>12}   {target:<16}{verdict}");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let mut text = String::new();
        for figure in &self.figures {
            let line = Line {
                experiment: &self.name,
                figure: &figure.name,
                value: figure.value.is_finite().then_some(figure.value),
                target: figure.target.show(),
                met: figure.target.met(figure.value),
            };
            let line = serde_json::to_string(&line).expect("strings and numbers have a form");
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// As many digits as say something.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}

/// Writes to standard output; a reader that has seen enough is no failure.
///
/// # Errors
/// What the system says else.
pub fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("cannot print: {e}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_met_at_the_edge_and_missed_beyond_and_by_nothing() {
        let mut report = Report::new("1", "edges");
        for (value, target) in [
            (3.0, Target::AtMost(3.0)),
            (3.1, Target::AtMost(3.0)),
            (0.8, Target::AtLeast(0.8)),
            (0.7, Target::AtLeast(0.8)),
            (1.2, Target::Near(1.0, 0.25)),
            (0.7, Target::Near(1.0, 0.25)),
            (f64::NAN, Target::AtMost(3.0)),
            (f64::NAN, Target::AtLeast(3.0)),
            (f64::NAN, Target::Near(3.0, 1.0)),
            (9.0, Target::Told),
        ] {
            report.figure(format!("{value}"), value, target);
        }
        let missed: Vec<_> = report.missed().iter().map(|figure| figure.name.clone()).collect();
        assert_eq!(missed, ["3.1", "0.7", "0.7", "NaN", "NaN", "NaN"]);
        assert_eq!(report.table().matches("MISSED").count(), 6);
        let lines: Vec<serde_json::Value> =
            report.json().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines[6]["value"].is_null());
        let met: Vec<_> = lines.iter().map(|line| line["met"].as_bool()).collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(met, [yes, no, yes, no, yes, no, no, no, no, None]);
    }

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let mut report = Report::new("1", "names");
        report.figure("ack p99, ms", 1.0, Target::Told);
        report.figure("ack p99 before, ms", 2.0, Target::Told);
        report.figure("ack p99", 3.0, Target::Told);
        let values = ["ack p99", "ack p99 before, ms", "ack p99, ms"].map(|n| report.value(n));
        assert_eq!(values, [3.0, 2.0, 1.0]);
    }
}
