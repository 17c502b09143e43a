//! The consumer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use ottla::Start;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::batch::{Batch, Cursor, Record};
use crate::client::Connect;
use crate::convert;
use crate::errors::{self, OrRaise};
use crate::fork::Here;
use crate::settings::Settings;
use crate::stats::Statistics;
use crate::wait::{Deadline, SLICE, wait};

const WHAT: &str = "consumer";
/// How long `close` waits for another thread to let go of the consumer. Such a thread looks up
/// every [`SLICE`], so this is reached only if it is stuck.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Reads records from Kafka: whole topics, or partitions that are named.
///
/// Consumer(bootstrap, topics=["events"]) or Consumer(bootstrap, assignment=[("events", 0,
/// "earliest")]). Iterating gives records; batches() gives batches; next() gives one record. More
/// settings: buffer_memory, check_crc, max_bytes, max_partition_bytes, max_wait, min_bytes, start, and
/// those of the client as a Producer has them: client_id, connect_timeout, idle_timeout, ordinal,
/// rack, request_timeout. Several threads may share one; each record goes to one of them.
#[pyclass(module = "ottla", frozen, weakref)]
pub(crate) struct Consumer {
    turn: Here<Turn<ottla::Consumer>>,
    /// The batch that records are taken from. Never locked across a wait.
    current: Mutex<Option<Cursor>>,
    closed: AtomicBool,
    statistics: Statistics,
}

/// Something that one thread at a time takes out, uses (perhaps waiting long) and puts back.
struct Turn<T> {
    slot: Mutex<Option<T>>,
    free: Condvar,
}

impl<T: Send> Turn<T> {
    fn new(thing: T) -> Self {
        Self { slot: Mutex::new(Some(thing)), free: Condvar::new() }
    }

    fn slot(&self) -> MutexGuard<'_, Option<T>> {
        self.slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for the turn; `None` when `deadline` passes or `stop` says so.
    fn take(
        &self,
        py: Python<'_>,
        deadline: Deadline,
        stop: impl Fn() -> bool,
    ) -> PyResult<Option<Held<'_, T>>> {
        let held = |thing| Held { thing: Some(thing), turn: self };
        loop {
            if let Some(thing) = self.slot().take() {
                return Ok(Some(held(thing)));
            }
            if deadline.left().is_zero() || stop() {
                return Ok(None);
            }
            let slice = deadline.left().min(SLICE);
            py.detach(|| {
                let slot = self.slot();
                if slot.is_none() {
                    let _ = self.free.wait_timeout(slot, slice);
                }
            });
            py.check_signals()?;
        }
    }
}

/// The turn, given back when dropped.
struct Held<'a, T: Send> {
    thing: Option<T>,
    turn: &'a Turn<T>,
}

impl<T: Send> Held<'_, T> {
    fn get(&mut self) -> &mut T {
        self.thing.as_mut().expect("only dropping takes it")
    }
}

impl<T: Send> Drop for Held<'_, T> {
    fn drop(&mut self) {
        *self.turn.slot() = self.thing.take();
        self.turn.free.notify_one();
    }
}

/// How a wait for records ended.
enum Fetched<T> {
    Got(T),
    /// The timeout passed.
    Nothing,
    /// The consumer was closed, or ended by a fatal error that was raised before.
    End,
}

impl Consumer {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn current(&self) -> MutexGuard<'_, Option<Cursor>> {
        self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What is made of the batch in hand or, if `from` finds nothing there, of the next one.
    fn fetch<T>(
        &self,
        py: Python<'_>,
        deadline: Deadline,
        from: impl Fn(&mut Option<Cursor>) -> Option<T>,
    ) -> PyResult<Fetched<T>> {
        let turn = self.turn.get(py, WHAT)?;
        if self.is_closed() {
            return Ok(Fetched::End);
        }
        if let Some(found) = from(&mut self.current()) {
            return Ok(Fetched::Got(found));
        }
        let stop = || self.is_closed();
        let Some(mut held) = turn.take(py, deadline, stop)? else {
            return Ok(if stop() { Fetched::End } else { Fetched::Nothing });
        };
        loop {
            // Another thread may have brought a batch while this one waited for its turn.
            if let Some(found) = from(&mut self.current()) {
                return Ok(Fetched::Got(found));
            }
            let consumer = held.get();
            let next = match consumer.try_next() {
                Some(next) => Some(Some(next)),
                None => wait(py, deadline, stop, consumer.next())?,
            };
            match next {
                Some(Some(Ok(batch))) => *self.current() = Some(Cursor::new(batch)),
                Some(Some(Err(error))) => return Err(errors::raise(py, &error)),
                Some(None) => return Ok(Fetched::End),
                None => return Ok(if stop() { Fetched::End } else { Fetched::Nothing }),
            }
        }
    }

