//! Where panics stop. pyo3 would raise them as a `PanicException`, which no `except Exception` of a
//! program catches: here a panic is an `InternalError`, as it is in every other language.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;

use crate::errors;

/// What a call gives; its panic as an error. What it used is of the engine, which mends itself, or is
/// behind locks that do not mind.
#[inline]
pub(crate) fn guarded<T>(py: Python<'_>, call: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(outcome) => outcome,
        Err(payload) => Err(caught(py, payload.as_ref())),
    }
}

/// The error for a panic.
#[cold]
pub(crate) fn caught(py: Python<'_>, payload: &(dyn Any + Send)) -> PyErr {
    errors::raise(py, &ottla::bindings::panic_error(payload))
}

/// Panics in a call, or in something that is waited for, as the engine might; for tests.
#[cfg(feature = "testing")]
#[pyfunction]
pub(crate) fn _panic(py: Python<'_>, waits: bool) -> PyResult<()> {
    use crate::wait::{Deadline, wait};
    if waits {
        return wait(py, Deadline::never(), || false, async { panic!("injected") }).map(drop);
    }
    guarded(py, || panic!("injected"))
}
