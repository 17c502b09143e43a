//! The queue of completions between the engine's thread and the host.
//!
//! The descriptor is readable exactly while the queue holds something: it is signalled on the edge
//! from empty to not empty and cleared when a drain takes the last one, both under the queue's
//! lock. So a push can not fall between "the drain saw nothing" and "the descriptor was cleared",
//! and many completions cost one system call.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::completion::{Completion, CompletionKind};
use crate::error::Error;
use crate::metrics::{Logs, loudly};
use crate::producer::Counted;
use crate::wake::Wake;

/// Completions that may wait to be drained before new submissions are refused. What is in flight
/// is bounded by the producer's buffer; this bounds what a host leaves lying about (about 5 MiB).
pub const MAX_UNDRAINED: usize = 1 << 16;

/// The completions of one client that wait to be drained.
pub struct CompletionQueue {
    state: Mutex<State>,
    filled: Condvar,
    wake: Wake,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Completion>,
    /// Producers that were refused because too much lies undrained, by tag: each hears of space
    /// once, when half of it is drained.
    want_space: Vec<u64>,
    /// Nothing will be pushed any more.
    ended: bool,
}

impl State {
    /// How many records failed that neither a drain nor a report told of, and the first error.
    fn untold(&self) -> Option<(u64, &Error)> {
        let untold = |c: &&Completion| {
            let told = c.unread.as_ref().is_some_and(Counted::is_told);
            c.kind == CompletionKind::Delivery && c.error.is_some() && !told
        };
        let first = self.queue.iter().find(untold)?.error.as_ref()?;
        Some((self.queue.iter().filter(untold).map(|c| u64::from(c.count)).sum(), first))
    }
}

impl CompletionQueue {
    /// An empty queue with its descriptor. Fails if the process has no descriptor left.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { state: Mutex::default(), filled: Condvar::new(), wake: Wake::new()? }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn push(&self, completion: Completion) {
        self.push_locked(&mut self.lock(), completion);
    }

    fn push_locked(&self, state: &mut State, completion: Completion) {
        state.queue.push_back(completion);
        if state.queue.len() == 1 {
            self.wake.signal();
            self.filled.notify_all();
        }
    }

    /// Nothing comes any more: waits return at once from now on.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.want_space.clear();
        drop(state);
        self.filled.notify_all();
    }

    /// Whether the client is closed and nothing is outstanding; what is in the queue can still be
    /// drained.
    pub fn ended(&self) -> bool {
        self.lock().ended
    }

    /// Whether a submission has to be refused because the host does not drain; the producer with
    /// this tag then gets a `Space` completion once it has.
    pub(crate) fn overfull(&self, tag: u64) -> bool {
        let mut state = self.lock();
        let full = state.queue.len() >= MAX_UNDRAINED;
        if full && !state.want_space.contains(&tag) {
            state.want_space.push(tag);
        }
        full
    }

    /// How many completions wait to be drained.
    pub fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Whether nothing waits to be drained.
    pub fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// Moves up to `max` completions, oldest first, to the end of `out`; returns how many. Never
    /// waits. The descriptor is not readable when it leaves nothing behind.
    pub fn drain(&self, out: &mut Vec<Completion>, max: usize) -> usize {
        self.drain_with(max, |c| out.push(c))
    }

    /// The same, each completion handed to `take`.
    pub fn drain_with(&self, max: usize, take: impl FnMut(Completion)) -> usize {
        let mut taken = self.take(max);
        let n = taken.len();
        // Without the lock: `take` may do anything.
        taken.iter_mut().for_each(Completion::looked_at);
        taken.into_iter().for_each(take);
        n
    }

    fn take(&self, max: usize) -> VecDeque<Completion> {
        let mut state = self.lock();
        let n = max.min(state.queue.len());
        if n == 0 {
            return VecDeque::new();
        }
        let rest = state.queue.split_off(n);
        let taken = std::mem::replace(&mut state.queue, rest);
        if state.queue.is_empty() {
            self.wake.clear();
        }
        if state.queue.len() < MAX_UNDRAINED / 2 {
            for tag in std::mem::take(&mut state.want_space) {
                let space = Completion::operation(tag, CompletionKind::Space, None);
                self.push_locked(&mut state, space);
            }
        }
        taken
    }

    /// Waits until something can be drained; `false` if `timeout` (`None`: no limit) or the end of
    /// the engine came first.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = self.lock();
        while state.queue.is_empty() && !state.ended {
            state = match deadline {
                None => self.filled.wait(state).unwrap_or_else(|e| e.into_inner()),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.filled.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
        !state.queue.is_empty()
    }

    /// The descriptor to poll for reading: level-triggered, readable while the queue holds
    /// something. The host may read it (8 bytes) but need not. It lives as long as the queue.
    #[cfg(unix)]
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.wake.fd()
    }
}