    fn next_batch(&self, py: Python<'_>, deadline: Deadline) -> PyResult<Fetched<Batch>> {
        self.fetch(py, deadline, |current| current.take().and_then(Cursor::into_batch))
    }

    fn open_turn(&self, py: Python<'_>) -> PyResult<Held<'_, ottla::Consumer>> {
        let turn = self.turn.get(py, WHAT)?;
        if !self.is_closed()
            && let Some(held) = turn.take(py, Deadline::never(), || self.is_closed())?
        {
            return Ok(held);
        }
        Err(errors::closed(py, WHAT))
    }
}

fn next_record(current: &mut Option<Cursor>) -> Option<Record> {
    let record = current.as_mut()?.advance();
    if record.is_none() {
        *current = None;
    }
    record
}

#[pymethods]
impl Consumer {
    #[new]
    #[pyo3(signature = (bootstrap, **settings))]
    fn new(
        py: Python<'_>,
        bootstrap: &str,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut settings = Settings::new(py, WHAT, settings)?;
        let connect = Connect::new(bootstrap, &mut settings)?;
        let topics = settings.take("topics")?;
        let assignment = settings.take("assignment")?;
        let start = settings.take("start")?.map(|start| convert::start(&start)).transpose()?;
        let max_wait = settings.duration("max_wait")?;
        let min_bytes = settings.size("min_bytes")?;
        let max_bytes = settings.size("max_bytes")?;
        let max_partition_bytes = settings.size("max_partition_bytes")?;
        let buffer_memory = settings.size("buffer_memory")?;
        let check_crc = settings.bool("check_crc")?;
        settings.finish()?;
        let topics = topics.map(|topics| topic_names(&topics)).transpose()?;
        let assignment = assignment.map(|assignment| assigned(&assignment)).transpose()?;
        if topics.is_some() == assignment.is_some() {
            return Err(errors::config(
                py,
                "a consumer takes either topics=[name, ...] or assignment=[(topic, partition, start), ...]",
            ));
        }

        let client = connect.connect(py)?;
        let mut builder = client.consumer();
        if let Some(topics) = topics {
            builder = builder.topics(topics);
        }
        if let Some(assignment) = assignment {
            builder = builder.assign(assignment);
        }
        if let Some(start) = start {
            builder = builder.start(start);
        }
        if let Some(time) = max_wait {
            builder = builder.max_wait(time);
        }
        if let Some(bytes) = min_bytes {
            builder = builder.min_bytes(bytes);
        }
        if let Some(bytes) = max_bytes {
            builder = builder.max_bytes(bytes);
        }
        if let Some(bytes) = max_partition_bytes {
            builder = builder.max_partition_bytes(bytes);
        }
        if let Some(bytes) = buffer_memory {
            builder = builder.buffer_memory(bytes);
        }
        if let Some(check) = check_crc {
            builder = builder.check_crc(check);
        }
        let consumer = builder.build().or_raise(py)?;
        Ok(Self {
            turn: Here::new(Turn::new(consumer)),
            current: Mutex::new(None),
            closed: AtomicBool::new(false),
            statistics: Statistics::of(&client),
        })
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// The next record, however long it takes; ends when the consumer is closed.
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Record>> {
        match self.fetch(py, Deadline::never(), next_record)? {
            Fetched::Got(record) => Ok(Some(record)),
            Fetched::Nothing | Fetched::End => Ok(None),
        }
    }

    /// The next record, or None if there was none within timeout (seconds or a timedelta; None
    /// waits for ever). Raises ClosedError once the consumer is closed.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Record>> {
        let deadline = Deadline::after(convert::timeout(timeout)?);
        match self.fetch(py, deadline, next_record)? {
            Fetched::Got(record) => Ok(Some(record)),
            Fetched::Nothing => Ok(None),
            Fetched::End => Err(errors::closed(py, WHAT)),
        }
    }

