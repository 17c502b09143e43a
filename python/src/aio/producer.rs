//! The producer of asyncio.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ottla::bindings::{self, OwnedRecord, Properties};
use ottla::{ErrorKind, Record};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::delivery::{AioBatchDelivery, AioDelivery};
use super::event_loop::{self, Loop};
use super::futures;
use super::line::{InLine, Line, Taken, Taking};
use super::operation::{Operation, Step, engine, never_late};
use super::reach::Reach;
use crate::column::Column;
use crate::convert::{self, KeptBlob};
use crate::ending::inside;
use crate::errors::{self, OrRaise};
use crate::exclusive::lock;
use crate::exit;
use crate::fork::Here;
use crate::guard::guarded;
use crate::oauth::Asked;
use crate::producer::{
    CLOSE_TIMEOUT, CLOSE_TIMEOUT_IN_A_HURRY, RecordParts, WHAT, Wanted, send_values, values,
};
use crate::settings::Made;
use crate::stats::Statistics;

/// Sends records to Kafka, from asyncio.
///
/// Producer(bootstrap, **settings) takes what ottla.Producer takes, and needs no running loop. Entering
/// "async with" reaches a broker; without it, records are taken at once and sent when there is one. It may
/// be used from several loops in several threads.
///
/// What is called is done in the order of the calls, whether they are awaited at once, later, or in tasks of their own.
/// Nothing waits in a thread, and nothing holds up the loop.
#[pyclass(module = "ottla.aio", name = "Producer", frozen, weakref)]
pub(crate) struct AioProducer {
    inner: Arc<Here<ottla::Producer>>,
    /// Where calls wait for buffer space, by event loop.
    lines: Here<Mutex<Vec<Arc<Line>>>>,
    /// Whether there ever was one.
    has_lines: AtomicBool,
    reach: Reach,
    statistics: Statistics,
    closed: AtomicBool,
    asked: Asked,
}

impl Made for AioProducer {
    fn make(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        properties: Option<&Properties>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (connect, wanted) = Wanted::take(py, bootstrap, properties, settings)?;
        let (client, reaching, asked) = connect.later(py)?;
        let inner = wanted.build(py, &client)?;
        Ok(Self {
            inner,
            lines: Here::new(Mutex::default()),
            has_lines: AtomicBool::new(false),
            reach: Reach::new(reaching),
            statistics: Statistics::of(&client),
            closed: AtomicBool::new(false),
            asked,
        })
    }
}

