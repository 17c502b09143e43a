//! Waits for a future without a runtime: the futures of this crate are driven by the engine's own
//! thread, so a caller only has to sleep until it is woken.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::coop;

struct Unpark(Thread);

thread_local! {
    /// Made once for each thread: a blocking send would allocate one for every record.
    static UNPARK: Waker = waker();
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `future` on this thread; `None` once `timeout` has passed without a result.
pub(crate) fn block_on<F: Future>(future: F, timeout: Option<Duration>) -> Option<F::Output> {
    // A task's budget is of no concern to a thread that waits, even if that is a runtime's: what wakes
    // a task that has used it up might be this very thread.
    let mut future = pin!(tokio::task::coop::unconstrained(future));
    // The destructor of another thread-local may still send when this one is gone.
    let waker = UNPARK.try_with(Waker::clone).unwrap_or_else(|_| waker());
    let mut cx = Context::from_waker(&waker);
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    loop {
        if let Poll::Ready(output) = coop::alone(|| future.as_mut().poll(&mut cx)) {
            return Some(output);
        }
        match deadline {
            None => std::thread::park(),
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                std::thread::park_timeout(left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: one that never comes back is a failure, and not a test without end.
    #[test]
    fn a_wait_ends_at_its_deadline() {
        let (tx, rx) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let nothing = std::future::pending::<()>();
            tx.send(block_on(nothing, Some(Duration::from_millis(20)))).unwrap();
        });
        assert_eq!(rx.recv_timeout(Duration::from_secs(30)), Ok(None));
        assert_eq!(block_on(async { 7 }, Some(Duration::ZERO)), Some(7), "it was looked at first");
    }
}
