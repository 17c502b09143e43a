//! What becomes of records that were sent.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::convert;
use crate::errors::{self, OrRaise};
use crate::fork::Here;
use crate::guard::guarded;
use crate::wait::{Deadline, wait};

/// Where an acknowledged record is.
#[pyclass(module = "ottla", frozen, eq, hash)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Acked {
    /// The partition that was chosen.
    #[pyo3(get)]
    partition: i32,
    /// Its offset; -1 if the broker only remembers that it has the record.
    #[pyo3(get)]
    offset: i64,
    /// Milliseconds since 1970 (UTC).
    #[pyo3(get)]
    timestamp: i64,
}

#[pymethods]
impl Acked {
    /// Made by the client; by hand for tests and copies.
    #[new]
    fn new(partition: i32, offset: i64, timestamp: i64) -> Self {
        Self { partition, offset, timestamp }
    }

    /// For pickle and copy.
    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (i32, i64, i64)) {
        (py.get_type::<Self>(), (self.partition, self.offset, self.timestamp))
    }

    fn __repr__(&self) -> String {
        let Self { partition, offset, timestamp } = self;
        format!("Acked(partition={partition}, offset={offset}, timestamp={timestamp})")
    }
}

impl From<ottla::Acked> for Acked {
    fn from(acked: ottla::Acked) -> Self {
        let ottla::Acked { partition, offset, timestamp_ms: timestamp } = acked;
        Self { partition, offset, timestamp }
    }
}

/// Every record of a `send_many` is acknowledged.
#[pyclass(module = "ottla", frozen, eq, hash)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct BatchAcked {
    /// How many.
    #[pyo3(get)]
    records: usize,
}

impl BatchAcked {
    pub(crate) fn of(records: usize) -> Self {
        Self { records }
    }
}

#[pymethods]
impl BatchAcked {
    /// Made by the client; by hand for tests and copies.
    #[new]
    fn new(records: usize) -> Self {
        Self { records }
    }

    /// For pickle and copy.
    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (usize,)) {
        (py.get_type::<Self>(), (self.records,))
    }

    fn __repr__(&self) -> String {
        format!("BatchAcked(records={})", self.records)
    }
}

/// A future that several threads may wait for. The lock is held while it is polled, never while a
/// thread waits. The future keeps one waker: a second waiting thread may be overlooked when the
/// result comes, and sees it at the end of its slice.
struct Shared<F>(Mutex<F>);

impl<F> Shared<F> {
    fn lock(&self) -> MutexGuard<'_, F> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<F> Shared<F>
where
    F: Future + Send + Unpin,
    F::Output: Send,
{
    fn wait(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<F::Output> {
        wait(py, Deadline::after(timeout), || false, self)?
            .ok_or_else(|| errors::timeout(py, WAITING, timeout, true))
    }
}

impl<F: Future + Unpin> Future for &Shared<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut *self.lock()).poll(context)
    }
}

/// The exception for what went wrong, if anything did.
fn unraised<T>(py: Python<'_>, outcome: ottla::Result<T>) -> PyResult<Option<Bound<'_, PyAny>>> {
    outcome.err().map(|error| errors::exception(py, &error)).transpose()
}

pub(crate) const WAITING: &str = "waiting for the acknowledgement";

/// What will become of one record. Nobody has to keep or ask it: the record is sent all the same.
#[pyclass(module = "ottla", frozen, weakref)]
pub(crate) struct Delivery {
    inner: Here<Shared<ottla::Delivery>>,
}

impl Delivery {
    #[inline]
    pub(crate) fn new(delivery: ottla::Delivery) -> Self {
        Self { inner: Here::new(Shared(Mutex::new(delivery))) }
    }

    fn outcome(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<ottla::Result<ottla::Acked>> {
        // A wrong one is told also where nobody has to wait any more.
        let timeout = convert::timeout(timeout)?;
        let inner = self.inner.get(py, "delivery")?;
        let outcome = guarded(py, || Ok(inner.lock().try_get()))?;
        if let Some(outcome) = outcome {
            return Ok(outcome);
        }
        inner.wait(py, timeout)
    }
}

#[pymethods]
impl Delivery {
    /// Waits for the acknowledgement and returns where the record is.
    ///
    /// timeout: seconds or a timedelta; None waits until the producer's delivery_timeout at most.
    ///
    /// Raises what became of the record if it was not acknowledged, or TimeoutError after timeout:
    /// then the record is still on its way, and this may be called again.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Acked> {
        self.outcome(py, timeout)?.or_raise(py).map(Acked::from)
    }

    /// As result(), but returns the record's error instead of raising it; None if it was
    /// acknowledged.
    #[pyo3(signature = (timeout=None))]
    fn exception<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        unraised(py, self.outcome(py, timeout)?)
    }

    /// Whether it is known what became of the record.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        guarded(py, || Ok(self.inner.get(py, "delivery")?.lock().is_done()))
    }

    fn __repr__(&self) -> String {
        let state = match self.inner.get_here().map(|inner| inner.lock().peek()) {
            None => "of the parent process".to_owned(),
            Some(None) => "on its way".to_owned(),
            Some(Some(Ok(at))) => {
                format!("acknowledged: partition {}, offset {}", at.partition, at.offset)
            }
            Some(Some(Err(error))) => format!("failed: {}", error.kind().as_str()),
        };
        format!("<ottla.Delivery {state}>")
    }
}

