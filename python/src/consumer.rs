//! The consumer.

use std::task::{Context, Poll};
use std::time::Duration;

use ottla::bindings::Properties;
use ottla::{Isolation, Start};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::batch::{Batch, Record};
use crate::client::Connect;
use crate::convert::{self, Given};
use crate::enums;
use crate::errors::{self, OrRaise};
use crate::exit;
use crate::member::{self, Membership};
use crate::oauth::Asked;
use crate::reader::{Ends, Looked, Reader};
use crate::settings::{Made, Settings};
use crate::stats::Statistics;
use crate::steering::{Steered, WHAT, assigned, topic_names};
use crate::wait::{Deadline, wait};

/// How long leaving a block by an exception may take.
pub(crate) const CLOSE_TIMEOUT_IN_A_HURRY: Duration = Duration::from_secs(5);

/// Reads records from Kafka: whole topics, or partitions that are named.
///
/// Consumer(bootstrap, topics=["events"]) or Consumer(bootstrap, assignment=[("events", 0,
/// "earliest")]); Consumer(bootstrap, group="billing", topics=["events"]) reads them together with the other
/// members of the group, and goes on where it was. Iterating gives records; batches() gives batches; next() gives one
/// record.
///
/// In a group what a thread was given is done when the same thread asks for the next; to break out of the loop, an exception or
/// Ctrl-C leave it undone, so that it is read again by who comes next. What is done is committed every
/// commit_interval (5 s), when partitions are given up, and by close() and the end of a with block.
/// commit: "marks" is that; with "acked" only what has called ack() is done, in any order; with
/// "manual" it is as with "marks", with "manual_acked" as with "acked", and committed by commit() alone. What a thread had
/// in hand that has ended is never done. More settings of a member: assignors ("range",
/// "roundrobin", "sticky", "cooperative-sticky"), group_protocol ("auto", "classic", "next"), instance_id (a static
/// member), max_poll_interval (how long the program may take between two batches), remote_assignor (under the next
/// generation), session_timeout.
///
/// More settings: buffer_memory, check_crc, isolation ("read_committed": nothing of aborted transactions), max_bytes, max_partition_bytes, max_wait, min_bytes, start, and
/// those of the client as a Producer has them: client_id, connect_timeout, idle_timeout,
/// on_cluster_change, ordinal, rack, request_timeout, sasl, tls. Partitions of topics that are found after the consumer was made are read from
/// their first record, whatever start says. Several threads may share one; each record goes to one of
/// them. What is not reading (position, lag, seek, pause, resume, assign, unassign, assignment, stats,
/// subscribe, commit, close) never waits for who reads: it may be called from any thread, and from a signal handler.
#[pyclass(module = "ottla", frozen, weakref)]
pub(crate) struct Consumer {
    of: Steered,
    asked: Asked,
}

/// How a wait for records ended.
enum Fetched<T> {
    Got(T),
    /// The group says something.
    Event(ottla::Event),
    /// The timeout passed.
    Nothing,
    /// The partitions that were named are where they were to come to.
    Reached,
    /// The consumer was closed, or ended by a fatal error that was raised before.
    End,
}

/// What the settings of a consumer say.
pub(crate) struct Wanted {
    topics: Option<Vec<String>>,
    assignment: Option<Vec<(String, i32, Start)>>,
    start: Option<Start>,
    max_wait: Option<Duration>,
    min_bytes: Option<usize>,
    max_bytes: Option<usize>,
    max_partition_bytes: Option<usize>,
    buffer_memory: Option<usize>,
    check_crc: Option<bool>,
    isolation: Option<Isolation>,
    member: Membership,
}

