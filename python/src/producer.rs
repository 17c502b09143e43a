//! The producer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ottla::bindings::{ProducerOptions, Properties};
use ottla::{ErrorKind, Record};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::client::Connect;
use crate::column::Column;
use crate::convert::{self, Blob, Value};
use crate::delivery::{BatchDelivery, Delivery, Parts};
use crate::enums;
use crate::errors::{self, OrRaise};
use crate::exit;
use crate::fork::Here;
use crate::guard::guarded;
use crate::oauth::Asked;
use crate::settings::{self, Made, Settings};
use crate::stats::Statistics;
use crate::wait::{Deadline, wait};

/// How long `close` and leaving a with block wait for records on their way, if nothing else is said.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same when the block is left by an exception: whoever pressed Ctrl-C wants to go.
pub(crate) const CLOSE_TIMEOUT_IN_A_HURRY: Duration = Duration::from_secs(5);

pub(crate) const WHAT: &str = "producer";

/// Sends records to Kafka.
///
/// Producer(bootstrap, **settings) reaches a broker of the list "host:port,host:port" before it
/// returns. Records are batched, compressed, spread over partitions and sent by the engine's own
/// thread, acknowledged by all in-sync replicas, without duplicates. A producer may be used by many
/// threads. Time spans are seconds or a timedelta, sizes are bytes or strings like "16 MiB".
///
/// How records go out:
///   linger             how long an open batch may wait for more records; 0 to 60 s, default 5 ms.
///                      None waits while its broker is idle and this process makes fewer than 180
///                      requests a second; 0: none ever does, which costs brokers a request for
///                      nearly every record, as a flush after each record does
///   batch_size         at which a batch is full; 1 KiB to 16 MiB, default 256 KiB
///   compression        "lz4" (default), "none", "snappy", "gzip" or "zstd"
///   compression_level  of "gzip" 1 (quick) to 9 (small), usually 6; of "zstd" -7 to 22, usually 3
///   topic_compression  for some topics another codec: {"logs": "zstd", "audit": ("gzip", 9)}
///   partitioner        for records that name no partition. "spread" (default): by load, keys are
///                      payload. "key_hash": by key (murmur2, as Java's client does), the same key
///                      in the same partition and in order, waiting for that partition's leader
///   acks               "all" (default): in-sync replicas, idempotent. "leader": lost if it dies
///                      too soon, and perhaps written twice. "none": nobody; a record counts as
///                      written, at offset -1, once it is handed to the socket
///   in_doubt           for batches of which nobody can tell whether they were written, their
///                      connection cut or their broker silent. "wait" (default): for their
///                      partition, written once. "reroute": to another one at once, perhaps twice
/// Limits:
///   buffer_memory      of records not yet acknowledged; 1 MiB to 1 TiB, default 64 MiB
///   max_block          how long a send may wait for that; 0 to one day, default 60 s
///   delivery_timeout   from send to outcome; 10 ms to one day, default 120 s
///   max_record_size    of key, value and headers; to 100 MiB, default 1 MiB
/// The client:
///   client_id          what brokers log; default "ottla"
///   rack               this process's rack (availability zone), as brokers have it in broker.rack:
///                      its brokers are used first; default none
///   ordinal            (index, count): this process's number among equal ones, from 0; which
///                      brokers each uses is then shared out exactly; default by chance
///   connect_timeout    how long to try to reach a broker; 1 ms to 1 h, default 10 s
///   request_timeout    how long a broker may take to answer; 100 ms to 1 h, default 30 s
///   idle_timeout       after which an unused connection is closed; 1 s to one day, default 9 min
///   on_cluster_change  once another cluster, one with another id, answers at the addresses: "fail"
///                      (default): all ends with ClusterChangedError; "accept": go on with that one
///   tls                an ottla.Tls: brokers are reached by TLS; default in plaintext
///   sasl               an ottla.Plain, ottla.Scram or ottla.OAuth: the client logs in; default it does not
///
/// Raises ConfigError for a setting it does not have and for a value out of its range.
#[pyclass(module = "ottla", frozen, weakref)]
pub(crate) struct Producer {
    inner: Arc<Here<ottla::Producer>>,
    statistics: Statistics,
    closed: AtomicBool,
    asked: Asked,
}

