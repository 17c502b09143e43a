//! TLS and SASL as programs of other languages give them: words and texts. Here they become settings, so that they
//! are named, checked and refused alike everywhere, at the call that has them.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::security::{ClientCredentials, OAuth, Pem, Sasl, Secret, Security, Tls, Token, Verify};

/// What [`Tls`] is made of. `None` is its default.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Who is trusted: a path, or PEM text. Default: whom the system trusts.
    pub ca: Option<Pem>,
    /// What brokers know this client by; not without `key`.
    pub certificate: Option<Pem>,
    /// The private key of `certificate`.
    pub key: Option<Pem>,
    /// The name that certificates must have. Default: the host that was dialled.
    pub server_name: Option<String>,
    /// How much of a broker's certificate is checked. Default: all of it.
    pub verify: Option<Verify>,
}

impl TlsOptions {
    /// The settings; `Config` for what can not be. Files are looked at when a client is made.
    pub fn tls(self) -> Result<Tls> {
        let mut tls = Tls::system();
        if let Some(ca) = self.ca {
            tls = tls.ca(ca);
        }
        tls = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => tls.identity(certificate, key),
            (Some(_), None) => return Err(Error::config("tls: the certificate's key is missing")),
            (None, Some(_)) => return Err(Error::config("tls: the key's certificate is missing")),
            (None, None) => tls,
        };
        if let Some(name) = self.server_name {
            tls = tls.server_name(name);
        }
        let tls = tls.verify(self.verify.unwrap_or_default());
        Security { tls: Some(tls.clone()), sasl: None }.check()?;
        Ok(tls)
    }
}

/// The level of verification by its word: "full", "chain" or "none".
pub fn verify_named(word: &str) -> Option<Verify> {
    match word {
        "full" => Some(Verify::Full),
        "chain" => Some(Verify::Chain),
        "none" => Some(Verify::None),
        _ => None,
    }
}

/// What [`ClientCredentials`] are made of. `None` is a default.
#[derive(Clone)]
pub struct CredentialsOptions {
    /// The token endpoint; it may have secrets in it.
    pub url: Secret,
    /// The client's id there.
    pub client_id: String,
    /// Its secret; this or the next.
    pub client_secret: Option<Secret>,
    /// The file that has its secret.
    pub client_secret_file: Option<PathBuf>,
    /// What tokens are to be good for.
    pub scope: Option<String>,
    /// More fields of the request.
    pub params: Vec<(String, Secret)>,
    /// Whether id and secret go in the body.
    pub secret_in_body: bool,
    /// Whether they are percent-encoded in the header.
    pub encoded_header: bool,
    /// Who is trusted at the endpoint: a path, or PEM text. Default: whom the system trusts.
    pub ca: Option<Pem>,
}

impl CredentialsOptions {
    /// Of this client at this endpoint, and the defaults; without a secret.
    pub fn new(url: impl Into<Secret>, client_id: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            client_id: client_id.into(),
            client_secret: None,
            client_secret_file: None,
            scope: None,
            params: Vec::new(),
            secret_in_body: false,
            encoded_header: false,
            ca: None,
        }
    }

    fn credentials(self) -> Result<ClientCredentials> {
        let url = std::str::from_utf8(self.url.expose())
            .map_err(|_| Error::config("sasl oauth: the token endpoint's URL is not UTF-8"))?;
        let mut credentials = match (self.client_secret, self.client_secret_file) {
            (Some(secret), None) => ClientCredentials::new(url, self.client_id, secret),
            (None, Some(path)) => ClientCredentials::with_secret_file(url, self.client_id, path),
            (None, None) => return Err(Error::config("sasl oauth: the client secret is missing")),
            (Some(_), Some(_)) => {
                let words = "sasl oauth: there are a client secret and a file with one";
                return Err(Error::config(words));
            }
        };
        if let Some(scope) = self.scope {
            credentials = credentials.scope(scope);
        }
        for (name, value) in self.params {
            credentials = credentials.param(name, value);
        }
        if self.secret_in_body {
            credentials = credentials.secret_in_body();
        }
        if self.encoded_header {
            credentials = credentials.encoded_header();
        }
        if let Some(ca) = self.ca {
            credentials = credentials.ca(ca);
        }
        Ok(credentials)
    }
}

/// Nothing of it is shown: a URL may have secrets in it.
impl fmt::Debug for CredentialsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsOptions").finish_non_exhaustive()
    }
}

/// Where the tokens of OAUTHBEARER come from: one of these.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// A token endpoint.
    Credentials(CredentialsOptions),
    /// A file.
    File(PathBuf),
    /// There is one.
    Fixed(Token),
    /// The host's own code, by [`TokenRequests::oauth`](super::TokenRequests::oauth).
    Host(OAuth),
}

