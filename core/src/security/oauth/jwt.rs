//! When a token ends, as far as it says so itself: most are JWTs, whose middle part anybody can read. Nothing is verified
//! here; who may log in is the broker's to say. A token may be anything else as well.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Bytes of the part that is read.
const MAX_BYTES: usize = 64 << 10;

/// Later than this (the year 5138) is milliseconds by mistake.
const MAX_SECONDS: f64 = 1e11;

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
}

/// When it ends, in seconds since 1970.
pub(super) fn expiry(token: &[u8]) -> Option<f64> {
    let mut parts = token.split(|b| *b == b'.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if claims.len() > MAX_BYTES {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_ascii_end()).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    claims.exp.filter(|exp| (0.0..MAX_SECONDS).contains(exp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_says_when_it_ends_or_does_not() {
        for (token, end) in [
            (jwt("{\"exp\":1700000000}"), Some(1_700_000_000.0)),
            (jwt("{\"exp\":1700000000.5,\"sub\":\"a\"}"), Some(1_700_000_000.5)),
            (jwt("{\"exp\":1700000000000}"), None),
            (jwt("{\"exp\":-1}"), None),
            (jwt("{\"exp\":\"x\"}"), None),
            (jwt("{}"), None),
            (jwt("nothing"), None),
            ("e30.!.x".into(), None),
            ("opaque".into(), None),
            ("a.b".into(), None),
            (format!("{}.x", jwt("{\"exp\":1}")), None),
        ] {
            assert_eq!(expiry(token.as_bytes()), end, "{token}");
        }
    }
}
