//! An embedded Kafka cluster for tests.
//!
//! A [`Cluster`] is a number of brokers in this process that share topics and speak the real
//! protocol, over loopback TCP and over in-memory streams, on a thread of its own or inside the
//! caller's runtime and its virtual time. What goes wrong is scripted with [`Faults`]; what
//! happened is read back from [`Cluster::stats`] and [`Cluster::records`].
//!
//! ```
//! let cluster = ottla_test_broker::Cluster::builder().brokers(3).topic("orders", 6, 3).start()?;
//! println!("bootstrap.servers={}", cluster.bootstrap());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The way of a request: a connection ([`connection`]) reads a frame and its head ([`wire`]), asks
//! the fault script ([`faults`]), and hands the body to its api ([`api`]), which has its lengths and
//! counts checked ([`shape`]) before it decodes it, takes the cluster's lock ([`state`]) once, looks
//! at topics and partitions ([`topic`]), their replicas ([`followers`]) and transactions
//! ([`transactions`]), judges batches ([`batch`]) and sequences ([`producer_state`]), asks what a
//! client has told before ([`sessions`]), and appends to or reads from a log ([`log`]); or it is about a
//! group ([`groups`]), and may have to wait there for others. Before all that
//! there may be a TLS handshake ([`tls`]) and a login ([`sasl`]),
//! and there may be lists of what is allowed ([`acl`]). Where requests have a price ([`price`]), the answer waits until a request thread has done the work.
//!
//! The crate depends on no Kafka client: its reading of record batches is its own and judges a
//! client's writer independently.
#![deny(unsafe_code)]
#![allow(rustdoc::private_intra_doc_links)]

mod acl;
mod api;
mod batch;
mod builder;
mod cluster;
mod compression;
mod config;
mod connection;
mod doors;
pub mod error_code;
mod faults;
mod followers;
mod groups;
mod host;
mod listener;
mod log;
mod price;
mod producer_state;
mod sasl;
mod secured;
mod sessions;
mod settings;
mod shape;
mod state;
mod stats;
mod tls;
mod token_endpoint;
mod topic;
mod transactions;
mod wire;
mod writer;

pub use acl::{Acls, Allowed};
pub use api::ApiKey;
pub use batch::Record;
pub use builder::Builder;
pub use cluster::{Cluster, Leaders, PartitionInfo};
pub use compression::Codec;
pub use config::Storage;
pub use doors::{Dialer, Doors};
pub use faults::{Fault, FaultId, FaultRule, Faults, LoginFault, TlsFault};
pub use groups::{CommittedOffset, GroupInfo, GroupKind, GroupMember, GroupState};
pub use price::{Price, Work};
pub use sasl::{BearerLogin, BearerToken, Sasl};
pub use secured::Secured;
pub use sessions::{SessionInfo, SessionPartition};
pub use stats::{BrokerStats, Stats};
pub use tls::{ClientCertificates, Identity, ServerCertificate, Tls, TlsVersions};
pub use token_endpoint::{TokenEndpoint, TokenReply, TokenRequest};
pub use transactions::TransactionEnd;
pub use writer::SourceBatch;

/// The README's example has to run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
