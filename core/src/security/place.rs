//! Paths as they may stand in errors and logs. Whoever gives the text of a key, or a token, as the place of a file is not to
//! find it in a log.

use std::fmt;
use std::path::Path;

/// More characters than a path has.
const MAX_PATH: usize = 1_024;

/// More characters than the name of a file has that is given without its folder or its ending. Tokens have more.
const MAX_BARE: usize = 24;

const NOT_SHOWN: &str = "(not shown, as it is no path; is it the secret text itself?)";

/// A path as it may be shown; what does not look like one is not.
pub(super) fn shown(path: &Path) -> String {
    if is_hidden(path) { NOT_SHOWN.to_owned() } else { format!("'{}'", path.display()) }
}

/// The same for `Debug`.
pub(super) fn debug(path: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if is_hidden(path) { f.write_str(NOT_SHOWN) } else { fmt::Debug::fmt(path, f) }
}

fn is_hidden(path: &Path) -> bool {
    is_text(&path.to_string_lossy())
}

fn is_text(text: &str) -> bool {
    let is_long = text.len() > MAX_PATH;
    is_long || text.contains("-----") || text.contains(['\n', '\r']) || is_secret(text)
}

/// A JWT, or another text without any of the marks of a path.
fn is_secret(text: &str) -> bool {
    let is_jwt = |part: &str| part.starts_with("eyJ") && part.len() > MAX_BARE;
    if text.split(['/', '\\', ' ']).any(is_jwt) || text.starts_with("Bearer ") {
        return true;
    }
    // Base64 may have a slash in it, but hardly begins with one.
    let begins = ["/", "./", "../", "~/", "\\\\"].iter().any(|begin| text.starts_with(begin));
    let has_drive = text.as_bytes().get(1) == Some(&b':');
    let ending = text.rsplit_once('.').map_or(0, |(_, ending)| ending.len());
    let has_ending = (1..=8).contains(&ending) && text.split('.').count() == 2;
    let longest = text.split(['/', '\\']).map(str::len).max().unwrap_or(0);
    !begins && !has_drive && !has_ending && longest > MAX_BARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_and_secrets_are_not() {
        for path in [
            "token",
            "ca.pem",
            "/var/run/secrets/kubernetes.io/serviceaccount/token",
            "./a-file-with-a-long-name-and-no-ending-at-all",
            "certificates/of-my-service-in-production-and-staging.pem",
            "C:\\secrets\\a-file-with-a-long-name-and-no-ending",
            "/var/lib/0123456789abcdef0123456789abcdef0123456789abcdef/token",
        ] {
            assert_eq!(shown(Path::new(path)), format!("'{path}'"));
        }
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
        for secret in [
            jwt,
            &format!("Bearer {jwt}"),
            &format!("/run/{jwt}"),
            "ya29.a0AfH6SMBx3q0x1k2j3h4g5f6d7s8a9",
            "0123456789abcdef0123456789abcdef01234567",
            "-----BEGIN PRIVATE KEY-----",
            "a\nb",
            &"x/".repeat(MAX_PATH),
        ] {
            assert_eq!(shown(Path::new(secret)), NOT_SHOWN, "{secret}");
        }
    }
}
