//! The batches of a Fetch response: [`split`] cuts the records field into them by their headers, and
//! [`RawBatch::open`] decompresses one if need be and walks all its records once. [`records`](super::records)
//! then reads them. Nothing is copied, except that decompression writes into a pooled buffer.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::compression::{self, DecompressError, codec_name};
use super::crc::crc32c;
use super::encoded::{MIN_RECORD, walk_checked};
use super::old;
use super::pool::{Chunk, ChunkPool};
use super::records::{Meta, RecordBatch, walk};
use super::{CRC_START, HEADER_LEN};
use crate::error::{Error, ErrorKind};
use crate::protocol::NO_EPOCH;

/// Bytes before the part that the batch length counts.
const LENGTH_END: usize = 12;

/// Why a fetched batch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    /// A batch of a format that is not known.
    Magic { base_offset: i64, magic: i8 },
    /// A header field contradicts itself or the bytes there are.
    Header { base_offset: i64, what: &'static str },
    /// The checksum does not match: damaged on the way or on disk.
    Checksum { base_offset: i64, expected: u32, actual: u32 },
    /// A codec this build cannot read.
    UnsupportedCompression { base_offset: i64, codec: &'static str },
    /// Decompressed, the batch is larger than allowed.
    OverLimit { base_offset: i64, limit: usize },
    /// The compressed bytes are not what the codec writes.
    Decompress { base_offset: i64 },
    /// A record is cut short, has an impossible length, or does not fill its own length.
    Record { base_offset: i64, index: i32 },
}

impl RecordError {
    /// Of the batch that cannot be read.
    pub(crate) fn offset(&self) -> i64 {
        match self {
            Self::Magic { base_offset, .. }
            | Self::Header { base_offset, .. }
            | Self::Checksum { base_offset, .. }
            | Self::UnsupportedCompression { base_offset, .. }
            | Self::OverLimit { base_offset, .. }
            | Self::Decompress { base_offset }
            | Self::Record { base_offset, .. } => *base_offset,
        }
    }

    /// The error for the application.
    pub(crate) fn error_of(&self, topic: &Arc<str>, partition: i32) -> Error {
        let error = self.error(format_args!("topic '{topic}' partition {partition}"));
        error.of_batch(topic, partition, self.offset())
    }

    /// The error for the application; `what` names the partition.
    pub(crate) fn error(&self, what: impl fmt::Display) -> Error {
        let kind = match self {
            Self::UnsupportedCompression { .. } => ErrorKind::UnsupportedCodec,
            _ => ErrorKind::Corrupt,
        };
        let error = Error::new(kind, format!("{what}: {self}"));
        match self {
            Self::Magic { .. } => error.advise(
                "seek past it, or use a newer release of this client: whoever wrote it is newer",
            ),
            Self::OverLimit { .. } => error.advise(
                "seek past it, and have whoever writes make smaller batches: the limit is this client's",
            ),
            _ => error,
        }
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { base_offset, magic } => write!(
                f,
                "the batch at offset {base_offset} has record format {magic}; only formats 0 to 2 can be read"
            ),
            Self::Header { base_offset, what } => {
                write!(f, "the batch at offset {base_offset} has a damaged header: {what}")
            }
            Self::Checksum { base_offset, expected, actual } => write!(
                f,
                "the batch at offset {base_offset} is damaged: its checksum is {actual:#010x}, its header says {expected:#010x}"
            ),
            Self::UnsupportedCompression { base_offset, codec } => {
                write!(f, "the batch at offset {base_offset} uses unsupported compression {codec}")
            }
            Self::OverLimit { base_offset, limit } => write!(
                f,
                "the batch at offset {base_offset} decompresses to more than the limit of {limit} bytes"
            ),
            Self::Decompress { base_offset } => {
                write!(f, "the batch at offset {base_offset} cannot be decompressed: damaged data")
            }
            Self::Record { base_offset, index } => {
                write!(f, "record {index} of the batch at offset {base_offset} is damaged")
            }
        }
    }
}

impl std::error::Error for RecordError {}

/// The batches of a Fetch response's records field, in order.
///
/// Ends without an error at a batch that is cut short: brokers fill the response to its byte
/// limit and cut where that falls. Ends after the first error, as nothing behind it can be found.
pub(crate) fn split(records: Bytes) -> Batches {
    Batches { rest: records }
}

/// Iterator of [`split`].
#[derive(Debug)]
pub(crate) struct Batches {
    rest: Bytes,
}