/// The engine's handle for many values, or one for each record where the call had nulls in it.
pub(crate) enum Parts {
    Batch(ottla::BatchDelivery),
    Each { deliveries: Vec<ottla::Delivery>, done: usize, failed: Option<ottla::Error> },
}

impl Parts {
    pub(crate) fn each(deliveries: Vec<ottla::Delivery>) -> Self {
        Self::Each { deliveries, done: 0, failed: None }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.len(),
            Self::Each { deliveries, .. } => deliveries.len(),
        }
    }

    /// What became of each record. `None`: it is on its way.
    pub(crate) fn outcomes(&self) -> Vec<Option<ottla::Result<ottla::Acked>>> {
        match self {
            Self::Batch(batch) => batch.outcomes().collect(),
            Self::Each { deliveries, .. } => deliveries.iter().map(|d| d.try_get()).collect(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Batch(batch) => batch.is_done(),
            Self::Each { deliveries, .. } => deliveries.iter().all(ottla::Delivery::is_done),
        }
    }
}

impl Future for Parts {
    type Output = ottla::Result<usize>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Batch(batch) => {
                Pin::new(batch).poll(context).map(|acked| acked.map(|acked| acked.records))
            }
            Self::Each { deliveries, done, failed } => {
                while let Some(delivery) = deliveries.get_mut(*done) {
                    match Pin::new(delivery).poll(context) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => {
                            failed.get_or_insert(error);
                        }
                    }
                    *done += 1;
                }
                Poll::Ready(match failed {
                    Some(error) => Err(error.clone()),
                    None => Ok(deliveries.len()),
                })
            }
        }
    }
}

/// What became of each record, once all of it is known.
pub(crate) fn each(
    py: Python<'_>,
    outcomes: Vec<Option<ottla::Result<ottla::Acked>>>,
) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let each = |outcome| match outcome {
        Some(Ok(acked)) => Ok(Bound::new(py, Acked::from(acked))?.into_any()),
        Some(Err(error)) => errors::exception(py, &error),
        None => unreachable!("it was waited for"),
    };
    outcomes.into_iter().map(each).collect()
}

/// What will become of the records of one send_many.
#[pyclass(module = "ottla", frozen, weakref)]
pub(crate) struct BatchDelivery {
    inner: Here<Shared<Parts>>,
}

impl BatchDelivery {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { inner: Here::new(Shared(Mutex::new(parts))) }
    }

    fn outcome(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<ottla::Result<usize>> {
        let timeout = convert::timeout(timeout)?;
        self.inner.get(py, "delivery")?.wait(py, timeout)
    }
}

#[pymethods]
impl BatchDelivery {
    /// Waits until it is known what became of every record, and returns how many there are.
    ///
    /// Raises the first error among the records, or TimeoutError after timeout (seconds or a
    /// timedelta): then records are still on their way, and this may be called again.
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<BatchAcked> {
        self.outcome(py, timeout)?.or_raise(py).map(|records| BatchAcked { records })
    }

    /// As result(), but returns the first error among the records instead of raising it; None if
    /// all were acknowledged.
    #[pyo3(signature = (timeout=None))]
    fn exception<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        unraised(py, self.outcome(py, timeout)?)
    }

    /// Waits as result() does, and returns for each record, in the order of the values, where it is
    /// or the error that it failed with.
    #[pyo3(signature = (timeout=None))]
    fn outcomes<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        // The first error is among them.
        let _ = self.outcome(py, timeout)?;
        let outcomes = self.inner.get(py, "delivery")?.lock().outcomes();
        each(py, outcomes)
    }

    /// Whether it is known what became of every record.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        guarded(py, || Ok(self.inner.get(py, "delivery")?.lock().is_done()))
    }

    /// How many records it stands for.
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.inner.get(py, "delivery")?.lock().len())
    }

    /// True, also for no records: a handle is not a container to test.
    fn __bool__(&self) -> bool {
        true
    }

    fn __repr__(&self) -> String {
        match self.inner.get_here() {
            None => "<ottla.BatchDelivery of the parent process>".to_owned(),
            Some(inner) => {
                let parts = inner.lock();
                let state = if parts.is_done() { "done" } else { "on its way" };
                format!("<ottla.BatchDelivery of {} records, {state}>", parts.len())
            }
        }
    }
}
