//! The command line.

use crate::broker::Kind;
use crate::memory::{Case, Role};
use crate::pace::Task;
use crate::worker::{Client, Direction, Figure, Job, Length};

const USAGE: &str =
    "usage: ottla-bench [produce | consume | all | memory | pace [TASK ...]] [--only FIGURE] [--records N] \
[--seconds N] [--rounds N] [--json]
       ottla-bench bindings [--program LANGUAGE:CLIENT=PATH ...] [--only FIGURE ...] [--records N] [--rounds N] [--json]

  memory         in place of that: the most memory that a consumer takes in its default settings, for each
                 codec, of 1 partition and of 1,000; fails if that is above the bound
  pace           in place of that: requests, acknowledgements and processor time at a few records a
                 second and at many, and of reading them; TASK: that alone (10 to 100000, each, flush,
                 each-at-once, fetch-100, fetch-1000, fetch-at-once-1000)
  pace --real    what 4 clients with 1,000 records a second cost a real broker, and 40 with 100
  bindings       what a record costs through a binding, by the programs of tests/bench/go and tests/bench/c
  --only FIGURE  this figure alone, by its name in --json without _cpu_ns
  --records N    records per measurement (default 4000000)
  --seconds N    in place of that: records for so long, to look at memory
  --rounds N     measurements of each figure, whose median is shown (default 3, of pace 1)
  --json         one object per figure and line instead of a table";

/// What this process is to do.
#[derive(Debug)]
pub(crate) enum Mode {
    /// Started by a user.
    Measure(Args),
    /// The same, with programs in other languages.
    Bindings(Bindings),
    /// Started by the first: brokers until standard input ends.
    Broker {
        kind: Kind,
    },
    /// Started by the first: one measurement.
    Worker {
        job: Job,
        bootstrap: String,
    },
    /// What a consumer takes of memory; and one process of that.
    Memory,
    MemoryOf {
        case: Case,
        role: Role,
        bootstrap: String,
    },
    /// The same of those of [`pace`](crate::pace).
    Paced {
        task: Task,
        client: Client,
        bootstrap: String,
    },
}

/// Of a measurement.
#[derive(Debug)]
pub(crate) struct Args {
    direction: Option<Direction>,
    only: Option<Figure>,
    /// How requests are paced, and not what records cost: in these tasks.
    pub(crate) pace: Option<Vec<Task>>,
    pub(crate) length: Length,
    /// On a real broker, what many clients cost it.
    pub(crate) real: bool,
    rounds: Option<usize>,
    pub(crate) json: bool,
}

/// Of a measurement through bindings.
#[derive(Debug)]
pub(crate) struct Bindings {
    pub(crate) programs: Vec<Program>,
    /// By the names in --json without _cpu_ns; none: all.
    pub(crate) only: Vec<String>,
    pub(crate) records: usize,
    pub(crate) rounds: usize,
    pub(crate) json: bool,
}

/// A client in another language.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) language: String,
    pub(crate) client: String,
    pub(crate) path: String,
}

impl Bindings {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self {
            programs: Vec::new(),
            only: Vec::new(),
            records: 4_000_000,
            rounds: 3,
            json: false,
        };
        while let Some(arg) = args.next() {
            if arg == "--json" {
                parsed.json = true;
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"))?;
            let number = || {
                let number = value.parse().ok().filter(|n| *n > 0);
                number.ok_or_else(|| format!("{arg} needs a number above 0\n{USAGE}"))
            };
            match arg.as_str() {
                "--program" => {
                    let named = value.split_once('=').and_then(|(who, path)| {
                        let (language, client) = who.split_once(':')?;
                        let (language, client) = (language.to_owned(), client.to_owned());
                        Some(Program { language, client, path: path.to_owned() })
                    });
                    parsed.programs.push(named.ok_or(USAGE)?);
                }
                "--only" => parsed.only.push(value),
                "--records" => parsed.records = number()?,
                "--rounds" => parsed.rounds = number()?,
                _ => return Err(format!("unknown argument '{arg}'\n{USAGE}")),
            }
        }
        Ok(parsed)
    }
}

