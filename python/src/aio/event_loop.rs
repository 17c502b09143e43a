//! One descriptor and one reader for each event loop of asyncio that uses the package, however many handles do.
//!
//! ```text
//! engine ── wakes tokens ──> Wakeups ── descriptor ──> loop's reader ──> look() ──> futures of asyncio
//! ```
//!
//! The engine never calls into the interpreter, and no thread stands between: what it wakes is a list of tokens, and the
//! loop looks at it when the descriptor says that there is something, once for all that came meanwhile. Acknowledgements
//! are waited for by the batch, so a batch of a thousand records is one token.
//!
//! A loop is found when somebody has to wait, by the thread that runs it. Nothing here keeps a loop alive or is kept
//! by a handle: what stands here goes with the loop's reader, which goes when the loop is closed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};
use std::task::Waker;

use ottla::bindings::{self, Wakeups, forks};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyNotImplementedError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::futures::{self, acked, are_done, finish, finish_all, is_done, running_loop};
use super::line::Line;
use crate::ending::inside;
use crate::errors::{self, OrRaise};
use crate::exclusive::lock;

/// An event loop on the thread that runs it.
pub(crate) struct Loop {
    of: Py<PyWeakrefReference>,
    wakeups: Arc<Wakeups>,
    state: Mutex<State>,
    generation: u32,
}

#[derive(Default)]
struct State {
    /// By the lower half of a token; the upper half is how often the place was used before.
    places: Vec<Place>,
    free: Vec<u32>,
    /// The place of each batch that is waited for, by its number.
    batches: HashMap<u32, u32>,
    /// The last one, number and place: consecutive records are mostly in one batch.
    last: Option<(u32, u32)>,
}

struct Place {
    used: u32,
    holds: Holds,
}

enum Holds {
    Nothing,
    /// One that waits, or will: it is to look again. The future is there while it waits.
    One(Option<Py<PyAny>>),
    Batch(Batch),
    Line(Weak<Line>),
}

/// Who waits for the records of one batch, each with a future that takes the outcome.
struct Batch {
    number: u32,
    waiting: Vec<(ottla::Delivery, Py<PyAny>)>,
    /// How many were left when those that wait no more were looked for last.
    kept: usize,
}

/// Below so many it is not looked for futures that were cancelled: they go with their batch.
const NOT_SWEPT: usize = 1_024;

/// A place in a loop, given back when dropped.
pub(crate) struct Token {
    of: Weak<Loop>,
    token: u64,
    pub(crate) waker: Waker,
}

impl Drop for Token {
    fn drop(&mut self) {
        let Some(of) = self.of.upgrade().filter(|of| of.is_here()) else { return };
        let left = of.state().leave(self.token);
        // Without the lock: what is dropped may be anybody's.
        drop(left);
    }
}

impl State {
    fn enter(&mut self, holds: Holds) -> u64 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { used: 0, holds: Holds::Nothing });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[at as usize];
        place.holds = holds;
        u64::from(place.used) << 32 | u64::from(at)
    }

    fn at(&mut self, token: u64) -> Option<&mut Holds> {
        let place = self.places.get_mut(token as u32 as usize)?;
        (u64::from(place.used) == token >> 32).then_some(&mut place.holds)
    }

    fn leave(&mut self, token: u64) -> Holds {
        let Some(holds) = self.at(token) else { return Holds::Nothing };
        let left = std::mem::replace(holds, Holds::Nothing);
        let at = token as u32;
        self.places[at as usize].used = self.places[at as usize].used.wrapping_add(1);
        self.free.push(at);
        if let Holds::Batch(batch) = &left {
            self.batches.remove(&batch.number);
            self.last = None;
        }
        left
    }

    /// Who waits for a batch, if anybody does.
    fn batch(&mut self, number: u32) -> Option<&mut Batch> {
        let at = match self.last {
            Some((last, at)) if last == number => at,
            _ => *self.batches.get(&number)?,
        };
        self.last = Some((number, at));
        match &mut self.places[at as usize].holds {
            Holds::Batch(batch) => Some(batch),
            _ => None,
        }
    }
}

thread_local! {
    /// The loops that this thread has run, the last one at the end.
    static LOOPS: RefCell<Vec<Weak<Loop>>> = const { RefCell::new(Vec::new()) };
}

