//! Message formats 0 and 1, from before Kafka 0.11: brokers up to 3.9 keep what was written in them, and give it as it is.
//! Each message has a header and a checksum of its own; compressed ones are a message whose value is a set of them.
//!
//! What they hold is written anew as the records section of a batch of format 2, in memory that grows by less than a
//! third of what is there: so who reads sees no difference, but that timestamps may be missing (format 0 has none).

use bytes::Bytes;

use super::compression::{self, DecompressError, codec_name};
use super::encoded::walk_checked;
use super::pool::{Chunk, ChunkPool};
use super::reader::RecordError;
use super::records::{Meta, RecordBatch};
use super::varint;

/// Bytes before the part that the length counts: offset and length.
const LENGTH_END: usize = 12;
/// Where the checksum ends, which covers what is behind it.
const CHECKED: usize = 16;
/// Messages that are not compressed make batches of about so many bytes.
const GATHERED: usize = 64 << 10;
/// Of the attributes of format 1: the broker set the time.
const APPEND_TIME: u8 = 8;
/// The time of messages that have none.
const NO_TIMESTAMP: i64 = -1;

/// The least that the length counts.
pub(super) fn least(format: u8) -> usize {
    if format == 0 { 14 } else { 22 }
}

#[derive(Clone, Copy)]
struct Message<'a> {
    offset: i64,
    format: u8,
    attributes: u8,
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = i32::from_be_bytes(take(rest)?);
    if len == -1 {
        return Some(None);
    }
    let (bytes, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = after;
    Some(Some(bytes))
}

/// The message in front, and how many bytes it takes. `None`: it is cut short, or impossible.
fn message(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let mut rest = bytes;
    let offset = i64::from_be_bytes(take(&mut rest)?);
    let len = usize::try_from(i32::from_be_bytes(take(&mut rest)?)).ok()?;
    let (mut body, _) = rest.split_at_checked(len)?;
    let _checksum: [u8; 4] = take(&mut body)?;
    let [format, attributes] = take(&mut body)?;
    let timestamp = match format {
        0 => NO_TIMESTAMP,
        1 => i64::from_be_bytes(take(&mut body)?),
        _ => return None,
    };
    let (key, value) = (take_bytes(&mut body)?, take_bytes(&mut body)?);
    let is_whole = body.is_empty();
    is_whole.then_some((
        Message { offset, format, attributes, timestamp, key, value },
        LENGTH_END + len,
    ))
}

/// What is in front: one compressed message, or some that are not. Gives how many bytes they take, how many there are, the
/// last offset, and the codec; `None`: the first one is impossible.
pub(super) fn gather(bytes: &[u8]) -> Option<(usize, i32, i64, i16)> {
    let (first, mut len) = message(bytes)?;
    let codec = i16::from(first.attributes & 7);
    let (mut count, mut last) = (1, first.offset);
    while codec == 0 && len < GATHERED {
        // What is not as it should be is told when it is first.
        let Some((next, more)) = message(&bytes[len..]) else { break };
        if next.format != first.format || next.attributes & 7 != 0 || next.offset <= last {
            break;
        }
        (len, count, last) = (len + more, count + 1, next.offset);
    }
    Some((len, count, last, codec))
}

/// Compares messages with their checksums.
pub(super) fn verify(bytes: &[u8]) -> Result<(), RecordError> {
    let mut rest = bytes;
    while let Some((message, len)) = message(rest) {
        let expected = u32::from_be_bytes([rest[12], rest[13], rest[14], rest[15]]);
        let actual = crc_fast::crc32_iso_hdlc(&rest[CHECKED..len]);
        if actual != expected {
            return Err(RecordError::Checksum { base_offset: message.offset, expected, actual });
        }
        rest = &rest[len..];
    }
    Ok(())
}

/// The records of what [`gather`] found. `own` has what is decompressed, and what is written anew, as soon as it is there;
/// there is no other memory that grows with what was read: it is walked once to count, and again to write.
pub(super) fn open(
    bytes: &[u8],
    pool: &ChunkPool,
    limit: usize,
    own: impl Fn(Chunk) -> Bytes,
) -> Result<RecordBatch, RecordError> {
    let damaged = |base_offset, index| RecordError::Record { base_offset, index };
    let Some((outer, _)) = message(bytes) else { return Err(damaged(0, 0)) };
    let base_offset = outer.offset;
    let codec = i16::from(outer.attributes & 7);
    let inner;
    let set = if codec == 0 {
        Set { bytes, around: None }
    } else {
        let value = outer.value.ok_or(RecordError::Decompress { base_offset })?;
        let opened = compression::decompress(codec, pool, value, limit);
        inner = own(opened.map_err(|error| match error {
            DecompressError::OverLimit => RecordError::OverLimit { base_offset, limit },
            DecompressError::Damaged => RecordError::Decompress { base_offset },
            DecompressError::Unsupported => {
                RecordError::UnsupportedCompression { base_offset, codec: codec_name(codec) }
            }
        })?);
        Set { bytes: &inner, around: Some(outer) }
    };
    let counted = set.count().ok_or(match set.around {
        None => damaged(base_offset, 0),
        Some(_) => RecordError::Decompress { base_offset },
    })?;
    let Counted { first, last, base_timestamp, max_timestamp, size, count, too_far, added } =
        counted;
    if let Some(index) = too_far {
        return Err(damaged(base_offset, index));
    }
    let mut chunk = pool.get(size);
    for message in set.walk().flatten() {
        write(&mut chunk, &message.after(first, base_timestamp));
    }
    let walked = walk_checked(chunk.as_ref(), count, last - first)
        .map_err(|index| damaged(base_offset, index))?;
    let meta = Meta {
        base_offset: first + added,
        last_offset: (last + added).max(outer.offset),
        leader_epoch: -1,
        base_timestamp,
        max_timestamp,
        log_append: false,
        count,
        walked,
    };
    Ok(RecordBatch::new(own(chunk), meta))
}