impl Args {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Mode, String> {
        let mut parsed = Self {
            direction: None,
            only: None,
            pace: None,
            real: false,
            length: Length::Records(4_000_000),
            rounds: None,
            json: false,
        };
        while let Some(arg) = args.next() {
            let mut number = || {
                let value = args.next().and_then(|value| value.parse().ok());
                value.filter(|n| *n > 0).ok_or(format!("{arg} needs a number above 0\n{USAGE}"))
            };
            match arg.as_str() {
                "produce" => parsed.direction = Some(Direction::Produce),
                "consume" => parsed.direction = Some(Direction::Consume),
                "all" => parsed.direction = None,
                "memory" => return Ok(Mode::Memory),
                "memory-of" => return memory(args),
                "pace" => parsed.pace = Some(Vec::new()),
                "--only" => {
                    let name = args.next().ok_or_else(|| format!("{arg} needs a name\n{USAGE}"))?;
                    parsed.only = Some(Figure::named(&name)?);
                }
                "--records" => parsed.length = Length::Records(number()?),
                "--seconds" => parsed.length = Length::Seconds(number()? as u64),
                "--rounds" => parsed.rounds = Some(number()?),
                "--json" => parsed.json = true,
                "--real" if parsed.pace.is_some() => parsed.real = true,
                "--help" | "-h" => return Err(USAGE.to_owned()),
                "broker" => {
                    let kind = args.next().and_then(|name| Kind::named(&name));
                    return Ok(Mode::Broker { kind: kind.ok_or("brokers of no kind")? });
                }
                "bindings" => return Bindings::parse(args).map(Mode::Bindings),
                "worker" => return worker(args),
                "paced" => return paced(args),
                _ => match (&mut parsed.pace, Task::parse(&arg)) {
                    (Some(tasks), Some(task)) => tasks.push(task),
                    _ => return Err(format!("unknown argument '{arg}'\n{USAGE}")),
                },
            }
        }
        Ok(Mode::Measure(parsed))
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.pace.is_some() { 1 } else { 3 })
    }

    pub(crate) fn wants(&self, figure: &Figure) -> bool {
        self.direction.is_none_or(|direction| direction == figure.direction)
            && self.only.is_none_or(|only| only == *figure)
    }
}

fn worker(mut args: impl Iterator<Item = String>) -> Result<Mode, String> {
    let mut next =
        || args.next().ok_or_else(|| "a worker is started by the benchmark only".to_owned());
    let figure = Figure::named(&next()?)?;
    let client = Client::named(&next()?)?;
    let length = Length::parse(&next()?).ok_or("a length is a number, or one and an s")?;
    let sink = next()?.parse().map_err(|_| "a sink is the number of a process")?;
    Ok(Mode::Worker { job: Job { figure, client, length, sink }, bootstrap: next()? })
}

fn memory(mut args: impl Iterator<Item = String>) -> Result<Mode, String> {
    let mut next =
        || args.next().ok_or_else(|| "such a process is started by the benchmark only".to_owned());
    let role = Role::named(&next()?).ok_or("it writes or reads")?;
    let case = Case::parse(&next()?, &next()?).ok_or("a case is a codec, and 1 or 1000")?;
    Ok(Mode::MemoryOf { case, role, bootstrap: next()? })
}

fn paced(mut args: impl Iterator<Item = String>) -> Result<Mode, String> {
    let mut next =
        || args.next().ok_or_else(|| "such a process is started by the benchmark only".to_owned());
    let task = next()?;
    let task = Task::parse(&task).ok_or_else(|| format!("nothing is measured as '{task}'"))?;
    Ok(Mode::Paced { task, client: Client::named(&next()?)?, bootstrap: next()? })
}
