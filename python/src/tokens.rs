//! What the engine wants of token providers, for the thread that has a program's functions called (`ottla/_tokens.py`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ottla::bindings::{self, TokenRequests, WantedToken};
use pyo3::prelude::*;

use crate::ending;
use crate::errors::{self, OrRaise};
use crate::exclusive::lock;
use crate::fork::Here;
use crate::oauth;

/// A kind, as `_tokens.py` has them, the number of the provider, that of the request, and the request, if it is to be answered.
type Wanted = (u8, u64, u64, Option<Py<TokenRequest>>);

/// A queue of requests. Private to the package.
#[pyclass(module = "ottla._ottla", frozen)]
pub(crate) struct TokenQueue {
    inner: Here<TokenRequests>,
    closed: AtomicBool,
    /// Of the last provider.
    tag: AtomicU64,
}

#[pymethods]
impl TokenQueue {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let inner = Here::new(TokenRequests::open().or_raise(py)?);
        Ok(Self { inner, closed: AtomicBool::new(false), tag: AtomicU64::new(0) })
    }

    /// A number for another provider.
    fn tag(&self) -> u64 {
        self.tag.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What is wanted next; None if nothing is within timeout seconds, or if it is closed.
    fn next(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<Wanted>> {
        let queue = self.inner.get(py, "queue of token requests")?;
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
        let wanted = match ending::detach(py, || queue.next(Some(timeout))) {
            Ok(wanted) => wanted,
            Err(error) if error.kind() == ottla::ErrorKind::Closed => None,
            Err(error) => return Err(errors::raise(py, &error)),
        };
        Ok(match wanted {
            None => None,
            Some(WantedToken::Token(request)) => {
                let (tag, id) = (request.tag(), request.id());
                let request = TokenRequest { inner: Here::new(Mutex::new(Some(request))) };
                Some((1, tag, id, Some(Py::new(py, request)?)))
            }
            Some(WantedToken::GivenUp { tag, id }) => Some((2, tag, id, None)),
            Some(WantedToken::Released(tag)) => Some((3, tag, 0, None)),
        })
    }

    /// Takes no more requests and wakes who waits for one.
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(queue) = self.inner.get_here() {
            queue.close();
        }
    }

    fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl TokenQueue {
    /// Tokens of the provider of this number.
    pub(crate) fn oauth(&self, py: Python<'_>, tag: u64) -> PyResult<ottla::OAuth> {
        Ok(self.inner.get(py, "queue of token requests")?.oauth(tag))
    }
}

/// A token is wanted. Private to the package. Without an answer it has failed.
#[pyclass(module = "ottla._ottla", frozen)]
pub(crate) struct TokenRequest {
    inner: Here<Mutex<Option<bindings::TokenRequest>>>,
}

#[pymethods]
impl TokenRequest {
    /// Whether anybody waits for it still.
    fn wanted(&self) -> bool {
        let request = self.inner.get_here().map(lock);
        request.is_some_and(|it| it.as_ref().is_some_and(bindings::TokenRequest::is_wanted))
    }

    /// Answers it, if that was not done before; raises TypeError, or an error of the package, for what is no token.
    fn give(&self, token: &Bound<'_, PyAny>) -> PyResult<()> {
        let token = oauth::given(token)?;
        if let Some(request) = self.take() {
            request.answer(Ok(token));
        }
        Ok(())
    }

    /// Ends it with words, if that was not done before.
    fn fail(&self, words: String) {
        if let Some(request) = self.take() {
            request.answer(Err(words));
        }
    }
}

impl TokenRequest {
    fn take(&self) -> Option<bindings::TokenRequest> {
        self.inner.get_here().and_then(|request| lock(request).take())
    }
}
