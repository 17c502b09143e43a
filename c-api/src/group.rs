//! Members of consumer groups: what they commit, what the group says between two batches, and how they leave.

use std::ffi::c_char;
use std::time::Instant;

use ottla::bindings::{CommitOffset, GroupEvent, GroupOptions, Next, argument_error, assignors};
use ottla::{Commit, GroupProtocol, Result};

use crate::batch::ottla_batch;
use crate::boundary::{Out, boundary, free, lent, many, optional_text, setting_ms, text, timeout};
use crate::consumer::{ottla_consumer, ottla_consumer_options, ottla_partition_offset};
use crate::error::ottla_error;
use crate::status::ottla_status;
use crate::steering::ottla_partitions;

/// When what a group's consumer has handed out counts as done, and what of it is committed.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_commit {
    /// `OTTLA_COMMIT_MARKS`.
    OTTLA_COMMIT_DEFAULT = 0,
    /// A batch is done once the next is asked for, whichever thread asks: one thread reads. What is done is committed each
    /// `commit_interval_ms`, when partitions are given up, and when the consumer is closed. The batch in hand is not done; of
    /// one whose records are worked on one by one `ottla_batch_reached` says how far it is.
    OTTLA_COMMIT_MARKS = 1,
    /// A batch is done once the program says so, in any order: `ottla_batch_ack` or `ottla_batch_ack_before`. What is committed
    /// of a partition is the end of what is done without a gap. For programs with many threads.
    OTTLA_COMMIT_ACKED = 2,
    /// As with `OTTLA_COMMIT_MARKS`, but nothing is committed except by `ottla_consumer_commit` and its like.
    OTTLA_COMMIT_MANUAL = 3,
    /// As with `OTTLA_COMMIT_ACKED`, but nothing is committed except by `ottla_consumer_commit` and its like.
    OTTLA_COMMIT_MANUAL_ACKED = 4,
}

/// Which of Kafka's two protocols of groups a member speaks.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_group_protocol {
    /// The next generation where the cluster has it (Kafka 4.0 or newer), unless the group has classic members now, or
    /// `assignors` or `session_timeout_ms` are set, which only the classic protocol has.
    OTTLA_GROUP_PROTOCOL_AUTO = 0,
    /// That of every broker: one of the members assigns.
    OTTLA_GROUP_PROTOCOL_CLASSIC = 1,
    /// KIP-848: the coordinator assigns. Joining so converts a classic group for all of its members where the brokers allow it.
    OTTLA_GROUP_PROTOCOL_NEXT = 2,
}

/// # Safety
/// The strings in `o` are null or valid.
pub(crate) unsafe fn group(o: &ottla_consumer_options) -> Result<GroupOptions> {
    let commit = match o.commit {
        0 => None,
        1 => Some(Commit::Marks),
        2 => Some(Commit::Acked),
        3 => Some(Commit::Manual),
        4 => Some(Commit::ManualAcked),
        other => return Err(argument_error(format!("{other} is no member of ottla_commit"))),
    };
    let protocol = match o.group_protocol {
        0 => None,
        1 => Some(GroupProtocol::Classic),
        2 => Some(GroupProtocol::Next),
        other => {
            return Err(argument_error(format!("{other} is no member of ottla_group_protocol")));
        }
    };
    // SAFETY: promised by the caller.
    let (id, instance_id, names, remote) = unsafe {
        (
            optional_text(o.group, "group")?,
            optional_text(o.instance_id, "instance_id")?,
            optional_text(o.assignors, "assignors")?,
            optional_text(o.remote_assignor, "remote_assignor")?,
        )
    };
    Ok(GroupOptions {
        id: id.map(str::to_owned),
        instance_id: instance_id.map(str::to_owned),
        protocol,
        remote_assignor: remote.map(str::to_owned),
        session_timeout: setting_ms(o.session_timeout_ms),
        max_poll_interval: setting_ms(o.max_poll_interval_ms),
        assignors: names.map(assignors).transpose()?,
        commit,
        commit_interval: setting_ms(o.commit_interval_ms),
    })
}