/// The place for this thread's loop.
pub(crate) fn running(py: Python<'_>) -> PyResult<Arc<Loop>> {
    let event_loop = running_loop(py)?;
    let known = LOOPS.with_borrow(|loops| {
        // Mostly the last one.
        loops.iter().rev().filter_map(Weak::upgrade).find(|known| known.is(&event_loop))
    });
    match known {
        Some(known) => Ok(known),
        None => Loop::start(&event_loop),
    }
}

impl Loop {
    #[cold]
    fn start(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let py = event_loop.py();
        let wakeups = Wakeups::new().or_raise(py)?;
        let fd = wakeups.fd().as_raw_fd();
        let of = PyWeakrefReference::new(event_loop)?.unbind();
        let generation = forks();
        let made = Arc::new(Self { of, wakeups, state: Mutex::default(), generation });
        let reader = Bound::new(py, Reader { of: Some(Arc::clone(&made)) })?;
        event_loop.call_method1("add_reader", (fd, reader)).map_err(|error| {
            if error.is_instance_of::<PyNotImplementedError>(py) {
                let message = "this event loop cannot watch descriptors (add_reader), which ottla.aio needs: on \
                               Windows use asyncio.SelectorEventLoop";
                return errors::argument(py, message);
            }
            error
        })?;
        // Token providers that are to be awaited run on it.
        py.import("ottla._tokens")?.call_method1("seen", (event_loop,))?;
        LOOPS.with_borrow_mut(|loops| {
            loops.retain(|known| known.strong_count() > 0);
            loops.push(Arc::downgrade(&made));
        });
        Ok(made)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn is_here(&self) -> bool {
        self.generation == forks()
    }

    /// Whether it is this loop, in this process.
    fn is(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        let of = self.of.bind(event_loop.py()).upgrade();
        of.is_some_and(|of| of.is(event_loop)) && self.is_here()
    }

    fn enter(self: &Arc<Self>, holds: Holds) -> Token {
        let token = self.state().enter(holds);
        Token { of: Arc::downgrade(self), token, waker: self.wakeups.waker(token) }
    }

    /// A place for one that has to look again when it is woken.
    pub(crate) fn one(self: &Arc<Self>) -> Token {
        self.enter(Holds::One(None))
    }

    /// A place for a line, which is to go on when it is woken.
    pub(crate) fn line(self: &Arc<Self>, line: Weak<Line>) -> Token {
        self.enter(Holds::Line(line))
    }

    /// A future that is done when this token is woken.
    pub(crate) fn signal<'py>(
        &self,
        py: Python<'py>,
        token: &Token,
    ) -> PyResult<Bound<'py, PyAny>> {
        let future = futures::future(py)?;
        let before = match self.state().at(token.token) {
            Some(Holds::One(waiting)) => waiting.replace(future.clone().unbind()),
            _ => None,
        };
        drop(before);
        Ok(future)
    }

    /// A future for the outcome of a record; `None` if that is there already.
    #[inline]
    pub(crate) fn acknowledged<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        delivery: ottla::Delivery,
    ) -> PyResult<Result<Bound<'py, PyAny>, ottla::Result<ottla::Acked>>> {
        if bindings::batch_of(&delivery).is_none()
            && let Some(outcome) = delivery.try_get()
        {
            return Ok(Err(outcome));
        }
        let future = futures::future(py)?;
        Ok(match self.wait_for(py, delivery, future.clone().unbind()) {
            None => Ok(future),
            Some((_, outcome)) => Err(outcome),
        })
    }

    /// Keeps a future until the record's batch is resolved; gives it back with the outcome if it is.
    fn wait_for(
        self: &Arc<Self>,
        py: Python<'_>,
        delivery: ottla::Delivery,
        future: Py<PyAny>,
    ) -> Option<(Py<PyAny>, ottla::Result<ottla::Acked>)> {
        let swept = loop {
            let Some(number) = bindings::batch_of(&delivery) else {
                match delivery.try_get() {
                    Some(outcome) => return Some((future, outcome)),
                    None => continue,
                }
            };
            let mut state = self.state();
            if let Some(batch) = state.batch(number) {
                batch.waiting.push((delivery, future));
                let much =
                    batch.waiting.len() >= NOT_SWEPT && batch.waiting.len() >= 2 * batch.kept;
                break much.then_some(number);
            }
            let new = Batch { number, waiting: Vec::new(), kept: NOT_SWEPT / 2 };
            let token = state.enter(Holds::Batch(new));
            state.batches.insert(number, token as u32);
            drop(state);
            if !bindings::watch(&delivery, self.wakeups.waker(token)) {
                // Resolved in this moment, or moved.
                self.state().leave(token);
                if let Some(outcome) = delivery.try_get() {
                    return Some((future, outcome));
                }
            }
        };
        if let Some(number) = swept {
            self.sweep(py, number);
        }
        None
    }

    /// Lets go of futures that were cancelled: whoever waits for a record again and again, with a timeout, leaves one
    /// each time.
    #[cold]
    fn sweep(&self, py: Python<'_>, number: u32) {
        let Some(waiting) = self.state().batch(number).map(|of| std::mem::take(&mut of.waiting))
        else {
            return;
        };
        let (kept, left): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, future)| !is_done(future.bind(py)));
        drop(left);
        if let Some(batch) = self.state().batch(number) {
            batch.kept = kept.len();
            // What came meanwhile stands behind.
            let came = std::mem::replace(&mut batch.waiting, kept);
            batch.waiting.extend(came);
        }
    }

    /// Tells everybody whose token was woken.
    fn look(self: &Arc<Self>, py: Python<'_>) {
        let mut tokens = Vec::new();
        // What a line lets go is woken by it, and told in the second round.
        for _ in 0..2 {
            tokens.clear();
            self.wakeups.take(&mut tokens);
            for token in &tokens {
                self.told(py, *token);
            }
        }
    }

    fn told(self: &Arc<Self>, py: Python<'_>, token: u64) {
        let mut state = self.state();
        match state.at(token) {
            None | Some(Holds::Nothing) => {}
            Some(Holds::One(waiting)) => {
                let waiting = waiting.take();
                drop(state);
                if let Some(future) = waiting {
                    finish(future.bind(py), Ok(py.None()));
                }
            }
            Some(Holds::Line(line)) => {
                let line = line.upgrade();
                drop(state);
                if let Some(line) = line {
                    line.go_on();
                }
            }
            Some(Holds::Batch(_)) => {
                let left = state.leave(token);
                drop(state);
                if let Holds::Batch(batch) = left {
                    self.resolved(py, batch);
                }
            }
        }
    }

    fn resolved(self: &Arc<Self>, py: Python<'_>, batch: Batch) {
        let ended = are_done(py, &batch.waiting);
        let (mut futures, mut values) = (Vec::with_capacity(batch.waiting.len()), Vec::new());
        for ((delivery, future), ended) in batch.waiting.into_iter().zip(ended) {
            let told = match delivery.peek() {
                // It has moved, or another batch has the number.
                None => self.wait_for(py, delivery, future),
                Some(_) if ended => None,
                // Looked at now that somebody hears of it.
                Some(outcome) => Some((future, delivery.try_get().unwrap_or(outcome))),
            };
            match told.map(|(future, outcome)| (future, acked(py, outcome))) {
                None => {}
                Some((future, Ok(acked))) => {
                    futures.push(future);
                    values.push(acked);
                }
                Some((future, failed)) => finish(future.bind(py), failed),
            }
        }
        finish_all(py, futures, values);
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if !self.is_here() {
            // Deliveries are the parent's.
            let state = self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
            std::mem::forget(std::mem::take(state));
            std::mem::forget(Arc::clone(&self.wakeups));
        }
    }
}

/// What a loop calls when the descriptor is readable. It is what keeps the place of a loop, and goes with it.
#[pyclass(module = "ottla.aio", frozen)]
struct Reader {
    of: Option<Arc<Loop>>,
}

#[pymethods]
impl Reader {
    fn __call__(&self, py: Python<'_>) {
        let _inside = inside(py);
        // In a forked child that still has the parent's loop: the descriptor is the parent's to read.
        if let Some(of) = self.of.as_ref().filter(|of| of.is_here()) {
            of.look(py);
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(of) = &self.of else { return Ok(()) };
        let state = match of.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        for place in &state.places {
            match &place.holds {
                Holds::One(Some(future)) => visit.call(future)?,
                Holds::Batch(batch) => {
                    batch.waiting.iter().try_for_each(|(_, future)| visit.call(future))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let Some(of) = self.of.as_ref().filter(|of| of.is_here()) else { return };
        let left = std::mem::take(&mut *of.state());
        drop(left);
    }
}
