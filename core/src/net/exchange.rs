//! One request and its response at a time, on a connection that is not ready for pipelining: the versions of the
//! broker, and a login.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::io::AsyncWriteExt;

use super::frames::FrameReader;
use crate::environment::{Environment, Transport};
use crate::error::names::{NONE, UNSUPPORTED_VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Api, BrokerMetrics};
use crate::protocol::{self, Versions};
use crate::security::Guard;
use crate::security::tls::alerted;

/// Correlation id of the first request. Any number would do; as bytes this one is two line ends,
/// so that an HTTP server behind a mistaken port answers at once that it does not understand,
/// instead of waiting for the rest of a request line until the set-up times out.
pub(super) const FIRST_CORRELATION: i32 = 0x0d0a_0d0a;

/// Nothing between the two is asked for.
const VERSIONS: (i16, i16) = protocol::bounded::<ApiVersionsRequest>(0, 3);

const USE_TLS: &str = "set tls for this listener, or use the port of one without TLS";

/// See the module.
pub(super) struct Exchange {
    pub(super) stream: Box<dyn Transport>,
    pub(super) reader: FrameReader,
    pub(super) client_id: String,
    pub(super) correlation: i32,
    /// The peer's name in messages.
    pub(super) name: String,
    pub(super) env: Environment,
    pub(super) metrics: Arc<BrokerMetrics>,
    pub(super) guard: Arc<Guard>,
    /// The peer has answered something.
    pub(super) answered: bool,
}

impl Exchange {
    pub(super) async fn versions(&mut self, software: &(String, String)) -> Result<Versions> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_string(software.0.clone()))
            .with_client_software_version(StrBytes::from_string(software.1.clone()));
        // A broker that does not know the version answers error 35 in the layout of version 0, or
        // in the layout asked for; so the code alone is read, and version 0 asked next.
        for version in [VERSIONS.1, VERSIONS.0] {
            let bytes =
                protocol::encode_request(version, self.correlation, &self.client_id, &request)?;
            let body = self.exchange(Api::ApiVersions, &bytes).await.map_err(|e| {
                // A TLS listener, and much else that is not Kafka, hangs up on the first bytes.
                match e.kind() {
                    ErrorKind::Disconnected if self.guard.tls().is_none() => Error::new(
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
            let response: ApiVersionsResponse = self.read::<ApiVersionsRequest>(version, body)?;
            if response.error_code != NONE {
                return Err(Error::broker(response.error_code, &self.name, None));
            }
            let ranges = response.api_keys.iter();
            let ranges = ranges.map(|a| (a.api_key, a.min_version, a.max_version));
            let features = response.finalized_features.iter();
            let features = features.map(|f| (f.name.as_str(), f.max_version_level));
            return Ok(Versions::new(ranges).with_features(features));
        }
        Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!("{}: the broker understands no version of ApiVersions", self.name),
        ))
    }

    /// Sends a request, which may have a secret of so many bytes in it, and reads its response.
    pub(super) async fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        secret: usize,
    ) -> Result<R::Response> {
        let (correlation, client_id) = (self.correlation, &self.client_id);
        let bytes = protocol::encode_secret(version, correlation, client_id, request, secret)?;
        let body = self.exchange(Api::from_key(R::KEY), &bytes).await?;
        self.read::<R>(version, body)
    }

    fn read<R: Request>(&self, version: i16, body: Bytes) -> Result<R::Response> {
        let (response, left_over) =
            protocol::decode_response::<R>(version, body).map_err(|e| e.context(&self.name))?;
        if left_over > 0 {
            self.metrics.left_over(R::KEY, version, left_over);
        }
        Ok(response)
    }

    async fn exchange(&mut self, api: Api, request: &[u8]) -> Result<Bytes> {
        let sent = self.metrics.sent(api, request.len(), false, self.env.now());
        let frame = match self.write_and_read(request).await {
            Ok(frame) => frame,
            Err(e) => return Err(self.lost(&e)),
        };
        if frame.len() < 4 || frame[..4] != self.correlation.to_be_bytes() {
            return Err(Error::new(
                ErrorKind::NotKafka,
                format!("{}: the first answer has a wrong correlation id", self.name),
            ));
        }
        sent.answered(frame.len(), self.env.now());
        self.answered = true;
        self.correlation = self.correlation.wrapping_add(1);
        Ok(frame.slice(4..))
    }

    async fn write_and_read(&mut self, request: &[u8]) -> io::Result<Bytes> {
        let Self { stream, reader, .. } = self;
        let written = async {
            stream.write_all(request).await?;
            stream.flush().await
        };
        let Err(broken) = written.await else {
            return poll_fn(|cx| reader.poll_frame(&mut **stream, cx)).await;
        };
        // A peer that hung up may have said why before.
        let said = poll_fn(|cx| Poll::Ready(reader.poll_frame(&mut **stream, cx))).await;
        match said {
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::InvalidData => Err(e),
            _ => Err(broken),
        }
    }

    fn lost(&self, e: &io::Error) -> Error {
        let name = &self.name;
        if let Some(tls) = self.guard.tls()
            && let Some(error) = alerted(tls, name, e)
        {
            return if self.answered {
                Error::new(ErrorKind::Disconnected, error.message())
            } else {
                error
            };
        }
        match e.kind() {
            io::ErrorKind::InvalidData => {
                let error = Error::new(ErrorKind::NotKafka, format!("{name}: {e}"));
                let is_tls = self.guard.tls().is_none() && e.to_string().contains("TLS");
                if is_tls { error.advise(USE_TLS) } else { error }
            }
            io::ErrorKind::UnexpectedEof => {
                let words = format!("{name}: the peer closed the connection");
                Error::new(ErrorKind::Disconnected, words)
            }
            _ => Error::new(ErrorKind::Disconnected, format!("{name}: {e}")),
        }
    }
}
