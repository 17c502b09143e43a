//! TLS and SASL as programs of other languages give them: words and texts. Here they become settings, so that they
//! are named, checked and refused alike everywhere, at the call that has them.

use crate::error::{Error, Result};
use crate::security::{Pem, Sasl, Secret, Security, Tls, Verify};

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
