//! Threads of Python that wait for one consumer: one at a time.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

use pyo3::prelude::*;

use crate::ending;
use crate::wait::{Deadline, SLICE};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// One thread at a time waits for batches: the engine wakes one, which then wakes the next.
#[derive(Default)]
pub(crate) struct Exclusive {
    holder: Mutex<Option<ThreadId>>,
    free: Condvar,
}

impl Exclusive {
    /// Waits for the turn; `None` when `deadline` passes or `stop` says so. A thread that has it
    /// already, because it is in a signal handler in the middle of its wait, goes on with it.
    pub(crate) fn take(
        &self,
        py: Python<'_>,
        deadline: Deadline,
        stop: impl Fn() -> bool,
    ) -> PyResult<Option<Held<'_>>> {
        let own = thread::current().id();
        loop {
            {
                let mut holder = lock(&self.holder);
                if holder.is_none_or(|holder| holder == own) {
                    let first = holder.replace(own).is_none();
                    return Ok(Some(Held { exclusive: first.then_some(self) }));
                }
            }
            if deadline.left().is_zero() || stop() {
                return Ok(None);
            }
            let slice = deadline.left().min(SLICE);
            ending::detach(py, || {
                let holder = lock(&self.holder);
                if holder.is_some() {
                    let _ = self.free.wait_timeout(holder, slice);
                } else {
                    drop(holder);
                }
            });
            py.check_signals()?;
        }
    }
}

/// The turn, given back when dropped by the call that took it first.
pub(crate) struct Held<'a> {
    exclusive: Option<&'a Exclusive>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(exclusive) = self.exclusive {
            *lock(&exclusive.holder) = None;
            exclusive.free.notify_one();
        }
    }
}
