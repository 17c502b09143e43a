//! Administration.

use std::collections::BTreeMap;

use ottla::NewTopic;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::client::Connect;
use crate::errors::OrRaise;
use crate::fork::Here;
use crate::settings::Settings;
use crate::wait::{Deadline, wait};

const WHAT: &str = "admin handle";
/// What CreateTopics takes for "as the brokers are set" (KIP-464).
const CLUSTER_DEFAULT: i32 = -1;

/// Creates topics and asks about them.
///
/// Settings, as a Producer has them: client_id, connect_timeout, idle_timeout, ordinal, rack,
/// request_timeout.
#[pyclass(module = "ottla", frozen, weakref)]
pub(crate) struct Admin {
    inner: Here<ottla::Admin>,
}

#[pymethods]
impl Admin {
    #[new]
    #[pyo3(signature = (bootstrap, **settings))]
    fn new(
        py: Python<'_>,
        bootstrap: &str,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut settings = Settings::new(py, WHAT, settings)?;
        let connect = Connect::new(bootstrap, &mut settings)?;
        settings.finish()?;
        Ok(Self { inner: Here::new(connect.connect(py)?.admin()) })
    }

    /// Creates a topic and waits until the cluster has it.
    ///
    /// partitions, replication: None takes the cluster's default. config: topic settings by Kafka's
    /// names, such as {"cleanup.policy": "compact"}. Raises TopicExistsError if there is one.
    #[pyo3(signature = (name, partitions=None, replication=None, *, config=None))]
    fn create_topic(
        &self,
        py: Python<'_>,
        name: &str,
        partitions: Option<i32>,
        replication: Option<i16>,
        config: Option<BTreeMap<String, String>>,
    ) -> PyResult<()> {
        let mut topic = NewTopic::new(
            name,
            partitions.unwrap_or(CLUSTER_DEFAULT),
            replication.unwrap_or(CLUSTER_DEFAULT as i16),
        );
        for (key, value) in config.unwrap_or_default() {
            topic = topic.config(key, value);
        }
        let admin = self.inner.get(py, WHAT)?;
        match wait(py, Deadline::never(), || false, admin.create_topic(topic))? {
            Some(outcome) => outcome.or_raise(py),
            None => Ok(()),
        }
    }

    /// How many partitions a topic has. Raises UnknownTopicError if there is none.
    fn partitions(&self, py: Python<'_>, topic: &str) -> PyResult<usize> {
        let admin = self.inner.get(py, WHAT)?;
        match wait(py, Deadline::never(), || false, admin.partitions(topic))? {
            Some(outcome) => outcome.or_raise(py),
            None => unreachable!("a wait without an end has a result"),
        }
    }
}
