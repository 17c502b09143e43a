//! A whole cluster seen from outside, through the raw protocol.
//!
//! Most tests run brokers and client in one runtime, over in-memory streams and in paused time:
//! then "never answers" is a fact after an hour that takes no time, and every run is the same.

mod acls;
mod client;
mod consumer_groups;
mod faults;
mod fetch;
mod followers;
mod group_client;
mod group_conversions;
mod group_moves;
mod group_offsets;
mod groups;
mod hostile;
mod leaders;
mod lifecycle;
mod price;
mod replication;
mod requests;
mod retention;
mod sasl;
mod sessions;
mod static_members;
mod streams;
mod tls;
mod topics;
mod transactions;
mod versions;
