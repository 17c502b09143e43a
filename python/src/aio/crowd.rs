//! Several that wait for one thing of the engine, which knows one waker: each of them is woken, and looks.

use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::exclusive::lock;

/// Those who wait.
#[derive(Default)]
pub(crate) struct Crowd(Mutex<Vec<Waker>>);

impl Crowd {
    /// To be called before the look: what comes behind it wakes whoever has joined.
    pub(crate) fn join(&self, waker: &Waker) {
        let mut wakers = lock(&self.0);
        if !wakers.iter().any(|there| there.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    pub(crate) fn leave(&self, waker: &Waker) {
        lock(&self.0).retain(|there| !there.will_wake(waker));
    }

    /// Has everybody look.
    pub(crate) fn call(&self) {
        let wakers = std::mem::take(&mut *lock(&self.0));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The one waker that the engine is given.
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Arc::clone(self).into()
    }
}

impl Wake for Crowd {
    fn wake(self: Arc<Self>) {
        self.call();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.call();
    }
}
