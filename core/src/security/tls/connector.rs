//! rustls' configuration of a pool, made of files that may change. They are looked at before a dial, at most every
//! [`LOOKED_AFTER`]: what is there is taken if it is whole and fits together, with a session store of its own
//! (tickets carry the identity they were given for). Otherwise the old one stays: a certificate and its key are
//! never replaced in the same instant.
//!
//! Files may lie where nobody answers (a mount whose server is gone). They are read on a thread beside the engine's, one
//! at a time, and a dial waits for it only so long: then it goes on with what was read before. So does whoever makes a
//! client, and its dials wait for what it has not waited for.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pem::Content;
use super::stream::Plan;
use super::{Pem, Tls, Verify};
use crate::caught::call;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Logs, Metrics, event};
use crate::security::identity::{Feed, SecurityKey};

/// How long what was read is believed. Kubernetes takes a minute to bring a new secret to a pod.
const LOOKED_AFTER: Duration = Duration::from_secs(10);

/// How long a dial waits for a look at the files, and the thread that makes a client for the first one.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes the TLS of connections.
pub(crate) struct Connector {
    settings: Arc<Tls>,
    files: Arc<Files>,
}

/// What was made of the files, and how.
struct Files {
    state: Mutex<State>,
    /// A look is over.
    over: Notify,
    read: Box<Read>,
    /// What is being read, for people.
    place: Place,
}

/// Reads the files, if they are not those of before.
type Read = dyn Fn(Option<&Made>, &Place) -> Result<Made> + Send + Sync;

/// The file that is read at the moment.
#[derive(Default)]
struct Place(Mutex<String>);

impl Place {
    fn read(&self, pem: &Pem, what: &'static str) -> Result<Content> {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = pem.name(what);
        pem.read(what)
    }
}

struct State {
    /// The error is that of the first look; that of none is that it is not over yet.
    made: Result<Made, Option<Error>>,
    looked: Instant,
    /// A look is under way: nobody else begins one.
    looking: bool,
    /// The last look found something that does not fit, and that was told.
    broken: bool,
    /// The look that is under way takes long, and that was told.
    slow: bool,
    /// What the last look found, if that has fewer certificates than what is in use.
    fewer: Option<SecurityKey>,
}

/// What was made of one reading.
#[derive(Clone)]
struct Made {
    config: Arc<ClientConfig>,
    /// Of the content of all files.
    content: SecurityKey,
    /// Of the CA, and of this client.
    certificates: [usize; 2],
}

/// What a look at the files has found.
pub(crate) enum News {
    /// Something new, which is used from now on.
    Renewed,
    /// Something that does not fit: for the first time since it did.
    Broken(Error),
    /// Nothing yet: the look takes long.
    Slow(Error),
}

/// Logs what has become of the files. `whose`: the other side's.
pub(crate) fn teller(
    metrics: Option<Arc<Metrics>>,
    whose: &'static str,
) -> impl Fn(News) + Clone + Send + 'static {
    move |news| {
        let none;
        let logs = match &metrics {
            Some(metrics) => metrics.logs(),
            None => {
                none = Logs::none();
                &none
            }
        };
        match news {
            News::Renewed => event!(
                logs,
                "ottla::net",
                INFO,
                whose,
                "certificates have changed; new connections use the new ones"
            ),
            News::Broken(error) => event!(
                logs, "ottla::net", WARN, whose, error = %error.message(),
                "certificates have changed and are of no use; the old ones stay in use"
            ),
            News::Slow(error) => event!(
                logs, "ottla::net", WARN, whose, error = %error.message(),
                "certificates cannot be looked at; the old ones stay in use"
            ),
        }
    }
}

impl Connector {
    /// Reads all files, beside the engine, and waits so long for it as a dial does.
    ///
    /// # Errors
    /// `Config` if one is missing, or they do not fit together; or if the system has no CAs and none are given.
    pub(crate) fn new(settings: &Tls, env: &Environment) -> Result<Self> {
        let settings = Arc::new(settings.clone());
        let (tls, clock) = (Arc::clone(&settings), clock(env));
        let read = move |before: Option<&Made>, place: &Place| make(&tls, &clock, before, place);
        Self::reading(settings, env, Box::new(read))
    }