/// What a record that was taken is to the caller.
type Sent = fn(Python<'_>, ottla::Delivery) -> PyResult<Operation>;

fn given(py: Python<'_>, delivery: ottla::Delivery) -> PyResult<Operation> {
    Ok(Operation::ready(Py::new(py, AioDelivery::new(delivery))?.into_any()))
}

fn awaited(_: Python<'_>, delivery: ottla::Delivery) -> PyResult<Operation> {
    Ok(Operation::sent(delivery))
}

/// The same for one that had to wait.
type Then = fn(Python<'_>, Taken) -> PyResult<Step>;

fn then_given(py: Python<'_>, taken: Taken) -> PyResult<Step> {
    let value = match taken {
        Taken::One(delivery) => Py::new(py, AioDelivery::new(delivery))?.into_any(),
        Taken::Many(parts) => Py::new(py, AioBatchDelivery::new(parts))?.into_any(),
        Taken::Nothing => py.None(),
    };
    Ok(Step::Done(value))
}

fn then_awaited(py: Python<'_>, taken: Taken) -> PyResult<Step> {
    match taken {
        Taken::One(delivery) => Ok(Step::Sent(delivery)),
        other => then_given(py, other),
    }
}

impl AioProducer {
    #[inline]
    fn get(&self, py: Python<'_>) -> PyResult<&ottla::Producer> {
        self.inner.get(py, WHAT)
    }

    /// The line of this loop; `None` if there is none, or nobody stands in it.
    fn busy_line(&self, py: Python<'_>, of: &Arc<Loop>) -> PyResult<Option<Arc<Line>>> {
        if !self.has_lines.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let lines = lock(self.lines.get(py, WHAT)?);
        Ok(lines.iter().find(|line| line.is_of(of) && !line.is_empty()).cloned())
    }

    fn line(&self, py: Python<'_>, of: &Arc<Loop>) -> PyResult<Arc<Line>> {
        let mut lines = lock(self.lines.get(py, WHAT)?);
        if let Some(line) = lines.iter().find(|line| line.is_of(of)) {
            return Ok(Arc::clone(line));
        }
        lines.retain(|line| !line.is_left());
        let line = Line::new(of);
        lines.push(Arc::clone(&line));
        self.has_lines.store(true, Ordering::Relaxed);
        Ok(line)
    }

    #[inline]
    fn hand_over(
        &self,
        py: Python<'_>,
        parts: RecordParts<'_, '_>,
        sent: Sent,
        then: Then,
    ) -> PyResult<Operation> {
        let producer = self.get(py)?;
        // Also where nobody has to wait: a program that works until its buffer is full is no good.
        futures::running_loop(py)?;
        let name = "send";
        parts.hand_over(|record| {
            if self.has_lines.load(Ordering::Relaxed)
                && let Some(line) = self.busy_line(py, &event_loop::running(py)?)?
            {
                return Ok(self.stand(producer, line, name, &record, then));
            }
            match guarded(py, || Ok(producer.try_send(record)))? {
                Ok(delivery) => sent(py, delivery),
                Err(refused) if refused.kind() == ErrorKind::BufferFull => {
                    let line = self.line(py, &event_loop::running(py)?)?;
                    Ok(self.stand(producer, line, name, &record, then))
                }
                Err(refused) => Err(errors::raise(py, &refused)),
            }
        })
    }

    /// Has a record wait for space, behind all others of the line.
    #[cold]
    fn stand(
        &self,
        producer: &ottla::Producer,
        line: Arc<Line>,
        name: &'static str,
        record: &Record<'_>,
        then: Then,
    ) -> Operation {
        let (record, deadline) = (OwnedRecord::of(record), bindings::space_deadline(producer));
        let inner = Arc::clone(&self.inner);
        let taking: Taking =
            Box::pin(
                async move { record.send_until(inner.read(), deadline).await.map(Taken::One) },
            );
        Operation::working(InLine::new(line, name, taking, then), None)
    }

    /// Ends calls that wait, and gives what ends the rest.
    fn closing(
        &self,
        py: Python<'_>,
        timeout: Duration,
    ) -> PyResult<impl Future<Output = ottla::Result<()>> + Send + 'static> {
        self.get(py)?;
        self.closed.store(true, Ordering::Relaxed);
        for line in lock(self.lines.get(py, WHAT)?).iter() {
            line.end();
        }
        let inner = Arc::clone(&self.inner);
        // The engine ends the wait itself at `timeout`, and resolves what is left.
        Ok(async move { inner.read().close(timeout).await })
    }

    fn close_within(&self, py: Python<'_>, timeout: Duration) -> PyResult<Operation> {
        Ok(engine("close", None, self.closing(py, timeout)?, raised, never_late))
    }
}

/// What the block was left by matters more; that records were lost is added to it.
fn noted(py: Python<'_>, (outcome, exc): (ottla::Result<()>, Py<PyAny>)) -> PyResult<Py<PyAny>> {
    if let Err(error) = outcome {
        let error = errors::raise(py, &error);
        exc.call_method1(py, "add_note", (format!("closing the producer: {error}"),))?;
    }
    Ok(py.None())
}

fn raised(py: Python<'_>, outcome: ottla::Result<()>) -> PyResult<Py<PyAny>> {
    outcome.or_raise(py)?;
    Ok(py.None())
}

#[pymethods]
impl AioProducer {
    #[new]
    #[pyo3(signature = (bootstrap=None, **settings), text_signature = "(bootstrap, **settings)")]
    fn new(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let _inside = inside(py);
        Self::made(py, bootstrap, settings)
    }

    /// A producer with settings by the names that Java's client and librdkafka have for them; see
    /// ottla.Producer.from_properties.
    #[staticmethod]
    #[pyo3(signature = (properties, **settings))]
    fn from_properties(
        py: Python<'_>,
        properties: &Bound<'_, PyAny>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let _inside = inside(py);
        Self::made_from(py, properties, settings)
    }

    /// Hands one record over to be sent: "delivery = await producer.send(...)" has it taken, "await delivery" has
    /// it acknowledged. The arguments are those of ottla.Producer.send.
    ///
    /// The record is taken when this is called if there is space in the buffer: to await it is then a formality. Else it
    /// waits for space, behind the calls before it, up to max_block, and then raises BufferFull.
    ///
    /// Cancelled: before there was space, the record is not sent. Once it was taken (the await has ended, or never had to
    /// wait), it is on its way.
    #[pyo3(
        signature = (topic, value, *, key=None, headers=None, partition=None, timestamp=None, **other),
        text_signature = "($self, topic, value, *, key=None, headers=None, partition=None, \
                          timestamp=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a record, by keyword")]
    fn send(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        key: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        partition: Option<&Bound<'_, PyAny>>,
        timestamp: Option<&Bound<'_, PyAny>>,
        other: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Operation> {
        let _inside = inside(py);
        let parts = RecordParts { topic, value, key, headers, partition, timestamp, other };
        self.hand_over(py, parts, given, then_given)
    }

    /// As send(), and waits until the record is acknowledged: "at = await producer.send_and_wait(...)" says where
    /// it is, or raises what became of it.
    ///
    /// Cancelled: before there was space, the record is not sent. Else it is on its way, and flush() and close() tell of it
    /// if it fails.
    #[pyo3(
        signature = (topic, value, *, key=None, headers=None, partition=None, timestamp=None, **other),
        text_signature = "($self, topic, value, *, key=None, headers=None, partition=None, \
                          timestamp=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a record, by keyword")]
    fn send_and_wait(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        key: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        partition: Option<&Bound<'_, PyAny>>,
        timestamp: Option<&Bound<'_, PyAny>>,
        other: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Operation> {
        let _inside = inside(py);
        let parts = RecordParts { topic, value, key, headers, partition, timestamp, other };
        self.hand_over(py, parts, awaited, then_awaited)
    }

    /// Hands many values over in one call: "many = await producer.send_many(topic, values)".
    ///
    /// values: as with ottla.Producer.send_many, columns among them. Takes what there is space for when this is
    /// called, and the rest as there is.
    ///
    /// Cancelled, or if it raises half-way (a record too large, no space within max_block): the values before are
    /// sent all the same, in their order, and those behind are not.
    fn send_many(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        values: &Bound<'_, PyAny>,
    ) -> PyResult<Operation> {
        let _inside = inside(py);
        self.get(py)?;
        let of = event_loop::running(py)?;
        let topic = convert::text("topic", topic)?.to_owned();
        let inner = Arc::clone(&self.inner);
        let mut taking: Taking = match Column::from(values)? {
            Some(column) => Box::pin(async move {
                let sent = send_values(inner.read(), &topic, &column.values()).await;
                sent.map(Taken::Many)
            }),
            None => {
                let values = self::values(values)?;
                let blobs = values.iter_borrowed().map(|value| KeptBlob::from("value", &value));
                let blobs = blobs.collect::<PyResult<Vec<_>>>()?;
                Box::pin(
                    async move { send_values(inner.read(), &topic, &blobs).await.map(Taken::Many) },
                )
            }
        };
        let line = self.busy_line(py, &of)?;
        if line.is_none() {
            let mut context = Context::from_waker(Waker::noop());
            let poll = || Ok(bindings::poll_alone(|| taking.as_mut().poll(&mut context)));
            if let Poll::Ready(taken) = guarded(py, poll)? {
                return then_given(py, taken.or_raise(py)?).map(Operation::from);
            }
        }
        let line = line.map_or_else(|| self.line(py, &of), Ok)?;
        Ok(Operation::working(InLine::new(line, "send_many", taking, then_given), None))
    }

    /// Waits until it is known what became of every record sent before; calls that wait for space on this loop are among
    /// them.
    ///
    /// timeout: seconds or a timedelta; None waits until delivery_timeout at most. Raises TimeoutError after
    /// it, and UndeliveredError as ottla.Producer.flush does. Cancelled: records stay on their way, and what failed is told
    /// by the next flush().
    #[pyo3(signature = (timeout=None))]
    fn flush(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.get(py)?;
        let timeout = convert::timeout(timeout)?;
        let of = event_loop::running(py)?;
        let inner = Arc::clone(&self.inner);
        let through = self.busy_line(py, &of)?.map(|line| line.through());
        let flushing = async move {
            if let Some(through) = through {
                through.await;
            }
            inner.read().flush().await
        };
        let late = |py: Python<'_>, timeout| Err(errors::timeout(py, "flushing", timeout, true));
        Ok(engine("flush", timeout, flushing, raised, late))
    }

    /// Counters of all handles of this process on the cluster, as ottla.Producer.stats() gives them.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.statistics.dict(py, WHAT)
    }

    /// Flushes, for at most timeout (default 30 seconds), and ends the producer. Calls that wait for space raise
    /// ClosedError.
    ///
    /// Raises TimeoutError if records were left at the end of the timeout, and UndeliveredError, as ottla.Producer.close
    /// does. Closing twice is fine. Cancelled: the producer is closed, and records stay on their way until their
    /// delivery_timeout; close it again to wait for them.
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.close_within(py, convert::timeout(timeout)?.unwrap_or(CLOSE_TIMEOUT))
    }

    /// Reaches a broker, within connect_timeout. If that fails the producer is closed.
    fn __aenter__(slf: Bound<'_, Self>) -> PyResult<Operation> {
        let _inside = inside(slf.py());
        let (py, this) = (slf.py(), slf.get());
        this.get(py)?;
        let inner = Arc::clone(&this.inner);
        let fails = async move {
            // Nobody waits for what was sent before.
            let _ = inner.read().close(Duration::ZERO).await;
        };
        this.reach.enter(py, WHAT, slf.clone().into_any().unbind(), fails)
    }

    /// Closes: within 30 seconds, or 5 if the block is left by an exception, which then gets a note of records that
    /// failed and that nobody has looked at.
    #[pyo3(signature = (exc_type, exc, traceback, /))]
    fn __aexit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<Operation> {
        let _inside = inside(py);
        let _ = (exc_type, traceback);
        if exc.is_none() {
            return self.close_within(py, CLOSE_TIMEOUT);
        }
        let (closing, exc) = (self.closing(py, CLOSE_TIMEOUT_IN_A_HURRY)?, exc.clone().unbind());
        let closing = async move { (closing.await, exc) };
        Ok(engine("close", None, closing, noted, never_late))
    }

    fn __repr__(&self) -> &'static str {
        match self.closed.load(Ordering::Relaxed) {
            true => "<ottla.aio.Producer closed>",
            false => "<ottla.aio.Producer>",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.asked.traverse(&visit)
    }
}

impl Drop for AioProducer {
    fn drop(&mut self) {
        if let Some(producer) = self.inner.get_here() {
            exit::orphaned(producer, std::mem::take(&mut self.asked));
        }
    }
}
