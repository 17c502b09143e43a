//! Settings by the names that other clients have for them.

use std::ffi::c_char;

use ottla::Result;
use ottla::bindings::{Owner, argument_error, plain_settings};

use crate::boundary::{Out, boundary, c_string, many, text};
use crate::error::ottla_error;
use crate::status::ottla_status;

/// Whose settings are read.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_owner {
    /// A client's.
    OTTLA_OWNER_CLIENT = 1,
    /// A producer's.
    OTTLA_OWNER_PRODUCER = 2,
    /// A consumer's.
    OTTLA_OWNER_CONSUMER = 3,
}

/// A setting as Java's client and librdkafka have it: "linger.ms", "20".
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_property {
    /// The name.
    pub name: *const c_char,
    /// The value.
    pub value: *const c_char,
}

/// Names and values that the caller lends.
///
/// # Safety
/// `list` is null or valid for reads of `count`, its strings null or valid for `'a`.
pub(crate) unsafe fn pairs<'a>(
    list: *const ottla_property,
    count: usize,
    name: &str,
) -> Result<Vec<(&'a str, &'a str)>> {
    // SAFETY: promised by the caller.
    let list = unsafe { many(list, count, name) }?;
    // SAFETY: promised by the caller.
    list.iter().map(|p| unsafe { Ok((text(p.name, "name")?, text(p.value, "value")?)) }).collect()
}

/// What properties of other clients are here: a JSON object of the settings of one `owner` (an
/// `ottla_owner`), by the names they have in the option structs, without units. Sizes are bytes, time
/// spans nanoseconds; acks, compression ("zstd:9"), partitioner and start are words. A client's are
/// passed over for the others, and theirs for it. What is not taken is `OTTLA_STATUS_CONFIG`, with all
/// of it and what there is instead in the message; values are never repeated, they may be secrets. Of TLS and SASL it says
/// only that there are any (`tls` is true, `sasl` the mechanism): give the properties themselves to the client's options.
/// The string is yours, freed with `ottla_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_properties_json(
    owner: i32,
    properties: *const ottla_property,
    count: usize,
    json: *mut *mut c_char,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, list) =
            unsafe { (Out::null(json, "json")?, pairs(properties, count, "properties")?) };
        let owner = match owner {
            1 => Owner::Client,
            2 => Owner::Producer,
            3 => Owner::Consumer,
            other => return Err(argument_error(format!("{other} is no member of ottla_owner"))),
        };
        let settings = plain_settings(owner, &list.into_iter().collect())?;
        let json = serde_json::to_string(&settings).expect("numbers and words are JSON");
        out.set(c_string(&json).into_raw());
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}
