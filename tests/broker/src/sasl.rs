//! SASL on a cluster's listeners: mechanisms, users, tokens, and how long a login lasts.

mod api;
mod bearer;
mod login;
mod plain;
mod registry;
mod scram;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use api::{authenticate, handshake};
pub use bearer::{BearerLogin, BearerToken};
pub(crate) use login::{Login, Route};
pub(crate) use registry::Registry;

/// How clients log in. Default: no mechanism at all; what is described is what there is.
///
/// ```
/// use ottla_test_broker::{Cluster, Sasl};
///
/// let sasl = Sasl::new().scram_sha_512().user("alice", "secret");
/// let cluster = Cluster::builder().sasl(sasl).start()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a description does nothing until a cluster is built with it"]
pub struct Sasl {
    pub(crate) mechanisms: Vec<Mechanism>,
    pub(crate) users: BTreeMap<String, (String, u32)>,
    pub(crate) iterations: u32,
    pub(crate) tokens: Vec<(String, BearerLogin)>,
    pub(crate) judge: Option<Judge>,
    pub(crate) max_reauth: Option<Duration>,
    pub(crate) failure_delay: Duration,
}

/// Says who a bearer token is of.
pub(crate) type Judge = Arc<dyn Fn(&BearerToken<'_>) -> Option<BearerLogin> + Send + Sync>;

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mechanism {
    Plain,
    Scram(scram::Hash),
    OAuthBearer,
}

impl Mechanism {
    const ALL: [Self; 4] = [
        Self::Plain,
        Self::Scram(scram::Hash::Sha256),
        Self::Scram(scram::Hash::Sha512),
        Self::OAuthBearer,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(scram::Hash::Sha256) => "SCRAM-SHA-256",
            Self::Scram(scram::Hash::Sha512) => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

/// Kafka's least: `ScramMechanism.minIterations`.
const MIN_ITERATIONS: u32 = 4096;

impl Default for Sasl {
    fn default() -> Self {
        Self {
            mechanisms: Vec::new(),
            users: BTreeMap::new(),
            iterations: MIN_ITERATIONS,
            tokens: Vec::new(),
            judge: None,
            max_reauth: None,
            failure_delay: Duration::from_millis(100),
        }
    }
}

/// Passwords and tokens are not told.
impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanisms", &self.mechanisms)
            .field("users", &self.users.keys())
            .field("tokens", &self.tokens.len())
            .field("max_reauth", &self.max_reauth)
            .finish_non_exhaustive()
    }
}

impl Sasl {
    /// No mechanism yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the mechanism PLAIN, for all users.
    pub fn plain(self) -> Self {
        self.with(Mechanism::Plain)
    }

    /// Adds the mechanism SCRAM-SHA-256, for all users.
    pub fn scram_sha_256(self) -> Self {
        self.with(Mechanism::Scram(scram::Hash::Sha256))
    }

    /// Adds the mechanism SCRAM-SHA-512, for all users.
    pub fn scram_sha_512(self) -> Self {
        self.with(Mechanism::Scram(scram::Hash::Sha512))
    }

    /// Adds the mechanism OAUTHBEARER, for the tokens of [`Sasl::token`] and [`Sasl::tokens`]; without
    /// any of them no token is right.
    pub fn oauth_bearer(self) -> Self {
        self.with(Mechanism::OAuthBearer)
    }

    /// Adds a mechanism by its name, as in `sasl.enabled.mechanisms`; `None` if there is no such one here.
    pub fn mechanism(self, name: &str) -> Option<Self> {
        let found = Mechanism::ALL.into_iter().find(|one| one.name() == name)?;
        Some(self.with(found))
    }

    /// A user of PLAIN and SCRAM.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.users.insert(name.into(), (password.into(), self.iterations));
        self
    }

    /// Rounds of SCRAM, for the users that are named after it. Default 4,096, which is Kafka's least and
    /// its own default; with fewer Kafka lets nobody in, and nor do brokers here.
    pub fn iterations(mut self, rounds: u32) -> Self {
        self.iterations = rounds;
        self
    }

    /// A token of OAUTHBEARER, and the principal that it is of. With a lifetime it is right for so long
    /// from the cluster's start on, by the cluster's clock, and ends the sessions that it began.
    pub fn token(
        self,
        token: impl Into<String>,
        principal: impl Into<String>,
        lifetime: Option<Duration>,
    ) -> Self {
        let mut this = self.oauth_bearer();
        this.tokens.push((token.into(), BearerLogin { principal: principal.into(), lifetime }));
        this
    }

    /// Who judges tokens of OAUTHBEARER that [`Sasl::token`] did not name. It is asked at each login, on the
    /// cluster's thread.
    pub fn tokens(
        self,
        judge: impl Fn(&BearerToken<'_>) -> Option<BearerLogin> + Send + Sync + 'static,
    ) -> Self {
        let mut this = self.oauth_bearer();
        this.judge = Some(Arc::new(judge));
        this
    }

    /// `connections.max.reauth.ms`: how long a login lasts. A connection that goes on after it is cut.
    /// Default: for ever; a token's end ends it in any case.
    pub fn max_reauth(mut self, time: Duration) -> Self {
        self.max_reauth = Some(time);
        self
    }

    /// `connection.failed.authentication.delay.ms`: how long a broker waits before it tells a client that
    /// it is refused. Default 100 ms, as Kafka's.
    pub fn failure_delay(mut self, time: Duration) -> Self {
        self.failure_delay = time;
        self
    }

    fn with(mut self, mechanism: Mechanism) -> Self {
        if !self.mechanisms.contains(&mechanism) {
            self.mechanisms.push(mechanism);
        }
        self
    }
}
