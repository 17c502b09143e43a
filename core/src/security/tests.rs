use super::*;
use crate::error::names::SASL_AUTHENTICATION_FAILED;

fn env() -> Environment {
    Environment::builder().runtime(tokio::runtime::Handle::current()).build()
}

fn secured(tls: Option<Tls>, sasl: Option<Sasl>) -> Security {
    Security { tls, sasl }
}

/// A provider of the program's own.
struct Given(&'static str);

impl TokenProvider for Given {
    fn token(&self) -> crate::environment::BoxFuture<'_, Result<Token, TokenError>> {
        Box::pin(std::future::ready(Ok(Token::new(self.0))))
    }
}

fn grant(secret: &str) -> ClientCredentials {
    ClientCredentials::new("https://idp/", "me", secret)
}

/// Clients with one password must not use the connections of those with another.
#[test]
fn settings_that_differ_share_no_connection() {
    let tls = || Some(Tls::system());
    let all = [
        secured(None, None),
        secured(tls(), None),
        secured(Some(Tls::system().ca("a")), None),
        secured(Some(Tls::system().ca(Pem::text("a"))), None),
        secured(Some(Tls::system().identity("a", "b")), None),
        secured(Some(Tls::system().identity("a", Pem::text("b"))), None),
        secured(Some(Tls::system().server_name("a")), None),
        secured(Some(Tls::system().verify(Verify::Chain)), None),
        secured(Some(Tls::system().verify(Verify::None)), None),
        secured(None, Some(Sasl::plain("u", "p"))),
        secured(None, Some(Sasl::plain("u", "q"))),
        secured(None, Some(Sasl::plain("v", "p"))),
        secured(None, Some(Sasl::scram_sha_256("u", "p"))),
        secured(None, Some(Sasl::scram_sha_512("u", "p"))),
        secured(None, Some(Sasl::scram_sha_512("u", "p").delegation_token())),
        secured(tls(), Some(Sasl::plain("u", "p"))),
        secured(None, Some(Sasl::oauth(Token::new("t")))),
        secured(None, Some(Sasl::oauth(Token::new("u")))),
        secured(None, Some(Sasl::oauth(OAuth::from(Token::new("t")).extension("e", "x")))),
        secured(None, Some(Sasl::oauth(OAuth::file("t")))),
        secured(None, Some(Sasl::oauth(grant("s")))),
        secured(None, Some(Sasl::oauth(grant("r")))),
        secured(None, Some(Sasl::oauth(grant("s").scope("x")))),
        secured(None, Some(Sasl::oauth(grant("s").param("a", "b")))),
        secured(None, Some(Sasl::oauth(grant("s").secret_in_body()))),
        secured(None, Some(Sasl::oauth(grant("s").ca("ca.pem")))),
        secured(None, Some(Sasl::oauth(OAuth::provider(|| async { Ok(Token::new("a")) })))),
        secured(None, Some(Sasl::oauth(OAuth::provider(Given("a"))))),
        secured(None, Some(Sasl::oauth(OAuth::provider(Given("a"))))),
    ];
    for (i, one) in all.iter().enumerate() {
        assert!(one.key() == one.clone().key());
        for other in &all[..i] {
            assert!(one.key() != other.key(), "{one:?} and {other:?}");
        }
    }
    let protocols: Vec<_> = [0, 1, 9, 15].map(|i| all[i].protocol()).into();
    assert_eq!(protocols, ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]);
}

#[test]
fn nothing_secret_is_shown() {
    let tls = Tls::system().identity("cert.pem", Pem::text("-----BEGIN hunter2"));
    let shown = format!("{:?}", secured(Some(tls), Some(Sasl::plain("alice", "hunter2"))));
    assert!(shown.contains("alice") && shown.contains("cert.pem"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// A key that is given as the place of one, or that has lost the ends of its lines.
#[tokio::test(start_paused = true)]
async fn a_key_in_the_wrong_place_is_not_shown() {
    let key = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n";
    let one_line = key.replace('\n', " ");
    let long = "hunter2".repeat(200);
    for tls in [
        Tls::system().identity(Pem::file(key), Pem::file(key)),
        Tls::system().identity(Pem::file(long.clone()), Pem::file(long)),
        Tls::system().identity(Pem::text(one_line.clone()), Pem::text(one_line.clone())),
        Tls::system().ca(Pem::text(one_line.clone())),
        Tls::system().ca(Pem::file(one_line)),
    ] {
        let shown = format!("{tls:?}");
        let error = Guard::new(&secured(Some(tls), None), &env()).map(drop).unwrap_err();
        let bytes = format!("{:?}", b"hunter2");
        for text in [shown, format!("{error:?} {error}")] {
            assert!(!text.contains("hunter2"), "{text}");
            assert!(!text.contains(&bytes[1..bytes.len() - 1]), "{text}");
        }
    }
}

/// Brokers learn of a new password one after the other: who has logged in a moment ago is not to fail for good.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_fatal_only_to_who_never_logged_in() {
    let env = env();
    let sasl = Some(Sasl::scram_sha_256("u", "p"));
    let guard = Guard::new(&secured(None, sasl), &env).unwrap();
    let judged = || {
        let refusal = Error::broker(SASL_AUTHENTICATION_FAILED, "broker 1", Some("no"));
        let judged = guard.judge(refusal, env.now());
        (judged.is_retriable(), judged.is_fatal())
    };
    assert_eq!(judged(), (false, true), "never logged in");
    guard.taken(env.now());
    tokio::time::advance(TRUSTED_FOR).await;
    assert_eq!(judged(), (true, false), "a while ago");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(judged(), (false, false), "long ago");
    let other = guard.judge(Error::new(ErrorKind::Tls, "x"), env.now());
    assert!(!other.is_retriable(), "of credentials alone");
}
