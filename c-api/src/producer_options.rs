//! Settings of producers.

use std::ffi::c_char;

use ottla::bindings::{ProducerOptions, argument_error};
use ottla::{Acks, Compression, Error, InDoubt, Partitioner, Result};

use crate::boundary::{many, setting_ms, setting_size, text};
use crate::options::Options;

/// Settings of a producer: start from `OTTLA_PRODUCER_OPTIONS_INIT`. 0 is always the default. A value
/// out of its range is `OTTLA_STATUS_CONFIG`, a number that is no member of its enum
/// `OTTLA_STATUS_INVALID_ARGUMENT`. Sending never waits for space, so that there is no time to
/// bound that by.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_producer_options {
    /// Set by the macro.
    pub size: usize,
    /// How long a record may wait for company, in ms. To 60,000, default 5. None waits while its broker is idle
    /// and this process makes fewer than 180 requests a second. -1: none ever does, which costs brokers a
    /// request for nearly every record, as a flush after each record does.
    pub linger_ms: i64,
    /// From acceptance to outcome, in ms. 10 to 86,400,000 (a day), default 120,000.
    pub delivery_timeout_ms: i64,
    /// Bytes of a batch. 1 KiB to 16 MiB, default 256 KiB.
    pub batch_size: usize,
    /// Bytes of records that are not resolved yet. 1 MiB to 1 TiB, default 64 MiB.
    pub buffer_memory: usize,
    /// Bytes of one record. To 100 MiB, default 1 MiB.
    pub max_record_size: usize,
    /// One of `ottla_compression`.
    pub compression: i32,
    /// How hard `compression` tries, where it has levels: gzip 1 (quick) to 9 (small), zstd -7 to
    /// 22. 0: the codec's usual level (6 and 3).
    pub compression_level: i32,
    /// The tag of this producer's `OTTLA_COMPLETION_SPACE`.
    pub tag: u64,
    /// Topics with another codec than `compression`, `topic_compression_count` of them.
    pub topic_compressions: *const ottla_topic_compression,
    /// See `topic_compressions`.
    pub topic_compression_count: usize,
    /// One of `ottla_partitioner`.
    pub partitioner: i32,
    /// One of `ottla_acks`.
    pub acks: i32,
    /// One of `ottla_in_doubt`.
    pub in_doubt: i32,
    /// 0: anything else is refused.
    pub reserved: i32,
}

// SAFETY: repr(C), starts with a usize, numbers and raw pointers only.
unsafe impl Options for ottla_producer_options {
    fn reserved(&self) -> i64 {
        self.reserved.into()
    }
}

/// The codec of one topic.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_topic_compression {
    /// The topic.
    pub topic: *const c_char,
    /// One of `ottla_compression`.
    pub compression: i32,
    /// As in `ottla_producer_options`.
    pub compression_level: i32,
}

/// Codecs. Records that do not get smaller are sent as they are.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_compression {
    /// lz4.
    OTTLA_COMPRESSION_DEFAULT = 0,
    /// Not compressed.
    OTTLA_COMPRESSION_NONE = 1,
    /// lz4: little CPU.
    OTTLA_COMPRESSION_LZ4 = 2,
    /// gzip: small and slow, read by everything. Has levels.
    OTTLA_COMPRESSION_GZIP = 3,
    /// Snappy: about as quick as lz4 and as small.
    OTTLA_COMPRESSION_SNAPPY = 4,
    /// Zstandard: smaller than gzip at a fraction of its CPU. Has levels.
    OTTLA_COMPRESSION_ZSTD = 5,
}

/// How a record that names no partition gets one.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_partitioner {
    /// `OTTLA_PARTITIONER_SPREAD`.
    OTTLA_PARTITIONER_DEFAULT = 0,
    /// By load: wherever a broker answers quickly, a batch at a time. Keys are payload.
    OTTLA_PARTITIONER_SPREAD = 1,
    /// By key (murmur2), as Java's client does: records with the same key go to the same partition,
    /// in order, for as long as the topic keeps its number of partitions. Such records wait for the
    /// leader of their partition and share its fate; records without a key are spread.
    OTTLA_PARTITIONER_KEY_HASH = 2,
}

