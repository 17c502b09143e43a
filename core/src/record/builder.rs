//! The open batch: records in wire format, from the moment they are handed over.
//!
//! A batch grows by pooled chunks (1 KiB, then 4, 16 and 64), so that thousands of nearly empty ones
//! fit a budget and no byte is moved when one grows. Nothing is allocated for a record. The bytes
//! name no partition and no producer: [`SealedBatch::header`] writes those, as often as routing or
//! the producer epoch changes, without touching the records.

use bytes::Bytes;

use super::compression::{self, Compression, DecompressError};
use super::crc::{self, crc32c};
use super::pool::{Chunk, ChunkPool};
use super::{CRC_START, HEADER_LEN, varint};

/// Growth of an open batch: the sizes of its first chunks, and of every later one.
const GROWTH: [usize; 4] = [1 << 10, 4 << 10, 16 << 10, 64 << 10];

/// Most bytes of a records section: the batch length field is an `i32` and counts 49 header bytes.
const MAX_BODY: usize = i32::MAX as usize - HEADER_LEN;

/// Headers to write: their names, and their values or null.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HeaderList<'a> {
    /// Names are UTF-8.
    Text(&'a [(&'a str, Option<&'a [u8]>)]),
    /// Names are bytes, perhaps not UTF-8: headers of a record that is copied.
    Raw(&'a [(&'a [u8], Option<&'a [u8]>)]),
}

impl<'a> HeaderList<'a> {
    pub(crate) const NONE: Self = Self::Text(&[]);

    #[inline]
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Text(headers) => headers.len(),
            Self::Raw(headers) => headers.len(),
        }
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let (text, raw): (&[_], &[_]) = match self {
            Self::Text(headers) => (headers, &[]),
            Self::Raw(headers) => (&[], headers),
        };
        text.iter().map(|(name, value)| (name.as_bytes(), *value)).chain(raw.iter().copied())
    }
}

/// Why a record was not appended. The batch is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// This batch cannot take the record; an empty one could.
    BatchFull,
    /// No batch can: key, value, header or the whole is beyond the 2 GiB the format can express.
    TooLarge,
}

/// Sizes computed before a record is written, so that it is written in one go.
#[derive(Clone, Copy)]
struct Layout {
    timestamp_delta: i64,
    /// Bytes of the record without its length prefix.
    content: usize,
    /// Bytes of the record with its length prefix.
    total: usize,
}

