//! Every setting: its default, its unit, its range; what is refused and why. Limits that are not
//! settings are named here too.

mod caller;
mod endpoint;
pub(crate) mod foreign;
mod limits;
pub(crate) mod properties;
mod secured;
mod start;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::record::Compression;
use crate::security::Security;

pub(crate) use caller::Caller;
pub use endpoint::Endpoint;
pub(crate) use endpoint::parse_bootstrap;
pub(crate) use limits::*;
pub(crate) use start::check_time;
pub use start::{Isolation, Start};

/// Whether a client fails or goes on once another cluster, one with another id, answers at its
/// addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ClusterChange {
    /// Nothing more: every call, and every record that is not acknowledged, ends with an error of kind
    /// `ClusterChanged` that names both clusters.
    #[default]
    Fail,
    /// It goes on with the new one. Records that may be in the old cluster's log fail as perhaps
    /// written, what was never sent goes to the new one; consumers begin there by their start.
    Accept,
}

/// Settings of a client.
#[derive(Clone, Debug)]
pub(crate) struct ClientConfig {
    pub(crate) bootstrap: Vec<Endpoint>,
    pub(crate) client_id: String,
    /// KIP-511: what brokers log and count as this client's software.
    pub(crate) software: (String, String),
    /// How long `connect` tries to reach a broker.
    pub(crate) connect_timeout: Duration,
    /// How long a broker may take to answer a request, its own waiting included.
    pub(crate) request_timeout: Duration,
    /// A connection that nothing was asked on for so long is closed.
    pub(crate) idle_timeout: Duration,
    pub(crate) rack: Option<String>,
    /// (index, count) of this process among its equals.
    pub(crate) ordinal: Option<(u32, u32)>,
    pub(crate) on_cluster_change: ClusterChange,
    pub(crate) security: Security,
}

impl ClientConfig {
    pub(crate) fn caller(&self) -> Caller {
        Caller {
            client_id: self.client_id.clone(),
            request_timeout: self.request_timeout,
            idle_timeout: self.idle_timeout,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        range("connect_timeout", self.connect_timeout, ms(1), secs(3600))?;
        range("request_timeout", self.request_timeout, ms(100), secs(3600))?;
        range("idle_timeout", self.idle_timeout, secs(1), secs(86_400))?;
        if let Some((index, count)) = self.ordinal
            && index >= count
        {
            return Err(Error::config(format!(
                "ordinal is {index} of {count}; ordinals count from 0 to one below the count"
            )));
        }
        if self.client_id.len() > 249 {
            return Err(Error::config("client_id is longer than 249 bytes"));
        }
        self.security.check()
    }
}

/// The codec of batches unless told otherwise.
#[cfg(feature = "lz4")]
pub(crate) const DEFAULT_COMPRESSION: Compression = Compression::Lz4;
/// The codec of batches unless told otherwise.
#[cfg(not(feature = "lz4"))]
pub(crate) const DEFAULT_COMPRESSION: Compression = Compression::None;

/// How a record that names no partition gets one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Partitioner {
    /// By load: wherever a broker answers quickly, a batch at a time. Keys are payload.
    #[default]
    Spread,
    /// By key, as Java's client does by default: records with the same key go to the same
    /// partition, in order, for as long as the topic keeps its number of partitions. For compacted
    /// topics. Such records wait for the leader of their partition, and share its fate; records
    /// without a key are spread.
    KeyHash,
}

/// Where a batch whose records named no partition goes once nobody can tell whether it was written: its
/// connection was cut before the response, or its broker is silent while others answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InDoubt {
    /// It waits for its partition and is sent again there, where the broker recognises what it has:
    /// no duplicate, and the acknowledgement comes as late as the broker does.
    #[default]
    Wait,
    /// It goes to another partition at once: acknowledged soon, and perhaps written twice. For those
    /// who would rather have a duplicate than a wait. Records with a partition of their own wait
    /// all the same.
    Reroute,
}

/// Who must have a record before it counts as acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Acks {
    /// All in-sync replicas. Idempotent: what is sent again is written once.
    #[default]
    All,
    /// The leader alone: lost if it dies before a follower has the record. Not idempotent: a batch
    /// whose response is lost is sent again and may be written twice.
    Leader,
    /// Nobody: a record counts as acknowledged, without an offset, once it is handed to the socket.
    /// Records that the broker refuses or loses are lost silently.
    None,
}

impl Acks {
    /// As the protocol has it.
    pub(crate) fn wire(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
            Self::None => 0,
        }
    }
}

