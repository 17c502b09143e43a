//! OAUTHBEARER (RFC 7628) as Kafka speaks it: a token, and what else it is to be known by (KIP-342), in one message. A
//! broker that refuses it says why in JSON, with the code of success, and tells of the error only once it was answered.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::error::Result;
use crate::security::Secret;
use crate::security::mechanism::{Mechanism, Step};

pub(crate) const NAME: &str = "OAUTHBEARER";

/// Separates the parts of a message, and is all that is left to say to a refusal.
const SEPARATOR: u8 = 1;

/// Bytes of a refusal that are looked at.
const MAX_REFUSAL: usize = 16 << 10;

/// Characters of each part of it that are told.
const MAX_WORDS: usize = 200;

/// Names and values.
pub(super) type Extensions = Vec<(String, String)>;

/// Whether brokers take it: `OAuthBearerClientInitialResponse`, and RFC 6750.
pub(super) fn is_token(token: &[u8]) -> bool {
    let bare = token.trim_ascii_end();
    let core = match bare.iter().position(|b| *b == b'=') {
        Some(at) if bare[at..].iter().all(|b| *b == b'=') => &bare[..at],
        Some(_) => return false,
        None => bare,
    };
    let is = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(b);
    bare.len() == token.len() && !core.is_empty() && core.iter().all(is)
}

/// Whether an extension can be sent: names are letters, and `auth` is the token's own.
pub(super) fn is_extension(name: &str, value: &str) -> bool {
    let is_value = |b: u8| matches!(b, b'\t' | b'\r' | b'\n' | b' '..=b'~');
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphabetic())
        && !name.eq_ignore_ascii_case("auth")
        && !value.is_empty()
        && value.bytes().all(is_value)
}

/// One login.
pub(super) struct Bearer {
    token: Secret,
    extensions: Extensions,
    state: State,
    /// What the broker has said against the token.
    said: Option<String>,
    /// Hears what the broker thinks of the token.
    on_verdict: Box<dyn Fn(Verdict) + Send>,
}

/// What a broker thinks of a token.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Refused,
    /// In a login that began then, for a session of this life, if it has an end.
    Taken {
        since: Instant,
        life: Option<Duration>,
    },
}

#[derive(PartialEq)]
enum State {
    Begin,
    Sent,
    Refused,
}

impl Bearer {
    pub(super) fn new(
        token: Secret,
        extensions: Extensions,
        on_verdict: Box<dyn Fn(Verdict) + Send>,
    ) -> Self {
        Self { token, extensions, state: State::Begin, said: None, on_verdict }
    }

    fn first(&self) -> Zeroizing<Vec<u8>> {
        let size = self.extensions.iter().map(|(name, value)| name.len() + value.len() + 2);
        // In one piece: a vector that grows leaves copies behind.
        let size = 32 + self.token.expose().len() + size.sum::<usize>();
        let mut message = Zeroizing::new(Vec::with_capacity(size));
        let mut put = |parts: &[&[u8]]| {
            for part in parts {
                message.extend_from_slice(part);
            }
            message.push(SEPARATOR);
        };
        // No authorization id: Kafka takes none but the token's own principal.
        put(&[b"n,,"]);
        put(&[b"auth=Bearer ", self.token.expose()]);
        for (name, value) in &self.extensions {
            put(&[name.as_bytes(), b"=", value.as_bytes()]);
        }
        put(&[]);
        message
    }
}

impl Mechanism for Bearer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step(&mut self, challenge: &[u8]) -> Result<Step> {
        match self.state {
            State::Begin => {
                self.state = State::Sent;
                Ok(Step::Send(self.first()))
            }
            State::Sent if challenge.is_empty() => Ok(Step::Done),
            State::Sent => {
                self.state = State::Refused;
                self.said = Some(refusal(challenge));
                (self.on_verdict)(Verdict::Refused);
                Ok(Step::Send(Zeroizing::new(vec![SEPARATOR])))
            }
            // Some brokers have no second word for it.
            State::Refused => Err(crate::error::Error::broker(
                crate::error::names::SASL_AUTHENTICATION_FAILED,
                "login",
                self.said.as_deref(),
            )),
        }
    }

    fn refused(&mut self) -> Option<String> {
        if self.state == State::Sent {
            (self.on_verdict)(Verdict::Refused);
        }
        self.said.take()
    }

    fn accepted(&mut self, since: Instant, life: Option<Duration>) {
        (self.on_verdict)(Verdict::Taken { since, life });
    }
}

/// What RFC 7628 has a broker say.
#[derive(Deserialize)]
struct Refusal {
    status: Option<String>,
    scope: Option<String>,
    #[serde(rename = "openid-configuration")]
    configuration: Option<String>,
}

