//! Calls of one producer that wait for buffer space, in the order in which they were made: one line for each event loop.
//!
//! The first of the line is at work, with the engine's future; the others wait behind it, so that none is overtaken. When
//! memory is given back the line goes on by itself, as far as it comes, and not by the tasks that wait in it: they only
//! hear that their call is through.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use ottla::bindings;
use pyo3::prelude::*;

use super::event_loop::{Loop, Token};
use super::operation::{Step, Work, never_awaited};
use crate::delivery::Parts;
use crate::errors;
use crate::exclusive::lock;

/// What a call in a line comes to.
pub(crate) enum Taken {
    One(ottla::Delivery),
    Many(Parts),
    /// It had nothing to hand over: those before it are through.
    Nothing,
}

pub(crate) type Taking = Pin<Box<dyn Future<Output = ottla::Result<Taken>> + Send>>;

/// The line of a producer on an event loop.
pub(crate) struct Line {
    of: Weak<Loop>,
    token: Token,
    calls: Mutex<VecDeque<Arc<Call>>>,
}

/// A call in a line.
struct Call(Mutex<Standing>);

enum Standing {
    /// In the line; and who is woken when it is through.
    Waits(Taking, Option<Waker>),
    Through(ottla::Result<Taken>),
    /// Taken by who waited, or left.
    Gone,
}

impl Line {
    pub(crate) fn new(of: &Arc<Loop>) -> Arc<Self> {
        Arc::new_cyclic(|line| Self {
            of: Arc::downgrade(of),
            token: of.line(Weak::clone(line)),
            calls: Mutex::default(),
        })
    }

    pub(crate) fn is_of(&self, of: &Arc<Loop>) -> bool {
        std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(of))
    }

    /// Whether its loop is gone.
    pub(crate) fn is_left(&self) -> bool {
        self.of.strong_count() == 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.calls).is_empty()
    }

    /// Goes on as far as there is space. Nothing of the program's runs in this.
    pub(crate) fn go_on(&self) {
        let mut calls = lock(&self.calls);
        while let Some(call) = calls.front() {
            let mut standing = lock(&call.0);
            if let Standing::Waits(taking, waker) = &mut *standing {
                let mut context = Context::from_waker(&self.token.waker);
                let poll = || bindings::poll_alone(|| taking.as_mut().poll(&mut context));
                let taken = match catch_unwind(AssertUnwindSafe(poll)) {
                    Ok(Poll::Pending) => return,
                    Ok(Poll::Ready(taken)) => taken,
                    Err(payload) => Err(bindings::panic_error(payload.as_ref())),
                };
                let waker = waker.take();
                *standing = Standing::Through(taken);
                waker.into_iter().for_each(Waker::wake);
            }
            drop(standing);
            calls.pop_front();
        }
    }

    /// Stands behind all others.
    fn stand(&self, taking: Taking) -> Arc<Call> {
        let call = Arc::new(Call(Mutex::new(Standing::Waits(taking, None))));
        lock(&self.calls).push_back(Arc::clone(&call));
        self.go_on();
        call
    }

    /// The producer is closed: nobody waits any more.
    pub(crate) fn end(&self) {
        let calls = std::mem::take(&mut *lock(&self.calls));
        for call in calls {
            let mut standing = lock(&call.0);
            if let Standing::Waits(_, waker) = &mut *standing {
                let waker = waker.take();
                *standing = Standing::Through(Err(bindings::closed_error("producer")));
                waker.into_iter().for_each(Waker::wake);
            }
        }
    }

    /// Ends when all that stand in the line now are through.
    pub(crate) fn through(&self) -> impl Future<Output = ()> + Send + use<> {
        let call = self.stand(Box::pin(async { Ok(Taken::Nothing) }));
        std::future::poll_fn(move |context| match &mut *lock(&call.0) {
            Standing::Waits(_, waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
    }

    fn leave(&self, call: &Arc<Call>) {
        let left = std::mem::replace(&mut *lock(&call.0), Standing::Gone);
        if matches!(left, Standing::Waits(..)) {
            lock(&self.calls).retain(|other| !Arc::ptr_eq(other, call));
            // It may have been the first.
            self.token.waker.wake_by_ref();
        }
        drop(left);
    }
}

/// A call that stands in a line, as work.
pub(crate) struct InLine {
    line: Arc<Line>,
    call: Arc<Call>,
    name: &'static str,
    then: fn(Python<'_>, Taken) -> PyResult<Step>,
}

impl InLine {
    /// Stands at the end of a line. What it comes to is told by `then`.
    pub(crate) fn new(
        line: Arc<Line>,
        name: &'static str,
        taking: Taking,
        then: fn(Python<'_>, Taken) -> PyResult<Step>,
    ) -> Self {
        let call = line.stand(taking);
        Self { line, call, name, then }
    }

    /// What it has come to, if that is known.
    fn taken(&self) -> Option<ottla::Result<Taken>> {
        let mut standing = lock(&self.call.0);
        match std::mem::replace(&mut *standing, Standing::Gone) {
            Standing::Through(taken) => Some(taken),
            other => {
                *standing = other;
                None
            }
        }
    }
}

impl Work for InLine {
    fn look(&mut self, py: Python<'_>, context: &mut Context<'_>) -> PyResult<Poll<Step>> {
        if let Some(taken) = self.taken() {
            let taken = taken.map_err(|error| errors::raise(py, &error))?;
            return (self.then)(py, taken).map(Poll::Ready);
        }
        if let Standing::Waits(_, waker) = &mut *lock(&self.call.0) {
            *waker = Some(context.waker().clone());
        }
        if self.line.is_left() {
            return Err(errors::argument(
                py,
                "the event loop on which this call waited for buffer space is closed; the records were not taken",
            ));
        }
        Ok(Poll::Pending)
    }

    fn late(&mut self, _: Python<'_>) -> PyResult<Py<PyAny>> {
        unreachable!("it has an end of its own")
    }

    fn unawaited(&self) -> Option<String> {
        match &*lock(&self.call.0) {
            Standing::Gone | Standing::Through(Ok(_)) => None,
            Standing::Waits(..) => Some(format!(
                "{} while the buffer was full: what it was given was not taken, or not all of it",
                never_awaited(self.name)
            )),
            Standing::Through(Err(error)) => {
                Some(format!("{}, and it failed: {error}", never_awaited(self.name)))
            }
        }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.line.leave(&self.call);
    }
}
