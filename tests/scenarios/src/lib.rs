//! Scenarios: what a client must do when things go wrong, and that what it writes is what others
//! read.
//!
//! - [`records`]: the records of the interop matrix, and the file they travel in between languages.
//! - [`hostile`]: a dialer that damages answers.
//! - [`mishaps`]: panics of the engine, ordered by a test.
//! - [`interop`]: Ottla's own writer and reader, and other people's, behind one trait.
//! - [`console`]: Kafka's own writer and reader.
//! - [`process`]: other programs, run with a deadline.
//! - [`network`]: a network that a test can look at and spoil.
//! - [`seeds`]: model tests, a run for each seed.
//! - [`steps`]: steps that many scenarios share.
//! - [`wait`]: waiting for a condition with a deadline that fails with words.
//! - [`virtual_cluster`]: client and embedded cluster in one runtime, in virtual time.

pub mod console;
mod fewer;
pub mod hostile;
pub mod interop;
pub mod mishaps;
pub mod network;
pub mod process;
pub mod records;
pub mod seeds;
pub mod steps;
pub mod virtual_cluster;
pub mod wait;
pub mod warnings;