/// Messages that fill some bytes.
struct Set<'a> {
    bytes: &'a [u8],
    /// The message whose value they were.
    around: Option<Message<'a>>,
}

/// What a set holds. Offsets are as they are written.
struct Counted {
    first: i64,
    last: i64,
    base_timestamp: i64,
    max_timestamp: i64,
    /// Bytes that its records take in format 2.
    size: usize,
    count: i32,
    /// The first message that is further from the first than format 2 can say.
    too_far: Option<i32>,
    /// What their offsets lack: in format 1 those within a message count from the set's first, and the outer one has the
    /// last.
    added: i64,
}

impl<'a> Set<'a> {
    /// One after the other; `None`: what is next is no message that may be in it. Nothing comes after that.
    fn walk(&self) -> impl Iterator<Item = Option<Message<'a>>> + use<'a> {
        let (mut rest, around) = (self.bytes, self.around);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let Some((mut message, len)) = message(rest) else {
                rest = &[];
                return Some(None);
            };
            rest = &rest[len..];
            if let Some(outer) = &around {
                // A set within a set is nothing that anybody writes.
                if message.format != outer.format || message.attributes & 7 != 0 {
                    rest = &[];
                    return Some(None);
                }
                if outer.attributes & APPEND_TIME != 0 {
                    message.timestamp = outer.timestamp;
                }
            }
            Some(Some(message))
        })
    }

    fn count(&self) -> Option<Counted> {
        let mut walk = self.walk();
        let one = walk.next()??;
        let mut counted = Counted {
            first: one.offset,
            last: one.offset,
            base_timestamp: one.timestamp,
            max_timestamp: one.timestamp,
            size: one.after(one.offset, one.timestamp).size(),
            count: 1,
            too_far: None,
            added: 0,
        };
        for message in walk {
            let message = message?;
            if message.offset <= counted.last {
                return None;
            }
            let Counted { first, base_timestamp, .. } = counted;
            let delta = message.offset.checked_sub(first);
            if delta.is_none_or(|delta| delta > i64::from(i32::MAX)) {
                counted.too_far.get_or_insert(counted.count);
            } else {
                counted.size += message.after(first, base_timestamp).size();
            }
            counted.last = message.offset;
            counted.max_timestamp = counted.max_timestamp.max(message.timestamp);
            counted.count = counted.count.checked_add(1)?;
        }
        if let Some(outer) = &self.around {
            if outer.format != 0 {
                counted.added = outer.offset.checked_sub(counted.last)?;
            }
            let first = counted.first.checked_add(counted.added)?;
            let last = counted.last.checked_add(counted.added)?;
            if first < 0 || last > outer.offset {
                return None;
            }
        }
        Some(counted)
    }
}

impl Message<'_> {
    /// The same, with offset and time counted from those of the first.
    fn after(self, offset: i64, timestamp: i64) -> Self {
        let (offset, timestamp) =
            (self.offset.wrapping_sub(offset), self.timestamp.wrapping_sub(timestamp));
        Self { offset, timestamp, ..self }
    }

    /// Bytes of its record.
    fn size(&self) -> usize {
        varint::len(len(self)) + len(self) as usize
    }
}

fn field_len(field: Option<&[u8]>) -> i64 {
    field.map_or(-1, |bytes| bytes.len() as i64)
}

/// What the length of a record of format 2 counts: attributes, two deltas, key, value, no headers.
fn len(message: &Message<'_>) -> i64 {
    let numbers =
        [message.timestamp, message.offset, field_len(message.key), field_len(message.value)];
    let bytes = field_len(message.key).max(0) + field_len(message.value).max(0);
    numbers.map(varint::len).iter().sum::<usize>() as i64 + bytes + 2
}

fn write(chunk: &mut Chunk, message: &Message<'_>) {
    let put = |chunk: &mut Chunk, value: i64| {
        let len = varint::put(chunk.room(), 0, value);
        chunk.advance(len);
    };
    put(chunk, len(message));
    chunk.push(&[0]);
    put(chunk, message.timestamp);
    put(chunk, message.offset);
    for field in [message.key, message.value] {
        put(chunk, field_len(field));
        chunk.push(field.unwrap_or_default());
    }
    chunk.push(&[0]);
}

#[cfg(test)]
mod tests;
