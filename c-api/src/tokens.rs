//! Tokens of OAUTHBEARER from a program's own code: it takes requests out of a queue and answers them, on a thread of its own.

use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use ottla::bindings::{
    TokenRequest, TokenRequests, WantedToken, argument_error, forked_error, forks, in_child,
};
use ottla::{OAuth, Result, Secret, Token};

use crate::boundary::{Out, boundary, free, lent, text, timeout};
use crate::error::ottla_error;
use crate::options::{Options, read};
use crate::properties::{ottla_property, pairs};
use crate::status::ottla_status;

/// What token providers want, for a thread that takes it out. A program needs one, for all of its providers.
pub struct ottla_token_requests {
    queue: TokenRequests,
}

/// Where a program's own tokens come from. Clients that have the same one share their connections.
pub struct ottla_token_provider {
    oauth: OAuth,
    forks: u32,
}

impl ottla_token_provider {
    /// For a client of the process that made it: in a child nobody would answer.
    pub(crate) fn oauth(&self) -> Result<OAuth> {
        if self.forks == forks() { Ok(self.oauth.clone()) } else { Err(forked_error()) }
    }
}

/// Something that a provider wants. Depends on no other handle.
pub struct ottla_token_request {
    kind: ottla_token_request_kind,
    tag: u64,
    id: u64,
    deadline: Option<Instant>,
    /// Until it is answered.
    request: Mutex<Option<TokenRequest>>,
}

/// What a token provider wants.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_token_request_kind {
    /// A token: `ottla_token_request_give` or `ottla_token_request_fail`.
    OTTLA_TOKEN_WANTED = 1,
    /// Nobody waits any more for the answer to the request of this id: it took too long, or who wanted it is gone. Work on
    /// it may end. The provider is asked again only once that request is answered or freed.
    OTTLA_TOKEN_GIVEN_UP = 2,
    /// The provider was freed, and nobody uses it any more: it asks no more.
    OTTLA_TOKEN_RELEASED = 3,
}

/// The parts of a request.
#[repr(C)]
pub struct ottla_token_request_info {
    /// The provider's.
    pub tag: u64,
    /// The number of the request, never 0; 0 for `OTTLA_TOKEN_RELEASED`.
    pub id: u64,
    /// How long it is waited for from now on, in ms; 0 if nobody waits any more.
    pub timeout_ms: i64,
    /// One of `ottla_token_request_kind`.
    pub kind: i32,
    /// 0.
    pub reserved: i32,
}

/// A token: start from `OTTLA_TOKEN_INIT`, then set `token`. The library has a copy of its own, which it overwrites
/// before it frees it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_token {
    /// Set by the macro.
    pub size: usize,
    /// The token itself, printable ASCII. It is shown nowhere.
    pub token: *const c_char,
    /// When it ends, in ms since 1970. Default 0: `expires_in_ms`, else as it says itself, if it is a JWT, else never.
    pub expires_at_ms: i64,
    /// In how many ms it ends from now on. Default 0: as `expires_at_ms` says.
    pub expires_in_ms: i64,
    /// SASL extensions that brokers are to have with it (KIP-342), `extension_count` of them.
    pub extensions: *const ottla_property,
    /// See `extensions`.
    pub extension_count: usize,
}

// SAFETY: repr(C), starts with a usize, numbers and raw pointers only.
unsafe impl Options for ottla_token {
    fn reserved(&self) -> i64 {
        0
    }
}

/// A time since 1970 that is less than this is one in seconds: in ms it would be in 1973.
const LEAST_MS: i64 = 100_000_000_000;

/// # Safety
/// `token` is null or as its `size` says, its strings null or valid.
pub(crate) unsafe fn token(token: *const ottla_token) -> Result<Option<Token>> {
    // SAFETY: promised by the caller.
    let Some(o) = (unsafe { read(token, "token") })? else { return Ok(None) };
    // SAFETY: promised by the caller.
    let (text, extensions) =
        unsafe { (text(o.token, "token")?, pairs(o.extensions, o.extension_count, "extensions")?) };
    let mut token = Token::new(Secret::from(text));
    match (o.expires_at_ms, o.expires_in_ms) {
        (0, 0) => {}
        (0, ms) if ms > 0 => token = token.expires_in(Duration::from_millis(ms as u64)),
        (0, _) => return Err(argument_error("expires_in_ms of token is negative")),
        (ms, 0) if ms >= LEAST_MS => {
            token = token.expires_at(UNIX_EPOCH + Duration::from_millis(ms as u64));
        }
        (_, 0) => {
            let words = "expires_at_ms of token is before 1974; it is in ms, not in seconds";
            return Err(argument_error(words));
        }
        _ => return Err(argument_error("token has expires_at_ms and expires_in_ms")),
    }
    for (name, value) in extensions {
        token = token.extension(name, value);
    }
    Ok(Some(token))
}

/// A queue for the requests of token providers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_requests_open(
    requests: *mut *mut ottla_token_requests,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(requests, "requests") }?;
        ottla_atfork::watch(in_child);
        out.give(ottla_token_requests { queue: TokenRequests::open()? });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Makes a provider for `ottla_oauth_options`. Its requests come to this queue with this tag, one at a time, and it is asked
