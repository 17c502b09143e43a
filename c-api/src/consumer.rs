//! Consumers.

use std::ffi::c_char;

use ottla::bindings::{
    Batch, ConsumerOptions, HostConsumer, Next, Start, Subscription, argument_error,
};
use ottla::{Isolation, Result, TopicPartition};

use crate::batch::ottla_batch;
use crate::boundary::{Out, boundary, free, lent, many, setting_ms, setting_size, text, timeout};
use crate::client::ottla_client;
use crate::error::ottla_error;
use crate::group::group;
use crate::options::{Options, read};
use crate::status::ottla_status;

/// A consumer of topics or partitions. Calls that read, from several threads, follow one another; what asks and steers
/// waits for none of them.
pub struct ottla_consumer {
    pub(crate) inner: HostConsumer,
}

/// Where reading starts. In a partition of `topics` that is found after the consumer was made (the topic
/// grew, or was made then) it starts with the first record, whatever is set: all of it is new.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_start {
    /// Earliest.
    OTTLA_START_DEFAULT = 0,
    /// At the oldest record that is kept.
    OTTLA_START_EARLIEST = 1,
    /// With what is written from now on.
    OTTLA_START_LATEST = 2,
    /// At the offset `start_value`, 0 or more.
    OTTLA_START_OFFSET = 3,
    /// At the first record that is as young as `start_value`, in ms since 1970 (0 or more), or younger.
    OTTLA_START_TIMESTAMP = 4,
}

/// Which records of transactions are read.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_isolation {
    /// All.
    OTTLA_ISOLATION_DEFAULT = 0,
    /// All that was written, also in transactions that were aborted or are still open.
    OTTLA_ISOLATION_READ_UNCOMMITTED = 1,
    /// Nothing of transactions that were aborted, and nothing beyond the first one that is still open: that is
    /// the partition's end, for `ottla_consumer_lag` and `OTTLA_START_LATEST`, too.
    OTTLA_ISOLATION_READ_COMMITTED = 2,
}

/// A partition to read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_assignment {
    /// The topic.
    pub topic: *const c_char,
    /// See `ottla_start`.
    pub start_value: i64,
    /// The partition.
    pub partition: i32,
    /// One of `ottla_start`.
    pub start: i32,
}

/// A partition, and an offset in it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_partition_offset {
    /// The topic.
    pub topic: *const c_char,
    /// The offset.
    pub offset: i64,
    /// The partition.
    pub partition: i32,
}

/// Settings of a consumer: start from `OTTLA_CONSUMER_OPTIONS_INIT`, then set `topics` or
/// `assignments`. 0 is always the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_consumer_options {
    /// Set by the macro.
    pub size: usize,
    /// Topics to read with all their partitions, `topic_count` of them. With `group`, a name that begins with `^` is a pattern (RE2)
    /// of whole names: `^orders-.*`.
    pub topics: *const *const c_char,
    /// See `topics`.
    pub topic_count: usize,
    /// Or partitions to read, `assignment_count` of them.
    pub assignments: *const ottla_assignment,
    /// See `assignments`.
    pub assignment_count: usize,
    /// For `topics`: see `ottla_start`.
    pub start_value: i64,
    /// For `topics`: one of `ottla_start`.
    pub start: i32,
    /// 1: checksums of batches are not verified.
    pub skip_crc: i32,
    /// How long a broker may wait for `min_bytes`, in ms. Default 500; -1: not at all.
    pub max_wait_ms: i64,
    /// The bytes that a broker waits for before it answers. Default 1.
    pub min_bytes: usize,
    /// Bytes of one answer. Default 8 MiB.
    pub max_bytes: usize,
    /// Bytes of one partition in an answer. Default 1 MiB.
    pub max_partition_bytes: usize,
    /// Bytes fetched and not taken yet. Default 64 MiB.
    pub buffer_memory: usize,
    /// The tag of this consumer's `OTTLA_COMPLETION_CONSUMER_READY`.
    pub tag: u64,
    /// Which records of transactions are read: one of `ottla_isolation`. Default: all.
    pub isolation: i32,
    /// 0.
    pub reserved: i32,
    /// The group that it reads `topics` together with: each partition is one member's at a time, and read on where the group was
    /// (where it never was, at `start`). It becomes a member when it is asked for the first batch. Default: none.
    pub group: *const c_char,
    /// Makes it a static member (KIP-345): one that restarts within the session timeout under the same id has its partitions
    /// again, and the others notice nothing; it does not leave when it is closed. Each running consumer has its own.
    pub instance_id: *const c_char,
    /// Of the classic protocol: who may decide which member reads what, the preferred first, separated by commas: "range", "roundrobin", "sticky",
    /// "cooperative-sticky". Default "range,cooperative-sticky", as Java's client has it.
    pub assignors: *const c_char,
    /// After how long without a heartbeat the group gives the member's partitions to others, in ms. 1,000 to 86,400,000 (a
    /// day) within what the brokers allow, default 45,000. Heartbeats go out by themselves.
    /// Of the classic protocol: under the next generation the brokers decide.
    pub session_timeout_ms: i64,
    /// How long the program may take between being given a batch and asking for the next, in ms; after that the member leaves,
    /// and joins again when it asks again. 1,000 to 86,400,000, default 300,000.
    pub max_poll_interval_ms: i64,
    /// How often what is done is committed, in ms, +-20 %. 10 to 86,400,000, default 5,000.
    pub commit_interval_ms: i64,
    /// When what was handed out counts as done: one of `ottla_commit`.
    pub commit: i32,
    /// Which of Kafka's two protocols of groups it speaks: one of `ottla_group_protocol`.
    pub group_protocol: i32,
    /// Under the next generation of the protocol: which assignor of the brokers assigns, "uniform" or "range" or one that
    /// they were given. Default: their first.
    pub remote_assignor: *const c_char,
}

