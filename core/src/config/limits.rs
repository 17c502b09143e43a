//! Limits and times that are not settings, each with its reason.

use std::time::Duration;

/// A frame larger than this is not Kafka's: brokers refuse requests over 100 MiB
/// (`socket.request.max.bytes`), and a fetch response is bounded by what was asked for plus one
/// batch. Bounds the memory that a hostile or foreign peer can make this client take.
pub(crate) const MAX_FRAME: usize = 128 << 20;

/// A frame larger than this comes from no broker before the connection is ready: versions take 1 KiB, the largest
/// message of a login a few.
pub(crate) const MAX_SETUP_FRAME: usize = 1 << 20;

/// Requests in flight on one produce lane. The broker answers them one by one; a few keep its
/// queue from running dry during a round trip, more only add delay.
pub(crate) const MAX_REQUESTS_IN_FLIGHT: usize = 5;

/// Batches in flight for one producer id and partition: what a broker remembers to recognise
/// duplicates (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
pub(crate) const MAX_BATCHES_IN_FLIGHT: usize = 5;

/// A Produce request that has reached this size gets no further batch. The last one may exceed it: a request is
/// at most this large, plus one batch.
pub(crate) const MAX_PRODUCE_REQUEST: usize = 1 << 20;

/// First delay and cap of the backoff between dials to a needed broker and between retries.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(100);

/// See [`BACKOFF_BASE`].
pub(crate) const BACKOFF_CAP: Duration = Duration::from_secs(5);

/// One dial with everything up to the ready connection: TCP, versions, authentication.
pub(crate) const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// [`SETUP_TIMEOUT`] doubles with each dial that times out, up to this (KIP-601).
pub(crate) const SETUP_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// A connection that nothing has crossed for this time is *proved* by a small request before records are sent
/// over it: firewalls and load balancers in between forget quiet flows, and then drop packets without a word
/// (Azure's load balancer after 4 minutes, AWS's NAT gateway after 350 s). Keepalives hold most of them open,
/// but not through every proxy, and not while a machine sleeps.
pub(crate) const PROVED_AFTER: Duration = Duration::from_secs(180);

/// How long the response to that request is waited for.
pub(crate) const PROOF_PATIENCE: Duration = Duration::from_secs(1);

/// A broker that asks for more silence than this is not believed (KIP-219): its quotas are kept over
/// seconds, and the field could silence a consumer for 24 days.
pub(crate) const MAX_THROTTLE: Duration = Duration::from_secs(600);

/// Connections of a process to all clusters together. A broker must hold some memory for each;
/// three brokers, eight producers and a consumer need seven.
pub(crate) const MAX_CONNECTIONS: usize = 1024;

/// Metadata of a topic is not asked for again before it is this old, unless the topic is new.
pub(crate) const METADATA_MIN_AGE: Duration = Duration::from_millis(250);

/// Period of the metadata refresh, drawn from +-20 % around it.
pub(crate) const METADATA_PERIOD: Duration = Duration::from_secs(300);

/// Unchanged responses stretch the period up to this.
pub(crate) const METADATA_PERIOD_MAX: Duration = Duration::from_secs(900);

/// Two responses from two brokers at least this far apart make a topic unknown: KRaft publishes
/// new topics to the brokers one by one.
pub(crate) const UNKNOWN_TOPIC_SPACING: Duration = Duration::from_secs(1);

/// The same where only one broker can be asked.
pub(crate) const UNKNOWN_TOPIC_SPACING_ONE_BROKER: Duration = Duration::from_secs(3);

/// Two brokers, with nobody against them for so long, bring a topic back that another had come after:
/// the other one was a broken broker's. It is longer than brokers are behind, unless they are cut off.
pub(crate) const FORMER_TOPIC_SPACING: Duration = Duration::from_secs(20);

/// An error that a broker gave for a topic is forgotten after so long.
pub(crate) const OBJECTION_FORGOTTEN: Duration = Duration::from_secs(30);
