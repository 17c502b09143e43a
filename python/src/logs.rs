//! Lines of the engine's, for the thread that hands them to Python's logging (`ottla/_logs.py`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use ottla::bindings::logs;
use pyo3::prelude::*;

use crate::ending;
use crate::errors::{self, OrRaise};
use crate::fork::Here;

/// Level, target, text, seconds since 1970, and how many lines were lost before.
type Line = (i32, &'static str, String, f64, u64);

/// A queue of lines. Private to the package.
#[pyclass(module = "ottla._ottla", frozen)]
pub(crate) struct LogReader {
    inner: Here<logs::LogReader>,
    closed: AtomicBool,
}

#[pymethods]
impl LogReader {
    #[new]
    fn new(py: Python<'_>, level: i32) -> PyResult<Self> {
        let level = logs::LogLevel::from_number(level).unwrap_or(logs::LogLevel::Warn);
        let inner = Here::new(logs::LogReader::open(level).or_raise(py)?);
        Ok(Self { inner, closed: AtomicBool::new(false) })
    }

    /// The next line; None if none came within timeout seconds, or if it is closed and all are taken.
    fn next(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<Line>> {
        let reader = self.inner.get(py, "log reader")?;
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
        let line = match ending::detach_for_good(py, || reader.next(Some(timeout))) {
            Ok(line) => line,
            Err(error) if error.kind() == ottla::ErrorKind::Closed => None,
            Err(error) => return Err(errors::raise(py, &error)),
        };
        Ok(line.map(|line| {
            let time = line.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            (line.level as i32, line.target, line.to_string(), time, line.dropped)
        }))
    }

    /// Takes no more lines and wakes who waits for one.
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(reader) = self.inner.get_here() {
            reader.close();
        }
    }

    fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// A handle is made: whoever hands lines on may begin.
pub(crate) fn watch(py: Python<'_>) -> PyResult<()> {
    py.import("ottla._logs")?.call_method0("watch").map(drop)
}