impl TokenSource {
    /// A login with tokens of this source, and with these SASL extensions; `Config` for what can never log in.
    pub fn sasl(self, extensions: Vec<(String, String)>) -> Result<Sasl> {
        let mut oauth = match self {
            Self::Credentials(options) => options.credentials()?.into(),
            Self::File(path) if path.as_os_str().is_empty() => {
                return Err(Error::config("sasl oauth: the token file has no name"));
            }
            Self::File(path) => OAuth::file(path),
            Self::Fixed(token) => token.into(),
            Self::Host(oauth) => oauth,
        };
        for (name, value) in extensions {
            oauth = oauth.extension(name, value);
        }
        let sasl = Sasl::oauth(oauth);
        Security { tls: None, sasl: Some(sasl.clone()) }.check()?;
        Ok(sasl)
    }
}

/// Credentials for a mechanism by the name that Kafka has for it; `Config` for one that is not offered, and for
/// what can never log in.
pub fn sasl_named(
    mechanism: &str,
    user: &str,
    password: Secret,
    delegation_token: bool,
) -> Result<Sasl> {
    let sasl = match mechanism {
        "PLAIN" if delegation_token => {
            return Err(Error::config("sasl: delegation tokens log in by SCRAM alone"));
        }
        "PLAIN" => Sasl::plain(user, password),
        "SCRAM-SHA-256" => Sasl::scram_sha_256(user, password),
        "SCRAM-SHA-512" => Sasl::scram_sha_512(user, password),
        // Not repeated: a password may stand in the wrong place.
        _ => {
            let words = "sasl: the mechanism is none of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512";
            return Err(Error::config(words));
        }
    };
    let sasl = if delegation_token { sasl.delegation_token() } else { sasl };
    Security { tls: None, sasl: Some(sasl.clone()) }.check()?;
    Ok(sasl)
}

#[cfg(test)]
mod tests {
    use super::super::ClientOptions;
    use super::*;
    use crate::config::properties::Properties;
    use crate::error::ErrorKind;

    const CANARY: &str = "hunter2-Zm9v";

    #[test]
    fn words_become_the_settings_of_rust() {
        let options = TlsOptions {
            ca: Some("ca.pem".into()),
            certificate: Some("client.pem".into()),
            key: Some("client.key".into()),
            server_name: Some("kafka".into()),
            verify: verify_named("chain"),
        };
        let tls = Tls::system().ca("ca.pem").identity("client.pem", "client.key");
        assert!(options.tls().unwrap() == tls.server_name("kafka").verify(Verify::Chain));
        assert!(TlsOptions::default().tls().unwrap() == Tls::system());
        assert_eq!(verify_named("full"), Some(Verify::Full));
        assert_eq!(verify_named("none"), Some(Verify::None));
        assert_eq!(verify_named("Full"), None);
        for (name, token, sasl) in [
            ("PLAIN", false, Sasl::plain("u", "p")),
            ("SCRAM-SHA-256", false, Sasl::scram_sha_256("u", "p")),
            ("SCRAM-SHA-512", false, Sasl::scram_sha_512("u", "p")),
            ("SCRAM-SHA-256", true, Sasl::scram_sha_256("u", "p").delegation_token()),
        ] {
            assert!(sasl_named(name, "u", "p".into(), token).unwrap() == sasl, "{name}");
        }
    }

    #[test]
    fn sources_of_tokens_become_the_settings_of_rust() {
        let options = CredentialsOptions {
            client_secret: Some("s".into()),
            ..CredentialsOptions::new("https://idp/t", "me")
        };
        let all = CredentialsOptions {
            scope: Some("kafka".into()),
            params: vec![("audience".into(), "a".into())],
            secret_in_body: true,
            encoded_header: true,
            ca: Some("ca.pem".into()),
            ..options.clone()
        };
        let by_file = CredentialsOptions {
            client_secret: None,
            client_secret_file: Some("/run/secret".into()),
            ..options.clone()
        };
        let rust = || ClientCredentials::new("https://idp/t", "me", "s");
        let whole = rust().scope("kafka").param("audience", "a").secret_in_body();
        for (source, oauth) in [
            (TokenSource::Credentials(options), OAuth::from(rust())),
            (TokenSource::Credentials(all), whole.encoded_header().ca("ca.pem").into()),
            (
                TokenSource::Credentials(by_file),
                ClientCredentials::with_secret_file("https://idp/t", "me", "/run/secret").into(),
            ),
            (TokenSource::File("/run/token".into()), OAuth::file("/run/token")),
            (TokenSource::Fixed(Token::new("t")), Token::new("t").into()),
        ] {
            let extension = ("logicalCluster".to_owned(), "lkc-1".to_owned());
            let made = source.clone().sasl(vec![extension]).unwrap();
            assert!(made == Sasl::oauth(oauth.extension("logicalCluster", "lkc-1")), "{source:?}");
        }
        let requests = super::super::TokenRequests::open().unwrap();
        let host = requests.oauth(1);
        let made = |oauth: &OAuth| TokenSource::Host(oauth.clone()).sasl(Vec::new()).unwrap();
        assert!(made(&host) == made(&host), "one provider is one");
        assert!(made(&host) != made(&requests.oauth(1)), "and not another one");
    }

