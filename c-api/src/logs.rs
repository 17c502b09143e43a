//! Lines of the log, for hosts that put them into their own.

use std::ffi::{CString, c_char};
use std::time::UNIX_EPOCH;

use ottla::bindings::argument_error;
use ottla::bindings::logs::{Log, LogLevel, LogReader};

use crate::boundary::{Out, boundary, c_string, free, lent, timeout};
use crate::error::ottla_error;
use crate::status::ottla_status;

/// How important a line of the log is.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_log_level {
    /// `OTTLA_LOG_WARN`.
    OTTLA_LOG_DEFAULT = 0,
    /// Something is broken and stays so.
    OTTLA_LOG_ERROR = 1,
    /// Something is wrong: a broker that cannot be reached, records that are lost. Told once while
    /// it lasts.
    OTTLA_LOG_WARN = 2,
    /// Worth knowing, but no trouble: a connection was lost.
    OTTLA_LOG_INFO = 3,
    /// Details that help to find a fault.
    OTTLA_LOG_DEBUG = 4,
    /// Every batch.
    OTTLA_LOG_TRACE = 5,
}

/// The lines that this process has to say, for a thread that takes them one by one. A program may
/// open several (16 at most); it needs no client for it.
pub struct ottla_logs {
    reader: LogReader,
}

/// One line. Depends on no other handle.
pub struct ottla_log {
    line: Log,
    target: CString,
    message: CString,
    fields: Vec<(CString, CString)>,
}

/// The parts of a log line. The pointers live as long as the line.
#[repr(C)]
pub struct ottla_log_info {
    /// Who says it: "ottla::net", "ottla::cluster", "ottla::producer", "ottla::consumer".
    pub target: *const c_char,
    /// The text, without its fields.
    pub message: *const c_char,
    /// When it was said, in ns since 1970.
    pub time_ns: i64,
    /// Lines lost between the one before and this one, because nobody took them.
    pub dropped: u64,
    /// How many fields: `ottla_log_fields`.
    pub field_count: usize,
    /// One of `ottla_log_level`.
    pub level: i32,
    /// 0.
    pub reserved: i32,
}

/// A field of a line. The pointers live as long as the line.
#[repr(C)]
pub struct ottla_log_field {
    /// The name: "broker".
    pub name: *const c_char,
    /// The value as text: "3".
    pub value: *const c_char,
}

/// Every line from now on that is as important as `level` (an `ottla_log_level`), or more so, is
/// kept for `ottla_logs_next`. 1,024 may wait; those that come then are lost, and counted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_logs_open(
    level: i32,
    logs: *mut *mut ottla_logs,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(logs, "logs") }?;
        let level = match level {
            0 => LogLevel::Warn,
            number => LogLevel::from_number(number)
                .ok_or_else(|| argument_error(format!("{number} is no level of the log")))?,
        };
        out.give(ottla_logs { reader: LogReader::open(level)? });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The next line. If there is none, waits up to `timeout_ms` for one: 0 does not wait, -1 waits for
/// as long as it takes; none until then is OK with a null `*log`. The line is yours, freed with
/// `ottla_log_free`. After `ottla_logs_close`, once all were taken: `OTTLA_STATUS_CLOSED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_logs_next(
    logs: *const ottla_logs,
    timeout_ms: i64,
    log: *mut *mut ottla_log,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (logs, out) = unsafe { (lent(logs, "logs")?, Out::null(log, "log")?) };
        if let Some(line) = logs.reader.next(timeout(timeout_ms))? {
            out.give(ottla_log {
                target: c_string(line.target),
                message: c_string(&line.message),
                fields: line.fields.iter().map(|(n, v)| (c_string(n), c_string(v))).collect(),
                line,
            });
        }
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The descriptor to poll for reading: readable while a line waits, and after `ottla_logs_close`.
/// It belongs to the reader and is closed with it. -1 where there is none, and for a null reader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_logs_fd(logs: *const ottla_logs) -> i32 {
    // SAFETY: promised by the caller.
    match unsafe { logs.as_ref() } {
        #[cfg(unix)]
        Some(logs) => std::os::fd::AsRawFd::as_raw_fd(&logs.reader.fd()),
        _ => -1,
    }
}

/// Lines lost so far because nobody took them; 0 for a null reader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_logs_dropped(logs: *const ottla_logs) -> u64 {
    // SAFETY: promised by the caller.
    unsafe { logs.as_ref() }.map_or(0, |logs| logs.reader.dropped())
}

/// Takes no more lines, and wakes the thread that waits for one. Closing again is OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_logs_close(
    logs: *const ottla_logs,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        unsafe { lent(logs, "logs") }?.reader.close();
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Closes the reader, if it is not closed, and frees it: no thread may be waiting in it. Null is
/// allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_logs_free(logs: *mut ottla_logs) {
    // SAFETY: promised by the caller.
    unsafe { free(logs) }
}

/// Fills `info` with the parts of a log line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_log_describe(
    log: *const ottla_log,
    info: *mut ottla_log_info,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (log, out) = unsafe { (lent(log, "log")?, Out::new(info, "info")?) };
        let since_1970 = log.line.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        out.set(ottla_log_info {
            target: log.target.as_ptr(),
            message: log.message.as_ptr(),
            time_ns: i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX),
            dropped: log.line.dropped,
            field_count: log.fields.len(),
            level: log.line.level as i32,
            reserved: 0,
        });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Writes the first `max` fields of a line to `fields` and their number to `*count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_log_fields(
    log: *const ottla_log,
    fields: *mut ottla_log_field,
    max: usize,
    count: *mut usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (log, count) = unsafe { (lent(log, "log")?, Out::new(count, "count")?) };
        count.set(0);
        if max == 0 {
            return Ok(());
        }
        // SAFETY: promised by the caller.
        let out = unsafe { Out::new(fields, "fields") }?;
        for (i, (name, value)) in log.fields.iter().take(max).enumerate() {
            let field = ottla_log_field { name: name.as_ptr(), value: value.as_ptr() };
            // SAFETY: the caller's array has room for `max`, and `i` stays below.
            unsafe { out.at(i) }.set(field);
        }
        count.set(log.fields.len().min(max));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Frees a line. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_log_free(log: *mut ottla_log) {
    // SAFETY: promised by the caller.
    unsafe { free(log) }
}
