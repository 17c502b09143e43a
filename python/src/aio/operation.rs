//! What a call gives that has to be awaited: a coroutine in all but name, so that it can be awaited, and given to
//! `create_task`, `gather`, `wait_for` and task groups.
//!
//! What is waited for is looked at on the loop's thread, in the step of the task that takes it. What the loop hears of the
//! engine is only that it is worth looking again: so nothing is taken for a task that is cancelled in this moment.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyException, PyRuntimeError, PyRuntimeWarning, PyStopIteration};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::iterator::PySendResult;
use pyo3::types::{PyIterator, PyType};

use super::event_loop::{self, Loop, Token};
use super::futures::{self, iterator};
use crate::delivery::WAITING;
use crate::ending::inside;
use crate::errors;
use crate::exclusive::lock;
use crate::fork::Here;
use crate::guard::guarded;
use crate::wait::Deadline;

/// What is waited for.
pub(crate) trait Work: Send {
    /// Gives what is there; `context` has the waker to be woken when it is worth looking again.
    fn look(&mut self, py: Python<'_>, context: &mut Context<'_>) -> PyResult<Poll<Step>>;

    /// The timeout has passed with nothing there.
    fn late(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>>;

    /// What is said of one that was thrown away before anybody awaited it; `None`: it does not matter.
    fn unawaited(&self) -> Option<String>;
}

/// What a look finds.
pub(crate) enum Step {
    Done(Py<PyAny>),
    /// A record has been taken, and its outcome is waited for.
    Sent(ottla::Delivery),
}

enum State {
    /// Known before it is awaited.
    Ready(Py<PyAny>),
    Working(Here<Mutex<Box<dyn Work>>>),
    /// A record on its way.
    Sent(Here<ottla::Delivery>),
    /// The same, for who asks for its outcome within a time, or for the error instead of having it raised.
    Asked {
        delivery: Here<ottla::Delivery>,
        raises: bool,
        timeout: Option<Duration>,
    },
    Over,
}

/// Something to be awaited, once. It belongs to the loop that awaits it first.
#[pyclass(module = "ottla.aio")]
pub(crate) struct Operation {
    state: State,
    deadline: Deadline,
    token: Option<Token>,
    /// What the future gives that is waited for in this moment.
    waits: Option<Py<PyIterator>>,
    timer: Option<Py<PyAny>>,
    begun: bool,
}

impl From<Step> for Operation {
    fn from(step: Step) -> Self {
        match step {
            Step::Done(value) => Self::ready(value),
            Step::Sent(delivery) => Self::sent(delivery),
        }
    }
}

impl Operation {
    fn new(state: State, deadline: Deadline) -> Self {
        Self { state, deadline, token: None, waits: None, timer: None, begun: false }
    }

    pub(crate) fn ready(value: Py<PyAny>) -> Self {
        Self::new(State::Ready(value), Deadline::never())
    }

    /// Of a record that has been taken, until its outcome.
    #[inline]
    pub(crate) fn sent(delivery: ottla::Delivery) -> Self {
        Self::new(State::Sent(Here::new(delivery)), Deadline::never())
    }

    /// The same with a timeout, or with the error as the value.
    pub(crate) fn asked(
        delivery: ottla::Delivery,
        raises: bool,
        timeout: Option<Duration>,
    ) -> Self {
        let delivery = Here::new(delivery);
        Self::new(State::Asked { delivery, raises, timeout }, Deadline::after(timeout))
    }

    pub(crate) fn working(work: impl Work + 'static, timeout: Option<Duration>) -> Self {
        Self::new(State::Working(Here::new(Mutex::new(Box::new(work)))), Deadline::after(timeout))
    }

    /// Ends it: what was waited for is let go.
    fn end(&mut self, py: Python<'_>) {
        let left =
            (std::mem::replace(&mut self.state, State::Over), self.token.take(), self.waits.take());
        if let Some(timer) = self.timer.take() {
            // A loop that is closed has no timers.
            let _ = timer.call_method0(py, "cancel");
        }
        drop(left);
    }

