//! Who may log in: users with their passwords, and tokens. Both change while a cluster runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::digest;
use tokio::time::Instant;

use super::scram::{Credential, Hash};
use super::{BearerLogin, BearerToken, Sasl};

/// Bytes of a salt, as Kafka's `ScramFormatter` has them on average.
const SALT: usize = 16;

/// The logins of a cluster.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) sasl: Sasl,
    users: Mutex<BTreeMap<String, Arc<User>>>,
    tokens: Mutex<BTreeMap<String, Token>>,
    /// Nonces given so far. No two are the same, and they are in every run.
    nonces: AtomicU64,
}

struct User {
    name: String,
    password: String,
    iterations: u32,
    /// Made at the first login, since many rounds take long.
    sha_256: OnceLock<Credential>,
    sha_512: OnceLock<Credential>,
}

#[derive(Debug, Clone)]
struct Token {
    principal: String,
    until: Option<Instant>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl User {
    fn credential(&self, hash: Hash) -> Credential {
        let place = match hash {
            Hash::Sha256 => &self.sha_256,
            Hash::Sha512 => &self.sha_512,
        };
        let new = || {
            let salt = digest::digest(&digest::SHA256, self.name.as_bytes());
            let salt = salt.as_ref()[..SALT].to_vec();
            Credential::new(hash, &self.password, salt, self.iterations)
        };
        place.get_or_init(new).clone()
    }
}

impl Registry {
    pub(crate) fn new(sasl: Sasl, now: Instant) -> Self {
        let registry = Self {
            users: Mutex::default(),
            tokens: Mutex::default(),
            nonces: AtomicU64::new(0),
            sasl,
        };
        for (name, (password, iterations)) in &registry.sasl.users {
            registry.set_user(name, password, *iterations);
        }
        for (token, login) in &registry.sasl.tokens {
            registry.add_token(token, login.clone(), now);
        }
        registry
    }

    pub(crate) fn set_user(&self, name: &str, password: &str, iterations: u32) {
        let user = User {
            name: name.to_owned(),
            password: password.to_owned(),
            iterations,
            sha_256: OnceLock::new(),
            sha_512: OnceLock::new(),
        };
        self.users().insert(name.to_owned(), Arc::new(user));
    }

    /// False if there was no such user.
    pub(crate) fn remove_user(&self, name: &str) -> bool {
        self.users().remove(name).is_some()
    }

    pub(crate) fn add_token(&self, token: &str, login: BearerLogin, now: Instant) {
        let until = login.lifetime.and_then(|lifetime| now.checked_add(lifetime));
        let token_of = Token { principal: login.principal, until };
        self.tokens().insert(token.to_owned(), token_of);
    }

    /// False if there was no such token.
    pub(crate) fn remove_token(&self, token: &str) -> bool {
        self.tokens().remove(token).is_some()
    }

    pub(super) fn is_password(&self, user: &str, password: &str) -> bool {
        self.users().get(user).is_some_and(|user| user.password == password)
    }

    pub(super) fn credential(&self, user: &str, hash: Hash) -> Option<Credential> {
        // Out of the lock: rounds take long.
        let user = self.users().get(user).cloned();
        user.map(|user| user.credential(hash))
    }

    /// Who a token is of: one that is listed, or else whoever the caller's judge says.
    pub(super) fn judge(&self, shown: &BearerToken<'_>, now: Instant) -> Option<BearerLogin> {
        let listed = self.tokens().get(shown.token).cloned();
        let Some(token) = listed else { return self.sasl.judge.as_ref()?(shown) };
        let lifetime = token.until.map(|until| until.saturating_duration_since(now));
        let over = lifetime.is_some_and(|left| left.is_zero());
        (!over).then_some(BearerLogin { principal: token.principal, lifetime })
    }

    /// A broker's part of a nonce.
    pub(super) fn nonce(&self) -> String {
        let count = self.nonces.fetch_add(1, Ordering::Relaxed);
        let hash = digest::digest(&digest::SHA256, &count.to_be_bytes());
        STANDARD_NO_PAD.encode(&hash.as_ref()[..18])
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<String, Arc<User>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, BTreeMap<String, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
