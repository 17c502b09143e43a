//! One connection to one broker: opening it ([`setup`]), its phases (dial, TLS, versions,
//! login), and then a task that pipelines requests and matches responses.

#[cfg(test)]
pub(crate) mod by_hand;
mod connection;
mod exchange;
pub(crate) mod frames;
mod renewal;
mod sasl;
mod setup;

pub(crate) use connection::{CallError, CloseReason, Connection, Frame, OnClose, Vouch};
pub(crate) use setup::{SetupContext, Target, open};