/// A refusal in words, which may stand in a log.
fn refusal(challenge: &[u8]) -> String {
    let whole = challenge.get(..MAX_REFUSAL).unwrap_or(challenge);
    let Ok(Refusal { status, scope, configuration }) = serde_json::from_slice(whole) else {
        return format!("the token is refused: {}", shown(&String::from_utf8_lossy(whole)));
    };
    let status = status.map_or_else(|| "no reason is given".to_owned(), |status| shown(&status));
    let mut words = format!("the token is refused: {status}");
    if let Some(scope) = scope {
        words.push_str(&format!("; it is to have the scope '{}'", shown(&scope)));
    }
    if let Some(configuration) = configuration {
        words.push_str(&format!("; tokens come by {}", shown(&configuration)));
    }
    words
}

/// A server's words, as they may stand in a log.
pub(super) fn shown(words: &str) -> String {
    words.chars().filter(|c| matches!(c, ' '..='~')).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn login(extensions: &[(&str, &str)]) -> (Bearer, Arc<AtomicUsize>) {
        let refusals = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&refusals);
        let extensions = extensions.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        let count = move |verdict| {
            if matches!(verdict, Verdict::Refused) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        };
        (Bearer::new(Secret::from("t.o.k"), extensions, Box::new(count)), refusals)
    }

    fn sent(step: Result<Step>) -> Vec<u8> {
        match step {
            Ok(Step::Send(message)) => message.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_message_has_the_token_and_what_else_it_is_known_by() {
        let (mut bearer, refusals) = login(&[]);
        assert_eq!(sent(bearer.step(b"")), b"n,,\x01auth=Bearer t.o.k\x01\x01");
        assert!(matches!(bearer.step(b""), Ok(Step::Done)));
        let (mut bearer, _) = login(&[("logicalCluster", "lkc-1"), ("pool", "a b")]);
        let wanted = b"n,,\x01auth=Bearer t.o.k\x01logicalCluster=lkc-1\x01pool=a b\x01\x01";
        assert_eq!(sent(bearer.step(b"")), wanted);
        assert_eq!(refusals.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_refusal_is_answered_and_told_once() {
        let (mut bearer, refusals) = login(&[]);
        bearer.step(b"").unwrap();
        let said =
            br#"{"status":"invalid_token","scope":"kafka","openid-configuration":"https://i/c"}"#;
        assert_eq!(sent(bearer.step(said)), [1]);
        let words = bearer.refused().unwrap();
        assert_eq!(
            words,
            "the token is refused: invalid_token; it is to have the scope 'kafka'; tokens come by https://i/c"
        );
        assert_eq!(refusals.load(Ordering::Relaxed), 1);

        // With the code of an error at once.
        let (mut bearer, refusals) = login(&[]);
        bearer.step(b"").unwrap();
        assert_eq!(bearer.refused(), None);
        assert_eq!(refusals.load(Ordering::Relaxed), 1);

        // Or never with one.
        let (mut bearer, _) = login(&[]);
        bearer.step(b"").unwrap();
        bearer.step(b"{\"status\":\"invalid_token\"}").unwrap();
        let error = bearer.step(b"").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication);
        assert!(error.message().contains("invalid_token"), "{error}");
    }

    #[test]
    fn what_a_broker_says_is_bounded_and_printable() {
        for said in [
            &b"\xff\x1b[31mno"[..],
            br#"{"status":"a\u001b[31m\u202eb"}"#,
            &[b'x'; 100_000],
            b"{}",
            b"null",
        ] {
            let words = refusal(said);
            assert!(words.len() < 300 && words.chars().all(|c| matches!(c, ' '..='~')), "{words}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_known() {
        for (token, good) in [
            ("a", true),
            ("aA0-._~+/", true),
            ("abc==", true),
            ("", false),
            ("==", false),
            ("a=b", false),
            ("a b", false),
            ("a\n", false),
            ("a\x01", false),
            ("ü", false),
        ] {
            assert_eq!(is_token(token.as_bytes()), good, "{token:?}");
        }
        for (name, value, good) in [
            ("logicalCluster", "lkc-1", true),
            ("a", "a b\n", true),
            ("", "x", false),
            ("a", "", false),
            ("a1", "x", false),
            ("auth", "x", false),
            ("a", "x\x01", false),
            ("a", "ü", false),
        ] {
            assert_eq!(is_extension(name, value), good, "{name:?} {value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_refusal_is_survived(said in prop::collection::vec(any::<u8>(), 0..200)) {
            let (mut bearer, _) = login(&[]);
            bearer.step(b"").unwrap();
            let _ = bearer.step(&said);
            let _ = bearer.step(&said);
            let _ = bearer.refused();
        }
    }
}
