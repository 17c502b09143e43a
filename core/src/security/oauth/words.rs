//! What a token endpoint says, as it may stand in a log: without what it was sent. Some repeat the whole request, its
//! header in base64 and its form percent-encoded, or quote it in JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::bearer::shown;

/// In place of a secret.
const HIDDEN: &str = "***";

/// A server's words without these secrets, however they are written.
pub(super) fn without(words: &str, secrets: &[&str]) -> String {
    let mut words = Zeroizing::new(words.to_owned());
    let mut forms: Vec<Zeroizing<String>> = Vec::new();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        forms.push(Zeroizing::new((*secret).to_owned()));
        forms.push(in_json(secret));
        forms.push(in_hex(secret.as_bytes()));
        forms.extend(in_percent(secret));
        forms.extend(in_base64(secret.as_bytes()));
    }
    // The longer first: one may be a part of another.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    for form in forms.iter().filter(|form| !form.is_empty()) {
        words = hide(&words, form);
    }
    shown(&words)
}

/// Letters of either case: digits of hexadecimal numbers may be written so, and base64 is too long to be met by chance.
fn hide(words: &str, form: &str) -> Zeroizing<String> {
    let (lower, form) = (words.to_ascii_lowercase(), form.to_ascii_lowercase());
    let lower = Zeroizing::new(lower);
    let form = Zeroizing::new(form);
    let mut out = Zeroizing::new(String::with_capacity(words.len()));
    let mut from = 0;
    while let Some(at) = lower[from..].find(&**form) {
        out.push_str(&words[from..from + at]);
        out.push_str(HIDDEN);
        from += at + form.len();
    }
    out.push_str(&words[from..]);
    out
}

fn in_json(secret: &str) -> Zeroizing<String> {
    let quoted = Zeroizing::new(serde_json::to_string(secret).unwrap_or_default());
    let inner = quoted.len().saturating_sub(1);
    Zeroizing::new(quoted.get(1..inner).unwrap_or_default().to_owned())
}

fn in_hex(secret: &[u8]) -> Zeroizing<String> {
    // Of what is short nearly every number has the digits.
    if secret.len() < 4 {
        return Zeroizing::default();
    }
    Zeroizing::new(secret.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// As forms and URLs have it: which characters are left as they are differs, and so does the space.
fn in_percent(secret: &str) -> Vec<Zeroizing<String>> {
    let mut all = Vec::new();
    for as_it_is in ["-._*", "-._~", "-_.!~*'()", "-._~!$&'()*+,;=:@/?", ""] {
        for space in ["+", "%20"] {
            let mut form = Zeroizing::new(String::with_capacity(3 * secret.len()));
            for byte in secret.bytes() {
                match char::from(byte) {
                    ' ' => form.push_str(space),
                    c if c.is_ascii_alphanumeric() || c.is_ascii() && as_it_is.contains(c) => {
                        form.push(c);
                    }
                    _ => form.push_str(&format!("%{byte:02x}")),
                }
            }
            all.push(form);
        }
    }
    all
}

/// At each of the three places that a byte can have among the characters, in both alphabets; without the characters at both
/// ends in which there is something else as well, and with the last one where nothing follows.
fn in_base64(secret: &[u8]) -> Vec<Zeroizing<String>> {
    let mut all = Vec::new();
    for before in 0..3 {
        let mut bytes = Zeroizing::new(vec![0; before]);
        bytes.reserve_exact(secret.len());
        bytes.extend_from_slice(secret);
        let text = Zeroizing::new(STANDARD_NO_PAD.encode(&bytes));
        let first = (before * 8).div_ceil(6);
        let last = (bytes.len() * 8) / 6;
        for last in [last, text.len()] {
            let inner = text.get(first..last).unwrap_or_default();
            // Fewer characters are found in any text.
            if inner.len() >= 4 {
                all.push(Zeroizing::new(inner.to_owned()));
                all.push(Zeroizing::new(inner.replace('+', "-").replace('/', "_")));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    #[test]
    fn a_secret_is_hidden_however_it_is_written() {
        let secret = "hunter2 &\"%\\~/é";
        let pair = format!("me:{secret}");
        for said in [
            secret.to_owned(),
            "hunter2+%26%22%25%5C%7E%2F%C3%A9".to_owned(),
            "hunter2%20%26%22%25%5c~%2f%c3%a9".to_owned(),
            serde_json::to_string(secret).unwrap(),
            STANDARD.encode(secret),
            URL_SAFE.encode(&pair),
            STANDARD.encode(&pair),
            URL_SAFE_NO_PAD.encode(format!("x{pair}y")),
            secret.bytes().map(|b| format!("{b:02X}")).collect(),
        ] {
            let words = without(&format!("Basic {said} is not known here"), &[secret]);
            assert!(words.contains("***") && words.ends_with("is not known here"), "{words}");
            for part in ["hunter2", "aHVudGVyM", "odW50ZXIy", "h1bnRlcj", "68756E"] {
                assert!(!words.contains(part), "{words}");
            }
        }
    }

    #[test]
    fn other_words_stay_as_they_are() {
        assert_eq!(without("invalid_client", &["", "hunter2"]), "invalid_client");
        assert_eq!(without("the İ of it", &["hunter2"]), "the  of it", "printable ASCII alone");
    }

    proptest! {
        #[test]
        fn any_secret_is_hidden_in_any_words(
            secret in "\\PC{6,20}",
            before in "[ -~]{0,7}",
            after in "[ -~]{0,7}",
        ) {
            for said in [
                secret.clone(),
                STANDARD.encode(format!("{before}{secret}{after}")),
                serde_json::to_string(&secret).unwrap(),
            ] {
                let words = without(&format!("{before}{said}{after}"), &[&secret]);
                prop_assert!(words.contains(HIDDEN), "{} {}", said, words);
            }
        }
    }
}
