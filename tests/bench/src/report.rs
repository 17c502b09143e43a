//! What is printed: a table for people, or an object per figure and line for programs.

use ottla_report::{Line, Target, print};

use crate::worker::{Client, Figure, Length, Measured};

/// The measurements of a run.
#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    /// It was measured by time, to look at memory.
    long: bool,
}

pub(crate) fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A line of `--json`: what is measured here is judged by its reader.
pub(crate) fn told(name: String, client: Client, value: f64, unit: &str) -> String {
    Line { name, client: client.name(), value, unit, target: Target::Told }.json()
}

#[derive(Debug)]
struct Row {
    figure: Figure,
    client: Client,
    rounds: Vec<Measured>,
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

    fn client_share(&self) -> f64 {
        self.median(|round| round.client_share)
    }

    fn sink_share(&self) -> f64 {
        self.median(|round| round.sink_share)
    }

    /// Who had no time left: the client, the brokers that take its records, or neither, which leaves
    /// the loopback between them, and other work on this machine.
    fn limit(&self) -> &'static str {
        const BUSY: f64 = 0.9;
        match (self.client_share() >= BUSY, self.sink_share() >= BUSY) {
            (true, true) => "both",
            (true, false) => "client",
            (false, true) => "sink",
            (false, false) => "neither",
        }
    }

    /// Megabytes before, after a tenth of the time, and at the end.
    fn memory(&self) -> [f64; 3] {
        self.rounds.last().map_or([0.0; 3], |round| round.memory_mb.map(f64::round))
    }
}

impl Report {
    pub(crate) fn new(length: Length) -> Self {
        Self { rows: Vec::new(), long: matches!(length, Length::Seconds(_)) }
    }

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
            let figures = match row.rounds[0].sparse {
                Some(sparse) => vec![
                    ("round_trip_us", sparse.round_trip_us.round(), "us"),
                    ("ack_minus_round_trip_p99_us_at_1_per_s", sparse.one_us.round(), "us"),
                    ("ack_minus_round_trip_p99_us_at_1000_per_s", sparse.thousand_us.round(), "us"),
                    ("batch_fill", hundredths(sparse.fill), "of a batch"),
                ],
                None => [
                    ("cpu_ns", (row.cpu_ns() * 10.0).round() / 10.0, "ns"),
                    ("records_per_s", row.per_second().round(), "1/s"),
                    ("client_share", hundredths(row.client_share()), "of a core"),
                    ("sink_share", hundredths(row.sink_share()), "of a core"),
                    ("peak_mb", row.median(|round| round.peak_mb).round(), "MB"),
                    ("rss_before_mb", row.memory()[0], "MB"),
                    ("rss_tenth_mb", row.memory()[1], "MB"),
                    ("rss_end_mb", row.memory()[2], "MB"),
                ]
                .into_iter()
                .chain(
                    row.rounds[0].request_records.map(|n| ("records_per_request", n.round(), "")),
                )
                .collect(),
            };
            for (what, value, unit) in figures {
                let name = format!("{}_{what}", row.figure.name);
                text += &told(name, row.client, value, unit);
            }
        }
        print(&text)
    }

    pub(crate) fn print_table(&self) -> Result<(), String> {
        let mut text = format!(
            "{:<46}{:>9}{:>9}{:>7}{:>9}{:>9}{:>9}{:>9} {:>20}\n",
            "100-byte records",
            "ottla",
            "rdkafka",
            "ratio",
            "ottla",
            "rdkafka",
            "ottla",
            "ottla",
            "ottla's limit"
        );
        text += &format!(
            "{:<46}{:>9}{:>9}{:>7}{:>9}{:>9}{:>9}{:>9} {:>20}\n",
            "", "ns CPU", "ns CPU", "", "M/s", "M/s", "KB/req", "peak MB", "(client, sink busy)"
        );
        let of_ottla = |row: &&Row| row.client == Client::Ottla;
        for row in self.rows.iter().filter(of_ottla) {
            if let Some(sparse) = row.rounds[0].sparse {
                text += &format!(
                    "{:<46} acknowledged {:.0} and {:.0} us after a round trip of {:.0} us (p99); then \
                     batches {:.0} % full\n",
                    row.figure.about,
                    sparse.one_us,
                    sparse.thousand_us,
                    sparse.round_trip_us,
                    sparse.fill * 100.0
                );
                continue;
            }
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
                "{:<46}{:>9.1}{:>9}{:>7}{:>9.2}{:>9}{:>9}{:>9.0} {:>20}\n",
                row.figure.about,
                row.cpu_ns(),
                cell(other.map(Row::cpu_ns), 1),
                cell(other.map(|other| other.cpu_ns() / row.cpu_ns()), 1),
                row.per_second() / 1e6,
                cell(other.map(|other| other.per_second() / 1e6), 2),
                cell(row.rounds[0].request_kb, 0),
                row.median(|round| round.peak_mb),
                format!(
                    "{} ({:.0}, {:.0} %)",
                    row.limit(),
                    row.client_share() * 100.0,
                    row.sink_share() * 100.0
                ),
            );
        }
        for row in self.rows.iter().filter(of_ottla).filter(|_| self.long) {
            let [before, tenth, end] = row.memory();
            text += &format!(
                "{:<46} {before} MB before, {tenth} MB after a tenth of the time, {end} MB at the end\n",
                row.figure.about
            );
        }
        print(&text)
    }
}
