//! Compression that takes long (more than about 2 ms) runs on a worker thread: on an application's thread its
//! next record would wait for it, on the engine's thread every response would. The batch keeps its
//! place in its queue meanwhile. As many batches are compressed at once as there are processors. Those that
//! wait count against the buffer like all others.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use super::accumulator::Accumulator;
use super::slot::{OpenBatch, Slot};

/// The batches of one accumulator that wait to be compressed.
#[derive(Debug, Default)]
pub(super) struct Sealing(Mutex<Jobs>);

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<(Arc<Slot>, OpenBatch)>,
    workers: usize,
}

impl Sealing {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Accumulator {
    /// Has a worker compress a batch that has its place in `slot` already.
    pub(super) fn seal_later(self: &Arc<Self>, slot: &Arc<Slot>, open: OpenBatch) {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        let mut jobs = self.sealing.lock();
        jobs.waiting.push_back((Arc::clone(slot), open));
        if jobs.workers < most {
            jobs.workers += 1;
            drop(jobs);
            let worker = Worker { home: Arc::clone(self), ran: false };
            self.env.spawn_blocking(move || worker.run());
        }
    }
}

/// A job for a worker thread: compresses until nothing waits. Counted in `Jobs::workers` until it ends.
struct Worker {
    home: Arc<Accumulator>,
    ran: bool,
}

impl Worker {
    fn run(mut self) {
        self.ran = true;
        loop {
            let mut jobs = self.home.sealing.lock();
            let Some((slot, open)) = jobs.waiting.pop_front() else {
                // Under the same lock: whoever adds a batch after this starts another worker.
                jobs.workers -= 1;
                return;
            };
            drop(jobs);
            // A batch whose codec panics resolves as it is dropped; the others go on.
            let topic = Arc::clone(&open.rest.topic);
            let sealed = catch_unwind(AssertUnwindSafe(|| slot.seal(&self.home, open)));
            // Also after a panic: batches behind it in the queue have waited for it.
            if sealed.unwrap_or(true) {
                self.home.announce_sealed(&topic, &slot);
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.ran {
            return;
        }
        // The runtime has ended: what waits resolves as it is dropped, without the lock.
        let mut jobs = self.home.sealing.lock();
        jobs.workers -= 1;
        let left = std::mem::take(&mut jobs.waiting);
        drop(jobs);
        drop(left);
    }
}
