//! One connection to one broker: opening it ([`setup`]), its phases (dial, versions,
//! authentication, ready), and then a task that pipelines requests and matches responses.

mod auth;
#[cfg(test)]
pub(crate) mod by_hand;
mod connection;
pub(crate) mod frames;
mod setup;

pub(crate) use auth::NoAuthentication;
pub(crate) use connection::{CallError, CloseReason, Connection, Frame, OnClose, Vouch};
pub(crate) use setup::{SetupContext, Target, open};
