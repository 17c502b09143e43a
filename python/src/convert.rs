//! Values of Python as the engine takes them.

use std::time::Duration;

use ottla::{OffsetSpec, Start, TopicPartition};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{
    PyBool, PyBytes, PyDateTime, PyDelta, PyDict, PyInt, PyIterator, PyString, PyTuple,
    PyTzInfoAccess,
};

use crate::errors;

/// Bytes of a key, a value or a header. `bytes` is borrowed: it cannot change, and the caller's
/// reference keeps it. Anything else that has bytes is copied, because its owner may change it
/// while this thread waits.
pub(crate) enum Blob<'a> {
    Null,
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl<'a> Blob<'a> {
    #[inline]
    pub(crate) fn from(what: &str, value: &'a Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Self::Borrowed(bytes.as_bytes()));
        }
        Self::from_other(what, value)
    }

    #[inline]
    pub(crate) fn from_option(what: &str, value: Option<&'a Bound<'_, PyAny>>) -> PyResult<Self> {
        value.map_or(Ok(Self::Null), |value| Self::from(what, value))
    }

    #[cold]
    fn from_other(what: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        if value.is_none() {
            return Ok(Self::Null);
        }
        if value.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err(format!(
                "{what} is a str; Kafka carries bytes: write {what}.encode()"
            )));
        }
        match PyBuffer::<u8>::get(value) {
            Ok(buffer) => Ok(Self::Owned(buffer.to_vec(value.py())?)),
            Err(_) => Err(PyTypeError::new_err(format!(
                "{what} must be bytes, bytearray, memoryview or None, not {}",
                type_name(value)
            ))),
        }
    }

    #[inline]
    pub(crate) fn as_option(&self) -> Option<&[u8]> {
        match self {
            Self::Null => None,
            Self::Borrowed(bytes) => Some(bytes),
            Self::Owned(bytes) => Some(bytes),
        }
    }
}

/// For values that are known not to be null.
/// A value of many; read as bytes it is known not to be null.
pub(crate) trait Value: AsRef<[u8]> {
    /// `None` is null.
    fn get(&self) -> Option<&[u8]>;
}

impl Value for Blob<'_> {
    #[inline]
    fn get(&self) -> Option<&[u8]> {
        self.as_option()
    }
}

impl Value for KeptBlob {
    #[inline]
    fn get(&self) -> Option<&[u8]> {
        self.as_option()
    }
}

impl AsRef<[u8]> for Blob<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_option().unwrap_or_default()
    }
}

/// The same, kept for as long as it takes: `bytes` without a copy.
pub(crate) enum KeptBlob {
    Null,
    Bytes(PyBackedBytes),
    Owned(Vec<u8>),
}

impl KeptBlob {
    pub(crate) fn from(what: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes.clone().into()));
        }
        Ok(match Blob::from_other(what, value)? {
            Blob::Owned(bytes) => Self::Owned(bytes),
            _ => Self::Null,
        })
    }

    pub(crate) fn as_option(&self) -> Option<&[u8]> {
        match self {
            Self::Null => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Owned(bytes) => Some(bytes),
        }
    }
}

/// For values that are known not to be null.
impl AsRef<[u8]> for KeptBlob {
    fn as_ref(&self) -> &[u8] {
        self.as_option().unwrap_or_default()
    }
}

/// The name of a header: text, or bytes where it is not UTF-8.
pub(crate) enum HeaderName<'py> {
    Text(Bound<'py, PyString>),
    Bytes(Bound<'py, PyBytes>),
}

impl<'py> HeaderName<'py> {
    fn from(name: Bound<'py, PyAny>) -> PyResult<Self> {
        let name = match name.cast_into::<PyBytes>() {
            Ok(bytes) => return Ok(Self::Bytes(bytes)),
            Err(other) => other.into_inner(),
        };
        let Ok(text) = name.cast::<PyString>() else {
            return Err(PyTypeError::new_err(format!(
                "the name of a header must be str or bytes, not {} (its value is bytes or None)",
                type_name(&name)
            )));
        };
        if text.to_str().is_ok() {
            return Ok(Self::Text(text.clone()));
        }
        // What was read from such bytes goes back to them; anything else raises UnicodeEncodeError.
        let bytes = name.call_method1("encode", ("utf-8", "surrogateescape"))?;
        Ok(Self::Bytes(bytes.cast_into()?))
    }

    pub(crate) fn as_bytes(&self) -> PyResult<&[u8]> {
        match self {
            Self::Text(text) => text.to_str().map(str::as_bytes),
            Self::Bytes(bytes) => Ok(bytes.as_bytes()),
        }
    }
}

/// `headers`: a sequence of (name, value) pairs. The tuples are made first and own what is read.
pub(crate) fn header_pairs<'py>(
    headers: &Bound<'py, PyAny>,
) -> PyResult<Vec<(HeaderName<'py>, Bound<'py, PyAny>)>> {
    if headers.hasattr("items")? {
        return Err(PyTypeError::new_err(
            "headers is a mapping; names may repeat, so write list(headers.items())",
        ));
    }
    let mut pairs = Vec::with_capacity(headers.len().unwrap_or(0));
    for pair in iterate("headers", "(name, value) tuples", headers)? {
        let pair = pair?;
        let pair = pair.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2).ok_or_else(|| {
            PyTypeError::new_err("headers must be a sequence of (name, value) tuples")
        })?;
        pairs.push((HeaderName::from(pair.get_item(0)?)?, pair.get_item(1)?));
    }
    Ok(pairs)
}

