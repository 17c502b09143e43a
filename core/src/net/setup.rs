//! From an address to a ready connection: dial, version exchange, authentication, within one
//! set-up deadline.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Request, StrBytes};
use rand::RngExt;
use tokio::io::AsyncWriteExt;
use tracing::Instrument;

use super::auth::{AuthExchange, Authenticator};
use super::connection::{Connection, OnClose, Ready};
use super::frames::FrameReader;
use crate::config::{Caller, Endpoint};
use crate::environment::{BoxFuture, Environment, Transport};
use crate::error::names::{NONE, UNSUPPORTED_VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Api, BrokerMetrics, DialFailure};
use crate::protocol::{self, Versions};
use crate::record::pool::ChunkPool;

/// Correlation id of the first request. Any number would do; as bytes this one is two line ends,
/// so that an HTTP server behind a mistaken port answers at once that it does not understand,
/// instead of waiting for the rest of a request line until the set-up times out.
const FIRST_CORRELATION: i32 = 0x0d0a_0d0a;

/// Nothing between the two is asked for.
const VERSIONS: (i16, i16) = protocol::bounded::<ApiVersionsRequest>(0, 3);

/// What all connections of a pool have in common when they are opened.
#[derive(Clone)]
pub(crate) struct SetupContext {
    pub(crate) env: Environment,
    /// The client that made the pool: the requests of the set-up carry its client id.
    pub(crate) caller: Arc<Caller>,
    pub(crate) software: (String, String),
    pub(crate) authenticator: Arc<dyn Authenticator>,
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
}

/// Opens a connection.
pub(crate) async fn open(
    ctx: &SetupContext,
    target: Target<'_>,
    on_close: OnClose,
) -> Result<Connection, (DialFailure, Error)> {
    let Target { id, endpoint, name, timeout, broker, reconnect } = target;
    let dialing = broker.dialed(ctx.env.now());
    let phases = phases(ctx, endpoint, name.clone(), broker);
    let phases = phases.instrument(broker.connect_span(endpoint));
    match ctx.env.within(timeout, phases).await {
        Some(Ok((raw, versions, round_trip))) => Ok(Connection::start(
            &ctx.env,
            Ready {
                id,
                stream: raw.stream,
                reader: raw.reader,
                name: raw.name,
                versions,
                round_trip,
                caller: Arc::clone(&ctx.caller),
                // Jittered: what was opened together is not closed together.
                idle_share: ctx.env.rng().random_range(0.8..1.0),
                next_correlation: 1,
                on_close,
                metrics: dialing.connected(reconnect, ctx.env.now()),
            },
        )),
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

async fn phases(
    ctx: &SetupContext,
    endpoint: &Endpoint,
    name: String,
    broker: &Arc<BrokerMetrics>,
) -> Result<(RawExchange, Versions, Duration), (DialFailure, Error)> {
    let began = ctx.env.now();
    ctx.env.mishap("dial");
    let stream = ctx.env.dialer().dial(endpoint).await.map_err(|e| {
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
    let mut raw = RawExchange {
        stream,
        reader: FrameReader::new(ctx.buffers.clone()),
        client_id: ctx.caller.client_id.clone(),
        correlation: FIRST_CORRELATION,
        name,
        env: ctx.env.clone(),
        metrics: Arc::clone(broker),
    };
    let other = |e| (DialFailure::Other, e);
    let dialled = ctx.env.now();
    let versions = raw.versions(ctx).await.map_err(other)?;
    // Looking the name up may take longer than the way, and so may a broker with much to do.
    let round_trip = (dialled - began).min(ctx.env.now() - dialled);
    ctx.authenticator.authenticate(&mut raw).await.map_err(|e| other(e.context(&raw.name)))?;
    Ok((raw, versions, round_trip))
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

/// One request at a time, before the connection is ready for pipelining.
struct RawExchange {
    stream: Box<dyn Transport>,
    reader: FrameReader,
    client_id: String,
    correlation: i32,
    name: String,
    env: Environment,
    metrics: Arc<BrokerMetrics>,
}

impl RawExchange {
    async fn versions(&mut self, ctx: &SetupContext) -> Result<Versions> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_string(ctx.software.0.clone()))
            .with_client_software_version(StrBytes::from_string(ctx.software.1.clone()));
        // A broker that does not know the version answers error 35 in the layout of version 0, or
        // in the layout asked for; so the code alone is read, and version 0 asked next.
        for version in [VERSIONS.1, VERSIONS.0] {
            let bytes =
                protocol::encode_request(version, self.correlation, &self.client_id, &request)?;
            let body = self.exchange(Api::ApiVersions, bytes).await.map_err(|e| {
                // A TLS listener, and much else that is not Kafka, hangs up on the first bytes.
                match e.kind() {
                    ErrorKind::Disconnected => Error::new(
                        ErrorKind::NotKafka,
                        format!(
                            "{}: the peer closed the connection instead of answering the first \
                             request; it may expect TLS",
                            self.name
                        ),
                    ),
                    _ => e,
                }
            })?;
            if body.len() >= 2 && i16::from_be_bytes([body[0], body[1]]) == UNSUPPORTED_VERSION {
                continue;
            }
            let (response, left_over): (ApiVersionsResponse, usize) =
                protocol::decode_response::<ApiVersionsRequest>(version, body)
                    .map_err(|e| e.context(&self.name))?;
            if left_over > 0 {
                self.metrics.left_over(ApiVersionsRequest::KEY, version, left_over);
            }
            if response.error_code != NONE {
                return Err(Error::broker(response.error_code, &self.name, None));
            }
            return Ok(Versions::new(
                response.api_keys.iter().map(|a| (a.api_key, a.min_version, a.max_version)),
            ));
        }
        Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!("{}: the broker understands no version of ApiVersions", self.name),
        ))
    }

    async fn exchange(&mut self, api: Api, request: Bytes) -> Result<Bytes> {
        let lost = |name: &str, e: io::Error| match e.kind() {
            io::ErrorKind::InvalidData => Error::new(ErrorKind::NotKafka, format!("{name}: {e}")),
            _ => Error::new(ErrorKind::Disconnected, format!("{name}: {e}")),
        };
        let sent = self.metrics.sent(api, request.len(), false, self.env.now());
        self.stream.write_all(&request).await.map_err(|e| lost(&self.name, e))?;
        self.stream.flush().await.map_err(|e| lost(&self.name, e))?;
        let Self { stream, reader, .. } = self;
        let frame = poll_fn(|cx| reader.poll_frame(&mut **stream, cx))
            .await
            .map_err(|e| lost(&self.name, e))?;
        if frame.len() < 4 || frame[..4] != self.correlation.to_be_bytes() {
            return Err(Error::new(
                ErrorKind::NotKafka,
                format!("{}: the first answer has a wrong correlation id", self.name),
            ));
        }
        sent.answered(frame.len(), self.env.now());
        self.correlation = self.correlation.wrapping_add(1);
        Ok(frame.slice(4..))
    }
}

impl AuthExchange for RawExchange {
    fn round_trip<'a>(
        &'a mut self,
        api_key: i16,
        version: i16,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let frame =
                protocol::frame_raw(api_key, version, self.correlation, &self.client_id, &body);
            self.exchange(Api::from_key(api_key), frame).await
        })
    }
}

#[cfg(test)]
mod tests;
