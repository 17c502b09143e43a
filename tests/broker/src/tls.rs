//! TLS on a cluster's listeners: what it is to look like, and what brokers prove themselves with.
//!
//! A cluster makes its own certificate authority when it starts, and a certificate for each broker when
//! somebody dials it, for the name that Metadata tells of the broker. Nothing of it is kept: the next
//! cluster has another authority.

mod accept;
mod authority;
mod endpoints;
mod subject;

use std::fmt;

pub(crate) use accept::accept;
pub(crate) use endpoints::Endpoints;

/// How brokers speak TLS. Default: an authority of the cluster's own, TLS 1.2 and 1.3, and no
/// certificates of clients.
#[derive(Debug, Clone, Default)]
#[must_use = "a description does nothing until a cluster is built with it"]
pub struct Tls {
    pub(crate) clients: ClientCertificates,
    pub(crate) client_authorities: Vec<String>,
    pub(crate) certificate: ServerCertificate,
    pub(crate) names: Vec<String>,
    pub(crate) versions: TlsVersions,
}

/// `ssl.client.auth`: whether clients prove themselves with certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Not asked for.
    #[default]
    None,
    /// Asked for; a client without one is served, and one with a wrong one is not.
    Requested,
    /// Nobody is served without one.
    Required,
}

/// Versions of TLS that a broker speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.2 and 1.3, as Kafka.
    #[default]
    Both,
    /// 1.2 alone.
    Only12,
    /// 1.3 alone.
    Only13,
}

/// What a broker proves itself with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerCertificate {
    /// A good one: by the cluster's authority, for the address that Metadata names, and always valid.
    #[default]
    Good,
    /// As good, but its time is over.
    Expired,
    /// As good, but its time has not come.
    NotYetValid,
    /// Good, but for another name.
    For(String),
    /// Names the broker in its common name alone, as old tools make them: no client of today takes it.
    CommonNameOnly,
    /// By an authority that nobody knows.
    ByStranger,
    /// One of the caller's.
    Given(Identity),
}

/// A certificate with those that lead to its authority, and the private key of the first, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate itself first.
    pub certificates: String,
    /// PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

impl Tls {
    /// TLS with everything at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// TLS with a certificate of the caller's, the same for all brokers.
    pub fn with_identity(identity: Identity) -> Self {
        Self::new().certificate(ServerCertificate::Given(identity))
    }

    /// Whether clients prove themselves with certificates. Those of the cluster's own authority
    /// ([`crate::Cluster::client_identity`]) are good; others by [`Tls::client_authorities`].
    pub fn client_certificates(mut self, clients: ClientCertificates) -> Self {
        self.clients = clients;
        self
    }

    /// Authorities, in PEM, whose client certificates are good as well.
    pub fn client_authorities(mut self, pem: impl Into<String>) -> Self {
        self.client_authorities.push(pem.into());
        self
    }

    /// What brokers prove themselves with. Default [`ServerCertificate::Good`];
    /// [`crate::Cluster::set_certificate`] changes it for one broker while it runs.
    pub fn certificate(mut self, certificate: ServerCertificate) -> Self {
        self.certificate = certificate;
        self
    }

    /// One more DNS name or IP address that the brokers' own certificates are good for: of a proxy,
    /// perhaps.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// The versions of TLS that are spoken.
    pub fn versions(mut self, versions: TlsVersions) -> Self {
        self.versions = versions;
        self
    }
}
