//! The consumer of asyncio.

use std::sync::Arc;
use std::time::Duration;

use ottla::bindings::{self, Properties};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::operation::{Operation, engine};
use super::reach::Reach;
use super::reading::{Else, Reading, What};
use crate::consumer::{CLOSE_TIMEOUT_IN_A_HURRY, Wanted};
use crate::ending::inside;
use crate::errors::{self, OrRaise};
use crate::oauth::Asked;
use crate::reader::Ends;
use crate::settings::Made;
use crate::steering::WHAT;
use crate::{convert, member};

/// Reads records from Kafka, from asyncio: "async for record in consumer".
///
/// Consumer(bootstrap, **settings) takes what ottla.Consumer takes, and needs no running loop. Entering
/// "async with" reaches a broker. It may be used from several loops in several threads; what is not reading (position, lag,
/// seek, pause, resume, assign, unassign, assignment, subscribe, stats) is not awaited.
///
/// In a group what a task was given is done when the same task asks for the next, whatever other tasks do; the task that
/// calls counts, also where what it calls is run by another (wait_for, create_task). To break out of the loop, an
/// exception and a cancellation leave it undone.
#[pyclass(module = "ottla.aio", name = "Consumer", frozen, weakref)]
pub(crate) struct AioConsumer {
    reading: Arc<Reading>,
    reach: Reach,
    asked: Asked,
}

impl Made for AioConsumer {
    fn make(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        properties: Option<&Properties>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (connect, wanted) = Wanted::take(py, bootstrap, properties, settings)?;
        let (client, reaching, asked) = connect.later(py)?;
        let reading = Reading::new(wanted.build(py, &client, properties)?);
        Ok(Self { reading, reach: Reach::new(reaching), asked })
    }
}

/// What a wait for the group that took too long says.
fn late_commit(py: Python<'_>, timeout: Option<Duration>) -> PyResult<Py<PyAny>> {
    Err(errors::timeout(py, "commit", timeout, false))
}

fn late_close(py: Python<'_>, timeout: Option<Duration>) -> PyResult<Py<PyAny>> {
    Err(errors::timeout(py, "leaving the group", timeout, false))
}

fn committed(py: Python<'_>, outcome: ottla::Result<()>) -> PyResult<Py<PyAny>> {
    outcome.or_raise(py)?;
    Ok(py.None())
}

#[pymethods]
impl AioConsumer {
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

    /// A consumer with settings by the names that Java's client and librdkafka have for them; see
    /// ottla.Consumer.from_properties.
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

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// The next record, however long it takes; ends when the consumer is closed.
    fn __anext__(&self, py: Python<'_>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.reading.next(py, What::Record, Else::Stops, Arc::default(), None)
    }

