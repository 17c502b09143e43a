//! The native half of the Python package `ottla`: handles over the engine, and waits that let
//! other threads run and Ctrl-C through.
//!
//! The engine's thread never attaches to the interpreter. A Python thread that has to wait
//! detaches, waits for a [`wait::SLICE`] at most, and looks for signals in between.
//!
//! ```text
//! settings ──> client ──> producer ──> delivery
//!                    └──> consumer ──> batch ──> record
//! ```

mod admin;
mod aio;
mod batch;
mod client;
mod column;
mod columns;
mod consumer;
mod convert;
mod delivery;
mod ending;
mod enums;
mod errors;
mod exclusive;
mod exit;
mod fork;
mod guard;
mod logs;
mod member;
mod oauth;
mod producer;
mod reader;
mod security;
mod settings;
mod stats;
mod steering;
#[cfg(feature = "testing")]
mod testing;
mod tokens;
mod wait;

use pyo3::prelude::*;

/// Native half of the package; import `ottla` instead.
#[pymodule(gil_used = false)]
mod _ottla {
    #[pymodule_export]
    use super::admin::Admin;
    #[pymodule_export]
    use super::batch::{BackwardsIterator, Batch, BatchIterator, Record};
    #[pymodule_export]
    use super::consumer::{Batches, Consumer, Events, Records};
    #[pymodule_export]
    use super::delivery::{Acked, BatchAcked, BatchDelivery, Delivery};
    #[cfg(feature = "testing")]
    #[pymodule_export]
    use super::guard::_panic;
    #[pymodule_export]
    use super::logs::LogReader;
    #[pymodule_export]
    use super::oauth::{ClientCredentials, OAuth, Token};
    #[pymodule_export]
    use super::producer::Producer;
    #[pymodule_export]
    use super::security::{Plain, Scram, Tls};
    #[cfg(feature = "testing")]
    #[pymodule_export]
    use super::testing::Broker;
    #[pymodule_export]
    use super::tokens::{TokenQueue, TokenRequest};
    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        // What the classes of `ottla/_errors.py` are compared with.
        let kinds: Vec<&str> = ottla::ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        module.add("_kinds", kinds)?;
        // What is imported by need later is imported now: then descriptors may have run out, and
        // pyo3 panics where it can not look for these types.
        let py = module.py();
        py.import("json")?;
        py.import("datetime")?;
        let _ = py.None().bind(py).is_instance_of::<pyo3::types::PyDelta>();
        let _ = py.None().bind(py).is_instance_of::<pyo3::types::PyDateTime>();
        aio::register(py)?;
        fork::register(module)?;
        exit::register(module)
    }
}