/// An open batch.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    buffers: ChunkPool,
    /// The chunks that are full.
    chunks: Vec<Chunk>,
    /// Where the next record goes. Not the last one of `chunks`: to reach it through the vector's pointer would
    /// be one more cache miss for each record of a producer that sends to a thousand topics in turn.
    open: Chunk,
    bytes: usize,
    reserved: usize,
    records: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch; takes its first chunk with its first record.
    pub(crate) fn new(buffers: ChunkPool) -> Self {
        Self {
            buffers,
            chunks: Vec::new(),
            open: Chunk::empty(),
            bytes: 0,
            reserved: 0,
            records: 0,
            base_timestamp: 0,
            max_timestamp: 0,
        }
    }

    /// Records appended so far.
    pub(crate) fn len_records(&self) -> usize {
        self.records as usize
    }

    /// Bytes of the records section so far, before compression.
    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory held, whether written or not: they count against the budget.
    pub(crate) fn capacity_reserved(&self) -> usize {
        self.reserved
    }

    /// The timestamp, in milliseconds since 1970, that those of the records are stored relative to.
    pub(crate) fn base_timestamp(&self) -> i64 {
        self.base_timestamp
    }

    /// Takes the chunks out of the batch, in order; each record lies within one chunk. For moving the records
    /// to other batches.
    pub(crate) fn take_chunks(&mut self) -> Vec<Chunk> {
        let mut chunks = std::mem::take(&mut self.chunks);
        if self.open.len() > 0 {
            chunks.push(std::mem::replace(&mut self.open, Chunk::empty()));
        }
        chunks
    }

    /// Copies a record into the batch. Its index in the batch was [`len_records`] before.
    ///
    /// [`len_records`]: Self::len_records
    #[inline]
    pub(crate) fn append(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: HeaderList<'_>,
        timestamp_ms: i64,
    ) -> Result<(), AppendError> {
        if headers.is_empty() && self.append_small(key, value, timestamp_ms) {
            return Ok(());
        }
        self.append_any(key, value, headers, timestamp_ms)
    }

    /// The short way, for nearly every record: up to 8,000 bytes of key and value, the timestamp of the batch's
    /// first record, no headers, and room in the open chunk. Varints are put together in registers and stored 8
    /// bytes at a time. `false`, with nothing written, for any other record.
    #[inline]
    pub(crate) fn append_small(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_ms: i64,
    ) -> bool {
        let payload = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        // In an empty batch the open chunk has no room, so `append_any` writes the first record and sets the
        // base timestamp.
        let room = self.open.room();
        if timestamp_ms != self.base_timestamp
            || payload > Packed::PAYLOAD
            || self.records >= Packed::RECORDS
            || room.len() < payload + 3 * Packed::LEN
        {
            return false;
        }
        // Attributes (1 byte, 0), timestamp delta (1 byte, 0), offset delta.
        let index = Packed::medium(2 * self.records as u64);
        let deltas = Packed { bits: index.bits << 16, len: index.len + 2 };
        let (key_len, value_len) = (Packed::len_of(key), Packed::len_of(value));
        let content = deltas.len + key_len.len + value_len.len + payload + 1;
        let mut at = Packed::short(2 * content as u64).and(deltas).put(room, 0);
        if let Some(key) = key {
            at = key_len.put(room, at);
            room[at..at + key.len()].copy_from_slice(key);
            at = value_len.put(room, at + key.len());
        } else {
            // The null key is one byte.
            let both = Packed { bits: 1 | value_len.bits << 8, len: value_len.len + 1 };
            at = both.put(room, at);
        }
        if let Some(value) = value {
            room[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        }
        room[at] = 0; // no headers
        self.open.advance(at + 1);
        self.bytes += at + 1;
        self.records += 1;
        true
    }

    /// Sizes first, so that the record is written in one go.
    fn layout(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: HeaderList<'_>,
        timestamp_ms: i64,
    ) -> Result<Layout, AppendError> {
        let timestamp_delta =
            if self.records == 0 { 0 } else { timestamp_ms.wrapping_sub(self.base_timestamp) };
        let mut content = 1
            + varint::len(timestamp_delta)
            + varint::len(i64::from(self.records))
            + bytes_len(key)
            + bytes_len(value)
            + varint::len(headers.len() as i64);
        for (name, value) in headers.iter() {
            content += bytes_len(Some(name)) + bytes_len(value);
        }
        let total = varint::len(content as i64) + content;
        if total > MAX_BODY {
            return Err(AppendError::TooLarge);
        }
        if total > MAX_BODY - self.bytes || self.records == i32::MAX {
            return Err(AppendError::BatchFull);
        }
        Ok(Layout { timestamp_delta, content, total })
    }

    /// Any record; a new chunk where the open one has no room.
    #[cold]
    #[inline(never)]
    fn append_any(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: HeaderList<'_>,
        timestamp_ms: i64,
    ) -> Result<(), AppendError> {
        let layout = self.layout(key, value, headers, timestamp_ms)?;
        if self.records == 0 {
            self.base_timestamp = timestamp_ms;
            self.max_timestamp = timestamp_ms;
        } else {
            self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        }
        let index = i64::from(self.records);
        if self.open.room().len() < layout.total {
            let full = usize::from(self.open.len() > 0);
            let grown = GROWTH[(self.chunks.len() + full).min(GROWTH.len() - 1)];
            let next = self.buffers.get(grown.max(layout.total));
            self.reserved += next.capacity();
            let last = std::mem::replace(&mut self.open, next);
            self.chunks.extend((full > 0).then_some(last));
        }
        let out = &mut self.open.room()[..layout.total];
        let mut at = varint::put(out, 0, layout.content as i64);
        out[at] = 0; // attributes: none are defined for records
        at = varint::put(out, at + 1, layout.timestamp_delta);
        at = varint::put(out, at, index);
        at = put_bytes(out, at, key);
        at = put_bytes(out, at, value);
        at = varint::put(out, at, headers.len() as i64);
        for (name, value) in headers.iter() {
            at = put_bytes(out, at, Some(name));
            at = put_bytes(out, at, value);
        }
        debug_assert_eq!(at, layout.total);
        self.open.advance(layout.total);
        self.bytes += layout.total;
        self.records += 1;
        Ok(())
    }

    /// Closes the batch: compresses it if that makes it smaller, and computes the checksum of the
    /// records while they are still in cache. `None` for a batch without records, which the
    /// protocol does not know.
    pub(crate) fn seal(mut self, compression: Compression) -> Option<SealedBatch> {
        if self.records == 0 {
            return None;
        }
        let plain = self.take_chunks();
        let compressed = super::compression::compress(compression, &self.buffers, &plain);
        let (bits, chunks) = match compressed {
            Some(chunks) => (compression.bits(), chunks),
            None => (Compression::None.bits(), plain),
        };
        let body_reserved = chunks.iter().map(Chunk::capacity).sum();
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        let mut body_len = 0;
        for chunk in &chunks {
            digest.update(chunk.as_ref());
            body_len += chunk.len();
        }
        Some(SealedBatch {
            attributes: bits,
            body_crc: crc::Suffix::new(digest.finalize() as u32, body_len as u32),
            body_len,
            body_reserved,
            uncompressed_len: self.bytes,
            records: self.records,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            segments: chunks.into_iter().map(Chunk::freeze).collect(),
        })
    }
}

/// Up to 8 bytes in a register. `put` always stores 8; those beyond `len` are overwritten by the next field.
#[derive(Clone, Copy)]
struct Packed {
    bits: u64,
    len: usize,
}

impl Packed {
    const LEN: usize = 8;
    /// Up to this payload, in bytes, the lengths of record, key and value each fit a [`short`](Self::short)
    /// varint.
    const PAYLOAD: usize = 8_000;
    /// The offset deltas of this many records fit a [`medium`](Self::medium) varint.
    const RECORDS: i32 = 1 << 20;

