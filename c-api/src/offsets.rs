//! Offsets that are looked up, many in one call.

use ottla::bindings::{Offsets, Start, WantedOffset, argument_error};
use ottla::{OffsetSpec, Result};

use crate::boundary::{Out, boundary, free, lent, many, timeout};
use crate::client::ottla_client;
use crate::consumer::{assigned, ottla_assignment};
use crate::error::ottla_error;
use crate::status::ottla_status;

/// The results of a lookup. Depends on no other handle.
pub struct ottla_offsets(Offsets);

/// # Safety
/// `wanted` is null or valid for reads of `count`, and so are its topics.
unsafe fn wanted_offsets(
    wanted: *const ottla_assignment,
    count: usize,
) -> Result<Vec<WantedOffset>> {
    // SAFETY: promised by the caller.
    let list = unsafe { assigned(many(wanted, count, "wanted")?) }?;
    let spec = |(topic, partition, start): (String, i32, Start)| {
        let spec = match start {
            Start::Earliest => OffsetSpec::Earliest,
            Start::Latest => OffsetSpec::Latest,
            Start::Timestamp(ms) => OffsetSpec::Timestamp(ms),
            Start::Offset(offset) => {
                let words = "is an offset already; look up the beginning, the end or a time";
                return Err(argument_error(format!("{offset} {words}")));
            }
        };
        Ok((topic, partition, spec))
    };
    list.into_iter().map(spec).collect()
}

/// Looks up offsets of partitions, `count` of them, in as few requests as there are leaders: each `wanted` names the oldest
/// record that is kept (`OTTLA_START_EARLIEST`), the end (`OTTLA_START_LATEST`: one past the newest record) or the first
/// record of a time (`OTTLA_START_TIMESTAMP`; the end if there is none). A partition may be named more than once. What
/// may be otherwise in a moment is asked again, for as long as a request may take. `*offsets` is yours at once, freed with
/// `ottla_offsets_free`, and has the results when an `OTTLA_COMPLETION_OFFSETS_LISTED` with this tag has come without an
/// error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_list_offsets(
    client: *const ottla_client,
    wanted: *const ottla_assignment,
    count: usize,
    tag: u64,
    offsets: *mut *mut ottla_offsets,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, client) = unsafe { (Out::null(offsets, "offsets")?, lent(client, "client")?) };
        client.engine.check_process()?;
        // SAFETY: promised by the caller.
        let wanted = unsafe { wanted_offsets(wanted, count) }?;
        out.give(ottla_offsets(client.engine.list_offsets(tag, wanted)));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The same, and waits for the results, for up to `timeout_ms` (-1: no limit).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_list_offsets_wait(
    client: *const ottla_client,
    wanted: *const ottla_assignment,
    count: usize,
    timeout_ms: i64,
    offsets: *mut *mut ottla_offsets,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, client) = unsafe { (Out::null(offsets, "offsets")?, lent(client, "client")?) };
        // SAFETY: promised by the caller.
        let wanted = unsafe { wanted_offsets(wanted, count) }?;
        let found = client.engine.list_offsets_wait(wanted, timeout(timeout_ms))?;
        out.give(ottla_offsets(found));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// How many results there are: as many as were asked for; 0 until the lookup is done, and for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_offsets_len(offsets: *const ottla_offsets) -> usize {
    // SAFETY: promised by the caller.
    unsafe { offsets.as_ref() }.map_or(0, |found| found.0.len())
}

/// Result number `i`, in the order in which they were asked for, from 0: `*offset`, or why there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_offsets_at(
    offsets: *const ottla_offsets,
    i: usize,
    offset: *mut i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, found) = unsafe { (Out::new(offset, "offset")?, lent(offsets, "offsets")?) };
        out.set(found.0.get(i)?);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Frees them. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_offsets_free(offsets: *mut ottla_offsets) {
    // SAFETY: promised by the caller.
    unsafe { free(offsets) }
}
