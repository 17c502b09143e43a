//! Settings read from the properties that other clients of Kafka are configured with: what stands
//! here for each name and value, or why it is not taken. Values of what is not taken are never
//! repeated: they may be secrets.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::foreign::{Foreign, Meaning, Owner, Values, foreign, foreign_names, nearest};
use super::{Acks, Partitioner};
use crate::consumer::Start;
use crate::error::{Error, Result};
use crate::record::Compression;

/// Properties as they were given. Does not show its values: they may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(Vec<(String, String)>);

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
        Self(properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
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
/// and what there is instead.
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
        // No property names an offset or a time.
        Value::Start(_) => word("earliest"),
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
            Values::Text => Value::Text(text.to_owned()),
            Values::Milliseconds => Value::Time(milliseconds(text)?),
            Values::Bytes => Value::Size(size(text, 1)?),
            Values::Kibibytes => Value::Size(size(text, 1024)?),
            Values::Flag => Value::Flag(flag(text)?),
            Values::Acks => Value::Acks(acks(text)?),
            Values::Partitioner => Value::Partitioner(partitioner(text)?),
            Values::Start => Value::Start(start(text)?),
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

fn start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" | "smallest" | "beginning" => Ok(Start::Earliest),
        "latest" | "largest" | "end" => Ok(Start::Latest),
        _ => Err(format!("'{text}' is not offered: earliest, latest, or an offset as start")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, ErrorKind};

    fn of(properties: &[(&str, &str)]) -> Properties {
        properties.iter().copied().collect()
    }

    fn refused(owner: Owner, name: &str, value: &str) -> String {
        read(owner, &of(&[(name, value)])).unwrap_err().message().to_owned()
    }

    /// A value that the other client takes.
    fn example(row: &Foreign) -> &'static str {
        let Meaning::Setting { values, .. } = row.meaning else { return "x" };
        match values {
            Values::Text => "a",
            Values::Milliseconds | Values::Kibibytes => "2000",
            Values::Bytes => "2000000",
            Values::Flag => "false",
            Values::Acks => "1",
            Values::Codec => "none",
            Values::Level => "3",
            Values::Partitioner => "murmur2",
            Values::Start => "latest",
        }
    }

    #[test]
    fn every_setting_of_the_table_is_taken_by_its_builder() {
        for row in foreign_names() {
            let Meaning::Setting { name, .. } = row.meaning else { continue };
            let properties = of(&[(row.name, example(row)), ("bootstrap.servers", "a:1")]);
            let client = || Client::builder().bootstrap("a:1").build().unwrap();
            let outcome = match row.owner {
                // Two of its names are the bootstrap list.
                Owner::Client if name == "bootstrap" => {
                    Client::builder().from_properties([(row.name, "a:1")]).build().map(drop)
                }
                Owner::Client => Client::builder().read_properties(&properties).build().map(drop),
                Owner::Producer => {
                    client().producer().read_properties(&properties).build().map(drop)
                }
                Owner::Consumer => {
                    let builder = client().consumer().topics(["t"]).read_properties(&properties);
                    builder.build().map(drop)
                }
            };
            assert!(outcome.is_ok(), "{}: {outcome:?}", row.name);
        }
    }

    #[test]
    fn values_are_read_in_their_units() {
        let producer = of(&[
            ("acks", "-1"),
            ("linger.ms", "0.5"),
            ("queue.buffering.max.kbytes", "2048"),
            ("compression.type", "gzip"),
            ("compression.zstd.level", "9"),
            ("compression.gzip.level", "7"),
            ("partitioner.class", "org.apache.kafka.clients.producer.RoundRobinPartitioner"),
            ("client.id", "another's"),
        ]);
        let gzip = Compression::named("gzip", Some(7)).unwrap();
        assert_eq!(
            read(Owner::Producer, &producer).unwrap(),
            [
                ("acks", Value::Acks(Acks::All)),
                ("buffer_memory", Value::Size(2 << 20)),
                ("compression", Value::Compression(gzip)),
                ("linger", Value::Time(Duration::from_micros(500))),
                ("partitioner", Value::Partitioner(Partitioner::Spread)),
            ]
        );
        let consumer = of(&[("auto.offset.reset", "largest"), ("check_crcs", "False")]);
        assert_eq!(
            read(Owner::Consumer, &consumer).unwrap(),
            [("check_crc", Value::Flag(false)), ("start", Value::Start(Start::Latest))]
        );
    }

    #[test]
    fn skins_get_plain_values() {
        let producer = of(&[
            ("acks", "0"),
            ("linger.ms", "0.5"),
            ("batch.size", "4096"),
            ("compression.type", "gzip"),
            ("compression.level", "7"),
            ("partitioner", "murmur2"),
        ]);
        let settings: Vec<_> =
            plain_settings(Owner::Producer, &producer).unwrap().into_iter().collect();
        let word = |word: &str| Plain::Text(word.to_owned());
        assert_eq!(
            settings,
            [
                ("acks", word("none")),
                ("batch_size", Plain::Number(4096)),
                ("compression", word("gzip:7")),
                ("linger", Plain::Number(500_000)),
                ("partitioner", word("key_hash")),
            ]
        );
        let consumer = of(&[("auto.offset.reset", "latest"), ("check.crcs", "false")]);
        let settings: Vec<_> =
            plain_settings(Owner::Consumer, &consumer).unwrap().into_iter().collect();
        assert_eq!(settings, [("check_crc", Plain::Flag(false)), ("start", word("latest"))]);
        assert!(plain_settings(Owner::Client, &consumer).unwrap().is_empty());
        assert!(plain_settings(Owner::Client, &of(&[("zebra", "1")])).is_err());
    }

    #[test]
    fn what_asks_for_what_is_done_here_anyway_is_taken() {
        let producer = of(&[
            ("enable.idempotence", "true"),
            ("retries", "2147483647"),
            ("max.in.flight.requests.per.connection", "5"),
            ("value.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer"),
            ("transactional.id", ""),
            ("compression.level", "-1"),
        ]);
        assert_eq!(read(Owner::Producer, &producer).unwrap(), []);
        let client = of(&[("security.protocol", "PLAINTEXT"), ("ssl.endpoint.algorithm", "")]);
        assert_eq!(read(Owner::Client, &client).unwrap(), []);
    }

    #[test]
    fn what_is_not_taken_is_said_with_what_there_is_instead() {
        use Owner::{Client, Consumer, Producer};
        for (owner, name, value, said) in [
            (Producer, "retries", "5", "'retries' (not needed: a record is sent again"),
            (Producer, "enable.idempotence", "false", "it is on with acks all"),
            (Producer, "transactional.id", "t", "transactions are not offered yet"),
            (Producer, "group.id", "g", "'group.id' (it is a consumer's)"),
            (Producer, "acks", "2", "'2' is not all, -1, 1 or 0"),
            (Producer, "linger.ms", "-1", "'-1' is not a number of milliseconds"),
            (Producer, "batch.size", "1e6", "'1e6' is not a number of bytes"),
            (Producer, "batch.size", "-1", "0 or more"),
            (
                Producer,
                "queue.buffering.max.kbytes",
                "99999999999999999999",
                "not a number of bytes",
            ),
            (Producer, "compression.type", "brotli", "compression is 'brotli'; this build has"),
            (Producer, "compression.level", "high", "'high' is not a level"),
            (Producer, "partitioner", "consistent_random", "murmur2_random"),
            (Producer, "partitioner.class", "com.acme.Own", "name it when sending"),
            (Producer, "lingr.ms", "5", "'lingr.ms' (there is linger.ms)"),
            (Producer, "linger", "5", "'linger' (as a property it is linger.ms)"),
            (Producer, "zebra", "5", "'zebra' (no client has it that is known here)"),
            (Consumer, "group.id", "g", "consumer groups are not offered yet"),
            (Consumer, "enable.auto.commit", "true", "nothing is committed yet"),
            (Consumer, "auto.offset.reset", "none", "'none' is not offered: earliest, latest"),
            (Consumer, "check.crcs", "yes", "'yes' is neither true nor false"),
            (Consumer, "acks", "all", "'acks' (it is a producer's)"),
            (Client, "security.protocol", "SASL_SSL", "TLS and SASL are not offered yet"),
            (Client, "api.version.request", "false", "versions are agreed on"),
            (Client, "boostrap.servers", "a:1", "there is bootstrap.servers"),
        ] {
            let message = refused(owner, name, value);
            assert!(message.contains(said), "{name}={value}: {message}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once_and_secrets_never_are() {
        let properties = of(&[
            ("sasl.jaas.config", "password=\"hunter2\""),
            ("ssl.key.password", "hunter2"),
            ("sasl.pasword", "hunter2"),
            ("pasword", "hunter2"),
        ]);
        let error = read(Owner::Client, &properties).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        for name in ["sasl.jaas.config", "ssl.key.password", "sasl.pasword", "pasword"] {
            assert!(error.message().contains(name), "{error}");
        }
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{properties:?}").contains("hunter2"), "{properties:?}");
    }

    #[test]
    fn two_names_of_one_setting_agree() {
        let same = of(&[("delivery.timeout.ms", "1000"), ("message.timeout.ms", "1000")]);
        assert_eq!(read(Owner::Producer, &same).unwrap().len(), 1);
        let other = of(&[("delivery.timeout.ms", "1000"), ("message.timeout.ms", "2000")]);
        let error = read(Owner::Producer, &other).unwrap_err();
        assert!(error.message().contains("'delivery.timeout.ms' sets delivery_timeout to another"));
    }

    #[test]
    fn a_builder_says_it_when_it_builds() {
        let error = Client::builder().from_properties([("zebra", "1")]).build().err().unwrap();
        assert!(error.message().contains("zebra"), "{error}");
        let client = Client::builder().from_properties([("bootstrap.servers", "a:1")]).build();
        let client = client.unwrap();
        let producer = client.producer().from_properties([("zebra", "1")]).build();
        assert_eq!(producer.err().unwrap().kind(), ErrorKind::Config);
        let consumer = client.consumer().topics(["t"]).from_properties([("zebra", "1")]).build();
        assert_eq!(consumer.err().unwrap().kind(), ErrorKind::Config);
    }

    #[test]
    fn acks_are_read_as_others_write_them() {
        for (text, acks) in
            [("all", Acks::All), ("-1", Acks::All), ("1", Acks::Leader), ("0", Acks::None)]
        {
            let read = read(Owner::Producer, &of(&[("acks", text)])).unwrap();
            assert_eq!(read, [("acks", Value::Acks(acks))]);
        }
    }

    /// A level is that of the codec it names; one that names none is for any, and -1 is the usual one.
    #[test]
    fn a_level_is_its_codecs() {
        for (properties, codec) in [
            (&[("compression.gzip.level", "7"), ("compression.type", "gzip")][..], "gzip:7"),
            (&[("compression.gzip.level", "7"), ("compression.type", "zstd")], "zstd"),
            (&[("compression.level", "5"), ("compression.type", "zstd")], "zstd:5"),
            (&[("compression.level", "-1"), ("compression.codec", "gzip")], "gzip"),
            (&[("compression.level", "-1"), ("compression.codec", "lz4")], "lz4"),
        ] {
            let read = read(Owner::Producer, &of(properties)).unwrap();
            let codec = Value::Compression(codec.parse().unwrap());
            assert_eq!(read, [("compression", codec)], "{properties:?}");
        }
    }
}
