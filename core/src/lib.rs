//! Ottla: a Kafka client that behaves well.
#![forbid(unsafe_code)]

#[allow(dead_code, unused_imports, reason = "read by the producer and the consumer")]
mod record;
