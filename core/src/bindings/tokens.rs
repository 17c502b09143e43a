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
//! it meanwhile; it is told that nobody waits for that any more. One that drops a request has answered it: with an error.
//! So of a provider there are never more than a request, its end, and the provider's own in the queue.
//!
//! In the child of a fork nobody is asked and nothing is answered: queue, requests and whoever waits are the parent's.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::environment::BoxFuture;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::Origin;
use crate::security::{OAuth, PROVIDER_TIMEOUT, Token, TokenError, TokenProvider};
use crate::wake::Wake;

/// Characters of a host's words on why there is no token. They travel far, and may be a whole page.
const MAX_WORDS: usize = 500;

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
    /// Of the last request.
    id: u64,
    closed: bool,
}

/// What a host finds in the queue.
#[derive(Debug)]
pub enum Wanted {
    /// A token.
    Token(TokenRequest),
    /// Nobody waits any more for the answer of the request of this id, by the provider of this tag: it took too long, or
    /// who wanted it is gone. The provider is asked again only once it was answered or dropped.
    GivenUp {
        /// The provider's.
        tag: u64,
        /// The request's.
        id: u64,
    },
    /// The provider of this tag is asked no more: nobody uses it.
    Released(u64),
}

/// A provider is to give a token. Dropped without an answer, it has failed.
pub struct TokenRequest {
    tag: u64,
    id: u64,
    deadline: Instant,
    answer: Option<oneshot::Sender<Answer>>,
    /// Nobody waits any more.
    given_up: Arc<AtomicBool>,
    origin: Origin,
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
const UNANSWERED: &str =
    "the token provider gave no answer: it has to give a token or to fail, and did neither";
const BUSY: &str =
    "the token provider has not answered the request before: give what it waits for a time limit";
const FORKED: &str = "the provider is that of the process that this one is a fork of";

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

    /// Refuses a queue that was inherited through a fork.
    ///
    /// # Errors
    /// `Forked` in a child of the process that opened it.
    pub fn check_process(&self) -> Result<()> {
        if self.origin.is_here() { Ok(()) } else { Err(crate::fork::forked()) }
    }

    /// A provider whose requests come here, with this tag.
    pub fn provider(&self, tag: u64) -> HostProvider {
        HostProvider {
            queue: Arc::downgrade(&self.shared),
            tag,
            in_hand: Mutex::default(),
            origin: self.origin,
        }
    }

    /// Tokens of such a provider. Clones of it are the same provider: clients that have them share their connections, and
    /// the provider is released once all of them are gone, and all connections.
    pub fn oauth(&self, tag: u64) -> OAuth {
        OAuth::provider(self.provider(tag))
    }

    /// What came first, and whether there is any; waits up to `timeout` for it (`None`: as long as it takes).
    ///
    /// # Errors
    /// `Closed` after [`Self::close`], once nothing is left; `Forked` in a child of the process that opened it.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Wanted>> {
        self.check_process()?;
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

    /// Whoever waits in [`Self::next`] comes back, and providers fail from now on; requests that lie here have failed. What
    /// ends is told all the same, also later: a host keeps something for each provider until it hears of that.
    pub fn close(&self) {
        if !self.origin.is_here() {
            return;
        }
        let failed: VecDeque<_> = {
            let mut state = self.shared.lock();
            state.closed = true;
            let is_token = |wanted: &Wanted| matches!(wanted, Wanted::Token(_));
            let (failed, told) = std::mem::take(&mut state.wanted).into_iter().partition(is_token);
            state.wanted = told;
            failed
        };
        self.shared.wake.signal();
        self.shared.filled.notify_all();
        drop(failed);
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

    /// Puts a request in, and gives its id; gives the request back if nobody takes it out any more.
    fn ask(&self, mut request: TokenRequest) -> std::result::Result<u64, TokenRequest> {
        let mut state = self.lock();
        if state.closed {
            return Err(request);
        }
        state.id += 1;
        let id = state.id;
        request.id = id;
        self.put(&mut state, Wanted::Token(request));
        Ok(id)
    }

    /// Tells of what there is nothing to answer to.
    fn tell(&self, wanted: Wanted) {
        self.put(&mut self.lock(), wanted);
    }

    fn put(&self, state: &mut State, wanted: Wanted) {
        state.wanted.push_back(wanted);
        if state.wanted.len() == 1 {
            self.wake.signal();
            self.filled.notify_all();
        }
    }
}

impl TokenRequest {
    /// The provider's.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Its own number, in this queue.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Until when it is waited for.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Ends it: with a token, or with words for people on why there is none, which must not tell secrets.
    pub fn answer(mut self, answer: std::result::Result<Token, String>) {
        if let Some(tx) = self.sender() {
            // Nobody waits any more, if that took too long.
            let _ = tx.send(answer.map_err(|words| bounded(&words)));
        }
    }

