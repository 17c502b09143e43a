//! Settings as the bindings pass them on: what is `None` keeps the client's default.

use std::time::Duration;

use super::group::GroupOptions;
use crate::client::{Client, ClientBuilder};
use crate::config::properties::Properties;
use crate::config::{Acks, ClusterChange, InDoubt, Isolation, Partitioner, Start};
use crate::consumer::ConsumerBuilder;
use crate::producer::ProducerBuilder;
use crate::record::Compression;
use crate::security::{Sasl, Tls};

/// Settings of a client.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// "host:port,host:port"; empty: what the properties say.
    pub bootstrap: String,
    /// Settings by the names of other clients. What is given here too goes before them.
    pub properties: Properties,
    /// The client's name in the brokers' logs and quotas. Default "ottla".
    pub client_id: Option<String>,
    /// Name and version of the software, as brokers count it (KIP-511).
    pub software: Option<(String, String)>,
    /// How long to try to reach a broker. Default 10 s.
    pub connect_timeout: Option<Duration>,
    /// How long a broker may take to answer. Default 30 s.
    pub request_timeout: Option<Duration>,
    /// When a connection that nothing is asked on is closed. Default 9 min.
    pub idle_timeout: Option<Duration>,
    /// The rack whose brokers are used first. Default: none.
    pub rack: Option<String>,
    /// (index, count) of this process among its equals. Default: not known.
    pub ordinal: Option<(u32, u32)>,
    /// Whether it fails or goes on once another cluster answers at its addresses. Default: it fails.
    pub on_cluster_change: Option<ClusterChange>,
    /// How brokers are reached by TLS. Default: as the properties say, else in plaintext.
    pub tls: Option<Tls>,
    /// How this client logs in. Default: as the properties say, else not at all.
    pub sasl: Option<Sasl>,
    /// The tag of the `Connected` completion.
    pub tag: u64,
}

