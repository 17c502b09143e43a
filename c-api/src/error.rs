//! Error objects.

use std::ffi::{CString, c_char};

use ottla::Error;

use crate::boundary::{c_string, guard};
use crate::status::ottla_status;

/// Why something failed. Owned by whoever received it, freed with `ottla_error_free`; it does not
/// depend on any other handle.
pub struct ottla_error {
    error: Error,
    name: CString,
    message: CString,
    advice: CString,
}

impl ottla_error {
    pub(crate) fn boxed(error: Error) -> *mut Self {
        Box::into_raw(Box::new(Self {
            name: c_string(error.kind().as_str()),
            message: c_string(error.message()),
            advice: c_string(error.advice()),
            error,
        }))
    }
}

/// Reads an error; a null one gives `otherwise`.
///
/// # Safety
/// `error` is null or an error that was not freed.
unsafe fn read<T>(
    error: *const ottla_error,
    otherwise: T,
    read: impl FnOnce(&ottla_error) -> T,
) -> T {
    // SAFETY: not null, and then valid by the caller's promise.
    match unsafe { error.as_ref() } {
        Some(error) => read(error),
        None => otherwise,
    }
}

/// The status that the error stands for; `OTTLA_STATUS_OK` for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_status(error: *const ottla_error) -> ottla_status {
    // SAFETY: promised by the caller.
    unsafe { read(error, ottla_status::OTTLA_STATUS_OK, |e| ottla_status::of(e.error.kind())) }
}

/// Its stable name ("unknown_topic"); "" for null. Lives as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_name(error: *const ottla_error) -> *const c_char {
    // SAFETY: promised by the caller.
    unsafe { read(error, c"".as_ptr(), |e| e.name.as_ptr()) }
}

/// What happened, for people; "" for null. Lives as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_message(error: *const ottla_error) -> *const c_char {
    // SAFETY: promised by the caller.
    unsafe { read(error, c"".as_ptr(), |e| e.message.as_ptr()) }
}

/// What to do about it, in one sentence; "" for null. Lives as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_advice(error: *const ottla_error) -> *const c_char {
    // SAFETY: promised by the caller.
    unsafe { read(error, c"".as_ptr(), |e| e.advice.as_ptr()) }
}

/// The Kafka error code that a broker answered; 0 if none did.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_broker_code(error: *const ottla_error) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { read(error, 0, |e| e.error.broker_code().unwrap_or(0).into()) }
}

/// Whether the same call may succeed later with nothing changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_is_retriable(error: *const ottla_error) -> bool {
    // SAFETY: promised by the caller.
    unsafe { read(error, false, |e| e.error.is_retriable()) }
}

/// Whether the handle that gave the error is of no more use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_is_fatal(error: *const ottla_error) -> bool {
    // SAFETY: promised by the caller.
    unsafe { read(error, false, |e| e.error.is_fatal()) }
}

/// Whether the record may be in the log although its send failed. `false`: it certainly is not,
/// sending it again makes no duplicate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_maybe_written(error: *const ottla_error) -> bool {
    // SAFETY: promised by the caller.
    unsafe { read(error, false, |e| e.error.maybe_written()) }
}

/// Frees an error. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_free(error: *mut ottla_error) {
    guard(|| {
        if !error.is_null() {
            // SAFETY: made by `boxed`, and freed once by the caller's promise.
            drop(unsafe { Box::from_raw(error) });
        }
    });
}
