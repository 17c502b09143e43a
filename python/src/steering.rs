//! What every consumer is asked and told besides reading: where it stands, and where it is to go on. None of it waits for
//! who reads.

use std::sync::atomic::{AtomicBool, Ordering};

use ottla::{ConsumerControl, Start, TopicPartition};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::convert::{self, Given};
use crate::ending;
use crate::errors::{self, OrRaise};
use crate::fork::Here;
use crate::guard::guarded;
use crate::reader::Reader;
use crate::stats::Statistics;

pub(crate) const WHAT: &str = "consumer";

/// A consumer, as it is steered.
pub(crate) struct Steered {
    reader: Here<Reader>,
    closed: AtomicBool,
    statistics: Statistics,
}

impl Steered {
    pub(crate) fn new(reader: Reader, statistics: Statistics) -> Self {
        Self { reader: Here::new(reader), closed: AtomicBool::new(false), statistics }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// What reads, if this is its process as far as is known without asking the system.
    pub(crate) fn reader(&self, py: Python<'_>) -> PyResult<&Reader> {
        self.reader.get(py, WHAT)
    }

    /// The same, for who asks nobody for an error.
    pub(crate) fn reader_here(&self) -> Option<&Reader> {
        self.reader.get_here()
    }

    /// What threads share, if this is its process: also after a fork that nobody announced, when its
    /// locks may be held for ever. That is a system call, so not for every record.
    pub(crate) fn here(&self, py: Python<'_>) -> PyResult<&Reader> {
        let reader = self.reader(py)?;
        if reader.pid == std::process::id() { Ok(reader) } else { Err(errors::forked(py, WHAT)) }
    }

    /// What asks and steers, without waiting for who reads.
    pub(crate) fn open(&self, py: Python<'_>) -> PyResult<&Reader> {
        let reader = self.here(py)?;
        if self.is_closed() { Err(errors::closed(py, WHAT)) } else { Ok(reader) }
    }

    /// Ends reading. The reader's departure is to be waited for.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<&Reader> {
        let reader = self.here(py)?;
        self.closed.store(true, Ordering::Relaxed);
        guarded(py, || reader.close().or_raise(py))?;
        Ok(reader)
    }

    fn steer(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&ConsumerControl) -> ottla::Result<()> + Send,
    ) -> PyResult<()> {
        let reader = self.open(py)?;
        guarded(py, || ending::detach(py, || reader.steer(call)).or_raise(py))
    }

    pub(crate) fn subscribe(&self, topics: &Bound<'_, PyAny>) -> PyResult<()> {
        let names = topic_names(Given::Argument, topics)?;
        self.steer(topics.py(), |control| control.subscribe(names))
    }

    pub(crate) fn position(
        &self,
        topic: &Bound<'_, PyAny>,
        partition: &Bound<'_, PyAny>,
    ) -> PyResult<Option<i64>> {
        let py = topic.py();
        let topic = convert::text("topic", topic)?;
        let partition = convert::partition(partition)?;
        let reader = self.open(py)?;
        guarded(py, || Ok(reader.control.position(topic, partition)))
    }

    pub(crate) fn lag(
        &self,
        topic: &Bound<'_, PyAny>,
        partition: &Bound<'_, PyAny>,
    ) -> PyResult<Option<i64>> {
        let py = topic.py();
        let topic = convert::text("topic", topic)?;
        let partition = convert::partition(partition)?;
        let reader = self.open(py)?;
        guarded(py, || Ok(reader.control.lag(topic, partition)))
    }

    pub(crate) fn seek(
        &self,
        topic: &Bound<'_, PyAny>,
        partition: &Bound<'_, PyAny>,
        start: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = topic.py();
        let topic = convert::text("topic", topic)?;
        let partition = convert::partition(partition)?;
        let start = convert::start(Given::Argument, start)?;
        self.steer(py, |control| control.seek(topic, partition, start))
    }

    pub(crate) fn pause(&self, partitions: &Bound<'_, PyAny>) -> PyResult<()> {
        let list = convert::partitions(partitions)?;
        self.steer(partitions.py(), |control| control.pause(named(&list)))
    }

    pub(crate) fn resume(&self, partitions: &Bound<'_, PyAny>) -> PyResult<()> {
        let list = convert::partitions(partitions)?;
        self.steer(partitions.py(), |control| control.resume(named(&list)))
    }

    pub(crate) fn paused(&self, py: Python<'_>) -> PyResult<Vec<(String, i32)>> {
        let reader = self.open(py)?;
        guarded(py, || Ok(reader.control.paused())).map(tuples)
    }

    pub(crate) fn assign(&self, assignment: &Bound<'_, PyAny>) -> PyResult<()> {
        let list = assigned(Given::Argument, assignment)?;
        self.steer(assignment.py(), |control| control.assign(list))
    }

    pub(crate) fn unassign(&self, partitions: &Bound<'_, PyAny>) -> PyResult<()> {
        let list = convert::partitions(partitions)?;
        self.steer(partitions.py(), |control| control.unassign(named(&list)))
    }

    pub(crate) fn assignment(&self, py: Python<'_>) -> PyResult<Vec<(String, i32)>> {
        let reader = self.open(py)?;
        guarded(py, || Ok(reader.control.assignment())).map(tuples)
    }

    pub(crate) fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.statistics.dict(py, WHAT)
    }
}

pub(crate) fn topic_names(given: Given, topics: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
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
        return Err(given.wrong(topics.py(), "topics is empty; name at least one"));
    }
    Ok(names)
}

fn named(list: &[(String, i32)]) -> impl Iterator<Item = (&str, i32)> {
    list.iter().map(|(topic, partition)| (topic.as_str(), *partition))
}

fn tuples(list: Vec<TopicPartition>) -> Vec<(String, i32)> {
    list.into_iter().map(|of| (of.topic.to_string(), of.partition)).collect()
}

pub(crate) fn assigned(
    given: Given,
    assignment: &Bound<'_, PyAny>,
) -> PyResult<Vec<(String, i32, Start)>> {
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
        out.push((topic, partition, convert::start(given, &entry.get_item(2)?)?));
    }
    if out.is_empty() {
        let wrong = "assignment is empty; name at least one partition";
        return Err(given.wrong(assignment.py(), wrong));
    }
    Ok(out)
}
