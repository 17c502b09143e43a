//! Statistics as a dict of numbers, `ottla.Stats` to type checkers.

use ottla::StatsHandle;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::fork::Here;
use crate::guard::guarded;

/// What holds numbers of brokers by their id, which JSON knows only as text.
const BY_BROKER: [&str; 2] = ["brokers", "acknowledged_by_broker"];

/// The statistics of a handle's pool. They can be read while another thread waits with the handle,
/// and when it is closed.
pub(crate) struct Statistics(Here<StatsHandle>);

impl Statistics {
    pub(crate) fn of(client: &ottla::Client) -> Self {
        Self(Here::new(client.stats_handle()))
    }

    pub(crate) fn dict<'py>(&self, py: Python<'py>, what: &str) -> PyResult<Bound<'py, PyDict>> {
        let handle = self.0.get(py, what)?;
        let stats = guarded(py, || Ok(handle.stats()))?;
        let text = serde_json::to_string(&stats).expect("numbers and names are JSON");
        let all = py.import("json")?.call_method1("loads", (text,))?.cast_into::<PyDict>()?;
        for name in BY_BROKER {
            let by_id = PyDict::new(py);
            if let Some(by_text) = all.get_item(name)? {
                for (id, value) in by_text.cast::<PyDict>()?.iter() {
                    by_id.set_item(id.extract::<String>()?.parse::<i32>()?, value)?;
                }
            }
            all.set_item(name, by_id)?;
        }
        Ok(all)
    }
}