// SAFETY: repr(C), starts with a usize, numbers and raw pointers only.
unsafe impl Options for ottla_consumer_options {
    fn reserved(&self) -> i64 {
        i64::from(self.reserved)
    }
}

fn isolation(kind: i32) -> Result<Option<Isolation>> {
    match kind {
        0 => Ok(None),
        1 => Ok(Some(Isolation::ReadUncommitted)),
        2 => Ok(Some(Isolation::ReadCommitted)),
        other => Err(argument_error(format!("{other} is no member of ottla_isolation"))),
    }
}

fn start(kind: i32, value: i64) -> Result<Start> {
    match kind {
        0 | 1 => Ok(Start::Earliest),
        2 => Ok(Start::Latest),
        3 => Ok(Start::Offset(value)),
        4 => Ok(Start::Timestamp(value)),
        other => Err(argument_error(format!("{other} is no member of ottla_start"))),
    }
}

/// # Safety
/// The topics are null or valid.
pub(crate) unsafe fn assigned(
    assignments: &[ottla_assignment],
) -> Result<Vec<(String, i32, Start)>> {
    let list = assignments.iter().map(|a| {
        // SAFETY: promised by the caller.
        let topic = unsafe { text(a.topic, "topic") }?;
        if a.partition < 0 {
            return Err(argument_error(format!("partition is {}", a.partition)));
        }
        Ok((topic.to_owned(), a.partition, start(a.start, a.start_value)?))
    });
    list.collect()
}

/// # Safety
/// The pointers in `o` are null or valid.
unsafe fn settings(o: &ottla_consumer_options) -> Result<ConsumerOptions> {
    // SAFETY: promised by the caller.
    let (topics, assignments) = unsafe {
        (
            many(o.topics, o.topic_count, "topics")?,
            many(o.assignments, o.assignment_count, "assignments")?,
        )
    };
    let subscription = match (topics, assignments) {
        ([], []) => return Err(argument_error("neither topics nor assignments are given")),
        (topics, []) => {
            // SAFETY: promised by the caller.
            let names = topics.iter().map(|t| unsafe { text(*t, "topic") }.map(str::to_owned));
            Subscription::Topics(names.collect::<Result<_>>()?, start(o.start, o.start_value)?)
        }
        ([], assignments) => {
            // SAFETY: promised by the caller.
            Subscription::Partitions(unsafe { assigned(assignments) }?)
        }
        _ => return Err(argument_error("topics and assignments are both given; choose one")),
    };
    Ok(ConsumerOptions {
        max_wait: setting_ms(o.max_wait_ms),
        min_bytes: setting_size(o.min_bytes),
        max_bytes: setting_size(o.max_bytes),
        max_partition_bytes: setting_size(o.max_partition_bytes),
        buffer_memory: setting_size(o.buffer_memory),
        check_crc: (o.skip_crc != 0).then_some(false),
        isolation: isolation(o.isolation)?,
        // SAFETY: promised by the caller.
        group: unsafe { group(o) }?,
        tag: o.tag,
        ..ConsumerOptions::new(subscription)
    })
}

