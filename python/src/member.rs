//! A consumer that is a member of a group: its settings, and what the group says.

use std::time::{Duration, Instant};

use ottla::{Assignor, Commit, ConsumerBuilder, Event, GroupProtocol, TopicPartition};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::convert;
use crate::enums;
use crate::errors::{self, OrRaise};
use crate::settings::Settings;

/// The settings of a member.
pub(crate) struct Membership {
    pub(crate) group: Option<String>,
    instance_id: Option<String>,
    protocol: Option<GroupProtocol>,
    remote_assignor: Option<String>,
    session_timeout: Option<Duration>,
    max_poll_interval: Option<Duration>,
    assignors: Option<Vec<Assignor>>,
    commit: Option<Commit>,
    commit_interval: Option<Duration>,
}

impl Membership {
    pub(crate) fn take(settings: &mut Settings<'_>) -> PyResult<Self> {
        let assignors = settings.take("assignors")?;
        Ok(Self {
            group: settings.string("group")?,
            instance_id: settings.string("instance_id")?,
            protocol: enums::group_protocol(settings)?,
            remote_assignor: settings.string("remote_assignor")?,
            session_timeout: settings.duration("session_timeout")?,
            max_poll_interval: settings.duration("max_poll_interval")?,
            assignors: assignors.map(|names| self::assignors(&names)).transpose()?,
            commit: enums::commit(settings)?,
            commit_interval: settings.duration("commit_interval")?,
        })
    }

    /// Refuses what is a member's, and there is no group.
    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        let given = [
            ("instance_id", self.instance_id.is_some()),
            ("group_protocol", self.protocol.is_some()),
            ("remote_assignor", self.remote_assignor.is_some()),
            ("session_timeout", self.session_timeout.is_some()),
            ("max_poll_interval", self.max_poll_interval.is_some()),
            ("assignors", self.assignors.is_some()),
            ("commit", self.commit.is_some()),
            ("commit_interval", self.commit_interval.is_some()),
        ];
        match given.iter().find(|(_, is_given)| self.group.is_none() && *is_given) {
            Some((name, _)) => Err(errors::config(
                py,
                &format!(
                    "{name} is a setting of a member of a group: name the group as well, or leave it out"
                ),
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn set(self, mut builder: ConsumerBuilder) -> ConsumerBuilder {
        if let Some(group) = self.group {
            builder = builder.group(group);
        }
        if let Some(id) = self.instance_id {
            builder = builder.instance_id(id);
        }
        if let Some(protocol) = self.protocol {
            builder = builder.group_protocol(protocol);
        }
        if let Some(name) = self.remote_assignor {
            builder = builder.remote_assignor(name);
        }
        if let Some(timeout) = self.session_timeout {
            builder = builder.session_timeout(timeout);
        }
        if let Some(interval) = self.max_poll_interval {
            builder = builder.max_poll_interval(interval);
        }
        if let Some(assignors) = self.assignors {
            builder = builder.assignors(assignors);
        }
        if let Some(commit) = self.commit {
            builder = builder.commit(commit);
        }
        if let Some(interval) = self.commit_interval {
            builder = builder.commit_interval(interval);
        }
        builder
    }
}

fn assignors(names: &Bound<'_, PyAny>) -> PyResult<Vec<Assignor>> {
    if names.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(format!(
            "assignors is a str; write a list: assignors=['{names}']"
        )));
    }
    let each = convert::iterate("assignors", "names", names)?;
    each.map(|name| convert::text("each of assignors", &name?)?.parse().or_raise(names.py()))
        .collect()
}

/// What `commit_to` takes.
const PLACES: &str =
    "(topic, partition, offset) tuples, or a dict of (topic, partition) tuples and offsets";

fn tuple<'py>(entry: &Bound<'py, PyAny>, len: usize) -> PyResult<Bound<'py, PyTuple>> {
    match entry.cast::<PyTuple>() {
        Ok(tuple) if tuple.len() == len => Ok(tuple.clone()),
        _ => Err(PyTypeError::new_err(format!(
            "offsets must be {PLACES}; one of them is {}",
            convert::type_name(entry)
        ))),
    }
}

/// What is to be committed: a dict of (topic, partition) tuples and offsets, or triples.
pub(crate) fn places(offsets: &Bound<'_, PyAny>) -> PyResult<Vec<(String, i32, i64)>> {
    let place =
        |topic: &Bound<'_, PyAny>, partition: &Bound<'_, PyAny>, offset: &Bound<'_, PyAny>| {
            let topic = convert::text("the topic in offsets", topic)?.to_owned();
            let partition = convert::integer("the partition in offsets", "an int", partition)?;
            Ok((topic, partition, convert::integer("the offset in offsets", "an int", offset)?))
        };
    if let Ok(offsets) = offsets.cast::<PyDict>() {
        let entry = |(of, offset): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            let of = tuple(&of, 2)?;
            place(&of.get_item(0)?, &of.get_item(1)?, &offset)
        };
        return offsets.iter().map(entry).collect();
    }
    let entry = |entry: PyResult<Bound<'_, PyAny>>| {
        let entry = tuple(&entry?, 3)?;
        place(&entry.get_item(0)?, &entry.get_item(1)?, &entry.get_item(2)?)
    };
    convert::iterate("offsets", PLACES, offsets)?.map(entry).collect()
}

/// What the group says, as the package's classes have it; `None` for what this build does not know.
pub(crate) fn event(py: Python<'_>, event: Event) -> PyResult<Option<Bound<'_, PyAny>>> {
    static CLASSES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let classes =
        CLASSES.get_or_try_init(py, || py.import("ottla._events").map(Bound::unbind))?.bind(py);
    let made = match event {
        Event::Assigned(partitions) => classes.getattr("Assigned")?.call1((named(partitions),))?,
        Event::GivingUp { partitions, deadline } => {
            // On the clock of time.monotonic().
            let left = deadline.into_std().saturating_duration_since(Instant::now());
            let now: f64 = py.import("time")?.call_method0("monotonic")?.extract()?;
            classes.getattr("GivingUp")?.call1((named(partitions), now + left.as_secs_f64()))?
        }
        Event::Lost(partitions) => classes.getattr("Lost")?.call1((named(partitions),))?,
        _ => return Ok(None),
    };
    Ok(Some(made))
}

fn named(partitions: Vec<TopicPartition>) -> Vec<(String, i32)> {
    partitions.into_iter().map(|of| (of.topic.to_string(), of.partition)).collect()
}
