//! What a host with an event loop of its own asks of clients, producers and deliveries, besides what everybody asks.

use std::task::Waker;

use tokio::time::Instant;

use crate::client::{Client, ClientBuilder};
use crate::error::Result;
use crate::producer::{Delivery, Producer, Record};
use crate::record::builder::HeaderList;

/// The client at once, without contacting anyone, and what to wait for until a broker has answered: as
/// [`ClientBuilder::connect`] waits.
///
/// # Errors
/// As [`ClientBuilder::build`].
pub fn connect_later(
    builder: ClientBuilder,
) -> Result<(Client, impl Future<Output = Result<()>> + Send + 'static)> {
    builder.build_and_connect()
}

/// Until when a call of [`Producer::send`] may wait for buffer space that begins now.
pub fn space_deadline(producer: &Producer) -> Instant {
    producer.space_deadline()
}

type Bytes = Box<[u8]>;

/// A record that owns what it has, for who has to wait with it.
pub struct OwnedRecord {
    topic: Box<str>,
    partition: Option<i32>,
    timestamp_ms: Option<i64>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(Bytes, Option<Bytes>)>,
}

impl OwnedRecord {
    /// A copy of a record.
    pub fn of(record: &Record<'_>) -> Self {
        let headers =
            record.headers.iter().map(|(name, value)| (name.into(), value.map(Box::from)));
        Self {
            topic: record.topic.into(),
            partition: record.partition,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(Box::from),
            value: record.value.map(Box::from),
            headers: headers.collect(),
        }
    }

    /// As [`Producer::send`], with the end of the wait named: for calls that wait in a line of the host's before.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_until(&self, producer: &Producer, deadline: Instant) -> Result<Delivery> {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        let record = Record {
            topic: &self.topic,
            partition: self.partition,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: HeaderList::Raw(&headers),
        };
        producer.send_until(record, deadline).await
    }
}

/// A number of the batch that the record is in; equal for all records of it, and no other batch has it that is not
/// resolved. `None` if the record's result is there. So who waits for many records waits for few batches.
pub fn batch_of(delivery: &Delivery) -> Option<u32> {
    delivery.batch()
}

/// Wakes `waker`, once, when the batch of this record is resolved or the record has come into another one: then it is to be
/// looked at again. Any number of wakers may watch one batch. `false` if there is nothing to wait for: the result is there,
/// also that this is a forked child.
pub fn watch(delivery: &Delivery, waker: Waker) -> bool {
    delivery.watch(waker)
}

/// Another handle of the same record, for who watches it while the application has its own. It must not be polled: a
/// record has one waker.
pub fn another(delivery: &Delivery) -> Delivery {
    delivery.another()
}
