//! Administration from asyncio.

use ottla::TopicPartition;
use ottla::bindings::Properties;
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::operation::{Operation, engine, never_late};
use super::reach::Reach;
use crate::admin::{WHAT, found_offsets, new_topic, wanted};
use crate::client::Connect;
use crate::convert;
use crate::ending::inside;
use crate::errors::OrRaise;
use crate::fork::Here;
use crate::oauth::Asked;
use crate::settings::{Made, Settings};

/// Creates topics and asks about them, from asyncio. Settings and methods are those of ottla.Admin. A call that is
/// cancelled may have been carried out.
#[pyclass(module = "ottla.aio", name = "Admin", frozen, weakref)]
pub(crate) struct AioAdmin {
    inner: Here<ottla::Admin>,
    reach: Reach,
    asked: Asked,
}

impl Made for AioAdmin {
    fn make(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        properties: Option<&Properties>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut settings = Settings::new(py, WHAT, settings)?;
        let connect = Connect::new(bootstrap, properties, &mut settings)?;
        settings.finish()?;
        let (client, reaching, asked) = connect.later(py)?;
        Ok(Self { inner: Here::new(client.admin()), reach: Reach::new(reaching), asked })
    }
}

type Found = ottla::Result<Vec<(TopicPartition, ottla::Result<i64>)>>;

#[pymethods]
impl AioAdmin {
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

    /// An admin handle with settings by the names of other clients; see ottla.Producer.from_properties.
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

    /// Creates a topic and waits until the cluster has it; see ottla.Admin.create_topic.
    #[pyo3(signature = (name, partitions=None, replication=None, *, config=None))]
    fn create_topic(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        partitions: Option<&Bound<'_, PyAny>>,
        replication: Option<&Bound<'_, PyAny>>,
        config: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Operation> {
        let _inside = inside(py);
        let topic = new_topic(name, partitions, replication, config)?;
        let admin = self.inner.get(py, WHAT)?.clone();
        let creating = async move { admin.create_topic(topic).await };
        let tell = |py: Python<'_>, outcome: ottla::Result<()>| {
            outcome.or_raise(py)?;
            Ok(py.None())
        };
        Ok(engine("create_topic", None, creating, tell, never_late))
    }

    /// How many partitions a topic has. Raises UnknownTopicError if there is none.
    fn partitions(&self, py: Python<'_>, topic: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let _inside = inside(py);
        let topic = convert::text("topic", topic)?.to_owned();
        let admin = self.inner.get(py, WHAT)?.clone();
        let asking = async move { admin.partitions(&topic).await };
        let tell = |py: Python<'_>, outcome: ottla::Result<usize>| {
            Ok(outcome.or_raise(py)?.into_pyobject(py)?.into_any().unbind())
        };
        Ok(engine("partitions", None, asking, tell, never_late))
    }

    /// Offsets of partitions, which are (topic, partition) tuples, as a dict; see ottla.Admin.offsets.
    #[pyo3(
        signature = (partitions, at=None, *, return_exceptions=false),
        text_signature = "($self, partitions, at='latest', *, return_exceptions=False)"
    )]
    fn offsets(
        &self,
        py: Python<'_>,
        partitions: &Bound<'_, PyAny>,
        at: Option<&Bound<'_, PyAny>>,
        return_exceptions: bool,
    ) -> PyResult<Operation> {
        let _inside = inside(py);
        let wanted = wanted(partitions, at)?;
        let admin = self.inner.get(py, WHAT)?.clone();
        let asking = async move { (admin.list_offsets(wanted).await, return_exceptions) };
        let tell = |py: Python<'_>, (found, return_exceptions): (Found, bool)| {
            let offsets = found_offsets(py, found.or_raise(py)?, return_exceptions)?;
            Ok(offsets.into_any().unbind())
        };
        Ok(engine("offsets", None, asking, tell, never_late))
    }

    /// Reaches a broker, within connect_timeout.
    fn __aenter__(slf: Bound<'_, Self>) -> PyResult<Operation> {
        let _inside = inside(slf.py());
        let (py, this) = (slf.py(), slf.get());
        this.inner.get(py, WHAT)?;
        this.reach.enter(py, WHAT, slf.clone().into_any().unbind(), async {})
    }

    /// There is nothing to end.
    #[pyo3(signature = (exc_type, exc, traceback, /))]
    fn __aexit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> Operation {
        let _inside = inside(py);
        let _ = (exc_type, exc, traceback);
        Operation::ready(py.None())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.asked.traverse(&visit)
    }
}