impl Drop for CompletionQueue {
    /// Warns of failures that nobody has drained.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|e| e.into_inner());
        let Some((records, first)) = state.untold() else { return };
        let none = Logs::none();
        loudly!(
            &none, "ottla::producer", records, first = %first.message(),
            "a client was freed with completions of failed records that nobody has drained"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::Unread;

    fn completion(tag: u64) -> Completion {
        Completion::operation(tag, CompletionKind::Flushed, None)
    }

    #[test]
    fn what_a_report_told_is_not_untold_when_it_is_never_drained() {
        let (q, unread) = (CompletionQueue::new().unwrap(), Unread::new(None));
        let fail = |count: u32| {
            let error = Error::closed("client");
            let counted = unread.failed(&Arc::from("t"), &error, count as usize, false);
            let kind = CompletionKind::Delivery;
            let failed = Completion::operation(1, kind, Some(error));
            q.push(Completion { count, unread: Some(counted), ..failed });
        };
        let untold = || q.lock().untold().map(|(records, _)| records);
        q.push(completion(7));
        assert_eq!(untold(), None);
        fail(2);
        fail(3);
        assert_eq!(untold(), Some(5));
        assert_eq!(unread.take().unwrap().records(), 5);
        assert_eq!(untold(), None, "told by the report");
        fail(4);
        assert_eq!(untold(), Some(4));
        q.drain(&mut Vec::new(), usize::MAX);
        assert_eq!(untold(), None);
        assert!(unread.take().is_none());
    }

    #[cfg(unix)]
    fn readable(queue: &CompletionQueue, timeout: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let fd = queue.fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap(),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        poll(&mut fds, Some(&timeout)).unwrap() == 1
    }

    #[cfg(unix)]
    #[test]
    fn readable_exactly_while_something_waits() {
        let q = CompletionQueue::new().unwrap();
        assert!(!readable(&q, Duration::ZERO));
        for tag in 0..3 {
            q.push(completion(tag));
            assert!(readable(&q, Duration::ZERO), "from the first on");
        }
        let mut out = Vec::new();
        assert_eq!(q.drain(&mut out, 2), 2);
        assert!(readable(&q, Duration::ZERO), "one is left");
        assert_eq!(q.drain(&mut out, 2), 1);
        assert!(!readable(&q, Duration::ZERO));
        assert_eq!(out.iter().map(|c| c.tag).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(q.drain(&mut out, 2), 0);
        assert!(!q.wait(Some(Duration::ZERO)));
    }

    #[cfg(unix)]
    #[test]
    fn a_host_that_reads_the_descriptor_itself_loses_nothing() {
        let q = CompletionQueue::new().unwrap();
        q.push(completion(1));
        let mut bytes = [0; 8];
        rustix::io::read(q.fd(), &mut bytes).unwrap();
        q.push(completion(2));
        let mut out = Vec::new();
        assert_eq!(q.drain(&mut out, 10), 2);
        q.push(completion(3));
        assert!(readable(&q, Duration::ZERO));
    }

    /// Two threads push, one sleeps in poll(2) and drains small pieces: every completion arrives,
    /// in the order of its thread, and no wake-up is lost (the poll would run into its deadline).
    #[cfg(unix)]
    #[test]
    fn no_wake_up_is_lost() {
        const EACH: u64 = 20_000;
        let q = CompletionQueue::new().unwrap();
        let mut seen = [0u64; 2];
        std::thread::scope(|scope| {
            for side in 0..2u64 {
                let q = &q;
                scope.spawn(move || {
                    for i in 0..EACH {
                        q.push(completion(side << 32 | i));
                        if i % 7 == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut out = Vec::new();
            while seen != [EACH; 2] {
                assert!(
                    readable(&q, Duration::from_secs(60)),
                    "nothing for a minute after {seen:?}; {} in the queue",
                    q.len()
                );
                out.clear();
                q.drain(&mut out, 3);
                for c in &out {
                    let side = (c.tag >> 32) as usize;
                    assert_eq!(c.tag & 0xffff_ffff, seen[side]);
                    seen[side] += 1;
                }
            }
        });
        assert!(q.is_empty());
    }

    #[test]
    fn who_was_refused_hears_of_space_once() {
        let q = CompletionQueue::new().unwrap();
        for tag in 0..MAX_UNDRAINED as u64 {
            assert!(!q.overfull(7));
            q.push(completion(tag));
        }
        assert!(q.overfull(7) && q.overfull(7) && q.overfull(8));
        let mut out = Vec::new();
        q.drain(&mut out, MAX_UNDRAINED / 2);
        assert_eq!(q.len(), MAX_UNDRAINED / 2, "not yet half empty");
        q.drain(&mut out, 1);
        assert_eq!(q.len(), MAX_UNDRAINED / 2 + 1, "told behind what is left of half");
        q.drain(&mut out, MAX_UNDRAINED / 2 - 1);
        out.clear();
        assert_eq!(q.drain(&mut out, 10), 2);
        let told: Vec<_> = out.iter().map(|c| (c.kind, c.tag)).collect();
        assert_eq!(told, [(CompletionKind::Space, 7), (CompletionKind::Space, 8)]);
        assert!(q.is_empty() && !q.overfull(7));
    }

    #[test]
    fn wait_ends_with_a_push() {
        let q = CompletionQueue::new().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| q.push(completion(9)));
            assert!(q.wait(Some(Duration::from_secs(60))), "the push was not seen");
        });
        assert_eq!(q.len(), 1);
    }
}
