//! A token endpoint (RFC 6749) in memory: gives tokens to clients that have the right secret, as a test wants it to.
//! In virtual time, if the runtime has that.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::sasl::{BearerLogin, BearerToken};
use crate::tls::{Endpoints, Tls};

/// Bytes of a request.
const MAX_REQUEST: usize = 1 << 20;

/// Buffer of a stream, each way.
const IN_MEMORY_BUFFER: usize = 64 << 10;

/// A token endpoint. Clones are the same one.
///
/// ```
/// use ottla_test_broker::{Cluster, Sasl, TokenEndpoint};
///
/// let endpoint = TokenEndpoint::new().client("me", "secret");
/// let sasl = Sasl::new().tokens(endpoint.judge());
/// let cluster = Cluster::builder().sasl(sasl).start()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct TokenEndpoint(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// With the certificate that leads to it.
    tls: Mutex<Option<(Arc<ServerConfig>, String)>>,
}

struct State {
    clients: BTreeMap<String, String>,
    life: Duration,
    /// What the next requests get instead of a token.
    script: VecDeque<TokenReply>,
    always: Option<TokenReply>,
    requests: Vec<TokenRequest>,
    tokens: BTreeMap<String, (String, Instant)>,
    given: u64,
}

/// What a request gets instead of a token.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TokenReply {
    /// A response with this status and body.
    Status(u16, String),
    /// These bytes, and the end.
    Raw(Vec<u8>),
    /// Nothing, for ever.
    Silence,
    /// What it would have got, after so long.
    After(Duration),
    /// The end, without a word.
    HangUp,
    /// A dial is refused.
    Refuse,
}

/// A request that came.
#[derive(Clone)]
#[non_exhaustive]
pub struct TokenRequest {
    /// When.
    pub at: Instant,
    /// Request line and headers.
    pub head: String,
    /// The form.
    pub body: String,
}

/// Secrets are not told.
impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest").field("at", &self.at).finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint").finish_non_exhaustive()
    }
}

impl Default for TokenEndpoint {
    fn default() -> Self {
        let state = State {
            clients: BTreeMap::new(),
            life: Duration::from_secs(3_600),
            script: VecDeque::new(),
            always: None,
            requests: Vec::new(),
            tokens: BTreeMap::new(),
            given: 0,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), tls: Mutex::default() }))
    }
}

impl TokenEndpoint {
    /// One that knows nobody yet, and gives tokens for an hour.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client and its secret; its tokens are of the principal of that name.
    #[must_use]
    pub fn client(self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.state().clients.insert(id.into(), secret.into());
        self
    }

    /// How long tokens are good from now on.
    pub fn set_life(&self, life: Duration) {
        self.state().life = life;
    }

    /// It speaks TLS, as this host.
    ///
    /// # Errors
    /// `InvalidInput` for a host that no certificate can be for.
    pub fn tls(self, host: &str) -> io::Result<Self> {
        let endpoints = Endpoints::new(Tls::new(), "token endpoint", 1)?;
        let config = endpoints.for_client(1, host)?;
        *self.0.tls.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((config, endpoints.authority_pem()));
        Ok(self)
    }

    /// What clients are to believe, in PEM.
    pub fn ca_pem(&self) -> Option<String> {
        let tls = self.0.tls.lock().unwrap_or_else(PoisonError::into_inner);
        tls.as_ref().map(|(_, pem)| pem.clone())
    }

    /// What the next request gets.
    pub fn then(&self, reply: TokenReply) {
        self.state().script.push_back(reply);
    }

    /// What all requests get from now on, after what [`then`](Self::then) has ordered; `None`: tokens.
    pub fn always(&self, reply: impl Into<Option<TokenReply>>) {
        self.state().always = reply.into();
    }

