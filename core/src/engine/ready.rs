//! How a consumer that had nothing says that it has something: through the queue for a host that
//! polls, through a condition variable for a thread that waits.

use std::sync::{Arc, Condvar, Mutex};
use std::task::{Wake, Waker};
use std::time::Instant;

use super::completion::{Completion, CompletionKind};
use super::queue::CompletionQueue;

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

    /// To be called *before* looking whether there is something: what comes after is then not
    /// missed.
    pub(crate) fn ask(&self) {
        self.lock().asked = true;
    }

    /// The look found something: no completion is wanted.
    pub(crate) fn take_back(&self) {
        self.lock().asked = false;
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
