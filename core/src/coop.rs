//! Letting others have a turn: a task that sends, reads or asks for outcomes in a loop finds everything
//! ready for as long as it likes, and would keep its thread from every other task and from timers.
//!
//! Within tokio it takes part in the budget of the task (`tokio::task::coop`), which all that the task
//! uses is counted against. Other executors have none: there this counts for the thread.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop;

/// How many units a thread may spend before other tasks run, where no executor counts: four of tokio's budgets, so that
/// within tokio its own budget ends first.
const MOST: u32 = 512;
/// A thread that waits for nothing else.
const ALONE: u32 = u32::MAX;

thread_local! {
    static SPENT: Cell<u32> = const { Cell::new(0) };
}

/// Whether the task may go on. If not it is woken at once, and goes on when others had their turn. To
/// be asked before something that is ready is taken, and answered by [`spend`] after that.
#[inline]
pub(crate) fn poll_turn(cx: &mut Context<'_>) -> Poll<()> {
    // Given back at once: what turns out not to be ready costs nothing.
    drop(ready!(coop::poll_proceed(cx)));
    let spent = SPENT.try_with(Cell::get).unwrap_or(ALONE);
    if spent != ALONE && spent >= MOST {
        SPENT.set(0);
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(())
}

/// The same for who can await.
pub(crate) async fn turn() {
    poll_fn(poll_turn).await;
}

/// So much was done: one is what receiving a message costs in tokio.
pub(crate) fn spend(units: u32) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..units {
        if !coop::has_budget_remaining() {
            break;
        }
        if let Poll::Ready(unit) = coop::poll_proceed(&mut cx) {
            unit.made_progress();
        }
    }
    let _ = SPENT.try_with(|spent| {
        if spent.get() != ALONE {
            spent.set(spent.get().saturating_add(units).min(MOST));
        }
    });
}

/// Polls for a thread that waits for this alone: others get the processor from the system. A wait with
/// a time-out of nothing takes what is ready.
pub(crate) fn alone<T>(poll: impl FnOnce() -> T) -> T {
    struct Before(u32);
    impl Drop for Before {
        fn drop(&mut self) {
            let _ = SPENT.try_with(|spent| spent.set(self.0));
        }
    }
    let _before = Before(SPENT.try_with(|spent| spent.replace(ALONE)).unwrap_or(ALONE));
    poll()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_yields_once_it_has_spent_enough_and_not_when_it_waits_alone() {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            for _ in 0..MOST {
                assert!(poll_turn(&mut cx).is_ready());
                spend(1);
            }
            alone(|| assert!(poll_turn(&mut cx).is_ready()));
            assert!(poll_turn(&mut cx).is_pending());
        }
    }

    #[tokio::test]
    async fn tokio_counts_for_the_task() {
        let polled = poll_fn(|cx| {
            let mut turns = 0;
            while poll_turn(cx).is_ready() {
                spend(1);
                turns += 1;
            }
            Poll::Ready(turns)
        });
        assert!((1..=128).contains(&polled.await));
        turn().await;
    }
}
