//! TLS and SASL as settings: objects that are made once and given to any number of handles. None of them shows a
//! secret, and none can be pickled.

use std::path::PathBuf;

use ottla::bindings::{TlsOptions, sasl_named, verify_named};
use ottla::{Pem, Secret};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::convert;
use crate::errors::{self, OrRaise};
use crate::oauth::{Asked, OAuth};
use crate::settings::Settings;

/// Reaches brokers by TLS (1.2 or 1.3).
///
/// Certificates and keys are PEM, as the path of a file (str or PathLike) or as the text itself (a str with its
/// -----BEGIN line, or bytes). Files are read when a handle is made, and looked at again before a connection is
/// made, at most every 10 s: certificates can be renewed while a program runs.
///
///   ca           trusts the CAs in it instead of those that the system trusts
///   identity     (certificate, key) by which brokers know this client; they may be in one file: name it twice. The
///                key must not be encrypted
///   server_name  the name that certificates must have, at every broker; default the host that was dialled
///   verify       "full" (default): the certificate leads to a trusted CA and is for that name. "chain": for any
///                name. "none": nothing is checked, anybody on the way can read and change everything
#[pyclass(module = "ottla", frozen, name = "Tls")]
pub(crate) struct Tls {
    inner: ottla::Tls,
    /// What it shows.
    shown: String,
}

#[pymethods]
impl Tls {
    #[new]
    #[pyo3(signature = (*, ca=None, identity=None, server_name=None, verify=None))]
    fn new(
        py: Python<'_>,
        ca: Option<&Bound<'_, PyAny>>,
        identity: Option<&Bound<'_, PyAny>>,
        server_name: Option<&Bound<'_, PyAny>>,
        verify: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut options = TlsOptions { ca: pem("ca", ca)?, ..TlsOptions::default() };
        if let Some(identity) = identity {
            let pair = identity.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2);
            let pair = pair.ok_or_else(|| {
                PyTypeError::new_err(format!(
                    "identity must be a tuple, (certificate, key), not {}",
                    convert::type_name(identity)
                ))
            })?;
            options.certificate = pem("the certificate of identity", Some(&pair.get_item(0)?))?;
            options.key = pem("the key of identity", Some(&pair.get_item(1)?))?;
        }
        if let Some(name) = server_name {
            options.server_name = Some(convert::text("server_name", name)?.to_owned());
        }
        if let Some(word) = verify {
            let level = verify_named(convert::text("verify", word)?).ok_or_else(|| {
                errors::config(py, "verify is none of 'full', 'chain' and 'none'")
            })?;
            options.verify = Some(level);
        }
        let shown = shown(&options);
        Ok(Self { inner: options.tls().or_raise(py)?, shown })
    }

    fn __repr__(&self) -> &str {
        &self.shown
    }
}

fn shown(options: &TlsOptions) -> String {
    let mut parts = Vec::new();
    if let Some(ca) = &options.ca {
        parts.push(format!("ca={ca:?}"));
    }
    if let (Some(certificate), Some(key)) = (&options.certificate, &options.key) {
        parts.push(format!("identity=({certificate:?}, {key:?})"));
    }
    if let Some(name) = &options.server_name {
        parts.push(format!("server_name={name:?}"));
    }
    if let Some(level) = options.verify {
        parts.push(format!("verify=\"{}\"", format!("{level:?}").to_lowercase()));
    }
    format!("ottla.Tls({})", parts.join(", "))
}

/// A path or PEM text. What it is instead is told by its type: a key must not get into a traceback.
pub(crate) fn pem(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Pem>> {
    let Some(value) = value else { return Ok(None) };
    // A path that is not UTF-8 is a str as well.
    if let Ok(text) = value.cast::<PyString>()
        && let Ok(text) = text.to_str()
    {
        return Ok(Some(Pem::from(text)));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Some(Pem::text(bytes.as_bytes().to_vec())));
    }
    match value.extract::<PathBuf>() {
        Ok(path) => Ok(Some(Pem::file(path))),
        Err(_) => Err(PyTypeError::new_err(format!(
            "{name} must be a path or PEM text, not {}",
            convert::type_name(value)
        ))),
    }
}

/// A password: text, as its UTF-8 bytes, or bytes.
pub(crate) fn secret(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Secret> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Secret::from(bytes.as_bytes().to_vec()));
    }
    match value.cast::<PyString>() {
        // What has no UTF-8 is not repeated by the error that Python has for it.
        Ok(text) => text.to_str().map(Secret::from).map_err(|_| {
            PyTypeError::new_err(format!("{name} has surrogates: it can not be encoded"))
        }),
        Err(_) => Err(PyTypeError::new_err(format!(
            "{name} must be a str or bytes, not {}",
            convert::type_name(value)
        ))),
    }
}

