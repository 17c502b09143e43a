//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, 7677) as Kafka speaks it: a password that never crosses the
//! network, and a broker that has to show that it knows it, too.
//!
//! Unlike the RFC, Kafka does no SASLprep: `ScramFormatter.saslName` and `ScramMessages` take a password as its
//! UTF-8 bytes, and one that was normalised is refused. There is no channel binding (`n,,`).
//!
//! Whoever answers may be anybody. So each length and count of what comes is bounded here, and nothing that
//! was not checked is computed with: a broker that asks for 2^31 iterations would keep a processor for hours.

use std::sync::{Arc, Mutex, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use super::mechanism::{Mechanism, Step};
use super::secret::Secret;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a nonce that both sides have added to. Kafka's has 52.
const MAX_NONCE: usize = 1_024;

/// Bytes of a salt. Kafka's has 26.
const MAX_SALT: usize = 1_024;

/// RFC 7677 has this as the least, and so has Kafka (`ScramMechanism.minIterations`). With fewer, a recorded
/// login gives the password away sooner.
const MIN_ITERATIONS: u32 = 4_096;

/// Kafka takes 16,384 at most; others more. So many take 40 ms.
const MAX_ITERATIONS: u32 = 65_536;

/// GS2 header: no channel binding, no authorization id; and the same in base64.
const GS2: &str = "n,,";
const GS2_BASE64: &str = "biws";

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    pub(crate) fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn salted_password(self, password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(match self {
            Self::Sha256 => vec![0; 32],
            Self::Sha512 => vec![0; 64],
        });
        match self {
            Self::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut out),
            Self::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut out),
        }
        out
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Zeroizing<Vec<u8>> {
        fn of<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
            let mut mac = keyed::<M>(key);
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        }
        Zeroizing::new(match self {
            Self::Sha256 => of::<Hmac<Sha256>>(key, message),
            Self::Sha512 => of::<Hmac<Sha512>>(key, message),
        })
    }

    /// Whether `signature` is the message's; how long that takes says nothing about where they differ.
    fn is_signed(self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        fn of<M: Mac + KeyInit>(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
            let mut mac = keyed::<M>(key);
            mac.update(message);
            mac.verify_slice(signature).is_ok()
        }
        match self {
            Self::Sha256 => of::<Hmac<Sha256>>(key, message, signature),
            Self::Sha512 => of::<Hmac<Sha512>>(key, message, signature),
        }
    }

    fn digest(self, of: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Sha256 => Sha256::digest(of).to_vec(),
            Self::Sha512 => Sha512::digest(of).to_vec(),
        })
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8]) -> M {
    <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// The salted password of the last login. Brokers of a cluster have the same salt for a user, though not for a delegation
/// token, so as a rule it is computed once for all connections.
#[derive(Default)]
pub(crate) struct Salted(Mutex<Option<Known>>);

#[derive(Clone)]
struct Known {
    salt: Vec<u8>,
    iterations: u32,
    password: Arc<Zeroizing<Vec<u8>>>,
}

impl Known {
    fn of(&self, salt: &[u8], iterations: u32) -> Option<Arc<Zeroizing<Vec<u8>>>> {
        let is_it = self.salt == salt && self.iterations == iterations;
        is_it.then(|| Arc::clone(&self.password))
    }
}

impl Salted {
    fn find(&self, salt: &[u8], iterations: u32) -> Option<Arc<Zeroizing<Vec<u8>>>> {
        let known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        known.as_ref()?.of(salt, iterations)
    }

    fn keep(&self, known: Known) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(known);
    }
}

/// What does not change from login to login.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) hash: Hash,
    pub(crate) user: String,
    pub(crate) password: Secret,
    /// User and password are the id and HMAC of a delegation token (KIP-48).
    pub(crate) is_token: bool,
    pub(crate) salted: Arc<Salted>,
}

/// One login.
pub(crate) struct Scram {
    credentials: Credentials,
    /// Ours: never used twice.
    nonce: String,
    state: State,
    /// The salted password that this login had computed: others may have put theirs, of another salt, into the place
    /// that all share. (Each broker has its own salt for a delegation token.)
    own: Arc<OnceLock<Known>>,
}

enum State {
    Begin,
    /// The first message is sent; this is its part that is signed.
    First {
        bare: String,
    },
    /// The proof is sent: what the broker has to sign, and with which key.
    Last {
        key: Zeroizing<Vec<u8>>,
        signed: Vec<u8>,
    },
    Done,
}

impl Scram {
    /// `nonce`: at random, of printable ASCII without a comma.
    pub(crate) fn new(credentials: Credentials, nonce: String) -> Self {
        Self { credentials, nonce, state: State::Begin, own: Arc::default() }
    }

    fn first(&self) -> String {
        let user = escaped(&self.credentials.user);
        // Only of tokens: Kafka looks the name up among them as soon as it is there.
        let extension = if self.credentials.is_token { ",tokenauth=true" } else { "" };
        format!("n={user},r={}{extension}", self.nonce)
    }

