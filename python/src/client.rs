//! From a bootstrap list to a connected client. Handles of a process share one pool per cluster,
//! so that a client for each handle costs no connection.

use ottla::Client;
use pyo3::prelude::*;

use crate::errors::OrRaise;
use crate::settings::Settings;
use crate::wait::{Deadline, wait};

/// What `client_id`, `connect_timeout` and `request_timeout` say, taken before the connection is
/// made so that a misspelt setting is reported first.
pub(crate) struct Connect(ottla::ClientBuilder);

impl Connect {
    pub(crate) fn new(bootstrap: &str, settings: &mut Settings<'_>) -> PyResult<Self> {
        let mut builder = Client::builder()
            .bootstrap(bootstrap)
            .software("ottla-python", env!("CARGO_PKG_VERSION"));
        if let Some(id) = settings.string("client_id")? {
            builder = builder.client_id(id);
        }
        if let Some(timeout) = settings.duration("connect_timeout")? {
            builder = builder.connect_timeout(timeout);
        }
        if let Some(timeout) = settings.duration("request_timeout")? {
            builder = builder.request_timeout(timeout);
        }
        Ok(Self(builder))
    }

    /// Reaches a broker; the engine ends it at `connect_timeout`.
    pub(crate) fn connect(self, py: Python<'_>) -> PyResult<Client> {
        match wait(py, Deadline::never(), || false, self.0.connect())? {
            Some(client) => client.or_raise(py),
            None => unreachable!("a wait without an end has a result"),
        }
    }
}
