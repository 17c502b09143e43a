//! Codecs of a batch's records section.
//!
//! lz4 is framed here, over `lz4_flex`'s block functions: independent blocks of 64 KiB, straight from
//! the chunks of the open batch into pooled chunks, which is a quarter cheaper than a streaming
//! encoder. Reading takes what any client writes: linked blocks, blocks of up to 4 MiB, frames with
//! checksums, several frames in a row. Those checksums are passed over, as the CRC of the batch has
//! covered all of it. A streaming decoder would compare them, and clear a buffer of the block size for
//! each frame: 4 MiB for 21 bytes, which a batch of a megabyte can hold fifty thousand times.

use std::fmt;

#[cfg(feature = "lz4")]
use super::pool::{Chunk, ChunkPool};

/// How the records of a batch are compressed before they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// LZ4: little CPU, a good half of the bytes saved on JSON-like data. Needs the feature `lz4`.
    #[cfg(feature = "lz4")]
    Lz4,
}

impl Compression {
    /// The codec's bits in the attributes of a batch.
    pub(crate) fn bits(self) -> i16 {
        match self {
            Compression::None => 0,
            #[cfg(feature = "lz4")]
            Compression::Lz4 => 3,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(codec_name(self.bits()))
    }
}

/// What Kafka calls the codec with these attribute bits.
pub(crate) fn codec_name(bits: i16) -> &'static str {
    match bits {
        0 => "none",
        1 => "gzip",
        2 => "snappy",
        3 => "lz4",
        4 => "zstd",
        _ => "unknown",
    }
}

/// Why a payload could not be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecompressError {
    /// More than the limit came out, or would.
    OverLimit,
    /// Not what the codec writes.
    Damaged,
}

/// A chunk with twice the room, the content moved over; refused at the limit.
#[cfg(feature = "lz4")]
fn grow(pool: &ChunkPool, out: Chunk, room: usize, limit: usize) -> Result<Chunk, DecompressError> {
    if out.capacity() - out.len() >= room {
        return Ok(out);
    }
    // Doubling, and in the last step at once what the limit and one more block could need: while
    // the content is moved there are two of it, and two that are both as large as the limit would be
    // a third more.
    let need = out.len() + room;
    let double = out.capacity() * 2;
    let most = limit.saturating_add(room);
    let mut larger = pool.get(need.max(if double < limit { double } else { most }));
    larger.push(out.as_ref());
    Ok(larger)
}

#[cfg(feature = "lz4")]
pub(crate) mod lz4 {
    use lz4_flex::block::{self, CompressTable};

    use super::{Chunk, ChunkPool, DecompressError, grow};

    const BLOCK: usize = 64 << 10;
    /// Magic, version 1 with independent blocks and no checksums (the batch has its own CRC),
    /// blocks of at most 64 KiB, and the header's checksum, constant like the rest.
    const FRAME_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
    const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
    const STORED: u32 = 1 << 31;
    /// Distance an LZ4 match may reach back.
    const WINDOW: usize = 64 << 10;

    /// Compresses `input` as one frame into pooled chunks. `None` if it would not get smaller.
    pub(crate) fn compress(pool: &ChunkPool, input: &[Chunk]) -> Option<Vec<Chunk>> {
        let total: usize = input.iter().map(Chunk::len).sum();
        let mut frame = Frame {
            pool,
            out: vec![pool.get(worst_case(total.min(BLOCK)) + FRAME_HEADER.len() + 4)],
            table: if total < usize::from(u16::MAX) {
                CompressTable::small()
            } else {
                CompressTable::large()
            },
            written: 0,
            left: total,
        };
        frame.push(&FRAME_HEADER);
        // The first small chunks of a batch are joined: a block finds no match outside itself.
        let mut joined = pool.get(total.min(BLOCK));
        for chunk in input {
            let mut bytes = chunk.as_ref();
            let fits = joined.len() + bytes.len() <= joined.capacity().min(BLOCK);
            if fits && bytes.len() < BLOCK / 2 {
                joined.push(bytes);
                continue;
            }
            if joined.len() > 0 {
                frame.block(joined.as_ref());
                joined.clear();
            }
            while !bytes.is_empty() {
                let (block, rest) = bytes.split_at(bytes.len().min(BLOCK));
                frame.block(block);
                bytes = rest;
            }
        }
        if joined.len() > 0 {
            frame.block(joined.as_ref());
        }
        frame.push(&0u32.to_le_bytes());
        (frame.written < total).then_some(frame.out)
    }

    fn worst_case(input: usize) -> usize {
        4 + block::get_maximum_output_size(input)
    }