    /// What it is answered by, where that is possible.
    fn sender(&mut self) -> Option<oneshot::Sender<Answer>> {
        let tx = self.answer.take()?;
        if self.origin.is_here() {
            return Some(tx);
        }
        // Whoever waits is in another process, and its locks are as they were at the fork.
        std::mem::forget(tx);
        None
    }

    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        let waits = self.answer.as_ref().is_some_and(|tx| !tx.is_closed());
        waits && !self.given_up.load(Ordering::Acquire)
    }
}

/// In one line, and not too long.
fn bounded(words: &str) -> String {
    let blank = |c: char| if c.is_control() { ' ' } else { c };
    words.chars().take(MAX_WORDS).map(blank).collect()
}

impl Drop for TokenRequest {
    fn drop(&mut self) {
        if let Some(tx) = self.sender() {
            let _ = tx.send(Err(UNANSWERED.to_owned()));
        }
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &mut f.debug_struct("TokenRequest");
        shown.field("tag", &self.tag).field("id", &self.id).finish_non_exhaustive()
    }
}

/// A provider whose code is the host's.
pub struct HostProvider {
    queue: Weak<Shared>,
    tag: u64,
    /// The request that the host has in hand, or is about to take.
    in_hand: Mutex<Option<oneshot::Receiver<Answer>>>,
    origin: Origin,
}

impl TokenProvider for HostProvider {
    fn token(&self) -> BoxFuture<'_, std::result::Result<Token, TokenError>> {
        Box::pin(async move {
            let failed = |words: &str| TokenError::from(Failed(words.to_owned()));
            if !self.origin.is_here() {
                return Err(failed(FORKED));
            }
            let queue = self.queue.upgrade().ok_or_else(|| failed(CLOSED))?;
            if self.is_at_work() {
                return Err(failed(BUSY));
            }
            let (tx, rx) = oneshot::channel();
            let deadline = Instant::now() + PROVIDER_TIMEOUT;
            let (tag, origin) = (self.tag, self.origin);
            let given_up = Arc::new(AtomicBool::new(false));
            let request = TokenRequest {
                tag,
                id: 0,
                deadline,
                answer: Some(tx),
                given_up: Arc::clone(&given_up),
                origin,
            };
            let Ok(id) = queue.ask(request) else { return Err(failed(CLOSED)) };
            drop(queue);
            let mut waiting = Waiting { provider: self, id, given_up, rx: Some(rx) };
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

/// Leaves the request with the provider if its caller gives up, and says so.
struct Waiting<'a> {
    provider: &'a HostProvider,
    id: u64,
    given_up: Arc<AtomicBool>,
    rx: Option<oneshot::Receiver<Answer>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(rx) = self.rx.take() else { return };
        self.given_up.store(true, Ordering::Release);
        *self.provider.in_hand() = Some(rx);
        if let Some(queue) = self.provider.queue.upgrade() {
            queue.tell(Wanted::GivenUp { tag: self.provider.tag, id: self.id });
        }
    }
}

impl Drop for HostProvider {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return;
        }
        if let Some(queue) = self.queue.upgrade() {
            queue.tell(Wanted::Released(self.tag));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

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
        assert!(!request.is_wanted(), "nobody waits for it any more");
        assert_eq!(ask(Duration::from_secs(60)), Some(Err(BUSY.to_owned())));
        let told = requests.next(Some(Duration::ZERO)).unwrap();
        let id = request.id();
        assert!(matches!(told, Some(Wanted::GivenUp { tag: 1, id: of }) if of == id), "{told:?}");
        assert!(requests.next(Some(Duration::ZERO)).unwrap().is_none(), "no second one");
        request.answer(Ok(Token::new("late")));
        assert_eq!(ask(Duration::ZERO), None, "it is asked anew");
        assert!(take(&requests).id() > id);
    }

