//! Ottla: a Kafka client that behaves well. Records without a partition go wherever a broker
//! answers quickly, all clients of a process share their connections, and nothing retries in step.
//!
//! # The way of a record
//!
//! ```text
//! app ── send(record) ──> open batch of its topic ──(taken)──> spread: which partition, which broker
//!         producer::accumulator     record::builder             policy::spread       │
//!                                                                                    v
//!      <── Delivery ── batch resolved <── response <── lane <── producer::sender: one Produce request
//!          producer::delivery             net::connection     per broker, carrying every ready batch
//!
//! app <── Batch <── consumer::buffer <── record::reader (zero copy) <── lane <── consumer::fetcher
//! ```
//!
//! - [`Client`] is a handle on the process's pool (`cluster`): brokers, connections in lanes, metadata, retry
//!   budgets. Each sender of the pool has one producer id. `metrics` counts what the client does, by broker and
//!   request.
//! - `record` writes and reads batches without I/O; `protocol` frames requests and bounds responses.
//! - `net` is one connection; `policy` holds decisions as pure functions.
//! - [`Environment`] carries clock, randomness, dialer and thread, so that a test or a simulation can
//!   bring its own. [`bindings`] is what other languages use.
//!
//! # Features
//! - `lz4` (the default codec of producers), `snappy`, `gzip`, `zstd`: a codec each, all on by default. Without
//!   one, its batches cannot be written, and reading them fails with `UnsupportedCodec`. Only `zstd` compiles
//!   C code.
//! - `testing`: an embedded broker as `ottla::testing`, for a program's own tests. Off by default.
//!
//! `bench-internals` and `fuzz-internals` are for this repository's own measurements, and no part of
//! the interface.
//!
//! # Example
//! ```
//! # use ottla::{Client, Record, testing::Cluster};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = Cluster::builder().topic("events", 3, 1).start()?;
//! # let bootstrap = broker.bootstrap();
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let client = Client::connect(&bootstrap).await?;
//! let producer = client.producer().build()?;
//! producer.send(Record::to("events").value("hello")).await?.await?;
//!
//! let mut consumer = client.consumer().topics(["events"]).build()?;
//! let batch = consumer.next().await.expect("the consumer is open")?;
//! for record in &batch {
//!     assert_eq!(record.value(), Some(&b"hello"[..]));
//! }
//! # Ok(()) })
//! # }
//! ```
#![forbid(unsafe_code)]

mod admin;
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod bench;
pub mod bindings;
pub mod blocking;
mod caught;
mod client;
mod cluster;
mod config;
mod consumer;
mod coop;
#[cfg(doc)]
pub mod docs;
mod environment;
mod error;
mod fork;
#[cfg(feature = "fuzz-internals")]
#[doc(hidden)]
pub mod fuzz;
mod logs;
mod metrics;
mod net;
mod park;
mod policy;
mod producer;
mod protocol;
mod record;
mod security;
mod threads;
mod wake;

pub use admin::{Admin, NewTopic, OffsetSpec};
pub use client::{Client, ClientBuilder};
pub use cluster::{BrokerHealth, BrokerView, ClusterView, PartitionView, TopicView};
pub use config::{Acks, ClusterChange, Endpoint, InDoubt, Isolation, Partitioner, Start};
pub use consumer::{
    Assignor, Batch, BatchRecord, Commit, Consumer, ConsumerBuilder, ConsumerControl, Event,
    GroupProtocol, PartitionStream, RecordStream, Records, Standing, StreamEnd, TopicPartition,
};
pub use environment::{BoxFuture, Dialer, Environment, EnvironmentBuilder, TcpDialer, Transport};
pub use error::{BrokerCode, Error, ErrorKind, ErrorScope, Result, Undelivered};
pub use metrics::{
    BadStuff, BrokerStats, LatencyStats, MetadataReasons, RequestStats, RetryBudgetStats,
    RetryBudgets, Stats, StatsHandle,
};
pub use producer::{
    Acked, BatchAcked, BatchDelivery, Delivery, Producer, ProducerBuilder, Record, Sending,
};
pub use record::{Compression, Headers, OwnedRecord, RecordPosition, RecordRef};
pub use security::{
    ClientCredentials, OAuth, Pem, Sasl, Secret, Tls, Token, TokenError, TokenProvider, Verify,
};

/// An embedded broker for a program's own tests: real protocol, faults on request, no container.
#[cfg(feature = "testing")]
pub mod testing {
    pub use ottla_test_broker::*;

    pub use crate::policy::pace::PaceLimits;
}