impl Iterator for Batches {
    type Item = Result<RawBatch, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.take();
        if !matches!(item, Some(Ok(_))) {
            self.rest = Bytes::new();
        }
        item
    }
}

impl Batches {
    fn take(&mut self) -> Option<Result<RawBatch, RecordError>> {
        let head: &[u8; LENGTH_END] = self.rest.first_chunk()?;
        let base_offset = i64::from_be_bytes(at(head, 0));
        let length = i32::from_be_bytes(at(head, 8));
        let damaged = |what| Some(Err(RecordError::Header { base_offset, what }));
        if base_offset < 0 {
            return damaged("negative base offset");
        }
        let Ok(length) = usize::try_from(length) else { return damaged("negative length") };
        // The magic sits at the same place in every format, and old formats have shorter headers.
        if length >= 5 {
            let &magic = self.rest.get(16)?;
            if magic < 2 {
                return self.take_old(base_offset, magic, length);
            }
            if magic != 2 {
                return Some(Err(RecordError::Magic { base_offset, magic: magic as i8 }));
            }
        }
        if length < HEADER_LEN - LENGTH_END {
            return damaged("length shorter than the header");
        }
        if self.rest.len() - LENGTH_END < length {
            return None;
        }
        let whole = self.rest.split_to(LENGTH_END + length);
        Some(RawBatch::parse(whole))
    }

    /// Messages of an old format: as many as make a batch.
    fn take_old(
        &mut self,
        base_offset: i64,
        format: u8,
        length: usize,
    ) -> Option<Result<RawBatch, RecordError>> {
        let damaged = |what| Some(Err(RecordError::Header { base_offset, what }));
        if length < old::least(format) {
            return damaged("length shorter than the header");
        }
        if self.rest.len() - LENGTH_END < length {
            return None;
        }
        let Some((len, count, last_offset, codec)) = old::gather(&self.rest) else {
            return damaged("fields of a message that do not fill its length");
        };
        if last_offset == i64::MAX {
            return damaged("last offset beyond 2^63");
        }
        Some(Ok(RawBatch {
            base_offset,
            last_offset,
            leader_epoch: NO_EPOCH,
            codec,
            log_append: false,
            transactional: false,
            control: false,
            base_timestamp: -1,
            max_timestamp: -1,
            producer_id: -1,
            count,
            crc: 0,
            is_old: true,
            whole: self.rest.split_to(len),
        }))
    }
}

fn at<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[start..start + N]);
    out
}

/// A batch as fetched: header read, records untouched.
#[derive(Clone, Debug)]
pub(crate) struct RawBatch {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) leader_epoch: i32,
    /// Codec bits, 0 to 7.
    pub(crate) codec: i16,
    /// The broker set the time of every record to that of its append, which `max_timestamp` is.
    pub(crate) log_append: bool,
    /// Part of a transaction, which may have been aborted.
    pub(crate) transactional: bool,
    /// A marker of the transaction coordinator, never given to users.
    pub(crate) control: bool,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    /// Of the producer that wrote it, or -1.
    pub(crate) producer_id: i64,
    /// Records the header promises. May be 0 in a compacted topic.
    pub(crate) count: i32,
    crc: u32,
    /// Messages of format 0 or 1, each with a header and a checksum of its own.
    is_old: bool,
    whole: Bytes,
}

impl RawBatch {
    fn parse(whole: Bytes) -> Result<Self, RecordError> {
        let base_offset = i64::from_be_bytes(at(&whole, 0));
        let damaged = |what| Err(RecordError::Header { base_offset, what });
        let attributes = i16::from_be_bytes(at(&whole, 21));
        let last_delta = i32::from_be_bytes(at(&whole, 23));
        let count = i32::from_be_bytes(at(&whole, 57));
        if last_delta < 0 {
            return damaged("negative last offset delta");
        }
        if count < 0 {
            return damaged("negative record count");
        }
        // The next offset, `last_offset + 1`, must fit an i64, too.
        let last_offset = base_offset.checked_add(i64::from(last_delta));
        let Some(last_offset) = last_offset.filter(|last| *last < i64::MAX) else {
            return damaged("last offset beyond 2^63");
        };
        let batch = Self {
            base_offset,
            last_offset,
            leader_epoch: i32::from_be_bytes(at(&whole, 12)),
            codec: attributes & 7,
            log_append: attributes & 8 != 0,
            transactional: attributes & 16 != 0,
            control: attributes & 32 != 0,
            base_timestamp: i64::from_be_bytes(at(&whole, 27)),
            max_timestamp: i64::from_be_bytes(at(&whole, 35)),
            producer_id: i64::from_be_bytes(at(&whole, 43)),
            count,
            crc: u32::from_be_bytes(at(&whole, 17)),
            is_old: false,
            whole,
        };
        Ok(batch)
    }

