//! What the measuring programs (`cargo xtask bench`, `bench pace`, `bench behaviour`, `fleet`) print for programs: an object
//! per figure and line, of one shape.
//!
//! ```json
//! {"name":"behaviour_hole_ack_p99","client":"ottla","value":0.31,"unit":"s","target":"<= 1","ok":true}
//! ```

use std::fmt;
use std::io::Write as _;

use serde::Serialize;

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
    /// Whether a value meets it; `None` if there is nothing to meet. NaN, which could not be measured, meets none.
    pub fn met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(value <= most),
            Self::AtLeast(least) => Some(value >= least),
            Self::Near(wanted, off) => Some((value - wanted).abs() <= off),
            Self::Told => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AtMost(most) => write!(f, "<= {}", number(most)),
            Self::AtLeast(least) => write!(f, ">= {}", number(least)),
            Self::Near(wanted, off) => write!(f, "{} +-{}", number(wanted), number(off)),
            Self::Told => Ok(()),
        }
    }
}

/// One figure of one client.
#[derive(Debug)]
pub struct Line<'a> {
    /// What is measured: unique in the output of a program, for each client.
    pub name: String,
    /// Whose figure it is: "ottla", "rdkafka", ...
    pub client: &'a str,
    /// How much it is; JSON has four digits after the point. What could not be measured, NaN, is null there.
    pub value: f64,
    /// "ms", "1/s", ...; empty for a plain number.
    pub unit: &'a str,
    /// What it has to be; null in JSON if that is nothing.
    pub target: Target,
}

#[derive(Serialize)]
struct Json<'a> {
    name: &'a str,
    client: &'a str,
    value: Option<f64>,
    unit: &'a str,
    target: Option<String>,
    ok: Option<bool>,
}

impl Line<'_> {
    /// The object, with the end of its line.
    ///
    /// # Panics
    /// Never: strings and numbers have a form in JSON.
    pub fn json(&self) -> String {
        let ok = self.target.met(self.value);
        let json = Json {
            name: &self.name,
            client: self.client,
            value: self.value.is_finite().then(|| (self.value * 1e4).round() / 1e4),
            unit: self.unit,
            target: ok.map(|_| self.target.to_string()),
            ok,
        };
        serde_json::to_string(&json).expect("strings and numbers have a form") + "\n"
    }
}

/// As many digits as say something.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}

/// Writes to standard output; a reader that has seen enough (`head`) is no failure of the measurement.
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
    fn every_line_has_the_same_members() {
        let line = |value, target| {
            let line = Line { name: "ack_p99".into(), client: "ottla", value, unit: "s", target };
            line.json()
        };
        assert_eq!(
            line(0.25, Target::AtMost(1.0)),
            "{\"name\":\"ack_p99\",\"client\":\"ottla\",\"value\":0.25,\"unit\":\"s\",\
             \"target\":\"<= 1\",\"ok\":true}\n"
        );
        assert_eq!(
            line(f64::NAN, Target::Near(50.0, 2.5)),
            "{\"name\":\"ack_p99\",\"client\":\"ottla\",\"value\":null,\"unit\":\"s\",\
             \"target\":\"50 +-2.50\",\"ok\":false}\n"
        );
        assert_eq!(
            line(3.0, Target::Told),
            "{\"name\":\"ack_p99\",\"client\":\"ottla\",\"value\":3.0,\"unit\":\"s\",\
             \"target\":null,\"ok\":null}\n"
        );
        let beyond = line(1.00001, Target::AtMost(1.0));
        assert!(beyond.contains("\"value\":1.0,") && beyond.contains("\"ok\":false"), "{beyond}");
    }
}