/// A consumer of a client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_new(
    client: *const ottla_client,
    options: *const ottla_consumer_options,
    consumer: *mut *mut ottla_consumer,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(consumer, "consumer") }?;
        // SAFETY: promised by the caller.
        let (client, options) = unsafe { (lent(client, "client")?, read(options, "options")?) };
        let options = options.ok_or_else(|| argument_error("options is null"))?;
        // SAFETY: promised by the caller.
        let inner = client.engine.consumer(unsafe { settings(&options) }?)?;
        out.give(ottla_consumer { inner });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

fn hand_out(out: &Out<*mut ottla_batch>, batch: Option<Batch>) {
    if let Some(batch) = batch {
        out.set(ottla_batch::boxed(batch));
    }
}

/// Nobody waits any more of those whom `ottla_consumer_try_next` or `ottla_consumer_try_next_event` gave nothing: the program has to
/// ask again within `max_poll_interval_ms`. Without this a program that hangs after it has looked keeps its partitions, since
/// nobody can tell here whether it still waits for the completion. Waits with a timeout say it by themselves. Does nothing while
/// another thread waits, and without a group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_waits_no_more(
    consumer: *const ottla_consumer,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let consumer = &unsafe { lent(consumer, "consumer") }?.inner;
        consumer.check_process()?;
        consumer.waits_no_more();
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The next batch, if there is one now: `*batch` is yours, to be freed with `ottla_batch_free`. If
/// there is none: OK, `*batch` is null, and an `OTTLA_COMPLETION_CONSUMER_READY` comes when it is
/// worth asking again (it may turn out that there is nothing yet); one for all threads that asked,
/// so who takes it asks until there is none. After an error that is not fatal, ask again. In a group, to ask may say that the
/// batch before is done: see `ottla_commit`. Who has found nothing counts as waiting until something is found: see
/// `ottla_consumer_waits_no_more`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_try_next(
    consumer: *const ottla_consumer,
    batch: *mut *mut ottla_batch,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(batch, "batch") }?;
        // SAFETY: promised by the caller.
        hand_out(&out, unsafe { lent(consumer, "consumer") }?.inner.try_next()?);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Waits for the next batch for up to `timeout_ms` (-1: no limit); nothing until then is OK with
/// `*batch` null. Leaves no completions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_next(
    consumer: *const ottla_consumer,
    timeout_ms: i64,
    batch: *mut *mut ottla_batch,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(batch, "batch") }?;
        // SAFETY: promised by the caller.
        let consumer = unsafe { lent(consumer, "consumer") }?;
        hand_out(&out, consumer.inner.next(timeout(timeout_ms))?);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// # Safety
/// `ends` is null or valid for reads of `count`, and so are its topics.
unsafe fn wanted_ends(
    ends: *const ottla_partition_offset,
    count: usize,
) -> Result<Vec<(TopicPartition, i64)>> {
    // SAFETY: promised by the caller.
    let ends = unsafe { many(ends, count, "ends") }?;
    let end = |end: &ottla_partition_offset| {
        // SAFETY: promised by the caller.
        let topic = unsafe { text(end.topic, "topic") }?.into();
        Ok((TopicPartition { topic, partition: end.partition }, end.offset))
    };
    ends.iter().map(end).collect()
}

fn tell_next(batch: &Out<*mut ottla_batch>, reached: &Out<bool>, next: Next) {
    reached.set(matches!(next, Next::Reached));
    hand_out(batch, next.batch());
}

/// `ottla_consumer_try_next` up to an end that was looked up before (`ottla_list_offsets`): the next batch, of whatever
/// partition, until the position of each of the `end_count` partitions in `ends` has reached its offset; then `*reached`
/// is true and `*batch` null. A loop of one's own over positions would wait for ever where the last offsets hold
/// nothing that is handed out. A partition that is not read, or not known yet, has reached nothing. Without
/// `ends` this is `ottla_consumer_try_next`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_try_next_until(
    consumer: *const ottla_consumer,
    ends: *const ottla_partition_offset,
    end_count: usize,
    batch: *mut *mut ottla_batch,
    reached: *mut bool,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, told) = unsafe { (Out::null(batch, "batch")?, Out::new(reached, "reached")?) };
        told.set(false);
        // SAFETY: promised by the caller.
        let (consumer, ends) =
            unsafe { (lent(consumer, "consumer")?, wanted_ends(ends, end_count)?) };
        tell_next(&out, &told, consumer.inner.try_next_until(&ends)?);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The same, and waits as `ottla_consumer_next` does: nothing within `timeout_ms` (-1: no limit) is OK with `*batch` null
