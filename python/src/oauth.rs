//! OAUTHBEARER as settings: where tokens come from. Of a program's own functions only the numbers are known to the engine
//! (see `ottla/_tokens.py`); they themselves are kept where the interpreter's collector sees it, here and by handles ([`Asked`]).

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, UNIX_EPOCH};

use ottla::Secret;
use ottla::bindings::{CredentialsOptions, TokenSource, forks};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDateTime, PyDict, PyFloat, PyString, PyTuple, PyTzInfoAccess};

use crate::convert::{self, Given};
use crate::errors::{self, OrRaise};
use crate::security::{pem, secret};
use crate::tokens::TokenQueue;

/// A token to log in with by OAUTHBEARER; what a token provider gives.
///
/// token is a str or bytes, and is shown nowhere. It ends in expires_in (seconds or a timedelta), or at expires_at (seconds
/// since 1970, or a datetime with a timezone); without these as it says itself, if it is a JWT, else never.
/// extensions: SASL extensions that brokers are to have with it (KIP-342), {"logicalCluster": "lkc-1"}.
#[pyclass(module = "ottla", frozen, name = "Token")]
pub(crate) struct Token {
    inner: ottla::Token,
}

#[pymethods]
impl Token {
    #[new]
    #[pyo3(signature = (token, *, expires_in=None, expires_at=None, extensions=None))]
    fn new(
        py: Python<'_>,
        token: &Bound<'_, PyAny>,
        expires_in: Option<&Bound<'_, PyAny>>,
        expires_at: Option<&Bound<'_, PyAny>>,
        extensions: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut inner = ottla::Token::new(secret("token", token)?);
        inner = match (expires_in, expires_at) {
            (None, None) => inner,
            (Some(time), None) => {
                inner.expires_in(convert::duration(Given::Argument, "expires_in", time)?)
            }
            (None, Some(at)) => expiring(inner, "expires_at", at)?,
            (Some(_), Some(_)) => {
                return Err(errors::argument(py, "a token has expires_in or expires_at, not both"));
            }
        };
        for (name, value) in pairs("extensions", extensions)? {
            inner = inner.extension(name, value);
        }
        Ok(Self { inner })
    }

    fn __repr__(&self) -> &'static str {
        "ottla.Token(***)"
    }
}

/// A time in seconds since 1970 that is larger than this is one in ms: it would be in the year 5138.
const MOST_SECONDS: f64 = 1e11;

fn expiring(token: ottla::Token, what: &str, at: &Bound<'_, PyAny>) -> PyResult<ottla::Token> {
    let py = at.py();
    let seconds = if let Ok(at) = at.cast::<PyDateTime>() {
        if at.get_tzinfo().is_none() {
            let words = format!("{what} has no timezone: datetime.now(timezone.utc) has one");
            return Err(errors::argument(py, &words));
        }
        at.call_method0("timestamp")?.extract::<f64>()?
    } else if at.is_instance_of::<PyFloat>() || convert::is_integer(at) {
        at.extract::<f64>()?
    } else {
        return Err(PyTypeError::new_err(format!(
            "{what} must be seconds since 1970 or a datetime, not {}",
            convert::type_name(at)
        )));
    };
    if !seconds.is_finite() || seconds > MOST_SECONDS {
        let words = format!("{what} is {seconds}: it is in seconds since 1970, not in ms");
        return Err(errors::argument(py, &words));
    }
    let since = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    Ok(token.expires_at(UNIX_EPOCH + since))
}

/// What a token provider may give.
pub(crate) fn given(value: &Bound<'_, PyAny>) -> PyResult<ottla::Token> {
    let bare = |value: &Bound<'_, PyAny>| -> PyResult<ottla::Token> {
        if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() {
            return secret("the token", value).map(ottla::Token::new);
        }
        Err(PyTypeError::new_err(format!(
            "a token is a str, (str, seconds since 1970) or an ottla.Token, not {}",
            convert::type_name(value)
        )))
    };
    if let Ok(token) = value.cast::<Token>() {
        return Ok(token.get().inner.clone());
    }
    match value.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2) {
        Some(pair) => expiring(bare(&pair.get_item(0)?)?, "the token's end", &pair.get_item(1)?),
        None => bare(value),
    }
}

/// Texts by name, none of which are repeated by errors.
fn pairs(what: &str, given: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<(String, String)>> {
    let Some(given) = given else { return Ok(Vec::new()) };
    let py = given.py();
    let wrong = || {
        PyTypeError::new_err(format!(
            "{what} must be a dict of str, not {}",
            convert::type_name(given)
        ))
    };
    // A copy, which nobody changes meanwhile.
    let given = py.get_type::<PyDict>().call1((given,)).map_err(|_| wrong())?;
    let given = given.cast_into::<PyDict>()?;
    let text = |value: &Bound<'_, PyAny>| match value.cast::<PyString>() {
        Ok(text) => text.to_str().map(str::to_owned).map_err(|_| {
            PyTypeError::new_err(format!("{what} have surrogates: they can not be encoded"))
        }),
        Err(_) => Err(PyTypeError::new_err(format!(
            "names and values of {what} must be str, not {}",
            convert::type_name(value)
        ))),
    };
    given.iter().map(|(name, value)| Ok((text(&name)?, text(&value)?))).collect()
}

