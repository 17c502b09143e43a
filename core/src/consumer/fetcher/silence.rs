//! A broker that can be reached and does not answer a consumer's requests: its connections are set up, it may
//! answer everybody else, and as far as the pool knows nothing is wrong with it. When that is reported,
//! [`policy::silence`](crate::policy::silence) decides.

use std::time::Duration;

use tokio::time::Instant;

use super::Fetcher;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::metrics::limited;
use crate::net::Connection;

/// If the connection is not late when `patience` is over (this process was stopped, or the broker throttles),
/// it is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The request that a leader does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fetch,
    ListOffsets,
}

impl Fetcher {
    /// The request that was sent at `sent` has no response yet (`overdue`), or its connection has ended.
    pub(super) fn unanswered(
        &mut self,
        leader: i32,
        kind: Kind,
        sent: Instant,
        overdue: bool,
        error: &Error,
        now: Instant,
    ) {
        // `troubles` reports this broker already.
        if self.pool.trouble_with(leader, now).is_some_and(|trouble| !trouble.is_outage) {
            return;
        }
        let source = self.sources.entry(leader).or_default();
        let silence = match kind {
            Kind::Fetch => &mut source.silence,
            Kind::ListOffsets => &mut source.starts_silence,
        };
        let says = silence.unanswered(sent, overdue, now);
        if says.log {
            limited!(self.pool.metrics().logs(), "ottla::consumer", WARN, broker = leader, error = %error.message(), "a broker does not answer");
        }
        if says.tell {
            self.buffer.fail(error.clone());
        }
    }

    /// The same for a request that failed, if it failed without a response. An error code is a response, and a
    /// broker that cannot be reached was not asked.
    pub(super) fn failed_unanswered(
        &mut self,
        leader: i32,
        kind: Kind,
        sent: Instant,
        error: &Error,
        now: Instant,
    ) {
        let overdue = match error.kind() {
            ErrorKind::Timeout => true,
            ErrorKind::Disconnected => false,
            _ => return,
        };
        if error.broker_code().is_some() {
            return;
        }
        let mut told = error.context(format_args!("no answer to {kind:?}"));
        // A connection that began as one of the bootstrap list's does not name it.
        let name = self.pool.broker(leader).map(|broker| broker.name());
        if let Some(name) = name.filter(|name| !error.message().contains(name)) {
            told = told.context(name);
        }
        self.unanswered(leader, kind, sent, overdue, &told, now);
    }
}

/// Waits until the oldest request of the connection is unanswered for longer than `patience`. Time in which
/// this process was stopped does not count, nor time in which the broker throttles.
pub(super) async fn overdue(env: &Environment, connection: &Connection, patience: Duration) {
    env.sleep(patience).await;
    while !connection.is_late(patience, env.now()) {
        env.sleep(LOOK_AGAIN).await;
    }
}

/// The error for it; `of`: what was asked for.
pub(super) fn no_response(connection: &Connection, of: &str, patience: Duration) -> Error {
    let words = format!("{}: no answer to Fetch for {patience:?}{of}", connection.name());
    Error::new(ErrorKind::Timeout, words).advise(LOOK_THERE)
}

const LOOK_THERE: &str =
    "look at the broker's load and log: it can be reached, and does not answer";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::by_hand::connection;

    /// A process that was stopped looks at its sockets late: what it waits for has come, or is about to.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_overdue_on_a_connection_that_is_not_late() {
        let env = Environment::builder().runtime(tokio::runtime::Handle::current()).build();
        let (connection, _peer) = connection(&env, 1);
        let patience = Duration::from_secs(10);
        let waits = tokio::time::timeout(10 * patience, overdue(&env, &connection, patience));
        assert!(waits.await.is_err(), "nothing is unanswered");
    }
}
