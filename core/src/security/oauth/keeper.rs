//! The token of a pool: got once for all its connections, and anew before it ends.
//!
//! When the next one is asked for while there is one that is good, [`token_renewal`] says: logins have no part in that, so
//! that a fleet that was started together does not come back together. Only a token that is nearly over, or that a
//! broker does not take, has logins ask for another one.
//!
//! A token that is still good outlives a provider that gives no other, and a broker that refuses it: brokers have keys and
//! clocks of their own, so what one of them says holds for logins at that one. Attempts that fail are repeated after 1 s
//! to 60 s; if the provider says that it is this client's fault, after 30 s to 5 min; while there is a token that is good
//! for long, seldom.
//!
//! How long a token is good a broker knows better than whoever gave it: the time that it gives a session is known to
//! come from the token once a second login with that has not brought a later end.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rand::Rng;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::bearer::{Bearer, Extensions, NAME, Verdict};
use super::source::{Failure, Source, fetch};
use super::token::Token;
use crate::caught::{call, caught};
use crate::config::Endpoint;
use crate::environment::{BoxFuture, End, Environment};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Metrics, event};
use crate::policy::backoff::Backoff;
use crate::policy::token_renewal;
use crate::security::Secret;
use crate::security::mechanism::{Authenticator, Mechanism, Need};
use crate::security::tls::Connector;

/// Nobody asks again sooner.
const LEAST: Duration = Duration::from_secs(1);

/// A login needs so much of a token's life, or this time if that is less: what is nearly over is refused where
/// clocks differ.
const NEEDED_SHARE: f64 = 0.1;
const NEEDED: Duration = Duration::from_secs(30);

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

/// Answers in a row that may be strange before that counts as the client's own fault, such as a wrong URL.
const MAX_STRANGE: u32 = 5;

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
    /// How long a token without an end of its own has turned out to be good.
    learned: Option<Duration>,
    /// Answers in a row that were none of a token endpoint.
    strange: u32,
    /// The task runs.
    runs: bool,
}

struct Held {
    text: Secret,
    extensions: Extensions,
    got: Instant,
    expires: Option<End>,
    /// Brokers that have refused it. There are no more than the cluster has.
    refused_by: HashSet<Endpoint>,
    /// When a login with it began first, by broker, and when the session of that was to end.
    sessions: HashMap<Endpoint, (Instant, Instant)>,
}

impl Held {
    fn life(&self) -> Option<Duration> {
        self.expires.map(|end| end.at().saturating_duration_since(self.got))
    }

    /// Whether brokers take it whose clocks are not ours.
    fn has_enough(&self, env: &Environment) -> bool {
        let (Some(expires), Some(life)) = (self.expires, self.life()) else { return true };
        let needed = life.mul_f64(NEEDED_SHARE).max(NEEDED.min(life / 4));
        env.left(expires) > needed
    }

    /// Whether it is to be used there although a fresh one was not to be had.
    fn is_valid(&self, peer: &Endpoint, env: &Environment) -> bool {
        !self.refused_by.contains(peer) && !self.is_over(env)
    }

