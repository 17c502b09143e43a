//! Wakers for a host that polls futures on an event loop of its own: what they wake is a list of tokens, with one
//! descriptor for the loop to watch. However many are woken between two looks of the loop, that is one system call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use crate::error::{Error, ErrorKind, Result};
use crate::wake::Wake;

/// The tokens that were woken since the last look. The descriptor is readable exactly while there are some.
pub struct Wakeups {
    woken: Mutex<Vec<Arc<Token>>>,
    wake: Wake,
}

struct Token {
    of: Arc<Wakeups>,
    token: u64,
    /// It is in the list already: who is woken a hundred times is there once.
    listed: AtomicBool,
}

impl Wakeups {
    /// An empty list.
    ///
    /// # Errors
    /// `OutOfResources` if the process has no descriptor left.
    pub fn new() -> Result<Arc<Self>> {
        let wake = Wake::new().map_err(|e| {
            let message = format!("no descriptor to wake the event loop with: {e}");
            Error::new(ErrorKind::OutOfResources, message)
        })?;
        Ok(Arc::new(Self { woken: Mutex::default(), wake }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Token>>> {
        self.woken.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A waker that puts `token` into the list. Clones of it put it there once.
    pub fn waker(self: &Arc<Self>, token: u64) -> Waker {
        Arc::new(Token { of: Arc::clone(self), token, listed: AtomicBool::new(false) }).into()
    }

    /// Takes the list, oldest first, behind what is in `out`. Whatever is woken from then on is in the next one.
    pub fn take(&self, out: &mut Vec<u64>) {
        let taken = {
            let mut woken = self.lock();
            if !woken.is_empty() {
                self.wake.clear();
            }
            std::mem::take(&mut *woken)
        };
        out.extend(taken.iter().map(|token| {
            // Before who waits is told and looks: what comes behind its look wakes it again.
            token.listed.store(false, Ordering::SeqCst);
            token.token
        }));
    }

    /// The descriptor to poll for reading, level-triggered. It is cleared by [`take`](Self::take), not by the host.
    #[cfg(unix)]
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.wake.fd()
    }
}

impl std::task::Wake for Token {
    fn wake(self: Arc<Self>) {
        if self.listed.swap(true, Ordering::SeqCst) {
            return;
        }
        let of = Arc::clone(&self.of);
        let mut woken = of.lock();
        woken.push(self);
        if woken.len() == 1 {
            of.wake.signal();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Arc::clone(self).wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(wakeups: &Wakeups) -> Vec<u64> {
        let mut out = Vec::new();
        wakeups.take(&mut out);
        out
    }

    #[cfg(unix)]
    fn readable(wakeups: &Wakeups, seconds: i64) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let fd = wakeups.fd();
        let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
    }

    #[cfg(unix)]
    #[test]
    fn who_is_woken_often_is_listed_once_and_the_descriptor_says_so() {
        let wakeups = Wakeups::new().unwrap();
        let (one, two) = (wakeups.waker(1), wakeups.waker(2));
        assert!(!readable(&wakeups, 0) && taken(&wakeups).is_empty());
        for waker in [&two, &one, &two.clone(), &one] {
            waker.wake_by_ref();
            assert!(readable(&wakeups, 0));
        }
        assert_eq!(taken(&wakeups), [2, 1]);
        assert!(!readable(&wakeups, 0));
        two.wake();
        assert!(readable(&wakeups, 0));
        assert_eq!(taken(&wakeups), [2]);
        assert!(!readable(&wakeups, 0));
    }

    /// Two threads wake, one sleeps in poll(2): behind each wake comes a look that sees what was said before it.
    #[cfg(unix)]
    #[test]
    fn no_wake_is_lost() {
        use std::sync::atomic::AtomicU64;
        const EACH: u64 = 5_000;
        let wakeups = Wakeups::new().unwrap();
        let said = [AtomicU64::new(0), AtomicU64::new(0)];
        std::thread::scope(|scope| {
            for (at, said) in said.iter().enumerate() {
                let waker = wakeups.waker(at as u64);
                scope.spawn(move || {
                    for i in 1..=EACH {
                        said.store(i, Ordering::SeqCst);
                        waker.wake_by_ref();
                        if i % 7 == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut seen = [0; 2];
            while seen != [EACH; 2] {
                assert!(readable(&wakeups, 60), "nothing for a minute after {seen:?}");
                for token in taken(&wakeups) {
                    seen[token as usize] = said[token as usize].load(Ordering::SeqCst);
                }
            }
        });
    }
}
