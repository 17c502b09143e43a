//! Asking and steering a consumer. Nothing here waits for a thread that reads, and all of it may be called while one
//! waits for records.

use std::ffi::{CString, c_char};

use ottla::bindings::{HostConsumer, Start, argument_error};
use ottla::{Result, TopicPartition};

use crate::boundary::{Out, boundary, c_string, free, lent, many, text};
use crate::consumer::{assigned, ottla_assignment, ottla_consumer};
use crate::error::ottla_error;
use crate::status::ottla_status;

/// A partition of a topic.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_partition {
    /// The topic.
    pub topic: *const c_char,
    /// The partition.
    pub partition: i32,
}

/// Partitions that a call gives out. Depends on no other handle.
pub struct ottla_partitions(Vec<(CString, i32)>);

impl ottla_partitions {
    pub(crate) fn of(list: Vec<TopicPartition>) -> Self {
        Self(list.into_iter().map(|of| (c_string(&of.topic), of.partition)).collect())
    }
}

/// A call about partitions.
///
/// # Safety
/// `consumer` is null or valid, `partitions` null or valid for reads of `count`, and so are its topics.
unsafe fn steer(
    consumer: *const ottla_consumer,
    partitions: *const ottla_partition,
    count: usize,
    call: impl FnOnce(&HostConsumer, &[(&str, i32)]) -> Result<()>,
) -> Result<()> {
    // SAFETY: promised by the caller.
    let (consumer, list) =
        unsafe { (lent(consumer, "consumer")?, many(partitions, count, "partitions")?) };
    // SAFETY: promised by the caller.
    let named = |p: &ottla_partition| Ok((unsafe { text(p.topic, "topic") }?, p.partition));
    let list = list.iter().map(named).collect::<Result<Vec<_>>>()?;
    call(&consumer.inner, &list)
}

/// Hands out nothing of these partitions, `count` of them, until they are resumed. What was fetched of them is kept, within
/// `buffer_memory`, and nothing more is fetched. A batch that another thread is just taking may still come:
/// `ottla_batch_standing` tells it. All of them are paused or, after an error, none: `OTTLA_STATUS_UNKNOWN_PARTITION` if one
/// is not read. Pausing again does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_pause(
    consumer: *const ottla_consumer,
    partitions: *const ottla_partition,
    count: usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    // SAFETY: promised by the caller.
    let call = || unsafe { steer(consumer, partitions, count, HostConsumer::pause) };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Hands these partitions out again, from where they were. Errors are those of `ottla_consumer_pause`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_resume(
    consumer: *const ottla_consumer,
    partitions: *const ottla_partition,
    count: usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    // SAFETY: promised by the caller.
    let call = || unsafe { steer(consumer, partitions, count, HostConsumer::resume) };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Reads these partitions no more: nothing of them is handed out after this, and what was fetched is dropped. Those of a
/// whole topic stay out until they are assigned. All of them are left or, after an error, none:
/// `OTTLA_STATUS_UNKNOWN_PARTITION` if one is not read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_unassign(
    consumer: *const ottla_consumer,
    partitions: *const ottla_partition,
    count: usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    // SAFETY: promised by the caller.
    let call = || unsafe { steer(consumer, partitions, count, HostConsumer::unassign) };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Reads these partitions, `count` of them, too. One that is read already goes on at its start, as after
/// `ottla_consumer_seek`. One that does not exist is told once by the calls that read, and read when it does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_assign(
    consumer: *const ottla_consumer,
    assignments: *const ottla_assignment,
    count: usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (consumer, list) =
            unsafe { (lent(consumer, "consumer")?, many(assignments, count, "assignments")?) };
        // SAFETY: promised by the caller.
        let list = unsafe { assigned(list) }?;
        let list: Vec<(&str, i32, Start)> =
            list.iter().map(|(topic, partition, at)| (topic.as_str(), *partition, *at)).collect();
        consumer.inner.assign(&list)
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// A list of partitions that a consumer tells.
///
/// # Safety
/// `consumer` is null or valid, `partitions` null or valid for a write.
unsafe fn tell(
    consumer: *const ottla_consumer,
    partitions: *mut *mut ottla_partitions,
    ask: impl FnOnce(&HostConsumer) -> Result<Vec<TopicPartition>>,
) -> Result<()> {
    // SAFETY: promised by the caller.
    let (out, consumer) =
        unsafe { (Out::null(partitions, "partitions")?, lent(consumer, "consumer")?) };
    out.give(ottla_partitions::of(ask(&consumer.inner)?));
    Ok(())
}

/// The partitions that are paused: `*partitions` is yours, freed with `ottla_partitions_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_paused(
    consumer: *const ottla_consumer,
    partitions: *mut *mut ottla_partitions,
    error: *mut *mut ottla_error,
) -> ottla_status {
    // SAFETY: promised by the caller.
    let call = || unsafe { tell(consumer, partitions, HostConsumer::paused) };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The partitions that are read: of whole topics, those known so far; those that were assigned, whether they are there or
/// not. `*partitions` is yours, freed with `ottla_partitions_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_assignment(
    consumer: *const ottla_consumer,
    partitions: *mut *mut ottla_partitions,
    error: *mut *mut ottla_error,
) -> ottla_status {
    // SAFETY: promised by the caller.
    let call = || unsafe { tell(consumer, partitions, HostConsumer::assignment) };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// How many offsets lie between the position of a partition and its end, as its leader told that with the last fetch:
/// nobody is asked. Offsets without records count: 0 is the end, more is a bound. `*lag` is -1 until both are known, and
/// for a partition that is not read. The end of a paused partition is not heard of.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_lag(
    consumer: *const ottla_consumer,
    topic: *const c_char,
    partition: i32,
    lag: *mut i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, consumer, topic) =
            unsafe { (Out::new(lag, "lag")?, lent(consumer, "consumer")?, text(topic, "topic")?) };
        out.set(consumer.inner.lag(topic, partition).unwrap_or(-1));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// How many partitions there are; 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_partitions_len(partitions: *const ottla_partitions) -> usize {
    // SAFETY: promised by the caller.
    unsafe { partitions.as_ref() }.map_or(0, |list| list.0.len())
}

/// Partition number `i` of the list, from 0. Its topic lives as long as the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_partitions_at(
    partitions: *const ottla_partitions,
    i: usize,
    partition: *mut ottla_partition,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (list, out) =
            unsafe { (lent(partitions, "partitions")?, Out::new(partition, "partition")?) };
        let Some((topic, partition)) = list.0.get(i) else {
            return Err(argument_error(format!("partition {i} of a list of {}", list.0.len())));
        };
        out.set(ottla_partition { topic: topic.as_ptr(), partition: *partition });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Frees a list. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_partitions_free(partitions: *mut ottla_partitions) {
    // SAFETY: promised by the caller.
    unsafe { free(partitions) }
}
