//! What of a batch is done, for a group's consumer.

use std::sync::atomic::AtomicI64;

use ottla::bindings::Wanted;

use crate::batch::{ottla_batch, ottla_wanted};
use crate::boundary::{Out, boundary, lent};
use crate::error::ottla_error;
use crate::status::ottla_status;

/// The batch is done: what a group's consumer commits of its partition may lie behind it, once all before it is done too. Does
/// nothing without a group, and once the partition is somebody else's. With `OTTLA_COMMIT_MARKS` asking for the next batch
/// does it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_ack(
    batch: *const ottla_batch,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let batch = &unsafe { lent(batch, "batch") }?.batch;
        batch.check_process()?;
        batch.ack();
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The same for the records of the batch before an offset.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_ack_before(
    batch: *const ottla_batch,
    offset: i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let batch = &unsafe { lent(batch, "batch") }?.batch;
        batch.check_process()?;
        batch.ack_before(offset);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The program has the record at this offset of the batch in hand: those before it are done. For one thread that works on the
/// records of a partition one by one, with `OTTLA_COMMIT_MARKS`: what is committed is then as exact. Costs next to nothing. Null
/// is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_batch_reached(batch: *const ottla_batch, offset: i64) {
    // SAFETY: promised by the caller.
    if let Some(b) = unsafe { batch.as_ref() } {
        b.batch.reached(offset);
    }
}

/// `ottla_batch_ack_before` when the batch itself is freed; `INT64_MAX` for all of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_wanted_ack_before(
    wanted: *const ottla_wanted,
    offset: i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let wanted = &unsafe { lent(wanted, "wanted") }?.0;
        wanted.check_process()?;
        wanted.ack_before(offset);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Nobody has the records of the batch from an offset on in hand (`aside` is 1), or somebody has again (0): for programs that work on
/// the records of a batch one by one, and keep the rest while the partition is paused. When the group takes the partition away that rest
/// is not waited for. The records before are waited for until they are done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_wanted_put_aside(
    wanted: *const ottla_wanted,
    offset: i64,
    aside: i32,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let wanted = &unsafe { lent(wanted, "wanted") }?.0;
        wanted.check_process()?;
        wanted.put_aside(offset, aside != 0);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Memory that programs in other languages share with the library where a call for each record is too much. It lives as long as
/// the `ottla_wanted`. Both are accessed atomically.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_wanted_words {
    /// To be read: 0 while the batch is wanted, 1 while it is paused, more once it is left.
    pub standing: *const u32,
    /// To be written: the offset that `ottla_batch_reached` would be told. Null without a group.
    pub reached: *mut i64,
    /// To be written: the offset of the record that the program is given now, where that says nothing of those before it. It shows
    /// the group that the program is there. Null without a group.
    pub handed_on: *mut i64,
}

fn words(wanted: &Wanted) -> ottla_wanted_words {
    let words = wanted.words();
    let written = |word: Option<&AtomicI64>| word.map_or(std::ptr::null_mut(), AtomicI64::as_ptr);
    ottla_wanted_words {
        standing: words.standing.as_ptr(),
        reached: written(words.reached),
        handed_on: written(words.handed_on),
    }
}

/// The memory that is shared with the library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_wanted_share(
    wanted: *const ottla_wanted,
    shared: *mut ottla_wanted_words,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, wanted) = unsafe { (Out::new(shared, "shared")?, lent(wanted, "wanted")?) };
        out.set(words(&wanted.0));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}
