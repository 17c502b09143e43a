//! OAUTHBEARER: tokens, where they come from, and how they are kept fresh.
//!
//! [`token`] is what a program gives or gets, [`grant`] a request to a token endpoint over [`http`], [`source`] one attempt
//! to get a token, [`flight`] one that several wait for, [`keeper`] when there is one, and [`bearer`] the login with it.

pub(crate) mod bearer;
mod file;
mod flight;
#[cfg(feature = "fuzz-internals")]
pub(super) mod fuzzed;
mod grant;
mod http;
mod jwt;
mod keeper;
mod source;
mod token;
mod url;
mod words;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bearer::Extensions;
use file::TextFile;
pub use grant::ClientCredentials;
use keeper::Keeper;
use source::Source;
pub(crate) use source::TIMEOUT as PROVIDER_TIMEOUT;
pub use token::{Token, TokenError, TokenProvider};

use super::identity::Feed;
use super::tls::{Connector, Pem};
use crate::environment::Environment;
use crate::error::{Error, Result};

/// Where the tokens of OAUTHBEARER come from. A [`Token`] and [`ClientCredentials`] are such as well.
#[derive(Clone)]
#[must_use]
pub struct OAuth {
    source: Source,
    extensions: Extensions,
}

impl OAuth {
    /// Tokens that the program gets in its own way: an async closure, or a [`TokenProvider`]. Clients keep it as long as they live; one
    /// that keeps a client itself would be kept for ever.
    /// ```
    /// # use std::time::Duration;
    /// # use ottla::{OAuth, Sasl, Token};
    /// # async fn from_my_vault() -> std::io::Result<String> { Ok("a.b.c".into()) }
    /// let sasl = Sasl::oauth(OAuth::provider(|| async {
    ///     Ok(Token::new(from_my_vault().await?).expires_in(Duration::from_secs(3600)))
    /// }));
    /// ```
    pub fn provider(provider: impl TokenProvider + 'static) -> Self {
        Source::Provider(Arc::new(flight::Shared::new(provider))).into()
    }

    /// The token that a file has: it is read again before a login, at most every 10 s. Kubernetes projects the tokens
    /// of service accounts so, and renews them.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Source::File(Arc::new(TextFile::new(file::Kind::Token, path.into()))).into()
    }

    /// A SASL extension that brokers are to have with each token (KIP-342), such as `logicalCluster`: a name of
    /// letters, and a value.
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |words: &str| Error::config(format!("sasl oauth: {words}"));
        if !self.extensions.iter().all(|(name, value)| bearer::is_extension(name, value)) {
            return Err(wrong(token::NO_EXTENSION));
        }
        match &self.source {
            Source::Fixed(token) => token.check().map_err(wrong),
            Source::Grant(grant) => grant.check(),
            Source::File(_) | Source::Provider(_) => Ok(()),
        }
    }

    /// What tells these settings from others.
    pub(super) fn feed(&self, feed: &mut Feed) {
        match &self.source {
            Source::Fixed(token) => {
                feed.field("token", token.text.expose());
                for (name, value) in &token.extensions {
                    feed.field("its extension", name.as_bytes());
                    feed.field("its extension", value.as_bytes());
                }
            }
            Source::File(file) => {
                feed.field("file", file.path().as_os_str().as_encoded_bytes());
            }
            Source::Grant(grant) => grant.feed(feed),
            // Two that are not the same may give tokens of two users.
            Source::Provider(provider) => {
                let at = Arc::as_ptr(provider).addr();
                feed.field("provider", &at.to_be_bytes());
            }
        }
        for (name, value) in &self.extensions {
            feed.field("extension", name.as_bytes());
            feed.field("extension", value.as_bytes());
        }
    }

    /// What logs in with it, for all connections of a pool.
    ///
    /// # Errors
    /// `Config` if the CAs of a token endpoint are of no use.
    pub(super) fn keeper(&self, env: &Environment) -> Result<Keeper> {
        let tls = match &self.source {
            Source::Grant(grant) if grant.url().is_some_and(|url| url.is_tls) => {
                let connector = Connector::new(grant.tls(), env);
                Some(connector.map_err(|e| e.context("sasl oauth, for the token endpoint"))?)
            }
            _ => None,
        };
        Ok(Keeper::new(self.source.clone(), tls, self.extensions.clone(), env))
    }

    /// Whether the client's secret crosses the network as it is, and where to.
    pub(super) fn open_endpoint(&self) -> Option<String> {
        match &self.source {
            Source::Grant(grant) => grant
                .url()
                .filter(|url| !url.is_tls && !url.endpoint.is_loopback())
                .map(ToString::to_string),
            _ => None,
        }
    }
}

impl From<Source> for OAuth {
    fn from(source: Source) -> Self {
        Self { source, extensions: Vec::new() }
    }
}

impl From<Token> for OAuth {
    fn from(token: Token) -> Self {
        Source::Fixed(token).into()
    }
}

impl From<ClientCredentials> for OAuth {
    fn from(credentials: ClientCredentials) -> Self {
        Source::Grant(Arc::new(credentials)).into()
    }
}

/// Where tokens come from is shown, tokens and secrets are not.
impl fmt::Debug for OAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.extensions.iter().map(|(name, _)| name).collect();
        let mut shown = f.debug_struct("OAuth");
        match &self.source {
            Source::Fixed(token) => shown.field("token", token),
            Source::File(file) => shown.field("file", &Pem::file(file.path())),
            Source::Grant(grant) => shown.field("client_credentials", grant),
            Source::Provider(_) => shown.field("provider", &format_args!("..")),
        };
        shown.field("extensions", &names).finish()
    }
}
