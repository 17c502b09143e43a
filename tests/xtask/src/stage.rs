//! What a stage is: steps one after the other, and what they need.
//!
//! Words in braces are things a run provides; asking for one makes it: see `place.rs`.

use std::path::Path;
use std::time::Duration;

use crate::count::{Count, Counts};
use crate::log::Log;
use crate::place::Place;

/// Most steps end in a minute; a whole build on two busy cores may take ten.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// A row of the closing table.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Files relative to the root.
    pub(crate) present: &'static [&'static str],
    /// What is used beyond what the words in braces tell.
    pub(crate) needs: &'static [Need],
    /// A cluster of three real brokers runs while the steps do.
    pub(crate) cluster: bool,
    pub(crate) steps: &'static [Step],
}

/// Things beyond a Rust compiler that a stage uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A component of the Rust toolchain, by the name of its cargo command.
    Component(&'static str),
    /// A C compiler.
    Cc,
    /// cargo-nextest and cargo-deny.
    CargoTools,
    /// maturin, pytest, type checkers.
    PythonTools,
    /// A Go toolchain.
    Go,
    /// librdkafka.
    Foreign,
    /// Java and the jars of this version of Kafka.
    Kafka(&'static str),
    /// Modules of the programs with franz-go and sarama.
    GoModules,
}

/// One command of a stage.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) present: &'static [&'static str],
    pub(crate) run: Run,
    pub(crate) count: Count,
    /// What it needs beyond what its words tell.
    pub(crate) needs: &'static [Need],
    /// Folder it runs in, relative to the root.
    pub(crate) dir: &'static str,
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// Print what it said also when it passed: it is a result people want to read.
    pub(crate) show: bool,
    pub(crate) limit: Duration,
}

/// What a step does.
#[derive(Debug)]
pub(crate) enum Run {
    /// A program and its arguments, with blanks between; 'one word' is quoted.
    Command(&'static str),
    /// Tests of the workspace that match a nextest filter.
    Nextest(&'static str),
    /// Code of the runner.
    Own(fn(&mut Place, &mut Log) -> Result<Counts, String>),
}

/// One check, told by its exit status.
pub(crate) const CHECK: Step = Step {
    name: "",
    present: &[],
    run: Run::Command(""),
    count: Count::Exit,
    needs: &[],
    dir: "",
    env: &[],
    show: false,
    limit: LIMIT,
};

impl Stage {
    /// The steps that are there in this tree.
    pub(crate) fn steps(&self, root: &Path) -> impl Iterator<Item = &'static Step> {
        self.steps.iter().filter(move |step| absent(root, step.present).is_none())
    }

    /// Everything its steps use, in no particular order, some of it twice.
    pub(crate) fn all_needs(&self, root: &Path) -> Vec<Need> {
        let mut needs = self.needs.to_vec();
        for step in self.steps(root) {
            needs.extend(step.needs);
            let line = match step.run {
                Run::Command(line) => line,
                Run::Nextest(_) => "{cargo-tools}",
                Run::Own(_) => "",
            };
            for text in [line].into_iter().chain(step.env.iter().map(|(_, value)| *value)) {
                needs.extend(NEEDED_FOR.iter().filter(|(w, _)| text.contains(w)).map(|(_, n)| n));
            }
        }
        needs
    }
}

/// What the words in braces need.
const NEEDED_FOR: [(&str, Need); 12] = [
    ("{cargo-tools}", Need::CargoTools),
    ("{python-tools}", Need::PythonTools),
    ("{wheel}", Need::PythonTools),
    ("{go}", Need::Go),
    ("{gofmt}", Need::Go),
    ("{foreign}", Need::Foreign),
    ("{interop-python}", Need::PythonTools),
    ("{interop-go}", Need::Go),
    ("{peer-librdkafka}", Need::Foreign),
    ("{peer-franz-go}", Need::Go),
    ("{peer-sarama}", Need::Go),
    ("{dist}", Need::Cc),
];

/// The first file of `present` that is not below `root`.
pub(crate) fn absent<'a>(root: &Path, present: &[&'a str]) -> Option<&'a str> {
    present.iter().copied().find(|path| !root.join(path).exists())
}

/// A line of a step, word by word.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in line.split('\'').enumerate() {
        // Every other part stands between two quotes.
        match i % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_are_one() {
        assert_eq!(words("a -m 'not b'  c"), ["a", "-m", "not b", "c"]);
    }

    static STEPS: [Step; 3] = [
        Step { run: Run::Command("{go} vet"), needs: &[Need::GoModules], ..CHECK },
        Step { run: Run::Nextest("all()"), present: &["Cargo.toml", "not-there"], ..CHECK },
        Step { env: &[("A", "{dist}/lib"), ("B", "{wheel}/x")], present: &["src"], ..CHECK },
    ];
    static STAGE: Stage = Stage {
        name: "demo",
        about: "",
        present: &[],
        needs: &[Need::Component("fmt")],
        cluster: false,
        steps: &STEPS,
    };

    #[test]
    fn needs_are_those_of_the_steps_that_are_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let needs = STAGE.all_needs(root);
        let wanted =
            [Need::Component("fmt"), Need::GoModules, Need::Go, Need::Cc, Need::PythonTools];
        assert_eq!(needs, wanted);
        assert_eq!(STAGE.steps(root).count(), 2);
        let nowhere = Path::new("/nonexistent");
        assert_eq!(STAGE.steps(nowhere).count(), 1);
    }

    #[test]
    fn all_files_of_a_part_have_to_be_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(absent(root, &[]), None);
        assert_eq!(absent(root, &["Cargo.toml", "src"]), None);
        assert_eq!(absent(root, &["Cargo.toml", "nowhere"]), Some("nowhere"));
        assert_eq!(absent(root, &["nowhere", "Cargo.toml"]), Some("nowhere"));
    }
}