/// Logs in by PLAIN: name and password as they are. Use it with TLS: without, who listens has the password.
///
/// The password is a str or bytes, and is shown nowhere.
#[pyclass(module = "ottla", frozen, name = "Plain")]
pub(crate) struct Plain {
    inner: ottla::Sasl,
    user: String,
}

#[pymethods]
impl Plain {
    #[new]
    #[pyo3(signature = (user, password))]
    fn new(py: Python<'_>, user: &Bound<'_, PyAny>, password: &Bound<'_, PyAny>) -> PyResult<Self> {
        let user = convert::text("user", user)?;
        let inner = sasl_named("PLAIN", user, secret("password", password)?, false).or_raise(py)?;
        Ok(Self { inner, user: user.to_owned() })
    }

    fn __repr__(&self) -> String {
        format!("ottla.Plain({:?}, ***)", self.user)
    }
}

/// Logs in by SCRAM: the password does not cross the network, and the broker has to show that it knows it.
///
/// hash is "SHA-256" or "SHA-512", as the broker has it. The password is a str or bytes, and is shown nowhere.
/// delegation_token: user and password are the id and the HMAC of a delegation token.
#[pyclass(module = "ottla", frozen, name = "Scram")]
pub(crate) struct Scram {
    inner: ottla::Sasl,
    hash: &'static str,
    user: String,
    delegation_token: bool,
}

#[pymethods]
impl Scram {
    #[new]
    #[pyo3(signature = (hash, user, password, *, delegation_token=false))]
    fn new(
        py: Python<'_>,
        hash: &Bound<'_, PyAny>,
        user: &Bound<'_, PyAny>,
        password: &Bound<'_, PyAny>,
        delegation_token: bool,
    ) -> PyResult<Self> {
        let (hash, mechanism) = match convert::text("hash", hash)? {
            "SHA-256" | "SCRAM-SHA-256" => ("SHA-256", "SCRAM-SHA-256"),
            "SHA-512" | "SCRAM-SHA-512" => ("SHA-512", "SCRAM-SHA-512"),
            // Not repeated: it may be a password in the wrong place.
            _ => return Err(errors::config(py, "hash is neither 'SHA-256' nor 'SHA-512'")),
        };
        let user = convert::text("user", user)?;
        let password = secret("password", password)?;
        let inner = sasl_named(mechanism, user, password, delegation_token).or_raise(py)?;
        Ok(Self { inner, hash, user: user.to_owned(), delegation_token })
    }

    fn __repr__(&self) -> String {
        let token = if self.delegation_token { ", delegation_token=True" } else { "" };
        format!("ottla.Scram(\"{}\", {:?}, ***{token})", self.hash, self.user)
    }
}

/// `tls`: an object of that class.
pub(crate) fn tls(settings: &mut Settings<'_>) -> PyResult<Option<ottla::Tls>> {
    let Some(value) = settings.take("tls")? else { return Ok(None) };
    match value.cast::<Tls>() {
        Ok(tls) => Ok(Some(tls.get().inner.clone())),
        Err(_) => Err(PyTypeError::new_err(format!(
            "tls must be an ottla.Tls, not {}",
            convert::type_name(&value)
        ))),
    }
}

/// What `sasl` is.
#[derive(Default)]
pub(crate) struct Login {
    pub(crate) sasl: Option<ottla::Sasl>,
    pub(crate) asked: Asked,
    /// Whether tokens come from an event loop.
    pub(crate) needs_loop: bool,
}

/// `sasl`: an object of one of the mechanisms' classes.
pub(crate) fn sasl(settings: &mut Settings<'_>) -> PyResult<Login> {
    let by = |sasl: &ottla::Sasl| Login { sasl: Some(sasl.clone()), ..Login::default() };
    let Some(value) = settings.take("sasl")? else { return Ok(Login::default()) };
    if let Ok(plain) = value.cast::<Plain>() {
        return Ok(by(&plain.get().inner));
    }
    if let Ok(oauth) = value.cast::<OAuth>() {
        let oauth = oauth.get();
        let (sasl, asked) = oauth.sasl(settings.py())?;
        return Ok(Login { sasl: Some(sasl), asked, needs_loop: oauth.is_async() });
    }
    match value.cast::<Scram>() {
        Ok(scram) => Ok(by(&scram.get().inner)),
        Err(_) => Err(PyTypeError::new_err(format!(
            "sasl must be an ottla.Plain, an ottla.Scram or an ottla.OAuth, not {}",
            convert::type_name(&value)
        ))),
    }
}
