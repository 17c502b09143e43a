//! From an address to a ready connection: dial, version exchange, authentication, within one
//! set-up deadline.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::io::AsyncWriteExt;

use super::auth::{AuthExchange, Authenticator};
use super::connection::{Connection, Ready};
use super::frames::FrameReader;
use crate::config::Endpoint;
use crate::environment::{BoxFuture, Environment, Transport};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{self, Versions};
use crate::record::pool::ChunkPool;

/// Correlation id of the first request. Any number would do; as bytes this one is two line ends,
/// so that an HTTP server behind a mistaken port answers at once that it does not understand,
/// instead of waiting for the rest of a request line until the set-up times out.
const FIRST_CORRELATION: i32 = 0x0d0a_0d0a;

const UNSUPPORTED_VERSION: i16 = 35;

/// Nothing between the two is asked for.
const VERSIONS: (i16, i16) = protocol::bounded::<ApiVersionsRequest>(0, 3);

/// What every connection of a pool is opened with.
#[derive(Clone)]
pub(crate) struct SetupContext {
    pub(crate) env: Environment,
    pub(crate) client_id: String,
    pub(crate) software: (String, String),
    pub(crate) request_timeout: Duration,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) buffers: ChunkPool,
}

/// Opens a connection. `name` is what messages call the peer.
pub(crate) async fn open(
    ctx: &SetupContext,
    endpoint: &Endpoint,
    name: String,
    timeout: Duration,
    on_close: Box<dyn Fn() + Send + Sync>,
) -> Result<Connection> {
    match tokio::time::timeout(timeout, phases(ctx, endpoint, name.clone(), on_close)).await {
        Ok(result) => result,
        Err(_) => {
            Err(Error::new(ErrorKind::Connect, format!("{name}: no connection within {timeout:?}")))
        }
    }
}

async fn phases(
    ctx: &SetupContext,
    endpoint: &Endpoint,
    name: String,
    on_close: Box<dyn Fn() + Send + Sync>,
) -> Result<Connection> {
    let stream = ctx.env.dialer().dial(endpoint).await.map_err(|e| {
        let kind = match e.kind() {
            io::ErrorKind::NotFound => ErrorKind::Resolve,
            _ => ErrorKind::Connect,
        };
        Error::new(kind, format!("{name}: {e}"))
    })?;
    let mut raw = RawExchange {
        stream,
        reader: FrameReader::new(ctx.buffers.clone()),
        client_id: ctx.client_id.clone(),
        correlation: FIRST_CORRELATION,
        name,
    };
    let versions = raw.versions(ctx).await?;
    ctx.authenticator.authenticate(&mut raw).await.map_err(|e| e.context(&raw.name))?;
    Ok(Connection::start(
        &ctx.env,
        Ready {
            stream: raw.stream,
            reader: raw.reader,
            name: raw.name,
            versions,
            client_id: ctx.client_id.clone(),
            request_timeout: ctx.request_timeout,
            next_correlation: 1,
            on_close,
        },
    ))
}

/// One request at a time, before the connection is ready for pipelining.
struct RawExchange {
    stream: Box<dyn Transport>,
    reader: FrameReader,
    client_id: String,
    correlation: i32,
    name: String,
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
            let body = self.exchange(bytes).await.map_err(|e| {
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
            let answer: ApiVersionsResponse =
                protocol::decode_response::<ApiVersionsRequest>(version, body)
                    .map_err(|e| e.context(&self.name))?;
            if answer.error_code != 0 {
                return Err(Error::broker(answer.error_code, &self.name, None));
            }
            return Ok(Versions::new(
                answer.api_keys.iter().map(|a| (a.api_key, a.min_version, a.max_version)),
            ));
        }
        Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!("{}: the broker understands no version of ApiVersions", self.name),
        ))
    }

    async fn exchange(&mut self, request: Bytes) -> Result<Bytes> {
        let lost = |name: &str, e: io::Error| match e.kind() {
            io::ErrorKind::InvalidData => Error::new(ErrorKind::NotKafka, format!("{name}: {e}")),
            _ => Error::new(ErrorKind::Disconnected, format!("{name}: {e}")),
        };
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
            self.exchange(frame).await
        })
    }
}
