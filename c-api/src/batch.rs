//! Batches: record by record, or all of it in one call.

use std::ffi::{CString, c_char};

use ottla::bindings::{Batch, RecordView, Wanted, argument_error};
use ottla::{Result, Standing};

use crate::boundary::{Out, boundary, c_string, free, lent};
use crate::error::ottla_error;
use crate::record::{ottla_header, ottla_record_index, ottla_record_view};
use crate::status::ottla_status;

/// Records of one partition in offset order. Depends on no other handle; readable from many
/// threads at once.
pub struct ottla_batch {
    pub(crate) batch: Batch,
    topic: CString,
}

impl ottla_batch {
    pub(crate) fn boxed(batch: Batch) -> *mut Self {
        let topic = c_string(batch.topic());
        Box::into_raw(Box::new(Self { batch, topic }))
    }

    fn record(&self, i: usize) -> Result<RecordView<'_>> {
        self.batch
            .get(i)
            .ok_or_else(|| argument_error(format!("record {i} of a batch of {}", self.batch.len())))
    }
}

/// The facts about a batch.
#[repr(C)]
pub struct ottla_batch_info {
    /// The topic, NUL-terminated. Lives as long as the batch.
    pub topic: *const c_char,
    /// Bytes of the topic.
    pub topic_len: usize,
    /// How many records.
    pub record_count: usize,
    /// Bytes that `ottla_batch_export` needs, at most.
    pub arena_len: usize,
    /// The offset to go on from after this batch.
    pub next_offset: i64,
    /// The partition.
    pub partition: i32,
    /// The leader epoch under which it was written; -1: unknown.
    pub leader_epoch: i32,
}

/// Two lengths.
const HEADER_OVERHEAD: usize = 8;

fn arena_len(batch: &Batch) -> usize {
    let (headers, header_bytes) = batch.headers();
    let headers = headers * HEADER_OVERHEAD + header_bytes;
    if let Some(bytes) = batch.bytes() {
        return bytes.len() + headers;
    }
    let mut total = headers;
    batch.visit(|r| {
        total += r.key.map_or(0, <[u8]>::len) + r.value.map_or(0, <[u8]>::len);
        true
    });
    total
}

/// Tells what the batch is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_describe(
    batch: *const ottla_batch,
    info: *mut ottla_batch_info,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (b, out) = unsafe { (lent(batch, "batch")?, Out::new(info, "info")?) };
        out.set(ottla_batch_info {
            topic: b.topic.as_ptr(),
            topic_len: b.topic.as_bytes().len(),
            record_count: b.batch.len(),
            arena_len: arena_len(&b.batch),
            next_offset: b.batch.next_offset(),
            partition: b.batch.partition(),
            leader_epoch: b.batch.leader_epoch(),
        });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// A copy of a batch in memory of its own: `*detached` is yours, freed with `ottla_batch_free` as the batch itself. A batch holds the whole
/// response that it came in, and with it room that the consumer has not (`buffer_memory` of its options); a program that keeps batches keeps
/// detached ones. What of the group's is done can be said of either.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_detach(
    batch: *const ottla_batch,
    detached: *mut *mut ottla_batch,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, b) = unsafe { (Out::null(detached, "detached")?, lent(batch, "batch")?) };
        out.give(ottla_batch { batch: b.batch.detach(), topic: b.topic.clone() });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// How many records the batch has; 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_len(batch: *const ottla_batch) -> usize {
    // SAFETY: promised by the caller.
    unsafe { batch.as_ref() }.map_or(0, |b| b.batch.len())
}

/// Whether what is not worked on yet of a batch is still wanted, for those who hand on its records one by one while another
/// thread steers the consumer. New values may be added: treat those you do not know as `OTTLA_STANDING_LEFT`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_standing {
    /// It is wanted.
    OTTLA_STANDING_CURRENT = 0,
    /// Its partition is paused: wanted once it is resumed, at the place where it was.
    OTTLA_STANDING_PAUSED = 1,
    /// Not wanted any more: the application has gone elsewhere since, by a seek, an assignment anew or its end.
    OTTLA_STANDING_LEFT = 2,
}

impl From<Standing> for ottla_standing {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Current => Self::OTTLA_STANDING_CURRENT,
            Standing::Paused => Self::OTTLA_STANDING_PAUSED,
            Standing::Left => Self::OTTLA_STANDING_LEFT,
        }
    }
}