    fn reading(settings: Arc<Tls>, env: &Environment, read: Box<Read>) -> Result<Self> {
        let state = State {
            made: Err(None),
            looked: env.now(),
            looking: true,
            broken: false,
            slow: false,
            fewer: None,
        };
        let (state, place) = (Mutex::new(state), Place::default());
        let files = Arc::new(Files { state, over: Notify::new(), read, place });
        let (over, is_over) = std::sync::mpsc::sync_channel(1);
        let first = Arc::clone(&files);
        env.spawn_blocking(move || {
            let made = call(|| (first.read)(None, &first.place)).and_then(|made| made);
            first.looked(Some(made));
            let _ = over.send(());
        });
        // Later a dial finds out.
        if is_over.recv_timeout(PATIENCE).is_ok()
            && let Err(Some(error)) = &files.state().made
        {
            return Err(error.clone());
        }
        Ok(Self { settings, files })
    }

    pub(crate) fn settings(&self) -> &Tls {
        &self.settings
    }

    /// For one connection. `told` hears what has become of the files.
    ///
    /// # Errors
    /// As [`Self::new`], if files are of no use that were not read then; `Tls` if they are not read yet.
    pub(crate) async fn plan(
        &self,
        env: &Environment,
        told: impl Fn(News) + Clone + Send + 'static,
    ) -> Result<Plan> {
        if let Some(before) = self.is_due(env.now()) {
            let (tx, rx) = tokio::sync::oneshot::channel();
            let files = Arc::clone(&self.files);
            env.spawn_blocking(move || {
                let _ = tx.send((files.read)(before.as_ref(), &files.place));
            });
            // In a task of its own: whoever dials may not wait until then.
            let (files, tell, (done, over)) =
                (Arc::clone(&self.files), told.clone(), tokio::sync::oneshot::channel::<()>());
            env.spawn(async move {
                let made = rx.await.ok();
                if let Some(news) = files.looked(made) {
                    tell(news);
                }
                drop(done);
            });
            if env.within(PATIENCE, over).await.is_none()
                && let Some(news) = self.files.is_slow()
            {
                told(news);
            }
        }
        if self.files.is_first_look() {
            let _ = env.within(PATIENCE, self.files.first_look()).await;
        }
        match &self.files.state().made {
            Ok(made) => Ok(Plan { config: Arc::clone(&made.config) }),
            Err(Some(error)) => Err(error.clone()),
            Err(None) => {
                let words = self.files.not_read();
                Err(Error::new(ErrorKind::Tls, words)
                    .advise("look at the disk or mount that it is on")
                    .passing())
            }
        }
    }

    /// What is in use, if it is time to look whether it still is what the files say. Whoever asks then looks.
    fn is_due(&self, now: Instant) -> Option<Option<Made>> {
        if !self.settings.reads_files() {
            return None;
        }
        let mut state = self.files.state();
        if state.looking || now.saturating_duration_since(state.looked) < LOOKED_AFTER {
            return None;
        }
        state.looking = true;
        state.looked = now;
        Some(state.made.as_ref().ok().cloned())
    }
}

impl Files {
    /// What was found; `None`: there was no thread to look with, and the next look will do.
    fn looked(&self, made: Option<Result<Made>>) -> Option<News> {
        let news = self.found(made);
        self.over.notify_waiters();
        news
    }

    fn found(&self, made: Option<Result<Made>>) -> Option<News> {
        let mut state = self.state();
        state.looking = false;
        state.slow = false;
        let Ok(before) = &state.made else {
            // Nothing was in use before.
            state.made = made?.map_err(Some);
            return None;
        };
        match made? {
            Ok(made) => {
                let renewed = made.content != before.content;
                // It may be half written: a list that ends between two certificates looks whole. What the next
                // look finds again is meant.
                let [ca, own] = before.certificates;
                state.broken = false;
                let fewer = made.certificates[0] < ca || made.certificates[1] < own;
                if fewer && state.fewer.as_ref() != Some(&made.content) {
                    state.fewer = Some(made.content);
                    return None;
                }
                state.fewer = None;
                state.made = Ok(made);
                renewed.then_some(News::Renewed)
            }
            Err(e) => {
                let told = std::mem::replace(&mut state.broken, true);
                (!told).then_some(News::Broken(e))
            }
        }
    }

    /// The look that is under way takes long; tells it once.
    fn is_slow(&self) -> Option<News> {
        let mut state = self.state();
        if !state.looking || std::mem::replace(&mut state.slow, true) {
            return None;
        }
        drop(state);
        Some(News::Slow(Error::config(self.not_read())))
    }

    fn not_read(&self) -> String {
        let place = self.place.0.lock().unwrap_or_else(|e| e.into_inner());
        format!("{place}: it is not read within {PATIENCE:?}")
    }