    /// Goes on until something has to be waited for, which is given, or it is over: then that is `Ok(Err(value))`.
    fn step(&mut self, py: Python<'_>) -> PyResult<Result<Py<PyAny>, Py<PyAny>>> {
        self.begun = true;
        loop {
            let mut value = None;
            if let Some(waits) = &self.waits {
                match waits.bind(py).send(py.None().bind(py)) {
                    Ok(PySendResult::Next(future)) => return Ok(Ok(future.unbind())),
                    Ok(PySendResult::Return(told)) => value = Some(told.unbind()),
                    // It is looked at below.
                    Err(_) if self.is_told() => {}
                    Err(error) => return Err(error),
                }
                self.waits = None;
            }
            match &mut self.state {
                State::Over => {
                    let message = "this was awaited already; call it anew";
                    return Err(PyRuntimeError::new_err(message));
                }
                State::Ready(value) => return Ok(Err(value.clone_ref(py))),
                State::Sent(_) if value.is_some() => {
                    return Ok(Err(value.expect("it was looked at")));
                }
                State::Sent(delivery) => {
                    let delivery = ottla::bindings::another(delivery.get(py, "delivery")?);
                    let of = event_loop::running(py)?;
                    match of.acknowledged(py, delivery)? {
                        Err(outcome) => return futures::acked(py, outcome).map(Err),
                        Ok(future) => self.waits = Some(iterator(&future)?.unbind()),
                    }
                }
                State::Asked { delivery, raises, timeout } => {
                    let delivery = delivery.get(py, "delivery")?;
                    let raises = *raises;
                    let outcome = match delivery.try_get() {
                        Some(outcome) => outcome,
                        None if self.deadline.left().is_zero() => {
                            return Err(errors::timeout(py, WAITING, *timeout, true));
                        }
                        None => {
                            let of = event_loop::running(py)?;
                            match of.acknowledged(py, ottla::bindings::another(delivery))? {
                                Err(outcome) => outcome,
                                Ok(future) => {
                                    self.wait_for(
                                        py,
                                        &future,
                                        Alarm(Rings::Future(future.clone().unbind())),
                                    )?;
                                    continue;
                                }
                            }
                        }
                    };
                    return match outcome {
                        Err(error) if !raises => Ok(Err(errors::exception(py, &error)?.unbind())),
                        Ok(_) if !raises => Ok(Err(py.None())),
                        outcome => futures::acked(py, outcome).map(Err),
                    };
                }
                State::Working(work) => {
                    let mut work = lock(work.get(py, "operation")?);
                    let of = event_loop::running(py)?;
                    let token = self.token.get_or_insert_with(|| of.one());
                    let mut context = Context::from_waker(&token.waker);
                    match guarded(py, || work.look(py, &mut context))? {
                        Poll::Ready(Step::Done(value)) => return Ok(Err(value)),
                        Poll::Ready(Step::Sent(delivery)) => {
                            drop(work);
                            self.state = State::Sent(Here::new(delivery));
                        }
                        Poll::Pending if self.deadline.left().is_zero() => {
                            return work.late(py).map(Err);
                        }
                        Poll::Pending => {
                            drop(work);
                            self.wait(py, &of)?;
                        }
                    }
                }
            }
        }
    }

    /// Whether a future that ended by an error did so by the outcome of a record that is asked for.
    fn is_told(&self) -> bool {
        match &self.state {
            State::Asked { delivery, .. } => {
                delivery.get_here().is_some_and(ottla::Delivery::is_done)
            }
            _ => false,
        }
    }

    fn wait(&mut self, py: Python<'_>, of: &Arc<Loop>) -> PyResult<()> {
        let token = self.token.as_ref().expect("it has a place");
        let (future, waker) = (of.signal(py, token)?, token.waker.clone());
        self.wait_for(py, &future, Alarm(Rings::Waker(waker)))
    }

    /// Waits for a future, or until the timeout has passed, which `alarm` then says.
    fn wait_for(
        &mut self,
        py: Python<'_>,
        future: &Bound<'_, PyAny>,
        alarm: Alarm,
    ) -> PyResult<()> {
        let left = self.deadline.left();
        if left < A_YEAR {
            if let Some(timer) = self.timer.take() {
                timer.call_method0(py, "cancel")?;
            }
            // A loop's clock stands still while a callback runs, so that it may call too early: then there is another
            // wait, with another timer.
            let late = (left + Duration::from_millis(1)).as_secs_f64();
            let event_loop = futures::running_loop(py)?;
            let timer = event_loop.call_method1("call_later", (late, Bound::new(py, alarm)?))?;
            self.timer = Some(timer.unbind());
        }
        self.waits = Some(iterator(future)?.unbind());
        Ok(())
    }
}

/// Longer than any loop runs: uvloop takes no timer of more.
const A_YEAR: Duration = Duration::from_secs(365 * 86_400);

impl Operation {
    /// The usual case of who awaits a record: it is driven by the future itself from here on.
    #[inline]
    fn future(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if !matches!((&self.state, &self.waits), (State::Sent(_), None)) {
            return Ok(None);
        }
        let of = event_loop::running(py)?;
        let State::Sent(delivery) = std::mem::replace(&mut self.state, State::Over) else {
            return Ok(None);
        };
        match of.acknowledged(py, delivery.into_inner(py, "delivery")?)? {
            Ok(future) => Ok(Some(iterator(&future)?.into_any().unbind())),
            Err(outcome) => {
                self.state = State::Ready(futures::acked(py, outcome)?);
                Ok(None)
            }
        }
    }

