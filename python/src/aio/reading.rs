//! Reading for tasks: a call that waits takes what comes in the step of the task that gets it, so that a cancellation loses
//! nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ottla::bindings;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;

use super::crowd::Crowd;
use super::operation::{Operation, Step, Work, engine, never_awaited};
use super::tasks::Tasks;
use crate::reader::{Asks, Ends, Looked, Reader};
use crate::steering::{Steered, WHAT};
use crate::{ending, errors, member};

/// What the handle and those who wait share.
pub(crate) struct Reading {
    pub(crate) of: Steered,
    crowd: Arc<Crowd>,
    waiting: AtomicUsize,
    tasks: Tasks,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum What {
    Record,
    Batch,
    Event,
}

/// What comes of a call that gets nothing.
#[derive(Clone, Copy)]
pub(crate) enum Else {
    /// The iteration ends.
    Stops,
    /// None, or an error once the consumer is closed.
    Nothing,
}

impl Else {
    fn nothing(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self {
            Self::Stops => Err(PyStopAsyncIteration::new_err(())),
            Self::Nothing => Ok(py.None()),
        }
    }

    fn end(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Stops => PyStopAsyncIteration::new_err(()),
            Self::Nothing => errors::closed(py, WHAT),
        }
    }
}

/// A call that waits for a record, a batch, or what the group says. It is taken in the step of the task that gets it.
struct Next {
    reading: Arc<Reading>,
    /// The task that called, if that says anything.
    who: Asks,
    what: What,
    ends: Arc<Ends>,
    or_else: Else,
    /// With which the engine knows that somebody waits.
    waker: Option<Waker>,
}

impl Reading {
    pub(crate) fn new(of: Steered) -> Arc<Self> {
        let (crowd, tasks) = (Arc::default(), Tasks::default());
        Arc::new(Self { of, crowd, waiting: AtomicUsize::new(0), tasks })
    }

    /// `ends` and `timeout` are those of the call.
    pub(crate) fn next(
        self: &Arc<Self>,
        py: Python<'_>,
        what: What,
        or_else: Else,
        ends: Arc<Ends>,
        timeout: Option<Duration>,
    ) -> PyResult<Operation> {
        let who = if self.of.reader(py)?.marks { self.tasks.current(py)? } else { Asks::default() };
        let reading = Arc::clone(self);
        let next = Next { reading, who, what, ends, or_else, waker: None };
        Ok(Operation::working(next, timeout))
    }

    pub(crate) fn close_within(
        &self,
        py: Python<'_>,
        timeout: Option<Duration>,
        late: fn(Python<'_>, Option<Duration>) -> PyResult<Py<PyAny>>,
    ) -> PyResult<Operation> {
        let departure = self.of.close(py)?.departure.clone();
        self.crowd.call();
        // The engine ends the wait itself after 10 s.
        let leaving = async move { departure.wait().await };
        Ok(engine("close", timeout, leaving, |py, ()| Ok(py.None()), late))
    }
}

impl Next {
    fn find(&self, py: Python<'_>, reader: &Reader) -> PyResult<Option<Py<PyAny>>> {
        Ok(match self.what {
            What::Record => match reader.record_for(&self.who) {
                Some(record) => Some(Py::new(py, record)?.into_any()),
                None => None,
            },
            What::Batch | What::Event => match reader.batch_for(&self.who) {
                Some(batch) => Some(Py::new(py, batch)?.into_any()),
                None => None,
            },
        })
    }
}

impl Work for Next {
    fn look(&mut self, py: Python<'_>, context: &mut Context<'_>) -> PyResult<Poll<Step>> {
        let reader = self.reading.of.reader(py)?;
        loop {
            if self.reading.of.is_closed() {
                return Err(self.or_else.end(py));
            }
            if let Some(found) = self.find(py, reader)? {
                return Ok(Poll::Ready(Step::Done(found)));
            }
            self.reading.of.here(py)?;
            if self.waker.is_none() {
                self.reading.waiting.fetch_add(1, Ordering::SeqCst);
                self.waker = Some(context.waker().clone());
            }
            self.reading.crowd.join(context.waker());
            let waker = self.reading.crowd.waker();
            // A batch is opened in this, which may take a moment.
            let looked = ending::detach(py, || {
                let mut context = Context::from_waker(&waker);
                bindings::poll_alone(|| match self.what {
                    What::Event => reader.poll_event(&mut context),
                    _ => reader.poll(&self.ends, &mut context),
                })
            });
            let nothing = match looked {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(error)) => return Err(errors::raise(py, &error)),
                Poll::Ready(Ok(Looked::Found)) => continue,
                Poll::Ready(Ok(Looked::Event(event))) => match member::event(py, event)? {
                    Some(event) => event.unbind(),
                    None => continue,
                },
                Poll::Ready(Ok(Looked::Reached)) => self.or_else.nothing(py)?,
                Poll::Ready(Ok(Looked::End)) => return Err(self.or_else.end(py)),
            };
            return Ok(Poll::Ready(Step::Done(nothing)));
        }
    }

    fn late(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.or_else.nothing(py)
    }

    fn unawaited(&self) -> Option<String> {
        Some(never_awaited(match (self.or_else, self.what) {
            (Else::Stops, _) => "__anext__",
            (Else::Nothing, What::Event) => "next_event",
            (Else::Nothing, _) => "next",
        }))
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        let Some(waker) = self.waker.take() else { return };
        self.reading.crowd.leave(&waker);
        if self.reading.waiting.fetch_sub(1, Ordering::SeqCst) == 1
            && let Some(reader) = self.reading.of.reader_here()
        {
            reader.waits_no_more();
        }
    }
}
