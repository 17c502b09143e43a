//! A token for a client's own id and secret: the grant `client_credentials` (RFC 6749) at a token endpoint, as Java has
//! it since KIP-768 and librdkafka as `sasl.oauthbearer.method=oidc`.

use std::fmt;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::file::{Kind, TextFile};
use super::http::{self, Answer};
use super::token::Token;
use super::url::Url;
use super::words::without;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::security::identity::Feed;
use crate::security::{Pem, Secret, Tls};

/// Gets tokens for the client's own id and secret, from a token endpoint.
/// ```
/// # use ottla::{ClientCredentials, Sasl};
/// let sasl = Sasl::oauth(
///     ClientCredentials::new("https://login.example/oauth2/token", "my-service", "its secret")
///         .scope("kafka"),
/// );
/// ```
///
/// The endpoint is reached directly, without a proxy. Its certificate is to lead to a CA of the system, or of
/// [`ca`](Self::ca); what is set for brokers does not count. Redirects are refused.
#[derive(Clone)]
#[must_use]
pub struct ClientCredentials {
    url: std::result::Result<Url, &'static str>,
    id: String,
    proof: Proof,
    scope: Option<String>,
    params: Vec<(String, Secret)>,
    in_body: bool,
    encoded: bool,
    tls: Tls,
}

/// Where the client's secret is.
#[derive(Clone)]
enum Proof {
    Secret(Secret),
    File(Arc<TextFile>),
}

impl ClientCredentials {
    /// `url`: of the token endpoint, `https://...`. With `http://` who listens has the secret.
    pub fn new(
        url: impl AsRef<str>,
        client_id: impl Into<String>,
        client_secret: impl Into<Secret>,
    ) -> Self {
        Self::by(url.as_ref(), client_id.into(), Proof::Secret(client_secret.into()))
    }