/// The same, of values that are secrets.
fn secrets(what: &str, given: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<(String, Secret)>> {
    let pairs = pairs(what, given)?;
    Ok(pairs.into_iter().map(|(name, value)| (name, Secret::from(value))).collect())
}

/// Gets tokens for the client's own id and secret from a token endpoint, as the grant client_credentials of RFC 6749 has it.
///
/// The secret is a str or bytes and shown nowhere, or in a file (client_secret_file, read for each token). scope: what
/// tokens are to be good for. params: more fields of the request, {"audience": "kafka"}. secret_in_body: id and secret
/// are sent in the body, not in the header Authorization; encoded_header: percent-encoded there, as RFC 6749 has it. ca: the
/// CAs that are trusted at the endpoint, a path or PEM text; default those of the system. What is set for brokers does not
/// count there. There is no proxy, and redirects are refused.
#[pyclass(module = "ottla", frozen, name = "ClientCredentials")]
pub(crate) struct ClientCredentials {
    options: CredentialsOptions,
}

#[pymethods]
impl ClientCredentials {
    #[new]
    #[pyo3(signature = (
        url, client_id, client_secret=None, *, client_secret_file=None, scope=None, params=None,
        secret_in_body=false, encoded_header=false, ca=None
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords")]
    fn new(
        py: Python<'_>,
        url: &Bound<'_, PyAny>,
        client_id: &Bound<'_, PyAny>,
        client_secret: Option<&Bound<'_, PyAny>>,
        client_secret_file: Option<&Bound<'_, PyAny>>,
        scope: Option<&Bound<'_, PyAny>>,
        params: Option<&Bound<'_, PyAny>>,
        secret_in_body: bool,
        encoded_header: bool,
        ca: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let options = CredentialsOptions {
            url: Secret::from(convert::text("url", url)?),
            client_id: convert::text("client_id", client_id)?.to_owned(),
            client_secret: client_secret.map(|it| secret("client_secret", it)).transpose()?,
            client_secret_file: client_secret_file
                .map(|it| path("client_secret_file", it))
                .transpose()?,
            scope: scope.map(|it| convert::text("scope", it).map(str::to_owned)).transpose()?,
            params: secrets("params", params)?,
            secret_in_body,
            encoded_header,
            ca: pem("ca", ca)?,
        };
        TokenSource::Credentials(options.clone()).sasl(Vec::new()).or_raise(py).map(drop)?;
        Ok(Self { options })
    }

    /// The URL is not shown: it may have a secret in it.
    fn __repr__(&self) -> String {
        format!("ottla.ClientCredentials(.., {:?}, ***)", self.options.client_id)
    }
}

/// A path, which is not repeated: it may be the secret itself.
fn path(what: &str, value: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    value.extract::<PathBuf>().map_err(|_| {
        PyTypeError::new_err(format!("{what} must be a path, not {}", convert::type_name(value)))
    })
}

/// Logs in by OAUTHBEARER, with tokens from one of:
///
///   source   an ottla.ClientCredentials
///   token    a function that gives one: a str, (str, seconds since 1970), or an ottla.Token. It is called on a thread of its own, by
///            one caller at a time, again at 50 to 80 % of the token's life (at 10 to 80 % of that of the first one, and of
///            one that came after a failure), and has 10 s. With ottla.aio it may be an async def, which runs on the loop
///            and is cancelled when nobody waits for it any more. What it raises is told to who waits, as CredentialsError,
///            and must not tell secrets; it is called again after a while. Or a token that there is
///   file     the path of a file that has one, and that somebody keeps fresh: read again before a login, at most every 10 s
///
/// extensions: SASL extensions that brokers are to have with each token (KIP-342), {"logicalCluster": "lkc-1"}.
/// One token is used for all connections of all handles that are made with the same object. It and its handles keep the
/// function. Use it with TLS: without, who listens has the token.
#[pyclass(module = "ottla", frozen, name = "OAuth")]
pub(crate) struct OAuth {
    source: Source,
    extensions: Vec<(String, String)>,
    /// What handles are made with. Of one process: in the child of a fork it is made anew.
    made: Mutex<Option<Made>>,
}

enum Source {
    Native(TokenSource),
    /// A `_tokens.Provider`.
    Function {
        provider: Py<PyAny>,
        is_async: bool,
    },
}

/// What a handle keeps of a program's function, which is asked as long as anybody keeps it. Each object has one of its own, and has
/// the collector visit it: the function may be of an object that keeps the handle.
#[derive(Default)]
pub(crate) struct Asked(Option<Py<PyAny>>);

impl Asked {
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }

    pub(crate) fn again(&self, py: Python<'_>) -> Self {
        Self(self.0.as_ref().map(|provider| provider.clone_ref(py)))
    }
}

/// How often a thread looks whether another one is done with a few instructions.
const PATIENCE: u32 = 10_000;