    struct Frame<'a> {
        pool: &'a ChunkPool,
        out: Vec<Chunk>,
        table: CompressTable,
        written: usize,
        left: usize,
    }

    impl Frame<'_> {
        fn room(&mut self, min: usize) -> &mut Chunk {
            let full = self.out.last().is_none_or(|last| last.capacity() - last.len() < min);
            if full {
                // As much as the rest can need, but not more than a few blocks.
                self.out.push(self.pool.get(min.max((self.left + 4).min(3 * BLOCK))));
            }
            let last = self.out.len() - 1;
            &mut self.out[last]
        }

        fn push(&mut self, bytes: &[u8]) {
            self.room(bytes.len()).push(bytes);
            self.written += bytes.len();
        }

        fn block(&mut self, input: &[u8]) {
            // Worst case first, so that the compressor writes straight into the chunk.
            let mut table = std::mem::take(&mut self.table);
            let chunk = self.room(worst_case(input.len()));
            let room = chunk.room();
            let compressed = block::compress_into_with_table(input, &mut room[4..], &mut table)
                .ok()
                .filter(|&len| len < input.len());
            let (size, len) = match compressed {
                Some(len) => (len as u32, len),
                None => {
                    room[4..4 + input.len()].copy_from_slice(input);
                    (input.len() as u32 | STORED, input.len())
                }
            };
            room[..4].copy_from_slice(&size.to_le_bytes());
            chunk.advance(4 + len);
            self.written += 4 + len;
            self.left -= input.len();
            self.table = table;
        }
    }

    /// Decompresses all frames of `input` into one pooled chunk of at most `limit` bytes.
    pub(crate) fn decompress(
        pool: &ChunkPool,
        input: &[u8],
        limit: usize,
    ) -> Result<Chunk, DecompressError> {
        let mut out = pool.get(input.len().saturating_mul(4).min(limit).min(1 << 20));
        let mut rest = input;
        loop {
            let frame = FrameInfo::parse(rest).ok_or(DecompressError::Damaged)?;
            out = frame.decode(pool, out, limit, &mut rest)?;
            if rest.is_empty() {
                return Ok(out);
            }
        }
    }

    /// How to read one frame.
    struct FrameInfo {
        /// Bytes before its first block.
        header: usize,
        /// Whether blocks refer to earlier ones.
        linked: bool,
        block_max: usize,
        /// Bytes behind each block, and behind the end mark.
        block_checksum: usize,
        content_checksum: usize,
    }

    impl FrameInfo {
        fn parse(input: &[u8]) -> Option<Self> {
            let (magic, rest) = input.split_first_chunk::<4>()?;
            let (&[flags, descriptor], _) = rest.split_first_chunk::<2>()?;
            // Version 01; no reserved bit, no dictionary.
            if *magic != MAGIC || flags & 0b1100_0011 != 0b0100_0000 {
                return None;
            }
            let block_max = match descriptor {
                0x40 => 64 << 10,
                0x50 => 256 << 10,
                0x60 => 1 << 20,
                0x70 => 4 << 20,
                _ => return None,
            };
            let set = |bit: u8, bytes: usize| if flags & bit != 0 { bytes } else { 0 };
            let header = FRAME_HEADER.len() + set(0b1000, 8);
            (input.len() >= header).then_some(Self {
                header,
                linked: flags & 0b10_0000 == 0,
                block_max,
                block_checksum: set(0b1_0000, 4),
                content_checksum: set(0b100, 4),
            })
        }

        fn decode(
            &self,
            pool: &ChunkPool,
            mut out: Chunk,
            limit: usize,
            rest: &mut &[u8],
        ) -> Result<Chunk, DecompressError> {
            let mut input = &rest[self.header..];
            let start = out.len();
            loop {
                let (size, after) =
                    input.split_first_chunk::<4>().ok_or(DecompressError::Damaged)?;
                let size = u32::from_le_bytes(*size);
                if size == 0 {
                    *rest = after.get(self.content_checksum..).ok_or(DecompressError::Damaged)?;
                    return Ok(out);
                }
                let len = (size & !STORED) as usize;
                if len > self.block_max || len > after.len() {
                    return Err(DecompressError::Damaged);
                }
                let (block, after) = after.split_at(len);
                input = after.get(self.block_checksum..).ok_or(DecompressError::Damaged)?;
                if size & STORED != 0 {
                    if len > limit - out.len() {
                        return Err(DecompressError::OverLimit);
                    }
                    out = grow(pool, out, len, limit)?;
                    out.push(block);
                    continue;
                }
                // A byte of LZ4 stands for at most 255 bytes of output: a small block asks for
                // little memory whatever its frame declares.
                let most = self.block_max.min(len.saturating_mul(255));
                let room = most.min(limit - out.len() + 1);
                out = grow(pool, out, room, limit)?;
                let (whole, filled) = out.whole();
                let (done, free) = whole.split_at_mut(filled);
                let free = &mut free[..room];
                let window = &done[start.max(filled.saturating_sub(WINDOW))..];
                let decoded = if self.linked && !window.is_empty() {
                    block::decompress_into_with_dict(block, free, window)
                } else {
                    block::decompress_into(block, free)
                };
                let n = match decoded {
                    Ok(n) => n,
                    Err(block::DecompressError::OutputTooSmall { .. }) if room < most => {
                        return Err(DecompressError::OverLimit);
                    }
                    Err(_) => return Err(DecompressError::Damaged),
                };
                out.advance(n);
                if out.len() > limit {
                    return Err(DecompressError::OverLimit);
                }
            }
        }
    }
}
