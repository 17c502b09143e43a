//! From a bootstrap list to a connected client. Handles of a process share one pool per cluster,
//! so that a client for each handle costs no connection.

use ottla::Client;
use ottla::engine::ClientOptions;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::convert;
use crate::errors::{self, OrRaise};
use crate::settings::Settings;
use crate::wait::{Deadline, wait};

/// What the settings of a client say, taken before the connection is made so that a misspelt setting
/// is reported first.
pub(crate) struct Connect(ottla::ClientBuilder);

impl Connect {
    pub(crate) fn new(bootstrap: &str, settings: &mut Settings<'_>) -> PyResult<Self> {
        let options = ClientOptions {
            bootstrap: bootstrap.to_owned(),
            client_id: settings.string("client_id")?,
            software: Some(("ottla-python".into(), env!("CARGO_PKG_VERSION").into())),
            connect_timeout: settings.duration("connect_timeout")?,
            request_timeout: settings.duration("request_timeout")?,
            idle_timeout: settings.duration("idle_timeout")?,
            rack: settings.string("rack")?,
            ordinal: ordinal(settings)?,
            ..Default::default()
        };
        Ok(Self(options.builder()))
    }

    /// Reaches a broker; the engine ends it at `connect_timeout`.
    pub(crate) fn connect(self, py: Python<'_>) -> PyResult<Client> {
        match wait(py, Deadline::never(), || false, self.0.connect())? {
            Some(client) => client.or_raise(py),
            None => unreachable!("a wait without an end has a result"),
        }
    }
}

/// `ordinal`: a pair of ints, as (index, count).
fn ordinal(settings: &mut Settings<'_>) -> PyResult<Option<(u32, u32)>> {
    let Some(value) = settings.take("ordinal")? else { return Ok(None) };
    let (index, count) = value.extract::<(i64, i64)>().map_err(|_| {
        PyTypeError::new_err(format!(
            "ordinal must be two ints, (index, count), not {}",
            convert::type_name(&value)
        ))
    })?;
    match (u32::try_from(index), u32::try_from(count)) {
        (Ok(index), Ok(count)) => Ok(Some((index, count))),
        _ => Err(errors::config(
            settings.py(),
            &format!("ordinal is ({index}, {count}); ordinals count from 0 to one below the count"),
        )),
    }
}
