//! How a consumer that had nothing says that it has something: through the queue for a host that
//! polls, through a condition variable for a thread that waits.

use std::sync::{Arc, Condvar, Mutex};
use std::task::{Wake, Waker};
use std::time::Instant;

use super::completion::{Completion, CompletionKind};
use super::queue::CompletionQueue;
use crate::error::Result;

pub(crate) struct Ready {
    queue: Arc<CompletionQueue>,
    tag: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The host asked through the queue and was not yet answered. At most one `ConsumerReady` per
    /// ask: the queue does not fill up with them.
    asked: bool,
    /// Counts wakes; a waiting thread compares it with what it saw before it looked.
    wakes: u64,
}

impl Ready {
    pub(crate) fn new(queue: &Arc<CompletionQueue>, tag: u64) -> Arc<Self> {
        Arc::new(Self {
            queue: queue.clone(),
            tag,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Looks whether there is something, and asks for a completion if there is not. One look at a
    /// time.
    ///
    /// Asked *before* looking: what comes after is then not missed. A look that found something
    /// takes back what it asked for itself, and leaves the ask of another who found nothing: the
    /// batch that was found may be the one whose arrival is about to be told to that other.
    pub(crate) fn asking<T>(&self, look: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
        let by_another = std::mem::replace(&mut self.lock().asked, true);
        let found = look();
        if !by_another && !matches!(found, Ok(None)) {
            self.lock().asked = false;
        }
        found
    }

    /// What [`Ready::wait`] compares with; to be read before looking.
    pub(crate) fn seen(&self) -> u64 {
        self.lock().wakes
    }

    /// Waits for a wake after `seen`; `false` if the deadline came first.
    pub(crate) fn wait(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        while state.wakes == seen {
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(|e| e.into_inner()),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
        true
    }

    pub(crate) fn fire(&self) {
        let mut state = self.lock();
        state.wakes += 1;
        let asked = std::mem::take(&mut state.asked);
        drop(state);
        self.changed.notify_all();
        if asked {
            let kind = CompletionKind::ConsumerReady;
            self.queue.push(Completion::operation(self.tag, kind, None));
        }
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        self.clone().into()
    }
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.fire();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.fire();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(queue: &CompletionQueue) -> Vec<(u64, CompletionKind)> {
        let mut told = Vec::new();
        queue.drain(&mut told, 99);
        told.iter().map(|c| (c.tag, c.kind)).collect()
    }

    /// Two threads ask one consumer. The first finds nothing and relies on its completion; the second
    /// finds the batch before its arrival was told.
    #[test]
    fn who_finds_something_leaves_the_ask_of_another() {
        let queue = CompletionQueue::new().unwrap();
        let ready = Ready::new(&queue, 7);
        assert_eq!(ready.asking::<()>(|| Ok(None)).unwrap(), None);
        assert_eq!(ready.asking(|| Ok(Some(1))).unwrap(), Some(1));
        ready.fire();
        assert_eq!(drained(&queue), [(7, CompletionKind::ConsumerReady)]);
        // Nobody is left who found nothing.
        assert_eq!(ready.asking(|| Ok(Some(2))).unwrap(), Some(2));
        ready.fire();
        assert_eq!(drained(&queue), []);
    }
}