/// and `*reached` false.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_next_until(
    consumer: *const ottla_consumer,
    ends: *const ottla_partition_offset,
    end_count: usize,
    timeout_ms: i64,
    batch: *mut *mut ottla_batch,
    reached: *mut bool,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, told) = unsafe { (Out::null(batch, "batch")?, Out::new(reached, "reached")?) };
        told.set(false);
        // SAFETY: promised by the caller.
        let (consumer, ends) =
            unsafe { (lent(consumer, "consumer")?, wanted_ends(ends, end_count)?) };
        tell_next(&out, &told, consumer.inner.next_until(&ends, timeout(timeout_ms))?);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Where reading stands: the offset behind what was handed out, or passed over because it is not handed out (markers of
/// transactions, what compaction has removed). Before the first record where reading begins, once that is known.
/// `*offset` is -1 until then, and for a partition that is not read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_position(
    consumer: *const ottla_consumer,
    topic: *const c_char,
    partition: i32,
    offset: *mut i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (out, consumer, topic) = unsafe {
            (Out::new(offset, "offset")?, lent(consumer, "consumer")?, text(topic, "topic")?)
        };
        out.set(consumer.inner.position(topic, partition).unwrap_or(-1));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Goes on elsewhere in a partition that is read by this consumer. `where` is one of
/// `ottla_start`, `start_value` as there. Never waits, also while another thread does in
/// `ottla_consumer_next`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_seek(
    consumer: *const ottla_consumer,
    topic: *const c_char,
    partition: i32,
    start_at: i32,
    start_value: i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (consumer, topic) = unsafe { (lent(consumer, "consumer")?, text(topic, "topic")?) };
        consumer.inner.seek(topic, partition, start(start_at, start_value)?)
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Stops fetching; a thread that waits in `ottla_consumer_next` gets `OTTLA_STATUS_CLOSED`, and so
/// do later calls. Closing again is OK. Batches stay usable. A member of a group commits what is done and leaves it in the
/// background: `ottla_consumer_leave` tells when.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_close(
    consumer: *const ottla_consumer,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let consumer = unsafe { lent(consumer, "consumer") }?;
        consumer.inner.check_process()?;
        consumer.inner.close();
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Closes the consumer, if it is not closed, and frees it. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_consumer_free(consumer: *mut ottla_consumer) {
    // SAFETY: promised by the caller.
    unsafe { free(consumer) }
}

impl Drop for ottla_consumer {
    fn drop(&mut self) {
        self.inner.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_isolation_is_the_one_that_is_named() {
        let of = |kind| {
            let name = c"t".as_ptr();
            // SAFETY: numbers and pointers, which may all be zero.
            let mut o: ottla_consumer_options = unsafe { std::mem::zeroed() };
            (o.topics, o.topic_count, o.isolation) = (&raw const name, 1, kind);
            // SAFETY: one topic, whose name is a C string.
            unsafe { settings(&o) }.map(|settings| settings.isolation)
        };
        assert_eq!(of(0).unwrap(), None);
        assert_eq!(of(1).unwrap(), Some(Isolation::ReadUncommitted));
        assert_eq!(of(2).unwrap(), Some(Isolation::ReadCommitted));
        assert!(of(3).is_err() && of(-1).is_err());
    }

    /// Nothing but a damaged batch would show it.
    #[test]
    fn checksums_are_skipped_where_it_is_said() {
        let name = c"t".as_ptr();
        for (skip_crc, check) in [(0, None), (1, Some(false))] {
            // SAFETY: numbers and pointers, which may all be zero.
            let mut o: ottla_consumer_options = unsafe { std::mem::zeroed() };
            (o.topics, o.topic_count, o.skip_crc) = (&raw const name, 1, skip_crc);
            // SAFETY: one topic, whose name is a C string.
            assert_eq!(unsafe { settings(&o) }.unwrap().check_crc, check);
        }
    }
}