    /// The same with a secret that is in a file, without the space around it. It is read for each token, so that it can be
    /// changed while a program runs.
    pub fn with_secret_file(
        url: impl AsRef<str>,
        client_id: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> Self {
        let file = TextFile::new(Kind::ClientSecret, path.into());
        Self::by(url.as_ref(), client_id.into(), Proof::File(Arc::new(file)))
    }

    fn by(url: &str, id: String, proof: Proof) -> Self {
        Self {
            url: Url::parse(url.trim()),
            id,
            proof,
            scope: None,
            params: Vec::new(),
            in_body: false,
            encoded: false,
            tls: Tls::system(),
        }
    }

    /// What the token is to be good for. Several are separated by spaces.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// One more field of the request, such as `audience`. Not shown.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    /// Sends id and secret in the body (`client_secret_post`) instead of the header `Authorization`
    /// (`client_secret_basic`).
    pub fn secret_in_body(mut self) -> Self {
        self.in_body = true;
        self
    }

    /// Percent-encodes id and secret in the header, as RFC 6749 has it. Other clients of Kafka do not, unless they
    /// are told to (`sasl.oauthbearer.header.urlencode`), and most endpoints do not mind.
    pub fn encoded_header(mut self) -> Self {
        self.encoded = true;
        self
    }

    /// Trusts the CAs of this file, or of this PEM text, at the token endpoint, instead of the system's.
    pub fn ca(mut self, ca: impl Into<Pem>) -> Self {
        self.tls = self.tls.ca(ca);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |words: &str| Err(Error::config(format!("sasl oauth: {words}")));
        match &self.url {
            Err(why) => return wrong(&format!("the token endpoint's URL is of no use: {why}")),
            Ok(_) if self.id.is_empty() => return wrong("the client id is empty"),
            Ok(_) => {}
        }
        if let Proof::Secret(secret) = &self.proof {
            if secret.is_empty() {
                return wrong("the client secret is empty");
            }
            if std::str::from_utf8(secret.expose()).is_err() {
                return wrong("the client secret is not UTF-8");
            }
        }
        if self.params.iter().any(|(_, value)| std::str::from_utf8(value.expose()).is_err()) {
            return wrong("a field of the request is not UTF-8");
        }
        if !self.in_body && !self.encoded && self.id.contains(':') {
            return wrong("a client id with a ':' is not clear in a header: secret_in_body");
        }
        Ok(())
    }

    /// Where it is; checked before.
    pub(super) fn url(&self) -> Option<&Url> {
        self.url.as_ref().ok()
    }

    pub(super) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// What tells these settings from others.
    pub(super) fn feed(&self, feed: &mut Feed) {
        if let Ok(url) = &self.url {
            feed.field("url", url.to_string().as_bytes());
            feed.field("target", url.target().as_bytes());
        }
        feed.field("client id", self.id.as_bytes());
        match &self.proof {
            Proof::Secret(secret) => feed.field("client secret", secret.expose()),
            Proof::File(file) => {
                feed.field("client secret file", file.path().as_os_str().as_encoded_bytes());
            }
        }
        feed.field("scope", self.scope.as_deref().unwrap_or_default().as_bytes());
        for (name, value) in &self.params {
            feed.field("param", name.as_bytes());
            feed.field("param", value.expose());
        }
        feed.field("way", &[u8::from(self.in_body), u8::from(self.encoded)]);
        self.tls.feed(feed);
    }

    /// The client's secret, as it is now; or why there is none.
    pub(super) async fn secret(&self, env: &Environment) -> std::result::Result<Secret, String> {
        match &self.proof {
            Proof::Secret(secret) => Ok(secret.clone()),
            Proof::File(file) => file.text(env).await,
        }
    }

    /// The request, as it goes to the endpoint.
    pub(super) fn request(&self, url: &Url, secret: &Secret) -> Zeroizing<Vec<u8>> {
        // Each byte may become three.
        let room = |text: &str| 3 * text.len() + 2;
        let secret = text(secret);
        let params = self.params.iter().map(|(name, value)| room(name) + room(text(value)));
        let scope = self.scope.as_deref().map_or(0, room);
        let size = 128 + scope + room(&self.id) + room(secret) + params.sum::<usize>();
        let mut form = Zeroizing::new(String::with_capacity(size));
        form.push_str("grant_type=client_credentials");
        let mut field = |name: &str, value: &str| {
            form.push('&');
            encode(name, &mut form);
            form.push('=');
            encode(value, &mut form);
        };
        if let Some(scope) = &self.scope {
            field("scope", scope);
        }
        if self.in_body {
            field("client_id", &self.id);
            field("client_secret", secret);
        }
        for (name, value) in &self.params {
            field(name, text(value));
        }
        let header = (!self.in_body).then(|| {
            let mut pair = Zeroizing::new(String::with_capacity(room(&self.id) + room(secret)));
            for part in [&*self.id, ":", secret] {
                match self.encoded && part != ":" {
                    true => encode(part, &mut pair),
                    false => pair.push_str(part),
                }
            }
            let mut header = Zeroizing::new(String::with_capacity(8 + pair.len().div_ceil(3) * 4));
            header.push_str("Basic ");
            BASE64.encode_string(pair.as_bytes(), &mut header);
            header
        });
        http::post(url, header.as_ref().map(|header| header.as_str()), &form)
    }

    /// The token of an answer to a request with this secret, or what is wrong.
    pub(super) fn token(
        &self,
        answer: Answer,
        secret: &Secret,
    ) -> std::result::Result<Token, Refusal> {
        let Answer { status, retry_after, body } = answer;
        let refuse = |words: String, why| Refusal { words, why, retry_after };
        match status {
            200..=299 => {}
            300..=399 => {
                let words = format!("it answers with a redirect ({status}), which is not followed");
                return Err(refuse(words, Why::Final));
            }
            _ => {
                let passes = matches!(status, 408 | 425 | 429 | 500..=599);
                let Ok(Failure { error, error_description }) = serde_json::from_slice(&body) else {
                    // What a token endpoint refuses it says so of: this may be something in between.
                    let why = if passes { Why::Passes } else { Why::Strange };
                    return Err(refuse(format!("it answers {status}"), why));
                };
                let passes = passes || PASSING.contains(&&*error);
                let mut words = format!("it answers {status}: {}", self.without(&error, secret));
                if let Some(more) = error_description {
                    let _ = write!(words, " ({})", self.without(&more, secret));
                }
                return Err(refuse(words, if passes { Why::Passes } else { Why::Final }));
            }
        }
        let no_token = |words: &str, why| refuse(format!("its answer is no token: {words}"), why);
        // Not in the words of the reader, which repeats what it has read.
        let Ok(Success { access_token, token_type, expires_in }) = serde_json::from_slice(&body)
        else {
            return Err(no_token("it is not JSON with an access_token", Why::Strange));
        };
        let text = Secret::from(access_token);
        if token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(no_token("it is for another use than as a bearer token", Why::Final));
        }
        let mut token = Token::new(text);
        if let Some(seconds) = expires_in {
            let seconds = seconds.number().filter(|seconds| (0.0..1e10).contains(seconds));
            let Some(seconds) = seconds else {
                return Err(no_token("expires_in is no number of seconds", Why::Final));
            };
            token = token.expires_in(Duration::from_secs_f64(seconds));
        }
        token.check().map_err(|words| no_token(words, Why::Final))?;
        Ok(token)
    }

