//! What every export does at the border: panics stop here, pointers are checked here.

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ottla::bindings::{argument_error, panic_error};
use ottla::{Error, Result};

use crate::error::ottla_error;
use crate::status::ottla_status;

/// Runs a call; its error goes to `*error`, if that is wanted.
///
/// # Safety
/// `error` is null or can be written to.
pub(crate) unsafe fn boundary(
    error: *mut *mut ottla_error,
    call: impl FnOnce() -> Result<()>,
) -> ottla_status {
    let outcome = catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|payload| Err(panic_error(payload.as_ref())));
    let (status, object) = match outcome {
        Ok(()) => (ottla_status::OTTLA_STATUS_OK, std::ptr::null_mut()),
        Err(e) => {
            let status = ottla_status::of(e.kind());
            (status, if error.is_null() { std::ptr::null_mut() } else { ottla_error::boxed(e) })
        }
    };
    if !error.is_null() {
        // SAFETY: not null, and then writable by the caller's promise.
        unsafe { error.write(object) };
    }
    status
}

/// Runs what cannot report: a panic in it is dropped.
pub(crate) fn guard(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        // Dropping a payload may panic in turn; there is nobody to tell.
        std::mem::forget(payload);
    }
}

fn null(name: &str) -> Error {
    argument_error(format!("{name} is null"))
}

/// A handle or struct that the caller lends.
///
/// # Safety
/// `pointer` is null or valid for reads for `'a`.
pub(crate) unsafe fn lent<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: not null, and then valid by the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// Where a result is written: checked before the work is done, so that no result is lost.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is null or valid for writes until the call returns.
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self> {
        if pointer.is_null() { Err(null(name)) } else { Ok(Self(pointer)) }
    }

    /// The place of element `i`, if this is the first of an array.
    ///
    /// # Safety
    /// The array that the caller gave has more than `i` elements.
    pub(crate) unsafe fn at(&self, i: usize) -> Self {
        // SAFETY: inside the array by the caller's promise.
        Self(unsafe { self.0.add(i) })
    }

    pub(crate) fn set(&self, value: T) {
        // SAFETY: not null and writable, as promised to `new`. What was there is not dropped: it
        // may be uninitialised.
        unsafe { self.0.write(value) };
    }
}

impl<T> Out<*mut T> {
    /// Where a pointer to something new is written: null until there is one.
    ///
    /// # Safety
    /// As [`new`](Self::new).
    pub(crate) unsafe fn null(pointer: *mut *mut T, name: &str) -> Result<Self> {
        // SAFETY: promised by the caller.
        let out = unsafe { Self::new(pointer, name) }?;
        out.set(std::ptr::null_mut());
        Ok(out)
    }

    /// The caller has `value` from now on, until [`free`].
    pub(crate) fn give(&self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

/// Many things that the caller lends; null is allowed for none.
///
/// # Safety
/// `pointer` is null or valid for reads of `len` for `'a`.
pub(crate) unsafe fn many<'a, T>(pointer: *const T, len: usize, name: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(name));
    }
    if len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(argument_error(format!("{len} is not a possible length of {name}")));
    }
    // SAFETY: not null, of a possible length, and then valid by the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// Bytes where null means null, not empty.
///
/// # Safety
/// `pointer` is null or valid for reads of `len` for `'a`.
pub(crate) unsafe fn nullable<'a>(
    pointer: *const u8,
    len: usize,
    name: &str,
) -> Result<Option<&'a [u8]>> {
    if pointer.is_null() && len == 0 {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    unsafe { many(pointer, len, name) }.map(Some)
}

/// A NUL-terminated string.
///
/// # Safety
/// `pointer` is null or a NUL-terminated string valid for `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: not null, and then NUL-terminated by the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| argument_error(format!("{name} is not UTF-8")))
}

/// The same, where null means "not given".
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(
    pointer: *const c_char,
    name: &str,
) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    unsafe { text(pointer, name) }.map(Some)
}

/// A timeout in ms: negative is "no limit".
pub(crate) fn timeout(ms: i64) -> Option<Duration> {
    u64::try_from(ms).ok().map(Duration::from_millis)
}

/// A setting in ms: 0 is "default", negative is zero.
pub(crate) fn setting_ms(ms: i64) -> Option<Duration> {
    (ms != 0).then(|| timeout(ms).unwrap_or_default())
}

/// A size: 0 is "default".
pub(crate) fn setting_size(size: usize) -> Option<usize> {
    (size != 0).then_some(size)
}

/// A C string; a NUL inside is made visible instead of ending the text.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text)
        .unwrap_or_else(|_| CString::new(text.replace('\0', "\\0")).unwrap_or_default())
}

/// Frees a handle of one kind.
///
/// # Safety
/// `handle` is null or was made by `Box::into_raw` and not freed.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    guard(|| {
        if !handle.is_null() {
            // SAFETY: promised by the caller.
            drop(unsafe { Box::from_raw(handle) });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_a_nul_is_not_lost() {
        assert_eq!(c_string("one\0two\0").as_c_str(), c"one\\0two\\0");
        assert_eq!(c_string("plain").as_c_str(), c"plain");
    }
}
