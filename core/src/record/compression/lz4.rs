//! LZ4, framed here over `lz4_flex`'s block functions: independent blocks of 64 KiB, which is a
//! quarter cheaper than a streaming encoder. Reading takes what any client writes: linked blocks,
//! blocks of up to 4 MiB, frames with checksums, several frames in a row. Those checksums are passed
//! over, as the CRC of the batch has covered all of it. A streaming decoder would compare them, and
//! clear a buffer of the block size for each frame: 4 MiB for 21 bytes, which a batch of a megabyte
//! can hold fifty thousand times.

use lz4_flex::block::{self, CompressTable};

use super::output::Filling;
use super::{DecompressError, Output};
use crate::record::pool::{Chunk, ChunkPool};

const BLOCK: usize = 64 << 10;
/// Magic, version 1 with independent blocks and no checksums (the batch has its own CRC),
/// blocks of at most 64 KiB, and the header's checksum, constant like the rest.
const FRAME_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Blocks that are no worth the large table.
const SMALL: usize = 4 << 10;
const STORED: u32 = 1 << 31;
/// Distance an LZ4 match may reach back.
const WINDOW: usize = 64 << 10;

/// Where matches are looked up, and where a block is written before it is known how long it gets.
pub(super) struct Tables {
    /// For small blocks: half the memory to clear.
    small: CompressTable,
    /// Looks up five bytes and not four, so that of the matches in records that resemble each other
    /// it finds the long ones: a twentieth less time and a twentieth less output.
    large: Option<CompressTable>,
    block: Vec<u8>,
    /// The first small chunks of a batch are joined: a block finds no match outside itself.
    joined: Vec<u8>,
}

impl Tables {
    fn new() -> Self {
        Self { small: CompressTable::small(), large: None, block: Vec::new(), joined: Vec::new() }
    }

    fn write(&mut self, input: &[u8], out: &mut Output<'_>) {
        let table = if input.len() < SMALL {
            &mut self.small
        } else {
            self.large.get_or_insert_with(CompressTable::large)
        };
        let most = block::get_maximum_output_size(input.len());
        if self.block.len() < most {
            self.block.resize(most, 0);
        }
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

/// Guesses above this are replaced by the count, which takes a fraction of the time that the bytes themselves
/// take.
const GUESSED: usize = 1 << 20;

/// What to make room for at first.
pub(super) fn estimate(input: &[u8], guess: usize) -> usize {
    if guess <= GUESSED {
        return guess;
    }
    // What is damaged shows again when it is decompressed.
    measure(input, usize::MAX).unwrap_or(guess)
}

/// Decompresses all frames of `input`.
pub(super) fn decompress(input: &[u8], out: &mut Filling<'_>) -> Result<(), DecompressError> {
    let mut start = 0;
    each_block(input, |frame, block| {
        if block.is_first {
            start = out.len();
        }
        if block.is_stored {
            return out.push(block.bytes);
        }
        // A byte of LZ4 stands for at most 255 bytes of output.
        let most = frame.block_max.min(block.bytes.len().saturating_mul(255));
        loop {
            let room = most.min(out.room());
            let (done, free) = out.split();
            let free = &mut free[..room];
            let window = &done[start.max(done.len().saturating_sub(WINDOW))..];
            let decoded = if frame.is_linked && !window.is_empty() {
                block::decompress_into_with_dict(block.bytes, free, window)
            } else {
                block::decompress_into(block.bytes, free)
            };
            match decoded {
                Ok(n) => {
                    out.advance(n);
                    return Ok(());
                }
                // The guess was too low, once for all that is to come, or it is more than the limit.
                Err(block::DecompressError::OutputTooSmall { .. }) if room < most => {
                    out.grow_to_measure()?;
                }
                Err(_) => return Err(DecompressError::Damaged),
            }
        }
    })
}

/// Counts what all frames of `input` decompress to: the lengths of literals and matches say it, without the
/// bytes themselves and whatever earlier block they are taken from.
pub(super) fn measure(input: &[u8], limit: usize) -> Result<usize, DecompressError> {
    let mut size = 0;
    each_block(input, |frame, block| {
        let len = if block.is_stored {
            block.bytes.len()
        } else {
            decompressed_len(block.bytes).ok_or(DecompressError::Damaged)?
        };
        if len > frame.block_max {
            return Err(DecompressError::Damaged);
        }
        size += len;
        if size > limit { Err(DecompressError::OverLimit) } else { Ok(()) }
    })?;
    Ok(size)
}

fn decompressed_len(block: &[u8]) -> Option<usize> {
    let mut rest = block;
    let mut size = 0;
    loop {
        let (&token, after) = rest.split_first()?;
        rest = after;
        let mut literals = usize::from(token >> 4);
        if literals == 15 {
            literals += take_length(&mut rest)?;
        }
        size += literals;
        rest = rest.get(literals..)?;
        // The last sequence is literals alone.
        if rest.is_empty() {
            return Some(size);
        }
        rest = rest.get(2..)?;
        let mut repeated = usize::from(token & 15);
        if repeated == 15 {
            repeated += take_length(&mut rest)?;
        }
        size += repeated + 4;
    }
}

/// The rest of a length that does not fit a token's four bits: bytes of 255, and a last one below.
fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let full = rest.iter().position(|&byte| byte != 255)?;
    let length = full * 255 + usize::from(rest[full]);
    *rest = &rest[full + 1..];
    Some(length)
}

/// A block of a frame, as it is there.
struct Block<'a> {
    bytes: &'a [u8],
    /// Not compressed.
    is_stored: bool,
    /// Of its frame; nothing before it is referred to.
    is_first: bool,
}

/// Gives all blocks of all frames.
fn each_block(
    input: &[u8],
    mut give: impl FnMut(&FrameInfo, Block<'_>) -> Result<(), DecompressError>,
) -> Result<(), DecompressError> {
    let mut rest = input;
    loop {
        let frame = FrameInfo::parse(rest).ok_or(DecompressError::Damaged)?;
        rest = &rest[frame.header..];
        let mut is_first = true;
        loop {
            let (size, after) = rest.split_first_chunk::<4>().ok_or(DecompressError::Damaged)?;
            let size = u32::from_le_bytes(*size);
            if size == 0 {
                rest = after.get(frame.content_checksum..).ok_or(DecompressError::Damaged)?;
                break;
            }
            let len = (size & !STORED) as usize;
            if len > frame.block_max || len > after.len() {
                return Err(DecompressError::Damaged);
            }
            let (bytes, after) = after.split_at(len);
            rest = after.get(frame.block_checksum..).ok_or(DecompressError::Damaged)?;
            give(&frame, Block { bytes, is_stored: size & STORED != 0, is_first })?;
            is_first = false;
        }
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// How to read one frame.
struct FrameInfo {
    /// Bytes before its first block.
    header: usize,
    /// Whether blocks refer to earlier ones.
    is_linked: bool,
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
            is_linked: flags & 0b10_0000 == 0,
            block_max,
            block_checksum: set(0b1_0000, 4),
            content_checksum: set(0b100, 4),
        })
    }
}
