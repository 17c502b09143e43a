//! Who this client is, and how nobody on the way reads along: TLS and SASL. Pure but for the look at files; what
//! goes over the wire is framed and sent by `net`.
//!
//! A connection's set-up asks [`Guard::prepare`] first, before it dials: for what takes time or comes from others. Then
//! come [`tls::wrap`] around the stream, and one [`Mechanism`] on it.

#[cfg(feature = "fuzz-internals")]
pub(crate) mod fuzzed;
mod identity;
pub(crate) mod jaas;
mod mechanism;
mod oauth;
mod place;
mod plain;
mod sasl;
mod scram;
mod secret;
pub(crate) mod tls;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Endpoint;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Logs, Metrics, event};

use identity::Feed;
pub(crate) use identity::SecurityKey;
use mechanism::Authenticator;
pub(crate) use mechanism::{Mechanism, Need, Step};
pub(crate) use oauth::PROVIDER_TIMEOUT;
pub use oauth::{ClientCredentials, OAuth, Token, TokenError, TokenProvider};
pub use sasl::Sasl;
pub use secret::Secret;
pub use tls::{Pem, Tls, Verify};

/// Credentials that a broker answered to a while ago are good still: brokers learn of changed passwords one after the other, and one
/// that starts may not know any yet.
const TRUSTED_FOR: Duration = Duration::from_secs(600);

/// The security settings of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    pub(crate) tls: Option<Tls>,
    pub(crate) sasl: Option<Sasl>,
}

impl Security {
    pub(crate) fn check(&self) -> Result<()> {
        self.tls.as_ref().map_or(Ok(()), Tls::check)?;
        self.sasl.as_ref().map_or(Ok(()), Sasl::check)
    }

    /// Kafka's name for the protocol of the listener that these settings are for.
    pub(crate) fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        }
    }

    /// Equal for settings whose connections can be shared.
    pub(crate) fn key(&self) -> SecurityKey {
        let mut feed = Feed::new();
        feed.field("protocol", self.protocol().as_bytes());
        if let Some(tls) = &self.tls {
            tls.feed(&mut feed);
        }
        if let Some(sasl) = &self.sasl {
            sasl.feed(&mut feed);
        }
        feed.done()
    }
}

/// The security of a pool's connections.
pub(crate) struct Guard {
    tls: Option<tls::Connector>,
    authenticator: Option<Arc<dyn Authenticator>>,
    /// Where a secret is sent as it is, besides the brokers.
    open_endpoint: Option<String>,
    env: Environment,
    /// When a broker took the credentials last, or answered on a connection that they had opened, in the environment's
    /// microseconds; 0: never.
    taken_us: AtomicU64,
    /// That the password crosses the network as it is was told.
    warned: AtomicBool,
}

/// What one connection needs.
#[derive(Default)]
pub(crate) struct Prepared {
    pub(crate) tls: Option<tls::Plan>,
    pub(crate) login: Option<Box<dyn Mechanism>>,
}

impl Guard {
    /// # Errors
    /// `Config` if files are missing or do not fit.
    pub(crate) fn new(settings: &Security, env: &Environment) -> Result<Self> {
        let tls = settings.tls.as_ref().map(|tls| tls::Connector::new(tls, env)).transpose()?;
        let authenticator =
            settings.sasl.as_ref().map(|sasl| sasl.authenticator(env)).transpose()?;
        Ok(Self {
            tls,
            authenticator,
            open_endpoint: settings.sasl.as_ref().and_then(Sasl::open_endpoint),
            env: env.clone(),
            taken_us: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        })
    }

    /// Warns of what leaves secrets or records open to others. Once, when a pool is made.
    pub(crate) fn warn(&self, bootstrap: &[Endpoint], metrics: &Metrics) {
        let logs = metrics.logs();
        if self.tls().is_some_and(|tls| tls.verifies() == Verify::None) {
            metrics.tls_unverified();
            event!(
                logs,
                "ottla::net",
                WARN,
                "certificates of brokers are not verified: anybody on the way can read and change everything"
            );
        }
        if let Some(endpoint) = &self.open_endpoint {
            event!(
                logs,
                "ottla::net",
                WARN,
                endpoint = endpoint.as_str(),
                "the client's secret crosses the network as it is: use https"
            );
        }
        for endpoint in bootstrap {
            self.warn_of(endpoint, logs);
        }
    }

    /// The same of a broker at this place, which others may have named.
    fn warn_of(&self, to: &Endpoint, logs: &Logs) {
        if let Some(authenticator) = &self.authenticator
            && authenticator.shows_its_secret()
            && self.tls.is_none()
            && !to.is_loopback()
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            event!(
                logs,
                "ottla::net",
                WARN,
                mechanism = authenticator.mechanism(),
                "the password or token crosses the network as it is: use TLS"
            );
        }
    }

    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref().map(tls::Connector::settings)
    }

    /// Before a dial. An error is none of the broker's.
    pub(crate) async fn prepare(
        &self,
        env: &Environment,
        to: &Endpoint,
        metrics: &Arc<Metrics>,
    ) -> Result<Prepared> {
        self.warn_of(to, metrics.logs());
        let tls = match &self.tls {
            Some(tls) => {
                Some(tls.plan(env, tls::teller(Some(Arc::clone(metrics)), "brokers")).await?)
            }
            None => None,
        };
        let login = self.login(to, Need::Login, metrics).await?;
        Ok(Prepared { tls, login })
    }

    /// What to log in with. An error is none of the broker's.
    pub(crate) async fn login(
        &self,
        to: &Endpoint,
        need: Need,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Box<dyn Mechanism>>> {
        match &self.authenticator {
            Some(authenticator) => {
                let login = authenticator.prepare(to, need, metrics).await;
                login.map(Some).map_err(|e| self.judge(e, self.env.now()))
            }
            None => Ok(None),
        }
    }

    /// A broker has taken the credentials, or has answered on a connection that they had opened.
    pub(crate) fn taken(&self, now: Instant) {
        self.taken_us.store(self.env.micros(now).max(1), Ordering::Relaxed);
    }

    /// What a refusal means for a client whose credentials may have been good before: the handle stays of use,
    /// and what was good a moment ago may be good again in another.
    pub(crate) fn judge(&self, error: Error, now: Instant) -> Error {
        if !matches!(error.kind(), ErrorKind::Authentication | ErrorKind::Credentials) {
            return error;
        }
        let since = |us| self.env.micros(now).saturating_sub(us);
        match self.taken_us.load(Ordering::Relaxed) {
            0 => error,
            us if u128::from(since(us)) <= TRUSTED_FOR.as_micros() => error.passing(),
            _ => error.not_fatal(),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("tls", &self.tls()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
