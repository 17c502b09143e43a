//! What becomes of records, awaited.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use ottla::bindings;
use pyo3::prelude::*;

use super::crowd::Crowd;
use super::operation::{Operation, Step, Work, never_awaited};
use crate::delivery::{BatchAcked, Parts, WAITING};
use crate::ending::inside;
use crate::exclusive::lock;
use crate::fork::Here;
use crate::guard::guarded;
use crate::{convert, errors};

const WHAT: &str = "delivery";

/// What will become of one record. Nobody has to keep or await it: the record is sent all the same.
///
/// "await delivery" waits until the record is acknowledged and returns where it is, or raises what became of it. It may be
/// awaited again, and by several. Cancelled: the record stays on its way.
#[pyclass(module = "ottla.aio", name = "Delivery", frozen, weakref)]
pub(crate) struct AioDelivery {
    inner: Here<ottla::Delivery>,
}

impl AioDelivery {
    #[inline]
    pub(crate) fn new(delivery: ottla::Delivery) -> Self {
        Self { inner: Here::new(delivery) }
    }

    fn operation(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
        raises: bool,
    ) -> PyResult<Operation> {
        let timeout = convert::timeout(timeout)?;
        Ok(Operation::asked(bindings::another(self.inner.get(py, WHAT)?), raises, timeout))
    }
}

#[pymethods]
impl AioDelivery {
    fn __await__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _inside = inside(py);
        let inner = bindings::another(self.inner.get(py, WHAT)?);
        Operation::sent(inner).into_iterator(py)
    }

    /// As "await delivery", with an end: "at = await delivery.result(timeout=5)".
    ///
    /// timeout: seconds or a timedelta; None waits until the producer's delivery_timeout at most. Raises
    /// TimeoutError after it: then the record is still on its way, and it may be awaited again.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.operation(py, timeout, true)
    }

    /// As result(), but returns the record's error instead of raising it; None if it was acknowledged.
    #[pyo3(signature = (timeout=None))]
    fn exception(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.operation(py, timeout, false)
    }

    /// Whether it is known what became of the record.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        guarded(py, || Ok(self.inner.get(py, WHAT)?.is_done()))
    }

    fn __repr__(&self) -> String {
        let state = match self.inner.get_here().map(ottla::Delivery::peek) {
            None => "of the parent process".to_owned(),
            Some(None) => "on its way".to_owned(),
            Some(Some(Ok(at))) => {
                format!("acknowledged: partition {}, offset {}", at.partition, at.offset)
            }
            Some(Some(Err(error))) => format!("failed: {}", error.kind().as_str()),
        };
        format!("<ottla.aio.Delivery {state}>")
    }
}

/// The records of one send_many, for all who wait for them.
struct Many {
    parts: Mutex<Parts>,
    crowd: Arc<Crowd>,
}

impl Many {
    /// How many they are once all are resolved, or the first error.
    fn poll(&self, context: &mut Context<'_>) -> Poll<ottla::Result<usize>> {
        self.crowd.join(context.waker());
        let waker = self.crowd.waker();
        let polled = Pin::new(&mut *lock(&self.parts)).poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            self.crowd.leave(context.waker());
        }
        polled
    }
}

/// What will become of the records of one send_many.
///
/// "await many" waits until it is known what became of every record, and returns how many there are or raises the first
/// error among them. It may be awaited again, and by several. Cancelled: the records stay on their way.
#[pyclass(module = "ottla.aio", name = "BatchDelivery", frozen, weakref)]
pub(crate) struct AioBatchDelivery {
    inner: Here<Arc<Many>>,
}

/// How the outcome of many is given.
#[derive(Clone, Copy)]
enum As {
    Result,
    Exception,
    Outcomes,
}

impl AioBatchDelivery {
    pub(crate) fn new(parts: Parts) -> Self {
        let many = Many { parts: Mutex::new(parts), crowd: Arc::default() };
        Self { inner: Here::new(Arc::new(many)) }
    }

    fn operation(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
        given: As,
    ) -> PyResult<Operation> {
        let timeout = convert::timeout(timeout)?;
        let many = Arc::clone(self.inner.get(py, WHAT)?);
        Ok(Operation::working(AskedMany { many, given, timeout, waker: None }, timeout))
    }
}

struct AskedMany {
    many: Arc<Many>,
    given: As,
    timeout: Option<Duration>,
    waker: Option<std::task::Waker>,
}

impl Work for AskedMany {
    fn look(&mut self, py: Python<'_>, context: &mut Context<'_>) -> PyResult<Poll<Step>> {
        self.waker = Some(context.waker().clone());
        let polled = bindings::poll_alone(|| self.many.poll(context));
        let Poll::Ready(outcome) = polled else { return Ok(Poll::Pending) };
        let value = match (self.given, outcome) {
            (As::Result, Ok(records)) => Py::new(py, BatchAcked::of(records))?.into_any(),
            (As::Result, Err(error)) => return Err(errors::raise(py, &error)),
            (As::Exception, Ok(_)) => py.None(),
            (As::Exception, Err(error)) => errors::exception(py, &error)?.unbind(),
            (As::Outcomes, _) => {
                // The first error is among them.
                let outcomes = lock(&self.many.parts).outcomes();
                crate::delivery::each(py, outcomes)?.into_pyobject(py)?.into_any().unbind()
            }
        };
        Ok(Poll::Ready(Step::Done(value)))
    }

    fn late(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Err(errors::timeout(py, WAITING, self.timeout, true))
    }

    fn unawaited(&self) -> Option<String> {
        Some(never_awaited(match self.given {
            As::Result => "result",
            As::Exception => "exception",
            As::Outcomes => "outcomes",
        }))
    }
}

impl Drop for AskedMany {
    fn drop(&mut self) {
        if let Some(waker) = &self.waker {
            self.many.crowd.leave(waker);
        }
    }
}

#[pymethods]
impl AioBatchDelivery {
    fn __await__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _inside = inside(py);
        self.operation(py, None, As::Result)?.into_iterator(py)
    }

    /// As "await many", with an end: seconds or a timedelta. Raises TimeoutError after it: then records are still
    /// on their way, and it may be awaited again.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.operation(py, timeout, As::Result)
    }

    /// As result(), but returns the first error among the records instead of raising it; None if all were
    /// acknowledged.
    #[pyo3(signature = (timeout=None))]
    fn exception(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.operation(py, timeout, As::Exception)
    }

    /// Waits as result() does, and returns for each record, in the order of the values, where it is or the
    /// error that it failed with.
    #[pyo3(signature = (timeout=None))]
    fn outcomes(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.operation(py, timeout, As::Outcomes)
    }

    /// Whether it is known what became of every record.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        guarded(py, || Ok(lock(&self.inner.get(py, WHAT)?.parts).is_done()))
    }

    /// How many records it stands for.
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(lock(&self.inner.get(py, WHAT)?.parts).len())
    }

    /// True, also for no records: a handle is not a container to test.
    fn __bool__(&self) -> bool {
        true
    }

    fn __repr__(&self) -> String {
        match self.inner.get_here() {
            None => "<ottla.aio.BatchDelivery of the parent process>".to_owned(),
            Some(inner) => {
                let parts = lock(&inner.parts);
                let state = if parts.is_done() { "done" } else { "on its way" };
                format!("<ottla.aio.BatchDelivery of {} records, {state}>", parts.len())
            }
        }
    }
}
