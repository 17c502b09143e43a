//! The sender's inbox: what producers tell it, and how the tasks that it has started have ended. It stands
//! here, below the sender, because producers put `Ready` into it.

use std::sync::Arc;

use kafka_protocol::messages::ProduceResponse;

use super::Accumulator;
use super::batch_queue::BatchQueue;
use super::topic::TopicBatches;
use crate::error::{Error, Result};
use crate::net::{CallError, Connection};

/// Something that the sender acts on.
pub(crate) enum Event {
    /// A queue holds a batch.
    Ready(Arc<Accumulator>, Arc<TopicBatches>, Arc<BatchQueue>),
    /// Look at the queues again: a flush, or a caller that waits for memory, lets no batch linger; or the state
    /// of a leader has changed.
    Pressure,
    /// The lane to a leader is open, or could not be opened.
    Lane(i32, Result<Connection>),
    /// The request with this id is answered, or never will be. `None`: acks=0, the request was written to the
    /// socket and gets no response.
    Response(u64, Result<Option<ProduceResponse>, CallError>),
    /// The incarnation of the cluster that was asked, and the producer id.
    ProducerId(u64, Result<i64>),
    /// The last batch of this producer id that a leader knows in a partition.
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
    /// The incarnation of the cluster that was asked.
    pub(in crate::producer) of: u64,
    /// The first id of the sender that asked: a result that was asked for by a sender that has panicked
    /// is ignored.
    pub(in crate::producer) asked_by: u64,
    /// `None`: the leader knows no batch of this producer id.
    pub(in crate::producer) last: Result<Option<LastKnown>>,
}

/// The last batch of a producer that a leader knows in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastKnown {
    pub(in crate::producer) epoch: i32,
    pub(in crate::producer) sequence: i32,
}