    /// A server's words without the secrets.
    fn without(&self, words: &str, secret: &Secret) -> String {
        let params = self.params.iter().map(|(_, value)| text(value));
        let secrets: Vec<_> = [text(secret)].into_iter().chain(params).collect();
        without(words, &secrets)
    }
}

fn text(secret: &Secret) -> &str {
    std::str::from_utf8(secret.expose()).unwrap_or_default()
}

/// The URL is shown without its query, and of the rest nothing that may be a secret.
impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let params: Vec<_> = self.params.iter().map(|(name, _)| name).collect();
        let mut shown = f.debug_struct("ClientCredentials");
        shown.field("url", &self.url.as_ref().map(Url::to_string)).field("client_id", &self.id);
        match &self.proof {
            Proof::Secret(secret) => shown.field("client_secret", secret),
            Proof::File(file) => shown.field("client_secret_file", &Pem::file(file.path())),
        };
        shown.field("scope", &self.scope).field("params", &params).finish_non_exhaustive()
    }
}

/// Why there is no token.
pub(super) struct Refusal {
    pub(super) words: String,
    pub(super) why: Why,
    pub(super) retry_after: Option<Duration>,
}

/// Whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It may.
    Passes,
    /// It is no answer of a token endpoint: of something in between, which may be gone in a moment; or the URL is another's.
    Strange,
    /// It can not.
    Final,
}

/// What RFC 6749 has servers say that are not well.
const PASSING: [&str; 2] = ["server_error", "temporarily_unavailable"];

#[derive(Deserialize)]
struct Success {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
}

/// Some servers write numbers as texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

#[derive(Deserialize)]
struct Failure {
    error: String,
    error_description: Option<String>,
}