    #[test]
    fn tokens_that_can_not_be_are_refused_without_their_secrets() {
        let secret = || Some(Secret::from(CANARY));
        let options = |url: &str| CredentialsOptions {
            client_secret: secret(),
            ..CredentialsOptions::new(url, "me")
        };
        let file = || Some(PathBuf::from(CANARY));
        let both = CredentialsOptions { client_secret_file: file(), ..options("https://idp/t") };
        let none = CredentialsOptions { client_secret: None, ..options("https://idp/t") };
        let of = TokenSource::Credentials;
        for (source, words) in [
            (of(both), "a client secret and a file"),
            (of(none), "client secret is missing"),
            (of(options(&format!("https://me:{CANARY}@idp/t"))), "'@'"),
            (TokenSource::File(PathBuf::new()), "has no name"),
            (TokenSource::Fixed(Token::new(format!("{CANARY}ü"))), "characters that none can have"),
        ] {
            assert!(!format!("{source:?}").contains(CANARY));
            let error = source.sasl(Vec::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(words), "{error}");
            assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
        }
        let token = TokenSource::Fixed(Token::new("t"));
        let error = token.sasl(vec![("auth".into(), CANARY.into())]).unwrap_err();
        assert!(error.message().contains("extension") && !error.message().contains(CANARY));
    }

    #[test]
    fn what_can_not_be_is_refused_without_its_secrets() {
        let key = || Some(Pem::text(CANARY));
        let half = |certificate, key| TlsOptions { certificate, key, ..TlsOptions::default() };
        let name = TlsOptions { server_name: Some("no name".into()), ..TlsOptions::default() };
        let sasl = |name, user, token| sasl_named(name, user, CANARY.into(), token).map(drop);
        for (refused, words) in [
            (half(None, key()).tls().map(drop), "certificate is missing"),
            (half(key(), None).tls().map(drop), "key is missing"),
            (name.tls().map(drop), "server_name"),
            (sasl("GSSAPI", "u", false), "none of PLAIN"),
            (sasl(CANARY, "u", false), "none of PLAIN"),
            (sasl("PLAIN", "u", true), "by SCRAM alone"),
            (sasl("PLAIN", "", false), "user name is empty"),
            (sasl("SCRAM-SHA-256", "ü", false), "printable ASCII"),
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(words), "{error}");
            assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
        }
    }

    /// What is dropped would be a client that connects in plaintext, or as nobody.
    #[test]
    fn settings_arrive_and_go_before_properties() {
        let no_such = || Tls::system().ca("/no/such.pem");
        let by_properties = |path: &str| {
            Properties::from_iter([("security.protocol", "SSL"), ("ssl.ca.location", path)])
        };
        let refused = |options: ClientOptions| {
            let error = options.builder().bootstrap("h:1").build().err();
            error.map(|error| error.message().to_owned()).expect("it is refused")
        };
        let options = ClientOptions::default();
        let tls = ClientOptions { tls: Some(no_such()), ..options.clone() };
        assert!(refused(tls).contains("/no/such.pem"));
        let sasl = ClientOptions { sasl: Some(Sasl::plain("", "p")), ..options.clone() };
        assert!(refused(sasl).contains("user name is empty"));
        let properties = by_properties("/other.pem");
        let both = ClientOptions { tls: Some(no_such()), properties, ..options };
        assert!(refused(both.clone()).contains("/no/such.pem"));
        assert!(refused(ClientOptions { tls: None, ..both }).contains("/other.pem"));
    }

    /// They get into logs of programs.
    #[test]
    fn options_show_no_secrets() {
        let key = "-----BEGIN PRIVATE KEY-----\nhunter2-Zm9v";
        let options = ClientOptions {
            tls: Some(Tls::system().identity("client.pem", key)),
            sasl: Some(Sasl::plain("alice", CANARY)),
            properties: Properties::from_iter([("sasl.password", CANARY)]),
            ..ClientOptions::default()
        };
        let shown = format!("{options:?} {options:#?}");
        assert!(shown.contains("alice") && shown.contains("client.pem"), "{shown}");
        assert!(!shown.contains(CANARY), "{shown}");
    }
}
