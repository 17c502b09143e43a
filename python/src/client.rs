//! From a bootstrap list to a connected client. Handles of a process share one pool per cluster,
//! so that a client for each handle costs no connection.

use std::pin::Pin;

use ottla::Client;
use ottla::bindings::{self, ClientOptions, Properties};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::convert;
use crate::enums;
use crate::errors::{self, OrRaise};
use crate::logs;
use crate::oauth::Asked;
use crate::security::{self, Login};
use crate::settings::Settings;
use crate::wait::{Deadline, wait};

/// Ends when a broker was reached, or none within `connect_timeout`.
pub(crate) type Reaching = Pin<Box<dyn Future<Output = ottla::Result<()>> + Send>>;

/// What the settings of a client say, taken before the connection is made so that a misspelt setting
/// is reported first.
pub(crate) struct Connect {
    builder: ottla::ClientBuilder,
    /// Whether nothing says where the brokers are.
    nowhere: bool,
    /// Whether tokens come from an event loop.
    needs_loop: bool,
    asked: Asked,
    who: &'static str,
}

impl Connect {
    /// `bootstrap` is the argument of a constructor; a setting where the rest comes from properties.
    pub(crate) fn new(
        bootstrap: Option<&Bound<'_, PyAny>>,
        properties: Option<&Properties>,
        settings: &mut Settings<'_>,
    ) -> PyResult<Self> {
        let bootstrap = match (bootstrap, properties) {
            (None, Some(_)) => settings.take("bootstrap")?,
            (given, _) => given.cloned(),
        };
        let nowhere = bootstrap.is_none() && properties.is_none();
        let Login { sasl, asked, needs_loop } = security::sasl(settings)?;
        let options = ClientOptions {
            bootstrap: bootstrap.map_or(Ok(String::new()), |list| addresses(&list))?,
            properties: properties.cloned().unwrap_or_default(),
            client_id: settings.string("client_id")?,
            software: Some(("ottla-python".into(), env!("CARGO_PKG_VERSION").into())),
            connect_timeout: settings.duration("connect_timeout")?,
            request_timeout: settings.duration("request_timeout")?,
            idle_timeout: settings.duration("idle_timeout")?,
            rack: settings.string("rack")?,
            ordinal: ordinal(settings)?,
            on_cluster_change: enums::cluster_change(settings)?,
            tls: security::tls(settings)?,
            sasl,
            ..Default::default()
        };
        Ok(Self { builder: options.builder(), nowhere, needs_loop, asked, who: settings.who() })
    }

    fn somewhere(&self, py: Python<'_>) -> PyResult<()> {
        if self.nowhere {
            return Err(PyTypeError::new_err(format!(
                "a {} needs bootstrap, its first argument: 'host:port,host:port'",
                self.who
            )));
        }
        logs::watch(py)
    }

    /// The client at once, what reaches a broker for it, and what its handle is to keep.
    pub(crate) fn later(self, py: Python<'_>) -> PyResult<(Client, Reaching, Asked)> {
        self.somewhere(py)?;
        let (client, reached) = bindings::connect_later(self.builder).or_raise(py)?;
        Ok((client, Box::pin(reached), self.asked))
    }

    /// Reaches a broker; the engine ends it at `connect_timeout`. And what the handle is to keep.
    pub(crate) fn connect(self, py: Python<'_>) -> PyResult<(Client, Asked)> {
        self.somewhere(py)?;
        if self.needs_loop {
            let words = "sasl: an async def gives tokens to handles of ottla.aio, which run it on their loop; here it is to \
                         be a function";
            return Err(errors::config(py, words));
        }
        match wait(py, Deadline::never(), || false, self.builder.connect())? {
            Some(client) => Ok((client.or_raise(py)?, self.asked)),
            None => unreachable!("a wait without an end has a result"),
        }
    }
}

fn addresses(list: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = list.cast::<PyString>() {
        return Ok(text.to_str()?.to_owned());
    }
    Err(PyTypeError::new_err(format!(
        "bootstrap must be a str, 'host:port,host:port', not {}",
        convert::type_name(list)
    )))
}

/// `ordinal`: a pair of ints, as (index, count).
fn ordinal(settings: &mut Settings<'_>) -> PyResult<Option<(u32, u32)>> {
    let Some(value) = settings.take("ordinal")? else { return Ok(None) };
    let pair = value.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2).ok_or_else(|| {
        PyTypeError::new_err(format!(
            "ordinal must be two ints, (index, count), not {}",
            convert::type_name(&value)
        ))
    })?;
    let part =
        |at| convert::integer::<i64>("ordinal", "two ints, (index, count)", &pair.get_item(at)?);
    let (index, count) = (part(0)?, part(1)?);
    match (u32::try_from(index), u32::try_from(count)) {
        (Ok(index), Ok(count)) => Ok(Some((index, count))),
        _ => Err(errors::config(
            settings.py(),
            &format!("ordinal is ({index}, {count}); ordinals count from 0 to one below the count"),
        )),
    }
}
