//! Which settings of security are equal: clients share connections only if they would have opened them alike. A
//! password is part of that. It is not kept for it: what is compared is a digest, with a key that this process has
//! drawn, so that it is of no use to who reads the memory of another one.

use std::fmt;
use std::sync::OnceLock;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use rand::RngExt;
use sha2::Sha256;

use crate::environment::system_seeded;

/// Equal for settings that are equal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SecurityKey([u8; 32]);

impl fmt::Debug for SecurityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecurityKey")
    }
}

/// Takes in what settings consist of.
pub(crate) struct Feed(Hmac<Sha256>);

impl Feed {
    pub(crate) fn new() -> Self {
        static KEY: OnceLock<[u8; 32]> = OnceLock::new();
        let key = KEY.get_or_init(|| system_seeded().random());
        Self(<Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes any key"))
    }

    pub(crate) fn field(&mut self, name: &'static str, value: &[u8]) {
        // With their lengths: what ends one must not begin the next.
        for part in [name.as_bytes(), value] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    pub(crate) fn done(self) -> SecurityKey {
        SecurityKey(self.0.finalize().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_apart() {
        let of = |fields: &[(&'static str, &str)]| {
            let mut feed = Feed::new();
            fields.iter().for_each(|(name, value)| feed.field(name, value.as_bytes()));
            feed.done()
        };
        assert_eq!(of(&[("a", "b")]), of(&[("a", "b")]));
        let different = [
            of(&[]),
            of(&[("a", "b")]),
            of(&[("a", "c")]),
            of(&[("ab", "")]),
            of(&[("a", "b"), ("a", "b")]),
            of(&[("a", ""), ("b", "")]),
        ];
        for (i, one) in different.iter().enumerate() {
            assert!(different[..i].iter().all(|other| other != one), "{i}");
        }
        assert_eq!(format!("{:?}", of(&[("a", "b")])), "SecurityKey");
    }
}