/// What the settings of a producer say.
pub(crate) struct Wanted {
    options: ProducerOptions,
    max_block: Option<Duration>,
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
        let options = ProducerOptions {
            properties: properties.cloned().unwrap_or_default(),
            linger: settings.duration("linger")?,
            batch_size: settings.size("batch_size")?,
            compression: enums::compression(&mut settings)?,
            topic_compression: enums::topic_compression(&mut settings)?,
            partitioner: enums::partitioner(&mut settings)?,
            acks: enums::acks(&mut settings)?,
            in_doubt: enums::in_doubt(&mut settings)?,
            buffer_memory: settings.size("buffer_memory")?,
            delivery_timeout: settings.duration("delivery_timeout")?,
            max_record_size: settings.size("max_record_size")?,
            ..Default::default()
        };
        let max_block = settings.duration("max_block")?;
        settings.finish()?;
        Ok((connect, Self { options, max_block }))
    }

    pub(crate) fn build(
        self,
        py: Python<'_>,
        client: &ottla::Client,
    ) -> PyResult<Arc<Here<ottla::Producer>>> {
        let mut builder = self.options.apply(client.producer());
        if let Some(time) = self.max_block {
            builder = builder.max_block(time);
        }
        let inner = Arc::new(Here::new(builder.build().or_raise(py)?));
        exit::opened(&inner);
        Ok(inner)
    }
}

impl Made for Producer {
    fn make(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        properties: Option<&Properties>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (connect, wanted) = Wanted::take(py, bootstrap, properties, settings)?;
        let (client, asked) = connect.connect(py)?;
        let inner = wanted.build(py, &client)?;
        let statistics = Statistics::of(&client);
        Ok(Self { inner, statistics, closed: AtomicBool::new(false), asked })
    }
}

impl Producer {
    #[inline]
    fn get(&self, py: Python<'_>) -> PyResult<&ottla::Producer> {
        self.inner.get(py, WHAT)
    }

    fn close_within(&self, py: Python<'_>, timeout: Duration) -> PyResult<()> {
        let producer = self.get(py)?;
        self.closed.store(true, Ordering::Relaxed);
        // The engine ends the wait itself at `timeout`, and resolves what is left.
        match wait(py, Deadline::never(), || false, producer.close(timeout))? {
            Some(outcome) => outcome.or_raise(py),
            None => Ok(()),
        }
    }
}

#[inline]
fn hand_over(py: Python<'_>, producer: &ottla::Producer, record: Record<'_>) -> PyResult<Delivery> {
    guarded(py, || match producer.try_send(record) {
        Ok(delivery) => Ok(Delivery::new(delivery)),
        Err(refused) => send_when_there_is_space(py, producer, record, &refused),
    })
}

/// Not in line with `send`: one call where the buffer is full costs a wait anyway.
#[cold]
fn send_when_there_is_space(
    py: Python<'_>,
    producer: &ottla::Producer,
    record: Record<'_>,
    refused: &ottla::Error,
) -> PyResult<Delivery> {
    if refused.kind() != ErrorKind::BufferFull {
        return Err(errors::raise(py, refused));
    }
    // The engine ends the wait at `max_block`.
    match wait(py, Deadline::never(), || false, producer.send(record))? {
        Some(sent) => sent.or_raise(py).map(Delivery::new),
        None => unreachable!("a wait without an end has a result"),
    }
}

/// What `send` takes by keyword.
const ARGUMENTS: [&str; 4] = ["headers", "key", "partition", "timestamp"];

/// The error for keywords that `send` does not have: callbacks of other clients, mostly.
#[cold]
fn not_arguments(other: &Bound<'_, PyDict>) -> PyErr {
    let names = other.keys().iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let complaints = names.iter().map(|name| match name.as_str() {
        "timestamp_ms" => "'timestamp_ms' (use timestamp)".to_owned(),
        name => match settings::hint(name, &ARGUMENTS) {
            Some(hint) => format!("'{name}' ({hint})"),
            None => format!("'{name}'"),
        },
    });
    PyTypeError::new_err(format!(
        "send() has no argument {}; it has {}",
        complaints.collect::<Vec<_>>().join(", "),
        ARGUMENTS.join(", ")
    ))
}

