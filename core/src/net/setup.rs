//! From an address to a ready connection: dial, TLS, version exchange, login, within one set-up deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tracing::Instrument;

use super::connection::{Connection, OnClose, Ready};
use super::exchange::{Exchange, FIRST_CORRELATION};
use super::frames::FrameReader;
use super::renewal::Renewal;
use super::sasl;
use crate::config::{Caller, Endpoint, MAX_FRAME, MAX_SETUP_FRAME};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{BrokerMetrics, DialFailure, Metrics};
use crate::protocol::Versions;
use crate::record::pool::ChunkPool;
use crate::security::{Guard, Prepared, tls};

/// What all connections of a pool have in common when they are opened.
#[derive(Clone)]
pub(crate) struct SetupContext {
    pub(crate) env: Environment,
    /// The client that made the pool: the requests of the set-up carry its client id.
    pub(crate) caller: Arc<Caller>,
    pub(crate) software: (String, String),
    pub(crate) guard: Arc<Guard>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) buffers: ChunkPool,
}

/// One dial.
pub(crate) struct Target<'a> {
    /// Number of the connection, in the pool.
    pub(crate) id: u64,
    pub(crate) endpoint: &'a Endpoint,
    /// The peer's name in messages.
    pub(crate) name: String,
    /// For everything up to the ready connection.
    pub(crate) timeout: Duration,
    pub(crate) broker: &'a Arc<BrokerMetrics>,
    /// It takes the place of one that was lost.
    pub(crate) reconnect: bool,
    /// What was got ready for it.
    pub(crate) prepared: Prepared,
}

/// Opens a connection.
pub(crate) async fn open(
    ctx: &SetupContext,
    target: Target<'_>,
    on_close: OnClose,
) -> Result<Connection, (DialFailure, Error)> {
    let Target { id, endpoint, name, timeout, broker, reconnect, prepared } = target;
    let dialing = broker.dialed(ctx.env.now());
    let phases = phases(ctx, endpoint, name.clone(), broker, prepared);
    let phases = phases.instrument(broker.connect_span(endpoint));
    match ctx.env.within(timeout, phases).await {
        Some(Ok(SetUp { exchange, versions, round_trip, guard, renewal })) => {
            Ok(Connection::start(
                &ctx.env,
                Ready {
                    id,
                    stream: exchange.stream,
                    reader: exchange.reader,
                    name: exchange.name,
                    versions,
                    round_trip,
                    caller: Arc::clone(&ctx.caller),
                    // Jittered: what was opened together is not closed together.
                    idle_share: ctx.env.rng().random_range(0.8..1.0),
                    next_correlation: 1,
                    guard,
                    renewal,
                    on_close,
                    metrics: dialing.connected(reconnect, ctx.env.now()),
                },
            ))
        }
        Some(Err((why, e))) => {
            dialing.failed(why, &e);
            Err((why, e))
        }
        None => {
            let words = format!("{name}: no connection within {timeout:?}");
            let e = Error::new(ErrorKind::Connect, words);
            dialing.failed(DialFailure::TimedOut, &e);
            Err((DialFailure::TimedOut, e))
        }
    }
}

/// A connection on which everything but its task is there.
struct SetUp {
    exchange: Exchange,
    versions: Versions,
    round_trip: Duration,
    guard: Option<Arc<Guard>>,
    renewal: Option<Box<Renewal>>,
}

async fn phases(
    ctx: &SetupContext,
    endpoint: &Endpoint,
    name: String,
    broker: &Arc<BrokerMetrics>,
    prepared: Prepared,
) -> Result<SetUp, (DialFailure, Error)> {
    let other = |e| (DialFailure::Other, e);
    let began = ctx.env.now();
    ctx.env.mishap("dial");
    let mut stream = ctx.env.dialer().dial(endpoint).await.map_err(|e| {
        let kind = match e.kind() {
            _ if is_used_up(&e) => {
                // The connection of any pool that is of least use is closed before the next attempt.
                ctx.env.make_room();
                ErrorKind::OutOfResources
            }
            io::ErrorKind::NotFound => ErrorKind::Resolve,
            _ => ErrorKind::Connect,
        };
        (DialFailure::of(&e), Error::new(kind, format!("{name}: {e}")))
    })?;
    let dialled = ctx.env.now();
    if let (Some(plan), Some(settings)) = (prepared.tls, ctx.guard.tls()) {
        stream = tls::wrap(stream, plan, settings, endpoint, &name).await.map_err(other)?;
    }
    let wrapped = ctx.env.now();
    let mut exchange = Exchange {
        stream,
        // Whoever is not known yet takes no memory.
        reader: FrameReader::new(ctx.buffers.clone()).at_most(MAX_SETUP_FRAME),
        client_id: ctx.caller.client_id.clone(),
        correlation: FIRST_CORRELATION,
        name,
        env: ctx.env.clone(),
        metrics: Arc::clone(broker),
        guard: Arc::clone(&ctx.guard),
        answered: false,
    };
    let versions = exchange.versions(&ctx.software).await.map_err(other)?;
    // Looking the name up may take longer than the way, and so may a broker with much to do.
    let round_trip = (dialled - began).min(ctx.env.now() - wrapped);
    let guard = prepared.login.is_some().then(|| Arc::clone(&ctx.guard));
    let session = match prepared.login {
        Some(login) => {
            let outcome = sasl::log_in(&mut exchange, &versions, login).await;
            let now = ctx.env.now();
            let session = outcome.map_err(|e| other(ctx.guard.judge(e, now)))?;
            ctx.guard.taken(now);
            session
        }
        None => None,
    };
    let renewal = session.map(|session| Renewal::new(ctx, endpoint, &versions, session));
    exchange.reader = exchange.reader.at_most(MAX_FRAME);
    Ok(SetUp { exchange, versions, round_trip, guard, renewal })
}

/// Whether a dial failed because this process or machine has no descriptors or memory left.
fn is_used_up(e: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let used_up = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::AGAIN];
        Errno::from_io_error(e).is_some_and(|e| used_up.contains(&e))
    }
    #[cfg(not(unix))]
    {
        e.kind() == io::ErrorKind::OutOfMemory
    }
}

#[cfg(test)]
mod tests;
