//! Ottla: a Kafka client that behaves well.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "read by the producer and the consumer")]
mod record;

pub use record::{Compression, Headers, RecordBatch, RecordIter, RecordPosition, RecordRef};