    #[test]
    fn words_of_a_host_are_bounded_and_in_one_line() {
        let (runtime, requests) = (runtime(), TokenRequests::open().unwrap());
        let provider = Arc::new(requests.provider(1));
        let asking = Arc::clone(&provider);
        let asked = runtime.spawn(async move { asking.token().await.map(drop) });
        let request = take(&requests);
        assert!(request.deadline() > Instant::now(), "there is time for it");
        request.answer(Err(format!("the vault\nis\x1b {}", "ü".repeat(100_000))));
        let told = runtime.block_on(asked).unwrap().unwrap_err().to_string();
        assert!(told.starts_with("the vault is  ü"), "{told}");
        assert_eq!(told.chars().count(), MAX_WORDS);
    }

    /// As in the child of a fork, where the queue's lock may be held for ever.
    #[test]
    fn another_process_asks_nobody_answers_nothing_and_tells_of_no_end() {
        let (runtime, requests) = (runtime(), TokenRequests::open().unwrap());
        let elsewhere = Origin::elsewhere();
        let mut foreign = requests.provider(1);
        foreign.origin = elsewhere;
        let told = runtime.block_on(async { foreign.token().await.map(drop) }).unwrap_err();
        assert_eq!(told.to_string(), FORKED);
        drop(foreign);
        assert!(requests.next(Some(Duration::ZERO)).unwrap().is_none());

        let provider = Arc::new(requests.provider(2));
        for answers in [true, false] {
            let asking = Arc::clone(&provider);
            let asked = runtime.spawn(async move {
                tokio::time::timeout(Duration::from_millis(50), asking.token()).await.is_err()
            });
            let mut request = take(&requests);
            request.origin = elsewhere;
            if answers {
                request.answer(Ok(Token::new("t")));
            } else {
                drop(request);
            }
            assert!(runtime.block_on(asked).unwrap(), "it was answered");
            *provider.in_hand() = None;
            assert!(matches!(requests.next(None).unwrap(), Some(Wanted::GivenUp { .. })));
        }
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
        assert_eq!(requests.next(None).unwrap_err().kind(), ErrorKind::Closed);
        runtime.block_on(asked).unwrap().unwrap();
        let told = |provider: &HostProvider| {
            runtime.block_on(async { provider.token().await.map(drop).unwrap_err().to_string() })
        };
        assert_eq!(told(&provider), CLOSED);
        drop(requests);
        assert_eq!(told(&provider), CLOSED);
    }

    /// What a host keeps for a provider it would keep for ever.
    #[test]
    fn a_queue_that_is_closed_tells_of_ends_still() {
        let (runtime, requests) = (runtime(), TokenRequests::open().unwrap());
        let [before, after] = [1, 2].map(|tag| Arc::new(requests.provider(tag)));
        let asking = Arc::clone(&after);
        let asked = runtime.spawn(async move { asking.token().await.map(drop) });
        while requests.shared.lock().wanted.is_empty() {
            std::thread::yield_now();
        }
        drop(before);
        requests.close();
        let told = runtime.block_on(asked).unwrap().unwrap_err().to_string();
        assert_eq!(told, UNANSWERED);
        drop(after);
        for tag in [1, 2] {
            let told = requests.next(None).unwrap();
            assert!(matches!(told, Some(Wanted::Released(of)) if of == tag), "{told:?}");
        }
        assert_eq!(requests.next(None).unwrap_err().kind(), ErrorKind::Closed);
    }
}
