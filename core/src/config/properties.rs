//! Settings read from the properties that other clients of Kafka are configured with: what stands
//! here for each name and value, or why it is not taken. Values of what is not taken are never
//! repeated: they may be secrets.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use zeroize::Zeroizing;

use super::foreign::{Foreign, Meaning, Owner, Values, foreign, foreign_names, nearest};
use super::secured::{self, Secured};
use super::{Acks, Isolation, Partitioner, Start};
use crate::consumer::{Assignor, Commit, GroupProtocol};
use crate::error::{Error, Result};
use crate::record::Compression;
use crate::security::{Sasl, Tls};

/// Properties as they were given. Does not show its values, and overwrites them when it is dropped: they may be
/// secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(Vec<(String, Zeroizing<String>)>);

impl Properties {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Properties {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(properties: T) -> Self {
        let pairs = properties.into_iter();
        Self(pairs.map(|(name, value)| (name.into(), Zeroizing::new(value.into()))).collect())
    }
}

/// The value of a setting of ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Time(Duration),
    Size(usize),
    Flag(bool),
    Acks(Acks),
    Compression(Compression),
    Partitioner(Partitioner),
    Start(Start),
    Isolation(Isolation),
    Commit(Commit),
    Assignors(Vec<Assignor>),
    GroupProtocol(GroupProtocol),
    Tls(Tls),
    Sasl(Sasl),
}

/// The value of a setting of ours, for bindings that keep some of the settings themselves.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Plain {
    /// Text, or one of our words: "key_hash", "zstd:9".
    Text(String),
    /// Bytes, or nanoseconds.
    Number(u64),
    /// Yes or no.
    Flag(bool),
}

/// The settings of one owner, by our names, as [`Plain`] values; the error says all that is not taken,
/// and what there is instead. Of TLS and SASL it says only that there are any, as `tls` and as the mechanism in `sasl`: what
/// they consist of is for [`ClientOptions::properties`](crate::bindings::ClientOptions::properties), and whoever leaves
/// them out connects in plaintext.
pub fn plain_settings(
    owner: Owner,
    properties: &Properties,
) -> Result<BTreeMap<&'static str, Plain>> {
    let word = |word: &str| Plain::Text(word.to_owned());
    let plain = |value| match value {
        Value::Text(text) => Plain::Text(text),
        Value::Time(time) => Plain::Number(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        Value::Size(bytes) => Plain::Number(bytes as u64),
        Value::Flag(flag) => Plain::Flag(flag),
        Value::Acks(Acks::All) => word("all"),
        Value::Acks(Acks::Leader) => word("leader"),
        Value::Acks(Acks::None) => word("none"),
        Value::Compression(codec) => Plain::Text(codec.to_string()),
        Value::Partitioner(Partitioner::Spread) => word("spread"),
        Value::Partitioner(Partitioner::KeyHash) => word("key_hash"),
        Value::Start(Start::Latest) => word("latest"),
        Value::Isolation(Isolation::ReadUncommitted) => word("read_uncommitted"),
        Value::Isolation(Isolation::ReadCommitted) => word("read_committed"),
        Value::Commit(commit) => word(commit.name()),
        Value::Assignors(assignors) => {
            let names: Vec<&str> = assignors.into_iter().map(Assignor::name).collect();
            Plain::Text(names.join(","))
        }
        Value::GroupProtocol(protocol) => word(protocol.name()),
        // No property names an offset or a time.
        Value::Start(_) => word("earliest"),
        Value::Tls(_) => Plain::Flag(true),
        Value::Sasl(sasl) => word(sasl.mechanism()),
    };
    let settings = read(owner, properties)?.into_iter();
    Ok(settings.map(|(name, value)| (name, plain(value))).collect())
}

/// The settings of one owner, by our names. A client's are for the client of a producer, which
/// passes over them, and the other way round; what is another handle's is refused, and so is a name
/// that nobody has.
pub(crate) fn read(owner: Owner, properties: &Properties) -> Result<Vec<(&'static str, Value)>> {
    let mut reading = Reading::default();
    for (name, value) in &properties.0 {
        reading.take(owner, name, value.trim());
    }
    reading.finish()
}

/// The error for a setting that the table names and no builder takes: a fault of ours, told.
pub(crate) fn not_taken(name: &str) -> Error {
    Error::config(format!("'{name}' can not be set by properties"))
}

