//! The token of a pool: got once for all its connections, and anew before it ends.
//!
//! A fleet that was started together must not come back together. So the first token of a client is replaced at 40 to
//! 90 % of its life, and later ones at 80 to 90 %: then the provider is asked twice as often as on average at most. The
//! same holds after a spell in which it gave none, since a fleet comes back from that together as well.
//!
//! A token that is still good outlives a provider that gives no other. Attempts that fail are repeated after 1 s to
//! 60 s; if the provider says that it is this client's fault, after 30 s to 5 min.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::bearer::{Bearer, Extensions, NAME};
use super::source::{Failure, Source, fetch};
use super::token::Token;
use crate::caught::{call, caught};
use crate::config::Endpoint;
use crate::environment::{BoxFuture, Environment};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Metrics, event};
use crate::policy::backoff::Backoff;
use crate::security::Secret;
use crate::security::mechanism::{Authenticator, Mechanism, Need};
use crate::security::tls::Connector;

/// The part of a token's life after which another one is asked for.
const SHARE: Range<f64> = 0.8..0.9;

/// The same of the first one, and of one that came after a failure.
const FIRST_SHARE: Range<f64> = 0.4..0.9;

/// Nobody asks again sooner.
const LEAST: Duration = Duration::from_secs(1);

/// A login needs so much of a token's life, or this time if that is less: what is nearly over is refused where
/// clocks differ.
const NEEDED_SHARE: f64 = 0.1;
const NEEDED: Duration = Duration::from_secs(30);

/// A login anew needs this part: a session ends with its token.
const RENEWAL_SHARE: f64 = 0.5;

/// A file is read again before a login, if it was not read for so long.
const READ_AFTER: Duration = Duration::from_secs(10);

/// A broker that refuses a token has this client ask for another one, if it had this one for so long: one that was just
/// made is no better the next time.
const REFUSED_AFTER: Duration = Duration::from_secs(30);

/// First delay and cap after failures, besides `LEAST`.
const SOON: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(59));
const LATER: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(270));
const LATER_LEAST: Duration = Duration::from_secs(30);

/// A login that finds a token that is good, and a source that does not answer, takes the token after this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// No server keeps a client from asking for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Keeps the token of a pool.
pub(in crate::security) struct Keeper(Arc<Shared>);

struct Shared {
    source: Source,
    tls: Option<Connector>,
    extensions: Extensions,
    env: Environment,
    state: Mutex<State>,
    /// The task has something to do.
    wake: Notify,
    /// How many attempts have ended.
    attempts: watch::Sender<u64>,
    /// The pool is gone.
    over: AtomicBool,
    metrics: OnceLock<Arc<Metrics>>,
}

struct State {
    token: Option<Held>,
    /// Why the last attempt failed, and until when there is none.
    failure: Option<(Error, Instant)>,
    soon: Backoff,
    later: Backoff,
    /// Somebody waits for a token.
    wanted: bool,
    /// When another one is asked for, though nobody waits.
    refresh_at: Option<Instant>,
    /// The task runs.
    runs: bool,
}

struct Held {
    text: Secret,
    extensions: Extensions,
    got: Instant,
    expires: Option<Instant>,
    refused: bool,
}

impl Held {
    fn life(&self) -> Option<Duration> {
        self.expires.map(|at| at.saturating_duration_since(self.got))
    }

    /// Whether it has this much left of its life, and at least the least time.
    fn has_left(&self, share: f64, least: Duration, now: Instant) -> bool {
        let (Some(expires), Some(life)) = (self.expires, self.life()) else { return true };
        let needed = life.mul_f64(share).max(least.min(life / 4));
        expires.saturating_duration_since(now) > needed
    }

    /// Whether it is to be used although a fresh one was not to be had.
    fn is_valid(&self, now: Instant) -> bool {
        !self.refused && self.expires.is_none_or(|at| at > now)
    }
}

/// What a login finds.
enum Look {
    Good(Secret, Extensions),
    /// Another one is to be asked for.
    Wait,
    Failed(Error),
}

