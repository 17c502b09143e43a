//! The command line.

use crate::worker::{Client, Direction, Figure, Job};

const USAGE: &str =
    "usage: ottla-bench [produce | consume | all] [--records N] [--rounds N] [--json]

  --records N  records per measurement (default 4000000)
  --rounds N   measurements of each figure, whose median is shown (default 3)
  --json       one object per figure and line instead of a table";

/// What this process is to do.
#[derive(Debug)]
pub(crate) enum Mode {
    /// Started by a user.
    Measure(Args),
    /// Started by the first: brokers until standard input ends.
    Broker { lz4: bool },
    /// Started by the first: one measurement.
    Worker { job: Job, bootstrap: String },
}

/// Of a measurement.
#[derive(Debug)]
pub(crate) struct Args {
    direction: Option<Direction>,
    pub(crate) records: usize,
    pub(crate) rounds: usize,
    pub(crate) json: bool,
}

impl Args {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Mode, String> {
        let mut parsed = Self { direction: None, records: 4_000_000, rounds: 3, json: false };
        while let Some(arg) = args.next() {
            let mut number = || {
                let value = args.next().and_then(|value| value.parse().ok());
                value.filter(|n| *n > 0).ok_or(format!("{arg} needs a number above 0\n{USAGE}"))
            };
            match arg.as_str() {
                "produce" => parsed.direction = Some(Direction::Produce),
                "consume" => parsed.direction = Some(Direction::Consume),
                "all" => parsed.direction = None,
                "--records" => parsed.records = number()?,
                "--rounds" => parsed.rounds = number()?,
                "--json" => parsed.json = true,
                "--help" | "-h" => return Err(USAGE.to_owned()),
                "broker" => {
                    return Ok(Mode::Broker { lz4: args.next().as_deref() == Some("lz4") });
                }
                "worker" => return worker(args),
                _ => return Err(format!("unknown argument '{arg}'\n{USAGE}")),
            }
        }
        Ok(Mode::Measure(parsed))
    }

    pub(crate) fn wants(&self, figure: &Figure) -> bool {
        self.direction.is_none_or(|direction| direction == figure.direction)
    }
}

fn worker(mut args: impl Iterator<Item = String>) -> Result<Mode, String> {
    let mut next =
        || args.next().ok_or_else(|| "a worker is started by the benchmark only".to_owned());
    let figure = Figure::named(&next()?)?;
    let client = Client::named(&next()?)?;
    let records = next()?.parse().map_err(|_| "records is no number".to_owned())?;
    Ok(Mode::Worker { job: Job { figure, client, records }, bootstrap: next()? })
}