#[derive(Default)]
struct Reading<'a> {
    settings: BTreeMap<&'static str, (Value, &'a str)>,
    codec: Option<&'a str>,
    /// Of any codec (""), or of one.
    levels: BTreeMap<&'static str, i32>,
    /// Whether what was read is committed without being told to, and counts as done without.
    commits: Option<bool>,
    stores: Option<bool>,
    /// The parts of TLS and SASL.
    secured: Secured<'a>,
    complaints: Vec<String>,
}

impl<'a> Reading<'a> {
    fn take(&mut self, owner: Owner, name: &'a str, value: &'a str) {
        let Some(row) = foreign(name) else { return self.complain(name, unknown(name)) };
        match (row.owner, owner) {
            (a, b) if a == b => {}
            (Owner::Client, _) | (_, Owner::Client) => return,
            (Owner::Producer, _) => return self.complain(name, "it is a producer's"),
            (Owner::Consumer, _) => return self.complain(name, "it is a consumer's"),
        }
        // An empty value is how a file says that it leaves the choice to others.
        if value.is_empty() {
            return;
        }
        match row.meaning {
            Meaning::Nothing { instead, as_here } => {
                if !as_here.contains(&value.to_lowercase().as_str()) {
                    self.complain(name, instead);
                }
            }
            Meaning::Setting { name: setting, values } => {
                if let Err(why) = self.set(row, setting, values, name, value) {
                    self.complain(name, why);
                }
            }
        }
    }

    fn set(
        &mut self,
        row: &'static Foreign,
        setting: &'static str,
        values: Values,
        name: &'a str,
        text: &'a str,
    ) -> Result<(), String> {
        let value = match values {
            Values::Codec => {
                self.codec = Some(text);
                return Ok(());
            }
            Values::Level => {
                let codec = if row.name.contains("gzip") {
                    "gzip"
                } else if row.name.contains("zstd") {
                    "zstd"
                } else {
                    ""
                };
                let level = text.parse().map_err(|_| format!("'{text}' is not a level"))?;
                self.levels.insert(codec, level);
                return Ok(());
            }
            Values::Commits => {
                let told = Some(flag(text)?);
                let stores = row.name.ends_with("store");
                let place = if stores { &mut self.stores } else { &mut self.commits };
                if place.is_some() && *place != told {
                    return Err("another name of it says otherwise".to_owned());
                }
                *place = told;
                return Ok(());
            }
            Values::Security => {
                return secured::take(&mut self.secured, row.name, name, text);
            }
            Values::Text => Value::Text(text.to_owned()),
            Values::Milliseconds => Value::Time(milliseconds(text)?),
            Values::Bytes => Value::Size(size(text, 1)?),
            Values::Kibibytes => Value::Size(size(text, 1024)?),
            Values::Flag => Value::Flag(flag(text)?),
            Values::Acks => Value::Acks(acks(text)?),
            Values::Partitioner => Value::Partitioner(partitioner(text)?),
            Values::Start => Value::Start(start(text)?),
            Values::Isolation => Value::Isolation(isolation(text)?),
            Values::Assignors => Value::Assignors(assignors(text)?),
            Values::GroupProtocol => Value::GroupProtocol(group_protocol(text)?),
        };
        match self.settings.get(setting) {
            Some((other, by)) if *other != value => {
                Err(format!("'{by}' sets {setting} to another value"))
            }
            _ => {
                self.settings.insert(setting, (value, name));
                Ok(())
            }
        }
    }

    fn complain(&mut self, name: &str, why: impl std::fmt::Display) {
        self.complaints.push(format!("'{name}' ({why})"));
    }

