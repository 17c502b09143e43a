//! Certificates, users and tokens that change while a cluster runs.

use std::io;

use super::Cluster;
use crate::acl::Acls;
use crate::listener;
use crate::sasl::{BearerLogin, Registry};
use crate::tls::{Endpoints, Identity, ServerCertificate};

impl Cluster {
    /// The certificate of the cluster's own authority, in PEM: what clients have to believe. `None`
    /// without TLS.
    pub fn ca_pem(&self) -> Option<String> {
        self.shared.tls.as_ref().map(Endpoints::authority_pem)
    }

    /// A client certificate by the cluster's own authority. Kafka knows its owner as `User:CN=name`.
    ///
    /// # Errors
    /// `Unsupported` without TLS.
    pub fn client_identity(&self, name: &str) -> io::Result<Identity> {
        self.tls()?.client_identity(name)
    }

    /// From now on a broker proves itself with another certificate. Connections that are open stay.
    ///
    /// # Errors
    /// `NotFound` for an unknown broker, `Unsupported` without TLS; `InvalidInput` for a given
    /// certificate that cannot be used.
    pub fn set_certificate(&self, broker: i32, certificate: ServerCertificate) -> io::Result<()> {
        let found = self.shared.broker(broker);
        let (host, _) = found.ok_or_else(|| listener::unknown_broker(broker))?.named_at();
        self.tls()?.set(broker, &host, certificate)
    }

    /// New keys and certificates for all brokers by the same authority, as tools do that renew them. What
    /// clients kept to resume sessions is of no use any more. Connections that are open stay.
    ///
    /// # Errors
    /// `Unsupported` without TLS.
    pub fn rotate_certificates(&self) -> io::Result<()> {
        self.tls()?.rotate();
        Ok(())
    }

    /// Another authority, and new certificates by it: who believes only the one before sees strangers.
    /// [`Cluster::ca_pem`] tells the new one from now on.
    ///
    /// # Errors
    /// `Unsupported` without TLS.
    pub fn replace_authority(&self) -> io::Result<()> {
        self.tls()?.replace_authority("another authority")
    }

    /// Adds a user of PLAIN and SCRAM, or changes a password. Who is logged in stays.
    ///
    /// # Errors
    /// `Unsupported` without SASL.
    pub fn set_user(&self, name: &str, password: &str) -> io::Result<()> {
        let registry = self.sasl()?;
        registry.set_user(name, password, registry.sasl.iterations);
        Ok(())
    }

    /// Takes a user of PLAIN and SCRAM away; false if there was none. Who is logged in stays.
    ///
    /// # Errors
    /// `Unsupported` without SASL.
    pub fn remove_user(&self, name: &str) -> io::Result<bool> {
        Ok(self.sasl()?.remove_user(name))
    }

    /// Adds a token of OAUTHBEARER; its lifetime counts from now on, by the cluster's clock.
    ///
    /// # Errors
    /// `Unsupported` without SASL.
    pub fn add_token(&self, token: &str, login: BearerLogin) -> io::Result<()> {
        self.sasl()?.add_token(token, login, self.shared.now());
        Ok(())
    }

    /// Takes a listed token of OAUTHBEARER away; false if there was none. Who is logged in stays.
    ///
    /// # Errors
    /// `Unsupported` without SASL.
    pub fn remove_token(&self, token: &str) -> io::Result<bool> {
        Ok(self.sasl()?.remove_token(token))
    }

    /// What clients may do, from their next requests on; `None`: everything.
    pub fn set_acls(&self, acls: impl Into<Option<Acls>>) {
        self.shared.set_acls(acls.into());
    }

    fn tls(&self) -> io::Result<&Endpoints> {
        self.shared.tls.as_ref().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "the cluster speaks no TLS: build it with Builder::tls",
            )
        })
    }

    fn sasl(&self) -> io::Result<&Registry> {
        self.shared.sasl.as_ref().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "nobody logs in at the cluster: build it with Builder::sasl",
            )
        })
    }
}
