//! The consumer.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ottla::Start;
use ottla::bindings::Properties;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::batch::{Batch, Cursor, Record};
use crate::client::Connect;
use crate::convert::{self, Given};
use crate::errors::{self, OrRaise};
use crate::exclusive::{Exclusive, lock};
use crate::fork::Here;
use crate::guard::guarded;
use crate::settings::{Made, Settings};
use crate::stats::Statistics;
use crate::wait::{Deadline, wait};

const WHAT: &str = "consumer";

/// Reads records from Kafka: whole topics, or partitions that are named.
///
/// Consumer(bootstrap, topics=["events"]) or Consumer(bootstrap, assignment=[("events", 0,
/// "earliest")]). Iterating gives records; batches() gives batches; next() gives one record. More
/// settings: buffer_memory, check_crc, max_bytes, max_partition_bytes, max_wait, min_bytes, start, and
/// those of the client as a Producer has them: client_id, connect_timeout, idle_timeout,
/// on_cluster_change, ordinal, rack, request_timeout. Partitions of topics that are found after the consumer was made are read from
/// their first record, whatever start says. Several threads may share one; each record goes to one of
/// them. What is not reading (position, seek, assignment, stats, close) never waits for who reads: it
/// may be called from any thread, and from a signal handler.
#[pyclass(module = "ottla", frozen, weakref)]
pub(crate) struct Consumer {
    reader: Here<Reader>,
    closed: AtomicBool,
    statistics: Statistics,
}

/// What threads that read share. Of two locks that are held together the consumer's is taken first.
struct Reader {
    /// Locked while it is looked whether there is a batch, and while that is opened. Never across a
    /// wait.
    consumer: Mutex<ottla::Consumer>,
    control: ottla::ConsumerControl,
    /// The batches that records are taken from, in order. More than one only after a signal handler
    /// read while its thread waited for a batch.
    current: Mutex<VecDeque<Cursor>>,
    exclusive: Exclusive,
    pid: u32,
}

impl Reader {
    fn new(consumer: ottla::Consumer) -> Self {
        Self {
            control: consumer.control(),
            consumer: Mutex::new(consumer),
            current: Mutex::default(),
            exclusive: Exclusive::default(),
            pid: std::process::id(),
        }
    }

    /// Puts the next batch behind the current ones. Whoever seeks comes before or after it as a
    /// whole, so that no batch from before a seek is found there.
    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<ottla::Result<()>>> {
        let mut consumer = lock(&self.consumer);
        match consumer.poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Some(Ok(batch))) => {
                lock(&self.current).push_back(Cursor::new(batch));
                Poll::Ready(Some(Ok(())))
            }
        }
    }

    fn seek(&self, topic: &str, partition: i32, to: Start) -> ottla::Result<()> {
        let _no_batch_comes = lock(&self.consumer);
        self.control.seek(topic, partition, to)?;
        // Records in hand that were read before the seek are not wanted any more.
        let mut current = lock(&self.current);
        let (unwanted, kept) =
            current.drain(..).partition::<VecDeque<_>, _>(|cursor| cursor.is_of(topic, partition));
        *current = kept;
        drop(current);
        drop(unwanted);
        Ok(())
    }

    fn close(&self) -> ottla::Result<()> {
        self.control.close()?;
        let current = std::mem::take(&mut *lock(&self.current));
        drop(current);
        Ok(())
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

impl Made for Consumer {
    fn make(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        properties: Option<&Properties>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut settings = Settings::new(py, WHAT, settings)?;
        let connect = Connect::new(bootstrap, properties, &mut settings)?;
        let topics = settings.take("topics")?;
        let assignment = settings.take("assignment")?;
        let start = settings.take("start")?;
        let start = start.map(|start| convert::start(Given::Setting, &start)).transpose()?;
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
        if let Some(properties) = properties {
            builder = builder.from_properties(properties.iter());
        }
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
            reader: Here::new(Reader::new(consumer)),
            closed: AtomicBool::new(false),
            statistics: Statistics::of(&client),
        })
    }
}

impl Consumer {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// What is made of the batches in hand or, if `from` finds nothing there, of the next one.
    fn fetch<T>(
        &self,
        py: Python<'_>,
        deadline: Deadline,
        from: impl Fn(&mut VecDeque<Cursor>) -> Option<T>,
    ) -> PyResult<Fetched<T>> {
        let reader = self.reader.get(py, WHAT)?;
        let find = || from(&mut lock(&reader.current));
        let _turn = loop {
            if self.is_closed() {
                return Ok(Fetched::End);
            }
            if let Some(found) = find() {
                return Ok(Fetched::Got(found));
            }
            // Who had the turn at a fork never gives it back in the child.
            self.here(py)?;
            // Somebody else may bring records while this thread waits for its turn.
            let stop = || self.is_closed() || !lock(&reader.current).is_empty();
            match reader.exclusive.take(py, deadline, stop)? {
                Some(exclusive) => break exclusive,
                None if deadline.left().is_zero() => return Ok(Fetched::Nothing),
                None => {}
            }
        };
        loop {
            if let Some(found) = find() {
                return Ok(Fetched::Got(found));
            }
            // A signal handler may close it, or read, while this thread waits.
            let stop = || self.is_closed() || !lock(&reader.current).is_empty();
            let next = std::future::poll_fn(|context| reader.poll(context));
            match wait(py, deadline, stop, next)? {
                Some(Some(Ok(()))) => {}
                Some(Some(Err(error))) => return Err(errors::raise(py, &error)),
                Some(None) => return Ok(Fetched::End),
                None if self.is_closed() => return Ok(Fetched::End),
                None if deadline.left().is_zero() => {
                    return Ok(find().map_or(Fetched::Nothing, Fetched::Got));
                }
                None => {}
            }
        }
    }

