//! What the sender is told: by producers, and by what it has begun itself.

use std::sync::Arc;

use kafka_protocol::messages::ProduceResponse;

use super::Accumulator;
use super::batch_queue::BatchQueue;
use super::topic::TopicBatches;
use crate::error::{Error, Result};
use crate::net::{CallError, Connection};

/// What happens to the sender.
pub(crate) enum Event {
    /// A queue has something.
    Ready(Arc<Accumulator>, Arc<TopicBatches>, Arc<BatchQueue>),
    /// Nothing may linger: a flush, or somebody waits for space.
    Pressure,
    /// The lane to a leader is open, or could not be opened.
    Lane(i32, Result<Connection>),
    /// A request is answered, or never will be. `None`: it is written, and nobody answers such.
    Response(u64, Result<Option<ProduceResponse>, CallError>),
    /// And how many clusters there were before the one that was asked.
    ProducerId(u64, Result<i64>),
    /// What a leader knows of us in a partition.
    LookedUp(Told),
    /// The close deadline of an accumulator has passed.
    Abandon(Arc<Accumulator>, Error),
    Stop,
}

/// What one leader said of one partition.
#[derive(Debug)]
pub(crate) struct Told {
    pub(in crate::producer) leader: i32,
    pub(in crate::producer) topic: Arc<str>,
    pub(in crate::producer) partition: i32,
    /// How many clusters there were before the one that says so.
    pub(in crate::producer) of: u64,
    /// The sender that asked, by its first request.
    pub(in crate::producer) asked_by: u64,
    /// `None`: it knows nothing of us.
    pub(in crate::producer) last: Result<Option<LastKnown>>,
}

/// The last batch of a producer that a leader knows in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastKnown {
    pub(in crate::producer) epoch: i32,
    pub(in crate::producer) sequence: i32,
}
