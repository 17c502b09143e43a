//! SCRAM (RFC 5802, RFC 7677), as Kafka's `ScramSaslServer` speaks it: no channel binding, names and
//! passwords as they are, extensions ignored.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

use super::MIN_ITERATIONS;
use super::login::Refused;
use super::plain::OTHER_IDENTITY;
use crate::faults::LoginFault;

/// The hash function of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
    }

    fn hash(self, bytes: &[u8]) -> Vec<u8> {
        digest::digest(self.digest(), bytes).as_ref().to_vec()
    }
}

/// What a broker keeps of a password.
#[derive(Clone)]
pub(super) struct Credential {
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Credential {
    pub(super) fn new(hash: Hash, password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let algorithm = match hash {
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut salted = vec![0; hash.digest().output_len()];
        let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(algorithm, rounds, &salt, password.as_bytes(), &mut salted);
        let stored_key = hash.hash(&hash.hmac(&salted, b"Client Key"));
        let server_key = hash.hmac(&salted, b"Server Key");
        Self { salt, iterations, stored_key, server_key }
    }
}

/// A login of which the first message has been answered.
pub(super) struct Exchange {
    hash: Hash,
    user: String,
    nonce: String,
    /// What both sides sign, without the client's last message.
    signed: String,
    credential: Credential,
}

impl Exchange {
    /// Answers a client's first message. `find` knows the users.
    pub(super) fn begin(
        hash: Hash,
        message: &[u8],
        server_nonce: &str,
        find: impl FnOnce(&str) -> Option<Credential>,
        fault: Option<LoginFault>,
    ) -> Result<(Self, Vec<u8>), Refused> {
        let text = std::str::from_utf8(message).map_err(|_| Refused::Generic)?;
        let first = First::parse(text).ok_or(Refused::Generic)?;
        let user = unescaped(first.name);
        let credential = find(&user).ok_or(Refused::Generic)?;
        if first.authorization_id.is_some_and(|id| id != user) {
            return Err(Refused::Told(OTHER_IDENTITY.to_owned()));
        }
        if credential.iterations < MIN_ITERATIONS {
            return Err(Refused::Generic);
        }
        let iterations = match fault {
            Some(LoginFault::ScramIterations(iterations)) => iterations,
            _ => credential.iterations,
        };
        let nonce = match fault {
            Some(LoginFault::ScramForeignNonce) => format!("{server_nonce}{}", first.nonce),
            _ => format!("{}{server_nonce}", first.nonce),
        };
        let answer = format!("r={nonce},s={},i={iterations}", STANDARD.encode(&credential.salt));
        let signed = format!("{},{answer}", first.bare);
        Ok((Self { hash, user, nonce, signed, credential }, answer.into_bytes()))
    }

    /// Answers a client's last message, and tells who the client is.
    pub(super) fn finish(
        self,
        message: &[u8],
        fault: Option<LoginFault>,
    ) -> Result<(String, Vec<u8>), Refused> {
        let text = std::str::from_utf8(message).map_err(|_| Refused::Generic)?;
        let last = Last::parse(text).ok_or(Refused::Generic)?;
        if last.nonce != self.nonce {
            return Err(Refused::Generic);
        }
        let signed = format!("{},{}", self.signed, last.without_proof);
        let signature = self.hash.hmac(&self.credential.stored_key, signed.as_bytes());
        if last.proof.len() != signature.len() {
            return Err(Refused::Generic);
        }
        let key: Vec<u8> = last.proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        // A broker of tests has no secrets that the time of a comparison could tell.
        if self.hash.hash(&key) != self.credential.stored_key {
            return Err(Refused::Generic);
        }
        let mut proof = self.hash.hmac(&self.credential.server_key, signed.as_bytes());
        let answer = match fault {
            Some(LoginFault::ScramNoSignature) => String::new(),
            Some(LoginFault::ScramWrongSignature) => {
                proof[0] ^= 1;
                format!("v={}", STANDARD.encode(proof))
            }
            _ => format!("v={}", STANDARD.encode(proof)),
        };
        Ok((self.user, answer.into_bytes()))
    }
}

/// `n,[a=NAME],[m=..,]n=NAME,r=NONCE[,x=..]*`
struct First<'a> {
    authorization_id: Option<&'a str>,
    name: &'a str,
    nonce: &'a str,
    /// The message without what is said about channel binding and identity.
    bare: &'a str,
}

impl<'a> First<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (id, bare) = text.strip_prefix("n,")?.split_once(',')?;
        let authorization_id = match id.strip_prefix("a=") {
            Some(id) if is_name(id) => Some(id),
            None if id.is_empty() => None,
            _ => return None,
        };
        // Kafka reads a reserved extension (m=), but leaves it out of what is signed, so that a client that
        // sends one never logs in.
        let mut parts = bare.split(',');
        let name = parts.next()?.strip_prefix("n=")?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        (is_name(name) && is_nonce(nonce) && parts.all(is_extension)).then_some(Self {
            authorization_id,
            name,
            nonce,
            bare,
        })
    }
}

/// `c=BASE64,r=NONCE[,x=..]*,p=BASE64`
struct Last<'a> {
    nonce: &'a str,
    proof: Vec<u8>,
    without_proof: &'a str,
}

impl<'a> Last<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let proof = STANDARD.decode(proof).ok()?;
        let mut parts = without_proof.split(',');
        // What it says of channel binding is not compared with anything.
        STANDARD.decode(parts.next()?.strip_prefix("c=")?).ok()?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        (is_nonce(nonce) && parts.all(is_extension)).then_some(Self { nonce, proof, without_proof })
    }
}

/// Characters of ASCII but NUL and comma; an equals sign only as a part of `=2C` and `=3D`.
fn is_name(text: &str) -> bool {
    let mut rest = text.split('=');
    let plain = |part: &str| part.bytes().all(|byte| matches!(byte, 1..=0x7f) && byte != b',');
    !text.is_empty()
        && rest.next().is_some_and(plain)
        && rest.all(|part| {
            part.strip_prefix("2C").or_else(|| part.strip_prefix("3D")).is_some_and(plain)
        })
}

fn unescaped(name: &str) -> String {
    name.replace("=2C", ",").replace("=3D", "=")
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b',')
}

fn is_extension(part: &str) -> bool {
    part.split_once('=').is_some_and(|(name, value)| {
        let letters = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        letters && !value.is_empty() && value.bytes().all(|byte| matches!(byte, 1..=0x7f))
    })
}

#[cfg(test)]
mod tests;