/// `builder` with the value, if one is given.
pub(super) fn with<B, T>(builder: B, value: Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

impl ClientOptions {
    /// A client with these settings, to be connected.
    pub fn builder(&self) -> ClientBuilder {
        let b = Client::builder().read_properties(&self.properties);
        let bootstrap = Some(&self.bootstrap).filter(|list| !list.is_empty());
        let b = with(b, bootstrap, ClientBuilder::bootstrap);
        let b = with(b, self.client_id.as_deref(), ClientBuilder::client_id);
        let b = with(b, self.software.clone(), |b, (name, version)| b.software(name, version));
        let b = with(b, self.connect_timeout, ClientBuilder::connect_timeout);
        let b = with(b, self.request_timeout, ClientBuilder::request_timeout);
        let b = with(b, self.idle_timeout, ClientBuilder::idle_timeout);
        let b = with(b, self.rack.as_deref(), ClientBuilder::rack);
        let b = with(b, self.on_cluster_change, ClientBuilder::on_cluster_change);
        let b = with(b, self.tls.clone(), ClientBuilder::tls);
        let b = with(b, self.sasl.clone(), ClientBuilder::sasl);
        with(b, self.ordinal, |b, (index, count)| b.ordinal(index, count))
    }
}

/// Settings of an [`HostProducer`](super::HostProducer). It never waits for buffer space:
/// `max_block` is a setting of those that do.
#[derive(Clone, Debug, Default)]
pub struct ProducerOptions {
    /// Settings by the names of other clients. What is given here too goes before them.
    pub properties: Properties,
    /// How long a record may wait for company. Default 5 ms.
    pub linger: Option<Duration>,
    /// Bytes of a batch. Default 256 KiB.
    pub batch_size: Option<usize>,
    /// The codec of batches. Default: lz4 where it is built in.
    pub compression: Option<Compression>,
    /// Topics with another codec than that.
    pub topic_compression: Vec<(String, Compression)>,
    /// How records that name no partition get one. Default: spread by load.
    pub partitioner: Option<Partitioner>,
    /// Who must have a record before it counts as acknowledged. Default: all in-sync replicas.
    pub acks: Option<Acks>,
    /// Where a batch goes once nobody can tell whether it was written. Default: it waits for its partition.
    pub in_doubt: Option<InDoubt>,
    /// Bytes of records not yet resolved. Default 64 MiB.
    pub buffer_memory: Option<usize>,
    /// From acceptance to outcome. Default 120 s.
    pub delivery_timeout: Option<Duration>,
    /// Largest record. Default 1 MiB.
    pub max_record_size: Option<usize>,
    /// The tag of this producer's `Space` completions.
    pub tag: u64,
}

impl ProducerOptions {
    /// The producer with these settings, for bindings that hold one themselves.
    pub fn apply(&self, b: ProducerBuilder) -> ProducerBuilder {
        let b = b.read_properties(&self.properties);
        let b = with(b, self.linger, ProducerBuilder::linger);
        let b = with(b, self.batch_size, ProducerBuilder::batch_size);
        let b = with(b, self.compression, ProducerBuilder::compression);
        let b = self
            .topic_compression
            .iter()
            .fold(b, |b, (topic, codec)| b.topic_compression(topic.as_str(), *codec));
        let b = with(b, self.partitioner, ProducerBuilder::partitioner);
        let b = with(b, self.acks, ProducerBuilder::acks);
        let b = with(b, self.in_doubt, ProducerBuilder::in_doubt);
        let b = with(b, self.buffer_memory, ProducerBuilder::buffer_memory);
        let b = with(b, self.delivery_timeout, ProducerBuilder::delivery_timeout);
        with(b, self.max_record_size, ProducerBuilder::max_record_size)
    }
}

/// The topics or partitions that a consumer reads.
#[derive(Clone, Debug)]
pub enum Subscription {
    /// All partitions of these topics, from one kind of start.
    Topics(Vec<String>, Start),
    /// These partitions, each from its own start.
    Partitions(Vec<(String, i32, Start)>),
}

/// Settings of an [`HostConsumer`](super::HostConsumer).
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The topics or partitions to read.
    pub subscription: Subscription,
    /// Settings by the names of other clients. What is given here too goes before them.
    pub properties: Properties,
    /// How long a broker may wait for `min_bytes`. Default 500 ms.
    pub max_wait: Option<Duration>,
    /// Default 1.
    pub min_bytes: Option<usize>,
    /// Bytes of one response. Default 8 MiB.
    pub max_bytes: Option<usize>,
    /// Bytes of one partition in one response. Default 1 MiB.
    pub max_partition_bytes: Option<usize>,
    /// Bytes fetched and not yet taken. Default 64 MiB.
    pub buffer_memory: Option<usize>,
    /// Whether checksums are verified. Default: yes.
    pub check_crc: Option<bool>,
    /// Which records of transactions are read. Default: all.
    pub isolation: Option<Isolation>,
    /// Of a member of a group.
    pub group: GroupOptions,
    /// The tag of this consumer's `ConsumerReady` completions.
    pub tag: u64,
}

impl ConsumerOptions {
    pub(super) fn apply(&self, b: ConsumerBuilder) -> ConsumerBuilder {
        let b = b.read_properties(&self.properties);
        let b = match &self.subscription {
            Subscription::Topics(topics, start) => {
                // The default is no choice: properties may have made one.
                let start = Some(*start).filter(|start| *start != Start::Earliest);
                let b = b.topics(topics.iter().map(String::as_str));
                with(b, start, ConsumerBuilder::start)
            }
            Subscription::Partitions(list) => {
                b.assign(list.iter().map(|(t, p, start)| (t.as_str(), *p, *start)))
            }
        };
        let b = with(b, self.max_wait, ConsumerBuilder::max_wait);
        let b = with(b, self.min_bytes, ConsumerBuilder::min_bytes);
        let b = with(b, self.max_bytes, ConsumerBuilder::max_bytes);
        let b = with(b, self.max_partition_bytes, ConsumerBuilder::max_partition_bytes);
        let b = with(b, self.buffer_memory, ConsumerBuilder::buffer_memory);
        let b = with(b, self.isolation, ConsumerBuilder::isolation);
        let b = with(b, self.check_crc, ConsumerBuilder::check_crc);
        self.group.apply(b)
    }

    /// Defaults, reading `subscription`.
    pub fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            properties: Properties::default(),
            max_wait: None,
            min_bytes: None,
            max_bytes: None,
            max_partition_bytes: None,
            buffer_memory: None,
            check_crc: None,
            isolation: None,
            group: GroupOptions::default(),
            tag: 0,
        }
    }
}
