//! Waiting: detached from the interpreter, for a future of the engine, with an end.

use std::cell::OnceCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::{ending, guard};

/// Longest time a thread waits without looking for signals: what Ctrl-C may take. Half of the
/// 100 ms that are promised, because a loaded machine wakes late.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// When a wait ends for want of a result. `None` in the methods' arguments is no end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// The end of a wait that starts now. A time too far away to name is no end.
    pub(crate) fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    pub(crate) const fn never() -> Self {
        Self(None)
    }

    pub(crate) fn left(self) -> Duration {
        match self.0 {
            Some(at) => at.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }
}

/// Drives `future` on this thread until it is ready (`Some`), `deadline` passes or `stop` says so
/// (`None`). A signal handler that raises (Ctrl-C) ends it with that exception; the future is then
/// dropped, which loses nothing.
pub(crate) fn wait<F>(
    py: Python<'_>,
    deadline: Deadline,
    stop: impl Fn() -> bool,
    future: F,
) -> PyResult<Option<F::Output>>
where
    F: Future + Send,
    F::Output: Send,
{
    let mut future = pin!(future);
    loop {
        let left = deadline.left();
        let slice = left.min(SLICE);
        let polled = ending::detach(py, || {
            // What panicked is not polled again: this wait ends, and drops it.
            catch_unwind(AssertUnwindSafe(|| poll_for(future.as_mut(), slice)))
        });
        match polled {
            Ok(Some(output)) => return Ok(Some(output)),
            Ok(None) => {}
            Err(payload) => return Err(guard::caught(py, payload.as_ref())),
        }
        py.check_signals()?;
        if left <= slice || stop() {
            return Ok(None);
        }
    }
}

/// Polls `future` for at most `limit`, once at least.
fn poll_for<F: Future>(mut future: Pin<&mut F>, limit: Duration) -> Option<F::Output> {
    let until = Instant::now() + limit;
    with_waker(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            let polled = ottla::bindings::poll_alone(|| future.as_mut().poll(&mut context));
            if let Poll::Ready(output) = polled {
                return Some(output);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    })
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

fn with_waker<T>(f: impl FnOnce(&Waker) -> T) -> T {
    thread_local! {
        static WAKER: OnceCell<Waker> = const { OnceCell::new() };
    }
    let make = || Waker::from(Arc::new(Unpark(thread::current())));
    // One per thread; a thread that is ending has none any more and makes one for the occasion.
    match WAKER.try_with(|cell| cell.get_or_init(make).clone()) {
        Ok(waker) => f(&waker),
        Err(_) => f(&make()),
    }
}
