//! How a client says who it is: the mechanism and its credentials, as a user sets them.

use std::fmt;
use std::sync::Arc;

use rand::RngExt;
use rand::distr::Alphanumeric;

use super::identity::Feed;
use super::mechanism::{Authenticator, Mechanism, Need};
use super::oauth::{OAuth, bearer};
use super::plain::{self, Plain};
use super::scram::{Credentials, Hash, Salted, Scram};
use super::secret::Secret;
use crate::config::Endpoint;
use crate::environment::{BoxFuture, Environment};
use crate::error::{Error, Result};
use crate::metrics::Metrics;

/// Characters of a client's nonce: 190 bits, as the generator has 256.
const NONCE: usize = 32;

/// Logs in at brokers by SASL.
/// ```
/// # use ottla::{Client, Sasl, Tls};
/// let client = Client::builder()
///     .bootstrap("broker:9094")
///     .tls(Tls::system())
///     .sasl(Sasl::scram_sha_512("alice", "her password"));
/// ```
///
/// Passwords are taken as their UTF-8 bytes, as brokers take them, and are shown nowhere.
#[derive(Clone)]
#[must_use]
pub struct Sasl(Kind);

#[derive(Clone)]
enum Kind {
    Password { user: String, password: Secret, way: Way },
    OAuth(OAuth),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Scram { hash: Hash, is_token: bool },
}

impl Sasl {
    fn password(user: impl Into<String>, password: impl Into<Secret>, way: Way) -> Self {
        Self(Kind::Password { user: user.into(), password: password.into(), way })
    }

    /// PLAIN: name and password as they are. Use it with TLS: without, who listens has the password.
    pub fn plain(user: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::password(user, password, Way::Plain)
    }

    /// SCRAM-SHA-256: the password does not cross the network, and the broker has to show that it knows it.
    pub fn scram_sha_256(user: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::password(user, password, Way::Scram { hash: Hash::Sha256, is_token: false })
    }

    /// SCRAM-SHA-512: as SCRAM-SHA-256, with the longer hash.
    pub fn scram_sha_512(user: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self::password(user, password, Way::Scram { hash: Hash::Sha512, is_token: false })
    }

    /// OAUTHBEARER: a token, from a provider of the program ([`OAuth::provider`]), for a client's own id and secret
    /// ([`ClientCredentials`](super::ClientCredentials)), from a file ([`OAuth::file`]), or one that there is
    /// ([`Token`](super::Token)). Use it with TLS: without, who listens has the token.
    pub fn oauth(source: impl Into<OAuth>) -> Self {
        Self(Kind::OAuth(source.into()))
    }

    /// User and password are the id and the HMAC of a delegation token (KIP-48), which brokers take by SCRAM.
    pub fn delegation_token(mut self) -> Self {
        if let Kind::Password { way: Way::Scram { is_token, .. }, .. } = &mut self.0 {
            *is_token = true;
        }
        self
    }

    /// The mechanism's name as Kafka has it.
    pub fn mechanism(&self) -> &'static str {
        match &self.0 {
            Kind::Password { way: Way::Plain, .. } => plain::NAME,
            Kind::Password { way: Way::Scram { hash, .. }, .. } => hash.mechanism(),
            Kind::OAuth(_) => bearer::NAME,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let (user, password, way) = match &self.0 {
            Kind::Password { user, password, way } => (user, password, way),
            Kind::OAuth(oauth) => return oauth.check(),
        };
        if user.is_empty() {
            return Err(Error::config("sasl: the user name is empty"));
        }
        if password.is_empty() {
            return Err(Error::config("sasl: the password is empty"));
        }
        match way {
            Way::Plain => {
                if user.contains('\0') || password.expose().contains(&0) {
                    let words = "sasl: PLAIN has no way to send a NUL in a name or password";
                    return Err(Error::config(words));
                }
            }
            // Kafka compares what was sent with what it has normalised: such a name never logs in.
            Way::Scram { .. } if !user.bytes().all(|b| (b' '..=b'~').contains(&b)) => {
                return Err(Error::config("sasl: SCRAM takes user names of printable ASCII alone")
                    .advise("use a user whose name is ASCII, or another mechanism"));
            }
            Way::Scram { .. } => {}
        }
        Ok(())
    }

    /// What tells these settings from others.
    pub(super) fn feed(&self, feed: &mut Feed) {
        feed.field("mechanism", self.mechanism().as_bytes());
        match &self.0 {
            Kind::Password { user, password, way } => {
                let is_token = matches!(way, Way::Scram { is_token: true, .. });
                feed.field("token", &[u8::from(is_token)]);
                feed.field("user", user.as_bytes());
                feed.field("password", password.expose());
            }
            Kind::OAuth(oauth) => oauth.feed(feed),
        }
    }

    /// What logs in with it, for all connections of a pool.
    ///
    /// # Errors
    /// `Config` if files that it names are of no use.
    pub(super) fn authenticator(&self, env: &Environment) -> Result<Arc<dyn Authenticator>> {
        match &self.0 {
            Kind::Password { user, password, way } => Ok(Arc::new(Static {
                user: user.clone(),
                password: password.clone(),
                way: *way,
                salted: Arc::default(),
                env: env.clone(),
            })),
            Kind::OAuth(oauth) => Ok(Arc::new(oauth.keeper(env)?)),
        }
    }

