//! Figures beside their targets: a table for people, one object per figure and line for programs.

use ottla_report::{Line, number};
pub use ottla_report::{Target, print};

use crate::plot::Plot;

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

/// The units that a figure's name ends in, after a comma.
const UNITS: [&str; 3] = ["ms", "s", "%"];

impl Figure {
    /// Its name in two: what is measured, and the unit, which is empty for a plain number.
    fn unit(&self) -> (&str, &str) {
        match self.name.rsplit_once(", ") {
            Some((what, unit)) if UNITS.contains(&unit) => (what, unit),
            _ => (&self.name, ""),
        }
    }
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
            target: figure.target.to_string(),
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
        let line = |figure: &Figure| {
            let (what, unit) = figure.unit();
            let name = format!("fleet {}: {what}", self.name);
            let (value, target) = (figure.value, figure.target);
            Line { name, client: "ottla", value, unit, target }.json()
        };
        self.figures.iter().map(line).collect()
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
        let met: Vec<_> = lines.iter().map(|line| line["ok"].as_bool()).collect();
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
        let units: Vec<_> = report.figures.iter().map(Figure::unit).collect();
        assert_eq!(units, [("ack p99", "ms"), ("ack p99 before", "ms"), ("ack p99", "")]);
    }
}
