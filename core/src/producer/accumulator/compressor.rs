//! Compression that takes long (more than about 2 ms) runs on a worker thread: on an application's thread its
//! next record would wait for it, and on the engine's thread every response would. The batch keeps its place in
//! its queue meanwhile. As many batches are compressed at once as there are processors. Those that wait count
//! against the buffer like all others.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Accumulator;
use super::batch_queue::BatchQueue;
use crate::producer::batch::OpenBatch;

/// The batches of one accumulator that wait to be compressed.
#[derive(Debug, Default)]
pub(super) struct Compressor(Mutex<Jobs>);

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<(Arc<BatchQueue>, OpenBatch)>,
    workers: usize,
}

impl Compressor {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Accumulator {
    /// Has a worker compress a batch that has its place in `queue` already.
    pub(super) fn seal_later(self: &Arc<Self>, batch_queue: &Arc<BatchQueue>, open: OpenBatch) {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        let mut jobs = self.compressor.lock();
        jobs.waiting.push_back((Arc::clone(batch_queue), open));
        if jobs.workers < most {
            jobs.workers += 1;
            drop(jobs);
            let worker = Worker { accumulator: Arc::clone(self), ran: false };
            self.env.spawn_blocking(move || worker.run());
        }
    }
}

/// A job for a worker thread: compresses until nothing waits. Counted in `Jobs::workers` until it ends.
struct Worker {
    accumulator: Arc<Accumulator>,
    ran: bool,
}

impl Worker {
    fn run(mut self) {
        self.ran = true;
        loop {
            let mut jobs = self.accumulator.compressor.lock();
            let Some((batch_queue, open)) = jobs.waiting.pop_front() else {
                // Under the same lock: whoever adds a batch after this starts another worker.
                jobs.workers -= 1;
                return;
            };
            drop(jobs);
            // A batch whose codec panics resolves as it is dropped; the others go on.
            let topic = Arc::clone(&open.ledger.topic);
            let sealed = catch_unwind(AssertUnwindSafe(|| batch_queue.seal(open)));
            // Also after a panic: batches behind it in the queue have waited for it.
            if sealed.unwrap_or(true) {
                self.accumulator.announce_sealed(&topic, &batch_queue);
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
        let mut jobs = self.accumulator.compressor.lock();
        jobs.workers -= 1;
        let left = std::mem::take(&mut jobs.waiting);
        drop(jobs);
        drop(left);
    }
}