/// Who must have a record before it counts as acknowledged. Not Kafka's numbers.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_acks {
    /// `OTTLA_ACKS_ALL`.
    OTTLA_ACKS_DEFAULT = 0,
    /// All in-sync replicas. Idempotent: what is sent again is written once.
    OTTLA_ACKS_ALL = 1,
    /// The leader alone: lost if it dies before a follower has the record. Not idempotent: a batch
    /// whose answer is lost is sent again and may be written twice.
    OTTLA_ACKS_LEADER = 2,
    /// Nobody: a record counts as written, at offset -1, once it is handed to the socket. What the
    /// broker refuses or loses is lost silently.
    OTTLA_ACKS_NONE = 3,
}

/// Where a batch whose records named no partition goes once it is in doubt: its connection
/// was cut before the answer, or its broker is silent while others answer.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_in_doubt {
    /// `OTTLA_IN_DOUBT_WAIT`.
    OTTLA_IN_DOUBT_DEFAULT = 0,
    /// It waits for its partition and is sent again there, where the broker recognises what it has:
    /// no duplicate, and the acknowledgement comes as late as the broker does.
    OTTLA_IN_DOUBT_WAIT = 1,
    /// It goes to another partition at once: acknowledged soon, and perhaps written twice. Records
    /// with a partition of their own wait all the same.
    OTTLA_IN_DOUBT_REROUTE = 2,
}

fn no_member(number: i32, of: &str) -> Error {
    argument_error(format!("{number} is no member of {of}"))
}

/// `None` is the default.
fn compression(number: i32, level: i32) -> Result<Option<Compression>> {
    let name = match number {
        0 if level == 0 => return Ok(None),
        1 => "none",
        0 | 2 => "lz4",
        3 => "gzip",
        4 => "snappy",
        5 => "zstd",
        other => return Err(no_member(other, "ottla_compression")),
    };
    Compression::named(name, (level != 0).then_some(level)).map(Some)
}

/// # Safety
/// The pointers in `o` are null or valid.
pub(crate) unsafe fn settings(o: &ottla_producer_options) -> Result<ProducerOptions> {
    // SAFETY: promised by the caller.
    let topics =
        unsafe { many(o.topic_compressions, o.topic_compression_count, "topic_compressions") }?;
    let mut topic_compression = Vec::with_capacity(topics.len());
    for entry in topics {
        // SAFETY: promised by the caller.
        let topic = unsafe { text(entry.topic, "topic") }?;
        let codec = compression(entry.compression, entry.compression_level)?.ok_or_else(|| {
            argument_error(format!("topic_compressions names '{topic}' without a compression"))
        })?;
        topic_compression.push((topic.to_owned(), codec));
    }
    Ok(ProducerOptions {
        linger: setting_ms(o.linger_ms),
        batch_size: setting_size(o.batch_size),
        compression: compression(o.compression, o.compression_level)?,
        topic_compression,
        partitioner: match o.partitioner {
            0 => None,
            1 => Some(Partitioner::Spread),
            2 => Some(Partitioner::KeyHash),
            other => return Err(no_member(other, "ottla_partitioner")),
        },
        acks: match o.acks {
            0 => None,
            1 => Some(Acks::All),
            2 => Some(Acks::Leader),
            3 => Some(Acks::None),
            other => return Err(no_member(other, "ottla_acks")),
        },
        in_doubt: match o.in_doubt {
            0 => None,
            1 => Some(InDoubt::Wait),
            2 => Some(InDoubt::Reroute),
            other => return Err(no_member(other, "ottla_in_doubt")),
        },
        buffer_memory: setting_size(o.buffer_memory),
        delivery_timeout: setting_ms(o.delivery_timeout_ms),
        max_record_size: setting_size(o.max_record_size),
        tag: o.tag,
        ..ProducerOptions::default()
    })
}