impl Wanted {
    pub(crate) fn take(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        properties: Option<&Properties>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<(Connect, Self)> {
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
        let isolation = enums::isolation(&mut settings)?;
        let member = Membership::take(&mut settings)?;
        settings.finish()?;
        let topics = topics.map(|topics| topic_names(Given::Setting, &topics)).transpose()?;
        let assignment =
            assignment.map(|assignment| assigned(Given::Setting, &assignment)).transpose()?;
        if member.group.is_some() && assignment.is_some() {
            return Err(errors::config(
                py,
                "a group decides itself which partitions its members read: leave out assignment, or group",
            ));
        }
        if topics.is_some() == assignment.is_some() {
            return Err(errors::config(
                py,
                "a consumer takes either topics=[name, ...] or assignment=[(topic, partition, start), ...]",
            ));
        }
        if properties.is_none() {
            member.check(py)?;
        }
        let wanted = Self {
            topics,
            assignment,
            start,
            max_wait,
            min_bytes,
            max_bytes,
            max_partition_bytes,
            buffer_memory,
            check_crc,
            isolation,
            member,
        };
        Ok((connect, wanted))
    }

    pub(crate) fn build(
        self,
        py: Python<'_>,
        client: &ottla::Client,
        properties: Option<&Properties>,
    ) -> PyResult<Steered> {
        let mut builder = client.consumer();
        if let Some(properties) = properties {
            builder = builder.from_properties(properties.iter());
        }
        if let Some(topics) = self.topics {
            builder = builder.topics(topics);
        }
        if let Some(assignment) = self.assignment {
            builder = builder.assign(assignment);
        }
        if let Some(start) = self.start {
            builder = builder.start(start);
        }
        if let Some(time) = self.max_wait {
            builder = builder.max_wait(time);
        }
        if let Some(bytes) = self.min_bytes {
            builder = builder.min_bytes(bytes);
        }
        if let Some(bytes) = self.max_bytes {
            builder = builder.max_bytes(bytes);
        }
        if let Some(bytes) = self.max_partition_bytes {
            builder = builder.max_partition_bytes(bytes);
        }
        if let Some(bytes) = self.buffer_memory {
            builder = builder.buffer_memory(bytes);
        }
        if let Some(check) = self.check_crc {
            builder = builder.check_crc(check);
        }
        if let Some(isolation) = self.isolation {
            builder = builder.isolation(isolation);
        }
        let consumer = self.member.set(builder).build().or_raise(py)?;
        let reader = Reader::new(consumer);
        exit::joined(&reader.control, &reader.departure);
        Ok(Steered::new(reader, Statistics::of(client)))
    }
}

impl Made for Consumer {
    fn make(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        properties: Option<&Properties>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (connect, wanted) = Wanted::take(py, bootstrap, properties, settings)?;
        let (client, asked) = connect.connect(py)?;
        Ok(Self { of: wanted.build(py, &client, properties)?, asked })
    }
}

impl Consumer {
    fn is_closed(&self) -> bool {
        self.of.is_closed()
    }

    /// What `find` finds in hand or, if that is nothing, in the next batch; until the partitions of `ends` are there.
    fn fetch<T>(
        &self,
        py: Python<'_>,
        deadline: Deadline,
        ends: &Ends,
        find: impl Fn(&Reader) -> Option<T>,
    ) -> PyResult<Fetched<T>> {
        let look = |reader: &Reader, context: &mut Context<'_>| reader.poll(ends, context);
        self.fetch_by(py, deadline, look, find)
    }

    fn fetch_by<T>(
        &self,
        py: Python<'_>,
        deadline: Deadline,
        look: impl Fn(&Reader, &mut Context<'_>) -> Poll<ottla::Result<Looked>> + Sync,
        find: impl Fn(&Reader) -> Option<T>,
    ) -> PyResult<Fetched<T>> {
        let reader = self.of.reader(py)?;
        let _turn = loop {
            if self.is_closed() {
                return Ok(Fetched::End);
            }
            if let Some(found) = find(reader) {
                return Ok(Fetched::Got(found));
            }
            // Who had the turn at a fork never gives it back in the child.
            self.of.here(py)?;
            // Somebody else may bring records while this thread waits for its turn.
            let stop = || self.is_closed() || reader.has_current();
            match reader.exclusive.take(py, deadline, stop)? {
                Some(exclusive) => break exclusive,
                None if deadline.left().is_zero() => return Ok(Fetched::Nothing),
                None => {}
            }
        };
        let _waits = reader.waits();
        loop {
            if let Some(found) = find(reader) {
                return Ok(Fetched::Got(found));
            }
            // A signal handler may close it, or read, while this thread waits.
            let stop = || self.is_closed() || reader.has_current();
            let next = std::future::poll_fn(|context| look(reader, context));
            match wait(py, deadline, stop, next)? {
                Some(Ok(Looked::Found)) => {}
                Some(Ok(Looked::Event(event))) => return Ok(Fetched::Event(event)),
                Some(Ok(Looked::Reached)) => return Ok(Fetched::Reached),
                Some(Ok(Looked::End)) => return Ok(Fetched::End),
                Some(Err(error)) => return Err(errors::raise(py, &error)),
                None if self.is_closed() => return Ok(Fetched::End),
                None if deadline.left().is_zero() => {
                    return Ok(find(reader).map_or(Fetched::Nothing, Fetched::Got));
                }
                None => {}
            }
        }
    }

    /// The next batch, or what the group says.
    fn next_of_all<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<Duration>,
    ) -> PyResult<Fetched<Bound<'py, PyAny>>> {
        let deadline = Deadline::after(timeout);
        Ok(match self.fetch_by(py, deadline, Reader::poll_event, Reader::batch)? {
            Fetched::Got(batch) => Fetched::Got(Bound::new(py, batch)?.into_any()),
            Fetched::Event(event) => match member::event(py, event)? {
                Some(event) => Fetched::Got(event),
                None => Fetched::Nothing,
            },
            Fetched::Nothing => Fetched::Nothing,
            Fetched::Reached => Fetched::Reached,
            Fetched::End => Fetched::End,
        })
    }

