//! The lock of an open batch, which is taken for every record. What counts is its cost while nobody
//! else wants it: one locked instruction to take it, and a plain store to give it back. A lock whose
//! waiters sleep needs a locked instruction there as well, to learn whether there are any, and that
//! one waits until the record's bytes have left the store buffer: a quarter of what a send costs.
//!
//! So waiters look for themselves. The lock is held for as long as it takes to copy a record (in `send_batch`
//! up to 32, and longer only while records move to their partitions, see `unpartitioned.rs`), and every thread
//! has an open batch of its own until there are more than eight: a thread that finds the lock taken looks again
//! at once. If that does not help, its holder has lost its processor, and gets this one.

use std::time::Duration;

use spin::mutex::{SpinMutex, SpinMutexGuard};

/// Looks before the processor is given away.
const LOOKS: u32 = 16;
/// How often it is given away before the thread sleeps: giving it away is no help to a holder that
/// has a lower priority.
const YIELDS: u32 = 64;
const SLEEP: Duration = Duration::from_micros(50);

/// A spin lock for sections as short as copying a record.
#[derive(Debug, Default)]
pub(super) struct Lock<T>(SpinMutex<T>);

pub(super) type Guard<'a, T> = SpinMutexGuard<'a, T>;

impl<T> Lock<T> {
    #[inline]
    pub(in crate::producer) fn lock(&self) -> Guard<'_, T> {
        match self.0.try_lock() {
            Some(guard) => guard,
            None => self.wait(),
        }
    }

    #[cfg(test)]
    pub(super) fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    #[cold]
    fn wait(&self) -> Guard<'_, T> {
        let mut looks = 0;
        loop {
            // Trying takes the lock's memory away from its holder, looking does not.
            if !self.0.is_locked()
                && let Some(guard) = self.0.try_lock()
            {
                return guard;
            }
            match looks {
                0..LOOKS => std::hint::spin_loop(),
                LOOKS..YIELDS => std::thread::yield_now(),
                _ => std::thread::sleep(SLEEP),
            }
            looks = looks.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nobody_is_forgotten() {
        let lock = Lock::<(u32, u32)>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let mut both = lock.lock();
                        both.0 += 1;
                        both.1 += 1;
                        assert_eq!(both.0, both.1);
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), (40_000, 40_000));
    }

    #[test]
    fn a_holder_that_takes_its_time_is_waited_for() {
        let lock = Lock::<bool>::default();
        let mut held = lock.lock();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| *lock.lock());
            // Until it has looked in vain, whatever the scheduler does.
            for _ in 0..10_000 {
                std::thread::yield_now();
            }
            assert!(!waiter.is_finished());
            *held = true;
            drop(held);
            assert!(waiter.join().unwrap());
        });
    }

    #[test]
    fn a_panic_gives_it_back() {
        let lock = Lock::<u32>::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = lock.lock();
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && *lock.lock() == 0);
    }
}
