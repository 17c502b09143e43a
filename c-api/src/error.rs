//! Error objects.

use std::ffi::{CString, c_char};
use std::ptr;

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
    undelivered: Option<Undelivered>,
}

/// What an error tells of records that failed and that nobody had been told of.
struct Undelivered {
    records: usize,
    first: Box<ottla_error>,
    topics: Vec<CString>,
}

impl ottla_error {
    pub(crate) fn boxed(error: Error) -> *mut Self {
        Box::into_raw(Box::new(Self::of(error)))
    }

    fn of(error: Error) -> Self {
        let undelivered = error.undelivered().map(|lost| Undelivered {
            records: lost.records(),
            // What a record failed with tells of no others.
            first: Box::new(Self::of(lost.first_error().clone())),
            topics: lost.topics().map(c_string).collect(),
        });
        Self {
            name: c_string(error.kind().as_str()),
            message: c_string(error.message()),
            advice: c_string(error.advice()),
            undelivered,
            error,
        }
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

/// The message: what happened, for people; "" for null. Lives as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_message(error: *const ottla_error) -> *const c_char {
    // SAFETY: promised by the caller.
    unsafe { read(error, c"".as_ptr(), |e| e.message.as_ptr()) }
}

/// The advice: one sentence on what to do about it; "" for null. Lives as long as the error.
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

/// How many records failed since the last report without anybody being told, as a flush or close
/// that failed says; 0 for null, and for errors that tell of none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_undelivered_records(error: *const ottla_error) -> usize {
    // SAFETY: promised by the caller.
    unsafe { read(error, 0, |e| e.undelivered.as_ref().map_or(0, |lost| lost.records)) }
}

/// The error of the record that failed first; null if there are none. Lives as long as the error, and is
/// not freed by itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_undelivered_first(
    error: *const ottla_error,
) -> *const ottla_error {
    let first = |e: &ottla_error| match &e.undelivered {
        Some(lost) => &raw const *lost.first,
        None => ptr::null(),
    };
    // SAFETY: promised by the caller.
    unsafe { read(error, ptr::null(), first) }
}

/// One of the topics they were for, counted from 0; null behind the last. 16 are named at most.
/// Lives as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_error_undelivered_topic(
    error: *const ottla_error,
    index: usize,
) -> *const c_char {
    let topic = |e: &ottla_error| {
        let named = e.undelivered.as_ref().and_then(|lost| lost.topics.get(index));
        named.map_or(ptr::null(), |topic| topic.as_ptr())
    };
    // SAFETY: promised by the caller.
    unsafe { read(error, ptr::null(), topic) }
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
