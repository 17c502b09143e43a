//! One attempt to get a token, wherever it comes from, within a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::file::TextFile;
use super::flight;
use super::grant::{ClientCredentials, Why};
use super::http::{Answer, Reader};
use super::token::Token;
use super::url::Url;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::security::tls::{Connector, teller, wrap};

/// One attempt to get a token takes no longer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a response that are read at once.
const READ: usize = 8 << 10;

const LOOK_AT_SERVER: &str = "look at the token endpoint, and at the client id, secret and scope";
const LOOK_AT_CA: &str =
    "give the CA of the token endpoint (ca, https.ca.location), or update the system's";

/// Where tokens come from.
#[derive(Clone)]
pub(super) enum Source {
    Fixed(Token),
    File(Arc<TextFile>),
    Grant(Arc<ClientCredentials>),
    Provider(Arc<flight::Shared>),
}

/// Why there is none.
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// How long the source wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// It is no answer of a token endpoint: something in between may have given it.
    pub(super) is_strange: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None, is_strange: false }
    }
}

pub(super) fn none(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Credentials, words)
}

/// A token, or why there is none. `tls`: for a token endpoint that has it.
pub(super) async fn fetch(
    source: &Source,
    tls: Option<&Connector>,
    env: &Environment,
    metrics: Option<&Arc<Metrics>>,
) -> Result<Token, Failure> {
    let name = match source {
        Source::Grant(grant) => grant.url().map(|url| format!("token endpoint {url}")),
        Source::File(file) => Some(file.name()),
        Source::Fixed(_) | Source::Provider(_) => None,
    };
    let name = name.unwrap_or_else(|| "the token provider".to_owned());
    let attempt = async {
        match source {
            Source::Fixed(token) => Ok(token.clone()),
            // It may be replaced just now.
            Source::File(file) => {
                let text = file.text(env).await;
                text.map(Token::new).map_err(|words| none(words).passing().into())
            }
            Source::Provider(provider) => provider.token(env).await,
            Source::Grant(grant) => {
                let Some(url) = grant.url() else { return Err(none("no token endpoint").into()) };
                // It may be replaced just now.
                let secret = grant.secret(env).await.map_err(|words| none(words).passing())?;
                let answer =
                    ask(url, &grant.request(url, &secret), tls, env, &name, metrics).await?;
                grant.token(answer, &secret).map_err(|refusal| {
                    let error = none(format!("{name}: {}", refusal.words)).advise(LOOK_AT_SERVER);
                    let error = if refusal.why == Why::Passes { error.passing() } else { error };
                    let is_strange = refusal.why == Why::Strange;
                    Failure { error, retry_after: refusal.retry_after, is_strange }
                })
            }
        }
    };
    match env.within(TIMEOUT, attempt).await {
        Some(outcome) => outcome,
        None => Err(none(format!("{name}: no answer within {TIMEOUT:?}")).passing().into()),
    }
}

/// One request and its response, on a connection of its own: there are two in an hour.
async fn ask(
    url: &Url,
    request: &[u8],
    tls: Option<&Connector>,
    env: &Environment,
    name: &str,
    metrics: Option<&Arc<Metrics>>,
) -> Result<Answer> {
    let broken = |e: &dyn std::fmt::Display| none(format!("{name}: {e}")).passing();
    let dialled = env.dialer().dial(&url.endpoint).await;
    let mut stream = dialled.map_err(|e| broken(&e))?;
    if let Some(tls) = tls.filter(|_| url.is_tls) {
        let plan = tls.plan(env, teller(metrics.cloned(), "the token endpoint")).await;
        let plan = plan.map_err(|e| none(format!("{name}: {}", e.message())).passing())?;
        let wrapped = wrap(stream, plan, tls.settings(), &url.endpoint, name).await;
        stream = wrapped.map_err(|e| {
            // The words are those for a broker.
            let error = none(e.message().replace("the broker", "the server")).advise(LOOK_AT_CA);
            if e.is_retriable() { error.passing() } else { error }
        })?;
    }
    stream.write_all(request).await.map_err(|e| broken(&e))?;
    stream.flush().await.map_err(|e| broken(&e))?;
    let (mut reader, mut bytes) = (Reader::default(), zeroize::Zeroizing::new([0; READ]));
    loop {
        // Servers that hang up without a word of TLS are many: what there is decides.
        let size = match stream.read(&mut bytes[..]).await {
            Ok(size) => size,
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            Err(e) => return Err(broken(&e)),
        };
        if let Some(answer) = reader.take(&bytes[..size], size == 0).map_err(|why| broken(&why))? {
            return Ok(answer);
        }
    }
}
