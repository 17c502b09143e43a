//! Keyword settings: each is taken by name, and what is left over is a mistake that gets a hint.

use std::time::Duration;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};

use crate::{convert, errors};

/// Names people bring from other clients, and what they are called here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("auto_offset_reset", "start='earliest' or 'latest'"),
    ("batch_num_messages", "batch_size (bytes)"),
    ("check_crcs", "check_crc"),
    ("client_rack", "rack"),
    ("compression_codec", "compression"),
    ("compression_gzip_level", "compression_level"),
    ("compression_lz4_level", "nothing: lz4 has no levels here"),
    ("compression_type", "compression"),
    ("compression_zstd_level", "compression_level"),
    ("connections_max_idle_ms", "idle_timeout (seconds)"),
    ("delivery_timeout_ms", "delivery_timeout (seconds)"),
    ("enable_idempotence", "nothing: it is on with acks='all'"),
    ("fetch_max_bytes", "max_bytes"),
    ("fetch_max_wait_ms", "max_wait (seconds)"),
    ("fetch_min_bytes", "min_bytes"),
    ("linger_ms", "linger (seconds)"),
    ("max_block_ms", "max_block (seconds)"),
    ("max_partition_fetch_bytes", "max_partition_bytes"),
    ("max_request_size", "max_record_size"),
    ("message_max_bytes", "max_record_size"),
    ("message_timeout_ms", "delivery_timeout (seconds)"),
    ("partitioner_class", "partitioner"),
    ("queue_buffering_max_kbytes", "buffer_memory (bytes)"),
    ("queue_buffering_max_ms", "linger (seconds)"),
    ("request_required_acks", "acks"),
    ("request_timeout_ms", "request_timeout (seconds)"),
];

/// The settings of one constructor call, taken one by one.
pub(crate) struct Settings<'py> {
    py: Python<'py>,
    /// Who is being made, for messages.
    who: &'static str,
    left: Option<Bound<'py, PyDict>>,
    known: Vec<&'static str>,
}

impl<'py> Settings<'py> {
    pub(crate) fn new(
        py: Python<'py>,
        who: &'static str,
        given: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Self> {
        // A copy: what `**` hands over may be somebody's dictionary.
        let left = given.map(|given| given.copy()).transpose()?;
        Ok(Self { py, who, left, known: Vec::with_capacity(16) })
    }

    pub(crate) fn py(&self) -> Python<'py> {
        self.py
    }

    /// The setting as it was given. `None` as a value counts as not given.
    pub(crate) fn take(&mut self, name: &'static str) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.known.push(name);
        let Some(left) = &self.left else { return Ok(None) };
        let Some(value) = left.get_item(name)? else { return Ok(None) };
        left.del_item(name)?;
        Ok(Some(value).filter(|value| !value.is_none()))
    }

    pub(crate) fn duration(&mut self, name: &'static str) -> PyResult<Option<Duration>> {
        self.take(name)?.map(|value| convert::duration(name, &value)).transpose()
    }

    pub(crate) fn size(&mut self, name: &'static str) -> PyResult<Option<usize>> {
        self.take(name)?.map(|value| convert::size(name, &value)).transpose()
    }

    pub(crate) fn bool(&mut self, name: &'static str) -> PyResult<Option<bool>> {
        let Some(value) = self.take(name)? else { return Ok(None) };
        match value.cast::<PyBool>() {
            Ok(value) => Ok(Some(value.is_true())),
            Err(_) => Err(self.wrong_type(name, "True or False", &value)),
        }
    }

    pub(crate) fn string(&mut self, name: &'static str) -> PyResult<Option<String>> {
        let Some(value) = self.take(name)? else { return Ok(None) };
        match value.cast::<PyString>() {
            Ok(text) => Ok(Some(text.to_str()?.to_owned())),
            Err(_) => Err(self.wrong_type(name, "a str", &value)),
        }
    }

    fn wrong_type(&self, name: &str, wanted: &str, value: &Bound<'py, PyAny>) -> PyErr {
        PyTypeError::new_err(format!("{name} must be {wanted}, not {}", convert::type_name(value)))
    }

    /// To be called when every known setting was taken: refuses what is left.
    pub(crate) fn finish(self) -> PyResult<()> {
        let Some(left) = self.left.filter(|left| !left.is_empty()) else { return Ok(()) };
        let mut complaints = Vec::new();
        for name in left.keys() {
            let name = name.to_string();
            complaints.push(match hint(&name, &self.known) {
                Some(hint) => format!("'{name}' (use {hint})"),
                None => format!("'{name}'"),
            });
        }
        let mut known = self.known;
        known.sort_unstable();
        let message = format!(
            "{} has no setting {}; it has {}",
            self.who,
            complaints.join(", "),
            known.join(", ")
        );
        Err(errors::config(self.py, &message))
    }
}

fn hint(name: &str, known: &[&'static str]) -> Option<String> {
    let plain = name.to_lowercase().replace(['.', '-'], "_");
    if let Some((_, here)) = ELSEWHERE.iter().find(|(there, _)| *there == plain) {
        return Some((*here).to_owned());
    }
    let nearest = known.iter().map(|known| (distance(&plain, known), known)).min()?;
    // A third of the letters wrong is a typo; more is another word.
    (nearest.0 <= (nearest.1.len() / 3).max(1)).then(|| (*nearest.1).to_owned())
}

/// Edits (insert, delete, replace) between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
