//! A program's provider, asked once for all that want a token of it at the same time: the pools of several clusters, or of
//! one cluster by other settings. They come together after an expiry or a sleep of the machine, and a program is promised
//! one caller at a time.
//!
//! Nobody owns the asking: whoever waits for it has it go on, and if that one gives up the next one does. It is given up
//! with the last of them. So it has one beginning, from which its time counts, whoever waits at its end.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::source::{Failure, TIMEOUT, none};
use super::token::{Token, TokenProvider};
use crate::caught::caught;
use crate::environment::{BoxFuture, Environment};
use crate::fork::Origin;

const NAME: &str = "the token provider";

/// A provider, and whether it is being asked.
pub(super) struct Shared {
    provider: Arc<dyn TokenProvider>,
    flight: Mutex<Weak<Flight>>,
}

/// One asking.
struct Flight {
    origin: Origin,
    /// Whose turn it is polls it, until it is over.
    asking: tokio::sync::Mutex<Option<BoxFuture<'static, Got>>>,
    got: OnceLock<Got>,
}

type Got = Result<Token, Failure>;

impl Shared {
    pub(super) fn new(provider: impl TokenProvider + 'static) -> Self {
        Self { provider: Arc::new(provider), flight: Mutex::default() }
    }

    /// A token of the asking that is on its way, or of one that begins.
    pub(super) async fn token(&self, env: &Environment) -> Got {
        let flight = self.join(env);
        let mut asking = flight.asking.lock().await;
        let mut over = None;
        if let Some(future) = asking.as_mut() {
            let got = future.as_mut().await;
            let _ = flight.got.set(got);
            over = asking.take();
        }
        drop(asking);
        // Foreign code, without a lock.
        drop(over);
        let nobody = || Err(none(format!("{NAME} was not asked")).passing().into());
        flight.got.get().cloned().unwrap_or_else(nobody)
    }

    fn join(&self, env: &Environment) -> Arc<Flight> {
        let mut last = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.upgrade().filter(|flight| {
            let is_here = flight.origin.is_here();
            if !is_here {
                // Whoever asked in the process that this one is a fork of has this one's copy for ever, and its memory is not
                // to be touched.
                std::mem::forget(Arc::clone(flight));
            }
            is_here
        });
        // What has come already is for who waited for it: the next one may want another token than that.
        match known.filter(|flight| flight.got.get().is_none()) {
            Some(flight) => flight,
            None => {
                let flight = Arc::new(Flight::new(Arc::clone(&self.provider), env.clone()));
                *last = Arc::downgrade(&flight);
                flight
            }
        }
    }
}

impl Flight {
    fn new(provider: Arc<dyn TokenProvider>, env: Environment) -> Self {
        let asking = async move {
            let answer = caught(async { provider.token().await });
            let Some(answer) = env.within(TIMEOUT, answer).await else {
                return Err(none(format!("{NAME}: no answer within {TIMEOUT:?}")).passing().into());
            };
            let token = answer?.map_err(|e| none(format!("{NAME}: {e}")).passing())?;
            token.check().map_err(|why| none(format!("{NAME}: {why}")))?;
            Ok(token)
        };
        let origin = Origin::here();
        Self {
            origin,
            asking: tokio::sync::Mutex::new(Some(Box::pin(asking))),
            got: OnceLock::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::TokenError;
    use super::*;

    struct Never;

    impl TokenProvider for Never {
        fn token(&self) -> BoxFuture<'_, Result<Token, TokenError>> {
            Box::pin(std::future::pending())
        }
    }

    /// What was asked when a process was forked is asked by nobody in the child.
    #[test]
    fn an_asking_of_the_parent_is_not_joined() {
        let (shared, env) = (Shared::new(Never), Environment::process());
        let first = shared.join(&env);
        assert!(Arc::ptr_eq(&first, &shared.join(&env)), "one that is on its way is joined");
        let mut foreign = Flight::new(Arc::clone(&shared.provider), env.clone());
        foreign.origin = Origin::elsewhere();
        let foreign = Arc::new(foreign);
        *shared.flight.lock().unwrap() = Arc::downgrade(&foreign);
        let own = shared.join(&env);
        assert!(!Arc::ptr_eq(&foreign, &own));
        assert!(Arc::ptr_eq(&own, &shared.join(&env)));
    }
}
