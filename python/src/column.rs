//! Values that are a column of another package: read from a few buffers, without a Python object for each. `ottla/_columns.py`
//! makes those.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyList, PyTuple};

use crate::convert::Value;

/// The values of a column, in order.
pub(crate) enum Column {
    Chunks(Vec<Chunk>),
    /// All of one length.
    Rows {
        bytes: PyBackedBytes,
        width: usize,
        /// Zeros at the end are no part of the value, as numpy has it.
        padded: bool,
    },
}

/// Values one behind the other.
pub(crate) struct Chunk {
    bytes: PyBackedBytes,
    /// Where each begins, and the last ends.
    places: Vec<usize>,
    /// 0 for those that are null; `None`: none is.
    valid: Option<PyBackedBytes>,
}

type Given = (PyBackedBytes, PyBackedBytes, Option<PyBackedBytes>);

impl Chunk {
    fn of((bytes, places, valid): Given) -> PyResult<Self> {
        let broken = || PyValueError::new_err("the column's offsets do not fit its bytes");
        let places = places.as_chunks::<8>().0.iter().map(|place| i64::from_ne_bytes(*place));
        let first = places.clone().next().ok_or_else(broken)?;
        let place = |place: i64| usize::try_from(place.checked_sub(first)?).ok();
        let places = places.map(|at| place(at).ok_or_else(broken)).collect::<PyResult<Vec<_>>>()?;
        let rises = places.is_sorted() && places.last().is_some_and(|last| *last <= bytes.len());
        let fits = valid.as_ref().is_none_or(|valid| valid.len() + 1 == places.len());
        if rises && fits { Ok(Self { bytes, places, valid }) } else { Err(broken()) }
    }

    fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.places.windows(2).enumerate().map(|(number, place)| {
            let is_there = self.valid.as_ref().is_none_or(|valid| valid[number] != 0);
            is_there.then(|| &self.bytes[place[0]..place[1]])
        })
    }
}

/// A value of a column; `None` is null.
pub(crate) struct Cell<'a>(Option<&'a [u8]>);

impl AsRef<[u8]> for Cell<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.0.unwrap_or_default()
    }
}

impl Value for Cell<'_> {
    #[inline]
    fn get(&self) -> Option<&[u8]> {
        self.0
    }
}

impl Column {
    /// `None`: it is no column, or one to be iterated.
    pub(crate) fn from(values: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        if values.is_instance_of::<PyList>() || values.is_instance_of::<PyTuple>() {
            return Ok(None);
        }
        let py = values.py();
        let has = |name: &Bound<'_, _>| values.hasattr(name);
        let make = |name| py.import("ottla._columns")?.call_method1(name, (values,));
        if has(pyo3::intern!(py, "__arrow_c_stream__"))?
            || has(pyo3::intern!(py, "__arrow_c_array__"))?
        {
            let Some(chunks) = make("chunks")?.extract::<Option<Vec<Given>>>()? else {
                return Ok(None);
            };
            return Ok(Some(Self::Chunks(
                chunks.into_iter().map(Chunk::of).collect::<PyResult<_>>()?,
            )));
        }
        if has(pyo3::intern!(py, "__array_interface__"))? {
            let rows: Option<(PyBackedBytes, usize, bool)> = make("rows")?.extract()?;
            return Ok(rows.map(|(bytes, width, padded)| Self::Rows { bytes, width, padded }));
        }
        Ok(None)
    }

    /// Each value.
    pub(crate) fn values(&self) -> Vec<Cell<'_>> {
        match self {
            Self::Chunks(chunks) => chunks.iter().flat_map(Chunk::values).map(Cell).collect(),
            Self::Rows { bytes, width, padded } => {
                let rows = bytes.chunks_exact((*width).max(1));
                let cut = |row| if *padded { without_zeros(row) } else { row };
                rows.map(|row| Cell(Some(cut(row)))).collect()
            }
        }
    }
}

fn without_zeros(row: &[u8]) -> &[u8] {
    let end = row.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &row[..end]
}
