//! A relay between clients and real brokers: the path breaks, and the cluster does not notice.
//!
//! Brokers advertise its ports to clients and keep a listener of their own for each other and for
//! tools ([`RelayedCluster`]). So a broker may be unreachable, black-holed or reset for clients and
//! yet go on as leader, which is what no signal to a broker can show.
//!
//! 1. [`frames`] reads as much of Kafka's frames as is needed.
//! 2. [`log`] is what was seen, and responses questions about it.
//! 3. `passage` is one connection; [`relay`] the listening sockets, and what it can be told.
//! 4. [`load`] is many clients that send a little each, and what became of every record.

pub mod frames;
pub mod load;
pub mod log;
mod passage;
pub mod relay;

mod cluster;

pub use cluster::RelayedCluster;
pub use log::{End, Event, Log, What};
pub use relay::{Relay, Target};
