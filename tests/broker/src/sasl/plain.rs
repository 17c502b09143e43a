//! PLAIN (RFC 4616), as Kafka's `PlainSaslServer` reads it.

use super::login::Refused;

/// A user name, if the password is its own.
pub(super) fn login(
    message: &[u8],
    is_right: impl FnOnce(&str, &str) -> bool,
) -> Result<String, Refused> {
    let text = String::from_utf8_lossy(message);
    // What follows a third NUL is not looked at.
    let mut tokens = text.split('\0').map(str::to_owned);
    let mut next = || tokens.next().unwrap_or_default();
    let (authorization_id, user, password) = (next(), next(), next());
    if user.is_empty() || password.is_empty() {
        return Err(Refused::Generic);
    }
    if !is_right(&user, &password) {
        return Err(Refused::Told("Authentication failed: Invalid username or password".into()));
    }
    if !authorization_id.is_empty() && authorization_id != user {
        return Err(Refused::Told(OTHER_IDENTITY.into()));
    }
    Ok(user)
}

/// Somebody wants to act for somebody else.
pub(super) const OTHER_IDENTITY: &str =
    "Authentication failed: Client requested an authorization id that is different from username";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_kafka_does() {
        let told = |words: &str| Err(Refused::Told(words.to_owned()));
        let wrong = || told("Authentication failed: Invalid username or password");
        for (message, result) in [
            ("\0alice\0secret", Ok("alice".to_owned())),
            ("alice\0alice\0secret", Ok("alice".to_owned())),
            ("bob\0alice\0secret", told(OTHER_IDENTITY)),
            ("\0alice\0wrong", wrong()),
            ("\0bob\0secret", wrong()),
            ("\0alice\0secret\0more", Ok("alice".to_owned())),
            ("\0\0secret", Err(Refused::Generic)),
            ("\0alice\0", Err(Refused::Generic)),
            ("alice", Err(Refused::Generic)),
            ("", Err(Refused::Generic)),
        ] {
            let is_right = |user: &str, password: &str| (user, password) == ("alice", "secret");
            assert_eq!(login(message.as_bytes(), is_right), result, "{message:?}");
        }
    }
}