    /// The next record, or None if there was none within timeout (seconds or a timedelta; None waits for ever).
    /// Raises ClosedError once the consumer is closed. until: as ottla.Consumer.next has it.
    ///
    /// Cancelled: no record is lost; the next call gets it. In a group what the task had before is done all the same,
    /// as it has asked.
    #[pyo3(signature = (timeout=None, *, until=None))]
    fn next(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Operation> {
        let _inside = inside(py);
        let (timeout, ends) = (convert::timeout(timeout)?, Arc::new(convert::ends(until)?));
        self.reading.next(py, What::Record, Else::Nothing, ends, timeout)
    }

    /// Iterates over records, by "async for". Ends when the consumer is closed, when no record came within timeout
    /// (seconds or a timedelta; None waits for ever), or once each partition in until has reached its offset, as
    /// with ottla.Consumer.records.
    #[pyo3(signature = (timeout=None, *, until=None))]
    fn records(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<AioRecords> {
        let _inside = inside(py);
        let (timeout, ends) = (convert::timeout(timeout)?, Arc::new(convert::ends(until)?));
        Ok(AioRecords {
            reading: Arc::clone(&self.reading),
            timeout,
            ends,
            asked: self.asked.again(py),
        })
    }

    /// Iterates over batches, by "async for". Ends as records() does.
    #[pyo3(signature = (timeout=None, *, until=None))]
    fn batches(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<AioBatches> {
        let _inside = inside(py);
        let (timeout, ends) = (convert::timeout(timeout)?, Arc::new(convert::ends(until)?));
        Ok(AioBatches {
            reading: Arc::clone(&self.reading),
            timeout,
            ends,
            asked: self.asked.again(py),
        })
    }

    /// The next of what events() gives, or None if there was nothing within timeout (seconds or a timedelta; None
    /// waits for ever). Raises ClosedError once the consumer is closed. Cancelled: nothing is lost.
    #[pyo3(signature = (timeout=None))]
    fn next_event(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Operation> {
        let _inside = inside(py);
        let timeout = convert::timeout(timeout)?;
        self.reading.next(py, What::Event, Else::Nothing, Arc::default(), timeout)
    }

    /// Iterates over batches and, between them, what the group says, by "async for": see ottla.Consumer.events.
    #[pyo3(signature = (timeout=None))]
    fn events(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<AioEvents> {
        let _inside = inside(py);
        let timeout = convert::timeout(timeout)?;
        Ok(AioEvents { reading: Arc::clone(&self.reading), timeout, asked: self.asked.again(py) })
    }

    /// Commits what is done, and waits until the group has it. What the task has in hand is not done: record.ack()
    /// or batch.ack() before says that it is.
    ///
    /// timeout: seconds or a timedelta; None waits for as long as it takes. Raises TimeoutError after it, and
    /// FencedError if the consumer is no member of the group any more. Cancelled, or after the timeout: the commit stays on
    /// its way.
    #[pyo3(signature = (timeout=None))]
    fn commit(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Operation> {
        let _inside = inside(py);
        let timeout = convert::timeout(timeout)?;
        let control = self.reading.of.open(py)?.control.clone();
        let commit = async move { control.commit().await };
        Ok(engine("commit", timeout, commit, committed, late_commit))
    }

    /// Commits these offsets, of the next record to read, whatever is done: see ottla.Consumer.commit_to. Errors,
    /// timeout and a cancellation are as with commit().
    #[pyo3(signature = (offsets, timeout=None))]
    fn commit_to(
        &self,
        py: Python<'_>,
        offsets: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Operation> {
        let _inside = inside(py);
        let (offsets, timeout) = (member::places(offsets)?, convert::timeout(timeout)?);
        let control = self.reading.of.open(py)?.control.clone();
        let commit = async move {
            let places = offsets.iter();
            let places = places.map(|(topic, partition, offset)| (&**topic, *partition, *offset));
            control.commit_to(places).await
        };
        Ok(engine("commit_to", timeout, commit, committed, late_commit))
    }

    /// Reads these topics from now on, with the other members of the group.
    fn subscribe(&self, topics: &Bound<'_, PyAny>) -> PyResult<()> {
        let _inside = inside(topics.py());
        self.reading.of.subscribe(topics)
    }

    /// Where reading stands in a partition; see ottla.Consumer.position.
    fn position(
        &self,
        topic: &Bound<'_, PyAny>,
        partition: &Bound<'_, PyAny>,
    ) -> PyResult<Option<i64>> {
        self.reading.of.position(topic, partition)
    }

    /// How many offsets lie between the position of a partition and its end; see ottla.Consumer.lag.
    fn lag(&self, topic: &Bound<'_, PyAny>, partition: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
        self.reading.of.lag(topic, partition)
    }

    /// Goes on at another place of a partition: "earliest", "latest", an offset or a datetime. What was fetched
    /// of it and not handed out is dropped.
    fn seek(
        &self,
        topic: &Bound<'_, PyAny>,
        partition: &Bound<'_, PyAny>,
        start: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _inside = inside(topic.py());
        self.reading.of.seek(topic, partition, start)
    }

    /// Hands out nothing of these partitions, (topic, partition) tuples, until they are resumed; see
    /// ottla.Consumer.pause.
    fn pause(&self, partitions: &Bound<'_, PyAny>) -> PyResult<()> {
        let _inside = inside(partitions.py());
        self.reading.of.pause(partitions)
    }

    /// Hands these partitions, (topic, partition) tuples, out again, from where they were.
    fn resume(&self, partitions: &Bound<'_, PyAny>) -> PyResult<()> {
        let _inside = inside(partitions.py());
        self.reading.of.resume(partitions)
    }

    /// The partitions that are paused, as (topic, partition) tuples.
    fn paused(&self, py: Python<'_>) -> PyResult<Vec<(String, i32)>> {
        self.reading.of.paused(py)
    }

    /// Reads these partitions, too: (topic, partition, start) tuples; see ottla.Consumer.assign.
    fn assign(&self, assignment: &Bound<'_, PyAny>) -> PyResult<()> {
        let _inside = inside(assignment.py());
        self.reading.of.assign(assignment)
    }

    /// Reads these partitions, (topic, partition) tuples, no more; see ottla.Consumer.unassign.
    fn unassign(&self, partitions: &Bound<'_, PyAny>) -> PyResult<()> {
        let _inside = inside(partitions.py());
        self.reading.of.unassign(partitions)
    }

    /// The partitions read here, as (topic, partition) tuples; see ottla.Consumer.assignment.
    fn assignment(&self, py: Python<'_>) -> PyResult<Vec<(String, i32)>> {
        self.reading.of.assignment(py)
    }

    /// Counters of all handles of this process on the cluster, as ottla.Consumer.stats() gives them.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.reading.of.stats(py)
    }

    /// Ends the consumer, when this is called; iterations that wait end. To await it waits until a member of a group has
    /// committed what is done and has left, which takes 10 seconds at most; what tasks have in hand counts as
    /// not done.
    ///
    /// timeout: seconds or a timedelta. Raises TimeoutError after it: the consumer is closed, and the group may have
    /// to find that out by itself; so it is if the wait is cancelled. Closing twice is fine.
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.reading.close_within(py, convert::timeout(timeout)?, late_close)
    }

    /// Reaches a broker, within connect_timeout. If that fails the consumer is closed.
    fn __aenter__(slf: Bound<'_, Self>) -> PyResult<Operation> {
        let _inside = inside(slf.py());
        let (py, this) = (slf.py(), slf.get());
        let reader = this.reading.of.open(py)?;
        let (control, departure) = (reader.control.clone(), reader.departure.clone());
        let fails = async move {
            // It has no member yet that would have to leave.
            if bindings::close_consumer(&control).is_ok() {
                departure.wait().await;
            }
        };
        this.reach.enter(py, WHAT, slf.clone().into_any().unbind(), fails)
    }

    /// Closes: within 10 seconds, or 5 if the block is left by an exception.
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
        let timeout = (!exc.is_none()).then_some(CLOSE_TIMEOUT_IN_A_HURRY);
        self.reading.close_within(py, timeout, |py, _| Ok(py.None()))
    }

    fn __repr__(&self) -> &'static str {
        match self.reading.of.is_closed() {
            true => "<ottla.aio.Consumer closed>",
            false => "<ottla.aio.Consumer>",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.asked.traverse(&visit)
    }
}

/// Iterates over the records of a consumer.
#[pyclass(module = "ottla.aio", name = "Records", frozen)]
pub(crate) struct AioRecords {
    reading: Arc<Reading>,
    timeout: Option<Duration>,
    ends: Arc<Ends>,
    asked: Asked,
}

#[pymethods]
impl AioRecords {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self, py: Python<'_>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.reading.next(py, What::Record, Else::Stops, Arc::clone(&self.ends), self.timeout)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.asked.traverse(&visit)
    }
}

/// Iterates over the batches of a consumer.
#[pyclass(module = "ottla.aio", name = "Batches", frozen)]
pub(crate) struct AioBatches {
    reading: Arc<Reading>,
    timeout: Option<Duration>,
    ends: Arc<Ends>,
    asked: Asked,
}

#[pymethods]
impl AioBatches {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self, py: Python<'_>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.reading.next(py, What::Batch, Else::Stops, Arc::clone(&self.ends), self.timeout)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.asked.traverse(&visit)
    }
}

/// Iterates over the batches of a consumer, and what its group says.
#[pyclass(module = "ottla.aio", name = "Events", frozen)]
pub(crate) struct AioEvents {
    reading: Arc<Reading>,
    timeout: Option<Duration>,
    asked: Asked,
}

#[pymethods]
impl AioEvents {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self, py: Python<'_>) -> PyResult<Operation> {
        let _inside = inside(py);
        self.reading.next(py, What::Event, Else::Stops, Arc::default(), self.timeout)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.asked.traverse(&visit)
    }
}
