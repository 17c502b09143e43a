//! The seam for SASL: an authenticator runs between the version exchange and the first request.

use bytes::Bytes;

use crate::environment::BoxFuture;
use crate::error::Result;

/// A connection that is not ready yet, as an authenticator sees it: one request and its response at a time.
pub(crate) trait AuthExchange: Send {
    /// Sends a request body for `api_key` in the version the connection chose, gives the response's
    /// body.
    #[allow(dead_code, reason = "the seam for SASL; PLAINTEXT has nothing to exchange")]
    fn round_trip<'a>(
        &'a mut self,
        api_key: i16,
        version: i16,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes>>;
}

/// Proves to a broker who this client is.
pub(crate) trait Authenticator: Send + Sync {
    /// Authenticates a fresh connection. An error of kind `Authentication` fails what waits for
    /// this broker at once, with the broker's words.
    fn authenticate<'a>(&'a self, exchange: &'a mut dyn AuthExchange) -> BoxFuture<'a, Result<()>>;
}

/// For PLAINTEXT listeners: nothing to prove.
pub(crate) struct NoAuthentication;

impl Authenticator for NoAuthentication {
    fn authenticate<'a>(&'a self, _: &'a mut dyn AuthExchange) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
