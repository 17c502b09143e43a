//! The states of batches are taken from a slab and put back into it; the process keeps the slab for good.
//!
//! A state returns to the list of idle ones with its last handle, on whatever thread that is
//! dropped. Memory is never returned: there are as many states as there were batches with handles at
//! one time, 256 bytes each, and a reference to one is good for ever.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::BatchState;

/// States of the first block; each further one has twice as many.
const FIRST: usize = 64;
const BLOCKS: usize = 24;

pub(super) static SLAB: Slab = Slab::new();

/// All states there are, in blocks that never go away.
pub(super) struct Slab {
    blocks: [OnceLock<Box<[BatchState]>>; BLOCKS],
    grown: AtomicUsize,
    /// The list of idle states. Low half: the number of the first plus 1, or 0. High half: counts
    /// changes, so that a list that looks the same is the same. Not a lock, because a process may be
    /// forked at any moment, and a lock that another thread held then would be held for ever.
    idle: AtomicU64,
}

impl Slab {
    pub(in crate::producer) const fn new() -> Self {
        Self {
            blocks: [const { OnceLock::new() }; BLOCKS],
            grown: AtomicUsize::new(0),
            idle: AtomicU64::new(0),
        }
    }

    fn at(&'static self, number: u32) -> &'static BatchState {
        let n = number as usize + FIRST;
        let block = (n.ilog2() - FIRST.ilog2()) as usize;
        let states = self.blocks[block].get().expect("numbers are of blocks that exist");
        &states[n - (FIRST << block)]
    }

    pub(super) fn take_idle(&'static self) -> &'static BatchState {
        let mut head = self.idle.load(Ordering::Acquire);
        while let Some(number) = (head as u32).checked_sub(1) {
            let state = self.at(number);
            let new = changed(head, state.next.load(Ordering::Relaxed));
            let swap =
                self.idle.compare_exchange_weak(head, new, Ordering::Acquire, Ordering::Acquire);
            match swap {
                Ok(_) => return state,
                Err(now) => head = now,
            }
        }
        self.grow()
    }

    pub(super) fn put_idle(&self, state: &BatchState) {
        let mut head = self.idle.load(Ordering::Relaxed);
        loop {
            state.next.store(head as u32, Ordering::Relaxed);
            let new = changed(head, state.number + 1);
            let swap =
                self.idle.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed);
            match swap {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// A block more: one for the caller, the rest idle.
    #[cold]
    fn grow(&'static self) -> &'static BatchState {
        let block = self.grown.fetch_add(1, Ordering::Relaxed);
        assert!(block < BLOCKS, "a billion batches have handles");
        let first = (FIRST << block) - FIRST;
        let numbers = first..first + (FIRST << block);
        let states = self.blocks[block]
            .get_or_init(|| numbers.map(|number| BatchState::new(self, number as u32)).collect());
        for state in &states[1..] {
            self.put_idle(state);
        }
        &states[0]
    }
}

fn changed(head: u64, first: u32) -> u64 {
    (head >> 32).wrapping_add(1) << 32 | u64::from(first)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::producer::delivery::BatchAck;
    use crate::producer::delivery::state::{Owner, StateRef};

    fn offset(state_ref: &StateRef) -> Option<i64> {
        state_ref.state().acknowledged().map(|ack| ack.base_offset)
    }

    /// Many threads open, resolve and drop handles that other threads gave out: every handle sees its
    /// own batch, whatever state is used again meanwhile.
    #[test]
    fn states_are_not_mixed_up() {
        let slab: &'static Slab = Box::leak(Box::new(Slab::new()));
        let (tx, rx) = std::sync::mpsc::sync_channel::<(StateRef, i64)>(512);
        let rx = std::sync::Arc::new(Mutex::new(rx));
        std::thread::scope(|scope| {
            let mut running = Vec::new();
            for thread in 0..3i64 {
                let tx = tx.clone();
                running.push(scope.spawn(move || {
                    for batch in 0..2_000 {
                        let mut owner = Owner::of(slab, 0);
                        let id = thread * 1_000_000 + batch;
                        let early: Vec<_> = (0..5).map(|_| owner.state_ref()).collect();
                        assert!(early.iter().all(|state_ref| offset(state_ref).is_none()));
                        let late = owner.state_ref();
                        owner.resolve_nobodys(&Ok(BatchAck {
                            partition: 1,
                            base_offset: id,
                            append_time: None,
                        }));
                        for state_ref in early {
                            tx.send((state_ref, id)).unwrap();
                        }
                        assert_eq!(offset(&late), Some(id));
                    }
                }));
            }
            drop(tx);
            for _ in 0..3 {
                let rx = rx.clone();
                running.push(scope.spawn(move || {
                    loop {
                        let next = rx.lock().unwrap().recv();
                        let Ok((state_ref, id)) = next else { break };
                        assert_eq!(offset(&state_ref), Some(id));
                    }
                }));
            }
            // Joined by hand: a scope ends before what threads do at their very end.
            running.into_iter().for_each(|thread| thread.join().unwrap());
        });
        // Ended threads have released what they dropped: everything is idle again.
        let made: usize = (0..slab.grown.load(Ordering::Relaxed)).map(|block| FIRST << block).sum();
        assert!(made < 2_000, "{made} states made: none was used again");
        let idle: std::collections::HashSet<_> =
            (0..made).map(|_| std::ptr::from_ref(slab.take_idle())).collect();
        assert_eq!(idle.len(), made, "a state is lost, or twice in the list");
        assert_eq!(slab.idle.load(Ordering::Relaxed) as u32, 0);
    }
}
