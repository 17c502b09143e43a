//! What must not be seen: passwords, keys, tokens. Programs print their settings, and errors and log lines
//! travel far; so a secret has no way into text. Its memory is overwritten when the last holder lets go.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A password, or the text of a private key. Shows itself as `***`, cannot be serialised, and is overwritten in
/// memory when its last clone is dropped.
/// ```
/// # use ottla::Secret;
/// assert_eq!(format!("{:?}", Secret::from("hunter2")), "***");
/// ```
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// The bytes. Named so that a reader of the code stops here.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        // The same allocation: no copy stays behind.
        Self::from(text.into_bytes())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::from(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing_and_keeps_its_bytes() {
        let secret = Secret::from("hunter2".to_owned());
        let shown = format!("{secret:?} {:#?} {:?}", secret, Some(secret.clone()));
        assert_eq!(shown, "*** *** Some(***)");
        assert_eq!(secret.expose(), b"hunter2");
        assert!(!secret.is_empty() && Secret::from("").is_empty());
    }
}