    /// What drives who awaits it.
    pub(crate) fn into_iterator(mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.future(py)? {
            Some(future) => Ok(future),
            None => Ok(Py::new(py, self)?.into_any()),
        }
    }
}

#[pymethods]
impl Operation {
    fn __await__(slf: Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let _inside = inside(slf.py());
        let future = slf.borrow_mut().future(slf.py())?;
        Ok(future.unwrap_or_else(|| slf.into_any().unbind()))
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _inside = inside(py);
        match self.step(py) {
            Ok(Ok(future)) => Ok(future),
            Ok(Err(value)) => {
                self.end(py);
                Err(PyStopIteration::new_err((value,)))
            }
            Err(error) => {
                self.end(py);
                Err(error)
            }
        }
    }

    /// As a coroutine's; only None can be sent.
    fn send(&mut self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _inside = inside(py);
        let _ = value;
        self.__next__(py)
    }

    /// As a coroutine's: this is how a task is cancelled.
    #[pyo3(signature = (kind, value=None, traceback=None, /))]
    fn throw(
        &mut self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _inside = inside(py);
        let _ = traceback;
        self.begun = true;
        let value = value.filter(|value| !value.is_none());
        let error = match (value, kind.cast::<PyType>()) {
            (Some(value), _) => PyErr::from_value(value.clone()),
            (None, Ok(class)) => PyErr::from_value(class.call0()?),
            (None, Err(_)) => PyErr::from_value(kind.clone()),
        };
        // A task throws what its future ended with, too.
        if self.waits.is_some() && self.is_told() && error.is_instance_of::<PyException>(py) {
            self.waits = None;
            return self.__next__(py);
        }
        self.end(py);
        Err(error)
    }

    /// As a coroutine's.
    fn close(&mut self, py: Python<'_>) {
        let _inside = inside(py);
        self.begun = true;
        self.end(py);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let State::Ready(value) = &self.state {
            visit.call(value)?;
        }
        visit.call(&self.waits)?;
        visit.call(&self.timer)
    }

    fn __clear__(&mut self) {
        self.begun = true;
        (self.waits, self.timer, self.token) = (None, None, None);
        self.state = State::Over;
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.begun {
            return;
        }
        let State::Working(work) = &self.state else { return };
        let Some(message) = work.get_here().and_then(|work| lock(work).unawaited()) else { return };
        Python::try_attach(|py| {
            let _inside = inside(py);
            let warned = std::ffi::CString::new(message).map_err(PyErr::from).and_then(|message| {
                PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 1)
            });
            if let Err(error) = warned {
                error.write_unraisable(py, None);
            }
        });
    }
}

/// What a loop calls when a timeout has passed: who waits is woken.
#[pyclass(module = "ottla.aio", frozen)]
struct Alarm(Rings);

enum Rings {
    Waker(Waker),
    Future(Py<PyAny>),
}

#[pymethods]
impl Alarm {
    fn __call__(&self, py: Python<'_>) {
        let _inside = inside(py);
        match &self.0 {
            Rings::Waker(waker) => waker.wake_by_ref(),
            Rings::Future(future) => futures::finish(future.bind(py), Ok(py.None())),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.0 {
            Rings::Waker(_) => Ok(()),
            Rings::Future(future) => visit.call(future),
        }
    }
}

/// What the engine does for a call, as work: a future of it, and how its output is told.
pub(crate) struct Engine<F, T> {
    future: Pin<Box<F>>,
    tell: fn(Python<'_>, T) -> PyResult<Py<PyAny>>,
    late: fn(Python<'_>, Option<Duration>) -> PyResult<Py<PyAny>>,
    timeout: Option<Duration>,
    name: &'static str,
}

impl<F, T> Work for Engine<F, T>
where
    F: Future<Output = T> + Send,
{
    fn look(&mut self, py: Python<'_>, context: &mut Context<'_>) -> PyResult<Poll<Step>> {
        match ottla::bindings::poll_alone(|| self.future.as_mut().poll(context)) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(output) => {
                (self.tell)(py, output).map(|value| Poll::Ready(Step::Done(value)))
            }
        }
    }

    fn late(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        (self.late)(py, self.timeout)
    }

    fn unawaited(&self) -> Option<String> {
        Some(never_awaited(self.name))
    }
}

pub(crate) fn never_awaited(name: &str) -> String {
    format!("ottla.aio: {name}() was never awaited")
}

/// A call of the engine's that begins when it is awaited.
pub(crate) fn engine<T, F>(
    name: &'static str,
    timeout: Option<Duration>,
    future: F,
    tell: fn(Python<'_>, T) -> PyResult<Py<PyAny>>,
    late: fn(Python<'_>, Option<Duration>) -> PyResult<Py<PyAny>>,
) -> Operation
where
    T: 'static,
    F: Future<Output = T> + Send + 'static,
{
    Operation::working(Engine { future: Box::pin(future), tell, late, timeout, name }, timeout)
}

/// For calls that have an end of their own.
pub(crate) fn never_late(_: Python<'_>, _: Option<Duration>) -> PyResult<Py<PyAny>> {
    unreachable!("there is no timeout")
}
