//! Handles for asyncio, on the same engine as all others.
//!
//! ```text
//! producer ──> line ─────┐
//! delivery ──────────────┼──> operation ──> event loop ──> asyncio's futures
//! consumer ──> crowd ────┘
//! ```
//!
//! What a call has to wait for is polled on the loop's own thread, with a waker of the loop's: no thread is started, and
//! none waits. Each method that may run Python code, of asyncio or of the program, is [`inside`](crate::ending::inside) for as
//! long. See `event_loop.rs` for how the loop hears of the engine, and `operation.rs` for what is awaited.

mod admin;
mod consumer;
mod crowd;
mod delivery;
mod event_loop;
mod futures;
mod line;
mod operation;
mod producer;
mod reach;
mod reading;
mod tasks;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Makes the classes known as the module `ottla._aio`, from which `ottla.aio` has them.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    let module = PyModule::new(py, "ottla._aio")?;
    module.gil_used(false)?;
    module.setattr("__doc__", "Native half of ottla.aio; import that instead.")?;
    module.add_class::<admin::AioAdmin>()?;
    module.add_class::<consumer::AioBatches>()?;
    module.add_class::<consumer::AioConsumer>()?;
    module.add_class::<consumer::AioEvents>()?;
    module.add_class::<consumer::AioRecords>()?;
    module.add_class::<delivery::AioBatchDelivery>()?;
    module.add_class::<delivery::AioDelivery>()?;
    module.add_class::<producer::AioProducer>()?;
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
    modules.set_item("ottla._aio", module)
}