/// only by clients. It may be freed as soon as these are made: they keep what they need of it, and once they are gone as well, an
/// `OTTLA_TOKEN_RELEASED` comes. Without the queue it fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_provider_new(
    requests: *const ottla_token_requests,
    tag: u64,
    provider: *mut *mut ottla_token_provider,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(provider, "provider") }?;
        // SAFETY: promised by the caller.
        let requests = unsafe { lent(requests, "requests") }?;
        requests.queue.check_process()?;
        out.give(ottla_token_provider { oauth: requests.queue.oauth(tag), forks: forks() });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Frees a provider. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_provider_free(provider: *mut ottla_token_provider) {
    // SAFETY: promised by the caller.
    unsafe { free(provider) }
}

/// What is wanted next. If there is nothing, waits up to `timeout_ms` for it: 0 does not wait, -1 waits for as long as it takes;
/// nothing until then is OK with a null `*request`. What comes is yours, freed with `ottla_token_request_free`. After
/// `ottla_token_requests_close` there are no more requests for tokens, but `OTTLA_TOKEN_RELEASED` comes still, for each provider whose end
/// was not told; in between, and after the last: `OTTLA_STATUS_CLOSED`, at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_requests_next(
    requests: *const ottla_token_requests,
    timeout_ms: i64,
    request: *mut *mut ottla_token_request,
    error: *mut *mut ottla_error,
) -> ottla_status {
    use ottla_token_request_kind::{
        OTTLA_TOKEN_GIVEN_UP, OTTLA_TOKEN_RELEASED, OTTLA_TOKEN_WANTED,
    };
    let call = || {
        // SAFETY: promised by the caller.
        let (requests, out) =
            unsafe { (lent(requests, "requests")?, Out::null(request, "request")?) };
        let Some(wanted) = requests.queue.next(timeout(timeout_ms))? else { return Ok(()) };
        let told = |kind, tag, id| ottla_token_request {
            kind,
            tag,
            id,
            deadline: None,
            request: Mutex::new(None),
        };
        out.give(match wanted {
            WantedToken::Token(request) => ottla_token_request {
                deadline: Some(request.deadline()),
                ..told(OTTLA_TOKEN_WANTED, request.tag(), request.id()).with(request)
            },
            WantedToken::GivenUp { tag, id } => told(OTTLA_TOKEN_GIVEN_UP, tag, id),
            WantedToken::Released(tag) => told(OTTLA_TOKEN_RELEASED, tag, 0),
        });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The descriptor to poll for reading: readable while something is wanted, and after `ottla_token_requests_close`. It belongs to
/// the queue and is closed with it. -1 where there is none, and for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_requests_fd(requests: *const ottla_token_requests) -> i32 {
    // SAFETY: promised by the caller.
    match unsafe { requests.as_ref() } {
        #[cfg(unix)]
        Some(requests) => std::os::fd::AsRawFd::as_raw_fd(&requests.queue.fd()),
        _ => -1,
    }
}

/// Takes no more requests: those that lie there have failed, and so do its providers from now on. Wakes the thread that waits for one.
/// `ottla_token_requests_next` still tells of providers that are released. Closing again is OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_requests_close(
    requests: *const ottla_token_requests,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        unsafe { lent(requests, "requests") }?.queue.close();
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Closes the queue, if it is not closed, and frees it: no thread may be waiting in it. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_requests_free(requests: *mut ottla_token_requests) {
    // SAFETY: promised by the caller.
    unsafe { free(requests) }
}

impl ottla_token_request {
    fn with(self, request: TokenRequest) -> Self {
        Self { request: Mutex::new(Some(request)), ..self }
    }

    /// What is to be answered, once.
    fn take(&self) -> Result<TokenRequest> {
        if self.kind != ottla_token_request_kind::OTTLA_TOKEN_WANTED {
            return Err(argument_error("the request is none for a token"));
        }
        let mut request = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        request.take().ok_or_else(|| argument_error("the request was answered before"))
    }

    fn is_wanted(&self) -> bool {
        let request = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        request.as_ref().is_some_and(TokenRequest::is_wanted)
    }
}

/// Fills `info` with the parts of a request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_request_describe(
    request: *const ottla_token_request,
    info: *mut ottla_token_request_info,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (request, out) = unsafe { (lent(request, "request")?, Out::new(info, "info")?) };
        let left = request.deadline.filter(|_| request.is_wanted()).map(|at| {
            let left = at.saturating_duration_since(Instant::now()).as_millis();
            i64::try_from(left).unwrap_or(i64::MAX).max(1)
        });
        out.set(ottla_token_request_info {
            tag: request.tag,
            id: request.id,
            timeout_ms: left.unwrap_or(0),
            kind: request.kind as i32,
            reserved: 0,
        });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Answers a request with a token. If nobody waits for it any more, it is of no use, and that is OK. A second answer is
/// `OTTLA_STATUS_INVALID_ARGUMENT`, as is a token that is not well formed as a struct; what brokers could not take is told to who
/// waits, as `OTTLA_STATUS_CREDENTIALS`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_request_give(
    request: *const ottla_token_request,
    given: *const ottla_token,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let request = unsafe { lent(request, "request") }?;
        // SAFETY: promised by the caller.
        let token = unsafe { token(given) }?.ok_or_else(|| argument_error("given is null"))?;
        request.take()?.answer(Ok(token));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Answers a request with words for people on why there is no token. They are told as they are, to 500 characters: they must not
/// tell secrets. The provider is asked again after a while.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_request_fail(
    request: *const ottla_token_request,
    words: *const c_char,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (request, words) = unsafe { (lent(request, "request")?, text(words, "words")?) };
        request.take()?.answer(Err(words.to_owned()));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Frees a request; one for a token that was not answered has failed. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_token_request_free(request: *mut ottla_token_request) {
    // SAFETY: promised by the caller.
    unsafe { free(request) }
}