/// Settings of a producer. Producers of a process with equal settings share their open batches,
/// their requests and their byte budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProducerConfig {
    pub(crate) linger: Duration,
    pub(crate) batch_size: usize,
    pub(crate) compression: Compression,
    /// Topics with another codec than that.
    pub(crate) topic_compression: BTreeMap<String, Compression>,
    pub(crate) partitioner: Partitioner,
    pub(crate) acks: Acks,
    pub(crate) in_doubt: InDoubt,
    pub(crate) buffer_memory: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) max_block: Duration,
    pub(crate) max_record_size: usize,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            batch_size: 256 << 10,
            compression: DEFAULT_COMPRESSION,
            topic_compression: BTreeMap::new(),
            partitioner: Partitioner::Spread,
            acks: Acks::All,
            in_doubt: InDoubt::Wait,
            buffer_memory: 64 << 20,
            delivery_timeout: secs(120),
            max_block: secs(60),
            max_record_size: 1 << 20,
        }
    }
}

impl ProducerConfig {
    pub(crate) fn check(&self) -> Result<()> {
        range("linger", self.linger, Duration::ZERO, secs(60))?;
        range("batch_size", self.batch_size, 1 << 10, 16 << 20)?;
        range("buffer_memory", self.buffer_memory, 1 << 20, 1 << 40)?;
        range("delivery_timeout", self.delivery_timeout, ms(10), secs(86_400))?;
        range("max_block", self.max_block, Duration::ZERO, secs(86_400))?;
        range("max_record_size", self.max_record_size, 1, 100 << 20)?;
        self.compression.check()?;
        for (topic, compression) in &self.topic_compression {
            check_topic(topic)?;
            compression.check().map_err(|e| e.context(format_args!("topic '{topic}'")))?;
        }
        if self.buffer_memory < self.batch_size.max(self.max_record_size) {
            return Err(Error::config(format!(
                "buffer_memory ({}) cannot hold one batch_size ({}) or one max_record_size ({})",
                self.buffer_memory, self.batch_size, self.max_record_size
            )));
        }
        Ok(())
    }
}

/// Settings of a consumer.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerConfig {
    pub(crate) max_wait: Duration,
    pub(crate) min_bytes: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_partition_bytes: usize,
    pub(crate) buffer_memory: usize,
    pub(crate) check_crc: bool,
    pub(crate) isolation: Isolation,
    /// Largest size one batch may have once decompressed.
    pub(crate) max_decompressed: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            max_wait: ms(500),
            min_bytes: 1,
            max_bytes: 8 << 20,
            max_partition_bytes: 1 << 20,
            buffer_memory: 64 << 20,
            check_crc: true,
            isolation: Isolation::default(),
            max_decompressed: 256 << 20,
        }
    }
}

