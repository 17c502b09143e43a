//! Keyword settings: each is taken by name, and what is left over is a mistake that gets a hint.

use std::time::Duration;

use ottla::bindings::{Meaning, Owner, Properties, Values, foreign, nearest};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};

use crate::convert::Given;
use crate::guard::guarded;
use crate::{convert, errors};

/// The settings of one constructor call, taken one by one.
pub(crate) struct Settings<'py> {
    py: Python<'py>,
    /// Who is being made, for messages.
    who: &'static str,
    left: Option<Bound<'py, PyDict>>,
    known: Vec<&'static str>,
}

impl<'py> Settings<'py> {
    pub(crate) fn new(
        py: Python<'py>,
        who: &'static str,
        given: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Self> {
        // A copy: what `**` hands over may be somebody's dictionary.
        let left = given.map(|given| given.copy()).transpose()?;
        Ok(Self { py, who, left, known: Vec::with_capacity(16) })
    }

    pub(crate) fn py(&self) -> Python<'py> {
        self.py
    }

    pub(crate) fn who(&self) -> &'static str {
        self.who
    }

    /// The setting as it was given. `None` as a value counts as not given.
    pub(crate) fn take(&mut self, name: &'static str) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.known.push(name);
        let Some(left) = &self.left else { return Ok(None) };
        let Some(value) = left.get_item(name)? else { return Ok(None) };
        left.del_item(name)?;
        Ok(Some(value).filter(|value| !value.is_none()))
    }

    pub(crate) fn duration(&mut self, name: &'static str) -> PyResult<Option<Duration>> {
        self.take(name)?.map(|value| convert::duration(Given::Setting, name, &value)).transpose()
    }

    pub(crate) fn size(&mut self, name: &'static str) -> PyResult<Option<usize>> {
        self.take(name)?.map(|value| convert::size(name, &value)).transpose()
    }

    pub(crate) fn bool(&mut self, name: &'static str) -> PyResult<Option<bool>> {
        let Some(value) = self.take(name)? else { return Ok(None) };
        match value.cast::<PyBool>() {
            Ok(value) => Ok(Some(value.is_true())),
            Err(_) => Err(self.wrong_type(name, "True or False", &value)),
        }
    }

    pub(crate) fn string(&mut self, name: &'static str) -> PyResult<Option<String>> {
        self.take(name)?.map(|value| convert::text(name, &value).map(str::to_owned)).transpose()
    }

    fn wrong_type(&self, name: &str, wanted: &str, value: &Bound<'py, PyAny>) -> PyErr {
        PyTypeError::new_err(format!("{name} must be {wanted}, not {}", convert::type_name(value)))
    }

    /// To be called when every known setting was taken: refuses what is left.
    pub(crate) fn finish(self) -> PyResult<()> {
        let Some(left) = self.left.filter(|left| !left.is_empty()) else { return Ok(()) };
        let mut complaints = Vec::new();
        for name in left.keys() {
            let name = name.to_string();
            complaints.push(match hint(&name, &self.known) {
                Some(hint) => format!("'{name}' ({hint})"),
                None => format!("'{name}'"),
            });
        }
        let mut known = self.known;
        known.sort_unstable();
        let message = format!(
            "{} has no setting {}; it has {}",
            self.who,
            complaints.join(", "),
            known.join(", ")
        );
        Err(errors::config(self.py, &message))
    }
}

/// What to write instead of a name that is none here.
pub(crate) fn hint(name: &str, known: &[&'static str]) -> Option<String> {
    let Some(row) = foreign(name) else {
        return nearest(name, known.iter().copied()).map(|word| format!("use {word}"));
    };
    let owner = match row.owner {
        Owner::Producer => "a producer's",
        Owner::Consumer => "a consumer's",
        _ => "another handle's",
    };
    match row.meaning {
        Meaning::Nothing { instead, .. } => Some(instead.to_owned()),
        Meaning::Setting { name: "bootstrap", .. } => {
            Some("use bootstrap, the first argument: 'host:port,host:port'".to_owned())
        }
        Meaning::Setting { name: "tls", .. } if known.contains(&"tls") => {
            Some("use tls=ottla.Tls(...)".to_owned())
        }
        Meaning::Setting { name: "sasl", .. } if known.contains(&"sasl") => Some(
            "use sasl=ottla.Plain(user, password), ottla.Scram(...) or ottla.OAuth(...)".to_owned(),
        ),
        Meaning::Setting { name, values } if known.contains(&name) => Some(match values {
            Values::Milliseconds => format!("use {name} (seconds)"),
            Values::Bytes | Values::Kibibytes => format!("use {name} (bytes)"),
            _ => format!("use {name}"),
        }),
        Meaning::Setting { name, .. } => Some(format!("it is {owner}: {name}")),
        _ => None,
    }
}

/// A handle that is made of settings.
pub(crate) trait Made: Sized {
    fn make(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        properties: Option<&Properties>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self>;

    /// By the settings that this client has.
    fn made(
        py: Python<'_>,
        bootstrap: Option<&Bound<'_, PyAny>>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        guarded(py, || Self::make(py, bootstrap, None, settings))
    }

    /// By those of other clients, and these.
    fn made_from(
        py: Python<'_>,
        given: &Bound<'_, PyAny>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let properties = properties(given)?;
        guarded(py, || Self::make(py, None, Some(&properties), settings))
    }
}

/// Properties as other clients have them, of any mapping. `None` is an empty value.
fn properties(given: &Bound<'_, PyAny>) -> PyResult<Properties> {
    // A copy, which nobody changes meanwhile.
    let given = given.py().get_type::<PyDict>().call1((given,)).map_err(|_| {
        PyTypeError::new_err(format!(
            "properties must be a dict, not {}",
            convert::type_name(given)
        ))
    })?;
    let pairs = given.cast_into::<PyDict>()?;
    let pairs = pairs.iter().map(|(name, value)| {
        let name = convert::text("the name of a property", &name)?.to_owned();
        let value = if value.is_none() { String::new() } else { value.str()?.to_string() };
        Ok((name, value))
    });
    pairs.collect::<PyResult<Vec<_>>>().map(|pairs| pairs.into_iter().collect())
}