    /// Waits for what a group is asked to do.
    fn order(
        &self,
        py: Python<'_>,
        timeout: Option<Duration>,
        order: impl Future<Output = ottla::Result<()>> + Send,
    ) -> PyResult<()> {
        match wait(py, Deadline::after(timeout), || false, order)? {
            Some(outcome) => outcome.or_raise(py),
            None => Err(errors::timeout(py, "commit", timeout, false)),
        }
    }

    /// Gives whether all is over in time: a group's member has left.
    fn close_within(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<bool> {
        let reader = self.of.close(py)?;
        // The engine ends the wait itself after 10 s.
        Ok(wait(py, Deadline::after(timeout), || false, reader.departure.wait())?.is_some())
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
        match self.fetch(py, Deadline::never(), &Ends::new(), Reader::record)? {
            Fetched::Got(record) => Ok(Some(record)),
            _ => Ok(None),
        }
    }

    /// The next record, or None if there was none within timeout (seconds or a timedelta; None
    /// waits for ever). Raises ClosedError once the consumer is closed.
    ///
    /// until: a dict of (topic, partition) tuples and offsets, as Admin.offsets() gives it. None
    /// comes, too, once each of these partitions has reached its offset. See records().
    #[pyo3(signature = (timeout=None, *, until=None))]
    fn next(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Record>> {
        let deadline = Deadline::after(convert::timeout(timeout)?);
        match self.fetch(py, deadline, &convert::ends(until)?, Reader::record)? {
            Fetched::Got(record) => Ok(Some(record)),
            Fetched::End => Err(errors::closed(py, WHAT)),
            _ => Ok(None),
        }
    }

    /// Iterates over records. Ends when the consumer is closed, when no record came within timeout
    /// (seconds or a timedelta; None waits for ever), or once each partition in until has reached
    /// its offset.
    ///
    /// until: a dict of (topic, partition) tuples and offsets, as Admin.offsets() gives it. That is
    /// how to read up to an end that was looked up before, also where the last offsets hold nothing
    /// that is handed out (markers of transactions, what compaction has removed). Records of other
    /// partitions come, too. A partition that is not read, or not known yet, has reached nothing;
    /// one that is paused gets there when it is resumed.
    #[pyo3(signature = (timeout=None, *, until=None))]
    fn records(
        slf: Py<Self>,
        timeout: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Records> {
        let (timeout, ends) = (convert::timeout(timeout)?, convert::ends(until)?);
        Ok(Records { consumer: slf, timeout, ends })
    }

    /// Iterates over batches. Ends as records() does.
    #[pyo3(signature = (timeout=None, *, until=None))]
    fn batches(
        slf: Py<Self>,
        timeout: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Batches> {
        let (timeout, ends) = (convert::timeout(timeout)?, convert::ends(until)?);
        Ok(Batches { consumer: slf, timeout, ends })
    }

    /// The next of what events() gives, or None if there was nothing within timeout (seconds or a timedelta; None
    /// waits for ever). Raises ClosedError once the consumer is closed.
    #[pyo3(signature = (timeout=None))]
    fn next_event<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.next_of_all(py, convert::timeout(timeout)?)? {
            Fetched::Got(event) => Ok(Some(event)),
            Fetched::End => Err(errors::closed(py, WHAT)),
            _ => Ok(None),
        }
    }

    /// Iterates over batches and, between them, what the group says: Assigned (partitions that it gives this
    /// consumer), GivingUp (partitions that it takes away: what of them is done when the next event is asked for is
    /// committed; at the deadline they are gone), Lost (partitions that others may have by now). To ask for the next says
    /// that the last is done with, and so does next() or any other call that reads: those give no events, which wait for the next
    /// call of this. One thread reads. Ends when the consumer is closed, or when nothing came within
    /// timeout (seconds or a timedelta; None waits for ever).
    #[pyo3(signature = (timeout=None))]
    fn events(slf: Py<Self>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Events> {
        Ok(Events { consumer: slf, timeout: convert::timeout(timeout)? })
    }

    /// Commits what is done, and waits until the group has it. What the thread has in hand is not done:
    /// record.ack() or batch.ack() before says that it is.
    ///
    /// timeout: seconds or a timedelta; None waits for as long as it takes. Raises TimeoutError after it (the commit
    /// stays on its way, for request_timeout at most), FencedError if the consumer is no member of the group any more, or a
    /// partition has gone since without a commit of what was done of it.
    #[pyo3(signature = (timeout=None))]
    fn commit(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let timeout = convert::timeout(timeout)?;
        let reader = self.of.open(py)?;
        self.order(py, timeout, reader.control.commit())
    }

    /// Commits these offsets, of the next record to read, whatever is done: a dict of (topic, partition) tuples and
    /// offsets, or (topic, partition, offset) tuples. Errors and timeout are those of commit().
    #[pyo3(signature = (offsets, timeout=None))]
    fn commit_to(
        &self,
        py: Python<'_>,
        offsets: &Bound<'_, PyAny>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (offsets, timeout) = (member::places(offsets)?, convert::timeout(timeout)?);
        let reader = self.of.open(py)?;
        let places =
            offsets.iter().map(|(topic, partition, offset)| (topic.as_str(), *partition, *offset));
        self.order(py, timeout, reader.control.commit_to(places))
    }

    /// Reads these topics from now on, with the other members of the group; patterns as in Consumer.
    fn subscribe(&self, topics: &Bound<'_, PyAny>) -> PyResult<()> {
        self.of.subscribe(topics)
    }

    /// Where reading stands in a partition: the offset behind what was taken of it, or passed over
    /// because it is not handed out (markers of transactions, what compaction has removed). Records
    /// of a batch in hand are before it. Before the first record where reading begins, once that is
    /// known; None until then, and if it is not read here.
    fn position(
        &self,
        topic: &Bound<'_, PyAny>,
        partition: &Bound<'_, PyAny>,
    ) -> PyResult<Option<i64>> {
        self.of.position(topic, partition)
    }

    /// How many offsets lie between the position of a partition and its end, as its leader told that
    /// with the last fetch: nobody is asked. Offsets without records count: 0 is the end, more is a
    /// bound. None until both are known, and if it is not read here. The end of a paused partition is
    /// not heard of.
    fn lag(&self, topic: &Bound<'_, PyAny>, partition: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
        self.of.lag(topic, partition)
    }

    /// Goes on at another place of a partition: "earliest", "latest", an offset or a datetime. What
    /// was fetched of it and not handed out is dropped.
    fn seek(
        &self,
        topic: &Bound<'_, PyAny>,
        partition: &Bound<'_, PyAny>,
        start: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.of.seek(topic, partition, start)
    }

    /// Hands out nothing of these partitions, (topic, partition) tuples, from when it returns, until
    /// they are resumed. What was fetched of them is kept, within buffer_memory, and nothing more is
    /// fetched; the rest of a batch in hand waits as well. All of them are paused or, after an error,
    /// none: UnknownPartitionError if one is not read. Pausing again does nothing.
    fn pause(&self, partitions: &Bound<'_, PyAny>) -> PyResult<()> {
        self.of.pause(partitions)
    }

    /// Hands these partitions, (topic, partition) tuples, out again, from where they were. Errors are
    /// those of pause().
    fn resume(&self, partitions: &Bound<'_, PyAny>) -> PyResult<()> {
        self.of.resume(partitions)
    }

    /// The partitions that are paused, as (topic, partition) tuples.
    fn paused(&self, py: Python<'_>) -> PyResult<Vec<(String, i32)>> {
        self.of.paused(py)
    }

    /// Reads these partitions, too: (topic, partition, start) tuples, as the consumer's own assignment.
    /// One that is read already goes on at its start, as after a seek(). One that does not exist is
    /// told once, by what reads, and read when it does.
    fn assign(&self, assignment: &Bound<'_, PyAny>) -> PyResult<()> {
        self.of.assign(assignment)
    }

    /// Reads these partitions, (topic, partition) tuples, no more: nothing of them is handed out from
    /// when it returns, and what was fetched is dropped. Those of a whole topic stay out until they
    /// are assigned. All of them are left or, after an error, none: UnknownPartitionError if one is
    /// not read.
    fn unassign(&self, partitions: &Bound<'_, PyAny>) -> PyResult<()> {
        self.of.unassign(partitions)
    }

    /// The partitions read here, as (topic, partition) tuples: of whole topics those known so far, none until the
    /// cluster has told which there are; those that were assigned, whether they are there or not.
    fn assignment(&self, py: Python<'_>) -> PyResult<Vec<(String, i32)>> {
        self.of.assignment(py)
    }

    /// Counters of all handles of this process on the cluster, added up, as a dict; its
    /// "bad_stuff" is all zero when all is well. Also when the consumer is closed, and while another
    /// thread waits for records.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.of.stats(py)
    }

    /// Ends the consumer; iterations that wait in other threads end too. A member of a group commits what is done
    /// and leaves it, which takes 10 seconds at most; what threads have in hand counts as not done.
    ///
    /// timeout: seconds or a timedelta. Raises TimeoutError after it: the consumer is closed, and the group may have to
    /// find that out by itself. Closing twice is fine.
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let timeout = convert::timeout(timeout)?;
        match self.close_within(py, timeout)? {
            true => Ok(()),
            false => Err(errors::timeout(py, "leaving the group", timeout, false)),
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Closes: within 10 seconds, or 5 if the block is left by an exception.
    #[pyo3(signature = (exc_type, exc, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_type, traceback);
        self.close_within(py, (!exc.is_none()).then_some(CLOSE_TIMEOUT_IN_A_HURRY)).map(drop)
    }

    fn __repr__(&self) -> &'static str {
        if self.is_closed() { "<ottla.Consumer closed>" } else { "<ottla.Consumer>" }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.asked.traverse(&visit)
    }
}

/// Iterates over the records of a consumer.
#[pyclass(module = "ottla", frozen)]
pub(crate) struct Records {
    consumer: Py<Consumer>,
    timeout: Option<Duration>,
    ends: Ends,
}

#[pymethods]
impl Records {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Record>> {
        let deadline = Deadline::after(self.timeout);
        match self.consumer.get().fetch(py, deadline, &self.ends, Reader::record)? {
            Fetched::Got(record) => Ok(Some(record)),
            _ => Ok(None),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.consumer)
    }
}

/// Iterates over the batches of a consumer.
#[pyclass(module = "ottla", frozen)]
pub(crate) struct Batches {
    consumer: Py<Consumer>,
    timeout: Option<Duration>,
    ends: Ends,
}

#[pymethods]
impl Batches {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        let deadline = Deadline::after(self.timeout);
        match self.consumer.get().fetch(py, deadline, &self.ends, Reader::batch)? {
            Fetched::Got(batch) => Ok(Some(batch)),
            _ => Ok(None),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.consumer)
    }
}

/// Iterates over the batches of a consumer, and what its group says.
#[pyclass(module = "ottla", frozen)]
pub(crate) struct Events {
    consumer: Py<Consumer>,
    timeout: Option<Duration>,
}

#[pymethods]
impl Events {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.consumer.get().next_of_all(py, self.timeout)? {
            Fetched::Got(event) => Ok(Some(event)),
            _ => Ok(None),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.consumer)
    }
}