impl ConsumerConfig {
    pub(crate) fn check(&self, request_timeout: Duration) -> Result<()> {
        range("max_wait", self.max_wait, Duration::ZERO, secs(300))?;
        range("min_bytes", self.min_bytes, 0, 1 << 30)?;
        range("max_bytes", self.max_bytes, 1 << 10, 100 << 20)?;
        range("max_partition_bytes", self.max_partition_bytes, 1 << 10, 100 << 20)?;
        range("buffer_memory", self.buffer_memory, 64 << 10, 1 << 40)?;
        if self.max_wait >= request_timeout {
            return Err(Error::config(format!(
                "max_wait ({:?}) must be below request_timeout ({request_timeout:?}): the broker's \
                 own waiting counts as part of the request",
                self.max_wait
            )));
        }
        Ok(())
    }
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn range<T: PartialOrd + std::fmt::Debug>(name: &str, value: T, min: T, max: T) -> Result<()> {
    if value < min || value > max {
        return Err(Error::config(format!("{name} is {value:?}; allowed is {min:?} to {max:?}")));
    }
    Ok(())
}

/// Topic names as brokers accept them (`org.apache.kafka.common.internals.Topic`).
pub(crate) fn check_topic(name: &str) -> Result<()> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() {
        return Err(Error::argument("the topic name is empty"));
    }
    if name.len() > 249 {
        return Err(Error::argument(format!(
            "the topic name has {} bytes; 249 at most",
            name.len()
        )));
    }
    if name == "." || name == ".." || !name.bytes().all(legal) {
        return Err(Error::argument(format!(
            "'{}' is not a topic name; letters, digits, '.', '_' and '-' only",
            name.escape_debug()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_lists() {
        let show = |s: &str| {
            parse_bootstrap(s)
                .map(|v| v.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                .map_err(|e| e.kind())
        };
        assert_eq!(show("a:1, b ,a:1"), Ok("a:1 b:9092".into()));
        assert_eq!(show("[::1]:9094,[::2]"), Ok("[::1]:9094 [::2]:9092".into()));
        for (bare, meant) in [
            ("::1:9092", "'[::1]:9092'"),
            ("fe80::1:2:29092", "'[fe80::1:2]:29092'"),
            ("::1", "'[::1]:9092'"),
            ("2001:db8::7", "'[2001:db8::7]:9092'"),
        ] {
            let error = parse_bootstrap(bare).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Config);
            assert!(error.message().ends_with(&format!("in brackets; write {meant}")), "{error}");
        }
        for bad in ["a:1:2", "", " , ", "a:b", "a:0", ":1", "kafka://a:1", "[::1", "a:99999"] {
            assert_eq!(show(bad), Err(crate::ErrorKind::Config), "{bad:?}");
        }
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let c = ProducerConfig { batch_size: 10, ..Default::default() };
        assert!(c.check().unwrap_err().message().starts_with("batch_size is 10; allowed"));
        let c =
            ProducerConfig { buffer_memory: 1 << 20, batch_size: 2 << 20, ..Default::default() };
        assert!(c.check().unwrap_err().message().contains("cannot hold"));
        let c = ConsumerConfig { max_wait: secs(30), ..Default::default() };
        assert!(c.check(secs(30)).unwrap_err().message().contains("request_timeout"));
        ProducerConfig::default().check().unwrap();
    }

    #[test]
    fn topic_names() {
        assert!(check_topic("a.b_c-9").is_ok());
        for bad in ["", ".", "..", "a b", "ä", "a/b"] {
            assert!(check_topic(bad).is_err(), "{bad}");
        }
        assert!(check_topic(&"x".repeat(250)).is_err());
    }

    /// Every setting of a consumer and of a client at both ends of its range, and one step beyond.
    #[test]
    fn settings_end_where_their_range_does() {
        type Set = fn(&mut ConsumerConfig, u64);
        let consumers: [(&str, Set, u64, u64); 5] = [
            ("max_wait", |c, n| c.max_wait = ms(n), 0, 300_000),
            ("min_bytes", |c, n| c.min_bytes = n as usize, 0, 1 << 30),
            ("max_bytes", |c, n| c.max_bytes = n as usize, 1 << 10, 100 << 20),
            ("max_partition_bytes", |c, n| c.max_partition_bytes = n as usize, 1 << 10, 100 << 20),
            ("buffer_memory", |c, n| c.buffer_memory = n as usize, 64 << 10, 1 << 40),
        ];
        for (name, set, least, most) in consumers {
            let check = |n| {
                let mut config = ConsumerConfig::default();
                set(&mut config, n);
                config.check(secs(3_600))
            };
            check(least).unwrap();
            check(most).unwrap();
            for n in [least.checked_sub(1), Some(most + 1)].into_iter().flatten() {
                let error = check(n).unwrap_err();
                assert!(error.message().starts_with(name), "{error}");
            }
        }
        type SetClient = fn(&mut ClientConfig, u64);
        let clients: [(&str, SetClient, u64, u64); 4] = [
            ("connect_timeout", |c, n| c.connect_timeout = ms(n), 1, 3_600_000),
            ("request_timeout", |c, n| c.request_timeout = ms(n), 100, 3_600_000),
            ("idle_timeout", |c, n| c.idle_timeout = ms(n), 1_000, 86_400_000),
            ("client_id", |c, n| c.client_id = "x".repeat(n as usize), 0, 249),
        ];
        for (name, set, least, most) in clients {
            let check = |n| {
                let mut config = client();
                set(&mut config, n);
                config.check()
            };
            check(least).unwrap();
            check(most).unwrap();
            for n in [least.checked_sub(1), Some(most + 1)].into_iter().flatten() {
                let error = check(n).unwrap_err();
                assert!(error.message().starts_with(name), "{error}");
            }
        }
    }

    /// A client's settings, each within its range.
    fn client() -> ClientConfig {
        ClientConfig {
            bootstrap: Vec::new(),
            client_id: String::new(),
            software: Default::default(),
            connect_timeout: secs(1),
            request_timeout: secs(1),
            idle_timeout: secs(1),
            rack: None,
            ordinal: None,
            on_cluster_change: ClusterChange::Fail,
            security: Security::default(),
        }
    }

    #[test]
    fn addresses_that_nobody_can_dial_are_none() {
        for (host, port) in [("h", 0), ("h", -1), ("h", 65_536), ("", 9092)] {
            assert_eq!(Endpoint::of_broker(host, port), None, "{host}:{port}");
        }
        let endpoint = Endpoint::of_broker("h", 65_535).unwrap();
        assert_eq!(endpoint.to_string(), "h:65535");
    }

    /// Two of three have a place, three of three is one too far.
    #[test]
    fn an_ordinal_is_below_its_count() {
        let check = |ordinal| {
            let config = ClientConfig { ordinal: Some(ordinal), ..client() };
            config.check()
        };
        assert!(check((0, 1)).is_ok() && check((2, 3)).is_ok());
        for beyond in [(0, 0), (3, 3), (4, 3)] {
            assert!(check(beyond).unwrap_err().message().starts_with("ordinal is"), "{beyond:?}");
        }
    }
}