    fn is_first_look(&self) -> bool {
        let state = self.state();
        state.looking && matches!(state.made, Err(None))
    }

    /// Waits until it is over.
    async fn first_look(&self) {
        loop {
            let over = self.over.notified();
            tokio::pin!(over);
            // Listening before it looks: nothing is told in between.
            over.as_mut().enable();
            if !self.is_first_look() {
                return;
            }
            over.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Tls {
    fn reads_files(&self) -> bool {
        let (certificate, key) = self.identity.as_ref().map(|(c, k)| (c, k)).unzip();
        [self.ca.as_ref(), certificate, key].into_iter().flatten().any(|pem| pem.is_file())
    }
}

/// The engine's clock, as rustls asks for it: simulations have a time of their own.
struct Clock(Environment);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(self.0.wall_ms()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

fn clock(env: &Environment) -> Arc<dyn TimeProvider> {
    Arc::new(Clock(env.clone()))
}

/// Reads what the settings name. `before` is given back if nothing has changed, so that its tickets stay.
fn make(
    tls: &Tls,
    clock: &Arc<dyn TimeProvider>,
    before: Option<&Made>,
    place: &Place,
) -> Result<Made> {
    let ca = tls.ca.as_ref().map(|ca| place.read(ca, "tls ca")).transpose()?;
    let identity = match &tls.identity {
        Some((certificate, key)) => {
            Some((place.read(certificate, "tls certificate")?, place.read(key, "tls key")?))
        }
        None => None,
    };
    let mut feed = Feed::new();
    let (certificate, key) = identity.as_ref().map(|(c, k)| (c, k)).unzip();
    for (name, content) in [("ca", ca.as_ref()), ("certificate", certificate), ("key", key)] {
        if let Some(content) = content {
            feed.field(name, content.bytes());
        }
    }
    let content = feed.done();
    if let Some(before) = before.filter(|before| before.content == content) {
        return Ok(before.clone());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |e: rustls::Error| Error::config(format!("tls: {e}"));
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider), Arc::clone(clock))
        .with_protocol_versions(&versions)
        .map_err(wrong)?;
    let verifier: Arc<dyn ServerCertVerifier> = match tls.verify {
        Verify::None => Arc::new(AnyBroker { roots: None, provider: Arc::clone(&provider) }),
        Verify::Chain => {
            let roots = Some(roots(ca.as_ref())?);
            Arc::new(AnyBroker { roots, provider: Arc::clone(&provider) })
        }
        Verify::Full => {
            let roots = Arc::new(roots(ca.as_ref())?);
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|e| Error::config(format!("tls: {e}")))?
        }
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut certificates = [0; 2];
    if let Some(ca) = &ca {
        certificates[0] = ca.certificates().map_or(0, |all| all.len());
    }
    let config = match &identity {
        Some((certificate, key)) => {
            let (chain, key) = (certificate.certificates()?, key.key()?);
            certificates[1] = chain.len();
            builder.with_client_auth_cert(chain, key).map_err(|e| match e {
                rustls::Error::InconsistentKeys(_) => {
                    Error::config("tls identity: the key is not that of the certificate")
                        .advise("give the key that the certificate was made for")
                }
                e => Error::config(format!("tls identity: {e}"))
                    .advise("use a key of RSA, P-256, P-384 or Ed25519"),
            })?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Made { config: Arc::new(config), content, certificates })
}

fn roots(ca: Option<&Content>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        for certificate in ca.certificates()? {
            roots.add(certificate).map_err(|e| {
                Error::config(format!("tls ca: a certificate in it is of no use: {e}"))
            })?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    // Old and odd ones among them are usual.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why: Vec<_> = found.errors.iter().take(4).map(ToString::to_string).collect();
        let why = if why.is_empty() { "no files there".to_owned() } else { why.join("; ") };
        return Err(Error::config(format!(
            "tls: this system has no list of trusted CAs in its usual places, SSL_CERT_FILE and \
             SSL_CERT_DIR ({why})"
        ))
        .advise("install one (the package ca-certificates), or name the brokers' CA: tls ca"));
    }
    Ok(roots)
}

/// Takes certificates for any name: if there are roots, those that lead to one of them; otherwise all. That the peer has
/// the certificate's key is checked all the same.
struct AnyBroker {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for AnyBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyBroker")
    }
}

impl ServerCertVerifier for AnyBroker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
