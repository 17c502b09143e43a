//! What each broker proves itself with now, and whose client certificates it believes.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::authority::{Authority, Purpose, Validity};
use super::{ClientCertificates, Identity, ServerCertificate, Tls, TlsVersions};

/// The TLS side of a cluster's brokers.
#[derive(Debug)]
pub(crate) struct Endpoints {
    tls: Tls,
    provider: Arc<CryptoProvider>,
    authority: Mutex<Authority>,
    brokers: Vec<Mutex<Endpoint>>,
}

#[derive(Debug)]
struct Endpoint {
    certificate: ServerCertificate,
    /// The settings that the last client was met with, and the host that they were made for.
    current: Option<(String, Arc<ServerConfig>)>,
}

impl Endpoints {
    pub(crate) fn new(tls: Tls, cluster_id: &str, brokers: i32) -> io::Result<Self> {
        let endpoint = || Endpoint { certificate: tls.certificate.clone(), current: None };
        let endpoints = Self {
            // Passed explicitly: installed for the process, it could be in the way of the program whose
            // tests these are.
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            authority: Mutex::new(Authority::new(cluster_id)?),
            brokers: (0..brokers).map(|_| Mutex::new(endpoint())).collect(),
            tls,
        };
        // What is wrong with the description is told at the start, and not to whoever dials first.
        let authority = endpoints.authority();
        endpoints.config(&authority, &endpoints.tls.certificate, "localhost")?;
        drop(authority);
        Ok(endpoints)
    }

    /// The authority's own certificate.
    pub(crate) fn authority_pem(&self) -> String {
        self.authority().pem()
    }

    /// A client certificate by the cluster's authority.
    pub(crate) fn client_identity(&self, common_name: &str) -> io::Result<Identity> {
        self.authority().issue(Purpose::Client, common_name, Vec::new(), Validity::Always)
    }

    /// From now on this broker proves itself with another certificate.
    pub(crate) fn set(
        &self,
        broker: i32,
        host: &str,
        certificate: ServerCertificate,
    ) -> io::Result<()> {
        let config = self.config(&self.authority(), &certificate, host)?;
        let mut endpoint =
            self.endpoint(broker).ok_or_else(|| crate::listener::unknown_broker(broker))?;
        *endpoint = Endpoint { certificate, current: Some((host.to_owned(), config)) };
        Ok(())
    }

    /// New keys and certificates for all brokers, of the same kinds.
    pub(crate) fn rotate(&self) {
        for endpoint in &self.brokers {
            endpoint.lock().unwrap_or_else(PoisonError::into_inner).current = None;
        }
    }

    /// Another authority, and certificates by it: whoever knows only the old one is met by a stranger.
    pub(crate) fn replace_authority(&self, name: &str) -> io::Result<()> {
        let new = Authority::new(name)?;
        *self.authority() = new;
        self.rotate();
        Ok(())
    }

    /// The settings for the next client of a broker that is named at `host`.
    pub(crate) fn for_client(&self, broker: i32, host: &str) -> io::Result<Arc<ServerConfig>> {
        // In this order everywhere: a new authority must not be overtaken by a certificate of the old.
        let authority = self.authority();
        let mut endpoint =
            self.endpoint(broker).ok_or_else(|| crate::listener::unknown_broker(broker))?;
        if let Some((made_for, config)) = &endpoint.current
            && made_for == host
        {
            return Ok(Arc::clone(config));
        }
        let config = self.config(&authority, &endpoint.certificate, host)?;
        endpoint.current = Some((host.to_owned(), Arc::clone(&config)));
        Ok(config)
    }

    fn endpoint(&self, broker: i32) -> Option<MutexGuard<'_, Endpoint>> {
        let index = usize::try_from(broker.checked_sub(1)?).ok()?;
        Some(self.brokers.get(index)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn authority(&self) -> MutexGuard<'_, Authority> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(
        &self,
        authority: &Authority,
        certificate: &ServerCertificate,
        host: &str,
    ) -> io::Result<Arc<ServerConfig>> {
        let mut names = self.tls.names.clone();
        names.push(host.to_owned());
        // Who has been told 127.0.0.1 may as well dial localhost.
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
            names.push("localhost".to_owned());
        }
        let issue = |names, validity| authority.issue(Purpose::Server, host, names, validity);
        let identity = match certificate {
            ServerCertificate::Good => issue(names, Validity::Always)?,
            ServerCertificate::Expired => issue(names, Validity::Past)?,
            ServerCertificate::NotYetValid => issue(names, Validity::Future)?,
            ServerCertificate::For(name) => issue(vec![name.clone()], Validity::Always)?,
            ServerCertificate::CommonNameOnly => issue(Vec::new(), Validity::Always)?,
            ServerCertificate::ByStranger => Authority::new("a stranger")?.issue(
                Purpose::Server,
                host,
                names,
                Validity::Always,
            )?,
            ServerCertificate::Given(identity) => identity.clone(),
        };
        let versions: &[_] = match self.tls.versions {
            TlsVersions::Both => &[&rustls::version::TLS12, &rustls::version::TLS13],
            TlsVersions::Only12 => &[&rustls::version::TLS12],
            TlsVersions::Only13 => &[&rustls::version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)
            .map_err(invalid)?;
        let builder = match self.client_verifier(authority)? {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(invalid)?;
        let config = builder
            .with_single_cert(certificates(&identity.certificates)?, key)
            .map_err(invalid)?;
        Ok(Arc::new(config))
    }

    fn client_verifier(
        &self,
        authority: &Authority,
    ) -> io::Result<Option<Arc<dyn ClientCertVerifier>>> {
        if self.tls.clients == ClientCertificates::None {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        for pem in self.tls.client_authorities.iter().chain([&authority.pem()]) {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(invalid)?;
            }
        }
        let builder = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        );
        let builder = match self.tls.clients {
            ClientCertificates::Required => builder,
            _ => builder.allow_unauthenticated(),
        };
        Ok(Some(builder.build().map_err(invalid)?))
    }
}

fn certificates(pem: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(invalid)?;
    if all.is_empty() {
        return Err(invalid("it has no PEM block CERTIFICATE"));
    }
    Ok(all)
}

fn invalid(reason: impl std::fmt::Display) -> io::Error {
    let words = format!("the brokers' TLS cannot be set up from what was given: {reason}");
    io::Error::new(io::ErrorKind::InvalidInput, words)
}
