//! The fleet laboratory: thousands of real clients in one process and in virtual time.
//!
//! Every client is the crate `ottla` itself with an environment of its own, so that it is a process
//! of its own: its own pool, metadata, random draws. They meet the embedded brokers over a network in
//! memory that behaves like TCP where it matters (round trips, bandwidth, a listen backlog, resets,
//! black holes) and that sees every dial and every request. The runtime's clock is paused: hours pass
//! in seconds, and what happened when is exact, so that bounds can be asserted.
//!
//! - [`net`] is the network and the instrument.
//! - [`lab`] puts cluster, network and clients together; [`client`] is one client and its load;
//!   [`ledger`] counts what became of the records.
//! - [`experiments`] are scripts: a set-up, what happens, what is measured.
//! - [`report`] holds figures beside their targets, [`plot`] draws what happened over time.

pub mod client;
pub mod experiments;
pub mod holdings;
pub mod lab;
pub mod ledger;
pub mod net;
pub mod plot;
pub mod report;
