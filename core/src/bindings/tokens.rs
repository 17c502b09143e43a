//! Token providers of other languages. Foreign code runs neither on the engine's thread nor under a lock of this library:
//! a provider asks by a request in a queue, which a thread of the host takes out and answers.
//!
//! ```text
//! engine ── token() ──> TokenRequests ── next() ──> a thread of the host
//!    ^                                                      │
//!    └───────────────── TokenRequest::answer ───────────────┘
//! ```
//!
//! A host that hangs has one request in hand and gets no second one of the same provider, whatever the engine thinks of
//! it meanwhile. One that drops a request has answered it: with an error.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::environment::BoxFuture;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::Origin;
use crate::security::{Token, TokenError, TokenProvider};
use crate::wake::Wake;

/// What providers want, for a thread of the host that takes it out.
pub struct TokenRequests {
    shared: Arc<Shared>,
    origin: Origin,
}

struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    wake: Wake,
}

#[derive(Default)]
struct State {
    wanted: VecDeque<Wanted>,
    closed: bool,
}

/// What a host finds in the queue.
#[derive(Debug)]
pub enum Wanted {
    /// A token.
    Token(TokenRequest),
    /// The provider of this tag is asked no more: nobody uses it.
    Released(u64),
}

/// A provider is to give a token. Dropped without an answer, it has failed.
pub struct TokenRequest {
    tag: u64,
    answer: Option<oneshot::Sender<Answer>>,
}

type Answer = Result<Token, String>;

/// The words of a host's provider that gave none.
#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

const CLOSED: &str = "the host takes out no more requests for tokens";
const UNANSWERED: &str = "the host gave no answer: it raised, panicked or returned without one";
const BUSY: &str = "the host is still at work on the request before";

impl TokenRequests {
    /// An empty queue with its descriptor.
    ///
    /// # Errors
    /// `OutOfResources` if the process has no descriptor left.
    pub fn open() -> Result<Self> {
        let wake = Wake::new().map_err(|e| {
            let words = format!("no descriptor to wake the host with: {e}");
            Error::new(ErrorKind::OutOfResources, words)
        })?;
        let shared = Arc::new(Shared { state: Mutex::default(), filled: Condvar::new(), wake });
        Ok(Self { shared, origin: Origin::here() })
    }

    /// A provider whose requests come here, with this tag. Clients that are made with the same one share their connections.
    pub fn provider(&self, tag: u64) -> HostProvider {
        HostProvider { queue: Arc::downgrade(&self.shared), tag, in_hand: Mutex::default() }
    }

    /// What came first, and whether there is any; waits up to `timeout` for it (`None`: as long as it takes).
    ///
    /// # Errors
    /// `Closed` after [`Self::close`]; `Forked` in a child of the process that opened it.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Wanted>> {
        if !self.origin.is_here() {
            return Err(crate::fork::forked());
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.shared.lock();
        loop {
            if let Some(wanted) = state.wanted.pop_front() {
                if state.wanted.is_empty() && !state.closed {
                    self.shared.wake.clear();
                }
                return Ok(Some(wanted));
            }
            if state.closed {
                return Err(Error::closed("queue of token requests"));
            }
            state = match deadline {
                None => self.shared.filled.wait(state).unwrap_or_else(|e| e.into_inner()),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let filled = self.shared.filled.wait_timeout(state, left);
                    filled.unwrap_or_else(|e| e.into_inner()).0
                }
            };
        }
    }

    /// Whoever waits in [`Self::next`] comes back, and providers fail from now on. What lies here has failed.
    pub fn close(&self) {
        if !self.origin.is_here() {
            return;
        }
        let wanted = {
            let mut state = self.shared.lock();
            state.closed = true;
            std::mem::take(&mut state.wanted)
        };
        self.shared.wake.signal();
        self.shared.filled.notify_all();
        drop(wanted);
    }

    /// The descriptor to poll for reading: readable while something waits, and once it is closed.
    #[cfg(unix)]
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.shared.wake.fd()
    }
}

impl Drop for TokenRequests {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for TokenRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenRequests")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Gives it back if nobody takes it out any more.
    fn push(&self, wanted: Wanted) -> Option<Wanted> {
        let mut state = self.lock();
        if state.closed {
            return Some(wanted);
        }
        state.wanted.push_back(wanted);
        if state.wanted.len() == 1 {
            self.wake.signal();
            self.filled.notify_all();
        }
        None
    }
}

impl TokenRequest {
    /// The provider's.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Ends it: with a token, or with words for people on why there is none, which must not tell secrets.
    pub fn answer(mut self, answer: std::result::Result<Token, String>) {
        if let Some(tx) = self.answer.take() {
            // Nobody waits any more, if that took too long.
            let _ = tx.send(answer);
        }
    }

    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        self.answer.as_ref().is_some_and(|tx| !tx.is_closed())
    }
}

