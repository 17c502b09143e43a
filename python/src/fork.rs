//! What a fork does to handles. The engine's thread does not exist in a child, and its locks may
//! be held there for ever: an inherited handle must say so at once, and its destructor must not
//! touch anything.

use ottla::bindings::{forks, in_child};
use pyo3::prelude::*;

use crate::errors;

/// Something of the engine, usable only in the process that made it. How many forks there were is
/// looked at on every call, so it is a number that the C library's fork hook raises and not a system
/// call; the engine itself looks at the process id where it waits.
pub(crate) struct Here<T> {
    inner: Option<T>,
    generation: u32,
}

impl<T> Here<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner: Some(inner), generation: forks() }
    }

    /// Something else, of the process that this is of.
    pub(crate) fn with<U>(&self, inner: U) -> Here<U> {
        Here { inner: Some(inner), generation: self.generation }
    }

    /// Whether this is still the process it was made in.
    pub(crate) fn is_here(&self) -> bool {
        self.generation == forks()
    }

    /// The thing itself; `what` names it in the error that a child gets.
    pub(crate) fn get(&self, py: Python<'_>, what: &str) -> PyResult<&T> {
        match &self.inner {
            Some(inner) if self.is_here() => Ok(inner),
            _ => Err(errors::forked(py, what)),
        }
    }

    /// The thing itself in whichever process, for reading what does not change.
    pub(crate) fn read(&self) -> &T {
        self.inner.as_ref().expect("only dropping takes it")
    }

    /// The thing itself, given away.
    pub(crate) fn into_inner(mut self, py: Python<'_>, what: &str) -> PyResult<T> {
        match self.is_here() {
            true => Ok(self.inner.take().expect("only dropping takes it")),
            false => Err(errors::forked(py, what)),
        }
    }

    /// The thing itself, if this is its process.
    pub(crate) fn get_here(&self) -> Option<&T> {
        self.inner.as_ref().filter(|_| self.is_here())
    }
}

impl<T> Drop for Here<T> {
    fn drop(&mut self) {
        if !self.is_here() {
            std::mem::forget(self.inner.take());
        }
    }
}

#[pyfunction]
fn _after_fork_in_child() {
    crate::exit::forget();
}

/// Hears of forks, whoever forks: the interpreter, or a host behind its back.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    ottla_atfork::watch(in_child);
    let py = module.py();
    let os = py.import("os")?;
    if !os.hasattr("register_at_fork")? {
        return Ok(());
    }
    let hook = wrap_pyfunction!(_after_fork_in_child, module)?;
    let arguments = pyo3::types::PyDict::new(py);
    arguments.set_item("after_in_child", hook)?;
    os.call_method("register_at_fork", (), Some(&arguments))?;
    Ok(())
}