/// Whether the batch is still wanted. A close changes nothing of it. `OTTLA_STANDING_LEFT` for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_standing(batch: *const ottla_batch) -> ottla_standing {
    // SAFETY: promised by the caller.
    unsafe { batch.as_ref() }.map_or(Standing::Left, |b| b.batch.standing()).into()
}

/// What tells whether a batch is still wanted when the batch itself is freed: for programs that copy its records out. Depends
/// on no other handle, and holds no records.
pub struct ottla_wanted(pub(crate) Wanted);

/// The `ottla_wanted` of a batch: `*wanted` is yours, freed with `ottla_wanted_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_wanted(
    batch: *const ottla_batch,
    wanted: *mut *mut ottla_wanted,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, b) = unsafe { (Out::null(wanted, "wanted")?, lent(batch, "batch")?) };
        out.give(ottla_wanted(b.batch.wanted()));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// What `ottla_batch_standing` would tell of the batch. `OTTLA_STANDING_LEFT` for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_wanted_standing(wanted: *const ottla_wanted) -> ottla_standing {
    // SAFETY: promised by the caller.
    unsafe { wanted.as_ref() }.map_or(Standing::Left, |w| w.0.standing()).into()
}

/// Frees it. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_wanted_free(wanted: *mut ottla_wanted) {
    // SAFETY: promised by the caller.
    unsafe { free(wanted) }
}

fn parts(bytes: Option<&[u8]>) -> (*const u8, usize) {
    bytes.map_or((std::ptr::null(), 0), |b| (b.as_ptr(), b.len()))
}

/// Record number `i` of the batch, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_record(
    batch: *const ottla_batch,
    i: usize,
    record: *mut ottla_record_view,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (b, out) = unsafe { (lent(batch, "batch")?, Out::new(record, "record")?) };
        out.set(seen(&b.record(i)?));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

fn seen(r: &RecordView<'_>) -> ottla_record_view {
    let ((key, key_len), (value, value_len)) = (parts(r.key), parts(r.value));
    ottla_record_view {
        offset: r.offset,
        timestamp_ms: r.timestamp_ms,
        key,
        key_len,
        value,
        value_len,
        header_count: r.headers.len(),
    }
}

/// Up to `max` records in one call, from number `first` on, counted from 0: the quickest way through a batch. `*count` is how many
/// there were: fewer than `max` at the batch's end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_records(
    batch: *const ottla_batch,
    first: usize,
    records: *mut ottla_record_view,
    max: usize,
    count: *mut usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (b, count) = unsafe { (lent(batch, "batch")?, Out::new(count, "count")?) };
        count.set(0);
        if max == 0 {
            return Ok(());
        }
        // SAFETY: promised by the caller.
        let out = unsafe { Out::new(records, "records") }?;
        let mut n = 0;
        b.batch.visit_from(first, |r| {
            // SAFETY: the caller's array has room for `max`, and `n` stays below.
            unsafe { out.at(n) }.set(seen(&r));
            n += 1;
            n < max
        });
        count.set(n);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Writes the first `max` headers of record number `i` to `headers` and their number to `*count`.
/// The pointers live as long as the batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_headers(
    batch: *const ottla_batch,
    i: usize,
    headers: *mut ottla_header,
    max: usize,
    count: *mut usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (b, count) = unsafe { (lent(batch, "batch")?, Out::new(count, "count")?) };
        count.set(0);
        let r = b.record(i)?;
        if max == 0 {
            return Ok(());
        }
        // SAFETY: promised by the caller.
        let out = unsafe { Out::new(headers, "headers") }?;
        let mut n = 0;
        for (name, value) in r.headers.take(max) {
            let (value, value_len) = parts(value);
            let header =
                ottla_header { name: name.as_ptr().cast(), name_len: name.len(), value, value_len };
            // SAFETY: the caller's array has room for `max`, and `n` stays below.
            unsafe { out.at(n) }.set(header);
            n += 1;
        }
        count.set(n);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Copies the whole batch in one call: keys, values and headers into `arena`, their places into
