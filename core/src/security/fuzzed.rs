//! What `fuzz` calls of this module.

use super::mechanism::{Mechanism, Step};
use super::scram::{Credentials, Hash, Scram};
use super::{Secret, oauth};

pub(crate) use oauth::fuzzed::{answer, bearer, token};

/// Two messages of a broker, of which the first begins with the client's nonce.
pub(crate) fn scram(bytes: &[u8]) -> bool {
    let middle = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let (first, last) = (&bytes[..middle], bytes.get(middle + 1..).unwrap_or_default());
    let credentials = Credentials {
        hash: Hash::Sha256,
        user: "u".into(),
        password: Secret::from("p"),
        is_token: false,
        salted: Default::default(),
    };
    let mut login = Scram::new(credentials, "nonce".into());
    assert!(matches!(login.step(b""), Ok(Step::Send(_))), "it begins");
    loop {
        match login.step(first) {
            Ok(Step::Compute(work)) => work(),
            Ok(Step::Send(_)) => break,
            Ok(Step::Done) => panic!("a broker that has shown nothing"),
            Err(_) => return false,
        }
    }
    matches!(login.step(last), Ok(Step::Done))
}
