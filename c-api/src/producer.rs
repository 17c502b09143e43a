//! Producers.

use std::ffi::c_char;
use std::time::Duration;

use ottla::bindings::{HostProducer, Submitted, argument_error};
use ottla::{Error, Result};

use crate::boundary::{Out, boundary, free, lent, many, text, timeout};
use crate::client::ottla_client;
use crate::error::ottla_error;
use crate::options::read;
use crate::producer_options::{ottla_producer_options, settings};
use crate::record::{check, entry, ottla_record};
use crate::status::ottla_status;

/// A producer. Usable from many threads at once.
pub struct ottla_producer {
    inner: HostProducer,
}

/// A producer of a client. `options` may be null: all defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_producer_new(
    client: *const ottla_client,
    options: *const ottla_producer_options,
    producer: *mut *mut ottla_producer,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(producer, "producer") }?;
        // SAFETY: promised by the caller.
        let (client, options) = unsafe { (lent(client, "client")?, read(options, "options")?) };
        // SAFETY: promised by the caller, for the pointers inside the options too.
        let options = options.map_or(Ok(Default::default()), |o| unsafe { settings(&o) })?;
        let inner = client.engine.producer(options)?;
        out.give(ottla_producer { inner });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

fn report(accepted: Option<&Out<usize>>, submitted: Submitted) -> Result<()> {
    if let Some(accepted) = accepted {
        accepted.set(submitted.accepted);
    }
    submitted.refused.map_or(Ok(()), Err)
}

fn check_count(count: usize) -> Result<(), Error> {
    if u32::try_from(count).is_err() {
        return Err(argument_error(format!("{count} records in one call; {} at most", u32::MAX)));
    }
    Ok(())
}

/// Submits records for one topic, in order, without waiting and without keeping any pointer. Stops
/// at the first record that is refused, also one with something wrong in it: `*accepted` (which may
/// be null only if every record not accepted may be lost) is the number before it, and status and
/// error say why. Records before it are on their way. Each accepted record is part of exactly one
/// `OTTLA_COMPLETION_DELIVERY` with this tag.
///
/// What is submitted one call after the other stays in that order within a partition, whichever threads
/// call: always in a topic of one partition, for a named partition, and for equal keys with
/// `OTTLA_PARTITIONER_KEY_HASH`; of records that are spread, a batch that had to move to another
/// partition may come behind later ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_producer_send_batch(
    producer: *const ottla_producer,
    topic: *const c_char,
    records: *const ottla_record,
    count: usize,
    tag: u64,
    accepted: *mut usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let accepted = unsafe { Out::new(accepted, "accepted") }.ok();
        accepted.iter().for_each(|a| a.set(0));
        check_count(count)?;
        // SAFETY: promised by the caller, for the pointers inside the records too.
        let (producer, topic, records) = unsafe {
            (lent(producer, "producer")?, text(topic, "topic")?, many(records, count, "records")?)
        };
        // SAFETY: as above.
        let checked = unsafe { check(records) };
        let mut left = checked.headers.as_slice();
        // SAFETY: as above.
        let entries = records[..checked.good].iter().map(|r| unsafe { entry(r, &mut left) });
        report(accepted.as_ref(), producer.inner.submit(tag, topic, entries))?;
        checked.wrong.map_or(Ok(()), Err)
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The same for records packed into one piece of memory: `bytes` holds exactly `count` of them,
/// in the packed form described at the top of this header. Bytes that are not in that form, from
/// the first to the last, are refused whole, with `*accepted` 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_producer_send_packed(
    producer: *const ottla_producer,
    topic: *const c_char,
    bytes: *const u8,
    len: usize,
    count: usize,
    tag: u64,
    accepted: *mut usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let accepted = unsafe { Out::new(accepted, "accepted") }.ok();
        accepted.iter().for_each(|a| a.set(0));
        check_count(count)?;
        // SAFETY: promised by the caller.
        let (producer, topic, bytes) = unsafe {
            (lent(producer, "producer")?, text(topic, "topic")?, many(bytes, len, "bytes")?)
        };
        report(accepted.as_ref(), producer.inner.submit_packed(tag, topic, bytes, count))
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Asks for an `OTTLA_COMPLETION_FLUSHED` with this tag once everything accepted before the call
/// is resolved; its deliveries come before it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_producer_flush(
    producer: *const ottla_producer,
    tag: u64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let producer = unsafe { lent(producer, "producer") }?;
        producer.inner.check_process()?;
        producer.inner.flush(tag);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Waits until everything accepted before the call is resolved, for up to `timeout_ms` (-1: no
/// limit but the records' own). `OTTLA_STATUS_UNDELIVERED`: records failed since the last such call
/// whose completions nobody has polled; see `ottla_error_undelivered_records`. Which records they
/// are is told by their completions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_producer_flush_wait(
    producer: *const ottla_producer,
    timeout_ms: i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        unsafe { lent(producer, "producer") }?.inner.flush_wait(timeout(timeout_ms))
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Takes no more records and delivers what was accepted, for up to `timeout_ms`; what is left
/// then fails. Its end is an `OTTLA_COMPLETION_CLOSED` with this tag. Closing again is OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_producer_close(
    producer: *const ottla_producer,
    timeout_ms: u64,
    tag: u64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let producer = unsafe { lent(producer, "producer") }?;
        producer.inner.check_process()?;
        producer.inner.close(tag, Duration::from_millis(timeout_ms));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The same, and waits for the end. `OTTLA_STATUS_UNDELIVERED` as for `ottla_producer_flush_wait`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_producer_close_wait(
    producer: *const ottla_producer,
    timeout_ms: u64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let producer = unsafe { lent(producer, "producer") }?;
        producer.inner.close_wait(Duration::from_millis(timeout_ms))
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Frees a producer. Records that were accepted are still delivered while the client is open.
/// Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_producer_free(producer: *mut ottla_producer) {
    // SAFETY: promised by the caller.
    unsafe { free(producer) }
}