    /// Where a secret is sent as it is, besides the brokers.
    pub(super) fn open_endpoint(&self) -> Option<String> {
        match &self.0 {
            Kind::Password { .. } => None,
            Kind::OAuth(oauth) => oauth.open_endpoint(),
        }
    }
}

/// Equal credentials share connections.
impl PartialEq for Sasl {
    fn eq(&self, other: &Self) -> bool {
        let digest = |sasl: &Self| {
            let mut feed = Feed::new();
            sasl.feed(&mut feed);
            feed.done()
        };
        digest(self) == digest(other)
    }
}

/// The user is shown, the password is not.
impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Sasl");
        shown.field("mechanism", &self.mechanism());
        match &self.0 {
            Kind::Password { user, password, .. } => {
                shown.field("user", user).field("password", password)
            }
            Kind::OAuth(oauth) => shown.field("oauth", oauth),
        };
        shown.finish()
    }
}

/// Credentials that do not change.
struct Static {
    user: String,
    password: Secret,
    way: Way,
    salted: Arc<Salted>,
    env: Environment,
}

impl Authenticator for Static {
    fn mechanism(&self) -> &'static str {
        match self.way {
            Way::Plain => plain::NAME,
            Way::Scram { hash, .. } => hash.mechanism(),
        }
    }

    fn shows_its_secret(&self) -> bool {
        self.way == Way::Plain
    }

    fn prepare<'a>(
        &'a self,
        _: &'a Endpoint,
        _: Need,
        _: &'a Arc<Metrics>,
    ) -> BoxFuture<'a, Result<Box<dyn Mechanism>>> {
        let (user, password) = (self.user.clone(), self.password.clone());
        let login: Box<dyn Mechanism> = match self.way {
            Way::Plain => Box::new(Plain::new(user, password)),
            Way::Scram { hash, is_token } => {
                let salted = Arc::clone(&self.salted);
                let credentials = Credentials { hash, user, password, is_token, salted };
                let nonce = self.env.secret_rng().sample_iter(Alphanumeric).take(NONCE);
                Box::new(Scram::new(credentials, nonce.map(char::from).collect()))
            }
        };
        Box::pin(std::future::ready(Ok(login)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_can_never_log_in_is_refused() {
        for (sasl, words) in [
            (Sasl::plain("", "p"), "user name is empty"),
            (Sasl::plain("u", ""), "password is empty"),
            (Sasl::plain("u\0", "p"), "NUL"),
            (Sasl::plain("u", "hunter2\0"), "NUL"),
            (Sasl::scram_sha_256("ü", "p"), "printable ASCII"),
            (Sasl::scram_sha_512("a\tb", "p"), "printable ASCII"),
        ] {
            let error = sasl.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(words), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for sasl in [Sasl::plain("ü", "ü"), Sasl::scram_sha_256("a=b, c", "ü\0")] {
            sasl.check().unwrap();
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let shown = format!("{:?}", Sasl::scram_sha_256("alice", "hunter2"));
        assert!(shown.contains("alice") && shown.contains("SCRAM-SHA-256"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    /// A nonce that was used twice would let a recorded login be used again.
    #[tokio::test]
    async fn each_login_has_a_nonce_of_its_own() {
        let env = Environment::builder().runtime(tokio::runtime::Handle::current()).build();
        let authenticator = Sasl::scram_sha_256("u", "p").authenticator(&env).unwrap();
        let to = Endpoint { host: "h".into(), port: 1 };
        let mut first = Vec::new();
        for _ in 0..2 {
            let mut login = authenticator.prepare(&to, Need::Login, &Arc::default()).await.unwrap();
            let super::super::mechanism::Step::Send(message) = login.step(b"").unwrap() else {
                panic!("it begins")
            };
            first.push(message);
        }
        assert_ne!(first[0], first[1]);
        assert_eq!(first[0].len(), "n,,n=u,r=".len() + NONCE);
    }

    /// A nonce of as much randomness as the environment has, and repeatable where that is.
    #[tokio::test]
    async fn a_nonce_is_of_more_than_64_bits() {
        let env = || {
            let handle = tokio::runtime::Handle::current();
            Environment::builder().runtime(handle).seed(1).build()
        };
        let nonce = async || {
            let authenticator = Sasl::scram_sha_256("u", "p").authenticator(&env()).unwrap();
            let to = Endpoint { host: "h".into(), port: 1 };
            let mut login = authenticator.prepare(&to, Need::Login, &Arc::default()).await.unwrap();
            let super::super::mechanism::Step::Send(message) = login.step(b"").unwrap() else {
                panic!("it begins")
            };
            String::from_utf8(message["n,,n=u,r=".len()..].to_vec()).unwrap()
        };
        let of_64: String =
            env().rng().sample_iter(Alphanumeric).take(NONCE).map(char::from).collect();
        assert_ne!(nonce().await, of_64);
        assert_eq!(nonce().await, nonce().await);
    }
}