/// Goes over something that must be iterable.
pub(crate) fn iterate<'py>(
    what: &str,
    of: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyIterator>> {
    value.try_iter().map_err(|_| {
        PyTypeError::new_err(format!("{what} must be a list of {of}, not {}", type_name(value)))
    })
}

#[inline]
pub(crate) fn text<'a>(what: &str, value: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    match value.cast::<PyString>() {
        Ok(text) => text.to_str(),
        Err(_) => {
            Err(PyTypeError::new_err(format!("{what} must be a str, not {}", type_name(value))))
        }
    }
}

/// Whether it counts as an int: everything with `__index__`, as integers of numpy have it, but no
/// bool, which is one by accident.
pub(crate) fn is_integer(value: &Bound<'_, PyAny>) -> bool {
    match value.is_instance_of::<PyInt>() {
        true => !value.is_instance_of::<PyBool>(),
        false => value.get_type().hasattr("__index__").unwrap_or(false),
    }
}

/// An int of a certain width. `wanted` says what else would do.
pub(crate) fn integer<T>(what: &str, wanted: &str, value: &Bound<'_, PyAny>) -> PyResult<T>
where
    T: for<'a, 'py> FromPyObject<'a, 'py, Error = PyErr>,
{
    let py = value.py();
    if is_integer(value) {
        return value.extract().map_err(|error: PyErr| {
            if error.is_instance_of::<PyOverflowError>(py) {
                errors::argument(py, &format!("{what} is {value}, which is out of range"))
            } else {
                error
            }
        });
    }
    Err(PyTypeError::new_err(format!("{what} must be {wanted}, not {}", type_name(value))))
}

#[inline]
pub(crate) fn partition(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    integer("partition", "an int", value)
}

/// A timestamp: milliseconds since 1970 (UTC), or a `datetime` that knows its zone.
pub(crate) fn timestamp_ms(what: &str, value: &Bound<'_, PyAny>) -> PyResult<i64> {
    if let Ok(moment) = value.cast::<PyDateTime>() {
        if moment.get_tzinfo().is_none() {
            return Err(PyValueError::new_err(format!(
                "{what} is a datetime without a time zone; write datetime.now(timezone.utc), for \
                 example"
            )));
        }
        let seconds: f64 = moment.call_method0("timestamp")?.extract()?;
        return Ok((seconds * 1000.0).round() as i64);
    }
    integer(what, "an int (milliseconds since 1970) or a datetime", value)
}

/// Where to begin: `"earliest"`, `"latest"`, an offset, or a `datetime`.
pub(crate) fn start(given: Given, value: &Bound<'_, PyAny>) -> PyResult<Start> {
    let py = value.py();
    if let Ok(word) = value.cast::<PyString>() {
        return match word.to_str()? {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            other => Err(given.wrong(
                py,
                &format!("start is '{other}'; write 'earliest', 'latest', an offset or a datetime"),
            )),
        };
    }
    if value.is_instance_of::<PyDateTime>() {
        return timestamp_ms("start", value).map(Start::Timestamp);
    }
    let wanted = "'earliest', 'latest', an int (an offset) or a datetime";
    let offset: i64 = integer("start", wanted, value)?;
    if offset < 0 {
        return Err(given.wrong(
            py,
            &format!(
                "start is {offset}; an offset is 0 or more ('earliest' and 'latest' are words)"
            ),
        ));
    }
    Ok(Start::Offset(offset))
}

/// An offset to look up: `"earliest"`, `"latest"`, or a `datetime`.
pub(crate) fn spec(value: &Bound<'_, PyAny>) -> PyResult<OffsetSpec> {
    if let Ok(word) = value.cast::<PyString>() {
        return match word.to_str()? {
            "earliest" => Ok(OffsetSpec::Earliest),
            "latest" => Ok(OffsetSpec::Latest),
            other => Err(errors::argument(
                value.py(),
                &format!("at is '{other}'; write 'earliest', 'latest' or a datetime"),
            )),
        };
    }
    if value.is_instance_of::<PyDateTime>() {
        return timestamp_ms("at", value).map(OffsetSpec::Timestamp);
    }
    Err(PyTypeError::new_err(format!(
        "at must be 'earliest', 'latest' or a datetime, not {}",
        type_name(value)
    )))
}

fn topic_partition(what: &str, pair: &Bound<'_, PyAny>) -> PyResult<(String, i32)> {
    let Some(pair) = pair.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2) else {
        return Err(PyTypeError::new_err(format!(
            "{what} must be (topic, partition) tuples; one of them is {}",
            type_name(pair)
        )));
    };
    let topic = text(&format!("the topic in {what}"), &pair.get_item(0)?)?.to_owned();
    let wanted = format!("the partition in {what}");
    Ok((topic, integer(&wanted, "an int", &pair.get_item(1)?)?))
}

