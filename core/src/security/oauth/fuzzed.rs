//! What `fuzz` calls of this module.

use super::bearer::Bearer;
use super::grant::ClientCredentials;
use super::http::{Answer, Reader};
use super::jwt;
use crate::security::Secret;
use crate::security::mechanism::{Mechanism, Step};

/// Two messages of a broker.
pub(crate) fn bearer(bytes: &[u8]) -> bool {
    let middle = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let (first, last) = (&bytes[..middle], bytes.get(middle + 1..).unwrap_or_default());
    let mut login = Bearer::new(Secret::from("t"), Vec::new(), Box::new(|_| ()));
    assert!(matches!(login.step(b""), Ok(Step::Send(_))), "it begins");
    match login.step(first) {
        Ok(Step::Done) => true,
        Ok(Step::Send(message)) => {
            assert_eq!(message[..], [1], "a refusal is answered by one byte");
            assert!(login.step(last).is_err(), "it was refused");
            false
        }
        Ok(Step::Compute(_)) => panic!("there is nothing to compute"),
        Err(_) => false,
    }
}

/// The response of a token endpoint: in pieces of the first byte's size, and at once.
pub(crate) fn answer(bytes: &[u8]) -> bool {
    let Some((piece, bytes)) = bytes.split_first() else { return false };
    let read = |piece: usize| -> Result<Answer, &'static str> {
        let mut reader = Reader::default();
        for piece in bytes.chunks(piece) {
            if let Some(answer) = reader.take(piece, false)? {
                return Ok(answer);
            }
        }
        reader.take(&[], true).map(|answer| answer.expect("it is over"))
    };
    let (pieces, whole) = (read(usize::from(*piece).max(1)), read(bytes.len().max(1)));
    match (&pieces, &whole) {
        (Ok(a), Ok(b)) => {
            assert_eq!((a.status, a.retry_after, &a.body), (b.status, b.retry_after, &b.body));
        }
        (Err(_), Err(_)) => {}
        // What is whole is taken before what is wrong behind it.
        (Ok(_), Err(_)) => {}
        (Err(e), Ok(_)) => panic!("in pieces: {e}"),
    }
    whole.is_ok_and(|answer| credentials().token(answer, &Secret::from("hunter2")).is_ok())
}

/// A body with a token, and a token.
pub(crate) fn token(bytes: &[u8]) -> bool {
    let _ = jwt::expiry(bytes);
    let answer = Answer { status: 200, retry_after: None, body: bytes.to_vec().into() };
    credentials().token(answer, &Secret::from("hunter2")).is_ok()
}

fn credentials() -> ClientCredentials {
    ClientCredentials::new("https://idp/", "me", "hunter2")
}