    /// A varint below 2^14.
    #[inline]
    fn short(value: u64) -> Self {
        if value < 0x80 {
            Self { bits: value, len: 1 }
        } else {
            Self { bits: value & 0x7f | 0x80 | (value >> 7) << 8, len: 2 }
        }
    }

    /// A varint below 2^21.
    #[inline]
    fn medium(value: u64) -> Self {
        if value < 1 << 14 {
            return Self::short(value);
        }
        let low = value & 0x7f | 0x80 | (value >> 7 & 0x7f | 0x80) << 8;
        Self { bits: low | (value >> 14) << 16, len: 3 }
    }

    /// The length of a key or a value as written; that of null is -1, which is 1 as zigzag.
    #[inline]
    fn len_of(bytes: Option<&[u8]>) -> Self {
        bytes.map_or(Self { bits: 1, len: 1 }, |bytes| Self::short(2 * bytes.len() as u64))
    }

    /// Both; together they are 8 bytes at most.
    #[inline]
    fn and(self, next: Self) -> Self {
        Self { bits: self.bits | next.bits << (8 * self.len), len: self.len + next.len }
    }

    /// Writes all 8 bytes and gives the position after the `len` valid ones.
    #[inline]
    fn put(self, out: &mut [u8], at: usize) -> usize {
        out[at..at + Self::LEN].copy_from_slice(&self.bits.to_le_bytes());
        at + self.len
    }
}

#[inline]
fn bytes_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => 1,
        Some(bytes) => varint::len(bytes.len() as i64) + bytes.len(),
    }
}

#[inline]
fn put_bytes(out: &mut [u8], at: usize, bytes: Option<&[u8]>) -> usize {
    let Some(bytes) = bytes else {
        out[at] = 1; // zigzag of -1: null
        return at + 1;
    };
    let at = varint::put(out, at, bytes.len() as i64);
    let end = at + bytes.len();
    out[at..end].copy_from_slice(bytes);
    end
}

/// A closed batch: its records do not change any more, its header is written per attempt.
#[derive(Clone, Debug)]
pub(crate) struct SealedBatch {
    attributes: i16,
    body_crc: crc::Suffix,
    body_len: usize,
    body_reserved: usize,
    uncompressed_len: usize,
    records: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    segments: Vec<Bytes>,
}

impl SealedBatch {
    /// The batch's header for one attempt. `-1, -1, -1` for a producer without idempotence.
    ///
    /// Costs no pass over the records: the checksum is combined from that of the header and the
    /// one computed at sealing.
    pub(crate) fn header(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
    ) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        // Base offset 0: the broker assigns it.
        let length = (HEADER_LEN - 12 + self.body_len) as i32;
        header[8..12].copy_from_slice(&length.to_be_bytes());
        header[12..16].copy_from_slice(&(-1i32).to_be_bytes()); // leader epoch: the broker's
        header[16] = 2; // magic
        header[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        header[23..27].copy_from_slice(&(self.records - 1).to_be_bytes());
        header[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        header[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        header[43..51].copy_from_slice(&producer_id.to_be_bytes());
        header[51..53].copy_from_slice(&producer_epoch.to_be_bytes());
        header[53..57].copy_from_slice(&base_sequence.to_be_bytes());
        header[57..61].copy_from_slice(&self.records.to_be_bytes());
        let crc = self.body_crc.after(crc32c(&header[CRC_START..]));
        header[17..21].copy_from_slice(&crc.to_be_bytes());
        header
    }

    /// Bytes on the wire, header included.
    pub(crate) fn wire_len(&self) -> usize {
        HEADER_LEN + self.body_len
    }

    /// Bytes of memory held by the body.
    pub(crate) fn capacity_reserved(&self) -> usize {
        self.body_reserved
    }

    /// Bytes of the records before compression.
    pub(crate) fn uncompressed_len(&self) -> usize {
        self.uncompressed_len
    }

    /// Records in the batch, at least 1.
    pub(crate) fn records(&self) -> usize {
        self.records as usize
    }

    /// The timestamp, in milliseconds since 1970, that those of the records are stored relative to.
    pub(crate) fn base_timestamp(&self) -> i64 {
        self.base_timestamp
    }

    /// The timestamps of the first record and of the latest, in milliseconds since 1970.
    pub(crate) fn timestamps_ms(&self) -> (i64, i64) {
        (self.base_timestamp, self.max_timestamp)
    }

    /// The records as they were before compression, in one piece.
    pub(crate) fn records_section(&self, pool: &ChunkPool) -> Result<Bytes, DecompressError> {
        let joined = self.segments.concat();
        match self.attributes {
            0 => Ok(joined.into()),
            codec => {
                let limit = self.uncompressed_len;
                Ok(compression::decompress(codec, pool, &joined, limit)?.freeze())
            }
        }
    }

    /// The records section, in order.
    pub(crate) fn segments(&self) -> &[Bytes] {
        &self.segments
    }
}