/// `partitions`: (topic, partition) tuples.
pub(crate) fn partitions(partitions: &Bound<'_, PyAny>) -> PyResult<Vec<(String, i32)>> {
    let each = iterate("partitions", "(topic, partition) tuples", partitions)?;
    each.map(|pair| topic_partition("partitions", &pair?)).collect()
}

/// `until`: a mapping of (topic, partition) tuples to offsets.
pub(crate) fn ends(until: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<(TopicPartition, i64)>> {
    let Some(until) = until else { return Ok(Vec::new()) };
    let Ok(until) = until.cast::<PyDict>() else {
        return Err(PyTypeError::new_err(format!(
            "until must be a dict of (topic, partition) tuples and offsets, as Admin.offsets() \
             gives it, not {}",
            type_name(until)
        )));
    };
    if until.is_empty() {
        // It would never end, and whoever wrote it waits for an end.
        return Err(errors::argument(
            until.py(),
            "until names no partition, so there is no end. Consumer.assignment() is empty until a consumer knows its \
             topics: Admin.partitions(topic) tells how many there are",
        ));
    }
    let end = |(of, end): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let (topic, partition) = topic_partition("the keys of until", &of)?;
        let end = integer("an offset in until", "an int", &end)?;
        Ok((TopicPartition { topic: topic.into(), partition }, end))
    };
    until.iter().map(end).collect()
}

/// Where a value comes from: what is wrong with a setting leaves its handle unmade, what is wrong
/// with an argument of a call leaves it as it was.
#[derive(Clone, Copy)]
pub(crate) enum Given {
    Setting,
    Argument,
}

impl Given {
    pub(crate) fn wrong(self, py: Python<'_>, message: &str) -> PyErr {
        match self {
            Self::Setting => errors::config(py, message),
            Self::Argument => errors::argument(py, message),
        }
    }
}

/// A time span: seconds as int or float, or a `timedelta`.
pub(crate) fn duration(given: Given, what: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds: f64 = if value.is_instance_of::<PyDelta>() {
        value.call_method0("total_seconds")?.extract()?
    } else if value.is_instance_of::<PyBool>() || value.is_instance_of::<PyString>() {
        return Err(not_a_span(what, value));
    } else {
        value.extract().map_err(|_| not_a_span(what, value))?
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        given.wrong(
            value.py(),
            &format!("{what} is {seconds}; it takes seconds, 0 or more (or a timedelta)"),
        )
    })
}

/// As [`duration`] for arguments where `None` is no limit.
pub(crate) fn timeout(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    value.map(|value| duration(Given::Argument, "timeout", value)).transpose()
}

#[cold]
fn not_a_span(what: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!(
        "{what} must be seconds (int or float) or a timedelta, not {}",
        type_name(value)
    ))
}

/// Number of bytes: an int, or a string like `"16 MiB"`.
pub(crate) fn size(what: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_str()?;
        return parse_size(text).ok_or_else(|| {
            errors::config(py, &format!("{what} is '{text}'; write a size like 65536 or '16 MiB'"))
        });
    }
    if !is_integer(value) {
        return Err(PyTypeError::new_err(format!(
            "{what} must be an int (bytes) or a string like '16 MiB', not {}",
            type_name(value)
        )));
    }
    value
        .extract()
        .map_err(|_| errors::config(py, &format!("{what} is {value}; it takes bytes, 0 or more")))
}

fn parse_size(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.replace('_', "").parse::<usize>().ok()?.checked_mul(factor)
}

/// The name of a value's class, for messages.
pub(crate) fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}