/// The parts of a record, as `send` is given them.
pub(crate) struct RecordParts<'a, 'py> {
    pub(crate) topic: &'a Bound<'py, PyAny>,
    pub(crate) value: &'a Bound<'py, PyAny>,
    pub(crate) key: Option<&'a Bound<'py, PyAny>>,
    pub(crate) headers: Option<&'a Bound<'py, PyAny>>,
    pub(crate) partition: Option<&'a Bound<'py, PyAny>>,
    pub(crate) timestamp: Option<&'a Bound<'py, PyAny>>,
    pub(crate) other: Option<&'a Bound<'py, PyDict>>,
}

impl RecordParts<'_, '_> {
    #[inline(always)]
    pub(crate) fn hand_over<T>(self, take: impl FnOnce(Record<'_>) -> PyResult<T>) -> PyResult<T> {
        if let Some(other) = self.other {
            return Err(not_arguments(other));
        }
        let topic = convert::text("topic", self.topic)?;
        let value = Blob::from("value", self.value)?;
        let key = Blob::from_option("key", self.key)?;
        let mut record = Record::to(topic).value_opt(value.as_option()).key_opt(key.as_option());
        if let Some(partition) = self.partition {
            record = record.partition(convert::partition(partition)?);
        }
        if let Some(timestamp) = self.timestamp {
            record = record.timestamp_ms(convert::timestamp_ms("timestamp", timestamp)?);
        }
        let Some(headers) = self.headers else { return take(record) };
        let pairs = convert::header_pairs(headers)?;
        let mut blobs = Vec::with_capacity(pairs.len());
        for (name, value) in &pairs {
            blobs.push((name.as_bytes()?, Blob::from("the value of a header", value)?));
        }
        let headers: Vec<_> =
            blobs.iter().map(|(name, value)| (*name, value.as_option())).collect();
        take(record.raw_headers(&headers))
    }
}

/// `values`: a tuple of what `send_many` is given. It owns its items: a list could lose them to another thread while
/// this one waits.
pub(crate) fn values<'py>(values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    if values.is_instance_of::<PyString>() || values.is_instance_of::<pyo3::types::PyBytes>() {
        return Err(PyTypeError::new_err(format!(
            "values is one {}; send_many takes a list of bytes",
            convert::type_name(values)
        )));
    }
    match values.cast::<PyTuple>() {
        Ok(tuple) => Ok(tuple.clone()),
        Err(_) => {
            // What goes wrong inside of an iterator is its own to say.
            convert::iterate("values", "bytes", values)?;
            let tuple = values.py().get_type::<PyTuple>().call1((values,))?;
            Ok(tuple.cast_into::<PyTuple>()?)
        }
    }
}

/// Hands over many values.
pub(crate) async fn send_values<V: Value>(
    producer: &ottla::Producer,
    topic: &str,
    values: &[V],
) -> ottla::Result<Parts> {
    if values.iter().all(|value| value.get().is_some()) {
        return producer.send_batch(topic, values).await.map(Parts::Batch);
    }
    let mut deliveries = Vec::with_capacity(values.len());
    for value in values {
        deliveries.push(producer.send(Record::to(topic).value_opt(value.get())).await?);
    }
    Ok(Parts::each(deliveries))
}

fn sent_many(py: Python<'_>, sent: Option<ottla::Result<Parts>>) -> PyResult<BatchDelivery> {
    match sent {
        Some(sent) => sent.or_raise(py).map(BatchDelivery::new),
        None => unreachable!("a wait without an end has a result"),
    }
}

#[pymethods]
impl Producer {
    #[new]
    #[pyo3(signature = (bootstrap=None, **settings), text_signature = "(bootstrap, **settings)")]
    fn new(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Self::made(py, bootstrap, settings)
    }

    /// A producer with settings by the names that Java's client and librdkafka have for them, such
    /// as {"bootstrap.servers": "localhost:9092", "linger.ms": 5}, completed or overruled by
    /// keywords as Producer takes them. What is named by neither keeps the default it has here:
    /// records with keys are spread too, unless partitioner="key_hash" is given.
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