impl Drop for TokenRequest {
    fn drop(&mut self) {
        if let Some(tx) = self.answer.take() {
            let _ = tx.send(Err(UNANSWERED.to_owned()));
        }
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest").field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// A provider whose code is the host's.
pub struct HostProvider {
    queue: Weak<Shared>,
    tag: u64,
    /// The request that the host has in hand, or is about to take.
    in_hand: Mutex<Option<oneshot::Receiver<Answer>>>,
}

impl TokenProvider for HostProvider {
    fn token(&self) -> BoxFuture<'_, std::result::Result<Token, TokenError>> {
        Box::pin(async move {
            let failed = |words: &str| TokenError::from(Failed(words.to_owned()));
            let queue = self.queue.upgrade().ok_or_else(|| failed(CLOSED))?;
            if self.is_at_work() {
                return Err(failed(BUSY));
            }
            let (tx, rx) = oneshot::channel();
            let request = TokenRequest { tag: self.tag, answer: Some(tx) };
            let mut waiting = Waiting { provider: self, rx: Some(rx) };
            if let Some(Wanted::Token(mut request)) = queue.push(Wanted::Token(request)) {
                request.answer = None;
                return Err(failed(CLOSED));
            }
            drop(queue);
            let Some(rx) = &mut waiting.rx else { return Err(failed(CLOSED)) };
            let answer = rx.await.unwrap_or_else(|_| Err(UNANSWERED.to_owned()));
            waiting.rx = None;
            answer.map_err(|words| failed(&words))
        })
    }
}

impl HostProvider {
    fn in_hand(&self) -> MutexGuard<'_, Option<oneshot::Receiver<Answer>>> {
        self.in_hand.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether the host has not answered what nobody waits for any more. A late answer is of no use: it is old.
    fn is_at_work(&self) -> bool {
        let mut in_hand = self.in_hand();
        let at_work = in_hand
            .as_mut()
            .is_some_and(|rx| matches!(rx.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        if !at_work {
            *in_hand = None;
        }
        at_work
    }
}

/// Leaves the request with the provider if its caller gives up.
struct Waiting<'a> {
    provider: &'a HostProvider,
    rx: Option<oneshot::Receiver<Answer>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(rx) = self.rx.take() {
            *self.provider.in_hand() = Some(rx);
        }
    }
}

impl Drop for HostProvider {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.upgrade() {
            let _ = queue.push(Wanted::Released(self.tag));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
    }

    fn take(requests: &TokenRequests) -> TokenRequest {
        match requests.next(Some(Duration::from_secs(60))).unwrap() {
            Some(Wanted::Token(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_host_is_asked_and_its_answer_is_the_token() {
        let (runtime, requests) = (runtime(), TokenRequests::open().unwrap());
        let provider = Arc::new(requests.provider(7));
        for answer in [Ok("t"), Err("the vault is sealed")] {
            let asking = Arc::clone(&provider);
            let asked = runtime.spawn(async move { asking.token().await.map(drop) });
            let request = take(&requests);
            assert_eq!(request.tag(), 7);
            assert!(request.is_wanted());
            request.answer(answer.map(Token::new).map_err(str::to_owned));
            let told = runtime.block_on(asked).unwrap().map_err(|e| e.to_string());
            assert_eq!(told, answer.map(drop).map_err(str::to_owned));
        }
        drop(provider);
        let released = requests.next(Some(Duration::ZERO)).unwrap();
        assert!(matches!(released, Some(Wanted::Released(7))), "{released:?}");
        assert!(requests.next(Some(Duration::ZERO)).unwrap().is_none());
    }

    /// A panic, an exception, a thread that ended.
    #[test]
    fn a_request_that_is_dropped_has_failed() {
        let (runtime, requests) = (runtime(), TokenRequests::open().unwrap());
        let provider = Arc::new(requests.provider(1));
        let asking = Arc::clone(&provider);
        let asked = runtime.spawn(async move { asking.token().await.map(drop) });
        drop(take(&requests));
        let told = runtime.block_on(asked).unwrap().unwrap_err().to_string();
        assert_eq!(told, UNANSWERED);
    }

    #[test]
    fn a_host_that_hangs_has_one_request_in_hand() {
        let (runtime, requests) = (runtime(), TokenRequests::open().unwrap());
        let provider = Arc::new(requests.provider(1));
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = |patience: Duration| {
            let (provider, asked) = (Arc::clone(&provider), Arc::clone(&asked));
            runtime.block_on(async move {
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = tokio::time::timeout(patience, provider.token()).await;
                answer.map(|answer| answer.map(drop).map_err(|e| e.to_string())).ok()
            })
        };
        assert_eq!(ask(Duration::ZERO), None, "it gives up");
        let request = take(&requests);
        assert!(!request.is_wanted() || asked.load(Ordering::SeqCst) == 1);
        assert_eq!(ask(Duration::from_secs(60)), Some(Err(BUSY.to_owned())));
        assert!(requests.next(Some(Duration::ZERO)).unwrap().is_none(), "no second one");
        request.answer(Ok(Token::new("late")));
        assert_eq!(ask(Duration::ZERO), None, "it is asked anew");
        take(&requests);
    }

    #[test]
    fn a_queue_that_is_closed_fails_whoever_asks_and_wakes_whoever_waits() {
        let (runtime, requests) = (runtime(), TokenRequests::open().unwrap());
        let provider = Arc::new(requests.provider(1));
        let asking = Arc::clone(&provider);
        let asked = runtime.spawn(async move { asking.token().await.map(drop) });
        let request = take(&requests);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| requests.next(None).map(drop));
            requests.close();
            assert_eq!(waits.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        });
        // What the host has in hand it may still answer.
        request.answer(Ok(Token::new("t")));
        runtime.block_on(asked).unwrap().unwrap();
        let told = |provider: &HostProvider| {
            runtime.block_on(async { provider.token().await.map(drop).unwrap_err().to_string() })
        };
        assert_eq!(told(&provider), CLOSED);
        drop(requests);
        assert_eq!(told(&provider), CLOSED);
    }
}
