//! A token, and who gives one.

use std::fmt;
use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::bearer::{Extensions, is_extension, is_token};
use super::jwt;
use crate::environment::{BoxFuture, Environment};
use crate::security::Secret;

/// Bytes of a token. Brokers take requests that are larger by far, and headers of proxies none so large.
const MAX_BYTES: usize = 128 << 10;

/// A bearer token of OAuth, for OAUTHBEARER.
/// ```
/// # use std::time::Duration;
/// # use ottla::Token;
/// let token = Token::new("eyJhbGciOi...").expires_in(Duration::from_secs(3600));
/// assert!(!format!("{token:?}").contains("eyJ"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct Token {
    pub(super) text: Secret,
    end: End,
    pub(super) extensions: Extensions,
}

/// When a token ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// As it says itself, or never.
    ItsOwn,
    In(Duration),
    At(SystemTime),
}

impl Token {
    /// A token that ends when it says so itself: if it is a JWT, by its claim `exp`. Any other counts as one without an
    /// end, unless one is given.
    pub fn new(token: impl Into<Secret>) -> Self {
        Self { text: token.into(), end: End::ItsOwn, extensions: Vec::new() }
    }

    /// It ends so long from now on.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.end = End::In(time);
        self
    }

    /// It ends then.
    pub fn expires_at(mut self, at: SystemTime) -> Self {
        self.end = End::At(at);
        self
    }

    /// A SASL extension that the broker is to have with it (KIP-342): a name of letters, and a value.
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    /// When it ends, by the environment's clocks.
    pub(super) fn expiry(&self, env: &Environment) -> Option<Instant> {
        let left = match self.end {
            End::In(time) => time,
            End::At(at) => since_1970(at).saturating_sub(wall(env)),
            End::ItsOwn => {
                Duration::from_secs_f64(jwt::expiry(self.text.expose())?).saturating_sub(wall(env))
            }
        };
        env.now().checked_add(left)
    }

    /// The error says what is wrong with it, without a word of it.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let text = self.text.expose();
        if text.is_empty() {
            return Err("the token is empty");
        }
        if text.len() > MAX_BYTES {
            return Err("the token is too long");
        }
        if !is_token(text) {
            return Err("the token has characters that none can have");
        }
        match self.extensions.iter().all(|(name, value)| is_extension(name, value)) {
            true => Ok(()),
            false => Err(NO_EXTENSION),
        }
    }
}

pub(super) const NO_EXTENSION: &str =
    "an extension has a name that is not of letters alone, or a value that cannot be sent";

fn wall(env: &Environment) -> Duration {
    Duration::from_millis(u64::try_from(env.wall_ms()).unwrap_or(0))
}

fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.extensions.iter().map(|(name, _)| name).collect();
        f.debug_struct("Token")
            .field("text", &self.text)
            .field("end", &self.end)
            .field("extensions", &names)
            .finish()
    }
}

/// What goes wrong where a token comes from.
pub type TokenError = Box<dyn std::error::Error + Send + Sync>;

/// Where tokens come from, in a program's own way. Asked by one caller at a time, however many clients have the same one, on the
/// engine: it must not keep a thread waiting. What it gives is used by all connections, and asked for anew at 50 to 80 % of
/// its life; the first one, and one that came after a failure, at 10 to 80 %.
///
/// An async closure that takes nothing is one as well. Its error must not tell secrets: it is told as it is.
pub trait TokenProvider: Send + Sync {
    /// A fresh token.
    fn token(&self) -> BoxFuture<'_, Result<Token, TokenError>>;
}

impl<F, T> TokenProvider for F
where
    F: Fn() -> T + Send + Sync,
    T: Future<Output = Result<Token, TokenError>> + Send + 'static,
{
    fn token(&self) -> BoxFuture<'_, Result<Token, TokenError>> {
        Box::pin(self())
    }
}
