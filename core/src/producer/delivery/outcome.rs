//! The outcome of a batch: one event for each batch, at the moment its records resolve. Metrics count records
//! here and nowhere else.

use crate::error::Error;
use crate::metrics::{Metrics, event, limited};

/// A batch that is resolved, and how.
#[derive(Debug)]
pub(crate) struct Resolution<'a> {
    pub(in crate::producer) topic: &'a str,
    pub(in crate::producer) records: usize,
    /// Timestamps of the first record and of the latest one, in milliseconds since 1970.
    pub(in crate::producer) timestamps_ms: (i64, i64),
    pub(in crate::producer) outcome: Outcome<'a>,
}

#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    Acknowledged {
        broker: i32,
        partition: i32,
        /// -1: not known, as with acks 0 or a batch that the broker called a duplicate.
        base_offset: i64,
    },
    NotWritten(&'a Error),
    MaybeWritten(&'a Error),
}

impl<'a> Outcome<'a> {
    pub(crate) fn failed(error: &'a Error) -> Self {
        if error.maybe_written() { Self::MaybeWritten(error) } else { Self::NotWritten(error) }
    }
}

impl Metrics {
    /// A batch is resolved.
    pub(crate) fn resolved(&self, it: &Resolution<'_>) {
        match it.outcome {
            Outcome::Acknowledged { broker, partition, base_offset } => {
                self.broker(broker).acknowledged(it.records as u64);
                event!(
                    self.logs(), "ottla::producer", TRACE, topic = it.topic, partition, base_offset, records = it.records,
                    timestamps_ms = ?it.timestamps_ms, "acknowledged"
                );
            }
            Outcome::NotWritten(error) | Outcome::MaybeWritten(error) => {
                self.records_failed(it.records);
                limited!(
                    self.logs(), "ottla::producer", DEBUG, topic = it.topic, records = it.records,
                    timestamps_ms = ?it.timestamps_ms, maybe_written = error.maybe_written(),
                    error = %error.message(), "records failed"
                );
            }
        }
    }
}
