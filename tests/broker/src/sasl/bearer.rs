//! OAUTHBEARER (RFC 7628), as Kafka's `OAuthBearerSaslServer` reads it.

use std::time::Duration;

use super::login::Refused;

/// What a client shows instead of a password.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct BearerToken<'a> {
    /// The token, as it came.
    pub token: &'a str,
    /// SASL extensions (KIP-342), names and values.
    pub extensions: &'a [(String, String)],
}

/// A token that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BearerLogin {
    /// Who it is of; no `User:` before it.
    pub principal: String,
    /// How much longer it is right, if that ends. It ends the session, too.
    pub lifetime: Option<Duration>,
}

/// Separates the parts of a message, and is all that a refused client says.
const SEPARATOR: char = '\u{1}';

/// What Kafka's own judges say of a token that is wrong.
const INVALID: &str = "{\"status\":\"invalid_token\"}";

/// How far a login has come.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    refused: bool,
}

/// What follows from a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done(BearerLogin),
    /// The token is wrong. The client has the reason, which is no error in the protocol's words, and is to
    /// answer before it is told of the error.
    Challenge(&'static str),
}

impl Exchange {
    pub(super) fn step(
        &mut self,
        message: &[u8],
        judge: impl FnOnce(&BearerToken<'_>) -> Option<BearerLogin>,
    ) -> Result<Step, Refused> {
        if self.refused && message == [SEPARATOR as u8] {
            return Err(Refused::Told(INVALID.to_owned()));
        }
        self.refused = false;
        let text = std::str::from_utf8(message).map_err(|_| Refused::Generic)?;
        let parsed = parse(text).ok_or(Refused::Generic)?;
        let token = BearerToken { token: parsed.token, extensions: &parsed.extensions };
        let Some(login) = judge(&token) else {
            self.refused = true;
            return Ok(Step::Challenge(INVALID));
        };
        match parsed.authorization_id {
            Some(id) if id != login.principal => Err(Refused::Told(format!(
                "Authentication failed: Client requested an authorization id ({id}) that is different \
                 from the token's principal name ({})",
                login.principal
            ))),
            _ => Ok(Step::Done(login)),
        }
    }
}

struct Parsed<'a> {
    authorization_id: Option<&'a str>,
    token: &'a str,
    extensions: Vec<(String, String)>,
}

/// `n,[a=NAME],^Aauth=Bearer TOKEN[^ANAME=VALUE]*^A^A`
fn parse(text: &str) -> Option<Parsed<'_>> {
    let (name, rest) = text.strip_prefix("n,")?.split_once(',')?;
    let authorization_id = match name.strip_prefix("a=") {
        Some(id) if !id.is_empty() => Some(id),
        Some(_) => return None,
        None if name.is_empty() => None,
        None => return None,
    };
    let rest = rest.strip_prefix(SEPARATOR)?.strip_suffix(SEPARATOR)?.strip_suffix(SEPARATOR)?;
    let mut pairs = rest.split(SEPARATOR);
    let credentials = pairs.next()?.strip_prefix("auth=")?;
    let (scheme, token) = credentials.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || !token.chars().all(is_token) {
        return None;
    }
    let mut extensions = Vec::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=')?;
        let is_value = |c: char| matches!(c, '\t' | '\r' | '\n' | ' '..='~');
        let letters = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic());
        if !letters || name == "auth" || value.is_empty() || !value.chars().all(is_value) {
            return None;
        }
        extensions.push((name.to_owned(), value.to_owned()));
    }
    Some(Parsed { authorization_id, token, extensions })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(token: &BearerToken<'_>) -> Option<BearerLogin> {
        let login = BearerLogin { principal: "alice".into(), lifetime: None };
        (token.token == "good").then_some(login)
    }

    #[test]
    fn messages_are_read_as_kafka_does() {
        for (message, right) in [
            ("n,,\x01auth=Bearer good\x01\x01", true),
            ("n,,\x01auth=bearer   good\x01\x01", true),
            ("n,a=alice,\x01auth=Bearer good\x01\x01", true),
            ("n,,\x01auth=Bearer good\x01logicalCluster=lkc-1\x01identityPoolId=p\x01\x01", true),
            ("n,,\x01auth=Bearer good\x01auth=x\x01\x01", false),
            ("n,,\x01auth=Bearer good\x01a1=x\x01\x01", false),
            ("n,,\x01auth=Bearer good\x01name=\x01\x01", false),
            ("n,,\x01auth=Basic good\x01\x01", false),
            ("n,,\x01auth=Bearer \x01\x01", false),
            ("n,,\x01auth=Bearer go+od\x01\x01", false),
            ("n,,\x01auth=Bearer good\x01", false),
            ("y,,\x01auth=Bearer good\x01\x01", false),
            ("p=tls-unique,,\x01auth=Bearer good\x01\x01", false),
            ("n,a=,\x01auth=Bearer good\x01\x01", false),
            ("\x01", false),
            ("", false),
        ] {
            let step = Exchange::default().step(message.as_bytes(), judge);
            match right {
                true => assert!(matches!(step, Ok(Step::Done(_))), "{message:?}: {step:?}"),
                false => assert_eq!(step, Err(Refused::Generic), "{message:?}"),
            }
        }
    }

    #[test]
    fn extensions_are_shown() {
        let message = b"n,,\x01auth=Bearer t\x01logicalCluster=lkc-1\x01pool=a b\x01\x01";
        let mut shown = Vec::new();
        let step = Exchange::default().step(message, |token| {
            shown = token.extensions.to_vec();
            None
        });
        assert_eq!(step, Ok(Step::Challenge(INVALID)));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(shown, [pair("logicalCluster", "lkc-1"), pair("pool", "a b")]);
    }

    #[test]
    fn a_refusal_is_told_twice() {
        let mut exchange = Exchange::default();
        let bad = b"n,,\x01auth=Bearer bad\x01\x01";
        assert_eq!(exchange.step(bad, judge), Ok(Step::Challenge(INVALID)));
        assert_eq!(exchange.step(b"\x01", judge), Err(Refused::Told(INVALID.to_owned())));
        // Instead of the one byte another token may come.
        let mut exchange = Exchange::default();
        assert_eq!(exchange.step(bad, judge), Ok(Step::Challenge(INVALID)));
        let good = exchange.step(b"n,,\x01auth=Bearer good\x01\x01", judge);
        assert!(matches!(good, Ok(Step::Done(_))));
    }

    #[test]
    fn nobody_acts_for_somebody_else() {
        let step = Exchange::default().step(b"n,a=bob,\x01auth=Bearer good\x01\x01", judge);
        let Err(Refused::Told(words)) = step else { panic!("{step:?}") };
        assert!(words.contains("(bob)") && words.contains("(alice)"), "{words}");
    }
}
