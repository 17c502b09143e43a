//! Records on their way in, and the views of records on their way out.

use std::ffi::c_char;

use ottla::Result;
use ottla::bindings::{Entry, argument_error};

use crate::boundary::{many, nullable};

/// `ottla_record.flags`: `partition` is set. Without it the client spreads records.
pub const OTTLA_RECORD_PARTITION: u32 = 1;
/// `ottla_record.flags`: `timestamp_ms` is set. Without it the record gets the time of the call.
pub const OTTLA_RECORD_TIMESTAMP: u32 = 2;

/// A header of a record. `name` need not end in NUL, and is UTF-8 in records to send; in records
/// read it is whatever bytes were written. A null `value` is null, an empty one points somewhere
/// and has length 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_header {
    /// The name.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_len: usize,
    /// The value.
    pub value: *const u8,
    /// Bytes of the value.
    pub value_len: usize,
}

/// A record to send. All zero is a record with null key and null value, without headers, spread,
/// stamped with the time of the call. A null pointer is null, an empty key or value points
/// somewhere and has length 0. Nothing of it is used after the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_record {
    /// The key.
    pub key: *const u8,
    /// Bytes of the key.
    pub key_len: usize,
    /// The value.
    pub value: *const u8,
    /// Bytes of the value.
    pub value_len: usize,
    /// The headers, in order.
    pub headers: *const ottla_header,
    /// How many headers.
    pub header_count: usize,
    /// Milliseconds since 1970, with `OTTLA_RECORD_TIMESTAMP`.
    pub timestamp_ms: i64,
    /// The partition, with `OTTLA_RECORD_PARTITION`.
    pub partition: i32,
    /// `OTTLA_RECORD_...`, or-ed.
    pub flags: u32,
}

/// A record of a batch. The pointers live as long as the batch.
#[repr(C)]
pub struct ottla_record_view {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970; -1: none.
    pub timestamp_ms: i64,
    /// The key; null is null.
    pub key: *const u8,
    /// Bytes of the key.
    pub key_len: usize,
    /// The value; null is null.
    pub value: *const u8,
    /// Bytes of the value.
    pub value_len: usize,
    /// How many headers: `ottla_batch_headers`.
    pub header_count: usize,
}

/// A record in the arena that `ottla_batch_export` fills: places and lengths in bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_record_index {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970; -1: none.
    pub timestamp_ms: i64,
    /// Where the key starts in the arena.
    pub key_at: u32,
    /// Bytes of the key; -1: null.
    pub key_len: i32,
    /// Where the value starts.
    pub value_at: u32,
    /// Bytes of the value; -1: null.
    pub value_len: i32,
    /// Where the headers start: for each name_len u32, name, value_len i32 (-1: null), value, all
    /// little-endian, nothing between them.
    pub headers_at: u32,
    /// How many headers.
    pub header_count: u32,
}

pub(crate) type Header<'a> = (&'a str, Option<&'a [u8]>);

/// What [`check`] found.
pub(crate) struct Checked<'a> {
    /// Of all good records.
    pub(crate) headers: Vec<Header<'a>>,
    /// How many records, from the first on, have nothing wrong with them.
    pub(crate) good: usize,
    /// What is wrong with the next one.
    pub(crate) wrong: Option<ottla::Error>,
}

/// Checks the records of a call, up to the first with something wrong.
///
/// # Safety
/// Every pointer in `records` is null or valid, for its length, for `'a`.
pub(crate) unsafe fn check<'a>(records: &[ottla_record]) -> Checked<'a> {
    let mut headers = Vec::new();
    for (i, r) in records.iter().enumerate() {
        let before = headers.len();
        // SAFETY: promised by the caller.
        if let Err(e) = unsafe { check_one(r, &mut headers) } {
            headers.truncate(before);
            let wrong = Some(argument_error(format!("record {i}: {}", e.message())));
            return Checked { headers, good: i, wrong };
        }
    }
    Checked { headers, good: records.len(), wrong: None }
}

/// # Safety
/// As [`check`].
unsafe fn check_one<'a>(r: &ottla_record, headers: &mut Vec<Header<'a>>) -> Result<()> {
    // SAFETY: promised by the caller.
    unsafe {
        nullable(r.key, r.key_len, "key")?;
        nullable(r.value, r.value_len, "value")?;
        for h in many(r.headers, r.header_count, "headers")? {
            let name = many(h.name.cast::<u8>(), h.name_len, "a header's name")?;
            let name = std::str::from_utf8(name)
                .map_err(|_| argument_error("a header's name is not UTF-8"))?;
            headers.push((name, nullable(h.value, h.value_len, "a header's value")?));
        }
    }
    if r.flags & !(OTTLA_RECORD_PARTITION | OTTLA_RECORD_TIMESTAMP) != 0 {
        return Err(argument_error("flags has unknown bits"));
    }
    // A value without its flag would silently not be used.
    if r.flags & OTTLA_RECORD_PARTITION == 0 && r.partition != 0 {
        return Err(argument_error(format!(
            "partition is {} but flags lacks OTTLA_RECORD_PARTITION",
            r.partition
        )));
    }
    if r.flags & OTTLA_RECORD_TIMESTAMP == 0 && r.timestamp_ms != 0 {
        return Err(argument_error(format!(
            "timestamp_ms is {} but flags lacks OTTLA_RECORD_TIMESTAMP",
            r.timestamp_ms
        )));
    }
    if r.partition < 0 {
        return Err(argument_error(format!("partition is {}; they count from 0", r.partition)));
    }
    if r.timestamp_ms < 0 {
        return Err(argument_error(format!(
            "timestamp_ms is {}; records are stamped from 0 (1970) on",
            r.timestamp_ms
        )));
    }
    Ok(())
}

/// A record that [`check`] has passed; takes its headers from the front of `headers`.
///
/// # Safety
/// As [`check`].
pub(crate) unsafe fn entry<'a>(r: &ottla_record, headers: &mut &'a [Header<'a>]) -> Entry<'a> {
    let (mine, rest) = headers.split_at(r.header_count.min(headers.len()));
    *headers = rest;
    Entry {
        partition: (r.flags & OTTLA_RECORD_PARTITION != 0).then_some(r.partition),
        timestamp_ms: (r.flags & OTTLA_RECORD_TIMESTAMP != 0).then_some(r.timestamp_ms),
        // SAFETY: promised by the caller; `check` found nothing to refuse.
        key: unsafe { nullable(r.key, r.key_len, "key") }.unwrap_or_default(),
        // SAFETY: as above.
        value: unsafe { nullable(r.value, r.value_len, "value") }.unwrap_or_default(),
        headers: mine,
    }
}
