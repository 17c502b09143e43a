//! Operations that take time: each is worked on by a task of the engine, and told how it ended
//! exactly once, whatever becomes of the task.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::AbortHandle;

use super::completion::Reply;
use crate::caught::caught;
use crate::environment::Environment;
use crate::error::Result;

/// The operations that a client has under way, besides records.
#[derive(Default)]
pub(crate) struct Operations(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    pending: HashMap<u64, Pending>,
    closed: bool,
}

struct Pending {
    reply: Reply,
    task: Option<AbortHandle>,
}

impl Operations {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Runs `work` on the engine and tells `reply` how it ended.
    pub(crate) fn start(
        self: &Arc<Self>,
        env: &Environment,
        reply: Reply,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        let id = {
            let mut table = self.lock();
            if table.closed {
                drop(table);
                return drop(reply);
            }
            table.next += 1;
            let id = table.next;
            table.pending.insert(id, Pending { reply, task: None });
            id
        };
        // Tells `reply` that it ends unfinished if the task is dropped with its runtime.
        let unfinished = Unfinished { operations: Arc::clone(self), id };
        let task = env.handle().spawn(async move {
            let outcome = caught(work).await.and_then(|outcome| outcome);
            unfinished.finish(outcome);
        });
        // If the task is through already, its entry is gone.
        if let Some(pending) = self.lock().pending.get_mut(&id) {
            pending.task = Some(task.abort_handle());
        }
    }

    /// Ends everything that is under way with `Closed`, and what is started from now on.
    pub(crate) fn close(&self) {
        let pending = {
            let mut table = self.lock();
            table.closed = true;
            std::mem::take(&mut table.pending)
        };
        let mut pending: Vec<_> = pending.into_iter().collect();
        // Told in the order in which they were started.
        pending.sort_unstable_by_key(|(id, _)| *id);
        for (_, Pending { reply, task }) in pending {
            if let Some(task) = task {
                task.abort();
            }
            drop(reply);
        }
    }
}

struct Unfinished {
    operations: Arc<Operations>,
    id: u64,
}

impl Unfinished {
    fn take(&self) -> Option<Reply> {
        self.operations.lock().pending.remove(&self.id).map(|p| p.reply)
    }

    fn finish(self, outcome: Result<()>) {
        if let Some(reply) = self.take() {
            reply.resolve(outcome);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A reply that is dropped tells that the client is closed.
        drop(self.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::completion::CompletionKind;
    use crate::bindings::queue::CompletionQueue;
    use crate::error::ErrorKind;

    #[test]
    fn a_panic_and_a_close_are_outcomes() {
        let env = Environment::builder().build();
        let operations = Arc::new(Operations::default());
        let (reply, waiter) = Reply::waiter();
        operations.start(&env, reply, async { panic!("by the test") });
        let error = waiter.wait("the panic", None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("by the test"), "{error}");

        let queue = CompletionQueue::new().unwrap();
        for tag in 1..=3 {
            let reply = Reply::queue(&queue, tag, CompletionKind::Flushed);
            operations.start(&env, reply, std::future::pending());
        }
        operations.close();
        operations.start(&env, Reply::queue(&queue, 4, CompletionKind::Flushed), async { Ok(()) });
        let mut told = Vec::new();
        queue.drain(&mut told, 9);
        let told: Vec<_> = told.iter().map(|c| (c.tag, c.error.as_ref().unwrap().kind())).collect();
        assert_eq!(told, [1, 2, 3, 4].map(|tag| (tag, ErrorKind::Closed)));
    }

    /// Work whose result nobody will hear of is ended, and nothing of it is kept.
    #[test]
    fn a_close_ends_the_work_as_well() {
        let env = Environment::builder().build();
        let operations = Arc::new(Operations::default());
        let (working, ended) = std::sync::mpsc::channel::<()>();
        let (reply, waiter) = Reply::waiter();
        operations.start(&env, reply, async move {
            let _working = working;
            std::future::pending().await
        });
        operations.close();
        assert_eq!(waiter.wait("the work", None).unwrap_err().kind(), ErrorKind::Closed);
        let end = ended.recv_timeout(std::time::Duration::from_secs(20));
        assert_eq!(end, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }

    /// Nobody else would tell whoever waits.
    #[test]
    fn work_that_goes_with_its_runtime_has_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let env = Environment::builder().runtime(runtime.handle().clone()).build();
        let operations = Arc::new(Operations::default());
        let (reply, waiter) = Reply::waiter();
        operations.start(&env, reply, std::future::pending());
        drop(runtime);
        let patience = std::time::Duration::from_secs(20);
        let error = waiter.wait("the work", Some(patience)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
}
