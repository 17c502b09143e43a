//! The seam for SASL. An [`Authenticator`] knows who this client is, and gets ready what takes time before a
//! connection is dialled; a [`Mechanism`] is one login on one connection, without I/O. What frames its messages
//! (`net/sasl.rs`) is the same for all of them.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::config::Endpoint;
use crate::environment::BoxFuture;
use crate::error::Result;
use crate::metrics::Metrics;

/// What a login does next.
pub(crate) enum Step {
    /// Send this to the broker, and give what it answers to [`Mechanism::step`].
    Send(Zeroizing<Vec<u8>>),
    /// Run this where it keeps nobody waiting, then give the same challenge again.
    Compute(Box<dyn FnOnce() + Send>),
    /// The broker has accepted, and has shown what it had to show.
    Done,
}

impl Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The message may hold a password.
        f.write_str(match self {
            Self::Send(_) => "Send",
            Self::Compute(_) => "Compute",
            Self::Done => "Done",
        })
    }
}

/// One login on one connection.
pub(crate) trait Mechanism: Send {
    /// Its name as Kafka has it.
    fn name(&self) -> &'static str;

    /// What to do with the broker's message; the first one is empty.
    ///
    /// # Errors
    /// `Authentication` if the message is not what this mechanism allows.
    fn step(&mut self, challenge: &[u8]) -> Result<Step>;

    /// The broker has answered with an error. Gives what it had said before that, if a mechanism has a place for it.
    fn refused(&mut self) -> Option<String> {
        None
    }

    /// The broker has accepted a login whose last message was written at `since`, for a session of this life, if it has an
    /// end.
    fn accepted(&mut self, since: Instant, life: Option<Duration>) {
        let _ = (since, life);
    }
}

/// What a login is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A connection that is to be opened.
    Login,
    /// A session that ends soon: what ends as soon is of little use for it.
    Renewal,
}

/// Proves to brokers who this client is.
pub(crate) trait Authenticator: Send + Sync {
    /// Its mechanism's name as Kafka has it.
    fn mechanism(&self) -> &'static str;

    /// Whether the password, or a token, crosses the network as it is.
    fn shows_its_secret(&self) -> bool;

    /// Whatever a login at `peer` needs that takes time or asks others (a token, a ticket), before the dial. An
    /// error here is not the broker's: no broker is blamed for it.
    fn prepare<'a>(
        &'a self,
        peer: &'a Endpoint,
        need: Need,
        metrics: &'a Arc<Metrics>,
    ) -> BoxFuture<'a, Result<Box<dyn Mechanism>>>;
}