    fn last(&mut self, bare: String, challenge: &[u8]) -> Result<Step> {
        let server = ServerFirst::read(challenge, &self.nonce)?;
        let Credentials { hash, password, salted, .. } = &self.credentials;
        let own = self.own.get().and_then(|known| known.of(&server.salt, server.iterations));
        let Some(password) = own.or_else(|| salted.find(&server.salt, server.iterations)) else {
            let (hash, password, salted) = (*hash, password.clone(), Arc::clone(salted));
            let own = Arc::clone(&self.own);
            let ServerFirst { salt, iterations, .. } = server;
            self.state = State::First { bare };
            return Ok(Step::Compute(Box::new(move || {
                let made = hash.salted_password(password.expose(), &salt, iterations);
                let known = Known { salt, iterations, password: Arc::new(made) };
                let _ = own.set(known.clone());
                salted.keep(known);
            })));
        };
        let without_proof = format!("c={GS2_BASE64},r={}", server.nonce);
        // Of the broker's message the bytes that came, not what was read of them.
        let signed = [bare.as_bytes(), b",", challenge, b",", without_proof.as_bytes()].concat();
        let client_key = hash.hmac(&password, b"Client Key");
        let signature = hash.hmac(&hash.digest(&client_key), &signed);
        let mut proof = client_key;
        proof.iter_mut().zip(signature.iter()).for_each(|(key, signature)| *key ^= signature);
        let message = format!("{without_proof},p={}", BASE64.encode(&*proof));
        self.state = State::Last { key: hash.hmac(&password, b"Server Key"), signed };
        Ok(Step::Send(Zeroizing::new(message.into_bytes())))
    }

    fn verify(&self, key: &[u8], signed: &[u8], challenge: &[u8]) -> Result<Step> {
        let message = text(challenge)?;
        refused(message)?;
        // What comes behind it are extensions.
        let signature = message.strip_prefix("v=").and_then(|rest| rest.split(',').next());
        let signature = signature.and_then(|text| BASE64.decode(text).ok());
        if signature.is_some_and(|s| self.credentials.hash.is_signed(key, signed, &s)) {
            return Ok(Step::Done);
        }
        Err(wrong("the broker has not shown that it knows the password; it may be somebody else"))
    }
}

impl Mechanism for Scram {
    fn name(&self) -> &'static str {
        self.credentials.hash.mechanism()
    }

    fn step(&mut self, challenge: &[u8]) -> Result<Step> {
        // Whatever fails ends the login.
        match std::mem::replace(&mut self.state, State::Done) {
            State::Begin if challenge.is_empty() => {
                let bare = self.first();
                let message = format!("{GS2}{bare}").into_bytes();
                self.state = State::First { bare };
                Ok(Step::Send(Zeroizing::new(message)))
            }
            State::First { bare } => self.last(bare, challenge),
            State::Last { key, signed } => self.verify(&key, &signed, challenge),
            State::Begin | State::Done => Err(wrong("the broker speaks out of turn")),
        }
    }
}

/// The broker's first message.
struct ServerFirst {
    nonce: String,
    salt: Vec<u8>,
    iterations: u32,
}

impl ServerFirst {
    fn read(challenge: &[u8], ours: &str) -> Result<Self> {
        let message = text(challenge)?;
        refused(message)?;
        if message.starts_with("m=") {
            return Err(wrong("the broker asks for an extension that nobody knows"));
        }
        let mut parts = message.split(',');
        let mut attribute = |name: &str| parts.next().and_then(|part| part.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(iterations)) =
            (attribute("r="), attribute("s="), attribute("i="))
        else {
            return Err(wrong("the broker's first message lacks nonce, salt or iterations"));
        };
        let added = nonce.strip_prefix(ours).is_some_and(|added| !added.is_empty());
        if !added || nonce.len() > MAX_NONCE || !nonce.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("the broker's nonce does not continue the client's"));
        }
        // Before it is decoded: base64 has four characters for three bytes.
        let salt = (salt.len() <= MAX_SALT.div_ceil(3) * 4).then(|| BASE64.decode(salt).ok());
        let salt = salt.flatten().filter(|salt| (1..=MAX_SALT).contains(&salt.len()));
        let Some(salt) = salt else {
            return Err(wrong(format!("the broker's salt is not 1 to {MAX_SALT} bytes")));
        };
        // Digits alone: `parse` would take a sign.
        let digits = iterations.bytes().all(|b| b.is_ascii_digit());
        let iterations = iterations.parse::<u32>().ok().filter(|_| digits);
        let range = MIN_ITERATIONS..=MAX_ITERATIONS;
        let Some(iterations) = iterations.filter(|n| range.contains(n)) else {
            return Err(wrong(format!(
                "the broker asks for other than {MIN_ITERATIONS} to {MAX_ITERATIONS} iterations"
            )));
        };
        Ok(Self { nonce: nonce.to_owned(), salt, iterations })
    }
}

/// `=` and `,` separate the parts of a message.
fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn text(challenge: &[u8]) -> Result<&str> {
    std::str::from_utf8(challenge).map_err(|_| wrong("the broker's message is no text"))
}

/// The broker may say in words of its own that the login failed. Kafka does not: it answers with code 58.
fn refused(message: &str) -> Result<()> {
    match message.strip_prefix("e=") {
        Some(words) => {
            let words: String = words.chars().filter(char::is_ascii_graphic).take(100).collect();
            Err(wrong(format!("the broker refuses the credentials: {words}")))
        }
        None => Ok(()),
    }
}

fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Authentication, words)
}

#[cfg(test)]
mod tests;