    fn next_batch(&self, py: Python<'_>, deadline: Deadline) -> PyResult<Fetched<Batch>> {
        self.fetch(py, deadline, |current| {
            std::iter::from_fn(|| current.pop_front()).find_map(Cursor::into_batch)
        })
    }

    /// What threads share, if this is its process: also after a fork that nobody announced, when its
    /// locks may be held for ever. That is a system call, so not for every record.
    fn here(&self, py: Python<'_>) -> PyResult<&Reader> {
        let reader = self.reader.get(py, WHAT)?;
        if reader.pid == std::process::id() { Ok(reader) } else { Err(errors::forked(py, WHAT)) }
    }

    /// What asks and steers, without waiting for who reads.
    fn open(&self, py: Python<'_>) -> PyResult<&Reader> {
        let reader = self.here(py)?;
        if self.is_closed() { Err(errors::closed(py, WHAT)) } else { Ok(reader) }
    }
}

fn next_record(current: &mut VecDeque<Cursor>) -> Option<Record> {
    loop {
        if let Some(record) = current.front_mut()?.advance() {
            return Some(record);
        }
        current.pop_front();
    }
}

#[pymethods]
impl Consumer {
    #[new]
    #[pyo3(signature = (bootstrap=None, **settings), text_signature = "(bootstrap, **settings)")]
    fn new(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Self::made(py, bootstrap, settings)
    }

    /// A consumer with settings by the names that Java's client and librdkafka have for them, such
    /// as {"bootstrap.servers": "localhost:9092", "fetch.min.bytes": 1000}, completed or overruled by
    /// keywords as Consumer takes them: topics or assignment among them. What is named by neither
    /// keeps the default it has here: reading starts at the oldest record.
    ///
    /// Raises ConfigError for a property that no client has, and for one that asks for what is not
    /// done here, with what there is instead.
    #[staticmethod]
    #[pyo3(signature = (properties, **settings))]
    fn from_properties(
        py: Python<'_>,
        properties: &Bound<'_, PyAny>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Self::made_from(py, properties, settings)
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
    fn position(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        partition: &Bound<'_, PyAny>,
    ) -> PyResult<Option<i64>> {
        let topic = convert::text("topic", topic)?;
        let partition = convert::partition(partition)?;
        let reader = self.open(py)?;
        guarded(py, || Ok(reader.control.position(topic, partition)))
    }

    /// Goes on at another place of a partition: "earliest", "latest", an offset or a datetime.
    fn seek(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        partition: &Bound<'_, PyAny>,
        start: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let topic = convert::text("topic", topic)?;
        let partition = convert::partition(partition)?;
        let start = convert::start(Given::Argument, start)?;
        let reader = self.open(py)?;
        guarded(py, || py.detach(|| reader.seek(topic, partition, start)).or_raise(py))
    }

    /// The partitions read here, as (topic, partition) tuples; for whole topics empty until the
    /// cluster has told which there are.
    fn assignment(&self, py: Python<'_>) -> PyResult<Vec<(String, i32)>> {
        let reader = self.open(py)?;
        let partitions = guarded(py, || Ok(reader.control.assignment()))?;
        Ok(partitions.into_iter().map(|at| (at.topic.to_string(), at.partition)).collect())
    }

    /// Counters of all handles of this process on the cluster, added up, as a dict; its
    /// "bad_stuff" is all zero when all is well. Also when the consumer is closed, and while another
    /// thread waits for records.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.statistics.dict(py, WHAT)
    }

    /// Ends the consumer; iterations that wait in other threads end too. Closing twice is fine.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let reader = self.here(py)?;
        self.closed.store(true, Ordering::Relaxed);
        guarded(py, || reader.close().or_raise(py))
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
    for topic in convert::iterate("topics", "names", topics)? {
        names.push(convert::text("each of topics", &topic?)?.to_owned());
    }
    if names.is_empty() {
        return Err(errors::config(topics.py(), "topics is empty; name at least one"));
    }
    Ok(names)
}

fn assigned(assignment: &Bound<'_, PyAny>) -> PyResult<Vec<(String, i32, Start)>> {
    let mut out = Vec::new();
    for entry in convert::iterate("assignment", "(topic, partition, start) tuples", assignment)? {
        let entry = entry?;
        let Some(entry) = entry.cast::<PyTuple>().ok().filter(|entry| entry.len() == 3) else {
            return Err(PyTypeError::new_err(format!(
                "assignment must be a list of (topic, partition, start) tuples, where start is \
                 'earliest', 'latest', an offset or a datetime; one of them is {}",
                convert::type_name(&entry)
            )));
        };
        let topic = convert::text("the topic in assignment", &entry.get_item(0)?)?.to_owned();
        let partition = entry.get_item(1)?;
        let partition = convert::integer("the partition in assignment", "an int", &partition)?;
        out.push((topic, partition, convert::start(Given::Setting, &entry.get_item(2)?)?));
    }
    if out.is_empty() {
        return Err(errors::config(
            assignment.py(),
            "assignment is empty; name at least one partition",
        ));
    }
    Ok(out)
}
