//! Entering `async with`: a broker is reached, or the handle is closed and the error raised.

use std::sync::Mutex;

use pyo3::prelude::*;

use super::operation::{Operation, engine, never_late};
use crate::client::Reaching;
use crate::errors::OrRaise;
use crate::exclusive::lock;
use crate::fork::Here;

/// What reaches a broker, until somebody has entered.
pub(crate) struct Reach(Here<Mutex<Option<Reaching>>>);

impl Reach {
    pub(crate) fn new(reaching: Reaching) -> Self {
        Self(Here::new(Mutex::new(Some(reaching))))
    }

    /// Gives `handle`, or ends it by `fails`.
    pub(crate) fn enter(
        &self,
        py: Python<'_>,
        what: &str,
        handle: Py<PyAny>,
        fails: impl Future<Output = ()> + Send + 'static,
    ) -> PyResult<Operation> {
        let Some(reaching) = lock(self.0.get(py, what)?).take() else {
            return Ok(Operation::ready(handle));
        };
        let entering = async move {
            let reached = reaching.await;
            if reached.is_err() {
                fails.await;
            }
            (reached, handle)
        };
        Ok(engine("__aenter__", None, entering, entered, never_late))
    }
}

fn entered(
    py: Python<'_>,
    (reached, handle): (ottla::Result<()>, Py<PyAny>),
) -> PyResult<Py<PyAny>> {
    reached.or_raise(py).map(|()| handle)
}