    /// The same header over other records.
    #[cfg(test)]
    pub(crate) fn with_payload(&self, codec: i16, payload: impl AsRef<[u8]>) -> Self {
        let whole = [&self.whole[..HEADER_LEN], payload.as_ref()].concat().into();
        Self { codec, whole, ..self.clone() }
    }

    /// The same in a buffer of its own, which `own` makes what owns it.
    pub(crate) fn copied(&self, pool: &ChunkPool, own: impl FnOnce(Chunk) -> Bytes) -> Self {
        let mut chunk = pool.get(self.whole.len());
        chunk.push(&self.whole);
        Self { whole: own(chunk), ..self.clone() }
    }

    /// Bytes that it takes, header included.
    pub(crate) fn len_bytes(&self) -> usize {
        self.whole.len()
    }

    /// The records section, compressed or not.
    pub(crate) fn payload(&self) -> &[u8] {
        if self.is_old {
            return &self.whole;
        }
        &self.whole[HEADER_LEN..]
    }

    /// The key of its first record, if that is there and not compressed: of a marker, what it says. Empty otherwise.
    pub(crate) fn first_key(&self) -> &[u8] {
        if self.codec != 0 {
            return &[];
        }
        walk(self.payload(), 0).next().and_then(|record| record.key()).unwrap_or_default()
    }

    /// Whether some of its records may come before an offset. What a compressed message of an old format holds, is
    /// known only once it is opened.
    pub(crate) fn may_begin_before(&self, offset: i64) -> bool {
        self.base_offset < offset || self.is_old
    }

    /// Compares the batch with its checksum.
    pub(crate) fn verify_crc(&self) -> Result<(), RecordError> {
        if self.is_old {
            return old::verify(&self.whole);
        }
        let actual = crc32c(&self.whole[CRC_START..]);
        if actual == self.crc {
            return Ok(());
        }
        let base_offset = self.base_offset;
        Err(RecordError::Checksum { base_offset, expected: self.crc, actual })
    }

    /// Decompresses into a buffer of `pool` if need be, and checks every record's bounds.
    /// `limit_bytes` bounds what decompression may yield.
    #[cfg(any(test, feature = "bench-internals", feature = "fuzz-internals"))]
    pub(crate) fn open(
        &self,
        pool: &ChunkPool,
        limit_bytes: usize,
    ) -> Result<RecordBatch, RecordError> {
        self.open_as(pool, limit_bytes, Chunk::freeze)
    }

    /// The same; `own` makes what owns the decompressed bytes. It is asked for each buffer that is filled on the way, also
    /// for one that is there only until this returns.
    pub(crate) fn open_as(
        &self,
        pool: &ChunkPool,
        limit_bytes: usize,
        own: impl Fn(Chunk) -> Bytes,
    ) -> Result<RecordBatch, RecordError> {
        if self.is_old {
            return old::open(&self.whole, pool, limit_bytes.min(i32::MAX as usize), own);
        }
        let base_offset = self.base_offset;
        let payload = match self.codec {
            0 => self.whole.slice(HEADER_LEN..),
            codec => {
                let limit = limit_bytes.min(i32::MAX as usize);
                let chunk = compression::decompress(codec, pool, self.payload(), limit).map_err(
                    |error| match error {
                        DecompressError::OverLimit => RecordError::OverLimit { base_offset, limit },
                        DecompressError::Damaged => RecordError::Decompress { base_offset },
                        DecompressError::Unsupported => RecordError::UnsupportedCompression {
                            base_offset,
                            codec: codec_name(codec),
                        },
                    },
                )?;
                own(chunk)
            }
        };
        if self.count as usize > payload.len() / MIN_RECORD {
            let what = "more records than bytes for them";
            return Err(RecordError::Header { base_offset, what });
        }
        let last_delta = self.last_offset - base_offset;
        let walked = walk_checked(&payload, self.count, last_delta).map_err(|index| {
            if index < self.count {
                return RecordError::Record { base_offset, index };
            }
            RecordError::Header { base_offset, what: "bytes behind the last record" }
        })?;
        let meta = Meta {
            base_offset,
            last_offset: self.last_offset,
            leader_epoch: self.leader_epoch,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            log_append: self.log_append,
            count: self.count,
            walked,
        };
        Ok(RecordBatch::new(payload, meta))
    }
}