    fn is_over(&self, env: &Environment) -> bool {
        self.expires.is_some_and(|end| env.is_over(end))
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
            learned: None,
            strange: 0,
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

    /// A token to log in with, there.
    async fn get(&self, peer: &Endpoint, need: Need) -> Result<(Secret, Extensions)> {
        let shared = &self.0;
        let mut attempts = shared.attempts.subscribe();
        loop {
            attempts.borrow_and_update();
            match shared.look(peer, need) {
                Look::Good(text, extensions) => return Ok((text, extensions)),
                Look::Failed(error) => return Err(error),
                Look::Wait => shared.want(),
            }
            // The sender is here. A source that hangs is no reason to be without a token that is good.
            let came = shared.env.within(PATIENCE, attempts.changed()).await;
            if came.is_none()
                && let Some(present) = shared.present(peer)
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
        peer: &'a Endpoint,
        need: Need,
        metrics: &'a Arc<Metrics>,
    ) -> BoxFuture<'a, Result<Box<dyn Mechanism>>> {
        Box::pin(async move {
            let _ = self.0.metrics.set(Arc::clone(metrics));
            // Whoever finds that there is none comes back at once.
            if let Some(until) = self.0.failed_until(peer) {
                let now = self.0.env.now();
                self.0.env.sleep_until(until.min(now + LEAST)).await;
            }
            let (text, mut extensions) = self.get(peer, need).await?;
            extensions.extend(self.0.extensions.iter().cloned());
            let shared = Arc::downgrade(&self.0);
            let (of, peer) = (text.clone(), peer.clone());
            let on_verdict = move |verdict| {
                let Some(shared) = shared.upgrade() else { return };
                match verdict {
                    Verdict::Refused => shared.refused(&of, &peer),
                    Verdict::Taken { since, life } => shared.taken(&of, &peer, since, life),
                }
            };
            let login: Box<dyn Mechanism> =
                Box::new(Bearer::new(text, extensions, Box::new(on_verdict)));
            Ok(login)
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn look(&self, peer: &Endpoint, need: Need) -> Look {
        let now = self.env.now();
        let state = self.state();
        let good = |held: &&Held| {
            let read = !matches!(self.source, Source::File(_)) || now - held.got < READ_AFTER;
            // A session ends with its token, and is renewed again then. To ask for one now would bring all into step
            // whose tokens came at the same time.
            let due = need == Need::Renewal && state.refresh_at.is_some_and(|at| at <= now);
            !held.refused_by.contains(peer) && read && !due && held.has_enough(&self.env)
        };
        let give = |held: &Held| Look::Good(held.text.clone(), held.extensions.clone());
        if let Some(held) = state.token.as_ref().filter(good) {
            return give(held);
        }
        let valid = |held: &&Held| held.is_valid(peer, &self.env);
        match state.failure.as_ref().filter(|(_, until)| *until > now) {
            None => Look::Wait,
            Some((error, _)) => match state.token.as_ref().filter(valid) {
                Some(held) => give(held),
                None => Look::Failed(error.clone()),
            },
        }
    }

    /// Until when there is none for this broker, if there is none.
    fn failed_until(&self, peer: &Endpoint) -> Option<Instant> {
        let (now, state) = (self.env.now(), self.state());
        let (_, until) = state.failure.as_ref()?;
        let valid = state.token.as_ref().is_some_and(|held| held.is_valid(peer, &self.env));
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

    /// The token that there is, if this broker may still take it.
    fn present(&self, peer: &Endpoint) -> Option<(Secret, Extensions)> {
        let state = self.state();
        let held = state.token.as_ref().filter(|held| held.is_valid(peer, &self.env))?;
        Some((held.text.clone(), held.extensions.clone()))
    }

    /// This broker does not take a token. There may be another one by now.
    fn refused(&self, text: &Secret, by: &Endpoint) {
        let now = self.env.now();
        if let Some(held) = &mut self.state().token
            && held.text.expose() == text.expose()
            && now.saturating_duration_since(held.got) >= REFUSED_AFTER
        {
            held.refused_by.insert(by.clone());
        }
    }

    /// A broker has taken a token in a login that began at `since`, for a session of this life.
    fn taken(&self, text: &Secret, by: &Endpoint, since: Instant, life: Option<Duration>) {
        let Some(ends) = life.and_then(|life| since.checked_add(life)) else { return };
        let mut state = self.state();
        let state = &mut *state;
        let Some(held) = state.token.as_mut().filter(|held| held.text.expose() == text.expose())
        else {
            return;
        };
        let Some((before, ended)) = held.sessions.get(by).copied() else {
            held.sessions.insert(by.clone(), (since, ends));
            return;
        };
        // An earlier end is the broker's own: its bound was lowered, or another one answers at its address.
        if ends + LEAST < ended {
            held.sessions.insert(by.clone(), (since, ends));
            return;
        }
        // Sessions that brokers bound (`connections.max.reauth.ms`) end so much later as they began.
        let (later, gained) =
            (since.saturating_duration_since(before), ends.saturating_duration_since(ended));
        let is_tokens_end = later >= LEAST && gained < later / 2;
        let believed = held.expires.is_none_or(|end| end.at() > ends + LEAST);
        if is_tokens_end && believed {
            held.expires = Some(self.env.end_at(ends));
            let life = ends.saturating_duration_since(held.got);
            state.learned = Some(life);
            let at = held.got + token_renewal::renew_after(life, false, &mut self.env.rng());
            state.refresh_at = Some(state.refresh_at.map_or(at, |before| before.min(at)));
            self.wake.notify_one();
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
            let metrics = self.metrics.get();
            let asked = fetch(&self.source, self.tls.as_ref(), &self.env, metrics);
            let outcome = tokio::select! {
                biased;
                // A provider learns that nobody waits for it any more.
                () = self.gone() => return,
                outcome = asked => outcome,
            };
            self.came(outcome, &mut self.env.rng());
            self.attempts.send_modify(|attempts| *attempts += 1);
        }
    }

    /// The pool is gone. What the task is woken for besides is looked at after an attempt.
    async fn gone(&self) {
        while !self.over.load(Ordering::Acquire) {
            self.wake.notified().await;
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
            let expires = self.end_of(&token);
            match expires.is_some_and(|end| self.env.is_over(end)) {
                true => Err(self.has_ended().into()),
                false => Ok((token, expires)),
            }
        });
        let mut state = self.state();
        state.wanted = false;
        match outcome {
            Ok((token, expires)) => {
                let in_step = state.token.is_none() || state.failure.is_some();
                let Token { text, extensions, .. } = token;
                // If it is the same one again, its sessions end as they did.
                let before = state.token.take().filter(|held| held.text.expose() == text.expose());
                let sessions = before.map(|held| held.sessions).unwrap_or_default();
                let refused_by = HashSet::new();
                let held = Held { text, extensions, got: now, expires, refused_by, sessions };
                let after = held.life().map(|life| token_renewal::renew_after(life, in_step, rng));
                state.refresh_at = after.map(|after| now + after);
                state.token = Some(held);
                state.failure = None;
                state.strange = 0;
                state.soon.reset();
                state.later.reset();
            }
            Err(Failure { error, retry_after, is_strange }) => {
                state.strange = if is_strange { state.strange + 1 } else { 0 };
                // What is in between may have had a moment of its own; but not for ever.
                let error = match is_strange && state.strange <= MAX_STRANGE {
                    true => error.passing(),
                    false => error,
                };
                let wait = match error.is_retriable() {
                    true => LEAST + state.soon.next(rng),
                    false => LATER_LEAST + state.later.next(rng),
                };
                let retry_after = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
                let until = now + wait.max(retry_after);
                let told = state.failure.replace((error.clone(), until)).is_some();
                // Nobody is in need of it yet.
                let seldom = state.token.as_ref().and_then(|held| {
                    let age = now.saturating_duration_since(held.got);
                    let wait = token_renewal::retry_after(held.life()?, age, rng)?;
                    (!held.is_over(&self.env)).then_some(now + wait)
                });
                let refreshes = state.token.is_some() && state.refresh_at.is_some();
                state.refresh_at = refreshes.then(|| seldom.map_or(until, |at| at.max(until)));
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

    /// When a token ends that has just come.
    fn end_of(&self, token: &Token) -> Option<End> {
        let state = self.state();
        // One that came before has one end, however often it is looked at.
        let same = state.token.as_ref().filter(|held| held.text.expose() == token.text.expose());
        if matches!(self.source, Source::Fixed(_))
            && let Some(held) = same
        {
            return held.expires;
        }
        let end = token.expiry(&self.env).or_else(|| match same {
            Some(held) => held.expires.map(End::at),
            None => state.learned.and_then(|life| self.env.now().checked_add(life)),
        });
        end.map(|at| self.env.end_at(at))
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
