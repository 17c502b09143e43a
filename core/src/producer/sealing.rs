//! Compressing what takes long: not on the thread of whoever sends, whose next record would wait for it
//! by milliseconds, nor on the engine's, where every answer would. It keeps its place in the line of
//! its slot meanwhile. As many batches at once as there are processors: more would only take longer
//! each. What waits counts against the buffer like everything else.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use super::accumulator::Accumulator;
use super::slot::{OpenBatch, Slot};

/// See the module. Of one accumulator.
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
    /// Seals a batch that has its place in the line of `slot`, some time soon.
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

/// Counted among the workers.
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
                // Under the same lock: who comes now starts a worker.
                jobs.workers -= 1;
                return;
            };
            drop(jobs);
            // One that panics resolves as it is dropped; the others are not to blame.
            let topic = Arc::clone(&open.rest.topic);
            let sealed = catch_unwind(AssertUnwindSafe(|| slot.seal(&self.home, open)));
            // Also after a panic: what is behind it in the line has waited for it.
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
