//! Administration.

use std::collections::HashSet;

use ottla::bindings::Properties;
use ottla::{NewTopic, OffsetSpec, TopicPartition};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::client::Connect;
use crate::convert;
use crate::errors::{self, OrRaise};
use crate::fork::Here;
use crate::oauth::Asked;
use crate::settings::{Made, Settings};
use crate::wait::{Deadline, wait};

pub(crate) const WHAT: &str = "admin handle";
/// What CreateTopics takes for "as the brokers are set" (KIP-464).
const CLUSTER_DEFAULT: i32 = -1;

/// Creates topics and asks about them.
///
/// Settings, as a Producer has them: client_id, connect_timeout, idle_timeout, on_cluster_change,
/// ordinal, rack, request_timeout, sasl, tls.
#[pyclass(module = "ottla", frozen, weakref)]
pub(crate) struct Admin {
    inner: Here<ottla::Admin>,
    asked: Asked,
}

impl Made for Admin {
    fn make(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        properties: Option<&Properties>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut settings = Settings::new(py, WHAT, settings)?;
        let connect = Connect::new(bootstrap, properties, &mut settings)?;
        settings.finish()?;
        let (client, asked) = connect.connect(py)?;
        Ok(Self { inner: Here::new(client.admin()), asked })
    }
}

#[pymethods]
impl Admin {
    #[new]
    #[pyo3(signature = (bootstrap=None, **settings), text_signature = "(bootstrap, **settings)")]
    fn new(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Self::made(py, bootstrap, settings)
    }

    /// An admin handle with settings by the names of other clients; see Producer.from_properties.
    #[staticmethod]
    #[pyo3(signature = (properties, **settings))]
    fn from_properties(
        py: Python<'_>,
        properties: &Bound<'_, PyAny>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Self::made_from(py, properties, settings)
    }

    /// Creates a topic and waits until the cluster has it.
    ///
    /// partitions, replication: None takes the cluster's default. config: topic settings by Kafka's
    /// names, such as {"cleanup.policy": "compact"}. Raises TopicExistsError if there is one.
    #[pyo3(signature = (name, partitions=None, replication=None, *, config=None))]
    fn create_topic(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        partitions: Option<&Bound<'_, PyAny>>,
        replication: Option<&Bound<'_, PyAny>>,
        config: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let topic = new_topic(name, partitions, replication, config)?;
        let admin = self.inner.get(py, WHAT)?;
        match wait(py, Deadline::never(), || false, admin.create_topic(topic))? {
            Some(outcome) => outcome.or_raise(py),
            None => Ok(()),
        }
    }

    /// How many partitions a topic has. Raises UnknownTopicError if there is none.
    fn partitions(&self, py: Python<'_>, topic: &Bound<'_, PyAny>) -> PyResult<usize> {
        let topic = convert::text("topic", topic)?;
        let admin = self.inner.get(py, WHAT)?;
        match wait(py, Deadline::never(), || false, admin.partitions(topic))? {
            Some(outcome) => outcome.or_raise(py),
            None => unreachable!("a wait without an end has a result"),
        }
    }

    /// Offsets of partitions, which are (topic, partition) tuples, as a dict with these as keys: what
    /// Consumer.records(until=...) takes. All are looked up together, in as few requests as there are
    /// leaders.
    ///
    /// at: "latest" is the end, one past the newest record; "earliest" the oldest record that is
    /// kept; a datetime the first record of that time or after it, and the end if there is none. What
    /// may be otherwise in a moment is asked again, for as long as a request may take. If one
    /// partition fails, its error is raised; with return_exceptions=True it is the value, and the
    /// others have theirs.
    #[pyo3(
        signature = (partitions, at=None, *, return_exceptions=false),
        text_signature = "($self, partitions, at='latest', *, return_exceptions=False)"
    )]
    fn offsets<'py>(
        &self,
        py: Python<'py>,
        partitions: &Bound<'py, PyAny>,
        at: Option<&Bound<'py, PyAny>>,
        return_exceptions: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let wanted = wanted(partitions, at)?;
        let admin = self.inner.get(py, WHAT)?;
        let found = match wait(py, Deadline::never(), || false, admin.list_offsets(wanted))? {
            Some(outcome) => outcome.or_raise(py)?,
            None => unreachable!("a wait without an end has a result"),
        };
        found_offsets(py, found, return_exceptions)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.asked.traverse(&visit)
    }
}

/// What `create_topic` is given.
pub(crate) fn new_topic(
    name: &Bound<'_, PyAny>,
    partitions: Option<&Bound<'_, PyAny>>,
    replication: Option<&Bound<'_, PyAny>>,
    config: Option<&Bound<'_, PyAny>>,
) -> PyResult<NewTopic> {
    let name = convert::text("name", name)?;
    let number = |value| convert::integer("partitions", "an int", value);
    let partitions = partitions.map_or(Ok(CLUSTER_DEFAULT), number)?;
    let number = |value| convert::integer("replication", "an int", value);
    let replication = replication.map_or(Ok(CLUSTER_DEFAULT as i16), number)?;
    let mut topic = NewTopic::new(name, partitions, replication);
    for (key, value) in config.map_or(Ok(Vec::new()), topic_config)? {
        topic = topic.config(key, value);
    }
    Ok(topic)
}

/// What `offsets` is given.
pub(crate) fn wanted(
    partitions: &Bound<'_, PyAny>,
    at: Option<&Bound<'_, PyAny>>,
) -> PyResult<Vec<(String, i32, OffsetSpec)>> {
    let at = at.map_or(Ok(OffsetSpec::Latest), convert::spec)?;
    let mut partitions = convert::partitions(partitions)?;
    // Named twice is told once.
    let mut known = HashSet::new();
    partitions.retain(|of| known.insert(of.clone()));
    Ok(partitions.into_iter().map(|(topic, partition)| (topic, partition, at)).collect())
}

/// What `offsets` gives.
pub(crate) fn found_offsets<'py>(
    py: Python<'py>,
    found: Vec<(TopicPartition, ottla::Result<i64>)>,
    return_exceptions: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let offsets = PyDict::new(py);
    for (of, offset) in found {
        let of = (&*of.topic, of.partition);
        match offset {
            Ok(offset) => offsets.set_item(of, offset)?,
            Err(error) if return_exceptions => {
                offsets.set_item(of, errors::exception(py, &error)?)?;
            }
            Err(error) => return Err(errors::raise(py, &error)),
        }
    }
    Ok(offsets)
}

/// `config`: a mapping of topic settings, text both.
fn topic_config(config: &Bound<'_, PyAny>) -> PyResult<Vec<(String, String)>> {
    let wrong = || {
        PyTypeError::new_err(format!("config must be a dict, not {}", convert::type_name(config)))
    };
    if !config.hasattr("keys")? {
        return Err(wrong());
    }
    let config = config.py().get_type::<PyDict>().call1((config,)).map_err(|_| wrong())?;
    let config = config.cast_into::<PyDict>()?;
    let pairs = config.iter().map(|(name, value)| {
        let name = convert::text("the name of a topic's config", &name)?;
        let value = convert::text(&format!("config: '{name}'"), &value)?;
        Ok((name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}