/// As forms have it.
fn encode(text: &str, into: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                into.push(char::from(byte));
            }
            b' ' => into.push('+'),
            byte => {
                into.push('%');
                into.push(char::from(HEX[usize::from(byte >> 4)]));
                into.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> ClientCredentials {
        ClientCredentials::new("https://idp/t", "me", "hunter2 &%")
    }

    fn request(credentials: &ClientCredentials) -> String {
        credentials.check().unwrap();
        let Proof::Secret(secret) = &credentials.proof else { panic!("it is in a file") };
        let request = credentials.request(credentials.url().unwrap(), secret);
        String::from_utf8(request.to_vec()).unwrap()
    }

    fn token(
        credentials: &ClientCredentials,
        answer: Answer,
    ) -> std::result::Result<Token, Refusal> {
        credentials.token(answer, &Secret::from("hunter2 &%"))
    }

    fn answer(status: u16, body: &str) -> Answer {
        let body = Zeroizing::new(body.as_bytes().to_vec());
        Answer { status, retry_after: None, body }
    }

    #[test]
    fn the_secret_is_sent_as_it_was_asked_for() {
        let basic = |pair: &str| format!("Authorization: Basic {}\r\n", BASE64.encode(pair));
        let sent = request(&credentials());
        assert!(sent.contains(&basic("me:hunter2 &%")), "{sent}");
        assert!(sent.ends_with("\r\n\r\ngrant_type=client_credentials"), "{sent}");
        let sent = request(&credentials().encoded_header());
        assert!(sent.contains(&basic("me:hunter2+%26%25")), "{sent}");
        let body = credentials().scope("a b").param("audience", "x/y").secret_in_body();
        let sent = request(&body);
        assert!(!sent.contains("Authorization"), "{sent}");
        let form = "grant_type=client_credentials&scope=a+b&client_id=me&client_secret=hunter2+%26%25&audience=x%2Fy";
        assert!(sent.ends_with(&format!("\r\n\r\n{form}")), "{sent}");
    }

    #[test]
    fn what_can_never_work_is_refused_without_the_secret() {
        for (credentials, words) in [
            (ClientCredentials::new("https://u:hunter2@idp/", "a", "b"), "'@'"),
            (ClientCredentials::new("hunter2", "a", "b"), "http://"),
            (ClientCredentials::new("https://idp", "", "hunter2"), "client id is empty"),
            (ClientCredentials::new("https://idp", "a", ""), "client secret is empty"),
            (ClientCredentials::new("https://idp", "a", b"hunter2\xff".to_vec()), "not UTF-8"),
            (ClientCredentials::new("https://idp", "a:b", "hunter2"), "secret_in_body"),
        ] {
            let error = credentials.check().unwrap_err();
            assert!(error.message().contains(words), "{error}");
            let shown = format!("{error} {credentials:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let shown =
            format!("{:?}", ClientCredentials::new("https://i/?k=hunter2", "me", "hunter2"));
        assert!(shown.contains("https://i/") && shown.contains("me"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_token_is_read_and_its_life() {
        for (body, life) in [
            (r#"{"access_token":"t.o.k","token_type":"Bearer","expires_in":3600}"#, Some(3_600)),
            (r#"{"access_token":"t.o.k","expires_in":"3600","x":[1,{"y":null}]}"#, Some(3_600)),
            (r#"{"access_token":"t.o.k"}"#, None),
        ] {
            let token = token(&credentials(), answer(200, body)).ok().unwrap();
            assert_eq!(token.text.expose(), b"t.o.k");
            let expected = life.map(|s| format!("In({s}s)")).unwrap_or("ItsOwn".into());
            assert!(format!("{token:?}").contains(&expected), "{token:?}");
        }
        for (body, words, why) in [
            // A login page of a proxy, and the like.
            ("", "not JSON", Why::Strange),
            ("[]", "not JSON", Why::Strange),
            ("<html>hunter2</html>", "not JSON", Why::Strange),
            (r#"{"token":"hunter2"}"#, "not JSON", Why::Strange),
            (r#"{"access_token":7}"#, "not JSON", Why::Strange),
            (r#"{"access_token":""}"#, "is empty", Why::Final),
            (r#"{"access_token":"hunter2 x"}"#, "characters", Why::Final),
            (r#"{"access_token":"t","token_type":"mac"}"#, "another use", Why::Final),
            (r#"{"access_token":"t","expires_in":"soon"}"#, "expires_in", Why::Final),
            (r#"{"access_token":"t","expires_in":-5}"#, "expires_in", Why::Final),
            (r#"{"access_token":"t","expires_in":1e300}"#, "expires_in", Why::Final),
        ] {
            let refusal = token(&credentials(), answer(200, body)).expect_err(body);
            assert!(refusal.words.contains(words), "{}", refusal.words);
            assert_eq!(refusal.why, why, "{}", refusal.words);
            assert!(!refusal.words.contains("hunter2"), "{}", refusal.words);
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words_without_the_secret() {
        for (status, body, words, why) in [
            (
                401,
                r#"{"error":"invalid_client","error_description":"hunter2 &% or hunter2+%26%25 is wrong"}"#,
                "it answers 401: invalid_client (*** or *** is wrong)",
                Why::Final,
            ),
            (
                400,
                r#"{"error":"no ODgtYXVkaXQ= here","error_description":"bWU6aHVudGVyMiAmJQ=="}"#,
                "it answers 400: no ***= here (bWU6***==)",
                Why::Final,
            ),
            (400, r#"{"error":"invalid_scope"}"#, "it answers 400: invalid_scope", Why::Final),
            (400, r#"{"error":"server_error"}"#, "it answers 400: server_error", Why::Passes),
            (403, "<html>", "it answers 403", Why::Strange),
            (404, "not found", "it answers 404", Why::Strange),
            (302, "", "it answers with a redirect (302), which is not followed", Why::Final),
            (429, "", "it answers 429", Why::Passes),
            (408, "", "it answers 408", Why::Passes),
            (503, r#"{"error":"x\u001b[31m"}"#, "it answers 503: x[31m", Why::Passes),
        ] {
            let credentials = credentials().param("audit", "88-audit");
            let refusal = token(&credentials, answer(status, body)).err().unwrap();
            assert_eq!((&*refusal.words, refusal.why), (words, why));
        }
    }
}
