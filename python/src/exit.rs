//! Leaving the interpreter with records undelivered: a bounded flush, then a warning. Members of groups that are left
//! open commit what is done, and leave.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use ottla::bindings::Departure;
use ottla::{ConsumerControl, Producer, bindings};
use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;

use crate::ending;
use crate::fork::Here;
use crate::guard::guarded;
use crate::oauth::Asked;
use crate::wait::{Deadline, wait};

/// How long a process that ends waits for its records. Short enough for a service manager's
/// patience; a program that needs more closes its producers itself.
const FLUSH_AT_EXIT: Duration = Duration::from_secs(5);

/// The producers whose records count when the process ends.
struct Registry {
    open: Vec<Weak<Here<Producer>>>,
    /// Producers that were collected with records on their way. The engine keeps each until those are
    /// resolved. It does not come here for that: its thread runs without the interpreter, so a fork
    /// could leave the child with a lock that nobody opens.
    orphans: Vec<Orphan>,
    /// Members of groups, also those that were collected and have not left yet.
    members: Vec<Member>,
}

struct Orphan {
    producer: Weak<Producer>,
    /// Its records may want a token still. The engine can not keep that, for the same reason.
    _asked: Asked,
}

struct Member {
    control: ConsumerControl,
    departure: Departure,
    pid: u32,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { open: Vec::new(), orphans: Vec::new(), members: Vec::new() });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Remembers a producer until it is dropped.
pub(crate) fn opened(producer: &Arc<Here<Producer>>) {
    let mut registry = registry();
    registry.open.retain(|producer| producer.strong_count() > 0);
    registry.open.push(Arc::downgrade(producer));
    let over = over(&mut registry);
    drop(registry);
    drop(over);
}

/// Orphans that have no records any more. Dropped without the lock: they may be the last to keep an object of the program's.
fn over(registry: &mut Registry) -> Vec<Orphan> {
    let has_ended = |orphan: &mut Orphan| orphan.producer.strong_count() == 0;
    registry.orphans.extract_if(.., has_ended).collect()
}

/// Remembers a member of a group until it has left; nothing if there is no group.
pub(crate) fn joined(control: &ConsumerControl, departure: &Departure) {
    if departure.is_over() {
        return;
    }
    let mut registry = registry();
    registry.members.retain(|member| !member.departure.is_over());
    let (control, departure) = (control.clone(), departure.clone());
    registry.members.push(Member { control, departure, pid: std::process::id() });
}

/// A producer is collected: without having been closed, or in the middle of it.
pub(crate) fn orphaned(producer: &Producer, asked: Asked) {
    // Whoever was told of a record's outcome may be here before that record counts as resolved.
    if !has_records(producer) {
        return;
    }
    let orphan = Arc::new(producer.clone());
    let mut registry = registry();
    let over = over(&mut registry);
    registry.orphans.push(Orphan { producer: Arc::downgrade(&orphan), _asked: asked });
    drop(registry);
    drop(over);
    bindings::when_resolved(producer, move || drop(orphan));
}

/// Whether anything that was sent is not resolved.
fn has_records(producer: &Producer) -> bool {
    bindings::unresolved_records([producer]) > 0
}

/// In a forked child: the producers are the parent's to flush.
pub(crate) fn forget() {
    ending::begin_anew();
    // A lock that another thread of the parent held at the fork stays locked: then this child never
    // sees the end of its list, and `flush_at_exit` must not wait for it either.
    if let Ok(mut registry) = REGISTRY.try_lock() {
        std::mem::forget(std::mem::take(&mut registry.open));
        std::mem::forget(std::mem::take(&mut registry.orphans));
        std::mem::forget(std::mem::take(&mut registry.members));
    }
}

#[pyfunction]
fn _flush_at_exit(py: Python<'_>) -> PyResult<()> {
    let outcome = flush_what_is_open(py);
    ending::begin(py);
    outcome
}

fn flush_what_is_open(py: Python<'_>) -> PyResult<()> {
    let (open, orphans, members) = match REGISTRY.try_lock() {
        Ok(mut registry) => (
            std::mem::take(&mut registry.open),
            std::mem::take(&mut registry.orphans),
            std::mem::take(&mut registry.members),
        ),
        Err(_) => return Ok(()),
    };
    // Those of a parent process are its own, also where nobody told of the fork.
    let (members, others): (Vec<Member>, Vec<Member>) =
        members.into_iter().partition(|member| member.pid == std::process::id());
    std::mem::forget(others);
    // They leave while producers are flushed.
    for member in &members {
        let _closed = bindings::close_consumer(&member.control);
    }
    let left = orphans.iter().filter_map(|orphan| orphan.producer.upgrade());
    let mut producers = left.map(|orphan| Producer::clone(&orphan)).collect::<Vec<_>>();
    let open = open.iter().filter_map(Weak::upgrade);
    producers.extend(open.filter_map(|producer| producer.get_here().cloned()));
    // From here on this tells what is left, and nothing else does.
    producers.iter().for_each(bindings::told_by_host);
    let mut lost = Vec::new();
    // Ctrl-C ends the wait, and not what there is to say.
    let mut interrupted = Ok(());
    let stays = |member: &Member| !member.departure.is_over();
    let something_is_left = || Ok(producers.iter().any(has_records) || members.iter().any(stays));
    let waited = if guarded(py, something_is_left)? {
        let flush = async {
            let mut lost = Vec::new();
            for producer in &producers {
                lost.extend(producer.flush().await.err());
            }
            for member in &members {
                member.departure.wait().await;
            }
            lost
        };
        let begun = Instant::now();
        match wait(py, Deadline::after(Some(FLUSH_AT_EXIT)), || false, flush) {
            Ok(told) => lost.extend(told.into_iter().flatten()),
            Err(raised) => interrupted = Err(raised),
        }
        begun.elapsed()
    } else {
        Duration::ZERO
    };
    lost.extend(producers.iter().filter_map(bindings::take_undelivered).map(ottla::Error::from));
    let warn = |message: String| {
        let message = std::ffi::CString::new(message)?;
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 1)
    };
    for error in lost.iter().filter(|error| error.undelivered().is_some()) {
        warn(format!("ottla: the process ends, and {}", error.message()))?;
    }
    match bindings::unresolved_records(&producers) {
        0 => {}
        records => warn(format!(
            "ottla: the process ends with {records} records undelivered after waiting {waited:.1?}; \
             close the producer (or use it in a with block) to choose how long to wait and to learn \
             what failed"
        ))?,
    }
    interrupted
}

/// Has the interpreter call when it ends.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let hook = wrap_pyfunction!(_flush_at_exit, module)?;
    module.py().import("atexit")?.call_method1("register", (hook,))?;
    Ok(())
}