    /// The requests that came.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.state().requests.clone()
    }

    /// How many came.
    pub fn asked(&self) -> usize {
        self.state().requests.len()
    }

    /// The tokens that were given are good no more.
    pub fn revoke(&self) {
        self.state().tokens.clear();
    }

    /// Who its tokens are of: for [`Sasl::tokens`](crate::Sasl::tokens).
    pub fn judge(
        &self,
    ) -> impl Fn(&BearerToken<'_>) -> Option<BearerLogin> + Send + Sync + 'static {
        let this = self.clone();
        move |shown| {
            let state = this.state();
            let (principal, until) = state.tokens.get(shown.token)?;
            let left = until.saturating_duration_since(Instant::now());
            let login = BearerLogin { principal: principal.clone(), lifetime: Some(left) };
            (!left.is_zero()).then_some(login)
        }
    }

    /// A connection to it, served on the current runtime.
    ///
    /// # Errors
    /// `ConnectionRefused`, if a test wants it.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        if matches!(self.state().next(false), Some(TokenReply::Refuse)) {
            self.state().next(true);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = tokio::io::duplex(IN_MEMORY_BUFFER);
        let (this, tls) = (self.clone(), {
            let tls = self.0.tls.lock().unwrap_or_else(PoisonError::into_inner);
            tls.as_ref().map(|(config, _)| Arc::clone(config))
        });
        tokio::spawn(async move {
            // What goes wrong is the client's to tell.
            let _ = match tls {
                Some(config) => match TlsAcceptor::from(config).accept(far).await {
                    Ok(stream) => this.serve(stream).await,
                    Err(error) => Err(error),
                },
                None => this.serve(far).await,
            };
        });
        Ok(near)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut read = Vec::new();
        let (head, body) = loop {
            if let Some(request) = whole(&read) {
                break request;
            }
            if read.len() > MAX_REQUEST || stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let reply = {
            let mut state = self.state();
            let at = Instant::now();
            state.requests.push(TokenRequest { at, head: head.clone(), body: body.clone() });
            state.next(true)
        };
        let answer = match reply {
            Some(TokenReply::HangUp | TokenReply::Refuse) => return Ok(()),
            Some(TokenReply::Silence) => return std::future::pending().await,
            Some(TokenReply::Raw(bytes)) => bytes,
            Some(TokenReply::Status(status, body)) => response(status, &body),
            Some(TokenReply::After(time)) => {
                tokio::time::sleep(time).await;
                self.token(&head, &body)
            }
            None => self.token(&head, &body),
        };
        stream.write_all(&answer).await?;
        stream.shutdown().await
    }

    fn token(&self, head: &str, body: &str) -> Vec<u8> {
        if !head.starts_with("POST ") || field(body, "grant_type") != Some("client_credentials") {
            return response(400, "{\"error\":\"unsupported_grant_type\"}");
        }
        let mut state = self.state();
        let known = credentials(head, body)
            .filter(|(id, secret)| state.clients.get(id).is_some_and(|known| known == secret));
        let Some((id, _)) = known else {
            return response(
                401,
                "{\"error\":\"invalid_client\",\"error_description\":\"who is that?\"}",
            );
        };
        state.given += 1;
        let (token, life) = (format!("token-{}", state.given), state.life);
        state.tokens.insert(token.clone(), (id, Instant::now() + life));
        let seconds = life.as_secs();
        response(
            200,
            &format!(
                "{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":{seconds}}}"
            ),
        )
    }
}

impl State {
    fn next(&mut self, take: bool) -> Option<TokenReply> {
        let first = if take { self.script.pop_front() } else { self.script.front().cloned() };
        first.or_else(|| self.always.clone())
    }
}

fn response(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Head and body of a request, once it is whole.
fn whole(read: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(read).ok()?;
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let length = header(head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let body = rest.get(..length)?;
    Some((head.to_owned(), body.to_owned()))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .next()
}

fn field<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let fields = body.split('&').filter_map(|field| field.split_once('='));
    fields.filter(|(known, _)| *known == name).map(|(_, value)| value).next()
}

/// Id and secret, from the header or the form.
fn credentials(head: &str, body: &str) -> Option<(String, String)> {
    if let Some(basic) = header(head, "authorization").and_then(|text| text.strip_prefix("Basic "))
    {
        let pair = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
        let (id, secret) = pair.split_once(':')?;
        return Some((id.to_owned(), secret.to_owned()));
    }
    Some((field(body, "client_id")?.to_owned(), field(body, "client_secret")?.to_owned()))
}
