//! The embedded broker, for a program's own tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use ottla::testing::{BearerLogin, Cluster, Codec, Leaders, Secured};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::Given;
use crate::fork::Here;
use crate::{convert, ending, errors};

/// Session timeout and heartbeats of groups of the next generation: tests do not wait for members that hear of a change
/// every 5 s, as Kafka has it.
const GROUP_TIMING: (Duration, Duration) = (Duration::from_secs(45), Duration::from_millis(250));

/// A Kafka cluster in this process, on loopback: real protocol, records in memory, gone when it is
/// closed. Any Kafka client can connect to it.
#[pyclass(module = "ottla.testing", frozen, weakref)]
pub(crate) struct Broker {
    cluster: Here<Mutex<Option<Cluster>>>,
    bootstrap: String,
    brokers: i32,
}

impl Broker {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&Cluster) -> io::Result<T> + Send,
    ) -> PyResult<T> {
        let cluster = self.cluster.get(py, "broker")?;
        let outcome = ending::detach(py, || {
            let cluster = cluster.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            cluster.as_ref().map(act)
        });
        match outcome {
            None => Err(errors::closed(py, "broker")),
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(refused(py, &error)),
        }
    }
}

fn refused(py: Python<'_>, error: &io::Error) -> PyErr {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::NotFound | io::ErrorKind::Unsupported => {
            errors::argument(py, &error.to_string())
        }
        _ => pyo3::exceptions::PyOSError::new_err(error.to_string()),
    }
}

#[pymethods]
impl Broker {
    /// brokers: how many, 1 to 1000; their ids are 1 to n. max_message_bytes: the largest batch
    /// they take, an int or a string like "1 MiB" (default Kafka's, 1,048,588 bytes). racks: given
    /// to the brokers in turn.
    ///
    /// tls: they speak TLS; ca is what clients are to trust. client_certificates: nobody is served without
    /// one, as client_identity makes them. sasl: {"alice": "her password"}, users who log in by PLAIN or
    /// SCRAM, or by the mechanisms that are named: "OAUTHBEARER" takes the tokens of add_token. acls: {"alice": ["write orders", "read log-*"]}, what may
    /// be done; with it nobody may do anything else.
    #[new]
    #[pyo3(signature = (
        brokers=1, *, max_message_bytes=None, racks=None, tls=false, client_certificates=false, sasl=None,
        mechanisms=None, acls=None
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords")]
    fn new(
        py: Python<'_>,
        brokers: i32,
        max_message_bytes: Option<&Bound<'_, PyAny>>,
        racks: Option<Vec<String>>,
        tls: bool,
        client_certificates: bool,
        sasl: Option<BTreeMap<String, String>>,
        mechanisms: Option<Vec<String>>,
        acls: Option<BTreeMap<String, Vec<String>>>,
    ) -> PyResult<Self> {
        let mut builder = Cluster::builder().brokers(brokers).racks(racks.unwrap_or_default());
        builder = builder.consumer_group_timing(GROUP_TIMING.0, GROUP_TIMING.1);
        if let Some(bytes) = max_message_bytes {
            builder = builder.max_message_bytes(convert::size("max_message_bytes", bytes)?);
        }
        let acls = acls.unwrap_or_default().into_iter();
        let secured = Secured {
            tls,
            client_certificates,
            users: sasl.unwrap_or_default().into_iter().collect(),
            mechanisms: mechanisms.unwrap_or_default(),
            acls: acls
                .flat_map(|(who, rights)| rights.into_iter().map(move |right| (who.clone(), right)))
                .collect(),
        };
        let start = || secured.apply(builder)?.start();
        let cluster = ending::detach(py, start).map_err(|error| refused(py, &error))?;
        let bootstrap = cluster.bootstrap();
        Ok(Self { cluster: Here::new(Mutex::new(Some(cluster))), bootstrap, brokers })
    }

    /// Addresses of all brokers, as clients take them.
    #[getter]
    fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The certificate of the cluster's own authority, in PEM: what clients are to trust. None without tls.
    #[getter]
    fn ca(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.with(py, |cluster| Ok(cluster.ca_pem()))
    }

    /// A certificate and a key for a client, as ottla.Tls takes them for its identity. Brokers know its
    /// owner as "User:CN=name".
    fn client_identity(&self, py: Python<'_>, name: &str) -> PyResult<(String, String)> {
        let identity = self.with(py, |cluster| cluster.client_identity(name))?;
        Ok((identity.certificates, identity.key))
    }

    /// Adds a user, or changes a password. Who is logged in stays.
    fn set_user(&self, py: Python<'_>, name: &str, password: &str) -> PyResult<()> {
        self.with(py, |cluster| cluster.set_user(name, password))
    }

    /// A token of OAUTHBEARER and whose it is. With a lifetime it is right for so long from now on, and the sessions
    /// that it begins end with it.
    #[pyo3(signature = (token, principal, lifetime=None))]
    fn add_token(
        &self,
        py: Python<'_>,
        token: &str,
        principal: &str,
        lifetime: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let lifetime = lifetime
            .map(|lifetime| convert::duration(Given::Argument, "lifetime", lifetime))
            .transpose()?;
        let login = BearerLogin { principal: principal.to_owned(), lifetime };
        self.with(py, |cluster| cluster.add_token(token, login))
    }

