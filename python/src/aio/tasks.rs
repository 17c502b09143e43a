//! Tasks that share a consumer: what one was given is done when it asks for the next, and not when another does. A task that
//! ends without asking has left undone what it has in hand, and nobody waits for it any more.

use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::futures::current_task;
use crate::exclusive::lock;
use crate::reader::{Asks, this_thread_alive};

#[derive(Default)]
pub(crate) struct Tasks(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Those that have not ended, the last to be found at the end. A place in memory says nothing: a task that has ended
    /// leaves it to a new one.
    tasks: Vec<(Py<PyWeakrefReference>, Asks)>,
    last: u64,
}

/// Who asks outside of a task: a callback of the loop.
const NO_TASK: u64 = u64::MAX;

impl Tasks {
    /// The task that runs, by a number that no later one has.
    pub(crate) fn current(&self, py: Python<'_>) -> PyResult<Asks> {
        let Some(task) = current_task(py)? else {
            return Ok(Asks { number: NO_TASK, alive: this_thread_alive() });
        };
        let is = |of: &Py<PyWeakrefReference>| of.bind(py).upgrade().is_some_and(|of| of.is(&task));
        if let Some((_, asks)) = lock(&self.0).tasks.iter().rev().find(|(of, _)| is(of)) {
            return Ok(asks.clone());
        }
        let (of, alive) = (PyWeakrefReference::new(&task)?.unbind(), Arc::new(()));
        let held = Arc::downgrade(&alive);
        // Called by the loop when the task has ended; and gone with a task that is thrown away before.
        task.call_method1("add_done_callback", (Ended(Mutex::new(Some(alive))),))?;
        let mut known = lock(&self.0);
        known.last += 1;
        let asks = Asks { number: known.last, alive: held };
        let is_there = |(_, asks): &(_, Asks)| asks.alive.strong_count() > 0;
        let (kept, left) = std::mem::take(&mut known.tasks).into_iter().partition(is_there);
        known.tasks = kept;
        known.tasks.push((of, asks.clone()));
        drop(known);
        let _: Vec<_> = left;
        Ok(asks)
    }
}

/// Keeps a task's hold until it has ended.
#[pyclass(module = "ottla.aio", frozen)]
struct Ended(Mutex<Option<Arc<()>>>);

#[pymethods]
impl Ended {
    fn __call__(&self, task: &Bound<'_, PyAny>) {
        let _ = task;
        let held = lock(&self.0).take();
        drop(held);
    }
}
