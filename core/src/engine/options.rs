//! Settings as the skins pass them on: what is `None` keeps the client's default.

use std::time::Duration;

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Start {
    /// The oldest record that is kept.
    #[default]
    Earliest,
    /// What is written from now on.
    Latest,
    /// This offset.
    Offset(i64),
    /// The first record with this timestamp (ms since 1970) or a later one.
    Timestamp(i64),
}

/// Settings of a client.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// "host:port,host:port".
    pub bootstrap: String,
    /// What brokers log. Default "ottla".
    pub client_id: Option<String>,
    /// Name and version of the software, as brokers count it (KIP-511).
    pub software: Option<(String, String)>,
    /// How long to try to reach a broker. Default 10 s.
    pub connect_timeout: Option<Duration>,
    /// How long a broker may take to answer. Default 30 s.
    pub request_timeout: Option<Duration>,
    /// The tag of the `Connected` completion.
    pub tag: u64,
}

/// Settings of an [`EngineProducer`](super::EngineProducer).
#[derive(Clone, Debug, Default)]
pub struct ProducerOptions {
    /// How long a record may wait for company. Default 5 ms.
    pub linger: Option<Duration>,
    /// Bytes of a batch. Default 256 KiB.
    pub batch_size: Option<usize>,
    /// Whether batches are compressed with lz4. Default: yes.
    pub lz4: Option<bool>,
    /// Bytes of records not yet resolved. Default 64 MiB.
    pub buffer_memory: Option<usize>,
    /// From acceptance to outcome. Default 120 s.
    pub delivery_timeout: Option<Duration>,
    /// Largest record. Default 1 MiB.
    pub max_record_size: Option<usize>,
    /// The tag of this producer's `Space` completions.
    pub tag: u64,
}

/// What a consumer reads.
#[derive(Clone, Debug)]
pub enum Subscription {
    /// All partitions of these topics, from one kind of start.
    Topics(Vec<String>, Start),
    /// These partitions, each from its own start.
    Partitions(Vec<(String, i32, Start)>),
}

/// Settings of an [`EngineConsumer`](super::EngineConsumer).
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// What it reads.
    pub subscription: Subscription,
    /// How long a broker may wait for `min_bytes`. Default 500 ms.
    pub max_wait: Option<Duration>,
    /// Default 1.
    pub min_bytes: Option<usize>,
    /// Bytes of one answer. Default 8 MiB.
    pub max_bytes: Option<usize>,
    /// Bytes of one partition in one answer. Default 1 MiB.
    pub max_partition_bytes: Option<usize>,
    /// Bytes fetched and not yet taken. Default 64 MiB.
    pub buffer_memory: Option<usize>,
    /// Whether checksums are verified. Default: yes.
    pub check_crc: Option<bool>,
    /// The tag of this consumer's `ConsumerReady` completions.
    pub tag: u64,
}

impl ConsumerOptions {
    /// Defaults, reading `subscription`.
    pub fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            max_wait: None,
            min_bytes: None,
            max_bytes: None,
            max_partition_bytes: None,
            buffer_memory: None,
            check_crc: None,
            tag: 0,
        }
    }
}