/// Forks that lie behind it, the login, and the number of the function.
#[derive(Clone)]
struct Made {
    generation: u32,
    sasl: ottla::Sasl,
    tag: Option<u64>,
}

#[pymethods]
impl OAuth {
    #[new]
    #[pyo3(signature = (source=None, *, token=None, file=None, extensions=None))]
    fn new(
        py: Python<'_>,
        source: Option<&Bound<'_, PyAny>>,
        token: Option<&Bound<'_, PyAny>>,
        file: Option<&Bound<'_, PyAny>>,
        extensions: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let source = match (source, token, file) {
            (Some(source), None, None) => {
                let credentials = source.cast::<ClientCredentials>().map_err(|_| {
                    PyTypeError::new_err(format!(
                        "source must be an ottla.ClientCredentials, not {}",
                        convert::type_name(source)
                    ))
                })?;
                Source::Native(TokenSource::Credentials(credentials.get().options.clone()))
            }
            (None, Some(function), None) if function.is_callable() => {
                let provider = py.import("ottla._tokens")?.call_method1("Provider", (function,))?;
                let is_async = provider.getattr("is_async")?.extract()?;
                Source::Function { provider: provider.unbind(), is_async }
            }
            (None, Some(token), None) => Source::Native(TokenSource::Fixed(given(token)?)),
            (None, None, Some(file)) => Source::Native(TokenSource::File(path("file", file)?)),
            _ => {
                return Err(PyTypeError::new_err(
                    "OAuth takes one of source (an ottla.ClientCredentials), token and file",
                ));
            }
        };
        let extensions = pairs("extensions", extensions)?;
        let checked = match &source {
            Source::Native(source) => source.clone(),
            // Known once it is asked.
            Source::Function { .. } => TokenSource::Fixed(ottla::Token::new(Secret::from("t"))),
        };
        checked.sasl(extensions.clone()).or_raise(py).map(drop)?;
        Ok(Self { source, extensions, made: Mutex::new(None) })
    }

    fn __repr__(&self) -> String {
        match &self.source {
            Source::Native(TokenSource::Credentials(options)) => {
                format!("ottla.OAuth(ottla.ClientCredentials(.., {:?}, ***))", options.client_id)
            }
            Source::Native(TokenSource::File(path)) => {
                format!("ottla.OAuth(file={:?})", ottla::Pem::file(path))
            }
            Source::Native(_) => "ottla.OAuth(token=***)".to_owned(),
            Source::Function { .. } => "ottla.OAuth(token=<function>)".to_owned(),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.source {
            Source::Function { provider, .. } => visit.call(provider),
            Source::Native(_) => Ok(()),
        }
    }
}

impl OAuth {
    /// Whether only a loop can run its function.
    pub(crate) fn is_async(&self) -> bool {
        matches!(self.source, Source::Function { is_async: true, .. })
    }

    /// What a handle is made with, the same for all of this process; and what it keeps.
    pub(crate) fn sasl(&self, py: Python<'_>) -> PyResult<(ottla::Sasl, Asked)> {
        let made = match self.known() {
            Some(made) => made,
            None => self.keep(self.make(py)?),
        };
        let Source::Function { provider, .. } = &self.source else {
            return Ok((made.sasl, Asked::default()));
        };
        if let Some(tag) = made.tag {
            py.import("ottla._tokens")?.call_method1("used", (tag,))?;
        }
        Ok((made.sasl, Asked(Some(provider.clone_ref(py)))))
    }

    fn known(&self) -> Option<Made> {
        self.made()?.clone().filter(|made| made.generation == forks())
    }

    /// It is held for a few instructions. In the child of a fork it may be held for ever, by a thread that there was then: who
    /// waits longer than for these does without, and has a login of its own.
    fn made(&self) -> Option<MutexGuard<'_, Option<Made>>> {
        for _ in 0..PATIENCE {
            match self.made.try_lock() {
                Ok(made) => return Some(made),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
        None
    }

    fn make(&self, py: Python<'_>) -> PyResult<Made> {
        let (source, tag) = match &self.source {
            Source::Native(source) => (source.clone(), None),
            Source::Function { provider, .. } => {
                let known = py.import("ottla._tokens")?.call_method1("enter", (provider,))?;
                let (queue, tag) = known.extract::<(Bound<'_, TokenQueue>, u64)>()?;
                (TokenSource::Host(queue.get().oauth(py, tag)?), Some(tag))
            }
        };
        let sasl = source.sasl(self.extensions.clone()).or_raise(py)?;
        Ok(Made { generation: forks(), sasl, tag })
    }

    /// Another thread may have made one meanwhile: then that is the one.
    fn keep(&self, new: Made) -> Made {
        let Some(mut made) = self.made() else { return new };
        if let Some(there) = made.as_ref().filter(|there| there.generation == new.generation) {
            return there.clone();
        }
        // That of a parent is the parent's.
        std::mem::forget(made.replace(new.clone()));
        new
    }
}

impl Drop for OAuth {
    fn drop(&mut self) {
        if let Ok(made) = self.made.get_mut()
            && made.as_ref().is_some_and(|made| made.generation != forks())
        {
            std::mem::forget(made.take());
        }
    }
}
