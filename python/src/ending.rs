//! The end of the interpreter, and threads that are inside of this module's calls then.
//!
//! Before Python 3.14 a thread that comes back to an interpreter that has ended is unwound by force, daemon threads of a
//! program among them. Frames of ours do not stand that. So none may be on the stack of such a thread: the interpreter's exit
//! hook waits until nobody is inside of a call that may let go of the interpreter, and who comes later stays away.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How long threads stay away from an interpreter that is about to end. Hooks that were registered
/// before ours run after it, and may wait for such a thread: they are held up no longer than this.
const STAY_AWAY: Duration = Duration::from_secs(5);

/// How long the end waits for threads that are inside. None is for long: what waits does so outside. Unless it runs code of
/// the program's (an iterator of values that blocks), which may last for ever.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The thread that ends the interpreter, once it has begun to; 0: none has.
static ENDED_BY: AtomicUsize = AtomicUsize::new(0);
/// When, in milliseconds after [`BEGUN`].
static ENDED_AT: AtomicU64 = AtomicU64::new(0);
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How many threads are inside. It is counted before it is looked at [`ENDED_BY`], and that is set before this is looked at: a
/// thread that misses the end is waited for.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// Whoever ends the interpreter waits here until the others have left.
static LAST: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

thread_local! {
    /// How many calls of this thread's are inside of one another: code of the program's may run in each.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

fn now_ms() -> u64 {
    BEGUN.elapsed().as_millis() as u64
}

fn this_thread() -> usize {
    DEPTH.try_with(|here| std::ptr::from_ref(here).addr()).unwrap_or(0)
}

fn depth() -> usize {
    DEPTH.try_with(Cell::get).unwrap_or(0)
}

/// Whether another thread ends the interpreter.
fn ends() -> bool {
    let by = ENDED_BY.load(Ordering::SeqCst);
    by != 0 && by != this_thread()
}

/// Stays here, and goes with the process; or goes on, if that still runs hooks after [`STAY_AWAY`].
fn stay_away() {
    let until = ENDED_AT.load(Ordering::SeqCst) + STAY_AWAY.as_millis() as u64;
    while let Some(left) = until.checked_sub(now_ms()).filter(|left| *left > 0) {
        std::thread::park_timeout(Duration::from_millis(left));
    }
}

/// As long as it is there the end of the interpreter waits, for a moment.
#[must_use]
pub(crate) struct Inside(());

impl Drop for Inside {
    fn drop(&mut self) {
        let left = DEPTH.try_with(|depth| {
            depth.set(depth.get().saturating_sub(1));
            depth.get() == 0
        });
        if left.unwrap_or(true) {
            leave();
        }
    }
}

fn leave() {
    if INSIDE.fetch_sub(1, Ordering::SeqCst) == 1 && ENDED_BY.load(Ordering::SeqCst) != 0 {
        drop(last());
        LAST.1.notify_all();
    }
}

fn last() -> MutexGuard<'static, ()> {
    LAST.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Counts this thread in, and has it stay away, by `detached`, where the interpreter ends.
fn enter(detached: impl FnOnce(fn())) -> Inside {
    if depth() == 0 {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        if ends() {
            leave();
            detached(stay_away);
            INSIDE.fetch_add(1, Ordering::SeqCst);
        }
    }
    let _ending = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
    Inside(())
}

/// For a call in which Python code runs, of asyncio or of the program, or which lets go of the interpreter: it may have to come
/// back to it.
#[inline]
pub(crate) fn inside(py: Python<'_>) -> Inside {
    enter(|stay_away| py.detach(stay_away))
}

/// Lets other threads have the interpreter during a call, and comes back to it where it has not ended meanwhile. Nothing else in
/// this module lets go of it, but Python code that runs in a call of ours: see [`inside`].
pub(crate) fn detach<T: Send>(py: Python<'_>, call: impl FnOnce() -> T + Send) -> T {
    let (outcome, _back) = py.detach(|| {
        let outcome = call();
        (outcome, enter(|stay_away| stay_away()))
    });
    outcome
}

/// The same for a thread of our own, which does not come back to an interpreter that ends, also not after [`STAY_AWAY`]: nobody waits
/// for it, and just then, with the last hook, the interpreter may be gone.
pub(crate) fn detach_for_good<T: Send>(py: Python<'_>, call: impl FnOnce() -> T + Send) -> T {
    let (outcome, _back) = py.detach(|| {
        let outcome = call();
        let back = enter(|_| {
            loop {
                std::thread::park();
            }
        });
        (outcome, back)
    });
    outcome
}

/// The interpreter ends. Threads that are no daemons have ended by now; others are kept out from here on, and those that are
/// inside leave.
pub(crate) fn begin(py: Python<'_>) {
    ENDED_AT.store(now_ms(), Ordering::SeqCst);
    ENDED_BY.store(this_thread(), Ordering::SeqCst);
    let own = depth().min(1);
    let until = Instant::now() + LEAVE_WITHIN;
    py.detach(|| {
        let mut guard = last();
        while INSIDE.load(Ordering::SeqCst) > own {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = LAST.1.wait_timeout(guard, left);
            guard = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    });
}

/// In a forked child: it has an end of its own, and no thread but this one.
pub(crate) fn begin_anew() {
    ENDED_BY.store(0, Ordering::SeqCst);
    INSIDE.store(depth().min(1), Ordering::SeqCst);
}
