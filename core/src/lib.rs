//! Ottla: a Kafka client that behaves well.

pub mod engine;
mod error;

pub use error::{Error, ErrorKind, Result};