    /// Takes a token away; False if there was none. Who is logged in stays.
    fn remove_token(&self, py: Python<'_>, token: &str) -> PyResult<bool> {
        self.with(py, |cluster| cluster.remove_token(token))
    }

    /// How many logins began, and how many of them were right.
    fn logins(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        self.with(py, |cluster| Ok(cluster.stats().logins()))
    }

    /// Creates a topic. replication: default 3, or the number of brokers if that is smaller.
    #[pyo3(signature = (name, partitions=1, replication=None))]
    fn create_topic(
        &self,
        py: Python<'_>,
        name: &str,
        partitions: i32,
        replication: Option<i32>,
    ) -> PyResult<()> {
        let replication = replication.unwrap_or_else(|| self.brokers.min(3));
        self.with(py, |cluster| cluster.create_topic(name, partitions, replication).map(drop))
    }

    /// How long followers take to copy what is written: acknowledgements and consumers wait that
    /// long. None: they never do, until this is called again. 0 lets go what waits. A topic with one
    /// replica has no followers and never waits.
    fn set_replica_delay(&self, py: Python<'_>, delay: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let delay = match delay {
            Some(delay) => convert::duration(Given::Argument, "delay", delay)?,
            None => Duration::MAX,
        };
        self.with(py, |cluster| {
            cluster.set_replica_delay(delay);
            Ok(())
        })
    }

    /// Stops a broker: its port refuses. move_leaders: whether the cluster notices, and others take
    /// over its partitions.
    #[pyo3(signature = (broker, *, move_leaders=true))]
    fn stop_broker(&self, py: Python<'_>, broker: i32, move_leaders: bool) -> PyResult<()> {
        let leaders = if move_leaders { Leaders::Move } else { Leaders::Keep };
        self.with(py, |cluster| cluster.stop_broker(broker, leaders))
    }

    /// Starts a stopped broker again, on its old port.
    fn start_broker(&self, py: Python<'_>, broker: i32) -> PyResult<()> {
        self.with(py, |cluster| cluster.start_broker(broker))
    }

    /// Another cluster takes the place of this one, at the same addresses: it has this id, no topics and
    /// no records, and gives its producer ids from the beginning again. All connections are cut.
    fn replace(&self, py: Python<'_>, cluster_id: &str) -> PyResult<()> {
        self.with(py, |cluster| cluster.replace(cluster_id))
    }

    /// Offset that the next record of a partition gets: how many were written to it.
    fn log_end(&self, py: Python<'_>, topic: &str, partition: i32) -> PyResult<i64> {
        self.with(py, |cluster| cluster.partition(topic, partition).map(|info| info.log_end))
    }

    /// Names of the codecs that the batches kept in a topic are compressed with.
    fn codecs(&self, py: Python<'_>, topic: &str) -> PyResult<BTreeSet<&'static str>> {
        let codecs = self.with(py, |cluster| cluster.codecs(topic))?;
        Ok(codecs.into_iter().map(Codec::as_str).collect())
    }

    /// A consumer group as it is now, as ottla.testing.Group; None if nobody has joined it or committed in it.
    fn group<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(group) = self.with(py, |cluster| Ok(cluster.group(id)))? else { return Ok(None) };
        let classes = py.import("ottla._groups")?;
        let mut members = Vec::with_capacity(group.members.len());
        for member in group.members {
            let member = (member.id, member.instance, member.client_id);
            members.push(classes.getattr("GroupMember")?.call1(member)?);
        }
        let committed = PyDict::new(py);
        for at in group.offsets {
            committed.set_item((at.topic, at.partition), at.offset)?;
        }
        let (state, generation) = (group.state.name(), group.generation);
        let group = (state, generation, group.protocol, members, committed);
        classes.getattr("Group")?.call1(group).map(Some)
    }

    /// Commits an offset for a group, whoever is in it; makes the group if there is none.
    fn set_committed(
        &self,
        py: Python<'_>,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> PyResult<()> {
        self.with(py, |cluster| cluster.set_committed(group, topic, partition, offset))
    }

    /// Another broker coordinates a group from now on.
    fn move_coordinator(&self, py: Python<'_>, group: &str, broker: i32) -> PyResult<()> {
        self.with(py, |cluster| cluster.move_coordinator(group, broker))
    }

    /// Nobody coordinates a group until move_coordinator(), or until a broker starts: what waits for the group
    /// waits.
    fn remove_coordinator(&self, py: Python<'_>, group: &str) -> PyResult<()> {
        self.with(py, |cluster| {
            cluster.remove_coordinator(group);
            Ok(())
        })
    }

    /// Stops all brokers and forgets all records. Closing twice is fine.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let cluster = self.cluster.get(py, "broker")?;
        ending::detach(py, || {
            drop(cluster.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take())
        });
        Ok(())
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

    fn __repr__(&self) -> String {
        format!("<ottla.testing.Broker {}>", self.bootstrap)
    }
}