/// What the group says to its member.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_event_kind {
    /// Partitions have come, besides those that were there. None of them: the group was decided anew, and nothing came.
    OTTLA_EVENT_ASSIGNED = 1,
    /// The group takes partitions away, of which nothing more is handed out. What is done of them when the next is asked for is
    /// committed, and then they are given up; at the deadline at the latest.
    OTTLA_EVENT_GIVING_UP = 2,
    /// Partitions are somebody else's by now, perhaps: the membership was lost. What was not committed of them is read by others
    /// again.
    OTTLA_EVENT_LOST = 3,
}

/// Something that the group says between two batches. Depends on no other handle.
pub struct ottla_event {
    kind: ottla_event_kind,
    partitions: ottla_partitions,
    deadline: Option<Instant>,
}

impl From<GroupEvent> for ottla_event {
    fn from(event: GroupEvent) -> Self {
        use ottla_event_kind::*;
        let (kind, partitions, deadline) = match event {
            GroupEvent::Assigned(partitions) => (OTTLA_EVENT_ASSIGNED, partitions, None),
            GroupEvent::GivingUp { partitions, deadline } => {
                (OTTLA_EVENT_GIVING_UP, partitions, Some(deadline))
            }
            GroupEvent::Lost(partitions) => (OTTLA_EVENT_LOST, partitions, None),
        };
        Self { kind, partitions: ottla_partitions::of(partitions), deadline }
    }
}

fn tell(batch: &Out<*mut ottla_batch>, event: &Out<*mut ottla_event>, next: Next) {
    match next {
        Next::Batch(next) => batch.set(ottla_batch::boxed(next)),
        Next::Event(next) => event.give(next.into()),
        Next::Nothing | Next::Reached => {}
    }
}

/// `ottla_consumer_try_next` of a group's consumer, with what the group says between two batches: one of `*batch` and `*event` is
/// set, or, if there is nothing now, none. Both are yours. Programs that never call this leave to the consumer what there is
/// to do when partitions come and go.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_try_next_event(
    consumer: *const ottla_consumer,
    batch: *mut *mut ottla_batch,
    event: *mut *mut ottla_event,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, said) = unsafe { (Out::null(batch, "batch")?, Out::null(event, "event")?) };
        // SAFETY: promised by the caller.
        let consumer = unsafe { lent(consumer, "consumer") }?;
        tell(&out, &said, consumer.inner.try_next_event()?);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The same, and waits as `ottla_consumer_next` does: nothing within `timeout_ms` (-1: no limit) is OK with both null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_next_event(
    consumer: *const ottla_consumer,
    timeout_ms: i64,
    batch: *mut *mut ottla_batch,
    event: *mut *mut ottla_event,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, said) = unsafe { (Out::null(batch, "batch")?, Out::null(event, "event")?) };
        // SAFETY: promised by the caller.
        let consumer = unsafe { lent(consumer, "consumer") }?;
        tell(&out, &said, consumer.inner.next_event(timeout(timeout_ms))?);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The kind of an event: one of `ottla_event_kind`. New ones may be added: ignore those you do not know. 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_event_kind_of(event: *const ottla_event) -> i32 {
    // SAFETY: promised by the caller.
    unsafe { event.as_ref() }.map_or(0, |event| event.kind as i32)
}

/// The partitions that an event is about. They live as long as the event, and are not to be freed. Null for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_event_partitions(
    event: *const ottla_event,
) -> *const ottla_partitions {
    // SAFETY: promised by the caller.
    unsafe { event.as_ref() }.map_or(std::ptr::null(), |event| &raw const event.partitions)
}

