//! What of asyncio is used: the running loop, the task, and futures. Those of a batch are told by C code of Python's own, without
//! a call from here for each.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyIterator, PyList};

use crate::delivery::Acked;
use crate::errors::OrRaise;

/// What of asyncio is used.
struct Asyncio {
    running: Py<PyAny>,
    future: Py<PyAny>,
    task: Py<PyAny>,
}

fn asyncio(py: Python<'_>) -> PyResult<&'static Asyncio> {
    static ASYNCIO: PyOnceLock<Asyncio> = PyOnceLock::new();
    ASYNCIO.get_or_try_init(py, || {
        let module = py.import("asyncio")?;
        Ok(Asyncio {
            // As get_running_loop(), without an exception where there is none.
            running: module.getattr("_get_running_loop")?.unbind(),
            future: module.getattr("Future")?.unbind(),
            task: module.getattr("current_task")?.unbind(),
        })
    })
}

/// The task that runs on this thread.
pub(crate) fn current_task(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let task = asyncio(py)?.task.bind(py).call0()?;
    Ok((!task.is_none()).then_some(task))
}

/// The loop that runs on this thread, as asyncio has it.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let event_loop = asyncio(py)?.running.bind(py).call0()?;
    if event_loop.is_none() { Err(no_loop()) } else { Ok(event_loop) }
}

#[cold]
fn no_loop() -> PyErr {
    PyRuntimeError::new_err(
        "no event loop of asyncio runs on this thread: ottla.aio is awaited under asyncio.run(), uvloop, or anyio \
         with its asyncio backend. Elsewhere, trio for example, use the handles of ottla itself in a thread \
         (trio.to_thread.run_sync)",
    )
}

/// A future of the loop that runs on this thread.
#[inline]
pub(crate) fn future(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    asyncio(py)?.future.bind(py).call0()
}

/// The outcome of a record as Python has it.
#[inline]
pub(crate) fn acked(py: Python<'_>, outcome: ottla::Result<ottla::Acked>) -> PyResult<Py<PyAny>> {
    Ok(Py::new(py, Acked::from(outcome.or_raise(py)?))?.into_any())
}

pub(crate) fn is_done(future: &Bound<'_, PyAny>) -> bool {
    future
        .call_method0(pyo3::intern!(future.py(), "done"))
        .is_ok_and(|done| done.is_truthy().unwrap_or(true))
}

/// Tells whoever waits for the future, unless it was cancelled.
pub(crate) fn finish(future: &Bound<'_, PyAny>, outcome: PyResult<Py<PyAny>>) {
    let py = future.py();
    let told = match outcome {
        Ok(value) => future.call_method1(pyo3::intern!(py, "set_result"), (value,)),
        Err(error) => {
            future.call_method1(pyo3::intern!(py, "set_exception"), (error.into_value(py),))
        }
    };
    // Somebody else has ended it.
    if let Err(error) = told
        && !is_done(future)
    {
        error.write_unraisable(py, Some(future));
    }
}

/// What of asyncio is called for each of many futures, by `map`: without a call from here for each.
struct Each {
    map: Py<PyAny>,
    list: Py<PyAny>,
    done: Py<PyAny>,
    set_result: Py<PyAny>,
}

fn each(py: Python<'_>) -> PyResult<&'static Each> {
    static EACH: PyOnceLock<Each> = PyOnceLock::new();
    EACH.get_or_try_init(py, || {
        let builtins = py.import("builtins")?;
        let future = asyncio(py)?.future.bind(py);
        Ok(Each {
            map: builtins.getattr("map")?.unbind(),
            list: builtins.getattr("list")?.unbind(),
            done: future.getattr("done")?.unbind(),
            set_result: future.getattr("set_result")?.unbind(),
        })
    })
}

/// Which of these futures are done: cancelled, as nobody else has ended them.
pub(crate) fn are_done(py: Python<'_>, waiting: &[(ottla::Delivery, Py<PyAny>)]) -> Vec<bool> {
    let all = || -> PyResult<Vec<bool>> {
        let each = each(py)?;
        let futures = PyList::new(py, waiting.iter().map(|(_, future)| future))?;
        let done = each.list.bind(py).call1((each.map.bind(py).call1((&each.done, futures))?,))?;
        Ok(done
            .cast_into::<PyList>()?
            .iter()
            .map(|done| done.is_truthy().unwrap_or(true))
            .collect())
    };
    all().unwrap_or_else(|_| waiting.iter().map(|(_, future)| is_done(future.bind(py))).collect())
}

/// Gives these futures, none of which is done, a result each.
pub(crate) fn finish_all(py: Python<'_>, futures: Vec<Py<PyAny>>, values: Vec<Py<PyAny>>) {
    let all = || -> PyResult<()> {
        let each = each(py)?;
        let (futures, values) = (PyList::new(py, &futures)?, PyList::new(py, &values)?);
        let set = each.map.bind(py).call1((&each.set_result, futures, values))?;
        each.list.bind(py).call1((set,)).map(drop)
    };
    if all().is_err() {
        // One by one: what is done already says no more.
        let left = futures.into_iter().zip(values);
        let left = left.filter(|(future, _)| !is_done(future.bind(py)));
        left.for_each(|(future, value)| finish(future.bind(py), Ok(value)));
    }
}

/// How an awaited future of asyncio is driven: by what its `__await__` gives.
#[inline]
pub(crate) fn iterator<'py>(future: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    future.try_iter()
}