    /// Iterates over batches. Ends when the consumer is closed, or when no batch came within
    /// timeout (seconds or a timedelta; None waits for ever).
    #[pyo3(signature = (timeout=None))]
    fn batches(slf: Py<Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Batches> {
        Ok(Batches { consumer: slf, timeout: convert::timeout(timeout)? })
    }

    /// Offset of the next record of a partition that the engine hands over, or None if it is not
    /// known yet or not read here. Records of a batch in hand are before it.
    fn position(&self, py: Python<'_>, topic: &str, partition: i32) -> PyResult<Option<i64>> {
        Ok(self.open_turn(py)?.get().position(topic, partition))
    }

    /// Goes on at another place of a partition: "earliest", "latest", an offset or a datetime.
    fn seek(
        &self,
        py: Python<'_>,
        topic: &str,
        partition: i32,
        start: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let start = convert::start(start)?;
        let mut held = self.open_turn(py)?;
        held.get().seek(topic, partition, start).or_raise(py)?;
        // Records in hand that were read before the seek are not wanted any more.
        let mut current = self.current();
        if current.as_ref().is_some_and(|cursor| cursor.is_of(topic, partition)) {
            *current = None;
        }
        Ok(())
    }

    /// The partitions read here, as (topic, partition) tuples; for whole topics empty until the
    /// cluster has told which there are.
    fn assignment(&self, py: Python<'_>) -> PyResult<Vec<(String, i32)>> {
        let partitions = self.open_turn(py)?.get().assignment();
        Ok(partitions.into_iter().map(|at| (at.topic.to_string(), at.partition)).collect())
    }

    /// What all handles of this process on the cluster have done together, as a dict; its
    /// "bad_stuff" is all zero when all is well. Also when the consumer is closed, and while another
    /// thread waits for records.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.statistics.dict(py, WHAT)
    }

    /// Ends the consumer; iterations that wait in other threads end too. Closing twice is fine.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let turn = self.turn.get(py, WHAT)?;
        self.closed.store(true, Ordering::Relaxed);
        *self.current() = None;
        let Some(mut held) = turn.take(py, Deadline::after(Some(CLOSE_WAIT)), || false)? else {
            return Err(errors::timeout(
                py,
                "closing the consumer while another thread uses it",
                Some(CLOSE_WAIT),
                false,
            ));
        };
        match wait(py, Deadline::never(), || false, held.get().close())? {
            Some(outcome) => outcome.or_raise(py),
            None => Ok(()),
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Closes.
    #[pyo3(signature = (exc_type, exc, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_type, exc, traceback);
        self.close(py)
    }

    fn __repr__(&self) -> &'static str {
        if self.is_closed() { "<ottla.Consumer closed>" } else { "<ottla.Consumer>" }
    }
}

/// Iterates over the batches of a consumer.
#[pyclass(module = "ottla", frozen)]
pub(crate) struct Batches {
    consumer: Py<Consumer>,
    timeout: Option<Duration>,
}

#[pymethods]
impl Batches {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        match self.consumer.get().next_batch(py, Deadline::after(self.timeout))? {
            Fetched::Got(batch) => Ok(Some(batch)),
            Fetched::Nothing | Fetched::End => Ok(None),
        }
    }
}

fn topic_names(topics: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if topics.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(format!(
            "topics is a str; write a list: topics=['{topics}']"
        )));
    }
    let mut names = Vec::new();
    for topic in topics.try_iter()? {
        names.push(topic?.extract::<String>()?);
    }
    if names.is_empty() {
        return Err(errors::config(topics.py(), "topics is empty; name at least one"));
    }
    Ok(names)
}

fn assigned(assignment: &Bound<'_, PyAny>) -> PyResult<Vec<(String, i32, Start)>> {
    let mut out = Vec::new();
    for entry in assignment.try_iter()? {
        let entry = entry?;
        let Ok((topic, partition, start)) = entry.extract::<(String, i32, Bound<'_, PyAny>)>()
        else {
            return Err(PyTypeError::new_err(
                "assignment must be a list of (topic, partition, start) tuples, where start is \
                 'earliest', 'latest', an offset or a datetime",
            ));
        };
        out.push((topic, partition, convert::start(&start)?));
    }
    if out.is_empty() {
        return Err(errors::config(
            assignment.py(),
            "assignment is empty; name at least one partition",
        ));
    }
    Ok(out)
}
