//! TLS around any transport: rustls, with its cryptography passed in (never installed for the whole process, which
//! belongs to somebody else).
//!
//! [`Tls`] is what a user sets. [`connector`] makes rustls' configuration of it, and looks at the files again while
//! the process runs. [`stream`] wraps a connection. [`words`] says what went wrong, since nearly every TLS
//! error is a mistake in somebody's set-up.

mod connector;
mod pem;
mod stream;
mod words;

use std::fmt;

pub(crate) use connector::{Connector, teller};
pub use pem::Pem;
use stream::rustls_error;
pub(crate) use stream::{Plan, wrap};
pub(crate) use words::{alerted, cut_off};

use super::identity::Feed;
use crate::error::{Error, Result};

/// How much of a broker's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verify {
    /// That it leads to a trusted CA, and that it is for the name or address that was dialled.
    #[default]
    Full,
    /// That it leads to a trusted CA. Whoever has any certificate of that CA can pass for any broker.
    Chain,
    /// Nothing: anybody on the way can read and change everything, passwords among it. Logged as a warning.
    None,
}

/// Reaches brokers by TLS (1.2 or 1.3).
/// ```
/// # use ottla::{Client, Tls};
/// // Brokers whose certificates a public CA has signed:
/// let client = Client::builder().bootstrap("broker:9093").tls(Tls::system());
/// // Brokers of a CA of one's own, who want to know who this client is:
/// let tls = Tls::system().ca("ca.pem").identity("client.pem", "client.key");
/// ```
///
/// Files are in PEM. They are read when the client is built, which waits 2 s for that at most, and looked at again before a
/// connection is made, at most every 10 s: certificates can be renewed while a client runs. If what is there then does not fit, the old ones
/// stay in use, and a warning is logged.
#[derive(Clone, Default)]
#[must_use]
pub struct Tls {
    ca: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
    verify: Verify,
}

impl Tls {
    /// Trusts the CAs that the system trusts, unless [`ca`](Self::ca) says which ones.
    pub fn system() -> Self {
        Self::default()
    }

    /// Trusts the CAs of this file, or of this PEM text, instead of the system's.
    pub fn ca(mut self, ca: impl Into<Pem>) -> Self {
        self.ca = Some(ca.into());
        self
    }

    /// The certificate (and those between it and its CA) and the private key by which brokers know this client. They
    /// may be in one file: name it twice. The key must not be encrypted.
    pub fn identity(mut self, certificate: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name that certificates must have, and that is asked for (SNI), at every broker. Default: the host or
    /// address that was dialled. For brokers behind addresses that their certificates do not know.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// How much of a broker's certificate is checked. Default: [`Verify::Full`].
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    pub(crate) fn verifies(&self) -> Verify {
        self.verify
    }

    fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// Everything but the content of files.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(name) = &self.server_name {
            stream::name(name).ok_or_else(|| {
                Error::config("server_name is no name or address that a certificate can have")
            })?;
        }
        Ok(())
    }

    /// What tells these settings from others.
    pub(super) fn feed(&self, feed: &mut Feed) {
        let verify = match self.verify {
            Verify::Full => "full",
            Verify::Chain => "chain",
            Verify::None => "none",
        };
        feed.field("verify", verify.as_bytes());
        feed.field("server name", self.server_name.as_deref().unwrap_or_default().as_bytes());
        let (certificate, key) = self.identity.as_ref().map(|(c, k)| (c, k)).unzip();
        for (name, pem) in [("ca", self.ca.as_ref()), ("certificate", certificate), ("key", key)] {
            if let Some(pem) = pem {
                pem.feed(name, feed);
            }
        }
    }
}

/// Equal settings share connections.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        let digest = |tls: &Self| {
            let mut feed = Feed::new();
            tls.feed(&mut feed);
            feed.done()
        };
        digest(self) == digest(other)
    }
}

/// Paths are shown, PEM texts are not.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("ca", &self.ca)
            .field("identity", &self.identity)
            .field("server_name", &self.server_name)
            .field("verify", &self.verify)
            .finish()
    }
}