    fn finish(mut self) -> Result<Vec<(&'static str, Value)>> {
        if let Some(codec) = self.codec {
            // librdkafka's -1 is the codec's usual one.
            let general = self.levels.get("").copied().filter(|level| *level != -1);
            let level = self.levels.get(codec).copied().or(general);
            match Compression::named(codec, level) {
                Ok(codec) => {
                    self.settings.insert("compression", (Value::Compression(codec), "compression"));
                }
                Err(error) => self.complain("compression", error.message().to_owned()),
            }
        }
        let commit = match (self.commits, self.stores) {
            (None, None) => None,
            // What librdkafka's programs store is what they acknowledge here.
            (Some(false), Some(false)) => Some(Commit::ManualAcked),
            (Some(false), _) => Some(Commit::Manual),
            (_, Some(false)) => Some(Commit::Acked),
            _ => Some(Commit::Marks),
        };
        if let Some(commit) = commit {
            self.settings.insert("commit", (Value::Commit(commit), "commit"));
        }
        match secured::assemble(&std::mem::take(&mut self.secured)) {
            Ok(made) => {
                self.settings.extend(made.into_iter().map(|(name, value)| (name, (value, name))));
            }
            Err((name, why)) => self.complain(name, why),
        }
        if self.complaints.is_empty() {
            let settings = self.settings.into_iter();
            return Ok(settings.map(|(name, (value, _))| (name, value)).collect());
        }
        let mut message = String::from("these properties are not taken: ");
        for (i, complaint) in self.complaints.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let _ = write!(message, "{comma}{complaint}");
        }
        Err(Error::config(message))
    }
}

/// The error message for a name that is in no table.
fn unknown(name: &str) -> String {
    let ours = foreign_names().iter().find(
        |row| matches!(row.meaning, Meaning::Setting { name: setting, .. } if setting == name),
    );
    if let Some(row) = ours {
        return format!("as a property it is {}", row.name);
    }
    match nearest(name, foreign_names().iter().map(|row| row.name.trim_end_matches(".*"))) {
        Some(word) => format!("there is {word}"),
        None => "no client has it that is known here".to_owned(),
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok();
    number
        .and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok())
        .ok_or_else(|| format!("'{text}' is not a number of milliseconds, 0 or more"))
}

fn size(text: &str, unit: usize) -> Result<usize, String> {
    let number = text.parse::<usize>().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| format!("'{text}' is not a number of bytes, 0 or more"))
}

fn flag(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("'{text}' is neither true nor false")),
    }
}

fn acks(text: &str) -> Result<Acks, String> {
    match text {
        "all" | "-1" => Ok(Acks::All),
        "1" => Ok(Acks::Leader),
        "0" => Ok(Acks::None),
        _ => Err(format!("'{text}' is not all, -1, 1 or 0")),
    }
}

fn group_protocol(text: &str) -> Result<GroupProtocol, String> {
    match text.to_lowercase().as_str() {
        "classic" => Ok(GroupProtocol::Classic),
        "consumer" => Ok(GroupProtocol::Next),
        _ => Err(format!("'{text}' is neither classic nor consumer")),
    }
}

fn partitioner(text: &str) -> Result<Partitioner, String> {
    match text.rsplit('.').next().unwrap_or(text) {
        "random" | "UniformStickyPartitioner" | "RoundRobinPartitioner" => Ok(Partitioner::Spread),
        "murmur2" | "murmur2_random" | "DefaultPartitioner" => Ok(Partitioner::KeyHash),
        "consistent" | "consistent_random" | "fnv1a" | "fnv1a_random" => Err(format!(
            "'{text}' is not offered, and puts keys elsewhere than Java's murmur2_random, which is"
        )),
        _ => {
            Err(format!("'{text}' is not offered: compute the partition, and name it when sending"))
        }
    }
}

fn isolation(text: &str) -> Result<Isolation, String> {
    match text {
        "read_uncommitted" => Ok(Isolation::ReadUncommitted),
        "read_committed" => Ok(Isolation::ReadCommitted),
        _ => Err(format!("'{text}' is neither read_uncommitted nor read_committed")),
    }
}

/// Java's classes are known by their last word, in whichever package.
fn assignors(text: &str) -> Result<Vec<Assignor>, String> {
    let one = |name: &str| {
        let name = name.trim();
        match name.rsplit('.').next().unwrap_or(name) {
            "RangeAssignor" => Ok(Assignor::Range),
            "RoundRobinAssignor" => Ok(Assignor::RoundRobin),
            "StickyAssignor" => Ok(Assignor::Sticky),
            "CooperativeStickyAssignor" => Ok(Assignor::CooperativeSticky),
            word => word.parse::<Assignor>().map_err(|error| error.message().to_owned()),
        }
    };
    text.trim_matches(['[', ']']).split(',').map(one).collect()
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" | "smallest" | "beginning" => Ok(Start::Earliest),
        "latest" | "largest" | "end" => Ok(Start::Latest),
        _ => Err(format!("'{text}' is not offered: earliest, latest, or an offset as start")),
    }
}

#[cfg(test)]
mod tests;
