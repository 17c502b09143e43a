//! Leaving the interpreter with records undelivered: a bounded flush, then a warning.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use ottla::Producer;
use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;

use crate::fork::Here;
use crate::guard::guarded;
use crate::wait::{Deadline, wait};

/// How long a process that ends waits for its records. Short enough for a service manager's
/// patience; a program that needs more closes its producers itself.
const FLUSH_AT_EXIT: Duration = Duration::from_secs(5);

/// The producers whose records count when the process ends.
struct Registry {
    open: Vec<Weak<Here<Producer>>>,
    /// Engine handles of producers that were collected with records on their way. Bounded by what
    /// is undelivered: one that has nothing left goes when the next comes.
    orphans: Vec<Producer>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { open: Vec::new(), orphans: Vec::new() });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Remembers a producer until it is dropped.
pub(crate) fn opened(producer: &Arc<Here<Producer>>) {
    let mut registry = registry();
    registry.open.retain(|producer| producer.strong_count() > 0);
    registry.open.push(Arc::downgrade(producer));
}

/// A producer is collected without having been closed.
pub(crate) fn orphaned(producer: &Producer) {
    let mut registry = registry();
    registry.orphans.retain(has_records);
    if has_records(producer) {
        registry.orphans.push(producer.clone());
    }
}

/// Whether anything sent is not resolved yet: then a flush is not ready at once.
fn has_records(producer: &Producer) -> bool {
    let flush = pin!(producer.flush());
    flush.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// In a forked child: the producers are the parent's to flush.
pub(crate) fn forget() {
    // A lock that another thread of the parent held at the fork stays locked: then this child never
    // sees the end of its list, and `flush_at_exit` must not wait for it either.
    if let Ok(mut registry) = REGISTRY.try_lock() {
        std::mem::forget(std::mem::take(&mut registry.open));
        std::mem::forget(std::mem::take(&mut registry.orphans));
    }
}

#[pyfunction]
fn _flush_at_exit(py: Python<'_>) -> PyResult<()> {
    let (open, orphans) = match REGISTRY.try_lock() {
        Ok(mut registry) => {
            (std::mem::take(&mut registry.open), std::mem::take(&mut registry.orphans))
        }
        Err(_) => return Ok(()),
    };
    let mut producers = orphans;
    let open = open.iter().filter_map(Weak::upgrade);
    producers.extend(open.filter_map(|producer| producer.get_here().cloned()));
    guarded(py, || {
        producers.retain(has_records);
        Ok(())
    })?;
    if producers.is_empty() {
        return Ok(());
    }
    let flush = async {
        for producer in &producers {
            // What a record failed with is its delivery's to tell.
            let _ = producer.flush().await;
        }
    };
    if wait(py, Deadline::after(Some(FLUSH_AT_EXIT)), || false, flush)?.is_some() {
        return Ok(());
    }
    let message = std::ffi::CString::new(format!(
        "ottla: the process ends with records undelivered after waiting {FLUSH_AT_EXIT:?}; close \
         the producer (or use it in a with block) to choose how long to wait and to learn what \
         failed"
    ))?;
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 1)
}

/// Has the interpreter call when it ends.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let hook = wrap_pyfunction!(_flush_at_exit, module)?;
    module.py().import("atexit")?.call_method1("register", (hook,))?;
    Ok(())
}