/// `index`. Both must be as large as `ottla_batch_describe` says. What else there is in `arena` means nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_export(
    batch: *const ottla_batch,
    arena: *mut u8,
    arena_len: usize,
    index: *mut ottla_record_index,
    index_len: usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let b = unsafe { lent(batch, "batch") }?;
        // SAFETY: promised by the caller.
        let mut arena = unsafe { Arena::new(arena, arena_len) }?;
        if index_len < b.batch.len() {
            return Err(argument_error(format!(
                "index has room for {index_len} records; the batch has {}",
                b.batch.len()
            )));
        }
        if b.batch.is_empty() {
            return Ok(());
        }
        // SAFETY: promised by the caller.
        let index = unsafe { Out::new(index, "index") }?;
        // In one go where they lie in one piece: then only the places are told.
        let lies = b.batch.bytes();
        arena.put(lies.unwrap_or_default())?;
        let mut outcome = Ok(());
        let mut i = 0;
        b.batch.visit(|r| match arena.record(&r, lies) {
            Ok(entry) if i < index_len => {
                // SAFETY: the caller's array has room for `index_len`, and `i` is below.
                unsafe { index.at(i) }.set(entry);
                i += 1;
                true
            }
            Ok(_) => false,
            Err(e) => {
                outcome = Err(e);
                false
            }
        });
        outcome
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The caller's memory, filled from the front. Written through a raw pointer: it may be
/// uninitialised, so it is never seen as a slice.
struct Arena {
    to: *mut u8,
    len: usize,
    at: usize,
}

impl Arena {
    /// # Safety
    /// `to` is null or valid for writes of `len` bytes while the arena is used.
    unsafe fn new(to: *mut u8, len: usize) -> Result<Self> {
        if to.is_null() && len != 0 {
            return Err(argument_error("arena is null"));
        }
        Ok(Self { to, len, at: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<u32> {
        let at = self.at;
        if bytes.len() > self.len - at {
            return Err(argument_error(format!(
                "arena has {} bytes, which is too small; ottla_batch_describe tells what is needed",
                self.len
            )));
        }
        if !bytes.is_empty() {
            // SAFETY: `at + bytes.len() <= len`, as checked, and the memory is the caller's, which
            // the batch's own cannot overlap.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.to.add(at), bytes.len()) };
        }
        self.at += bytes.len();
        place(at)
    }

    /// Where a key or a value is: its place in `lies`, which is at the front of the arena; without that it is copied.
    #[inline]
    fn nullable(&mut self, bytes: Option<&[u8]>, lies: Option<&[u8]>) -> Result<(u32, i32)> {
        let at = match (bytes, lies) {
            (None, _) => 0,
            (Some(bytes), Some(lies)) => {
                place(bytes.as_ptr().addr().wrapping_sub(lies.as_ptr().addr()))?
            }
            (Some(bytes), None) => self.put(bytes)?,
        };
        Ok((at, length(bytes)))
    }

    /// Where the copied headers of a record start.
    #[inline(never)]
    fn headers(&mut self, r: &RecordView<'_>) -> Result<u32> {
        let headers_at = place(self.at)?;
        for (name, value) in r.headers.clone() {
            self.put(&length(Some(name)).to_le_bytes())?;
            self.put(name)?;
            self.put(&length(value).to_le_bytes())?;
            self.put(value.unwrap_or_default())?;
        }
        Ok(headers_at)
    }

    #[inline]
    fn record(&mut self, r: &RecordView<'_>, lies: Option<&[u8]>) -> Result<ottla_record_index> {
        let (key_at, key_len) = self.nullable(r.key, lies)?;
        let (value_at, value_len) = self.nullable(r.value, lies)?;
        let header_count = r.headers.len() as u32;
        let headers_at = if header_count == 0 { 0 } else { self.headers(r)? };
        Ok(ottla_record_index {
            offset: r.offset,
            timestamp_ms: r.timestamp_ms,
            key_at,
            key_len,
            value_at,
            value_len,
            headers_at,
            header_count,
        })
    }
}

#[inline]
fn place(at: usize) -> Result<u32> {
    u32::try_from(at).map_err(|_| argument_error("the batch is larger than 4 GiB"))
}

fn length(bytes: Option<&[u8]>) -> i32 {
    // Lengths on the wire are i32: a part of a record is never longer.
    bytes.map_or(-1, |b| i32::try_from(b.len()).unwrap_or(i32::MAX))
}

/// Frees a batch and with it all it lent. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_free(batch: *mut ottla_batch) {
    // SAFETY: promised by the caller.
    unsafe { free(batch) }
}
