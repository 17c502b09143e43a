//! Tasks that share a consumer, by a number each: what one was given is done when it asks for the next, and not when
//! another does.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::futures::current_task;
use crate::exclusive::lock;

#[derive(Default)]
pub(crate) struct Tasks(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Those that are there, the last to be found at the end. A place in memory says nothing: a task that has ended
    /// leaves it to a new one.
    tasks: Vec<(Py<PyWeakrefReference>, u64)>,
    last: u64,
}

/// Who asks outside of a task: a callback of the loop.
const NO_TASK: u64 = u64::MAX;

impl Tasks {
    /// The number of the task that runs; no later one has it.
    pub(crate) fn current(&self, py: Python<'_>) -> PyResult<u64> {
        let Some(task) = current_task(py)? else { return Ok(NO_TASK) };
        let is = |of: &Py<PyWeakrefReference>| of.bind(py).upgrade().is_some_and(|of| of.is(&task));
        let mut known = lock(&self.0);
        if let Some((_, number)) = known.tasks.iter().rev().find(|(of, _)| is(of)) {
            return Ok(*number);
        }
        let of = PyWeakrefReference::new(&task)?.unbind();
        known.tasks.retain(|(of, _)| of.bind(py).upgrade().is_some());
        known.last += 1;
        let number = known.last;
        known.tasks.push((of, number));
        Ok(number)
    }
}
