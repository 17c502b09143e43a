//! Errors of the engine as the package's exceptions. The classes are Python (`ottla/_errors.py`);
//! here is only the way to them.

use std::time::Duration;

use ottla::Error;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The exception object for what the engine says.
pub(crate) fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let make = MAKE
        .get_or_try_init(py, || py.import("ottla._errors")?.getattr("make").map(Bound::unbind))?;
    let made = make.bind(py).call1((
        error.kind().as_str(),
        error.to_string(),
        error.message(),
        error.advice(),
        error.broker_code(),
        error.is_retriable(),
        error.is_fatal(),
        error.maybe_written(),
    ))?;
    if let Some(lost) = error.undelivered() {
        made.setattr("records", lost.records())?;
        made.setattr("topics", lost.topics().collect::<Vec<_>>())?;
        made.setattr("first", exception(py, lost.first_error())?)?;
    }
    Ok(made)
}

/// The exception to raise for what the engine says.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    match exception(py, error) {
        Ok(value) => PyErr::from_value(value),
        Err(other) => other,
    }
}

/// An error that this layer finds by itself, as the engine would have reported it.
fn own(py: Python<'_>, class: &str, message: &str) -> PyErr {
    let make = || -> PyResult<PyErr> {
        let class = py.import("ottla._errors")?.getattr(class)?.cast_into::<PyType>()?;
        Ok(PyErr::from_value(class.call1((message,))?))
    };
    make().unwrap_or_else(|other| other)
}

pub(crate) fn config(py: Python<'_>, message: &str) -> PyErr {
    own(py, "ConfigError", message)
}

pub(crate) fn argument(py: Python<'_>, message: &str) -> PyErr {
    own(py, "InvalidArgumentError", message)
}

pub(crate) fn closed(py: Python<'_>, what: &str) -> PyErr {
    own(py, "ClosedError", &format!("the {what} is closed"))
}

pub(crate) fn forked(py: Python<'_>, what: &str) -> PyErr {
    let message =
        format!("this {what} was made before the process forked and is of no use in the child");
    own(py, "ForkedClientError", &message)
}

/// A wait that ended for want of a result. `maybe_written` where records are on their way still.
pub(crate) fn timeout(
    py: Python<'_>,
    what: &str,
    after: Option<Duration>,
    maybe_written: bool,
) -> PyErr {
    let make = || -> PyResult<PyErr> {
        let class = py.import("ottla._errors")?.getattr("TimeoutError")?;
        let more = PyDict::new(py);
        more.set_item("maybe_written", maybe_written)?;
        let message = format!("{what}: nothing within {:?}", after.unwrap_or_default());
        Ok(PyErr::from_value(class.call((message,), Some(&more))?))
    };
    make().unwrap_or_else(|other| other)
}

/// `Result` of the engine as one of this layer.
pub(crate) trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for ottla::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| raise(py, &error))
    }
}