/// How long it is until partitions are given up whatever is done, in ms; 0 when that is over. -1 for other kinds, and null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_event_time_left_ms(event: *const ottla_event) -> i64 {
    // SAFETY: promised by the caller.
    let deadline = unsafe { event.as_ref() }.and_then(|event| event.deadline);
    deadline.map_or(-1, |at| {
        let left = at.saturating_duration_since(Instant::now());
        i64::try_from(left.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Frees an event. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_event_free(event: *mut ottla_event) {
    // SAFETY: promised by the caller.
    unsafe { free(event) }
}

/// # Safety
/// `offsets` is null or valid for reads of `count`, and so are its topics.
unsafe fn to_commit(
    offsets: *const ottla_partition_offset,
    count: usize,
) -> Result<Vec<CommitOffset>> {
    // SAFETY: promised by the caller.
    let offsets = unsafe { many(offsets, count, "offsets") }?;
    let named = |at: &ottla_partition_offset| {
        // SAFETY: promised by the caller.
        Ok((unsafe { text(at.topic, "topic") }?.to_owned(), at.partition, at.offset))
    };
    offsets.iter().map(named).collect()
}

/// Commits what is done when this is called; its end is an `OTTLA_COMPLETION_COMMITTED` with this tag. Errors of it are
/// `OTTLA_STATUS_FENCED` once the membership is lost, `OTTLA_STATUS_INVALID_ARGUMENT` without a group, and the broker's. Waits
/// for nobody, as all calls here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_commit(
    consumer: *const ottla_consumer,
    tag: u64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let consumer = unsafe { lent(consumer, "consumer") }?;
        consumer.inner.check_process()?;
        consumer.inner.commit(tag, None);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The same, and waits for the end, for up to `timeout_ms` (-1: no limit); after that it may still be committed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_commit_wait(
    consumer: *const ottla_consumer,
    timeout_ms: i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        unsafe { lent(consumer, "consumer") }?.inner.commit_wait(None, timeout(timeout_ms))
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Commits these offsets, `count` of them, of the next record to read in each partition, whatever is done; its end is an
/// `OTTLA_COMPLETION_COMMITTED` with this tag.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_commit_to(
    consumer: *const ottla_consumer,
    offsets: *const ottla_partition_offset,
    count: usize,
    tag: u64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (consumer, to) = unsafe { (lent(consumer, "consumer")?, to_commit(offsets, count)?) };
        consumer.inner.check_process()?;
        consumer.inner.commit(tag, Some(&to));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The same, and waits for the end, for up to `timeout_ms` (-1: no limit); after that it may still be committed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_commit_to_wait(
    consumer: *const ottla_consumer,
    offsets: *const ottla_partition_offset,
    count: usize,
    timeout_ms: i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (consumer, to) = unsafe { (lent(consumer, "consumer")?, to_commit(offsets, count)?) };
        consumer.inner.commit_wait(Some(&to), timeout(timeout_ms))
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Reads these topics, `count` of them, from now on, with the other members of the group; patterns as in
/// `ottla_consumer_options`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_subscribe(
    consumer: *const ottla_consumer,
    topics: *const *const c_char,
    count: usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (consumer, topics) =
            unsafe { (lent(consumer, "consumer")?, many(topics, count, "topics")?) };
        // SAFETY: promised by the caller.
        let names = topics.iter().map(|topic| unsafe { text(*topic, "topic") });
        consumer.inner.subscribe(&names.collect::<Result<Vec<_>>>()?)
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Closes the consumer as `ottla_consumer_close` does; an `OTTLA_COMPLETION_CLOSED` with this tag comes once it has committed
/// what is done and left its group, after 10 s at the latest. The batch in hand is not done. Without a group it comes at once.
/// Leaving again is OK, and ends when the first has; the consumer may be freed meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_leave(
    consumer: *const ottla_consumer,
    tag: u64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let consumer = unsafe { lent(consumer, "consumer") }?;
        consumer.inner.check_process()?;
        consumer.inner.leave(tag);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The same, and waits for the end, for up to `timeout_ms` (-1: no limit but the 10 s); after that it goes on by itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_leave_wait(
    consumer: *const ottla_consumer,
    timeout_ms: i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        unsafe { lent(consumer, "consumer") }?.inner.leave_wait(timeout(timeout_ms))
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}
