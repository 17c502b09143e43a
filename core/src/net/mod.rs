//! One connection to one broker: opening it ([`setup`]), its phases (dial, versions,
//! authentication, ready), and then a task that pipelines requests and matches answers.

mod auth;
#[cfg(test)]
pub(crate) mod by_hand;
mod caller;
mod connection;
pub(crate) mod frames;
mod setup;
mod tcp;

pub(crate) use auth::NoAuthentication;
pub(crate) use caller::Caller;
pub(crate) use connection::{CallError, Connection, Ending, Frame, OnClose, Vouch};
pub(crate) use setup::{SetupContext, Target, open};
pub(crate) use tcp::Tcp;
pub use tcp::TcpDialer;
