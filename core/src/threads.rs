//! Threads of this crate, in a process that belongs to somebody else: its signals are not theirs to
//! take, its settings (stack size, environment) not theirs to depend on, and where it has no thread
//! left that is an error and no panic.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// The standard library's default, set here so that `RUST_MIN_STACK` does not change it.
const STACK: usize = 2 << 20;

/// Workers of one environment at most. Those that look names up may all be waiting for a resolver.
const MOST: usize = 512;

/// A worker without work ends after so long.
const KEPT: Duration = Duration::from_secs(10);

/// Starts a thread in which every signal is blocked from its first instruction on.
pub(crate) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(STACK);
    without_signals(|| thread.spawn(run)).map(drop)
}

/// A thread begins with the mask of the one that starts it. A signal that is sent to the process
/// goes to any thread that does not block it: to ours it never may, the handler is the host's and may
/// count on the thread that it runs on.
#[cfg(unix)]
fn without_signals<T>(act: impl FnOnce() -> T) -> T {
    use nix::sys::signal::{SigSet, SigmaskHow};
    struct Restore(Option<SigSet>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(before) = &self.0 {
                let _ = before.thread_set_mask();
            }
        }
    }
    let _restore = Restore(SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok());
    act()
}

#[cfg(not(unix))]
fn without_signals<T>(act: impl FnOnce() -> T) -> T {
    act()
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads beside the engine's for what takes long and asks nobody. Not the runtime's own: that one
/// starts them with the signal mask of whoever comes, and panics where there are none left.
#[derive(Default)]
pub(crate) struct Workers {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    ended: bool,
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Has `job` run some time soon; gives it back if there is no thread for it, and none to be had.
    pub(crate) fn run(self: &Arc<Self>, job: Job) -> Result<(), (Job, io::Error)> {
        let mut state = self.lock();
        if state.ended {
            return Err((job, io::Error::other("the engine has ended")));
        }
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            self.work.notify_one();
            return Ok(());
        }
        if state.threads == MOST {
            return Ok(());
        }
        let this = Arc::clone(self);
        match start("ottla-worker", move || this.work()) {
            Ok(()) => state.threads += 1,
            // One that is at work comes to it.
            Err(_) if state.threads > 0 => {}
            Err(e) => {
                let Some(job) = state.jobs.pop_back() else { return Ok(()) };
                return Err((job, e));
            }
        }
        Ok(())
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // What it was for finds out by itself: it is dropped unfinished.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
                continue;
            }
            if state.ended {
                break;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, KEPT).unwrap_or_else(|e| e.into_inner());
            state = waited.0;
            state.idle -= 1;
            if waited.1.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    /// Takes no more jobs; what waits is dropped, what is being worked on is finished.
    pub(crate) fn end(&self) {
        let left = {
            let mut state = self.lock();
            state.ended = true;
            std::mem::take(&mut state.jobs)
        };
        self.work.notify_all();
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_blocks_every_signal_and_who_started_it_none_more() {
        fn blocked() -> u64 {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap()
        }
        // Without SIGKILL and SIGSTOP, which cannot be, and the two of the C library.
        let all = !(1 << (9 - 1) | 1 << (19 - 1) | 1 << (32 - 1) | 1 << (33 - 1));
        let before = blocked();
        let (tx, rx) = mpsc::channel();
        let sender = tx.clone();
        start("ottla-test", move || sender.send(blocked()).unwrap()).unwrap();
        assert_eq!(rx.recv().unwrap() & all, all);
        let workers = Arc::new(Workers::default());
        assert!(workers.run(Box::new(move || tx.send(blocked()).unwrap())).is_ok());
        assert_eq!(rx.recv().unwrap() & all, all);
        assert_eq!(blocked(), before);
        workers.end();
    }

    #[test]
    fn a_panic_is_its_jobs_alone_and_an_end_drops_what_waits() {
        let workers = Arc::new(Workers::default());
        let (tx, rx) = mpsc::channel();
        for number in 0..100 {
            let tx = tx.clone();
            let job = move || match number % 2 {
                0 => panic!("on purpose"),
                _ => tx.send(number).unwrap(),
            };
            assert!(workers.run(Box::new(job)).is_ok());
        }
        drop(tx);
        let mut done: Vec<_> = rx.iter().collect();
        done.sort_unstable();
        assert_eq!(done, (0..100).filter(|n| n % 2 == 1).collect::<Vec<_>>());
        workers.end();
        assert!(workers.run(Box::new(|| ())).is_err());
    }
}
