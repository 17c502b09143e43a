//! LZ4, framed here over `lz4_flex`'s block functions: independent blocks of 64 KiB, which is a
//! quarter cheaper than a streaming encoder. Reading takes what any client writes: frames without
//! checksums (Kafka's own, librdkafka's, ours) are decoded in place; others go through `lz4_flex`'s
//! frame decoder, which checks what they carry.

use std::io::Read;

use lz4_flex::block::{self, CompressTable};

use super::{DecompressError, Output, grow, grow_for_stream};
use crate::record::pool::{Chunk, ChunkPool};

const BLOCK: usize = 64 << 10;
/// Magic, version 1 with independent blocks and no checksums (the batch has its own CRC),
/// blocks of at most 64 KiB, and the header's checksum, constant like the rest.
const FRAME_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const STORED: u32 = 1 << 31;
/// Distance an LZ4 match may reach back.
const WINDOW: usize = 64 << 10;

/// Where matches are looked up, and where a block is written before it is known how long it gets.
pub(super) struct Tables {
    /// For blocks whose positions fit 16 bits: half the memory to clear and to keep in cache.
    small: CompressTable,
    large: CompressTable,
    block: Box<[u8]>,
    /// The first small chunks of a batch are joined: a block finds no match outside itself.
    joined: Vec<u8>,
}

impl Tables {
    fn new() -> Self {
        Self {
            small: CompressTable::small(),
            large: CompressTable::large(),
            block: vec![0; block::get_maximum_output_size(BLOCK)].into_boxed_slice(),
            joined: Vec::with_capacity(BLOCK),
        }
    }

    fn write(&mut self, input: &[u8], out: &mut Output<'_>) {
        let fits = input.len() < usize::from(u16::MAX);
        let table = if fits { &mut self.small } else { &mut self.large };
        match block::compress_into_with_table(input, &mut self.block, table) {
            Ok(len) if len < input.len() => {
                out.push(&(len as u32).to_le_bytes());
                out.push(&self.block[..len]);
            }
            _ => {
                out.push(&(input.len() as u32 | STORED).to_le_bytes());
                out.push(input);
            }
        }
    }

    fn write_joined(&mut self, out: &mut Output<'_>) {
        if !self.joined.is_empty() {
            let joined = std::mem::take(&mut self.joined);
            self.write(&joined, out);
            self.joined = joined;
            self.joined.clear();
        }
    }
}

/// Compresses `input` as one frame. `None` if it would not get smaller.
pub(super) fn compress(pool: &ChunkPool, input: &[Chunk]) -> Option<Vec<Chunk>> {
    pool.contexts().lz4.lend(Tables::new, |tables| {
        let mut out = Output::new(pool, input);
        out.push(&FRAME_HEADER);
        tables.joined.clear();
        for bytes in input.iter().map(Chunk::as_ref) {
            if bytes.len() < BLOCK / 2 && tables.joined.len() + bytes.len() <= BLOCK {
                tables.joined.extend_from_slice(bytes);
                continue;
            }
            tables.write_joined(&mut out);
            for block in bytes.chunks(BLOCK) {
                tables.write(block, &mut out);
            }
            if out.is_useless() {
                return None;
            }
        }
        tables.write_joined(&mut out);
        out.push(&0u32.to_le_bytes());
        out.finish()
    })
}

/// Decompresses all frames of `input`.
pub(super) fn decompress(
    pool: &ChunkPool,
    input: &[u8],
    mut out: Chunk,
    limit: usize,
) -> Result<Chunk, DecompressError> {
    let mut rest = input;
    loop {
        out = match Plain::parse(rest) {
            Some(frame) => frame.decode(pool, out, limit, &mut rest)?,
            None => checked(pool, out, limit, &mut rest)?,
        };
        if rest.is_empty() {
            return Ok(out);
        }
    }
}

/// A frame without checksums or dictionary. Its header's own checksum is not looked at: the
/// CRC of the batch has covered it.
struct Plain {
    header: usize,
    linked: bool,
    block_max: usize,
}

impl Plain {
    fn parse(input: &[u8]) -> Option<Self> {
        let (magic, rest) = input.split_first_chunk::<4>()?;
        let (&[flags, descriptor], _) = rest.split_first_chunk::<2>()?;
        // Version 01; reserved bit, block and content checksums and dictionary clear.
        if *magic != MAGIC || flags & 0b1101_0111 != 0b0100_0000 {
            return None;
        }
        let block_max = match descriptor {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return None,
        };
        let size = if flags & 0b1000 != 0 { 8 } else { 0 };
        let header = FRAME_HEADER.len() + size;
        (input.len() >= header).then_some(Self {
            header,
            linked: flags & 0b10_0000 == 0,
            block_max,
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
            let (size, after) = input.split_first_chunk::<4>().ok_or(DecompressError::Damaged)?;
            let size = u32::from_le_bytes(*size);
            if size == 0 {
                *rest = after;
                return Ok(out);
            }
            let len = (size & !STORED) as usize;
            if len > self.block_max || len > after.len() {
                return Err(DecompressError::Damaged);
            }
            let (block, after) = after.split_at(len);
            input = after;
            if size & STORED != 0 {
                if len > limit - out.len() {
                    return Err(DecompressError::OverLimit);
                }
                out = grow(pool, out, len, limit);
                out.push(block);
                continue;
            }
            // A byte of LZ4 stands for at most 255 bytes of output: a small block asks for
            // little memory whatever its frame declares.
            let most = self.block_max.min(len.saturating_mul(255));
            let room = most.min(limit - out.len() + 1);
            out = grow(pool, out, room, limit);
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

/// Any other frame, through the decoder that verifies its checksums.
fn checked(
    pool: &ChunkPool,
    mut out: Chunk,
    limit: usize,
    rest: &mut &[u8],
) -> Result<Chunk, DecompressError> {
    let before = rest.len();
    let mut decoder = lz4_flex::frame::FrameDecoder::new(&mut *rest);
    loop {
        let room;
        (out, room) = grow_for_stream(pool, out, limit);
        let n = decoder.read(&mut out.room()[..room]).map_err(|_| DecompressError::Damaged)?;
        out.advance(n);
        if out.len() > limit {
            return Err(DecompressError::OverLimit);
        }
        if n == 0 {
            break;
        }
    }
    drop(decoder);
    if rest.len() == before {
        return Err(DecompressError::Damaged);
    }
    Ok(out)
}