impl Keeper {
    pub(super) fn new(
        source: Source,
        tls: Option<Connector>,
        extensions: Extensions,
        env: &Environment,
    ) -> Self {
        let state = State {
            token: None,
            failure: None,
            soon: Backoff::new(SOON.0, SOON.1),
            later: Backoff::new(LATER.0, LATER.1),
            wanted: false,
            refresh_at: None,
            runs: false,
        };
        Self(Arc::new(Shared {
            source,
            tls,
            extensions,
            env: env.clone(),
            state: Mutex::new(state),
            wake: Notify::new(),
            attempts: watch::Sender::new(0),
            over: AtomicBool::new(false),
            metrics: OnceLock::new(),
        }))
    }

    /// A token to log in with.
    async fn get(&self, need: Need) -> Result<(Secret, Extensions)> {
        let shared = &self.0;
        let mut attempts = shared.attempts.subscribe();
        loop {
            attempts.borrow_and_update();
            match shared.look(need) {
                Look::Good(text, extensions) => return Ok((text, extensions)),
                Look::Failed(error) => return Err(error),
                Look::Wait => shared.want(),
            }
            // The sender is here. A source that hangs is no reason to be without a token that is good.
            let came = shared.env.within(PATIENCE, attempts.changed()).await;
            if came.is_none()
                && let Some(present) = shared.present()
            {
                return Ok(present);
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }
}

impl Authenticator for Keeper {
    fn mechanism(&self) -> &'static str {
        NAME
    }

    fn shows_its_secret(&self) -> bool {
        true
    }

    fn prepare<'a>(
        &'a self,
        _: &'a Endpoint,
        need: Need,
        metrics: &'a Arc<Metrics>,
    ) -> BoxFuture<'a, Result<Box<dyn Mechanism>>> {
        Box::pin(async move {
            let _ = self.0.metrics.set(Arc::clone(metrics));
            // Whoever finds that there is none comes back at once.
            if let Some(until) = self.0.failed_until() {
                let now = self.0.env.now();
                self.0.env.sleep_until(until.min(now + LEAST)).await;
            }
            let (text, mut extensions) = self.get(need).await?;
            extensions.extend(self.0.extensions.iter().cloned());
            let shared = Arc::downgrade(&self.0);
            let of = text.clone();
            let on_refusal = move || {
                if let Some(shared) = shared.upgrade() {
                    shared.refused(&of);
                }
            };
            let login: Box<dyn Mechanism> =
                Box::new(Bearer::new(text, extensions, Box::new(on_refusal)));
            Ok(login)
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn look(&self, need: Need) -> Look {
        let now = self.env.now();
        let state = self.state();
        let good = |held: &&Held| {
            let read = !matches!(self.source, Source::File(_)) || now - held.got < READ_AFTER;
            let (share, least) = match need {
                Need::Login => (NEEDED_SHARE, NEEDED),
                Need::Renewal => (RENEWAL_SHARE, Duration::ZERO),
            };
            !held.refused && read && held.has_left(share, least, now)
        };
        let give = |held: &Held| Look::Good(held.text.clone(), held.extensions.clone());
        if let Some(held) = state.token.as_ref().filter(good) {
            return give(held);
        }
        match state.failure.as_ref().filter(|(_, until)| *until > now) {
            None => Look::Wait,
            Some((error, _)) => match state.token.as_ref().filter(|held| held.is_valid(now)) {
                Some(held) => give(held),
                None => Look::Failed(error.clone()),
            },
        }
    }

    /// Until when there is none, if there is none.
    fn failed_until(&self) -> Option<Instant> {
        let (now, state) = (self.env.now(), self.state());
        let (_, until) = state.failure.as_ref()?;
        let valid = state.token.as_ref().is_some_and(|held| held.is_valid(now));
        (!valid && *until > now).then_some(*until)
    }

    /// Has the task ask for a token.
    fn want(self: &Arc<Self>) {
        let mut state = self.state();
        state.wanted = true;
        let runs = std::mem::replace(&mut state.runs, true);
        drop(state);
        if runs {
            self.wake.notify_one();
        } else {
            let shared = Arc::clone(self);
            // Foreign code runs in it: providers, dialers, subscribers. A panic is a failure like others.
            self.env.spawn(async move {
                while let Err(error) = caught(Arc::clone(&shared).run()).await {
                    let _ = call(|| shared.came(Err(error.into()), &mut shared.env.rng()));
                    shared.attempts.send_modify(|attempts| *attempts += 1);
                }
            });
        }
    }

    /// The token that there is, if brokers may still take it.
    fn present(&self) -> Option<(Secret, Extensions)> {
        let (now, state) = (self.env.now(), self.state());
        let held = state.token.as_ref().filter(|held| held.is_valid(now))?;
        Some((held.text.clone(), held.extensions.clone()))
    }

    /// A broker does not take a token. There may be another one by now.
    fn refused(&self, text: &Secret) {
        let now = self.env.now();
        if let Some(held) = &mut self.state().token
            && held.text.expose() == text.expose()
        {
            held.refused |= now.saturating_duration_since(held.got) >= REFUSED_AFTER;
        }
    }

    /// Asks for tokens, one at a time, as long as the pool lives.
    async fn run(self: Arc<Self>) {
        while !self.over.load(Ordering::Acquire) {
            let (at, now) = (self.next(), self.env.now());
            if at.is_none_or(|at| at > now) {
                let sleep = async {
                    match at {
                        Some(at) => self.env.sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = self.wake.notified() => {}
                    () = sleep => {}
                }
                continue;
            }
            let outcome = fetch(&self.source, self.tls.as_ref(), &self.env).await;
            self.came(outcome, &mut self.env.rng());
            self.attempts.send_modify(|attempts| *attempts += 1);
        }
    }

    /// When to ask next.
    fn next(&self) -> Option<Instant> {
        let state = self.state();
        let failed = state.failure.as_ref().map(|(_, until)| *until);
        let wanted = state.wanted.then(|| failed.unwrap_or_else(|| self.env.now()));
        match (wanted, state.refresh_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn came(&self, outcome: Result<Token, Failure>, rng: &mut impl Rng) {
        let now = self.env.now();
        let outcome = outcome.and_then(|token| {
            // One that is given for good has one end, however often it is looked at.
            let known = self.state().token.as_ref().and_then(|held| held.expires);
            let fixed = known.filter(|_| matches!(self.source, Source::Fixed(_)));
            let expires = fixed.or_else(|| token.expiry(&self.env));
            match expires.is_some_and(|at| at <= now) {
                true => Err(self.has_ended().into()),
                false => Ok((token, expires)),
            }
        });
        let mut state = self.state();
        state.wanted = false;
        match outcome {
            Ok((token, expires)) => {
                let first = state.token.is_none() || state.failure.is_some();
                let Token { text, extensions, .. } = token;
                let held = Held { text, extensions, got: now, expires, refused: false };
                let share = if first { FIRST_SHARE } else { SHARE };
                let after = held.life().map(|life| life.mul_f64(rng.random_range(share)));
                state.refresh_at = after.map(|after| now + after.max(LEAST));
                state.token = Some(held);
                state.failure = None;
                state.soon.reset();
                state.later.reset();
            }
            Err(Failure { error, retry_after }) => {
                let wait = match error.is_retriable() {
                    true => LEAST + state.soon.next(rng),
                    false => LATER_LEAST + state.later.next(rng),
                };
                let until = now + wait.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
                let told = state.failure.replace((error.clone(), until)).is_some();
                let refreshes = state.token.is_some() && state.refresh_at.is_some();
                state.refresh_at = refreshes.then_some(until);
                drop(state);
                if let Some(metrics) = self.metrics.get().filter(|_| !told) {
                    event!(
                        metrics.logs(), "ottla::net", WARN, error = %error.message(),
                        "no token to log in with; the one that there was is used as long as it is good"
                    );
                }
            }
        }
    }

    fn has_ended(&self) -> Error {
        let error = Error::new(ErrorKind::Credentials, "the token that there is has expired");
        match self.source {
            // Another one may be on its way.
            Source::File(_) | Source::Provider(_) | Source::Grant(_) => error.passing(),
            Source::Fixed(_) => error,
        }
    }
}

#[cfg(test)]
mod tests;