    /// Hands one record over to be sent, and returns a Delivery that nobody has to look at.
    ///
    /// value, key: bytes (or bytearray, memoryview), or None for null. headers: (name, value)
    /// tuples; a name is str, or bytes where it is not UTF-8, and those of a record that was read are
    /// taken as they are. partition: None leaves the choice to the client. timestamp: milliseconds
    /// since 1970 or a datetime with a zone; None is now.
    ///
    /// Returns at once while there is space in the buffer; otherwise waits for space up to
    /// max_block and then raises BufferFull.
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
    ) -> PyResult<Delivery> {
        let producer = self.get(py)?;
        let parts = RecordParts { topic, value, key, headers, partition, timestamp, other };
        parts.hand_over(|record| self::hand_over(py, producer, record))
    }

    /// Hands many values over in one call: the quick way to send a lot.
    ///
    /// values: any iterable of bytes (or bytearray, memoryview, None); or a column of bytes or text, read
    /// without a Python object for each value: of pyarrow, polars or pandas (if pyarrow is installed; otherwise they
    /// are iterated), or an array of numpy (dtype S or V, or rows of uint8). Waits for space as the records go in. If it
    /// raises half-way (a record too large, Ctrl-C), the records before are sent all the same.
    fn send_many(
        &self,
        py: Python<'_>,
        topic: &Bound<'_, PyAny>,
        values: &Bound<'_, PyAny>,
    ) -> PyResult<BatchDelivery> {
        let producer = self.get(py)?;
        let topic = convert::text("topic", topic)?;
        if let Some(column) = guarded(py, || Column::from(values))? {
            let values = column.values();
            let sent = send_values(producer, topic, &values);
            return sent_many(py, wait(py, Deadline::never(), || false, sent)?);
        }
        let values = self::values(values)?;
        let values: Vec<_> = values.iter_borrowed().collect();
        let blobs = values.iter().map(|value| Blob::from("value", value));
        let blobs = blobs.collect::<PyResult<Vec<_>>>()?;
        let sent = send_values(producer, topic, &blobs);
        sent_many(py, wait(py, Deadline::never(), || false, sent)?)
    }

    /// Waits until it is known what became of every record sent before.
    ///
    /// timeout: seconds or a timedelta; None waits until delivery_timeout at most. Raises
    /// TimeoutError after it; the records are still on their way then.
    ///
    /// Raises UndeliveredError if records failed since the last flush and nobody has looked at their
    /// Delivery: how many, the first error and the topics, once. What a record failed with is its
    /// Delivery's to tell.
    #[pyo3(signature = (timeout=None))]
    fn flush(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let producer = self.get(py)?;
        let timeout = convert::timeout(timeout)?;
        match wait(py, Deadline::after(timeout), || false, producer.flush())? {
            Some(outcome) => outcome.or_raise(py),
            None => Err(errors::timeout(py, "flushing", timeout, true)),
        }
    }

    /// Counters of all handles of this process on the cluster, added up, as a dict; its
    /// "bad_stuff" is all zero when all is well. Also when the producer is closed.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.statistics.dict(py, WHAT)
    }

    /// Flushes, for at most timeout (default 30 seconds), and ends the producer.
    ///
    /// Raises TimeoutError if records were left at the end of the timeout; they fail with an error that
    /// says whether they may have been written. Raises UndeliveredError as flush() does. Closing twice
    /// is fine.
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.close_within(py, convert::timeout(timeout)?.unwrap_or(CLOSE_TIMEOUT))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Closes: within 30 seconds, or 5 if the block is left by an exception, which then gets a note of
    /// records that failed and that nobody has looked at.
    #[pyo3(signature = (exc_type, exc, traceback, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_type, traceback);
        if exc.is_none() {
            return self.close_within(py, CLOSE_TIMEOUT);
        }
        // What the block was left by matters more; that records were lost is added to it.
        match self.close_within(py, CLOSE_TIMEOUT_IN_A_HURRY) {
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(py) => {
                exc.call_method1("add_note", (format!("closing the producer: {error}"),))?;
                Ok(())
            }
            other => other,
        }
    }

    fn __repr__(&self) -> &'static str {
        match self.closed.load(Ordering::Relaxed) {
            true => "<ottla.Producer closed>",
            false => "<ottla.Producer>",
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.asked.traverse(&visit)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Also a close may have left records on their way: one that Ctrl-C ended.
        if let Some(producer) = self.inner.get_here() {
            exit::orphaned(producer, std::mem::take(&mut self.asked));
        }
    }
}
